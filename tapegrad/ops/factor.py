"""Factorisations and systems of equations: LAPACK through torch, gradients written in ops, so that they have their own.

Matrices are the last two dimensions [..., M, N]. ``_T`` is the transpose. Sources of the rules: Giles, An extended
collection of matrix derivative results (2008); Murray, Differentiation of the Cholesky decomposition (2016);
Townsend, Differentiating the singular value decomposition (2016).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from ..core import _C, ArgumentError, Array, LinAlgError, ShapeError, Tensor, either, op, raw, tensor_argument
from .elementwise import where
from .linalg import matmul
from .shape import cat, squeeze, transpose, unsqueeze

__all__ = [
    "cholesky",
    "det",
    "eigh",
    "eigvalsh",
    "inverse",
    "logdet",
    "matrix_exp",
    "matrix_power",
    "pinverse",
    "qr",
    "slogdet",
    "solve",
    "solve_triangular",
    "svd",
    "svdvals",
]


def _T(x: Any) -> Any:
    return x.transpose(-2, -1)


def _product(a: Any, b: Any) -> Any:
    return either("matmul", a, b)


def _lapack(name: str, function: Any, *args: Any, **kwargs: Any) -> Any:
    """The factorisation; LinAlgError where there is none (a singular matrix, one that is not positive definite)."""
    try:
        return _C.on_one_thread(function, *args, **kwargs)
    except torch.linalg.LinAlgError as error:  # type: ignore[attr-defined]
        raise LinAlgError(f"{name}: {str(error).split('(')[0].strip().removeprefix('linalg.')}") from error


def _square(x: torch.Tensor, name: str) -> torch.Tensor:
    if x.ndim < 2 or x.shape[-1] != x.shape[-2] or not x.is_floating_point():
        raise ShapeError(f"{name}: input must be float matrices [..., N, N]; got shape {list(x.shape)}, {x.dtype}")
    return x


# --- triangular --------------------------------------------------------------------------------------------------


def _triangle(g: Any, upper: bool, unitriangular: bool) -> Any:
    return g.triu(1 if unitriangular else 0) if upper else g.tril(-1 if unitriangular else 0)


def _b_rule(g: Any, A: Any, upper: bool, unitriangular: bool) -> Any:
    return either("triangular_solution", _T(A), g, not upper, unitriangular)


@op(
    A=lambda g, A, out, upper, unitriangular: _triangle(
        -_product(_b_rule(g, A, upper, unitriangular), _T(out)), upper, unitriangular
    ),
    B=_b_rule,
)
def triangular_solution(A: Array, B: Array, upper: bool, unitriangular: bool) -> Any:
    """X with ``A X = B``, A triangular: only that triangle of it is read."""
    return _lapack("solve_triangular", torch.linalg.solve_triangular, A, B, upper=upper, unitriangular=unitriangular)


def solve_triangular(A: Any, B: Any, *, upper: bool, left: bool = True, unitriangular: bool = False) -> Tensor:
    """X with ``A X = B`` (or, not ``left``, ``X A = B``), A [..., N, N] triangular, of which one triangle is read."""
    a, b = tensor_argument(A, "solve_triangular", "A"), tensor_argument(B, "solve_triangular", "B")
    if a.ndim < 2 or b.ndim < 2 or a.shape[-1] != a.shape[-2] or a.shape[-1] != b.shape[-2 if left else -1]:
        raise ShapeError(
            f"solve_triangular: A [..., N, N] and B [..., N, K] must fit; got {list(a.shape)} and {list(b.shape)}"
        )
    if not left:
        return transpose(triangular_solution(_T(a), _T(b), not upper, unitriangular), -2, -1)
    return triangular_solution(a, b, upper, unitriangular)


def _cholesky_rule(g: Any, out: Any) -> Any:
    """Murray's: ``L^-T phi(L^T g) L^-1``, symmetrised; phi keeps the lower triangle and halves the diagonal."""
    inner = _product(_T(out), g.tril())
    inner = inner.tril() - 0.5 * torch.diag_embed(inner.diagonal(0, -2, -1))
    left = either("triangular_solution", _T(out), inner, True, False)
    whole = _T(either("triangular_solution", _T(out), _T(left), True, False))
    return 0.5 * (whole + _T(whole))


@op(name="cholesky", input=_cholesky_rule)
def cholesky_op(input: Array) -> Any:
    """L with ``L L^T = input``."""
    return _lapack("cholesky", torch.linalg.cholesky, _square(input, "cholesky"))


def cholesky(input: Any, upper: bool = False) -> Tensor:
    """The lower triangular L with ``L L^T = input``, symmetric positive definite [..., N, N] (``upper``: ``L^T``).

    Raises LinAlgError for a matrix that is not positive definite.
    """
    factor = cholesky_op(input)
    return _T(factor) if upper else factor


# --- systems, inverses, determinants -----------------------------------------------------------------------------


@op(input=lambda g, out: -_product(_product(_T(out), g), _T(out)))
def inverse(input: Array) -> Any:
    """The inverse of matrices [..., N, N]; LinAlgError for a singular one."""
    return _lapack("inverse", torch.linalg.inv, _square(input, "inverse"))


@op(
    A=lambda g, A, out: -_product(either("system", _T(A), g), _T(out)),
    B=lambda g, A: either("system", _T(A), g),
)
def system(A: Array, B: Array) -> Any:
    """X with ``A X = B``."""
    return _lapack("solve", torch.linalg.solve, _square(A, "solve"), B)


def solve(A: Any, B: Any, *, left: bool = True) -> Tensor:
    """X with ``A X = B`` (or ``X A = B``), A [..., N, N]; B [..., N, K], or a vector [..., N].

    Raises LinAlgError for a singular matrix.
    """
    a, b = tensor_argument(A, "solve", "A"), tensor_argument(B, "solve", "B")
    vector = b.ndim == 1 or (a.ndim - 1 == b.ndim and b.shape == a.shape[:-1])
    columns = unsqueeze(b, -1) if vector else b
    if a.ndim < 2 or columns.ndim < 2 or a.shape[-1] != columns.shape[-2 if left or vector else -1]:
        raise ShapeError(f"solve: A [..., N, N] and B [..., N, K] must fit; got {list(a.shape)} and {list(b.shape)}")
    if not left:
        a, columns = _T(a), columns if vector else _T(columns)
    x = system(a, columns)
    return squeeze(x, -1) if vector else x if left else _T(x)


@op(input=lambda g, input, out: (g * out)[..., None, None] * _T(either("inverse", input)))
def det(input: Array) -> Any:
    """The determinant of matrices [..., N, N]. Its gradient needs an invertible one."""
    return _lapack("det", torch.linalg.det, _square(input, "det"))


@op(name="slogdet", input=lambda g, input: g[1][..., None, None] * _T(either("inverse", input)))
def slogdet_op(input: Array) -> Any:
    """The determinant's sign and the logarithm of its magnitude."""
    return tuple(_lapack("slogdet", torch.linalg.slogdet, _square(input, "slogdet")))


class SignLog(NamedTuple):
    """What `slogdet` returns."""

    sign: Any
    logabsdet: Any


def slogdet(input: Any) -> SignLog:
    """(sign, logabsdet) of the determinant of matrices [..., N, N]; the sign's gradient is 0."""
    return SignLog(*slogdet_op(input))


def logdet(input: Any) -> Tensor:
    """``ln det input``, NaN where the determinant is negative."""
    sign, logabs = slogdet(input)
    return where(sign < 0, float("nan"), logabs)


# --- eigenvalues and singular values -----------------------------------------------------------------------------


def _differences(w: Any) -> Any:
    """w_j - w_i, with 1 on the diagonal, where it is not divided by."""
    gaps = w[..., None, :] - w[..., :, None]
    return gaps + torch.eye(w.shape[-1], dtype=w.dtype)


def _eigh_rule(g: Any, input: Any, UPLO: str) -> Any:
    w, v = either("eigh", input, UPLO)
    inner = _product(_T(v), g[1])
    off = 1 - torch.eye(w.shape[-1], dtype=w.dtype)
    middle = inner * off / _differences(w) + torch.diag_embed(g[0])
    whole = _product(_product(v, middle), _T(v))
    return (whole + _T(whole)) / 2  # of symmetric matrices


@op(name="eigh", input=_eigh_rule)
def eigh_op(input: Array, UPLO: str) -> Any:
    """Eigenvalues and eigenvectors of symmetric matrices."""
    return tuple(_lapack("eigh", torch.linalg.eigh, _square(input, "eigh"), UPLO))


class Eigen(NamedTuple):
    """What `eigh` returns."""

    eigenvalues: Any
    eigenvectors: Any


def eigh(input: Any, UPLO: str = "L") -> Eigen:
    """(w, V): eigenvalues, ascending [..., N], and eigenvectors, columns [..., N, N], of symmetric matrices.

    One triangle of the input is read ("L" or "U"). The gradient of V needs distinct eigenvalues.
    """
    return Eigen(*eigh_op(input, UPLO))


def eigvalsh(input: Any, UPLO: str = "L") -> Tensor:
    """The eigenvalues of `eigh` alone."""
    return eigh_op(input, UPLO)[0]


def _svd_rule(g: Any, input: Any) -> Any:
    u, s, vh = either("svd", input)
    gu, gs, gv = g[0], g[1], _T(g[2])
    v, k = _T(vh), s.shape[-1]
    off = 1 - torch.eye(k, dtype=s.dtype)
    gaps = (s[..., None, :] - s[..., :, None]) * (s[..., None, :] + s[..., :, None])
    f = off / (gaps + torch.eye(k, dtype=s.dtype))
    uu, vv = _product(_T(u), gu), _product(_T(v), gv)
    middle = (f * (uu - _T(uu))) * s[..., None, :] + s[..., :, None] * (f * (vv - _T(vv))) + torch.diag_embed(gs)
    a = _product(_product(u, middle), vh)
    if u.shape[-2] > k:
        a = a + _product((gu - _product(u, uu)) / s[..., None, :], vh)
    if v.shape[-2] > k:
        a = a + _product(u, _T((gv - _product(v, vv)) / s[..., None, :]))
    return a


@op(name="svd", input=_svd_rule)
def svd_op(input: Array) -> Any:
    """The reduced singular value decomposition."""
    return tuple(_lapack("svd", torch.linalg.svd, input, full_matrices=False))


class USV(NamedTuple):
    """What `svd` returns."""

    U: Any
    S: Any
    V: Any


class SVD(NamedTuple):
    """What `linalg.svd` returns."""

    U: Any
    S: Any
    Vh: Any


def _matrices(value: Any, name: str) -> Tensor:
    a = tensor_argument(value, name, "A")
    if a.ndim < 2:
        raise ShapeError(f"{name}: A must be matrices [..., M, N]; got shape {list(a.shape)}")
    return a


def singular(A: Any) -> tuple[Tensor, Tensor, Tensor]:
    """(U, S, Vh) with ``A = U diag(S) Vh``: [..., M, K], [..., K] descending, [..., K, N], K = min(M, N).

    The gradients of U and Vh need distinct singular values, none of them 0.
    """
    u, s, vh = svd_op(_matrices(A, "svd"))
    return u, s, vh


def svd_of(A: Any, full_matrices: bool = True, *, driver: str | None = None) -> SVD:
    """(U, S, Vh) with ``A = U diag(S) Vh``; U [..., M, M] and Vh [..., N, N], or, not ``full_matrices``, their first K
    columns and rows, K = min(M, N). S [..., K], descending.

    The gradients of U and Vh need distinct singular values, none of them 0; what the full matrices have beyond K is
    constant. ``driver`` is for other devices.
    """
    a = _matrices(A, "svd")
    u, s, vh = singular(a)
    m, n = a.shape[-2:]
    if not full_matrices or m == n:
        return SVD(u, s, vh)
    whole, _, whole_h = _lapack("svd", torch.linalg.svd, a.detach().data, full_matrices=True)
    if m > n:
        return SVD(cat([u, Tensor(whole[..., n:])], -1), s, vh)
    return SVD(u, s, cat([vh, Tensor(whole_h[..., m:, :])], -2))


def svd(input: Any, some: bool = True, compute_uv: bool = True) -> USV:
    """(U, S, V) with ``input = U diag(S) V^T`` under torch's older name: V, not its transpose.

    ``some``: K columns each, K = min(M, N).     Without ``compute_uv``, U and V are zeros.
    """
    a = _matrices(input, "svd")
    if not compute_uv:
        m, n = a.shape[-2:]
        zeros = [a.new_zeros((*a.shape[:-2], k, k)) for k in (m, n)]
        return USV(zeros[0], svdvals(a), zeros[1])
    u, s, vh = svd_of(a, not some)
    return USV(u, s, _T(vh))


def svdvals(A: Any, *, driver: str | None = None) -> Tensor:
    """The singular values of `svd` alone, descending."""
    return singular(A)[1]


def _qr_rule(g: Any, input: Any) -> Any:
    q, r = either("qr", input)
    gq, gr = g
    m = _product(r, _T(gr)) - _product(_T(gq), q)
    lower = m.tril(-1)
    middle = gq + _product(q, lower + _T(lower) + torch.diag_embed(m.diagonal(0, -2, -1)))
    return _T(either("triangular_solution", r, _T(middle), True, False))


@op(name="qr", input=_qr_rule)
def qr_op(input: Array) -> Any:
    """The reduced QR decomposition of matrices with at least as many rows as columns."""
    return tuple(_lapack("qr", torch.linalg.qr, input))


class QR(NamedTuple):
    """Q and R of `qr`."""

    Q: Any
    R: Any


def reduced_qr(A: Any) -> tuple[Tensor, Tensor]:
    """`qr_of` in its first mode."""
    a = _matrices(A, "qr")
    m, n = a.shape[-2:]
    if m >= n:
        q, r = qr_op(a)
        return q, r
    q, r = qr_op(a[..., :m])
    return q, cat([r, matmul(_T(q), a[..., m:])], -1)


def qr_of(A: Any, mode: str = "reduced") -> QR:
    """(Q, R) with ``A = Q R``: Q [..., M, K] with orthonormal columns, R [..., K, N] upper triangular, K = min(M, N).

    ``mode`` "complete" gives Q [..., M, M] and R [..., M, N], "r" R alone (Q is empty). The gradient needs at least K
    independent columns in front; for M < N those of the first M and the rest separately. What "complete" has beyond
    K columns of Q is constant.
    """
    if mode not in ("reduced", "complete", "r"):
        raise ArgumentError(f'qr: mode must be "reduced", "complete" or "r"; got {mode!r}')
    a = _matrices(A, "qr")
    m, n = a.shape[-2:]
    if mode == "r":
        return QR(a.new_zeros(0), reduced_qr(a)[1])
    q, r = reduced_qr(a)
    if mode == "reduced" or m <= n:
        return QR(q, r)
    whole = _lapack("qr", torch.linalg.qr, a.detach().data, mode="complete")[0]
    return QR(cat([q, Tensor(whole[..., n:])], -1), cat([r, r.new_zeros((*r.shape[:-2], m - n, n))], -2))


def qr(input: Any, some: bool = True) -> QR:
    """`linalg.qr` under torch's older name; ``some``: reduced."""
    return qr_of(input, "reduced" if some else "complete")


def _pinv_rule(g: Any, A: Any, out: Any) -> Any:
    """Golub and Pereyra's, for a rank that does not change; the products of the smaller size first."""
    m, n = A.shape[-2:]
    h, ph = _T(g), _T(out)
    if m <= n:
        k = _product(h, out)
        kp = _product(k, ph)
        return (
            -_T(_product(out, k))
            + kp
            - _product(_product(A, out), kp)
            + _product(_product(ph, out), h - _product(k, A))
        )
    k = _product(out, h)
    pk = _product(ph, k)
    return -_T(_product(k, out)) + _product(_product(h - _product(A, k), out), ph) + pk - _product(_product(pk, out), A)


@op(name="pinverse", A=_pinv_rule)
def pinv_op(A: Array, atol: Any, rtol: Any, hermitian: bool) -> Any:
    """The Moore-Penrose inverse."""
    return _lapack("pinverse", torch.linalg.pinv, A, atol=atol, rtol=rtol, hermitian=hermitian)


def pinv(A: Any, rcond: Any = None, hermitian: bool = False, *, atol: Any = None, rtol: Any = None) -> Tensor:
    """The Moore-Penrose inverse of matrices [..., M, N]: [..., N, M].

    Singular values below ``max(atol, rtol * s)``, s the largest, count as 0. ``hermitian``: of symmetric matrices. The
    gradient is that among matrices of the same rank.
    """
    atol, rtol = (raw(v, "pinv", n) for v, n in ((atol, "atol"), (rcond if rtol is None else rtol, "rtol")))
    return pinv_op(_matrices(A, "pinv"), atol, rtol, hermitian)


def pinverse(input: Any, rcond: Any = 1e-15) -> Tensor:
    """`linalg.pinv` under torch's older name."""
    return pinv(input, rcond)


# --- functions of matrices ---------------------------------------------------------------------------------------


def _exp_rule(g: Any, input: Any) -> Any:
    """The upper right block of exp [[A^T, g], [0, A^T]]."""
    n, a = input.shape[-1], _T(input)
    top, bottom = torch.cat([a, g], -1), torch.cat([torch.zeros_like(a), a], -1)
    return either("matrix_exp", torch.cat([top, bottom], -2))[..., :n, n:]


@op(input=_exp_rule)
def matrix_exp(input: Array) -> Any:
    """``sum_k A**k / k!`` of matrices [..., N, N]."""
    return _lapack("matrix_exp", torch.linalg.matrix_exp, _square(input, "matrix_exp"))


def matrix_power(input: Any, n: int) -> Tensor:
    """The n-th power of matrices [..., N, N] by repeated squaring; of the inverse for n < 0."""
    x = tensor_argument(input, "matrix_power", "input")
    _square(x.data, "matrix_power")
    base, left = (inverse(x), -n) if n < 0 else (x, n)
    result: Tensor | None = None
    while left:
        if left & 1:
            result = base if result is None else matmul(result, base)
        left >>= 1
        base = matmul(base, base) if left else base
    if result is None:
        return where(Tensor(torch.tensor(False)), x, torch.eye(x.shape[-1], dtype=x.dtype))
    return result
