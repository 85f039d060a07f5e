"""What `fit` calls after every epoch."""

import csv

import pytest
import torch

import tapegrad as tg
from tapegrad import nn, optim
from tapegrad.callbacks import Callback, Checkpoint, CSVLogger, EarlyStopping, Schedule, TensorBoard

X, LABELS = tg.data.disk(200, seed=1)
HELD_OUT = tg.data.disk(100, seed=2)


def network():
    tg.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.BatchNorm1d(8), nn.Linear(8, 2))


def trained(model, callbacks, *, lr=0.05, epochs=6, optimizer=None, **options):
    settings = {"loss": nn.CrossEntropyLoss(), "batch_size": 25, "seed": 3, "validation_data": HELD_OUT, **options}
    optimizer = optimizer or optim.SGD(model.parameters(), lr=lr)
    return model.fit(X, LABELS, optimizer=optimizer, epochs=epochs, callbacks=callbacks, **settings)


class Seen(Callback):
    def __init__(self):
        self.calls = []

    def begin(self, history):
        self.calls.append("begin")

    def epoch(self, epoch, history):
        assert len(history.loss) == epoch + 1
        self.calls.append({name: value.clone() for name, value in self.model.state_dict().items()})

    def end(self, history):
        self.calls.append("end")


def test_callbacks_change_nothing_and_see_every_epoch():
    plain, watched = network(), network()
    without = trained(plain, [])
    seen = Seen()
    history = trained(watched, [seen])
    assert history.loss == without.loss
    assert history.val_loss == without.val_loss
    assert (seen.calls[0], seen.calls[-1], len(seen.calls)) == ("begin", "end", 8)
    for name, value in plain.state_dict().items():
        assert torch.equal(value.data, watched.state_dict()[name].data)


def test_early_stopping_restores_the_best_epoch():
    model, seen = network(), Seen()
    history = trained(model, [seen, EarlyStopping("val_loss", patience=2)], lr=3.0, epochs=60)
    best = min(range(len(history.val_loss)), key=history.val_loss.__getitem__)
    assert len(history.loss) == best + 4 < 60
    for name, value in seen.calls[1 + best].items():
        assert torch.equal(value.data, model.state_dict()[name].data)
    last = network()
    trained(last, [EarlyStopping("val_accuracy", patience=2, restore_best=False)], lr=3.0, epochs=60)


def test_an_accuracy_is_better_if_it_is_larger():
    model = network()
    history = trained(model, [EarlyStopping("val_accuracy", patience=0)], epochs=40)
    rises = [b > a for a, b in zip(history.val_accuracy, history.val_accuracy[1:], strict=False)]
    assert rises == [True] * (len(rises) - 1) + [False]


def test_a_checkpoint_goes_on_where_it_was(tmp_path):
    whole, first = network(), network()
    together = trained(whole, [], optimizer=optim.Adam(whole.parameters()), epochs=3, shuffle=False)
    trained(
        first,
        [Checkpoint(tmp_path / "run{epoch}.tg")],
        optimizer=optim.Adam(first.parameters()),
        epochs=2,
        shuffle=False,
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run0.tg", "run1.tg"]
    state = tg.load(tmp_path / "run1.tg")
    assert state["epoch"] == 1
    assert state["history"]["loss"] == together.loss[:2]
    again = network()
    optimizer = optim.Adam(again.parameters())
    again.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    trained(again, [], optimizer=optimizer, epochs=1, shuffle=False)
    for name, value in whole.state_dict().items():
        assert torch.equal(value.data, again.state_dict()[name].data)


def test_a_checkpoint_of_the_best(tmp_path):
    model = network()
    history = trained(model, [Checkpoint(tmp_path / "best.tg", "val_loss")], lr=3.0, epochs=8)
    best = min(range(8), key=history.val_loss.__getitem__)
    assert tg.load(tmp_path / "best.tg")["epoch"] == best


def test_a_table_as_csv(tmp_path):
    model = network()
    history = trained(model, [CSVLogger(tmp_path / "log.csv")], epochs=3)
    trained(model, [CSVLogger(tmp_path / "log.csv", append=True)], epochs=2, validation_data=None)
    with open(tmp_path / "log.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["0", "1", "2", "0", "1"]
    assert [float(row["val_loss"]) for row in rows[:3]] == history.val_loss
    assert rows[3]["val_loss"] == ""
    assert {row["lr"] for row in rows} == {"0.05"}


def test_tensorboard(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    history = trained(network(), [TensorBoard(tmp_path)], epochs=3)
    events = EventAccumulator(str(tmp_path)).Reload()
    assert [e.value for e in events.Scalars("val_loss")] == pytest.approx(history.val_loss)


def test_schedules_take_effect():
    model, twin = network(), network()
    optimizer, other = (optim.SGD(m.parameters(), lr=1.0) for m in (model, twin))
    trained(
        model, [Schedule(optim.lr_scheduler.StepLR(optimizer, 1, 0.5))], optimizer=optimizer, epochs=3, shuffle=False
    )
    for lr in (1.0, 0.5, 0.25):
        other.param_groups[0]["lr"] = lr
        trained(twin, [], optimizer=other, epochs=1, shuffle=False)
    for name, value in model.state_dict().items():
        assert torch.equal(value.data, twin.state_dict()[name].data)
    plateau = optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, factor=0.1)
    history = trained(model, [Schedule(plateau)], optimizer=optimizer, lr=3.0, epochs=8)
    expected, best = 0.125, float("inf")
    for value in history.val_loss:
        expected *= 1 if value < best * (1 - 1e-4) else 0.1
        best = min(best, value)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(max(expected, 0))


def test_the_history_is_a_table():
    history = trained(network(), [], epochs=2)
    head, *rows = history.table().splitlines()
    assert head.split() == ["epoch", "loss", "accuracy", "val_loss", "val_accuracy", "seconds"]
    assert [float(row.split()[1]) for row in rows] == pytest.approx(history.loss, rel=1e-3)
    assert history._repr_html_().count("<tr>") == 3


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: [EarlyStopping], TypeError, "an object, not its class"),
        (lambda: [EarlyStopping("val_los")], tg.ArgumentError, "monitor must be one of loss, accuracy"),
        (lambda: [EarlyStopping(patience=-1)], tg.ArgumentError, "patience must be at least 0"),
        (lambda: [Schedule(3)], tg.ArgumentError, "scheduler must be a scheduler; got int"),
        (
            lambda: [Schedule(optim.lr_scheduler.StepLR(optim.SGD(network().parameters(), lr=1.0), 1))],
            tg.ArgumentError,
            "must be one of the optimizer that is given to fit",
        ),
    ],
)
def test_what_does_not_fit_is_named(make, error, text):
    model = network()
    before = model[0].weight.clone()
    with pytest.raises(error, match=text):
        trained(model, make())
    assert torch.equal(model[0].weight.data, before.data)


def test_a_figure_that_is_not_there_is_named():
    with pytest.raises(tg.ArgumentError, match="val_loss' is not in the history; give fit validation_data"):
        trained(network(), [EarlyStopping()], validation_data=None)
