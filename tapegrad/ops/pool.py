"""Pooling. Windows, padding, ``ceil_mode`` and dilation as torch's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ..core import _C, FLOATS, Array, Ints, ShapeError, Tensor, either, op, raw, tensor_argument
from .conv import pair
from .reduce import mean

__all__ = [
    "adaptive_avg_pool2d",
    "adaptive_avg_pool2d_backward",
    "avg_pool2d",
    "avg_pool2d_backward",
    "max_pool2d",
    "max_pool2d_backward",
]


aten = torch.ops.aten


def _windows(name: str, kernel_size: Any, stride: Any, padding: Any) -> tuple[list[int], list[int], list[int]]:
    """Kernel, stride (the kernel unless given) and padding, each for rows and columns."""
    kernel = list(pair(kernel_size, name, "kernel_size"))
    step = kernel if stride is None or stride in ([], ()) else list(pair(stride, name, "stride"))
    return kernel, step, list(pair(padding, name, "padding"))


@op(g=lambda u, indices: u.flatten(-2).gather(-1, indices.flatten(-2)).reshape(indices.shape))
def max_pool2d_backward(g: Array, indices: Array, input_size: Sequence[int]) -> Any:
    """The gradient of `max_pool2d`: zeros, and each g added where its maximum lies; indices count within a plane."""
    return _C.max_pool2d_backward(g, indices, list(input_size))


def _max_pool2d(input: Any, kernel_size: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool) -> Any:
    """(maxima, indices) of a raw tensor; torch's for the dtypes and the emptiness that the kernel does not take."""
    ours = input.dtype in FLOATS and input.numel() > 0
    function = _C.max_pool2d if ours else aten.max_pool2d_with_indices
    return function(input, kernel_size, stride, padding, dilation, ceil_mode)


@op(
    name="max_pool2d",
    residuals=("indices",),
    input=lambda g, indices, input_shape: either("max_pool2d_backward", g, indices, input_shape),
    backward=lambda g, indices, input_shape: (_C.max_pool2d_backward(g, indices, list(input_shape)),),
)
def max_pool2d_op(input: Array, kernel_size: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool) -> Any:
    """`max_pool2d` with every parameter a pair."""
    return _max_pool2d(input, kernel_size, stride, padding, dilation, ceil_mode)


def max_pool2d(
    input: Any,
    kernel_size: Ints,
    stride: Ints = None,
    padding: Ints = 0,
    dilation: Ints = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """The maximum of each window; the gradient goes to the element it came from.

    Parameters
    ----------
    input : [N, C, H, W] or [C, H, W]
    kernel_size, stride, padding, dilation : int or pair; the stride is the kernel size unless given
    ceil_mode : let a last window start inside and end outside
    return_indices : also return where in its plane each maximum lies (int64)
    """
    kernel, step, pads = _windows("max_pool2d", kernel_size, stride, padding)
    spread = list(pair(dilation, "max_pool2d", "dilation"))
    out = max_pool2d_op(input, kernel, step, pads, spread, ceil_mode)
    if not return_indices:
        return out
    x = raw(input, "max_pool2d", "input")
    return out, Tensor(_max_pool2d(x, kernel, step, pads, spread, ceil_mode)[1])


@op(
    g=lambda u, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override: either(
        "avg_pool2d", u, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override
    )
)
def avg_pool2d_backward(
    g: Array,
    input_size: Sequence[int],
    kernel_size: Any,
    stride: Any,
    padding: Any,
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: int | None,
) -> Any:
    """The gradient of `avg_pool2d`: each window's gradient spread over its elements."""
    shaped = torch.empty(1, dtype=g.dtype).expand(tuple(input_size))  # only its shape is read
    return aten.avg_pool2d_backward(
        g, shaped, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override
    )


@op(
    name="avg_pool2d",
    input=lambda g, input_shape, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override: either(
        "avg_pool2d_backward",
        g,
        input_shape,
        kernel_size,
        stride,
        padding,
        ceil_mode,
        count_include_pad,
        divisor_override,
    ),
)
def avg_pool2d_op(
    input: Array,
    kernel_size: Any,
    stride: Any,
    padding: Any,
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: int | None,
) -> Any:
    """`avg_pool2d` with every parameter a pair."""
    return aten.avg_pool2d(input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)


def avg_pool2d(
    input: Any,
    kernel_size: Ints,
    stride: Ints = None,
    padding: Ints = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """The mean of each window.

    Parameters
    ----------
    input : [N, C, H, W] or [C, H, W]
    kernel_size, stride, padding : int or pair; the stride is the kernel size unless given
    ceil_mode : let a last window start inside and end outside
    count_include_pad : count padding zeros in the mean
    divisor_override : divide by this instead of the window's size
    """
    kernel, step, pads = _windows("avg_pool2d", kernel_size, stride, padding)
    return avg_pool2d_op(input, kernel, step, pads, ceil_mode, count_include_pad, divisor_override)


@op(g=lambda u, g_shape: either("adaptive_avg_pool2d", u, list(g_shape[-2:])))
def adaptive_avg_pool2d_backward(g: Array, input_size: Sequence[int]) -> Any:
    """The gradient of `adaptive_avg_pool2d`."""
    if not g.numel():  # torch's kernel wants channels
        return torch.zeros(tuple(input_size), dtype=g.dtype)
    shaped = torch.empty(1, dtype=g.dtype).expand(tuple(input_size))
    return aten._adaptive_avg_pool2d_backward(g, shaped)


@op(
    name="adaptive_avg_pool2d",
    input=lambda g, input_shape: either("adaptive_avg_pool2d_backward", g, input_shape),
)
def adaptive_avg_pool2d_op(input: Array, output_size: Sequence[int]) -> Any:
    """`adaptive_avg_pool2d` with the output size worked out."""
    return aten._adaptive_avg_pool2d(input, output_size)


def adaptive_avg_pool2d(input: Any, output_size: Ints) -> Tensor:
    """The mean over windows that divide the plane into ``output_size`` (int or pair; None keeps a size)."""
    given = [output_size, output_size] if output_size is None or isinstance(output_size, int) else list(output_size)
    input = tensor_argument(input, "adaptive_avg_pool2d", "input")
    if input.ndim not in (3, 4):
        raise ShapeError(f"adaptive_avg_pool2d: input must have 3 or 4 dimensions; got shape {list(input.shape)}")
    if len(given) != 2 or any(isinstance(n, bool) or not isinstance(n, int | None) for n in given):
        raise TypeError(f"adaptive_avg_pool2d: output_size must be an int or a pair (None keeps); got {output_size!r}")
    size = [n if want is None else want for n, want in zip(input.shape[-2:], given, strict=True)]
    if min(size) < 0:
        raise ShapeError(f"adaptive_avg_pool2d: output_size must not be negative; got {output_size!r}")
    if size == [1, 1] and 0 in input.shape[-2:]:
        return mean(input, (-2, -1), True)  # of nothing: NaN
    return adaptive_avg_pool2d_op(input, size)
