"""Reductions and scans.

``dim`` is an int, a tuple of ints or None (all dimensions); negative dims count from the end; ``keepdim`` keeps the
reduced dimensions with size 1. Results' shapes and dtypes are torch's.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import torch

from ..op import Array, op
from ..tensor import Tensor
from .shape import as_dims, expand_as_reduced

__all__ = [
    "ValuesIndices",
    "amax",
    "amin",
    "mean",
    "sum",
]

Dim: TypeAlias = "int | tuple[int, ...] | list[int] | None"


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
    return torch.sum(input, dim, keepdim, dtype=dtype)  # type: ignore[arg-type]


@op(
    input=lambda g, input_shape, dim, keepdim: (
        expand_as_reduced(g, input_shape, dim, keepdim) / _count(input_shape, dim)
    )
)
def mean(input: Array, dim: Dim = None, keepdim: bool = False, *, dtype: torch.dtype | None = None) -> Any:
    """``y = sum_i x_i / n`` over ``dim``. An empty mean is NaN, as torch's."""
    return torch.mean(input, dim, keepdim, dtype=dtype)  # type: ignore[arg-type]


def _amax_rule(g: Any, input: Any, out: Any, dim: Dim, keepdim: bool) -> Any:
    """The gradient shared evenly among the elements that tie for the extremum."""
    ties = (input == _keepdim(out, dim, keepdim, input.ndim)).to(g.dtype)
    count = ties.sum(as_dims(None if dim in ((), []) else dim, ties.ndim), True) if ties.ndim else ties
    return _keepdim(g, dim, keepdim, input.ndim) * ties / count


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
