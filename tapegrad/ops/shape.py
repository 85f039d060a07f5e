"""Shape ops: views, joins, padding, reading and writing by index.

Their gradients only move elements, or add up those that were read twice. Each op and its gradient are closed under
differentiation: the gradient of `narrow` is `pad`, that of `pad` is `narrow`; `gather` and `scatter_add` are each
other's, and so on.
"""

from __future__ import annotations

import builtins
import math
from collections.abc import Sequence
from typing import Any

import torch

from ..core import Array, Arrays, IndexShapeError, Tensor, either, op, sum_over, tensor_argument
from .versions import constant_pad

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
    "movedim",
    "narrow",
    "permute",
    "repeat",
    "reshape",
    "roll",
    "select",
    "split",
    "squeeze",
    "stack",
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


def sizes(given: tuple[Any, ...], name: str) -> list[int]:
    """``f(2, 3)`` and ``f((2, 3))`` both mean [2, 3]."""
    if len(given) == 1 and isinstance(given[0], tuple | list):
        given = tuple(given[0])
    for n in given:
        if not isinstance(n, int):
            raise TypeError(f"{name}: size must be ints; got {list(given)}")
    return list(given)


def as_dims(dim: Any, ndim: int, name: str = "as_dims") -> list[int]:
    """`dim` (int, sequence, None for all) as a list of non-negative dimensions."""
    dims = range(ndim) if dim is None else [dim] if isinstance(dim, int) else dim
    n = builtins.max(ndim, 1)
    for d in dims:
        if not -n <= d < n:
            raise IndexShapeError(f"{name}: dim = {d} must lie in [{-n}, {n - 1}] for {ndim} dimensions")
    return [d % n for d in dims]


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
    return sum_over(g.reshape(pairs), range(0, len(pairs), 2)).reshape(shape) if pairs else g


@op(input=lambda g, input_shape, repeats: _unrepeated(g, input_shape, repeats))
def repeat(input: Array, repeats: Sequence[int]) -> Any:
    """``repeats[i]`` copies along dimension i; more repeats than dimensions add leading ones. A copy."""
    return input.repeat(tuple(repeats))


def tile(input: Any, dims: Sequence[int]) -> Tensor:
    """`repeat`, where missing leading counts are 1: ``tile(x, (2,))`` repeats the last dimension twice."""
    input = tensor_argument(input, "tile", "input")
    return repeat(input, [1] * (input.ndim - len(dims)) + list(dims))


@op(input=lambda g, dims: g.flip(dims))
def flip(input: Array, dims: Sequence[int]) -> Any:
    """The order of elements reversed along ``dims``. A copy."""
    return torch.flip(input, [dims] if isinstance(dims, int) else tuple(dims))


def _rolled_back(g: Any, shifts: Any, dims: Any) -> Any:
    shifts = (shifts,) if isinstance(shifts, int) else shifts
    dims = (dims,) if isinstance(dims, int) else dims or ()
    extents = [g.shape[d] for d in dims] or [math.prod(g.shape)]
    back = [-s % n if n else 0 for s, n in zip(shifts, extents, strict=True)]  # torch takes no -(2**63 - 1)
    return torch.roll(g, back, dims)


@op(input=_rolled_back)
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


def contiguous(input: Any) -> Tensor:
    """The same values in row-major order without gaps: the input itself, or a copy where needed."""
    x = tensor_argument(input, "contiguous", "input")
    return x if x._data.is_contiguous() else in_order(x)


@op(input=lambda g: g, name="contiguous")
def in_order(input: Array) -> Any:
    """A copy in row-major order without gaps."""
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


@op(name="unbind", input=lambda g, dim: torch.stack(g, dim))
def unbind_op(input: Array, dim: int) -> Any:
    """`unbind` into at least one slice."""
    return torch.unbind(input, dim)


def unbind(input: Any, dim: int = 0) -> tuple[Tensor, ...]:
    """The slices along ``dim``, without that dimension. Views."""
    input = tensor_argument(input, "unbind", "input")
    nothing = -input.ndim <= dim < input.ndim and input.shape[dim] == 0
    return () if nothing else unbind_op(input, dim)  # type: ignore[return-value]


# --- windows and padding -----------------------------------------------------------------------------------------


def _window_padding(shape: torch.Size, dim: int, start: int, length: int) -> list[int]:
    """`pad` argument that puts a window of dimension `dim` back into its place."""
    dim %= len(shape)
    start += shape[dim] if start < 0 else 0
    return [0, 0] * (len(shape) - 1 - dim) + [start, shape[dim] - start - length]


@op(input=lambda g, input_shape, dim, start, length: constant_pad(g, _window_padding(input_shape, dim, start, length)))
def narrow(input: Array, dim: int, start: int, length: int) -> Any:
    """Elements ``start`` to ``start + length`` of dimension ``dim``. A view."""
    return torch.narrow(input, dim, start, length)


@op(
    input=lambda g, input_shape, dim, index: constant_pad(
        g.unsqueeze(dim % len(input_shape)), _window_padding(input_shape, dim, index, 1)
    )
)
def select(input: Array, dim: int, index: int) -> Any:
    """Slice ``index`` of dimension ``dim``, without that dimension. A view."""
    return torch.select(input, dim, index)


@op(input=lambda g, pad: constant_pad(g, [-p for p in pad]))
def constant_pad_nd(input: Array, pad: Sequence[int], value: float = 0.0) -> Any:
    """``value`` around the input: ``pad`` lists (before, after) from the last dimension on; negative sizes crop."""
    return constant_pad(input, pad, value)


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
