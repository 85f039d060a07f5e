"""A tape as data: its lines, where they stand in the model, what they cost, and the memory over time."""

from __future__ import annotations

import linecache
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..core import Entry, Leaf, Note, Stats, Tape, entry_of, shape_of, slot
from .page import render

_STATS = ("mean", "std", "min", "max", "zeros", "bad")


def page_of_tape(tape: Tape, title: str = "tape") -> str:
    """The page of a tape."""
    return render(data_of_tape(tape, title))


def data_of_tape(tape: Tape, title: str) -> dict[str, Any]:
    """Rows in the order of the list; values from outside stand before their first reader."""
    names = _parameters(tape)
    place: dict[Any, int] = {}  # of the row that makes a slot
    rows: list[dict[str, Any]] = []
    row_of_entry: list[int] = []
    texts = dict(_lines(tape))
    for entry, note in zip(tape.entries, tape.notes.of, strict=True):
        reads = []
        for node in entry.parents:
            if node is None:
                continue
            if slot(node) not in place:
                place[slot(node)] = len(rows)
                rows.append(_outside(node, names, texts[slot(node)]))
            reads.append(place[slot(node)])
        outputs = entry.output if isinstance(entry.output, tuple) else (entry.output,)
        for name in outputs:
            place[name] = len(rows)
        row_of_entry.append(len(rows))
        rows.append(_row(entry, note, reads, texts[outputs[0]]))
    return {
        "kind": "tape",
        "title": title,
        "rows": rows,
        "memory": _memory(tape),
        "entries": len(tape.entries),
        "rowOfEntry": row_of_entry,
        "sources": _sources(tape),
    }


def _sources(tape: Tape) -> dict[str, list[str]]:
    """The text of each line of code that is named, and the address of its file where that is on disk."""
    found: dict[str, list[str]] = {}
    for entry in tape.entries:
        if entry.source not in found:
            file, line = entry.place
            path = Path(file)
            address = path.absolute().as_uri() if path.is_file() else ""
            found[entry.source] = [linecache.getline(file, line).strip(), address]
    return found


def _lines(tape: Tape) -> list[tuple[Any, tuple[str, str]]]:
    """(slot, (assignment, type)) of every printed line."""
    lines = []
    rows = tape._rows()
    known: set[Any] = set()
    for entry in tape.entries:
        for node in entry.parents:
            if node is not None and slot(node) not in known:
                known.add(slot(node))
                text, kind, *_ = next(rows)
                lines.append((slot(node), (text, kind)))
        outputs = entry.output if isinstance(entry.output, tuple) else (entry.output,)
        known.update(outputs)
        text, kind, *_ = next(rows)
        lines += [(name, (text, kind)) for name in outputs]
    return lines


def _parameters(tape: Tape) -> dict[Any, str]:
    """The names of leaves that are parameters of the modules that were called."""
    names = {}
    for root in tape.notes.roots:
        for name, parameter in root.named_parameters():
            if parameter._node is not None:
                names[parameter._node] = name
    return names


def _outside(node: Any, names: dict[Any, str], text: tuple[str, str]) -> dict[str, Any]:
    owner = entry_of(node)
    shape = shape_of(node)
    return {
        "op": "leaf" if isinstance(owner, Leaf) else "value",
        "text": text[0],
        "type": text[1],
        "bytes": 0,
        "source": names.get(node, ""),
        "path": _prefixes(names[node].split(".")) if node in names else [],
        "reads": [],
        "stats": [],
        "size": shape.numel(),
    }


def _row(entry: Entry, note: Note, reads: list[int], text: tuple[str, str]) -> dict[str, Any]:
    return {
        "op": entry.op.name,
        "text": text[0],
        "type": text[1],
        "bytes": entry.nbytes,
        "source": entry.source,
        "path": _prefixes(note.path[1:]) or list(note.path[:1]),
        "forward": note.forward,
        "backward": note.backward,
        "reads": reads,
        "stats": [_stats(value) for value in note.values],
        "grads": [_stats(value) for value in note.gradients],
    }


def _prefixes(names: Sequence[str]) -> list[str]:
    """A, A.B, A.B.C: the modules around something, from the outermost."""
    return [".".join(names[: i + 1]) for i in range(len(names))]


def _stats(stats: Stats | None) -> list[Any] | None:
    return None if stats is None else [getattr(stats, name) for name in _STATS]


def _memory(tape: Tape) -> dict[str, Any]:
    """Bytes held over forward and backward: a value is held for its last reader, and for the rules that saved it."""
    notes, n = tape.notes.of, len(tape.entries)
    value_at: dict[int, int] = {}  # by address: the value that lies there
    sizes: list[int] = []
    made: list[int] = []
    last: list[int] = []  # the last moment; 0 .. n-1 forward, n .. 2n-1 backward
    value_of_slot: dict[Any, int] = {}
    for i, (entry, note) in enumerate(zip(tape.entries, notes, strict=True)):
        read = [value_of_slot[slot(node)] for node in entry.parents if node is not None and slot(node) in value_of_slot]
        outputs = entry.output if isinstance(entry.output, tuple) else (entry.output,)
        for name, (address, size) in zip(outputs, note.made, strict=False):
            if value_at.get(address) not in read:  # no view of what it read
                value_at[address] = len(sizes)
                sizes.append(size)
                made.append(i)
                last.append(i)
            value_of_slot[name] = value_at[address]
        for value in (*read, *(value_of_slot[name] for name in outputs if name in value_of_slot)):
            last[value] = max(last[value], i)
        for address in note.saved:
            if address in value_at:
                last[value_at[address]] = max(last[value_at[address]], 2 * n - 1 - i)
    change = [0] * (2 * n + 1)
    for size, start, end in zip(sizes, made, last, strict=True):
        change[start] += size
        change[end + 1] -= size
    curve, held = [], 0
    for step in change[: 2 * n]:
        held += step
        curve.append(held)
    peak = max(range(len(curve)), key=curve.__getitem__, default=0)
    alive = [(v, s) for v, s in enumerate(sizes) if made[v] <= peak <= last[v]]
    alive.sort(key=lambda pair: -pair[1])
    return {"curve": curve, "peak": peak, "alive": [[made[v], size] for v, size in alive[:50]]}
