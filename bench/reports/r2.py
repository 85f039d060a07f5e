"""Report 2: 50 trainings of 25 epochs, their accuracy and their time.

Corrected: the radius is 1 / sqrt(2 pi), not the printed 1 / (sqrt(2) pi).
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Sequence
from typing import Any

from tqdm import tqdm

from ..cli import Options
from ..common.networks import mlp
from ..common.tasks import accuracy
from . import drawing
from .points import N, Problem, choose_rates, split
from .record import Result, add_goal, add_picture, add_table, mean_sd, result
from .training import LABELS, Recipe, Training, fit_together
from .workers import Workers

PROBLEM = Problem("disk")
GRID = (0.03, 0.1, 0.2, 0.4, 0.6)
PRINTED = {"torch": ("93.61 ± 2.57", "1.47 ± 0.25"), "tapegrad": ("92.62 ± 2.99", "2.20 ± 0.23")}
WANTED = 40  # times faster than PyTorch
POINT = 100 / N  # per cent
LOT = 10  # rounds at once


def run(options: Options, workers: Workers) -> Result:
    """Rounds on both sides, which take turns on one thread while nothing else runs."""
    rounds = range(5 if options.quick else 50)
    recipe = Recipe(mlp, "MSELoss", "SGD", rate=0.0, batch_size=25, epochs=25)
    (recipe,), (searched,) = choose_rates(workers, [recipe], PROBLEM, GRID, range(3 if options.quick else 5))
    for side in LABELS:
        rounds_of(side, dataclasses.replace(recipe, epochs=1), [0])  # what a process does once, imports above all
    found: dict[str, list[dict[str, Any]]] = {side: [] for side in LABELS}
    lots = [rounds[i : i + LOT] for i in range(0, len(rounds), LOT)]
    with tqdm(total=2 * len(rounds), desc="r2", unit="round", disable=None, leave=False) as bar:
        for i, lot in enumerate(lots):
            for side in list(LABELS) if i % 2 else list(LABELS)[::-1]:
                found[side] += rounds_of(side, recipe, lot)
                bar.update(len(lot))
    return describe(options, recipe, searched, found)


def rounds_of(side: str, recipe: Recipe, seeds: Sequence[int]) -> list[dict[str, Any]]:
    """Trainings from fresh weights: seconds of each (recording and planning included), test predictions.

    PyTorch trains one after the other, tapegrad all at once: its time is the whole one shared by them.
    """
    splits = [split(PROBLEM, seed) for seed in seeds]
    trainings = [Training(side, recipe, seed) for seed in seeds]
    seconds = []
    if side == "tapegrad":
        start = time.perf_counter()
        fit_together(trainings, [(points.x, points.y) for points in splits])
        seconds = [(time.perf_counter() - start) / len(seeds)] * len(seeds)
    else:
        for training, points in zip(trainings, splits, strict=True):
            start = time.perf_counter()
            training.fit(points.x, points.y)
            seconds.append(time.perf_counter() - start)
    outputs = [training.predict(points.x_test) for training, points in zip(trainings, splits, strict=True)]
    return [
        {"seconds": s, "accuracy": accuracy(output, points.labels_test), "labels": output.argmax(1).tolist()}
        for s, output, points in zip(seconds, outputs, splits, strict=True)
    ]


def describe(
    options: Options, recipe: Recipe, searched: dict[float, float], found: dict[str, list[dict[str, Any]]]
) -> Result:
    """The table, the goals and the picture."""
    scores = {side: [one["accuracy"] for one in rounds] for side, rounds in found.items()}
    times = {side: [one["seconds"] for one in rounds] for side, rounds in found.items()}
    n = len(scores["torch"])
    conditions = [
        f"Disk: {N} training and {N} test points for each seed 0 to {n - 1}, standardized.",
        f"Network 2-25-25-25-2, ReLU, one-hot targets, MSE, SGD, batch {recipe.batch_size}, {recipe.epochs} epochs, "
        f"learning rate {recipe.rate:g} falling linearly to 0 (best of {', '.join(f'{rate:g}' for rate in GRID)} on a "
        "fifth of the training points).",
        "Time of a training on one thread, shuffling and, on tapegrad's side, recording and planning included; the "
        f"sides take turns after every {LOT} rounds, which tapegrad trains together, PyTorch one after the other.",
    ]
    one = result("r2", f"Accuracy and time of {n} rounds of {recipe.epochs} epochs", conditions)
    one["data"] = {"accuracy": scores, "seconds": times, "validation": searched}
    rows = [
        [LABELS[side], PRINTED[side][0], mean_sd(scores[side]), PRINTED[side][1], mean_sd(times[side], 4)]
        for side in ("torch", "tapegrad")
    ]
    columns = ["", "accuracy in %, printed", "accuracy in %", "time in s, printed", "time in s"]
    add_table(one, f"Mean ± SD over {n} rounds", columns, rows)
    ours, theirs = statistics.mean(scores["tapegrad"]), statistics.mean(scores["torch"])
    goal = f"accuracy no lower than PyTorch's, to {POINT:g} % (one test point)"
    add_goal(one, goal, f"{ours:.3f} against {theirs:.3f} %", ours >= theirs - POINT)
    ratio = statistics.mean(times["torch"]) / statistics.mean(times["tapegrad"])
    add_goal(one, f"time at least {WANTED} times lower", f"{ratio:.1f} times", ratio >= WANTED)
    points = split(PROBLEM, 0)
    panels = {f"{LABELS[side]}: {scores[side][0]:.1f} %": found[side][0]["labels"] for side in ("tapegrad", "torch")}
    file = "r2_predictions.png"
    drawing.predictions(options.out / file, points.points_test, points.labels_test, panels)
    add_picture(one, file, "Predictions on the test points of seed 0, with the true circle; crosses are wrong")
    return one
