"""Several networks at once: ensembles and grid searches equal the networks trained one after the other."""

import numpy as np
import pytest
import torch
from sklearn.datasets import make_moons
from sklearn.exceptions import FitFailedWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.utils.estimator_checks import parametrize_with_checks

import tapegrad as tg
from tapegrad.sklearn import (
    EnsembleClassifier,
    EnsembleRegressor,
    MLPClassifier,
    MLPRegressor,
    NetworkClassifier,
    NetworkRegressor,
    SweepCV,
)


def network(inputs, outputs, width=16):
    return tg.nn.Sequential(tg.nn.Linear(inputs, width), tg.nn.Tanh(), tg.nn.Linear(width, outputs))


def moons():
    return make_moons(203, noise=0.1, random_state=0)


def waves():
    x = np.random.default_rng(0).uniform(-3, 3, (120, 1))
    return x, np.sin(x[:, 0])


@pytest.mark.filterwarnings("ignore")
@parametrize_with_checks(
    [
        EnsembleClassifier(network, n_estimators=2, lr=0.05, batch_size=8),
        EnsembleRegressor(network, n_estimators=2, lr=0.05, batch_size=8, epochs=100),
    ]
)
def test_is_an_estimator(estimator, check):
    check(estimator)


@pytest.mark.parametrize("bootstrap", [False, True])
def test_each_member_is_a_network_trained_alone(bootstrap):
    x, y = moons()
    ensemble = EnsembleClassifier(network, n_estimators=4, bootstrap=bootstrap, lr=0.02, epochs=3, random_state=7)
    ensemble.fit(x, y)
    random = np.random.RandomState(7)
    seeds = [int(seed) for seed in random.randint(2**31, size=4)]
    rows = [random.randint(len(x), size=len(x)) if bootstrap else np.arange(len(x)) for _ in seeds]
    outputs = []
    for k, seed in enumerate(seeds):
        tg.manual_seed(seed)
        model = network(2, 2)
        optimizer = tg.optim.Adam(model.parameters(), lr=0.02)

        def step(xb, yb, model=model, optimizer=optimizer):
            optimizer.zero_grad()
            loss = tg.nn.functional.cross_entropy(model(xb), yb)
            loss.backward()
            optimizer.step()
            return loss.detach()

        arrays = torch.tensor(x[rows[k]], dtype=torch.float32), torch.tensor(y[rows[k]])
        tg.compile(step).run(*arrays, batch_size=32, epochs=3, seed=seed)
        for mine, other in zip(ensemble.modules_[k].parameters(), model.parameters(), strict=True):
            assert torch.equal(mine.data, other.data)
        outputs.append(torch.softmax(model.predict(x).data, 1).numpy())
    np.testing.assert_allclose(ensemble.predict_proba(x), np.mean(outputs, 0), rtol=1e-6)
    np.testing.assert_allclose(ensemble.spread(x), np.std(outputs, 0), rtol=1e-4, atol=1e-6)


def test_a_regressors_mean_and_spread():
    x, y = waves()
    ensemble = EnsembleRegressor(network, n_estimators=5, lr=0.02, epochs=150, random_state=0).fit(x, y)
    assert ensemble.score(x, y) > 0.95
    far = np.array([[9.0]])
    assert ensemble.spread(far)[0] > 5 * ensemble.spread(x).mean()  # away from the data the networks disagree
    members = [model.predict(x.astype(np.float32)).numpy()[:, 0] for model in ensemble.modules_]
    np.testing.assert_allclose(ensemble.predict(x), np.mean(members, 0), rtol=1e-5, atol=1e-6)


def test_members_stop_by_themselves():
    x, y = moons()
    ensemble = EnsembleClassifier(
        network, n_estimators=4, lr=0.05, epochs=60, early_stopping=True, n_iter_no_change=3, random_state=0
    ).fit(x, y)
    lengths = [len(curve) for curve in ensemble.loss_curves_]
    assert lengths == [len(scores) for scores in ensemble.validation_scores_]
    assert len(set(lengths)) > 1
    assert ensemble.n_iter_ == max(lengths) < 60


def test_partial_fit_and_warm_start_keep_the_members():
    x, y = waves()
    parts = EnsembleRegressor(network, n_estimators=3, shuffle=False, random_state=0)
    for _ in range(4):
        parts.partial_fit(x, y)
    whole = EnsembleRegressor(network, n_estimators=3, shuffle=False, epochs=4, random_state=0).fit(x, y)
    assert parts.loss_curves_ == whole.loss_curves_
    assert np.array_equal(parts.predict(x), whole.predict(x))


SCORES = ("mean_test_score", "std_test_score", "rank_test_score", "split0_test_score", "mean_train_score")


@pytest.mark.parametrize(
    ("estimator", "grid", "data"),
    [
        (
            NetworkClassifier(network, random_state=3),
            [
                {"lr": [0.01, 0.05], "epochs": [3, 5], "module_params": [{"width": 4}, {"width": 9}]},
                {"batch_size": [50], "optimizer": [tg.optim.SGD], "early_stopping": [True], "epochs": [6]},
            ],
            moons,
        ),
        (NetworkRegressor(network, epochs=4, random_state=3), {"lr": [0.1, 0.01]}, waves),
        (EnsembleClassifier(network, n_estimators=2, epochs=3, random_state=3), {"bootstrap": [False, True]}, moons),
        (
            MLPClassifier(7, max_iter=20, random_state=3),
            [
                {"alpha": [1e-4, 1.0], "learning_rate_init": [1e-3, 0.1], "batch_size": [30, 50]},
                {"solver": ["sgd"], "momentum": [0.9, 0.0], "shuffle": [False], "hidden_layer_sizes": [(3, 3), 4]},
                {"early_stopping": [True], "max_iter": [3, 9]},
                {"solver": ["lbfgs"], "activation": ["tanh"]},
            ],
            moons,
        ),
        (
            MLPRegressor(hidden_layer_sizes=7, max_iter=5, random_state=3),
            {"solver": ["sgd", "adam"], "tol": [1e-4, 1e4]},
            waves,
        ),
    ],
)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_a_sweep_gives_grid_searchs_scores(estimator, grid, data):
    x, y = data()
    settings = {"cv": KFold(3, shuffle=True, random_state=1), "return_train_score": True}
    ours, theirs = (search(estimator, grid, **settings).fit(x, y) for search in (SweepCV, GridSearchCV))
    for name in SCORES:
        assert np.array_equal(ours.cv_results_[name], theirs.cv_results_[name]), name
    assert set(ours.cv_results_) == set(theirs.cv_results_)
    assert ours.best_params_ == theirs.best_params_
    assert np.array_equal(ours.predict(x), theirs.predict(x))
    assert ours.n_splits_ == 3


def test_a_sweep_of_another_estimator_is_a_grid_search():
    x, y = moons()
    search = SweepCV(LogisticRegression(), {"C": [1e-4, 1.0]}, cv=2).fit(x, y)
    assert search.best_params_ == {"C": 1.0}


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_perceptrons_that_fail_are_reported_as_grid_search_does():
    x, y = waves()
    grid = {"learning_rate_init": [0.01, 1e30], "solver": ["sgd"], "momentum": [0.5, -1.0]}
    with pytest.warns(FitFailedWarning, match="(?s)6 fits failed.*(non-finite|momentum).*(non-finite|momentum)"):
        search = SweepCV(
            MLPRegressor(hidden_layer_sizes=4, max_iter=5, random_state=0), grid, cv=2, error_score=-9.0
        ).fit(x, y)
    assert (search.cv_results_["mean_test_score"] == -9).tolist() == [False, True, True, True]


@pytest.mark.filterwarnings("ignore:run_together. the loss:RuntimeWarning")
def test_candidates_that_fail_are_reported_as_grid_search_does():
    x, y = moons()
    grid = {"lr": [0.01, 1e38], "optimizer": [tg.optim.SGD], "epochs": [9]}
    with pytest.warns(FitFailedWarning, match="(?s)2 fits failed.*not finite"):
        search = SweepCV(NetworkClassifier(network, random_state=0), grid, cv=2, error_score=-1.0).fit(x, y)
    assert search.cv_results_["mean_test_score"][1] == -1
    with pytest.raises(TypeError, match="epochs must be an integer"):
        SweepCV(NetworkClassifier(network), {"epochs": [1.5]}, cv=2, error_score="raise").fit(x, y)
