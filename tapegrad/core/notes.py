"""What an open tape notes of an entry beside the list itself: times, the module it ran in, its values and gradients."""

from __future__ import annotations

import sys
import time
import weakref
from collections.abc import Sequence
from itertools import pairwise
from types import CodeType
from typing import Any, NamedTuple

import torch

calls_of_modules: set[CodeType] = (
    set()
)  # code whose ``self`` is a module that is being called; `nn.Module` adds its own


class Stats(NamedTuple):
    """Of the finite elements of a value; `bad` is how many are not."""

    mean: float
    std: float
    min: float
    max: float
    zeros: float  # share
    bad: int

    @classmethod
    def of(cls, value: torch.Tensor) -> Stats | None:
        """None where there is nothing to average."""
        if not value.is_floating_point() or value.numel() == 0:
            return None
        finite = value
        bad = value.numel() - int(value.isfinite().sum())
        if bad:
            finite = value[value.isfinite()]
            if finite.numel() == 0:
                nan = float("nan")
                return cls(nan, nan, nan, nan, 0.0, bad)
        low, high = torch.aminmax(finite)
        std, mean = torch.std_mean(finite, correction=0)
        zeros = 1 - int(torch.count_nonzero(finite)) / value.numel()
        return cls(float(mean), float(std), float(low), float(high), zeros, bad)


class Note:
    """Of one entry: seconds since the one before it, module path, memory, statistics of outputs and their gradients."""

    __slots__ = ("backward", "forward", "gradients", "made", "path", "saved", "values")

    def __init__(self, forward: float, path: tuple[str, ...], values: list[Stats | None]) -> None:
        self.forward = forward
        self.backward: float | None = None  # until backward had the next entry's gradient
        self.path = path
        self.values = values
        self.gradients: list[Stats | None] = [None] * len(values)
        self.made: list[tuple[int, int]] = []  # (address, bytes) of each output's storage
        self.saved: list[int] = []  # addresses of the storages that are held for backward


class Notes:
    """The notes of a tape, by entry, in its order."""

    def __init__(self) -> None:
        self.of: list[Note] = []
        self.roots: weakref.WeakSet[Any] = weakref.WeakSet()  # modules that were called by no module
        self._names: dict[tuple[int, int], str] = {}
        self._clock = time.perf_counter()
        self._under_way: tuple[Note, float] | None = None  # the entry whose rule backward is in

    def restart(self) -> None:
        """The tape is opened: the next entry's time starts here."""
        self._clock = time.perf_counter()

    def add(self, entry: Any, outputs: Sequence[torch.Tensor]) -> None:
        """One more entry, just recorded."""
        seconds = time.perf_counter() - self._clock
        note = Note(seconds, self._path(), [Stats.of(value) for value in outputs])
        note.made = [(v.untyped_storage().data_ptr(), v.untyped_storage().nbytes()) for v in outputs]
        note.saved = [v.untyped_storage().data_ptr() for v in entry.saved.values()]
        self.of.append(note)
        if entry.hooks is None:
            entry.hooks = {}
        for i in range(len(outputs)):
            entry.hooks[-(2**40) - i] = (i, _Gradient(self, note, i))  # negative: after every other hook
        self._clock = time.perf_counter()

    def gradient(self, note: Note, i: int, g: Any) -> None:
        """Backward has the gradient of an entry's output, and is about to apply its rule."""
        now = time.perf_counter()
        if self._under_way is not None and self._under_way[0] is not note:
            before, start = self._under_way
            before.backward = now - start
        note.gradients[i] = Stats.of(getattr(g, "data", g))
        self._under_way = note, time.perf_counter()

    def _path(self) -> tuple[str, ...]:
        """The modules being called, from the outermost to the innermost, by their names in one another."""
        modules: list[Any] = []
        frame: Any = sys._getframe(1)
        while frame is not None:
            if frame.f_code in calls_of_modules:
                modules.append(frame.f_locals["self"])
            frame = frame.f_back
        if not modules:
            return ()
        modules.reverse()
        self.roots.add(modules[0])
        path = [type(modules[0]).__name__]
        return (*path, *(self._name(outer, inner) for outer, inner in pairwise(modules)))

    def _name(self, outer: Any, inner: Any) -> str:
        key = id(outer), id(inner)
        if key not in self._names:
            found = (name for name, module in outer.named_modules() if module is inner and name)
            self._names[key] = next(found, type(inner).__name__)
        return self._names[key]


class _Gradient:
    """A hook that notes the gradient and lets it pass."""

    __slots__ = ("i", "note", "notes")

    def __init__(self, notes: Notes, note: Note, i: int) -> None:
        self.notes, self.note, self.i = notes, note, i

    def __call__(self, g: Any) -> Any:
        self.notes.gradient(self.note, self.i, g)
        return g
