"""Suite `steps`: whole training steps of all sides; and the eager steps, updates and memory of suite `kernels`."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

import tapegrad as tg

from . import memory, step_memory, step_plots, step_tables
from .cli import Options
from .goals import STEP, UPDATE
from .networks import digits_mlp, lenet
from .sides import Side, check_gradients, fastest_torch, initial_weights
from .step_rows import Row, measure
from .tables import environment, table, write_json
from .tasks import Data, Task, accuracy, autoencoder, mlp
from .timing import ratio, take_turns
from .workloads import WORKLOADS

BLOCKS = {True: 7, False: 21}  # by --quick
SECONDS = {True: 0.3, False: 2.0}


def run(options: Options) -> None:
    """Every workload on one thread, then on all; peak memory; print, write steps.json and steps.png."""
    machine = environment(options.threads)
    print(", ".join(f"{name} {value}" for name, value in machine.items()))
    print(EXPLANATION, flush=True)
    rows: list[Row] = []
    for threads in sorted({1, options.threads}):
        for i, workload in enumerate(WORKLOADS):
            rows += measure(workload, threads, options.quick, compilers=not options.quick or i == 0)
        print(f"\n{threads} thread(s)\n" + step_tables.times([row for row in rows if row.threads == threads]))
    print("\n" + step_tables.ratios(rows))
    print("\n" + step_tables.costs(rows))
    large = [workload for workload in WORKLOADS if workload.memory]
    peaks = step_memory.peaks(large[-1:] if options.quick else large)
    print("\n" + step_memory.report(peaks))
    result = {"environment": machine, "rows": [step_tables.plain(row) for row in rows], "memory": peaks}
    write_json(options.out / "steps.json", result)
    step_plots.times(options.out / "steps.png", rows, machine)
    print(f"\nwritten to {options.out}: steps.json, steps.png")


EXPLANATION = """\
float32; same initial weights and batches, the losses of the first steps compared first (tapegrad's compiled with its
eager ones bit for bit, but for exact=False); sides take turns in blocks; median over the blocks +- half the IQR.
eager: as written. call: one compiled call a step, guards checked, a fresh loss, .grad readable. run: step.run over
epochs, shuffling, gathering and losses included. PyTorch eager: the fastest memory format, optimizer implementation
and number of threads. compile step: the update is part of the compiled function. JAX scan: an epoch in one call,
batches gathered inside in an order made before (1 thread by XLA's flags). planning: the recorded calls beyond as many
eager ones, lowering included; again: for a second model of the same structure; beside it the first call of the others,
which compiles."""

# --- eager steps of suite `kernels` -------------------------------------------------------------------------------


def random_batch(inputs: tuple[int, ...], targets: tuple[int, ...] | int) -> Data:
    """One batch: pictures or points, and targets of a shape or (an int) labels below it."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(inputs, generator=generator)
    if isinstance(targets, int):
        y = torch.randint(targets, inputs[:1], generator=generator)
    else:
        y = torch.rand(targets, generator=generator)
    return Data((x, y), (x, y), ("", 0))


def training(name: str, network: Callable[[Any], Any], optimizer: str, batch: Data, **more: Any) -> Task:
    """A task of one batch; `calls` is found when it is timed."""
    loss = "MSELoss" if batch.train[1].is_floating_point() else "CrossEntropyLoss"
    rows = len(batch.train[0])
    settings = {"lr": 1e-3}
    return Task(
        f"{name}, {optimizer}, batch {rows}", name, network, lambda: batch, loss, optimizer, settings, rows,
        steps=0, calls=1, score_name="", score=accuracy, **more,
    )  # fmt: skip


def autoencoder_task() -> Task:
    return training("autoencoder", autoencoder, "SGD", random_batch((100, 3, 32, 32), (100, 3, 32, 32)), images=True)


def all_steps() -> list[Step | Update]:
    points = random_batch((25, 2), (25, 2))
    tasks = [
        training("2-25-25-25-2", mlp, "SGD", points),
        training("2-25-25-25-2", mlp, "Adam", points),
        training("784-128-10", digits_mlp, "Adam", random_batch((128, 784), 10)),
        training("LeNet-5", lenet, "Adam", random_batch((64, 1, 28, 28), 10), images=True),
        autoencoder_task(),
    ]
    return [*(Update(name) for name in ("SGD", "Adam", "AdamW")), *(Step(task) for task in tasks)]


def row(name: str, what: str, threads: int, timings: list[Any], **more: Any) -> dict[str, Any]:
    """A row as suite `kernels` has them, of what is no single kernel."""
    ours, theirs = timings
    empty = dict.fromkeys(("kernel", "unrecorded", "rate", "share"))
    return {
        "name": name,
        "what": what,
        "threads": threads,
        "op": what,
        "shape": "",
        "elements": 0,
        "unit": "",
        "tapegrad": ours,
        "torch": theirs,
        "ratio": ratio(ours, theirs),
        "channels_last": False,
        **empty,
        **more,
    }


@dataclass(frozen=True)
class Step:
    """zero_grad, forward, loss, backward and update of one batch."""

    task: Task

    def measure(self, threads: int, quick: bool) -> list[dict[str, Any]]:
        """Compare the gradients, choose PyTorch's fastest way, and time both."""
        x, y = self.task.load().train
        weights = initial_weights(self.task)
        check_gradients(self.task, weights, x, y)
        trial = Side(torch, self.task, weights, torch.contiguous_format)
        trial.feed([(x, y)] * 3)
        once = min(take_turns([trial.step], blocks=3, calls=1)[0].blocks)
        blocks = BLOCKS[quick]
        calls = max(1, min(200, int(SECONDS[quick] / blocks / once / 2)))
        batches = [(x, y)] * (blocks * calls)
        theirs, choice = fastest_torch(with_calls(self.task, calls), weights, batches)
        sides = [Side(tg, self.task, weights, torch.contiguous_format), theirs]
        for side in sides:
            side.feed(batches)
        timings = take_turns([side.step for side in sides], blocks=blocks, calls=calls)
        return [row(self.task.name, STEP, threads, timings, torch_choice=choice, channels_last="last" in choice)]


def with_calls(task: Task, calls: int) -> Task:
    return Task(**{**vars(task), "calls": calls})


# --- updates -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Update:
    """One `step()` of an optimizer over the parameters of 784-128-10; PyTorch's is fused."""

    optimizer: str

    @property
    def name(self) -> str:
        return f"{self.optimizer} over 784-128-10"

    def measure(self, threads: int, quick: bool) -> list[dict[str, Any]]:
        models, optimizers = [], []
        for library, options in ((tg, {}), (torch, {"fused": True})):
            models.append(digits_mlp(library.nn))
            models[-1].load_state_dict(models[0].state_dict() if library is tg else raw_state(models[0]))
            for i, parameter in enumerate(models[-1].parameters()):
                values = torch.randn(tuple(parameter.shape), generator=torch.Generator().manual_seed(i))
                parameter.grad = tg.Tensor(values) if library is tg else values
            optimizers.append(getattr(library.optim, self.optimizer)(models[-1].parameters(), lr=1e-3, **options))
        for optimizer in optimizers * 3:
            optimizer.step()
        self.check(*models)
        blocks = BLOCKS[quick]
        once = max(t.blocks[-1] for t in take_turns([o.step for o in optimizers], blocks=3, calls=1))
        calls = max(1, int(SECONDS[quick] / 4 / blocks / once))
        timings = take_turns([optimizer.step for optimizer in optimizers], blocks=blocks, calls=calls)
        count = sum(math.prod(p.shape) for p in models[0].parameters())
        return [row(self.name, UPDATE, threads, timings, elements=count)]

    def check(self, ours: Any, theirs: Any) -> None:
        """RuntimeError if three updates led to different parameters."""
        for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
            if not torch.allclose(a.data, b.data, rtol=1e-5, atol=1e-6):
                worst = (a.data - b.data).abs().max().item()
                raise RuntimeError(
                    f"{self.name}: after three updates a parameter differs from PyTorch's by {worst:.1e}"
                )


def raw_state(model: Any) -> dict[str, torch.Tensor]:
    return {name: getattr(value, "data", value) for name, value in model.state_dict().items()}


# --- peak memory -------------------------------------------------------------------------------------------------

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
    return {name: memory.in_fresh_process("steps", "measure_memory", name) for name in MEMORY_SIDES}


def measure_memory(name: str) -> None:
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


def memory_report(peaks: dict[str, int]) -> str:
    head = f"peak memory of the autoencoder's step, batch 100, 1 thread: high-water mark of {STEPS} steps in a fresh\n"
    head += "process, less what was resident before them; wanted: at most PyTorch's\n"
    if not peaks:
        return head + "not measured: needs Linux"
    least = min(bytes for name, bytes in peaks.items() if name != "tapegrad")
    lines = [[name, f"{bytes / 2**20:.1f} MiB", f"{bytes / least:.2f}"] for name, bytes in peaks.items()]
    mark = "\nBELOW: more than PyTorch's" if peaks["tapegrad"] > least else ""
    return head + table(["", "peak", "of PyTorch's least"], lines) + mark
