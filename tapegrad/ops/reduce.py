"""Reductions and scans.

``dim`` is an int, a tuple of ints or None (all dimensions); negative dims count from the end; ``keepdim`` keeps the
reduced dimensions with size 1. Results' shapes and dtypes are torch's.
"""

from __future__ import annotations

import builtins
import math
import numbers
import warnings
from typing import Any, NamedTuple, TypeAlias

import torch

from ..core import (
    _C,
    FLOATS,
    ArgumentError,
    Array,
    DTypeError,
    IndexShapeError,
    ShapeError,
    Tensor,
    describe,
    either,
    known_dtype,
    op,
    put,
    raw,
    sum_over,
)
from .elementwise import maximum, minimum
from .indexing import gather
from .nuclear import nuclear_norm
from .shape import as_dims, expand_as_reduced, squeeze, to_dtype
from .versions import constant_pad

__all__ = [
    "ValuesIndices",
    "all",
    "amax",
    "amin",
    "any",
    "argmax",
    "argmin",
    "argsort",
    "cumprod",
    "cumsum",
    "linear_recurrence",
    "logsumexp",
    "max",
    "mean",
    "min",
    "norm",
    "prod",
    "sort",
    "std",
    "sum",
    "topk",
    "var",
]


Dim: TypeAlias = "int | tuple[int, ...] | list[int] | None"


def _listed(dim: Dim, ndim: int, name: str) -> list[int]:
    """`dim` as the kernels take it: a list, empty for all dimensions."""
    if dim is None or isinstance(dim, int):
        return [] if dim is None else [dim]
    if len({d % builtins.max(ndim, 1) for d in dim}) != len(dim):
        raise ShapeError(f"{name}: dim = {tuple(dim)} names a dimension twice")
    return list(dim)


def _count(shape: Any, dim: Dim) -> int:
    """How many elements each result of a reduction over `dim` is made of."""
    count = 1
    for d in as_dims(None if dim in ((), []) else dim, len(shape)):
        count *= shape[d] if len(shape) else 1
    return count


def _keepdim(x: Any, dim: Dim, keepdim: bool, ndim: int) -> Any:
    """A reduction's result with its reduced dimensions put back as size 1."""
    if keepdim or ndim == 0:
        return x
    for d in sorted(as_dims(None if dim in ((), []) else dim, ndim)):
        x = x.unsqueeze(d)
    return x


@op(input=lambda g, input_shape, dim, keepdim: expand_as_reduced(g, input_shape, dim, keepdim))
def sum(input: Array, dim: Dim = None, keepdim: bool = False, *, dtype: torch.dtype | None = None) -> Any:
    """``y = sum_i x_i`` over ``dim``. Integers and bools sum in int64; an empty sum is 0."""
    if dtype is None and input.is_floating_point():
        return _C.sum(input, _listed(dim, input.ndim, "sum"), keepdim)
    if known_dtype(dtype, "sum") in FLOATS:
        return _C.sum(input.to(dtype), _listed(dim, input.ndim, "sum"), keepdim)
    return torch.sum(input, dim, keepdim, dtype=dtype)


@op(
    input=lambda g, input_shape, dim, keepdim: (
        expand_as_reduced(g, input_shape, dim, keepdim) / _count(input_shape, dim)
    )
)
def mean(input: Array, dim: Dim = None, keepdim: bool = False, *, dtype: torch.dtype | None = None) -> Any:
    """``y = sum_i x_i / n`` over ``dim``. An empty mean is NaN, as torch's."""
    if dtype is None and input.is_floating_point():
        return _C.mean(input, _listed(dim, input.ndim, "mean"), keepdim)
    if known_dtype(dtype, "mean") in FLOATS:
        return _C.mean(input.to(dtype), _listed(dim, input.ndim, "mean"), keepdim)
    return torch.mean(input, dim, keepdim, dtype=dtype)


def _amax_rule(g: Any, input: Any, out: Any, dim: Dim, keepdim: bool) -> Any:
    """The gradient shared evenly among the elements that tie for the extremum."""
    ties = (input == _keepdim(out, dim, keepdim, input.ndim)).to(g.dtype)
    count = sum_over(ties, as_dims(None if dim in ((), []) else dim, ties.ndim), True) if ties.ndim else ties
    return _keepdim(g, dim, keepdim, input.ndim) * ties / count


def _ties(input: Any, out: Any, dtype: torch.dtype) -> Any:
    """1 where an element is the extremum; a NaN is, where it is the result."""
    same = torch.logical_or(input == out, torch.logical_and(torch.isnan(input), torch.isnan(out)))
    return same.to(dtype)


def _extremum_rule(g: Any, input: Any, out: Any) -> Any:
    """As `_amax_rule` over all elements; a NaN takes the gradient where it is the result."""
    ties = _ties(input, out, g.dtype)
    return g * ties / sum_over(ties, None)


@op(name="max", input=_extremum_rule)
def max_op(input: Array) -> Any:
    """The maximum of all elements."""
    return torch.max(input)


@op(name="min", input=_extremum_rule)
def min_op(input: Array) -> Any:
    """The minimum of all elements."""
    return torch.min(input)


@op(input=_amax_rule)
def amax(input: Array, dim: Dim = (), keepdim: bool = False) -> Any:
    """The maximum over ``dim``; ties share the gradient evenly."""
    return torch.amax(input, dim, keepdim)  # type: ignore[arg-type]


@op(input=_amax_rule)
def amin(input: Array, dim: Dim = (), keepdim: bool = False) -> Any:
    """The minimum over ``dim``; ties share the gradient evenly."""
    return torch.amin(input, dim, keepdim)  # type: ignore[arg-type]


class ValuesIndices(NamedTuple):
    """What `max`, `min`, `sort` and `topk` along a dimension return."""

    values: Tensor
    indices: Tensor


def _best(name: str, input: Any, dim: int, keepdim: bool) -> ValuesIndices:
    """Extremum along one dimension; the gradient goes to the element chosen."""
    x = raw(input, name, "input")
    try:
        index = getattr(torch, name)(x, dim, keepdim=True).indices
    except IndexError as error:
        raise IndexShapeError(f"{name}: {error} (input has shape {list(x.shape)})") from error
    values = gather(input, dim, index)
    if not keepdim and x.ndim:
        values, index = squeeze(values, dim), index.squeeze(dim)
    return ValuesIndices(values, Tensor(index))


def _read_extremum(
    name: str, given: tuple[Any, ...], dim: int | None, keepdim: bool, other: Any
) -> tuple[int | None, Any, bool]:
    """(dim, other, keepdim) of torch's two calls, ``max(x, dim, keepdim)`` and ``max(x, other)``: by position, any
    tensor is the other one."""
    if len(given) > 2 or (given and (dim is not None or other is not None)):
        raise TypeError(f"{name}: expected dim and keepdim, or another tensor; got {len(given)} more arguments")
    if not given:
        return dim, other, keepdim
    if given[0] is None or isinstance(given[0], int | numbers.Integral):
        at = None if given[0] is None else int(given[0])
        return at, None, given[1] if len(given) == 2 else keepdim
    return None, given[0], keepdim


def max(
    input: Any,
    *dim_or_other: Any,
    dim: int | None = None,
    keepdim: bool = False,
    other: Any = None,
    out: Any = None,
) -> Any:
    """The maximum of all elements (ties share the gradient evenly); along an int ``dim`` (values, indices), the
    gradient going to the index returned; or `maximum` with ``other``, another tensor in place of ``dim``. ``out`` takes
    the result, a constant."""
    dim, other, keepdim = _read_extremum("max", dim_or_other, dim, keepdim, other)
    if other is not None:
        result: Any = maximum(input, other)
    else:
        result = max_op(input) if dim is None else _best("max", input, dim, keepdim)
    return result if out is None else put(out, result, "max")


def min(
    input: Any,
    *dim_or_other: Any,
    dim: int | None = None,
    keepdim: bool = False,
    other: Any = None,
    out: Any = None,
) -> Any:
    """The minimum, as `max`."""
    dim, other, keepdim = _read_extremum("min", dim_or_other, dim, keepdim, other)
    if other is not None:
        result: Any = minimum(input, other)
    else:
        result = min_op(input) if dim is None else _best("min", input, dim, keepdim)
    return result if out is None else put(out, result, "min")


def sort(input: Any, dim: int = -1, descending: bool = False, stable: bool = False) -> ValuesIndices:
    """(values, indices) in ascending (or ``descending``) order along ``dim``."""
    x = raw(input, "sort", "input")
    try:
        index = torch.sort(x, dim=dim, descending=descending, stable=stable).indices
    except IndexError as error:
        raise IndexShapeError(f"sort: dim = {dim} is outside an input of shape {list(x.shape)}") from error
    return ValuesIndices(gather(input, dim, index), Tensor(index))


def argsort(input: Any, dim: int = -1, descending: bool = False, stable: bool = False) -> Tensor:
    """The indices that `sort` returns."""
    return sort(input, dim, descending, stable).indices


def topk(input: Any, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> ValuesIndices:
    """(values, indices) of the ``k`` largest (or smallest) elements along ``dim``."""
    x = raw(input, "topk", "input")
    try:
        index = torch.topk(x, k, dim, largest, sorted).indices
    except (RuntimeError, IndexError) as error:
        raise ShapeError(f"topk: k = {k} must lie in [0, size of dim {dim}] for shape {list(x.shape)}") from error
    return ValuesIndices(gather(input, dim, index), Tensor(index))


@op
def argmax(input: Array, dim: int | None = None, keepdim: bool = False) -> Any:
    """The index of the maximum along ``dim``; into the flattened input where ``dim`` is None. int64, no gradient."""
    return torch.argmax(input, dim, keepdim)


@op
def argmin(input: Array, dim: int | None = None, keepdim: bool = False) -> Any:
    """The index of the minimum, as `argmax`."""
    return torch.argmin(input, dim, keepdim)


@op
def all(input: Array, dim: Dim = None, keepdim: bool = False) -> Any:
    """Whether all elements are true (nonzero) over ``dim``. bool, no gradient."""
    return torch.all(input) if dim is None else torch.all(input, dim, keepdim)


@op
def any(input: Array, dim: Dim = None, keepdim: bool = False) -> Any:
    """Whether any element is true (nonzero) over ``dim``. bool, no gradient."""
    return torch.any(input) if dim is None else torch.any(input, dim, keepdim)


# --- moments and norms -------------------------------------------------------------------------------------------


def _centred(input: Any, dim: Dim, stats: Any) -> Any:
    """input - its mean over `dim`, differentiably; first the forward call's mean, so that an offset costs nothing."""
    if not input.ndim:
        return input * 0
    mean = stats[0].to(input.dtype)
    near = input - torch.where(torch.isfinite(mean), mean, 0)
    return near - near.mean(as_dims(dim, input.ndim) if dim != () else None, True)


def _degrees(shape: Any, dim: Dim, correction: float) -> float:
    """n - correction, a double by which Python may divide: the least one in place of 0."""
    return float(_count(shape, dim) - correction) or 5e-324


def _moment(kernel: Any, name: str, input: Any, dim: Dim, correction: float, keepdim: bool) -> Any:
    """(var or std, its statistics); warns as torch does where there is nothing to divide by."""
    if not input.is_floating_point():
        raise DTypeError(f"{name}: input must be of a floating point dtype; got {describe(input)}")
    results = kernel(input, _listed(dim, input.ndim, name), correction, keepdim)
    if _count(input.shape, dim) <= correction:
        warnings.warn(
            f"{name}(): degrees of freedom is <= 0. Correction should be strictly less than the reduction factor "
            "(input numel divided by output numel).",
            stacklevel=4,
        )
    return results


@op(
    name="var",
    residuals=("stats",),
    input=lambda g, input, stats, dim, correction, keepdim: (
        _keepdim(g, dim, keepdim, input.ndim)
        * _centred(input, dim, stats)
        * (2 / _degrees(input.shape, dim, correction))
    ),
    backward=lambda g, input, stats, dim, correction: (
        _C.var_backward(g, input, stats, _listed(dim, input.ndim, "var"), correction),
    ),
)
def var_op(input: Array, dim: Dim, correction: float, keepdim: bool) -> Any:
    """`var` with the correction worked out."""
    return _moment(_C.var, "var", input, dim, correction, keepdim)


def _std_rule(g: Any, input: Any, out: Any, stats: Any, dim: Dim, correction: float, keepdim: bool) -> Any:
    g = torch.where(out == 0, 0, g / torch.where(out == 0, 1, out))
    centred = _centred(input, dim, stats)
    return _keepdim(g, dim, keepdim, input.ndim) * centred / _degrees(input.shape, dim, correction)


@op(
    name="std",
    residuals=("stats",),
    input=_std_rule,
    backward=lambda g, input, stats, dim, correction: (
        _C.std_backward(g, input, stats, _listed(dim, input.ndim, "std"), correction),
    ),
)
def std_op(input: Array, dim: Dim, correction: float, keepdim: bool) -> Any:
    """`std` with the correction worked out."""
    return _moment(_C.std, "std", input, dim, correction, keepdim)


def _correction(dim: Any, unbiased: bool | None, correction: float | None) -> tuple[Any, float]:
    """torch's two ways of saying n - 1, and its ``var(x, False)``."""
    if isinstance(dim, bool):
        dim, unbiased = None, dim
    if correction is None:
        correction = 1 if unbiased is None or unbiased else 0
    return dim, correction


def var(
    input: Any,
    dim: Dim = None,
    unbiased: bool | None = None,
    keepdim: bool = False,
    *,
    correction: int | float | None = None,
) -> Tensor:
    """The variance ``sum_i (x_i - mean)**2 / (n - correction)`` over ``dim``; correction 1 unless said otherwise."""
    dim, correction = _correction(dim, unbiased, correction)
    return var_op(input, dim, correction, keepdim)


def std(
    input: Any,
    dim: Dim = None,
    unbiased: bool | None = None,
    keepdim: bool = False,
    *,
    correction: int | float | None = None,
) -> Tensor:
    """The square root of `var`; the gradient is 0 where it is 0."""
    dim, correction = _correction(dim, unbiased, correction)
    return std_op(input, dim, correction, keepdim)


def _norm_rule(g: Any, input: Any, out: Any, p: float, dim: Dim, keepdim: bool) -> Any:
    """sign(x) |x|**(p - 1) / y**(p - 1), and 0 where y is 0."""
    g, out = (_keepdim(v, dim, keepdim, input.ndim) for v in (g, out))
    if p == 0:
        return torch.zeros_like(input)
    if p == 1:
        return g * torch.sign(input)
    if math.isinf(p):
        ties = _ties(torch.abs(input), out, g.dtype)
        count = sum_over(ties, as_dims(None if dim in ((), []) else dim, ties.ndim), True) if ties.ndim else ties
        return g * torch.sign(input) * ties / count
    g = torch.where(out == 0, 0, g / either("pow", torch.where(out == 0, 1, out), p - 1))
    if p == 2:
        return g * input
    if p > 2:
        return g * input * either("pow", torch.abs(input), p - 2)
    size = either("pow", torch.abs(torch.where(input == 0, 1, input)), p - 1)  # |0|**(p - 1) counts as 0
    return g * torch.sign(input) * size


@op(name="norm", input=_norm_rule)
def norm_op(input: Array, p: float, dim: Dim, keepdim: bool) -> Any:
    """`norm` with p a number."""
    if input.dtype in FLOATS:
        return _C.norm(input, p, _listed(dim, input.ndim, "norm"), keepdim)
    return torch.linalg.vector_norm(input, p, dim, keepdim)


def norm(
    input: Any,
    p: float | str | None = "fro",
    dim: Dim = None,
    keepdim: bool = False,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """The vector norm ``(sum_i |x_i|**p)**(1 / p)`` over ``dim``; "fro" is p = 2. The gradient at 0 is 0.

    With p = "nuc" the nuclear norm of a matrix, or of the matrices in two dimensions ``dim``: the sum of its singular
    values.
    """
    if p is None or p == "fro":
        p = 2.0
    if isinstance(p, str) and p != "nuc":
        raise ArgumentError(f'norm: p must be a number, "fro" or "nuc"; got {p!r}')
    x = raw(input, "norm", "input")
    if dtype is not None and isinstance(x, torch.Tensor) and x.is_floating_point() and dtype is not x.dtype:
        input = to_dtype(input, dtype)
    if p == "nuc":
        return nuclear_norm(input, dim, keepdim)
    return norm_op(input, float(p), dim, keepdim)


@op(
    input=lambda g, input, out, dim, keepdim: (
        _keepdim(g, dim, keepdim, input.ndim) * torch.exp(input - _keepdim(out, dim, keepdim, input.ndim))
    )
)
def logsumexp(input: Array, dim: Dim, keepdim: bool = False) -> Any:
    """``y = ln sum_i e**x_i`` over ``dim``, with the maximum taken out first."""
    if input.dtype in FLOATS:
        return _C.logsumexp(input, _listed(dim, input.ndim, "logsumexp"), keepdim)
    return torch.logsumexp(input, dim, keepdim)  # type: ignore[arg-type]


# --- scans and products ------------------------------------------------------------------------------------------


@op(input=lambda g, dim: torch.flip(torch.cumsum(torch.flip(g, [dim]), dim), [dim]) if g.ndim else g)
def cumsum(input: Array, dim: int, *, dtype: torch.dtype | None = None) -> Any:
    """``y_i = x_0 + ... + x_i`` along ``dim``."""
    return torch.cumsum(input, dim, dtype=known_dtype(dtype, "cumsum"))


def _shifted(x: Any, dim: int, first: float) -> Any:
    """x moved on by one along dim: first, x_0, ..., x_{n-2}."""
    dim %= x.ndim
    if not x.shape[dim]:
        return x
    pad = [0, 0] * (x.ndim - 1 - dim) + [1, -1]
    return constant_pad(x, pad, first)


@op(
    a=lambda g, a, out, dim: _reverse_recurrence(a, g, dim) * _shifted(out, dim, 0.0),
    b=lambda g, a, dim: _reverse_recurrence(a, g, dim),
)
def linear_recurrence(a: Array, b: Array, dim: int) -> Any:
    """``y_0 = b_0, y_i = b_i + a_i y_{i-1}`` along ``dim``: the scan behind the derivative of `cumprod`."""
    out = torch.empty_like(b)
    last: Any = 0.0
    for to, ai, bi in zip(out.unbind(dim), a.unbind(dim), b.unbind(dim), strict=True):
        last = to.copy_(ai * last + bi)
    return out


def _reverse_recurrence(a: Any, b: Any, dim: int) -> Any:
    """t_{n-1} = b_{n-1}, t_i = b_i + a_{i+1} t_{i+1}."""
    back = either("linear_recurrence", _shifted(torch.flip(a, [dim]), dim, 0.0), torch.flip(b, [dim]), dim)
    return torch.flip(back, [dim])


def _cumprod_rule(g: Any, input: Any, out: Any, dim: int) -> Any:
    """dx_i = (x_0 ... x_{i-1}) (g_i + x_{i+1} (g_{i+1} + x_{i+2} ...)): no division, so zeros need no special case."""
    if input.ndim == 0:
        return g
    return _shifted(out, dim, 1.0) * _reverse_recurrence(input, g, dim)


@op(input=_cumprod_rule)
def cumprod(input: Array, dim: int, *, dtype: torch.dtype | None = None) -> Any:
    """``y_i = x_0 * ... * x_i`` along ``dim``."""
    return torch.cumprod(input, dim, dtype=known_dtype(dtype, "cumprod"))


def _prod_rule(g: Any, input: Any, dim: int | None, keepdim: bool) -> Any:
    """The product of all the others, from the left times from the right, so that zeros need no special case."""
    if input.ndim == 0:
        return g
    x, along = (input.reshape(-1), 0) if dim is None else (input, dim)
    left = _shifted(torch.cumprod(x, along), along, 1.0)
    right = torch.flip(_shifted(torch.cumprod(torch.flip(x, [along]), along), along, 1.0), [along])
    others = (left * right).reshape(input.shape)
    return _keepdim(g, dim, keepdim, input.ndim) * others


@op(input=_prod_rule)
def prod(input: Array, dim: int | None = None, keepdim: bool = False, *, dtype: torch.dtype | None = None) -> Any:
    """The product over one ``dim`` or of all elements; an empty product is 1."""
    if known_dtype(dtype, "prod") in FLOATS or (dtype is None and input.is_floating_point()):
        return _C.prod(input if dtype is None else input.to(dtype), dim, dim is not None and keepdim)
    return torch.prod(input, dtype=dtype) if dim is None else torch.prod(input, dim, keepdim, dtype=dtype)
