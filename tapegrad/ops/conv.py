"""Convolution and upsampling. The convolution and its two gradients are closed under differentiation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from ..core import _C, ArgumentError, Array, Ints, ShapeError, Tensor, either, op, raw, sum_over
from .indexing import pad
from .shape import constant_pad_nd, narrow, reshape, squeeze, unsqueeze

__all__ = [
    "conv1d",
    "conv2d",
    "conv2d_input_grad",
    "conv2d_weight_grad",
    "conv_transpose2d",
    "fold",
    "unfold",
    "upsample_conv2d",
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
    g=lambda u, weight, stride, padding, dilation, groups: either(
        "conv2d", u, weight, None, stride, padding, dilation, groups
    ),
    weight=lambda u, g, weight_shape, stride, padding, dilation, groups: either(
        "conv2d_weight_grad", g, u, weight_shape, stride, padding, dilation, groups
    ),
)
def conv2d_input_grad(
    g: Array, weight: Array, input_size: Sequence[int], stride: Any, padding: Any, dilation: Any, groups: int
) -> Any:
    """The input gradient of `conv2d`, which is also the transposed convolution. g [N, OC, OH, OW] -> ``input_size``."""
    return _C.conv2d_input_grad(g, weight, list(input_size), stride, padding, dilation, groups)


@op(
    g=lambda u, input, stride, padding, dilation, groups: either(
        "conv2d", input, u, None, stride, padding, dilation, groups
    ),
    input=lambda u, g, input_shape, stride, padding, dilation, groups: either(
        "conv2d_input_grad", g, u, input_shape, stride, padding, dilation, groups
    ),
)
def conv2d_weight_grad(
    g: Array, input: Array, weight_size: Sequence[int], stride: Any, padding: Any, dilation: Any, groups: int
) -> Any:
    """The weight gradient of `conv2d`. g [N, OC, OH, OW], input [N, C, H, W] -> ``weight_size``."""
    return _C.conv2d_weight_grad(g, input, list(weight_size), stride, padding, dilation, groups)


@op(
    name="conv2d",
    input=lambda g, input_shape, weight, stride, padding, dilation, groups: conv2d_input_grad(
        g, weight, input_shape, stride, padding, dilation, groups
    ),
    weight=lambda g, input, weight_shape, stride, padding, dilation, groups: conv2d_weight_grad(
        g, input, weight_shape, stride, padding, dilation, groups
    ),
    bias=lambda g: sum_over(g, (0, 2, 3)),
    backward=lambda g, input, weight, input_shape, weight_shape, stride, padding, dilation, groups, needs: (
        _C.conv2d_backward(g, input, weight, input_shape, weight_shape, stride, padding, dilation, groups, *needs)
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
    stride: Ints = 1,
    padding: Ints = 0,
    dilation: Ints = 1,
    groups: int = 1,
) -> Tensor:
    """Cross-correlation of the input with a bank of filters.

    ``y[n, oc, i, j] = b[oc] + sum_{c, k, l} w[oc, c, k, l] * x[n, c, i S - P + k D, j S - P + l D]``, x 0 outside.

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
        return squeeze(conv2d_op(unsqueeze(input, 0), weight, bias, stride, padding, dilation, groups), 0)
    return conv2d_op(input, weight, bias, stride, padding, dilation, groups)


def _named_padding(input: Any, weight: Any, padding: str, stride: Any, dilation: Any) -> tuple[Any, Any]:
    """The input (with the odd row and column added, if any) and the padding that "same" or "valid" means."""
    if padding == "valid":
        return input, 0
    if padding != "same":
        raise ArgumentError(f'conv2d: padding must be an int, a pair, "valid" or "same"; got {padding!r}')
    if tuple(stride) != (1, 1):
        raise ArgumentError(f'conv2d: padding="same" needs stride 1; got {stride}')
    total = [d * (k - 1) for d, k in zip(dilation, weight.shape[-2:], strict=True)]
    if any(t % 2 for t in total):
        input = pad(input, [0, total[1] % 2, 0, total[0] % 2])
    return input, (total[0] // 2, total[1] // 2)


# --- upsampling --------------------------------------------------------------------------------------------------


@op(g=lambda u, g_shape, scales: either("upsample_nearest2d", u, g_shape[2:], scales))
def upsample_nearest2d_backward(g: Array, input_size: Sequence[int], scales: Any) -> Any:
    """The gradient of nearest upsampling: each input pixel gathers the gradients of its copies."""
    return _C.upsample_nearest2d_backward(g, list(input_size), scales)


@op(
    name="upsample_nearest2d",
    input=lambda g, input_shape, scales: either("upsample_nearest2d_backward", g, input_shape, scales),
    backward=lambda g, input_shape, scales: (_C.upsample_nearest2d_backward(g, list(input_shape), scales),),
)
def upsample_nearest2d_op(input: Array, output_size: Sequence[int], scales: Any) -> Any:
    """`upsample_nearest2d` with the output size and torch's scales worked out."""
    return _C.upsample_nearest2d(input, list(output_size), scales)


def output_size(input: Any, size: Any, scale_factor: Any, name: str) -> tuple[list[int], list[float] | None]:
    """(output size, scales for the source index rule) from `size` or `scale_factor`, one of which must be given."""
    spatial = list(input.shape[2:])
    if (size is None) == (scale_factor is None):
        raise ArgumentError(f"{name}: exactly one of size and scale_factor must be given; got {size}, {scale_factor}")
    given = scale_factor if size is None else size
    values = list(given) if isinstance(given, tuple | list) else [given] * len(spatial)
    if size is not None:
        if len(values) != len(spatial) or any(not isinstance(n, int) or isinstance(n, bool) for n in values):
            kind = ShapeError if len(values) != len(spatial) else TypeError
            raise kind(f"{name}: size must be an int or {len(spatial)} of them; got {size!r}")
        return values, None
    if len(values) != len(spatial) or not all(isinstance(f, int | float) and 0 < f < math.inf for f in values):
        raise ArgumentError(
            f"{name}: scale_factor must be a positive number or {len(spatial)} of them; got {scale_factor!r}"
        )
    return [math.floor(n * f) for n, f in zip(spatial, values, strict=True)], [float(f) for f in values]


def upsample_nearest2d(input: Any, size: Ints = None, scale_factor: Any = None) -> Tensor:
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
    if input.ndim != 4:
        shape = list(input.shape)
        raise ShapeError(f"upsample_nearest2d: input must have 4 dimensions [N, C, H, W]; got shape {shape}")
    size, scales = output_size(input, size, scale_factor, "upsample_nearest2d")
    return upsample_nearest2d_op(input, size, scales)


# --- nearest upsampling by 2 and the convolution after it, in one ------------------------------------------------
# Each of a result's pixels sees the 3 x 3 kernel through copies: over a 2 x 2 patch of the input its taps add up, to
# one of four kernels by the pixel's parity. That is a 4 x 4 transposed convolution of stride 2: 2.25 times fewer
# products, and the large image is never made.


def _upsampled(input: Any) -> Any:
    return either("upsample_nearest2d", input, [2 * n for n in input.shape[2:]], None)


def _upsampled_gradient(g: Any, weight: Any, input_shape: torch.Size) -> Any:
    size = [input_shape[0], input_shape[1], *g.shape[2:]]
    dx = either("conv2d_input_grad", g, weight, size, (1, 1), (1, 1), (1, 1), 1)
    return either("upsample_nearest2d_backward", dx, input_shape, None)


@op(
    input=lambda g, weight, input_shape: _upsampled_gradient(g, weight, input_shape),
    weight=lambda g, input, weight_shape: either(
        "conv2d_weight_grad", g, _upsampled(input), weight_shape, (1, 1), (1, 1), (1, 1), 1
    ),
    bias=lambda g: sum_over(g, (0, 2, 3)),
    backward=lambda g, input, weight, needs: _C.upsample_conv2d_backward(g, input, weight, *needs),
)
def upsample_conv2d(input: Array, weight: Array, bias: Array | None = None) -> Any:
    """``conv2d(upsample_nearest2d(input, scale_factor=2), weight, bias, padding=1)`` in one, equal to rounding.

    Parameters
    ----------
    input : [N, C, H, W]
    weight : [OC, C, 3, 3]
    bias : [OC] or None

    Returns [N, OC, 2 H, 2 W]. Raises ShapeError where C differs or the kernel is not 3 x 3.
    """
    return _C.upsample_conv2d(input, weight, bias)


# --- other convolutions ------------------------------------------------------------------------------------------


def _single(value: Any, name: str, argument: str) -> int:
    """``n`` and ``(n,)`` both mean n."""
    value = value[0] if isinstance(value, tuple | list) and len(value) == 1 else value
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name}: {argument} must be an int; got {value!r}")
    return value


def _ndim(value: Any, name: str, argument: str, allowed: tuple[int, ...], layout: str) -> int:
    """The number of dimensions of an array argument, checked."""
    value = raw(value, name, argument)
    ndim = value.ndim if isinstance(value, torch.Tensor) else 0
    if ndim not in allowed:
        shape = list(getattr(value, "shape", ()))
        raise ShapeError(f"{name}: {argument} must have {allowed[0]} dimensions {layout}; got shape {shape}")
    return ndim


def conv1d(
    input: Any, weight: Any, bias: Any = None, stride: Ints = 1, padding: Ints = 0, dilation: Ints = 1, groups: int = 1
) -> Tensor:
    """`conv2d` of one row: input [N, C, L] or [C, L], weight [OC, C / groups, K], result [N, OC, OL] or [OC, OL]."""
    batched = _ndim(input, "conv1d", "input", (3, 2), "[N, C, L]") == 3
    _ndim(weight, "conv1d", "weight", (3,), "[OC, C / groups, K]")
    channels = input.shape[-2]
    if weight.shape[1] * groups != channels:
        raise ShapeError(
            f"conv1d: weight.shape[1] = {weight.shape[1]} must equal input.shape[-2] / groups = {channels} / {groups}"
        )
    stride, dilation = _single(stride, "conv1d", "stride"), _single(dilation, "conv1d", "dilation")
    if not isinstance(padding, str):
        padding = (0, _single(padding, "conv1d", "padding"))
    rows = unsqueeze(input if batched else unsqueeze(input, 0), 2)
    out = squeeze(conv2d(rows, unsqueeze(weight, 2), bias, (1, stride), padding, (1, dilation), groups), 2)
    return out if batched else squeeze(out, 0)


def conv_transpose2d(
    input: Any,
    weight: Any,
    bias: Any = None,
    stride: Ints = 1,
    padding: Ints = 0,
    output_padding: Ints = 0,
    groups: int = 1,
    dilation: Ints = 1,
) -> Tensor:
    """The transposed convolution: `conv2d`'s input gradient, with the input in the place of the gradient.

    Parameters
    ----------
    input : [N, C, H, W] or [C, H, W]
    weight : [C, OC / groups, KH, KW]
    bias : [OC] or None
    output_padding : rows and columns added at the far end; less than stride or dilation

    Returns [N, OC, OH, OW] with ``OH = (H - 1) S - 2 P + D (KH - 1) + output_padding + 1``.
    """
    name = "conv_transpose2d"
    if _ndim(input, name, "input", (4, 3), "[N, C, H, W]") == 3:
        batch = unsqueeze(input, 0)
        return squeeze(conv_transpose2d(batch, weight, bias, stride, padding, output_padding, groups, dilation), 0)
    _ndim(weight, name, "weight", (4,), "[C, OC / groups, KH, KW]")
    stride, padding = pair(stride, name, "stride"), pair(padding, name, "padding")
    dilation, extra = pair(dilation, name, "dilation"), pair(output_padding, name, "output_padding")
    if any(e < 0 or e >= max(s, d) for e, s, d in zip(extra, stride, dilation, strict=True)):
        raise ShapeError(f"{name}: output_padding {extra} must be at least 0 and less than stride {stride} or dilation")
    if weight.shape[0] != input.shape[1]:
        raise ShapeError(f"{name}: weight.shape[0] = {weight.shape[0]} must equal input.shape[1] = {input.shape[1]}")
    channels = weight.shape[1] * groups
    if bias is not None and tuple(raw(bias, name, "bias").shape) != (channels,):
        raise ShapeError(f"{name}: bias must have shape [{channels}]; got {list(raw(bias, name, 'bias').shape)}")
    sides = list(zip(input.shape[2:], stride, padding, dilation, weight.shape[2:], extra, strict=True))
    size = [(n - 1) * s - 2 * p + d * (k - 1) + e + 1 for n, s, p, d, k, e in sides]
    if min(size) < (1 if input.shape[0] else 0):
        raise ShapeError(f"{name}: the output size {size} must be at least 1 x 1 for input {list(input.shape)}")
    # What a stride beyond the end holds are the taps of inputs that are 0; so it is where nothing is left to compute.
    more = [max(e // s, e // s - (h - 1) // s, 1 - n) for h, (n, s, _, _, _, e) in zip(size, sides, strict=True)]
    if any(more):
        input = constant_pad_nd(input, [0, more[1], 0, more[0]])
    full = [h + (m - e // s) * s for h, m, (_, s, _, _, _, e) in zip(size, more, sides, strict=True)]
    shape = [input.shape[0], channels, *full]
    out = conv2d_input_grad(input, weight, shape, stride, padding, dilation, groups)
    for i in range(2):
        out = out if full[i] == size[i] else narrow(out, 2 + i, 0, size[i])
    return out if bias is None else out + reshape(bias, (1, -1, 1, 1))


# --- columns of patches ------------------------------------------------------------------------------------------


@op(
    input=lambda g, input_shape, kernel_size, dilation, padding, stride: either(
        "fold", g, input_shape[-2:], kernel_size, dilation, padding, stride
    )
)
def unfold(input: Array, kernel_size: Ints, dilation: Ints = 1, padding: Ints = 0, stride: Ints = 1) -> Any:
    """The patches a convolution sees, as columns (im2col): [N, C, H, W] to [N, C KH KW, OH OW]."""
    _in_range("unfold", kernel_size=kernel_size, dilation=dilation, padding=padding, stride=stride)
    return torch.nn.functional.unfold(input, kernel_size, dilation, padding, stride)


_MOST = 2**31 - 1  # of a window's numbers, so that products of two fit 64 bits


def _in_range(name: str, **given: Any) -> None:
    """Refuse what torch's im2col would overflow with."""
    for argument, value in given.items():
        for n in value if isinstance(value, tuple | list) else [value]:
            if isinstance(n, int) and abs(n) > _MOST:
                raise ShapeError(f"{name}: {argument} must be at most {_MOST}; got {value!r}")


@op(
    name="fold",
    input=lambda g, kernel_size, dilation, padding, stride: either("unfold", g, kernel_size, dilation, padding, stride),
)
def fold_op(input: Array, output_size: Any, kernel_size: Any, dilation: Any, padding: Any, stride: Any) -> Any:
    """`fold` with every parameter given."""
    _in_range("fold", output_size=output_size, kernel_size=kernel_size)
    _in_range("fold", dilation=dilation, padding=padding, stride=stride)
    return torch.nn.functional.fold(input, output_size, kernel_size, dilation, padding, stride)


def fold(
    input: Any, output_size: Ints, kernel_size: Ints, dilation: Ints = 1, padding: Ints = 0, stride: Ints = 1
) -> Tensor:
    """Columns added up where their patches lie (col2im), `unfold`'s transpose: [N, C KH KW, OH OW] to [N, C, H, W]."""
    return fold_op(input, pair(output_size, "fold", "output_size"), kernel_size, dilation, padding, stride)
