"""``tg.linalg``: torch.linalg's names. Batched; second derivatives and forward mode included; LAPACK does the work."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from .core import ArgumentError, Tensor, functions, tensor_argument
from .ops import (
    cholesky,
    cross,
    det,
    diagonal,
    eigh,
    eigvalsh,
    lu_unpack,
    matmul,
    matrix_exp,
    matrix_power,
    pinverse,
    slogdet,
    solve,
    solve_triangular,
    sum,
    svdvals,
    where,
)
from .ops import inverse as inv
from .ops.factor import linalg_qr as qr
from .ops.factor import linalg_svd as svd
from .ops.lu_factors import linalg_lu as lu
from .ops.lu_factors import lu_factor
from .ops.lu_factors import lu_solve as _lu_solve

__all__ = [
    "cholesky",
    "cholesky_ex",
    "cond",
    "cross",
    "det",
    "diagonal",
    "eigh",
    "eigvalsh",
    "inv",
    "inv_ex",
    "lstsq",
    "lu",
    "lu_factor",
    "lu_solve",
    "matmul",
    "matrix_exp",
    "matrix_norm",
    "matrix_power",
    "matrix_rank",
    "multi_dot",
    "norm",
    "pinv",
    "qr",
    "slogdet",
    "solve",
    "solve_triangular",
    "svd",
    "svdvals",
    "vander",
    "vecdot",
    "vector_norm",
]


def pinv(A: Any, *, rtol: float | None = None) -> Tensor:
    """The Moore-Penrose inverse of matrices [..., M, N] of full rank; singular values below ``rtol`` times the largest
    count as 0.
    """
    return pinverse(A, rtol)


def lstsq(A: Any, B: Any) -> tuple[Tensor, Tensor, int, Tensor]:
    """(solution, residuals, rank, singular values): the X of least ``|A X - B|**2``, for A [..., M, N] of full rank.

    ``residuals`` are the squared sums of the columns of ``A X - B`` for M > N, else empty.
    """
    a, b = tensor_argument(A, "lstsq", "A"), tensor_argument(B, "lstsq", "B")
    vector = b.ndim == 1 or (a.ndim - 1 == b.ndim and b.shape == a.shape[:-1])
    x = matmul(pinverse(a), b.unsqueeze(-1) if vector else b)
    off = matmul(a, x) - (b.unsqueeze(-1) if vector else b)
    tall = a.shape[-2] > a.shape[-1]
    residuals = sum(off * off, -2) if tall else b.new_zeros(0)
    x, residuals = (x.squeeze(-1), residuals.squeeze(-1) if tall else residuals) if vector else (x, residuals)
    return x, residuals, min(a.shape[-2:]), svdvals(a)


class WithInfo(NamedTuple):
    """A result, and 0 for a matrix that has one (else the number of the pivot where there is none)."""

    result: Tensor
    info: Tensor

    @property
    def L(self) -> Tensor:
        """The factor of `cholesky_ex`."""
        return self.result

    @property
    def inverse(self) -> Tensor:
        """The inverse of `inv_ex`."""
        return self.result


def _with_info(function: Any, theirs: Any, A: Any, **options: Any) -> WithInfo:
    """``function(A)``, with NaN for the matrices of a batch that have no result."""
    a = tensor_argument(A, function.__name__, "A")
    info = theirs(a.detach().data).info
    good = (info == 0)[..., None, None]
    safe = a if bool(good.all()) else where(good, a, torch.eye(a.shape[-1], dtype=a.dtype))
    value = function(safe, **options)
    return WithInfo(value if safe is a else where(good, value, float("nan")), Tensor(info))


def cholesky_ex(A: Any, *, upper: bool = False, check_errors: bool = False) -> WithInfo:
    """(L, info): `cholesky`, with NaN and the failing pivot's number instead of an error unless ``check_errors``."""
    if check_errors:
        return WithInfo(cholesky(A, upper=upper), Tensor(torch.zeros((), dtype=torch.int32)))
    return _with_info(cholesky, torch.linalg.cholesky_ex, A, upper=upper)


def inv_ex(A: Any, *, check_errors: bool = False) -> WithInfo:
    """(inverse, info): `inv`, with NaN and the failing pivot's number instead of an error unless ``check_errors``."""
    if check_errors:
        return WithInfo(inv(A), Tensor(torch.zeros((), dtype=torch.int32)))
    return _with_info(inv, torch.linalg.inv_ex, A)


def lu_solve(LU: Any, pivots: Any, B: Any, *, left: bool = True) -> Tensor:
    """X with ``A X = B`` (or ``X A = B``), A being what `lu_factor` has factored."""
    if left:
        return _lu_solve(B, LU, pivots)
    p, lower, upper = lu_unpack(LU, pivots)
    half = solve_triangular(upper, B, upper=True, left=False)
    return matmul(solve_triangular(lower, half, upper=False, left=False, unitriangular=True), p.mT)


def vander(x: Any, N: int | None = None) -> Tensor:
    """Powers 0 .. N - 1 of the elements, a row each."""
    return functions["vander"](x, N, increasing=True)  # type: ignore[no-any-return]


def matrix_rank(A: Any, *, tol: float | None = None) -> Tensor:
    """The number of singular values above ``tol`` (a multiple of rounding unless given); int64, a constant."""
    s = svdvals(A).detach()
    a = tensor_argument(A, "matrix_rank", "A")
    least = s.amax(-1, True) * (max(a.shape[-2:]) * torch.finfo(s.dtype).eps) if tol is None else tol
    return (s > least).sum(-1)


def cond(A: Any, p: Any = None) -> Tensor:
    """The condition number: the largest singular value over the least (p None or 2), else ``|A|_p |A^-1|_p``."""
    if p in (None, 2):
        s = svdvals(A)
        return s.amax(-1) / s.amin(-1)
    return matrix_norm(A, p) * matrix_norm(inv(A), p)


def matrix_norm(A: Any, ord: Any = "fro", dim: Any = (-2, -1), keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """The norm of matrices: "fro", "nuc", 1 or -1 (columns), inf or -inf (rows), 2 or -2 (singular values)."""
    a = tensor_argument(A, "matrix_norm", "A")
    a = a if dtype is None else a.to(dtype)
    if ord in ("fro", "nuc"):
        return functions["norm"](a, ord, tuple(dim), keepdim)  # type: ignore[no-any-return]
    rows, columns = (d % a.ndim for d in dim)
    if ord in (2, -2):
        moved = a.movedim((rows, columns), (-2, -1))
        s = svdvals(moved)
        value = s.amax(-1) if ord == 2 else s.amin(-1)
        for d in sorted((rows, columns)) if keepdim else ():
            value = value.unsqueeze(d)
        return value
    sizes = {1: rows, -1: rows, float("inf"): columns, float("-inf"): columns}
    if ord not in sizes:
        raise ArgumentError(f'matrix_norm: ord must be "fro", "nuc", 1, -1, 2, -2, inf or -inf; got {ord!r}')
    inner = sizes[ord]
    outer = columns if inner == rows else rows
    sums = a.abs().sum(inner, True)
    value = sums.amax(outer, True) if ord > 0 else sums.amin(outer, True)
    return value if keepdim else value.squeeze((rows, columns))


def vector_norm(x: Any, ord: float = 2, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """``(sum |x|**ord)**(1 / ord)`` over the dimensions (None: all elements)."""
    return functions["norm"](x, float(ord), dim, keepdim, dtype=dtype)  # type: ignore[no-any-return]


def norm(A: Any, ord: Any = None, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """The 2-norm of all elements where nothing is said, else `vector_norm` or, of two dimensions, `matrix_norm`."""
    a = tensor_argument(A, "norm", "A")
    matrix = a.ndim == 2 if dim is None else not isinstance(dim, int) and len(dim) == 2
    if ord is None or not matrix:
        return vector_norm(a, 2 if ord is None else ord, dim, keepdim, dtype=dtype)
    return matrix_norm(a, ord, (0, 1) if dim is None else dim, keepdim, dtype=dtype)


def vecdot(x: Any, y: Any, *, dim: int = -1) -> Tensor:
    """Sums of products along ``dim``."""
    return sum(tensor_argument(x, "vecdot", "x") * tensor_argument(y, "vecdot", "y"), dim)


def multi_dot(tensors: Any) -> Tensor:
    """The product of several matrices, from left to right."""
    product = tensors[0]
    for tensor in tensors[1:]:
        product = matmul(product, tensor)
    return tensor_argument(product, "multi_dot", "tensors")
