"""Bad input: each family's mistakes give an error that names the op, the argument or the sizes, and what came."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from optable import rows
from optable.check import Call
from optable.check import one_thread as one_thread
from optable.names import PUBLIC
from optable.spec import Spec, fill

import tapegrad as tg

SHAPE, DTYPE, TYPE, VALUE, ANY = tg.ShapeError, tg.DTypeError, TypeError, ValueError, tg.TapegradError


def z(*shape: int) -> tg.Tensor:
    return tg.zeros(shape)


def i(*values: int) -> tg.Tensor:
    return tg.tensor(list(values), dtype=torch.int64)


def F(name: str, *args: Any, **kwargs: Any) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
    return name, args, kwargs


double = tg.zeros(3, 3, dtype=torch.float64)
image = z(1, 4, 5, 5)

# (call, error, what the message names besides the op)
# fmt: off
CASES: list[Any] = [
    # elementwise
    (F("add", z(2, 3), z(4)), SHAPE, "[2, 3]", "[4]"), (F("maximum", z(2), z(3)), SHAPE, "[2]", "[3]"),
    (F("where", z(2) > 0, z(3), z(2)), SHAPE, "[3]"), (F("lerp", z(2), z(3), 0.5), SHAPE, "[2]", "[3]"),
    (F("addcmul", z(2), z(3), z(2)), SHAPE, "[3]"), (F("addcdiv", z(2), z(2), z(3)), SHAPE, "[3]"),
    (F("clamp", z(2)), ANY, "min"), (F("clamp", z(2), z(3)), SHAPE, "[3]"),
    (F("div", z(2), z(2), rounding_mode="up"), ANY, "rounding_mode", "up"),
    (F("gelu", z(2), approximate="sine"), ANY, "approximate", "sine"), (F("exp", "x"), TYPE, "input", "str"),
    (F("mul", z(2), "x"), TYPE, "other", "str"), (F("pow", z(2), None), TYPE, "None"), (F("tanh"), TYPE, "input"),
    (F("tanh", z(2), z(2)), TYPE), (F("bitwise_and", z(2), z(2)), DTYPE, "f32"), (F("relu", z(2) > 0), DTYPE, "bool"),
    # reductions
    (F("sum", z(2, 3), 2), IndexError, "dim = 2", "[2, 3]"), (F("mean", z(2, 3), (0, 0)), SHAPE, "dim", "(0, 0)"),
    (F("mean", i(1, 2)), DTYPE, "i64"), (F("var", i(1, 2)), DTYPE, "i64"), (F("amax", z(0, 3), 0), SHAPE, "[0, 3]"),
    (F("max", z(0)), SHAPE, "[0]"), (F("argmin", z(2, 0), 1), SHAPE, "[2, 0]"), (F("cumsum", z(2), 1), IndexError, "1"),
    (F("max", z(2, 3), -3), IndexError, "-3"), (F("norm", z(2), "nuc"), (VALUE, SHAPE), "nuc"),
    (F("sum", z(2), "all"), TYPE, "dim"), (F("prod", z(2, 3), 5), IndexError, "5"),
    (F("std", z(2), 1), IndexError, "1"),
    (F("logsumexp", z(2), 3), IndexError, "3"), (F("all", z(2), 1), IndexError, "1"),
    # shapes
    (F("reshape", z(2, 3), (4, 2)), SHAPE, "[2, 3]", "4"), (F("view", z(2, 3), (5,)), SHAPE, "[2, 3]", "5"),
    (F("view", z(2, 3).T, (-1,)), SHAPE, "strides [1, 3]", "use reshape"),
    (F("reshape", z(2, 3), (-1, -1)), SHAPE, "-1"), (F("expand", z(2, 3), (2, 4)), SHAPE, "[2, 3]", "4"),
    (F("permute", z(2, 3), (0, 0)), SHAPE, "(0, 0)"), (F("permute", z(2, 3), (0,)), SHAPE, "(0,)"),
    (F("transpose", z(2, 3), 0, 2), IndexError, "2"), (F("unflatten", z(6), 0, (4, 2)), SHAPE, "(4, 2)"),
    (F("cat", [z(2, 3), z(2, 4)]), SHAPE, "[2, 3]", "[2, 4]"), (F("cat", []), (SHAPE, VALUE)),
    (F("cat", z(2, 3)), TYPE, "tensors"), (F("stack", [z(2), z(3)]), SHAPE, "[2]", "[3]"),
    (F("split", z(5), [2, 2]), SHAPE, "[2, 2]"), (F("chunk", z(5), 0), SHAPE, "chunks"), (F("unbind", z()), SHAPE),
    (F("narrow", z(4), 0, 2, 3), SHAPE, "2", "3"), (F("select", z(2, 3), 0, 2), IndexError, "2"),
    (F("flip", z(2, 3), (0, 0)), SHAPE, "(0, 0)"), (F("squeeze", z(2, 3), 4), IndexError, "4"),
    (F("diagonal", z(2, 3), 0, 1, 1), SHAPE, "1"), (F("tril", z(3)), SHAPE, "[3]"),
    (F("repeat", z(2, 3), (2,)), SHAPE, "(2,)"), (F("movedim", z(2, 3), 0, 5), IndexError, "5"),
    (F("roll", z(3), (1, 2), (0,)), SHAPE, "shifts"), (F("pad", z(3), [1]), SHAPE, "[1]"),
    (F("pad", z(1, 3), [3, 0], "reflect"), SHAPE, "reflect", "3"), (F("pad", z(3), [1, 1], "mirror"), VALUE, "mirror"),
    (F("unsqueeze", z(2), 3), IndexError, "3"), (F("topk", z(3), 4), SHAPE, "4"), (F("sort", z(3), 1), IndexError, "1"),
    # indexing
    (F("getitem", z(3), 5), IndexError, "5"), (F("getitem", z(3), 1.5), IndexError, "float"),
    (F("getitem", z(3), "a"), IndexError, "str"), (F("getitem", z(3), z(2)), IndexError, "float32"),
    (F("getitem", z(3), z(2) > 0), IndexError, "2"),
    (F("getitem", z(2), (0, 0)), IndexError, "(0, 0)"), (F("getitem", z(3), i(7)), IndexError, "7"),
    (F("gather", z(3), 0, z(2)), DTYPE, "index", "f32"), (F("gather", z(3), 0, i(4)), SHAPE, "4"),
    (F("index_select", z(3), 0, i(3)), (SHAPE, IndexError), "index"),
    (F("index_select", z(3), 0, z(2)), DTYPE, "index"),
    (F("scatter_add", z(3), 0, i(0, 5), z(2)), SHAPE, "5"), (F("masked_fill", z(3), z(3), 1.0), DTYPE, "mask"),
    (F("masked_fill", z(3), z(2) > 0, 1.0), SHAPE, "[2]"), (F("take_along_dim", z(2, 3), i(0), 0), SHAPE, "indices"),
    # linear algebra
    (F("matmul", z(2, 3), z(4, 5)), SHAPE, "other.shape[-2] = 4", "input.shape[-1] = 3"),
    (F("matmul", z(), z(3)), SHAPE, "0-dim"),
    (F("matmul", z(3, 3), double), DTYPE, "f32", "f64"), (F("mm", z(2, 3), z(3)), SHAPE, "[3]"),
    (F("mm", z(2, 3), z(2, 3)), SHAPE, "3", "2"), (F("bmm", z(2, 3, 4), z(3, 4, 5)), SHAPE, "mat2", "3", "2"),
    (F("mv", z(2, 3), z(2)), SHAPE, "2"), (F("dot", z(2), z(3)), SHAPE, "2", "3"),
    (F("outer", z(2, 2), z(3)), SHAPE, "[2, 2]"),
    (F("addmm", z(5), z(2, 3), z(3, 4)), SHAPE, "[5]"),
    (F("baddbmm", z(2, 2, 2), z(2, 2, 3), z(2, 4, 2)), SHAPE, "3", "4"),
    (F("linear", z(2, 3), z(4, 5)), SHAPE, "weight", "5", "3"),
    (F("linear", z(2, 3), z(4, 3), z(5)), SHAPE, "bias", "5"),
    (F("linear", z(2, 3), double), DTYPE, "weight", "Float", "Double"),
    (F("einsum", "ij,jk->ik", z(2, 3), z(4, 5)), SHAPE, "j", "3", "4"),
    (F("einsum", "ij->k", z(2, 3)), (SHAPE, VALUE), "k"), (F("einsum", "ij,jk", z(2, 3)), (SHAPE, VALUE), "2", "1"),
    (F("einsum", "i->i", z(2, 3)), SHAPE, "[2, 3]"), (F("mm", i(1), i(1)), SHAPE, "[1]"),
    # networks
    (F("conv2d", z(1, 3, 5, 5), z(8, 8, 3, 3)), SHAPE, "weight.shape[1] = 8", "= 3"),
    (F("conv2d", image, z(2, 4, 6, 6)), SHAPE, "6", "5"),
    (F("conv2d", z(5, 5), z(2, 4, 3, 3)), SHAPE, "input", "[5, 5]"),
    (F("conv2d", image, z(2, 4, 3, 3), z(3)), SHAPE, "bias", "3"),
    (F("conv2d", image, z(2, 4, 3, 3), stride=0), (SHAPE, VALUE), "stride", "0"),
    (F("conv2d", image, z(3, 2, 3, 3), groups=2), SHAPE, "groups = 2"),
    (F("conv2d", image, z(2, 4, 3, 3), padding="full"), VALUE, "padding", "full"),
    (F("conv2d", image, z(2, 4, 3, 3), padding=-1), (SHAPE, VALUE), "padding", "-1"),
    (F("conv2d", image, z(2, 4, 3, 3), stride=1.5), TYPE, "stride", "1.5"),
    (F("conv2d", image.double(), z(2, 4, 3, 3)), DTYPE, "weight", "Float", "Double"),
    (F("conv1d", z(1, 3, 5), z(8, 8, 3)), SHAPE, "8", "3"),
    (F("conv_transpose2d", image, z(4, 2, 2, 2), output_padding=1), (SHAPE, VALUE), "output_padding"),
    (F("conv_transpose2d", image, z(3, 2, 2, 2)), SHAPE, "weight", "3", "4"), (F("unfold", image, 6), SHAPE, "6", "5"),
    (F("fold", z(1, 12, 5), 4, 2), SHAPE, "5"),
    (F("max_pool2d", image, 2, padding=2), (SHAPE, VALUE), "2"), (F("max_pool2d", z(5, 5), 2), SHAPE, "[5, 5]"),
    (F("avg_pool2d", image, 7), SHAPE, "7"),
    (F("adaptive_avg_pool2d", z(5, 5), 2), SHAPE, "[5, 5]"), (F("interpolate", image), VALUE, "size"),
    (F("interpolate", image, 3, 2), VALUE, "size"),
    (F("interpolate", image, 3, mode="cubic"), VALUE, "mode", "cubic"),
    (F("upsample_nearest2d", z(5, 5), 2), SHAPE, "[5, 5]"),
    (F("batch_norm", z(2, 3), z(4), z(3)), SHAPE, "running_mean", "4"),
    (F("batch_norm", z(1, 3), None, None, training=True), (SHAPE, VALUE), "[1, 3]"),
    (F("batch_norm", z(2, 3), None, None), (VALUE, TYPE), "running_mean"),
    (F("layer_norm", z(2, 3), (4,)), SHAPE, "normalized_shape", "4"),
    (F("layer_norm", z(2, 3), (3,), z(4)), SHAPE, "weight", "4"),
    (F("group_norm", z(2, 6), 4), SHAPE, "num_groups = 4", "6"),
    (F("embedding", z(3), z(5, 2)), DTYPE, "input", "float32"), (F("embedding", i(5), z(5, 2)), SHAPE, "5"),
    (F("dropout", z(3), 1.5), VALUE, "p", "1.5"),
    (F("softmax", z(2, 3), 2), IndexError, "dim = 2"), (F("log_softmax", i(1, 2), 0), DTYPE, "i64"),
    (F("one_hot", i(-1)), (SHAPE, VALUE), "-1"),
    (F("one_hot", i(5), 3), (SHAPE, VALUE), "5", "3"),
    (F("scaled_dot_product_attention", z(2, 3, 4), z(2, 3, 5), z(2, 3, 4)), SHAPE, "4", "5"),
    (F("scaled_dot_product_attention", z(3, 4), z(3, 4), z(3, 4), z(3, 3), is_causal=True), (VALUE, TYPE), "is_causal"),
    # losses
    (F("mse_loss", z(2, 3), z(2)), SHAPE, "target", "[2, 3]", "[2]"),
    (F("l1_loss", z(2, 3), z(3)), SHAPE, "[2, 3]", "[3]"),
    (F("huber_loss", z(2), z(2), delta=0.0), VALUE, "delta"),
    (F("smooth_l1_loss", z(2), z(2), beta=-1.0), VALUE, "beta", "-1"),
    (F("cross_entropy", z(2, 3), i(0, 3)), SHAPE, "3", "row 1"),
    (F("cross_entropy", z(2, 3), i(0)), SHAPE, "target", "[1]"),
    (F("cross_entropy", z(2, 3), z(2)), SHAPE, "target", "[2]"),
    (F("cross_entropy", z(2, 3), i(0, 1), z(4)), SHAPE, "weight", "[4]"),
    (F("cross_entropy", z(2, 3), i(0, 1), label_smoothing=2.0), VALUE, "label_smoothing", "2"),
    (F("cross_entropy", i(1, 2), i(0)), DTYPE, "input", "int64"),
    (F("nll_loss", z(2, 3), i(0, -1)), SHAPE, "-1", "row 1"),
    (F("nll_loss", z(2, 3), z(2)), DTYPE, "target", "float32"),
    (F("binary_cross_entropy", z(2), z(3)), SHAPE, "[2]", "[3]"),
    (F("binary_cross_entropy", z(2) + 2, z(2)), VALUE, "input", "2"),
    (F("binary_cross_entropy_with_logits", z(2), z(3)), SHAPE, "[2]", "[3]"),
    (F("kl_div", z(2), z(3)), SHAPE, "[2]", "[3]"),
]
# fmt: on
LOSSES = "mse_loss l1_loss smooth_l1_loss huber_loss binary_cross_entropy binary_cross_entropy_with_logits kl_div"


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0][0]}-{'-'.join(case[2:])}")
def test_a_mistake_is_named(case: Any) -> None:
    (name, args, kwargs), error, *fragments = case
    with pytest.raises(error) as raised:
        getattr(tg, name)(*args, **kwargs)
    message = str(raised.value)
    assert name in message
    missing = [f for f in fragments if f not in message]
    assert not missing, f"{message!r} does not name {missing}"
    assert "size mismatch" not in message


@pytest.mark.parametrize("name", [*LOSSES.split(), "cross_entropy", "nll_loss"])
def test_an_unknown_reduction_is_named(name: str) -> None:
    target = i(0, 1) if name in ("cross_entropy", "nll_loss") else z(2, 3)
    with pytest.raises(ValueError, match=rf"{name}: reduction .*'average'"):
        getattr(tg, name)(z(2, 3), target, reduction="average")


BAD_ARRAYS: list[tuple[Callable[[torch.Tensor], Any], type[Exception], str]] = [
    (lambda v: "text", TypeError, "str"),
    (lambda v: {}, TypeError, "dict"),
    (lambda v: v.half(), tg.DTypeError, "float16"),
    (lambda v: v.bfloat16(), tg.DTypeError, "bfloat16"),
    (lambda v: v.to(torch.complex64), tg.DTypeError, "complex64"),
    (lambda v: v.to_sparse(), tg.DTypeError, "sparse"),
    (lambda v: v.to("meta"), tg.DTypeError, "meta"),
]


@pytest.mark.parametrize("name", PUBLIC)
def test_what_is_no_array_of_ours_is_refused_by_name(name: str) -> None:
    row, sample = rows[name], rows[name].samples[0]
    call = Call(row, sample, torch.float32)
    first = next(n for n, value in enumerate(call.values) if value.is_floating_point() or n == len(call.values) - 1)
    for make, error, word in BAD_ARRAYS:
        values: dict[Spec, Any] = dict(zip(call.specs, call.values, strict=True))
        values[call.specs[first]] = make(call.values[first])
        kwargs = {key: fill(value, values) for key, value in sample.kwargs.items()}
        with pytest.raises(error, match=rf"(?s){name}.*{word}"):
            row.function(*fill(sample.args, values), **kwargs)


@pytest.mark.parametrize("returned", [lambda x: x, lambda x: (x,), lambda x: (x, x, x), lambda x: None])
@pytest.mark.parametrize("needs", [True, False])
def test_residuals_are_counted(returned, needs):
    x = tg.tensor([1.0, 2.0], requires_grad=needs)
    op = tg.op(x=lambda g, kept: g * kept, residuals=("kept",), name="counted")(lambda x: returned(x * 2))
    with pytest.raises(TypeError, match=r"counted: the forward function must return \(output, kept\); got"):
        op(x)


def test_residuals_may_come_as_a_list():
    x = tg.tensor([1.0, 2.0], requires_grad=True)
    tg.op(x=lambda g, kept: g * kept, residuals=("kept",), name="listed")(lambda x: [x * 2, x])(x).sum().backward()
    assert x.grad.tolist() == [1.0, 2.0]


def test_a_residual_may_be_a_list_of_anything():
    x = tg.tensor([1.0, 2.0], requires_grad=True)
    op = tg.op(x=lambda g, kept: g * kept[0], residuals=("kept",), name="numbers")(lambda x: (x * 3, [3.0, None]))
    op(x).sum().backward()
    assert x.grad.tolist() == [3.0, 3.0]
