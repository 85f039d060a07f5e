"""Suite `growth`: see `EXPLANATION`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from ..cli import Options
from ..common.cores import pinned
from ..common.plots import BASELINE, OURS, THEIRS, plain
from ..common.tables import environment, seconds, table, write_json
from ..steps import jax_side
from ..steps.rows import JIT, agree
from ..steps.sides import Unavailable, named, plan, tapegrad_sides, time_sides, torch_side
from ..steps.workloads import SCAN, TORCH
from .axes import AXES, Axis

SIDES = [*(f"tapegrad {figure}" for figure in ("eager", "call", "run")), TORCH, SCAN]
PEERS = [TORCH, SCAN]
SMALL = 1e9  # operations a step: no peer is to be ahead of `run` below
CLIFF = 1.5  # a step may take so much more than its operations grow

EXPLANATION = f"""\
A training step (float32, MSE, Adam) at growing extents, one core and thread for all sides; same weights and batches,
the losses of the first steps compared first; median of blocks that take turns. run: step.run, shuffling and gathering
included. JAX: an epoch in one lax.scan. ahead: the faster peer's time over run's; BEHIND where it is below 1 at less
than {SMALL:g} operations. arena: activations and scratch of the compiled step; unshared: what they would take if no two
shared memory. CLIFF: run grows by more than {CLIFF} times what its operations grow."""


@dataclass
class Point:
    """An axis at one value."""

    value: int
    operations: float
    seconds: dict[str, float]  # by SIDES, those that are there
    arena: int
    unshared: int

    @property
    def ahead(self) -> float:
        """The faster peer's time over run's."""
        return min(self.seconds[peer] for peer in PEERS if peer in self.seconds) / self.seconds["tapegrad run"]


def run(options: Options) -> bool:
    """Print a table for each axis; write growth.json and growth.png. True where a peer is ahead or a cliff found."""
    failed = False
    found: dict[str, list[Point]] = {}
    with pinned(1):
        machine = environment(1)
        print(", ".join(f"{name} {value}" for name, value in machine.items()))
        print(EXPLANATION, flush=True)
        for axis in AXES:
            points = [measure(axis, value, options.quick) for value in axis.chosen(options.quick)]
            found[axis.name] = points
            text, bad = report(axis, points)
            print("\n" + text, flush=True)
            failed = failed or bad
    result = {"environment": machine, "axes": {name: [asdict(p) for p in points] for name, points in found.items()}}
    write_json(options.out / "growth.json", result)
    draw(options.out / "growth.png", found, machine)
    print(f"\nwritten to {options.out}: growth.json, growth.png")
    return failed


def measure(axis: Axis, value: int, quick: bool) -> Point:
    workload, operations = axis.step(value)
    (variant,) = workload.variants
    planned = plan(workload, variant)
    sides = tapegrad_sides(workload, variant, 1)
    block = 0.01 if quick else 0.03
    theirs, _ = torch_side(workload, TORCH, [1], block)
    sides.append(theirs)
    try:
        sides += [side for side in jax_side.sides(workload, JIT, SCAN) if side.name == SCAN]
    except Unavailable as reason:
        print(f"{axis.name} {value}: {SCAN}: {reason}")
    agree(workload.name, sides, theirs)
    timings = time_sides(sides, 3 if quick else 7, block)
    times = {name.removesuffix(f", {variant.name}"): timings[name].median for name in timings}
    assert named(variant, "run") in times
    return Point(value, operations, times, planned.arena, planned.unshared)


def cliff(before: Point, after: Point) -> bool:
    """Whether `run` grows by much more than the operations do, a step without any taking what the first one takes."""
    grown = after.seconds["tapegrad run"] / before.seconds["tapegrad run"]
    return grown > CLIFF * after.operations / before.operations


def report(axis: Axis, points: list[Point]) -> tuple[str, bool]:
    """The table, and whether something in it is marked."""
    rows, bad = [], False
    for i, point in enumerate(points):
        behind = point.ahead < 1 and point.operations < SMALL
        marks = ["BEHIND"] * behind + ["CLIFF"] * (i > 0 and cliff(points[i - 1], point))
        bad = bad or bool(marks)
        times = [seconds(point.seconds[side]) if side in point.seconds else "" for side in SIDES]
        memory = [f"{size / 2**10:,.0f} KiB" for size in (point.arena, point.unshared)]
        rows.append(
            [
                f"{axis.name} {point.value}",
                f"{point.operations:.2g}",
                *times,
                f"{point.ahead:.2f}",
                *memory,
                " ".join(marks),
            ]
        )
    head = [axis.fixed, "operations", *SIDES, "ahead", "arena", "unshared", ""]
    return table(head, rows), bad


STYLES = {
    "tapegrad eager": (OURS, ":", "o"),
    "tapegrad call": (OURS, "--", "o"),
    "tapegrad run": (OURS, "-", "o"),
    TORCH: (THEIRS, "-", "s"),
    SCAN: ("#3a7d44", "-", "^"),
}


def draw(path: Path, found: dict[str, list[Point]], machine: dict[str, Any]) -> None:
    """A column for each axis: time a step above, bytes of the arena below."""
    figure = Figure(figsize=(4 * len(found), 7), layout="constrained")
    axes = figure.subplots(2, len(found), squeeze=False, sharex="col", height_ratios=(2, 1))
    for column, axis in enumerate(a for a in AXES if a.name in found):
        points = found[axis.name]
        values = [p.value for p in points]
        above, below = axes[0][column], axes[1][column]
        for side, (colour, line, mark) in STYLES.items():
            times = [p.seconds.get(side, float("nan")) * 1e6 for p in points]
            above.plot(values, times, line, marker=mark, ms=4, lw=1.4, color=colour, label=side)
        below.plot(
            values, [p.unshared / 2**10 for p in points], ":", color=BASELINE, label="if no two values shared memory"
        )
        below.plot(values, [p.arena / 2**10 for p in points], "-", color=OURS, label="arena")
        for ax in (above, below):
            ax.set(xscale="log", yscale="log")
            ax.set_xticks(values, [str(value) for value in values], fontsize=8)
            ax.set_xticks([], minor=True)
            plain(ax)
        above.set(title=f"{axis.name}\n{axis.fixed}")
        below.set(xlabel=axis.name)
    axes[0][0].set(ylabel="us a step")
    axes[1][0].set(ylabel="KiB")
    axes[0][0].legend(frameon=False, fontsize=8)
    axes[1][0].legend(frameon=False, fontsize=8)
    figure.suptitle(f"a training step (float32, Adam, 1 thread, {machine['processor']}, {machine['isa']})")
    figure.savefig(path, dpi=110)
