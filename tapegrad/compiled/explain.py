"""A program as text."""

from __future__ import annotations

from .bind import Bound
from .program import show

_SHOWN = 12  # guards


def explain(bound: Bound, exact: bool) -> str:
    """Instructions, what lowering did, memory, guards."""
    program = bound.program
    ours = sum(isinstance(call.function, str) for call in program.calls)
    lines = [
        f"program: {len(program.calls)} instructions, {ours} kernels of tapegrad, {len(program.calls) - ours} of torch"
    ]
    for call in program.once:
        lines.append(f"  once  {show(call)}")
    for i, call in enumerate(program.calls):
        kind = "     " if isinstance(call.function, str) else "torch"
        lines.append(f"{i:4} {kind} {show(call)}")
    lines.append("rewrites: " + ("; ".join(program.notes) or "none") + ("" if exact else " (exact=False)"))
    lines.append(f"arena: {program.arena_bytes} bytes for {program.unshared_bytes} bytes of values")
    kinds = [slot.kind for slot in program.slots]
    lines.append(
        f"memory: {kinds.count('argument')} arguments, {kinds.count('outside')} tensors from outside, "
        f"{len(program.own)} buffers of its own"
    )
    for group, key in bound.trace.numbers:
        lines.append(f"read at every step: {key} = {group[key]}")
    for generator, blocks in bound.trace.generators:
        lines.append(f"random numbers: {blocks} blocks a step of {generator!r}")
    lines.append(f"guards: {len(bound.facts)} facts, and the addresses of the tensors from outside")
    for fact in bound.facts[:_SHOWN]:
        lines.append(f"  {fact.path}")
    if len(bound.facts) > _SHOWN:
        lines.append(f"  ... and {len(bound.facts) - _SHOWN} more")
    return "\n".join(lines)
