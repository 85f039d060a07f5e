"""Views by sizes and strides: what lies at given places of an array's memory, read and written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ..core import ArgumentError, Array, Ints, ShapeError, Tensor, either, op, tensor_argument
from .shape import as_dims

__all__ = ["as_strided", "as_strided_scatter"]


def _overlaps(size: Sequence[int], stride: Sequence[int]) -> bool:
    """Whether two elements may lie at one place: unless each stride steps over all that the smaller ones reach."""
    reach = 0
    for step, n in sorted((s, n) for s, n in zip(stride, size, strict=True) if n > 1):
        if step <= reach:
            return True
        reach += (n - 1) * step
    return False


@op(
    name="as_strided",
    input=lambda g, input_shape, size, stride, offset: either(
        "as_strided_backward", g, tuple(input_shape), size, stride, offset
    ),
)
def as_strided_op(input: Array, size: Ints, stride: Ints, offset: int) -> Any:
    """`as_strided`, the offset counted from the first element of a row-major input."""
    x = input.contiguous()
    return x.as_strided(size, stride, x.storage_offset() + offset)


@op(g=lambda g, size, stride, offset: either("as_strided", g, size, stride, offset))
def as_strided_backward(g: Array, shape: Ints, size: Ints, stride: Ints, offset: int) -> Any:
    """Zeros of ``shape`` with ``g`` added at the places that `as_strided` reads."""
    n = torch.Size(shape).numel()
    flat = torch.zeros(n, dtype=g.dtype)
    if not g.numel():
        return flat.reshape(shape)
    if _overlaps(size, stride):
        places = torch.arange(n).as_strided(size, stride, offset)
        flat.index_add_(0, places.reshape(-1), g.reshape(-1))
    else:
        flat.as_strided(size, stride, offset).copy_(g)
    return flat.reshape(shape)


def _scatter_input(g: Any, size: Any, stride: Any, offset: int) -> Any:
    return either("as_strided_scatter", g, torch.zeros(size, dtype=g.dtype), size, stride, offset)


@op(
    name="as_strided_scatter",
    input=_scatter_input,
    src=lambda g, size, stride, offset: either("as_strided", g, size, stride, offset),
)
def as_strided_scatter_op(input: Array, src: Array, size: Ints, stride: Ints, offset: int) -> Any:
    """`as_strided_scatter`, the offset counted from the first element of a row-major input."""
    y = input.clone(memory_format=torch.contiguous_format)
    y.as_strided(size, stride, offset).copy_(src)
    return y


def reach(size: Sequence[int], stride: Sequence[int]) -> int:
    """The distance in memory from the first element to behind the last; 0 where there is none."""
    if 0 in size:
        return 0
    return 1 + sum((n - 1) * step for n, step in zip(size, stride, strict=True))


def _from_start(name: str, x: Tensor, size: Any, stride: Any, storage_offset: int | None) -> int:
    """torch's offset, which counts from the storage's start, counted from the first element of `x`."""
    if len(size) != len(stride):
        raise ShapeError(f"{name}: size and stride must have one length; got {list(size)} and {list(stride)}")
    if any(n < 0 for n in (*size, *stride)):
        raise ShapeError(f"{name}: sizes and strides must not be negative; got {list(size)} and {list(stride)}")
    if not x.is_contiguous():
        raise ShapeError(f"{name}: the input's elements must lie row by row in memory; pass x.contiguous()")
    start = int(x.data.storage_offset())
    offset = 0 if storage_offset is None else storage_offset - start
    if offset < 0 or offset + reach(size, stride) > max(x.numel(), 0 if 0 in size else 1):
        raise ArgumentError(
            f"{name}: size {list(size)}, stride {list(stride)} and storage_offset {storage_offset} reach beyond the "
            f"input of shape {list(x.shape)}, which starts at {start} of its memory"
        )
    return offset


def as_strided(input: Any, size: Ints, stride: Ints, storage_offset: int | None = None) -> Tensor:
    """A view: element ``(i, j, ...)`` is the input's at place ``storage_offset + i stride[0] + j stride[1] + ...``.

    The input lies row by row in memory; places count from the start of its memory (None: from its first element).
    """
    x = tensor_argument(input, "as_strided", "input")
    return as_strided_op(x, size, stride, _from_start("as_strided", x, size, stride, storage_offset))


def as_strided_scatter(input: Any, src: Any, size: Ints, stride: Ints, storage_offset: int | None = None) -> Tensor:
    """A copy of the input with ``src`` at the places that `as_strided` reads, which must be distinct."""
    x, new = tensor_argument(input, "as_strided_scatter", "input"), tensor_argument(src, "as_strided_scatter", "src")
    if tuple(new.shape) != tuple(size):
        raise ShapeError(f"as_strided_scatter: src must have shape {list(size)}; got {list(new.shape)}")
    if _overlaps(size, stride):
        raise ArgumentError(
            f"as_strided_scatter: size {list(size)} and stride {list(stride)} write one place several times"
        )
    return as_strided_scatter_op(
        x, new, size, stride, _from_start("as_strided_scatter", x, size, stride, storage_offset)
    )


@op(
    name="windows",
    input=lambda g, input_shape, dim, size, step: either("windows_backward", g, tuple(input_shape), dim, size, step),
)
def windows(input: Array, dim: int, size: int, step: int) -> Any:
    """Every ``step``-th window of ``size`` elements along ``dim``, in a last dimension of its own: a view."""
    return input.unfold(dim, size, step)


@op(g=lambda u, dim, size, step: either("windows", u, dim, size, step))
def windows_backward(g: Array, shape: Ints, dim: int, size: int, step: int) -> Any:
    """The gradient of `windows`: what lies in several is added up."""
    if not shape:
        return g.reshape(())
    return torch.ops.aten.unfold_backward(g, list(shape), dim, size, step)


def unfold_method(self: Tensor, dimension: int, size: int, step: int) -> Tensor:
    """Windows along a dimension, a view: ``torch.Tensor.unfold`` (`tapegrad.unfold` takes patches of images)."""
    n = self.shape[as_dims(dimension, self.ndim, "unfold")[0]] if self.ndim else 1
    if not 0 <= size <= n or step <= 0:
        raise ShapeError(f"unfold: size must lie in [0, {n}] and step be positive; got {size} and {step}")
    return windows(self, dimension, size, step)
