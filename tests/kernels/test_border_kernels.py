"""What the extension's functions refuse, and that they say why. Runs under every instruction set."""

import math

import pytest
import torch

from tapegrad.core import _C, DTypeError, ShapeError

ONE, ZERO = (1, 1), (0, 0)
X, W = torch.ones(2, 6, 5, 5), torch.ones(4, 3, 3, 3)
HUGE = 2**62


def conv(x=X, w=W, b=None, stride=ONE, padding=ZERO, dilation=ONE, groups=2):
    return _C.conv2d(x, w, b, stride, padding, dilation, groups)


def conv_backward(g):
    return _C.conv2d_backward(g, None, W, X.shape, [4, 3, 2, 3], ONE, ZERO, ONE, 2, True, False, False)


def hollow(*size: int) -> torch.Tensor:
    t = torch.ones(size or (2, 6, 5, 5))
    t.untyped_storage().resize_(0)
    return t


BAD = [
    (lambda: conv(groups=1), ShapeError, r"conv2d: weight.shape\[1\] = 3 must equal input.shape\[1\] / groups = 6"),
    (lambda: conv(groups=4), ShapeError, r"conv2d: input.shape\[1\] = 6 must be divisible by groups = 4"),
    (lambda: conv(groups=3), ShapeError, r"conv2d: weight.shape\[0\] = 4 must be divisible by groups = 3"),
    (lambda: conv(groups=0), ShapeError, "conv2d: groups must be at least 1, is 0"),
    (lambda: conv(x=X[0]), ShapeError, r"conv2d: input must have 4 dimensions, has shape \[6, 5, 5\]"),
    (lambda: conv(w=torch.tensor(1.0)), ShapeError, r"conv2d: weight must have 4 dimensions, has shape \[\]"),
    (lambda: conv(b=torch.ones(3)), ShapeError, r"conv2d: bias.shape must be \[4\], is \[3\]"),
    (lambda: conv(stride=(1, 0)), ShapeError, r"conv2d: stride\[1\] must be from 1 to 2147483647, is 0"),
    (lambda: conv(padding=(-1, 0)), ShapeError, r"conv2d: padding\[0\] must be from 0 to .*, is -1"),
    (lambda: conv(dilation=(0, 1)), ShapeError, r"conv2d: dilation\[0\] must be from 1 to .*, is 0"),
    (lambda: conv(padding=(HUGE, 0)), ShapeError, r"conv2d: padding\[0\] must be"),
    (lambda: conv(padding=(2**31 - 1,) * 2), ShapeError, "conv2d: a tensor of shape .* has too many elements"),
    (lambda: conv(dilation=(3, 1)), ShapeError, r"conv2d: input.shape\[2\] \+ 2 \* padding = 5 must be at least"),
    (lambda: conv(w=torch.ones(4, 3, 0, 3)), ShapeError, r"conv2d: weight.shape\[2\] must be at least 1, is 0"),
    (lambda: conv(x=X.half()), DTypeError, "conv2d: input.dtype must be float32 or float64, is Half"),
    (lambda: conv(x=X.long()), DTypeError, "conv2d: input.dtype must be float32 or float64, is Long"),
    (lambda: conv(w=W.double()), DTypeError, "conv2d: weight.dtype must be Float as the other arguments', is Double"),
    (lambda: conv(x=X.to("meta")), DTypeError, "conv2d: input must be a dense CPU tensor, is Meta"),
    (lambda: conv(x=X.to_sparse()), DTypeError, "conv2d: input must be a dense CPU tensor, is SparseCPU"),
    (lambda: conv(x=hollow()), ShapeError, "conv2d: input of shape .* needs 1200 bytes of storage, has 0"),
    (
        lambda: _C.conv2d_input_grad(torch.ones(1, 4, 3, 3), W, [1, 6, HUGE, HUGE], ONE, ZERO, ONE, 2),
        ShapeError,
        "conv2d_input_grad: a tensor of shape .* has too many elements",
    ),
    (
        lambda: _C.conv2d_input_grad(torch.ones(1, 4, 3, 2), W, [1, 6, 5, 5], ONE, ZERO, ONE, 2),
        ShapeError,
        r"conv2d_input_grad: g.shape must be \[1, 4, 3, 3\], is \[1, 4, 3, 2\]",
    ),
    (
        lambda: _C.conv2d_weight_grad(torch.ones(2, 4, 3, 3), X, [4, 3, -3, 3], ONE, ZERO, ONE, 2),
        ShapeError,
        "conv2d_weight_grad: sizes must not be negative",
    ),
    (
        lambda: _C.linear(torch.ones(2, 3), torch.ones(4, 5), None),
        ShapeError,
        r"linear: input.shape\[-1\] = 3 must equal weight.shape\[1\] = 5",
    ),
    (lambda: _C.linear(torch.tensor(1.0), torch.ones(1, 1), None), ShapeError, "linear: input must have at least 1"),
    (
        lambda: _C.linear_backward(torch.ones(2, 3), torch.ones(2, 3), torch.ones(4, 3), True, True, True),
        ShapeError,
        r"linear_backward: weight.shape must be \[3, 3\], is \[4, 3\]",
    ),
    (
        lambda: _C.matmul(W[0, 0], X[0, 0]),
        ShapeError,
        r"matmul: other.shape\[-2\] = 5 must equal input.shape\[-1\] = 3",
    ),
    (lambda: _C.matmul(X.sum(), W[0]), ShapeError, "matmul: input must have at least 1 dimension"),
    (lambda: _C.matmul(W[0], W[0, :2]), ShapeError, r"matmul: the leading dimensions .* do not broadcast"),
    (lambda: _C.matmul(W.expand(2, 1, 1, 1, 1, 1, 1, 4, 3, 3, 3), W), ShapeError, "matmul: at most 8 leading"),
    (
        lambda: _C.matmul_backward(X[0, 0], W[0, 0], W[0, 0], [3, 3], [3, 3], True, True),
        ShapeError,
        r"matmul_backward: g.shape, .* must be \[3, 3\], is \[5, 5\]",
    ),
    (
        lambda: _C.matmul_backward(W[0, 0], None, X[0, 0], [3, 3], [3, 3], True, False),
        ShapeError,
        r"matmul_backward: other.shape must be \[3, 3\], is \[5, 5\]",
    ),
    (
        lambda: _C.matmul_backward(W[0, 0], None, None, [3, 3], [3, 3], True, False),
        DTypeError,
        "matmul_backward: other must be a tensor, is None",
    ),
    (lambda: _C.linear_backward(W[0, 0], None, None, True, False, False), DTypeError, "weight must be a tensor"),
    (lambda: _C.matmul(hollow(3, 3), W[0, 0]), ShapeError, "matmul: input of shape .* bytes of storage, has 0"),
    (
        lambda: _C.upsample_conv2d(X[:, :3], W[..., :2], None),
        ShapeError,
        r"upsample_conv2d: weight.shape\[2:\] must be \[3, 3\], is \[3, 2\]",
    ),
    (lambda: _C.upsample_conv2d(X, W, None), ShapeError, r"weight.shape\[1\] = 3 must equal input.shape\[1\] = 6"),
    (
        lambda: _C.upsample_conv2d_backward(X[:, :4, :4, :4], X[:, :3], None, False, True, True),
        ShapeError,
        r"upsample_conv2d_backward: g.shape must be \[2, 4, 10, 10\], is \[2, 4, 4, 4\]",
    ),
    (
        lambda: _C.upsample_conv2d_backward(X, None, W, True, False, True),
        ShapeError,
        r"upsample_conv2d_backward: g.shape\[2:\] must be even, is \[5, 5\]",
    ),
    (
        lambda: _C.upsample_conv2d_backward(X[..., :4, :4], None, W, True, False, True),
        ShapeError,
        r"upsample_conv2d_backward: weight.shape\[0\] = 4 must equal g.shape\[1\] = 6",
    ),
    (
        lambda: _C.conv2d_backward(
            X[:, :4, :3, :3], None, W, X.shape, [4, 3, 2, 3], ONE, ZERO, ONE, 2, True, False, False
        ),
        ShapeError,
        r"conv2d_backward: g.shape must be \[2, 4, 4, 3\], is \[2, 4, 3, 3\]",
    ),
    (
        lambda: _C.conv2d_backward(
            X[:, :4, :4, :3], None, W, X.shape, [4, 3, 2, 3], ONE, ZERO, ONE, 2, True, False, False
        ),
        ShapeError,
        r"conv2d_backward: weight.shape must be \[4, 3, 2, 3\], is \[4, 3, 3, 3\]",
    ),
    (lambda: _C.upsample_nearest2d(X, (0, 4), None), ShapeError, r"output height and width .*, are \[0, 4\]"),
    (lambda: _C.upsample_nearest2d(X, (HUGE, HUGE), None), ShapeError, "too many elements"),
    (lambda: _C.upsample_nearest2d(X, (9, 9), (math.nan, 2.0)), ShapeError, "scales must be positive and finite"),
    (lambda: _C.upsample_nearest2d_backward(X, [2, 5, 5, 5], None), ShapeError, r"g.shape\[:2\] = \[2, 6\]"),
    (lambda: _C.random_uniform([2, -1], torch.float32, 0, 0), ShapeError, "sizes must not be negative"),
    (lambda: _C.random_uniform([2], torch.int64, 0, 0), DTypeError, "dtype must be float32 or float64, is Long"),
    (lambda: _C.random_int(3, 3, [2], 0, 0), ShapeError, "low = 3 must be below high = 3"),
    (lambda: _C.random_bernoulli(1.5, [2], 0, 0), ShapeError, "p must be from 0 to 1, is 1.5"),
    (lambda: _C.permutation(-1, 0, 0), ShapeError, "sizes must not be negative"),
    (lambda: conv(x=None), TypeError, "incompatible function arguments"),
    (lambda: conv(x=[1.0]), TypeError, "incompatible function arguments"),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_a_result_beyond_memory_is_an_error():
    with pytest.raises(RuntimeError, match="alloc"):
        conv(padding=(2**20, 2**20))


def test_a_lazily_negated_view_is_read_with_its_sign():
    x = torch.randn(2, 6, 5, 5, dtype=torch.complex64).conj().imag
    assert x.is_neg()
    assert torch.equal(conv(x=x), conv(x=x.resolve_neg().contiguous()))
