"""More activation functions, composed of ops: gates, shrinkages, thresholds. Slopes at the kinks are torch's."""

from __future__ import annotations

import math
from typing import Any

import torch

from ..core import ArgumentError, Array, DTypeError, ShapeError, Tensor, op, tensor_argument
from .activation import leaky_relu, relu6, softmax
from .elementwise import sigmoid, tanh, where
from .random import Generator, raw_uniform
from .shape import chunk

__all__ = [
    "glu",
    "hardshrink",
    "hardsigmoid",
    "hardswish",
    "logit",
    "prelu",
    "rrelu",
    "softmin",
    "softshrink",
    "tanhshrink",
    "threshold",
]


def _floats(input: Any, name: str) -> Tensor:
    x = tensor_argument(input, name, "input")
    if not x.is_floating_point():
        raise DTypeError(f"{name}: input must be float32 or float64; got {x.dtype}")
    return x


def glu(input: Any, dim: int = -1) -> Tensor:
    """``a * sigmoid(b)`` for the halves a, b of the input along ``dim``. Source: Dauphin et al. (2017)."""
    x = tensor_argument(input, "glu", "input")
    if x.ndim == 0 or not -x.ndim <= dim < x.ndim or x.shape[dim] % 2:
        raise ShapeError(f"glu: the input's extent along dim = {dim} must be even; got shape {list(x.shape)}")
    a, b = chunk(x, 2, dim)
    return a * sigmoid(b)


def hardsigmoid(input: Any) -> Tensor:
    """``min(max(x + 3, 0), 6) / 6``; slope 0 at both bounds."""
    return relu6(tensor_argument(input, "hardsigmoid", "input") + 3) / 6


def _hardswish_rule(g: Any, input: Any) -> Any:
    """0 below -3, the parabola's slope up to 3, 1 beyond and at NaN; the slope is chosen, so that no 0 * inf arises."""
    inside = torch.logical_and(input > -3, input < 3)
    return torch.where(inside, g * (torch.where(inside, input, 0) / 3 + 0.5), torch.where(input <= -3, 0, g))


@op(input=_hardswish_rule)
def hardswish(input: Array) -> Any:
    """``x * min(max(x + 3, 0), 6) / 6``. Source: Howard et al., Searching for MobileNetV3 (2019)."""
    return torch.nn.functional.hardswish(input)


def hardshrink(input: Any, lambd: float = 0.5) -> Tensor:
    """x where ``|x| > lambd``, else 0."""
    x = _floats(input, "hardshrink")
    return where((x >= -lambd) & (x <= lambd), 0.0, x)


def softshrink(input: Any, lambd: float = 0.5) -> Tensor:
    """``x - lambd`` above lambd, ``x + lambd`` below -lambd, else 0."""
    if lambd < 0:
        raise ArgumentError(f"softshrink: lambd must not be negative; got {lambd}")
    x = _floats(input, "softshrink")
    return where((x >= -lambd) & (x <= lambd), x * 0, where(x > lambd, x - lambd, x + lambd))


def tanhshrink(input: Any) -> Tensor:
    """``x - tanh x``."""
    x = tensor_argument(input, "tanhshrink", "input")
    return x - tanh(x)


def threshold(input: Any, threshold: float, value: float) -> Tensor:
    """x above the threshold, else ``value``."""
    x = tensor_argument(input, "threshold", "input")
    return where(x <= threshold, float(value) if x.is_floating_point() else int(value), x)


def softmin(input: Any, dim: int, dtype: torch.dtype | None = None) -> Tensor:
    """`softmax` of ``-x``."""
    return softmax(-tensor_argument(input, "softmin", "input"), dim, dtype)


def prelu(input: Any, weight: Any) -> Tensor:
    """``y = x for x > 0, weight * x otherwise``; one weight, or one for each channel (dimension 1).

    Source: He et al., Delving deep into rectifiers (2015).
    """
    x, w = tensor_argument(input, "prelu", "input"), tensor_argument(weight, "prelu", "weight")
    channels = x.shape[1] if x.ndim > 1 else 1
    if w.ndim > 1 or w.numel() not in (1, channels):
        raise ShapeError(f"prelu: weight must have 1 or {channels} elements; got shape {list(w.shape)}")
    w = w.reshape(() if w.numel() == 1 else (1, -1) + (1,) * (x.ndim - 2))
    return where(x > 0, x, w * x)


def rrelu(
    input: Any,
    lower: float = 1 / 8,
    upper: float = 1 / 3,
    training: bool = False,
    *,
    generator: Generator | None = None,
) -> Tensor:
    """`leaky_relu` whose slope is drawn from [lower, upper) for each element in training, else their mean."""
    if lower > upper:
        raise ArgumentError(f"rrelu: lower = {lower} must not be above upper = {upper}")
    x = tensor_argument(input, "rrelu", "input")
    if not training:
        return leaky_relu(x, (lower + upper) / 2)
    drawn = Tensor(raw_uniform(x.shape, x.dtype, generator, "rrelu"))
    return where(x > 0, x, x * (drawn * (upper - lower) + lower))


def _logit_rule(g: Any, input: Any, eps: float | None) -> Any:
    """g / (x (1 - x)), NaN outside [0, 1]; with ``eps``, 0 where the input was clamped."""
    low, high = (0.0, 1.0) if eps is None else (eps, 1 - eps)
    outside = torch.logical_or(input < low, input > high)
    inside = torch.where(outside, 0.5, input)
    return g * torch.where(outside, math.nan if eps is None else 0.0, 1 / (inside * (1 - inside)))


@op(input=_logit_rule)
def logit(input: Array, eps: float | None = None) -> Any:
    """``ln(x / (1 - x))``, the inverse of `sigmoid`; with ``eps``, of x clamped to [eps, 1 - eps]."""
    return torch.logit(input, eps)
