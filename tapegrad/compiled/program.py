"""The program: a recorded step, lowered. Plain data, which `evaluate` (reference.py) runs in a few lines of Python."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ..core import describe
from .trace import Call, Number, Offset, Ref, Seed, Slot, refs_of

ALIGN = 64  # bytes
_CHANGING = frozenset({Seed, Offset, Number})  # arguments that are other numbers in every step


@dataclass
class Program:
    """``calls`` over ``slots``; ``once`` are run when the program is bound, their results being constants."""

    calls: list[Call]
    once: list[Call]
    slots: list[Slot]
    offsets: dict[int, int]  # of arena slots, in bytes
    own: set[int]  # made slots that outlive a step: constants and gradients
    arena_bytes: int
    chains: list[tuple[int, int]]  # calls [first, last) that run as one, tile by tile
    notes: list[str] = field(default_factory=list)  # what lowering changed

    @property
    def unshared_bytes(self) -> int:
        """What all slots of the arena would take without sharing memory."""
        return sum(rounded(self.slots[s].nbytes) for s in self.offsets)

    def __str__(self) -> str:
        return "\n".join(show(call) for call in self.calls)


def show(call: Call) -> str:
    """``%5:f32[25, 2] = linear(%0:f32[25, 2], ...)  train.py:12``."""
    left = ", ".join(map(repr, call.outs)) or ", ".join(repr(call.arguments[i]) for i in call.writes)
    return f"{left} = {call.name}({', '.join(map(_text, call.arguments))})  {call.source}"


def _text(value: Any) -> str:
    if type(value) is tuple:
        if all(type(item) in (bool, int, float) for item in value):
            return describe(list(value))
        return "[" + ", ".join(map(_text, value)) + "]"
    return repr(value)


def rounded(nbytes: int) -> int:
    return -(-nbytes // ALIGN) * ALIGN


def reads(call: Call) -> list[Ref]:
    """What a call looks at; what it changes in place included."""
    return refs_of(call.arguments)


def written(call: Call) -> list[Ref]:
    """What a call makes or changes."""
    return refs_of(call.outs) + changed(call) if call.writes else refs_of(call.outs)


def changed(call: Call) -> list[Ref]:
    """What a call changes in place."""
    return refs_of([call.arguments[i] for i in call.writes]) if call.writes else []


def all_changed(calls: list[Call]) -> set[int]:
    return {ref.slot for call in calls if call.writes for ref in changed(call)}


def types_of(value: Any) -> Any:
    """What tells equal keys apart: 1, 1.0 and True, 0.0 and -0.0."""
    if type(value) is tuple:
        return tuple([types_of(v) for v in value])
    return value.hex() if type(value) is float else type(value)


def is_pure(call: Call) -> bool:
    """Gives the same results for the same arguments, and changes nothing."""
    return not call.writes and is_pure_or_in_place(call)


_operators: dict[int, tuple[str, Any]] = {}  # name and operator by its id, as hashing one takes long


def function_name(call: Call) -> str:
    """``linear``, ``aten::add.Tensor``: the name that the executor knows a function by."""
    function = call.function
    if type(function) is str:
        return function
    known = _operators.get(id(function))
    if known is None:
        overload = function._schema.overload_name
        name = str(function._schema.name) + (f".{overload}" if overload else "")
        known = _operators[id(function)] = name, function
    return known[0]


def is_pure_or_in_place(call: Call) -> bool:
    """No number of it changes from step to step."""
    return _CHANGING.isdisjoint(map(type, call.arguments))
