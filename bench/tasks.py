"""The three trainings: network, data, loss, optimizer. Each network is one function of `nn`, tapegrad's or torch's."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from tapegrad import data

Tensors = tuple[torch.Tensor, ...]


@dataclass(frozen=True)
class Data:
    """Training arrays (input, target), and the test's (input, what the score compares with)."""

    train: tuple[torch.Tensor, torch.Tensor]
    test: tuple[torch.Tensor, torch.Tensor]
    baseline: tuple[str, float]  # the score of doing nothing, and what doing nothing means


@dataclass(frozen=True)
class Task:
    """One training. `steps` are those of --quick, in blocks of `calls`; the learning rate falls linearly to 0."""

    name: str
    title: str
    network: Callable[[Any], Any]
    load: Callable[[], Data]
    loss: str
    optimizer: str
    settings: dict[str, float]
    batch_size: int
    steps: int
    calls: int
    score_name: str
    score: Callable[[torch.Tensor, torch.Tensor], float]
    images: bool = False  # inputs are N C H W, so that PyTorch may prefer channels_last
    seed: int = 0


def accuracy(output: torch.Tensor, labels: torch.Tensor) -> float:
    """Per cent of rows whose largest entry is the label's."""
    return 100 * (output.argmax(1) == labels).double().mean().item()


def psnr(picture: torch.Tensor, clean: torch.Tensor) -> float:
    """Peak signal-to-noise ratio in dB, of all pixels together: -10 log10(mean squared error), the peak being 1."""
    return -10 * math.log10((picture - clean).double().square().mean().item())


def mlp(nn: Any, hidden: int = 3, activation: tuple[Any, ...] = ("ReLU",), last: str = "", dropout: float = 0.0) -> Any:
    """The reports' network 2-25-...-25-2: `hidden` layers of 25, an activation (name, arguments) behind each.

    `last` is the activation of the output, if any; `dropout` the share of each hidden layer that is left out.
    """
    layers: list[Any] = []
    for i in range(hidden):
        layers += [nn.Linear(25 if i else 2, 25), getattr(nn, activation[0])(*activation[1:])]
        layers += [nn.Dropout(dropout)] if dropout else []
    layers.append(nn.Linear(25, 2))
    layers += [getattr(nn, last)()] if last else []
    return nn.Sequential(*layers)


def digits_network(nn: Any) -> Any:
    """A small convolutional network for 8 x 8 pictures."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),  # [N, 16, 8, 8]
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1),  # [N, 32, 4, 4]
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32 * 4 * 4, 10),
    )


def autoencoder(nn: Any) -> Any:
    """Report 5's network; its "upsampling layer" is nearest upsampling, then a convolution."""
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, stride=2, padding=1),  # [N, 32, 16, 16]
        nn.ReLU(),
        nn.Conv2d(32, 32, 3, stride=2, padding=1),  # [N, 32, 8, 8]
        nn.ReLU(),
        nn.Upsample(scale_factor=2),
        nn.Conv2d(32, 32, 3, padding=1),  # [N, 32, 16, 16]
        nn.ReLU(),
        nn.Upsample(scale_factor=2),
        nn.Conv2d(32, 3, 3, padding=1),  # [N, 3, 32, 32]
        nn.Sigmoid(),
    )


def load_disk() -> Data:
    x, labels = data.disk(1000, seed=1)
    x_test, labels_test = data.disk(1000, seed=2)
    standardized: Any = data.standardize(x, x_test)
    x, x_test = standardized
    constant = accuracy(torch.eye(2)[torch.ones_like(labels_test)], labels_test)
    return Data((x, torch.eye(2)[labels]), (x_test, labels_test), ("always inside", constant))


def load_digits() -> Data:
    from sklearn.datasets import load_digits as load  # ships inside scikit-learn's wheel

    pixels, labels = (torch.from_numpy(a) for a in load(return_X_y=True))
    x, labels = (pixels / 16).float().view(-1, 1, 8, 8), labels.long()
    train, test = data.kfold(len(x), 5, seed=0)[0]
    constant = 100 * labels[test].bincount().max().item() / len(test)
    return Data((x[train], labels[train]), (x[test], labels[test]), ("most frequent digit", constant))


def load_patches() -> Data:
    first, second, _ = data.noisy_patches(4000, seed=0, split="train")
    noisy, _, clean = data.noisy_patches(500, seed=0, split="test")
    return Data((first, second), (noisy, clean), ("noisy input", psnr(noisy, clean)))


# Learning rates: the best of a grid on a fifth of the training set (for the patches, on one photograph left out).
TASKS = [
    Task(
        name="disk",
        title="disk: 2-25-25-25-2, ReLU, MSE on one-hot labels",
        network=mlp,
        load=load_disk,
        loss="MSELoss",
        optimizer="SGD",
        settings={"lr": 0.1},
        batch_size=25,
        steps=2400,
        calls=50,
        score_name="accuracy %",
        score=accuracy,
    ),
    Task(
        name="digits",
        title="digits: conv 16, conv 32 stride 2, linear 10, ReLU, cross-entropy",
        network=digits_network,
        load=load_digits,
        loss="CrossEntropyLoss",
        optimizer="Adam",
        settings={"lr": 4e-3},
        batch_size=50,
        steps=500,
        calls=10,
        score_name="accuracy %",
        score=accuracy,
        images=True,
    ),
    Task(
        name="autoencoder",
        title="autoencoder of report 5: 32 channels, noisy pairs of 32 x 32 patches, MSE",
        network=autoencoder,
        load=load_patches,
        loss="MSELoss",
        optimizer="Adam",
        settings={"lr": 6e-3},
        batch_size=50,
        steps=240,
        calls=5,
        score_name="PSNR dB",
        score=psnr,
        images=True,
    ),
]
