"""Factorisations and systems of equations: LAPACK through torch, gradients written in ops, so that they have their own.

Matrices are the last two dimensions [..., M, N]. ``_T`` is the transpose. Sources of the rules: Giles, An extended
collection of matrix derivative results (2008); Murray, Differentiation of the Cholesky decomposition (2016);
Townsend, Differentiating the singular value decomposition (2016).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from ..core import _C, ArgumentError, Array, OpError, ShapeError, Tensor, either, op, tensor_argument
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


class SVD(NamedTuple):
    """What `tapegrad.linalg.svd` returns."""

    U: Tensor
    S: Tensor
    Vh: Tensor


class USV(NamedTuple):
    """What `svd` returns."""

    U: Tensor
    S: Tensor
    V: Tensor


class QR(NamedTuple):
    """What `qr` returns."""

    Q: Tensor
    R: Tensor


class Eigh(NamedTuple):
    """What `eigh` returns."""

    eigenvalues: Tensor
    eigenvectors: Tensor


class Slogdet(NamedTuple):
    """What `slogdet` returns."""

    sign: Tensor
    logabsdet: Tensor


def _T(x: Any) -> Any:
    return x.transpose(-2, -1)


def _product(a: Any, b: Any) -> Any:
    return either("matmul", a, b)


def _lapack(name: str, function: Any, *args: Any, **kwargs: Any) -> Any:
    """The factorisation; OpError where there is none (a singular matrix, one that is not positive definite)."""
    try:
        return _C.on_one_thread(function, *args, **kwargs)
    except torch.linalg.LinAlgError as error:  # type: ignore[attr-defined]
        raise OpError(f"{name}: {str(error).split('(')[0].strip().removeprefix('linalg.')}") from error


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


def cholesky(input: Any, *, upper: bool = False) -> Tensor:
    """The lower triangular L with ``L L^T = input``, symmetric positive definite [..., N, N] (``upper``: ``L^T``).

    Raises OpError for a matrix that is not positive definite.
    """
    factor = cholesky_op(input)
    return _T(factor) if upper else factor


# --- systems, inverses, determinants -----------------------------------------------------------------------------


@op(input=lambda g, out: -_product(_product(_T(out), g), _T(out)))
def inverse(input: Array) -> Any:
    """The inverse of matrices [..., N, N]; OpError for a singular one."""
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

    Raises OpError for a singular matrix.
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


def slogdet(input: Any) -> Slogdet:
    """(sign, logabsdet) of the determinant of matrices [..., N, N]; only the second has a gradient."""
    sign, logabs = slogdet_op(input)
    return Slogdet(sign.detach(), logabs)


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
    return _product(_product(v, middle), _T(v))


@op(name="eigh", input=_eigh_rule)
def eigh_op(input: Array, UPLO: str) -> Any:
    """Eigenvalues and eigenvectors of symmetric matrices."""
    return tuple(_lapack("eigh", torch.linalg.eigh, _square(input, "eigh"), UPLO))


def eigh(input: Any, UPLO: str = "L") -> Eigh:
    """(w, V): eigenvalues, ascending [..., N], and eigenvectors, columns [..., N, N], of symmetric matrices.

    One triangle of the input is read ("L" or "U"). The gradient of V needs distinct eigenvalues.
    """
    values, vectors = eigh_op(input, UPLO)
    return Eigh(values, vectors)


def eigvalsh(input: Any, UPLO: str = "L") -> Tensor:
    """The eigenvalues of `eigh` alone."""
    return eigh(input, UPLO)[0]


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


def linalg_svd(A: Any, full_matrices: bool = True) -> SVD:
    """(U, S, Vh) with ``A = U diag(S) Vh`` as ``torch.linalg.svd``: [..., M, M], [..., K] descending, [..., N, N],
    K = min(M, N); not ``full_matrices``: [..., M, K] and [..., K, N].

    The gradients of U and Vh need distinct singular values, none of them 0. The columns of U and rows of Vh behind the
    first K are constants.
    """
    a = tensor_argument(A, "svd", "A")
    if a.ndim < 2:
        raise ShapeError(f"svd: A must be matrices [..., M, N]; got shape {list(a.shape)}")
    u, s, vh = svd_op(a)
    m, n, k = *a.shape[-2:], s.shape[-1]
    if full_matrices and m != n:
        whole = _lapack("svd", torch.linalg.svd, a.data)
        u = cat([u, whole[0][..., :, k:]], -1) if m > k else u
        vh = cat([vh, whole[2][..., k:, :]], -2) if n > k else vh
    return SVD(u, s, vh)


def svd(input: Any, some: bool = True, compute_uv: bool = True) -> USV:
    """(U, S, V) with ``input = U diag(S) V^T`` as ``torch.svd``: V has columns. See `tapegrad.linalg.svd`.

    Without ``some``, U and V are square; without ``compute_uv``, they are zeros.
    """
    u, s, vh = linalg_svd(input, not some)
    if not compute_uv:
        u, vh = Tensor(torch.zeros_like(u.data)), Tensor(torch.zeros_like(vh.data))
    return USV(u, s, _T(vh))


def svdvals(A: Any) -> Tensor:
    """The singular values of `svd` alone, descending."""
    return linalg_svd(A, False).S


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


def linalg_qr(A: Any, mode: str = "reduced") -> QR:
    """(Q, R) with ``A = Q R``: Q [..., M, K] with orthonormal columns, R [..., K, N] upper triangular, K = min(M, N).

    The gradient needs at least K independent columns in front; for M < N those of the first M and the rest separately.

    Parameters
    ----------
    mode : "reduced"; "complete" for Q [..., M, M] and R [..., M, N], constants behind the first K where M > N; "r" for
        R alone (Q is empty)
    """
    a = tensor_argument(A, "qr", "A")
    if a.ndim < 2:
        raise ShapeError(f"qr: A must be matrices [..., M, N]; got shape {list(a.shape)}")
    if mode not in ("reduced", "complete", "r"):
        raise ArgumentError(f'qr: mode must be "reduced", "complete" or "r"; got {mode!r}')
    m, n = a.shape[-2:]
    if m >= n:
        q, r = qr_op(a)
    else:
        q, r = qr_op(a[..., :m])
        r = cat([r, matmul(_T(q), a[..., m:])], -1)
    if mode == "r":
        return QR(Tensor(torch.empty(0, dtype=a.dtype)), r)
    if mode == "complete" and m > n:
        whole = _lapack("qr", torch.linalg.qr, a.data, mode="complete")
        q, r = cat([q, whole[0][..., :, n:]], -1), cat([r, whole[1][..., n:, :]], -2)
    return QR(q, r)


def qr(input: Any, some: bool = True) -> QR:
    """`tapegrad.linalg.qr`, "reduced" or, without ``some``, "complete", as ``torch.qr``."""
    return linalg_qr(input, "reduced" if some else "complete")


def pinverse(input: Any, rcond: float | None = None) -> Tensor:
    """The Moore-Penrose inverse of matrices [..., M, N] of full rank, [..., N, M]; small singular values count as 0."""
    x = tensor_argument(input, "pinverse", "input")
    u, s, vh = linalg_svd(x, False)
    if not s.shape[-1]:
        return matmul(_T(vh), _T(u))
    least = max(x.shape[-2:]) * torch.finfo(x.dtype).eps if rcond is None else rcond
    keep = s > s.amax(-1, True) * least
    inverted = where(keep, 1 / where(keep, s, 1.0), 0.0)
    return matmul(_T(vh) * unsqueeze(inverted, -2), _T(u))


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
