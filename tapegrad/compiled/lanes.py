"""Programs in lanes: a vector register holds the same element of as many models as it has lanes, and each instruction
runs once for all of them (csrc/replay/lanes.h). Memory is planned anew, every slot as many times larger.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import torch

from ..core import _C
from .bind import Bound, add_call
from .fuse import with_relus
from .plan import plan
from .program import function_name, written
from .trace import Call, Made, Number, Offset, Ref, Seed, refs_of

_NEAR = 2 << 20  # bytes that a step in lanes works on: beyond, memory is what it waits for (measured)
_CARRIED = 8  # times the bytes carried to and fro, of what a step works on: beyond, models are faster alone (measured)
_ONLY_LANES = {"linear_relu", "linear_backward_relu"}  # fuse.py makes them


class NoLanes(Exception):
    """The programs cannot run side by side, or are not faster so."""


def lanes_of(bounds: Sequence[Bound]) -> int:
    """How many models these programs would run side by side; `NoLanes`."""
    dtypes = {ref.dtype for bound in bounds for call in bound.program.calls for ref in refs_of(call)}
    floats = [dtype for dtype in dtypes if dtype.is_floating_point or dtype.is_complex]
    if len(floats) != 1 or floats[0] not in (torch.float32, torch.float64):
        raise NoLanes
    return int(_C.lanes_of(floats[0]))


class InLanes:
    """The programs of a structure in lanes, with memory of their own: ``lanes`` is what `_C.run_networks` takes.

    Parameters
    ----------
    bounds : the programs
    examples : arguments of each
    """

    def __init__(self, bounds: Sequence[Bound], examples: Sequence[Sequence[torch.Tensor]]) -> None:
        self.width = lanes_of(bounds)
        self.lanes = _C.Lanes(self.width)
        self.carried = 0  # bytes that go to and fro for calls that run for each model
        self._outside: dict[Any, tuple[torch.Tensor, int, int, bool, bool]] = {}
        for part, (bound, example) in enumerate(zip(bounds, examples, strict=True)):
            self._add(part, bound, example)
        if self.carried * _CARRIED > min(map(bytes_of, bounds)):
            raise NoLanes
        for t, part, place, read, changed in self._outside.values():
            self.lanes.add_outside(t, part, place, read, changed)

    def _add(self, part: int, bound: Bound, example: Sequence[torch.Tensor]) -> None:
        program, trace, width = bound.program, bound.trace, self.width
        calls = with_relus(program.calls, {ref.slot for ref in trace.ends})
        offsets, size = plan(calls, [], trace, program.own)
        executor = _C.Executor(size * width)
        dtypes = _dtypes(bound, example)
        handles: dict[int, int] = {}
        for i, nbytes in ((i, trace.slots[i].nbytes) for i in bound.handled):
            if i in offsets:
                handles[i] = executor.add_arena(offsets[i] * width, nbytes * width)
            elif i in program.offsets:
                continue  # nobody makes it any more
            elif trace.slots[i].kind == "argument":
                handles[i] = executor.add_outside(torch.empty(nbytes * width, dtype=torch.uint8), True)
            else:
                handles[i] = executor.add_outside(self._memory(part, bound, i, dtypes[i]), True)

        def view(ref: Ref) -> torch.Tensor:
            sizes, strides = (*ref.sizes, width), (*[s * width for s in ref.strides], 1)
            return executor.view(handles[ref.slot], ref.dtype, ref.offset * width, sizes, strides)

        def fill(value: Any) -> Any:
            if isinstance(value, Ref):
                return view(value)
            if isinstance(value, Number):
                return trace.values[value.which]
            if isinstance(value, Seed | Offset):
                return 0.0
            return [fill(v) for v in value] if type(value) is tuple else value

        numbers, changed = [], False
        for call in calls:
            outs = [None if ref is None else view(ref) for ref in call.outs]
            index = executor.add_lanes(function_name(call), tuple(map(fill, call.arguments)), outs)
            changes = any(trace.slots[ref.slot].kind != "made" for ref in written(call))
            refuses = _may_refuse(call) if index is None else call.function == "cross_entropy"
            if refuses and (changed or (changes and index is None)):
                raise NoLanes  # bad values are to be met before anything has changed
            if index is None:
                index = self._one_by_one(executor, call, refuses, handles, trace.values)
            numbers += [(index, i, a.which) for i, a in enumerate(call.arguments) if isinstance(a, Number)]
            changed = changed or changes
        arguments = [view(Ref(i, t.dtype, 0, tuple(t.shape), t.contiguous().stride())) for i, t in enumerate(example)]
        if any(not t.is_contiguous() or i not in handles for i, t in enumerate(example)):
            raise NoLanes
        assert isinstance(trace.result, Made)
        self.lanes.add_program(executor, arguments, view(trace.result.ref))
        for number in numbers:
            self.lanes.add_number(*number)

    def _one_by_one(
        self, executor: Any, call: Call, refuses: bool, handles: dict[int, int], numbers: Sequence[Any]
    ) -> int:
        """A call without a form in lanes, for each model after the other, on memory of one."""
        if call.function in _ONLY_LANES or any(isinstance(a, Seed | Offset) for a in call.arguments):
            raise NoLanes
        given, made = list(dict.fromkeys(refs_of(call.arguments))), list(dict.fromkeys(written(call)))
        refs = list(dict.fromkeys((*given, *made)))
        slots = [ref.slot for ref in refs]
        if any(slots.count(ref.slot) > 1 for ref in made) or any(math.prod(ref.sizes) != _span(ref) for ref in made):
            raise NoLanes
        offsets = dict(zip(refs, itertools.accumulate((_rounded(ref) for ref in refs), initial=0), strict=False))
        one = _C.Executor(sum(map(_rounded, refs)))
        views, flat = {}, {}
        for ref in refs:
            handle, n = one.add_arena(offsets[ref], _rounded(ref)), _span(ref)
            views[ref] = one.view(handle, ref.dtype, 0, ref.sizes, ref.strides)
            shape, strides = (n, self.width), (self.width, 1)
            lanes = executor.view(handles[ref.slot], ref.dtype, ref.offset * self.width, shape, strides)
            flat[ref] = one.view(handle, ref.dtype, 0, (n,), (1,)), lanes

        def fill(value: Any) -> Any:
            if isinstance(value, Number):
                return numbers[value.which]
            if type(value) is tuple:
                return [fill(v) for v in value]
            return views[value] if isinstance(value, Ref) else value

        add_call(one, call, [fill(a) for a in call.arguments], [None if r is None else views[r] for r in call.outs])
        self.carried += sum(_span(ref) * ref.dtype.itemsize for ref in (*given, *made))
        return int(executor.add_lane_by_lane(one, [flat[r] for r in given], [flat[r] for r in made], refuses))

    def _memory(self, part: int, bound: Bound, i: int, dtype: torch.dtype) -> torch.Tensor:
        """A slot from outside: one for all programs that work on it."""
        slot, width = bound.trace.slots[i], self.width
        n, rest = divmod(slot.nbytes, dtype.itemsize)
        if rest:
            raise NoLanes
        place = bound.outside.index(i)
        leaf = bound.gradient_of(i)
        key: Any
        if leaf is not None:
            key, written_there, read = (id(leaf), slot.nbytes), True, False
        elif slot.kind == "outside" and bound.stable[i]:
            assert slot.tensor is not None
            key, written_there, read = slot.tensor.untyped_storage().data_ptr(), slot.written, True
        else:  # a constant of the program
            t = torch.empty((n, width), dtype=dtype)
            t.copy_(torch.empty(0, dtype=dtype).set_(bound._memory[i].untyped_storage())[:n, None])
            return t
        known = self._outside.get(key)
        if known is None:
            t = torch.zeros((n, width), dtype=dtype)
            self._outside[key] = t, part, place, read, written_there
            return t
        t = known[0]
        if t.dtype is not dtype or t.shape != (n, width):
            raise NoLanes
        self._outside[key] = t, known[1], known[2], known[3] or read, known[4] or written_there
        return t


def _dtypes(bound: Bound, example: Sequence[torch.Tensor]) -> dict[int, torch.dtype]:
    """The one dtype that each slot's elements have."""
    found = {i: t.dtype for i, t in enumerate(example)}
    for call in (*bound.program.once, *bound.program.calls):
        for ref in refs_of((call.arguments, call.outs)):
            if found.setdefault(ref.slot, ref.dtype) is not ref.dtype:
                raise NoLanes
    for ref in bound.trace.ends:
        found.setdefault(ref.slot, ref.dtype)
    return found


def _span(ref: Ref) -> int:
    """Elements from the first to the last."""
    if 0 in ref.sizes:
        return 0
    return 1 + sum((n - 1) * step for n, step in zip(ref.sizes, ref.strides, strict=True))


def _rounded(ref: Ref) -> int:
    """Bytes of its own, in which the next begins well."""
    return -(-max(1, _span(ref)) * ref.dtype.itemsize // 64) * 64


def _may_refuse(call: Call) -> bool:
    """Whether a call that runs for each model may refuse the values it is given, as indices are."""
    integers = any(not (ref.dtype.is_floating_point or ref.dtype is torch.bool) for ref in refs_of(call.arguments))
    return integers or not isinstance(call.function, str)


def pays(bounds: Sequence[Bound]) -> bool:
    """Whether models are faster side by side: where what a step works on stays near in that many copies; `NoLanes`."""
    return max(bytes_of(bound) for bound in bounds) * lanes_of(bounds) <= _NEAR


def bytes_of(bound: Bound) -> int:
    """What a step works on."""
    slots = {ref.slot for call in bound.program.calls for ref in refs_of(call)}
    return sum(bound.trace.slots[i].nbytes for i in slots)
