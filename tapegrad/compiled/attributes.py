"""Tensors that a step leaves where it found others: running averages, a hidden state, weights that somebody looks at.

In every call the place holds another object. A replay reads what is there as an argument, and leaves a new tensor.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from ..core import CompileError, Leaf, Tensor, gather
from .facts import Fact
from .results import alias
from .trace import Attribute, Call, Made, Ref, Slot, Trace

_KINDS = ("item", "attribute", "cell")
_COPY = torch.ops.aten.copy_.default


class Place:
    """Where a fact is; its ``value`` can be set."""

    def __init__(self, fact: Fact) -> None:
        self.fact = fact

    @property
    def value(self) -> Any:
        return self.fact.now()

    @value.setter
    def value(self, value: Any) -> None:
        container, kind, key = self.fact[:3]
        if kind == "item":
            container[key] = value
        elif kind == "attribute":
            setattr(container, key, value)
        else:
            container.cell_contents = value


def _raw(value: Any) -> torch.Tensor:
    raw: torch.Tensor = value._data if isinstance(value, Tensor) else value
    return raw


def is_off(value: Any) -> bool:
    """Whether no gradient can be asked for: a constant, or what a backward has released."""
    if not isinstance(value, Tensor):
        return not value.requires_grad
    if value._node is None or isinstance(value._node, Leaf):
        return value._node is None
    return any(entry.versions is None for entry in gather([value._node]))


def _look(value: Any) -> tuple[Any, ...] | None:
    """What a step may know of a tensor without reading it; None for what is no plain tensor."""
    if type(value) not in (Tensor, torch.Tensor):
        return None
    raw = _raw(value)
    return type(value), raw.dtype, tuple(raw.shape), raw.stride(), raw.storage_offset()


def attributes(
    facts: Sequence[Fact],
    tensor: Callable[[Any], Any],
    slot_of: Callable[[torch.Tensor], int],
    slots: Sequence[Slot],
) -> list[Attribute]:
    """The facts that a recorded call changed from one plain tensor to another, which it made.

    Parameters
    ----------
    facts : as they were before the call
    tensor : names a tensor that is left; CompileError where it can still be differentiated
    slot_of, slots : where a tensor lies, -1 for nowhere
    """
    found = []
    for fact in facts:
        now = fact.now() if fact.kind in _KINDS else fact.value
        look = _look(fact.value)
        if now is fact.value or look is None or type(now) is not type(fact.value):
            continue
        try:
            made = tensor(now)
        except CompileError:
            continue
        if not isinstance(made, Made) or slots[made.ref.slot].kind != "made":
            continue
        slot = slot_of(_raw(fact.value))
        if slot >= 0:
            _, dtype, sizes, _, offset = look
            whole = _raw(fact.value).is_contiguous() and math.prod(sizes) * dtype.itemsize == slots[slot].nbytes
            like = (dtype, sizes) == (made.ref.dtype, made.ref.sizes)
            if slots[slot].kind != "outside" or slots[slot].written:  # somebody may hold what it wrote to
                continue
            if not (whole and like and offset == 0 and is_off(fact.value)):
                continue
        found.append(Attribute(fact._replace(value=look), None if slot < 0 else slot, made))
    left: dict[int, set[Ref]] = {}
    for one in found:
        if one.slot is not None:
            left.setdefault(one.slot, set()).add(one.made.ref)
    return [one for one in found if one.slot is None or len(left[one.slot]) == 1]  # in several places, it stays so


def moved_on(found: Sequence[Attribute], slots: Sequence[Slot]) -> list[Call]:
    """What makes the next step find what this one left: a copy of each into the memory that was read."""
    calls = []
    for one in {one.slot: one for one in found}.values():
        if one.slot is not None:
            _, dtype, sizes, strides, offset = one.fact.value
            ref = Ref(one.slot, dtype, offset, sizes, strides)
            slots[one.slot].written = True
            calls.append(Call(_COPY, (ref, one.made.ref, False), (ref,), (0,), f"{one.fact.path} ="))
    return calls


class Left:
    """The attributes of a program: ``memory`` is a tensor on every slot that it keeps."""

    def __init__(self, trace: Trace, memory: Mapping[int, torch.Tensor]) -> None:
        self._all = trace.attributes
        self._memory = memory

    def gone(self) -> str | None:
        """The path of the first that holds no tensor such as the program found there."""
        known: dict[int, Any] = {}
        for one in self._all:
            now = one.fact.now()
            look = _look(now)
            if look is None or look[:3] != one.fact.value[:3]:
                return str(one.fact.path)
            if one.slot is not None and (not is_off(now) or known.setdefault(one.slot, now) is not now):
                return str(one.fact.path)
        return None

    def fetch(self) -> None:
        """What is in the places goes where the program reads it."""
        for one in self._all:
            if one.slot is not None:
                _, dtype, sizes, strides, offset = one.fact.value
                ref = Ref(one.slot, dtype, offset, sizes, strides)
                alias(self._memory[one.slot], ref).copy_(_raw(one.fact.now()))

    def leave(self) -> None:
        """New tensors in the places, with what the program made; one object where it was one."""
        made: dict[int, Any] = {}
        for one in self._all:
            if one.made.which not in made:
                value = alias(self._memory[one.made.ref.slot], one.made.ref).clone()
                made[one.made.which] = Tensor._made(value, None) if one.made.kind is Tensor else value
            Place(one.fact).value = made[one.made.which]


def without(facts: Sequence[Fact], trace: Trace) -> list[Fact]:
    """The facts but those of the attributes, and of the tensors that are in them."""
    places = {one.fact.place for one in trace.attributes}
    held = [one.fact.now() for one in trace.attributes]
    containers = {id(v) for v in held} | {id(_raw(v)) for v in held}
    return [fact for fact in facts if fact.place not in places and id(fact.container) not in containers]
