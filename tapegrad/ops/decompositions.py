"""The other factorisations: triangular with pivots, by reflections, of low rank; systems solved from factors.

As in `factor`: LAPACK through torch, gradients written in ops, pivots constants. Matrices are [..., M, N].
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch

from ..core import ArgumentError, Array, LinAlgError, ShapeError, Tensor, either, op, raw, tensor_argument, verify
from .elementwise import where
from .factor import _T, _lapack, _product, _square, cholesky, inverse, reduced_qr, singular, solve, solve_triangular
from .linalg import matmul
from .random import randn
from .shape import cat, narrow, squeeze, transpose, unsqueeze
from .small import broadcast_shapes

__all__ = ["cholesky_inverse", "cholesky_solve", "geqrf", "lu", "lu_solve", "lu_unpack", "orgqr", "ormqr"]
__all__ += ["pca_lowrank", "svd_lowrank", "triangular_solve"]


class LU(NamedTuple):
    """What `lu_factor` returns: both factors in one matrix, and which rows were swapped, counted from 1."""

    LU: Any
    pivots: Any


class Factors(NamedTuple):
    """What `lu_unpack` returns: permutation, lower and upper triangular factor."""

    P: Any
    L: Any
    U: Any


class Solution(NamedTuple):
    """What `triangular_solve` returns."""

    solution: Any
    cloned_coefficient: Any


class Reflections(NamedTuple):
    """What `geqrf` returns: the reflectors under R, and their factors."""

    a: Any
    tau: Any


def _matrices(value: Any, name: str, argument: str = "A") -> Tensor:
    x = tensor_argument(value, name, argument)
    if x.ndim < 2 or not x.is_floating_point():
        raise ShapeError(f"{name}: {argument} must be float matrices [..., M, N]; got {list(x.shape)}, {x.dtype}")
    return x


def _triangle(value: Any, name: str) -> Tensor:
    x = _matrices(value, name, "L")
    if x.shape[-1] != x.shape[-2]:
        raise ShapeError(f"{name}: L must be [..., N, N]; got shape {list(x.shape)}")
    return x


# --- Cholesky ----------------------------------------------------------------------------------------------------


def cholesky_solve(input: Any, L: Any, upper: bool = False) -> Tensor:
    """X with ``L L^T X = input`` (``upper``: ``L^T L``), from the factor that `cholesky` gives."""
    b, factor = _matrices(input, "cholesky_solve", "input"), _triangle(L, "cholesky_solve")
    first = _T(factor) if upper else factor
    return solve_triangular(_T(first), solve_triangular(first, b, upper=False), upper=True)


def cholesky_inverse(L: Any, upper: bool = False) -> Tensor:
    """The inverse of ``L L^T`` (``upper``: ``L^T L``)."""
    factor = _triangle(L, "cholesky_inverse")
    return cholesky_solve(torch.eye(factor.shape[-1], dtype=factor.dtype).expand(factor.shape), factor, upper)


# --- LU ----------------------------------------------------------------------------------------------------------


def _lu_rule(g: Any, input: Any) -> Any:
    """``L^-T (tril(L^T gL, -1) + triu(gU U^T)) U^-T``."""
    low, up = either("lu_square", input)
    middle = _product(_T(low), g[0]).tril(-1) + _product(g[1], _T(up)).triu()
    left = either("triangular_solution", _T(low), middle, True, True)
    return _T(either("triangular_solution", up, _T(left), True, False))


@op(input=_lu_rule)
def lu_square(input: Array) -> Any:
    """L and U of square matrices whose rows are in the order of their pivots."""
    _, low, up = _lapack("lu", torch.linalg.lu, input)
    return low, up


def _swaps(pivots: torch.Tensor, m: int) -> torch.Tensor:
    """The rows of A in the order in which they stand in ``L U``."""
    order = torch.arange(m).expand(*pivots.shape[:-1], m).clone()
    for i in range(pivots.shape[-1]):
        j = (pivots[..., i : i + 1] - 1).long()
        here, there = order[..., i : i + 1].clone(), order.gather(-1, j)
        order.scatter_(-1, j, here)
        order[..., i : i + 1] = there
    return order


def _in_order(x: Tensor, order: torch.Tensor) -> Tensor:
    return x.gather(-2, order.unsqueeze(-1).expand(*order.shape, x.shape[-1]))


def _factors(x: Tensor, name: str, pivot: bool) -> tuple[Tensor, Tensor, torch.Tensor]:
    """L, U and pivots."""
    if not pivot:
        raise ArgumentError(f"{name}: pivot=False is not offered on the CPU, in torch neither")
    m, n = x.shape[-2:]
    k = min(m, n)
    pivots = _lapack(name, torch.linalg.lu_factor_ex, x.data)[1]
    rows = _in_order(x, _swaps(pivots, m))
    low, up = lu_square(rows[..., :k, :k])
    if m > n:
        low = cat([low, solve_triangular(up, rows[..., k:, :], upper=True, left=False)], -2)
    if n > m:
        up = cat([up, solve_triangular(low, rows[..., k:], upper=False, unitriangular=True)], -1)
    return low, up, pivots


def lu_factor(A: Any, *, pivot: bool = True) -> LU:
    """(LU, pivots): L below the diagonal, whose own is 1, and U in one matrix."""
    x = _matrices(A, "lu_factor")
    low, up, pivots = _factors(x, "lu_factor", pivot)
    m, n = x.shape[-2:]
    eye = torch.eye(*low.shape[-2:], dtype=x.dtype)
    strict = low - eye
    if m > n:
        up = cat([up, up.new_zeros((*up.shape[:-2], m - n, n))], -2)
    if n > m:
        strict = cat([strict, strict.new_zeros((*strict.shape[:-2], m, n - m))], -1)
    return LU(strict + up, Tensor(pivots))


def lu_factor_ex(A: Any, *, pivot: bool = True, check_errors: bool = False) -> Any:
    """`lu_factor` and, as info, the first pivot that is 0 (0: none)."""
    info = _lapack("lu_factor_ex", torch.linalg.lu_factor_ex, _matrices(A, "lu_factor_ex").data, pivot=pivot)[2]
    if check_errors and bool(info.any()):
        raise LinAlgError("lu_factor_ex: a matrix is singular")
    return (*lu_factor(A, pivot=pivot), Tensor(info))


def lu_unpack(LU_data: Any, LU_pivots: Any, unpack_data: bool = True, unpack_pivots: bool = True) -> Factors:
    """(P, L, U) of what `lu_factor` gave: ``A = P L U``."""
    x, pivots = _matrices(LU_data, "lu_unpack", "LU_data"), raw(LU_pivots, "lu_unpack", "LU_pivots")
    m, n = x.shape[-2:]
    k = min(m, n)
    empty = x.new_zeros(0)
    low, up, permutation = empty, empty, empty
    if unpack_data:
        low = narrow(x, -1, 0, k).tril(-1) + torch.eye(m, k, dtype=x.dtype)
        up = narrow(x, -2, 0, k).triu()
    if unpack_pivots:
        permutation = Tensor(_permutation(_swaps(pivots, m), x.dtype))
    return Factors(permutation, low, up)


def _permutation(order: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    m = order.shape[-1]
    return torch.eye(m, dtype=dtype).expand(*order.shape, m).gather(-2, order.unsqueeze(-1).expand(*order.shape, m)).mT


def lu_of(A: Any, *, pivot: bool = True) -> Factors:
    """(P, L, U) with ``A = P L U``: a permutation, L lower triangular with ones on its diagonal, U upper triangular."""
    x = _matrices(A, "lu")
    low, up, pivots = _factors(x, "lu", pivot)
    return Factors(Tensor(_permutation(_swaps(pivots, x.shape[-2]), x.dtype)), low, up)


def lu(A: Any, pivot: bool = True, get_infos: bool = False) -> Any:
    """`linalg.lu_factor` under torch's older name; with ``get_infos``, which pivot is 0 comes too."""
    return lu_factor_ex(A, pivot=pivot) if get_infos else lu_factor(A, pivot=pivot)


def solve_from_lu(LU: Any, pivots: Any, B: Any, *, left: bool = True, adjoint: bool = False) -> Tensor:
    """X with ``A X = B`` (not ``left``: ``X A = B``; ``adjoint``: ``A^T``), from the factors of A."""
    x, b = _matrices(LU, "lu_solve", "LU"), _matrices(B, "lu_solve", "B")
    if not left:
        return transpose(solve_from_lu(x, pivots, _T(b), adjoint=not adjoint), -2, -1)
    _square(x.data, "lu_solve")
    order = _swaps(raw(pivots, "lu_solve", "pivots"), x.shape[-1])
    order = order.expand(*broadcast_shapes(order.shape[:-1], b.shape[:-2]), order.shape[-1])
    b = b.expand(*order.shape, b.shape[-1]) if b.shape[:-1] != order.shape else b
    if not adjoint:
        first = solve_triangular(x, _in_order(b, order), upper=False, unitriangular=True)
        return solve_triangular(x, first, upper=True)
    first = solve_triangular(_T(x), b, upper=False)
    return _in_order(solve_triangular(_T(x), first, upper=True, unitriangular=True), order.argsort(-1))


def lu_solve(input: Any, LU_data: Any, LU_pivots: Any) -> Tensor:
    """X with ``A X = input``, from the factors of A."""
    return solve_from_lu(LU_data, LU_pivots, input)


def triangular_solve(
    input: Any, A: Any, upper: bool = True, transpose: bool = False, unitriangular: bool = False
) -> Solution:
    """`linalg.solve_triangular` under torch's older name, with a copy of A."""
    a = _matrices(A, "triangular_solve")
    matrix, high = (_T(a), not upper) if transpose else (a, upper)
    return Solution(solve_triangular(matrix, input, upper=high, unitriangular=unitriangular), a.clone())


# --- reflections -------------------------------------------------------------------------------------------------


@op
def geqrf_op(input: Array) -> Any:
    """Reflectors and factors."""
    return tuple(_lapack("geqrf", torch.geqrf, input))


def geqrf(input: Any) -> Reflections:
    """(a, tau): R and below it the reflectors whose product is Q, and their factors. No gradient, as in torch."""
    a, tau = geqrf_op(_matrices(input, "geqrf", "input"))
    return Reflections(a, tau)


def _reflect(a: Tensor, tau: Tensor, y: Tensor, backwards: bool) -> Tensor:
    """``H_1 ... H_k y`` (or, ``backwards``, ``H_k ... H_1 y``), with ``H_i = 1 - tau_i v_i v_i^T``."""
    k = tau.shape[-1]
    vectors = narrow(a, -1, 0, k).tril(-1) + torch.eye(a.shape[-2], k, dtype=a.dtype)
    for i in range(k) if backwards else reversed(range(k)):
        v = narrow(vectors, -1, i, 1)
        y = y - unsqueeze(narrow(tau, -1, i, 1), -1) * matmul(v, matmul(_T(v), y))
    return y


def householder_product(A: Any, tau: Any) -> Tensor:
    """The first N columns of the product of the reflections that `geqrf` gave as A [..., M, N] and tau."""
    a, factors = _matrices(A, "householder_product"), tensor_argument(tau, "householder_product", "tau")
    m, n = a.shape[-2:]
    if n > m or factors.shape[-1:] > torch.Size([n]):
        raise ShapeError(f"householder_product: A must have M >= N >= K; got {list(a.shape)} and {list(factors.shape)}")
    return _reflect(a, factors, Tensor(torch.eye(m, n, dtype=a.dtype).expand(a.shape)), False)


orgqr = householder_product


def ormqr(input: Any, tau: Any, other: Any, left: bool = True, transpose: bool = False) -> Tensor:
    """``Q other`` (not ``left``: ``other Q``; ``transpose``: Q^T), Q the whole product of reflections."""
    a, y = _matrices(input, "ormqr", "input"), _matrices(other, "ormqr", "other")
    factors = tensor_argument(tau, "ormqr", "tau")
    if not left:
        return _reflect(a, factors, _T(y), not transpose).mT
    return _reflect(a, factors, y, transpose)


# --- of low rank -------------------------------------------------------------------------------------------------


def svd_lowrank(A: Any, q: int | None = 6, niter: int | None = 2, M: Any = None) -> tuple[Tensor, Tensor, Tensor]:
    """(U, S, V): an approximate decomposition of rank ``q`` of ``A - M`` by random projections (Halko et al., 2009)."""
    a = _matrices(A, "svd_lowrank")
    a = a if M is None else a - M
    tall = a.shape[-2] >= a.shape[-1]
    x = a if tall else _T(a)
    basis = reduced_qr(matmul(x, randn(x.shape[-1], 6 if q is None else q, dtype=a.dtype)))[0]
    for _ in range(2 if niter is None else niter):
        basis = reduced_qr(matmul(x, reduced_qr(matmul(_T(x), basis))[0]))[0]
    u, s, vh = singular(matmul(_T(basis), x))
    u, v = matmul(basis, u), _T(vh)
    return (u, s, v) if tall else (v, s, u)


def pca_lowrank(A: Any, q: int | None = None, center: bool = True, niter: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    """(U, S, V) of `svd_lowrank` of rows whose mean is taken off."""
    a = _matrices(A, "pca_lowrank")
    rank = min(6, *a.shape[-2:]) if q is None else q
    if not 0 <= rank <= min(a.shape[-2:]):
        raise ArgumentError(f"pca_lowrank: q must be from 0 to {min(a.shape[-2:])}; got {q}")
    return svd_lowrank(a - a.mean(-2, True) if center else a, rank, niter)


# --- for linalg --------------------------------------------------------------------------------------------------


class Cholesky(NamedTuple):
    """What `cholesky_ex` returns."""

    L: Any
    info: Any


class Inverse(NamedTuple):
    """What `inv_ex` returns."""

    inverse: Any
    info: Any


class Solved(NamedTuple):
    """What `solve_ex` returns."""

    result: Any
    info: Any


def _checked(name: str, a: Tensor, info: torch.Tensor, compute: Any, check_errors: bool) -> tuple[Tensor, Tensor]:
    """(``compute(a)``, info), NaN for the matrices of a batch that have no result."""
    bad = (info != 0)[..., None, None]
    if check_errors and bool(bad.any()):
        raise LinAlgError(f"{name}: a matrix is singular or not positive definite")
    value = compute(where(bad, torch.eye(a.shape[-1], dtype=a.dtype), a))
    return where(bad, math.nan, value), Tensor(info)


def cholesky_ex(A: Any, *, upper: bool = False, check_errors: bool = False) -> Cholesky:
    """(`cholesky`, info): info says which leading minor is not positive definite (0: none)."""
    a = _matrices(A, "cholesky_ex")
    info = _lapack("cholesky_ex", torch.linalg.cholesky_ex, _square(a.data, "cholesky_ex"))[1]
    return Cholesky(*_checked("cholesky_ex", a, info, lambda x: cholesky(x, upper=upper), check_errors))


def inv_ex(A: Any, *, check_errors: bool = False) -> Inverse:
    """(inverse, info): info says which pivot is 0 (0: none)."""
    a = _matrices(A, "inv_ex")
    info = _lapack("inv_ex", torch.linalg.inv_ex, _square(a.data, "inv_ex"))[1]
    return Inverse(*_checked("inv_ex", a, info, inverse, check_errors))


def solve_ex(A: Any, B: Any, *, left: bool = True, check_errors: bool = False) -> Solved:
    """(`solve`, info): info says which pivot is 0 (0: none)."""
    a = _matrices(A, "solve_ex")
    info = _lapack("solve_ex", torch.linalg.solve_ex, a.data, raw(B, "solve_ex", "B"), left=left)[1]
    if not check_errors and bool(info.any()):
        b = tensor_argument(B, "solve_ex", "B")
        if b.ndim == 1 or (a.ndim - 1 == b.ndim and b.shape == a.shape[:-1]):
            value, info = solve_ex(a, unsqueeze(b, -1), left=True)
            return Solved(squeeze(value, -1), info)
    elif not bool(info.any()):
        return Solved(solve(a, B, left=left), Tensor(info))
    return Solved(*_checked("solve_ex", a, info, lambda x: solve(x, B, left=left), check_errors))


def tensorinv(A: Any, ind: int = 2) -> Tensor:
    """The inverse of A as a matrix of its first ``ind`` dimensions by the others."""
    a = tensor_argument(A, "tensorinv", "A")
    rows, columns = tuple(a.shape[:ind]), tuple(a.shape[ind:])
    n = torch.Size(rows).numel()
    if ind < 1 or n != torch.Size(columns).numel():
        raise ShapeError(
            f"tensorinv: the first {ind} dimensions must have as many elements as the rest; {list(a.shape)}"
        )
    return inverse(a.reshape(n, -1)).reshape(*columns, *rows)


def tensorsolve(A: Any, B: Any, dims: Any = None) -> Tensor:
    """X with ``tensordot(A, X, X.ndim) = B``; ``dims`` of A are moved to its end first."""
    a, b = tensor_argument(A, "tensorsolve", "A"), tensor_argument(B, "tensorsolve", "B")
    if dims is not None:
        moved = [d % a.ndim for d in dims]
        a = a.permute([*(d for d in range(a.ndim) if d not in moved), *moved])
    shape = tuple(a.shape[b.ndim :])
    n = torch.Size(shape).numel()
    if n != b.numel():
        raise ShapeError(f"tensorsolve: A {list(a.shape)} must be square in the extents of B {list(b.shape)}")
    return squeeze(solve(a.reshape(n, n), b.reshape(n, 1)), -1).reshape(shape)


@op
def ldl_factor_op(A: Array, hermitian: bool) -> Any:
    """LD, pivots and info."""
    return tuple(_lapack("ldl_factor", torch.linalg.ldl_factor_ex, A, hermitian=hermitian))


def ldl_factor(A: Any, *, hermitian: bool = False) -> Any:
    """(LD, pivots) of symmetric matrices, ``A = L D L^T`` with rows swapped. No gradient."""
    return ldl_factor_ex(A, hermitian=hermitian, check_errors=True)[:2]


def ldl_factor_ex(A: Any, *, hermitian: bool = False, check_errors: bool = False) -> Any:
    """`ldl_factor` and, as info, which block of D is singular (0: none)."""
    low, pivots, info = ldl_factor_op(_matrices(A, "ldl_factor"), hermitian)
    if check_errors:
        verify(info.data == 0, lambda: LinAlgError("ldl_factor: a matrix is singular"))
    return low, pivots, info


@op
def ldl_solve_op(LD: Array, pivots: Array, B: Array, hermitian: bool) -> Any:
    """X with ``A X = B`` from `ldl_factor`."""
    return _lapack("ldl_solve", torch.linalg.ldl_solve, LD, pivots, B, hermitian=hermitian)


def ldl_solve(LD: Any, pivots: Any, B: Any, *, hermitian: bool = False) -> Tensor:
    """X with ``A X = B``, from what `ldl_factor` gave for A. No gradient."""
    return ldl_solve_op(LD, pivots, B, hermitian)
