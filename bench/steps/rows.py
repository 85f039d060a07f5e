"""The rows of suite `steps`: all sides of a workload checked against each other, then timed in turns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ..common.timing import Timing, ratio
from . import jax_side, torch_compiled
from .sides import Plan, Side, Unavailable, named, plan, tapegrad_sides, time_sides, torch_side
from .workloads import SCAN, TORCH, Goal, Variant, Workload

PARTLY, WHOLE, JIT = "compile fwd+bwd", "compile step", "JAX jit"
OTHERS = [TORCH, PARTLY, WHOLE, JIT, SCAN]
FIGURES = ["eager", "call", "run"]
ONE_THREAD = "run, 1 thread"
NOT_QUICK = "not quick"  # compiled too long for --quick

# Of a loss: the first is computed from the same weights; updates between the others let rounding grow, Adam's most,
# which divides gradients near zero by their own size.
ROUNDING = (1e-5, 1e-4)


@dataclass(frozen=True)
class Verdict:
    """A goal, and the ratio that was reached."""

    goal: Goal
    ratio: float

    @property
    def met(self) -> bool:
        return self.ratio >= self.goal.times


@dataclass
class Row:
    """One variant's figures and the other sides', measured in one run."""

    name: str
    threads: int
    figures: dict[str, Timing]  # by FIGURES
    others: dict[str, Timing]  # by OTHERS, those measured
    missing: dict[str, str]  # by OTHERS, why the rest were not
    choice: str  # PyTorch's fastest way
    compile_seconds: dict[str, float]
    planning_wanted: float
    plan: Plan | None = None
    verdicts: list[Verdict] = field(default_factory=list)


def measure(workload: Workload, threads: int, quick: bool, compilers: bool) -> list[Row]:
    """A row per variant. With more than one thread: tapegrad beside PyTorch, and beside its own run on one.

    `compilers` says whether `torch.compile`, and JAX for pictures, are waited for.
    """
    plans = [plan(workload, v) if threads == 1 else None for v in workload.variants]  # first: nothing is cached yet
    seconds = 0.02 if quick else 0.05
    sides = [side for v in workload.variants for side in tapegrad_sides(workload, v, threads)]
    eager, choice = torch_side(workload, TORCH, sorted({1, threads}), seconds)
    sides.append(eager)
    missing: dict[str, str] = {}

    def attempt(name: str, make: Callable[[], list[Side]]) -> None:
        try:
            sides.extend(make())
        except Unavailable as reason:
            missing[name] = str(reason)

    if threads > 1:
        missing |= dict.fromkeys(OTHERS[1:], "1 thread only")
        for variant in workload.variants:
            run = tapegrad_sides(workload, variant, 1)[-1]
            run.name = f"{named(variant, 'run')}, 1 thread"
            sides.append(run)
    else:
        if compilers:
            title = eager.choice
            attempt(PARTLY, lambda: [torch_compiled.forward_backward(workload, PARTLY, choice, title)])
            attempt(WHOLE, lambda: [torch_compiled.whole_step(workload, WHOLE, choice)])
        else:
            missing |= dict.fromkeys((PARTLY, WHOLE), NOT_QUICK)
        if compilers or not workload.images:
            attempt(JIT, lambda: jax_side.sides(workload, JIT, SCAN))
        else:
            missing[JIT] = NOT_QUICK
        if JIT in missing:
            missing[SCAN] = missing[JIT]
    agree(workload.name, sides, eager)
    timings = time_sides(sides, 5 if quick else 11, seconds)
    shared = {
        "threads": threads,
        "others": {name: timings[name] for name in OTHERS if name in timings},
        "missing": missing,
        "choice": eager.choice,
        "compile_seconds": {s.name: s.compile_seconds for s in sides if s.compile_seconds is not None},
        "planning_wanted": workload.planning,
    }
    return [row(workload, v, p, timings, shared) for v, p in zip(workload.variants, plans, strict=True)]


def row(
    workload: Workload, variant: Variant, planned: Plan | None, timings: dict[str, Timing], shared: dict[str, Any]
) -> Row:
    name = f"{workload.name}: {variant.name}" if variant.name else workload.name
    sides = {figure: named(variant, figure) for figure in FIGURES}
    figures = {figure: timings[side] for figure, side in sides.items() if side in timings}
    one = Row(name=name, figures=figures, plan=planned, **shared)
    if one.threads == 1:
        goals, others = variant.goals, one.others
    else:  # two threads are never slower than one by more than 5 %
        goals, others = (Goal("run", ONE_THREAD, 1 / 1.05),), {ONE_THREAD: timings[f"{sides['run']}, 1 thread"]}
    one.verdicts = [
        Verdict(goal, ratio(figures[goal.figure], others[goal.against])) for goal in goals if goal.against in others
    ]
    return one


def agree(what: str, sides: list[Side], reference: Side) -> None:
    """RuntimeError if a side's first losses are not PyTorch's to rounding."""
    for side in sides:
        for i, (a, b) in enumerate(zip(side.losses, reference.losses, strict=True)):
            tolerance = ROUNDING[min(i, 1)]
            if not abs(a - b) <= tolerance * abs(b):
                raise RuntimeError(
                    f"{what}: {side.name}: the loss of step {i} is {a:.8g}, PyTorch's is {b:.8g}; expected within "
                    f"{tolerance:g} of it"
                )
