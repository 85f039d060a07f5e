"""Where the values of a program lie: a slot lives from the first call that writes it to the last that touches it, and
slots that do not live at the same time share the arena. Chains of elementwise calls run tile by tile.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from ..core import _C
from .program import function_name, is_pure_or_in_place, reads, rounded, written
from .trace import Call, Ref, Trace, refs_of

LONGEST = 16  # calls in a chain, all of whose values are in memory at once

_ACTIVATIONS = ("relu", "leaky_relu", "tanh", "sigmoid", "gelu", "gelu_tanh", "silu", "softplus", "exp", "log")
_ARITHMETIC = ("add.Tensor", "sub.Tensor", "mul.Tensor", "div.Tensor", "add_.Tensor", "sub_.Tensor", "mul_.Tensor")
ELEMENTWISE = {
    *_ACTIVATIONS,
    *(f"{name}_backward" for name in _ACTIVATIONS),
    "scaled_product",
    *(f"aten::{name}" for name in (*_ARITHMETIC, "rsub.Scalar", "neg", "pow.Tensor_Scalar", "clone", "copy_")),
}


def chains_of(calls: list[Call]) -> list[tuple[int, int]]:
    """Stretches of elementwise calls of one size, none of which reads a number that another makes.

    At least two calls, and arrays of more than a tile: a chain of smaller ones is run as it is anyway.
    """
    chains: list[tuple[int, int]] = []
    first, size = 0, None
    made: set[int] = set()
    for i, call in enumerate(calls):
        mine = _elements(call)
        ends = mine is None or mine != size or i - first == LONGEST
        if ends or any(r.sizes == () and r.slot in made for r in reads(call)):
            if i - first > 1 and size is not None:
                chains.append((first, i))
            first, size, made = i, mine, set()
        if mine is not None:
            made.update([ref.slot for ref in written(call)])
    if len(calls) - first > 1 and size is not None:
        chains.append((first, len(calls)))
    return chains


def _elements(call: Call) -> int | None:
    """How many elements an elementwise call works on; None for other calls, layouts, and a tile's at most."""
    if function_name(call) not in ELEMENTWISE or not is_pure_or_in_place(call):
        return None
    refs = [ref for ref in refs_of((call.arguments, call.outs)) if ref.sizes != ()]
    size = math.prod(refs[0].sizes) if refs else 0
    if size <= _C.tile or any(ref.sizes != refs[0].sizes or not _contiguous(ref) for ref in refs):
        return None
    return size


def _contiguous(ref: Ref) -> bool:
    step = 1
    for n, stride in zip(reversed(ref.sizes), reversed(ref.strides), strict=True):
        if n != 1 and stride != step:
            return False
        step *= n
    return True


# Kernels that have read an argument completely before they write a result: name, argument, result.
_READ_FIRST = (("conv2d_backward", 1, 0), ("upsample_conv2d_backward", 1, 0))


def _overwritten(calls: list[Call], trace: Trace, lives: Mapping[int, tuple[int, int]]) -> dict[int, int]:
    """Results that take the memory of an argument which nobody reads again: {result's slot: argument's}, last first."""
    found: dict[int, int] = {}
    taken: set[int] = set()
    for i, call in enumerate(calls):
        for name, argument, result in _READ_FIRST:
            if call.function != name or call.outs[result] is None or not isinstance(call.arguments[argument], Ref):
                continue
            mine, other = call.outs[result], call.arguments[argument]
            assert mine is not None
            others = [ref.slot for j, a in enumerate(call.arguments) if j != argument for ref in refs_of((a,))]
            if (
                mine.slot in lives
                and lives[mine.slot][0] == i
                and lives.get(other.slot, (0, 0))[1] == i
                and trace.slots[mine.slot].nbytes == trace.slots[other.slot].nbytes
                and other.slot not in others
                and other.slot not in taken
            ):
                found[mine.slot] = other.slot
                taken.add(other.slot)
    return dict(reversed(found.items()))


def plan(calls: list[Call], chains: list[tuple[int, int]], trace: Trace, own: set[int]) -> tuple[dict[int, int], int]:
    """Places in one arena for the made slots: (offset by slot, bytes in all). Largest first, at the lowest place."""
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    begins = {i: a for a, b in chains for i in range(a, b)}  # a chain's calls run together
    ends = {i: b - 1 for a, b in chains for i in range(a, b)}
    for i, call in enumerate(calls):
        begin, end = begins.get(i, i), ends.get(i, i)
        for slot, *_ in refs_of((call.arguments, call.outs)):
            first.setdefault(slot, begin)
            last[slot] = end
    for ref in trace.ends:
        first.setdefault(ref.slot, 0)
        last[ref.slot] = len(calls)
    slots = [s for s in first if trace.slots[s].kind == "made" and s not in own]
    inside = _overwritten(calls, trace, {s: (first[s], last[s]) for s in slots})
    for s, taken in inside.items():
        last[taken] = last[s]
    slots = [s for s in slots if s not in inside]
    slots.sort(key=lambda s: (-trace.slots[s].nbytes, first[s]))
    sizes = [rounded(max(trace.slots[s].nbytes, 1)) for s in slots]
    placed = _C.place([(size, first[s], last[s]) for s, size in zip(slots, sizes, strict=True)])
    offsets = dict(zip(slots, placed, strict=True))
    for s in reversed(inside):  # what was taken may itself lie in another's memory
        offsets[s] = offsets[inside[s]]
    return offsets, max((offset + size for offset, size in zip(placed, sizes, strict=True)), default=0)
