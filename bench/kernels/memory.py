"""Peak memory of the eager autoencoder's step, beside PyTorch's."""

from __future__ import annotations

import torch

import tapegrad as tg

from ..common import memory
from ..common.sides import Side, initial_weights
from ..common.tables import table
from .steps import autoencoder_task

MEMORY_SIDES = {
    "tapegrad": ("tapegrad", torch.contiguous_format),
    "PyTorch": ("torch", torch.contiguous_format),
    "PyTorch, channels_last": ("torch", torch.channels_last),
}
STEPS = 3  # the first allocates what the others reuse


def peak_memory() -> dict[str, int]:
    """Bytes by side: the high-water mark of the autoencoder's first steps, less what was resident before.

    Empty where the system does not say what is resident (no Linux).
    """
    if not memory.available():
        return {}
    return {name: memory.in_fresh_process("kernels.memory", "measure", name) for name in MEMORY_SIDES}


def measure(name: str) -> None:
    """In a fresh process, on one thread: print the bytes that the steps added to what was resident."""
    torch.set_num_threads(1)
    library, layout = MEMORY_SIDES[name]
    task = autoencoder_task()
    side = Side({"tapegrad": tg, "torch": torch}[library], task, initial_weights(task), layout)
    side.feed([task.load().train] * STEPS)
    before = memory.mark()
    for _ in range(STEPS):
        side.step()
    print(memory.resident("VmHWM") - before)


def report(peaks: dict[str, int]) -> str:
    head = f"peak memory of the autoencoder's step, batch 100, 1 thread: high-water mark of {STEPS} steps in a fresh\n"
    head += "process, less what was resident before them; wanted: at most PyTorch's\n"
    if not peaks:
        return head + "not measured: needs Linux"
    least = min(bytes for name, bytes in peaks.items() if name != "tapegrad")
    lines = [[name, f"{bytes / 2**20:.1f} MiB", f"{bytes / least:.2f}"] for name, bytes in peaks.items()]
    mark = "\nBELOW: more than PyTorch's" if peaks["tapegrad"] > least else ""
    return head + table(["", "peak", "of PyTorch's least"], lines) + mark
