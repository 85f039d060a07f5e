"""The reports' points in the unit square: splits, scores, learning rates chosen on a validation split."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from tapegrad import data

from ..common.tasks import accuracy
from .training import Recipe, Training, fit_together
from .workers import Workers

N = 1000  # points to train on, and to test on
VALIDATION = 200  # of the training points, while the learning rate is chosen


@dataclass(frozen=True)
class Problem:
    """Points and their targets: `points` is a function of tapegrad.data; a class that a point is not of gets `low`."""

    points: str
    low: float = 0.0  # 0: one-hot; -1 where the output is a Tanh

    def targets(self, labels: torch.Tensor) -> torch.Tensor:
        """float32 [n, 2]."""
        return self.low + (1 - self.low) * torch.eye(2)[labels]


@dataclass(frozen=True)
class Split:
    """Standardized inputs, targets and labels to train on; the same to score on, with the points as they are."""

    x: torch.Tensor
    y: torch.Tensor
    labels: torch.Tensor
    x_test: torch.Tensor
    y_test: torch.Tensor
    labels_test: torch.Tensor
    points_test: torch.Tensor


def split(problem: Problem, seed: int, validate: bool = False) -> Split:
    """The points of a run: training points of seed 2 s + 1, test points of seed 2 s + 2.

    With `validate` the last 200 training points take the place of the test points.
    """
    make = getattr(data, problem.points)
    points, labels = make(N, 2 * seed + 1)
    if validate:
        cut = N - VALIDATION
        return arrange(problem, points[:cut], labels[:cut], points[cut:], labels[cut:])
    return arrange(problem, points, labels, *make(N, 2 * seed + 2))


def arrange(
    problem: Problem, points: torch.Tensor, labels: torch.Tensor, points_test: torch.Tensor, labels_test: torch.Tensor
) -> Split:
    """A split, its inputs standardized by the training points."""
    standardized: Any = data.standardize(points, points_test)
    x, x_test = standardized
    y, y_test = problem.targets(labels), problem.targets(labels_test)
    return Split(x, y, labels, x_test, y_test, labels_test, points_test)


def balanced_accuracy(output: torch.Tensor, labels: torch.Tensor) -> float:
    """Per cent: the mean over the classes of the share of their points that are found."""
    hit = (output.argmax(1) == labels).double()
    return 100 * torch.stack([hit[labels == c].mean() for c in labels.unique()]).mean().item()


def score(side: str, recipe: Recipe, problem: Problem, seed: int, validate: bool = False) -> float:
    """Train one network from scratch; its accuracy in per cent on the test (or validation) points."""
    points = split(problem, seed, validate)
    training = Training(side, recipe, seed)
    training.fit(points.x, points.y)
    return accuracy(training.predict(points.x_test), points.labels_test)


Job = tuple[Recipe, int]  # how, and with which seed


def scores(jobs: Sequence[Job], problem: Problem, validate: bool = False) -> list[float]:
    """`score` of many trainings by tapegrad at once."""
    splits = [split(problem, seed, validate) for _, seed in jobs]
    trainings = [Training("tapegrad", recipe, seed) for recipe, seed in jobs]
    for size, epochs in {(recipe.batch_size, recipe.epochs) for recipe, _ in jobs}:
        mine = [i for i, (recipe, _) in enumerate(jobs) if (recipe.batch_size, recipe.epochs) == (size, epochs)]
        fit_together([trainings[i] for i in mine], [(splits[i].x, splits[i].y) for i in mine])
    return [
        accuracy(training.predict(points.x_test), points.labels_test)
        for training, points in zip(trainings, splits, strict=True)
    ]


def together(workers: Workers, jobs: Sequence[Job], problem: Problem, validate: bool, label: str) -> list[float]:
    """The scores of all jobs: as many at once as there are processes, each training its share together."""
    size = -(-len(jobs) // workers.processes)
    shares = [jobs[i : i + size] for i in range(0, len(jobs), size)]
    samples = N - VALIDATION if validate else N
    steps = [sum(recipe.steps(samples) for recipe, _ in share) for share in shares]
    return [
        one for share in workers.map(scores, [(s, problem, validate) for s in shares], steps, label) for one in share
    ]


# --- learning rates ----------------------------------------------------------------------------------------------


def choose_rates(
    workers: Workers, recipes: Sequence[Recipe], problem: Problem, grid: Sequence[float], seeds: Sequence[int]
) -> tuple[list[Recipe], list[dict[float, float]]]:
    """Each recipe with the rate of the best mean validation accuracy (of equals the smaller); and those means.

    Only tapegrad searches: both frameworks give the same network up to rounding, so the rate is both sides'.
    """
    jobs = [(dataclasses.replace(recipe, rate=rate), seed) for recipe in recipes for rate in grid for seed in seeds]
    scored = iter(together(workers, jobs, problem, True, "learning rates"))
    found = [{rate: statistics.mean(next(scored) for _ in seeds) for rate in grid} for _ in recipes]
    best = [max(grid, key=lambda rate, means=means: (means[rate], -rate)) for means in found]
    return [dataclasses.replace(recipe, rate=rate) for recipe, rate in zip(recipes, best, strict=True)], found


def both_sides(
    workers: Workers, recipes: Sequence[Recipe], problem: Problem, seeds: Sequence[int]
) -> list[dict[str, list[float]]]:
    """Test accuracies of each recipe by side, one per seed."""
    pairs = [(recipe, seed) for recipe in recipes for seed in seeds]
    jobs = [("torch", recipe, problem, seed) for recipe, seed in pairs]
    theirs = iter(workers.map(score, jobs, [recipe.steps(N) for recipe, _ in pairs], "training"))
    ours = iter(together(workers, pairs, problem, False, "training together"))
    return [{"torch": [next(theirs) for _ in seeds], "tapegrad": [next(ours) for _ in seeds]} for _ in recipes]
