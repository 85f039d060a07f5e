"""The three trainings: network, data, loss, optimizer."""

from __future__ import annotations

from typing import Any

import torch

from tapegrad import data

from ..common.networks import autoencoder, digits_network, mlp
from ..common.tasks import Data, Task, accuracy, psnr


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
