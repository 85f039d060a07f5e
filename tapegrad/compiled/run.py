"""Whole epochs in C++: what ``step.run`` does, equal to calling the step over `tapegrad.data.batches`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from ..core import _C, ArgumentError, CompileError, ShapeError, Tensor, nonfinite_index
from ..data import batches
from ..data.arguments import as_rows, as_seed
from ..data.streams import drawn_seed
from .progress import Bar

if TYPE_CHECKING:
    from .bind import Bound
    from .step import Compiled


def run_epochs(
    step: Compiled,
    arrays: tuple[Any, ...],
    batch_size: int,
    epochs: int,
    shuffle: bool,
    drop_last: bool,
    seed: int | None,
    *,
    on_epoch: Callable[[int, Tensor], Any] | None,
    progress: bool,
) -> Tensor:
    """See `Compiled.run`."""
    batches(*arrays, batch_size=batch_size, shuffle=False, drop_last=drop_last)  # checks its arguments
    values = [as_rows(a, f"run: arrays[{i}]") for i, a in enumerate(arrays)]
    if isinstance(epochs, bool) or not isinstance(epochs, int) or epochs < 0:
        raise ArgumentError(f"run: epochs must be an integer of at least 0; got {epochs!r}")
    for i, value in enumerate(values):
        bad = nonfinite_index(value)
        if bad is not None:
            raise ArgumentError(f"run: arrays[{i}] must be finite; element {bad} is {value[tuple(bad)].item()}")
    n = len(values[0])
    full, rest = divmod(n, batch_size)
    steps = full + (1 if rest and not drop_last else 0)
    if steps == 0:
        raise ShapeError(f"run: batch_size = {batch_size} leaves no batch of {n} rows")
    chosen = 0
    if shuffle:
        chosen = drawn_seed() if seed is None else as_seed(seed, "run: seed")
        values = [value.contiguous() for value in values]  # rows are gathered, each from one piece of memory
    losses = Losses(epochs, steps)
    known: dict[int, Bound] = {}
    with Bar(epochs * steps, progress, epochs) as bar, step.told(bar.stage):
        for epoch in range(epochs):
            order = _C.permutation(n, chosen, epoch) if shuffle else None
            Epoch(step, arrays, values, order, batch_size, full, losses.row(epoch), bar, known).run(steps)
            bar.epoch(epoch, losses.values)
            if on_epoch is not None:
                if on_epoch(epoch, losses.epoch(epoch)):
                    return losses.up_to(epoch + 1)
                known.clear()
    return losses.up_to(epochs)


@dataclass
class Epoch:
    """One pass over the data: in C++ as soon as there is a program for a batch's shape, step by step until then."""

    step: Compiled
    arrays: tuple[Any, ...]  # as given
    values: list[torch.Tensor]
    order: torch.Tensor | None
    batch_size: int
    full: int  # batches of that size
    losses: Row
    bar: Bar
    known: dict[int, Bound] = field(
        default_factory=dict
    )  # the programs by rows of a batch, as long as no code of the user's has run

    def run(self, steps: int, at: int = 0) -> None:
        """Batches ``at`` .. steps."""
        while at < steps:
            bound = self.program(at)
            if bound is not None:
                at += self.replay(bound, at, self.full - at if at < self.full else 1)
            if bound is None or (at < steps and bound.met_bad_values):
                self.losses.put(at, self.step.loss(self.batch(at)))
                at += 1
                self.bar.to(1, self.losses.last(at - 1))

    def program(self, at: int) -> Bound | None:
        """What serves batch number ``at``, if there is a program for it."""
        rows = self.batch_size if at < self.full else -1
        bound = self.known.get(rows)
        if bound is not None and bound.stale() is None:
            return bound
        bound = self.step.ready_for(self.batch(at))
        if bound is None or (self.order is None and bound.executor.overlaps(self.values)):
            return None  # some batches share memory with what the step reads and writes
        self.known[rows] = bound
        return bound

    def batch(self, at: int) -> list[Any]:
        """Batch number ``at``, as `tapegrad.data.batches` gives it."""
        rows = slice(at * self.batch_size, (at + 1) * self.batch_size)
        parts = [v[rows] if self.order is None else v.index_select(0, self.order[rows]) for v in self.values]
        return [Tensor(p) if isinstance(a, Tensor) else p for p, a in zip(parts, self.arrays, strict=True)]

    def replay(self, bound: Bound, at: int, count: int) -> int:
        """``count`` batches of one size from ``at`` on. Returns how many were done before bad values stopped it."""
        if not bound.scalar_loss:
            raise CompileError("run: the step must return its loss, a 0-dim tensor")
        start = at * self.batch_size
        n = len(self.values[0] if self.order is None else self.order)
        size = self.batch_size if at < self.full else n - start
        rows = slice(start, start + size * count)
        arrays = self.values if self.order is not None else distinct([v[rows] for v in self.values])
        order = None if self.order is None else self.order[rows]
        out = self.losses.space(bound.trace.result.ref.dtype)[at : at + count]
        shown = 0

        def tick(done: int) -> bool:
            nonlocal shown
            self.bar.to(done - shown, out[done - 1] if done else None)
            shown = done
            return True

        done = bound.run(arrays, order, size, count, out, tick)
        self.bar.to(done - shown, out[done - 1] if done else None)
        return done


def same_as(arrays: Sequence[torch.Tensor]) -> list[int]:
    """For each the index of the first that is the same view of the same memory: its own, or one before it."""
    first: dict[Any, int] = {}
    keys = [(a.untyped_storage()._cdata, a.storage_offset(), a.shape, a.stride(), a.dtype) for a in arrays]
    return [first.setdefault(key, i) for i, key in enumerate(keys)]


def distinct(arrays: list[torch.Tensor]) -> list[torch.Tensor]:
    """Each once: an argument given twice is one to a program."""
    return [a for i, (a, first) in enumerate(zip(arrays, same_as(arrays), strict=True)) if i == first]


class Losses:
    """The losses of a run, [epochs, steps]; their dtype is known with the first."""

    def __init__(self, epochs: int, steps: int, make: Callable[[torch.dtype], torch.Tensor] | None = None) -> None:
        self.shape = (epochs, steps)
        self.make = make or (lambda dtype: torch.full(self.shape, torch.nan, dtype=dtype))
        self.values: torch.Tensor | None = None

    def row(self, epoch: int) -> Row:
        """Where an epoch's losses go."""
        return Row(self, epoch)

    def space(self, dtype: torch.dtype) -> torch.Tensor:
        """Memory for all of them."""
        if self.values is None:
            self.values = self.make(dtype)
        return self.values

    def epoch(self, epoch: int) -> Tensor:
        """A copy of one epoch's losses."""
        assert self.values is not None
        return Tensor(self.values[epoch].clone())

    def up_to(self, epochs: int) -> Tensor:
        """The losses of the first epochs."""
        return Tensor(self.space(torch.get_default_dtype())[:epochs])


class Row:
    """One epoch's losses."""

    def __init__(self, losses: Losses, epoch: int) -> None:
        self.losses = losses
        self.epoch = epoch

    def space(self, dtype: torch.dtype) -> torch.Tensor:
        """Memory for this epoch's losses."""
        return self.losses.space(dtype)[self.epoch]

    def last(self, i: int) -> torch.Tensor | None:
        """The loss of batch ``i``."""
        return None if self.losses.values is None else self.losses.values[self.epoch, i]

    def put(self, i: int, loss: Any) -> None:
        """Note what the step returned for batch ``i``."""
        value = loss._data if isinstance(loss, Tensor) else loss
        if not isinstance(value, torch.Tensor) or value.ndim:
            raise CompileError(f"run: the step must return its loss, a 0-dim tensor; it returned {type(loss).__name__}")
        self.space(value.dtype)[i] = value
