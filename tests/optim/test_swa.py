"""Averages of weights against torch.optim.swa_utils; vectors of parameters; torch's old names."""

from __future__ import annotations

import inspect
import math

import pytest
import torch

import tapegrad as tg
from tapegrad import nn, optim
from tapegrad.core import ArgumentError, ShapeError


def pair():
    """The same small network with a batch norm in both libraries."""
    torch.manual_seed(0)
    theirs = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 2)).double()
    ours = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)).double()
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def same(ours, theirs):
    own, state = ours.state_dict(), theirs.state_dict()
    assert set(own) == set(state)
    for key, value in state.items():
        torch.testing.assert_close(own[key].data, value, rtol=1e-12, atol=1e-15)


RULES = {
    "default": lambda m: {},
    "buffers": lambda m: {"use_buffers": True},
    "ema lists": lambda m: {"multi_avg_fn": m.get_ema_multi_avg_fn(0.9), "use_buffers": True},
    "swa lists": lambda m: {"multi_avg_fn": m.get_swa_multi_avg_fn()},
    "ema": lambda m: {"avg_fn": m.get_ema_avg_fn(0.8)},
    "swa": lambda m: {"avg_fn": m.get_swa_avg_fn()},
    "own": lambda m: {"avg_fn": lambda a, p, n: 0.1 * a + 0.9 * p},
}


@pytest.mark.parametrize("rule", RULES)
def test_averages_are_torchs(rule):
    ours, theirs = pair()
    average = optim.swa_utils.AveragedModel(ours, **RULES[rule](optim.swa_utils))
    reference = torch.optim.swa_utils.AveragedModel(theirs, **RULES[rule](torch.optim.swa_utils))
    random = torch.Generator().manual_seed(1)
    for _ in range(5):
        for p, q in zip([*ours.parameters(), *ours.buffers()], [*theirs.parameters(), *theirs.buffers()], strict=True):
            change = torch.rand(q.shape, generator=random, dtype=torch.float64).mul(9).to(q.dtype)
            p.data.add_(change)
            q.data.add_(change)
        average.update_parameters(ours)
        reference.update_parameters(theirs)
        same(average, reference)
    x = torch.rand(5, 3, dtype=torch.float64)
    average.eval()
    reference.eval()
    torch.testing.assert_close(average(x).data, reference(x).detach())
    again = optim.swa_utils.AveragedModel(ours)
    again.load_state_dict(reference.state_dict())
    same(again, reference)


def test_update_bn_is_torchs():
    ours, theirs = pair()
    batches = torch.rand(4, 6, 3, dtype=torch.float64)
    optim.swa_utils.update_bn([(x, None) for x in batches], ours.eval())
    torch.optim.swa_utils.update_bn([(x, None) for x in batches], theirs.eval())
    same(ours, theirs)
    assert ours[1].momentum == 0.1
    assert not ours.training


@pytest.mark.parametrize(
    "kwargs",
    [
        {"swa_lr": 0.05},
        {"swa_lr": [0.5, 0.01], "anneal_epochs": 4, "anneal_strategy": "linear"},
        {"swa_lr": 1, "anneal_epochs": 0},
    ],
)
def test_swalr_is_torchs(kwargs):
    sides = []
    for library, parameter in ((optim, nn.Parameter), (torch.optim, torch.nn.Parameter)):
        groups = [{"params": parameter(torch.zeros(2)), "lr": 0.3}, {"params": parameter(torch.zeros(2))}]
        optimizer = library.SGD(groups, lr=0.1)
        warm = library.lr_scheduler.ExponentialLR(optimizer, 0.9)
        sides.append([optimizer, warm, library.swa_utils.SWALR(optimizer, **kwargs)])
    for t in range(40):
        for optimizer, warm, swa in sides:
            optimizer.step()
            (warm if t < 10 else swa).step()
        assert [g["lr"] for g in sides[0][0].param_groups] == [g["lr"] for g in sides[1][0].param_groups], t
        if t == 13:
            sides[0][2].load_state_dict(sides[1][2].state_dict())


def test_signatures_and_refusals():
    own, theirs = optim.swa_utils, torch.optim.swa_utils
    for name in theirs.__all__:
        mine = [(p.name, p.default) for p in inspect.signature(getattr(own, name)).parameters.values()]
        assert mine == [(p.name, p.default) for p in inspect.signature(getattr(theirs, name)).parameters.values()], name
    with pytest.raises(ArgumentError, match="decay must be between 0 and 1; got 2"):
        own.get_ema_multi_avg_fn(2)
    with pytest.raises(ArgumentError, match="expected avg_fn or multi_avg_fn; got both"):
        own.AveragedModel(nn.Linear(1, 1), avg_fn=own.get_swa_avg_fn(), multi_avg_fn=own.get_swa_multi_avg_fn())


def test_parameters_go_to_a_vector_and_back():
    ours, theirs = pair()
    vector = nn.utils.parameters_to_vector(ours.parameters())
    expected = torch.nn.utils.parameters_to_vector(theirs.parameters())
    assert torch.equal(vector.data, expected.detach())
    (vector**2).sum().backward()
    (expected**2).sum().backward()
    assert all(torch.equal(p.grad.data, q.grad) for p, q in zip(ours.parameters(), theirs.parameters(), strict=True))
    nn.utils.vector_to_parameters(vector * 2, ours.parameters())
    torch.nn.utils.vector_to_parameters(expected.detach() * 2, theirs.parameters())
    same(ours, theirs)
    with pytest.raises(ShapeError, match=r"vec must have shape \[34\]; got \[3\]"):
        nn.utils.vector_to_parameters(torch.zeros(3), ours.parameters())


def test_old_names_warn_and_do_the_same():
    def filled(name, *args):
        tg.manual_seed(3)
        return getattr(nn.init, name)(tg.zeros(5, 4), *args).data

    names = ["uniform", "normal", "orthogonal", "xavier_uniform", "xavier_normal", "kaiming_uniform", "kaiming_normal"]
    for name, args in [*((name, ()) for name in names), ("constant", (3.0,))]:
        assert hasattr(torch.nn.init, name)
        with pytest.warns(FutureWarning, match=f"`nn.init.{name}` is deprecated; use `nn.init.{name}_`"):
            old = filled(name, *args)
        assert torch.equal(old, filled(name + "_", *args))
    p = nn.Parameter(torch.ones(4))
    p.grad = torch.full((4,), 3.0)
    with pytest.warns(FutureWarning, match="`nn.utils.clip_grad_norm` is deprecated"):
        assert nn.utils.clip_grad_norm([p], 1.0).item() == 6.0
    assert p.grad.data.norm().item() == pytest.approx(1.0, rel=1e-5)


def test_a_truncated_normal_stays_within_and_has_the_moments():
    tg.manual_seed(0)
    x = nn.init.trunc_normal_(tg.zeros(200_000, dtype=torch.float64), mean=1.0, std=2.0, a=0.0, b=4.0).data
    assert x.min() >= 0
    assert x.max() <= 4
    low, high = -0.5, 1.5  # in standard deviations
    density = [math.exp(-z * z / 2) / math.sqrt(2 * math.pi) for z in (low, high)]
    mass = (math.erf(high / math.sqrt(2)) - math.erf(low / math.sqrt(2))) / 2
    shift = (density[0] - density[1]) / mass
    spread = 1 + (low * density[0] - high * density[1]) / mass - shift**2
    assert x.mean().item() == pytest.approx(1 + 2 * shift, abs=0.02)
    assert x.var().item() == pytest.approx(4 * spread, abs=0.02)
    own = [(p.name, p.default) for p in inspect.signature(nn.init.trunc_normal_).parameters.values()]
    assert own == [(p.name, p.default) for p in inspect.signature(torch.nn.init.trunc_normal_).parameters.values()]
