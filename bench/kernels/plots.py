"""The picture of suite `kernels`: PyTorch's time over tapegrad's, on one thread."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from ..common.plots import BASELINE, OURS, THEIRS, plain
from .cases import ELEMENTWISE
from .goals import BOTH, FORWARD

Rows = Sequence[dict[str, Any]]


def ratios(path: Path, rows: Rows, machine: dict[str, Any]) -> None:
    """Bars of every op and step at the left; the elementwise ops over their size at the right."""
    rows = [row for row in rows if row["threads"] == 1]
    others = [row for row in rows if row["op"] not in ELEMENTWISE]
    names = list(dict.fromkeys(row["name"] for row in others))
    figure = Figure(figsize=(15, 1.6 + 0.27 * len(names)), layout="constrained")
    grid = figure.add_gridspec(2, 2, width_ratios=(1.25, 1))
    bars(figure.add_subplot(grid[:, 0]), names, others)
    for i, what in enumerate((FORWARD, BOTH)):
        over_size(
            figure.add_subplot(grid[i, 1]), [r for r in rows if r["op"] in ELEMENTWISE and r["what"] == what], what
        )
    head = "PyTorch's time / tapegrad's: right of or above 1, tapegrad is faster"
    figure.suptitle(f"{head} (float32, 1 thread, {machine['processor']}, {machine['isa']})")
    figure.savefig(path, dpi=110)


def bars(ax: Axes, names: list[str], rows: Rows) -> None:
    """A bar per forward call and per forward + backward, update or step, with the goal as a line to reach."""
    kinds = {FORWARD: (0.16, THEIRS, FORWARD), BOTH: (-0.16, OURS, f"{BOTH}, update, or step")}
    for kind, (shift, colour, label) in kinds.items():
        chosen = [row for row in rows if (row["what"] == FORWARD) == (kind == FORWARD)]
        places = [len(names) - 1 - names.index(row["name"]) + shift for row in chosen]
        widths = [row["ratio"] - 1 for row in chosen]
        ax.barh(places, widths, height=0.3, left=1, color=colour, label=label)
        goals = [
            (float(row["goal"].text[:-1]), place)
            for row, place in zip(chosen, places, strict=True)
            if row["goal"] is not None and row["goal"].text.endswith("x")
        ]
        ax.plot(*zip(*goals, strict=True) if goals else ([], []), "|", color="black", ms=8, mew=1.4)
    ax.plot([], [], "|", color="black", ms=8, mew=1.4, label="goal")
    ax.set_yticks(range(len(names)), names[::-1], fontsize=8)
    ax.set(xscale="log", ylim=(-0.7, len(names) - 0.3))
    ax.axvline(1, color=BASELINE, lw=1)
    numbers(ax.xaxis)
    plain(ax)
    ax.legend(frameon=False, loc="lower right", fontsize=8)


def over_size(ax: Axes, rows: Rows, what: str) -> None:
    """A line per elementwise op."""
    for i, op in enumerate(ELEMENTWISE):
        points = [(row["elements"], row["ratio"]) for row in rows if row["op"] == op]
        if points:
            ax.plot(*zip(*points, strict=True), marker="osD^v<>PX"[i], ms=4, lw=1.2, color=f"C{i}", label=op)
    ax.axhline(1, color=BASELINE, lw=1)
    ax.set(xscale="log", yscale="log", xlabel="elements", title=f"elementwise, {what}")
    numbers(ax.yaxis)
    plain(ax)
    ax.legend(frameon=False, fontsize=8, ncols=3)


def numbers(axis: Any) -> None:
    """A logarithmic axis labelled 0.5, 1, 2, 5, 10 instead of powers."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())
