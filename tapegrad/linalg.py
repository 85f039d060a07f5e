"""``tg.linalg``: torch.linalg's names. Batched; second derivatives and forward mode included; LAPACK does the work."""

from __future__ import annotations

import inspect
from typing import Any, NamedTuple

import torch

from .core import ArgumentError, LinAlgError, ShapeError, Tensor, absent, also, calling, functions, raw, tensor_argument
from .ops import (
    cholesky,
    det,
    eigh,
    eigvalsh,
    matmul,
    matrix_exp,
    matrix_power,
    slogdet,
    solve,
    solve_triangular,
    sum,
    svdvals,
)
from .ops import cross as cross_along
from .ops import diagonal as parts_of_diagonal
from .ops import inverse as inv
from .ops import vander as decreasing_powers
from .ops.decompositions import (
    cholesky_ex,
    householder_product,
    inv_ex,
    ldl_factor,
    ldl_factor_ex,
    ldl_solve,
    lu_factor,
    lu_factor_ex,
    solve_ex,
    tensorinv,
    tensorsolve,
)
from .ops.decompositions import lu_of as lu
from .ops.decompositions import solve_from_lu as lu_solve
from .ops.factor import pinv
from .ops.factor import qr_of as qr
from .ops.factor import svd_of as svd

__all__ = [
    "LinAlgError",
    "cholesky",
    "cholesky_ex",
    "cond",
    "cross",
    "det",
    "diagonal",
    "eigh",
    "eigvalsh",
    "householder_product",
    "inv",
    "inv_ex",
    "ldl_factor",
    "ldl_factor_ex",
    "ldl_solve",
    "lstsq",
    "lu",
    "lu_factor",
    "lu_factor_ex",
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
    "solve_ex",
    "solve_triangular",
    "svd",
    "svdvals",
    "tensorinv",
    "tensorsolve",
    "vander",
    "vecdot",
    "vector_norm",
]


class Solution(NamedTuple):
    """What `lstsq` returns."""

    solution: Any
    residuals: Any
    rank: Any
    singular_values: Any


def cross(input: Any, other: Any, *, dim: int = -1) -> Tensor:
    """The vector products along ``dim``, whose extent is 3; the others broadcast."""
    a, b = tensor_argument(input, "cross", "input"), tensor_argument(other, "cross", "other")
    if any(not x.ndim or x.shape[dim] != 3 for x in (a, b)):
        raise ShapeError(f"cross: dim = {dim} must have extent 3 in both; got {list(a.shape)} and {list(b.shape)}")
    return cross_along(a, b, dim)


def diagonal(A: Any, *, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Tensor:
    """The diagonals of matrices, the last two dimensions."""
    return parts_of_diagonal(A, offset, dim1, dim2)


def vander(x: Any, *, N: int | None = None) -> Tensor:
    """The powers 0 to ``N - 1`` of the elements [..., M], as [..., M, N]."""
    values = tensor_argument(x, "vander", "x")
    values = values if values.ndim else values.reshape(1)
    if values.ndim == 1:
        return decreasing_powers(values, N, True)
    n = values.shape[-1] if N is None else N
    rows = decreasing_powers(values.reshape(-1), n, True)
    return rows.reshape(*values.shape, n)


def lstsq(A: Any, B: Any, rcond: Any = None, *, driver: str | None = None) -> Solution:
    """(solution, residuals, rank, singular values): the X of least ``|A X - B|**2``, for A [..., M, N] of full rank.

    ``residuals`` are the squared sums of the columns of ``A X - B`` for M > N where a ``driver`` other than the
    default, "gelsy", is named; else empty. Rank and singular values come where the driver works them out: "gelsy" the
    rank, "gelsd" and "gelss" both, "gels" neither.
    """
    if driver not in (None, "gels", "gelsy", "gelsd", "gelss"):
        raise ArgumentError(f"lstsq: driver must be gels, gelsy, gelsd or gelss; got {driver!r}")
    a, b = tensor_argument(A, "lstsq", "A"), tensor_argument(B, "lstsq", "B")
    vector = b.ndim == 1 or (a.ndim - 1 == b.ndim and b.shape == a.shape[:-1])
    x = matmul(pinv(a, rtol=rcond), b.unsqueeze(-1) if vector else b)
    tall = a.shape[-2] > a.shape[-1]
    if tall and driver not in (None, "gelsy"):
        off = matmul(a, x) - (b.unsqueeze(-1) if vector else b)
        residuals = sum(off * off, -2)
    else:
        residuals = x.reshape(-1)[:0]
    if vector:
        x, residuals = x.squeeze(-1), residuals.squeeze(-1) if residuals.ndim else residuals
    ranked = (driver or "gelsy") != "gels"
    rank = matrix_rank(a, rtol=rcond) if ranked else Tensor(torch.zeros(0, dtype=torch.int64))
    return Solution(x, residuals, rank, svdvals(a.detach()) if driver in ("gelsd", "gelss") else a.new_zeros(0))


def matrix_rank(A: Any, tol: Any = None, hermitian: bool = False, *, atol: Any = None, rtol: Any = None) -> Tensor:
    """The number of singular values above ``max(atol, rtol * largest)`` (``tol``: above it); int64, a constant."""
    a = raw(A, "matrix_rank", "A").detach()
    if a.ndim < 2:
        raise ShapeError(f"matrix_rank: A must be matrices [..., M, N]; got shape {list(a.shape)}")
    if tol is not None:
        atol, rtol = tol, 0.0
    atol, rtol = raw(atol, "matrix_rank", "atol"), raw(rtol, "matrix_rank", "rtol")
    rank = calling("matrix_rank", torch.linalg.matrix_rank, a, atol=atol, rtol=rtol, hermitian=hermitian)
    return Tensor(rank)


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


def _also(name: str) -> Any:
    """The function, whose first argument is called A, x or input, by all three names."""
    function = globals()[name]
    first = next(iter(inspect.signature(function).parameters))
    names = {other: first for other in ("A", "x", "input") if other != first}
    return also(
        function,
        names
        | {"lstsq": {"b": "B"}, "tensorsolve": {"other": "B"}, "norm": {"axis": "dim", "keepdims": "keepdim"}}.get(
            name, {}
        ),
    )


globals().update({name: _also(name) for name in __all__ if name not in ("LinAlgError", "matmul", "cross", "multi_dot")})
functions.update({f"linalg_{name}": globals()[name] for name in __all__})
__getattr__ = absent("tapegrad.linalg", torch.linalg)
