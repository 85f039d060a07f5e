"""A compiled step as data for a page: its instructions and what they take, the step eager, called and run, where its
values lie in the arena over time, its guards.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

from ..core import _C
from .arguments import Arguments
from .bind import Bound
from .explain import Writer, guards_by_kind, size, why_torch
from .naming import Names
from .profile import Profile, profile
from .program import Program, reads, rounded, written
from .record import Recorder
from .trace import refs_of

_SECONDS = 0.3  # that a side is timed, about
_TURNS = 3  # of a side, at least
_BATCHES = 16  # of a run


def picture(bound: Bound, fn: Callable[..., Any], given: Arguments, title: str) -> dict[str, Any]:
    """Rows are the instructions, constants that are computed once first. All that is run for it is taken back."""
    program, writer = bound.program, Writer(bound, Names(bound, fn, given))
    measured = profile(bound, given.tensors, given.holders)
    times = {row.instruction: row for row in measured.rows}
    makers: dict[int, int] = {}  # by slot: the row that wrote it last
    rows: list[dict[str, Any]] = []
    chain = {i: first for first, last in program.chains for i in range(first, last)}
    for i, call in enumerate([*program.once, *program.calls]):
        number = i - len(program.once)
        source_rows = sorted({makers[ref.slot] for ref in reads(call) if ref.slot in makers})
        for ref in written(call):
            makers[ref.slot] = i
        kind = "once" if number < 0 else "tapegrad" if bound.is_ours(number) else "torch"
        row = times.get(number)
        rows.append(
            {
                "op": call.name,
                "text": writer.text(call),
                "type": ", ".join(size(ref) for ref in refs_of(call.outs)),
                "bytes": sum(math.prod(ref.sizes) * ref.dtype.itemsize for ref in written(call)),
                "source": call.source,
                "path": [kind, *([f"fused from {chain[number]}"] if number in chain else [])],
                "why": why_torch(call) if kind == "torch" else "",
                "reads": source_rows,
                "stats": [],
                "ns": row.ns if row else None,
                "share": row.share if row else None,
            }
        )
    return {
        "kind": "step",
        "title": title,
        "rows": rows,
        "entries": len(program.calls),
        "sides": sides(bound, fn, given, measured),
        "arena": _arena(program),
        "arenaBytes": program.arena_bytes,
        "unsharedBytes": program.unshared_bytes,
        "notes": list(program.notes),
        "guards": [str(fact.path) for fact in bound.facts],
        "watched": [[kind, items] for kind, items in guards_by_kind(bound.facts).items()],
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


# --- eager, call and run side by side ------------------------------------------------------------------------------


def sides(bound: Bound, fn: Callable[..., Any], given: Arguments, measured: Profile) -> list[list[Any]]:
    """[name, ns of a step] of each way to do it, the least of several turns; None where there is no such way."""
    memory = [bound.bytes_of(i) for i, slot in enumerate(bound.trace.slots) if bound.is_written(i)]
    before = [t.clone() for t in memory]
    calls = bound.calls
    found: list[list[Any]] = []
    recorder = Recorder(given.tensors, given.holders)

    def timed() -> None:
        recorder.run(fn, given.args, given.kwargs)  # `before` then knows what a step changes, and so all of this
        found.append(["eager", _least(lambda: fn(*given.args, **given.kwargs))])
        found.append(["call", _least(lambda: bound.replay(given.tensors, given.holders))])
        found.append(["run", _of_a_run(bound, given.tensors)])

    try:
        _C.taken_back(recorder.before, timed)
    finally:
        for t, old in zip(memory, before, strict=True):
            t.copy_(old)
        bound.calls = calls
    return [*found, ["instructions alone", sum(row.ns for row in measured.rows)]]


def _of_a_run(bound: Bound, arguments: Sequence[torch.Tensor]) -> float | None:
    """A step of ``step.run`` over rows in memory; None where the step is no training over batches."""
    rows = {len(t) if t.ndim else 0 for t in arguments}
    changed = any(slot.kind == "argument" and slot.written for slot in bound.trace.slots)
    if len(rows) != 1 or rows == {0} or changed or not bound.scalar_loss:
        return None
    n = rows.pop()
    arrays = [t.repeat(_BATCHES, *[1] * (t.ndim - 1)) for t in arguments]
    if any(a[:n].stride() != t.stride() for a, t in zip(arrays, arguments, strict=True)):
        return None
    order, losses = torch.arange(_BATCHES * n), torch.empty(_BATCHES, dtype=bound.trace.result.ref.dtype)
    taken = _least(lambda: bound.run(arrays, order, n, _BATCHES, losses, lambda done: True)) / _BATCHES
    return None if bound.met_bad_values else taken


def _least(call: Callable[[], Any]) -> float:
    """Nanoseconds of the fastest turn."""
    shortest, began, turns = math.inf, time.perf_counter(), 0
    while turns < _TURNS or time.perf_counter() - began < _SECONDS:
        start = time.perf_counter()
        call()
        shortest = min(shortest, time.perf_counter() - start)
        turns += 1
    return 1e9 * shortest
