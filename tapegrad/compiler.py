"""``tg.compiler``: what scripts tell torch's compiler. `tapegrad.compile` needs none of it, so functions stay."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from .core import mode as switches

__all__ = ["allow_in_graph", "assume_constant_result", "config", "cudagraph_mark_step_begin", "disable"]
__all__ += ["is_compiling", "is_dynamo_compiling", "is_exporting", "reset", "set_stance"]

config = SimpleNamespace(suppress_errors=False, cache_size_limit=8, verbose=False)


def is_compiling() -> bool:
    """Whether a step that `tapegrad.compile` compiles is being recorded."""
    return switches.tracer is not None  # type: ignore[attr-defined]


is_dynamo_compiling = is_compiling


def is_exporting() -> bool:
    """False."""
    return False


def disable(fn: Any = None, recursive: bool = True, *, reason: str | None = None) -> Any:
    """The function itself; as a decorator with or without arguments."""
    return fn if callable(fn) else disable


def allow_in_graph(fn: Callable[..., Any]) -> Callable[..., Any]:
    """The function itself."""
    return fn


def assume_constant_result(fn: Callable[..., Any]) -> Callable[..., Any]:
    """The function itself."""
    return fn


def reset() -> None:
    """Every compiled step keeps its own programs; there is nothing to reset."""


def set_stance(stance: str, **options: Any) -> None:
    """Accepted, and changes nothing."""


def cudagraph_mark_step_begin() -> None:
    """There are no graphs of a CUDA device."""
