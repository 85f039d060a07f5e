"""Normalisation: torch's fused kernels forward and for first derivatives, the formula when a rule is recorded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ..core import ArgumentError, Array, ShapeError, Tensor, op, raw

__all__ = [
    "batch_norm",
    "group_norm",
    "layer_norm",
]


aten = torch.ops.aten


def _standard(input: Any, dims: Sequence[int], eps: float) -> tuple[Any, Any]:
    """((x - mean) / sqrt(var + eps), 1 / sqrt(var + eps)) over `dims`, differentiably."""
    centred = input - input.mean(dims, True)
    rstd = torch.rsqrt((centred * centred).mean(dims, True) + eps)
    return centred * rstd, rstd


def _input_rule(g: Any, input: Any, dims: Sequence[int], eps: float) -> Any:
    """d standardised input: rstd (g - mean g - xhat mean(g xhat)), means over `dims` (Ioffe and Szegedy, 2015)."""
    xhat, rstd = _standard(input, dims, eps)
    return rstd * (g - g.mean(dims, True) - xhat * (g * xhat).mean(dims, True))


def _dense(x: torch.Tensor | None) -> torch.Tensor | None:
    """torch's kernels read a weight through its pointer, as if it had no gaps."""
    return None if x is None else x.contiguous()


def _given(x: torch.Tensor | None, shape: torch.Size, need: bool, g: torch.Tensor) -> torch.Tensor | None:
    """`x` without gaps; where its gradient is needed but not its value, memory of its shape, which torch asks for."""
    return torch.empty(shape, dtype=g.dtype) if x is None and need else _dense(x)


# --- batch_norm --------------------------------------------------------------------------------------------------


def _per_channel(x: Any, ndim: int) -> Any:
    """[C] shaped to multiply [N, C, ...]."""
    return x.reshape([1, -1] + [1] * (ndim - 2))


def _but_channels(ndim: int) -> list[int]:
    return [0, *range(2, ndim)]


@op(
    name="batch_norm",
    residuals=("mean", "rstd"),
    input=lambda g, input, weight, eps: _input_rule(
        g if weight is None else g * _per_channel(weight, g.ndim), input, _but_channels(g.ndim), eps
    ),
    weight=lambda g, input, eps: (g * _standard(input, _but_channels(g.ndim), eps)[0]).sum(_but_channels(g.ndim)),
    bias=lambda g: g.sum(_but_channels(g.ndim)),
    backward=lambda g, input, weight, weight_shape, mean, rstd, eps, needs: (
        aten.native_batch_norm_backward(
            g, input, _given(weight, weight_shape, needs[1], g), None, None, mean, rstd, True, eps, needs
        )
        if input is not None
        else (None, None, g.sum(_but_channels(g.ndim)))
    ),
)
def batch_norm_op(
    input: Array, weight: Array | None, bias: Array | None, running: Any, momentum: float, eps: float
) -> Any:
    """`batch_norm` in training: statistics of this batch, which also move the running ones."""
    return aten.native_batch_norm(input, _dense(weight), _dense(bias), *running, True, momentum, eps)


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
    if training:
        if x.numel() == channels and channels:
            raise ShapeError(
                f"batch_norm: training needs more than 1 value per channel; got input shape {list(x.shape)}"
            )
        if x.numel():
            return batch_norm_op(input, weight, bias, (mean, var), momentum, eps)
        mean, var = torch.zeros(channels, dtype=x.dtype), torch.ones(channels, dtype=x.dtype)  # nothing has statistics
    if mean is None or var is None:
        raise ArgumentError("batch_norm: running_mean and running_var must be given unless training")
    scale = torch.rsqrt(var + eps)
    y = (input if isinstance(input, Tensor) else Tensor(x)) - _per_channel(mean, x.ndim)
    y = y * _per_channel(scale if weight is None else weight * scale, x.ndim)
    return y if bias is None else y + _per_channel(bias, x.ndim)  # type: ignore[no-any-return]


# --- layer_norm --------------------------------------------------------------------------------------------------


def _last(count: int, ndim: int) -> list[int]:
    return list(range(ndim - count, ndim))


@op(
    residuals=("mean", "rstd"),
    input=lambda g, input, normalized_shape, weight, eps: _input_rule(
        g if weight is None else g * weight, input, _last(len(normalized_shape), g.ndim), eps
    ),
    weight=lambda g, input, normalized_shape, eps: g * _standard(input, _last(len(normalized_shape), g.ndim), eps)[0],
    bias=lambda g: g,
    backward=lambda g, input, normalized_shape, mean, rstd, weight, weight_shape, bias_shape, needs: (
        aten.native_layer_norm_backward(
            g.contiguous(),
            input,
            normalized_shape,
            mean,
            rstd,
            _given(weight, weight_shape, needs[1], g),
            _given(None, bias_shape, needs[2], g),
            needs,
        )
        if input is not None
        else (None, None, g.sum(list(range(g.ndim - len(normalized_shape)))) if g.ndim > len(bias_shape) else g.clone())
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
    return aten.native_layer_norm(input, list(normalized_shape), _dense(weight), _dense(bias), eps)


# --- group_norm --------------------------------------------------------------------------------------------------


def _grouped(x: Any, groups: int) -> Any:
    """[N, C, ...] as [N, groups, C / groups * ...]."""
    return x.reshape([x.shape[0], groups, x.shape[1:].numel() // groups])


@op(
    residuals=("mean", "rstd"),
    input=lambda g, input, num_groups, weight, eps: _input_rule(
        _grouped(g if weight is None else g * _per_channel(weight, g.ndim), num_groups),
        _grouped(input, num_groups),
        [2],
        eps,
    ).reshape(input.shape),
    weight=lambda g, input, num_groups, eps: (
        g * _standard(_grouped(input, num_groups), [2], eps)[0].reshape(g.shape)
    ).sum(_but_channels(g.ndim)),
    bias=lambda g: g.sum(_but_channels(g.ndim)),
    backward=lambda g, input, num_groups, weight, mean, rstd, needs: (
        aten.native_group_norm_backward(
            g.contiguous(), input.contiguous(), mean, rstd, _or_ones(weight, input), *_extents(input), num_groups, needs
        )
        if input is not None
        else (None, None, g.sum(_but_channels(g.ndim)))
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
    return aten.native_group_norm(input.contiguous(), _dense(weight), _dense(bias), *_extents(input), num_groups, eps)


def _or_ones(weight: torch.Tensor | None, input: torch.Tensor) -> torch.Tensor:
    """torch's kernel wants a weight wherever there is a bias."""
    return torch.ones(input.shape[1], dtype=input.dtype) if weight is None else weight.contiguous()


def _extents(input: torch.Tensor) -> tuple[int, int, int]:
    """N, C and the number of pixels."""
    n, c = input.shape[:2]
    return n, c, input.shape[2:].numel()
