"""Activation functions and softmax.

Slopes at the kinks are torch's (relu and leaky_relu take the left one at 0). Exponentials are taken of arguments that
cannot overflow, so that a masked branch never turns into 0 * inf in a second derivative.
"""

from __future__ import annotations

from typing import Any

import torch

from ..op import Array, op

__all__ = [
    "leaky_relu",
    "log_softmax",
    "relu",
    "softmax",
]


@op(input=lambda g, out: torch.where(out <= 0, 0, g))
def relu(input: Array) -> Any:
    """``y = max(0, x)``; slope 0 at 0."""
    return torch.relu(input)


@op(input=lambda g, input, negative_slope: torch.where(input > 0, g, g * negative_slope))
def leaky_relu(input: Array, negative_slope: float = 0.01) -> Any:
    """``y = x for x > 0, negative_slope * x otherwise`` (report 3)."""
    return torch.nn.functional.leaky_relu(input, negative_slope)


def _softmax_rule(g: Any, out: Any, dim: int) -> Any:
    return out * (g - (g * out).sum(dim, True))


@op(input=_softmax_rule)
def softmax(input: Array, dim: int, dtype: torch.dtype | None = None) -> Any:
    """``y_i = e**x_i / sum_j e**x_j`` along ``dim``, with the maximum subtracted first."""
    return torch.softmax(input, dim, dtype)


@op(input=lambda g, out, dim: g - torch.exp(out) * g.sum(dim, True))
def log_softmax(input: Array, dim: int, dtype: torch.dtype | None = None) -> Any:
    """``y_i = x_i - log sum_j e**x_j`` along ``dim``, in log-sum-exp form."""
    return torch.log_softmax(input, dim, dtype)
