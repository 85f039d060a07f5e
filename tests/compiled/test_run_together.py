"""`run_together`: every model ends bit for bit as its own ``step.run`` leaves it alone."""

from __future__ import annotations

import _thread
import threading
import time

import bench_package  # noqa: F401  (before bench)
import numpy as np
import pytest
import torch
from compile_checks import bits, state, training_step

import tapegrad as tg
from bench.common import networks
from tapegrad import nn
from tapegrad.compiled import together
from tapegrad.core import ArgumentError, CompileError, ShapeError
from tapegrad.nn import functional as F
from tapegrad.ops.random import default_generator


def points(n=60, inputs=2, outputs=2, seed=5):
    g = tg.Generator(seed)
    return tg.randn(n, inputs, generator=g), tg.randn(n, outputs, generator=g)


def labelled(n=40, shape=(2,), classes=2, seed=5):
    g = tg.Generator(seed)
    return tg.randn(n, *shape, generator=g), tg.randint(0, classes, (n,), generator=g)


def trained(make, optimizer=tg.optim.SGD, loss=F.mse_loss, **options):
    """A builder of model k: (compiled step, model, optimizer)."""

    def build(k):
        tg.manual_seed(k)
        model = make(k)
        each = {name: value(k) if callable(value) else value for name, value in options.items()}
        opt = optimizer(model.parameters(), **each)
        return tg.compile(training_step(model, opt, loss)), model, opt

    return build


def alone(build, k, *arrays, **options):
    """(losses, what is left) of model k's own run."""
    step, model, opt = build(k)
    tg.manual_seed(99)
    losses = step.run(*arrays, **options)
    return bits(losses), state([model], [opt])


def assert_as_alone(build, count, arrays, *, own=lambda k: {}, checked=None, seed=7, **options):
    """``own(k)`` may replace model k's arrays by ``arrays=`` where it sees other ones than all do."""
    built = [build(k) for k in range(count)]
    tg.manual_seed(99)
    losses = tg.run_together([step for step, _, _ in built], *arrays, seed=seed, **options)
    assert default_generator.seed == 99
    options.pop("rows", None)
    for k in checked or range(count):
        given = own(k).get("arrays", [a[k] if isinstance(a, list) else a for a in arrays])
        expected, left = alone(build, k, *given, seed=seed + k if isinstance(seed, int) else seed[k], **options)
        found = state([built[k][1]], [built[k][2]])
        left.pop("generator"), found.pop("generator")
        assert bits(losses[k]) == expected, f"losses of model {k}"
        assert found == left, f"model {k}: " + ", ".join(name for name in left if found[name] != left[name])
    return built, losses


@pytest.fixture(params=[1, 2, 3])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


SGD = {"lr": lambda k: 0.1 / (k + 1)}


@pytest.mark.parametrize("count", [1, 2, 17])
def test_networks_of_the_reports(threads, count):
    build = trained(lambda k: networks.mlp(nn), **SGD)
    assert_as_alone(build, count, points(), batch_size=25, epochs=3)


def test_two_hundred(threads):
    build = trained(lambda k: networks.mlp(nn, hidden=1), tg.optim.Adam, lr=lambda k: 0.001 * (k + 1))
    built, losses = assert_as_alone(build, 200, points(), batch_size=25, epochs=2, checked=range(0, 200, 33))
    assert losses.shape == (200, 2, 3)
    assert sum(bool(step._bound) for step, _, _ in built) == 1  # one is recorded


def lenet(k):
    layers = list(networks.lenet(nn))
    return nn.Sequential(*layers[:8], nn.Dropout(0.3), *layers[8:])


LENET = trained(lenet, tg.optim.Adam, F.cross_entropy, lr=0.01)


def dropout_mlp(k):
    return networks.mlp(nn, dropout=0.2)


def normed(k):
    return nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.norm = nn.LayerNorm(8)
        self.out = nn.Linear(8, 2)

    def forward(self, x):
        x = x + self.attention(x, x, x)[0]
        return self.out(self.norm(x)).mean(1)


@pytest.mark.parametrize(
    ("build", "arrays"),
    [
        (trained(dropout_mlp, tg.optim.SGD, momentum=0.9, **SGD), points()),
        (trained(normed, tg.optim.Adam, F.cross_entropy, lr=0.01), labelled()),
        (trained(lambda k: Block(), tg.optim.AdamW, lr=0.01), (tg.randn(30, 4, 8), tg.randn(30, 2))),
        (trained(lambda k: networks.tanh_mlp(nn), tg.optim.Adam, lr=0.01), points(70, 17, 6)),
        (trained(normed, tg.optim.RMSprop, lr=lambda k: 0.01 * (k + 1)), points()),
        (trained(lambda k: networks.mlp(nn), tg.optim.SGD, lr=0.1, weight_decay=lambda k: k * 0.1), points()),
        (trained(lambda k: networks.mlp(nn).double(), tg.optim.Adam, lr=0.1), [a.double() for a in points()]),
    ],
    ids=["dropout", "batch norm", "transformer", "policy", "rmsprop", "weight decay", "float64"],
)
def test_models_of_all_kinds(build, arrays):
    assert_as_alone(build, 5, arrays, batch_size=16, epochs=3)


def test_lenet_with_dropout(threads):
    assert_as_alone(LENET, 2, labelled(12, (1, 28, 28), 10), batch_size=8, epochs=2)


MLP = trained(lambda k: networks.mlp(nn, hidden=1), **SGD)
WITH_GENERATOR = trained(dropout_mlp, tg.optim.Adam, lr=0.01)


@pytest.mark.parametrize(
    "options",
    [
        {"batch_size": 7, "shuffle": False},
        {"batch_size": 7, "drop_last": True},
        {"batch_size": 100},
        {"batch_size": 1},
        {"batch_size": 25, "seed": [3, -1, 2**62, 3]},
        {"batch_size": 59, "epochs": 4},
        {"batch_size": 25, "epochs": 0},
    ],
    ids=str,
)
def test_options_of_run(options):
    assert_as_alone(MLP, 4, points(), **{"epochs": 2, **options})


def test_models_of_several_structures_are_mixed(threads):
    kinds = [
        trained(lambda k: networks.mlp(nn, hidden=1 + k % 2), tg.optim.Adam, lr=0.01),
        trained(lambda k: networks.mlp(nn, hidden=1, activation=("Tanh",)), momentum=0.5, **SGD),
        WITH_GENERATOR,
    ]
    build = lambda k: kinds[k % 3](k)  # noqa: E731
    built, _ = assert_as_alone(build, 12, points(), batch_size=25, epochs=2)
    assert sum(bool(step._bound) for step, _, _ in built) == 4  # one of each


def test_generators_of_their_own(threads):
    """Dropout draws from each model's generator; some models share one."""
    generators = {}

    def build(k):
        tg.manual_seed(k)
        first, last = nn.Linear(2, 9), nn.Linear(9, 2)
        model = nn.Sequential(first, last)
        opt = tg.optim.Adam(model.parameters(), lr=0.01)
        drops = generators.setdefault(k, tg.Generator(5 if k > 2 else k)) if k != 4 else generators[3]

        @tg.compile
        def step(x, y):
            opt.zero_grad()
            loss = F.mse_loss(last(F.dropout(first(x).relu(), 0.5, generator=drops)), y)
            loss.backward()
            opt.step()
            return loss

        return step, model, opt

    built = [build(k) for k in range(5)]
    losses = tg.run_together([b[0] for b in built], *points(), batch_size=25, epochs=3, seed=7)
    ended = {k: g.get_state() for k, g in generators.items()}
    generators.clear()
    for k in range(5):
        generators.setdefault(3, tg.Generator(5)).set_state((5, 0))
        step, _, _ = build(k)
        assert bits(step.run(*points(), batch_size=25, epochs=3, seed=7 + k)) == bits(losses[k])
        assert generators[min(k, 3)].get_state() == ended[min(k, 3)]
    assert bits(losses[3]) != bits(losses[2])


def test_own_rows(threads):
    """Folds of two sizes, and bootstrap samples: as if the model were given those rows."""
    x, y = points(61)
    folds = [train for train, _ in tg.data.kfold(61, 3)]
    rows = [*folds, np.random.default_rng(0).integers(0, 61, 80), list(range(30))]
    for shuffle in (True, False):
        own = lambda k: {"arrays": [a.data[torch.as_tensor(rows[k])] for a in (x, y)]}  # noqa: E731
        _, losses = assert_as_alone(
            MLP, 5, (x.data, y.data), own=own, rows=rows, batch_size=20, epochs=2, shuffle=shuffle
        )
        assert isinstance(losses, list)


def test_own_arrays():
    arrays = [points(60, seed=k) for k in range(3)]
    x, y = [a for a, _ in arrays], [b for _, b in arrays]
    _, losses = assert_as_alone(MLP, 3, (x, y), batch_size=25, epochs=2)
    assert losses.shape == (3, 2, 3)
    short = [a[: 30 + k] for k, a in enumerate(x)]
    assert_as_alone(MLP, 3, (short, [b[: len(a)] for a, b in zip(short, y, strict=True)]), batch_size=25, epochs=2)


@pytest.mark.parametrize("shuffle", [True, False])
def test_one_array_given_twice(shuffle):
    x = points()[0]
    build = trained(lambda k: nn.Linear(2, 2), tg.optim.Adam, lr=0.01)
    assert_as_alone(build, 4, (x, x), batch_size=25, epochs=3, shuffle=shuffle)
    others = [points(seed=k)[0] for k in range(4)]
    targets = [x if k % 2 else x.clone() for k, x in enumerate(others)]
    assert_as_alone(build, 4, (others, targets), batch_size=25, epochs=2, shuffle=shuffle)


def test_two_runs_and_calls_between():
    built = [MLP(k) for k in range(3)]
    steps = [step for step, _, _ in built]
    x, y = points()
    first = tg.run_together(steps, x, y, batch_size=25, epochs=2, seed=1)
    called = [step(x[:25], y[:25]).item() for step in steps for _ in range(3)]
    second = tg.run_together(steps, x, y, batch_size=25, epochs=2, seed=1)
    for k in range(3):
        step, model, opt = MLP(k)
        assert bits(step.run(x, y, batch_size=25, epochs=2, seed=1 + k)) == bits(first[k])
        assert [step(x[:25], y[:25]).item() for _ in range(3)] == called[3 * k : 3 * k + 3]
        assert bits(step.run(x, y, batch_size=25, epochs=2, seed=1 + k)) == bits(second[k])
        assert state([model], [opt]) == state([built[k][1]], [built[k][2]])


def test_a_second_run_with_other_batches():
    """One batch size divides the rows as the other does; a dimension of size 1 may have any stride."""
    built = [MLP(k) for k in range(3)]
    steps = [step for step, _, _ in built]
    x, y = points()
    odd = x.data.as_strided((60, 1, 2), (2, 7, 1))
    runs = [((x, y), 20, True), ((x, y), 30, True), ((odd, y.data[:, None]), 30, True)]
    runs.append(((odd, y.data[:, None]), 30, False))
    for arrays, batch_size, shuffle in runs:
        tg.run_together(steps, *arrays, batch_size=batch_size, epochs=2, seed=1, shuffle=shuffle)
    for k in range(3):
        step, model, opt = MLP(k)
        for arrays, batch_size, shuffle in runs:
            step.run(*arrays, batch_size=batch_size, epochs=2, seed=1 + k, shuffle=shuffle)
        assert state([model], [opt]) == state([built[k][1]], [built[k][2]])


def test_models_of_one_structure_on_two_threads_at_once():
    """Each of the two has its own executors, though all ran together before."""
    built = [MLP(k) for k in range(4)]
    steps = [step for step, _, _ in built]
    x, y = points()
    tg.run_together(steps, x, y, batch_size=25, epochs=1, seed=1)
    started = threading.Barrier(2)

    def halves(first):
        met = False

        def meet(epoch, losses):
            nonlocal met
            if not met:
                met = True
                started.wait(30)

        own = steps[first : first + 2]
        tg.run_together(own, x, y, batch_size=25, epochs=40, seed=1 + first, on_epoch=meet)

    threads = [threading.Thread(target=halves, args=(first,)) for first in (0, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    owners = [step.joint[1].owner for step in steps]
    assert owners == [None] * 4
    assert steps[0].joint[1] is not steps[2].joint[1]
    for k in range(4):
        step, model, opt = MLP(k)
        step.run(x, y, batch_size=25, epochs=1, seed=1 + k)
        step.run(x, y, batch_size=25, epochs=40, seed=1 + k)
        assert state([model], [opt]) == state([built[k][1]], [built[k][2]])


def test_gradients_that_add_up():
    """Without zero_grad() the old gradients are inputs."""

    def build(k):
        tg.manual_seed(k)
        model = nn.Linear(2, 2)
        opt = tg.optim.SGD(model.parameters(), lr=0.01)

        def step(x, y):
            loss = F.mse_loss(model(x), y)
            loss.backward()
            opt.step()
            return loss

        return tg.compile(step), model, opt

    assert_as_alone(build, 3, points(), batch_size=25, epochs=3)


def test_a_step_with_rewrites_that_round():
    def build(k):
        tg.manual_seed(k)
        convolved = nn.Upsample(scale_factor=2), nn.Conv2d(1, 2, 3, padding=1)
        model = nn.Sequential(*convolved, nn.Flatten(), nn.Linear(32, 2))
        opt = tg.optim.SGD(model.parameters(), lr=0.1)
        return tg.compile(training_step(model, opt), exact=False), model, opt

    x = tg.randn(20, 1, 2, 2, generator=tg.Generator(1))
    assert_as_alone(build, 3, (x, tg.randn(20, 2, generator=tg.Generator(2))), batch_size=8, epochs=2)


def test_what_an_optimizer_sets_up_late():
    """A step that makes its optimizer in the first call."""

    def build(k):
        tg.manual_seed(k)
        model = nn.Linear(2, 2)
        kept = {}

        @tg.compile
        def step(x, y):
            loss = F.mse_loss(model(x), y)
            model.zero_grad()
            loss.backward()
            with tg.no_grad():
                for i, p in enumerate(model.parameters()):
                    if i not in kept:
                        kept[i] = p.grad.clone()
                    kept[i].mul_(0.9).add_(p.grad)
                    p.sub_(kept[i] * 0.1)
            return loss

        return step, model, tg.optim.SGD(model.parameters(), lr=0.1)

    assert_as_alone(build, 3, points(), batch_size=10, epochs=3)


# --- between epochs -----------------------------------------------------------------------------------------------


def test_schedules_take_effect_between_epochs(threads):
    builds = [MLP(k) for k in range(4)]
    seen = []

    def on_epoch(epoch, losses):
        seen.append(losses.shape)
        for _, _, opt in builds:
            opt.param_groups[0]["lr"] *= 0.5
        builds[2][1].eval()

    losses = tg.run_together([b[0] for b in builds], *points(), batch_size=25, epochs=4, seed=1, on_epoch=on_epoch)
    assert seen == [(4, 3)] * 4
    for k in range(4):
        step, model, opt = MLP(k)

        def halve(epoch, _, opt=opt):
            opt.param_groups[0]["lr"] *= 0.5

        assert bits(losses[k]) == bits(step.run(*points(), batch_size=25, epochs=4, seed=1 + k, on_epoch=halve))
        assert state([model], [opt]) == state([builds[k][1]], [builds[k][2]])


def test_a_model_that_changes_between_epochs_is_recorded_again():
    builds = [trained(dropout_mlp, **SGD)(k) for k in range(3)]

    def change(k, model):
        model.eval() if k else model[2].__setattr__("p", 0.5)

    def on_epoch(epoch, losses):
        for k, (_, model, _) in enumerate(builds):
            change(k, model)

    tg.manual_seed(3)
    losses = tg.run_together([b[0] for b in builds], *points(), batch_size=25, epochs=3, seed=1, on_epoch=on_epoch)
    for k in range(3):
        step, model, _ = trained(dropout_mlp, **SGD)(k)
        tg.manual_seed(3)
        on = lambda epoch, _, k=k, model=model: change(k, model)  # noqa: E731
        assert bits(losses[k]) == bits(step.run(*points(), batch_size=25, epochs=3, seed=1 + k, on_epoch=on))


@pytest.mark.parametrize(
    "wish",
    [lambda k, n: [i == k for i in range(n)], lambda k, n: [k], lambda k, n: np.arange(n) == k, lambda k, n: {k}],
)
def test_single_models_stop(wish):
    builds = [MLP(k) for k in range(4)]
    rows = []

    def on_epoch(epoch, losses):
        rows.append(losses)
        return wish(epoch, 4)

    losses = tg.run_together([b[0] for b in builds], *points(), batch_size=25, epochs=3, seed=1, on_epoch=on_epoch)
    assert [len(row) for row in losses] == [1, 2, 3, 3]
    assert rows[2][:2].isnan().all()
    assert rows[2][2:].isfinite().all()
    for k in range(4):
        step, model, opt = MLP(k)
        assert bits(step.run(*points(), batch_size=25, epochs=min(k + 1, 3), seed=1 + k)) == bits(losses[k])
        assert state([model], [opt]) == state([builds[k][1]], [builds[k][2]])


def test_all_stop():
    losses = tg.run_together(
        [MLP(k)[0] for k in range(3)], *points(), batch_size=25, epochs=9, on_epoch=lambda *_: True
    )
    assert losses.shape == (3, 1, 3)


# --- what goes wrong ----------------------------------------------------------------------------------------------


def test_a_loss_that_is_not_finite_is_named_and_stops_nobody(threads):
    build = trained(lambda k: networks.mlp(nn, hidden=1), lr=lambda k: 1e30 if k in (1, 3) else 0.1)
    steps = [build(k)[0] for k in range(5)]
    with pytest.warns(RuntimeWarning, match=r"loss of 2 of 5 models is not finite: \[1, 3\]; model 1's from epoch 0"):
        losses = tg.run_together(steps, *points(), batch_size=25, epochs=3, seed=1)
    for k in range(5):
        assert bits(losses[k]) == bits(build(k)[0].run(*points(), batch_size=25, epochs=3, seed=1 + k))
    assert losses[0].isfinite().all()


def test_bad_values_name_the_model():
    build = trained(lambda k: nn.Linear(2, 3), tg.optim.SGD, F.cross_entropy, **SGD)
    x, y = labelled(40, classes=3)
    bad = y.data.clone()
    bad[33] = 7
    steps = [build(k) for k in range(3)]
    with pytest.raises(ShapeError, match=r"steps\[1\].*class indices in \[0, 3\); got 7"):
        tg.run_together([s for s, _, _ in steps], x, [y, bad, y], batch_size=10, shuffle=False)
    for k in (0, 2):
        step, model, opt = build(k)
        step.run(x, y, batch_size=10, shuffle=False)
        assert state([model], [opt]) == state([steps[k][1]], [steps[k][2]])
    step, model, opt = build(1)
    with pytest.raises(ShapeError, match="class indices"):
        step.run(x, bad, batch_size=10, shuffle=False)
    assert state([model], [opt]) == state([steps[1][1]], [steps[1][2]])


def unchanged(built, call, error, match):
    before = [state([m], [o]) for _, m, o in built]
    with pytest.raises(error, match=match):
        call([step for step, _, _ in built])
    assert before == [state([m], [o]) for _, m, o in built]


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"seed": [1, 2]}, ArgumentError, "seed must be an integer or 3 of them; got 2"),
        ({"seed": 1.5}, TypeError, "seed must be an integer"),
        ({"rows": [[0, 1]]}, ArgumentError, "rows must be 3 index arrays; got 1"),
        ({"rows": [[0, 1], [0, 60], [0]]}, ArgumentError, r"rows\[1\] must name rows of arrays of 60"),
        ({"rows": [[0, 1], [0], [-1]]}, ArgumentError, r"rows\[2\] must name rows"),
        ({"rows": [[0, 1], [0], [0.5]]}, ArgumentError, r"rows\[2\] must be integers"),
        ({"rows": [[0, 1], [], [0]]}, ShapeError, "model 1: batch_size = 25 leaves no batch of 0 rows"),
        ({"batch_size": 0}, ShapeError, "batch_size must be at least 1"),
        ({"batch_size": 61, "drop_last": True}, ShapeError, "leaves no batch of 60 rows"),
        ({"epochs": -1}, ArgumentError, "epochs must be an integer of at least 0"),
    ],
    ids=str,
)
def test_arguments_that_do_not_fit(options, error, match):
    built = [MLP(k) for k in range(3)]
    unchanged(built, lambda steps: tg.run_together(steps, *points(), **{"batch_size": 25, **options}), error, match)


def test_arrays_that_do_not_fit():
    built = [MLP(k) for k in range(3)]
    x, y = points()
    run = lambda *arrays: lambda steps: tg.run_together(steps, *arrays, batch_size=25)  # noqa: E731
    unchanged(built, run(x, y[:50]), ShapeError, r"len\(arrays\[1\]\) = 50 must equal")
    unchanged(built, run([x, x], y), ArgumentError, r"arrays\[0\] must be an array or a list of 3")
    unchanged(built, run([x, x, x[:9]], y), ShapeError, "model 2: ")
    infinite = x.data.clone()
    infinite[3, 1] = torch.inf
    unchanged(built, run([x, infinite, x], y), ArgumentError, r"model 1: arrays\[0\] must be finite; element \[3, 1\]")
    unchanged(built, run(), ShapeError, "at least one array")


def test_steps_that_do_not_fit():
    x, y = points()
    with pytest.raises(ArgumentError, match="at least one step"):
        tg.run_together([], x, y, batch_size=25)
    step, _, _ = MLP(0)
    with pytest.raises(ArgumentError, match=r"steps\[1\] must be a compiled step"):
        tg.run_together([step, lambda x, y: x], x, y, batch_size=25)
    with pytest.raises(ArgumentError, match="must be a sequence"):
        tg.run_together(step, x, y, batch_size=25)
    with pytest.raises(ArgumentError, match=r"steps\[0\] and steps\[1\] are the same step"):
        tg.run_together([step, step], x, y, batch_size=25)


def test_models_that_share_parameters():
    """Whole models, or one tied weight."""
    first, second, third = (MLP(k) for k in range(3))
    again = tg.compile(training_step(second[1], second[2])), second[1], second[2]
    run = lambda steps: tg.run_together(steps, *points(), batch_size=25)  # noqa: E731
    unchanged([first, second, third, again], run, ArgumentError, r"steps\[1\] and steps\[3\] use the same memory")
    tied = MLP(4)
    tied[1][0].weight = first[1][0].weight
    tied = tg.compile(training_step(tied[1], opt := tg.optim.SGD(tied[1].parameters(), lr=0.1))), tied[1], opt
    unchanged([first, second, tied], run, ArgumentError, r"steps\[0\] and steps\[2\] use the same memory")


def test_a_frozen_part_may_be_shared():
    tg.manual_seed(0)
    base = nn.Linear(2, 4).requires_grad_(False)
    build = trained(lambda k: nn.Sequential(base, nn.Linear(4, 2)), **SGD)
    assert_as_alone(build, 3, points(), batch_size=25, epochs=2)


def test_a_step_that_cannot_be_compiled():
    def counting(k):
        tg.manual_seed(k)
        model = nn.Linear(2, 2)
        opt = tg.optim.SGD(model.parameters(), lr=0.1)
        seen = {"n": 0}

        def step(x, y):
            opt.zero_grad()
            loss = F.mse_loss(model(x), y)
            loss.backward()
            opt.step()
            if k == 2:
                loss.item()
            if k == 3:
                seen["n"] += 1
            return loss

        return tg.compile(step), model, opt

    run = lambda steps: tg.run_together(steps, *points(), batch_size=25)  # noqa: E731
    unchanged([counting(k) for k in (0, 1, 2)], run, CompileError, r"run_together: steps\[2\].*item")
    unchanged([counting(k) for k in (0, 3)], run, CompileError, r"run_together: steps\[1\].*changes")
    pair = [tg.compile(lambda x, y: x * y)]
    with pytest.raises(CompileError, match=r"steps\[0\].*0-dim"):
        tg.run_together(pair, *points(), batch_size=25)


@pytest.mark.parametrize(("count", "batch_size"), [(3, 500), (8, 25)], ids=["one by one", "in lanes"])
def test_ctrl_c_keeps_every_model_at_its_last_step(monkeypatch, count, batch_size):
    build = trained(lambda k: networks.mlp(nn), **SGD)
    builds = [build(k) for k in range(count)]
    x, y = points(2000)
    options = {"batch_size": batch_size, "seed": 1}
    running, inner = threading.Event(), together._C.run_networks

    def run_networks(*args):
        running.set()
        inner(*args)

    def interrupt():
        running.wait()
        time.sleep(0.15)
        _thread.interrupt_main()

    monkeypatch.setattr(together._C, "run_networks", run_networks)
    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        tg.run_together([b[0] for b in builds], x, y, epochs=10_000, **options)
    thread.join()
    for _, model, _ in builds:  # at some step of its own: one that was finished, with its gradients
        assert all(bool(p.isfinite().all()) for p in model.parameters())
    begun = [k for k, (_, model, _) in enumerate(builds) if model[0].weight.grad is not None]
    assert begun
    k = begun[-1]
    step, model, _ = build(k)
    place = torch.cat([p.data.data.flatten() for p in builds[k][1].parameters()])

    def reached(losses):
        return bool((torch.cat([p.data.data.flatten() for p in model.parameters()]) == place).all())

    for epoch in range(10_000):  # its own run comes by there
        if any(reached(step(*rows)) for rows in tg.data.batches(x, y, batch_size=batch_size, seed=1 + k, epoch=epoch)):
            break
    else:
        pytest.fail("no step leaves these parameters")
    assert [bits(p.grad) for p in model.parameters()] == [bits(p.grad) for p in builds[k][1].parameters()]
    assert tg.run_together([b[0] for b in builds], x, y, **options).isfinite().all()


def test_progress(capsys):
    tqdm = pytest.importorskip("tqdm")
    totals = []

    class Bar(tqdm.tqdm):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **{**kwargs, "disable": False})

        def close(self):
            totals.append((self.n, self.total))
            super().close()

    original, tqdm.tqdm = tqdm.tqdm, Bar
    try:
        tg.run_together([MLP(k)[0] for k in range(4)], *points(), batch_size=25, epochs=3, progress=True)
    finally:
        tqdm.tqdm = original
    assert totals == [(36, 36)]
