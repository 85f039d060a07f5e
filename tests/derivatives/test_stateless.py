"""`functional_call`, `stack_module_state` and `vmap` against torch.func's."""

from __future__ import annotations

import pytest
import torch

import tapegrad as tg
from tapegrad import nn
from tapegrad.core import ArgumentError, ShapeError, StateError


def networks():
    torch.manual_seed(0)
    theirs = [torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4)).double().eval() for _ in range(3)]
    ours = [nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)).double().eval() for _ in range(3)]
    for a, b in zip(ours, theirs, strict=True):
        a.load_state_dict(b.state_dict())
    return ours, theirs


X = torch.linspace(-1, 1, 15, dtype=torch.float64).reshape(5, 3)


def test_a_functional_call_uses_what_is_given_and_leaves_the_module_alone():
    (ours, *_), (theirs, *_) = networks()
    values = {name: p.data * 2 for name, p in ours.named_parameters()}
    weight = tg.tensor(values["0.weight"]).requires_grad_()
    y = tg.func.functional_call(ours, {**values, "0.weight": weight}, X)
    reference = values["0.weight"].clone().requires_grad_()
    expected = torch.func.functional_call(theirs, {**values, "0.weight": reference}, X)
    torch.testing.assert_close(y.data, expected.detach())
    (y**2).sum().backward()
    (expected**2).sum().backward()
    torch.testing.assert_close(weight.grad.data, reference.grad)
    assert ours[0].weight.grad is None
    assert torch.equal(ours(X).data, ours(X).data)
    torch.testing.assert_close(ours(X).data, theirs(X).detach())
    assert isinstance(ours[0].weight, nn.Parameter)
    with pytest.raises(StateError, match=r"missing \['0.bias'.* and unexpected \['no'\]"):
        tg.func.functional_call(ours, {"0.weight": weight, "no": weight}, (X,), strict=True)
    with pytest.raises(ArgumentError, match=r"'0\.weight' is given twice"):
        tg.func.functional_call(ours, ({"0.weight": weight}, {"0.weight": weight}), (X,))


def test_tied_weights_are_replaced_together():
    class Tied(nn.Module):
        def __init__(self):
            self.a = nn.Linear(3, 3)
            self.b = nn.Linear(3, 3)
            self.b.weight = self.a.weight

        def forward(self, x):
            return self.b(self.a(x))

    net = Tied().double()
    eye = torch.eye(3, dtype=torch.float64)
    zero = torch.zeros(3, dtype=torch.float64)
    values = {"a.weight": eye * 2, "a.bias": zero, "b.bias": zero}
    assert torch.equal(tg.func.functional_call(net, values, X).data, X * 4)
    apart = tg.func.functional_call(net, values, X, tie_weights=False).data
    torch.testing.assert_close(apart, X * 2 @ net.a.weight.data.T)


def test_an_ensemble_runs_as_in_torch():
    ours, theirs = networks()
    params, buffers = tg.func.stack_module_state(ours)
    params_, buffers_ = torch.func.stack_module_state(theirs)
    assert list(params) == list(params_)
    assert set(buffers) == set(buffers_)

    def run(p, b, x):
        return tg.func.functional_call(ours[0], (p, b), (x,))

    def run_(p, b, x):
        return torch.func.functional_call(theirs[0], (p, b), (x,))

    y = tg.func.vmap(run, in_dims=(0, 0, None))(params, buffers, X)
    expected = torch.func.vmap(run_, in_dims=(0, 0, None))(params_, buffers_, X)
    torch.testing.assert_close(y.data, expected.detach())
    y.sin().sum().backward()
    expected.sin().sum().backward()
    for name, p in params.items():
        torch.testing.assert_close(p.grad.data, params_[name].grad)


def test_gradients_of_each_example_are_torchs():
    w = torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64)
    own = tg.func.vmap(tg.func.grad(lambda w, x: (w * x).sum().sin()), in_dims=(None, 0))(tg.tensor(w), tg.tensor(X))
    theirs = torch.func.vmap(torch.func.grad(lambda w, x: (w * x).sum().sin()), in_dims=(None, 0))(w, X)
    torch.testing.assert_close(own.data, theirs)


@pytest.mark.parametrize(
    ("in_dims", "out_dims"), [(0, 0), (1, 0), ((0, None), 1), ((None, 1), -1), ((0, 1), (0, 1)), ((-1, 0), 0)]
)
def test_dimensions_are_torchs(in_dims, out_dims):
    random = torch.Generator().manual_seed(0)
    a, b = (torch.rand(4, 4, 4, generator=random) for _ in range(2))

    def f(x, y):
        return (x * y.sum(0), x.exp()) if isinstance(out_dims, tuple) else x @ y

    own = tg.func.vmap(f, in_dims, out_dims)(tg.tensor(a), tg.tensor(b))
    theirs = torch.func.vmap(f, in_dims, out_dims)(a, b)
    pairs = zip(own, theirs, strict=True) if isinstance(theirs, tuple) else [(own, theirs)]
    for x, y in pairs:
        torch.testing.assert_close(x.data, y)


def test_they_nest_and_say_what_they_cannot_do():
    a = torch.arange(6.0).reshape(2, 3)
    twice = tg.func.vmap(tg.func.vmap(lambda x: x * x + 1))(tg.tensor(a))
    assert torch.equal(twice.data, a * a + 1)
    with pytest.raises(ShapeError, match=r"of one size; got sizes \[2, 3\]"):
        tg.func.vmap(lambda x, y: x, in_dims=(0, 1))(tg.tensor(a), tg.tensor(a))
    with pytest.raises(ArgumentError, match="randomness must be 'error' or 'different'; got 'same'"):
        tg.func.vmap(lambda x: x, randomness="same")
    with pytest.raises(ArgumentError, match="in_dims must be a number, None, or nested"):
        tg.func.vmap(lambda x: x, in_dims=(0, 0))(tg.tensor(a))
    with pytest.raises(ArgumentError, match="out_dims must be a number or one for each result"):
        tg.func.vmap(lambda x: x, out_dims=(0, 0))(tg.tensor(a))
    with pytest.raises(ArgumentError, match="models must be of one class"):
        tg.func.stack_module_state([nn.Linear(1, 1), nn.ReLU()])
    with pytest.raises(ArgumentError, match="expected at least one model; got none"):
        tg.func.stack_module_state([])
