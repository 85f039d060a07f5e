"""torch's own samples of its optimizers (its test suite's data base), eager and compiled, against torch."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

import tapegrad as tg
from tapegrad import nn, optim

pytest.importorskip("torch.testing._internal.common_optimizers", reason="torch without its test utilities")
from torch.testing._internal.common_optimizers import optim_db

NAMES = ("Adadelta", "Adagrad", "Adam", "AdamW", "Adamax", "LBFGS", "NAdam", "RAdam", "RMSprop", "Rprop", "SGD")
SAMPLES = [
    pytest.param(info.name, sample.kwargs, id=f"{info.name}: {sample.desc}")
    for info in optim_db
    if info.name in NAMES
    for sample in info.optim_inputs_func(device="cpu")
]
SHAPES = [(3, 4), (4,), (), (2, 1, 3)]


def test_every_optimizer_has_samples():
    assert {param.values[0] for param in SAMPLES} == set(NAMES)
    assert len(SAMPLES) > 60


def ours_of(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Numbers that are tensors as ours, too."""
    return {k: tg.Tensor(v.clone()) if isinstance(v, torch.Tensor) else copy.deepcopy(v) for k, v in kwargs.items()}


def bowl(params: Any, centre: Any) -> Any:
    return sum((((p - centre) ** 2).sum() + (p**4).sum() * 0.1 for p in params), start=0.0 * centre)


def run(name: str, kwargs: dict[str, Any], library: Any, compile: Any, steps: int = 20) -> list[torch.Tensor]:
    """What steps down a bowl leave, in torch or here."""
    random = torch.Generator().manual_seed(0)
    start = [torch.randn(shape, dtype=torch.float64, generator=random) for shape in SHAPES]
    theirs = library is torch
    params = [library.nn.Parameter(value) for value in start]
    optimizer = getattr(library.optim, name)(params, **(copy.deepcopy(kwargs) if theirs else ours_of(kwargs)))

    def closure(centre: Any) -> Any:
        optimizer.zero_grad()
        loss = bowl(params, centre)
        loss.backward()
        return loss

    def whole(centre: Any) -> Any:
        loss = closure(centre)
        optimizer.step()
        return loss

    centres = [library.tensor(0.1 * (t % 3), dtype=torch.float64) for t in range(steps)]
    step = compile(closure if name == "LBFGS" else whole)
    for centre in centres:
        if name == "LBFGS":
            optimizer.step(lambda centre=centre: step(centre))
        else:
            step(centre)
    return [p.detach().clone() if theirs else p.data.clone() for p in params]


@pytest.mark.parametrize(("name", "kwargs"), SAMPLES)
def test_a_sample_is_torchs_and_compiles(name, kwargs):
    if kwargs.get("differentiable"):
        with pytest.raises(tg.ArgumentError, match="differentiable must be False"):
            run(name, kwargs, tg, lambda f: f)
        return
    eager = run(name, kwargs, tg, lambda f: f)
    for ours, theirs in zip(eager, run(name, kwargs, torch, lambda f: f), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-13)
    for ours, compiled in zip(eager, run(name, kwargs, tg, tg.compile), strict=True):
        assert torch.equal(ours, compiled)


def test_hooks_run_around_compiled_and_plain_steps():
    """Hooks are Python: what they return is honoured, and a compiled step with them steps as the plain one."""

    def train(compile):
        layer = nn.Linear(2, 1)
        optimizer = optim.SGD(layer.parameters(), lr=0.1, momentum=0.9)
        optimizer.register_step_post_hook(lambda o, args, kwargs: [p.data.mul_(0.9) for p in layer.parameters()])

        def step(x):
            optimizer.zero_grad()
            loss = (layer(x) ** 2).mean()
            loss.backward()
            optimizer.step()
            return loss

        step = compile(step)
        return [step(torch.full((3, 2), 0.5)).item() for _ in range(10)]

    sides = []
    for compile in (lambda f: f, tg.compile):
        tg.manual_seed(0)
        sides.append(train(compile))
    assert sides[0] == sides[1]


@pytest.mark.parametrize("name", ["SGD", "LBFGS"])
def test_hooks_of_state_dicts_are_torchs(name):
    sides = []
    for library in (tg, torch):
        seen: list[Any] = []
        p = library.nn.Parameter(torch.ones(2))
        optimizer = getattr(library.optim, name)([p], lr=0.5)
        optimizer.register_state_dict_pre_hook(lambda o, seen=seen: seen.append("before saving"))
        optimizer.register_state_dict_post_hook(lambda o, d: {**d, "mine": 1})
        optimizer.register_state_dict_post_hook(lambda o, d, seen=seen: seen.append(sorted(d)), prepend=True)
        gone = optimizer.register_load_state_dict_pre_hook(lambda o, d: 1 / 0)
        gone.remove()
        optimizer.register_load_state_dict_pre_hook(lambda o, d: d["param_groups"][0].update(lr=0.25))
        optimizer.register_load_state_dict_post_hook(lambda o, seen=seen: seen.append(o.param_groups[0]["lr"]))
        optimizer.register_load_state_dict_post_hook(lambda o, seen=seen: seen.append("first"), prepend=True)
        state = optimizer.state_dict()
        seen.append(sorted(state))
        optimizer.load_state_dict(state)
        sides.append(seen)
    assert sides[0] == sides[1]
    assert sides[0][-1] == 0.25
