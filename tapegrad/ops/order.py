"""Order statistics, scans that choose, and what leaves NaN out: composed of ops, or a block where ties share."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from ..core import (
    ArgumentError,
    Array,
    IndexShapeError,
    ShapeError,
    Tensor,
    from_torch,
    op,
    raw,
    tensor_argument,
    verify,
)
from .elementwise import lerp, where
from .indexing import gather, getitem
from .reduce import ValuesIndices, _extremum_rule, _reverse_recurrence, amax, amin, mean, norm, sort, std, sum, var
from .shape import flatten, movedim, reshape, squeeze

__all__ = [
    "aminmax",
    "cummax",
    "cummin",
    "dist",
    "kthvalue",
    "logcumsumexp",
    "median",
    "nanmean",
    "nanmedian",
    "nanquantile",
    "nansum",
    "quantile",
    "std_mean",
    "take",
    "var_mean",
]


class MinMax(NamedTuple):
    """What `aminmax` returns."""

    min: Tensor
    max: Tensor


# --- order statistics --------------------------------------------------------------------------------------------


@op(name="median", input=_extremum_rule)
def median_op(input: Array) -> Any:
    """The median of all elements, the lower of two."""
    return torch.median(input)


@op(name="nanmedian", input=_extremum_rule)
def nanmedian_op(input: Array) -> Any:
    """The median of all elements that are not NaN, the lower of two."""
    return torch.nanmedian(input)


def _chosen(name: str, input: Any, dim: int, keepdim: bool, *before: Any) -> ValuesIndices:
    """(values, indices) that torch's function chooses along ``dim``; the gradient goes to the element chosen."""
    x = tensor_argument(input, name, "input")
    try:
        # contiguous: which of several equal elements torch takes must not depend on the strides
        index = getattr(torch, name)(x.data.contiguous(), *before, dim, keepdim=True).indices
    except (RuntimeError, IndexError) as error:
        raise from_torch(name, error, f"got shape {list(x.shape)} and dim = {dim}") from error
    values = gather(x, dim, index)
    if not keepdim and x.ndim:
        values, index = squeeze(values, dim), index.squeeze(dim)
    return ValuesIndices(values, Tensor(index))


def median(input: Any, dim: int | None = None, keepdim: bool = False) -> Any:
    """The median of all elements (the lower of two; ties share the gradient); along ``dim`` (values, indices)."""
    return median_op(input) if dim is None else _chosen("median", input, dim, keepdim)


def nanmedian(input: Any, dim: int | None = None, keepdim: bool = False) -> Any:
    """As `median`, of the elements that are not NaN."""
    return nanmedian_op(input) if dim is None else _chosen("nanmedian", input, dim, keepdim)


def kthvalue(input: Any, k: int, dim: int = -1, keepdim: bool = False) -> ValuesIndices:
    """(values, indices) of the k-th smallest elements along ``dim``; k counts from 1."""
    return _chosen("kthvalue", input, dim, keepdim, k)


def _quantile(name: str, input: Any, q: Any, dim: int | None, keepdim: bool, interpolation: str) -> Tensor:
    x = tensor_argument(input, name, "input")
    places = Tensor(torch.as_tensor(q, dtype=x.dtype)) if isinstance(q, float | int) else tensor_argument(q, name, "q")
    if interpolation not in ("linear", "lower", "higher", "midpoint", "nearest"):
        raise ArgumentError(
            f"{name}: interpolation must be linear, lower, higher, midpoint or nearest; got {interpolation!r}"
        )
    if not x.is_floating_point() or places.dtype is not x.dtype or places.ndim > 1:
        raise ShapeError(
            f"{name}: input must be float, and q a number or a vector of its dtype; "
            f"got {x.dtype}, and {places.dtype} of shape {list(places.shape)}"
        )
    if not x.numel():
        raise ShapeError(f"{name}: input must not be empty; got shape {list(x.shape)}")
    shares = places.data
    verify((shares >= 0) & (shares <= 1), lambda: ArgumentError(f"{name}: q must lie in [0, 1]; got {shares.tolist()}"))
    kept = [1] * x.ndim if dim is None else [*x.shape]
    along = flatten(x) if dim is None or x.ndim == 0 else movedim(x, dim, -1)
    if dim is not None and x.ndim:
        kept[dim] = 1
    ordered = sort(along).values
    nan = torch.isnan(ordered.data)
    if name == "nanquantile":  # a row of NaN only gives NaN, at 0
        rank = reshape(places, (-1,)) * Tensor((~nan).sum(-1, keepdim=True) - 1)
        rank = where(rank.data < 0, 0.0, rank)
    else:  # NaN is sorted to the end, and is the result where there is one
        last = ordered.shape[-1] - 1
        rank = where(nan.any(-1, keepdim=True), float(last), reshape(places, (-1,)) * last)
    at = {"lower": torch.floor, "higher": torch.ceil, "nearest": torch.round}.get(interpolation, torch.clone)(rank.data)
    result = gather(ordered, -1, at.long())
    if interpolation in ("linear", "midpoint"):
        above = gather(ordered, -1, at.ceil().long())
        share: Any = 0.5 if interpolation == "midpoint" else rank - Tensor(at.floor())
        result = lerp(result, above, share)
    result = squeeze(result, -1) if places.ndim == 0 else movedim(result, -1, 0)
    lead = [] if places.ndim == 0 else [len(shares)]
    if keepdim:
        return reshape(result, (*lead, *kept))
    return result


def quantile(
    input: Any, q: Any, dim: int | None = None, keepdim: bool = False, *, interpolation: str = "linear"
) -> Tensor:
    """The q-quantiles along ``dim`` (None: of all elements): what stands at ``q (n - 1)`` of the sorted row.

    Parameters
    ----------
    q : a number in [0, 1], or a vector of them, which becomes the first dimension of the result
    interpolation : between two elements: "linear", "lower", "higher", "midpoint", "nearest"
    """
    return _quantile("quantile", input, q, dim, keepdim, interpolation)


def nanquantile(
    input: Any, q: Any, dim: int | None = None, keepdim: bool = False, *, interpolation: str = "linear"
) -> Tensor:
    """As `quantile`, of the elements that are not NaN."""
    return _quantile("nanquantile", input, q, dim, keepdim, interpolation)


def aminmax(input: Any, *, dim: int | None = None, keepdim: bool = False) -> MinMax:
    """(min, max) of all elements or along ``dim``; ties share the gradient evenly."""
    over = () if dim is None else dim
    return MinMax(amin(input, over, keepdim), amax(input, over, keepdim))


# --- scans -------------------------------------------------------------------------------------------------------


def _scan(name: str, input: Any, dim: int) -> ValuesIndices:
    x = tensor_argument(input, name, "input")
    try:
        index = getattr(torch, name)(x.data, dim).indices
    except IndexError as error:
        raise IndexShapeError(f"{name}: dim = {dim} is outside an input of shape {list(x.shape)}") from error
    return ValuesIndices(gather(x, dim, index), Tensor(index))


def cummax(input: Any, dim: int) -> ValuesIndices:
    """(values, indices) of the largest of ``x_0 ... x_i`` along ``dim``, the last one of ties."""
    return _scan("cummax", input, dim)


def cummin(input: Any, dim: int) -> ValuesIndices:
    """(values, indices) of the smallest of ``x_0 ... x_i`` along ``dim``, the last one of ties."""
    return _scan("cummin", input, dim)


def _logcumsumexp_rule(g: Any, input: Any, out: Any, dim: int) -> Any:
    """dx_j = sum_{i >= j} g_i e**(x_j - y_i), as t_j = g_j + e**(y_j - y_{j+1}) t_{j+1}: no factor is above 1."""
    if not input.ndim or not input.numel():
        return g
    dim %= input.ndim
    n = out.shape[dim]
    first = torch.zeros_like(out.narrow(dim, 0, 1))
    step = torch.exp(out.narrow(dim, 0, n - 1) - out.narrow(dim, 1, n - 1))
    return torch.exp(input - out) * _reverse_recurrence(torch.cat([first, step], dim), g, dim)


@op(input=_logcumsumexp_rule)
def logcumsumexp(input: Array, dim: int) -> Any:
    """``y_i = ln(e**x_0 + ... + e**x_i)`` along ``dim``, without overflow."""
    return torch.logcumsumexp(input, dim)


# --- sums, moments, distances ------------------------------------------------------------------------------------


def nansum(input: Any, dim: Any = None, keepdim: bool = False, *, dtype: torch.dtype | None = None) -> Tensor:
    """`sum` of the elements that are not NaN."""
    x = tensor_argument(input, "nansum", "input")
    return sum(where(torch.isnan(x.data), 0.0, x) if x.is_floating_point() else x, dim, keepdim, dtype=dtype)


def nanmean(input: Any, dim: Any = None, keepdim: bool = False, *, dtype: torch.dtype | None = None) -> Tensor:
    """`mean` of the elements that are not NaN."""
    x = tensor_argument(input, "nanmean", "input")
    count = sum(~torch.isnan(x.data), dim, keepdim)
    return nansum(x, dim, keepdim, dtype=dtype) / count.detach()


def var_mean(
    input: Any, dim: Any = None, unbiased: bool | None = None, keepdim: bool = False, *, correction: float | None = None
) -> tuple[Tensor, Tensor]:
    """(`var`, `mean`)."""
    over = None if isinstance(dim, bool) else dim
    return var(input, dim, unbiased, keepdim, correction=correction), mean(input, over, keepdim)


def std_mean(
    input: Any, dim: Any = None, unbiased: bool | None = None, keepdim: bool = False, *, correction: float | None = None
) -> tuple[Tensor, Tensor]:
    """(`std`, `mean`)."""
    over = None if isinstance(dim, bool) else dim
    return std(input, dim, unbiased, keepdim, correction=correction), mean(input, over, keepdim)


def dist(input: Any, other: Any, p: float = 2) -> Tensor:
    """The p-norm of ``input - other``, with broadcasting."""
    a, b = tensor_argument(input, "dist", "input"), tensor_argument(other, "dist", "other")
    return norm(a - b, float(p))


def take(input: Any, index: Any) -> Tensor:
    """The elements of the flattened input at ``index``, in its shape."""
    x, at = tensor_argument(input, "take", "input"), raw(index, "take", "index")
    if at.dtype is not torch.int64:
        raise IndexShapeError(f"take: index must hold int64; got {at.dtype}")
    n = x.numel()
    verify((at >= -n) & (at < n), lambda: IndexShapeError(f"take: index must lie in [{-n}, {n}); got {at.tolist()}"))
    return getitem(reshape(x, (-1,)), at)
