"""A compiled step as data: its instructions, where its values lie in the arena over time, its guards."""

from __future__ import annotations

from typing import Any

from .bind import Bound
from .program import Program, reads, rounded, show, written
from .trace import refs_of


def picture(bound: Bound, title: str, nanoseconds: list[float] | None = None) -> dict[str, Any]:
    """Rows are the instructions, constants that are computed once first, with their time where it was measured."""
    program = bound.program
    makers: dict[int, int] = {}  # by slot: the row that wrote it last
    rows: list[dict[str, Any]] = []
    chain = {i: number for number, (first, last) in enumerate(program.chains) for i in range(first, last)}
    for i, call in enumerate([*program.once, *program.calls]):
        number = i - len(program.once)
        source_rows = sorted({makers[ref.slot] for ref in reads(call) if ref.slot in makers})
        for ref in written(call):
            makers[ref.slot] = i
        text, _, source = show(call).rpartition("  ")
        kind = "once" if number < 0 else "kernel" if isinstance(call.function, str) else "torch"
        rows.append(
            {
                "op": call.name,
                "text": text,
                "type": ", ".join(repr(ref).partition(":")[2] for ref in refs_of(call.outs)),
                "bytes": sum(program.slots[ref.slot].nbytes for ref in refs_of(call.outs)),
                "source": source,
                "path": [kind, *([f"{kind}.fused {chain[number]}"] if number in chain else [])],
                "reads": source_rows,
                "stats": [],
                "ns": nanoseconds[number] if nanoseconds and 0 <= number < len(nanoseconds) else None,
            }
        )
    return {
        "kind": "step",
        "title": title,
        "rows": rows,
        "entries": len(program.calls),
        "arena": _arena(program),
        "arenaBytes": program.arena_bytes,
        "unsharedBytes": program.unshared_bytes,
        "notes": list(program.notes),
        "guards": [str(fact.path) for fact in bound.facts],
    }


def _arena(program: Program) -> list[list[int]]:
    """[slot, offset, bytes, first instruction, last instruction] of every value that lies in the arena."""
    lives: dict[int, list[int]] = {}
    for i, call in enumerate(program.calls):
        for ref in (*reads(call), *written(call)):
            if ref.slot in program.offsets:
                lives.setdefault(ref.slot, [i, i])[1] = i
    return [
        [slot, program.offsets[slot], rounded(program.slots[slot].nbytes), first, last]
        for slot, (first, last) in sorted(lives.items())
    ]
