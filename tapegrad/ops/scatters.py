"""Copies with some of their elements written by index, mask or slice; composed of ops, or a block."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ..core import ArgumentError, Array, IndexShapeError, ShapeError, Tensor, op, raw, tensor_argument, verify
from .elementwise import where
from .indexing import (
    _gathered,
    as_index,
    gather,
    getitem,
    getitem_backward,
    masked_fill,
    scatter_add,
    setitem_op,
)
from .shape import as_dims, broadcast_to, reshape
from .versions import constant_pad

__all__ = [
    "index_copy",
    "index_fill",
    "index_put",
    "masked_scatter",
    "masked_select",
    "scatter",
    "scatter_reduce",
    "select_scatter",
    "slice_scatter",
]


# --- along a dimension, as gather reads --------------------------------------------------------------------------


@op(
    name="scatter",
    input=lambda g, dim, index: torch.scatter(g, dim, index, 0.0),
    src=lambda g, dim, index, src_shape: _gathered(g, dim, index, src_shape),
)
def scatter_op(input: Array, dim: int, index: Array, src: Array) -> Any:
    """`scatter` of a tensor."""
    return torch.scatter(input, dim, index, src)


@op(name="scatter_value", input=lambda g, dim, index: torch.scatter(g, dim, index, 0.0))
def scatter_value_op(input: Array, dim: int, index: Array, value: float) -> Any:
    """`scatter` of a number."""
    return torch.scatter(input, dim, index, value)


def scatter(
    input: Any, dim: int, index: Any, src: Any = None, *, value: Any = None, reduce: str | None = None
) -> Tensor:
    """``y = input`` with ``y[index[i, j], j] = src[i, j]`` (for dim 0), or = ``value``, a number.

    With ``reduce`` "add" or "multiply", added or multiplied instead; else, of several values for one element, any one.
    """
    src = value if src is None else src
    if src is None:
        raise ArgumentError("scatter: src or value must be given")
    if reduce not in (None, "add", "multiply"):
        raise ArgumentError(f'scatter: reduce must be "add", "multiply" or None; got {reduce!r}')
    number = not isinstance(src, Tensor | torch.Tensor) and not hasattr(src, "__array__")
    if reduce is None:
        return scatter_value_op(input, dim, index, src) if number else scatter_op(input, dim, index, src)
    x = tensor_argument(input, "scatter", "input")
    at = raw(index, "scatter", "index")
    src = torch.full(at.shape, src, dtype=x.dtype) if number else src
    if reduce == "add":
        return scatter_add(x, dim, at, src)
    return scatter_reduce_op(x, dim, at, src, "prod", True)


def _shares(g: Any, input: Any, dim: int, index: Any, src: Any, out: Any, include_self: bool) -> tuple[Any, Any, Any]:
    """Of an extremum: which of the input and of the source are it, and the gradient shared among them."""
    at = gather(out, dim, index) if isinstance(out, Tensor) else torch.gather(out, dim, index)
    own = (input == out).to(g.dtype)
    theirs = (_within(src, index) == at).to(g.dtype)
    if not include_self:
        own = torch.where(_touched(index, dim, input.shape), 0, own)
    return own, theirs, g / torch.scatter_add(own, dim, index, theirs).clamp(min=1)


def _within(src: Any, index: Any) -> Any:
    """The part of the source that an index reads."""
    for d, n in enumerate(index.shape):
        src = src if src.shape[d] == n else src.narrow(d, 0, n)
    return src


def _plain(index: Any) -> Any:
    return index.data if isinstance(index, Tensor) else index


def _touched(index: Any, dim: int, shape: Any) -> Any:
    """Which elements an index writes."""
    return torch.zeros(tuple(shape), dtype=torch.bool).scatter(dim, _plain(index), True)


def _count(index: Any, dim: int, shape: Any, include_self: bool, dtype: torch.dtype) -> Any:
    """How many values each element is the mean of."""
    index = _plain(index)
    start = torch.ones(tuple(shape), dtype=dtype) if include_self else torch.zeros(tuple(shape), dtype=dtype)
    return start.scatter_add(dim, index, torch.ones(index.shape, dtype=dtype)).clamp(min=1)


def _others(input: Any, dim: int, index: Any, src: Any, include_self: bool) -> tuple[Any, Any]:
    """Of products: for each element of the input and of the source, the product of all the others."""
    args = (dim, index)
    one = torch.where(input == 0, 1, input)
    own = torch.scatter_reduce(one, *args, src, "prod", include_self=include_self) / one
    zero = src == 0
    number = torch.zeros_like(_plain(input)).scatter_add(*args, _plain(zero).to(input.dtype)).gather(*args)
    full = torch.scatter_reduce(input, *args, torch.where(zero, 1, src), "prod", include_self=include_self)
    rest = torch.gather(full, *args)  # the product without the zeros
    rest = torch.where(zero, rest, rest / torch.where(zero, 1, src))
    return own, torch.where(_plain(number > _plain(zero).to(number.dtype)), 0, rest)


def _reduce_input(g: Any, input: Any, dim: int, index: Any, src: Any, out: Any, reduce: str, include_self: bool) -> Any:
    if reduce == "prod":
        g = g * _others(input, dim, index, _within(src, index), include_self)[0]
    elif reduce == "mean":
        g = g / _count(index, dim, input.shape, include_self, g.dtype)
    elif reduce != "sum":
        own, _, g = _shares(g, input, dim, index, src, out, include_self)
        return own * g
    return g if include_self else torch.scatter(g, dim, index, 0.0)


def _reduce_src(g: Any, input: Any, dim: int, index: Any, src: Any, out: Any, reduce: str, include_self: bool) -> Any:
    shape = src.shape
    if reduce == "prod":
        read = torch.gather(g, dim, index) * _others(input, dim, index, _within(src, index), include_self)[1]
    elif reduce == "mean":
        read = torch.gather(g / _count(index, dim, input.shape, include_self, g.dtype), dim, index)
    elif reduce == "sum":
        read = torch.gather(g, dim, index)
    else:
        _, theirs, g = _shares(g, input, dim, index, src, out, include_self)
        read = theirs * torch.gather(g, dim, index)
    beyond = [n for have, want in zip(read.shape[::-1], shape[::-1], strict=True) for n in (0, want - have)]
    return constant_pad(read, beyond) if any(beyond) else read


@op(name="scatter_reduce", input=_reduce_input, src=_reduce_src)
def scatter_reduce_op(input: Array, dim: int, index: Array, src: Array, reduce: str, include_self: bool) -> Any:
    """`scatter_reduce` with all its arguments."""
    return torch.scatter_reduce(input, dim, index, src, reduce, include_self=include_self)


def scatter_reduce(input: Any, dim: int, index: Any, src: Any, reduce: str, *, include_self: bool = True) -> Tensor:
    """`scatter` where several values meet: "sum", "prod", "mean", "amax" or "amin", with the input's own or not."""
    if reduce not in ("sum", "prod", "mean", "amax", "amin"):
        raise ArgumentError(f"scatter_reduce: reduce must be sum, prod, mean, amax or amin; got {reduce!r}")
    return scatter_reduce_op(input, dim, index, src, reduce, include_self)


# --- whole slices ------------------------------------------------------------------------------------------------


def _slices(name: str, input: Any, dim: int, at: Any, src: Any, argument: str) -> Tensor:
    """A copy with ``src`` in place of ``input[..., at, ...]``; shapes must be equal."""
    x, new = tensor_argument(input, name, "input"), tensor_argument(src, name, argument)
    index = (*[slice(None)] * as_dims(dim, x.ndim)[0], at)
    try:
        expected = x.data[index].shape
    except IndexError as error:
        raise IndexShapeError(f"{name}: {error}; input has shape {list(x.shape)}") from None
    if new.shape != expected:
        raise ShapeError(f"{name}: {argument} must have shape {list(expected)}; got {list(new.shape)}")
    return setitem_op(x, index, new.to(x.dtype))


def select_scatter(input: Any, src: Any, dim: int, index: int) -> Tensor:
    """A copy of the input with ``src`` as slice ``index`` of dimension ``dim``."""
    x = tensor_argument(input, "select_scatter", "input")
    as_dims(dim, x.ndim, "select_scatter")
    if not x.ndim or not -x.shape[dim] <= index < x.shape[dim]:
        raise ShapeError(f"select_scatter: index {index} is outside dim {dim} of shape {list(x.shape)}")
    return _slices("select_scatter", x, dim, index, src, "src")


def slice_scatter(
    input: Any, src: Any, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1
) -> Tensor:
    """A copy of the input with ``src`` as ``start:end:step`` of dimension ``dim``."""
    return _slices("slice_scatter", input, dim, slice(start, end, step), src, "src")


def index_copy(input: Any, dim: int, index: Any, source: Any) -> Tensor:
    """A copy of the input with slice ``index[i]`` of ``dim`` replaced by slice i of the source."""
    x, new = tensor_argument(input, "index_copy", "input"), tensor_argument(source, "index_copy", "source")
    at = raw(index, "index_copy", "index").reshape(-1)
    if not x.ndim:
        return reshape(index_copy(reshape(x, (1,)), 0, at, reshape(new, (1,))), ())
    if new.dtype is not x.dtype:
        raise ArgumentError(f"index_copy: source must have dtype {x.dtype}; got {new.dtype}")
    return _slices("index_copy", x, dim, at, new, "source")


def index_fill(input: Any, dim: int, index: Any, value: Any) -> Tensor:
    """A copy of the input with ``value``, a number or 0-dim tensor, in the slices ``index`` of ``dim``."""
    x = tensor_argument(input, "index_fill", "input")
    at = raw(index, "index_fill", "index").reshape(-1)
    d = as_dims(dim, x.ndim)[0]
    n = x.shape[d] if x.ndim else 1
    hidden = torch.zeros(n, dtype=torch.bool)
    try:
        if x.data.numel():
            hidden = hidden.index_fill(0, at, True)
        else:
            x.data.index_fill(d, at, 0)  # which indices of nothing are allowed
    except (IndexError, RuntimeError) as error:
        raise IndexShapeError(f"index_fill: {error}; input has shape {list(x.shape)}") from None
    shape = [n if i == d else 1 for i in range(x.ndim)]
    return masked_fill(x, hidden.reshape(shape), value)


def index_put(input: Any, indices: Sequence[Any], values: Any, accumulate: bool = False) -> Tensor:
    """A copy of the input with ``y[indices] = values``, or ``+=`` where several may name one element."""
    x, new = tensor_argument(input, "index_put", "input"), tensor_argument(values, "index_put", "values")
    if new.dtype is not x.dtype:
        raise ArgumentError(f"index_put: values must have the input's dtype {x.dtype}; got {new.dtype}")
    index = as_index(tuple(slice(None) if i is None else i for i in indices))
    if not accumulate:
        return setitem_op(x, index, new)
    try:
        shape = tuple(x.data[index].shape)
    except IndexError as error:
        raise IndexShapeError(f"index_put: {error}; input has shape {list(x.shape)}") from None
    if not x.is_floating_point():
        return Tensor(torch.index_put(x.data, index, new.data, accumulate=True))
    wide = broadcast_to(new, shape)
    return x + getitem_backward(wide, tuple(x.shape), index)


# --- by mask -----------------------------------------------------------------------------------------------------


def _masked(name: str, input: Any, mask: Any) -> tuple[Tensor, torch.Tensor]:
    x, where_true = tensor_argument(input, name, "input"), raw(mask, name, "mask")
    if where_true.dtype is not torch.bool:
        raise ArgumentError(f"{name}: mask must be bool; got {where_true.dtype}")
    try:
        shape = torch.broadcast_shapes(x.shape, where_true.shape)  # type: ignore[no-untyped-call]
    except RuntimeError as error:
        shapes = f"input of shape {list(x.shape)} and mask of shape {list(where_true.shape)}"
        raise ShapeError(f"{name}: {shapes} do not broadcast") from error
    return broadcast_to(x, tuple(shape)), where_true.expand(shape)


def masked_select(input: Any, mask: Any) -> Tensor:
    """The elements where the mask, which broadcasts with the input, is true: a vector."""
    x, chosen = _masked("masked_select", input, mask)
    return reshape(getitem(x, chosen), (-1,))


def masked_scatter(input: Any, mask: Any, source: Any) -> Tensor:
    """The input with the elements where the mask is true replaced, in order, by those of the source."""
    x, chosen = _masked("masked_scatter", input, mask)
    new = reshape(tensor_argument(source, "masked_scatter", "source"), (-1,))
    if new.dtype is not x.dtype:
        raise ArgumentError(f"masked_scatter: source must have the input's dtype {x.dtype}; got {new.dtype}")
    place = chosen.reshape(-1).cumsum(0).reshape(chosen.shape) - 1  # which of the source's elements comes here
    n = new.numel()

    def failure() -> ShapeError:
        return ShapeError(f"masked_scatter: source must have an element for each True of the mask; it has {n}")

    verify(~chosen | (place < n), failure)
    if not n:
        return x.clone()
    return where(chosen, getitem(new, place.clamp(0, n - 1)), x)
