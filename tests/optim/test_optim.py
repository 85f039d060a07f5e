"""Optimizers and schedules against torch.optim, given the same gradients."""

from __future__ import annotations

import copy
import inspect
import math
import pickle
import warnings

import numpy as np
import pytest
import torch

import tapegrad as tg
from tapegrad import nn, optim
from tapegrad.core import ArgumentError, StateError
from tapegrad.nn.module import convert

VARIANTS = [
    ("SGD", {"lr": 0.1}),
    ("SGD", {"lr": 0.1, "weight_decay": 0.03}),
    ("SGD", {"lr": 0.1, "maximize": True, "weight_decay": 0.03}),
    ("SGD", {"lr": 0.1, "momentum": 0.9}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.4}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.4, "maximize": True, "weight_decay": 0.03}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.03}),
    ("Adam", {}),
    ("Adam", {"lr": 0.05, "betas": (0.8, 0.95), "eps": 1e-4, "weight_decay": 0.03}),
    ("Adam", {"lr": 0.05, "amsgrad": True}),
    ("Adam", {"lr": 0.05, "amsgrad": True, "maximize": True, "weight_decay": 0.03}),
    ("Adam", {"lr": 0.05, "decoupled_weight_decay": True, "weight_decay": 0.1}),
    ("AdamW", {"lr": 0.05}),
    ("AdamW", {"lr": 0.05, "weight_decay": 0.2, "amsgrad": True, "maximize": True}),
    ("RMSprop", {}),
    ("RMSprop", {"lr": 0.02, "alpha": 0.9, "eps": 1e-4, "weight_decay": 0.03}),
    ("RMSprop", {"lr": 0.02, "centered": True}),
    ("RMSprop", {"lr": 0.02, "momentum": 0.8}),
    ("RMSprop", {"lr": 0.02, "momentum": 0.8, "centered": True, "maximize": True, "weight_decay": 0.03}),
    ("Adadelta", {}),
    ("Adadelta", {"lr": 0.5, "rho": 0.8, "eps": 1e-4, "weight_decay": 0.03, "maximize": True}),
    ("Adagrad", {}),
    ("Adagrad", {"lr": 0.1, "lr_decay": 0.1, "weight_decay": 0.03, "initial_accumulator_value": 0.5}),
    ("Adamax", {}),
    ("Adamax", {"lr": 0.05, "betas": (0.8, 0.95), "eps": 1e-4, "weight_decay": 0.03, "maximize": True}),
    ("NAdam", {}),
    ("NAdam", {"lr": 0.05, "momentum_decay": 0.1, "weight_decay": 0.03, "decoupled_weight_decay": True}),
    ("NAdam", {"lr": 0.05, "betas": (0.8, 0.95), "weight_decay": 0.03, "maximize": True}),
    ("RAdam", {}),
    ("RAdam", {"lr": 0.05, "betas": (0.8, 0.95), "weight_decay": 0.03, "maximize": True}),
    ("RAdam", {"lr": 0.05, "weight_decay": 0.1, "decoupled_weight_decay": True}),
    ("ASGD", {}),
    ("ASGD", {"lr": 0.1, "lambd": 0.05, "alpha": 0.5, "t0": 2.0, "weight_decay": 0.03, "maximize": True}),
    ("Rprop", {}),
    ("Rprop", {"lr": 0.05, "etas": (0.4, 1.1), "step_sizes": (1e-3, 0.2), "maximize": True}),
]
SHAPES = [(3, 4), (4,), (), (2, 1, 3)]


class Pair:
    """The same parameters and gradients in both libraries."""

    def __init__(self, name, kwargs, dtype=torch.float64):
        self.random = torch.Generator().manual_seed(0)
        start = [torch.randn(shape, dtype=dtype, generator=self.random) for shape in SHAPES]
        self.ours = [nn.Parameter(value.clone()) for value in start]
        self.theirs = [torch.nn.Parameter(value.clone()) for value in start]
        self.optimizer = getattr(optim, name)(self.ours, **kwargs)
        self.reference = getattr(torch.optim, name)(self.theirs, **kwargs)

    def step(self, t):
        for i, (p, q) in enumerate(zip(self.ours, self.theirs, strict=True)):
            # of a bowl around 1, with noise; the last parameter gets its first gradient late and then only sometimes
            g = q.detach() - 1 + 0.3 * torch.randn(q.shape, dtype=q.dtype, generator=self.random)
            there = i < 3 or (t > 4 and t % 3 == 0)
            p.grad, q.grad = (g.clone(), g.clone()) if there else (None, None)
        self.optimizer.step()
        self.reference.step()

    def check(self, t, rtol=1e-13):
        for p, q in zip(self.ours, self.theirs, strict=True):
            torch.testing.assert_close(p.data, q.detach(), rtol=rtol, atol=1e-15, msg=lambda m: f"step {t}: {m}")


@pytest.mark.parametrize(("name", "kwargs"), VARIANTS)
def test_a_hundred_steps_follow_torch(name, kwargs):
    pair = Pair(name, kwargs)
    for t in range(100):
        pair.step(t)
        pair.check(t)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize(("name", "kwargs"), [row for row in VARIANTS if getattr(optim, row[0]).kernel])
def test_updates_are_torchs_bit_for_bit(name, kwargs, dtype, monkeypatch):
    """With roots that are rounded correctly, as ours are; MKL's, which torch takes, are not in one of 200 cases."""

    def sqrt(t):
        return torch.as_tensor(np.sqrt(t.numpy()))

    monkeypatch.setattr(torch.Tensor, "sqrt", sqrt)
    monkeypatch.setattr(torch.Tensor, "sqrt_", lambda t: t.copy_(sqrt(t)))
    pair = Pair(name, kwargs, dtype)
    for t in range(100):
        pair.step(t)
        assert all(torch.equal(p.data, q) for p, q in zip(pair.ours, pair.theirs, strict=True)), t


@pytest.mark.parametrize(("name", "kwargs"), VARIANTS)
def test_state_goes_to_torch_and_back(name, kwargs):
    pair = Pair(name, kwargs)
    assert pair.optimizer.state_dict()["state"] == {}  # as torch's, but for Adagrad's, which exists from the start
    for t in range(7):
        pair.step(t)
    ours, theirs = pair.optimizer.state_dict(), pair.reference.state_dict()
    updated = {i: state for i, state in theirs["state"].items() if state.get("step", 1) != 0}
    assert list(ours["state"]) == list(updated)
    for i, state in updated.items():
        assert list(ours["state"][i]) == list(state)
        for key, value in state.items():
            torch.testing.assert_close(ours["state"][i][key].data, value, rtol=1e-13, atol=1e-15)
    ignored = ("foreach", "capturable", "differentiable", "fused")
    hyper = {k: v for k, v in theirs["param_groups"][0].items() if k not in ignored}
    assert ours["param_groups"] == [hyper]

    # theirs into a fresh optimizer of ours
    pair.optimizer = getattr(optim, name)(pair.ours, **kwargs)
    pair.optimizer.load_state_dict(theirs)
    for t in range(7, 14):
        pair.step(t)
    pair.check(14)
    # ours into a fresh optimizer of theirs
    pair.reference = getattr(torch.optim, name)(pair.theirs, **kwargs)
    state = {i: {k: v.data.clone() for k, v in s.items()} for i, s in pair.optimizer.state_dict()["state"].items()}
    pair.reference.load_state_dict({"state": state, "param_groups": pair.optimizer.state_dict()["param_groups"]})
    for t in range(14, 21):
        pair.step(t)
    # torch's NAdam goes on with a product of float64 that it kept in float32 until it was loaded
    pair.check(21, rtol=1e-9 if name == "NAdam" else 1e-13)


@pytest.mark.parametrize(("name", "kwargs"), VARIANTS)
def test_resuming_from_a_state_dict_changes_no_bit(name, kwargs):
    one, two = Pair(name, kwargs), Pair(name, kwargs)
    for t in range(6):
        one.step(t)
        two.step(t)
    fresh = getattr(optim, name)(two.ours, lr=123.0)
    fresh.load_state_dict(pickle.loads(pickle.dumps(two.optimizer.state_dict())))
    two.optimizer = fresh
    for t in range(6, 12):
        one.step(t)
        two.step(t)
    for p, q in zip(one.ours, two.ours, strict=True):
        assert torch.equal(p.data, q.data)


@pytest.mark.parametrize("name", sorted({name for name, _ in VARIANTS}))
def test_arguments_and_defaults_are_torchs(name):
    ours = inspect.signature(getattr(optim, name)).parameters
    theirs = inspect.signature(getattr(torch.optim, name)).parameters
    assert {p.name: p.default for p in ours.values()} == {p.name: p.default for p in theirs.values()}
    positional = [p.name for p in ours.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert positional == list(theirs)[: len(positional)]


def test_parameters_may_come_with_their_names():
    model = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1))
    optimizer = optim.SGD(model.named_parameters(), lr=0.1, foreach=False)
    assert optimizer.param_groups[0]["param_names"] == [name for name, _ in model.named_parameters()]
    assert all(p is q for p, q in zip(optimizer.param_groups[0]["params"], model.parameters(), strict=True))
    with pytest.raises(ArgumentError, match="either all"):
        optim.SGD([("a", nn.Parameter(torch.ones(1))), nn.Parameter(torch.ones(1))])
    with pytest.raises(ArgumentError, match="differentiable must be False"):
        optim.Adam(model.parameters(), differentiable=True)


def test_groups_have_hyper_parameters_of_their_own():
    pair = Pair("SGD", {"lr": 0.1})
    groups = [{"params": 0, "lr": 0.3}, {"params": 1, "momentum": 0.5}]
    pair.optimizer = optim.SGD([{**g, "params": pair.ours[g["params"]]} for g in groups], lr=0.1)
    pair.reference = torch.optim.SGD([{**g, "params": pair.theirs[g["params"]]} for g in groups], lr=0.1)
    pair.optimizer.add_param_group({"params": pair.ours[2:], "weight_decay": 0.1})
    pair.reference.add_param_group({"params": pair.theirs[2:], "weight_decay": 0.1})
    for t in range(20):
        pair.step(t)
    pair.check(20)
    assert [g["params"] for g in pair.optimizer.state_dict()["param_groups"]] == [[0], [1], [2, 3]]
    assert list(pair.optimizer.state_dict()["state"]) == list(pair.reference.state_dict()["state"])
    for optimizer in (pair.optimizer, pair.reference):  # hyper-parameters are read on every step
        optimizer.param_groups[0]["lr"] = 0.01
        optimizer.param_groups[0]["momentum"] = 0.9
    for t in range(20, 30):
        pair.step(t)
    pair.check(30)


def test_a_tensor_is_a_learning_rate():
    pair = Pair("Adam", {"lr": 0.1})
    pair.optimizer.param_groups[0]["lr"] = tg.tensor(0.1, dtype=torch.float64)
    for t in range(3):
        pair.step(t)
    pair.check(3)
    scheduler = optim.lr_scheduler.ExponentialLR(pair.optimizer, 0.5)
    rate = pair.optimizer.param_groups[0]["lr"]
    pair.optimizer.step()
    scheduler.step()
    assert pair.optimizer.param_groups[0]["lr"] is rate
    assert rate.item() == pytest.approx(0.05)


def test_updates_are_in_place_and_seen_by_the_tape():
    p = nn.Parameter(torch.ones(3))
    optimizer = optim.SGD([p], lr=0.5)
    loss = (p * p).sum()
    storage = p.data
    p.grad = torch.ones(3)
    optimizer.step()
    assert p.data is storage
    assert p.tolist() == [0.5] * 3
    with pytest.raises(tg.MutationError):
        loss.backward()


def test_state_exists_from_construction_on_and_stays_where_it_is():
    p = nn.Parameter(torch.ones(3))
    optimizer = optim.Adam([p], amsgrad=True)
    before = {name: value.data.data_ptr() for name, value in optimizer.state[p].items()}
    assert sorted(before) == ["exp_avg", "exp_avg_sq", "max_exp_avg_sq", "step"]
    p.grad = torch.ones(3)
    optimizer.step()
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert {name: value.data.data_ptr() for name, value in optimizer.state[p].items()} == before


def test_zero_grad_and_closure():
    p = nn.Parameter(torch.tensor([3.0]))
    optimizer = optim.SGD([p], lr=0.25)

    def closure():
        optimizer.zero_grad()
        loss = (p * p).sum()
        loss.backward()
        return loss

    with tg.no_grad():
        assert optimizer.step(closure).item() == 9
    assert p.item() == 3 - 0.25 * 6
    optimizer.zero_grad(set_to_none=False)
    assert p.grad.tolist() == [0]
    optimizer.zero_grad()
    assert p.grad is None
    optimizer.step()  # nothing has a gradient
    assert p.item() == 1.5


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))])
def test_model_and_optimizer_are_copied_together(duplicate):
    model = nn.Linear(2, 2)
    optimizer = optim.Adam(model.parameters())
    x = torch.ones(3, 2)

    def step(model, optimizer):
        optimizer.zero_grad()
        model(x).sum().backward()
        optimizer.step()

    step(model, optimizer)
    twin, twin_optimizer = duplicate((model, optimizer))
    assert twin_optimizer.param_groups[0]["params"][0] is twin.weight
    for _ in range(2):
        step(model, optimizer)
        step(twin, twin_optimizer)
    assert torch.equal(model.weight.data, twin.weight.data)
    assert model.weight.data.data_ptr() != twin.weight.data.data_ptr()
    assert repr(optimizer) == repr(twin_optimizer)
    assert repr(optimizer).startswith("Adam (\nParameter Group 0\n    amsgrad: False\n    betas: (0.9, 0.999)\n")


@pytest.mark.parametrize(
    ("name", "kwargs", "message"),
    [
        ("SGD", {"lr": -0.1}, "SGD: lr must not be negative; got -0.1"),
        ("SGD", {"lr": math.nan}, "SGD: lr must not be negative; got nan"),
        ("SGD", {"momentum": -1}, "SGD: momentum must not be negative; got -1"),
        ("SGD", {"weight_decay": -1.0}, "SGD: weight_decay must not be negative; got -1.0"),
        ("SGD", {"nesterov": True}, "SGD: momentum must be positive with nesterov=True; got 0"),
        ("SGD", {"nesterov": True, "momentum": 0.9, "dampening": 0.1}, "SGD: dampening must be 0 with nesterov"),
        ("Adam", {"eps": -1.0}, "Adam: eps must not be negative; got -1.0"),
        ("Adam", {"betas": (0.9, 1.0)}, r"Adam: betas\[1\] must lie in \[0, 1\); got 1.0"),
        ("AdamW", {"betas": (-0.1, 0.9)}, r"AdamW: betas\[0\] must lie in \[0, 1\); got -0.1"),
        ("RMSprop", {"alpha": -0.1}, "RMSprop: alpha must not be negative; got -0.1"),
        ("RMSprop", {"momentum": -0.1}, "RMSprop: momentum must not be negative; got -0.1"),
    ],
)
def test_bad_hyper_parameters_are_named(name, kwargs, message):
    with pytest.raises(ArgumentError, match=message):
        getattr(optim, name)([nn.Parameter(torch.zeros(1))], **kwargs)


def test_bad_parameters_are_named():
    p = nn.Parameter(torch.zeros(2))
    with pytest.raises(ArgumentError, match="SGD: params must not be empty"):
        optim.SGD([])
    with pytest.raises(ArgumentError, match="params of a group must not be empty"):
        optim.SGD([{"params": []}])
    with pytest.raises(ArgumentError, match=r"SGD: params\[1\], f32\[2\], is given twice"):
        optim.SGD([p, p])
    with pytest.raises(ArgumentError, match=r"SGD: params\[0\], f32\[2\], is given twice"):
        optim.SGD([{"params": [p]}, {"params": [p]}])
    with pytest.raises(tg.TapeError, match=r"SGD: params\[0\] must be a leaf"):
        optim.SGD([p * 2])
    with pytest.raises(TypeError, match=r"SGD: params\[0\] must be a Tensor; got Parameter"):
        optim.SGD([torch.nn.Parameter(torch.zeros(1))][:1])
    with pytest.raises(TypeError, match=r"SGD: params\[0\] must be a Tensor; got int"):
        optim.SGD([1])
    with pytest.raises(TypeError, match="SGD: params must be an iterable of Tensors or dicts; got one Parameter"):
        optim.SGD(p)
    with pytest.raises(TypeError, match="must be a dict with 'params'"):
        optim.SGD([{"lr": 1.0}])
    with pytest.raises(TypeError, match="params must be ordered"):
        optim.SGD([{"params": {p}}])
    optimizer = optim.SGD([p])
    with pytest.raises(ArgumentError):
        optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(1))], "lr": -1.0})
    assert len(optimizer.param_groups) == 1


def test_a_failing_load_changes_nothing():
    pair = Pair("Adam", {"lr": 0.1})
    for t in range(7):
        pair.step(t)
    good = copy.deepcopy(pair.optimizer.state_dict())
    group = good["param_groups"][0]
    two = nn.Parameter(torch.zeros(2))
    cases = [
        ({}, StateError, "not an optimizer's state dict: KeyError: 'param_groups'"),
        (None, StateError, "not an optimizer's state dict: TypeError"),
        (optim.Adam([two]).state_dict(), StateError, r"has groups of \[1\] parameters; expected \[4\]"),
        ({**good, "state": {9: {}}}, StateError, "has state for 9, which is in none of its groups"),
        ({**good, "param_groups": [{**group, "lr": -1.0}]}, ArgumentError, "Adam: lr must not be negative; got -1.0"),
        (
            {**good, "state": {0: {**good["state"][0], "exp_avg": torch.zeros(2)}}},
            tg.ShapeError,
            r"Adam: state\[0\]\['exp_avg'\] has shape \[2\]; expected \[3, 4\]",
        ),
        (
            {**good, "state": {0: {"step": torch.tensor(1.0), "exp_avg": torch.zeros(3, 4)}}},
            StateError,
            r"Adam: state\[0\] lacks 'exp_avg_sq'",
        ),
        (
            {**good, "state": {0: {"momentum_buffer": torch.zeros(3, 4)}}},
            StateError,
            r"Adam: state\[0\] has 'momentum_buffer', which this optimizer does not keep",
        ),
    ]
    for state, error, message in cases:
        with pytest.raises(error, match=message):
            pair.optimizer.load_state_dict(state)
        now = pair.optimizer.state_dict()
        assert now["param_groups"] == good["param_groups"]
        for i, values in good["state"].items():
            assert all(torch.equal(now["state"][i][k].data, v.data) for k, v in values.items())


def test_a_model_converted_after_its_optimizer_was_made_is_named():
    model = nn.Linear(2, 2)
    optimizer = optim.Adam([{"params": [p]} for p in (model.bias, model.weight)])
    convert(model.weight, torch.float64)  # the second group, when the first could be updated
    model.bias.grad = torch.ones(2)
    before_bias = model.bias.data.clone()
    model.weight.grad = torch.ones(2, 2, dtype=torch.float64)
    with pytest.raises(tg.DTypeError):
        optimizer.step()
    assert torch.equal(model.bias.data, before_bias)
    model = nn.Linear(2, 2)
    optimizer = optim.Adam(model.parameters())
    model.double()
    model(torch.zeros(1, 2, dtype=torch.float64)).sum().backward()
    before = model.weight.data.clone()
    with pytest.raises(tg.DTypeError, match=r"exp_avg of a parameter is torch\.float32, the parameter torch\.float64"):
        optimizer.step()
    assert torch.equal(model.weight.data, before)


# --- schedules ---------------------------------------------------------------------------------------------------

SCHEDULES = [
    ("StepLR", {"step_size": 3, "gamma": 0.3}),
    ("StepLR", {"step_size": 1}),
    ("ExponentialLR", {"gamma": 0.9}),
    ("CosineAnnealingLR", {"T_max": 5, "eta_min": 0.01}),
    ("CosineAnnealingLR", {"T_max": 7}),
    ("LambdaLR", {"lr_lambda": lambda t: 0.9**t}),
    ("LambdaLR", {"lr_lambda": [lambda t: 1 / (1 + t), lambda t: 1.0]}),
]


def optimizers():
    values = torch.zeros(2)
    ours = [{"params": nn.Parameter(values), "lr": 0.3}, {"params": nn.Parameter(values)}]
    theirs = [{"params": torch.nn.Parameter(values), "lr": 0.3}, {"params": torch.nn.Parameter(values)}]
    return optim.SGD(ours, lr=0.1), torch.optim.SGD(theirs, lr=0.1)


def rates(optimizer):
    return [group["lr"] for group in optimizer.param_groups]


@pytest.mark.parametrize(("name", "kwargs"), SCHEDULES)
def test_schedules_are_torchs_bit_for_bit(name, kwargs):
    ours, theirs = optimizers()
    scheduler = getattr(optim.lr_scheduler, name)(ours, **kwargs)
    reference = getattr(torch.optim.lr_scheduler, name)(theirs, **kwargs)
    for t in range(25):
        assert rates(ours) == rates(theirs) == scheduler.get_last_lr() == reference.get_last_lr(), t
        assert scheduler.last_epoch == reference.last_epoch
        ours.step()
        theirs.step()
        scheduler.step()
        reference.step()
        if t == 11:  # a new schedule, on an optimizer that was saved and loaded, goes on from torch's state
            state = {**reference.state_dict()}
            fresh, _ = optimizers()
            fresh.load_state_dict(ours.state_dict())
            ours, scheduler = fresh, getattr(optim.lr_scheduler, name)(fresh, **kwargs)
            ours.load_state_dict(theirs.state_dict())
            scheduler.load_state_dict(state)
    signature = inspect.signature(getattr(torch.optim.lr_scheduler, name)).parameters
    own = inspect.signature(getattr(optim.lr_scheduler, name)).parameters
    assert [(p.name, p.default) for p in own.values()] == [(p.name, p.default) for p in signature.values()]


METRICS = [3.0, 2.0, 2.1, 2.2, 2.0, 1.99999, 1.5, 1.6, 1.7, 1.8, 1.9, 1.5, *[1.4] * 6, 0.5, 9.0, 9.0, 9.0, 9.0]


@pytest.mark.parametrize(
    "kwargs",
    [
        {"patience": 1},
        {"patience": 2, "factor": 0.5, "cooldown": 2, "min_lr": [0.1, 0.03]},
        {"patience": 0, "threshold": 0.2, "threshold_mode": "abs", "factor": 0.7},
        {"patience": 1, "mode": "max", "threshold": 0.05},
        {"patience": 1, "mode": "max", "threshold_mode": "abs", "min_lr": 0.02, "eps": 0.01},
    ],
)
def test_plateaus_are_torchs_bit_for_bit(kwargs):
    ours, theirs = optimizers()
    scheduler = optim.lr_scheduler.ReduceLROnPlateau(ours, **kwargs)
    reference = torch.optim.lr_scheduler.ReduceLROnPlateau(theirs, **kwargs)
    changed = False
    for t, metric in enumerate(METRICS):
        scheduler.step(tg.tensor(metric, dtype=torch.float64) if t % 2 else metric)
        reference.step(metric)
        assert rates(ours) == rates(theirs) == scheduler.get_last_lr(), t
        changed = changed or rates(ours) != [0.3, 0.1]
        if t == 9:
            scheduler = optim.lr_scheduler.ReduceLROnPlateau(ours, patience=99)
            scheduler.load_state_dict(reference.state_dict())
    assert changed
    ours_by_name = inspect.signature(optim.lr_scheduler.ReduceLROnPlateau).parameters
    theirs_by_name = inspect.signature(torch.optim.lr_scheduler.ReduceLROnPlateau).parameters
    expected = [(p.name, p.default) for p in theirs_by_name.values()]
    assert [(p.name, p.default) for p in ours_by_name.values()] == expected


ADDED = [
    ("StepLR", {"step_size": 3, "gamma": 0.3}),
    ("ExponentialLR", {"gamma": 0.9}),
    ("CosineAnnealingLR", {"T_max": 4, "eta_min": 0.01}),
    ("LambdaLR", {"lr_lambda": lambda t: 0.9**t}),
]


@pytest.mark.parametrize(("name", "kwargs"), ADDED)
def test_a_group_that_is_added_later_follows_the_schedule_from_its_own_rate(name, kwargs):
    ours, _ = optimizers()
    scheduler = getattr(optim.lr_scheduler, name)(ours, **kwargs)
    alone = optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.5)
    reference = None if name == "LambdaLR" else getattr(optim.lr_scheduler, name)(alone, **kwargs)
    plain, _ = optimizers()
    without = getattr(optim.lr_scheduler, name)(plain, **kwargs)
    for t in range(20):
        for optimizer in (ours, plain, alone):
            optimizer.step()
        if t == 8:
            ours.add_param_group({"params": nn.Parameter(torch.zeros(1)), "lr": 0.5})
            reference and reference.load_state_dict({**reference.state_dict(), "last_epoch": scheduler.last_epoch})
        scheduler.step()
        without.step()
        assert rates(ours)[:2] == rates(plain)
        if t >= 8:
            if reference is None:
                assert rates(ours)[2] == 0.5 * 0.9**scheduler.last_epoch
            else:
                reference.step()
                assert rates(ours)[2] == rates(alone)[0], t
    assert scheduler.base_lrs == [0.3, 0.1, 0.5]
    assert without.base_lrs == [0.3, 0.1]


def test_a_plateau_lowers_the_rate_of_a_group_that_is_added_later():
    ours, theirs = optimizers()
    both = (
        (ours, optim.lr_scheduler.ReduceLROnPlateau(ours, patience=0, factor=0.5, min_lr=0.02)),
        (theirs, torch.optim.lr_scheduler.ReduceLROnPlateau(theirs, patience=0, factor=0.5, min_lr=0.02)),
    )
    for make, (optimizer, scheduler) in zip((nn.Parameter, torch.nn.Parameter), both, strict=True):
        scheduler.step(1.0)
        optimizer.add_param_group({"params": make(torch.zeros(1)), "lr": 0.05})
        for _ in range(3):
            scheduler.step(2.0)
    assert rates(ours) == rates(theirs) == [0.3 / 8, 0.02, 0.02]


def test_a_list_of_functions_or_rates_that_lacks_a_new_group_is_named_and_changes_nothing():
    optimizer, _ = optimizers()
    schedules = optim.lr_scheduler
    functions = schedules.LambdaLR(optimizer, [lambda t: 1 / (1 + t), lambda t: 1.0])
    plateau = schedules.ReduceLROnPlateau(optimizer, patience=0, min_lr=[0.1, 0.03])
    optimizer.step()
    optimizer.add_param_group({"params": nn.Parameter(torch.zeros(1)), "lr": 0.5})
    with pytest.raises(ArgumentError, match="lr_lambdas has 2 functions for the optimizer's 3 groups; append"):
        functions.step()
    with pytest.raises(ArgumentError, match="min_lrs has 2 rates for the optimizer's 3 groups; append"):
        plateau.step(1.0)
    assert (functions.last_epoch, plateau.last_epoch, rates(optimizer)) == (0, 0, [0.3, 0.1, 0.5])
    functions.lr_lambdas.append(lambda t: 0.5**t)
    plateau.min_lrs.append(0.0)
    functions.step()
    plateau.step(1.0)
    assert rates(optimizer) == [0.15, 0.1, 0.25]


class Warm:
    """A callable with a state."""

    def __init__(self, steps):
        self.steps, self.seen = steps, []

    def __call__(self, t):
        self.seen.append(t)
        return min(1.0, (t + 1) / self.steps)


def test_the_state_of_callable_objects_is_saved_as_torchs():
    ours, theirs = optimizers()
    made = [(Warm(4), lambda t: 1.0) for _ in range(3)]
    scheduler = optim.lr_scheduler.LambdaLR(ours, made[0])
    reference = torch.optim.lr_scheduler.LambdaLR(theirs, made[1])
    for optimizer, schedule in ((ours, scheduler), (theirs, reference)):
        optimizer.step()
        schedule.step()
    state = scheduler.state_dict()
    assert state["lr_lambdas"] == reference.state_dict()["lr_lambdas"] == [{"steps": 4, "seen": [0, 1]}, None]
    fresh, _ = optimizers()
    made[2][0].steps = 100
    again = optim.lr_scheduler.LambdaLR(fresh, made[2])
    again.load_state_dict(reference.state_dict())
    assert vars(made[2][0]) == {"steps": 4, "seen": [0, 1]}
    fresh.step()
    again.step()
    assert rates(fresh) == pytest.approx([0.3 * 3 / 4, 0.1])
    assert made[1][0].seen == [0, 1]  # what was loaded is a copy
    with pytest.raises(StateError, match="the state is of 1 functions; expected 2"):
        again.load_state_dict({**state, "lr_lambdas": [None]})
    with pytest.raises(StateError, match=r"lr_lambdas\[1\] is a function; the state has \['a'\] of an object"):
        again.load_state_dict({**state, "lr_lambdas": [None, {"a": 1}]})
    assert again.last_epoch == 2


@pytest.mark.parametrize(("name", "kwargs"), SCHEDULES)
def test_a_schedule_that_steps_before_its_optimizer_warns_as_torchs(name, kwargs):
    for stepped, rounds in ((False, 1), (True, 1), (False, 2)):
        for module, optimizer in zip((optim, torch.optim), optimizers(), strict=True):
            scheduler = getattr(module.lr_scheduler, name)(optimizer, **kwargs)
            if name == "StepLR":  # a parameter added in between changes nothing about it
                parameter = nn.Parameter if module is optim else torch.nn.Parameter
                optimizer.add_param_group({"params": parameter(torch.zeros(1))})
            with warnings.catch_warnings(record=True) as seen:
                warnings.simplefilter("always")
                for _ in range(rounds):
                    if stepped:
                        optimizer.step()
                    scheduler.step()
            expected = 0 if stepped else 1
            assert [w.category for w in seen] == [UserWarning] * expected
            assert all("`lr_scheduler.step()` before `optimizer.step()`" in str(w.message) for w in seen)
            assert module is not optim or all(w.filename == __file__ for w in seen)  # torch 2.9's name its own file


def test_a_replayed_step_counts_as_a_step_of_the_optimizer():
    layer = nn.Linear(2, 1)
    optimizer = optim.SGD(layer.parameters(), lr=0.1)

    @tg.compile
    def step(x):
        optimizer.zero_grad()
        loss = layer(x).sum()
        loss.backward()
        optimizer.step()
        return loss

    for _ in range(4):
        step(torch.ones(3, 2))
    scheduler = optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    before = layer.weight.data.clone()
    step(torch.ones(3, 2))
    assert not torch.equal(before, layer.weight.data)
    scheduler.step()  # a warning would be an error here
    step(torch.ones(3, 2))
    assert optimizer.param_groups[0]["lr"] == 0.05


def test_a_failing_function_leaves_the_schedule_where_it_was():
    optimizer, _ = optimizers()
    limit = [2]
    scheduler = optim.lr_scheduler.LambdaLR(optimizer, lambda t: 1 / (limit[0] - t))
    optimizer.step()
    scheduler.step()
    with pytest.raises(ZeroDivisionError):
        scheduler.step()
    limit[0] = 4
    scheduler.step()
    assert (scheduler.last_epoch, rates(optimizer)) == (2, [0.15, 0.05])


def test_schedules_name_what_they_cannot_use():
    optimizer, reference = optimizers()
    schedules = optim.lr_scheduler
    with pytest.raises(TypeError, match=r"StepLR: optimizer must be a tapegrad\.optim\.Optimizer; got SGD"):
        schedules.StepLR(reference, 3)
    with pytest.raises(ArgumentError, match="StepLR: step_size must be positive; got 0"):
        schedules.StepLR(optimizer, 0)
    with pytest.raises(ArgumentError, match="CosineAnnealingLR: T_max must be positive; got 0"):
        schedules.CosineAnnealingLR(optimizer, 0)
    with pytest.raises(ArgumentError, match="LambdaLR: lr_lambda must be one or 2 functions"):
        schedules.LambdaLR(optimizer, [lambda t: 1.0])
    with pytest.raises(ArgumentError, match=r"last_epoch = 3 needs 'initial_lr' in param_groups\[0\]"):
        schedules.ExponentialLR(optimizer, 0.9, last_epoch=3)
    with pytest.raises(ArgumentError, match=r"factor must be less than 1; got 1.0"):
        schedules.ReduceLROnPlateau(optimizer, factor=1.0)
    with pytest.raises(ArgumentError, match="mode must be one of 'min', 'max'; got 'best'"):
        schedules.ReduceLROnPlateau(optimizer, mode="best")
    with pytest.raises(StateError, match="StepLR: not a schedule's state dict; got int"):
        schedules.StepLR(optimizer, 3).load_state_dict(3)
