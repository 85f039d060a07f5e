"""A training as data: network, arrays, loss, optimizer; and the scores."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch


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
