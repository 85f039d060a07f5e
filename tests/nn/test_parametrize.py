"""Weights as functions of others: keys, values and gradients as torch's, compiled steps, setting, removing, errors."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from layers import floats

import tapegrad as tg
from tapegrad import nn
from tapegrad.nn import utils
from tapegrad.nn.utils import parametrizations, parametrize

T = torch.nn.utils


def old_weight_norm(lib, layer, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return lib.weight_norm(layer, **options)


# name: (library's nn.utils, layer) -> the layer
WAYS = {
    "weight_norm": lambda lib, layer: lib.parametrizations.weight_norm(layer),
    "weight_norm, dim 1": lambda lib, layer: lib.parametrizations.weight_norm(layer, dim=1),
    "weight_norm, one norm": lambda lib, layer: lib.parametrizations.weight_norm(layer, dim=None),
    "weight_norm of the bias": lambda lib, layer: lib.parametrizations.weight_norm(layer, "bias"),
    "spectral_norm": lambda lib, layer: lib.parametrizations.spectral_norm(layer, n_power_iterations=2),
    "spectral_norm, dim 1": lambda lib, layer: lib.parametrizations.spectral_norm(layer, dim=1),
    "spectral_norm of the bias": lambda lib, layer: lib.parametrizations.spectral_norm(layer, "bias"),
    "orthogonal": lambda lib, layer: lib.parametrizations.orthogonal(layer),
    "orthogonal, exp": lambda lib, layer: lib.parametrizations.orthogonal(layer, orthogonal_map="matrix_exp"),
    "orthogonal, cayley": lambda lib, layer: lib.parametrizations.orthogonal(layer, orthogonal_map="cayley"),
    "orthogonal, plain": lambda lib, layer: lib.parametrizations.orthogonal(layer, use_trivialization=False),
    "old weight_norm": old_weight_norm,
    "old weight_norm, one norm": lambda lib, layer: old_weight_norm(lib, layer, dim=None),
    "old spectral_norm": lambda lib, layer: lib.spectral_norm(layer),
}
LAYERS = {
    "Linear": (lambda lib: lib.Linear(4, 3), (5, 4)),
    "tall": (lambda lib: lib.Linear(2, 4), (5, 2)),
    "square": (lambda lib: lib.Linear(3, 3), (5, 3)),
    "Conv2d": (lambda lib: lib.Conv2d(4, 3, 2), (2, 4, 3, 3)),
    "ConvTranspose2d": (lambda lib: lib.ConvTranspose2d(4, 3, 2), (2, 4, 3, 3)),
}
CASES = [
    (way, layer)
    for way in WAYS
    for layer in LAYERS
    if not ("orthogonal" in way and "Conv" in layer and way != "orthogonal, cayley")
    and (way, layer) != ("spectral_norm of the bias", "ConvTranspose2d")  # whose dimension is 1 by default
]


def both(way: str, layer: str):
    """Our layer and torch's, made the same way, with the same state."""
    make, shape = LAYERS[layer]
    torch.manual_seed(0)
    ours, theirs = WAYS[way](utils, make(nn).double()), WAYS[way](T, make(torch.nn).double())
    state = {key: value + 0.1 * floats(*value.shape, seed=3) for key, value in theirs.state_dict().items()}
    for key, value in state.items():
        if key.endswith("base"):
            state[key] = torch.linalg.qr(value)[0]
        if "orthogonal" in way and key.endswith("original"):  # of the diagonal only the sign counts
            value.diagonal(dim1=-2, dim2=-1).copy_(theirs.state_dict()[key].diagonal(dim1=-2, dim2=-1))
    theirs.load_state_dict(state)
    assert list(ours.state_dict()) == list(state)
    ours.load_state_dict({key: value.clone() for key, value in state.items()})
    return ours, theirs, floats(*shape)


@pytest.mark.parametrize(("way", "layer"), CASES)
def test_keys_values_gradients_and_buffers_are_torchs(way, layer):
    ours, theirs, x = both(way, layer)
    for training in (True, False):
        for side in (ours, theirs):
            side.train(training)
            side.zero_grad()
        ys = [side(x) for side in (ours, theirs)]
        for y in ys:
            (y * floats(*y.shape, seed=5)).sum().backward()
        torch.testing.assert_close(ys[0].data, ys[1].detach(), rtol=1e-9, atol=1e-10)
        parameters = dict(theirs.named_parameters())
        assert list(dict(ours.named_parameters())) == list(parameters)
        for key, p in ours.named_parameters():
            torch.testing.assert_close(p.grad.data, parameters[key].grad, rtol=1e-8, atol=1e-9)
        for key, value in ours.state_dict().items():
            torch.testing.assert_close(value.data, theirs.state_dict()[key], rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("way", [way for way in WAYS if "orthogonal" not in way])
def test_training_goes_as_in_torch(way):
    ours, theirs, x = both(way, "Linear")
    optimizers = tg.optim.SGD(ours.parameters(), lr=0.1), torch.optim.SGD(theirs.parameters(), lr=0.1)
    for _ in range(4):
        for layer, optimizer in zip((ours, theirs), optimizers, strict=True):
            optimizer.zero_grad()
            (layer(x) ** 2).sum().backward()
            optimizer.step()
    for key, value in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[key].data, value, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("way", list(WAYS))
def test_a_compiled_step_is_the_eager_one(way):
    results = []
    for compiled in (False, True):
        tg.manual_seed(0)
        model = WAYS[way](utils, nn.Linear(4, 4))
        optimizer = tg.optim.SGD(model.parameters(), lr=0.1)

        def step(x, model=model, optimizer=optimizer):
            optimizer.zero_grad()
            loss = (model(x) ** 2).mean()
            loss.backward()
            optimizer.step()
            return loss

        run = tg.compile(step) if compiled else step
        losses = [run(floats(5, 4, seed=i).float()).item() for i in range(5)]
        if compiled:
            assert run.programs
        results.append((losses, [v.data for v in model.state_dict().values()]))
    assert results[0][0] == results[1][0]
    assert all(torch.equal(a, b) for a, b in zip(results[0][1], results[1][1], strict=True))


def test_old_norms_are_taken_off_again():
    for way, remove in (("old weight_norm", "remove_weight_norm"), ("old spectral_norm", "remove_spectral_norm")):
        ours, theirs, x = both(way, "Linear")
        for lib, layer in ((utils, ours), (T, theirs)):
            layer.eval()
            assert getattr(lib, remove)(layer) is layer
        torch.testing.assert_close(ours(x).data, theirs(x).detach(), rtol=1e-9, atol=1e-10)
        assert list(ours.state_dict()) == list(theirs.state_dict()) == ["bias", "weight"]
        assert isinstance(ours.weight, nn.Parameter)
        with pytest.raises(tg.ArgumentError, match=rf"{remove}: weight of Linear has no"):
            getattr(utils, remove)(ours)
    with pytest.warns(FutureWarning, match="parametrizations.weight_norm"):
        layer = utils.weight_norm(nn.Linear(2, 3))
    with pytest.raises(tg.StateError, match="weight_norm: weight of Linear has one already"):
        old_weight_norm(utils, layer)


class Symmetric(nn.Module):
    def forward(self, x):
        return x.triu() + x.triu(1).transpose(-1, -2)

    def right_inverse(self, x):
        return x.triu()


class Half(nn.Module):
    def forward(self, x):
        return x / 2


def test_parametrizations_are_applied_one_after_the_other_set_and_removed():
    layer = nn.Linear(3, 3)
    parameter, before = layer.weight, layer.weight.data.clone()
    assert not parametrize.is_parametrized(layer)
    assert parametrize.register_parametrization(layer, "weight", Symmetric()) is layer
    assert type(layer).__name__ == "ParametrizedLinear"
    assert isinstance(layer, nn.Linear)
    assert parametrize.type_before_parametrizations(layer) is nn.Linear
    assert parametrize.is_parametrized(layer, "weight")
    assert not parametrize.is_parametrized(layer, "bias")
    assert layer.parametrizations.weight.original is parameter  # which an optimizer may hold
    assert torch.equal(layer.weight.data, before.triu() + before.triu(1).T)
    value = floats(3, 3).float()
    layer.weight = tg.tensor(value + value.T)
    torch.testing.assert_close(layer.weight.data, value + value.T)
    parametrize.register_parametrization(layer, "weight", Half())
    torch.testing.assert_close(layer.weight.data, (value + value.T) / 2)
    with pytest.raises(tg.OpError, match="parametrization Half does not implement right_inverse"):
        layer.weight = tg.tensor(value)
    twin = copy.deepcopy(layer)
    assert torch.equal(twin.weight.data, layer.weight.data)
    twin.parametrizations.weight.original.data.zero_()
    assert layer.weight.data.abs().max() > 0
    with parametrize.cached():
        assert layer.weight is layer.weight
    assert layer.weight is not layer.weight
    assert parametrize.remove_parametrizations(layer, "weight") is layer
    assert type(layer) is nn.Linear
    assert layer.weight is parameter
    torch.testing.assert_close(layer.weight.data, (value + value.T) / 2)
    assert list(layer.state_dict()) == ["bias", "weight"]
    parametrize.remove_parametrizations(twin, "weight", leave_parametrized=False)
    assert torch.equal(twin.weight.data, torch.zeros(3, 3))


def test_parametrizations_are_transferred():
    a, b = nn.Linear(3, 3), nn.Linear(3, 3)
    parametrizations.weight_norm(parametrize.register_parametrization(a, "bias", Half()))
    parametrize.transfer_parametrizations_and_params(a, b)
    assert list(a.state_dict()) == list(b.state_dict())
    assert torch.equal(a.weight.data, b.weight.data)
    assert torch.equal(a.bias.data, b.bias.data)
    parametrize.remove_parametrizations(b, "weight")
    assert isinstance(b.weight, nn.Parameter)


def test_an_assigned_matrix_is_made_orthogonal():
    layer = parametrizations.orthogonal(nn.Linear(4, 6).double())
    value = floats(6, 4)
    layer.weight = tg.tensor(value)
    w = layer.weight.data
    torch.testing.assert_close(w.T @ w, torch.eye(4, dtype=w.dtype), rtol=1e-12, atol=1e-12)
    expected = torch.linalg.qr(value)[0]
    torch.testing.assert_close(w.abs(), expected.abs(), rtol=1e-10, atol=1e-12)
    plain = parametrizations.orthogonal(nn.Linear(3, 3), orthogonal_map="cayley", use_trivialization=False)
    with pytest.raises(NotImplementedError, match="cayley"):
        plain.weight = plain.weight.detach()


def test_wrong_arguments_are_named():
    class Flat(nn.Module):
        def forward(self, x):
            return x.reshape(-1)

    class Whole(nn.Module):
        def forward(self, x):
            return x.double()

    layer = nn.Linear(3, 2)
    before = dict(layer.__dict__)
    for call, error, message in (
        (lambda: parametrize.register_parametrization(layer, "weight", Flat()), tg.ShapeError, "shape must stay"),
        (lambda: parametrize.register_parametrization(layer, "weight", Whole()), tg.DTypeError, "dtype must stay"),
        (lambda: parametrize.register_parametrization(layer, "w", Half()), tg.ArgumentError, "tensor_name must name"),
        (lambda: parametrize.remove_parametrizations(layer, "weight"), tg.ArgumentError, "is not parametrized"),
        (lambda: parametrizations.weight_norm(layer, dim=2), tg.ShapeError, "weight_norm: dim must be"),
        (lambda: parametrizations.spectral_norm(layer, dim=2), tg.ShapeError, "spectral_norm: dim must be"),
        (lambda: parametrizations.spectral_norm(layer, n_power_iterations=0), tg.ArgumentError, "n_power_iterations"),
        (lambda: parametrizations.orthogonal(layer, "bias"), tg.ArgumentError, "orthogonal: bias must be a matrix"),
        (lambda: parametrizations.orthogonal(layer, orthogonal_map="qr"), tg.ArgumentError, "orthogonal_map must be"),
        (lambda: parametrizations.orthogonal(layer, "w"), tg.ArgumentError, "orthogonal: name must be"),
        (lambda: old_weight_norm(utils, layer, name="w"), tg.ArgumentError, "weight_norm: name must be"),
        (lambda: utils.spectral_norm(layer, n_power_iterations=0), tg.ArgumentError, "n_power_iterations must be"),
    ):
        with pytest.raises(error, match=message):
            call()
        assert layer.__dict__ == before
        assert type(layer) is nn.Linear
