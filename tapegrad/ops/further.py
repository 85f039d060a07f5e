"""torch's rarer functions, composed of ops: integrals and differences, statistics, writes, other spellings."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import torch

from ..core import (
    ArgumentError,
    Array,
    DTypeError,
    IndexShapeError,
    ShapeError,
    Tensor,
    functions,
    integers,
    op,
    raw,
    tensor_argument,
    verify,
)
from .elementwise import binary, clamp, mul, pow, sub, where, zero
from .indexing import gather, setitem_op
from .linalg import bmm, matmul
from .rearrange import diag, tensor_split, vstack
from .reduce import ValuesIndices, cumsum, norm, sort, sum
from .scatters import index_put, scatter_reduce
from .shape import as_dims, cat, chunk, expand, movedim, narrow, reshape, split, transpose
from .strided import windows

__all__ = [
    "addbmm",
    "adjoint",
    "angle",
    "chain_matmul",
    "clamp_max",
    "clamp_min",
    "conj",
    "conj_physical",
    "corrcoef",
    "cov",
    "cumulative_trapezoid",
    "detach",
    "diagflat",
    "diagonal_scatter",
    "dsplit",
    "fill",
    "float_power",
    "frexp",
    "gradient",
    "index_reduce",
    "ldexp",
    "mode",
    "msort",
    "nextafter",
    "positive",
    "put",
    "real",
    "renorm",
    "resolve_conj",
    "resolve_neg",
    "row_stack",
    "rsub",
    "split_with_sizes",
    "sum_to_size",
    "t",
    "trapezoid",
    "trapz",
    "unsafe_chunk",
    "unsafe_split",
    "unsafe_split_with_sizes",
]

# --- the tensor itself -------------------------------------------------------------------------------------------


def _itself(name: str, why: str) -> Any:
    def function(input: Any) -> Tensor:
        return tensor_argument(input, name, "input")

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"The input itself: {why}."
    return function


_REAL = "every number is real"
conj = _itself("conj", _REAL)
conj_physical = _itself("conj_physical", _REAL)
real = _itself("real", _REAL)
resolve_conj = _itself("resolve_conj", _REAL)
resolve_neg = _itself("resolve_neg", "negation is never put off")


def positive(input: Any) -> Tensor:
    """The input itself; TypeError for bool."""
    x = tensor_argument(input, "positive", "input")
    if x.dtype is torch.bool:
        raise TypeError("positive: a bool tensor has no sign")
    return x


def detach(input: Any) -> Tensor:
    """The same storage, as a constant."""
    return tensor_argument(input, "detach", "input").detach()


def t(input: Any) -> Tensor:
    """The transpose of a matrix; vectors and numbers as they are."""
    x = tensor_argument(input, "t", "input")
    if x.ndim > 2:
        raise ShapeError(f"t: input must have at most 2 dimensions; got shape {list(x.shape)}")
    return transpose(x, 0, 1) if x.ndim == 2 else x


def adjoint(input: Any) -> Tensor:
    """The last two dimensions swapped."""
    x = tensor_argument(input, "adjoint", "input")
    if x.ndim < 2:
        raise ShapeError(f"adjoint: input must have at least 2 dimensions; got shape {list(x.shape)}")
    return transpose(x, -2, -1)


# --- elementwise -------------------------------------------------------------------------------------------------


def clamp_min(input: Any, min: Any) -> Tensor:
    """`clamp` from below."""
    return clamp(input, min, None)


def clamp_max(input: Any, max: Any) -> Tensor:
    """`clamp` from above."""
    return clamp(input, None, max)


def rsub(input: Any, other: Any, *, alpha: float = 1) -> Tensor:
    """``other - alpha * input``."""
    return sub(other, mul(input, alpha) if alpha != 1 else input)


def float_power(input: Any, exponent: Any) -> Tensor:
    """``input ** exponent`` in float64."""
    base, power = (
        v if isinstance(v, bool | int | float) else tensor_argument(v, "float_power", n).to(torch.float64)
        for v, n in ((input, "input"), (exponent, "exponent"))
    )
    if not isinstance(base, Tensor):
        base = Tensor(torch.tensor(base, dtype=torch.float64))
    return pow(base, power)


def ldexp(input: Any, other: Any) -> Tensor:
    """``input * 2 ** other``."""
    return mul(input, pow(2.0, tensor_argument(other, "ldexp", "other")))


def _exponent(input: Any) -> torch.Tensor:
    return torch.frexp(input.data if isinstance(input, Tensor) else input).exponent


@op(name="frexp", input=lambda g, input: g / torch.exp2(_exponent(input).to(g.dtype)))
def mantissa(input: Array) -> Any:
    """The first of `frexp`."""
    return torch.frexp(input).mantissa


class MantissaExponent(NamedTuple):
    """What `frexp` returns."""

    mantissa: Any
    exponent: Any


def frexp(input: Any) -> MantissaExponent:
    """(mantissa, exponent): ``input = mantissa * 2 ** exponent``, the mantissa in (-1, -1/2], 0, or [1/2, 1)."""
    x = tensor_argument(input, "frexp", "input")
    return MantissaExponent(mantissa(x), Tensor(_exponent(x)))


@op(input=lambda g: torch.zeros_like(g))
def angle(input: Array) -> Any:
    """pi for negative numbers, 0 for others, NaN for NaN."""
    return torch.angle(input)


nextafter = binary(
    "nextafter",
    "the next number of the dtype from input towards other",
    lambda g, input, other: torch.where(input == other, 0, g),
    zero,
)


def fill(input: Any, value: Any) -> Tensor:
    """The value, a number or 0-dim tensor, in the input's shape and dtype."""
    x = tensor_argument(input, "fill", "input")
    if isinstance(value, Tensor | torch.Tensor) and value.ndim:
        raise ShapeError(f"fill: value must be a number or a 0-dim tensor; got shape {list(value.shape)}")
    return setitem_op(x, ..., value)


# --- shapes ------------------------------------------------------------------------------------------------------


def sum_to_size(input: Any, *size: Any) -> Tensor:
    """Summed over the dimensions that broadcasting from ``size`` would have repeated."""
    x = tensor_argument(input, "sum_to_size", "input")
    given = integers(size[0] if len(size) == 1 else size, "sum_to_size", "size")
    wanted = (given,) if isinstance(given, int) else tuple(given)
    lead = x.ndim - len(wanted)
    if lead < 0 or any(n not in (1, x.shape[lead + i]) for i, n in enumerate(wanted)):
        raise ShapeError(f"sum_to_size: size {list(wanted)} does not broadcast to the input's {list(x.shape)}")
    dims = [*range(lead), *(lead + i for i, n in enumerate(wanted) if n == 1 and x.shape[lead + i] != 1)]
    return reshape(sum(x, dims), wanted) if dims else x


def diagflat(input: Any, offset: int = 0) -> Tensor:
    """A square matrix with the elements, row by row, on its diagonal ``offset``."""
    return diag(reshape(tensor_argument(input, "diagflat", "input"), (-1,)), offset)


def dsplit(input: Any, indices_or_sections: Any) -> tuple[Tensor, ...]:
    """Parts along dimension 2."""
    x = tensor_argument(input, "dsplit", "input")
    if x.ndim < 3:
        raise ShapeError(f"dsplit: input must have at least 3 dimensions; got shape {list(x.shape)}")
    parts = integers(indices_or_sections, "dsplit", "indices_or_sections")
    if isinstance(parts, int) and (parts < 1 or x.shape[2] % parts):
        raise ShapeError(f"dsplit: {parts} parts must divide the extent {x.shape[2]} of dimension 2")
    return tensor_split(x, parts, 2)


def split_with_sizes(input: Any, split_sizes: Sequence[int], dim: int = 0) -> tuple[Tensor, ...]:
    """Parts of the given sizes along ``dim``."""
    return split(input, list(split_sizes), dim)  # type: ignore[return-value]


row_stack = vstack
unsafe_split, unsafe_split_with_sizes, unsafe_chunk = split, split_with_sizes, chunk


def msort(input: Any) -> Tensor:
    """Sorted along dimension 0."""
    x = tensor_argument(input, "msort", "input")
    return sort(x, 0)[0]


def mode(input: Any, dim: int = -1, keepdim: bool = False) -> ValuesIndices:
    """(values, indices): the most frequent value along ``dim``, the least of several, and where one of them stands."""
    x = tensor_argument(input, "mode", "input")
    if not x.ndim:
        return ValuesIndices(x.clone(), Tensor(torch.zeros((), dtype=torch.int64)))
    d = as_dims(dim, x.ndim, "mode")[0]
    if not x.shape[d]:
        raise IndexShapeError(f"mode: dim = {dim} must have at least 1 element; got shape {list(x.shape)}")
    places = torch.mode(x.data, d, True).indices
    values = gather(x, d, places)
    if keepdim:
        return ValuesIndices(values, Tensor(places))
    return ValuesIndices(values.squeeze(d), Tensor(places.squeeze(d)))


# --- integrals and differences -----------------------------------------------------------------------------------


def _trapezoids(name: str, y: Any, x: Any, dx: Any, dim: int) -> tuple[Tensor, int]:
    """The areas between neighbours along ``dim``, and that dimension."""
    y = tensor_argument(y, name, "y")
    if not y.ndim:
        raise ShapeError(f"{name}: y must have at least 1 dimension; got a 0-dim tensor")
    d = as_dims(dim, y.ndim, name)[0]
    m = max(y.shape[d] - 1, 0)
    sums = narrow(y, d, min(1, y.shape[d]), m) + narrow(y, d, 0, m)
    if x is None or not y.shape[d]:
        return sums * dx / 2.0, d
    at = tensor_argument(x, name, "x")
    if at.ndim == 1 and y.ndim > 1:
        if at.shape[0] != y.shape[d]:
            raise ShapeError(f"{name}: x must have {y.shape[d]} points, dim {dim} of y; got shape {list(at.shape)}")
        at = reshape(at, [-1 if i == d else 1 for i in range(y.ndim)])
    along = as_dims(d - y.ndim, at.ndim, name)[0]
    n = max(at.shape[along] - 1, 0)
    steps = narrow(at, along, min(1, at.shape[along]), n) - narrow(at, along, 0, n)
    return steps * sums / 2.0, d


def trapezoid(y: Any, x: Any = None, *, dx: Any = 1, dim: int = -1) -> Tensor:
    """The integral along ``dim`` by the trapezoidal rule, between points ``x``, or ``dx`` apart."""
    areas, d = _trapezoids("trapezoid", y, x, dx, dim)
    return sum(areas, d - areas.ndim if x is None else d)


def cumulative_trapezoid(y: Any, x: Any = None, *, dx: Any = 1, dim: int = -1) -> Tensor:
    """The integrals up to each point but the first, along ``dim``."""
    areas, d = _trapezoids("cumulative_trapezoid", y, x, dx, dim)
    return cumsum(areas, d)


def trapz(y: Any, x: Any = None, *, dx: Any = 1, dim: int = -1) -> Tensor:
    """`trapezoid` under its older name."""
    return trapezoid(y, x, dx=dx, dim=dim)


def gradient(input: Any, *, spacing: Any = 1, dim: Any = None, edge_order: int = 1) -> tuple[Tensor, ...]:
    """Slopes along each dimension by differences of second order inside and of ``edge_order`` (1 or 2) at the edges.

    ``spacing`` : one number, or for each dimension a number or a vector of coordinates
    """
    x = tensor_argument(input, "gradient", "input")
    dims = tuple(range(x.ndim)) if dim is None else as_dims(dim, x.ndim, "gradient")
    if edge_order not in (1, 2):
        raise ArgumentError(f"gradient: edge_order must be 1 or 2; got {edge_order!r}")
    spacing = 1 if spacing is None else spacing
    if len(set(dims)) < len(dims):
        raise ArgumentError(f"gradient: dim must name each dimension once; got {dim}")
    several = isinstance(spacing, list | tuple)
    spacings = list(spacing) if several else [spacing] * len(dims)
    if len(spacings) != len(dims):
        raise ArgumentError(f"gradient: spacing must be one number, or one for each of {len(dims)} dimensions")
    return tuple(_slope(x, d, h, edge_order) for d, h in zip(dims, spacings, strict=True))


def _slope(x: Tensor, d: int, spacing: Any, edge_order: int) -> Tensor:
    n = x.shape[d]
    if n < edge_order + 1:
        raise ShapeError(f"gradient: each dimension must have at least {edge_order + 1} elements; got {list(x.shape)}")

    def part(start: int, count: int) -> Tensor:
        return narrow(x, d, start, count)

    at = spacing if isinstance(spacing, Tensor | torch.Tensor) and spacing.ndim else None
    shape = [-1 if i == d else 1 for i in range(x.ndim)]
    if at is None:
        kind = x.dtype if x.is_floating_point() else torch.get_default_dtype()
        one = torch.tensor(spacing, dtype=kind) if isinstance(spacing, int | float) else spacing
        steps = expand(reshape(tensor_argument(one, "gradient", "spacing"), (1,)), (n - 1,))
    else:
        at = tensor_argument(at, "gradient", "spacing")
        steps = narrow(at, 0, 1, n - 1) - narrow(at, 0, 0, n - 1)
    h = reshape(steps.to(x.dtype) if x.is_floating_point() else steps.to(torch.get_default_dtype()), shape)

    def step(i: int, count: int = 1) -> Tensor:
        return narrow(h, d, i, count)

    parts = []
    if edge_order == 1:
        parts.append((part(1, 1) - part(0, 1)) / step(0))
    else:
        h0, h1 = step(0), step(1)
        a, b, c = -(2.0 * h0 + h1) / (h0 * (h0 + h1)), (h0 + h1) / (h0 * h1), -h0 / (h1 * (h0 + h1))
        parts.append(a * part(0, 1) + b * part(1, 1) + c * part(2, 1))
    if n > 2:
        left, right = step(0, n - 2), step(1, n - 2)
        a, b, c = -right / (left * (left + right)), (right - left) / (left * right), left / (right * (left + right))
        parts.append(a * part(0, n - 2) + b * part(1, n - 2) + c * part(2, n - 2))
    if edge_order == 1:
        parts.append((part(n - 1, 1) - part(n - 2, 1)) / step(n - 2))
    else:
        h0, h1 = step(n - 3), step(n - 2)
        a, b, c = h1 / (h0 * (h0 + h1)), -(h0 + h1) / (h0 * h1), (2.0 * h1 + h0) / (h1 * (h0 + h1))
        parts.append(a * part(n - 3, 1) + b * part(n - 2, 1) + c * part(n - 1, 1))
    return cat(parts, d)


# --- statistics --------------------------------------------------------------------------------------------------


def cov(input: Any, *, correction: int = 1, fweights: Any = None, aweights: Any = None) -> Tensor:
    """The covariances of variables (rows) over observations (columns) [N, M] or [M].

    ``fweights`` : how often each observation counts, integers [M]; ``aweights`` : its importance [M]
    """
    x = tensor_argument(input, "cov", "input")
    if x.ndim > 2:
        raise ShapeError(f"cov: input must have at most 2 dimensions; got shape {list(x.shape)}")
    x = x if x.is_floating_point() else x.to(torch.get_default_dtype())
    rows = reshape(x, (1, -1)) if x.ndim < 2 else x
    weights = None
    for value, name in ((fweights, "fweights"), (aweights, "aweights")):
        if value is None:
            continue
        w = tensor_argument(value, "cov", name)
        if w.ndim > 1 or w.numel() != rows.shape[1]:
            raise ShapeError(f"cov: {name} must be a vector of {rows.shape[1]} observations; got {list(w.shape)}")
        if name == "fweights" and w.is_floating_point():
            raise DTypeError(f"cov: fweights must be integers; got {w.dtype}")
        w = reshape(w, (-1,))
        verify(w.data >= 0, partial(ArgumentError, f"cov: {name} must not be negative"))
        weights = w if weights is None else weights * w
    total: Any = rows.shape[1] if weights is None else sum(weights)
    mean = sum(rows if weights is None else rows * weights, 1) / total
    if weights is not None and aweights is not None and correction:
        degrees: Any = total - correction * sum(weights * tensor_argument(aweights, "cov", "aweights")) / total
    else:
        degrees = total - correction
    centred = rows - reshape(mean, (-1, 1))
    product = matmul(centred, transpose(centred if weights is None else centred * weights, 0, 1))
    if isinstance(degrees, Tensor):
        degrees = degrees.to(product.dtype).clamp(0)
        result = product / degrees
    else:
        result = product / Tensor(torch.tensor(float(max(degrees, 0)), dtype=product.dtype))
    return reshape(result, ()) if result.numel() == 1 else result


def corrcoef(input: Any) -> Tensor:
    """The correlations of variables (rows) over observations (columns), within [-1, 1]."""
    x = tensor_argument(input, "corrcoef", "input")
    if x.ndim > 2:
        raise ShapeError(f"corrcoef: input must have at most 2 dimensions; got shape {list(x.shape)}")
    c = cov(x)
    if not c.ndim:
        return c / c
    deviations = pow(diag(c), 0.5)
    return (c / reshape(deviations, (-1, 1)) / reshape(deviations, (1, -1))).clamp(-1, 1)


def renorm(input: Any, p: float, dim: int, maxnorm: float) -> Tensor:
    """Slices along ``dim`` whose ``p``-norm exceeds ``maxnorm`` scaled down to it."""
    x = tensor_argument(input, "renorm", "input")
    if x.ndim < 2:
        raise ShapeError(f"renorm: input must have at least 2 dimensions; got shape {list(x.shape)}")
    if not 0 < p < 2**63 or not maxnorm >= 0:
        raise ArgumentError(f"renorm: p must be positive and maxnorm not negative; got {p} and {maxnorm}")
    d = as_dims(dim, x.ndim, "renorm")[0]
    lengths = norm(x, float(p), [i for i in range(x.ndim) if i != d], True)
    return x * where(lengths > maxnorm, maxnorm / (lengths + 1e-7), 1.0)


# --- writes ------------------------------------------------------------------------------------------------------


def diagonal_scatter(input: Any, src: Any, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor:
    """A copy of the input with ``src`` as its diagonal."""
    x, new = tensor_argument(input, "diagonal_scatter", "input"), tensor_argument(src, "diagonal_scatter", "src")
    expected = list(x.data.diagonal(offset, dim1, dim2).shape)
    if list(new.shape) != expected:
        raise ShapeError(f"diagonal_scatter: src must have shape {expected}; got {list(new.shape)}")
    moved = movedim(x, (dim1, dim2), (-2, -1))
    n = expected[-1]
    rows, columns = torch.arange(n) + max(-offset, 0), torch.arange(n) + max(offset, 0)
    written = setitem_op(moved, (..., rows, columns), new.to(x.dtype))
    return movedim(written, (-2, -1), (dim1, dim2))


def put(input: Any, index: Any, source: Any, accumulate: bool = False) -> Tensor:
    """A copy of the input with the elements ``index``, counted row by row, replaced by (or added) the source's."""
    x, new = tensor_argument(input, "put", "input"), tensor_argument(source, "put", "source")
    at = raw(index, "put", "index")
    if at.numel() != new.numel():
        raise ShapeError(f"put: source must have as many elements as index, {at.numel()}; got {new.numel()}")
    written = index_put(reshape(x, (-1,)), (at.reshape(-1),), reshape(new, (-1,)), accumulate)
    return reshape(written, tuple(x.shape))


def index_reduce(input: Any, dim: int, index: Any, source: Any, reduce: str, *, include_self: bool = True) -> Tensor:
    """Slice ``index[i]`` of ``dim`` reduced with slice i of the source: "prod", "mean", "amax" or "amin"."""
    x, new = tensor_argument(input, "index_reduce", "input"), tensor_argument(source, "index_reduce", "source")
    if reduce not in ("prod", "mean", "amax", "amin"):
        raise ArgumentError(f"index_reduce: reduce must be prod, mean, amax or amin; got {reduce!r}")
    at = raw(index, "index_reduce", "index").reshape(-1)
    if not x.ndim:
        made = index_reduce(reshape(x, (1,)), 0, at, reshape(new, (1,)), reduce, include_self=include_self)
        return reshape(made, ())
    d = as_dims(dim, x.ndim, "index_reduce")[0]
    if new.ndim != x.ndim or new.shape[d] != len(at):
        raise ShapeError(f"index_reduce: source must have {len(at)} slices in dim {dim}; got shape {list(new.shape)}")
    wide = at.reshape([-1 if i == d else 1 for i in range(x.ndim)]).expand(new.shape)
    return scatter_reduce(x, d, wide, new, reduce, include_self=include_self)


# --- products ----------------------------------------------------------------------------------------------------


def addbmm(input: Any, batch1: Any, batch2: Any, *, beta: float = 1, alpha: float = 1) -> Tensor:
    """``beta * input + alpha * sum_b batch1[b] @ batch2[b]``."""
    product = sum(bmm(batch1, batch2), 0)
    product = product if alpha == 1 else product * alpha
    x = tensor_argument(input, "addbmm", "input")
    return expand(product, tuple(product.shape)) if beta == 0 else (x if beta == 1 else x * beta) + product


def chain_matmul(*matrices: Any) -> Tensor:
    """The product of several matrices."""
    product = matrices[0]
    for matrix in matrices[1:]:
        product = matmul(product, matrix)
    return tensor_argument(product, "chain_matmul", "matrices")


# --- views as copies ---------------------------------------------------------------------------------------------

_COPIES = "alias as_strided detach diagonal expand narrow permute select split split_with_sizes squeeze t transpose"
_COPIES += " unbind unsqueeze view unfold"


def _copying(name: str) -> Any:
    def function(input: Any, *args: Any, **kwargs: Any) -> Any:
        x = tensor_argument(input, f"{name}_copy", "input")
        view = windows(x, *args, **kwargs) if name == "unfold" else functions[name](x, *args, **kwargs)
        return tuple(v.clone() for v in view) if isinstance(view, tuple) else view.clone()

    function.__name__ = function.__qualname__ = f"{name}_copy"
    function.__doc__ = f"`{name}` as a copy."
    return function


globals().update({f"{name}_copy": _copying(name) for name in _COPIES.split()})
__all__ += [f"{name}_copy" for name in _COPIES.split()]
