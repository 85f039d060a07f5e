"""Report 5's network: conv-conv-up-up, trained on pairs of noisy pictures to remove the noise."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

from tapegrad import data

from ..common.networks import autoencoder
from ..common.tasks import psnr
from .training import LABELS, Recipe, Training
from .workers import Workers

SIGMA = 0.2
TRAIN, TEST = 4000, 500  # patches, of different photographs
SHOWN = 10
GRID = (0.002, 0.004, 0.008)
LEFT_OUT = len(data.PHOTOGRAPHS["train"])  # patch i is of photograph i modulo this; the last is for validation
SEED = 0


def recipe(epochs: int) -> Recipe:
    return Recipe(autoencoder, "MSELoss", "Adam", 0.0, batch_size=50, epochs=epochs, channels_last=True)


def patches(validate: bool) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Noisy pairs to train on; noisy and clean to score on. To validate: of the last training photograph."""
    first, second, clean = data.noisy_patches(TRAIN, sigma=SIGMA, seed=SEED, split="train")
    if validate:
        last = torch.arange(TRAIN) % LEFT_OUT == LEFT_OUT - 1
        return first[~last], second[~last], first[last], clean[last]
    noisy, _, clean = data.noisy_patches(TEST, sigma=SIGMA, seed=SEED, split="test")
    return first, second, noisy, clean


def train(side: str, recipe: Recipe, validate: bool) -> dict[str, Any]:
    """One training: losses by epoch, PSNR by epoch (validating: at the end), some pictures."""
    first, second, noisy, clean = patches(validate)
    training = Training(side, recipe, SEED)
    scores: list[float] = []

    def after_epoch(epoch: int) -> None:
        if not validate or epoch == recipe.epochs - 1:
            scores.append(psnr(training.predict(noisy), clean))

    losses = training.fit(first, second, after_epoch)
    shown = training.predict(noisy[:SHOWN])
    return {"loss": losses.mean(1).tolist(), "psnr": scores, "pictures": shown.tolist()}


def run(quick: bool, workers: Workers) -> dict[str, Any]:
    """The learning rate by tapegrad on a photograph left out, then the training on both sides."""
    final = recipe(2 if quick else 15)
    search = recipe(1 if quick else 4)
    jobs = [("tapegrad", dataclasses.replace(search, rate=rate), True) for rate in GRID]
    steps = [search.steps(TRAIN - TRAIN // LEFT_OUT)] * len(GRID)
    found = [one["psnr"][-1] for one in workers.map(train, jobs, steps, "r5 learning rates")]
    searched = dict(zip(GRID, found, strict=True))
    final = dataclasses.replace(final, rate=max(GRID, key=searched.__getitem__))
    sides = list(LABELS)[::-1]
    jobs = [(side, final, False) for side in sides]
    trained = dict(zip(sides, workers.map(train, jobs, [final.steps(TRAIN)] * 2, "r5 training"), strict=True))
    _, _, noisy, clean = patches(validate=False)
    shown = {"noisy": noisy[:SHOWN].tolist()}
    shown |= {LABELS[side]: trained[side].pop("pictures") for side in ("tapegrad", "torch")}
    shown["clean"] = clean[:SHOWN].tolist()
    return {
        "data": {
            "noisy": psnr(noisy, clean),
            "curves": trained,
            "validation": searched,
            "rate": final.rate,
            "epochs": final.epochs,
            "steps": final.steps(TRAIN),
        },
        "pictures": shown,
    }


def conditions(trained: dict[str, Any]) -> list[str]:
    """What was trained, in words."""
    figures = trained["data"]
    names = {split: [name.rpartition("/")[2] for _, name in paths] for split, paths in data.PHOTOGRAPHS.items()}
    return [
        f"Autoencoder of 32 channels (conv stride 2 twice, upsampling twice), {TRAIN} pairs of noisy 32 x 32 patches, "
        f"Gaussian noise of sigma {SIGMA} clipped to [0, 1], MSE, Adam, batch 50, {figures['epochs']} epochs, learning "
        f"rate {figures['rate']:g} falling linearly to 0 (best of {', '.join(f'{rate:g}' for rate in GRID)} on one "
        f"training photograph left out), seed {SEED}; PyTorch in channels_last.",
        f"Trained on {', '.join(names['train'])}; PSNR of all pixels together on {TEST} patches of "
        f"{', '.join(names['test'])}.",
    ]
