"""Lowering: from a recording to a program.

It drops what nobody reads, shares what is computed twice, computes constants once, and has the memory laid out
(plan.py). What the program computes, and every rounding of it, stays what the eager step computed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .plan import chains_of, plan
from .program import Program, all_changed, function_name, is_pure, reads, types_of, written
from .rewrite import fold_upsampling, read_small_maps
from .trace import Call, Made, Ref, Slot, Trace, refs_of

# torch operators that look at no value of their tensor arguments
_SHAPES_ONLY = {"aten::ones_like", "aten::zeros_like", "aten::full_like", "aten::new_zeros", "aten::new_ones"}


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
    own = constants | gradients | {one.made.ref.slot for one in trace.attributes}
    chains = chains_of(calls)
    if chains:
        notes.append("tiled chains of calls " + ", ".join(f"{first} to {last - 1}" for first, last in chains))
    offsets, size = plan(calls, chains, trace, own)
    return Program(calls, once, trace.slots, offsets, own, size, chains, notes)


def _share(calls: list[Call], kept: set[int]) -> tuple[list[Call], int]:
    """Equal pure calls on unchanged values become one; their results must never be written to."""
    never = all_changed(calls) | kept
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
            alike = known.setdefault((function_name(call), call.arguments, tuple([r and r[1:] for r in call.outs])), [])
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
    """Calls whose results reach neither a kept slot nor memory from outside go, and results that nobody reads.

    Those that give nothing and write nothing stay: they raise where a value is bad.
    """
    live = set(kept)
    result: list[Call] = []
    for call in reversed(calls):
        checks = not call.outs and not call.writes
        if not checks and not any(ref.slot in live or slots[ref.slot].kind != "made" for ref in written(call)):
            continue
        if any(r is not None and r.slot not in live for r in call.outs):
            call = call._replace(outs=tuple([r if r is not None and r.slot in live else None for r in call.outs]))
        live.update([ref.slot for ref in reads(call)])
        result.append(call)
    return result[::-1], len(calls) - len(result)


def _constants(calls: list[Call], slots: Sequence[Slot]) -> tuple[list[Call], list[Call]]:
    """(calls whose results never change, the others)."""
    changed = all_changed(calls)
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
