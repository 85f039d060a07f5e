"""Any module as a scikit-learn estimator: scikit-learn's own checks, and the training is `Compiled.run`'s."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits, make_moons
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import tapegrad as tg
from tapegrad.sklearn import NetworkClassifier, NetworkRegressor


def network(inputs, outputs, width=16):
    return tg.nn.Sequential(tg.nn.Linear(inputs, width), tg.nn.Tanh(), tg.nn.Linear(width, outputs))


@pytest.mark.filterwarnings("ignore")
@parametrize_with_checks(
    [NetworkClassifier(network, lr=0.05, batch_size=8), NetworkRegressor(network, lr=0.05, batch_size=8, epochs=100)]
)
def test_is_an_estimator(estimator, check):
    check(estimator)


def moons():
    return make_moons(200, noise=0.1, random_state=0)


def test_the_training_is_that_of_a_compiled_step():
    x, y = moons()
    estimator = NetworkClassifier(network, lr=0.02, epochs=3, batch_size=30, random_state=5).fit(x, y)
    seed = int(np.random.RandomState(5).randint(2**31))
    tg.manual_seed(seed)
    model = network(2, 2)
    optimizer = tg.optim.Adam(model.parameters(), lr=0.02)
    means = []
    for epoch in range(3):
        total = 0.0
        for xb, yb in tg.data.batches(
            torch.tensor(x, dtype=torch.float32), torch.tensor(y), batch_size=30, seed=seed, epoch=epoch
        ):
            optimizer.zero_grad()
            loss = tg.nn.functional.cross_entropy(model(xb), yb)
            loss.backward()
            optimizer.step()
            total += loss.item() * len(xb)
        means.append(total / len(x))
    for name, value in model.state_dict().items():
        assert torch.equal(value.data, estimator.module_.state_dict()[name].data)
    np.testing.assert_allclose(estimator.loss_curve_, means, rtol=1e-6)
    assert np.array_equal(estimator.predict(x), model.predict(x).numpy().argmax(1))


def test_the_default_generator_is_left_alone():
    x, y = moons()
    tg.manual_seed(3)
    expected = tg.rand(4)
    tg.manual_seed(3)
    with_dropout = lambda: tg.nn.Sequential(tg.nn.Linear(2, 8), tg.nn.Dropout(0.5), tg.nn.Linear(8, 2))  # noqa: E731
    one, two = (NetworkClassifier(with_dropout, epochs=2, random_state=1).fit(x, y) for _ in range(2))
    assert torch.equal(tg.rand(4).data, expected.data)
    assert one.loss_curve_ == two.loss_curve_


def test_images_and_indices():
    images, labels = load_digits(return_X_y=True)
    images, labels = images[:200].reshape(-1, 1, 8, 8) / 16, np.array(list("abcdefghij"))[labels[:200]]

    def lenet():
        nn = tg.nn
        return nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 10))

    estimator = NetworkClassifier(lenet, epochs=8, lr=0.01, random_state=0).fit(images, labels)
    assert estimator.score(images, labels) > 0.95
    assert set(estimator.predict(images)) <= set("abcdefghij")
    words = np.random.default_rng(0).integers(0, 5, (300, 4))
    bags = lambda: tg.nn.Sequential(tg.nn.Embedding(5, 8), tg.nn.Flatten(), tg.nn.Linear(32, 2))  # noqa: E731
    estimator = NetworkClassifier(bags, epochs=30, lr=0.02, random_state=0).fit(words, words[:, 1] > 2)
    assert estimator.score(words, words[:, 1] > 2) > 0.99


@pytest.mark.parametrize(
    ("loss", "columns"),
    [
        (tg.nn.BCEWithLogitsLoss, 1),
        (tg.nn.BCEWithLogitsLoss(), 2),
        (tg.nn.functional.cross_entropy, 2),
        (tg.nn.MSELoss(), 2),
    ],
)
def test_losses_of_a_classifier(loss, columns):
    x, y = moons()
    estimator = NetworkClassifier(lambda: network(2, columns), loss=loss, lr=0.05, epochs=100, random_state=0).fit(x, y)
    p = estimator.predict_proba(x)
    assert p.shape == (200, 2)
    np.testing.assert_allclose(p.sum(1), 1, rtol=1e-5)
    assert estimator.score(x, y) > 0.9


def test_early_stopping_keeps_the_best():
    x, y = moons()
    estimator = NetworkClassifier(
        network, lr=0.05, epochs=200, early_stopping=True, n_iter_no_change=5, random_state=0
    ).fit(x, y)
    assert estimator.n_iter_ == len(estimator.validation_scores_) < 200
    assert estimator.best_validation_score_ == max(estimator.validation_scores_)


def test_several_outputs_early_stopping_and_shapes():
    x = np.random.default_rng(0).uniform(-1, 1, (300, 3))
    y = np.stack([x[:, 0] * x[:, 1], x[:, 2] ** 2], 1)
    estimator = NetworkRegressor(network, lr=0.02, epochs=200, early_stopping=True, random_state=0).fit(x, y)
    assert estimator.predict(x).shape == (300, 2)
    assert estimator.score(x, y) > 0.9
    flat = NetworkRegressor(network, module_params={"width": 4}, epochs=2, random_state=0).fit(x, y[:, 0])
    assert flat.predict(x).shape == (300,)
    assert flat.module_[0].weight.shape == (4, 3)


def test_it_goes_through_scikit_learns_tools(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # workers look for modules where they start: not in the uncompiled source folder
    monkeypatch.setenv("PYTHONPATH", str(Path(tg.__file__).parents[1]), prepend=os.pathsep)
    x, y = moons()
    pipeline = make_pipeline(StandardScaler(), NetworkClassifier(network, epochs=5, random_state=0))
    scores = [cross_val_score(pipeline, x, y, cv=3, n_jobs=jobs) for jobs in (1, 2)]
    assert np.array_equal(*scores)
    search = GridSearchCV(
        NetworkClassifier(network, epochs=20, random_state=0),
        {"lr": [1e-4, 0.05], "module_params": [{"width": 8}]},
        cv=3,
    ).fit(x, y)
    assert search.best_params_["lr"] == 0.05
    again = pickle.loads(pickle.dumps(search.best_estimator_))
    assert np.array_equal(again.predict_proba(x), search.best_estimator_.predict_proba(x))
    again.partial_fit(x, y)
    search.best_estimator_.partial_fit(x, y)
    assert np.array_equal(again.predict_proba(x), search.best_estimator_.predict_proba(x))


def test_warm_start_and_partial_fit_go_on():
    x, y = moons()
    parts = NetworkClassifier(network, shuffle=False, random_state=0)
    for _ in range(4):
        parts.partial_fit(x, y, classes=[0, 1])
    warm = NetworkClassifier(network, shuffle=False, epochs=2, warm_start=True, random_state=0).fit(x, y).fit(x, y)
    whole = NetworkClassifier(network, shuffle=False, epochs=4, random_state=0).fit(x, y)
    assert parts.loss_curve_ == warm.loss_curve_ == whole.loss_curve_
    assert np.array_equal(parts.predict_proba(x), whole.predict_proba(x))


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"module": lambda: 3}, TypeError, "must be a function that returns a tg.nn.Module; it returned int"),
        ({"module": lambda: tg.nn.Linear(3, 2)}, tg.ShapeError, r"input.shape\[-1\] = 2 must equal"),
        ({"module": lambda: tg.nn.Linear(2, 1)}, tg.ShapeError, r"class indices in \[0, 1\); got 1 at row 1"),
        ({"batch_size": 0}, tg.ShapeError, "NetworkClassifier: batch_size must be at least 1; got 0"),
        ({"epochs": 2.5}, TypeError, "NetworkClassifier: epochs must be an integer"),
        ({"lr": 1e38, "optimizer": tg.optim.SGD, "epochs": 9}, ValueError, "not finite; scale the data or lower lr"),
    ],
)
def test_what_does_not_fit_is_named(arguments, error, text):
    x, y = moons()
    with pytest.raises(error, match=text):
        clone(NetworkClassifier(**{"module": network, **arguments})).fit(x, y)


def test_unknown_classes_are_named():
    x, y = moons()
    estimator = NetworkClassifier(network).partial_fit(x, y, classes=[0, 1])
    with pytest.raises(ValueError, match=r"classes \[2\] that are not in \[0, 1\]"):
        estimator.partial_fit(x, y + 1)
