"""The sides of suite `steps` in tapegrad and in PyTorch: each a way to take a workload's training step."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

import tapegrad as tg

from ..common.sides import choice_name, torch_choices
from ..common.timing import Timing, take_turns
from .workloads import LOSSES, RATE, SEED, Tensors, Variant, Workload, epoch, load

FIRST = 4  # steps whose losses are compared
EPOCHS = 5  # in a call of step.run, which looks at the arrays once
MOST = 4  # calls until a program must be there
ADAM = {"b1": 0.9, "b2": 0.999, "eps": 1e-8}  # everyone's defaults, for the sides that write the update out


@dataclass
class Side:
    """One way to take the step, ready to be timed: `advance(n)` takes `n` steps, a multiple of `unit`."""

    name: str
    losses: list[float]  # of the first steps
    advance: Callable[[int], None]
    unit: int = 1
    threads: int = 1
    choice: str = ""
    compile_seconds: float | None = None
    calls: int = 1

    def choose_calls(self, seconds: float) -> None:
        """As many steps in a block as take this long, after a warm-up."""
        torch.set_num_threads(self.threads)
        self.advance(self.unit)
        start = time.perf_counter()
        self.advance(self.unit)
        once = time.perf_counter() - start
        self.calls = self.unit * max(1, round(seconds / once))

    def block(self) -> None:
        torch.set_num_threads(self.threads)
        self.advance(self.calls)


class Unavailable(Exception):
    """Why a side cannot be measured here; a cell of the table says so."""


def time_sides(sides: list[Side], blocks: int, seconds: float) -> dict[str, Timing]:
    """Seconds a step by side; blocks of about `seconds` take turns."""
    for side in sides:
        side.choose_calls(seconds)
    timings = take_turns([side.block for side in sides], blocks=blocks + 1, calls=1)
    return {
        side.name: Timing(timing.warmup, [block / side.calls for block in timing.blocks])
        for side, timing in zip(sides, timings, strict=True)
    }


def over(step: Callable[..., Any], batches: list[Any]) -> Callable[[int], None]:
    """`advance` of a step that Python calls: the batches in turn, made before any clock runs."""
    place = 0

    def advance(steps: int) -> None:
        nonlocal place
        for i in range(place, place + steps):
            step(*batches[i % len(batches)])
        place = (place + steps) % len(batches)

    return advance


def first_losses(step: Callable[..., Any], batches: list[Any]) -> list[float]:
    return [float(step(*batch)) for batch in batches[:FIRST]]


# --- tapegrad -----------------------------------------------------------------------------------------------------


def tapegrad_step(workload: Workload, variant: Variant) -> Callable[..., Any]:
    """The step as a user writes it, on a new model."""
    model = load(variant.network, tg, workload.weights())
    optimizer = getattr(tg.optim, workload.optimizer)(model.parameters(), lr=RATE)
    objective = LOSSES[workload.loss]

    def step(*batch: Any) -> Any:
        optimizer.zero_grad()
        loss = objective(tg, model, *batch)
        loss.backward()
        optimizer.step()
        return loss

    return step


def named(variant: Variant, figure: str) -> str:
    """The name of a variant's side: figure is eager, call or run."""
    return f"tapegrad {figure}" + (f", {variant.name}" if variant.name else "")


def tapegrad_sides(workload: Workload, variant: Variant, threads: int) -> list[Side]:
    """The eager step (where it is another one than as written), the compiled call, and `run`.

    RuntimeError if the compiled step does not give the eager step's losses, bit for bit where it is exact.
    """
    torch.set_num_threads(threads)
    arrays = tuple(tg.Tensor(x) for x in workload.data())
    batches = epoch(arrays, workload.batch)
    eager, plain = tapegrad_step(workload, variant), tapegrad_step(workload, variant)
    call, run = (tg.compile(tapegrad_step(workload, variant), exact=variant.exact) for _ in range(2))

    def epochs(steps: int) -> None:
        run.run(*arrays, batch_size=workload.batch, epochs=steps // workload.batches, seed=SEED)

    expected = [plain(*batch).item() for batch in batches]
    ran = run.run(*arrays, batch_size=workload.batch, seed=SEED).tolist()[0]
    called = [call(*batch).item() for batch in batches]
    if variant.exact:
        for figure, losses in (("call", called), ("run", ran)):
            same_bits(f"{workload.name}: {named(variant, figure)}", losses, expected)
    sides = [
        Side(named(variant, "call"), called[:FIRST], over(call, batches), threads=threads),
        Side(named(variant, "run"), ran[:FIRST], epochs, unit=EPOCHS * workload.batches, threads=threads),
    ]
    if variant.exact:
        first = first_losses(eager, batches)
        sides.insert(0, Side(named(variant, "eager"), first, over(eager, batches), threads=threads))
    return sides


def same_bits(what: str, got: list[float], expected: list[float]) -> None:
    for i, (a, b) in enumerate(zip(got, expected, strict=True)):
        if a != b:
            raise RuntimeError(f"{what}: the loss of step {i} is {a!r}, the eager step's {b!r}; expected bit for bit")


@dataclass(frozen=True)
class Plan:
    """What compiling a variant costs."""

    seconds: float  # the recorded calls beyond as many eager ones, lowering included
    again: float  # the same for a second model of the same structure
    recorded: int  # calls; two where nothing changes under the first
    instructions: int
    arena: int  # bytes of activations and scratch
    unshared: int  # the same if no two values shared memory


def plan(workload: Workload, variant: Variant) -> Plan:
    """Time the recorded calls of a compiled step whose program is not cached yet: measure before anything else."""
    torch.set_num_threads(1)
    batches = epoch(tuple(tg.Tensor(x) for x in workload.arrays(MOST * workload.batch)), workload.batch)
    eager = tapegrad_step(workload, variant)
    for batch in batches:
        eager(*batch)
    steps = [tg.compile(tapegrad_step(workload, variant), exact=variant.exact) for _ in range(2)]
    gc.collect()
    gc.disable()  # a collection is no part of planning
    try:
        recorded = [recording(step, batches) for step in steps]
        plain = min(elapsed(eager, batch) for batch in batches)
    finally:
        gc.enable()
    (program,) = steps[0].programs
    first, again = (seconds - calls * plain for seconds, calls in recorded)
    return Plan(first, again, recorded[0][1], len(program.calls), program.arena_bytes, program.unshared_bytes)


def recording(step: Any, batches: list[Any]) -> tuple[float, int]:
    """Seconds and number of calls until there is a program."""
    seconds = 0.0
    for calls, batch in enumerate(batches, 1):
        seconds += elapsed(step, batch)
        if step.programs:
            return seconds, calls
    raise RuntimeError(f"{step}: no program after {len(batches)} calls")


def elapsed(step: Callable[..., Any], batch: Any) -> float:
    start = time.perf_counter()
    step(*batch)
    return time.perf_counter() - start


# --- PyTorch ------------------------------------------------------------------------------------------------------

Choice = tuple[torch.memory_format, dict[str, bool]]


class TorchStep:
    """PyTorch's step in a memory format and with one implementation of the optimizer."""

    def __init__(self, workload: Workload, choice: Choice) -> None:
        layout, options = choice
        self.model = load(workload.network, torch, workload.weights())
        if layout is torch.channels_last:
            self.model.to(memory_format=layout)
        self.optimizer = getattr(torch.optim, workload.optimizer)(self.model.parameters(), lr=RATE, **options)
        self.objective: Callable[..., Any] = lambda *batch: LOSSES[workload.loss](torch, self.model, *batch)
        self.batches = [laid_out(batch, layout) for batch in epoch(workload.data(), workload.batch)]

    def __call__(self, *batch: torch.Tensor) -> torch.Tensor:
        self.optimizer.zero_grad()
        loss: torch.Tensor = self.objective(*batch)
        loss.backward()
        self.optimizer.step()
        return loss.detach()


def laid_out(batch: Tensors, layout: torch.memory_format) -> Tensors:
    """Pictures in the memory format."""
    return tuple(x.contiguous(memory_format=layout) if x.ndim == 4 else x for x in batch)


def torch_side(workload: Workload, name: str, threads: list[int], seconds: float) -> tuple[Side, Choice]:
    """PyTorch's eager step in the format, with the optimizer and the number of threads that are fastest here."""
    trials = [(choice, n) for choice in torch_choices(workload.images) for n in threads]
    sides = []
    for choice, n in trials:
        torch.set_num_threads(n)
        step = TorchStep(workload, choice)
        title = choice_name(*choice) + (f", {n} threads" if n > 1 else "")
        first = first_losses(step, step.batches)
        sides.append(Side(title, first, over(step, step.batches), threads=n, choice=title))
    timings = time_sides(sides, blocks=3, seconds=seconds / 4)
    best = min(range(len(sides)), key=lambda i: timings[sides[i].name].median)
    sides[best].name = name
    return sides[best], trials[best][0]
