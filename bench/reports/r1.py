"""Report 1, "Hotgrad": one network against scikit-learn's classifiers and the same network in PyTorch.

Corrected: the report writes the update as ``p + eta grad``; it is ``p - eta grad``.
"""

from __future__ import annotations

import functools
import statistics
from typing import Any

from ..cli import Options
from ..common.networks import mlp
from . import drawing, workers
from .points import N, Problem, both_sides, choose_rates, split
from .record import Result, add_goal, add_picture, add_table, mean_sd, result
from .training import LABELS, Recipe
from .workers import Workers

PROBLEM = Problem("disk", low=-1)
NETWORK = functools.partial(mlp, last="Tanh")
GRID = (0.03, 0.1, 0.3, 0.6)
PRINTED = "about 98"


def baselines() -> dict[str, Any]:
    """scikit-learn's classifiers as they come."""
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.svm import SVC

    return {
        "logistic regression": LogisticRegression,
        "k-NN": KNeighborsClassifier,
        "random forest": RandomForestClassifier,
        "SVM": SVC,
    }


def classify(name: str, seed: int) -> float:
    """A baseline's test accuracy in per cent on the points of a seed."""
    points = split(PROBLEM, seed)
    make = baselines()[name]
    model = make(random_state=seed) if name == "random forest" else make()
    model.fit(points.x.numpy(), points.labels.numpy())
    workers.advance(1)
    return 100 * float(model.score(points.x_test.numpy(), points.labels_test.numpy()))


def run(options: Options, workers: Workers) -> Result:
    """Every method on the points of every seed."""
    seeds = range(3 if options.quick else 10)
    recipe = Recipe(NETWORK, "MSELoss", "SGD", rate=0.0, batch_size=25, epochs=30 if options.quick else 100)
    (recipe,), (searched,) = choose_rates(workers, [recipe], PROBLEM, GRID, seeds[:5])
    jobs = [(name, seed) for name in baselines() for seed in seeds]
    found = iter(workers.map(classify, jobs, [1] * len(jobs), "r1 baselines"))
    scores = {name: [next(found) for _ in seeds] for name in baselines()}
    (networks,) = both_sides(workers, [recipe], PROBLEM, seeds)
    scores |= {LABELS[side]: networks[side] for side in ("torch", "tapegrad")}

    conditions = [
        f"Disk: {N} training and {N} test points for each seed {seeds[0]} to {seeds[-1]}, standardized.",
        f"Network 2-25-25-25-2, ReLU, Tanh on the output, targets -1 and +1, MSE, SGD, batch {recipe.batch_size}, "
        f"{recipe.epochs} epochs, learning rate {recipe.rate:g} falling linearly to 0 (best of "
        f"{', '.join(f'{rate:g}' for rate in GRID)} on a fifth of the training points).",
        "Baselines: scikit-learn's with their default settings.",
    ]
    one = result("r1", "Hotgrad: a network beside scikit-learn's classifiers", conditions, scores=scores)
    one["data"]["validation"] = searched
    rows = [[name, "below the network", mean_sd(values)] for name, values in scores.items()]
    for row in rows[-2:]:
        row[1] = PRINTED
    add_table(one, f"Test accuracy in %, mean ± SD over {len(seeds)} seeds", ["", "printed", "here"], rows)
    judge(one, scores)
    file = "r1_comparison.png"
    drawing.bars(options.out / file, scores, f"test accuracy in %, mean and SD over {len(seeds)} seeds")
    add_picture(one, file, f"Test accuracy of every method, mean and SD over {len(seeds)} seeds")
    return one


def judge(one: Result, scores: dict[str, list[float]]) -> None:
    """The goals of report 1."""
    ours, theirs = scores["tapegrad"], scores["PyTorch"]
    mean = statistics.mean(ours)
    add_goal(one, "tapegrad at least 98 %", f"{mean:.2f} %", mean >= 98)
    gap, spread = abs(mean - statistics.mean(theirs)), max(statistics.stdev(ours), statistics.stdev(theirs))
    add_goal(one, "equal to PyTorch within the spread", f"{gap:.2f} apart, spread {spread:.2f}", gap <= spread)
    others = {name: statistics.mean(v) for name, v in scores.items() if name not in LABELS.values()}
    best = max(others, key=others.__getitem__)
    add_goal(one, "ahead of every baseline", f"best: {best}, {others[best]:.2f} %", mean > others[best])
