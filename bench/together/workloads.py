"""The networks of suite `together`, how many of them, and what is wanted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

import tapegrad as tg

from ..steps.workloads import LOSSES, RATE, WORKLOADS, Workload

OPTIMIZERS = {"SGD": tg.optim.SGD, "Adam": tg.optim.Adam}


@dataclass(frozen=True)
class Many:
    """`count` networks of a workload of suite `steps`; times wanted: microseconds, and times over other sides."""

    workload: Workload
    count: int
    micro: float | None = None
    over_jax: float | None = None
    over_run: float | None = None

    @property
    def flops(self) -> float:
        """Floating-point operations of the products in a step of one network."""
        sizes = [tuple(w.shape) for w in self.workload.weights() if w.ndim == 2]
        products = [2.0 * self.workload.batch * n * k for n, k in sizes]
        return 3 * sum(products) - products[0]  # forward, weights' gradients, and inputs' but the first one's

    def steps(self) -> list[Any]:
        """A compiled step for each network; weights differ."""
        return [make(self.workload, k) for k in range(self.count)]


def make(workload: Workload, k: int) -> Any:
    tg.manual_seed(k)
    model = workload.network(tg.nn)
    optimizer = OPTIMIZERS[workload.optimizer](model.parameters(), lr=RATE)
    objective = LOSSES[workload.loss]

    @tg.compile
    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        loss = objective(tg, model, x, y)
        loss.backward()
        optimizer.step()
        return loss

    step.model = model
    return step


def parameters(step: Any) -> list[torch.Tensor]:
    return [p.detach().data.clone() for p in step.model.parameters()]


ROWS: Sequence[Many] = (
    Many(WORKLOADS[0], 64, micro=2.0, over_jax=5.0, over_run=2.5),
    Many(WORKLOADS[1], 64),
    Many(WORKLOADS[2], 32, over_run=1.5),
    Many(WORKLOADS[4], 8),
)
GROWTH = (100, 1000, 10_000)  # networks of the first row, one epoch each
