"""The training steps of suite `steps`: network, data, loss, optimizer, and what is wanted of them."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

import tapegrad as tg

from ..common.networks import (
    autoencoder,
    digits_mlp,
    field,
    folded_autoencoder,
    lenet,
    mlp,
    sequences,
    tanh_mlp,
)

Tensors = tuple[torch.Tensor, ...]

VISCOSITY = 0.01 / math.pi  # of Burgers' equation, as in Raissi et al., 2019
RATE = 1e-3
SEED = 0  # of weights, data and shuffling


@dataclass(frozen=True)
class Goal:
    """Wanted: `figure` (eager, call or run) takes at most 1 / `times` of the time of `against`."""

    figure: str
    against: str
    times: float


@dataclass(frozen=True)
class Variant:
    """One way to write a workload's step with tapegrad."""

    name: str  # "" as written for PyTorch
    network: Callable[[Any], Any]
    goals: tuple[Goal, ...] = ()
    exact: bool = True


@dataclass(frozen=True)
class Workload:
    """A step on batches of `batch` rows; `loss` and `optimizer` are names in each side's tables."""

    name: str
    network: Callable[[Any], Any]
    loss: str
    optimizer: str
    arrays: Callable[[int], Tensors]  # of the number of rows
    batch: int
    batches: int  # in an epoch
    variants: tuple[Variant, ...]
    planning: float  # seconds that planning may take
    memory: bool = False  # large enough for its peak memory to be measured

    @property
    def images(self) -> bool:
        """Whether inputs are N C H W, so that PyTorch may prefer channels_last."""
        return self.arrays(1)[0].ndim == 4

    def data(self) -> Tensors:
        """The arrays of one epoch."""
        return self.arrays(self.batch * self.batches)

    def weights(self) -> list[torch.Tensor]:
        """PyTorch's own initial weights, which all sides start from, in the order of the parameters."""
        torch.manual_seed(SEED)
        return [p.detach() for p in self.network(torch.nn).parameters()]


def epoch(arrays: tuple[Any, ...], batch: int) -> list[Any]:
    """The batches of epoch 0, in the order in which ``step.run(..., seed=SEED)`` takes them; of the arrays' kind."""
    return list(tg.data.batches(*arrays, batch_size=batch, seed=SEED))


def load(network: Callable[[Any], Any], library: Any, weights: list[torch.Tensor]) -> Any:
    """The network with these weights."""
    model = network(library.nn)
    with library.no_grad():
        for parameter, value in zip(model.parameters(), weights, strict=True):
            parameter.copy_(value)
    return model


# --- losses of both libraries: (library, model, *batch) -----------------------------------------------------------


def mse(library: Any, model: Any, x: Any, y: Any) -> Any:
    return library.nn.functional.mse_loss(model(x), y)


def cross_entropy(library: Any, model: Any, x: Any, y: Any) -> Any:
    return library.nn.functional.cross_entropy(model(x), y)


def burgers(library: Any, model: Any, points: Any, start: Any, known: Any) -> Any:
    """Squared residual of ``u_t + u u_x = nu u_xx`` at `points` [N, 2] = (x, t), and the error at t = 0."""
    derivative = tg.grad if library is tg else torch.autograd.grad
    points = points.detach().requires_grad_()
    u = model(points)  # [N, 1]
    (du,) = derivative(u.sum(), [points], create_graph=True)
    ux, ut = du[:, 0:1], du[:, 1:2]
    (d2u,) = derivative(ux.sum(), [points], create_graph=True)
    residual = ut + u * ux - VISCOSITY * d2u[:, 0:1]
    return residual.square().mean() + library.nn.functional.mse_loss(model(start), known)


LOSSES = {"mse": mse, "cross_entropy": cross_entropy, "burgers": burgers}


# --- data ---------------------------------------------------------------------------------------------------------


def uniform(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(SEED))


def regression(inputs: int, targets: int) -> Callable[[int], Tensors]:
    """Uniform points and smooth targets of them."""

    def arrays(rows: int) -> Tensors:
        x = uniform(rows, inputs)
        return x, torch.sin(x @ torch.linspace(-2, 2, inputs * targets).view(inputs, targets))

    return arrays


def pictures(*shape: int) -> Callable[[int], Tensors]:
    """Pictures of noise with labels below 10."""
    return lambda rows: (uniform(rows, *shape), torch.arange(rows) % 10)


def series(steps: int, features: int) -> Callable[[int], Tensors]:
    """Sequences of uniform numbers, and the sine of each one's mean."""

    def arrays(rows: int) -> Tensors:
        x = uniform(rows, steps, features)
        return x, torch.sin(9 * x.mean((1, 2), keepdim=True)[:, 0])

    return arrays


def denoising(rows: int) -> Tensors:
    """Report 5's pairs: two noisy pictures of the same patch."""
    clean = uniform(rows, 3, 32, 32)
    noise = torch.Generator().manual_seed(SEED + 1)
    first, second = ((clean + 0.2 * torch.randn(clean.shape, generator=noise)).clamp(0, 1) for _ in range(2))
    return first, second


def collocation(rows: int) -> Tensors:
    """Points (x, t) of [-1, 1] x [0, 1], points at t = 0, and ``u(x, 0) = -sin(pi x)`` there."""
    points = uniform(rows, 2)
    points[:, 0] = 2 * points[:, 0] - 1
    start = points * torch.tensor([1.0, 0.0])
    return points, start, -torch.sin(math.pi * start[:, :1])


# --- the list: DESIGN.md, "Figures to beat" -----------------------------------------------------------------------

TORCH, SCAN = "PyTorch eager", "JAX scan"  # columns that goals are held against


def alone(network: Callable[[Any], Any], *goals: Goal) -> tuple[Variant, ...]:
    return (Variant("", network, goals),)


WORKLOADS = [
    Workload(
        "2-25-25-25-2 ReLU, batch 25, MSE, SGD", mlp, "mse", "SGD", regression(2, 2), 25, 40,
        alone(mlp, Goal("run", TORCH, 40), Goal("run", SCAN, 3), Goal("call", TORCH, 20), Goal("eager", TORCH, 2.5)),
        planning=10e-3,
    ),
    Workload(
        "2-25-25-25-2 ReLU, batch 25, MSE, Adam", mlp, "mse", "Adam", regression(2, 2), 25, 40,
        alone(mlp), planning=10e-3,
    ),
    Workload(
        "17-64-64-6 tanh, batch 64, MSE, Adam", tanh_mlp, "mse", "Adam", regression(17, 6), 64, 40,
        alone(tanh_mlp, Goal("run", TORCH, 13), Goal("run", SCAN, 1.5)), planning=10e-3,
    ),
    Workload(
        "Burgers 2-32-32-32-1 tanh, 256 points, Adam", field, "burgers", "Adam", collocation, 256, 40,
        alone(field, Goal("run", TORCH, 6), Goal("run", SCAN, 2)), planning=50e-3,
    ),
    Workload(
        "784-128-10, batch 128, cross-entropy, Adam", digits_mlp, "cross_entropy", "Adam", pictures(784), 128, 40,
        alone(digits_mlp, Goal("run", TORCH, 2)), planning=10e-3,
    ),
    Workload(
        "LeNet-5 28x28, batch 64, Adam", lenet, "cross_entropy", "Adam", pictures(1, 28, 28), 64, 20,
        alone(lenet, Goal("run", TORCH, 2.5)), planning=50e-3, memory=True,
    ),
    Workload(
        "autoencoder of report 5, batch 100, SGD", autoencoder, "mse", "SGD", denoising, 100, 4,
        (
            Variant("", autoencoder, (Goal("run", TORCH, 1.7),)),
            Variant("UpsampleConv2d", folded_autoencoder, (Goal("run", TORCH, 3),)),
            Variant("exact=False", autoencoder, (Goal("run", TORCH, 3),), exact=False),
        ),
        planning=50e-3, memory=True,
    ),
    *(
        Workload(
            f"{kind} {features}-{hidden}, {steps} steps, batch {batch}, MSE, Adam",
            functools.partial(sequences, kind=kind, features=features, hidden=hidden),
            "mse", "Adam", series(steps, features), batch, 10,
            alone(functools.partial(sequences, kind=kind, features=features, hidden=hidden), *goals), planning=50e-3,
        )
        for kind, features, hidden, steps, batch, goals in (
            ("LSTM", 8, 32, 50, 16, (Goal("run", TORCH, 3), Goal("run", SCAN, 1))),
            ("GRU", 8, 32, 50, 16, (Goal("run", TORCH, 12), Goal("run", SCAN, 1))),
            ("LSTM", 64, 256, 35, 20, (Goal("run", TORCH, 1),)),
        )
    ),
]  # fmt: skip
