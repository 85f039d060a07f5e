"""Normalisation: kernels forward and for first derivatives, the formula when a rule is recorded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ..core import _C, ArgumentError, Array, ShapeError, Tensor, op, raw

__all__ = [
    "batch_norm",
    "group_norm",
    "layer_norm",
]


def _standard(input: Any, dims: Sequence[int], eps: float, mean: Any) -> tuple[Any, Any]:
    """((x - mean) / sqrt(var + eps), 1 / sqrt(var + eps)) over `dims`, differentiably.

    `mean` is that of the forward call, a constant: it takes away an offset that would cost the rest its accuracy.
    """
    near = input - mean.to(input.dtype)
    centred = near - near.mean(dims, True)
    rstd = torch.rsqrt((centred * centred).mean(dims, True) + eps)
    return centred * rstd, rstd


def _input_rule(g: Any, input: Any, dims: Sequence[int], eps: float, mean: Any) -> Any:
    """d standardised input: rstd (g - mean g - xhat mean(g xhat)), means over `dims` (Ioffe and Szegedy, 2015)."""
    xhat, rstd = _standard(input, dims, eps, mean)
    return rstd * (g - g.mean(dims, True) - xhat * (g * xhat).mean(dims, True))


# --- batch_norm --------------------------------------------------------------------------------------------------


def _per_channel(x: Any, ndim: int) -> Any:
    """[C] shaped to multiply [N, C, ...]."""
    return x.reshape([1, -1] + [1] * (ndim - 2))


def _but_channels(ndim: int) -> list[int]:
    return [0, *range(2, ndim)]


@op(
    name="batch_norm",
    residuals=("stats",),
    input=lambda g, input, weight, stats, eps: _input_rule(
        g if weight is None else g * _per_channel(weight, g.ndim),
        input,
        _but_channels(g.ndim),
        eps,
        _per_channel(stats[0], g.ndim),
    ),
    weight=lambda g, input, stats, eps: (
        g * _standard(input, _but_channels(g.ndim), eps, _per_channel(stats[0], g.ndim))[0]
    ).sum(_but_channels(g.ndim)),
    bias=lambda g: g.sum(_but_channels(g.ndim)),
    backward=lambda g, input, weight, stats, needs: (
        _C.batch_norm_backward(g, input, weight, stats, True, *needs)
        if input is not None
        else (None, None, _C.sum(g, _but_channels(g.ndim), False))
    ),
)
def batch_norm_op(
    input: Array, weight: Array | None, bias: Array | None, running: Any, momentum: float, eps: float
) -> Any:
    """`batch_norm` in training: statistics of this batch, which also move the running ones."""
    out, stats = _C.batch_norm(input, weight, bias, None, None, eps)
    if running is not None:
        _C.move_statistics_([running[0]], [running[1]], stats, momentum)
    return out, stats


def _running_scale(weight: Any, stats: Any, g: Any) -> Any:
    """weight / sqrt(running_var + eps), to multiply [N, C, ...]."""
    rstd = stats[1].to(g.dtype)
    return _per_channel(rstd if weight is None else weight * rstd, g.ndim)


@op(
    name="batch_norm_eval",
    residuals=("stats",),
    input=lambda g, weight, stats: g * _running_scale(weight, stats, g),
    weight=lambda g, input, stats: (
        g * (input - _per_channel(stats[0].to(g.dtype), g.ndim)) * _running_scale(None, stats, g)
    ).sum(_but_channels(g.ndim)),
    bias=lambda g: g.sum(_but_channels(g.ndim)),
    backward=lambda g, input, weight, stats, needs: _C.batch_norm_backward(
        g, g if input is None else input, weight, stats, False, *needs
    ),
)
def batch_norm_eval_op(input: Array, weight: Array | None, bias: Array | None, running: Any, eps: float) -> Any:
    """`batch_norm` by the running statistics, which are constants."""
    mean, var = running
    return _C.batch_norm(input, weight, bias, mean, var, eps)


def batch_norm(
    input: Any,
    running_mean: Any,
    running_var: Any,
    weight: Any = None,
    bias: Any = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """``y = (x - mean) / sqrt(var + eps) * weight + bias`` per channel.

    Parameters
    ----------
    input : [N, C] or [N, C, ...]
    running_mean, running_var : [C] or None; in training they move by ``momentum`` towards this batch's mean and
        (unbiased) variance, otherwise they take the batch's place
    weight, bias : [C] or None
    training : use this batch's statistics

    Source: Ioffe and Szegedy, Batch Normalization (ICML 2015).
    """
    if eps < 0 or (training and not eps > 0):
        expected = "positive in training" if training else "at least 0"
        raise ArgumentError(f"batch_norm: eps must be {expected}; got {eps}")
    x = raw(input, "batch_norm", "input")
    if not isinstance(x, torch.Tensor) or x.ndim < 2:
        raise ShapeError(f"batch_norm: input must have at least 2 dimensions [N, C, ...]; got {getattr(x, 'shape', x)}")
    channels = x.shape[1]
    arguments = {"running_mean": running_mean, "running_var": running_var, "weight": weight, "bias": bias}
    given = {name: raw(value, "batch_norm", name) for name, value in arguments.items()}
    for name, value in given.items():
        if value is not None and list(value.shape) != [channels]:
            raise ShapeError(
                f"batch_norm: {name} must have shape [{channels}], that of the channels; got {list(value.shape)}"
            )
    mean, var = given["running_mean"], given["running_var"]
    if (mean is None) != (var is None):
        raise ArgumentError("batch_norm: running_mean and running_var must be given together")
    if training:
        if x.shape[0] * x.shape[2:].numel() == 1:
            raise ShapeError(
                f"batch_norm: training needs more than 1 value per channel; got input shape {list(x.shape)}"
            )
        if x.numel():
            return batch_norm_op(input, weight, bias, None if mean is None else (mean, var), momentum, eps)
        mean, var = torch.zeros(channels, dtype=x.dtype), torch.ones(channels, dtype=x.dtype)  # nothing has statistics
    if mean is None:
        raise ArgumentError("batch_norm: running_mean and running_var must be given unless training")
    return batch_norm_eval_op(input, weight, bias, (mean, var), eps)


# --- layer_norm --------------------------------------------------------------------------------------------------


def _last(count: int, ndim: int) -> list[int]:
    return list(range(ndim - count, ndim))


def _lead_sum(g: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """g [..., *shape] summed to `shape`."""
    lead = g.ndim - len(shape)
    return _C.sum(g, list(range(lead)), False) if lead else g.clone()


@op(
    residuals=("stats",),
    input=lambda g, input, normalized_shape, weight, stats, eps: _input_rule(
        g if weight is None else g * weight, input, _last(len(normalized_shape), g.ndim), eps, stats[0]
    ),
    weight=lambda g, input, normalized_shape, stats, eps: (
        g * _standard(input, _last(len(normalized_shape), g.ndim), eps, stats[0])[0]
    ),
    bias=lambda g: g,
    backward=lambda g, input, normalized_shape, weight, stats, needs: (
        _C.layer_norm_backward(g, input, list(normalized_shape), weight, stats, *needs)
        if input is not None
        else (None, None, _lead_sum(g, normalized_shape))
    ),
)
def layer_norm(
    input: Array,
    normalized_shape: Sequence[int],
    weight: Array | None = None,
    bias: Array | None = None,
    eps: float = 1e-5,
) -> Any:
    """``y = (x - mean) / sqrt(var + eps) * weight + bias`` over the last dimensions.

    Parameters
    ----------
    input : [..., *normalized_shape]
    normalized_shape : the last sizes, over which mean and (biased) variance are taken
    weight, bias : of ``normalized_shape``, or None

    Source: Ba, Kiros and Hinton, Layer Normalization (2016).
    """
    return _C.layer_norm(input, list(normalized_shape), weight, bias, eps)


# --- group_norm --------------------------------------------------------------------------------------------------


def _grouped(x: Any, groups: int) -> Any:
    """[N, C, ...] as [N, groups, C / groups * ...]."""
    return x.reshape([x.shape[0], groups, x.shape[1:].numel() // groups])


@op(
    residuals=("stats",),
    input=lambda g, input, num_groups, weight, stats, eps: _input_rule(
        _grouped(g if weight is None else g * _per_channel(weight, g.ndim), num_groups),
        _grouped(input, num_groups),
        [2],
        eps,
        stats[0],
    ).reshape(input.shape),
    weight=lambda g, input, num_groups, stats, eps: (
        g * _standard(_grouped(input, num_groups), [2], eps, stats[0])[0].reshape(g.shape)
    ).sum(_but_channels(g.ndim)),
    bias=lambda g: g.sum(_but_channels(g.ndim)),
    backward=lambda g, input, num_groups, weight, stats, needs: (
        _C.group_norm_backward(g, input, num_groups, weight, stats, *needs)
        if input is not None
        else (None, None, _C.sum(g, _but_channels(g.ndim), False))
    ),
)
def group_norm(
    input: Array, num_groups: int, weight: Array | None = None, bias: Array | None = None, eps: float = 1e-5
) -> Any:
    """``y = (x - mean) / sqrt(var + eps) * weight + bias``, statistics over each group of channels of each sample.

    Parameters
    ----------
    input : [N, C, ...]
    num_groups : divides C
    weight, bias : [C] or None

    Source: Wu and He, Group Normalization (ECCV 2018).
    """
    if input.ndim < 2 or num_groups < 1 or input.shape[1] % num_groups:
        raise ShapeError(f"group_norm: num_groups = {num_groups} must divide input.shape[1] of {list(input.shape)}")
    for name, value in (("weight", weight), ("bias", bias)):
        if value is not None and list(value.shape) != [input.shape[1]]:
            raise ShapeError(f"group_norm: {name} must have shape [{input.shape[1]}]; got {list(value.shape)}")
    return _C.group_norm(input, num_groups, weight, bias, eps)
