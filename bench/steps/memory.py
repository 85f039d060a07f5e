"""Peak memory of suite `steps`: each side's first steps, and the steps after them, in a process of its own."""

from __future__ import annotations

import json
from typing import Any

import torch

import tapegrad as tg

from ..common import memory
from ..common.tables import table
from .sides import TorchStep, tapegrad_step
from .workloads import WORKLOADS, Workload, epoch

STEPS = 3  # the first two of a compiled step are recorded
TORCH = {
    "PyTorch": (torch.contiguous_format, {"fused": True}),
    "PyTorch, channels_last": (torch.channels_last, {"fused": True}),
}
WANTED = 0.5  # of PyTorch's least, for a compiled step's replays


def peaks(workloads: list[Workload]) -> list[dict[str, Any]]:
    """Bytes that the steps added to what was resident before; empty where the system does not say (no Linux)."""
    if not memory.available():
        return []
    found = []
    for workload in workloads:
        names = [f"{kind}, {v.name}" if v.name else kind for v in workload.variants for kind in ("eager", "compiled")]
        for name in [*names, *TORCH]:
            figures = memory.in_fresh_process("steps.memory", "measure", workload.name, name)
            found.append({"name": workload.name, "side": name, **figures})
    return found


def measure(workload_name: str, side: str) -> None:
    """In a fresh process, on one thread: print the peak of the first steps and of as many after them."""
    torch.set_num_threads(1)
    workload = next(w for w in WORKLOADS if w.name == workload_name)
    if side in TORCH:
        step: Any = TorchStep(workload, TORCH[side])
        batches: list[Any] = step.batches[:STEPS]
    else:
        kind, _, name = side.partition(", ")
        variant = next(v for v in workload.variants if v.name == name)
        step = tapegrad_step(workload, variant)
        step = tg.compile(step, exact=variant.exact) if kind == "compiled" else step
        batches = epoch(tuple(tg.Tensor(x) for x in workload.arrays(STEPS * workload.batch)), workload.batch)
    memory.give_back()
    before = memory.mark()
    figures = {}
    for part in ("first", "later"):
        for batch in batches:
            step(*batch)
        figures[part] = memory.resident("VmHWM") - before
        memory.give_back()
        memory.mark()
    print(json.dumps(figures))


def report(rows: list[dict[str, Any]]) -> str:
    head = (
        f"peak memory, 1 thread: high-water mark of the first {STEPS} steps (two of a compiled step's are recorded) "
        f"and of {STEPS}\nmore, in a fresh process, less what was resident before the first; wanted: of later steps "
        f"compiled, under {WANTED:g} of PyTorch's\n"
    )
    if not rows:
        return head + "not measured: needs Linux"
    lines = []
    for row in rows:
        share = row["later"] / least(rows, row["name"])
        missed = row["side"].startswith("compiled") and share >= WANTED
        sizes = [f"{row[part] / 2**20:.1f} MiB" for part in ("first", "later")]
        lines.append([f"{row['name']}: {row['side']}", *sizes, f"{share:.2f}", "BELOW" if missed else ""])
    return head + table(["", "first steps", "later steps", "of PyTorch's least", ""], lines)


def least(rows: list[dict[str, Any]], name: str) -> int:
    """PyTorch's lesser peak of later steps."""
    return min(row["later"] for row in rows if row["name"] == name and row["side"] in TORCH)
