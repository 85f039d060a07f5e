"""Networks against torch.nn: values, gradients, constructor arguments, ``repr``, state dicts, initial distributions."""

from __future__ import annotations

import copy
import inspect
import io
import math
import pickle
import typing
import warnings

import numpy as np
import pytest
import torch
from layers import IDS, LAYERS, both, floats, tensors

import tapegrad as tg
from tapegrad import nn, ops
from tapegrad.core import ArgumentError, StateError
from tapegrad.files import interchange
from tapegrad.nn import functional as F
from tapegrad.ops.random import default_generator

pytestmark = pytest.mark.filterwarnings("ignore:enable_nested_tensor is True")  # torch's advice on its own speed

TOLERANCE = {"rtol": 1e-10, "atol": 1e-12}  # float64; sums are taken in another order than torch's


def assert_same(ours: object, theirs: torch.Tensor, what: str) -> None:
    assert isinstance(ours, tg.Tensor), what
    torch.testing.assert_close(ours.data, theirs.detach(), **TOLERANCE, msg=lambda text: f"{what}: {text}")


@pytest.mark.parametrize(("name", "args", "kwargs", "inputs"), LAYERS, ids=IDS)
@pytest.mark.parametrize("mode", ["train", "eval"])
def test_outputs_and_gradients_are_torchs(name, args, kwargs, inputs, mode):
    ours, theirs = both(name, args, kwargs)
    ours.train(mode == "train")
    theirs.train(mode == "train")
    xs = [tg.tensor(x, requires_grad=x.is_floating_point()) for x in inputs]
    # torch's in-place layers may not overwrite a leaf, so they get copies
    ts = [x.clone().requires_grad_(x.is_floating_point()) for x in inputs]
    for _ in range(2):  # twice, so that buffers have moved
        with warnings.catch_warnings():  # torch's advice on kl_div and on padding="same"
            warnings.simplefilter("ignore")
            t = theirs(*[x * 1 if getattr(theirs, "inplace", False) else x for x in ts])
        y = ours(*xs)
        pairs = list(zip(tensors(y), tensors(t), strict=True))
        for k, (y, t) in enumerate(pairs):
            assert_same(y, t, f"output {k}")
        if t.requires_grad:
            weights = [floats(*t.shape, seed=3 + k) for k, (_, t) in enumerate(pairs)]
            for side in zip(*pairs, strict=True):
                sum((y * g).sum() for y, g in zip(side, weights, strict=True)).backward()
    for i, (x, reference) in enumerate(zip(xs, ts, strict=True)):
        if reference.grad is None:
            assert x.grad is None, f"gradient of input {i}"
        else:
            assert_same(x.grad, reference.grad, f"gradient of input {i}")
    parameters = dict(theirs.named_parameters())
    assert list(parameters) == [key for key, _ in ours.named_parameters()]
    for key, p in ours.named_parameters():
        assert_same(p.grad, parameters[key].grad, f"gradient of {key}")
    for key, buffer in theirs.named_buffers():
        assert_same(dict(ours.named_buffers())[key], buffer, f"buffer {key}")


@pytest.mark.parametrize(("name", "args", "kwargs", "inputs"), LAYERS, ids=IDS)
def test_repr_and_state_keys_are_torchs(name, args, kwargs, inputs):
    ours, theirs = getattr(nn, name)(*args, **kwargs), getattr(torch.nn, name)(*args, **kwargs)
    # the one class of torch's that is an internal detail
    assert repr(ours) == repr(theirs).replace("NonDynamicallyQuantizableLinear", "Linear")
    expected = {key: (value.shape, value.dtype) for key, value in theirs.state_dict().items()}
    assert {key: (value.shape, value.dtype) for key, value in ours.state_dict().items()} == expected
    assert list(ours.state_dict()) == list(theirs.state_dict())
    loaded = ours.load_state_dict(theirs.state_dict())
    assert loaded == ([], [])
    for key, value in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[key].data, value)


# torch's deprecated arguments, and internals of its own
DROPPED = {"size_average", "reduce", "min_value", "max_value"}


@pytest.mark.parametrize("name", sorted({row[0] for row in LAYERS}))
def test_arguments_and_defaults_are_torchs(name):
    ours = inspect.signature(getattr(nn, name)).parameters
    theirs = inspect.signature(getattr(torch.nn, name)).parameters
    written = typing.get_overloads(getattr(torch.nn, name).__init__)  # where the constructor itself takes anything
    if written:
        theirs = dict(list(inspect.signature(written[0]).parameters.items())[1:])
    plain = [p for p in theirs.values() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    kept = {p.name: p.default for p in plain if p.name not in DROPPED}
    own = [p for p in ours.values() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    taken = {p.name: p.default for p in own if p.name not in ("size_average", "reduce")}
    names = [{k: getattr(v, "__name__", v) for k, v in defaults.items()} for defaults in (taken, kept)]
    assert names[0] == names[1]  # functions of the same name: relu
    # whatever may be given by position has the position it has in torch
    positional = [p.name for p in ours.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
    in_torch = [p.name for p in theirs.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
    expected = [n for n in in_torch if n not in ("min_value", "max_value")]
    assert positional == expected[: len(positional)]


def test_every_layer_of_the_package_is_in_the_table():
    modules = {name for name in nn.__all__ if isinstance(getattr(nn, name), type) and not name.endswith("Parameter")}
    modules = {name for name in modules if not name.startswith("Lazy")}  # test_lazy.py
    others = {"RNNBase", "RNNCellBase"}  # classes that others share
    others |= {"DataParallel", "Module", "ModuleDict", "ModuleList", "ParameterList", "Sequential", "UpsampleConv2d"}
    others |= {
        "ParameterDict",
        "TransformerEncoder",
        "TransformerDecoder",
    }  # given a layer: test_transformer.py
    assert modules - others == {row[0] for row in LAYERS}


@pytest.mark.parametrize("name", ["Linear", "Conv1d", "Conv2d", "ConvTranspose2d"])
def test_layers_start_uniform_within_the_bound_of_torch(name):
    args = (400, 300) if name == "Linear" else (60, 50, 3)
    tg.manual_seed(0)
    ours, theirs = getattr(nn, name)(*args), getattr(torch.nn, name)(*args)
    for key in ("weight", "bias"):
        bound = 1 / math.sqrt(ours.weight[0].numel())
        for value in (getattr(ours, key).data, getattr(theirs, key).detach()):  # the expectation holds for both
            assert 0.85 * bound < value.abs().max().item() <= bound
            # uniform: standard deviation bound / sqrt(3), mean 0; 4 standard errors
            error = 4 / math.sqrt(value.numel())
            assert value.std().item() == pytest.approx(bound / math.sqrt(3), rel=error)
            assert abs(value.mean().item()) < error * bound


def test_embedding_starts_normal_with_a_padding_row_of_zeros():
    tg.manual_seed(0)
    weight = nn.Embedding(200, 100, padding_idx=3).weight.data
    assert weight[3].abs().max() == 0
    rest = torch.cat([weight[:3], weight[4:]])
    assert rest.mean().item() == pytest.approx(0, abs=0.03)
    assert rest.std().item() == pytest.approx(1, abs=0.03)


def test_attention_starts_as_torchs():
    tg.manual_seed(0)
    layer = nn.MultiheadAttention(64, 4, add_bias_kv=True)
    assert layer.in_proj_weight.data.abs().max().item() == pytest.approx(math.sqrt(6 / (4 * 64)), rel=0.01)
    assert layer.in_proj_bias.data.abs().max() == 0
    assert layer.out_proj.bias.data.abs().max() == 0
    # fans of [1, 1, 64]: 64 and 64, so std = sqrt(2 / 128); 64 numbers, 4 standard errors
    assert layer.bias_k.data.std().item() == pytest.approx(math.sqrt(2 / 128), rel=4 / math.sqrt(128))


@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("average", [True, False])
def test_attention_masks_are_torchs(need_weights, average):
    ours, theirs = both("MultiheadAttention", (6, 2), {"add_zero_attn": True})
    x = floats(4, 3, 6)
    hidden = torch.zeros(3, 4, dtype=torch.bool)
    hidden[1, 2:] = True
    causal = torch.ones(4, 4, dtype=torch.bool).triu(1)
    per_head = floats(6, 4, 4)
    for padding, attn in ((hidden, None), (None, causal), (hidden, causal), (None, per_head)):
        kwargs = {"need_weights": need_weights, "average_attn_weights": average}
        y, w = ours(x, x, x, key_padding_mask=padding, attn_mask=attn, **kwargs)
        t, v = theirs(x, x, x, key_padding_mask=padding, attn_mask=attn, **kwargs)
        assert_same(y, t, "output")
        if need_weights:
            assert_same(w, v, "weights")
        else:
            assert w is v is None


def test_attention_drops_weights_in_training_only():
    layer = nn.MultiheadAttention(6, 2, dropout=0.5)
    x = floats(4, 3, 6).float()
    tg.manual_seed(1)
    _, dropped = layer(x, x, x, average_attn_weights=False)
    _, kept = layer.eval()(x, x, x, average_attn_weights=False)
    zero = dropped.data == 0
    assert 0.2 < zero.float().mean() < 0.8
    torch.testing.assert_close(dropped.data[~zero], 2 * kept.data[~zero])


def test_dropout_scales_what_it_keeps():
    tg.manual_seed(0)
    y = nn.Dropout(0.25)(torch.ones(10_000)).data
    assert set(y.unique().tolist()) == {0.0, torch.tensor(4 / 3).item()}
    assert (y == 0).double().mean().item() == pytest.approx(0.25, abs=0.02)  # 4 standard errors: 0.017


FOLDED = {"scale_factor": 2, "kernel_size": 3, "padding": 1}
UNFOLDED = [{"scale_factor": (2, 3)}, {"padding_mode": "reflect"}, {"padding": 0}, {"kernel_size": 5}, {"dilation": 2}]
UNFOLDED += [{"stride": 2}, {"groups": 3}]


@pytest.mark.parametrize("change", [{}, {"padding": "same"}, {"bias": False}, *UNFOLDED], ids=str)
def test_upsample_conv_is_upsampling_then_convolution(change):
    options = FOLDED | change
    layer = nn.UpsampleConv2d(3, 6, **options).double()
    scale = options.pop("scale_factor")
    separate = nn.Sequential(nn.Upsample(scale_factor=scale), nn.Conv2d(3, 6, **options))
    separate.double()[1].load_state_dict(layer.state_dict())
    x, z = tg.tensor(floats(2, 3, 4, 5), requires_grad=True), tg.tensor(floats(2, 3, 4, 5), requires_grad=True)
    with tg.Tape() as tape:
        y = layer(x)
    t = separate(z)
    assert ("upsample_conv2d" in [entry.op.name for entry in tape]) == (change not in UNFOLDED)
    assert y.shape == t.shape
    assert_same(y, t.data, "output")
    y.backward(floats(*y.shape))
    t.backward(floats(*y.shape))
    assert_same(x.grad, z.grad.data, "input gradient")
    assert_same(layer.weight.grad, separate[1].weight.grad.data, "weight gradient")
    assert f"scale_factor={layer.scale_factor}" in repr(layer)
    assert list(inspect.signature(nn.UpsampleConv2d).parameters)[:4] == [
        "in_channels",
        "out_channels",
        "kernel_size",
        "scale_factor",
    ]


def test_hardsigmoid_between_its_bounds():
    x = tg.tensor([-1.0, 0.0, 2.5], dtype=tg.float64, requires_grad=True)
    y = nn.Hardsigmoid()(x)
    assert torch.equal(y.data, (x.data + 3) / 6)
    y.sum().backward()
    assert x.grad.tolist() == [1 / 6] * 3


@pytest.mark.parametrize(
    ("name", "shape"), [("Dropout1d", (50, 40, 3)), ("Dropout2d", (50, 40, 2, 2)), ("Dropout3d", (50, 40, 2, 1, 2))]
)
def test_dropout_of_channels_drops_them_whole(name, shape):
    tg.manual_seed(0)
    y = getattr(nn, name)(0.25)(tg.ones(shape)).data.flatten(2)
    assert set(y.unique().tolist()) == {0.0, torch.tensor(1 / 0.75).item()}
    assert torch.equal(y.amin(-1), y.amax(-1))
    assert abs((y[..., 0] == 0).double().mean().item() - 0.25) < 0.04  # four standard deviations
    assert getattr(nn, name)(0.25).eval()(tg.ones(shape)).sum().item() == torch.Size(shape).numel()


@pytest.mark.parametrize("name", ["AlphaDropout", "FeatureAlphaDropout"])
def test_alpha_dropout_keeps_mean_and_variance(name):
    tg.manual_seed(0)
    y = getattr(nn, name)(0.3)(tg.randn(400, 200)).data
    assert abs(y.mean().item()) < 0.02
    assert abs(y.var().item() - 1) < 0.03


def test_rrelu_draws_slopes_in_training():
    tg.manual_seed(0)
    x = tg.full((1000,), -1.0, requires_grad=True)
    y = nn.RReLU(0.1, 0.3)(x)
    assert -0.3 < y.min().item() < -0.28
    assert -0.12 < y.max().item() < -0.1
    y.sum().backward()
    assert torch.equal(x.grad.data, -y.data)


def test_max_pool_returns_indices():
    x = floats(2, 3, 6, 5)
    y, indices = nn.MaxPool2d(2, return_indices=True)(x)
    t, expected = torch.nn.MaxPool2d(2, return_indices=True)(x)
    assert torch.equal(y.data, t)
    assert torch.equal(indices.data, expected)


@pytest.mark.parametrize("size", [(9, 7), (10, 8), (2, 6, 10, 7)])
def test_transposed_convolution_takes_an_output_size(size):
    ours, theirs = both("ConvTranspose2d", (4, 6, 3), {"stride": 2, "padding": 1})
    x = floats(2, 4, 5, 4)
    assert_same(ours(x, output_size=size), theirs(x, output_size=size), "output")
    with pytest.raises(tg.ShapeError, match=r"output_size must lie between \[9, 7\] and \[10, 8\]; got \[11, 7\]"):
        ours(x, output_size=(11, 7))


def test_softmax_without_dim_warns_and_guesses_as_torch():
    for shape in [(3,), (4, 3), (2, 4, 3), (2, 4, 3, 2)]:
        x = floats(*shape)
        with pytest.warns(UserWarning, match="Softmax: dim was not given"):
            y = nn.Softmax()(x)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert_same(y, torch.nn.Softmax()(x), "output")


def test_batch_norm_in_evaluation_without_recording_moves_nothing():
    layer = nn.BatchNorm2d(3)
    before = {key: value.data.clone() for key, value in layer.state_dict().items()}
    layer.eval()(floats(4, 3, 5, 2).float())
    assert all(torch.equal(before[key], value.data) for key, value in layer.state_dict().items())


def test_a_failing_batch_norm_changes_nothing():
    layer = nn.BatchNorm1d(3)
    with pytest.raises(tg.ShapeError):
        layer(torch.zeros(5, 4))
    with pytest.raises(tg.ShapeError, match=r"BatchNorm1d: input must have 2 or 3 dimensions; got shape \[3\]"):
        layer(torch.zeros(3))
    assert layer.num_batches_tracked.item() == 0
    assert layer.running_mean.data.abs().max() == 0


def test_layers_take_numpy_and_torch():
    layer = nn.Linear(3, 2)
    x = np.ones((4, 3), dtype=np.float32)
    expected = layer(torch.ones(4, 3)).data
    assert torch.equal(layer(x).data, expected)
    assert torch.equal(layer(tg.tensor(x)).data, expected)


def test_dtype_argument_and_to():
    layer = nn.Linear(3, 2, dtype=torch.float64)
    assert {p.dtype for p in layer.parameters()} == {torch.float64}
    parameter = layer.weight
    layer(torch.zeros(1, 3, dtype=torch.float64)).sum().backward()
    assert layer.to(torch.float32) is layer
    assert layer.weight is parameter
    assert parameter.dtype is parameter.grad.dtype is torch.float32
    layer(torch.zeros(1, 3)).sum().backward()
    assert parameter.grad.dtype is torch.float32
    norm = nn.BatchNorm1d(2).double()
    assert (norm.running_mean.dtype, norm.num_batches_tracked.dtype) == (torch.float64, torch.int64)
    assert nn.Linear(1, 1).to("cpu").to(torch.zeros(1, dtype=torch.float64)).weight.dtype is torch.float64
    with pytest.raises(tg.DTypeError, match=r"to: dtype must be float32 or float64; got torch\.float16"):
        layer.to(torch.float16)
    with pytest.raises(tg.DTypeError, match="to: device must be 'cpu'; got 'cuda'"):
        layer.to("cuda")
    with pytest.raises(tg.DTypeError, match="Linear: device must be 'cpu'; got 'cuda'"):
        nn.Linear(1, 1, device="cuda")
    with pytest.raises(tg.DTypeError, match=r"Linear: dtype must be float32 or float64; got torch\.int64"):
        nn.Linear(1, 1, dtype=torch.int64)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.Linear(-1, 2), r"Linear: in_features must be at least 0; got -1"),
        (lambda: nn.Conv2d(3, 4, 3, groups=2), r"Conv2d: in_channels must be divisible by groups = 2; got 3"),
        (lambda: nn.Conv2d(3, 4, (3, 3, 3)), r"Conv2d: kernel_size must be an int or 2 of them; got \(3, 3, 3\)"),
        (lambda: nn.Conv2d(3, 4, 0), r"Conv2d: kernel_size must be at least 1; got 0"),
        (lambda: nn.Conv2d(3, 4, 3, padding="full"), r"Conv2d: padding must be one of 'same', 'valid'; got 'full'"),
        (lambda: nn.Conv2d(3, 4, 3, 2, "same"), r'Conv2d: stride must be 1 with padding="same"; got 2'),
        (lambda: nn.Conv2d(3, 4, 3, padding_mode="wrap"), r"padding_mode must be one of 'zeros', .*; got 'wrap'"),
        (lambda: nn.ConvTranspose2d(3, 4, 3, padding_mode="circular"), r"must be one of 'zeros'; got 'circ"),
        (lambda: nn.Upsample(), r"Upsample: one of size and scale_factor must be given"),
        (lambda: nn.Dropout(1.5), r"Dropout: p must lie in \[0, 1\]; got 1.5"),
        (lambda: nn.MaxPool2d(0), r"MaxPool2d: kernel_size must be at least 1; got 0"),
        (lambda: nn.MaxPool2d(2, dilation=(1, 0)), r"MaxPool2d: dilation must be at least 1; got 0"),
        (lambda: nn.AvgPool2d(2, 2, 2), r"AvgPool2d: padding must be at most half of kernel_size = 2; got 2"),
        (lambda: nn.AvgPool2d(3, (2, 2, 2)), r"AvgPool2d: stride must be an int or 2 of them; got \(2, 2, 2\)"),
        (lambda: nn.AdaptiveAvgPool2d((None, -1)), r"AdaptiveAvgPool2d: output_size must be at least 0; got -1"),
        (lambda: nn.Hardtanh(1.0, -1.0), r"Hardtanh: min_val must be less than max_val = -1.0; got 1.0"),
        (lambda: nn.GroupNorm(4, 6), r"GroupNorm: num_channels must be divisible by num_groups = 4; got 6"),
        (lambda: nn.Embedding(3, 2, 3), r"Embedding: padding_idx must lie in \[-3, 3\); got 3"),
        (lambda: nn.Embedding(3, 2, sparse=True), r"Embedding: sparse must be False \(gradients are dense\); got True"),
        (lambda: nn.MultiheadAttention(5, 2), r"embed_dim must be divisible by num_heads = 2; got 5"),
        (lambda: nn.MSELoss(reduction="avg"), r"MSELoss: reduction must be one of 'mean', 'sum', 'none'; got 'avg'"),
    ],
)
def test_bad_arguments_are_named(make, message):
    with pytest.raises(ArgumentError, match=message) as caught:
        make()
    assert isinstance(caught.value, tg.TapegradError)
    assert isinstance(caught.value, ValueError)


def test_bad_kinds_are_type_errors():
    with pytest.raises(TypeError, match=r"Linear: in_features must be an int; got 2.5"):
        nn.Linear(2.5, 1)
    with pytest.raises(TypeError, match="Unflatten: unflattened_size must be a tuple of ints; got 3"):
        nn.Unflatten(1, 3)
    with pytest.raises(TypeError, match=r"CrossEntropyLoss.weight is a buffer; expected a Tensor or None, got list"):
        nn.CrossEntropyLoss([1.0, 2.0])


# --- Module ------------------------------------------------------------------------------------------------------


class Net(nn.Module):
    """A network with everything a module can hold."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(2, 3)
        self.scale = nn.Parameter(torch.ones(3))
        self.blocks = nn.ModuleList([nn.Linear(3, 3), nn.Linear(3, 3), nn.ReLU()])
        self.register_buffer("seen", torch.zeros(()))
        self.register_buffer("cache", torch.zeros(2), persistent=False)
        self.register_parameter("extra", None)
        self.named = nn.ModuleDict({"norm": nn.BatchNorm1d(3)})
        self.note = "plain"

    def forward(self, x):
        x = self.first(x) * self.scale
        for block in self.blocks:
            x = block(x)
        return self.named["norm"](x)


class TorchNet(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first = torch.nn.Linear(2, 3)
        self.scale = torch.nn.Parameter(torch.ones(3))
        self.blocks = torch.nn.ModuleList([torch.nn.Linear(3, 3), torch.nn.Linear(3, 3), torch.nn.ReLU()])
        self.register_buffer("seen", torch.zeros(()))
        self.register_buffer("cache", torch.zeros(2), persistent=False)
        self.register_parameter("extra", None)
        self.named = torch.nn.ModuleDict({"norm": torch.nn.BatchNorm1d(3)})


def test_registries_are_torchs():
    ours, theirs = Net(), TorchNet()
    assert [key for key, _ in ours.named_parameters()] == [key for key, _ in theirs.named_parameters()]
    assert [key for key, _ in ours.named_buffers()] == [key for key, _ in theirs.named_buffers()]
    assert [key for key, _ in ours.named_modules()] == [key for key, _ in theirs.named_modules()]
    assert [key for key, _ in ours.named_children()] == [key for key, _ in theirs.named_children()]
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert list(ours.state_dict(prefix="net.")) == list(theirs.state_dict(prefix="net."))
    names = [key for key, _ in ours.named_parameters("net", recurse=False)]
    assert names == [key for key, _ in theirs.named_parameters("net", recurse=False)]
    assert repr(ours) == repr(theirs).replace("TorchNet", "Net")
    assert ours.get_submodule("named.norm") is ours.named["norm"]
    with pytest.raises(AttributeError, match=r"ModuleDict has no submodule 'other' \(of 'named.other'\)"):
        ours.get_submodule("named.other")


def test_parameters_are_plain_attributes():
    net = Net()
    assert net.__dict__["scale"] is net.scale
    assert net.extra is None
    replacement = nn.Parameter(torch.zeros(3))
    order = [key for key, _ in net.named_parameters()]
    net.scale = replacement
    assert dict(net.named_parameters())["scale"] is replacement
    assert [key for key, _ in net.named_parameters()] == order
    del net.scale
    assert "scale" not in dict(net.named_parameters())
    net.extra = nn.Parameter(torch.zeros(1))
    assert "extra" in net.state_dict()
    del net.seen
    assert "seen" not in net.state_dict()


def test_wrong_assignments_are_named():
    net = Net()
    with pytest.raises(TypeError, match=r"Net.scale is a parameter; expected a Parameter or None, got Tensor"):
        net.scale = tg.zeros(3)
    with pytest.raises(TypeError, match=r"Net.first is a module; expected a Module or None, got int"):
        net.first = 3
    with pytest.raises(TypeError, match=r"Net.seen is a buffer; expected a Tensor or None, got float"):
        net.seen = 1.0
    net.seen = torch.ones(())
    assert isinstance(net.seen, tg.Tensor)
    with pytest.raises(ArgumentError, match="the name 'forward' of a module is taken"):
        net.add_module("forward", nn.ReLU())
    with pytest.raises(ArgumentError, match=r"a parameter's name must be non-empty, without '.'; got 'a.b'"):
        net.register_parameter("a.b", None)
    with pytest.raises(TypeError, match="register_parameter: p must be a Parameter or None; got Tensor"):
        net.register_parameter("p", tg.zeros(1))
    with pytest.raises(NotImplementedError, match=r"Module does not define forward\(\)"):
        nn.Module()(1)


def test_shared_parameters_and_modules_count_once():
    ours, theirs = (lib.Sequential(lib.Linear(2, 2), lib.ReLU(), lib.Linear(2, 2)) for lib in (nn, torch.nn))
    for model in (ours, theirs):
        model[2].weight = model[0].weight
        model.append(model[0])
    assert [key for key, _ in ours.named_parameters()] == [key for key, _ in theirs.named_parameters()]
    assert len(list(ours.modules())) == len(list(theirs.modules()))
    assert list(ours.state_dict()) == list(theirs.state_dict())
    every = [key for key, _ in theirs.named_parameters(remove_duplicate=False)]
    assert [key for key, _ in ours.named_parameters(remove_duplicate=False)] == every


def test_state_dict_shares_storage_and_is_constant():
    net = Net()
    state = net.state_dict()
    assert not any(value.requires_grad for value in state.values())
    assert state["scale"].data.data_ptr() == net.scale.data.data_ptr()
    assert net.state_dict(keep_vars=True)["scale"] is net.scale


def test_load_copies_in_place_and_casts():
    net = Net()
    weight, storage = net.first.weight, net.first.weight.data.data_ptr()
    state = {key: np.asarray(value.numpy(), dtype=np.float64) for key, value in Net().state_dict().items()}
    net.load_state_dict(state)
    assert net.first.weight is weight
    assert weight.data.data_ptr() == storage
    assert weight.dtype is torch.float32
    np.testing.assert_array_equal(weight.detach().numpy(), state["first.weight"].astype(np.float32))


def test_a_failing_load_changes_nothing():
    net = Net()
    before = {key: value.data.clone() for key, value in net.state_dict().items()}
    good = {key: torch.full_like(value, 7) for key, value in before.items()}
    missing = {key: value for key, value in good.items() if key != "scale"}
    cases = [
        (missing, StateError, "the state does not fit Net: missing keys: scale$"),
        ({**good, "nope": torch.zeros(1)}, StateError, "unexpected keys: nope$"),
        ({**good, "named.norm.bias": torch.zeros(4)}, tg.ShapeError, r"norm.bias has shape \[4\]; expected \[3\]"),
        ({**missing, "more": 0, "named.norm.bias": torch.zeros(4)}, StateError, r"missing.*unexpected.*has shape"),
        ({**good, "named.norm.bias": "text"}, TypeError, "named.norm.bias must be"),
        ({**good, "named.norm.bias": torch.zeros(3, dtype=torch.float16)}, tg.DTypeError, "named.norm.bias"),
    ]
    for state, error, message in cases:
        with pytest.raises(error, match=message):
            net.load_state_dict(state)
        assert all(torch.equal(before[key], value.data) for key, value in net.state_dict().items())
    assert issubclass(StateError, RuntimeError)
    result = net.load_state_dict({**missing, "more": 0}, strict=False)
    assert result == (["scale"], ["more"])
    assert net.first.weight.data.unique().tolist() == [7]
    assert torch.equal(net.scale.data, before["scale"])


def test_modes_and_gradients():
    net = Net()
    assert net.eval() is net
    assert not any(module.training for module in net.modules())
    net.train()
    assert all(module.training for module in net.modules())
    with pytest.raises(ArgumentError, match="train: mode must be a bool; got 'yes'"):
        net.train("yes")
    net(floats(4, 2).float()).sum().backward()
    assert all(p.grad is not None for p in net.parameters())
    net.zero_grad(set_to_none=False)
    assert all(p.grad.data.abs().max() == 0 for p in net.parameters())
    net.zero_grad()
    assert all(p.grad is None for p in net.parameters())
    assert not any(p.requires_grad for p in net.requires_grad_(False).parameters())
    order = []
    net.apply(lambda module: order.append(type(module).__name__))
    expected = []
    TorchNet().apply(lambda module: expected.append(type(module).__name__.replace("TorchNet", "Net")))
    assert order == expected


def test_hooks_see_and_change_what_passes():
    layer = nn.Linear(2, 2)
    seen = []
    before = layer.register_forward_pre_hook(lambda module, args: seen.append(module) or (args[0] * 2,))
    after = layer.register_forward_hook(lambda module, args, output: output + 1)
    x = tg.tensor([[1.0, 2.0]])
    changed = layer(x).data
    before.remove()
    after.remove()
    assert seen == [layer]
    torch.testing.assert_close(changed, layer(x * 2).data + 1)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))])
def test_copies_are_whole_and_separate(duplicate):
    net = Net()
    net.blocks[1].weight = net.blocks[0].weight
    net.scale.grad = torch.ones(3)
    net.eval()
    other = duplicate(net)
    assert repr(other) == repr(net)
    assert list(other.state_dict()) == list(net.state_dict())
    assert other.blocks[1].weight is other.blocks[0].weight
    assert not other.training
    assert isinstance(other.scale, nn.Parameter)
    assert other.scale.requires_grad
    assert torch.equal(other.scale.grad.data, torch.ones(3))
    for key, value in other.state_dict().items():
        assert torch.equal(value.data, net.state_dict()[key].data)
        assert value.data.data_ptr() != net.state_dict()[key].data.data_ptr()
    x = floats(4, 2).float()
    assert torch.equal(other(x).data, net(x).data)


@pytest.mark.parametrize(("name", "args", "kwargs", "inputs"), LAYERS, ids=IDS)
def test_every_layer_can_be_pickled(name, args, kwargs, inputs):
    layer = getattr(nn, name)(*args, **kwargs)
    file = io.BytesIO()
    pickle.dump(layer, file)
    file.seek(0)
    assert repr(pickle.load(file)) == repr(layer)
    assert type(layer).__doc__


def test_parameter():
    storage = torch.zeros(3)
    p = nn.Parameter(storage)
    assert isinstance(p, tg.Tensor)
    assert p.requires_grad
    assert p.is_leaf
    assert p.data.data_ptr() == storage.data_ptr()
    assert nn.Parameter(tg.as_tensor(storage)).data.data_ptr() == storage.data_ptr()
    assert not nn.Parameter(torch.tensor([1]), requires_grad=False).requires_grad
    with pytest.raises(tg.DTypeError):
        nn.Parameter(torch.tensor([1]))
    assert repr(nn.Parameter(torch.ones(2))) == "Parameter containing:\nTensor([1., 1.], requires_grad=True)"


# --- containers --------------------------------------------------------------------------------------------------


def containers(lib):
    """The same operations on the containers of either library."""
    blocks = lib.ModuleList([lib.ReLU(), lib.Linear(2, 2)])
    blocks.append(lib.Tanh())
    blocks.extend([lib.Sigmoid(), lib.Sigmoid()])
    blocks.insert(1, lib.Identity())
    blocks += [lib.GELU()]
    del blocks[0]
    blocks[-1] = lib.ELU()
    blocks.pop(0)
    named = lib.ModuleDict({"a": lib.ReLU(), "b": blocks})
    named["c"] = lib.Sequential({"x": lib.Linear(2, 3), "y": lib.ReLU()} if lib is nn else _ordered())
    named.update({"a": lib.Tanh()})
    model = lib.Sequential(lib.Linear(1, 1), lib.ReLU(), named["c"], lib.ReLU(), lib.Tanh())
    model[1] = lib.Sigmoid()
    del model[0]
    parts = [blocks[1:], blocks + blocks[:1], model[:2], model[1:], model[-1], named["c"].x]
    return [blocks, named, model, *parts]


def _ordered():
    from collections import OrderedDict

    return OrderedDict(x=torch.nn.Linear(2, 3), y=torch.nn.ReLU())


def test_containers_are_torchs():
    for ours, theirs in zip(containers(nn), containers(torch.nn), strict=True):
        assert repr(ours) == repr(theirs)
        assert list(ours.state_dict()) == list(theirs.state_dict())
    with pytest.raises(IndexError, match="ModuleList: index 3 is outside a list of 1"):
        nn.ModuleList([nn.ReLU()])[3]
    with pytest.raises(TypeError, match="add_module: 0 must be a Module or None; got int"):
        nn.Sequential(3)


def test_module_dict_is_a_dict():
    a, b = nn.ReLU(), nn.Tanh()
    named = nn.ModuleDict([("a", a), ("b", b)])
    assert dict(named.items()) == {"a": a, "b": b}
    assert list(named) == list(named.keys()) == ["a", "b"]
    assert list(named.values()) == [a, b]
    assert "a" in named
    assert named.pop("a") is a
    assert len(named) == 1
    named.clear()
    assert len(named) == 0
    with pytest.raises(ArgumentError, match="the name 'keys' of a module is taken"):
        named["keys"] = a


def test_parameter_dict_is_a_dict():
    ours = nn.ParameterDict({"a": nn.Parameter(torch.ones(2)), "b": tg.zeros(3)})
    assert list(ours) == list(ours.keys()) == list(ours.state_dict()) == ["a", "b"]
    assert [name for name, _ in ours.named_parameters()] == ["a", "b"]
    assert isinstance(ours["b"], nn.Parameter)
    ours["a"] = torch.zeros(1)
    assert ours.get("c") is None
    assert (len(ours), "a" in ours, ours["a"].shape) == (2, True, (1,))
    assert ours.pop("b").shape == (3,)
    assert list(dict(ours.items())) == ["a"]


def test_parameter_list_is_torchs():
    ours = nn.ParameterList([torch.ones(2), nn.Parameter(torch.ones(2, 3))]).append(torch.ones(1))
    theirs = torch.nn.ParameterList([torch.ones(2), torch.nn.Parameter(torch.ones(2, 3))]).append(torch.ones(1))
    assert repr(ours) == repr(theirs)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert len(ours) == 3
    assert [p.shape for p in ours[1:]] == [p.shape for p in theirs[1:]]
    ours[0] = torch.zeros(2)
    assert ours[0].requires_grad
    assert ours[0].data.abs().max() == 0


def test_parameter_lists_keep_what_is_no_tensor():
    lists = []
    for lib in (tg, torch):
        inner = lib.nn.ParameterList([lib.nn.Parameter(lib.ones(2)), lib.zeros(1)])
        outer = lib.nn.ParameterList([inner, "label", lib.ones(3)])
        outer[1] = lib.ones(1)
        outer.append(7)
        lists.append(outer)
    ours, theirs = lists
    assert repr(ours).count("Object of type: ParameterList") == repr(theirs).count("Object of type: ParameterList") == 1
    assert sorted(k for k, _ in ours.named_parameters()) == sorted(k for k, _ in theirs.named_parameters())
    assert len(ours) == 4
    assert ours[3] == 7


def test_sequential_computes_its_layers_in_turn():
    ours = nn.Sequential(nn.Linear(2, 25), nn.ReLU(), nn.Sequential(nn.Linear(25, 25), nn.Tanh())).add(nn.Linear(25, 2))
    theirs = interchange.to_torch(ours)
    x = torch.randn(5, 2)
    torch.testing.assert_close(ours(x).data, theirs(x).detach())
    assert len(ours) == 4
    assert ours[2][1] in ours[2]
    assert list(ours)[3] is ours[-1]


def test_predict_records_nothing_and_restores_every_mode():
    model = nn.Sequential(nn.Linear(2, 3), nn.Dropout(0.9), nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 1)))
    model[2][0].eval()
    modes = [module.training for module in model.modules()]
    x = torch.randn(6, 2)
    y = model.predict(x)
    assert not y.requires_grad
    assert [module.training for module in model.modules()] == modes
    assert model[2][0].num_batches_tracked.item() == 0
    reference = interchange.to_torch(model).eval()
    torch.testing.assert_close(y.data, reference(x).detach())
    with pytest.raises(tg.ShapeError):
        model.predict(torch.zeros(2, 5))
    assert [module.training for module in model.modules()] == modes


def test_describe_lists_layers_shapes_and_parameters():
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Sequential(nn.MaxPool2d(2), nn.Flatten()), nn.Linear(8 * 16, 10)
    )
    model[3].bias.requires_grad_(False)
    state = default_generator.get_state()
    text = model.describe((3, 8, 8))
    lines = text.split("\n")
    assert [line.split()[0] for line in lines] == ["layer", "0", "1", "2", "2.0", "2.1", "3", "total"]
    assert "[N, 8, 8, 8]" in lines[1]
    assert lines[1].endswith("224")
    assert "[N, 8, 4, 4]" in lines[4]
    assert "[N, 128]" in lines[5]
    assert lines[6].endswith("1,290")
    assert lines[7].split()[1:] == ["1,514", "parameters,", "1,504", "trainable,", "6,056", "B"]
    assert "output" not in model.describe()
    assert model[0]._hooks.after == {}
    assert default_generator.get_state() == state
    with pytest.raises(tg.ShapeError):
        model.describe((4, 8, 8))
    assert "[N, 5, 3]" in nn.Sequential(nn.Embedding(7, 3)).describe((5,))


# --- init and utils ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["linear", "conv2d", "conv_transpose1d", "sigmoid", "tanh", "relu", "leaky_relu"])
def test_gains_are_torchs(name):
    assert nn.init.calculate_gain(name) == torch.nn.init.calculate_gain(name)
    assert nn.init.calculate_gain(name, 0.3) == torch.nn.init.calculate_gain(name, 0.3)


# (function, arguments, (mean, standard deviation, largest magnitude or None) for a [60, 40, 3, 3] tensor)
FANS = (40 * 9, 60 * 9)
INITIALISERS = [
    ("uniform_", {"a": -1.0, "b": 3.0}, (1.0, 4 / math.sqrt(12), 3.0)),
    ("normal_", {"mean": 0.5, "std": 2.0}, (0.5, 2.0, None)),
    ("xavier_uniform_", {"gain": 2.0}, (0.0, 2 * math.sqrt(2 / sum(FANS)), 2 * math.sqrt(6 / sum(FANS)))),
    ("xavier_normal_", {}, (0.0, math.sqrt(2 / sum(FANS)), None)),
    ("kaiming_uniform_", {"nonlinearity": "relu"}, (0.0, math.sqrt(2 / FANS[0]), math.sqrt(6 / FANS[0]))),
    ("kaiming_uniform_", {"a": math.sqrt(5)}, (0.0, 1 / math.sqrt(3 * FANS[0]), 1 / math.sqrt(FANS[0]))),
    ("kaiming_normal_", {"mode": "fan_out", "nonlinearity": "tanh"}, (0.0, 5 / 3 / math.sqrt(FANS[1]), None)),
    ("constant_", {"val": 0.3}, (0.3, 0.0, 0.3)),
    ("zeros_", {}, (0.0, 0.0, 0.0)),
    ("ones_", {}, (1.0, 0.0, 1.0)),
]


@pytest.mark.parametrize(("name", "kwargs", "expected"), INITIALISERS)
def test_initialisers_draw_torchs_distributions(name, kwargs, expected):
    mean, std, largest = expected
    tg.manual_seed(0)
    ours = nn.Parameter(torch.empty(60, 40, 3, 3))
    assert getattr(nn.init, name)(ours, **kwargs) is ours
    theirs = getattr(torch.nn.init, name)(torch.empty(60, 40, 3, 3), **kwargs)
    for value in (ours.data, theirs):  # the expectation holds for both; 4 standard errors of 21600 numbers
        assert value.mean().item() == pytest.approx(mean, abs=4 * std / 146 + 1e-6)
        assert value.std().item() == pytest.approx(std, rel=4 / 207, abs=1e-6)
        if largest is not None:
            assert value.abs().max().item() == pytest.approx(largest, rel=0.01)
    signature = inspect.signature(getattr(torch.nn.init, name)).parameters
    own = inspect.signature(getattr(nn.init, name)).parameters
    assert [(p.name, p.default) for p in own.values()] == [(p.name, p.default) for p in signature.values()]


@pytest.mark.parametrize("shape", [(5, 5), (3, 7), (7, 2, 2)])
def test_orthogonal_is_orthogonal(shape):
    p = nn.Parameter(torch.empty(shape, dtype=torch.float64))
    assert nn.init.orthogonal_(p, gain=2.0) is p
    matrix = p.data.reshape(shape[0], -1)
    product = matrix @ matrix.T if matrix.shape[0] <= matrix.shape[1] else matrix.T @ matrix
    torch.testing.assert_close(product, 4 * torch.eye(min(matrix.shape), dtype=torch.float64))


def test_a_generator_makes_initial_values_repeatable():
    draws = []
    for _ in range(2):
        generator = tg.Generator(5)
        p = nn.Parameter(torch.empty(4, 3))
        draws.append([f(p, generator=generator).data.clone() for f in (nn.init.xavier_normal_, nn.init.orthogonal_)])
    assert torch.equal(draws[0][0], draws[1][0])
    assert torch.equal(draws[0][1], draws[1][1])
    tg.manual_seed(3)
    a = nn.Linear(4, 4).weight.data.clone()
    tg.manual_seed(3)
    assert torch.equal(a, nn.Linear(4, 4).weight.data)


def test_bad_initialisers_are_named():
    with pytest.raises(tg.ShapeError, match=r"xavier_uniform_: tensor must have at least 2 dimensions .* \[3\]"):
        nn.init.xavier_uniform_(nn.Parameter(torch.zeros(3)))
    with pytest.raises(TypeError, match="zeros_: tensor must be a Tensor; got list"):
        nn.init.zeros_([1.0])
    with pytest.raises(tg.TapeError, match="ones_: tensor must be a leaf"):
        nn.init.ones_(nn.Parameter(torch.zeros(3)) * 2)
    with pytest.raises(ArgumentError, match=r"calculate_gain: nonlinearity must be one of .*; got 'sine'"):
        nn.init.calculate_gain("sine")
    with pytest.raises(ArgumentError, match="kaiming_normal_: mode must be one of 'fan_in', 'fan_out'; got 'fan'"):
        nn.init.kaiming_normal_(nn.Parameter(torch.zeros(3, 3)), mode="fan")
    with pytest.raises(ArgumentError, match=r"normal_: std must not be negative; got -1.0"):
        nn.init.normal_(nn.Parameter(torch.zeros(3)), std=-1.0)


@pytest.mark.parametrize("norm_type", [2.0, 1.0, math.inf])
@pytest.mark.parametrize("max_norm", [0.5, 100.0])
def test_clipping_by_norm_is_torchs(norm_type, max_norm):
    grads = [floats(3, 4), floats(5, seed=1)]
    ours = [nn.Parameter(torch.zeros_like(g)) for g in grads] + [nn.Parameter(torch.zeros(2))]
    theirs = [torch.nn.Parameter(torch.zeros_like(g)) for g in grads]
    for p, q, g in zip(ours, theirs, grads, strict=False):
        p.grad, q.grad = g.clone(), g.clone()
    norm = nn.utils.clip_grad_norm_(ours, max_norm, norm_type)
    assert_same(norm, torch.nn.utils.clip_grad_norm_(theirs, max_norm, norm_type), "norm")
    for p, q in zip(ours, theirs, strict=False):
        assert_same(p.grad, q.grad, "gradient")
    assert ours[-1].grad is None


def test_clipping_by_value_and_its_limits():
    p = nn.Parameter(torch.zeros(3))
    p.grad = torch.tensor([-3.0, 0.2, 5.0])
    nn.utils.clip_grad_value_(p, 1.0)
    assert p.grad.tolist() == pytest.approx([-1.0, 0.2, 1.0])
    assert nn.utils.clip_grad_norm_([], 1.0).item() == 0
    p.grad = torch.tensor([math.nan, 1.0, 2.0])
    with pytest.raises(tg.NonFiniteError, match=r"the gradients' norm of order 2.0 is nan"):
        nn.utils.clip_grad_norm_(p, 1.0, error_if_nonfinite=True)
    assert p.grad.data[1] == 1


def test_functional_has_the_ops_under_torchs_names():
    for name in F.__all__:
        own = ("upsample", "upsample_bilinear", "upsample_nearest", "native_channel_shuffle")
        if not name.endswith(("_", "_with_indices")) and name not in own:
            assert inspect.unwrap(getattr(F, name)) is getattr(ops, name)
        if name != "upsample_nearest2d":  # torch keeps that one elsewhere
            assert hasattr(torch.nn.functional, name)


def test_inplace_is_taken_and_leaves_the_input_alone():
    x = torch.tensor([-1.0, 2.0])
    assert F.relu(x, True).tolist() == [0.0, 2.0]
    assert F.leaky_relu(x, 0.5, inplace=True).tolist() == [-0.5, 2.0]
    assert F.dropout(x, 0.5, False, True).tolist() == x.tolist() == [-1.0, 2.0]


def test_a_wrapper_passes_on_what_it_does_not_have():
    class Wrapper(nn.Module):
        def __init__(self, module):
            super().__init__()
            self.module = module

        def __getattr__(self, name):
            try:
                return super().__getattr__(name)
            except AttributeError:
                return getattr(self.module, name)

        def forward(self, x):
            return self.module(x)

    wrapper = Wrapper(nn.Linear(2, 3))
    assert wrapper.in_features == 2
    assert wrapper.__getattr__("module") is wrapper.module
    assert not hasattr(wrapper, "absent")
    assert torch.equal(copy.deepcopy(wrapper)(torch.ones(1, 2)).data, wrapper(torch.ones(1, 2)).data)
    with pytest.raises(AttributeError, match="'Linear' object has no attribute 'absent'"):
        wrapper.absent  # noqa: B018
