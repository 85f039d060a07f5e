"""Suite `steps`: whole training steps of all sides, and their peak memory."""

from __future__ import annotations

from ..cli import Options
from ..common.cores import pinned
from ..common.tables import environment, write_json
from . import growth
from . import memory as step_memory
from . import plots as step_plots
from . import tables as step_tables
from .rows import Row, measure
from .workloads import WORKLOADS


def run(options: Options) -> None:
    """Every workload on one thread, then on all; long loops; peak memory; print, write steps.json and steps.png."""
    machine = environment(options.threads)
    print(", ".join(f"{name} {value}" for name, value in machine.items()))
    print(EXPLANATION, flush=True)
    rows: list[Row] = []
    for threads in sorted({1, options.threads}):
        with pinned(threads):
            for i, workload in enumerate(WORKLOADS):
                rows += measure(workload, threads, options.quick, compilers=not options.quick or i == 0)
        print(f"\n{threads} thread(s)\n" + step_tables.times([row for row in rows if row.threads == threads]))
    print("\n" + step_tables.ratios(rows))
    print("\n" + step_tables.costs(rows))
    loops = growth.measure(options.quick)
    print("\n" + growth.report(loops))
    large = [workload for workload in WORKLOADS if workload.memory]
    peaks = step_memory.peaks(large[-1:] if options.quick else large)
    print("\n" + step_memory.report(peaks))
    result = {"environment": machine, "rows": [step_tables.plain(row) for row in rows], "memory": peaks}
    result["growth"] = [growth.plain(loop) for loop in loops]
    write_json(options.out / "steps.json", result)
    step_plots.times(options.out / "steps.png", rows, machine)
    print(f"\nwritten to {options.out}: steps.json, steps.png")


EXPLANATION = """\
float32; same initial weights and batches, the losses of the first steps compared first (tapegrad's compiled with its
eager ones bit for bit, but for exact=False); sides take turns in blocks; median over the blocks +- half the IQR. The
process is pinned to as many cores as there are threads, whichever side runs.
eager: as written. call: one compiled call a step, guards checked, a fresh loss, .grad readable. run: step.run over
5 epochs, shuffling, gathering and losses included. PyTorch eager: the fastest memory format, optimizer implementation
and number of threads. compile step: the update is part of the compiled function. JAX scan: an epoch in one call,
batches gathered inside in an order made before. planning: the recorded calls beyond as many eager ones, lowering
included; again: for a second model of the same structure; beside it the first call of the others, which compiles.
length of a loop: planning a step that Python unrolls, and the power of the length that it grows by."""
