"""linear and matmul against plain torch: values, gradients, views, broadcasting, threads. Runs under every instruction
set (test_build.py starts it again with TAPEGRAD_ISA)."""

import itertools

import pytest
import torch
from kernel_checks import DTYPES, assert_close, assert_same_for_all_threads, rand
from kernel_checks import one_thread as one_thread
from torch.nn import functional as F

from tapegrad.core import _C

# linear

LINEAR = [
    *itertools.product((1, 2, 3, 5, 15, 16, 17, 33, 64, 65), (1, 17, 65), (1, 3, 16)),
    *[(25, 25, 25), (7, 3, 2500), (3, 130, 784), (0, 3, 4), (3, 0, 4), (3, 4, 0), (1, 1, 1)],
]


@pytest.mark.parametrize("dtype", DTYPES)
def test_linear_agrees_with_torch(dtype):
    for M, N, K in LINEAR:
        x, w, b, g = (rand(*s, dtype=dtype, seed=i) for i, s in enumerate([(M, K), (N, K), (N,), (M, N)]))
        X, W, B, G = (t.double() for t in (x, w, b, g))
        assert_close(_C.linear(x, w, b), (X @ W.T + B).to(dtype))
        assert_close(_C.linear(x, w, None), (X @ W.T).to(dtype))
        dx, dw, db = _C.linear_backward(g, x, w, True, True, True)
        assert_close(dx, (G @ W).to(dtype))
        assert_close(dw, (G.T @ X).to(dtype))
        assert_close(db, G.sum(0).to(dtype))


def test_linear_keeps_leading_dimensions():
    x, w, b = rand(2, 3, 5, 7), rand(4, 7), rand(4)
    g = rand(2, 3, 5, 4)
    assert_close(_C.linear(x, w, b), F.linear(x, w, b))
    assert_close(_C.linear(x[0, 0, 0], w, b), F.linear(x[0, 0, 0], w, b))
    dx, dw, db = _C.linear_backward(g.transpose(0, 1), x.transpose(0, 1), w, True, True, True)
    assert_close(dx, (g @ w).transpose(0, 1).contiguous())
    assert_close(dw, g.flatten(0, 2).T @ x.flatten(0, 2))
    assert_close(db, g.sum((0, 1, 2)))
    assert _C.linear_backward(g, x, w, False, True, False)[0::2] == (None, None)


@pytest.mark.parametrize("dtype", DTYPES)
def test_linear_is_the_same_for_any_number_of_threads(dtype):
    for M, N, K in [(250, 130, 784), (5, 515, 300)]:
        x, w, b, g = (rand(*s, dtype=dtype) for s in [(M, K), (N, K), (N,), (M, N)])
        assert_same_for_all_threads(
            lambda t=(x, w, b, g): (_C.linear(*t[:3]), *_C.linear_backward(t[3], *t[:2], True, True, True))
        )


def test_an_element_of_a_product_does_not_depend_on_where_it_stands():
    x, w = rand(65, 33, dtype=torch.float32), rand(97, 33, dtype=torch.float32)
    whole = _C.linear(x, w, None)
    for m, n in [(0, 0), (64, 96), (7, 95), (63, 47), (64, 16)]:
        assert _C.linear(x[m : m + 1], w[n : n + 1], None).item() == whole[m, n].item()


# matmul

ODD = (1, 2, 3, 5, 15, 16, 17, 33, 64, 65)


def views(*size: int, dtype: torch.dtype, seed: int) -> list[torch.Tensor]:
    """The same values, contiguous and as a transposed view."""
    x = rand(*size, dtype=dtype, seed=seed)
    return [x, x.mT.contiguous().mT]


@pytest.mark.parametrize("dtype", DTYPES)
def test_matmul_agrees_with_torch_for_views_too(dtype):
    rows = [*itertools.product(ODD, (1, 17, 65), (1, 3, 16, 49)), (7, 3, 2500), (40, 1024, 300), (300, 70, 1024)]
    for M, N, K in rows:
        xs, ys = views(M, K, dtype=dtype, seed=1), views(K, N, dtype=dtype, seed=2)
        expected = xs[0].double() @ ys[0].double()
        results = [_C.matmul(x, y) for x in xs for y in ys]
        assert_close(results[0], expected.to(dtype))
        assert all(torch.equal(r, results[0]) for r in results)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_large_product_is_the_same_for_any_number_of_threads(dtype):
    for M, N, K in [(601, 400, 500), (80, 1300, 1030)]:
        x, w, b = rand(M, K, dtype=dtype), rand(N, K, dtype=dtype, seed=1), rand(N, dtype=dtype, seed=2)
        g = rand(M, N, dtype=dtype, seed=3)
        X, W, B, G = (t.double() for t in (x, w, b, g))
        assert_close(_C.matmul(x, w.T), (X @ W.T).to(dtype))
        assert_close(_C.linear(x, w, b), (X @ W.T + B).to(dtype))
        dx, dw, _ = _C.linear_backward(g, x, w, True, True, True)
        assert_close(dx, (G @ W).to(dtype))
        assert_close(dw, (G.T @ X).to(dtype))
        assert_same_for_all_threads(
            lambda t=(x, w, b, g): (
                _C.matmul(t[0], t[1].T),
                _C.linear(*t[:3]),
                *_C.linear_backward(t[3], *t[:2], True, True, True),
            )
        )


@pytest.mark.parametrize("dtype", DTYPES)
def test_matmul_of_batches(dtype):
    for B, M, N, K in [(1, 2, 3, 4), (5, 17, 33, 7), (3, 64, 65, 16), (0, 2, 2, 2), (2, 0, 3, 4), (2, 3, 4, 0)]:
        for x in views(B, M, K, dtype=dtype, seed=1):
            for y in views(B, K, N, dtype=dtype, seed=2):
                assert_close(_C.matmul(x, y), (x.double() @ y.double()).to(dtype))
        y = rand(K, N, dtype=dtype).expand(B, K, N)
        assert_close(_C.matmul(x, y), (x.double() @ y.double()).to(dtype))
    x = rand(40, 60, dtype=dtype)
    assert_close(_C.matmul(x[::2, ::3], x[5:25]), (x[::2, ::3].double() @ x[5:25].double()).to(dtype))


# input, other: what torch.matmul takes
BROADCAST = [
    ((3,), (3,)), ((0,), (0,)), ((9000,), (9000,)), ((2, 3), (3,)), ((3,), (3, 2)), ((70, 33), (33,)), ((1,), (1,)),
    ((33,), (33, 70)),
    ((5, 2, 3), (3, 4)), ((2, 3), (5, 3, 4)), ((5, 2, 3), (3,)), ((3,), (5, 3, 2)), ((4, 1, 2, 3), (5, 3, 4)),
    ((2, 1, 2, 3), (1, 4, 3, 2)), ((2, 5, 1, 3), (3, 4)), ((2, 1, 5, 2, 3), (3, 1, 3, 4)), ((0, 2, 3), (3, 4)),
    ((2, 2, 0), (0, 4)), ((1, 1, 2, 3), (3, 4)), ((6, 17, 16), (6, 16, 1)), ((6, 1, 16), (16, 9)),
]  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("left", "right"), BROADCAST)
def test_matmul_and_its_gradients_broadcast_as_torchs_do(left, right, dtype):
    x, y = rand(*left, dtype=dtype, seed=1), rand(*right, dtype=dtype, seed=2)
    leaves = [t.double().requires_grad_() for t in (x, y)]
    out = torch.matmul(*leaves)
    g = rand(*out.shape, 1, dtype=dtype, seed=3).squeeze(-1)
    dx, dy = (t.to(dtype) for t in torch.autograd.grad(out, leaves, g.double()))
    assert_close(_C.matmul(x, y), out.detach().to(dtype))
    actual = _C.matmul_backward(g, x, y, x.shape, y.shape, True, True)
    assert_close(actual[0], dx)
    assert_close(actual[1], dy)
    for a, b in zip(_C.matmul_backward(g, None, y, x.shape, y.shape, True, False), (actual[0], None), strict=True):
        assert a is b or torch.equal(a, b)
    for a, b in zip(_C.matmul_backward(g, x, None, x.shape, y.shape, False, True), (None, actual[1]), strict=True):
        assert a is b or torch.equal(a, b)


@pytest.mark.parametrize("dtype", DTYPES)
def test_matmul_is_the_same_for_any_number_of_threads(dtype):
    x, y, z = rand(300, 257, dtype=dtype), rand(257, 97, dtype=dtype), rand(9, 33, 65, dtype=dtype)
    v, w = rand(300_000, dtype=dtype), rand(3, 200, 200, dtype=dtype)
    assert_same_for_all_threads(
        lambda: (
            _C.matmul(x, y),
            _C.matmul(y.T, x.T),
            _C.matmul(z, z.mT),
            _C.matmul(v, v),
            _C.matmul(w, w[0]),
            *_C.matmul_backward(w, w, w, w.shape, w.shape, True, True),
        )
    )


def test_torch_multiplies_integers_and_refuses_two_dtypes():
    x = torch.arange(6).reshape(2, 3)
    assert torch.equal(_C.matmul(x, x.T), x @ x.T)
    with pytest.raises(RuntimeError, match="same dtype"):
        _C.matmul(x.float(), x.T)
