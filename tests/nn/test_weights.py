"""Weight and spectral normalisation and parametrizations, against torch's, in both forms."""

import copy

import pytest
import torch

import tapegrad as tg
from tapegrad import nn
from tapegrad.nn.utils import parametrizations, parametrize

F64 = torch.float64
LAYERS = {
    "Linear": ((4, 3), (5, 4)),
    "Conv1d": ((2, 3, 3), (2, 2, 7)),
    "Conv2d": ((2, 3, 3), (2, 2, 6, 6)),
    "ConvTranspose1d": ((2, 3, 3), (2, 2, 5)),
}
FORMS = {
    "weight_norm": (torch.nn.utils.weight_norm, nn.utils.weight_norm),
    "spectral_norm": (torch.nn.utils.spectral_norm, nn.utils.spectral_norm),
    "parametrizations.weight_norm": (torch.nn.utils.parametrizations.weight_norm, parametrizations.weight_norm),
    "parametrizations.spectral_norm": (torch.nn.utils.parametrizations.spectral_norm, parametrizations.spectral_norm),
}


@pytest.mark.filterwarnings("ignore:.*weight_norm.*deprecated")
@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("form", FORMS)
def test_training_goes_as_in_torch(form, layer):
    args, shape = LAYERS[layer]
    wrap_theirs, wrap = FORMS[form]
    theirs = wrap_theirs(getattr(torch.nn, layer)(*args, dtype=F64))
    ours = wrap(getattr(nn, layer)(*args, dtype=F64))
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict(theirs.state_dict())
    assert {n for n, _ in ours.named_parameters()} == {n for n, _ in theirs.named_parameters()}
    sgd, theirs_sgd = tg.optim.SGD(ours.parameters(), lr=0.1), torch.optim.SGD(theirs.parameters(), lr=0.1)
    x = torch.randn(shape, dtype=F64, generator=torch.Generator().manual_seed(0))
    for _ in range(4):
        sgd.zero_grad()
        theirs_sgd.zero_grad()
        ours(tg.tensor(x)).square().sum().backward()
        theirs(x).square().sum().backward()
        sgd.step()
        theirs_sgd.step()
    for key, value in theirs.state_dict().items():
        assert torch.allclose(ours.state_dict()[key].data, value, rtol=1e-9, atol=1e-11), key
    ours.eval()
    theirs.eval()
    assert torch.allclose(ours(tg.tensor(x)).data, theirs(x), rtol=1e-9, atol=1e-11)


@pytest.mark.filterwarnings("ignore:.*weight_norm.*deprecated")
@pytest.mark.parametrize("name", ["weight_norm", "spectral_norm"])
def test_it_can_be_undone(name):
    layer = nn.Linear(3, 2)
    x = tg.randn(4, 3)
    wrapped = getattr(nn.utils, name)(layer)
    before = wrapped.eval()(x)
    with pytest.raises(tg.StateError, match="has one already"):
        getattr(nn.utils, name)(layer)
    getattr(nn.utils, f"remove_{name}")(layer)
    assert [n for n, _ in layer.named_parameters()] == ["bias", "weight"]
    assert torch.allclose(layer(x).data, before.data)
    with pytest.raises(tg.ArgumentError, match=f"has no {name}"):
        getattr(nn.utils, f"remove_{name}")(layer)


@pytest.mark.filterwarnings("ignore:.*weight_norm.*deprecated")
@pytest.mark.parametrize("form", FORMS)
def test_a_step_with_it_compiles(form):
    tg.manual_seed(0)
    net = nn.Sequential(FORMS[form][1](nn.Linear(3, 4)), nn.Tanh(), nn.Linear(4, 1))
    twin = copy.deepcopy(net) if form.startswith("parametrizations") else None
    optimizer = tg.optim.SGD(net.parameters(), lr=0.1)
    x = tg.randn(5, 3)

    def step(x, net=net, optimizer=optimizer):
        optimizer.zero_grad()
        loss = net(x).square().mean()
        loss.backward()
        optimizer.step()
        return loss

    fast = tg.compile(step)
    losses = [fast(x).item() for _ in range(5)]
    assert len(fast.programs) == 1
    assert losses[4] < losses[0]
    if twin is not None:
        other = tg.optim.SGD(twin.parameters(), lr=0.1)
        assert [step(x, twin, other).item() for _ in range(5)] == losses


# --- parametrizations --------------------------------------------------------------------------------------------


class Symmetric(nn.Module):
    def forward(self, x):
        return x.triu() + x.triu(1).mT

    def right_inverse(self, x):
        return x.triu()


def test_a_parameter_is_a_function_of_another():
    layer = nn.Linear(3, 3)
    parametrize.register_parametrization(layer, "weight", Symmetric())
    assert parametrize.is_parametrized(layer, "weight")
    assert isinstance(layer, nn.Linear)
    assert list(layer.state_dict()) == ["bias", "parametrizations.weight.original"]
    assert torch.equal(layer.weight.data, layer.weight.mT.data)
    layer(tg.ones(2, 3)).sum().backward()
    assert layer.parametrizations.weight.original.grad is not None
    value = tg.eye(3) * 2
    layer.weight = value
    assert torch.equal(layer.weight.data, value.data)
    parametrize.remove_parametrizations(layer, "weight")
    assert type(layer) is nn.Linear
    assert isinstance(layer.weight, nn.Parameter)
    assert torch.equal(layer.weight.data, value.data)
    assert not parametrize.is_parametrized(layer)


def test_several_are_applied_in_turn():
    class Doubled(nn.Module):
        def forward(self, x):
            return 2 * x

    layer = nn.Linear(3, 3)
    before = layer.weight.data.clone()
    parametrize.register_parametrization(layer, "weight", Doubled())
    parametrize.register_parametrization(layer, "weight", Doubled())
    assert torch.equal(layer.weight.data, 4 * before)
    with pytest.raises(tg.OpError, match="does not implement right_inverse"):
        layer.weight = tg.ones(3, 3)
    with pytest.raises(tg.ArgumentError, match="tensor_name must name a parameter"):
        parametrize.register_parametrization(layer, "nothing", Doubled())


def test_the_shape_must_stay():
    class Flat(nn.Module):
        def forward(self, x):
            return x.reshape(-1)

    with pytest.raises(tg.ShapeError, match="shape must stay"):
        parametrize.register_parametrization(nn.Linear(3, 3), "weight", Flat())


# --- initial values ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(4, 2, 3), (4, 4, 3, 3), (6, 2, 2, 3, 2)])
def test_dirac_is_torchs(shape):
    for groups in (1, 2):
        assert torch.equal(
            nn.init.dirac_(tg.ones(*shape), groups).data, torch.nn.init.dirac_(torch.ones(shape), groups)
        )


def test_the_identity_and_sparse_matrices():
    assert torch.equal(nn.init.eye_(tg.ones(2, 3)).data, torch.eye(2, 3))
    values = nn.init.sparse_(tg.empty(10, 7), 0.25, std=2.0).data
    assert (values == 0).sum(0).tolist() == [3] * 7
    assert nn.init._calculate_fan_in_and_fan_out(tg.ones(4, 2, 3)) == (6, 12)
    for fill, shape in ((nn.init.eye_, (2,)), (nn.init.dirac_, (2, 2)), (lambda t: nn.init.sparse_(t, 0.5), (2,))):
        with pytest.raises(tg.ShapeError):
            fill(tg.ones(*shape))


def test_the_norm_of_gradients():
    values = [torch.randn(3), torch.randn(2, 2)]
    for p in (1.0, 2.0, float("inf")):
        assert nn.utils.get_total_norm([tg.tensor(v) for v in values], p).item() == pytest.approx(
            torch.nn.utils.get_total_norm(values, p).item()
        )
    assert nn.utils.skip_init(nn.Linear, 2, 3).weight.shape == (3, 2)


def test_initialisers_fill_the_raw_values_too():
    """``init.normal_(layer.weight.data, 0.0, 0.02)`` is how most scripts write it."""
    layer = nn.Linear(40, 30)
    for fill in (
        lambda t: nn.init.normal_(t, 1.0, 0.02),
        lambda t: nn.init.constant_(t, 1.0),
        lambda t: nn.init.uniform_(t, 0.9, 1.1),
    ):
        nn.init.zeros_(layer.weight)
        assert fill(layer.weight.data) is not None
        assert 0.85 < layer.weight.data.min() <= layer.weight.data.max() < 1.15
    nn.init.xavier_uniform_(layer.weight.data)
    assert layer.weight.data.abs().max() <= (6 / 70) ** 0.5
    with pytest.raises(TypeError, match="normal_: tensor must be a Tensor; got list"):
        nn.init.normal_([1.0])


@pytest.mark.parametrize(
    "call",
    [
        lambda t, x: t.matmul(x, t.ones(5, 2)),
        lambda t, x: x.view(7),
        lambda t, x: t.cat([x, t.ones(2, 2)]),
        lambda t, x: x + t.ones(5),
        lambda t, x: t.nn.functional.linear(x, t.ones(2, 7)),
        lambda t, x: t.nn.functional.conv2d(t.ones(1, 2, 4, 4), t.ones(3, 1, 2, 2)),
        lambda t, x: t.nn.Linear(2, 2).load_state_dict({}),
        lambda t, x: t.ones(2, dtype=t.float64) @ t.ones(2, 2),
        lambda t, x: x.T.contiguous().view(2, 2),
        lambda t, x: x.backward(),
        lambda t, x: t.stack([x, t.ones(1)]),
        lambda t, x: x.permute(0, 0),
        lambda t, x: t.nn.functional.nll_loss(x, t.ones(7, dtype=t.int64)),
        lambda t, x: x.requires_grad_().add_(1),
    ],
)
def test_what_torch_refuses_as_a_runtime_error_is_one(call):
    for library in (torch, tg):
        with pytest.raises((RuntimeError, ValueError)) as caught:
            call(library, library.ones(2, 3))
        kind = RuntimeError if library is torch and isinstance(caught.value, RuntimeError) else caught.type
        if library is torch:
            expected = kind
    assert isinstance(caught.value, expected)
