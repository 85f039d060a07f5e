"""Calls of a network under `no_grad` that come again and again, compiled without being asked.

That is safe for networks of this package's own layers alone: their forward functions are known to be what the guards
see, namely parameters, buffers, options and modes. So there is no refusal and no warning here: what is not served by a
program runs as it is.
"""

from __future__ import annotations

import weakref
from typing import Any

from ..core import CompileError, Tensor, mode
from ..nn import Module
from .arguments import Arguments
from .bind import Bound
from .facts import Fact, collect
from .step import Compiled
from .trace import Trace
from .uncompiled import REST

FROM = 16  # the call from which on recording is worth its time
SMALL = 4096  # elements of the input up to which it is; what is larger takes its time in the kernels


class Habit(Compiled):
    """The calls ``model.method(x)``. The model is not kept alive: it holds this object.

    ``modes``: the method sets every layer's mode itself, so that they do not matter.
    """

    def __init__(self, model: Module, method: str, modes: bool) -> None:
        super().__init__(getattr(type(model), method), exact=True, cache_size=4, lenient=True)
        self._model = weakref.ref(model)
        self._method = method
        self._modes = modes
        self._seen = 0
        self._uncompiled.is_quiet()

    def _inner(self) -> Any:
        return getattr(self._model(), self._method)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self._seen += 1
        if self._seen < FROM or mode.tracer is not None or mode.watched or not _is_small(*args):
            return self._inner()(*args, **kwargs)
        return self._alone(self._call, args, kwargs)

    def _record(
        self, given: Arguments, known: Bound | None, scalar: bool = False, undo: list[Any] | None = None
    ) -> Any:
        model = self._model()
        assert model is not None
        if _is_known(model):
            return super()._record(given, known, scalar, undo)
        self._seen = -REST
        return self._inner()(*given.args)

    def _world(self, trace: Trace | None) -> list[Fact]:
        if trace is None:
            return []
        model = self._model()
        assert model is not None
        modules = list(model.modules())
        facts = collect(model, trace.codes, [(vars(m), "training") for m in modules] if self._modes else ())
        return [fact for fact in facts if fact.container is not model]  # which it would keep alive

    def _audit(self, known: Bound, trace: Trace) -> bool:
        try:
            return super()._audit(known, trace)
        except CompileError:  # what was recorded now is right, and the program is gone
            return False


def _is_small(x: Any, *more: Any) -> bool:
    value = x._data if isinstance(x, Tensor) else x
    size = getattr(value, "size", None)
    return not more and (value.numel() if callable(size) else size or SMALL + 1) <= SMALL


def _is_known(model: Module) -> bool:
    """Whether all that runs in a forward is this package's."""
    return all(
        type(m).__module__.startswith("tapegrad.nn.") and m._hooks is None and "forward" not in vars(m)
        for m in model.modules()
    )
