"""LBFGS against torch's, in float64: the same trajectory, evaluations and state."""

from __future__ import annotations

import inspect

import pytest
import torch

import tapegrad as tg
from tapegrad import nn, optim
from tapegrad.core import ArgumentError, StateError

LIMITED = "max_ls=" in inspect.getsource(torch.optim.LBFGS.step)  # torch 2.9's search goes on beyond max_eval
VARIANTS = [
    {},
    {"lr": 0.1, "max_iter": 5},
    {"history_size": 3, "max_iter": 9},
    {"line_search_fn": "strong_wolfe"},
    {"line_search_fn": "strong_wolfe", "lr": 0.3, "history_size": 4, "max_iter": 7},
    {"line_search_fn": "strong_wolfe", "max_eval": 4},
    *([{"line_search_fn": "strong_wolfe", "max_iter": 1}] if LIMITED else []),
    *([{"line_search_fn": "strong_wolfe", "lr": 30.0, "max_iter": 6}] if LIMITED else []),
    {"max_eval": 3, "tolerance_grad": 1e-3, "tolerance_change": 1e-4, "lr": 0.05},
]


def rosenbrock(x, y):
    """A curved valley in x, a bowl in y."""
    return (100 * (x[1:] - x[:-1] ** 2) ** 2).sum() + ((1 - x[:-1]) ** 2).sum() + ((y - 2) ** 4).sum()


class Side:
    """One library's parameters and optimizer; how often its closure was called."""

    def __init__(self, parameter, make, kwargs, bend=rosenbrock):
        start = torch.linspace(-1.2, 1.0, 6, dtype=torch.float64), torch.ones(2, 2, dtype=torch.float64)
        self.params = [parameter(value.clone()) for value in start]
        self.unused = parameter(torch.ones(3, dtype=torch.float64))
        self.optimizer = make([*self.params, self.unused], **kwargs)
        self.bend, self.calls = bend, 0

    def closure(self):
        self.calls += 1
        self.optimizer.zero_grad()
        loss = self.bend(*self.params)
        loss.backward()
        return loss

    def step(self):
        return self.optimizer.step(self.closure).item()


def sides(kwargs, bend=rosenbrock):
    return Side(nn.Parameter, optim.LBFGS, kwargs, bend), Side(torch.nn.Parameter, torch.optim.LBFGS, kwargs, bend)


def check(ours, theirs, rtol=1e-7):
    """Gradients round differently in the two libraries, and the valley makes more of it."""
    for p, q in zip(ours.params, theirs.params, strict=True):
        torch.testing.assert_close(p.data, q.detach(), rtol=rtol, atol=1e-12)


@pytest.mark.parametrize("kwargs", VARIANTS)
@pytest.mark.parametrize("shape", ["valley", "bowl", "bumps"])
def test_the_trajectory_is_torchs(kwargs, shape):
    bends = {
        "valley": rosenbrock,
        "bowl": lambda x, y: (x**2 * 3 + x).sum() + (y * y).sum(),
        "bumps": lambda x, y: (x**2).sum() + (3 * x).sin().sum() + (y**2).sum() - (2 * y).cos().sum(),
    }
    ours, theirs = sides(kwargs, bends[shape])
    for t in range(12):
        a, b = ours.step(), theirs.step()
        if not abs(b) < 1e6:  # no line search: torch's flies off too
            assert not abs(a) < 1e6
            break
        assert a == pytest.approx(b, rel=1e-7, abs=1e-12), t
        assert ours.calls == theirs.calls, t
        check(ours, theirs)
    assert torch.equal(ours.unused.data, torch.ones(3, dtype=torch.float64))


def test_the_valley_is_walked_to_its_end():
    ours, _ = sides({"line_search_fn": "strong_wolfe", "max_iter": 100, "tolerance_change": 1e-14})
    for _ in range(5):
        ours.step()
    assert rosenbrock(*ours.params).item() < 1e-10


@pytest.mark.parametrize("search", [None, "strong_wolfe"])
def test_state_goes_to_torch_and_back(search):
    kwargs = {"line_search_fn": search, "max_iter": 4, "history_size": 5, "lr": 0.01 if search is None else 1}
    ours, theirs = sides(kwargs)
    for _ in range(3):
        ours.step()
        theirs.step()
    own, state = ours.optimizer.state_dict(), theirs.optimizer.state_dict()
    assert own["param_groups"] == state["param_groups"]
    assert set(own["state"][0]) == set(state["state"][0])
    assert own["state"][0]["func_evals"] == state["state"][0]["func_evals"] == ours.calls
    fresh, other = sides(kwargs)
    for new, old, saved in ((fresh, ours, state), (other, theirs, own)):
        new.optimizer.load_state_dict(saved)
        with torch.no_grad():
            for p, q in zip(new.params, old.params, strict=True):
                p.data.copy_(q.data)
    for _ in range(3):
        fresh.step()
        other.step()
        theirs.step()
        check(fresh, theirs)
        check(other, theirs)


def test_a_run_that_is_saved_and_resumed_is_the_same_bit_for_bit():
    kwargs = {"line_search_fn": "strong_wolfe", "max_iter": 3}
    whole, _ = sides(kwargs)
    for _ in range(6):
        whole.step()
    first, second = sides(kwargs)[0], sides(kwargs)[0]
    for _ in range(3):
        first.step()
    second.optimizer.load_state_dict(first.optimizer.state_dict())
    for p, q in zip(second.params, first.params, strict=True):
        p.data.copy_(q.data)
    for _ in range(3):
        second.step()
    assert all(torch.equal(p.data, q.data) for p, q in zip(whole.params, second.params, strict=True))


def test_the_closure_may_be_a_compiled_step():
    kwargs = {"line_search_fn": "strong_wolfe", "max_iter": 8}
    plain, compiled = sides(kwargs)[0], sides(kwargs)[0]
    closure = tg.compile(lambda: _gradients(compiled))
    for _ in range(4):
        assert plain.step() == float(compiled.optimizer.step(closure))
    assert all(torch.equal(p.data, q.data) for p, q in zip(plain.params, compiled.params, strict=True))


def _gradients(side):
    side.optimizer.zero_grad()
    loss = rosenbrock(*side.params)
    loss.backward()
    return loss


def test_lbfgs_names_what_it_cannot_use():
    p = nn.Parameter(torch.zeros(2))
    own = [(a.name, a.default) for a in inspect.signature(optim.LBFGS).parameters.values()]
    assert own == [(a.name, a.default) for a in inspect.signature(torch.optim.LBFGS).parameters.values()]
    with pytest.raises(ArgumentError, match="LBFGS: lr must not be negative; got -1"):
        optim.LBFGS([p], lr=-1)
    with pytest.raises(ArgumentError, match="line_search_fn must be one of None, 'strong_wolfe'; got 'armijo'"):
        optim.LBFGS([p], line_search_fn="armijo")
    with pytest.raises(ArgumentError, match="LBFGS: params must be one group"):
        optim.LBFGS([{"params": [p]}, {"params": [nn.Parameter(torch.zeros(1))]}])
    optimizer = optim.LBFGS([p])
    with pytest.raises(ArgumentError, match="LBFGS: step needs a closure"):
        optimizer.step()
    with pytest.raises(StateError, match="the state dict is of 2 parameters; expected 1"):
        optimizer.load_state_dict({"state": {}, "param_groups": [{"params": [0, 1]}]})
    with pytest.raises(StateError, match="the state is of 3 elements; the parameters have 2"):
        optimizer.load_state_dict({"state": {0: {"d": torch.zeros(3)}}, "param_groups": [{"params": [0]}]})


@pytest.mark.parametrize("name", ["SGD", "LBFGS"])
def test_step_hooks_run_around_a_step(name):
    seen = []
    p = nn.Parameter(torch.ones(2))
    optimizer = getattr(optim, name)([p], lr=0.1)

    def closure():
        seen.append("closure")
        optimizer.zero_grad()
        loss = (p * p).sum()
        loss.backward()
        return loss

    before = optimizer.register_step_pre_hook(lambda o, args, kwargs: seen.append((o is optimizer, args, kwargs)))
    after = optimizer.register_step_post_hook(lambda o, args, kwargs: seen.append(p.data.tolist() != [1.0, 1.0]))
    optimizer.step(closure)
    assert seen[:2] == [(True, (closure,), {}), "closure"]
    assert seen[-1] is True
    before.remove()
    after.remove()
    optimizer.register_step_pre_hook(lambda o, args, kwargs: ((closure,), {}))
    seen.clear()
    optimizer.step(None)
    assert set(seen) == {"closure"}
    optimizer.register_step_pre_hook(lambda o, args, kwargs: 3)
    with pytest.raises(ArgumentError, match="a step pre hook must return None or"):
        optimizer.step(closure)
