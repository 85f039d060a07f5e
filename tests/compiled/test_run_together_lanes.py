"""Models side by side in the lanes of vector registers: the bits of each alone."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from pathlib import Path

import bench_package  # noqa: F401  (before bench)
import pytest
import torch
from compile_checks import bits, state, training_step

import tapegrad as tg
from bench.common import networks
from tapegrad import nn
from tapegrad.compiled import lanes
from tapegrad.core import ShapeError
from tapegrad.nn import functional as F

COUNT = 19  # more than any vector has lanes, so some are left over


def builder(make, optimizer=tg.optim.SGD, loss=F.mse_loss, **options):
    def build(k):
        tg.manual_seed(k)
        model = make(k)
        each = {name: value(k) if callable(value) else value for name, value in options.items()}
        opt = optimizer(model.parameters(), **each)
        return tg.compile(training_step(model, opt, loss)), model, opt

    return build


def in_lanes(step):
    """Whether a step that ran together ran in lanes."""
    return step.joint[1].shared and step.joint[1].width > 1


def assert_as_alone(build, arrays, *, count=COUNT, side_by_side=True, **options):
    built = [build(k) for k in range(count)]
    losses = tg.run_together([step for step, _, _ in built], *arrays, seed=5, **options)
    assert in_lanes(built[0][0]) == side_by_side
    rows = options.pop("rows", None)
    for k in (0, 1, count // 2, count - 1):
        step, model, opt = build(k)
        mine = arrays if rows is None else [a[rows[k]] for a in arrays]
        assert bits(losses[k]) == bits(step.run(*mine, seed=5 + k, **options)), f"losses of model {k}"
        left, found = state([model], [opt]), state([built[k][1]], [built[k][2]])
        assert found == left, f"model {k}: " + ", ".join(name for name in left if found[name] != left[name])


def points(n, inputs, outputs, dtype=tg.float32):
    g = tg.Generator(3)
    return tg.randn(n, inputs, generator=g).to(dtype), tg.randn(n, outputs, generator=g).to(dtype)


def classes(n, inputs, count):
    g = tg.Generator(3)
    return tg.randn(n, inputs, generator=g), tg.randint(0, count, (n,), generator=g)


def sizes(*layers, act=nn.Tanh, bias=True):
    def make(k):
        parts = [part for a, b in itertools.pairwise(layers) for part in (nn.Linear(a, b, bias=bias), act())]
        return nn.Sequential(*parts[:-1])

    return make


def sums(x, y):
    """A sum, a mean and an inner product of everything."""
    return (x * y).sum() + (x - y).mean() + tg.dot(x.reshape(-1), (x - y).reshape(-1))


RATES = {"lr": lambda k: 0.1 / (k + 1)}
DECAY = {"weight_decay": lambda k: 0.1 * (k % 3)}


@pytest.mark.parametrize(
    ("build", "arrays", "batch_size"),
    [
        (builder(lambda k: networks.mlp(nn), **RATES), points(60, 2, 2), 25),
        (builder(sizes(3, 7, 1), tg.optim.Adam, lr=0.01), points(41, 3, 1), 8),
        (builder(sizes(1, 1, 1), momentum=0.9, nesterov=True, **RATES), points(30, 1, 1), 7),
        (builder(sizes(17, 33, 6), momentum=0.9, dampening=0.5, **RATES, **DECAY), points(70, 17, 6), 64),
        (builder(sizes(4, 5, 3, bias=False), tg.optim.Adam, lr=0.01, amsgrad=True, **DECAY), points(30, 4, 3), 1),
        (builder(sizes(4, 9, 3, act=nn.GELU), tg.optim.AdamW, lr=lambda k: 0.01 * k), points(30, 4, 3), 13),
        (builder(sizes(4, 9, 3, act=nn.ReLU), tg.optim.Adam, maximize=True), points(200, 4, 3), 150),
        (builder(lambda k: sizes(4, 9, 3)(k).double(), **RATES), points(50, 4, 3, tg.float64), 16),
        (builder(sizes(5, 6, 2), tg.optim.Adam, F.cross_entropy, lr=0.01), classes(70, 5, 2), 32),
        (builder(sizes(5, 6, 40), tg.optim.SGD, F.cross_entropy, **RATES), classes(70, 5, 40), 70),
        (
            builder(sizes(5, 6, 3), tg.optim.SGD, lambda x, y: F.cross_entropy(x, y, ignore_index=1, reduction="sum")),
            classes(70, 5, 3),
            32,
        ),
        (builder(sizes(5, 6, 3), tg.optim.SGD, lambda x, y: F.mse_loss(x, y, reduction="sum")), points(64, 5, 3), 16),
    ],
)
def test_networks_in_lanes(build, arrays, batch_size):
    assert_as_alone(build, arrays, batch_size=batch_size, epochs=3)


def test_rows_of_their_own_and_no_shuffling():
    x, y = points(60, 3, 2)
    rows = [torch.randperm(60, generator=torch.Generator().manual_seed(k))[:41] for k in range(COUNT)]
    build = builder(sizes(3, 5, 2), **RATES)
    assert_as_alone(build, (x.data, y.data), batch_size=8, epochs=2, rows=rows)
    assert_as_alone(build, (x.data, y.data), batch_size=8, epochs=2, rows=rows, shuffle=False)
    assert_as_alone(build, (x, y), batch_size=8, epochs=2, shuffle=False)


def test_a_layer_that_is_frozen_and_inputs_of_three_dimensions():
    def make(k):
        model = sizes(3, 6, 6, 2)(k)
        model[2].weight.requires_grad_(False)
        return model

    g = tg.Generator(1)
    arrays = tg.randn(30, 4, 3, generator=g), tg.randn(30, 4, 2, generator=g)
    assert_as_alone(builder(make, **RATES), arrays, batch_size=8, epochs=2)


@pytest.mark.parametrize(
    "build",
    [
        builder(lambda k: nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Linear(8, 3)), **RATES),
        builder(sizes(5, 6, 3, act=nn.ELU), tg.optim.SGD, **RATES),
        builder(lambda k: nn.Sequential(nn.Linear(5, 1500), nn.ReLU(), nn.Linear(1500, 3)), **RATES),
    ],
    ids=["statistics of another dtype", "large values go to and fro", "large"],
)
def test_programs_that_run_one_by_one(build):
    assert_as_alone(build, points(64, 5, 3), batch_size=64, count=6, side_by_side=False)


class Turned(nn.Module):
    """A layer whose weight is the transpose of what lies in memory."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.weight = nn.Parameter(tg.randn(inputs, outputs).data.t())

    def forward(self, x):
        return F.linear(x, self.weight)


def weighted(x, y):
    return F.cross_entropy(x, y, weight=WEIGHTS, label_smoothing=0.1)


WEIGHTS = tg.tensor([0.5, 1.0, 2.0])


@pytest.mark.parametrize(
    ("build", "arrays"),
    [
        (builder(sizes(5, 6, 3), tg.optim.SGD, F.l1_loss, **RATES), points(70, 5, 3)),
        (builder(sizes(5, 6, 3, act=nn.ELU), tg.optim.Adam, F.smooth_l1_loss, lr=0.01, **DECAY), points(70, 5, 3)),
        (builder(lambda k: nn.Sequential(Turned(5, 6), nn.Tanh(), Turned(6, 3)), **RATES, **DECAY), points(70, 5, 3)),
        (builder(sizes(5, 6, 3), tg.optim.Adam, weighted, lr=lambda k: 0.01 * k), classes(70, 5, 3)),
        (builder(sizes(5, 6, 3), loss=sums, **RATES), points(97, 5, 3)),
        (builder(sizes(5, 6, 3), loss=lambda x, y: (x - y).abs().max() + x.mean(), **RATES), points(70, 5, 3)),
    ],
    ids=[
        "a loss",
        "an activation",
        "updates with numbers of each",
        "a loss that looks at targets",
        "sums",
        "torch's own",
    ],
)
def test_instructions_without_lanes_run_for_each(build, arrays, monkeypatch):
    monkeypatch.setattr(lanes, "_CARRIED", 0)
    assert_as_alone(build, arrays, batch_size=32, epochs=3)


@pytest.mark.parametrize("loss", [F.cross_entropy, weighted])
def test_bad_targets_in_one_lane_stop_nobody(loss, monkeypatch):
    monkeypatch.setattr(lanes, "_CARRIED", 0)
    build = builder(sizes(4, 5, 3), tg.optim.Adam, loss, lr=0.01)
    x, y = classes(40, 4, 3)
    bad = y.data.clone()
    bad[25] = 3
    built = [build(k) for k in range(COUNT)]
    targets = [bad if k == 7 else y.data for k in range(COUNT)]
    with pytest.raises(ShapeError, match=r"steps\[7\].*class indices in \[0, 3\); got 3"):
        tg.run_together([step for step, _, _ in built], x.data, targets, batch_size=10, epochs=3, shuffle=False)
    for k in (6, 8, COUNT - 1):
        step, model, opt = build(k)
        step.run(x, y, batch_size=10, epochs=3, shuffle=False)
        assert state([model], [opt]) == state([built[k][1]], [built[k][2]])


def test_losses_that_overflow_stay_in_their_lane():
    build = builder(sizes(3, 5, 2, act=nn.ReLU), lr=lambda k: 1e30 if k % 4 == 1 else 0.1)
    with pytest.warns(RuntimeWarning, match="5 of 19 models is not finite: \\[1, 5, 9, 13, 17\\]"):
        assert_as_alone(build, points(60, 3, 2), batch_size=10, epochs=2)


def test_threads_and_repeated_runs():
    build = builder(sizes(3, 5, 2), tg.optim.Adam, lr=0.01)
    x, y = points(60, 3, 2)
    before = torch.get_num_threads()
    sides = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            built = [build(k) for k in range(3 * COUNT)]
            for seed in (1, 2):
                tg.run_together([b[0] for b in built], x, y, batch_size=25, epochs=2, seed=seed)
                built[0][0](x[:25], y[:25])  # the recorded model's own program, in between
            sides.append([state([model], [opt]) for _, model, opt in built])
    finally:
        torch.set_num_threads(before)
    assert sides[0] == sides[1] == sides[2]


@pytest.mark.parametrize("isa", ["baseline", "avx2"])
def test_other_instruction_sets(isa, tmp_path):
    """Some of the cases above once more, in a process that is told to use another instruction set."""
    if os.environ.get("TAPEGRAD_ISA"):
        pytest.skip("this is such a process")
    roots = [Path(tg.__file__).parents[1], Path(tg.__file__).parents[1] / "tests" / "helpers"]
    path = os.pathsep.join([*map(str, roots), os.environ.get("PYTHONPATH", "")])
    chosen = [
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-k",
        "arrays0 or arrays4 or arrays7 or arrays9",
        __file__,
    ]
    env = {**os.environ, "PYTHONPATH": path, "TAPEGRAD_ISA": isa, "OMP_NUM_THREADS": "1"}
    run = subprocess.run([sys.executable, *chosen], cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    if f"TAPEGRAD_ISA={isa}: expected" in run.stdout + run.stderr:
        pytest.skip(f"no {isa} here")
    assert run.returncode == 0, run.stdout[-3000:]
