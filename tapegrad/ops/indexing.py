"""Reading and writing by index. Each op and its gradient are closed: `gather` and `scatter_add` are each other's."""

from __future__ import annotations

import builtins
import functools
import operator
import warnings
from collections.abc import Sequence
from typing import Any

import torch

from ..core import (
    _C,
    FLOATS,
    ArgumentError,
    Array,
    IndexShapeError,
    Op,
    ShapeError,
    Tensor,
    caller,
    either,
    integers,
    mode,
    op,
    raw,
    tensor_argument,
    to_torch,
    verify,
)
from .shape import as_dims, constant_pad_nd, expand, flatten
from .versions import constant_pad

__all__ = [
    "gather",
    "getitem",
    "getitem_backward",
    "index_add",
    "index_select",
    "masked_fill",
    "pad",
    "scatter_add",
    "take_along_dim",
]


@op(
    input=lambda g: g,
    source=lambda g, source_shape, dim, index, alpha: _scaled(_selected(g, source_shape, dim, index), alpha),
)
def index_add(input: Array, dim: int, index: Array, source: Array, *, alpha: float = 1) -> Any:
    """``y = input`` with ``y[index[i]] += alpha * source[i]`` along ``dim``; repeated indices add up."""
    if input.dtype in FLOATS and input.dtype is source.dtype:
        return _C.index_add(input, dim, index, _scaled(source, alpha))
    return torch.index_add(input, dim, index, source, alpha=alpha)


def _selected(g: Any, shape: torch.Size, dim: int, index: Any) -> Any:
    """`index_select`, and zeros where there is nothing to read."""
    return torch.index_select(g, dim, index) if g.numel() else torch.zeros(shape, dtype=g.dtype)


def _scaled(g: Any, alpha: float) -> Any:
    return g if alpha == 1 else g * alpha


@op(input=lambda g, input_shape, dim, index: index_sum(g, input_shape, dim, index))
def index_select(input: Array, dim: int, index: Array) -> Any:
    """Slices ``index`` (1-d integers) of dimension ``dim``. A copy."""
    return torch.index_select(input, dim, index)


def index_sum(g: Any, shape: Sequence[int], dim: int, index: Any) -> Any:
    """`index_add` on zeros, inside a rule: slices of `g` added up by index, in ascending order."""
    if isinstance(g, Tensor):
        return index_add(Tensor(torch.zeros(tuple(shape), dtype=g.dtype)), dim, index, g)
    return _sum_by_index(g, shape, dim, index.data if isinstance(index, Tensor) else index)


def _sum_by_index(values: torch.Tensor, shape: Sequence[int], dim: int, index: torch.Tensor) -> torch.Tensor:
    if values.dtype in FLOATS:
        return _C.index_sum(values, list(shape), dim, index)
    return torch.zeros(tuple(shape), dtype=values.dtype).index_add_(dim, index, values)  # integers: in any order


def _gathered(g: Any, dim: int, index: Any, shape: torch.Size) -> Any:
    """`g` where `index` reads it; 0 for what of the source lies beyond the index, which `scatter_add` does not read."""
    beyond = [n for have, want in zip(index.shape[::-1], shape[::-1], strict=True) for n in (0, want - have)]
    picked = torch.gather(g, dim, index)
    return constant_pad(picked, beyond) if any(beyond) else picked


@op(input=lambda g: g, src=lambda g, dim, index, src_shape: _gathered(g, dim, index, src_shape))
def scatter_add(input: Array, dim: int, index: Array, src: Array) -> Any:
    """``y = input`` with ``y[index[i, j]][j] += src[i, j]`` (for dim 0); repeated indices add up."""
    return torch.scatter_add(input, dim, index, src)


@op(input=lambda g, input_shape, dim, index: torch.scatter_add(torch.zeros(input_shape, dtype=g.dtype), dim, index, g))
def gather(input: Array, dim: int, index: Array) -> Any:
    """``y[i, j] = input[index[i, j], j]`` (for dim 0); ``index`` has as many dimensions as the input."""
    return torch.gather(input, dim, index)


def take_along_dim(input: Any, indices: Any, dim: int | None = None) -> Tensor:
    """`gather` with broadcasting of the other dimensions; over the flattened input where ``dim`` is None."""
    input = tensor_argument(input, "take_along_dim", "input")
    indices = tensor_argument(indices, "take_along_dim", "indices").data
    if dim is None:
        return gather(flatten(input), 0, indices.reshape(-1))
    if indices.ndim != input.ndim:
        raise ShapeError(
            f"take_along_dim: indices must have {input.ndim} dimensions, as the input; got shape {list(indices.shape)}"
        )
    dim = as_dims(dim, input.ndim, "take_along_dim")[0]
    others = [[*s[:dim], 1, *s[dim + 1 :]] for s in (input.shape, indices.shape)]
    try:
        full = list(torch.broadcast_shapes(*others))  # type: ignore[no-untyped-call]
    except RuntimeError as error:
        shapes = f"input.shape {list(input.shape)} and indices.shape {list(indices.shape)}"
        raise ShapeError(f"take_along_dim: {shapes} do not broadcast outside dim {dim}") from error
    wide = expand(input, [*full[:dim], input.shape[dim], *full[dim + 1 :]])
    indices = torch.where(indices < 0, indices + input.shape[dim], indices)
    return gather(wide, dim, indices.expand([*full[:dim], indices.shape[dim], *full[dim + 1 :]]))


@op(
    input=lambda g, mask: torch.where(mask, 0, g),
    value=lambda g, mask: torch.where(mask, g, 0),
)
def masked_fill(input: Array, mask: Array, value: Array) -> Any:
    """``y = value where mask else input``; ``mask`` is a bool array that broadcasts, ``value`` a number or 0-d."""
    return torch.masked_fill(input, mask, value)


def write(input: torch.Tensor, index: Any, value: Any) -> torch.Tensor:
    """``input[index] = value`` in place, for an index of any kind; of values for one place the last one stays."""
    if mode.tracer is not None and _has_numbers(index):
        at = _at(torch.arange(input.numel()).reshape(input.shape), index)
        value = torch.as_tensor(value)
        value = value.reshape(value.shape[builtins.max(0, value.ndim - at.ndim) :])  # leading ones
        input.put_(at, value.expand(at.shape).to(input.dtype))
    elif _is_advanced(index):
        _C.on_one_thread(operator.setitem, input, index, value)
    else:
        input[index] = value
    return input


def _has_numbers(index: Any) -> bool:
    """Whether an index has 0-dim integer tensors, which torch reads, as a recording may not."""
    parts = index if isinstance(index, tuple) else (index,)
    return any(_is_number(part) for part in parts)


def _is_number(part: Any) -> bool:
    return isinstance(part, torch.Tensor) and part.ndim == 0 and part.dtype is not torch.bool


def _width(part: Any) -> int:
    """The dimensions that one part of an index uses up."""
    if part is None or part is Ellipsis or isinstance(part, bool):
        return 0
    return part.ndim if isinstance(part, torch.Tensor) and part.dtype is torch.bool else 1


def _without_numbers(input: Any, index: Any) -> tuple[Any, Any]:
    """An input and an index that are the same without reading: the slices that 0-dim index tensors name, and 0."""
    parts = list(index) if isinstance(index, tuple) else [index]
    dim, used = 0, builtins.sum(map(_width, parts))
    for i, part in enumerate(parts):
        if _is_number(part) and dim < input.ndim:
            n = input.shape[dim]
            good = (part >= -n) & (part < n)
            verify(good, functools.partial(_outside, part, n, dim))
            which = torch.where(part < 0, part + n, part).long().reshape(1)
            input = either("index_select", input, dim, which)
            parts[i] = 0
        dim += input.ndim - used if part is Ellipsis else _width(part)
    return input, tuple(parts)


def _outside(part: torch.Tensor, n: int, dim: int) -> IndexError:
    return IndexShapeError(f"getitem: index {int(part)} is out of bounds for dimension {dim} with size {n}")


def _at(x: torch.Tensor, index: Any) -> torch.Tensor:
    """``x[index]``; a copy where a recorded step would have to read the index."""
    if mode.tracer is not None and _has_numbers(index):
        x, index = _without_numbers(x, index)
    return x[index]


def _is_advanced(index: Any) -> bool:
    parts = index if isinstance(index, tuple) else (index,)
    return any(isinstance(part, torch.Tensor) for part in parts)


def _rows(index: Any) -> tuple[int, torch.Tensor] | None:
    """(dim, index) where an index tensor picks slices along one dimension: ``x[i]``, ``x[:, i]``; else None."""
    parts = index if isinstance(index, tuple) else (index,)
    at = [i for i, part in enumerate(parts) if isinstance(part, torch.Tensor)]
    whole = [isinstance(part, slice) and part == slice(None) for i, part in enumerate(parts) if i not in at]
    if len(at) != 1 or not builtins.all(whole) or parts[at[0]].dtype not in (torch.int64, torch.int32):
        return None
    return at[0], parts[at[0]]


@op(input=lambda g, index: _read(g, index))
def getitem_backward(input: Array, shape: Sequence[int], index: Any) -> Any:
    """Zeros of ``shape`` with the input added at ``index``: the gradient of ``x[index]``."""
    shape = torch.Size(shape)
    if not _is_advanced(index):
        return write(torch.zeros(shape, dtype=input.dtype), index, input)
    rows = _rows(index)
    if rows is not None:
        dim, places = rows
        places = torch.where(places < 0, places + shape[dim], places).reshape(-1)
        values = input.reshape([*shape[:dim], places.numel(), *shape[dim + 1 :]])
        return _sum_by_index(values, shape, dim, places)
    places = _at(torch.arange(shape.numel()).reshape(shape), index)  # of the elements that `index` reads
    spread = input.expand(places.shape).reshape(-1)
    return _sum_by_index(spread, [shape.numel()], 0, places.reshape(-1)).reshape(shape)


def _read(x: Any, index: Any) -> Any:
    return getitem(x, index) if isinstance(x, Tensor) else _at(x, index)


def _getitem(input: Array, index: Any) -> Any:
    """``input[index]``."""


_getitem_rule = {"input": lambda g, input_shape, index: either("getitem_backward", g, input_shape, index)}
getitem_op = caller(Op(_getitem, _getitem_rule, direct=operator.getitem, name="getitem"), __name__)


@op(
    name="setitem",
    input=lambda g, index: either("setitem", g, index, 0.0),
    value=lambda g, index: _read(g, index),
)
def setitem_op(input: Array, index: Any, value: Array) -> Any:
    """A copy of the input with ``copy[index] = value``."""
    return write(input.clone(), index, value)


def as_index(index: Any) -> Any:
    """An index as torch takes it: Tensors, arrays and sequences inside become (copied) torch tensors."""
    kind = type(index)
    if kind is slice:
        start, stop, step = index.start, index.stop, index.step
        if (start is None or type(start) is int) and (stop is None or type(stop) is int) and step is None:
            return index
        return slice(*integers([start, stop, step], "getitem", "index"))
    if kind is int or kind is bool or index is None or index is Ellipsis:
        return index
    if isinstance(index, tuple):
        return tuple([_as_part(part) for part in index])
    if isinstance(index, Sequence) and _is_tuple_in_disguise(index):
        return as_index(tuple(index))
    return _as_part(index)


def _is_tuple_in_disguise(index: Sequence[Any]) -> bool:
    """Whether torch reads ``x[[a, b]]`` as ``x[a, b]``, which it does, with a warning, where a list holds an index of
    several (up to 31 parts, as NumPy once did)."""
    several = (slice, Sequence, torch.Tensor, Tensor, type(None), type(Ellipsis))
    if isinstance(index, str | bytes) or len(index) > 31:
        return False
    if not any(isinstance(part, several) or getattr(part, "shape", ()) for part in index):
        return False
    what = "a list that holds sequences, tensors, slices, None or ... is read as a tuple, x[tuple(index)], as in torch"
    warnings.warn(f"getitem: {what}; write the tuple, or x[tg.tensor(index)]", UserWarning, stacklevel=4)
    return True


def _as_part(index: Any) -> Any:
    """One part of an index."""
    if isinstance(index, slice):
        return as_index(index)
    if isinstance(index, int) or index is None or index is Ellipsis:
        return index
    if isinstance(index, Sequence) and not isinstance(index, str | bytes):
        index = to_torch(list(index), None, "getitem") if len(index) else torch.empty(0, dtype=torch.int64)
    if isinstance(index, Tensor | torch.Tensor) or hasattr(index, "__array__"):
        value = raw(index, "getitem", "index")
        if isinstance(value, torch.Tensor):
            if value.is_floating_point():
                raise IndexShapeError(f"getitem: index must hold integers or bools; got {value.dtype}")
            if value.dtype is torch.uint8:
                return value.bool()  # torch's older masks
            return value.clone()  # a later change of the index must not change the gradient
        return value
    if hasattr(index, "__index__"):
        return index.__index__()
    raise IndexShapeError(
        f"getitem: index must be integers, slices, None, ..., masks or index tensors; got {type(index).__name__}"
    )


def getitem(input: Any, index: Any) -> Tensor:
    """``input[index]``: integers, slices, None, Ellipsis, bool masks and integer tensors. Basic ones give views.

    A 0-dim integer tensor stands for its number; in a compiled step, which reads no numbers, it gives a copy.
    """
    index = index if type(index) is int else as_index(index)
    if mode.tracer is not None and _has_numbers(index):
        whole = input
        input, index = _without_numbers(input, index)
        mode.tracer.copied(raw(input, "getitem", "input"), raw(whole, "getitem", "input"))
    return getitem_op(input, index)  # type: ignore[no-any-return]


# --- padding by index --------------------------------------------------------------------------------------------


def pad(input: Any, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Tensor:
    """Pad the last ``len(pad) / 2`` dimensions: ``pad`` lists (before, after) from the last dimension on.

    Parameters
    ----------
    pad : sizes; negative ones crop ("circular" crops first and wraps what is left)
    mode : "constant" (with ``value``, default 0), "reflect", "replicate" or "circular"
    """
    input = tensor_argument(input, "pad", "input")
    pad = list(pad)
    if len(pad) % 2 or len(pad) > 2 * input.ndim:
        raise ShapeError(f"pad: pad must list a pair per dimension, at most {2 * input.ndim} sizes; got {pad}")
    if mode == "constant":
        return constant_pad_nd(input, pad, 0.0 if value is None else value)
    if mode not in ("reflect", "replicate", "circular"):
        raise ArgumentError(f"pad: mode must be constant, reflect, replicate or circular; got {mode!r}")
    for i in range(0, len(pad), 2):
        dim = input.ndim - 1 - i // 2
        input = index_select(input, dim, _sources(input.shape[dim], pad[i], pad[i + 1], mode, dim))
    return input  # type: ignore[no-any-return]


def _sources(n: int, before: int, after: int, mode: str, dim: int) -> torch.Tensor:
    """Where each of the padded positions of a dimension of size n reads."""
    limit = n - 1 if mode == "reflect" else n
    if n == 0 or (mode != "replicate" and builtins.max(before, after) > limit):
        raise ShapeError(f"pad: {mode} padding {(before, after)} must be at most {limit} for size {n} of dim {dim}")
    size = n + before + after
    first, last = (builtins.max(-before, 0), n - builtins.max(-after, 0)) if mode == "circular" else (0, n)
    if size < 0 or last < first or (last == first and size > 0):
        raise ShapeError(f"pad: {mode} padding {(before, after)} leaves nothing of size {n} of dim {dim}")
    position = torch.arange(-before, n + after)
    if mode == "circular":  # crop, then wrap: what is cut off does not come in at the other end
        return first + (position - first) % builtins.max(last - first, 1)
    if mode == "replicate":
        return position.clamp(0, n - 1)
    return (n - 1) - (n - 1 - position.abs()).abs()
