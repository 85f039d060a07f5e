"""Convolution and upsampling. The convolution and its two gradients are closed under differentiation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from .._ext import _C
from ..errors import ShapeError
from ..op import Array, either, op
from ..tensor import Tensor

__all__ = [
    "conv2d",
    "conv2d_input_grad",
    "conv2d_weight_grad",
    "upsample_nearest2d",
    "upsample_nearest2d_backward",
]


def pair(value: Any, op_name: str, argument: str) -> tuple[int, int]:
    """``n`` and ``(n, n)`` both mean (n, n)."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value, value
    if isinstance(value, tuple | list) and len(value) in (1, 2) and all(isinstance(v, int) for v in value):
        return (value[0], value[-1])
    raise TypeError(f"{op_name}: {argument} must be an int or a pair of ints; got {value!r}")


# --- conv2d, its input gradient and its weight gradient ----------------------------------------------------------
# For one output gradient g they are three sides of the trilinear form sum g * conv2d(input, weight), so each is
# linear in its two arguments and its rules are the other two.


@op(
    g=lambda u, weight, stride, padding, dilation, groups: (
        either(conv2d_op, u, weight, None, stride, padding, dilation, groups)
    ),
    weight=lambda u, g, weight_shape, stride, padding, dilation, groups: (
        either(conv2d_weight_grad, g, u, weight_shape, stride, padding, dilation, groups)
    ),
)
def conv2d_input_grad(
    g: Array, weight: Array, input_size: Sequence[int], stride: Any, padding: Any, dilation: Any, groups: int
) -> Any:
    """The input gradient of `conv2d`, which is also the transposed convolution. g [N, OC, OH, OW] -> ``input_size``."""
    return _C.conv2d_input_grad(g, weight, list(input_size), stride, padding, dilation, groups)


@op(
    g=lambda u, input, stride, padding, dilation, groups: (
        either(conv2d_op, input, u, None, stride, padding, dilation, groups)
    ),
    input=lambda u, g, input_shape, stride, padding, dilation, groups: (
        either(conv2d_input_grad, g, u, input_shape, stride, padding, dilation, groups)
    ),
)
def conv2d_weight_grad(
    g: Array, input: Array, weight_size: Sequence[int], stride: Any, padding: Any, dilation: Any, groups: int
) -> Any:
    """The weight gradient of `conv2d`. g [N, OC, OH, OW], input [N, C, H, W] -> ``weight_size``."""
    return _C.conv2d_weight_grad(g, input, list(weight_size), stride, padding, dilation, groups)


@op(
    name="conv2d",
    
    input=lambda g, input_shape, weight, stride, padding, dilation, groups: (
        conv2d_input_grad(g, weight, input_shape, stride, padding, dilation, groups)
    ),
    weight=lambda g, input, weight_shape, stride, padding, dilation, groups: (
        conv2d_weight_grad(g, input, weight_shape, stride, padding, dilation, groups)
    ),
    bias=lambda g: g.sum((0, 2, 3)),
    backward=lambda g, input, weight, stride, padding, dilation, groups, needs: (
        _C.conv2d_backward(g, input, weight, stride, padding, dilation, groups, *needs)
    ),
)
def conv2d_op(
    input: Array, weight: Array, bias: Array | None, stride: Any, padding: Any, dilation: Any, groups: int
) -> Any:
    """`conv2d` with every parameter a pair."""
    return _C.conv2d(input, weight, bias, stride, padding, dilation, groups)



def conv2d(
    input: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    """Cross-correlation of the input with a bank of filters.

    ``y[n, oc, i, j] = b[oc] + sum_{c, k, l} w[oc, c, k, l] * x[n, c, i S - P + k D, j S - P + l D]``, x being 0 outside.

    Parameters
    ----------
    input : [N, C, H, W] or [C, H, W]
    weight : [OC, C / groups, KH, KW]
    bias : [OC] or None
    stride, padding, dilation : int or pair; padding may be "valid" (none) or "same" (output as large as the input)
    groups : how many blocks of channels are convolved separately

    Returns [N, OC, OH, OW] with ``OH = floor((H + 2 P - D (KH - 1) - 1) / S) + 1`` (report 5, equation 4, corrected).
    Raises ShapeError or DTypeError naming the argument.
    """
    stride, dilation = pair(stride, "conv2d", "stride"), pair(dilation, "conv2d", "dilation")
    if isinstance(padding, str):
        input, padding = _named_padding(input, weight, padding, stride, dilation)
    padding = pair(padding, "conv2d", "padding")
    if getattr(input, "ndim", 4) == 3:
        return conv2d_op(input[None], weight, bias, stride, padding, dilation, groups)[0]
    return conv2d_op(input, weight, bias, stride, padding, dilation, groups)


def _named_padding(input: Any, weight: Any, padding: str, stride: Any, dilation: Any) -> tuple[Any, Any]:
    """The input (with the odd row and column added, if any) and the padding that "same" or "valid" means."""
    if padding == "valid":
        return input, 0
    if padding != "same":
        raise ValueError(f'conv2d: padding must be an int, a pair, "valid" or "same"; got {padding!r}')
    if tuple(stride) != (1, 1):
        raise ValueError(f'conv2d: padding="same" needs stride 1; got {stride}')
    total = [d * (k - 1) for d, k in zip(dilation, weight.shape[-2:], strict=True)]
    if any(t % 2 for t in total):
        from .shape import pad

        input = pad(input, [0, total[1] % 2, 0, total[0] % 2])
    return input, (total[0] // 2, total[1] // 2)


# --- upsampling --------------------------------------------------------------------------------------------------


@op(g=lambda u, g_shape, scales: either(upsample_nearest2d_op, u, g_shape[2:], scales))
def upsample_nearest2d_backward(g: Array, input_size: Sequence[int], scales: Any) -> Any:
    """The gradient of nearest upsampling: each input pixel gathers the gradients of its copies."""
    return _C.upsample_nearest2d_backward(g, list(input_size), scales)


@op(
    name="upsample_nearest2d",
    input=lambda g, input_shape, scales: either(upsample_nearest2d_backward, g, input_shape, scales))
def upsample_nearest2d_op(input: Array, output_size: Sequence[int], scales: Any) -> Any:
    """`upsample_nearest2d` with the output size and torch's scales worked out."""
    return _C.upsample_nearest2d(input, list(output_size), scales)



def output_size(input: Any, size: Any, scale_factor: Any, name: str) -> tuple[list[int], list[float] | None]:
    """(output size, scales for the source index rule) from `size` or `scale_factor`, one of which must be given."""
    spatial = list(input.shape[2:])
    if input.ndim != 4:
        raise ShapeError(f"{name}: input must have 4 dimensions [N, C, H, W]; got shape {list(input.shape)}")
    if (size is None) == (scale_factor is None):
        raise ValueError(f"{name}: exactly one of size and scale_factor must be given; got {size} and {scale_factor}")
    if size is not None:
        return list(pair(size, name, "size")), None
    factors = list(scale_factor) if isinstance(scale_factor, tuple | list) else [scale_factor] * 2
    if len(factors) != 2 or not all(isinstance(f, int | float) and 0 < f < math.inf for f in factors):
        raise ValueError(f"{name}: scale_factor must be a positive number or a pair of them; got {scale_factor!r}")
    return [math.floor(n * f) for n, f in zip(spatial, factors, strict=True)], [float(f) for f in factors]


def upsample_nearest2d(input: Any, size: Any = None, scale_factor: Any = None) -> Tensor:
    """Nearest-neighbour upsampling: ``y[n, c, i, j] = x[n, c, floor(i H / OH), floor(j W / OW)]``.

    Parameters
    ----------
    input : [N, C, H, W]
    size : output (OH, OW), int or pair; or
    scale_factor : number or pair; then OH = floor(H * factor) and the source row is floor(i / factor)

    Returns [N, C, OH, OW]. The source index is torch's, worked out in float32.
    """
    if not hasattr(input, "ndim"):
        raise TypeError(f"upsample_nearest2d: input must be a tensor; got {type(input).__name__}")
    size, scales = output_size(input, size, scale_factor, "upsample_nearest2d")
    return upsample_nearest2d_op(input, size, scales)
