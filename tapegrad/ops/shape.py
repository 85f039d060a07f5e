"""Shape ops: views, joins, padding, reading and writing by index.

Their gradients only move elements, or add up those that were read twice. Each op and its gradient are closed under
differentiation: the gradient of `narrow` is `pad`, that of `pad` is `narrow`; `gather` and `scatter_add` are each
other's, and so on.
"""

from __future__ import annotations

import builtins
from collections.abc import Sequence
from typing import Any

import torch

from ..errors import ArgumentError, IndexShapeError, ShapeError
from ..op import Array, Arrays, either, op
from ..tensor import Tensor, raw

__all__ = [
    "alias",
    "broadcast_to",
    "cat",
    "chunk",
    "clone",
    "constant_pad_nd",
    "contiguous",
    "diagonal",
    "diagonal_backward",
    "expand",
    "flatten",
    "flip",
    "gather",
    "getitem",
    "getitem_backward",
    "index_add",
    "index_select",
    "masked_fill",
    "movedim",
    "narrow",
    "pad",
    "permute",
    "repeat",
    "reshape",
    "roll",
    "scatter_add",
    "select",
    "split",
    "squeeze",
    "stack",
    "take_along_dim",
    "tile",
    "to_dtype",
    "transpose",
    "tril",
    "triu",
    "unbind",
    "unflatten",
    "unsqueeze",
    "view",
]


def _reshaped_back(g: Any, input_shape: torch.Size) -> Any:
    return g.reshape(input_shape)


def sizes(given: tuple[Any, ...]) -> list[int]:
    """``f(2, 3)`` and ``f((2, 3))`` both mean [2, 3]."""
    if len(given) == 1 and isinstance(given[0], tuple | list):
        given = tuple(given[0])
    return [int(n) for n in given]


def as_dims(dim: Any, ndim: int) -> list[int]:
    """`dim` (int, sequence, None for all) as a list of non-negative dimensions."""
    dims = range(ndim) if dim is None else [dim] if isinstance(dim, int) else dim
    return [d % builtins.max(ndim, 1) for d in dims]


def expand_as_reduced(g: Any, shape: torch.Size, dim: Any, keepdim: bool) -> Any:
    """The gradient `g` of a reduction over `dim`, repeated to the shape of what was reduced."""
    if not keepdim and len(shape):
        dims = as_dims(None if dim in ((), []) else dim, len(shape))
        g = g.reshape([1 if i in dims else n for i, n in enumerate(shape)])
    return g.expand(shape)


# --- the same elements, another shape ----------------------------------------------------------------------------


@op(input=_reshaped_back)
def reshape(input: Array, shape: Sequence[int]) -> Any:
    """The same elements in row-major order under another ``shape``; one size may be -1. A view where possible."""
    return torch.reshape(input, shape)


@op(input=_reshaped_back)
def view(input: Array, shape: Sequence[int]) -> Any:
    """`reshape` that never copies: ShapeError where the strides do not allow a view."""
    return input.view(shape)


@op(input=_reshaped_back)
def flatten(input: Array, start_dim: int = 0, end_dim: int = -1) -> Any:
    """Dimensions ``start_dim`` to ``end_dim`` (inclusive) as one."""
    return torch.flatten(input, start_dim, end_dim)


@op(input=_reshaped_back)
def unflatten(input: Array, dim: int, sizes: Sequence[int]) -> Any:
    """Dimension ``dim`` as several of the given ``sizes``; one may be -1."""
    return torch.unflatten(input, dim, sizes)


@op(input=_reshaped_back)
def squeeze(input: Array, dim: int | Sequence[int] | None = None) -> Any:
    """Without the dimensions of size 1 (all of them, or those in ``dim``)."""
    return torch.squeeze(input) if dim is None else torch.squeeze(input, dim)  # type: ignore[arg-type]


@op(input=_reshaped_back)
def unsqueeze(input: Array, dim: int) -> Any:
    """With a new dimension of size 1 at ``dim``."""
    return torch.unsqueeze(input, dim)


@op(input=lambda g, dim0, dim1: g.transpose(dim0, dim1))
def transpose(input: Array, dim0: int, dim1: int) -> Any:
    """Dimensions ``dim0`` and ``dim1`` swapped. A view."""
    return torch.transpose(input, dim0, dim1)


def _inverse(dims: Sequence[int]) -> list[int]:
    return sorted(range(len(dims)), key=lambda i: dims[i] % len(dims))


@op(input=lambda g, dims: g.permute(_inverse(dims)))
def permute(input: Array, dims: Sequence[int]) -> Any:
    """Dimensions in the order ``dims``: ``y.shape[i] = x.shape[dims[i]]``. A view."""
    return torch.permute(input, tuple(dims))


@op(input=lambda g, source, destination: torch.movedim(g, destination, source))
def movedim(input: Array, source: int | Sequence[int], destination: int | Sequence[int]) -> Any:
    """Dimensions ``source`` moved to the positions ``destination``. A view."""
    return torch.movedim(input, source, destination)  # type: ignore[arg-type]


@op(input=lambda g: g)  # the call path undoes broadcasting
def expand(input: Array, size: Sequence[int]) -> Any:
    """Dimensions of size 1 repeated to ``size`` without copying; -1 keeps a size."""
    return input.expand(tuple(size))


@op(input=lambda g: g)
def broadcast_to(input: Array, shape: Sequence[int]) -> Any:
    """`expand` to ``shape``."""
    return torch.broadcast_to(input, tuple(shape))


def _unrepeated(g: Any, shape: torch.Size, repeats: Sequence[int]) -> Any:
    """Each element's copies summed: [r0, n0, r1, n1, ...] over the r's."""
    lead = len(repeats) - len(shape)
    full = [1] * lead + list(shape)
    pairs = [n for pair in zip(repeats, full, strict=True) for n in pair]
    return g.reshape(pairs).sum(list(range(0, len(pairs), 2))).reshape(shape) if pairs else g


@op(input=lambda g, input_shape, repeats: _unrepeated(g, input_shape, repeats))
def repeat(input: Array, repeats: Sequence[int]) -> Any:
    """``repeats[i]`` copies along dimension i; more repeats than dimensions add leading ones. A copy."""
    return input.repeat(tuple(repeats))


def tile(input: Any, dims: Sequence[int]) -> Tensor:
    """`repeat`, where missing leading counts are 1: ``tile(x, (2,))`` repeats the last dimension twice."""
    return repeat(input, [1] * (input.ndim - len(dims)) + list(dims))


@op(input=lambda g, dims: g.flip(dims))
def flip(input: Array, dims: Sequence[int]) -> Any:
    """The order of elements reversed along ``dims``. A copy."""
    return torch.flip(input, [dims] if isinstance(dims, int) else tuple(dims))


def _negated(shifts: Any) -> Any:
    return -shifts if isinstance(shifts, int) else [-s for s in shifts]


@op(input=lambda g, shifts, dims: torch.roll(g, _negated(shifts), dims))
def roll(input: Array, shifts: int | Sequence[int], dims: int | Sequence[int] | None = None) -> Any:
    """Elements moved by ``shifts`` along ``dims``, those pushed out coming in at the other end. A copy."""
    return torch.roll(input, shifts, () if dims is None else dims)  # type: ignore[arg-type]


@op(input=lambda g, diagonal: torch.tril(g, diagonal))
def tril(input: Array, diagonal: int = 0) -> Any:
    """The lower triangle: 0 above the given diagonal of the last two dimensions."""
    return torch.tril(input, diagonal)


@op(input=lambda g, diagonal: torch.triu(g, diagonal))
def triu(input: Array, diagonal: int = 0) -> Any:
    """The upper triangle: 0 below the given diagonal of the last two dimensions."""
    return torch.triu(input, diagonal)


@op(input=lambda g: g)
def clone(input: Array) -> Any:
    """A copy in new memory, recorded."""
    return input.clone()


@op(input=lambda g: g)
def alias(input: Array) -> Any:
    """The same storage under a node of its own."""
    return input.detach()


@op(input=lambda g: g)
def contiguous(input: Array) -> Any:
    """The same values in row-major order without gaps; a copy only where needed."""
    return input.contiguous()


@op(input=lambda g: g)  # the call path casts back
def to_dtype(input: Array, dtype: torch.dtype) -> Any:
    """The values as ``dtype`` (float32 or float64)."""
    return input.to(dtype)


# --- joining and splitting ---------------------------------------------------------------------------------------


def _pieces(g: Any, shapes: list[torch.Size], dim: int) -> list[Any]:
    """`g` cut along `dim` into pieces as wide as the tensors that were joined (torch skips legacy empty 1-d ones)."""
    pieces: list[Any] = []
    start = 0
    for shape in shapes:
        if tuple(shape) == (0,) and g.ndim != 1:
            pieces.append(None)
            continue
        pieces.append(g.narrow(dim, start, shape[dim]))
        start += shape[dim]
    return pieces


@op(tensors=lambda g, tensors_shape, dim: _pieces(g, tensors_shape, dim))
def cat(tensors: Arrays, dim: int = 0) -> Any:
    """The tensors joined along ``dim``; their other sizes must agree."""
    return torch.cat(tensors, dim)  # type: ignore[arg-type]


@op(tensors=lambda g, dim: list(torch.unbind(g, dim)))
def stack(tensors: Arrays, dim: int = 0) -> Any:
    """Tensors of one shape joined along a new dimension ``dim``."""
    return torch.stack(tensors, dim)  # type: ignore[arg-type]


@op(tensor=lambda g, dim: torch.cat(g, dim))
def split(tensor: Array, split_size_or_sections: int | list[int], dim: int = 0) -> Any:
    """Cut along ``dim`` into pieces of one size (the last may be smaller), or of the sizes listed. Views."""
    return torch.split(tensor, split_size_or_sections, dim)


@op(input=lambda g, dim: torch.cat(g, dim))
def chunk(input: Array, chunks: int, dim: int = 0) -> Any:
    """Cut along ``dim`` into at most ``chunks`` pieces of one size (the last may be smaller). Views."""
    return torch.chunk(input, chunks, dim)


@op(input=lambda g, dim: torch.stack(g, dim))
def unbind(input: Array, dim: int = 0) -> Any:
    """The slices along ``dim``, without that dimension. Views."""
    return torch.unbind(input, dim)


# --- windows and padding -----------------------------------------------------------------------------------------


def _window_padding(shape: torch.Size, dim: int, start: int, length: int) -> list[int]:
    """`pad` argument that puts a window of dimension `dim` back into its place."""
    dim %= len(shape)
    start += shape[dim] if start < 0 else 0
    return [0, 0] * (len(shape) - 1 - dim) + [start, shape[dim] - start - length]


@op(
    input=lambda g, input_shape, dim, start, length: torch.constant_pad_nd(
        g, _window_padding(input_shape, dim, start, length)
    )
)
def narrow(input: Array, dim: int, start: int, length: int) -> Any:
    """Elements ``start`` to ``start + length`` of dimension ``dim``. A view."""
    return torch.narrow(input, dim, start, length)


@op(
    input=lambda g, input_shape, dim, index: torch.constant_pad_nd(
        g.unsqueeze(dim % len(input_shape)), _window_padding(input_shape, dim, index, 1)
    )
)
def select(input: Array, dim: int, index: int) -> Any:
    """Slice ``index`` of dimension ``dim``, without that dimension. A view."""
    return torch.select(input, dim, index)


@op(input=lambda g, pad: torch.constant_pad_nd(g, [-p for p in pad]))
def constant_pad_nd(input: Array, pad: Sequence[int], value: float = 0.0) -> Any:
    """``value`` around the input: ``pad`` lists (before, after) from the last dimension on; negative sizes crop."""
    return torch.constant_pad_nd(input, list(pad), value)


def pad(input: Any, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Tensor:
    """Pad the last ``len(pad) / 2`` dimensions: ``pad`` lists (before, after) from the last dimension on.

    Parameters
    ----------
    mode : "constant" (with ``value``, default 0), "reflect", "replicate" or "circular"
    """
    pad = list(pad)
    if len(pad) % 2 or len(pad) > 2 * input.ndim:
        raise ShapeError(f"pad: pad must list a pair per dimension, at most {2 * input.ndim} sizes; got {pad}")
    if mode == "constant":
        return constant_pad_nd(input, pad, 0.0 if value is None else value)
    if mode not in ("reflect", "replicate", "circular"):
        raise ArgumentError(f"pad: mode must be constant, reflect, replicate or circular; got {mode!r}")
    for i in range(0, len(pad), 2):
        dim = input.ndim - 1 - i // 2
        n, (before, after) = input.shape[dim], pad[i : i + 2]
        limit = n - 1 if mode == "reflect" else n
        if n == 0 or (mode != "replicate" and builtins.max(before, after) > limit):
            raise ShapeError(f"pad: {mode} padding {(before, after)} must be at most {limit} for size {n} of dim {dim}")
        position = torch.arange(-before, n + after)
        if mode == "circular":
            position = position % n
        elif mode == "replicate":
            position = position.clamp(0, n - 1)
        else:
            position = (n - 1) - (n - 1 - position.abs()).abs()
        input = index_select(input, dim, position)
    return input  # type: ignore[no-any-return]


def _into_diagonal(g: Array, shape: torch.Size, offset: int, dim1: int, dim2: int) -> Any:
    full = torch.zeros(shape, dtype=g.dtype)
    full.diagonal(offset, dim1, dim2).copy_(g)
    return full


@op(input=lambda g, offset, dim1, dim2: torch.diagonal(g, offset, dim1, dim2))
def diagonal_backward(input: Array, shape: Sequence[int], offset: int, dim1: int, dim2: int) -> Any:
    """Zeros of ``shape`` with the input on a diagonal: the gradient of `diagonal`."""
    return _into_diagonal(input, torch.Size(shape), offset, dim1, dim2)


@op(input=lambda g, input_shape, offset, dim1, dim2: either("diagonal_backward", g, input_shape, offset, dim1, dim2))
def diagonal(input: Array, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Any:
    """The diagonal of dimensions ``dim1`` and ``dim2``, as a last dimension. A view."""
    return torch.diagonal(input, offset, dim1, dim2)


# --- reading and writing by index --------------------------------------------------------------------------------


@op(
    input=lambda g: g,
    source=lambda g, dim, index: torch.index_select(g, dim, index),
)
def index_add(input: Array, dim: int, index: Array, source: Array) -> Any:
    """``y = input`` with ``y[index[i]] += source[i]`` along ``dim``; repeated indices add up."""
    return torch.index_add(input, dim, index, source)


@op(input=lambda g, input_shape, dim, index: _index_added(g, input_shape, dim, index))
def index_select(input: Array, dim: int, index: Array) -> Any:
    """Slices ``index`` (1-d integers) of dimension ``dim``. A copy."""
    return torch.index_select(input, dim, index)


def _index_added(g: Any, shape: torch.Size, dim: int, index: Any) -> Any:
    return torch.index_add(torch.zeros(shape, dtype=g.dtype), dim, index, g)


@op(input=lambda g: g, src=lambda g, dim, index: torch.gather(g, dim, index))
def scatter_add(input: Array, dim: int, index: Array, src: Array) -> Any:
    """``y = input`` with ``y[index[i, j]][j] += src[i, j]`` (for dim 0); repeated indices add up."""
    return torch.scatter_add(input, dim, index, src)


@op(input=lambda g, input_shape, dim, index: torch.scatter_add(torch.zeros(input_shape, dtype=g.dtype), dim, index, g))
def gather(input: Array, dim: int, index: Array) -> Any:
    """``y[i, j] = input[index[i, j], j]`` (for dim 0); ``index`` has as many dimensions as the input."""
    return torch.gather(input, dim, index)


def take_along_dim(input: Any, indices: Any, dim: int | None = None) -> Tensor:
    """`gather` with broadcasting of the other dimensions; over the flattened input where ``dim`` is None."""
    indices = raw(indices, "take_along_dim", "indices")
    if dim is None:
        return gather(flatten(input), 0, indices.reshape(-1))
    if indices.ndim != input.ndim:
        raise ShapeError(
            f"take_along_dim: indices must have {input.ndim} dimensions, as the input; got shape {list(indices.shape)}"
        )
    dim = as_dims(dim, input.ndim)[0]
    others = [[*s[:dim], 1, *s[dim + 1 :]] for s in (input.shape, indices.shape)]
    full = list(torch.broadcast_shapes(*others))  # type: ignore[no-untyped-call]
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


def _write(input: torch.Tensor, index: Any, value: Any, accumulate: bool) -> torch.Tensor:
    """``input[index] = value`` (or +=) in place, for an index of any kind."""
    if accumulate and _is_advanced(index):
        torch.ops.aten.index_put_(*_as_index_put(input, index, value))
    else:
        input[index] = value
    return input


def _is_advanced(index: Any) -> bool:
    parts = index if isinstance(index, tuple) else (index,)
    return any(isinstance(part, torch.Tensor) for part in parts)


def _as_index_put(input: torch.Tensor, index: Any, value: Any) -> tuple[Any, ...]:
    """Arguments of an accumulating index_put on a flat view: the elements that `index` reads, and their values."""
    flat = torch.arange(input.numel()).reshape(input.shape)[index]
    return input.view(-1), [flat.reshape(-1)], value.expand(flat.shape).reshape(-1), True


@op(input=lambda g, index: _read(g, index))
def getitem_backward(input: Array, shape: Sequence[int], index: Any) -> Any:
    """Zeros of ``shape`` with the input added at ``index``: the gradient of ``x[index]``."""
    return _write(torch.zeros(tuple(shape), dtype=input.dtype), index, input, accumulate=True)


def _read(x: Any, index: Any) -> Any:
    return getitem(x, index) if isinstance(x, Tensor) else x[index]


@op(name="getitem", input=lambda g, input_shape, index: either("getitem_backward", g, input_shape, index))
def getitem_op(input: Array, index: Any) -> Any:
    """``input[index]``."""
    return input[index]


@op(
    name="setitem",
    input=lambda g, index: either("setitem", g, index, 0.0),
    value=lambda g, index: _read(g, index),
)
def setitem_op(input: Array, index: Any, value: Array) -> Any:
    """A copy of the input with ``copy[index] = value``."""
    return _write(input.clone(), index, value, accumulate=False)


def as_index(index: Any) -> Any:
    """An index as torch takes it: Tensors, arrays and lists inside become (copied) torch tensors."""
    if isinstance(index, tuple):
        return tuple([as_index(part) for part in index])
    if index is None or index is Ellipsis or type(index) in (int, bool, slice):
        return index
    if isinstance(index, list):
        index = torch.tensor(index) if index else torch.empty(0, dtype=torch.int64)
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
    """``input[index]``: integers, slices, None, Ellipsis, bool masks and integer tensors. Basic ones give views."""
    if isinstance(index, slice):
        parts = [p.__index__() if isinstance(p, Tensor) else p for p in (index.start, index.stop, index.step)]
        index = slice(*parts)
    return getitem_op(input, as_index(index))
