"""Suite `together`: see `EXPLANATION`."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from typing import Any

import torch

import tapegrad as tg

from ..cli import Options
from ..common.cores import pinned
from ..common.memory import resident
from ..common.peaks import registers
from ..common.tables import environment, table, write_json
from ..common.timing import Timing, take_turns
from ..steps.sides import FIRST, Unavailable
from . import jax_side
from .workloads import GROWTH, ROWS, Many, make, parameters

EXPLANATION = """\
float32; microseconds a step and network, shuffling, gathering and losses included; all sides pinned to one core, taking
turns in blocks; median over the blocks +- half the IQR. floor: the products at the core's measured peak. alone:
step.run of one network. JAX: lax.scan over an epoch of vmap over the networks, jitted, one thread. Compared first:
run_together with step.run alone bit for bit, JAX's first to 1e-3. set-up: the first call beyond a later one, for each
network, the recording of the first network included."""


def run(options: Options) -> None:
    """Print the tables; write together.json."""
    machine = environment(options.threads)
    print(", ".join(f"{name} {value}" for name, value in machine.items()))
    print(EXPLANATION, flush=True)
    with pinned(1):
        peak = registers(1, 0.2)
        rows = [measure(many, peak, options.quick) for many in (ROWS[:1] if options.quick else ROWS)]
        print(f"\none core at {peak / 1e9:.0f} GFLOP/s\n" + times(rows), flush=True)
        growth = [grow(count) for count in GROWTH[: 2 if options.quick else None]]
        print("\n" + grown(growth), flush=True)
    scaling = [scale(many, options.quick) for many in (ROWS[0], ROWS[2])]
    print("\n" + scaled(scaling))
    write_json(
        options.out / "together.json", {"environment": machine, "rows": rows, "growth": growth, "threads": scaling}
    )
    print(f"\nwritten to {options.out}: together.json")


def measure(many: Many, peak: float, quick: bool) -> dict[str, Any]:
    """One row: the sides' times by name, in seconds a step and network."""
    workload = many.workload
    arrays = [tg.as_tensor(a) for a in workload.data()]
    options = {"batch_size": workload.batch, "seed": 0}
    steps = many.steps()
    initial = [parameters(step) for step in steps]
    began = time.perf_counter()
    losses = tg.run_together(steps, *arrays, **options)
    first = time.perf_counter() - began
    check(many, steps, losses, arrays)
    epochs = 4
    units = many.count * workload.batches * epochs
    began = time.perf_counter()
    tg.run_together(steps, *arrays, epochs=epochs, **options)
    again = (time.perf_counter() - began) / epochs
    single = make(workload, 0)
    single.run(*arrays, epochs=3, **options)
    alone = max(1, units // workload.batches // 4)
    sides: dict[str, tuple[Callable[[], Any], int]] = {
        "together": (lambda: tg.run_together(steps, *arrays, epochs=epochs, **options), units),
        "alone": (lambda: single.run(*arrays, epochs=alone, **options), alone * workload.batches),
    }
    reason = ""
    try:
        epoch, theirs = jax_side.advance(many, initial)
        error = (theirs.T - losses[:, 0].data)[:, :FIRST].abs().max() / losses.data.abs().max()
        assert float(error) < 1e-3, f"JAX's losses differ by {float(error):.1e}"
        sides["JAX"] = epoch, many.count * workload.batches
    except Unavailable as unavailable:
        reason = str(unavailable)
    timings = take_turns([side for side, _ in sides.values()], blocks=8 if quick else 16, calls=1)
    figures = {
        name: Timing(t.warmup, [b / n for b in t.blocks])
        for (name, (_, n)), t in zip(sides.items(), timings, strict=True)
    }
    result: dict[str, Any] = {"name": workload.name, "count": many.count, "floor": many.flops / peak}
    result |= {name: {"median": t.median, "spread": t.spread, "least": min(t.measured)} for name, t in figures.items()}
    result |= {"setup": (first - again) / many.count, "jax": reason, "goals": goals(many, figures)}
    return result


def check(many: Many, steps: list[Any], losses: Any, arrays: list[Any]) -> None:
    """Some of the networks are what their own run makes of them."""
    for k in {0, 1, many.count // 2, many.count - 1}:
        one = make(many.workload, k)
        alone = one.run(*arrays, batch_size=many.workload.batch, seed=k)
        assert torch.equal(alone.data, losses[k].data), f"losses of network {k}"
        for a, b in zip(parameters(one), parameters(steps[k]), strict=True):
            assert torch.equal(a, b), f"parameters of network {k}"


def goals(many: Many, figures: dict[str, Timing]) -> list[str]:
    """What is wanted, and what was reached."""
    ours = figures["together"].median
    found = []
    if many.micro is not None:
        found.append(verdict(f"at most {many.micro:g} us", ours <= many.micro * 1e-6, f"{ours / 1e-6:.2f}"))
    for times, side in ((many.over_jax, "JAX"), (many.over_run, "alone")):
        if times is not None and side in figures:
            reached = figures[side].median / ours
            found.append(verdict(f"{times:g} x {side}", reached >= times, f"{reached:.1f}"))
    return found


def verdict(goal: str, met: bool, reached: str) -> str:
    return f"{goal}: {reached}" if met else f"{goal}: {reached} (missed)"


def times(rows: list[dict[str, Any]]) -> str:
    cells = []
    for row in rows:
        sides = [row.get(name) for name in ("together", "alone", "JAX")]
        figures = [f"{s['median'] / 1e-6:.2f} +- {s['spread'] / 1e-6:.2f}" if s else row["jax"] for s in sides]
        floor, setup = f"{row['floor'] / 1e-6:.2f}", f"{row['setup'] / 1e-3:.2f}"
        cells.append([row["name"], row["count"], floor, *figures, setup, "; ".join(row["goals"])])
    return table(
        ["network", "K", "floor us", "together us", "alone us", "JAX us", "set-up ms", "wanted: reached"], cells
    )


def grow(count: int) -> dict[str, Any]:
    """One epoch of many small networks, from compiled steps on."""
    workload = ROWS[0].workload
    arrays = [tg.as_tensor(a) for a in workload.data()]
    steps = [make(workload, k) for k in range(count)]
    gc.collect()
    before = resident("VmRSS")
    began = time.perf_counter()
    tg.run_together(steps, *arrays, batch_size=workload.batch, seed=0)
    seconds = time.perf_counter() - began
    return {"count": count, "seconds": seconds, "bytes": resident("VmRSS") - before}


def grown(rows: list[dict[str, Any]]) -> str:
    cells = [
        [
            row["count"],
            f"{row['seconds']:.2f}",
            f"{row['seconds'] / row['count'] / 1e-3:.3f}",
            f"{row['bytes'] / row['count'] / 1024:.0f}",
        ]
        for row in rows
    ]
    return table(["K of the first network, one epoch, set-up included", "s", "ms a network", "KiB a network"], cells)


def scale(many: Many, quick: bool) -> dict[str, Any]:
    """One thread and two."""
    workload = many.workload
    arrays = [tg.as_tensor(a) for a in workload.data()]
    steps = many.steps()
    before = torch.get_num_threads()

    def side(threads: int) -> Callable[[], Any]:
        def run() -> None:
            torch.set_num_threads(threads)
            tg.run_together(steps, *arrays, batch_size=workload.batch, epochs=8, seed=0)

        return run

    try:
        one, two = take_turns([side(1), side(2)], blocks=6 if quick else 12, calls=1)
    finally:
        torch.set_num_threads(before)
    return {"name": workload.name, "count": many.count, "one": one.median, "two": two.median}


def scaled(rows: list[dict[str, Any]]) -> str:
    cells = [[row["name"], row["count"], f"{row['one'] / row['two']:.2f}"] for row in rows]
    return table(["two threads over one (wanted: 1.8)", "K", "times"], cells)
