"""The models of `run_together`, the programs they share, and where each stands in the random streams."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from ..core import _C, fork_safe_lock
from ..ops.random import Generator, default_generator
from .bind import Bound
from .lanes import InLanes, NoLanes, bytes_of, pays
from .progress import Bar
from .run import Epoch, Losses
from .step import Compiled
from .twins import Pattern, Twin


class Model:
    """One of the models: its data, and how far it is."""

    def __init__(self, index: int, step: Compiled, arrays: tuple[Any, ...], rows: torch.Tensor | None, seed: int):
        self.index = index
        self.step = step
        self.arrays = arrays  # as given
        self.values: list[torch.Tensor] = []
        self.layout: Any = None  # of these
        self.plain = True  # whether they are contiguous
        self.rows = rows
        self.seed = seed
        self.n = self.full = self.steps = 0
        self.losses: Losses
        self.epochs = 0  # done
        self.at = 0  # batches of the epoch that are done
        self.stopped = False
        self.alone = False  # runs by itself, as its step cannot be run as a program of pointers
        self.twins: list[Twin] = []
        self.structure: Structure  # of these
        self.apart: Any = None  # the same for models that are known to share nothing that one of them writes
        self.kind: Any = None  # what models of one structure have in common, before it is looked at
        self.network: Any = None
        self.generators: list[Generator] = []
        self.drawn: dict[int, int] = {}  # blocks of each that its first step took

    def epoch(self, number: int, batch_size: int, shuffle: bool, bar: Bar) -> Epoch:
        """One pass over the data, step by step."""
        order = self.rows
        if shuffle:
            order = _C.permutation(self.n, self.seed, number)
            order = order if self.rows is None else self.rows[order]
        row = self.losses.row(number)
        return Epoch(self.step, self.arrays, self.values, order, batch_size, self.full, row, bar)


_taking = fork_safe_lock()


class Structure:
    """A pattern that several models run: executors and lanes for every thread."""

    def __init__(self, pattern: Pattern, examples: list[list[torch.Tensor]]) -> None:
        self.pattern = pattern
        self.place = 0  # of its first program among all
        self.shared = False  # with other models than the recorded one
        self.owner: Any = None  # whose it is while it runs: its executors are bound to one training at a time
        self._examples = examples
        self._workers: list[list[Bound]] = []
        self._lanes: list[InLanes] = []
        self._width: int | None = None

    @property
    def nbytes(self) -> int:
        """What a step works on."""
        return max(map(bytes_of, self.pattern.bounds))

    def take(self, owner: Any) -> bool:
        """Whether a training may use it from now on, as no other does."""
        with _taking:
            if self.owner is None:
                self.owner = owner
            return self.owner is owner

    def executors(self, threads: int) -> list[list[Any]]:
        """For each thread one for each program; the recorded model's own where no other runs them."""
        if not self.shared:
            return [[bound.executor for bound in self.pattern.bounds]] * threads
        while len(self._workers) < threads:
            pairs = zip(self.pattern.bounds, self._examples, strict=True)
            self._workers.append([bound.again(example) for bound, example in pairs])
        return [[bound.executor for bound in worker] for worker in self._workers[:threads]]

    @property
    def width(self) -> int:
        """How many models run side by side; 1 where the programs have no form in lanes, or are no faster so."""
        if self._width is None:
            self._width = 1
            with contextlib.suppress(NoLanes):
                if pays(self.pattern.bounds):
                    self._lanes.append(InLanes(self.pattern.bounds, self._examples))
                    self._width = self._lanes[0].width
        return self._width

    def lanes(self, threads: int) -> list[Any]:
        """For each thread, or None where there are none."""
        if not self.shared or self.width == 1:
            return [None] * threads
        while len(self._lanes) < threads:
            self._lanes.append(InLanes(self.pattern.bounds, self._examples))
        return [one.lanes for one in self._lanes[:threads]]


class Known:
    """Structures, by what two models of one must have in common.

    Parameters
    ----------
    limit, largest : how many are kept at most, those taken last; the bytes that a step of one works on at most
    """

    def __init__(self, limit: float = math.inf, largest: float = math.inf) -> None:
        self._limit, self._largest = limit, largest
        self._all: dict[Structure, Any] = {}

    def of(self, key: Any) -> list[Structure]:
        """Those to look at, the newest first."""
        with _taking:
            return [structure for structure, its in reversed(self._all.items()) if its == key]

    def note(self, key: Any, structure: Structure) -> None:
        """It is the newest from now on."""
        if structure.nbytes > self._largest:
            return
        with _taking:
            self._all.pop(structure, None)
            self._all[structure] = key
            while len(self._all) > self._limit:
                del self._all[next(iter(self._all))]


class Streams:
    """Where every model stands in the random streams: each begins where its generators stood at the start."""

    def __init__(self) -> None:
        self._first = default_generator.get_state()
        self._start: dict[int, tuple[Generator, tuple[int, int]]] = {}
        self._at: dict[tuple[int, int], tuple[int, int]] = {}  # by model and generator

    def at(self, model: Model, generator: Generator) -> tuple[int, int]:
        """(seed, offset) where a model draws next."""
        self._start.setdefault(id(generator), (generator, generator.get_state()))
        return self._at.get((model.index, id(generator)), self._start[id(generator)][1])

    def move(self, model: Model, generator: Generator, state: tuple[int, int]) -> None:
        self._at[model.index, id(generator)] = state

    @contextlib.contextmanager
    def of(self, model: Model) -> Iterator[None]:
        """Within, generators stand where the model does."""
        known = [default_generator, *[g for g in model.generators if g is not default_generator]]
        for g in known:
            g.set_state(self.at(model, g))
        try:
            yield
        finally:
            new = [g for g in model.generators if g not in known]
            for g in known:
                self.move(model, g, g.get_state())
                g.set_state(self._start[id(g)][1])
            for g in new:  # first seen in this step, which drew so many blocks
                seed, offset = g.get_state()
                self._start[id(g)] = g, (seed, (offset - model.drawn.get(id(g), 0)) % 2**64)
                self.move(model, g, (seed, offset))
                g.set_state(self._start[id(g)][1])

    def forget(self) -> None:
        """Nothing has been drawn."""
        self._at.clear()
        for generator, start in self._start.values():
            generator.set_state(start)
        self._start.clear()
        default_generator.set_state(self._first)

    def leave(self, models: Sequence[Model]) -> None:
        """Every generator where the model that drew most of it stands."""
        for key, (generator, start) in self._start.items():
            states = [self._at[m.index, key] for m in models if (m.index, key) in self._at]
            state = max(states, key=lambda s: s[1], default=start)
            if state != start:
                generator.set_state(state)

    @contextlib.contextmanager
    def shown(self, models: Sequence[Model]) -> Iterator[None]:
        """Within, generators stand where they would after the models; all models pass over what is drawn there."""
        self.leave(models)
        before = {key: generator.get_state() for key, (generator, _) in self._start.items()}
        yield
        for key, (generator, start) in self._start.items():
            now, old = generator.get_state(), before[key]
            if now == old:
                continue
            for m in models:
                seed, offset = self._at.get((m.index, key), start)
                self._at[m.index, key] = now if now[0] != old[0] else (seed, (offset + now[1] - old[1]) % 2**64)
