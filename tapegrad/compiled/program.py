"""The program: a recorded step, lowered. Plain data, which `evaluate` runs in a few lines of Python.

Lowering drops what nobody reads, shares what is computed twice, computes constants once, and lays the memory out:
a slot lives from the first call that writes it to the last that touches it, and slots that do not live at the same time
share the arena. What the program computes, and every rounding of it, stays what the eager step computed.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from ..core import _C
from .rewrite import fold_upsampling, read_small_maps
from .trace import Call, Made, Number, Offset, Ref, Seed, Slot, Trace, refs_of, results_of

ALIGN = 64  # bytes

# torch operators that look at no value of their tensor arguments
_ACTIVATIONS = ("relu", "leaky_relu", "tanh", "sigmoid", "gelu", "gelu_tanh", "silu", "softplus", "exp", "log")
_ARITHMETIC = ("add.Tensor", "sub.Tensor", "mul.Tensor", "div.Tensor", "add_.Tensor", "sub_.Tensor", "mul_.Tensor")
ELEMENTWISE = {
    *_ACTIVATIONS,
    *(f"{name}_backward" for name in _ACTIVATIONS),
    "scaled_product",
    *(f"aten::{name}" for name in (*_ARITHMETIC, "rsub.Scalar", "neg", "pow.Tensor_Scalar", "clone", "copy_")),
}
_SHAPES_ONLY = {"aten::ones_like", "aten::zeros_like", "aten::full_like", "aten::new_zeros", "aten::new_ones"}


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
        return sum(_rounded(self.slots[s].nbytes) for s in self.offsets)

    def __str__(self) -> str:
        return "\n".join(show(call) for call in self.calls)


def show(call: Call) -> str:
    """``%5:f32[25, 2] = linear(%0:f32[25, 2], ...)  train.py:12``."""
    left = ", ".join(map(repr, call.outs)) or ", ".join(repr(call.arguments[i]) for i in call.writes)
    return f"{left} = {call.name}({', '.join(map(_text, call.arguments))})  {call.source}"


def _text(value: Any) -> str:
    if type(value) is tuple:
        return "[" + ", ".join(map(_text, value)) + "]"
    return repr(value)


def _rounded(nbytes: int) -> int:
    return -(-nbytes // ALIGN) * ALIGN


def reads(call: Call) -> list[Ref]:
    """What a call looks at; what it changes in place included."""
    return refs_of(call.arguments)


def written(call: Call) -> list[Ref]:
    """What a call makes or changes."""
    return refs_of(call.outs) + changed(call)


def changed(call: Call) -> list[Ref]:
    """What a call changes in place."""
    return refs_of([call.arguments[i] for i in call.writes]) if call.writes else []


def _changed(calls: list[Call]) -> set[int]:
    return {ref.slot for call in calls if call.writes for ref in changed(call)}


def types_of(value: Any) -> Any:
    """What tells equal keys apart: 1, 1.0 and True, 0.0 and -0.0."""
    if type(value) is tuple:
        return tuple([types_of(v) for v in value])
    return value.hex() if type(value) is float else type(value)


def is_pure(call: Call) -> bool:
    """Gives the same results for the same arguments, and changes nothing."""
    return not call.writes and not any(isinstance(a, Seed | Offset | Number) for a in call.arguments)


def lower(trace: Trace, exact: bool = True) -> Program:
    """The program of a recorded step."""
    calls = list(trace.calls)
    kept = {ref.slot for ref in trace.ends}
    calls, notes = read_small_maps(calls, kept)
    if not exact:
        calls, folded = fold_upsampling(calls)
        notes += folded
    calls, shared = _share(calls, kept)
    calls, dropped = _drop_dead(calls, trace.slots, kept)
    once, calls = _constants(calls, trace.slots)
    if shared:
        notes.append(f"shared {shared} calls that were computed twice")
    if dropped:
        notes.append(f"dropped {dropped} calls that nobody reads")
    if once:
        notes.append(f"computed {len(once)} constants once")
    constants = {ref.slot for call in once for ref in refs_of(call.outs)}
    left = [made.ref.slot for _, made in trace.gradients if isinstance(made, Made)]
    gradients = {slot for slot in left if trace.slots[slot].kind == "made"}
    own = constants | gradients
    chains = _chains(calls)
    if chains:
        notes.append("tiled chains of calls " + ", ".join(f"{first} to {last - 1}" for first, last in chains))
    offsets, size = _plan(calls, chains, trace, own)
    return Program(calls, once, trace.slots, offsets, own, size, chains, notes)


def _share(calls: list[Call], kept: set[int]) -> tuple[list[Call], int]:
    """Equal pure calls on unchanged values become one; their results must never be written to."""
    never = _changed(calls) | kept
    known: dict[Any, list[Call]] = {}
    instead: dict[int, int] = {}
    result = []
    for call in calls:
        refs = reads(call)
        if instead and any(ref.slot in instead for ref in refs):
            call = call._replace(arguments=_renamed(call.arguments, instead))
            refs = reads(call)
        outs = refs_of(call.outs)
        if is_pure(call) and not any(ref.slot in never for ref in refs) and not any(r.slot in never for r in outs):
            alike = known.setdefault((call.function, call.arguments, tuple([r and r[1:] for r in call.outs])), [])
            types = types_of(call.arguments) if alike else None
            before = next((other for other in alike if types_of(other.arguments) == types), None)
            if before is not None:
                instead.update(zip([r.slot for r in outs], [r.slot for r in refs_of(before.outs)], strict=True))
                continue
            alike.append(call)
        result.append(call)
    return result, len(calls) - len(result)


def _renamed(value: Any, instead: Mapping[int, int]) -> Any:
    if type(value) is Ref:
        return value._replace(slot=instead.get(value.slot, value.slot))
    return tuple([_renamed(v, instead) for v in value]) if type(value) is tuple else value


def _drop_dead(calls: list[Call], slots: Sequence[Slot], kept: set[int]) -> tuple[list[Call], int]:
    """Calls whose results reach neither a kept slot nor memory from outside go, and results that nobody reads."""
    live = set(kept)
    result: list[Call] = []
    for call in reversed(calls):
        if call.function != "check" and not any(
            ref.slot in live or slots[ref.slot].kind != "made" for ref in written(call)
        ):
            continue
        if any(r is not None and r.slot not in live for r in call.outs):
            call = call._replace(outs=tuple([r if r is not None and r.slot in live else None for r in call.outs]))
        live.update([ref.slot for ref in reads(call)])
        result.append(call)
    return result[::-1], len(calls) - len(result)


def _constants(calls: list[Call], slots: Sequence[Slot]) -> tuple[list[Call], list[Call]]:
    """(calls whose results never change, the others)."""
    changed = _changed(calls)
    constant: set[int] = set()
    once, rest = [], []
    for call in calls:
        inputs = () if function_name(call) in _SHAPES_ONLY else reads(call)
        outs = [ref.slot for ref in refs_of(call.outs)]
        if is_pure(call) and all(ref.slot in constant for ref in inputs) and changed.isdisjoint(outs):
            constant.update(outs)
            once.append(call)
        else:
            rest.append(call)
    return once, rest


def function_name(call: Call) -> str:
    """``linear``, ``aten::add.Tensor``: the name that the executor knows a function by."""
    return call.function if isinstance(call.function, str) else _operator_name(call.function)


@functools.cache
def _operator_name(function: Any) -> str:
    overload = function._schema.overload_name
    return str(function._schema.name) + (f".{overload}" if overload else "")


def _chains(calls: list[Call]) -> list[tuple[int, int]]:
    """Stretches of at least two elementwise calls of one size, none of which reads a number that another makes."""
    chains: list[tuple[int, int]] = []
    first, size = 0, None
    made: set[int] = set()
    for i, call in enumerate(calls):
        mine = _elements(call)
        if mine is None or mine != size or any(r.sizes == () and r.slot in made for r in reads(call)):
            if i - first > 1 and size is not None:
                chains.append((first, i))
            first, size, made = i, mine, set()
        if mine is not None:
            made.update([ref.slot for ref in written(call)])
    if len(calls) - first > 1 and size is not None:
        chains.append((first, len(calls)))
    return chains


def _elements(call: Call) -> int | None:
    """How many elements an elementwise call works on; None for other calls and other layouts than contiguous."""
    if function_name(call) not in ELEMENTWISE or not is_pure_or_in_place(call):
        return None
    refs = [ref for ref in reads(call) + refs_of(call.outs) if ref.sizes != ()]
    if not refs or any(ref.sizes != refs[0].sizes or not _contiguous(ref) for ref in refs):
        return None
    return math.prod(refs[0].sizes)


def is_pure_or_in_place(call: Call) -> bool:
    """No number of it changes from step to step."""
    return not any(isinstance(a, Seed | Offset | Number) for a in call.arguments)


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


def _plan(calls: list[Call], chains: list[tuple[int, int]], trace: Trace, own: set[int]) -> tuple[dict[int, int], int]:
    """Places in one arena for the made slots: (offset by slot, bytes in all). Largest first, at the lowest place."""
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    begins = {i: a for a, b in chains for i in range(a, b)}  # a chain's calls run together
    ends = {i: b - 1 for a, b in chains for i in range(a, b)}
    for i, call in enumerate(calls):
        begin, end = begins.get(i, i), ends.get(i, i)
        for ref in reads(call) + refs_of(call.outs):
            first.setdefault(ref.slot, begin)
            last[ref.slot] = end
    for ref in trace.ends:
        first.setdefault(ref.slot, 0)
        last[ref.slot] = len(calls)
    slots = [s for s in first if trace.slots[s].kind == "made" and s not in own]
    inside = _overwritten(calls, trace, {s: (first[s], last[s]) for s in slots})
    for s, taken in inside.items():
        last[taken] = last[s]
    slots = [s for s in slots if s not in inside]
    slots.sort(key=lambda s: (-trace.slots[s].nbytes, first[s]))
    sizes = [_rounded(max(trace.slots[s].nbytes, 1)) for s in slots]
    placed = _C.place([(size, first[s], last[s]) for s, size in zip(slots, sizes, strict=True)])
    offsets = dict(zip(slots, placed, strict=True))
    for s in reversed(inside):  # what was taken may itself lie in another's memory
        offsets[s] = offsets[inside[s]]
    return offsets, max((offset + size for offset, size in zip(placed, sizes, strict=True)), default=0)


# --- the reference ---------------------------------------------------------------------------------------------------


def view(memory: torch.Tensor, ref: Ref) -> torch.Tensor:
    """The view that a Ref names, given any tensor on its slot's storage."""
    return torch.empty(0, dtype=ref.dtype).set_(memory.untyped_storage(), ref.offset, ref.sizes, ref.strides)


def resolve(value: Any, memory: Mapping[int, torch.Tensor], numbers: Sequence[float], draws: Sequence[Any]) -> Any:
    """An argument with its tensors, hyper-parameters and places in the random stream filled in."""
    if isinstance(value, Ref):
        return view(memory[value.slot], value)
    if isinstance(value, Number):
        return numbers[value.which]
    if isinstance(value, Seed):
        return draws[value.which][0]
    if isinstance(value, Offset):
        return (draws[value.which][1] + value.delta) % 2**64
    return [resolve(v, memory, numbers, draws) for v in value] if type(value) is tuple else value


def evaluate(
    program: Program, memory: dict[int, torch.Tensor], numbers: Sequence[float] = (), draws: Sequence[Any] = ()
) -> None:
    """Run a program in Python: what the executor must do, call by call.

    Parameters
    ----------
    memory : a tensor on the storage of every argument and outside slot; those the program makes are added
    numbers : hyper-parameters, as `Trace.numbers` lists them
    draws : (seed, offset) of every generator
    """
    for call in (*program.once, *program.calls):
        for ref in refs_of(call.outs):
            if ref.slot not in memory:
                memory[ref.slot] = torch.empty(program.slots[ref.slot].nbytes, dtype=torch.uint8)
        for ref in reads(call):  # memory that only in-place calls fill
            memory.setdefault(ref.slot, torch.empty(program.slots[ref.slot].nbytes, dtype=torch.uint8))
        arguments = [resolve(a, memory, numbers, draws) for a in call.arguments]
        for out, value in zip(call.outs, results_of(run(call.function, arguments)), strict=False):
            if out is not None:
                view(memory[out.slot], out).copy_(value)


def run(function: Any, arguments: Sequence[Any]) -> Any:
    """Call a kernel by name, or a torch operator with its arguments in the order of its schema."""
    if isinstance(function, str):
        return getattr(_C, function)(*arguments)
    formal = function._schema.arguments
    positional = [a for a, f in zip(arguments, formal, strict=True) if not f.kwarg_only]
    named = {f.name: a for a, f in zip(arguments, formal, strict=True) if f.kwarg_only}
    return function(*positional, **named)
