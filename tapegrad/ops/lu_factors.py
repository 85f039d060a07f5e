"""LU factors, and systems solved by factors that are there: Cholesky's and LU's."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from ..core import Array, ShapeError, Tensor, either, op, raw, tensor_argument
from .factor import _T as T
from .factor import _lapack as lapack
from .factor import _product as product
from .factor import solve_triangular
from .linalg import matmul
from .shape import transpose

__all__ = ["cholesky_inverse", "cholesky_solve", "lu", "lu_solve", "lu_unpack"]


class LU(NamedTuple):
    """What `lu_factor` returns: both factors in one matrix, and the interchanged rows."""

    LU: Tensor
    pivots: Tensor


class PLU(NamedTuple):
    """What `tapegrad.linalg.lu` and `lu_unpack` return: ``A = P L U``."""

    P: Tensor
    L: Tensor
    U: Tensor


def _lu_rule(g: Any, out: Any, permutation: Any) -> Any:
    """``P L^-T (tril(L^T dL, -1) + triu(dU U^T)) U^-T``, dL and dU the triangles of g. Square matrices."""
    lower = out.tril(-1)
    upper = out.triu()
    eye = torch.eye(out.shape[-1], dtype=out.dtype)
    inner = product(T(lower + eye), g.tril(-1)).tril(-1) + product(g.triu(), T(upper)).triu()
    left = either("triangular_solution", T(lower + eye), inner, True, True)
    whole = T(either("triangular_solution", upper, T(left), True, False))
    return product(permutation, whole)


@op(name="lu_factor", input=_lu_rule, residuals=("permutation",))
def lu_factor_op(input: Array) -> Any:
    """L, without its diagonal of ones, and U in one matrix; the permutation is a residual."""
    compact, pivots, _ = lapack("lu_factor", torch.linalg.lu_factor_ex, input)
    return compact, torch.lu_unpack(compact, pivots, unpack_data=False)[0]


def lu_factor(A: Any, *, pivot: bool = True) -> LU:
    """(LU, pivots) of matrices [..., M, N] with ``A = P L U``: U the upper triangle, L the lower one with ones on its
    diagonal, pivots (int32, from 1) the row that each row was interchanged with. The gradient needs M = N.
    """
    return _factored(A, "lu_factor", pivot, True)


def _factored(A: Any, name: str, pivot: bool, invertible: bool) -> LU:
    a = _matrices(A, name)
    if not pivot:
        raise ShapeError(f"{name}: pivot=False is for CUDA; on a CPU rows are interchanged")
    if a.requires_grad and a.shape[-1] != a.shape[-2]:
        raise ShapeError(f"{name}: the gradient needs square matrices; got shape {list(a.shape)}")
    pivots = lapack(name, torch.linalg.lu_factor if invertible else torch.linalg.lu_factor_ex, a.data).pivots
    return LU(lu_factor_op(a), Tensor(pivots))


def linalg_lu(A: Any, *, pivot: bool = True) -> PLU:
    """(P, L, U) of matrices [..., M, N] with ``A = P L U``; P a constant. The gradient needs M = N."""
    return lu_unpack(*_factored(A, "lu", pivot, False))


def lu(A: Any, pivot: bool = True, get_infos: bool = False) -> Any:
    """`lu_factor` as ``torch.lu``: (LU, pivots), and, if asked for, zeros [...] that say that it went well."""
    both, pivots = _factored(A, "lu", pivot, False)
    return (both, pivots, Tensor(torch.zeros(both.shape[:-2], dtype=torch.int32))) if get_infos else (both, pivots)


def lu_unpack(LU_data: Any, LU_pivots: Any, unpack_data: bool = True, unpack_pivots: bool = True) -> PLU:
    """(P, L, U) of what `lu_factor` gave; what is not asked for is empty."""
    both, pivots = tensor_argument(LU_data, "lu_unpack", "LU_data"), raw(LU_pivots, "lu_unpack", "LU_pivots")
    empty = Tensor(torch.empty(0, dtype=both.dtype))
    p = torch.lu_unpack(both.data, pivots, unpack_data=False)[0] if unpack_pivots else empty.data
    if not unpack_data:
        return PLU(Tensor(p), empty, empty)
    m, n = both.shape[-2:]
    k = min(m, n)
    eye = torch.eye(m, k, dtype=both.dtype)
    return PLU(Tensor(p), both[..., :, :k].tril(-1) + eye, both[..., :k, :].triu())


def lu_solve(b: Any, LU_data: Any, LU_pivots: Any) -> Tensor:
    """X with ``A X = b``, A being what `lu_factor` has factored; b [..., N, K]."""
    p, lower, upper = lu_unpack(LU_data, LU_pivots)
    return solve_triangular(
        upper, solve_triangular(lower, matmul(transpose(p, -2, -1), b), upper=False, unitriangular=True), upper=True
    )


def cholesky_solve(B: Any, L: Any, upper: bool = False) -> Tensor:
    """X with ``A X = B``, where ``A = L L^T`` (``upper``: ``L^T L``), L triangular [..., N, N], B [..., N, K]."""
    factor = _square(L, "cholesky_solve")
    factor = T(factor) if upper else factor
    half = solve_triangular(factor, tensor_argument(B, "cholesky_solve", "B"), upper=False)
    return solve_triangular(T(factor), half, upper=True)


def cholesky_inverse(L: Any, upper: bool = False) -> Tensor:
    """The inverse of ``A = L L^T`` (``upper``: ``L^T L``), L triangular [..., N, N]."""
    factor = _square(L, "cholesky_inverse")
    inverted = solve_triangular(factor, torch.eye(factor.shape[-1], dtype=factor.dtype), upper=upper)
    return matmul(inverted, T(inverted)) if upper else matmul(T(inverted), inverted)


def _matrices(value: Any, name: str) -> Tensor:
    x = tensor_argument(value, name, "A")
    if x.ndim < 2:
        raise ShapeError(f"{name}: A must be matrices [..., M, N]; got shape {list(x.shape)}")
    return x


def _square(value: Any, name: str) -> Tensor:
    x = tensor_argument(value, name, "L")
    if x.ndim < 2 or x.shape[-1] != x.shape[-2]:
        raise ShapeError(f"{name}: L must be [..., N, N]; got shape {list(x.shape)}")
    return x
