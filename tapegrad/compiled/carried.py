"""Gradients that one call of a step leaves and the next one finds.

An optimizer that clears its own gradients, and only those, leaves what a loss of another network added to them (a
critic's, a discriminator's) for the next call, which adds to it once more before it is cleared. In every call that is
another tensor. A program keeps it in one place: it reads the gradient where the call before left it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import torch

from ..core import Leaf, Tensor
from .program import reads, written
from .trace import Call, Carried, Made, Trace, made_in


def carried(trace: Trace, slot_of: Callable[[torch.Tensor], int]) -> list[Carried]:
    """What a recorded call found in ``.grad`` and replaced by a tensor of the same layout, which nothing else is."""
    found = {id(owner): grad for owner, grad in trace.grads_read.values() if isinstance(owner, Leaf)}
    comes_out = {made.ref.slot for made in made_in(trace.result)}
    times = Counter(made.ref.slot for _, made in trace.gradients if isinstance(made, Made))
    ends = comes_out | set(times)
    result = []
    for leaf, made in trace.gradients:
        grad = found.get(id(leaf))
        if not isinstance(made, Made) or type(grad) is not Tensor or grad._node is not None:
            continue
        left, raw = made.ref.slot, grad._data
        slot = slot_of(raw)
        layout = raw.dtype, raw.storage_offset(), tuple(raw.shape), raw.stride()
        if (
            trace.slots[left].kind == "made"
            and left not in comes_out
            and times[left] == 1
            and layout == tuple(made.ref[1:])
            and (slot < 0 or (trace.slots[slot].nbytes == trace.slots[left].nbytes and slot not in ends))
        ):
            result.append(Carried(leaf, None if slot < 0 else slot, left))
    slots = Counter(one.slot for one in result if one.slot is not None)
    return [one for one in result if one.slot is None or slots[one.slot] < 2]


def too_late(calls: Sequence[Call], chains: Sequence[tuple[int, int]], carried: Sequence[Carried]) -> Call | None:
    """A call that uses a gradient from before when, or after, the step's own is written over it."""
    begins = {i: first for first, last in chains for i in range(first, last)}  # the calls of a chain take turns
    first_write: dict[int, int] = {}
    for i, call in enumerate(calls):
        for ref in written(call):
            first_write.setdefault(ref.slot, begins.get(i, i))
    over = {one.slot: first_write.get(one.left, len(calls)) for one in carried}
    for i, call in enumerate(calls):
        if any(i >= over.get(ref.slot, len(calls)) for ref in reads(call)):
            return call
    return None
