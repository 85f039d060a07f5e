"""Sums, softmax and losses against torch in float64. Runs under every instruction set."""

import itertools
import math

import pytest
import torch
from kernel_checks import assert_same_for_all_threads
from torch.nn import functional as F

from tapegrad.core import _C, DTypeError, ShapeError

DTYPES = (torch.float64, torch.float32)
SIZES = (1, 2, 3, 5, 15, 16, 17, 33, 64, 65, 1000, 40001)
# Sums are cascades of at most 4096 / 64 terms a chain, so their rounding stays at some tens of epsilons.
ROUNDING = {torch.float32: 32 * 1.2e-7, torch.float64: 32 * 2.2e-16}


def rand(*size: int, dtype: torch.dtype, seed: int = 0) -> torch.Tensor:
    return torch.randn(size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).to(dtype)


def assert_close(actual: torch.Tensor, expected: torch.Tensor, scale: float = 1.0) -> None:
    assert actual.shape == expected.shape
    bound = ROUNDING[actual.dtype] * max(scale, expected.abs().max().item() if expected.numel() else 0.0)
    torch.testing.assert_close(actual.double(), expected.double(), rtol=0, atol=bound, equal_nan=True)


@pytest.mark.parametrize("dtype", DTYPES)
def test_sums_over_any_dimensions_agree_with_torch(dtype):
    for size in [(n,) for n in SIZES] + [
        (),
        (0,),
        (3, 0),
        (7, 5, 9),
        (70, 33),
        (2, 130, 3),
        (1, 4097, 1),
        (5, 1, 1100),
    ]:
        x = rand(*size, dtype=dtype)
        for r, keepdim in itertools.product(range(len(size) + 1), (False, True)):
            for dims in itertools.combinations(range(len(size)), r):
                axes = dims or tuple(range(len(size)))
                expected = x.double().sum(axes, keepdim)
                scale = x.double().abs().sum().item()
                assert_close(_C.sum(x, dims, keepdim), expected, scale)
                assert_close(_C.mean(x, dims, keepdim), x.double().mean(axes, keepdim))
    x = rand(6, 8, dtype=dtype)
    assert_close(_C.sum(x.t(), [-1], False), x.double().sum(0))
    assert_close(_C.sum(x[:, ::2], [], False), x[:, ::2].double().sum())
    assert_close(_C.sum(x.t(), [], True), x.double().sum().reshape(1, 1))


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_long_float_sum_stays_accurate(dtype):
    x = torch.full((1_000_003,), 0.1, dtype=dtype)
    # equal terms round the same way, at most once an addition: 4096 / (4 * lanes) additions a chain
    assert _C.sum(x, [], False).item() == pytest.approx(x[0].item() * 1_000_003, rel=128 * torch.finfo(dtype).eps)


def test_sums_refuse_bad_dimensions():
    x = torch.ones(2, 3)
    with pytest.raises(ShapeError, match=r"sum: dim must be in \[-2, 1\], is 2"):
        _C.sum(x, [2], False)
    with pytest.raises(ShapeError, match="mean: dim 1 is given twice"):
        _C.mean(x, [1, -1], False)
    with pytest.raises(DTypeError, match=r"sum: input\.dtype must be float32"):
        _C.sum(x.int(), [], False)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("log", [False, True])
def test_softmax_agrees_with_torch_along_any_dimension(log, dtype):
    f, name = (torch.log_softmax, "log_softmax") if log else (torch.softmax, "softmax")
    forward, backward = getattr(_C, name), getattr(_C, name + "_backward")
    for size in [(n,) for n in SIZES] + [(4, 7), (3, 17, 5), (2, 33, 70), (0, 3), (3, 0), (), (2, 3, 65)]:
        for dim in range(max(len(size), 1)):
            x, g = rand(*size, dtype=dtype) * 5, rand(*size, dtype=dtype, seed=1)
            leaf = x.double().requires_grad_()
            y = f(leaf, dim)
            (dx,) = torch.autograd.grad(y, leaf, g.double())
            out = forward(x, dim)
            assert_close(out, y.detach())
            assert_close(backward(g, out, dim), dx, g.abs().sum().item() if g.numel() else 1.0)
    wide = rand(3, 5, dtype=dtype).t()
    assert_close(forward(wide, -1), f(wide.double(), -1))


@pytest.mark.parametrize("log", [False, True])
def test_softmax_of_infinities_is_torch_s(log):
    inf, nan = math.inf, math.nan
    rows = torch.tensor([[0, -inf, 1.0], [-inf, -inf, -inf], [inf, 0, 1], [nan, 0, 1], [1e30, 0, -1e30]])
    f, ours = (torch.log_softmax, _C.log_softmax) if log else (torch.softmax, _C.softmax)
    torch.testing.assert_close(ours(rows, 1), f(rows, 1), equal_nan=True)
    torch.testing.assert_close(ours(rows.t(), 0), f(rows, 1).t(), equal_nan=True)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("mean", [False, True])
def test_mse_loss_agrees_with_torch(mean, dtype):
    for size in [(n,) for n in SIZES] + [(), (3, 5), (0,)]:
        x, y = rand(*size, dtype=dtype), rand(*size, dtype=dtype, seed=1)
        leaves = [x.double().requires_grad_(), y.double().requires_grad_()]
        loss = F.mse_loss(*leaves, reduction="mean" if mean else "sum")
        slopes = torch.autograd.grad(loss, leaves, torch.tensor(1.7, dtype=torch.float64))
        assert_close(_C.mse_loss(x, y, mean), loss.detach())
        g = torch.tensor(1.7, dtype=dtype)
        for actual, expected in zip(_C.mse_loss_backward(g, x, y, mean, True, True), slopes, strict=True):
            assert_close(actual, expected, 0.0)
        assert _C.mse_loss_backward(g, x, y, mean, True, False)[1] is None
        assert _C.mse_loss_backward(g, x, y, mean, False, True)[0] is None
    a, b = rand(4, 6, dtype=dtype).t(), rand(6, 4, dtype=dtype)
    assert_close(_C.mse_loss(a, b, True), F.mse_loss(a.double(), b.double()))
    with pytest.raises(ShapeError, match=r"mse_loss: target.shape must be \[6, 4\], is \[4, 6\]"):
        _C.mse_loss(a, b.t(), True)


def check_cross_entropy(N: int, C: int, weighted: bool, smoothing: float, reduction: str, dtype: torch.dtype) -> None:
    x = rand(N, C, dtype=dtype) * 3
    target = torch.randint(0, C, (N,), generator=torch.Generator().manual_seed(N + C))
    target[::3] = -7
    weight = rand(C, dtype=dtype, seed=2).abs() if weighted else None
    leaf = x.double().requires_grad_()
    loss = F.cross_entropy(leaf, target, None if weight is None else weight.double(), ignore_index=-7,
                           reduction=reduction, label_smoothing=smoothing)  # fmt: skip
    g = rand(*loss.shape, dtype=dtype, seed=3)
    (dx,) = torch.autograd.grad(loss, leaf, g.double())
    value, stats, total = _C.cross_entropy(x, target, weight, -7, reduction, smoothing)
    assert_close(value, loss.detach(), C**0.5)
    actual = _C.cross_entropy_backward(g, x, target, weight, stats, total, -7, reduction, smoothing)
    if (target != -7).any() or reduction != "mean":
        assert_close(actual, dx)
    else:
        assert (actual == 0).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_cross_entropy_agrees_with_torch(reduction, dtype):
    for N, C in [(1, 1), (1, 5), (2, 3), (25, 10), (17, 16), (5, 17), (3, 33), (64, 65), (7, 1000)]:
        for weighted, smoothing in itertools.product((False, True), (0.0, 0.1)):
            check_cross_entropy(N, C, weighted, smoothing, reduction, dtype)


def test_cross_entropy_of_large_logits_is_exact():
    x = torch.tensor([[1000.0, 0.0], [-1000.0, 1000.0], [-math.inf, 0.0]])
    loss, stats, total = _C.cross_entropy(x, torch.tensor([0, 0, 1]), None, -100, "none", 0.0)
    assert loss.tolist() == [0.0, 2000.0, 0.0]
    assert total.item() == 3
    dx = _C.cross_entropy_backward(torch.ones(3), x, torch.tensor([0, 0, 1]), None, stats, total, -100, "none", 0.0)
    assert dx.tolist() == [[0, 0], [-1, 1], [0, 0]]


def test_cross_entropy_refuses_targets_outside_the_classes():
    x, target = torch.zeros(20, 5), torch.zeros(20, dtype=torch.int64)
    for bad in (5, -1, 2**62):
        target[17] = bad
        message = rf"cross_entropy: targets must be class indices in \[0, 5\); got {bad} at row 17"
        with pytest.raises(ShapeError, match=message):
            _C.cross_entropy(x, target, None, -100, "mean", 0.0)
        with pytest.raises(ShapeError, match=message):
            _C.cross_entropy_backward(
                torch.ones(()), x, target, None, torch.zeros(20, 2), torch.ones(()), -100, "mean", 0.0
            )
    target[17] = 0
    with pytest.raises(DTypeError, match="target must be a dense int64"):
        _C.cross_entropy(x, target.int(), None, -100, "mean", 0.0)
    with pytest.raises(ShapeError, match=r"target.shape must be \[20\], is \[19\]"):
        _C.cross_entropy(x, target[1:], None, -100, "mean", 0.0)
    with pytest.raises(ShapeError, match=r"weight.shape must be \[5\], is \[4\]"):
        _C.cross_entropy(x, target, torch.ones(4), -100, "mean", 0.0)


def test_losses_are_the_same_for_any_number_of_threads():
    for dtype in DTYPES:
        x, y, one = rand(300, 701, dtype=dtype), rand(300, 701, dtype=dtype, seed=1), torch.ones((), dtype=dtype)
        target = torch.arange(300)
        assert_same_for_all_threads(
            lambda x=x, y=y, one=one, target=target: (
                *(_C.sum(x, dims, False) for dims in ([], [0], [1])),
                _C.mean(x, [], False),
                *(_C.softmax(x, dim) for dim in (0, 1)),
                *(_C.log_softmax_backward(x, y, dim) for dim in (0, 1)),
                _C.mse_loss(x, y, True),
                *_C.mse_loss_backward(one, x, y, True, True, True),
                *_C.cross_entropy(x, target, None, -100, "mean", 0.1),
            )
        )
