"""tg.linalg: norms and the rest that is no row of the op table, and what is refused."""

import functools
import math

import pytest
import torch

import tapegrad as tg

GENERATOR = torch.Generator().manual_seed(0)
A = torch.randn(2, 3, 4, dtype=torch.float64, generator=GENERATOR)
SQUARE = torch.randn(3, 3, dtype=torch.float64, generator=GENERATOR)


def agree(ours, theirs, *inputs):
    """Values and gradients are torch's."""
    mine = [tg.tensor(x, requires_grad=True) for x in inputs]
    other = [x.clone().requires_grad_() for x in inputs]
    y, expected = ours(*mine), theirs(*other)
    torch.testing.assert_close(y.data, expected.detach(), rtol=1e-10, atol=1e-12)
    g = torch.randn(expected.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    y.backward(g)
    expected.backward(g)
    for a, b in zip(mine, other, strict=True):
        torch.testing.assert_close(a.grad.data, b.grad, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("keepdim", [False, True])
@pytest.mark.parametrize("ord", ["fro", "nuc", 1, -1, 2, -2, math.inf, -math.inf])
def test_matrix_norms(ord, keepdim):
    for dims in ((-2, -1), (2, 0)):
        ours, theirs = (lambda x, f=lib.linalg.matrix_norm, dims=dims: f(x, ord, dims, keepdim) for lib in (tg, torch))
        agree(ours, theirs, A)


@pytest.mark.parametrize("ord", [0.5, 1, 2, 3, math.inf])
def test_vector_norms(ord):
    agree(lambda x: tg.linalg.vector_norm(x, ord), lambda x: torch.linalg.vector_norm(x, ord), A)
    agree(lambda x: tg.linalg.norm(x, ord, -1), lambda x: torch.linalg.norm(x, ord, -1), A)


def test_norm_chooses_by_dimensions():
    for call in (
        lambda lib, x: lib.norm(x),
        lambda lib, x: lib.norm(x[0], 1),
        lambda lib, x: lib.norm(x, "nuc", (0, 2)),
    ):
        agree(lambda x, call=call: call(tg.linalg, x), lambda x, call=call: call(torch.linalg, x), A)


@pytest.mark.parametrize("p", [None, 2, 1, "fro", math.inf])
def test_condition_numbers(p):
    def formula(x):  # torch's own fails in backward
        return torch.linalg.matrix_norm(x, p or 2) * torch.linalg.matrix_norm(torch.linalg.inv(x), p or 2)

    agree(lambda x: tg.linalg.cond(x, p), formula, SQUARE)


def test_least_squares():
    a, b = A[0].T.contiguous(), torch.randn(4, 2, dtype=torch.float64, generator=GENERATOR)
    agree(lambda x, y: tg.linalg.lstsq(x, y)[0], lambda x, y: torch.linalg.lstsq(x, y).solution, a, b)
    assert tg.linalg.lstsq(a, b).residuals.numel() == torch.linalg.lstsq(a, b).residuals.numel() == 0
    ours, theirs = tg.linalg.lstsq(a, b, driver="gelsd"), torch.linalg.lstsq(a, b, driver="gelsd")
    torch.testing.assert_close(ours[1].data, theirs.residuals)
    torch.testing.assert_close(ours[3].data, theirs.singular_values)
    assert ours[2] == 3


def test_qr_of_wide_matrices():
    agree(lambda x: tg.linalg.qr(x)[1], lambda x: torch.linalg.qr(x)[1], A)
    assert tg.gradcheck(lambda x: tg.linalg.qr(x)[0], [tg.tensor(A[0], requires_grad=True)])


@pytest.mark.parametrize("triangle", "LU")
def test_the_gradient_of_eigenvectors_is_symmetric_as_torchs(triangle):
    symmetric = SQUARE + SQUARE.T
    agree(lambda x: tg.linalg.eigh(x, triangle)[1], lambda x: torch.linalg.eigh(x, triangle)[1], symmetric)


def numbered(einsum, first, second, *rest):
    *out, x, y = rest
    return einsum(x, first, y, second, *out)


def test_einsum_takes_dimensions_by_number():
    x, y = A, torch.randn(2, 4, 5, dtype=torch.float64, generator=GENERATOR)
    for numbers in (([0, 1, 2], [0, 2, 3]), ([..., 7, 30], [..., 30, 51], [51, ..., 7])):
        agree(*(functools.partial(numbered, module.einsum, *numbers) for module in (tg, torch)), x, y)
    for wrong in ((x, [0, 1, 2], y), (x, [0, 52]), (x, "ij"), ([0, 1], x)):
        with pytest.raises(tg.ArgumentError, match="einsum: expected an equation"):
            tg.einsum(*wrong)


def test_ranks_products_and_determinants():
    low = torch.outer(torch.arange(1.0, 4.0), torch.arange(1.0, 4.0)).double()
    assert tg.linalg.matrix_rank(low).item() == torch.linalg.matrix_rank(low).item() == 1
    assert tg.linalg.matrix_rank(torch.ones(2, 0, 3)).tolist() == [0, 0]
    assert tg.linalg.matrix_rank(A).tolist() == torch.linalg.matrix_rank(A).tolist()
    agree(lambda x: tg.linalg.multi_dot([x, x, x]), lambda x: torch.linalg.multi_dot([x, x, x]), SQUARE)
    agree(lambda x: tg.linalg.vecdot(x, x), lambda x: torch.linalg.vecdot(x, x), A)
    negative = tg.tensor([[-1.0, 0.0], [0.0, 1.0]])
    assert math.isnan(tg.logdet(negative).item())
    assert tg.linalg.slogdet(negative)[0].item() == -1.0


def test_what_has_no_factorisation_is_refused():
    with pytest.raises(tg.OpError, match="cholesky"):
        tg.linalg.cholesky(-torch.eye(2))
    with pytest.raises(tg.OpError, match="inverse"):
        tg.linalg.inv(torch.zeros(2, 2))
    with pytest.raises(tg.OpError, match="solve"):
        tg.linalg.solve(torch.zeros(2, 2), torch.ones(2))
    for call in (tg.linalg.cholesky, tg.linalg.inv, tg.linalg.det, tg.linalg.eigh, tg.linalg.matrix_exp):
        with pytest.raises(tg.ShapeError, match=r"must be float matrices"):
            call(torch.ones(2, 3))
    with pytest.raises(tg.ShapeError, match="solve_triangular"):
        tg.linalg.solve_triangular(torch.eye(2), torch.ones(3, 1), upper=True)


def test_a_gaussian_process_compiles():
    """Kernel, Cholesky factor, log likelihood: bit for bit the eager step."""
    x, y = (
        torch.linspace(0, 1, 8, dtype=torch.float64)[:, None],
        torch.randn(8, dtype=torch.float64, generator=GENERATOR),
    )

    def run(wrap):
        scale = tg.nn.Parameter(torch.tensor(0.3, dtype=torch.float64))
        optimizer = tg.optim.SGD([scale], lr=0.01)

        @wrap
        def step():
            optimizer.zero_grad()
            kernel = (-((tg.cdist(x, x) / scale) ** 2) / 2).exp() + 0.1 * tg.eye(8, dtype=tg.float64)
            factor = tg.linalg.cholesky(kernel)
            half = tg.linalg.solve_triangular(factor, tg.tensor(y)[:, None], upper=False)
            loss = (half * half).sum() / 2 + factor.diagonal().log().sum()
            loss.backward()
            optimizer.step()
            return loss.detach()

        return [step().item() for _ in range(6)], scale.item()

    assert run(tg.compile) == run(lambda f: f)


@pytest.mark.parametrize(
    ("equation", "first", "second"),
    [("bc,bc->", (2, 6), (4, 3)), ("abc,cbd->ad", (2, 3, 4), (3, 4, 5)), ("ij,jk", (2, 3), (4, 5)), ("i,i->i", 2, 3)],
)
def test_letters_of_einsum_have_one_size(equation, first, second):
    with pytest.raises(tg.ShapeError, match=rf"^einsum: dimension '\w' of '{equation}' is \d, but \d in operand 1"):
        tg.einsum(equation, tg.ones(first), tg.ones(second))
