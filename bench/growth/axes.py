"""What grows: for each axis its values, the step at each of them, and the operations of its products."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..common.networks import sequences, tanh_mlp
from ..steps.workloads import Workload, alone, regression, series

INPUTS, OUTPUTS = 16, 4
BATCH = 32


def perceptron(nn: Any, sizes: tuple[int, ...]) -> Any:
    """Linear layers of these sizes, ReLU between them."""
    layers = [layer for a, b in itertools.pairwise(sizes[:-1]) for layer in (nn.Linear(a, b), nn.ReLU())]
    return nn.Sequential(*layers, nn.Linear(*sizes[-2:]))


def operations(rows: int, sizes: tuple[int, ...]) -> float:
    """Of a step's products, three for each layer, but for the inputs' gradient: 2 each for a multiply and an add."""
    products = [2.0 * rows * a * b for a, b in itertools.pairwise(sizes)]
    return 3 * sum(products) - products[0]


@dataclass(frozen=True)
class Axis:
    """One extent that grows while the others stay; `step(n)` gives the workload and its operations."""

    name: str
    fixed: str  # what stays
    values: tuple[int, ...]
    step: Callable[[int], tuple[Workload, float]]

    def chosen(self, quick: bool) -> tuple[int, ...]:
        """All values; for --quick the ends and the middle."""
        return (self.values[0], self.values[len(self.values) // 2]) if quick else self.values


def layered(name: str, sizes: tuple[int, ...], batch: int) -> tuple[Workload, float]:
    network = functools.partial(perceptron, sizes=sizes)
    data = regression(sizes[0], sizes[-1])
    return made(name, network, data, batch), operations(batch, sizes)


def made(name: str, network: Callable[[Any], Any], data: Callable[[int], Any], batch: int) -> Workload:
    return Workload(name, network, "mse", "Adam", data, batch, max(4, min(40, 4096 // batch)), alone(network), 1.0)


def width(n: int) -> tuple[Workload, float]:
    return layered(f"width {n}", (INPUTS, n, n, OUTPUTS), BATCH)


def depth(n: int) -> tuple[Workload, float]:
    return layered(f"depth {n}", (INPUTS, *[32] * n, OUTPUTS), BATCH)


def batch(n: int) -> tuple[Workload, float]:
    return made(f"batch {n}", tanh_mlp, regression(17, 6), n), operations(n, (17, 64, 64, 6))


def length(n: int) -> tuple[Workload, float]:
    network = functools.partial(sequences, kind="GRU", features=8, hidden=32)
    return made(f"length {n}", network, series(n, 8), 16), 3 * 2.0 * 16 * n * 3 * 32 * (8 + 32)


AXES = [
    Axis(
        "width", f"{INPUTS}-n-n-{OUTPUTS} ReLU, batch {BATCH}", (8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096), width
    ),
    Axis("depth", f"n layers of 32, ReLU, batch {BATCH}", (1, 2, 4, 8, 16, 32, 64), depth),
    Axis("batch", "17-64-64-6 tanh", (1, 4, 16, 64, 256, 1024, 4096), batch),
    Axis("length", "GRU 8-32, batch 16", (1, 3, 10, 30, 100, 300, 1000), length),
]
