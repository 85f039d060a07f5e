"""Long tapes of tiny ops: what recording and backward cost beside the arithmetic, garbage collector and all."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

import tapegrad as tg

from ..common.timing import take_turns
from .goals import BOTH
from .steps import row

OPS = 8000
SECONDS = {True: 0.5, False: 4.0}  # by --quick


def affine(y: Any) -> Any:
    return y * 1.0001 + 0.1


def tanh(y: Any) -> Any:
    return y.tanh() * y


@dataclass(frozen=True)
class LongTape:
    """Forward and backward of 8,000 ops on two numbers, two ops a turn."""

    name: str
    turn: Callable[[Any], Any]

    def measure(self, threads: int, quick: bool) -> list[dict[str, Any]]:
        """On one thread; both gradients are compared first."""
        if threads > 1:
            return []
        values = [0.3, -0.2]
        leaves = [library.tensor(values, requires_grad=True) for library in (tg, torch)]
        calls = [lambda x=x: self.differentiate(x) for x in leaves]
        for call in calls:
            call()
        ours, theirs = (torch.as_tensor(getattr(x.grad, "data", x.grad)) for x in leaves)
        if not torch.allclose(ours, theirs, rtol=1e-4, atol=1e-6):  # thousands of roundings
            raise RuntimeError(f"{self.name}: the gradient is {ours.tolist()}, PyTorch's is {theirs.tolist()}")
        once = sum(timing.blocks[0] for timing in take_turns(calls, blocks=2, calls=1))
        timings = take_turns(calls, blocks=max(5, math.ceil(SECONDS[quick] / once)), calls=1)
        return [row(self.name, BOTH, threads, timings)]

    def differentiate(self, x: Any) -> None:
        x.grad = None
        y = x
        for _ in range(OPS // 2):
            y = self.turn(y)
        y.sum().backward()


def all_tapes() -> list[LongTape]:
    return [LongTape("8,000 tiny ops, y * 1.0001 + 0.1", affine), LongTape("8,000 tiny ops, tanh(y) * y", tanh)]
