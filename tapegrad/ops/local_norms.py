"""Normalisations composed of ops: of each image's channels, by the root mean square, by neighbouring channels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ..core import ShapeError, Tensor, raw, tensor_argument
from .elementwise import pow, rsqrt, square
from .indexing import pad
from .normalization import batch_norm
from .pool import avg_pool2d
from .reduce import mean
from .shape import flatten, reshape, squeeze, unsqueeze

__all__ = ["instance_norm", "local_response_norm", "rms_norm"]


def instance_norm(
    input: Any,
    running_mean: Any = None,
    running_var: Any = None,
    weight: Any = None,
    bias: Any = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """`batch_norm` of every channel of every example by itself: [N, C, ...], statistics over the dimensions behind.

    Running statistics [C], where given, move towards the mean over the examples of theirs. Source: Ulyanov et al.,
    Instance Normalization (2016).
    """
    x = tensor_argument(input, "instance_norm", "input")
    if x.ndim < 3 or (use_input_stats and x.shape[2:].numel() == 1):
        raise ShapeError(
            f"instance_norm: input must be [N, C, ...] with more than 1 value a channel; got shape {list(x.shape)}"
        )
    n, c = x.shape[:2]
    kept = [None if v is None else raw(v, "instance_norm", "running statistics") for v in (running_mean, running_var)]
    means, variances = (None if v is None else v.repeat(n) for v in kept)
    scale, shift = (
        None if v is None else tensor_argument(v, "instance_norm", "weight").repeat((n,)) for v in (weight, bias)
    )
    flat = reshape(x, (1, n * c, *x.shape[2:]))
    out = batch_norm(flat, means, variances, scale, shift, use_input_stats, momentum, eps)
    if use_input_stats:
        for statistic, copy in zip(kept, (means, variances), strict=True):
            if statistic is not None and copy is not None:
                statistic.copy_(copy.view(n, c).mean(0))
    return reshape(out, tuple(x.shape))


def rms_norm(input: Any, normalized_shape: Sequence[int], weight: Any = None, eps: float | None = None) -> Tensor:
    """``x / sqrt(mean(x**2) + eps) * weight``, the mean over the last dimensions, of ``normalized_shape``.

    ``eps`` is the dtype's machine epsilon unless given. Source: Zhang and Sennrich, Root Mean Square Layer
    Normalization (2019).
    """
    x = tensor_argument(input, "rms_norm", "input")
    shape = [normalized_shape] if isinstance(normalized_shape, int) else list(normalized_shape)
    if not shape or list(x.shape[-len(shape) :]) != shape:
        raise ShapeError(f"rms_norm: input must end in normalized_shape = {shape}; got shape {list(x.shape)}")
    eps = torch.finfo(x.dtype).eps if eps is None else eps
    out = x * rsqrt(mean(square(x), tuple(range(-len(shape), 0)), True) + eps)
    return out if weight is None else out * weight


def local_response_norm(input: Any, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> Tensor:
    """``x / (k + alpha * m)**beta``, m the mean of x**2 over ``size`` neighbouring channels (zeros beyond the ends).

    Shapes: input [N, C, ...], output the same. Source: Krizhevsky et al. (2012).
    """
    x = tensor_argument(input, "local_response_norm", "input")
    if x.ndim < 3 or size < 1:
        raise ShapeError(f"local_response_norm: input must be [N, C, ...], size >= 1; got {list(x.shape)}, {size}")
    if not x.numel():
        return x
    flat = flatten(unsqueeze(square(x), 1), 3)  # [N, 1, C, L]
    means = avg_pool2d(pad(flat, (0, 0, size // 2, (size - 1) // 2)), (size, 1), 1)
    return x / pow(reshape(squeeze(means, 1), tuple(x.shape)) * alpha + k, beta)
