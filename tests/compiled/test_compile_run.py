"""`step.run`: whole epochs in C++ are the loop over `tg.data.batches`, bit for bit."""

from __future__ import annotations

import _thread
import functools
import os
import platform
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from compile_checks import assert_same_script, batch, bits, mlp, replays, state, training_step

import tapegrad as tg
from tapegrad import nn
from tapegrad.core import ArgumentError, CompileError, ShapeError
from tapegrad.data.streams import integers
from tapegrad.nn import functional as F
from tapegrad.ops.random import default_generator


def looped(step, *arrays, batch_size, epochs=1, shuffle=True, drop_last=False, seed=None, on_epoch=None):
    """What `run` does, written out."""
    losses = []
    if shuffle and seed is None:
        seed = integers(2**62, 1, default_generator)[0]
    for epoch in range(epochs):
        options = {"shuffle": shuffle, "drop_last": drop_last, "seed": seed, "epoch": epoch}
        rows = [step(*rows) for rows in tg.data.batches(*arrays, batch_size=batch_size, **options)]
        losses.append(tg.stack([loss.detach() for loss in rows]))
        if on_epoch is not None and on_epoch(epoch, losses[-1]):
            break
    return tg.stack(losses)


def data(n=23, seed=5):
    return batch(n, seed)


def assert_run_is_loop(build, *arrays, **options):
    """``build() -> (step, models, optimizers)``; losses and everything left behind agree."""
    sides = []
    for compiled in (False, True):
        tg.manual_seed(0)
        step, models, optimizers = build()
        train = tg.compile(step).run if compiled else functools.partial(looped, step)
        sides.append((bits(train(*arrays, **options)), state(models, optimizers)))
    assert sides[0] == sides[1]


def network(dropout=0.0):
    tg.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Dropout(dropout), nn.Linear(5, 2))
    optimizer = tg.optim.Adam(model.parameters(), lr=0.05)
    return training_step(model, optimizer), [model], [optimizer]


OPTIONS = [
    {"batch_size": 5, "epochs": 4, "seed": 3},
    {"batch_size": 5, "epochs": 4, "seed": 3, "drop_last": True},
    {"batch_size": 5, "epochs": 4, "shuffle": False},
    {"batch_size": 5, "epochs": 4, "shuffle": False, "drop_last": True},
    {"batch_size": 5, "epochs": 4},
    {"batch_size": 23, "epochs": 4, "seed": 3},
    {"batch_size": 100, "epochs": 4, "seed": 3},
    {"batch_size": 1, "epochs": 2, "seed": 3},
    {"batch_size": 12, "seed": -1},
    {"batch_size": 22, "epochs": 6, "seed": 2**62},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_run_is_the_loop_over_batches(options):
    assert_run_is_loop(network, *data(), **options)


def test_run_draws_the_random_numbers_of_the_loop():
    assert_run_is_loop(functools.partial(network, 0.5), *data(), batch_size=5, epochs=5, seed=3)
    assert_run_is_loop(functools.partial(network, 0.5), *data(), batch_size=5, epochs=5)


@pytest.mark.parametrize(
    "convert",
    [
        lambda t: t,
        lambda t: t.data,
        lambda t: t.data.numpy(),
        lambda t: t.data.T.contiguous().T,
        lambda t: tg.cat([t, t], 1)[:, ::2],
    ],
    ids=["Tensor", "torch", "NumPy", "columns first", "every other column"],
)
@pytest.mark.parametrize("shuffle", [True, False])
def test_arrays_of_every_kind(convert, shuffle):
    x, y = data()
    assert_run_is_loop(network, convert(x), convert(y), batch_size=5, epochs=3, seed=1, shuffle=shuffle)


def test_several_arrays_and_integer_targets():
    def build():
        tg.manual_seed(0)
        model, words = nn.Linear(7, 3), nn.Embedding(4, 4)
        optimizer = tg.optim.SGD([*model.parameters(), *words.parameters()], lr=0.1, momentum=0.9)

        def step(x, word, weight, label):
            optimizer.zero_grad()
            each = F.cross_entropy(model(tg.cat([x, words(word)], 1)), label, reduction="none")
            loss = (each * weight).mean()
            loss.backward()
            optimizer.step()
            return loss

        return step, [model, words], [optimizer]

    generator = tg.Generator(1)
    x, weight = tg.randn(23, 3, generator=generator), tg.rand(23, generator=generator)
    words, labels = (tg.randint(0, n, (23,), generator=generator) for n in (4, 3))
    assert_run_is_loop(build, x, words, weight, labels, batch_size=4, epochs=4, seed=1)


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("twice", [lambda t: (t, t), lambda t: (t, t.detach()), lambda t: (t, t.numpy())])
def test_one_array_given_twice(twice, shuffle):
    def build():
        tg.manual_seed(0)
        model = nn.Linear(3, 3)
        optimizer = tg.optim.Adam(model.parameters(), lr=0.05)
        return training_step(model, optimizer, F.mse_loss), [model], [optimizer]

    assert_run_is_loop(build, *twice(data()[0]), batch_size=5, epochs=3, seed=1, shuffle=shuffle)


def test_integer_inputs_become_the_steps_business():
    def build():
        model = nn.Embedding(5, 2)
        optimizer = tg.optim.SGD(model.parameters(), lr=0.1)
        return training_step(model, optimizer, lambda out, y: (out.sum(1) * y).sum()), [model], [optimizer]

    assert_run_is_loop(build, tg.arange(15) % 5, tg.arange(15), batch_size=4, epochs=3, seed=1)


def test_on_epoch_sees_the_losses_changes_the_learning_rate_and_stops():
    sides = []
    for compiled in (False, True):
        step, models, optimizers = network()
        schedule = tg.optim.lr_scheduler.StepLR(optimizers[0], 2, 0.5)
        seen = []

        def on_epoch(epoch, losses, seen=seen, models=models, schedule=schedule):
            schedule.step()
            models[0].eval()
            seen.append((epoch, bits(losses), bits(models[0](data()[0]).detach())))
            models[0].train()
            return epoch == 5

        train = tg.compile(step).run if compiled else functools.partial(looped, step)
        losses = train(*data(), batch_size=5, epochs=20, seed=3, on_epoch=on_epoch)
        assert losses.shape == (6, 5)
        sides.append((seen, bits(losses), state(models, optimizers)))
    assert sides[0] == sides[1]


@pytest.mark.parametrize("change", ["freeze", "replace", "eval"])
def test_on_epoch_changes_the_network(change):
    sides = []
    for compiled in (False, True):
        step, models, optimizers = network(0.5)

        def on_epoch(epoch, losses, model=models[0]):
            if epoch == 2 and change == "freeze":
                model[0].requires_grad_(False)
            if epoch == 2 and change == "replace":
                model[0].bias = nn.Parameter(tg.ones(5))
            if epoch == 2 and change == "eval":
                model.eval()

        tg.manual_seed(1)
        train = tg.compile(step).run if compiled else functools.partial(looped, step)
        losses = train(*data(), batch_size=5, epochs=5, seed=3, on_epoch=on_epoch)
        sides.append((bits(losses), state(models, optimizers)))
    assert sides[0] == sides[1]


def test_runs_and_calls_take_turns():
    def script(compile):
        step, models, optimizers = network(0.5)
        step = compile(step)
        train = step.run if hasattr(step, "run") else functools.partial(looped, step)
        seen = []
        for i in range(4):
            seen.append(train(*data(), batch_size=5, epochs=2, seed=i))
            seen += [step(*batch(5, i)) for _ in range(2)]
        return [*seen, state(models, optimizers)]

    assert_same_script(script)


def test_all_but_the_recorded_steps_are_replayed():
    step = tg.compile(network()[0])
    step.run(*data(), batch_size=5, epochs=10, seed=1)
    assert replays(step) == 50 - 4
    assert len(step.programs) == 2


def test_losses_have_the_dtype_of_the_step():
    model, _ = mlp()
    model.double()
    step = tg.compile(training_step(model, tg.optim.SGD(model.parameters(), lr=0.1)))
    losses = step.run(*batch(10, dtype=torch.float64), batch_size=5, epochs=3)
    assert (losses.dtype, losses.shape) == (torch.float64, (3, 2))
    assert not losses.requires_grad


def test_no_epochs_change_nothing():
    step, models, optimizers = network()
    before = state(models, optimizers)
    assert tg.compile(step).run(*data(), batch_size=5, epochs=0, shuffle=False).shape == (0, 5)
    assert state(models, optimizers) == before


# --- bad input changes nothing -----------------------------------------------------------------------------------


def bad_inputs():
    x, y = data()
    nan, inf = x.clone().data, y.clone().data
    nan[4, 1], inf[0, 0] = torch.nan, -torch.inf
    return {
        "lengths": ((x, y[:-1]), {}, ShapeError, r"len\(arrays\[1\]\) = 22 must equal len\(arrays\[0\]\) = 23"),
        "no array": ((), {}, ShapeError, "at least one array"),
        "batch size 0": ((x, y), {"batch_size": 0}, ShapeError, "batch_size must be at least 1; got 0"),
        "batch size": ((x, y), {"batch_size": 2.5}, TypeError, "batch_size must be an integer"),
        "epochs": ((x, y), {"epochs": -1}, ArgumentError, "epochs must be an integer of at least 0; got -1"),
        "fraction of epochs": ((x, y), {"epochs": 1.5}, ArgumentError, "epochs must be an integer"),
        "nan": ((nan, y), {}, ArgumentError, r"arrays\[0\] must be finite; element \[4, 1\] is nan"),
        "infinity": ((x, inf), {}, ArgumentError, r"arrays\[1\] must be finite; element \[0, 0\] is -inf"),
        "numbers": ((3.0, y), {}, TypeError, r"arrays\[0\]"),
        "strings": ((np.array(["a"] * 23), y), {}, TypeError, r"arrays\[0\]"),
        "no batch": ((x, y), {"batch_size": 50, "drop_last": True}, ShapeError, "= 50 leaves no batch of 23"),
        "no rows": ((x[:0], y[:0]), {}, ShapeError, "no batch"),
        "seed": ((x, y), {"seed": "a"}, TypeError, "seed must be an integer"),
        "columns": ((y, y), {}, ShapeError, "linear"),
        "arguments": ((x,), {}, TypeError, "missing 1 required positional argument"),
        "dtype": ((x.double(), y.double()), {}, TypeError, "linear"),
    }  # fmt: skip


@pytest.mark.parametrize("name", bad_inputs())
@pytest.mark.parametrize("trained", [False, True], ids=["first run", "later run"])
def test_bad_input_changes_nothing(name, trained):
    arrays, options, error, message = bad_inputs()[name]
    step, models, optimizers = network(0.5)
    step = tg.compile(step)
    if trained:
        step.run(*data(), batch_size=5, epochs=2, seed=1)
    before = state(models, optimizers)
    with pytest.raises(error, match=message):
        step.run(*arrays, **{"batch_size": 5, "epochs": 2, "seed": 1, **options})
    assert state(models, optimizers) == before


def test_a_bad_label_in_a_later_batch_keeps_the_steps_before_it():
    """The step that fails leaves nothing; those that were completed stay, as in the loop."""
    sides = []
    labels = torch.zeros(20, dtype=torch.int64)
    labels[17] = 9
    for compiled in (False, True):
        model, optimizer = mlp(lr=0.01, momentum=0.5)
        step = training_step(model, optimizer, F.cross_entropy)
        train = tg.compile(step).run if compiled else functools.partial(looped, step)
        with pytest.raises(ShapeError, match=r"targets must be class indices in \[0, 2\); got 9"):
            train(batch(20)[0], labels, batch_size=4, epochs=1, shuffle=False)
        sides.append(state([model], [optimizer]))
    for name in sides[0]:
        if not name.endswith(".grad"):  # the plain step had dropped its gradients before it failed
            assert sides[0][name] == sides[1][name], name


@pytest.mark.parametrize(
    "result", [lambda loss: None, lambda loss: (loss, loss), lambda loss: 1.0, lambda loss: loss.reshape(1)]
)
def test_a_step_must_return_its_loss(result):
    model, optimizer = mlp()
    inner = training_step(model, optimizer)
    step = tg.compile(lambda x, y: result(inner(x, y)))
    before = state([model], [optimizer])
    with pytest.raises(CompileError, match=r"run: .* must return its loss, a 0-dim tensor"):
        step.run(*data(), batch_size=5, seed=1)
    assert state([model], [optimizer]) == before
    for _ in range(3):
        step(*batch(5))
    before = state([model], [optimizer])
    with pytest.raises(CompileError, match=r"run: .* must return its loss, a 0-dim tensor"):
        step.run(*data(), batch_size=5, seed=1)
    assert state([model], [optimizer]) == before


def test_an_exception_in_on_epoch_keeps_the_epochs_before_it():
    step, models, optimizers = network()

    def fail(epoch, losses):
        if epoch == 2:
            raise LookupError("on purpose")

    with pytest.raises(LookupError, match="on purpose"):
        tg.compile(step).run(*data(), batch_size=5, epochs=9, seed=1, on_epoch=fail)
    after = state(models, optimizers)
    step, models, optimizers = network()
    looped(step, *data(), batch_size=5, epochs=3, seed=1)
    assert state(models, optimizers) == after


# --- memory ------------------------------------------------------------------------------------------------------

COUNTED = """
import ctypes, sys
import torch
import tapegrad as tg
from tapegrad import nn

torch.set_num_threads(1)
x, y = tg.randn(4000, 3), tg.randn(4000, 2)
model = nn.Sequential(nn.Linear(3, 9), nn.{layer}, nn.Linear(9, 2))
optimizer = tg.optim.{optimizer}
def step(x, y):
    optimizer.zero_grad()
    loss = nn.functional.mse_loss(model(x), y)
    loss.backward()
    optimizer.step()
    return loss
step = tg.compile(step)
allocations = ctypes.CDLL(None).allocations
def taken(steps):
    before = allocations()
    step.run(x[: 4 * steps], y[: 4 * steps], batch_size=4, seed=0)
    return allocations() - before
taken(1000)
print(taken(500), taken(1000))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc" or not shutil.which("cc"), reason="counts glibc's allocations")
@pytest.mark.parametrize(
    ("layer", "optimizer"),
    [("ReLU()", "SGD(model.parameters(), 0.1, momentum=0.5)"), ("Tanh()", "Adam(model.parameters())")],
)
def test_a_replayed_step_allocates_nothing(tmp_path, layer, optimizer):
    """500 steps more take no block more; ten are left to a tick of the clock, at which Python is asked."""
    library = tmp_path / "counting.so"
    here = Path(__file__).parent
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", library, here / "counting_malloc.c"], check=True)
    program = COUNTED.format(layer=layer, optimizer=optimizer)
    env = os.environ | {"LD_PRELOAD": str(library)}
    ran = subprocess.run([sys.executable, "-c", program], env=env, cwd=here, check=True, capture_output=True, text=True)
    half, whole = map(int, ran.stdout.split())
    assert half > 0
    assert whole - half <= 10


# --- Ctrl-C ------------------------------------------------------------------------------------------------------


def test_ctrl_c_stops_between_two_steps():
    """In the middle of an epoch; the parameters are those after a whole number of steps, and training goes on."""
    x, y = batch(1_000_000)
    model, optimizer = mlp(lr=0.01, momentum=0.5)
    step = tg.compile(training_step(model, optimizer))
    step.run(x[:3], y[:3], batch_size=1, shuffle=False)  # recorded; an epoch takes half a second or more
    timer = threading.Timer(0.05, _thread.interrupt_main)
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        step.run(x, y, batch_size=1, shuffle=False)
    timer.join()
    taken = int(optimizer.state[model[0].weight]["step"].item())
    assert 3 < taken < 1_000_000
    reached = state([model], [optimizer])
    assert step.run(x[:50], y[:50], batch_size=1, shuffle=False).shape == (1, 50)

    model, optimizer = mlp(lr=0.01, momentum=0.5)
    step = tg.compile(training_step(model, optimizer))
    step.run(x[:3], y[:3], batch_size=1, shuffle=False)
    step.run(x[: taken - 3], y[: taken - 3], batch_size=1, shuffle=False)
    assert state([model], [optimizer]) == reached


def test_progress_is_shown(capsys, monkeypatch):
    tqdm = pytest.importorskip("tqdm")
    shown = []
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr(tqdm.tqdm, "update", lambda self, n: shown.append(n))
    step, _, _ = network()
    tg.compile(step).run(*data(), batch_size=5, epochs=8, seed=1, progress=True)
    assert sum(shown) == 40
