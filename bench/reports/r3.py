"""Report 3, "Mini framework": losses, optimizers and activations, twelve ways of training one network.

Corrected: Adam's denominator is ``sqrt(v) + eps``, not the printed ``sqrt(v + eps)``.
"""

from __future__ import annotations

import functools
import math
import statistics
from typing import Any

import torch

from ..cli import Options
from ..common.networks import mlp
from . import drawing
from .points import N, Problem, both_sides, choose_rates
from .record import Result, add_goal, add_picture, add_table, mean_sd, result
from .training import Recipe
from .workers import Workers

PROBLEM = Problem("disk")
LOSSES = {"MSE": "MSELoss", "cross-entropy": "CrossEntropyLoss"}
# by optimizer
GRIDS = {"SGD": (0.01, 0.03, 0.1, 0.2, 0.4, 0.8), "Adam": (0.001, 0.003, 0.006, 0.01, 0.02, 0.04)}
SLOPE = 0.05
ACTIVATIONS: dict[str, tuple[Any, ...]] = {"ReLU": ("ReLU",), "Tanh": ("Tanh",), "LeakyReLU": ("LeakyReLU", SLOPE)}
PRINTED = {
    ("MSE", "SGD", "ReLU"): (96.7, 1.1),
    ("MSE", "SGD", "Tanh"): (95.3, 1.4),
    ("MSE", "SGD", "LeakyReLU"): (89.7, 1.2),
    ("MSE", "Adam", "ReLU"): (96.8, 1.6),
    ("MSE", "Adam", "Tanh"): (94.9, 1.9),
    ("MSE", "Adam", "LeakyReLU"): (85.9, 2.8),
    ("cross-entropy", "SGD", "ReLU"): (97.4, 0.9),
    ("cross-entropy", "SGD", "Tanh"): (97.0, 1.0),
    ("cross-entropy", "SGD", "LeakyReLU"): (92.7, 0.8),
    ("cross-entropy", "Adam", "ReLU"): (96.9, 0.6),
    ("cross-entropy", "Adam", "Tanh"): (96.7, 1.4),
    ("cross-entropy", "Adam", "LeakyReLU"): (94.7, 1.6),
}


def xavier(model: Any, gain: float) -> None:
    """The report's equation 5: weights and biases normal with SD gain sqrt(2 / (inputs + outputs)).

    The gain is the activation's; the output has none, and gain 1.
    """
    layers = [layer for layer in model if isinstance(layer, torch.nn.Linear)]
    for layer in layers:
        own = 1.0 if layer is layers[-1] else gain
        sd = own * math.sqrt(2 / (layer.in_features + layer.out_features))
        torch.nn.init.normal_(layer.weight, std=sd)
        torch.nn.init.normal_(layer.bias, std=sd)


def recipe_of(loss: str, optimizer: str, activation: str, epochs: int) -> Recipe:
    """One row, its learning rate still open."""
    name, *slope = ACTIVATIONS[activation]
    gain = torch.nn.init.calculate_gain({"LeakyReLU": "leaky_relu"}.get(name, name.lower()), *slope)
    network = functools.partial(mlp, activation=ACTIVATIONS[activation])
    initialize = functools.partial(xavier, gain=gain)
    return Recipe(network, LOSSES[loss], optimizer, 0.0, batch_size=25, epochs=epochs, initialize=initialize)


def run(options: Options, workers: Workers) -> Result:
    """The grid search of every row, then its runs on both sides."""
    seeds = range(2 if options.quick else 10)
    epochs = 30
    recipes: dict[tuple[str, str, str], Recipe] = {}
    searched: dict[str, dict[float, float]] = {}
    for optimizer, grid in GRIDS.items():
        rows = [row for row in PRINTED if row[1] == optimizer]
        open_rates = [recipe_of(*row, epochs) for row in rows]
        chosen, means = choose_rates(workers, open_rates, PROBLEM, grid, seeds[:5])
        recipes |= dict(zip(rows, chosen, strict=True))
        searched |= {", ".join(row): one for row, one in zip(rows, means, strict=True)}
    scores = dict(zip(recipes, both_sides(workers, list(recipes.values()), PROBLEM, seeds), strict=True))

    conditions = [
        f"Disk: {N} training and {N} test points for each seed 0 to {seeds[-1]}, standardized.",
        f"Network 2-25-25-25-2, LeakyReLU with slope {SLOPE}, Xavier normal with the activation's gain, one-hot "
        f"targets, batch 25, {epochs} epochs.",
        "Learning rate falling linearly to 0, chosen for every row by a grid search on a fifth of the training points "
        f"({len(seeds[:5])} seeds), by tapegrad alone: both sides are equal up to rounding and share it. Grids: "
        + "; ".join(f"{name} {', '.join(f'{rate:g}' for rate in grid)}" for name, grid in GRIDS.items())
        + ".",
    ]
    one = result("r3", "Two losses, two optimizers, three activations", conditions, validation=searched)
    one["data"]["scores"] = {", ".join(row): scores[row] for row in PRINTED}
    rows = [
        [
            ", ".join(row),
            f"{recipes[row].rate:g}",
            f"{PRINTED[row][0]} ± {PRINTED[row][1]}",
            mean_sd(scores[row]["torch"]),
            mean_sd(scores[row]["tapegrad"]),
        ]
        for row in PRINTED
    ]
    columns = ["", "learning rate", "printed", "PyTorch", "tapegrad"]
    add_table(one, f"Test accuracy in %, mean ± SD over {len(seeds)} runs", columns, rows)
    ahead = [statistics.mean(scores[row]["tapegrad"]) - PRINTED[row][0] for row in PRINTED]
    found = f"{sum(gap >= 0 for gap in ahead)} of {len(ahead)}; the closest {min(ahead):+.2f}"
    add_goal(one, "every row at least the printed mean", found, min(ahead) >= 0)
    draw(options, one, scores, searched)
    return one


def draw(
    options: Options,
    one: Result,
    scores: dict[tuple[str, str, str], dict[str, list[float]]],
    searched: dict[str, dict[float, float]],
) -> None:
    """All rows, and the grid searches."""
    file = "r3_rows.png"
    names = [", ".join(row) for row in PRINTED]
    drawing.rows(options.out / file, names, list(PRINTED.values()), [scores[row] for row in PRINTED])
    add_picture(one, file, "Test accuracy of every row: printed, PyTorch and tapegrad, mean and SD")
    file = "r3_grid.png"
    drawing.grid_search(options.out / file, {name: searched[name] for name in names})
    add_picture(one, file, "The grid searches: mean accuracy on the validation points over the learning rate")
