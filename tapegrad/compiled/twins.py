"""One program, many models: what a model of a recorded model's structure has in the places of that one's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ..core import _C, Leaf, Tensor
from ..ops.random import default_generator
from ..optim.kernels import hyper
from .alike import Likeness, Unlike
from .bind import _KINDS, Bound
from .facts import _BY_VALUE
from .results import alias, set_grad
from .step import Compiled
from .trace import Made


class Pattern:
    """A structure: the programs of one model, one for each size of batch, which other models like it can run.

    Parameters
    ----------
    step : of the model that was recorded
    bounds : its programs
    """

    def __init__(self, step: Compiled, bounds: Sequence[Bound]) -> None:
        self.step = step
        self.bounds = bounds
        codes = set().union(*[bound.trace.codes for bound in bounds])
        self.names = {name for code in codes for name in (*code.co_names, *map(str, code.co_consts))}
        for bound in bounds:
            _check(bound)

    def twin(self, step: Compiled) -> list[Twin]:
        """A model's places in these programs; `Unlike` if it has another structure."""
        made: dict[Any, torch.Tensor] = {}
        return [Twin(self, bound, step, made) for bound in self.bounds]


def _check(bound: Bound) -> None:
    """`Unlike` for what a replay does beside computing a loss and gradients of leaves."""
    trace = bound.trace
    if trace.needs or trace.attributes or not bound.scalar_loss or trace.slots[trace.result.ref.slot].kind != "made":
        raise Unlike
    read = {id(place): grad for place, grad in trace.grads_read.values()}
    slots = [made.ref.slot for _, made in trace.gradients if isinstance(made, Made)]
    for target, made in trace.gradients:
        if made is None and not isinstance(target, int):
            continue
        if not isinstance(target, Leaf) or not isinstance(made, Made):
            raise Unlike
        if trace.slots[made.ref.slot].kind != "made":  # added to, where it lies
            if read.get(id(target)) is not made.value or made.value is None:
                raise Unlike
        elif id(target) in read or slots.count(made.ref.slot) > 1 or made.ref.slot == trace.result.ref.slot:
            raise Unlike


class Twin:
    """A model's places in one program. ``made`` keeps a leaf's gradient for the next program.

    Attributes
    ----------
    memory : for `Executor.rebind`
    numbers : (parameter group, key) of the hyper-parameters that are read at every call
    generators : (generator, blocks a step takes)
    """

    def __init__(self, pattern: Pattern, bound: Bound, step: Compiled, made: dict[Any, torch.Tensor]) -> None:
        trace = bound.trace
        if bound.unproven and step is not pattern.step:
            raise Unlike
        like = Likeness(pattern.step._inner(), step._inner(), [*bound.unproven, *bound.facts], pattern.names)
        self.bound = bound
        self.is_own = step is pattern.step
        self._mapped = like.mapped
        self._guards: Any = None
        self.leaves: list[Leaf] = []
        self.data: list[torch.Tensor] = []
        self.left: list[Leaf | Tensor] = []  # whose gradient is None in the end
        gradients: dict[int, torch.Tensor] = {}
        for target, value in trace.gradients:
            leaf = like.of(target)
            if value is None:
                self.left.append(leaf)
                continue
            if trace.slots[value.ref.slot].kind == "made":
                key = leaf, trace.slots[value.ref.slot].nbytes
                if key not in made:
                    made[key] = torch.empty(key[1], dtype=torch.uint8)
                gradients[value.ref.slot] = made[key]
                self.leaves.append(leaf)
                self.data.append(alias(made[key], value.ref))
        self.memory: list[torch.Tensor | None] = []
        self.extents: list[tuple[int, int, bool]] = []  # of memory from outside: addresses [begin, end), written
        for i in bound.outside:
            slot = trace.slots[i]
            if slot.kind == "outside" and bound.stable[i]:
                assert slot.tensor is not None
                t = like.memory(slot.tensor)
                self.memory.append(t)
                begin, end = bound.reaches.get(i, (0, 0))
                start = t.untyped_storage().data_ptr()
                self.extents.append((start + begin, start + end, slot.written))
            else:
                self.memory.append(gradients.get(i))
        self.numbers = [(like.of(group), key) for group, key in trace.numbers]
        self.generators = [(g if g is default_generator else like.of(g), blocks) for g, blocks in trace.generators]

    def values(self) -> list[float]:
        """The hyper-parameters as they are now."""
        return [hyper(group, key) for group, key in self.numbers]

    def leave_gradients(self, shared: bool) -> None:
        """What a step leaves in ``.grad``; not ``shared``: the program worked on the memory that it is bound to."""
        if not shared:
            self.bound._results.leave_gradients()
            return
        _C.leave_gradients(self.leaves, self.data)
        for owner in self.left:
            set_grad(owner, None)

    def watch(self) -> None:
        """From now on `stale` sees what changes."""
        if self._guards is not None:
            return
        self._guards = _C.Guards()
        for kind, container, key, value in self._mapped:
            self._guards.add(_KINDS[kind], container, key, value, isinstance(value, _BY_VALUE))
        self._places = _C.Executor(0)
        for t in (*self.memory, *self.data):
            if t is not None:
                self._places.watch(t)

    def stale(self) -> bool:
        """Whether the program does not hold for the model any more."""
        return self._guards is not None and (self._guards.check() >= 0 or not self._places.in_place())
