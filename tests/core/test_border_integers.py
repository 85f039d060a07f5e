"""A 0-dim integer tensor, ours or torch's, and a NumPy integer wherever torch takes an int: values and gradients."""

import inspect
import itertools

import numpy as np
import pytest
import torch
from optable import rows
from optable.check import Call, Side

import tapegrad as tg
from tapegrad.core import is_integers
from tapegrad.nn import functional as F

F64 = torch.float64
PLANE = torch.arange(32.0, dtype=F64).reshape(1, 2, 4, 4).sin()
KINDS = {
    "ours": tg.tensor,
    "torch's": torch.tensor,
    "int32": lambda n: torch.tensor(n, dtype=torch.int32),
    "NumPy's": np.int64,
}


def drawn(layer, *args):
    """A layer in float64 whose initial values do not depend on what was drawn before."""
    tg.manual_seed(0)
    return layer(*args, dtype=F64)


# name: f(x [3, 4], i), every int of the call through i
CALLS = {
    "sum": lambda x, i: x.sum(i(1)) + tg.sum(x, (i(0), i(-1))) + x.sum([i(1)], keepdim=True),
    "mean": lambda x, i: x.mean(i(0)) + tg.mean(x, dim=(i(-2),)),
    "amax": lambda x, i: x.amax(i(1)) + tg.amax(x, (i(1),)),
    "amin": lambda x, i: x.amin(i(1)),
    "max": lambda x, i: x.max(dim=i(1)).values,
    "min": lambda x, i: tg.min(x, dim=i(0)).values,
    "prod": lambda x, i: x.prod(i(1)),
    "cumsum": lambda x, i: x.cumsum(i(1)),
    "cumprod": lambda x, i: x.cumprod(i(-1)),
    "linear_recurrence": lambda x, i: tg.linear_recurrence(x, x, i(1)),
    "logsumexp": lambda x, i: x.logsumexp(i(1)),
    "argmax": lambda x, i: x.argmax(i(1)),
    "argmin": lambda x, i: x.argmin(dim=i(0)),
    "argsort": lambda x, i: x.argsort(i(0)),
    "sort": lambda x, i: x.sort(i(0)).values,
    "topk": lambda x, i: x.topk(i(2), i(1)).values,
    "all": lambda x, i: (x > 0).all(i(1)),
    "any": lambda x, i: (x > 0).any((i(0), i(1))),
    "var": lambda x, i: x.var(i(1)) + tg.var(x, (i(0),), correction=i(0))[0],
    "std": lambda x, i: x.std(i(1), correction=i(1)),
    "norm": lambda x, i: x.norm(2, i(1)) + tg.norm(x, dim=(i(0), i(1))) + tg.norm(x, i(3), i(1)),
    "softmax": lambda x, i: x.softmax(i(0)),
    "log_softmax": lambda x, i: F.log_softmax(x, dim=i(1)),
    "round": lambda x, i: x.round(decimals=i(1)),
    "reshape": lambda x, i: x.reshape(i(4), 3) + x.reshape((i(4), i(-1))) + tg.reshape(x, [4, i(3)]),
    "view": lambda x, i: x.view(i(4), i(3)) + x.view((4, i(3))),
    "flatten": lambda x, i: x.flatten(i(0), i(1)),
    "unflatten": lambda x, i: x.unflatten(i(1), (i(2), 2)),
    "squeeze": lambda x, i: x.unsqueeze(i(1)).squeeze(i(1)) + x[None, :, None].squeeze((i(0), i(2))),
    "unsqueeze": lambda x, i: x.unsqueeze(i(-1)),
    "transpose": lambda x, i: x.transpose(i(0), i(1)),
    "permute": lambda x, i: x.permute(i(1), i(0)) + x.permute((i(1), 0)),
    "movedim": lambda x, i: x.movedim(i(0), i(1)) + x.movedim((i(0), i(1)), (1, i(0))),
    "expand": lambda x, i: x.expand(i(2), 3, i(4)) + x.expand((i(2), i(-1), -1)),
    "broadcast_to": lambda x, i: tg.broadcast_to(x, (i(2), 3, i(4))),
    "repeat": lambda x, i: x.repeat(i(2), 1) + x.repeat((i(2), i(1))),
    "tile": lambda x, i: x.tile(i(2)) + x.tile((i(2),)),
    "flip": lambda x, i: x.flip(i(0)) + x.flip(i(0), i(1)) + x.flip([i(1)]),
    "roll": lambda x, i: x.roll(i(1)) + x.roll(i(1), i(0)) + x.roll((i(1), i(2)), (i(0), i(1))),
    "tril": lambda x, i: x.tril(i(1)),
    "triu": lambda x, i: x.triu(i(1)),
    "cat": lambda x, i: tg.cat([x, x], i(1)),
    "stack": lambda x, i: tg.stack([x, x], dim=i(2)),
    "split": lambda x, i: x.split(i(2))[1] + x.split([i(1), i(2)])[0] + x.split(i(2), i(1))[0].sum(),
    "chunk": lambda x, i: x.chunk(i(2), i(1))[0],
    "unbind": lambda x, i: x.unbind(i(1))[0],
    "narrow": lambda x, i: x.narrow(i(1), i(2), i(2)) + tg.narrow(x, 1, i(-2), i(2)),
    "select": lambda x, i: x.select(i(1), i(2)) + x.select(1, i(-1)),
    "constant_pad_nd": lambda x, i: tg.constant_pad_nd(x, [i(1), 0, i(-1), 1], 0.0),
    "pad": lambda x, i: F.pad(x, (i(1), i(0))) + F.pad(x[None], (i(1), 0), "reflect"),
    "diagonal": lambda x, i: x.diagonal(i(1)) + tg.diagonal(x, i(1), i(0), i(1)),
    "diagonal_backward": lambda x, i: tg.diagonal_backward(x[0, :3], (i(3), 3), i(0), i(0), i(1)),
    "gather": lambda x, i: x.gather(i(0), torch.tensor([[0, 2, 1, 0]])),
    "take_along_dim": lambda x, i: tg.take_along_dim(x, torch.tensor([[0, 2, 1, 0]]), i(0)),
    "index_select": lambda x, i: x.index_select(i(1), torch.tensor([2, 0])),
    "index_add": lambda x, i: x.index_add(i(0), torch.tensor([1]), x[:1]),
    "scatter_add": lambda x, i: x.scatter_add(i(0), torch.tensor([[1, 1, 0, 2]]), x),
    "getitem_backward": lambda x, i: tg.getitem_backward(x[0], (i(3), i(4)), 0),
    "getitem": lambda x, i: x[i(1)] + x[i(0), :] + x[i(1) : i(3) : i(1), i(0)].sum(),
    "conv1d": lambda x, i: F.conv1d(x[None], x[:2, :3].unsqueeze(0).transpose(0, 1).expand(2, 3, 3), None, i(1), i(1)),
    "conv2d": lambda x, i: F.conv2d(PLANE, x.reshape(3, 2, 2, 1), None, i(2), (i(1), 0), (1, i(2)), i(1)),
    "conv2d_input_grad": lambda x, i: tg.conv2d_input_grad(
        x.reshape(1, 3, 2, 2), torch.ones(3, 2, 2, 2, dtype=F64), (i(1), 2, 3, i(3)), (1, 1), (0, 0), (1, 1), i(1)
    ),
    "conv2d_weight_grad": lambda x, i: tg.conv2d_weight_grad(
        x.reshape(1, 3, 2, 2), PLANE[:, :, :3, :3], (i(3), 2, 2, i(2)), (1, 1), (0, 0), (1, 1), i(1)
    ),
    "conv_transpose2d": lambda x, i: F.conv_transpose2d(
        PLANE, x.reshape(2, 3, 2, 1), None, i(2), (i(1), 0), i(1), i(1), (i(1), 1)
    ),
    "unfold": lambda x, i: F.unfold(x[None, None], i(2), i(1), (i(1), 0), i(1)),
    "fold": lambda x, i: F.fold(x[None], (i(2), 4), (i(1), i(3)), i(1), (0, i(0)), i(1)),
    "interpolate": lambda x, i: F.interpolate(x[None, None], i(5)) + F.interpolate(x[None, None], (i(5), 5)),
    "upsample_nearest2d": lambda x, i: tg.upsample_nearest2d(x[None, None], (i(6), 4)),
    "upsample_nearest2d_backward": lambda x, i: tg.upsample_nearest2d_backward(x[None, None], (1, 1, i(3), i(2)), None),
    "max_pool2d": lambda x, i: F.max_pool2d(x[None], i(2), i(1), (i(1), 0), i(1)),
    "max_pool2d_backward": lambda x, i: tg.max_pool2d_backward(
        x[None, None], torch.arange(12).reshape(1, 1, 3, 4), (1, 1, i(3), i(4))
    ),
    "avg_pool2d": lambda x, i: F.avg_pool2d(x[None], (i(2), 2), i(1), i(1), divisor_override=i(3)),
    "avg_pool2d_backward": lambda x, i: tg.avg_pool2d_backward(
        x[None, None], (1, 1, i(3), i(4)), (1, 1), (1, 1), (0, 0), False, True, None
    ),
    "adaptive_avg_pool2d": lambda x, i: F.adaptive_avg_pool2d(x[None], i(2)) * x[None].sum(),
    "adaptive_avg_pool2d_backward": lambda x, i: tg.adaptive_avg_pool2d_backward(x[None, None], (1, 1, i(3), i(4))),
    "layer_norm": lambda x, i: F.layer_norm(x, (i(4),)) + F.layer_norm(x, (i(3), 4)),
    "group_norm": lambda x, i: F.group_norm(x, i(2)),
    "embedding": lambda x, i: F.embedding(torch.tensor([0, 1]), x, i(1)),
    "one_hot": lambda x, i: F.one_hot(torch.tensor([1]), i(3)),
    "cross_entropy": lambda x, i: F.cross_entropy(x, torch.tensor([0, 1, 2]), ignore_index=i(1)),
    "nll_loss": lambda x, i: F.nll_loss(x, torch.tensor([0, 1, 2]), ignore_index=i(1)),
    "zeros": lambda x, i: tg.zeros(i(2), 3) + tg.zeros((2, i(3))),
    "ones": lambda x, i: tg.ones(i(2)) + tg.ones(size=(i(2),)),
    "full": lambda x, i: tg.full((i(2), i(3)), i(7)),
    "arange": lambda x, i: tg.arange(i(5)) + tg.arange(i(1), i(10), i(2)) + tg.arange(0, end=i(5)),
    "linspace": lambda x, i: tg.linspace(i(0), 1, i(3)) + tg.linspace(0, 1, steps=i(3)),
    "eye": lambda x, i: tg.eye(i(3)) + tg.eye(i(3), i(3)),
    "empty": lambda x, i: tg.empty(i(0), i(3)),
    "Tensor": lambda x, i: tg.Tensor(i(0), i(3)),
    "full_like": lambda x, i: tg.full_like(x, i(3)),
    "rand": lambda x, i: tg.rand(i(2), 3, generator=tg.Generator(1)) + tg.rand((i(2), 3), generator=tg.Generator(1)),
    "randn": lambda x, i: tg.randn(i(2), generator=tg.Generator(i(1))),
    "randint": lambda x, i: tg.randint(i(3), i(9), (i(4),), generator=tg.Generator(1)),
    "randperm": lambda x, i: tg.randperm(i(5), generator=tg.Generator(1)),
    "tensor_split": lambda x, i: x.tensor_split(i(2), i(1))[0] + tg.tensor_split(x, [i(1), i(3)], 1)[1],
    "hsplit": lambda x, i: tg.hsplit(x, i(2))[1],
    "tensordot": lambda x, i: tg.tensordot(x, x.T, i(1)) + tg.tensordot(x, x, ([i(1)], [i(1)])),
    "repeat_interleave": lambda x, i: x.repeat_interleave(i(2), i(0)),
    "manual_seed": lambda x, i: tg.manual_seed(i(3)) and tg.rand(2),
    "size": lambda x, i: tg.tensor([x.size(i(1)), x.stride(i(0))]),
    "layers": lambda x, i: tg.nn.Flatten(i(0))(tg.nn.Softmax(i(1))(x)) * tg.nn.Identity()(x).sum(),
    "convolution": lambda x, i: drawn(tg.nn.Conv2d, i(2), i(4), i(3), i(2), i(1), i(1), i(2))(PLANE) + x.sum(),
    "transposed convolution": lambda x, i: drawn(tg.nn.ConvTranspose2d, i(2), i(1), i(2))(PLANE) + x.sum(),
    "shape layers": lambda x, i: tg.nn.Unflatten(i(1), (i(2), i(2)))(tg.nn.LayerNorm(i(4), dtype=F64)(x)),
    "linear layer": lambda x, i: drawn(tg.nn.Linear, i(4), i(2))(x),
    "embedding layer": lambda x, i: drawn(tg.nn.Embedding, i(3), i(2))(torch.tensor([0, 1, 2])) + x.sum(),
    "tensor": lambda x, i: tg.tensor([[i(1), 2], [3, i(4)]]),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", CALLS)
def test_an_integer_tensor_stands_for_an_int(name, kind):
    results = []
    for convert in (int, KINDS[kind]):
        x = tg.tensor(torch.arange(12, dtype=F64).reshape(3, 4).cos(), requires_grad=True)
        y = CALLS[name](x, convert)
        if y.requires_grad:
            y.backward(torch.ones_like(y.data))
        results.append((y.data, None if x.grad is None else x.grad.data))
    (expected, slope), (y, g) = results
    assert y.dtype is expected.dtype
    assert torch.equal(y, expected)
    assert g is slope is None or torch.equal(g, slope)


# what torch takes ints for, whatever our annotation says
INTS = {
    "dim", "dims", "dim0", "dim1", "dim2", "source", "destination", "start_dim", "end_dim", "size", "sizes",
    "shape", "kernel_size", "stride", "padding", "dilation", "output_padding", "output_size", "groups",
    "num_groups", "start", "length", "index", "k", "chunks", "shifts", "repeats", "split_size_or_sections",
    "num_classes", "diagonal", "offset", "normalized_shape", "upscale_factor", "downscale_factor", "pad",
    "padding_idx", "ignore_index",
}  # fmt: skip


def tensors_for_ints(value, make):
    if type(value) in (tuple, list):
        return type(value)([tensors_for_ints(v, make) for v in value])
    return make(value) if type(value) is int else value


@pytest.mark.parametrize("name", sorted(name for name, row in rows.items() if row.call is None))
def test_every_sample_of_the_table_with_tensors_for_ints(name):
    row = rows[name]
    signature = inspect.signature(row.function)
    for sample, make in zip(row.samples, itertools.cycle((tg.tensor, torch.tensor))):
        call = Call(row, sample, F64)

        def function(*args, make=make, **kwargs):
            bound = signature.bind(*args, **kwargs)
            for key, value in bound.arguments.items():
                if key in INTS or is_integers(signature.parameters[key]):
                    bound.arguments[key] = tensors_for_ints(value, make)
            return row.function(*bound.args, **bound.kwargs)

        before = tg.default_generator.get_state()
        expected = call.tapegrad()
        tg.default_generator.set_state(before)
        leaves = [tg.Tensor(v.clone(), requires_grad=n) for v, n in zip(call.values, call.needs, strict=True)]
        side = Side(call, leaves, call.run(function, leaves), tg.grad)
        pairs = [*zip(side.outputs, expected.outputs, strict=True)]
        if row.differentiable:
            pairs += [*zip(side.first, expected.first, strict=True)]
        for a, b in pairs:
            assert torch.equal(a.data.nan_to_num(7.0), b.data.nan_to_num(7.0)), f"{name}{sample}"


@pytest.mark.parametrize("wrong", [tg.tensor([1]), torch.tensor([0, 1]), tg.tensor(1.0), torch.tensor(True)], ids=repr)
@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda x, i: x.sum(i), "sum: dim"),
        (lambda x, i: x.narrow(1, i, 2), "narrow: start"),
        (lambda x, i: x.reshape(i, 3), "reshape: shape"),
        (lambda x, i: F.softmax(x, i), "softmax: dim"),
        (lambda x, i: x.topk(i), "topk: k"),
        (lambda x, i: tg.rand(i), "rand: size"),
    ],
)
def test_any_other_tensor_is_no_int(call, says, wrong):
    with pytest.raises(TypeError, match=f"{says} must be an int or a 0-dim integer tensor; got .*"):
        call(tg.zeros(3, 4), wrong)


def test_a_number_that_requires_a_gradient_is_no_fill_value():
    with pytest.raises(TypeError, match="full: size must be a number"):
        tg.full((2,), tg.tensor(1.0, requires_grad=True))
