"""The same estimators fitted by scikit-learn and by tapegrad; a grid search and an ensemble at once and one by one."""

from __future__ import annotations

import statistics
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn import datasets, neural_network
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV, train_test_split
from threadpoolctl import threadpool_limits

import tapegrad as tg
from tapegrad import sklearn as ours

from ..cli import Options
from ..common.tables import environment, seconds, table, write_json
from ..common.timing import Timing, ratio, take_turns

SEEDS = 10
Arrays = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Row:
    """One estimator on one problem."""

    name: str
    data: Callable[[], Arrays]
    arguments: dict[str, Any]


def digits() -> Arrays:
    """1,437 pictures of 8 x 8 to train on, 360 to test."""
    x, y = datasets.load_digits(return_X_y=True)
    return tuple(train_test_split(x / 16, y, test_size=360, random_state=0))  # type: ignore[return-value]


def moons() -> Arrays:
    """1,000 points of two features to train on, 1,000 to test."""
    return tuple(
        train_test_split(*datasets.make_moons(2000, noise=0.2, random_state=0), test_size=1000, random_state=0)
    )


MLP = [
    Row("digits 64-100-10, adam, batch 200", digits, {"hidden_layer_sizes": (100,)}),
    Row("moons 2-25-25-25-1, adam, batch 25", moons, {"hidden_layer_sizes": (25, 25, 25), "batch_size": 25}),
    Row(
        "moons 2-25-25-25-1, sgd, batch 25",
        moons,
        {"hidden_layer_sizes": (25, 25, 25), "batch_size": 25, "solver": "sgd", "learning_rate_init": 0.05},
    ),
]


def run(options: Options) -> None:
    """Print the two tables, write sklearn.json."""
    machine = environment(options.threads)
    print(", ".join(f"{name} {value}" for name, value in machine.items()))
    with threadpool_limits(options.threads), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        fits = [perceptron(row, 3 if options.quick else SEEDS) for row in MLP]
        print("\nMLPClassifier.fit until it stops (at most 200 epochs), both sides from the same seeds; float64 data.")
        print(table(("problem", "scikit-learn", "tapegrad", "ratio", "us a step", "accuracy", "ours"), fits))
        many = sweeps(quick=options.quick)
        print("\nNetworkClassifier, moons, 20 epochs of batch 25: trained at once, and one after the other.")
        print(table(("what", "one by one", "at once", "ratio", "us a step and network"), many))
    write_json(options.out / "sklearn.json", {"environment": machine, "fits": fits, "sweeps": many})
    print(f"\nwritten to {options.out}: sklearn.json")


def perceptron(row: Row, seeds: int) -> list[str]:
    """Both sides on every seed: time of a fit, time of a step, accuracy of the test set."""
    x, x_test, y, y_test = row.data()
    sides = (neural_network.MLPClassifier, ours.MLPClassifier)
    scores: list[list[float]] = [[], []]
    steps: list[list[int]] = [[], []]
    timings = [Timing(0), Timing(0)]
    size = row.arguments.get("batch_size", 200)
    for seed in range(seeds):
        fitted: list[Any] = [None, None]

        def fit(k: int, seed: int = seed, fitted: list[Any] = fitted) -> None:
            fitted[k] = sides[k](**row.arguments, random_state=seed).fit(x, y)

        turn = take_turns([lambda fit=fit: fit(0), lambda fit=fit: fit(1)], blocks=3, calls=1, warmup=1)
        for k, timing in enumerate(turn):
            steps[k].append(fitted[k].n_iter_ * -(-len(x) // size))
            scores[k].append(fitted[k].score(x_test, y_test))
            timings[k].blocks.append(timing.median)
    per_step = [statistics.median(t / n for t, n in zip(timings[k].blocks, steps[k], strict=True)) for k in (0, 1)]
    return [
        row.name,
        seconds(timings[0].median),
        seconds(timings[1].median),
        f"{ratio(timings[1], timings[0]):.1f}",
        f"{per_step[0] / 1e-6:.0f} / {per_step[1] / 1e-6:.1f}",
        f"{np.median(scores[0]):.4f}",
        f"{np.median(scores[1]):.4f}",
    ]


def network(inputs: int, outputs: int) -> Any:
    """2-25-25-25-2."""
    nn = tg.nn
    hidden = [layer for _ in range(2) for layer in (nn.Linear(25, 25), nn.ReLU())]
    return nn.Sequential(nn.Linear(inputs, 25), nn.ReLU(), *hidden, nn.Linear(25, outputs))


def sweeps(quick: bool) -> list[list[str]]:
    """A grid search of candidates x folds and an ensemble, each beside its members one by one."""
    x, _, y, _ = moons()
    epochs = 5 if quick else 20
    estimator = ours.NetworkClassifier(network, epochs=epochs, batch_size=25, random_state=0)
    grid = {"lr": [0.001, 0.003, 0.01, 0.03], "optimizer": [tg.optim.SGD, tg.optim.Adam, tg.optim.AdamW]}
    members = 32
    ensemble = ours.EnsembleClassifier(network, n_estimators=members, epochs=epochs, batch_size=25, random_state=0)
    searches = [kind(estimator, grid, cv=5, refit=False) for kind in (GridSearchCV, ours.SweepCV)]
    perceptron = ours.MLPClassifier((25, 25, 25), batch_size=25, max_iter=epochs, random_state=0)
    rates = {"alpha": [1e-4, 1e-3, 1e-2, 1e-1], "learning_rate_init": [0.001, 0.003, 0.01]}
    others = [kind(perceptron, rates, cv=5, refit=False) for kind in (GridSearchCV, ours.SweepCV)]

    def alone() -> None:
        for seed in range(members):
            estimator.set_params(random_state=seed).fit(x, y)

    pairs = [
        ("grid search: 12 candidates x 5 folds", 60, 800, lambda: searches[0].fit(x, y), lambda: searches[1].fit(x, y)),
        ("the same of MLPClassifier", 60, 800, lambda: others[0].fit(x, y), lambda: others[1].fit(x, y)),
        (f"ensemble of {members}", members, 1000, alone, lambda: ensemble.fit(x, y)),
    ]
    rows = []
    for name, count, n, one_by_one, at_once in pairs:
        slow, fast = take_turns([one_by_one, at_once], blocks=4, calls=1, warmup=1)
        steps = count * epochs * n / 25
        rows.append(
            [
                name,
                seconds(slow.median),
                seconds(fast.median),
                f"{ratio(fast, slow):.1f}",
                f"{slow.median / steps / 1e-6:.1f} / {fast.median / steps / 1e-6:.1f}",
            ]
        )
    for pair in (searches, others):
        if not np.array_equal(*(search.cv_results_["mean_test_score"] for search in pair)):
            raise AssertionError("sklearn: the sweep's scores are not those of the grid search")
    return rows
