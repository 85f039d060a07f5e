"""How planning grows with the length of a step: loops that Python unrolls, so that twice as long is twice the tape."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

import tapegrad as tg

from ..common.tables import seconds, table
from .sides import MOST, elapsed, recording
from .workloads import SEED

WANTED = 1.2  # planning may take length ** WANTED
Step = Callable[[], Any]  # returns its loss

# --- loops of both libraries: (library, length) -> (step, parameters) ---------------------------------------------


def lstm(library: Any, length: int) -> tuple[Step, list[Any]]:
    """Two LSTM cells of 16, one above the other, over `length` times of a batch of 4; written out in operations."""
    draw = torch.Generator().manual_seed(SEED)
    weights = [
        library.tensor((0.3 * torch.randn(rows, 64, generator=draw)).tolist(), requires_grad=True) for rows in (24, 32)
    ]
    x = library.tensor(torch.randn(length, 4, 8, generator=draw).tolist())

    def step() -> Any:
        for w in weights:
            w.grad = None
        states = [[library.zeros(4, 16)] * 2 for _ in weights]
        for t in range(length):
            below = x[t]
            for layer, w in enumerate(weights):
                h, c = states[layer]
                i, f, g, o = (library.cat([below, h], 1) @ w).chunk(4, 1)
                c = library.sigmoid(f) * c + library.sigmoid(i) * library.tanh(g)
                below = library.sigmoid(o) * library.tanh(c)
                states[layer] = [below, c]
        loss = below.square().mean()
        loss.backward()
        return loss.detach()

    return step, weights


def physics(library: Any, length: int) -> tuple[Step, list[Any]]:
    """A damped spring, integrated over `length` steps and differentiated by its stiffness."""
    stiffness = library.tensor(1.3, requires_grad=True)
    start = library.tensor([1.0, -0.5, 0.25, 2.0])

    def step() -> Any:
        stiffness.grad = None
        x, v = start, 0.5 * start
        for _ in range(length):
            v = v - 0.01 * (stiffness * x + 0.1 * v)
            x = x + 0.01 * v
        loss = x.square().mean()
        loss.backward()
        return loss.detach()

    return step, [stiffness]


LOOPS: dict[str, tuple[Callable[[Any, int], tuple[Step, list[Any]]], tuple[int, ...]]] = {
    "two LSTM cells": (lstm, (50, 100, 200, 400)),
    "a spring": (physics, (125, 250, 500, 1000)),
}


# --- measured -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Growth:
    """What planning one loop costs at several lengths."""

    name: str
    lengths: list[int]
    instructions: list[int]
    planning: list[float]  # seconds of the recorded calls beyond as many eager ones, lowering included
    eager: list[float]  # seconds of an eager step

    @property
    def exponent(self) -> float:
        """p of length ** p, fitted to the times."""
        return slope([math.log(n) for n in self.lengths], [math.log(t) for t in self.planning])


def slope(x: Sequence[float], y: Sequence[float]) -> float:
    """Of the straight line through the points, by least squares."""
    a, b = sum(x) / len(x), sum(y) / len(y)
    return sum((p - a) * (q - b) for p, q in zip(x, y, strict=True)) / sum((p - a) ** 2 for p in x)


def growth(name: str, lengths: Sequence[int], repeats: int) -> Growth:
    """Plan a loop at each length, on one thread; the best of some repetitions."""
    torch.set_num_threads(1)
    make = LOOPS[name][0]
    instructions, planning, alone = [], [], []
    for length in lengths:
        eager = make(tg, length)[0]
        alone.append(min(elapsed(eager, ()) for _ in range(3)))
        tries = []
        for _ in range(repeats):
            step = tg.compile(make(tg, length)[0])
            took, calls = recording(step, [()] * MOST)
            tries.append(took - calls * alone[-1])
        instructions.append(len(step.programs[0].calls))
        planning.append(min(tries))
    return Growth(name, list(lengths), instructions, planning, alone)


def measure(quick: bool) -> list[Growth]:
    """Every loop; `quick`: the shorter half of the lengths, fewer repetitions."""
    return [
        growth(name, lengths[: len(lengths) // 2] if quick else lengths, 2 if quick else 3)
        for name, (_, lengths) in LOOPS.items()
    ]


def report(found: Sequence[Growth]) -> str:
    """A line a length; the exponent beside what is wanted stands in a loop's last."""
    lines = []
    for one in found:
        mark = "ABOVE" if one.exponent > WANTED else ""
        for i, (length, count) in enumerate(zip(one.lengths, one.instructions, strict=True)):
            last = i == len(one.lengths) - 1
            fitted = [f"{one.exponent:.2f}", f"{WANTED}", mark] if last else ["", "", ""]
            each = f"{one.planning[i] / count * 1e6:.2f}"
            lines.append(
                [f"{one.name}, {length}", seconds(one.eager[i]), seconds(one.planning[i]), str(count), each, *fitted]
            )
    head = ["length of a loop", "eager", "planning", "instructions", "us each", "length **", "wanted", ""]
    return table(head, lines)


def plain(one: Growth) -> dict[str, Any]:
    """As JSON has it."""
    return {**asdict(one), "exponent": one.exponent}
