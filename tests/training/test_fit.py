"""Sequential.fit: the loop a user would write, bit for bit; what it reports; what it takes, refuses and survives."""

from __future__ import annotations

import io
import os
import re
import signal
import sys
import threading

import numpy as np
import pytest
import torch

import tapegrad as tg
from tapegrad import nn, optim
from tapegrad.core import ArgumentError, DTypeError, ShapeError
from tapegrad.training.labels import accuracy_of, as_targets
from tapegrad.training.loop import History

X, LABELS = tg.data.disk(110, seed=1)  # batches of 25 leave one of 10
CROSS_ENTROPY = nn.CrossEntropyLoss()


def network(dropout: float = 0.0) -> nn.Sequential:
    tg.manual_seed(0)
    layers = [nn.Linear(2, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(dropout), nn.Linear(8, 2)]
    return nn.Sequential(*layers)


def adam(model: nn.Module) -> optim.Optimizer:
    return optim.Adam(model.parameters(), lr=0.01)


def trained(model: nn.Sequential, x=X, y=LABELS, **options) -> History:
    """`fit` with what the tests share."""
    settings = {"loss": CROSS_ENTROPY, "epochs": 2, "batch_size": 25, "seed": 3, **options}
    settings.setdefault("optimizer", adam(model))
    return model.fit(x, y, **settings)


def by_hand(model: nn.Sequential, x, y, *, optimizer, epochs=2, steps=None, loss=CROSS_ENTROPY, shuffle=True, seed=3):
    """The loop that `fit` stands for; the losses of every step. Ends after `steps` steps."""
    losses = []
    for epoch in range(epochs):
        for xb, yb in tg.data.batches(x, y, batch_size=25, shuffle=shuffle, seed=seed, epoch=epoch):
            if len(losses) == steps:
                return losses
            optimizer.zero_grad()
            value = loss(model(xb), yb)
            value.backward()
            optimizer.step()
            losses.append(value.item())
    return losses


def assert_equal_models(a: nn.Module, b: nn.Module) -> None:
    for (key, value), other in zip(a.state_dict().items(), b.state_dict().values(), strict=True):
        assert torch.equal(value.data, other.data), key


# --- the loop ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compile", [True, False])
@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize(
    "make",
    [adam, lambda m: optim.SGD(m.parameters(), lr=0.1, momentum=0.9, dampening=0.2, weight_decay=1e-3)],
    ids=["Adam", "SGD"],
)
def test_fit_is_the_loop_over_batches_bit_for_bit(make, shuffle, compile):
    ours, reference = network(0.2), network(0.2)
    tg.manual_seed(5)  # dropout's masks
    history = trained(ours, optimizer=make(ours), shuffle=shuffle, compile=compile)
    tg.manual_seed(5)
    losses = by_hand(reference, X, LABELS, optimizer=make(reference), shuffle=shuffle)
    assert_equal_models(ours, reference)
    rows = np.array([25, 25, 25, 25, 10])
    expected = [np.dot(losses[i : i + 5], rows) / 110 for i in (0, 5)]
    assert history.loss == pytest.approx(expected, rel=1e-12)  # sums in another order


def test_fit_follows_torch():
    ours = network().double()
    theirs = tg.to_torch(ours)
    x = X.double()
    trained(ours, x)
    optimizer = torch.optim.Adam(theirs.parameters(), lr=0.01)
    for epoch in range(2):
        for xb, yb in tg.data.batches(x, LABELS, batch_size=25, seed=3, epoch=epoch):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(theirs(xb), yb).backward()
            optimizer.step()
    for key, value in theirs.state_dict().items():
        # float64 rounding, through Adam's division by small second moments
        torch.testing.assert_close(ours.state_dict()[key].data, value, rtol=1e-8, atol=1e-10)


def test_numpy_torch_and_tensor_are_one_and_the_same():
    models = [network() for _ in range(4)]
    inputs = [X, X.numpy(), tg.Tensor(X), X.double().numpy()]  # what NumPy makes is float64
    labels = [LABELS, LABELS.numpy(), tg.Tensor(LABELS), LABELS.numpy().astype(np.int32)]
    for model, x, y in zip(models, inputs, labels, strict=True):
        trained(model, x, y, validation_data=(x, y))
        assert_equal_models(model, models[0])
        assert torch.equal(model.predict(x).data, models[0].predict(X).data)


def test_without_a_seed_the_default_generator_decides():
    models = [network() for _ in range(3)]
    for model, seed in zip(models, (1, 1, 2), strict=True):
        tg.manual_seed(seed)
        trained(model, seed=None)
    assert_equal_models(models[0], models[1])
    assert not torch.equal(models[0][0].weight.data, models[2][0].weight.data)


def test_no_epochs_change_nothing():
    model = network()
    assert trained(model, epochs=0) == History()
    assert_equal_models(model, network())


def test_an_evaluating_model_is_trained_and_a_frozen_layer_stays_frozen():
    model = network().eval()
    trained(model)
    assert all(module.training for module in model.modules())
    reference = network()
    trained(reference)
    assert_equal_models(model, reference)
    frozen = network()
    frozen[1].eval()
    trained(frozen)
    assert not frozen[1].training
    assert frozen[1].running_mean.tolist() == [0] * 8


# --- steps that cannot be compiled --------------------------------------------------------------------------------


def reads_a_value(output, target):
    value = CROSS_ENTROPY(output, target)
    return value if value.item() < 1000 else value * 0.5


class Counts:
    """A loss with a side effect, which shows when two recordings are compared: after the first step."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, output, target):
        self.calls += 1
        return CROSS_ENTROPY(output, target)


@pytest.mark.parametrize(("loss", "reason"), [(reads_a_value, r"test_fit\.py:\d+: .*item"), (Counts(), "calls")])
def test_a_step_that_cannot_be_compiled_says_why_once_and_is_trained_all_the_same(loss, reason):
    ours, reference = network(0.2), network(0.2)
    tg.manual_seed(5)
    with pytest.warns(RuntimeWarning) as said:
        trained(ours, loss=loss)
    tg.manual_seed(5)
    by_hand(reference, X, LABELS, optimizer=adam(reference))
    assert_equal_models(ours, reference)
    assert len(said) == 1
    assert re.search(f"fit: training goes on uncompiled: compile: .*{reason}", str(said[0].message))
    assert said[0].filename == __file__


# --- what it reports ---------------------------------------------------------------------------------------------


def test_accuracy_and_validation_are_what_predict_gives_after_the_epoch():
    x_val, y_val = tg.data.disk(60, seed=2)
    model = network(0.2)
    history = trained(model, validation_data=(x_val, y_val))
    reference = tg.to_torch(model).eval()
    with torch.no_grad():
        train, validation = reference(X), reference(x_val)
    assert history.accuracy[-1] == (train.argmax(1) == LABELS).double().mean().item()
    assert history.val_accuracy[-1] == (validation.argmax(1) == y_val).double().mean().item()
    expected = torch.nn.functional.cross_entropy(validation, y_val).item()
    assert history.val_loss[-1] == pytest.approx(expected, rel=1e-5)  # float32
    assert [len(getattr(history, name)) for name in ("loss", "accuracy", "val_loss", "val_accuracy", "seconds")] == [
        2
    ] * 5


def test_looking_changes_nothing():
    seen, blind = network(0.2), network(0.2)
    for model, options in ((seen, {"validation_data": (X, LABELS)}), (blind, {"metrics": ()})):
        tg.manual_seed(5)
        trained(model, **options)
    assert_equal_models(seen, blind)


def test_lists_without_figures_stay_empty():
    history = trained(network(), metrics=())
    assert len(history.loss) == 2
    assert history.accuracy == history.val_loss == history.val_accuracy == []
    model = nn.Sequential(nn.Linear(2, 2))
    history = trained(model, X, X, loss=nn.MSELoss(), validation_data=(X, X))  # the targets name no classes
    assert len(history.val_loss) == 2
    assert history.accuracy == history.val_accuracy == []


def test_long_inputs_are_evaluated_in_parts(monkeypatch):
    monkeypatch.setattr("tapegrad.training.loop.PREDICTED", 60)  # 30 rows of 2
    seen = []
    model = network()
    model[0].register_forward_pre_hook(lambda module, args: None if model.training else seen.append(len(args[0])))
    history = trained(model, epochs=1)
    assert seen == [25, 30, 30, 30, 20]  # the first batch, to see the output's shape; then the epoch
    assert history.accuracy == [(model.predict(X).argmax(1) == LABELS).double().mean().item()]


def test_a_history_prints_and_plots(tmp_path):
    history = History(loss=[0.5, 0.25], accuracy=[0.5, 0.75], val_loss=[], val_accuracy=[], seconds=[1.0, 0.5])
    assert repr(history) == "History(2 epochs, 1.5 s: loss 0.25, accuracy 0.75)"
    assert repr(History(interrupted=True)) == "History(0 epochs, 0 s, interrupted)"
    history.plot(tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


# --- labels ------------------------------------------------------------------------------------------------------

TWO = torch.tensor([[2.0, 1.0], [0.0, 1.0], [-1.0, 3.0], [4.0, 1.0]])  # outputs that name 0, 1, 1, 0
ONE = torch.tensor([[0.2], [0.7], [3.0], [-1.0]])
INDEX = torch.tensor([0, 1, 0, 0])  # three of four
HOT = torch.tensor([[1, 0], [0, 1], [1, 0], [1, 0]])
SIGN = torch.tensor([-1, 1, -1, -1])

# name: (loss, output, labels, targets, accuracy)
FORMS = {
    "indices": (nn.CrossEntropyLoss(), TWO, INDEX, INDEX, 0.75),
    "int8 indices": (nn.CrossEntropyLoss(), TWO, INDEX.to(torch.int8), INDEX, 0.75),
    "bool": (nn.CrossEntropyLoss(), TWO, INDEX == 1, INDEX, 0.75),
    "ignored": (nn.CrossEntropyLoss(ignore_index=-1), TWO, torch.tensor([0, 1, -1, 1]), [0, 1, -1, 1], 2 / 3),
    "one-hot integers": (nn.CrossEntropyLoss(), TWO, HOT, INDEX, 0.75),
    "one-hot floats": (nn.CrossEntropyLoss(), TWO, HOT.double(), HOT.float(), 0.75),
    "probabilities": (nn.CrossEntropyLoss(), TWO, HOT * 0.8 + 0.1, HOT * 0.8 + 0.1, None),
    "one-hot for nll": (nn.NLLLoss(), TWO, HOT.float(), INDEX, 0.75),
    "function": (nn.functional.cross_entropy, TWO, HOT, INDEX, 0.75),
    "pixels": (nn.CrossEntropyLoss(), TWO.T[None], torch.tensor([[0, 1, 0, 0]]), [[0, 1, 0, 0]], 0.75),
    "mse: indices": (nn.MSELoss(), TWO, INDEX, HOT.float(), 0.75),
    "mse: uint8 indices": (nn.MSELoss(), TWO, INDEX.to(torch.uint8), HOT.float(), 0.75),
    "mse: one-hot": (nn.MSELoss(), TWO, HOT, HOT.float(), 0.75),
    "mse: signs": (nn.MSELoss(), TWO, SIGN, HOT * 2.0 - 1, 0.75),
    "mse: columns of signs": (nn.MSELoss(), TWO, HOT * 2 - 1, HOT * 2.0 - 1, 0.75),
    "mse: one sign": (nn.MSELoss(), ONE, SIGN, SIGN[:, None].float(), 0.5),  # all but -1 are above 0
    "mse: one index": (nn.MSELoss(), ONE, INDEX, INDEX[:, None].float(), 0.75),  # above 0.5
    "mse: regression": (nn.MSELoss(), ONE, torch.arange(4.0), torch.arange(4.0)[:, None], None),
    "mse: a column for none": (nn.MSELoss(), ONE[:, 0], INDEX[:, None], INDEX.float(), 0.75),
    "huber: pictures": (nn.HuberLoss(), TWO[:, None], TWO[:, None], TWO[:, None], None),
    "bce: one": (nn.BCELoss(), ONE, INDEX, INDEX[:, None].float(), 0.75),
    "logits: one": (nn.BCEWithLogitsLoss(), ONE, INDEX, INDEX[:, None].float(), 0.5),
    "logits: soft": (nn.BCEWithLogitsLoss(), ONE, INDEX * 0.5, INDEX[:, None] * 0.5, None),
    "logits: several": (nn.BCEWithLogitsLoss(), TWO, torch.ones(4, 2), torch.ones(4, 2), None),
    "own: indices": (lambda a, b: a.sum(), TWO, INDEX, INDEX, 0.75),
    "own: anything": (lambda a, b: a.sum(), ONE, INDEX, INDEX, None),
    "own: signs": (lambda a, b: a.sum(), ONE, SIGN[:, None], SIGN[:, None], 0.5),
}


@pytest.mark.parametrize("name", FORMS)
def test_labels_become_what_the_loss_takes(name):
    loss, output, labels, targets, accuracy = FORMS[name]
    got = as_targets(labels, output, loss)
    expected = torch.as_tensor(targets)
    assert got.dtype == expected.dtype
    assert torch.equal(got, expected)
    count = accuracy_of([got], output, loss)
    assert (None if count is None else count(output, got)) == pytest.approx(accuracy)
    if not name.startswith("own") and name != "bce: one":  # whose input would have to lie in [0, 1]
        assert loss(output, got).item() == loss(output, got).item()  # a number, which NaN is not


MISMATCHES = {
    "CrossEntropyLoss: targets must be class indices in [0, 2); got 5 at row 17": (nn.CrossEntropyLoss(), 17, 5),
    "CrossEntropyLoss: targets must be class indices in [0, 2); got -1 at row 3": (nn.CrossEntropyLoss(), 3, -1),
    "MSELoss: targets must be class indices in [0, 2); got 2 at row 109": (nn.MSELoss(), 109, 2),
    "MSELoss: targets must be -1 or +1 throughout; got 0 at row 0": (nn.MSELoss(), slice(1, None), -1),
}


@pytest.mark.parametrize("message", MISMATCHES)
def test_a_bad_label_is_named_before_anything_changes(message):
    loss, where, value = MISMATCHES[message]
    y = LABELS.clone()
    y[0], y[where] = 0, value
    for given in ({"y": y}, {"validation_data": (X, y)}):
        model = network()
        with pytest.raises((ShapeError, ArgumentError), match=re.escape(message)):
            trained(model, **given, loss=loss)
        assert_equal_models(model, network())


@pytest.mark.parametrize(
    ("loss", "output", "y", "error", "message"),
    [
        (nn.CrossEntropyLoss(), TWO, INDEX.double(), DTypeError, "integer class indices [N] or one-hot [N, 2]; got"),
        (nn.CrossEntropyLoss(), TWO, INDEX[:, None], ShapeError, "got torch.int64 of shape [4, 1]"),
        (
            nn.CrossEntropyLoss(),
            TWO,
            HOT * 2.0 - 1,
            ArgumentError,
            "class probabilities must lie in [0, 1]; got -1.0 at",
        ),
        (nn.CrossEntropyLoss(), TWO, HOT * 2 - 1, ArgumentError, "of the output's shape [N, 2] must be one-hot"),
        (nn.CrossEntropyLoss(), TWO[:, 0], INDEX, ShapeError, "the model's output must be [N, C], a column per class"),
        (nn.functional.nll_loss, TWO, HOT * 0.5, ArgumentError, "nll_loss: targets of the output's shape"),
        (
            nn.MSELoss(),
            TWO,
            SIGN.double(),
            ShapeError,
            "must have the output's shape [N, 2], or be integer class indices",
        ),
        (nn.MSELoss(), TWO[:, None], INDEX, ShapeError, "must have the output's shape [N, 1, 2]; got torch.int64"),
        (
            nn.BCEWithLogitsLoss(),
            ONE,
            SIGN,
            ArgumentError,
            "BCEWithLogitsLoss: targets must lie in [0, 1]; got -1.0 at",
        ),
        (nn.BCELoss(), ONE, ONE * float("nan"), ArgumentError, "BCELoss: targets must lie in [0, 1]; got nan at row 0"),
    ],
)
def test_labels_that_do_not_fit_are_named(loss, output, y, error, message):
    with pytest.raises(error, match=re.escape(message)):
        as_targets(y, output, loss)


def test_arguments_that_do_not_fit_are_named():
    model = network()
    other = adam(network())

    class Pair(nn.Module):
        def forward(self, x):
            return x, x

    cases = [
        ({"x": X[:9]}, ShapeError, "fit: len(y) = 110 must equal len(X) = 9"),
        ({"x": X[:0], "y": LABELS[:0]}, ShapeError, "fit: X must not be empty; got shape [0, 2]"),
        ({"x": X / X[:, :1].where(X[:, :1] != X[7, 0], 0)}, ArgumentError, "fit: X must be finite; got inf at [7, 0]"),
        ({"x": [1, 2]}, TypeError, "fit: X must be"),
        ({"y": 1.0}, TypeError, "fit: y must be"),
        ({"x": X[:, :1]}, ShapeError, "linear"),
        ({"batch_size": 0}, ShapeError, "fit: batch_size must be at least 1; got 0"),
        ({"epochs": 1.5}, TypeError, "fit: epochs must be an integer"),
        ({"seed": "a"}, TypeError, "fit: seed must be an integer"),
        ({"loss": "mse"}, TypeError, "fit: loss must be a module or a function"),
        ({"loss": nn.L1Loss(reduction="none")}, ArgumentError, 'reduction must be "mean" or "sum"; got "none"'),
        ({"optimizer": optim.Adam}, TypeError, "an optimizer of this model's parameters, not its class"),
        ({"optimizer": other}, ArgumentError, "fit: optimizer must hold parameters of this model"),
        ({"metrics": "accuracy"}, ArgumentError, 'fit: metrics must be ("accuracy",) or ()'),
        ({"metrics": ("f1",)}, ArgumentError, "got ('f1',)"),
        ({"validation_data": X}, TypeError, "fit: validation_data must be a pair (X, y) or None; got Tensor"),
        ({"validation_data": (X[:3], LABELS)}, ShapeError, "fit: len(validation_data[1]) = 110 must equal"),
        ({"validation_data": (X[:, :1], LABELS)}, ShapeError, "fit: validation_data[0].shape[1:] = [1] must equal X."),
    ]
    for given, error, message in cases:
        with pytest.raises(error, match=re.escape(message)):
            trained(model, **given)
    with pytest.raises(
        ShapeError, match=re.escape("must have a row for each of the 25 rows it is given; got shape [50]")
    ):
        trained(nn.Sequential(nn.Linear(2, 2), nn.Flatten(0)))
    with pytest.raises(TypeError, match="fit: the model's output must be one Tensor; got tuple"):
        trained(nn.Sequential(nn.Linear(2, 2), Pair()))
    assert_equal_models(model, network())


# --- Ctrl-C ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["loss", "optimizer", "predict"])
def test_ctrl_c_leaves_the_last_completed_step(where):
    model, reference = network(), network()
    optimizer = adam(model)
    calls = []

    def press(call, steps):
        def pressed(*args, **kwargs):
            calls.append(1)
            if len(calls) == steps:
                os.kill(os.getpid(), signal.SIGINT)
            return call(*args, **kwargs)

        return pressed

    loss = CROSS_ENTROPY
    if where == "loss":
        loss = press(CROSS_ENTROPY, 7)
    elif where == "optimizer":
        optimizer.step = press(optimizer.step, 7)
    else:
        model.predict = press(model.predict, 2)  # the look after the first epoch
    before = signal.getsignal(signal.SIGINT)
    history = trained(model, loss=loss, optimizer=optimizer, epochs=4, compile=where == "predict")
    assert signal.getsignal(signal.SIGINT) is before
    assert history.interrupted
    assert len(history.loss) == len(history.accuracy) == len(history.seconds) == (where != "predict")
    by_hand(reference, X, LABELS, optimizer=adam(reference), steps=5 if where == "predict" else 7)
    assert_equal_models(model, reference)


def test_ctrl_c_stops_a_compiled_epoch_between_two_steps():
    x, y = tg.data.disk(20_000, seed=1)  # 800 steps an epoch
    model, reference = (nn.Sequential(nn.Linear(2, 200), nn.Tanh(), nn.Linear(200, 2)) for _ in range(2))
    reference.load_state_dict(model.state_dict())
    optimizer = adam(model)
    press = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT))
    press.start()
    history = trained(model, x, y, optimizer=optimizer, epochs=2_000, metrics=())
    assert history.interrupted
    steps = int(optimizer.state[model[0].weight]["step"].item())
    by_hand(reference, x, y, optimizer=adam(reference), epochs=steps // 800 + 1, steps=steps)
    assert_equal_models(model, reference)


def test_a_handler_of_the_users_stays():
    presses = []
    before = signal.signal(signal.SIGINT, lambda *args: presses.append(1))
    try:
        model = network()

        def loss(output, target):
            os.kill(os.getpid(), signal.SIGINT)
            return CROSS_ENTROPY(output, target)

        assert len(trained(model, loss=loss, epochs=1, metrics=(), compile=False).loss) == 1
        assert len(presses) == 5
    finally:
        signal.signal(signal.SIGINT, before)


def test_fit_in_another_thread_leaves_signals_alone():
    model, reference = network(), network()
    thread = threading.Thread(target=trained, args=(model,))
    thread.start()
    thread.join()
    trained(reference)
    assert_equal_models(model, reference)


# --- the bar -----------------------------------------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("stream", [Terminal, io.StringIO])
@pytest.mark.parametrize("progress", [True, False])
def test_a_bar_shows_loss_and_steps_per_second_on_a_terminal_only(monkeypatch, stream, progress):
    monkeypatch.setattr(sys, "stderr", stream())
    history = trained(network(), progress=progress)
    text = sys.stderr.getvalue()
    if progress and stream is Terminal:
        last = text.rsplit("\r", 1)[-1]
        assert "epoch 2/2: 100%" in last
        assert "10/10" in last
        assert "step/s" in last
        assert f"loss {history.loss[-1]:.4g}, accuracy {history.accuracy[-1]:.4g}" in last
    else:
        assert text == ""


def test_without_tqdm_there_is_no_bar(monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert len(trained(network()).loss) == 2
    assert sys.stderr.getvalue() == ""
