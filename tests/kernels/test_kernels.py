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

from tapegrad.core import _C, ShapeError

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
    (9, 70, 7, 7, 100, 3, 3, (1, 1), (1, 1), (1, 1), 1),  # blocks of channels, panels of vectors, an odd last row
    (5, 48, 4, 3, 33, 3, 3, (1, 1), (1, 1), (1, 1), 1),  # several images at once
    (3, 64, 40, 64, 9, 3, 3, (1, 1), (2, 2), (1, 1), 1),  # several bands of several images
    (9, 8, 28, 28, 8, 3, 3, (1, 1), (1, 1), (1, 1), 1),  # the weight gradient's vectors along pixels
    (2, 20, 14, 14, 40, 4, 4, (2, 2), (1, 1), (1, 1), 1),  # two row phases of even size
    (3, 40, 11, 13, 40, 3, 3, (3, 2), (1, 1), (1, 1), 1),
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
    for actual, expected in zip(
        _C.conv2d_backward(g, x, w, x.shape, w.shape, *params, True, True, True), (dx, dw, db), strict=True
    ):
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
        result = _C.conv2d_backward(g, x, w, x.shape, w.shape, *params, *needs)
        assert tuple(r is not None for r in result) == needs


@pytest.mark.parametrize("row", FIXED, ids=str)
def test_conv2d_keeps_the_images_of_a_batch_apart(row):
    x, w, b, g, params = conv_tensors((3, *row[1:]), torch.float32)
    out, dx = _C.conv2d(x, w, b, *params), _C.conv2d_input_grad(g, w, x.shape, *params)
    x[1], g[1] = math.nan, math.inf
    assert torch.equal(_C.conv2d(x, w, b, *params)[::2], out[::2])
    assert torch.equal(_C.conv2d_input_grad(g, w, x.shape, *params)[::2], dx[::2])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("row", [FIXED[2], FIXED[5], FIXED[11], FIXED[20], FIXED[23]], ids=str)
def test_conv2d_is_the_same_for_any_number_of_threads(row, dtype):
    x, w, b, g, params = conv_tensors((16, *row[1:]), dtype)
    assert_same_for_all_threads(
        lambda: (_C.conv2d(x, w, b, *params), *_C.conv2d_backward(g, x, w, x.shape, w.shape, *params, True, True, True))
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
    _C.conv2d_backward(g, x, w, x.shape, w.shape, *params, True, True, True)
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
    dx, dw, db = _C.conv2d_backward(out, x, w, x.shape, w.shape, one, zero, one, 1, True, True, True)
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
    assert_close(_C.upsample_conv2d(x, w, b), expected.detach().to(dtype))
    assert_close(_C.upsample_conv2d(x, w, None), (expected.detach() - b.double().view(-1, 1, 1)).to(dtype))
    actual = _C.upsample_conv2d_backward(g, x, w, True, True, True)
    for a, e in zip(actual, torch.autograd.grad(expected, leaves, g.double()), strict=True):
        assert_close(a, e.to(dtype))
    assert _C.upsample_conv2d_backward(g, x, w, False, True, False)[0::2] == (None, None)
    assert_same_for_all_threads(
        lambda: (_C.upsample_conv2d(x, w, b), *_C.upsample_conv2d_backward(g, x, w, True, True, True))
    )


# n, c, h, w, oc, kernel, padding, dilation, groups, stride
DOUBLED = [
    (2, 3, 4, 5, 4, 3, 1, 1, 1, 1),
    (3, 32, 8, 8, 32, 3, 1, 1, 1, 1),
    (2, 32, 16, 16, 3, 3, 1, 1, 1, 1),  # roles swapped
    (2, 32, 16, 16, 1, 3, 1, 1, 1, 1),
    (5, 17, 2, 2, 3, 2, 1, 1, 1, 1),  # several images at a time
    (2, 4, 3, 3, 6, 5, 2, 1, 2, 1),
    (2, 8, 1, 1, 8, 1, 0, 1, 1, 1),  # a product
    (1, 6, 10, 11, 6, 3, 2, 2, 6, 1),
    (2, 3, 6, 6, 5, 3, 1, 1, 1, 2),
    (1, 16, 40, 40, 16, 3, 1, 1, 1, 1),  # several bands
    (1, 20, 64, 64, 3, 3, 1, 1, 1, 1),
    (2, 64, 7, 9, 5, 3, 0, 1, 1, 1),
    (0, 3, 4, 4, 2, 3, 1, 1, 1, 1),
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", DOUBLED)
def test_conv2d_of_a_doubled_map_is_that_of_the_large_one_to_the_bit(case, dtype):
    n, c, h, w, oc, k, padding, dilation, groups, stride = case
    x, weight = rand(n, c, h, w, dtype=dtype), rand(oc, c // groups, k, k, dtype=dtype, seed=1)
    bias = rand(oc, dtype=dtype, seed=2)
    large = torch.nn.functional.interpolate(x, scale_factor=2, mode="nearest")
    geometry = ((stride, stride), (padding, padding), (dilation, dilation), groups)
    y = _C.conv2d(large, weight, bias, *geometry)
    assert torch.equal(_C.conv2d_of_doubled(x, weight, bias, *geometry), y)
    g, sizes = rand(*y.shape, dtype=dtype, seed=3), (list(large.shape), list(weight.shape))
    dx, *rest = _C.conv2d_backward(g, large, weight, *sizes, *geometry, True, True, True)
    expected = [_C.upsample_nearest2d_backward(dx, list(x.shape), None), *rest]

    def ours():
        return _C.conv2d_of_doubled_backward(g, x, weight, *sizes, *geometry, True, True, True)

    for a, e in zip(ours(), expected, strict=True):
        assert torch.equal(a, e)
    assert _C.conv2d_of_doubled_backward(g, None, weight, *sizes, *geometry, True, False, False)[1:] == (None, None)
    assert_same_for_all_threads(ours)


def test_conv2d_of_a_doubled_map_refuses_odd_sizes_and_wrong_inputs():
    x, w, geometry = torch.ones(1, 2, 2, 2), torch.ones(1, 2, 3, 3), ((1, 1), (1, 1), (1, 1), 1)
    g = torch.ones(1, 1, 4, 4)
    with pytest.raises(ShapeError, match="input_size must be even"):
        _C.conv2d_of_doubled_backward(torch.ones(1, 1, 5, 4), x, w, [1, 2, 5, 4], [1, 2, 3, 3], *geometry, *[True] * 3)
    with pytest.raises(ShapeError, match=r"input.*4, 4"):
        _C.conv2d_of_doubled_backward(g, torch.ones(1, 2, 4, 4), w, [1, 2, 4, 4], [1, 2, 3, 3], *geometry, *[True] * 3)
    with pytest.raises(ShapeError, match="conv2d_of_doubled: input"):
        _C.conv2d_of_doubled(x[0], w, None, *geometry)


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


def test_small_results_reuse_memory_of_their_size_up_to_a_bound():
    _C.empty_cache()
    x = torch.ones(100)
    first = _C.relu(x)
    place = first.data_ptr()
    kept = first[1:]
    del first
    assert _C.relu(x).data_ptr() != place  # a view holds it
    del kept
    again = _C.relu(2 * x)
    assert (again.data_ptr(), again.max().item()) == (place, 2)
    many = [_C.relu(torch.ones(7000)) for _ in range(100)]  # 2.8 MB
    assert all(y.data_ptr() % 64 == 0 for y in many)
    del many, again
    assert 0 < _C.empty_cache() <= 1 << 20
    assert _C.empty_cache() == 0
