"""Convolution and pooling along one dimension and three, adaptive maxima, and the shuffles, composed of ops."""

from __future__ import annotations

from typing import Any

import torch

from ..core import ArgumentError, Ints, ShapeError, Tensor, tensor_argument
from .activation import relu
from .conv import conv2d, conv_transpose2d
from .elementwise import abs, pow, sign
from .indexing import gather, pad
from .pool import adaptive_avg_pool2d, avg_pool2d, max_pool2d
from .shape import flatten, movedim, narrow, permute, reshape, squeeze, stack, unsqueeze

__all__ = [
    "adaptive_avg_pool1d",
    "adaptive_max_pool1d",
    "adaptive_max_pool2d",
    "avg_pool1d",
    "channel_shuffle",
    "conv3d",
    "conv_transpose1d",
    "lp_pool1d",
    "lp_pool2d",
    "max_pool1d",
    "pixel_shuffle",
    "pixel_unshuffle",
]


def _row(value: Any, name: str, argument: str) -> Any:
    """The one number of an int or a sequence of one, for a dimension of its own."""
    if isinstance(value, tuple | list):
        if len(value) != 1:
            raise ArgumentError(f"{name}: {argument} must be an int or one of them; got {value!r}")
        value = value[0]
    return value


def _lines(input: Any, name: str) -> Tensor:
    """[N, C, L] or [C, L] as an image of one row: [..., 1, L]."""
    x = tensor_argument(input, name, "input")
    if x.ndim not in (2, 3):
        raise ShapeError(f"{name}: input must be [N, C, L] or [C, L]; got shape {list(x.shape)}")
    return unsqueeze(x, -2)


def max_pool1d(
    input: Any,
    kernel_size: Ints,
    stride: Ints = None,
    padding: Ints = 0,
    dilation: Ints = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """The largest value of each window: [N, C, L] gives [N, C, OL]. Arguments as of `max_pool2d`."""
    k, p, d = (
        _row(v, "max_pool1d", n)
        for v, n in ((kernel_size, "kernel_size"), (padding, "padding"), (dilation, "dilation"))
    )
    s = k if stride is None or stride == [] else _row(stride, "max_pool1d", "stride")
    out = max_pool2d(_lines(input, "max_pool1d"), (1, k), (1, s), (0, p), (1, d), ceil_mode, return_indices)
    return tuple(squeeze(o, -2) for o in out) if return_indices else squeeze(out, -2)


def avg_pool1d(
    input: Any,
    kernel_size: Ints,
    stride: Ints = None,
    padding: Ints = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Tensor:
    """The mean of each window: [N, C, L] gives [N, C, OL]. Arguments as of `avg_pool2d`."""
    k, p = _row(kernel_size, "avg_pool1d", "kernel_size"), _row(padding, "avg_pool1d", "padding")
    s = k if stride is None else _row(stride, "avg_pool1d", "stride")
    return squeeze(avg_pool2d(_lines(input, "avg_pool1d"), (1, k), (1, s), (0, p), ceil_mode, count_include_pad), -2)


def adaptive_avg_pool1d(input: Any, output_size: Ints) -> Tensor:
    """The mean over ``output_size`` windows: [N, C, L] gives [N, C, output_size]."""
    size = _row(output_size, "adaptive_avg_pool1d", "output_size")
    return squeeze(adaptive_avg_pool2d(_lines(input, "adaptive_avg_pool1d"), (1, size)), -2)


def adaptive_max_pool2d(input: Any, output_size: Ints, return_indices: bool = False) -> Any:
    """The largest value of each of ``output_size`` windows: [N, C, H, W] or [C, H, W] gives [..., OH, OW].

    ``output_size`` is an int or pair, None keeps an extent. With ``return_indices`` the places of the maxima, as
    ``h * W + w``, come too. Of equal values the first gets the gradient, as in torch.
    """
    x = tensor_argument(input, "adaptive_max_pool2d", "input")
    if x.ndim not in (3, 4):
        raise ShapeError(f"adaptive_max_pool2d: input must be [N, C, H, W] or [C, H, W]; got shape {list(x.shape)}")
    wanted = output_size if isinstance(output_size, tuple | list) else (output_size, output_size)
    size = [n if n is not None else extent for n, extent in zip(wanted, x.shape[-2:], strict=True)]
    try:
        places = torch.nn.functional.adaptive_max_pool2d(x.data, size, return_indices=True)[1]
    except RuntimeError as error:
        raise ShapeError(f"adaptive_max_pool2d: {str(error).splitlines()[0]}; got shape {list(x.shape)}") from error
    out = reshape(gather(flatten(x, -2), -1, places.flatten(-2)), tuple(places.shape))
    return (out, Tensor(places)) if return_indices else out


def adaptive_max_pool1d(input: Any, output_size: Ints, return_indices: bool = False) -> Any:
    """The largest value of each of ``output_size`` windows: [N, C, L] gives [N, C, output_size]."""
    size = _row(output_size, "adaptive_max_pool1d", "output_size")
    out = adaptive_max_pool2d(_lines(input, "adaptive_max_pool1d"), (1, size), return_indices)
    return tuple(squeeze(o, -2) for o in out) if return_indices else squeeze(out, -2)


def lp_pool2d(input: Any, norm_type: float, kernel_size: Ints, stride: Ints = None, ceil_mode: bool = False) -> Tensor:
    """``(sum x**p)**(1 / p)`` over each window, p = ``norm_type``; the slope where the sum is 0 is 0."""
    x = tensor_argument(input, "lp_pool2d", "input")
    kh, kw = kernel_size if isinstance(kernel_size, tuple | list) else (kernel_size, kernel_size)
    means = avg_pool2d(pow(x, norm_type), (kh, kw), stride, 0, ceil_mode)
    return pow(sign(means) * relu(abs(means)) * (kh * kw), 1.0 / norm_type)


def lp_pool1d(input: Any, norm_type: float, kernel_size: Ints, stride: Ints = None, ceil_mode: bool = False) -> Tensor:
    """`lp_pool2d` along one dimension: [N, C, L] gives [N, C, OL]."""
    k = _row(kernel_size, "lp_pool1d", "kernel_size")
    s = k if stride is None else _row(stride, "lp_pool1d", "stride")
    means = avg_pool2d(pow(_lines(input, "lp_pool1d"), norm_type), (1, k), (1, s), 0, ceil_mode)
    return squeeze(pow(sign(means) * relu(abs(means)) * k, 1.0 / norm_type), -2)


# --- convolutions ------------------------------------------------------------------------------------------------


def conv_transpose1d(
    input: Any,
    weight: Any,
    bias: Any = None,
    stride: Ints = 1,
    padding: Ints = 0,
    output_padding: Ints = 0,
    groups: int = 1,
    dilation: Ints = 1,
) -> Tensor:
    """The transposed convolution along one dimension: input [N, C, L], weight [C, OC / groups, K] give [N, OC, OL]."""
    name = "conv_transpose1d"
    w = tensor_argument(weight, name, "weight")
    if w.ndim != 3:
        raise ShapeError(f"{name}: weight must be [C, OC / groups, K]; got shape {list(w.shape)}")
    s, p, o, d = (
        _row(v, name, n)
        for v, n in (
            (stride, "stride"), (padding, "padding"), (output_padding, "output_padding"), (dilation, "dilation")
        )
    )  # fmt: skip
    out = conv_transpose2d(_lines(input, name), unsqueeze(w, -2), bias, (1, s), (0, p), (0, o), groups, (1, d))
    return squeeze(out, -2)


def conv3d(
    input: Any,
    weight: Any,
    bias: Any = None,
    stride: Ints = 1,
    padding: Ints = 0,
    dilation: Ints = 1,
    groups: int = 1,
) -> Tensor:
    """Cross-correlation in three dimensions: input [N, C, D, H, W], weight [OC, C / groups, KD, KH, KW].

    The KD slices under the filter become channels, so that it is one `conv2d` over N times OD images; its memory is
    KD / stride times the input's. ``padding`` may be "valid" or "same" (stride 1), as of `conv2d`.
    """
    x, w = tensor_argument(input, "conv3d", "input"), tensor_argument(weight, "conv3d", "weight")
    batched = x.ndim == 5
    x = x if batched else unsqueeze(x, 0)
    if x.ndim != 5 or w.ndim != 5 or w.shape[1] * groups != x.shape[1]:
        raise ShapeError(
            "conv3d: input [N, C, D, H, W] (or without N) and weight [OC, C / groups, KD, KH, KW] must fit; got "
            f"{list(x.shape)} and {list(w.shape)}, groups = {groups}"
        )
    s, d = (_three(v, n) for v, n in ((stride, "stride"), (dilation, "dilation")))
    if not isinstance(padding, str) and min(_three(padding, "padding")) < 0:
        raise ArgumentError(f"conv3d: padding must not be negative; got {padding!r}")
    k = tuple(w.shape[2:])
    if isinstance(padding, str):
        if padding not in ("valid", "same") or (padding == "same" and s != (1, 1, 1)):
            raise ArgumentError(f'conv3d: padding must be "valid" or, with stride 1, "same"; got {padding!r}')
        total = [a * (b - 1) if padding == "same" else 0 for a, b in zip(d, k, strict=True)]
        sides = [(t // 2, t - t // 2) for t in total]
    else:
        sides = [(p, p) for p in _three(padding, "padding")]
    if any(any(side) for side in sides):
        x = pad(x, [n for side in reversed(sides) for n in side])
    n, c, depth = x.shape[:3]
    reach = d[0] * (k[0] - 1) + 1
    if depth < reach or min(s) < 1 or min(d) < 1:
        raise ShapeError(f"conv3d: a filter {list(k)} does not fit a padded input of shape {list(x.shape)}")
    od = (depth - reach) // s[0] + 1
    taps = [narrow(x, 2, i * d[0], (od - 1) * s[0] + 1)[:, :, :: s[0]] for i in range(k[0])]  # each [N, C, OD, H, W]
    images = reshape(permute(stack(taps, 2), (0, 3, 1, 2, 4, 5)), (n * od, c * k[0], *x.shape[3:]))
    flat = reshape(w, (w.shape[0], w.shape[1] * k[0], *k[1:]))
    out = conv2d(images, flat, bias, s[1:], 0, d[1:], groups)
    out = movedim(reshape(out, (n, od, *out.shape[1:])), 1, 2)
    return out if batched else squeeze(out, 0)


def _three(value: Any, argument: str) -> tuple[int, int, int]:
    values = tuple(value) if isinstance(value, tuple | list) else (value,) * 3
    if len(values) == 1:
        values *= 3
    if len(values) != 3:
        raise ArgumentError(f"conv3d: {argument} must be an int or three of them; got {value!r}")
    return values


# --- shuffles ----------------------------------------------------------------------------------------------------


def pixel_shuffle(input: Any, upscale_factor: int) -> Tensor:
    """Channels into space: [..., C r**2, H, W] gives [..., C, H r, W r]. Source: Shi et al. (2016)."""
    x, r = tensor_argument(input, "pixel_shuffle", "input"), upscale_factor
    if x.ndim < 3 or r < 1 or x.shape[-3] % (r * r):
        raise ShapeError(f"pixel_shuffle: input must be [..., C * {r}**2, H, W]; got shape {list(x.shape)}")
    *lead, c, h, w = x.shape
    parts, n = reshape(x, (*lead, c // (r * r), r, r, h, w)), len(lead)
    order = (*range(n), n, n + 3, n + 1, n + 4, n + 2)
    return reshape(permute(parts, order), (*lead, c // (r * r), h * r, w * r))


def pixel_unshuffle(input: Any, downscale_factor: int) -> Tensor:
    """Space into channels, the inverse of `pixel_shuffle`: [..., C, H r, W r] gives [..., C r**2, H, W]."""
    x, r = tensor_argument(input, "pixel_unshuffle", "input"), downscale_factor
    if x.ndim < 3 or r < 1 or x.shape[-2] % r or x.shape[-1] % r:
        raise ShapeError(f"pixel_unshuffle: input must be [..., C, H * {r}, W * {r}]; got shape {list(x.shape)}")
    *lead, c, h, w = x.shape
    parts, n = reshape(x, (*lead, c, h // r, r, w // r, r)), len(lead)
    order = (*range(n), n, n + 2, n + 4, n + 1, n + 3)
    return reshape(permute(parts, order), (*lead, c * r * r, h // r, w // r))


def channel_shuffle(input: Any, groups: int) -> Tensor:
    """Channels of ``groups`` groups interleaved, [N, C, ...]. Source: Zhang et al., ShuffleNet (2018)."""
    x = tensor_argument(input, "channel_shuffle", "input")
    if x.ndim < 3 or groups < 1 or x.shape[1] % groups:
        raise ShapeError(
            f"channel_shuffle: input must be [N, C, ...] with C divisible by {groups}; got {list(x.shape)}"
        )
    n, c, *rest = x.shape
    return reshape(reshape(x, (n, groups, c // groups, *rest)).transpose(1, 2), (n, c, *rest))
