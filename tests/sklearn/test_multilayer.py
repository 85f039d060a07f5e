"""scikit-learn's perceptrons on the compiled tape: the interface is scikit-learn's, a training follows its own."""

import copy
import pickle
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from scipy import sparse
from sklearn import neural_network
from sklearn.base import clone
from sklearn.datasets import load_digits, make_moons, make_multilabel_classification
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.estimator_checks import parametrize_with_checks

from tapegrad.sklearn import MLPClassifier, MLPRegressor, multilayer

PAIRS = {c.__name__: (c, getattr(neural_network, c.__name__)) for c in (MLPClassifier, MLPRegressor)}

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


@pytest.mark.filterwarnings("ignore")
@parametrize_with_checks(
    [MLPClassifier(), MLPRegressor(solver="sgd")],
)
def test_is_an_estimator(estimator, check):
    check(estimator)


def digits():
    x, y = load_digits(return_X_y=True)
    return x[:500] / 16, y[:500]


def moons():
    return make_moons(200, noise=0.2, random_state=0)


def labels():
    return make_multilabel_classification(200, n_features=10, n_classes=4, random_state=0)


def several():
    x = np.random.default_rng(0).normal(size=(150, 3))
    return x, np.stack([np.abs(x[:, 0]), x[:, 1] ** 2], 1)


SGD = {"solver": "sgd", "learning_rate_init": 0.1}
TRAININGS = [
    ("MLPClassifier", digits, {}),
    ("MLPClassifier", digits, SGD),
    ("MLPClassifier", digits, {**SGD, "learning_rate": "invscaling", "nesterovs_momentum": False}),
    ("MLPClassifier", digits, {**SGD, "momentum": 0.0, "activation": "tanh", "alpha": 0.5, "shuffle": False}),
    (
        "MLPClassifier",
        moons,
        {**SGD, "learning_rate": "adaptive", "n_iter_no_change": 2, "tol": 1e-2, "batch_size": 33, "max_iter": 60},
    ),
    ("MLPClassifier", moons, {"hidden_layer_sizes": (8, 8, 8), "activation": "logistic", "batch_size": 25}),
    ("MLPClassifier", labels, {**SGD, "early_stopping": True, "hidden_layer_sizes": 7}),
    ("MLPClassifier", labels, {"activation": "identity", "hidden_layer_sizes": ()}),
    ("MLPRegressor", several, {**SGD, "learning_rate_init": 0.01, "alpha": 0}),
    ("MLPRegressor", several, {"early_stopping": True, "batch_size": 7}),
    ("MLPRegressor", several, {**SGD, "learning_rate_init": 0.01, "loss": "poisson"}),
]


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("name", "data", "arguments"), TRAININGS)
def test_a_training_follows_scikit_learns(name, data, arguments, weighted):
    x, y = data()
    weight = np.random.default_rng(1).uniform(0.5, 2, len(x)) if weighted else None
    ours, theirs = (c(**{"max_iter": 8, "random_state": 3, **arguments}).fit(x, y, weight) for c in PAIRS[name])
    # scikit-learn's Adam adds epsilon before it corrects the second moment, so its first steps are a little shorter
    rtol = 2e-4 if ours.solver == "sgd" else 2e-2
    assert ours.n_iter_ == theirs.n_iter_
    np.testing.assert_allclose(ours.loss_curve_, theirs.loss_curve_, rtol=rtol)
    for mine, other in zip(ours.coefs_ + ours.intercepts_, theirs.coefs_ + theirs.intercepts_, strict=True):
        assert mine.shape == other.shape
        assert mine.dtype == other.dtype
        if ours.solver == "sgd":
            np.testing.assert_allclose(mine, other, rtol=1e-3, atol=1e-4)
    assert ours.score(x, y) == pytest.approx(theirs.score(x, y), abs=0.01)
    if ours.early_stopping:
        np.testing.assert_allclose(ours.validation_scores_, theirs.validation_scores_, atol=0.03)


@pytest.mark.parametrize("solver", ["sgd", "adam"])
def test_partial_fit_goes_on_after_a_pickle(solver):
    x, y = moons()
    ours, theirs = (c(12, solver=solver, learning_rate_init=0.05, random_state=0) for c in PAIRS["MLPClassifier"])
    for i in range(6):
        for each in (ours, theirs):
            each.partial_fit(x, y, classes=[0, 1])
        if i == 2:
            ours = pickle.loads(pickle.dumps(copy.deepcopy(pickle.loads(pickle.dumps(ours)))))
            theirs.set_params(alpha=0.1)
            ours.set_params(alpha=0.1)
    np.testing.assert_allclose(ours.loss_curve_, theirs.loss_curve_, rtol=1e-4 if solver == "sgd" else 1e-2)


def test_warm_start_begins_where_the_last_fit_ended():
    x, y = moons()
    ours, theirs = (c(12, warm_start=True, max_iter=3, solver="sgd", random_state=0) for c in PAIRS["MLPClassifier"])
    for each in (ours, theirs):
        each.fit(x, y).fit(x, y)
    np.testing.assert_allclose(ours.loss_curve_, theirs.loss_curve_, rtol=1e-5)
    assert len(ours.loss_curve_) == 6


def fits(data, arguments, seeds):
    x, y = data()
    return [MLPClassifier(**arguments, max_iter=12, random_state=seed).fit(x, y) for seed in seeds]


def assert_same(a, b):
    assert a.loss_curve_ == b.loss_curve_
    for mine, other in zip(a.coefs_ + a.intercepts_, b.coefs_ + b.intercepts_, strict=True):
        np.testing.assert_array_equal(mine, other)


OTHERS = [  # than the first, by what a step's program depends on or reads anew
    {},
    {"alpha": 0.3, "learning_rate_init": 0.01, "beta_1": 0.8},
    {"activation": "tanh"},
    {"hidden_layer_sizes": (9, 8)},
    {"batch_size": 31},
    {"solver": "sgd", "learning_rate_init": 0.1},
    {"solver": "sgd", "learning_rate_init": 0.05, "momentum": 0.5},
]


def test_a_fit_that_runs_an_earlier_ones_program_is_the_fit_without():
    multilayer.KNOWN.__init__()
    first = [fits(moons, {"hidden_layer_sizes": (9,), "batch_size": 32, **other}, (5, 6)) for other in OTHERS]
    for known, other in zip(first, OTHERS, strict=True):
        assert not known[1]._optimizer._step.programs  # nothing was recorded for it
        multilayer.KNOWN.__init__()
        assert_same(known[1], *fits(moons, {"hidden_layer_sizes": (9,), "batch_size": 32, **other}, (6,)))


def test_fits_on_two_threads_at_once():
    arguments = {"hidden_layer_sizes": (9,), "batch_size": 32}
    alone = fits(moons, arguments, range(6))
    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(lambda seed: fits(moons, arguments, (seed,))[0], range(6)))
    for a, b in zip(alone, both, strict=True):
        assert_same(a, b)


def test_the_programs_that_are_kept_are_few_and_small():
    multilayer.KNOWN.__init__(limit=2, largest=100_000)
    fits(moons, {"hidden_layer_sizes": (2000,)}, (0,))
    assert not multilayer.KNOWN._all
    for width in (3, 4, 5):
        fits(moons, {"hidden_layer_sizes": (width,)}, (0,))
    assert len(multilayer.KNOWN._all) == 2
    multilayer.KNOWN.__init__()


def test_sparse_rows_and_single_precision():
    x, y = digits()
    dense = MLPClassifier(20, max_iter=3, random_state=0).fit(x.astype(np.float32), y)
    for kind in (sparse.csr_matrix, sparse.csc_array):
        rows = MLPClassifier(20, max_iter=3, random_state=0).fit(kind(x.astype(np.float32)), y)
        assert rows.loss_curve_ == dense.loss_curve_
    assert dense.coefs_[0].dtype == np.float32


def test_the_coefficients_may_be_set_between_trainings():
    x, y = moons()
    ours, theirs = (c(5, solver="sgd", random_state=0) for c in PAIRS["MLPClassifier"])
    for each in (ours, theirs):
        each.partial_fit(x, y, classes=[0, 1])
        each.coefs_[0][...] = 0.25
        each.partial_fit(x, y)
    np.testing.assert_allclose(ours.loss_curve_, theirs.loss_curve_, rtol=1e-5)
    np.testing.assert_allclose(ours.coefs_[0], theirs.coefs_[0], rtol=1e-3)


def test_what_is_reported_is_scikit_learns():
    x, y = moons()
    estimator = clone(MLPClassifier(5, max_iter=2, random_state=0))
    with pytest.warns(ConvergenceWarning, match=r"Maximum iterations \(2\) reached"):
        estimator.fit(x, y)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        MLPClassifier(5, max_iter=1, batch_size=1000, random_state=0).fit(x, y)
    assert any("larger than sample size" in str(w.message) for w in seen)
    with pytest.raises(ValueError, match="does not support early_stopping"):
        MLPClassifier(5, early_stopping=True).partial_fit(x, y, classes=[0, 1])
    with pytest.raises(ValueError, match="validation set is too small"):
        MLPClassifier(5, early_stopping=True, validation_fraction=0.05).fit(x[:12], [[0, 1]] * 12)
