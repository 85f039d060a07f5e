"""Schedules, schedules of schedules and their momentums against torch.optim.lr_scheduler: bit for bit."""

from __future__ import annotations

import inspect
import warnings

import pytest
import torch

import tapegrad as tg
from tapegrad import nn, optim
from tapegrad.core import ArgumentError, StateError

ONE = {
    "LinearLR": [
        {},
        {"start_factor": 0.1, "end_factor": 0.5, "total_iters": 30},
        {"start_factor": 1.0, "end_factor": 0},
    ],
    "ConstantLR": [{}, {"factor": 0.5, "total_iters": 40}],
    "MultiStepLR": [{"milestones": [3, 9, 9, 30], "gamma": 0.3}, {"milestones": []}],
    "PolynomialLR": [{}, {"total_iters": 70, "power": 2.5}],
    "MultiplicativeLR": [
        {"lr_lambda": lambda t: 0.97 if t % 3 else 1.01},
        {"lr_lambda": [lambda t: 0.9, lambda t: 1 / t]},
    ],
    "CosineAnnealingWarmRestarts": [
        {"T_0": 7},
        {"T_0": 3, "T_mult": 2, "eta_min": 0.01},
        {"T_0": 1},
    ],
    "CyclicLR": [
        {"base_lr": 0.01, "max_lr": 0.3, "step_size_up": 5},
        {"base_lr": [0.1, 0.2], "max_lr": [0.3, 0.7], "step_size_up": 4, "step_size_down": 9, "mode": "triangular2"},
        {"base_lr": 0.1, "max_lr": 0.2, "step_size_up": 6, "mode": "exp_range", "gamma": 0.97, "cycle_momentum": False},
        {"base_lr": 0.1, "max_lr": 0.4, "step_size_up": 6, "scale_fn": lambda x: 1 / (5**x), "base_momentum": 0.5},
        {
            "base_lr": 0.1,
            "max_lr": 0.4,
            "step_size_up": 6,
            "scale_fn": lambda x: 0.99**x,
            "scale_mode": "iterations",
            "max_momentum": [0.9, 0.95],
        },
    ],
    "OneCycleLR": [
        {"max_lr": 0.5, "total_steps": 100},
        {"max_lr": [0.5, 0.2], "epochs": 10, "steps_per_epoch": 10, "anneal_strategy": "linear", "pct_start": 0.2},
        {"max_lr": 0.5, "total_steps": 110, "three_phase": True, "div_factor": 10.0, "final_div_factor": 100.0},
        {"max_lr": 0.5, "total_steps": 100, "cycle_momentum": False},
    ],
    "StepLR": [{"step_size": 7, "gamma": 0.5}],
    "ExponentialLR": [{"gamma": 0.95}],
    "CosineAnnealingLR": [{"T_max": 9, "eta_min": 0.01}],
}
CASES = [(name, kwargs) for name, rows in ONE.items() for kwargs in rows]


def sequence(m, o):
    return m.SequentialLR(
        o,
        [m.LinearLR(o, 0.1, total_iters=5), m.CosineAnnealingLR(o, 30), m.ExponentialLR(o, 0.9)],
        milestones=[5, 40],
    )


def nested(m, o):
    inner = m.SequentialLR(o, [m.ConstantLR(o, 0.1, 3), m.StepLR(o, 4, 0.5)], milestones=[10])
    return m.SequentialLR(o, [inner, m.PolynomialLR(o, 30), m.MultiStepLR(o, [3, 5])], [20, 60])


COMPOSED = {
    "warm up, cosine, exponential": sequence,
    "nested": nested,
    "restarts second": lambda m, o: m.SequentialLR(
        o, [m.ConstantLR(o, 0.1, 4), m.CosineAnnealingWarmRestarts(o, 5, 2)], [4]
    ),
    "functions": lambda m, o: m.SequentialLR(
        o, [m.LambdaLR(o, lambda t: 0.9**t), m.MultiplicativeLR(o, lambda t: 0.95)], [10]
    ),
    "cycle second": lambda m, o: m.SequentialLR(o, [m.LinearLR(o), m.OneCycleLR(o, 0.4, 120)], [6]),
    "from step 0": lambda m, o: m.SequentialLR(o, [m.StepLR(o, 3), m.ExponentialLR(o, 0.9)], [0]),
    "chained": lambda m, o: m.ChainedScheduler([m.ConstantLR(o, 0.1, 2), m.ExponentialLR(o, 0.9)]),
    "chained with an optimizer": lambda m, o: m.ChainedScheduler(
        [m.LinearLR(o, 0.2, total_iters=20), m.MultiStepLR(o, [5, 50]), m.CyclicLR(o, 0.1, 0.3, 7)], optimizer=o
    ),
    "chain of a sequence": lambda m, o: m.ChainedScheduler([sequence(m, o), m.StepLR(o, 9, 0.9)]),
}


def optimizers(kind="SGD", **kwargs):
    """Two groups with other rates, in both libraries."""
    made = []
    for library, parameter in ((optim, nn.Parameter), (torch.optim, torch.nn.Parameter)):
        groups = [{"params": parameter(torch.zeros(2)), "lr": 0.3}, {"params": parameter(torch.zeros(2))}]
        made.append(getattr(library, kind)(groups, lr=0.1, **kwargs))
    return made


def hyper(optimizer):
    keys = ("lr", "momentum", "betas", "initial_lr", "max_lr", "min_lr", "base_momentum", "max_momentum")
    return [{key: group.get(key) for key in keys} for group in optimizer.param_groups]


def built(make, module, optimizer):
    """A schedule; torch's sequence of a sequence warns while it is made, and so does ours."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return make(module, optimizer)


def follow(make, steps=100, kind="SGD", **kwargs):
    """`steps` steps of both; in the middle ours goes on from a fresh optimizer and schedule, loaded from torch's."""
    ours, theirs = optimizers(kind, **kwargs)
    schedule, reference = built(make, optim.lr_scheduler, ours), built(make, torch.optim.lr_scheduler, theirs)
    for t in range(steps):
        assert hyper(ours) == hyper(theirs), t
        assert schedule.get_last_lr() == reference.get_last_lr() == [g["lr"] for g in ours.param_groups], t
        ours.step()
        theirs.step()
        schedule.step()
        reference.step()
        if t == steps // 3:
            ours, _ = optimizers(kind, **kwargs)
            schedule = built(make, optim.lr_scheduler, ours)
            ours.load_state_dict(theirs.state_dict())
            schedule.load_state_dict(reference.state_dict())
        if t == steps // 2:  # and torch's from ours
            _, theirs = optimizers(kind, **kwargs)
            reference = built(make, torch.optim.lr_scheduler, theirs)
            for group, own in zip(theirs.param_groups, ours.param_groups, strict=True):
                group.update({key: value for key, value in own.items() if key != "params"})
            reference.load_state_dict(schedule.state_dict())


@pytest.mark.parametrize(("name", "kwargs"), CASES)
def test_a_hundred_steps_are_torchs_and_resume(name, kwargs):
    follow(lambda m, o: getattr(m, name)(o, **kwargs), momentum=0.5)


@pytest.mark.parametrize("name", COMPOSED)
def test_a_composed_schedule_is_torchs_and_resumes(name):
    follow(COMPOSED[name], momentum=0.5)


@pytest.mark.parametrize("name", ["CyclicLR", "OneCycleLR"])
def test_the_first_beta_is_the_momentum_of_adam(name):
    for kwargs in ONE[name]:
        follow(lambda m, o, kwargs=kwargs: getattr(m, name)(o, **kwargs), steps=40, kind="AdamW")


@pytest.mark.parametrize(("name", "kwargs"), CASES)
def test_a_step_to_an_epoch_is_torchs(name, kwargs):
    ours, theirs = optimizers(momentum=0.5)
    schedule = getattr(optim.lr_scheduler, name)(ours, **kwargs)
    reference = getattr(torch.optim.lr_scheduler, name)(theirs, **kwargs)
    epochs = (1, 2, 9, 40, 3, 3, 0) if name != "CosineAnnealingWarmRestarts" else (0.5, 1.25, 2, 9.5, 40.75, 3, 0)
    for epoch in epochs:
        ours.step()
        theirs.step()
        if name == "MultiplicativeLR" and epoch == 0:
            continue
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            schedule.step(epoch)
            own = len(seen)
            reference.step(epoch)
        assert own == len(seen) - own
        assert all("deprecated" in str(w.message) for w in seen)
        assert hyper(ours) == hyper(theirs), epoch
        assert schedule.last_epoch == reference.last_epoch


def test_signatures_are_torchs():
    ours, theirs = optim.lr_scheduler, torch.optim.lr_scheduler
    assert set(ours.__all__) == set(theirs.__all__)
    for name in theirs.__all__:
        own = [(p.name, p.default) for p in inspect.signature(getattr(ours, name)).parameters.values()]
        assert own == [(p.name, p.default) for p in inspect.signature(getattr(theirs, name)).parameters.values()], name


def test_a_schedule_before_its_optimizer_warns_where_torchs_does():
    for make in [*COMPOSED.values(), *(lambda m, o, n=n, k=k: getattr(m, n)(o, **k) for n, k in CASES)]:
        counts = []
        for m, optimizer in zip((optim.lr_scheduler, torch.optim.lr_scheduler), optimizers(momentum=0.5), strict=True):
            with warnings.catch_warnings(record=True) as seen:
                warnings.simplefilter("always")
                schedule = make(m, optimizer)
                schedule.step()
                schedule.step()
            counts.append(["before `optimizer.step()`" in str(w.message) for w in seen])
        assert counts[0] == counts[1]


@pytest.mark.parametrize("momentum", [False, True])
def test_a_compiled_step_follows_the_rate_and_the_momentum(momentum):
    def train(wrap):
        tg.manual_seed(0)
        layer = nn.Linear(3, 2)
        optimizer = optim.AdamW(layer.parameters(), lr=0.1)
        schedule = optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=20, cycle_momentum=momentum)

        def step(x):
            optimizer.zero_grad()
            loss = (layer(x) ** 2).sum()
            loss.backward()
            optimizer.step()
            return loss

        step = wrap(step)
        losses = []
        for t in range(20):
            losses.append(step(torch.full((4, 3), 0.1 * t)).item())
            schedule.step()
        return losses

    assert train(tg.compile) == train(lambda f: f)


def test_a_callable_object_of_a_cycle_is_in_the_state():
    class Scale:
        def __init__(self, a):
            self.a = a

        def __call__(self, x):
            return self.a**x

    ours, theirs = optimizers(momentum=0.5)
    cycle = {"base_lr": 0.1, "max_lr": 0.2, "step_size_up": 3}
    reference = torch.optim.lr_scheduler.CyclicLR(theirs, **cycle, scale_fn=Scale(0.5))
    schedule = optim.lr_scheduler.CyclicLR(ours, **cycle, scale_fn=Scale(0.9))
    schedule.load_state_dict(reference.state_dict())
    assert schedule.scale_fn(2) == 0.25
    assert schedule.state_dict()["_scale_fn_custom"] == {"a": 0.5}
    plain = optim.lr_scheduler.CyclicLR(ours, **cycle)
    with pytest.raises(StateError, match=r"CyclicLR: the state has \['a'\] of a scale_fn that is an object; got None"):
        plain.load_state_dict(reference.state_dict())


def test_schedules_name_what_they_cannot_use():
    ours, theirs = optimizers()
    m = optim.lr_scheduler
    other, _ = optimizers()
    plain = optim.Adagrad([nn.Parameter(torch.zeros(1))])
    refused = [
        (lambda: m.LinearLR(ours, start_factor=0), "LinearLR: start_factor must be above 0 and at most 1; got 0"),
        (lambda: m.LinearLR(ours, end_factor=2), "LinearLR: end_factor must be between 0 and 1; got 2"),
        (lambda: m.ConstantLR(ours, -1), "ConstantLR: factor must be between 0 and 1; got -1"),
        (lambda: m.MultiplicativeLR(ours, []), "MultiplicativeLR: lr_lambda must be one or 2 functions"),
        (lambda: m.CosineAnnealingWarmRestarts(ours, 0), "T_0 must be a positive int; got 0"),
        (lambda: m.CosineAnnealingWarmRestarts(ours, 2).step(-1), "epoch must not be negative; got -1"),
        (lambda: m.CyclicLR(ours, [0.1], 1.0), r"CyclicLR: base_lr must be one or 2 numbers; got \[0.1\]"),
        (lambda: m.CyclicLR(ours, 0.1, 1.0, mode="x"), "mode must be one of"),
        (lambda: m.CyclicLR(plain, 0.1, 1.0), "cycle_momentum must be False for Adagrad"),
        (lambda: m.OneCycleLR(ours, 0.1), "expected total_steps, or epochs and steps_per_epoch; got neither"),
        (lambda: m.OneCycleLR(ours, 0.1, 10, pct_start=2.0), "pct_start must be a float between 0 and 1; got 2.0"),
        (lambda: m.SequentialLR(ours, [], []), r"SequentialLR: schedulers must be at least one; got \[\]"),
        (lambda: m.SequentialLR(ours, [m.StepLR(ours, 1)], [3]), "milestones must be 0 steps"),
        (lambda: m.SequentialLR(ours, [m.StepLR(other, 1)], []), r"schedulers\[0\].optimizer must be the same for all"),
        (lambda: m.ChainedScheduler([m.ReduceLROnPlateau(ours)]), r"schedulers\[0\] must be a schedule that steps"),
    ]
    for call, message in refused:
        with pytest.raises(ArgumentError, match=message):
            call()
    with pytest.raises(TypeError, match="OneCycleLR: optimizer must be a tapegrad"):
        m.OneCycleLR(theirs, 0.1, 10)
    chain = m.ChainedScheduler([m.StepLR(ours, 1)])
    with pytest.raises(StateError, match="ChainedScheduler: the state is of 2 schedules; expected 1"):
        chain.load_state_dict({"_schedulers": [{}, {}]})


def test_a_cycle_that_is_over_says_so_and_changes_nothing():
    ours, _ = optimizers(momentum=0.5)
    schedule = optim.lr_scheduler.OneCycleLR(ours, 0.1, total_steps=2)
    for _ in range(2):
        ours.step()
        schedule.step()
    before = hyper(ours)
    with pytest.raises(ArgumentError, match=r"OneCycleLR: step\(\) must be called at most 2 times; got 3"):
        schedule.step()
    assert hyper(ours) == before
    assert schedule.last_epoch == 2
