"""Pooling of volumes, pooling at random places, its inverse, and the rarer functions of networks; composed of ops."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from ..core import ArgumentError, Array, Ints, ShapeError, Tensor, either, op, raw, tensor_argument, verify
from .activation import relu
from .elementwise import abs, pow, sign
from .indexing import gather, getitem, pad
from .linalg import linear
from .loss import cross_entropy
from .random import raw_uniform
from .reduce import mean
from .scatters import scatter
from .shape import flatten, reshape, transpose, unsqueeze
from .windows import conv3d

__all__ = [
    "adaptive_avg_pool3d",
    "adaptive_max_pool3d",
    "avg_pool3d",
    "conv_transpose3d",
    "fractional_max_pool2d",
    "fractional_max_pool3d",
    "linear_cross_entropy",
    "lp_pool3d",
    "max_pool3d",
    "max_unpool1d",
    "max_unpool2d",
    "max_unpool3d",
    "pdist",
]

aten = torch.ops.aten


def three(value: Any, name: str, argument: str) -> list[int]:
    """An int, or three of them, as a list of three."""
    several = list(value) if isinstance(value, tuple | list) else [value]
    several = several * 3 if len(several) == 1 else several
    if len(several) != 3:
        raise ArgumentError(f"{name}: {argument} must be an int or three of them; got {value!r}")
    return several


def _volumes(input: Any, name: str) -> Tensor:
    x = tensor_argument(input, name, "input")
    if x.ndim not in (4, 5):
        raise ShapeError(f"{name}: input must be [N, C, D, H, W] or [C, D, H, W]; got shape {list(x.shape)}")
    return x


def _at(x: Tensor, places: torch.Tensor, dims: int) -> Tensor:
    """The elements of the last ``dims`` dimensions at the places, counted row by row."""
    return reshape(gather(flatten(x, -dims), -1, places.flatten(-dims)), tuple(places.shape))


# --- maxima ------------------------------------------------------------------------------------------------------


def max_pool3d(
    input: Any,
    kernel_size: Ints,
    stride: Ints = None,
    padding: Ints = 0,
    dilation: Ints = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """The maximum of each window of volumes [N, C, D, H, W] or [C, D, H, W]; arguments as of `max_pool2d`."""
    name = "max_pool3d"
    x = _volumes(input, name)
    kernel = three(kernel_size, name, "kernel_size")
    step = kernel if stride is None or stride in ([], ()) else three(stride, name, "stride")
    sides, spread = three(padding, name, "padding"), three(dilation, name, "dilation")
    places = torch.nn.functional.max_pool3d(x.data, kernel, step, sides, spread, ceil_mode, return_indices=True)[1]
    out = _at(x, places, 3)
    return (out, Tensor(places)) if return_indices else out


def adaptive_max_pool3d(input: Any, output_size: Ints, return_indices: bool = False) -> Any:
    """The maxima of volumes in windows that give ``output_size`` (None keeps an extent)."""
    x = _volumes(input, "adaptive_max_pool3d")
    wanted = three(output_size, "adaptive_max_pool3d", "output_size")
    size = [n if n is not None else extent for n, extent in zip(wanted, x.shape[-3:], strict=True)]
    places = torch.nn.functional.adaptive_max_pool3d(x.data, size, return_indices=True)[1]
    out = _at(x, places, 3)
    return (out, Tensor(places)) if return_indices else out


def _fractional(
    dims: int,
    input: Any,
    kernel_size: Any,
    output_size: Any,
    output_ratio: Any,
    return_indices: bool,
    samples: Any,
) -> Any:
    name = f"fractional_max_pool{dims}d"
    x = tensor_argument(input, name, "input")
    if x.ndim not in (dims + 1, dims + 2):
        raise ShapeError(f"{name}: input must have {dims + 1} or {dims + 2} dimensions; got shape {list(x.shape)}")

    def several(value: Any) -> list[Any]:
        return list(value) if isinstance(value, tuple | list) else [value] * dims

    if (output_size is None) == (output_ratio is None):
        raise ArgumentError(f"{name}: one of output_size and output_ratio must be given")
    if output_ratio is not None:
        ratios = several(output_ratio)
        if not all(0 < r < 1 for r in ratios):
            raise ArgumentError(f"{name}: output_ratio must be between 0 and 1; got {output_ratio!r}")
        size = [int(n * r) for n, r in zip(x.shape[-dims:], ratios, strict=True)]
    else:
        size = several(output_size)
    batch = 1 if x.ndim == dims + 1 else x.shape[0]
    if samples is None:
        samples = raw_uniform((batch, x.shape[-dims - 1], dims), x.dtype, None, name)
    function = getattr(aten, name)
    places = function(x.data, several(kernel_size), size, raw(samples, name, "_random_samples"))[1]
    out = _at(x, places, dims)
    return (out, Tensor(places)) if return_indices else out


def fractional_max_pool2d(
    input: Any,
    kernel_size: Ints,
    output_size: Ints = None,
    output_ratio: Any = None,
    return_indices: bool = False,
    _random_samples: Any = None,
) -> Any:
    """The maxima of images in windows at random places, of a size or a ratio of the input's (Graham, 2014)."""
    return _fractional(2, input, kernel_size, output_size, output_ratio, return_indices, _random_samples)


def fractional_max_pool3d(
    input: Any,
    kernel_size: Ints,
    output_size: Ints = None,
    output_ratio: Any = None,
    return_indices: bool = False,
    _random_samples: Any = None,
) -> Any:
    """`fractional_max_pool2d` of volumes."""
    return _fractional(3, input, kernel_size, output_size, output_ratio, return_indices, _random_samples)


def _unpool(dims: int, input: Any, indices: Any, kernel_size: Any, stride: Any, padding: Any, output_size: Any) -> Any:
    name = f"max_unpool{dims}d"
    x, places = tensor_argument(input, name, "input"), raw(indices, name, "indices")
    if x.ndim not in (dims + 1, dims + 2) or places.shape != x.shape:
        raise ShapeError(
            f"{name}: input must have {dims + 1} or {dims + 2} dimensions, and indices its shape; got "
            f"{list(x.shape)} and {list(places.shape)}"
        )

    def several(value: Any) -> list[int]:
        return list(value) if isinstance(value, tuple | list) else [value] * dims

    kernel, sides = several(kernel_size), several(padding)
    step = kernel if stride is None or stride in ([], ()) else several(stride)
    size = [(n - 1) * s - 2 * p + k for n, s, p, k in zip(x.shape[-dims:], step, sides, kernel, strict=True)]
    if output_size is not None:
        wanted = list(output_size)[-dims:]
        for want, least, s in zip(wanted, size, step, strict=True):
            if not least - s < want < least + s:
                raise ArgumentError(f"{name}: output_size {wanted} must be less than the stride away from {size}")
        size = wanted
    n = math.prod(size)
    inside = (places >= 0) & (places < n)
    verify(inside, lambda: ArgumentError(f"{name}: indices must lie in [0, {n}), the output's elements {size}"))
    flat = scatter(x.new_zeros((*x.shape[:-dims], n)), -1, places.flatten(-dims), flatten(x, -dims))
    return reshape(flat, (*x.shape[:-dims], *size))


def max_unpool1d(
    input: Any, indices: Any, kernel_size: Ints, stride: Ints = None, padding: Ints = 0, output_size: Any = None
) -> Tensor:
    """The inverse of `max_pool1d`: maxima [N, C, L] or [C, L] at their indices, 0 elsewhere."""
    return _unpool(1, input, indices, kernel_size, stride, padding, output_size)  # type: ignore[no-any-return]


def max_unpool2d(
    input: Any, indices: Any, kernel_size: Ints, stride: Ints = None, padding: Ints = 0, output_size: Any = None
) -> Tensor:
    """The inverse of `max_pool2d`: maxima at their indices, 0 elsewhere."""
    return _unpool(2, input, indices, kernel_size, stride, padding, output_size)  # type: ignore[no-any-return]


def max_unpool3d(
    input: Any, indices: Any, kernel_size: Ints, stride: Ints = None, padding: Ints = 0, output_size: Any = None
) -> Tensor:
    """The inverse of `max_pool3d`: maxima at their indices, 0 elsewhere."""
    return _unpool(3, input, indices, kernel_size, stride, padding, output_size)  # type: ignore[no-any-return]


# --- means -------------------------------------------------------------------------------------------------------


@op(
    g=lambda u, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override: either(
        "avg_pool3d", u, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override
    )
)
def avg_pool3d_backward(
    g: Array,
    input_size: Sequence[int],
    kernel_size: Any,
    stride: Any,
    padding: Any,
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: int | None,
) -> Any:
    """The gradient of `avg_pool3d`: each output's share spread over its window."""
    shaped = torch.empty(1, dtype=g.dtype).expand(tuple(input_size))  # only its shape is read
    return aten.avg_pool3d_backward(
        g.contiguous(), shaped, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override
    )


@op(
    name="avg_pool3d",
    input=lambda g, input_shape, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override: either(
        "avg_pool3d_backward",
        g,
        tuple(input_shape),
        kernel_size,
        stride,
        padding,
        ceil_mode,
        count_include_pad,
        divisor_override,
    ),
)
def avg_pool3d_op(
    input: Array,
    kernel_size: Any,
    stride: Any,
    padding: Any,
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: int | None,
) -> Any:
    """`avg_pool3d` with all its arguments."""
    return aten.avg_pool3d(input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)


def avg_pool3d(
    input: Any,
    kernel_size: Ints,
    stride: Ints = None,
    padding: Ints = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """The mean of each window of volumes [N, C, D, H, W] or [C, D, H, W]; arguments as of `avg_pool2d`."""
    name = "avg_pool3d"
    kernel = three(kernel_size, name, "kernel_size")
    step = kernel if stride is None or stride in ([], ()) else three(stride, name, "stride")
    sides = three(padding, name, "padding")
    return avg_pool3d_op(_volumes(input, name), kernel, step, sides, ceil_mode, count_include_pad, divisor_override)


@op(g=lambda u, g_shape: either("adaptive_avg_pool3d", u, list(g_shape[-3:])))
def adaptive_avg_pool3d_backward(g: Array, input_size: Sequence[int]) -> Any:
    """The gradient of `adaptive_avg_pool3d`."""
    if not g.numel():
        return torch.zeros(tuple(input_size), dtype=g.dtype)
    shaped = torch.empty(1, dtype=g.dtype).expand(tuple(input_size))
    return aten._adaptive_avg_pool3d_backward(g.contiguous(), shaped)


@op(
    name="adaptive_avg_pool3d",
    input=lambda g, input_shape: either("adaptive_avg_pool3d_backward", g, tuple(input_shape)),
)
def adaptive_avg_pool3d_op(input: Array, output_size: Sequence[int]) -> Any:
    """`adaptive_avg_pool3d` of a size."""
    return aten._adaptive_avg_pool3d(input, output_size)


def adaptive_avg_pool3d(input: Any, output_size: Ints) -> Tensor:
    """The means of volumes in windows that give ``output_size`` (None keeps an extent)."""
    x = _volumes(input, "adaptive_avg_pool3d")
    wanted = three(output_size, "adaptive_avg_pool3d", "output_size")
    size = [n if n is not None else extent for n, extent in zip(wanted, x.shape[-3:], strict=True)]
    if min(size) < 0:
        raise ShapeError(f"adaptive_avg_pool3d: output_size must not be negative; got {output_size!r}")
    if size == [1, 1, 1] and 0 in x.shape[-4:]:
        return mean(x, (-3, -2, -1), True)  # of nothing: NaN
    return adaptive_avg_pool3d_op(x, size)


def lp_pool3d(input: Any, norm_type: float, kernel_size: Ints, stride: Ints = None, ceil_mode: bool = False) -> Tensor:
    """``(sum x**norm_type)**(1 / norm_type)`` of each window of volumes."""
    kernel = three(kernel_size, "lp_pool3d", "kernel_size")
    means = avg_pool3d(pow(_volumes(input, "lp_pool3d"), norm_type), kernel, stride, 0, ceil_mode)
    return pow(sign(means) * relu(abs(means)) * math.prod(kernel), 1.0 / norm_type)


# --- convolutions ------------------------------------------------------------------------------------------------


def conv_transpose3d(
    input: Any,
    weight: Any,
    bias: Any = None,
    stride: Ints = 1,
    padding: Ints = 0,
    output_padding: Ints = 0,
    groups: int = 1,
    dilation: Ints = 1,
) -> Tensor:
    """The transpose of `conv3d`: weight [C, OC / groups, KD, KH, KW]; arguments as of `conv_transpose2d`.

    It is `conv3d` with the filters turned round, over the input with ``stride - 1`` zeros between its elements.
    """
    name = "conv_transpose3d"
    x, w = tensor_argument(input, name, "input"), tensor_argument(weight, name, "weight")
    batched = x.ndim == 5
    x = x if batched else unsqueeze(x, 0)
    if x.ndim != 5 or w.ndim != 5 or w.shape[0] != x.shape[1] or w.shape[0] % groups:
        raise ShapeError(
            f"{name}: input [N, C, D, H, W] (or without N) and weight [C, OC / groups, KD, KH, KW] must fit; got "
            f"{list(x.shape)} and {list(w.shape)}, groups = {groups}"
        )
    s, p, o, d = (
        three(v, name, n)
        for v, n in (
            (stride, "stride"), (padding, "padding"), (output_padding, "output_padding"), (dilation, "dilation")
        )
    )  # fmt: skip
    if any(more >= max(a, b) for more, a, b in zip(o, s, d, strict=True)):
        raise ArgumentError(f"{name}: output_padding must be less than stride or dilation; got {o}, {s} and {d}")
    if 0 in x.shape:
        extents = [
            (n - 1) * a - 2 * b + e * (k - 1) + more + 1
            for n, a, b, e, k, more in zip(x.shape[2:], s, p, d, w.shape[2:], o, strict=True)
        ]
        if min(extents) < 0:
            raise ShapeError(f"{name}: an input of shape {list(x.shape)} is too small for its padding and filter")
        nothing = x.sum() + w.narrow(0, 0, 0).sum()  # 0, but both have a gradient: zeros
        out = x.new_zeros((x.shape[0], w.shape[1] * groups, *extents)) + nothing
        out = out if bias is None else out + reshape(bias, (-1, 1, 1, 1))
        return out if batched else out[0]
    for dim, step in zip((2, 3, 4), s, strict=True):
        if step > 1:  # [.., n, ..] -> [.., n, step, ..] -> [.., (n - 1) step + 1, ..]
            shape = x.shape
            wide = pad(unsqueeze(x, dim + 1), (0, 0) * (4 - dim) + (0, step - 1))
            x = reshape(wide, (*shape[:dim], shape[dim] * step, *shape[dim + 1 :])).narrow(
                dim, 0, (shape[dim] - 1) * step + 1
            )
    sides = [(dd * (k - 1) - pp, dd * (k - 1) - pp + oo) for dd, k, pp, oo in zip(d, w.shape[2:], p, o, strict=True)]
    x = pad(x, [n for side in reversed(sides) for n in side])
    c, oc = w.shape[:2]
    turned = reshape(w.flip((2, 3, 4)), (groups, c // groups, oc, *w.shape[2:]))
    turned = reshape(transpose(turned, 1, 2), (groups * oc, c // groups, *w.shape[2:]))
    out = conv3d(x, turned, bias, 1, 0, d, groups)
    return out if batched else out[0]


# --- distances and losses ----------------------------------------------------------------------------------------


def pdist(input: Any, p: float = 2.0) -> Tensor:
    """The ``p``-norm distances of rows [N, M], pair by pair: [N (N - 1) / 2]."""
    x = tensor_argument(input, "pdist", "input")
    if x.ndim != 2 or not x.is_floating_point():
        raise ShapeError(f"pdist: input must be floats [N, M]; got shape {list(x.shape)}, {x.dtype}")
    i, j = torch.triu_indices(x.shape[0], x.shape[0], 1)
    return (getitem(x, i) - getitem(x, j)).norm(float(p), -1)


def linear_cross_entropy(
    input: Any,
    linear_weight: Any,
    target: Any,
    *,
    linear_bias: Any = None,
    weight: Any = None,
    reduction: str = "mean",
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
    options: Any = None,
) -> Tensor:
    """`cross_entropy` of `linear`; arguments as theirs. ``options`` say how torch cuts it up, and change nothing."""
    w = tensor_argument(linear_weight, "linear_cross_entropy", "linear_weight")
    x = tensor_argument(input, "linear_cross_entropy", "input")
    classes, rest = w.shape[0], tuple(w.shape[1:-1])
    bias = None if linear_bias is None else reshape(linear_bias, (-1,))
    logits = linear(x, reshape(w, (-1, w.shape[-1])) if rest else w, bias)
    if rest:  # [N, C d1 ... dK] -> [N, C, d1, ..., dK]
        logits = reshape(logits, (*logits.shape[:-1], classes, *rest))
    ignored = -100 if ignore_index is None else ignore_index
    return cross_entropy(logits, target, weight, ignored, reduction, label_smoothing)
