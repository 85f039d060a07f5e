"""Bars: what they say, where they are seen, and that they change nothing."""

import io
import re
import sys
import types

import pytest

import tapegrad as tg
from tapegrad import nn
from tapegrad.compiled import patience, tqdm_bar

tqdm = pytest.importorskip("tqdm")


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def terminal(monkeypatch):
    """What tqdm takes for stderr; pytest puts its own into sys between a fixture and its test."""
    stream = Terminal()
    monkeypatch.setattr(tqdm.std, "sys", types.SimpleNamespace(stderr=stream, stdout=stream, platform=sys.platform))
    return stream


def make(seed=0):
    tg.manual_seed(seed)
    model = nn.Sequential(nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, 2))
    optimizer, loss_fn = tg.optim.SGD(model.parameters(), lr=0.1), nn.CrossEntropyLoss()

    @tg.compile
    def step(x, y):
        optimizer.zero_grad()
        loss = loss_fn(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    return step


def drawn(stream):
    """The bar as it was drawn last."""
    return stream.getvalue().rstrip("\n").rsplit("\r", 1)[-1]


def test_run_shows_epoch_loss_rate_and_time_left(terminal):
    losses = make().run(*tg.data.disk(60, seed=1), batch_size=20, epochs=4, seed=0, progress=True)
    last = drawn(terminal)
    assert "epoch 4/4: 100%" in last
    assert "12/12 [" in last
    assert "step/s" in last
    assert f"loss {losses[-1].mean().item():.4g}" in last


def test_run_together_shows_the_mean_over_models(terminal):
    steps = [make(seed) for seed in range(3)]
    losses = tg.run_together(steps, *tg.data.disk(60, seed=1), batch_size=20, epochs=4, seed=0, progress=True)
    last = drawn(terminal)
    assert "epoch 4/4: 100%" in last
    assert "36/36 [" in last
    assert f"loss {losses[:, -1].double().mean(1).mean().item():.4g}" in last


def test_a_bar_changes_nothing(terminal):
    x, y = tg.data.disk(60, seed=1)
    first = make().run(x, y, batch_size=20, epochs=4, seed=0, progress=True)
    assert first.equal(make().run(x, y, batch_size=20, epochs=4, seed=0))


@pytest.mark.parametrize("how", ["run", "together"])
def test_nothing_is_written_where_nobody_looks(how, capfd):
    data = tg.data.disk(60, seed=1)
    if how == "run":
        make().run(*data, batch_size=20, epochs=2, progress=True)
    else:
        tg.run_together([make(0), make(1)], *data, batch_size=20, epochs=2, progress=True)
    assert capfd.readouterr() == ("", "")


def test_a_long_recording_and_planning_are_named(terminal, monkeypatch):
    monkeypatch.setattr(patience, "OFTEN", 5)  # operations that count as many
    make().run(*tg.data.disk(60, seed=1), batch_size=20, epochs=2, progress=True)
    text = terminal.getvalue()
    for stage in ("comparing two recordings of", "planning", "binding"):
        assert re.search(rf"{stage} \d+ operations", text), stage
    assert "epoch 2/2: 100%" in drawn(terminal)


@pytest.fixture
def notebook(monkeypatch):
    """As in a kernel: IPython says so, and no stream is a terminal."""
    shell = type("ZMQInteractiveShell", (), {"config": {"IPKernelApp": {}}})()
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: shell))
    stream = io.StringIO()
    monkeypatch.setattr(tqdm.std, "sys", types.SimpleNamespace(stderr=stream, stdout=stream, platform=sys.platform))
    return stream


def test_a_notebook_without_widgets_has_a_bar_of_characters(notebook, monkeypatch):
    def refuses(*args, **kwargs):
        raise ImportError("IProgress not found")

    monkeypatch.setitem(sys.modules, "tqdm.auto", types.SimpleNamespace(tqdm=refuses))
    make().run(*tg.data.disk(60, seed=1), batch_size=20, epochs=3, progress=True)
    assert "epoch 3/3: 100%" in drawn(notebook)


def test_a_notebook_with_widgets_has_theirs(notebook, monkeypatch):
    made = []
    widget = types.SimpleNamespace(tqdm=lambda **options: made.append(options) or "bar")
    monkeypatch.setitem(sys.modules, "tqdm.auto", widget)
    assert tqdm_bar(7) == "bar"
    assert made[0]["total"] == 7
    assert made[0]["disable"] is False


def test_fit_has_a_bar_in_a_notebook(notebook, monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    tg.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, 2))
    x, y = tg.data.disk(60, seed=1)
    optimizer = tg.optim.SGD(model.parameters(), lr=0.1)
    history = model.fit(x, y, loss=nn.CrossEntropyLoss(), optimizer=optimizer, epochs=2, batch_size=20, seed=0)
    assert "epoch 2/2: 100%" in drawn(notebook)
    assert f"loss {history.loss[-1]:.4g}, accuracy {history.accuracy[-1]:.4g}" in drawn(notebook)


def test_without_tqdm_run_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    with pytest.raises(tg.ArgumentError, match=r"pip install .tapegrad\[progress\]"):
        make().run(*tg.data.disk(60, seed=1), batch_size=20, progress=True)


@pytest.mark.filterwarnings("ignore:Stochastic Optimizer")
def test_a_grid_of_perceptrons_has_a_bar(terminal):
    pytest.importorskip("sklearn")
    from tapegrad.sklearn import MLPClassifier, SweepCV

    x, y = tg.data.disk(90, seed=1)
    grid = {"learning_rate_init": [0.001, 0.5], "hidden_layer_sizes": [(4,), (6,)]}
    estimator = MLPClassifier(max_iter=12, n_iter_no_change=3, tol=1.0, random_state=0, batch_size=30)
    search = SweepCV(estimator, grid, cv=2, verbose=1).fit(x.numpy(), y.numpy())
    assert len(search.cv_results_["params"]) == 4
    last = drawn(terminal)
    assert "0 of 8 networks: 100%" in last
    assert "96/96 [" in last
    assert "epoch/s" in last
