"""The picture of suite `steps`: microseconds a step of every side, on one thread."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from ..common.plots import OURS, THEIRS, plain
from ..common.tables import seconds
from .rows import FIGURES, OTHERS, Row

JAX = "#3a7d44"
MARKS = {
    **{name: (f"tapegrad {name}", OURS, mark) for name, mark in zip(FIGURES, "o>D", strict=True)},
    **{
        name: (name, colour, mark)
        for name, colour, mark in zip(OTHERS, (THEIRS, THEIRS, THEIRS, JAX, JAX), "osvs^", strict=True)
    },
}


def times(path: Path, rows: Sequence[Row], machine: dict[str, Any]) -> None:
    """A line per row, a mark per side; filled marks are tapegrad's."""
    rows = [row for row in rows if row.threads == 1]
    figure = Figure(figsize=(12, 1.6 + 0.5 * len(rows)), layout="constrained")
    ax = figure.subplots()
    for name, (label, colour, mark) in MARKS.items():
        points = [
            (timings[name].median, len(rows) - 1 - i)
            for i, row in enumerate(rows)
            for timings in (row.figures if name in FIGURES else row.others,)
            if name in timings
        ]
        face = colour if name in FIGURES else "none"
        ax.plot(*zip(*points, strict=True) if points else ([], []), mark, color=colour, mfc=face, ms=8, label=label)
    ax.set_yticks(range(len(rows)), [row.name for row in rows][::-1], fontsize=9)
    ax.set(xscale="log", ylim=(-0.6, len(rows) - 0.4), xlabel="a step")
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: seconds(value)))
    ax.xaxis.set_minor_formatter(NullFormatter())
    plain(ax)
    ax.legend(frameon=False, fontsize=9, ncols=4, loc="lower center", bbox_to_anchor=(0.4, 1))
    figure.suptitle(f"a training step (float32, 1 thread, {machine['processor']}, {machine['isa']})")
    figure.savefig(path, dpi=110)
