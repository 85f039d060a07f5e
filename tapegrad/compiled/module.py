"""A compiled module: called like the module, and is one, with the module's own attributes."""

from __future__ import annotations

from typing import Any, TypeVar

from ..core import mode
from ..nn import Module
from .step import Compiled

M = TypeVar("M", bound=Module)


class CompiledForward(Compiled):
    """The calls of a compiled module. Where gradients are recorded, in a step or outside, the module itself is called:
    a replay leaves no tape behind, and a compiled step records what the module does. (With ``fullgraph=True`` a result
    that could be differentiated is refused instead.)"""

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return self

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if mode.tracer is not None or mode.watched or (mode.record and self.lenient):
            return self.fn(*args, **kwargs)
        return self._alone(self._call, args, kwargs)


class _Forwarded:
    """What a compiled step has besides its call; an attribute of the module that has this name goes first."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return self if instance is None else getattr(compiled_forward(instance), self.name)


_FORWARDED = {"explain": "explain", "profile": "profile", "programs": "programs", "_orig_mod": "fn"}


def compiled_forward(module: Any) -> CompiledForward | None:
    """The calls behind a compiled module; None for any other."""
    found = vars(type(module)).get("__call__")
    return found if isinstance(found, CompiledForward) else None


def compiled_module(module: M, exact: bool, cache_size: int, lenient: bool) -> M:
    """A module of its own class derived from the module's, whose instance dict is the module's: parameters, buffers,
    layers, modes and hooks are the same ones, and what is assigned to either is assigned to both."""
    known = compiled_forward(module)
    if known is not None:
        inner: Any = known.fn
        module = inner
    kind, forward = type(module), CompiledForward(module, exact, cache_size, lenient)
    names: dict[str, Any] = {"__call__": forward, "__module__": kind.__module__, "__doc__": kind.__doc__}
    names["__reduce_ex__"] = lambda self, protocol: (compiled_module, (module, exact, cache_size, lenient))
    names |= {name: _Forwarded(known) for name, known in _FORWARDED.items() if not hasattr(kind, name)}
    made: M = object.__new__(type(f"Compiled{kind.__name__}", (kind,), names))
    object.__setattr__(made, "__dict__", vars(module))
    return made
