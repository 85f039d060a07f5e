"""Whole epochs in C++: what ``step.run`` does, equal to calling the step over `tapegrad.data.batches`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from .._ext import _C
from ..arguments import as_rows, as_seed
from ..data import batches, drawn_seed
from ..errors import ArgumentError, CompileError, ShapeError
from ..tensor import Tensor

if TYPE_CHECKING:
    from .bind import Bound
    from .compiled import Compiled


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
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            bad = torch.nonzero(~torch.isfinite(value))[0].tolist()
            raise ArgumentError(f"run: arrays[{i}] must be finite; element {bad} is {value[tuple(bad)].item()}")
    n = len(values[0])
    full, rest = divmod(n, batch_size)
    steps = full + (1 if rest and not drop_last else 0)
    if steps == 0:
        raise ShapeError(f"run: batch_size = {batch_size} leaves no batch of {n} rows")
    chosen = 0
    if shuffle:
        chosen = drawn_seed() if seed is None else as_seed(seed, "run: seed")
    losses = Losses(epochs, steps)
    with Bar(epochs * steps, progress) as bar:
        for epoch in range(epochs):
            order = _C.permutation(n, chosen, epoch) if shuffle else None
            one_epoch(step, arrays, values, order, batch_size, full, steps, losses.row(epoch), bar)
            if on_epoch is not None and on_epoch(epoch, losses.epoch(epoch)):
                return losses.up_to(epoch + 1)
    return losses.up_to(epochs)


def one_epoch(
    step: Compiled,
    arrays: tuple[Any, ...],
    values: list[torch.Tensor],
    order: torch.Tensor | None,
    batch_size: int,
    full: int,
    steps: int,
    losses: Row,
    bar: Bar,
) -> None:
    """Batches 0 .. steps: in C++ as soon as there is a program for their shape, by calling the step until then."""
    at = 0
    while at < steps:
        rows_of = slice(at * batch_size, (at + 1) * batch_size)
        batch = [v[rows_of] if order is None else v.index_select(0, order[rows_of]) for v in values]
        given = [like(b, a) for b, a in zip(batch, arrays, strict=True)]
        bound = step.ready_for(given)
        if bound is None:
            losses.put(at, step(*given))
            at += 1
            bar.to(1)
            continue
        count = full - at if at < full else 1
        at += replay(
            bound, values, order, batch_size if at < full else len(batch[0]), at, count, losses, bar, batch_size
        )
        bound.leave()


def replay(
    bound: Bound,
    values: list[torch.Tensor],
    order: torch.Tensor | None,
    size: int,
    at: int,
    count: int,
    losses: Row,
    bar: Bar,
    batch_size: int,
) -> int:
    """``count`` batches of ``size`` rows from batch ``at`` on, in C++. Returns how many were done."""
    if not bound.scalar_loss:
        raise CompileError("run: the step must return its loss, a 0-dim tensor")
    start = at * batch_size
    arrays = values if order is not None else [v[start : start + size * count] for v in values]
    part = None if order is None else order[start : start + size * count]
    out = losses.space(bound.trace.result.ref.dtype)[at : at + count]
    blocks = bound.draws(0)
    done = 0

    def tick(steps: int) -> bool:
        nonlocal done
        bar.to(steps - done)
        done = steps
        return True

    finished = 0
    try:
        finished = bound.executor.run(arrays, part, size, 0, count, out, bound.numbers(), blocks, tick)
    finally:
        bound.calls += finished
        bound.draws(bound.executor.steps)
    bar.to(finished - done)
    return int(finished)


def like(value: torch.Tensor, source: Any) -> Any:
    """A batch as `tapegrad.data.batches` gives it: a Tensor where the array was one."""
    return Tensor(value) if isinstance(source, Tensor) else value


class Losses:
    """The losses of a run, [epochs, steps]; their dtype is known with the first."""

    def __init__(self, epochs: int, steps: int) -> None:
        self.shape = (epochs, steps)
        self.values: torch.Tensor | None = None

    def row(self, epoch: int) -> Row:
        """Where an epoch's losses go."""
        return Row(self, epoch)

    def space(self, dtype: torch.dtype) -> torch.Tensor:
        """Memory for all of them."""
        if self.values is None:
            self.values = torch.full(self.shape, torch.nan, dtype=dtype)
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

    def put(self, i: int, loss: Any) -> None:
        """Note what the step returned for batch ``i``."""
        value = loss._data if isinstance(loss, Tensor) else loss
        if not isinstance(value, torch.Tensor) or value.ndim:
            raise CompileError(f"run: the step must return its loss, a 0-dim tensor; it returned {type(loss).__name__}")
        self.space(value.dtype)[i] = value


class Bar:
    """A tqdm bar over all steps; nothing where none is wanted or shown."""

    def __init__(self, total: int, wanted: bool) -> None:
        self.bar: Any = None
        if wanted:
            try:
                from tqdm import tqdm
            except ImportError as error:
                raise ArgumentError('run: progress=True needs tqdm: pip install "tapegrad[progress]"') from error
            self.bar = tqdm(total=total, unit="step", disable=None)

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *exc: object) -> None:
        if self.bar is not None:
            self.bar.close()

    def to(self, steps: int) -> None:
        """So many steps more are done."""
        if self.bar is not None and steps:
            self.bar.update(steps)
