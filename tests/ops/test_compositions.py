"""Functions composed of ops, against torch's: values and gradients in float64."""

import pytest
import torch

import tapegrad as tg

F64 = torch.float64


def numbers(*shape, seed=0):
    return torch.randn(shape, dtype=F64, generator=torch.Generator().manual_seed(seed))


def positive(n, batch=()):
    a = numbers(*batch, n, n)
    return a @ a.mT + 3 * torch.eye(n, dtype=F64)


A, B, V = numbers(3, 4), numbers(3, 4, seed=1), numbers(5, seed=2)
SQUARE, LOWER = numbers(3, 3, seed=3), torch.linalg.cholesky(positive(3))
BATCH, COLUMNS = numbers(2, 3, 3, seed=4), numbers(3, 2, seed=5)
TIMES = torch.tensor([0.0, 0.5, 0.75, 2.0], dtype=F64)

# name: (function of the library and tensors, tensors)
CASES = {
    "clamp_min": (lambda t, x: t.clamp_min(x, 0.1), A),
    "clamp_max": (lambda t, x: t.clamp_max(x, max=0.1), A),
    "fill of a tensor": (lambda t, x, v: t.fill(x, v[0]), A, V),
    "real": (lambda t, x: t.real(x) * 2, A),
    "adjoint": (lambda t, x: t.adjoint(x), BATCH),
    "t": (lambda t, x: t.t(x) * 2, A),
    "rsub": (lambda t, x, y: t.rsub(x, y, alpha=3), A, B),
    "float_power": (lambda t, x: t.float_power(x.abs(), 2.5), A),
    "split_with_sizes": (lambda t, x: t.split_with_sizes(x, [1, 3], 1)[1], A),
    "dsplit": (lambda t, x: t.dsplit(x, [1])[1], BATCH),
    "row_stack": (lambda t, x, y: t.vstack([x, y]), A, B),
    "diagflat": (lambda t, x: t.diagflat(x, 1), V),
    "diagonal_scatter": (lambda t, x, v: t.diagonal_scatter(x, v[:3], 1), A, V),
    "chain_matmul": (lambda t, x, y: t.linalg.multi_dot([x, y.mT, x]), A, B),
    "addbmm": (lambda t, x, b: t.addbmm(x, b, b, beta=0.5, alpha=2), SQUARE, BATCH),
    "trapezoid": (lambda t, x: t.trapezoid(x, dx=0.5), A),
    "trapezoid of points": (lambda t, y, x: t.trapezoid(y, x, dim=1), A, TIMES),
    "trapezoid of a matrix of points": (lambda t, y, x: t.trapezoid(y, x, dim=0), A, B),
    "trapezoid of one point": (lambda t, y: t.trapezoid(y[:, :1]), A),
    "cumulative_trapezoid": (lambda t, y, x: t.cumulative_trapezoid(y, x), A, TIMES),
    "cov": (lambda t, x: t.cov(x), A),
    "cov of a vector": (lambda t, x: t.cov(x), V),
    "cov, biased": (lambda t, x: t.cov(x, correction=0), A),
    "cov, weighted": (lambda t, x, w: t.cov(x, aweights=w.abs()), A, TIMES + 0.1),
    "corrcoef": (lambda t, x: t.corrcoef(x), A),
    "mode": (lambda t, x: t.mode((x * 2).round() * x.detach().sign(), 1).values, A),
    "msort": (lambda t, x: t.msort(x), A),
    "renorm": (lambda t, x: t.renorm(x, 2, 0, 1.0), A),
    "pdist": (lambda t, x: t.pdist(x) if t is tg else torch.nn.functional.pdist(x), A),
    "mvlgamma": (lambda t, x: t.mvlgamma(x.abs() + 2, 3), A),
    "unfold": (lambda t, x: x.unfold(1, 2, 1), A),
    "unfold with gaps": (lambda t, x: x.unfold(-1, 2, 2), BATCH),
    "sum_to_size": (lambda t, x: x.sum_to_size(3, 1), A),
    "fill_diagonal_": (lambda t, x: (x * 1).fill_diagonal_(2.0), A),
    "cholesky_solve": (lambda t, b, f: t.cholesky_solve(b, f.tril()), COLUMNS, LOWER),
    "cholesky_solve upper": (lambda t, b, f: t.cholesky_solve(b, f.mT.triu(), True), COLUMNS, LOWER),
    "cholesky_inverse": (lambda t, f: t.cholesky_inverse(f.tril()), LOWER),
    "cholesky_inverse upper": (lambda t, f: t.cholesky_inverse(f.mT.triu(), upper=True), LOWER),
    "lu_factor": (lambda t, x: t.linalg.lu_factor(x)[0], BATCH),
    "lu L": (lambda t, x: t.linalg.lu(x)[1], SQUARE),
    "lu U": (lambda t, x: t.linalg.lu(x)[2], SQUARE),
    "lu_solve": (
        lambda t, x, b: (t if t is tg else torch.linalg).lu_solve(
            *((b, *t.linalg.lu_factor(x)) if t is tg else (*t.linalg.lu_factor(x), b))
        ),
        SQUARE,
        COLUMNS,
    ),
    "linalg.lu_solve from the right": (
        lambda t, x, b: t.linalg.lu_solve(*t.linalg.lu_factor(x), b.mT, left=False),
        SQUARE,
        COLUMNS,
    ),
    "svd": (lambda t, x: t.svd(x)[2] * t.svd(x)[2], A),
    "svd, whole": (lambda t, x: t.svd(x, False)[1], A),
    "linalg.svd": (lambda t, x: t.linalg.svd(x).S, A),
    "linalg.svd, reduced": (lambda t, x: t.linalg.svd(x, full_matrices=False).Vh ** 2, A),
    "linalg.qr, r": (lambda t, x: t.linalg.qr(x.mT, mode="r").R ** 2 if t is tg else t.linalg.qr(x.mT).R ** 2, A),
    "linalg.eigh": (lambda t, x: t.linalg.eigh(x + x.mT).eigenvalues, SQUARE),
    "slogdet": (lambda t, x: t.slogdet(x).logabsdet, SQUARE),
    "cholesky_ex": (lambda t, x: t.linalg.cholesky_ex(x @ x.mT + 1.5 * x.new_ones(3).diag()).L, SQUARE),
    "inv_ex": (lambda t, x: t.linalg.inv_ex(x).inverse, SQUARE),
}


@pytest.mark.parametrize("name", CASES)
def test_compositions_agree_with_torch(name):
    function, *values = CASES[name]
    ours = [tg.tensor(v, requires_grad=True) for v in values]
    theirs = [v.clone().requires_grad_() for v in values]
    out, expected = function(tg, *ours), function(torch, *theirs)
    assert out.shape == expected.shape
    assert torch.allclose(out.data, expected, rtol=1e-10, atol=1e-12)
    weights = numbers(*expected.shape, seed=9)
    (out * weights).sum().backward()
    (expected * weights).sum().backward()
    for x, y in zip(ours, theirs, strict=True):
        if y.grad is not None:
            g = x.grad.data if x.grad is not None else torch.zeros_like(y)
            assert torch.allclose(g, y.grad, rtol=1e-8, atol=1e-10)


def test_full_factors_are_torchs_in_shape_and_product():
    for shape in ((4, 2), (2, 4), (3, 3)):
        x = numbers(*shape)
        u, s, vh = tg.linalg.svd(tg.tensor(x))
        assert (u.shape, vh.shape) == tuple(v.shape for v in torch.linalg.svd(x)[::2])
        middle = torch.zeros(shape, dtype=F64)
        middle.diagonal().copy_(s.data)
        assert torch.allclose(u.data @ middle @ vh.data, x)
        assert torch.allclose(u.data.mT @ u.data, torch.eye(shape[0], dtype=F64), atol=1e-12)
        q, r = tg.linalg.qr(tg.tensor(x), mode="complete")
        assert q.shape == (shape[0], shape[0])
        assert torch.allclose((q @ r).data, x)
    with pytest.raises(tg.ArgumentError, match="mode"):
        tg.linalg.qr(tg.ones(2, 2), mode="full")


def test_what_has_no_factor_is_told_by_its_number():
    bad = torch.stack([torch.eye(2), -torch.eye(2)])
    found = tg.linalg.cholesky_ex(tg.tensor(bad))
    assert found.info.tolist() == torch.linalg.cholesky_ex(bad).info.tolist()
    assert torch.equal(found.L.data[0], torch.eye(2))
    with pytest.raises(tg.OpError):
        tg.linalg.cholesky_ex(tg.tensor(bad), check_errors=True)


def test_lu_factors_give_the_matrix_back():
    p, lower, upper = tg.linalg.lu(tg.tensor(A))
    assert torch.allclose((p @ lower @ upper).data, A)


def test_wrong_arguments_are_named():
    for call, message in (
        (lambda: tg.trapezoid(tg.ones(())), "trapezoid: y must"),
        (lambda: tg.trapezoid(tg.ones(2, 3), tg.ones(2)), "x must have 3 points"),
        (lambda: tg.cov(tg.ones(1, 2, 3)), "cov: input"),
        (lambda: tg.cov(tg.ones(2, 3), aweights=tg.ones(2)), "aweights must be a vector"),
        (lambda: tg.pdist(tg.ones(3)), "pdist: input"),
        (lambda: tg.ones(3).unfold(0, 4, 1), "unfold: size"),
        (lambda: tg.t(tg.ones(1, 2, 3)), "t: input"),
        (lambda: tg.dsplit(tg.ones(2, 2), 2), "dsplit: input"),
        (lambda: tg.diagonal_scatter(tg.ones(2, 2), tg.ones(3)), "diagonal_scatter: src"),
        (lambda: tg.broadcast_shapes((2,), (3,)), "broadcast_shapes"),
        (lambda: tg.cholesky_solve(tg.ones(2, 1), tg.ones(2, 3)), "cholesky_solve: L"),
        (lambda: tg.ones(2, 3).sum_to_size(4), "sum_to_size"),
        (lambda: tg.mvlgamma(tg.ones(2), 0), "mvlgamma: p"),
        (lambda: tg.renorm(tg.ones(2), 2, 0, 1.0), "renorm: input"),
    ):
        with pytest.raises(tg.TapegradError, match=message):
            call()


def test_small_answers():
    x = tg.tensor([3.0])
    assert tg.is_nonzero(x)
    assert not tg.is_complex(x)
    assert tg.is_signed(x)
    assert tg.get_device(x) == -1
    assert tg.typename(x) == "torch.FloatTensor"
    assert tg.broadcast_shapes((2, 1), (3,)) == torch.broadcast_shapes((2, 1), (3,))
    assert not tg.detach(tg.ones(1, requires_grad=True)).requires_grad
    assert tg.asarray([1.0], copy=True, requires_grad=True).requires_grad
    assert tg.scalar_tensor(2).dtype is tg.float32
    assert tg.frombuffer(bytearray(8), dtype=tg.float32).tolist() == [0.0, 0.0]
    assert tg.empty_strided((2, 3), (1, 2)).stride() == (1, 2)
    assert tg.logspace(0, 2, 3).tolist() == [1.0, 10.0, 100.0]
    assert (tg.tensor([1, 2]) << 2).tolist() == [4, 8]
    assert (tg.tensor([8]) >> 1).tolist() == [4]
    assert tg.ldexp(tg.tensor([1.5]), tg.tensor([3])).tolist() == [12.0]


def test_dropout2d_of_a_matrix_drops_elements_and_warns():
    with pytest.warns(UserWarning, match="dropout2d: input should have 3 or 4 dimensions"):
        y = tg.dropout2d(tg.ones(50, 40), 0.25)
    assert sorted(y.data.unique().tolist()) == pytest.approx([0.0, 4 / 3])
    assert 0.2 < (y.data == 0).float().mean() < 0.3  # 2000 draws: 5 deviations
    with pytest.raises(tg.ShapeError, match="at least 2"), pytest.warns(UserWarning, match="dropout2d"):
        tg.dropout2d(tg.ones(3))
