"""The extension's functions against plain torch: values, gradients, threads, bad input. Runs under every instruction
set (test_build.py starts it again with TAPEGRAD_ISA)."""

import itertools
import math
import os
import random
import threading
import time

import pytest
import torch
from kernel_checks import DTYPES, assert_close, assert_same_for_all_threads, rand
from kernel_checks import one_thread as one_thread
from torch.nn import functional as F

from tapegrad._ext import _C
from tapegrad.errors import DTypeError, ShapeError

# conv2d: rows of (N, C, H, W, OC, KH, KW, stride, padding, dilation, groups)

FIXED = [
    (1, 1, 1, 1, 1, 1, 1, (1, 1), (0, 0), (1, 1), 1),
    (2, 3, 10, 10, 3, 3, 3, (1, 1), (1, 1), (1, 1), 1),
    (2, 32, 16, 16, 32, 3, 3, (1, 1), (1, 1), (1, 1), 1),
    (2, 32, 16, 16, 32, 3, 3, (2, 2), (1, 1), (1, 1), 1),
    (1, 33, 5, 5, 17, 3, 3, (1, 1), (1, 1), (1, 1), 1),  # more than kConvDepth rows
    (3, 6, 9, 7, 12, 3, 2, (1, 2), (0, 3), (2, 1), 3),
    (2, 5, 8, 8, 5, 3, 3, (1, 1), (1, 1), (1, 1), 5),  # depthwise
    (2, 4, 8, 8, 8, 3, 3, (2, 1), (1, 2), (1, 2), 4),  # depthwise, two outputs a channel
    (1, 2, 3, 70, 3, 1, 65, (1, 3), (0, 31), (1, 1), 1),
    (2, 3, 4, 4, 2, 4, 4, (3, 3), (5, 5), (1, 1), 1),  # padding beyond the kernel
    (1, 2, 2, 2, 2, 2, 2, (7, 7), (4, 4), (3, 3), 1),  # most taps in the padding
    (16, 3, 15, 17, 4, 3, 3, (1, 1), (1, 1), (1, 1), 1),  # the weight gradient sums in parts
    (2, 32, 9, 9, 3, 3, 3, (1, 1), (1, 1), (1, 1), 1),  # few outputs: the weight gradient swaps roles
    (2, 20, 9, 9, 5, 3, 3, (1, 1), (0, 3), (2, 2), 1),
    (1, 64, 40, 64, 9, 3, 3, (1, 1), (1, 1), (1, 1), 1),  # several bands
    (1, 64, 65, 40, 9, 3, 3, (2, 2), (1, 1), (1, 1), 1),
    (1, 300, 5, 300, 2, 3, 3, (1, 1), (1, 1), (1, 1), 1),  # a row of all channels is beyond the scratch
    (2, 16, 16, 16, 24, 1, 1, (1, 1), (0, 0), (1, 1), 1),
    (2, 16, 17, 17, 24, 1, 1, (2, 2), (0, 0), (1, 1), 2),
    (2, 4, 16, 16, 4, 3, 3, (5, 5), (2, 2), (1, 1), 1),  # more phases than the direct kernel takes
]


def random_rows(count: int) -> list[tuple]:
    choose = random.Random(5)
    sizes = (1, 2, 3, 5, 15, 16, 17, 33)
    rows = []
    while len(rows) < count:
        groups = choose.choice((1, 1, 1, 2, 3))
        C, OC = groups * choose.choice((1, 2, 3, 5)), groups * choose.choice((1, 2, 3, 5, 9, 17))
        H, W, KH, KW = choose.choice(sizes), choose.choice(sizes), choose.randint(1, 5), choose.randint(1, 5)
        stride, padding, dilation = [(choose.randint(low, 3), choose.randint(low, 3)) for low in (1, 0, 1)]
        reach = [d * (k - 1) + 1 for d, k in zip(dilation, (KH, KW), strict=True)]
        if H + 2 * padding[0] >= reach[0] and W + 2 * padding[1] >= reach[1]:
            rows.append((choose.randint(1, 3), C, H, W, OC, KH, KW, stride, padding, dilation, groups))
    return rows


def conv_tensors(row: tuple, dtype: torch.dtype):
    N, C, H, W, OC, KH, KW, *params = row
    x, w, b = rand(N, C, H, W, dtype=dtype), rand(OC, C // params[-1], KH, KW, dtype=dtype), rand(OC, dtype=dtype)
    out = F.conv2d(x.double(), w.double(), b.double(), *params)
    return x, w, b, rand(*out.shape, dtype=dtype, seed=1), params


def check_conv2d(row: tuple, dtype: torch.dtype) -> None:
    x, w, b, g, params = conv_tensors(row, dtype)
    leaves = [t.double().requires_grad_() for t in (x, w, b)]
    out = F.conv2d(*leaves, *params)
    dx, dw, db = (t.to(dtype) for t in torch.autograd.grad(out, leaves, g.double()))
    assert_close(_C.conv2d(x, w, b, *params), out.detach().to(dtype))
    assert_close(_C.conv2d(x, w, None, *params), F.conv2d(x.double(), w.double(), None, *params).to(dtype))
    assert_close(_C.conv2d_input_grad(g, w, x.shape, *params), dx)
    assert_close(_C.conv2d_weight_grad(g, x, w.shape, *params), dw)
    for actual, expected in zip(_C.conv2d_backward(g, x, w, *params, True, True, True), (dx, dw, db), strict=True):
        assert_close(actual, expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("row", FIXED, ids=str)
def test_conv2d_agrees_with_torch(row, dtype):
    check_conv2d(row, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_conv2d_agrees_with_torch_on_odd_shapes(dtype):
    for row in random_rows(120):
        check_conv2d(row, dtype)


def test_conv2d_backward_gives_none_for_what_is_not_needed():
    x, w, _, g, params = conv_tensors(FIXED[1], torch.float32)
    for needs in itertools.product((False, True), repeat=3):
        result = _C.conv2d_backward(g, x, w, *params, *needs)
        assert tuple(r is not None for r in result) == needs


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("row", [FIXED[2], FIXED[5], FIXED[11]], ids=str)
def test_conv2d_is_the_same_for_any_number_of_threads(row, dtype):
    x, w, b, g, params = conv_tensors((16, *row[1:]), dtype)
    assert_same_for_all_threads(
        lambda: (_C.conv2d(x, w, b, *params), *_C.conv2d_backward(g, x, w, *params, True, True, True))
    )


def test_conv2d_accepts_any_memory_layout_and_changes_no_input():
    x, w, b, g, params = conv_tensors(FIXED[5], torch.float32)
    expected = _C.conv2d(x, w, b, *params)
    laid_out = [x.to(memory_format=torch.channels_last), x.transpose(1, 3).contiguous().transpose(1, 3)]
    for other in [*laid_out, x.clone().requires_grad_()]:
        result = _C.conv2d(other, w.to(memory_format=torch.channels_last), b, *params)
        assert torch.equal(result, expected)
        assert not result.requires_grad
    expanded = torch.ones(1, 1, 1, 1).expand(3, 6, 9, 7)
    assert torch.equal(_C.conv2d(expanded, w, b, *params), _C.conv2d(expanded.contiguous(), w, b, *params))
    kept = [t.clone() for t in (x, w, g)]
    _C.conv2d_backward(g, x, w, *params, True, True, True)
    assert all(torch.equal(a, b) for a, b in zip(kept, (x, w, g), strict=True))


def test_conv2d_passes_nan_and_inf_through():
    x = torch.zeros(1, 1, 5, 5)
    x[0, 0, 2, 2], x[0, 0, 4, 0] = math.nan, math.inf
    out = _C.conv2d(x, torch.ones(1, 1, 2, 2), None, (1, 1), (0, 0), (1, 1), 1)
    assert out.isnan().nonzero()[:, 2:].tolist() == [[1, 1], [1, 2], [2, 1], [2, 2]]
    assert out.isinf().nonzero()[:, 2:].tolist() == [[3, 0]]


def test_conv2d_of_nothing():
    w, one, zero = torch.ones(2, 3, 3, 3), (1, 1), (0, 0)
    x = torch.ones(0, 3, 5, 5)
    out = _C.conv2d(x, w, torch.ones(2), one, zero, one, 1)
    assert out.shape == (0, 2, 3, 3)
    dx, dw, db = _C.conv2d_backward(out, x, w, one, zero, one, 1, True, True, True)
    assert dx.shape == x.shape
    assert torch.equal(dw, torch.zeros_like(w))
    assert torch.equal(db, torch.zeros(2))
    no_channels = _C.conv2d(torch.ones(1, 0, 5, 5), torch.ones(2, 0, 3, 3), torch.ones(2), one, zero, one, 1)
    assert torch.equal(no_channels, torch.ones(1, 2, 3, 3))


# upsample_conv2d: against the two steps


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("row", [(1, 1, 1, 1, 1), (2, 3, 5, 7, 4), (3, 17, 8, 8, 3), (2, 32, 16, 15, 32)])
def test_upsample_conv2d_agrees_with_the_two_steps(row, dtype):
    N, C, H, W, OC = row
    x, w, b = rand(N, C, H, W, seed=1), rand(OC, C, 3, 3, seed=2), rand(OC, seed=3)
    g = rand(N, OC, 2 * H, 2 * W, seed=4)
    leaves = [t.clone().requires_grad_() for t in (x, w, b)]
    expected = F.conv2d(F.interpolate(leaves[0], scale_factor=2), leaves[1], leaves[2], padding=1)
    x, w, b, g = (t.to(dtype) for t in (x, w, b, g))
    assert_close(_C.upsample_conv2d(x, w, b, 1), expected.detach().to(dtype))
    assert_close(_C.upsample_conv2d(x, w, None, 1), (expected.detach() - b.double().view(-1, 1, 1)).to(dtype))
    actual = _C.upsample_conv2d_backward(g, x, w, 1, True, True, True)
    for a, e in zip(actual, torch.autograd.grad(expected, leaves, g.double()), strict=True):
        assert_close(a, e.to(dtype))
    assert _C.upsample_conv2d_backward(g, x, w, 1, False, True, False)[0::2] == (None, None)
    assert_same_for_all_threads(
        lambda: (_C.upsample_conv2d(x, w, b, 1), *_C.upsample_conv2d_backward(g, x, w, 1, True, True, True))
    )


# large results


def test_a_large_result_may_reuse_memory_but_never_a_living_one():
    _C.empty_cache()
    x, w = torch.ones(400, 400), torch.eye(800, 400)
    first = _C.linear(x, w, None)
    second = _C.linear(2 * x, w, None)
    assert first.data_ptr() != second.data_ptr()
    assert first.max().item() == 1
    kept = first[3]
    del first
    assert _C.empty_cache() == 0  # a view holds it
    assert kept.max().item() == 1
    del kept
    third = _C.linear(3 * x, w, None)
    assert (second.max().item(), third.max().item()) == (2, 3)
    del second, third
    assert _C.empty_cache() == 2 * 400 * 800 * 4
    assert _C.empty_cache() == 0


def test_results_are_made_and_dropped_by_many_threads():
    x, w = torch.ones(400, 400), torch.eye(800, 400)

    def work(i: int) -> None:
        for _ in range(20):
            if not torch.equal(_C.linear(i * x, w, None)[:, :400], i * x):
                wrong.append(i)

    wrong: list[int] = []
    workers = [threading.Thread(target=work, args=(i,)) for i in range(1, 5)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert wrong == []


# upsample_nearest2d


@pytest.mark.parametrize("dtype", DTYPES)
def test_upsample_agrees_with_torch_for_any_size(dtype):
    sizes = [1, 2, 3, 5, 15, 16, 17, 33]
    outputs = sorted({f * s for s in sizes[:6] for f in (1, 2, 3, 4, 5)} | {7, 31})
    for H, OH in itertools.product(sizes, outputs):
        W, OW = sizes[(H + OH) % len(sizes)], outputs[(3 * H + OH) % len(outputs)]
        x = rand(2, 3, H, W, dtype=dtype).requires_grad_()
        expected = F.interpolate(x, (OH, OW))
        assert torch.equal(_C.upsample_nearest2d(x, (OH, OW), None), expected)
        g = rand(2, 3, OH, OW, dtype=dtype, seed=1)
        assert_close(_C.upsample_nearest2d_backward(g, x.shape, None), torch.autograd.grad(expected, x, g)[0])


def test_upsample_agrees_with_torch_for_any_scale():
    for size, scale in itertools.product((1, 2, 3, 10, 33), (0.3, 0.5, 0.77, 1.1, 1.5, 2.0, 2.00001, 2.5, 3.0, 3.3)):
        OH, OW = int(size * scale), int(17 * scale)
        if OH == 0:
            continue
        x = rand(1, 2, size, 17)
        g = rand(1, 2, OH, OW)
        expected = torch.ops.aten.upsample_nearest2d(x, [OH, OW], scale, scale)
        assert torch.equal(_C.upsample_nearest2d(x, (OH, OW), (scale, scale)), expected)
        expected = torch.ops.aten.upsample_nearest2d_backward(g, [OH, OW], x.shape, scale, scale)
        assert_close(_C.upsample_nearest2d_backward(g, x.shape, (scale, scale)), expected)


def test_upsample_is_the_same_for_any_number_of_threads():
    x, g = rand(50, 7, 16, 16, dtype=torch.float32), rand(50, 7, 48, 39, dtype=torch.float32)
    assert_same_for_all_threads(
        lambda: (_C.upsample_nearest2d(x, (48, 39), None), _C.upsample_nearest2d_backward(g, x.shape, None)),
    )


# the border

ONE, ZERO = (1, 1), (0, 0)
X, W = torch.ones(2, 6, 5, 5), torch.ones(4, 3, 3, 3)
HUGE = 2**62


def conv(x=X, w=W, b=None, stride=ONE, padding=ZERO, dilation=ONE, groups=2):
    return _C.conv2d(x, w, b, stride, padding, dilation, groups)


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
    (lambda: _C.upsample_conv2d(X[:, :3], W, None, 0), ShapeError, "upsample_conv2d: padding must be 1, is 0"),
    (lambda: _C.upsample_conv2d(X, W, None, 1), ShapeError, r"weight.shape\[1\] = 3 must equal input.shape\[1\] = 6"),
    (
        lambda: _C.upsample_conv2d_backward(X, X[:, :3], W, 1, True, True, True),
        ShapeError,
        r"upsample_conv2d_backward: g.shape must be \[2, 4, 10, 10\], is \[2, 6, 5, 5\]",
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


def test_other_threads_run_while_a_kernel_does():
    worker = threading.Thread(target=lambda: _C.random_normal([4_000_000], torch.float64, 0, 0))
    ticks = 0
    worker.start()
    while worker.is_alive():
        ticks += 1
        time.sleep(0.001)
    assert ticks > 5


def test_forced_instruction_set_is_the_one_in_use():
    forced = os.environ.get("TAPEGRAD_ISA")
    assert forced in (None, "", _C.build_info()["isa"])


def test_storage_use_count_and_version():
    t = torch.zeros(3)
    assert _C.storage_use_count(t) == 1
    view = t[1:]
    assert _C.storage_use_count(t) == _C.storage_use_count(view) == 2
    del view
    assert _C.storage_use_count(t) == 1
    before = t._version
    _C.bump_version(t)
    assert t._version == before + 1
