"""``tg.jit``: torch's compiler of Python, switched off: functions stay as they are; `tapegrad.compile` compiles steps.

What marks functions for that compiler gives them back, `script` and `trace` with one warning. What would need its
programs (`load`, `save`) raises StateError.
"""

from __future__ import annotations

import builtins
import contextlib
import warnings
from collections.abc import Callable
from typing import Any, Final, TypeVar

from .core import StateError
from .nn import Module

T = TypeVar("T")

_said: set[str] = set()

ScriptModule = Module


class ScriptFunction:
    """The kind of a compiled function, of which there is none."""


def _once(name: str) -> None:
    if name not in _said:
        _said.add(name)
        warnings.warn(
            f"jit.{name}: functions and modules stay as they are; tg.compile compiles steps", RuntimeWarning, 3
        )


def script(obj: T, *args: Any, **kwargs: Any) -> T:
    """``obj`` itself, and a warning the first time."""
    _once("script")
    return obj


def trace(func: T, *args: Any, **kwargs: Any) -> T:
    """``func`` itself, and a warning the first time."""
    _once("trace")
    return func


def _identity(name: str) -> Callable[..., Any]:
    def function(obj: Any = None, *args: Any, **kwargs: Any) -> Any:
        return obj if callable(obj) else _identity(name)  # as a decorator, with or without arguments

    function.__name__ = function.__qualname__ = name
    function.__doc__ = "The function or module itself."
    return function


def _refusing(name: str) -> Callable[..., Any]:
    def function(*args: Any, **kwargs: Any) -> Any:
        raise StateError(f"jit.{name}: there are no programs of torch's; tg.save and tg.load keep state dicts")

    function.__name__ = function.__qualname__ = name
    function.__doc__ = "Raises StateError."
    return function


_IDENTITIES = "script_method script_if_tracing export ignore unused interface freeze optimize_for_inference _overload"
_IDENTITIES += " _overload_method _script_if_tracing"
_REFUSED = "load save trace_module"
globals().update({name: _identity(name) for name in _IDENTITIES.split()})
globals().update({name: _refusing(name) for name in _REFUSED.split()})

__all__ = ["Final", "ScriptFunction", "ScriptModule", "annotate", "fork", "is_scripting", "is_tracing", "isinstance"]
__all__ += ["optimized_execution", "script", "strict_fusion", "trace", "wait"]
__all__ += [name for name in (*_IDENTITIES.split(), *_REFUSED.split()) if name[0] != "_"]


def is_scripting() -> bool:
    """False."""
    return False


def is_tracing() -> bool:
    """False."""
    return False


def annotate(the_type: Any, the_value: T) -> T:
    """The value."""
    return the_value


def isinstance(obj: Any, target_type: Any) -> bool:
    """Python's `isinstance`."""
    return builtins.isinstance(obj, target_type)


def fork(func: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    """``func(*args, **kwargs)``, at once."""
    return func(*args, **kwargs)


def wait(future: T) -> T:
    """What `fork` gave."""
    return future


def optimized_execution(should_optimize: bool) -> Any:
    """A context manager that changes nothing."""
    return contextlib.nullcontext()


def strict_fusion() -> Any:
    """A context manager that changes nothing."""
    return contextlib.nullcontext()
