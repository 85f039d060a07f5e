"""Matrix products."""

from __future__ import annotations

from typing import Any

import torch

from .._ext import _C
from ..errors import ShapeError
from ..op import Array, op
from ..tensor import Tensor

__all__ = [
    "linear",
    "matmul",
]


def _matmul_input(g: Any, input_shape: torch.Size, other: Any) -> Any:
    """d(x @ y): g @ y.T, with vectors as one-row or one-column matrices; the call path sums broadcast dimensions."""
    if other.ndim == 1:  # [..., M, K] @ [K] or [K] @ [K]
        return g.unsqueeze(-1) * other
    if len(input_shape) == 1:  # [K] @ [..., K, N]
        return (g.unsqueeze(-2) @ other.mT).squeeze(-2)
    return g @ other.mT


def _matmul_other(g: Any, input: Any, other_shape: torch.Size) -> Any:
    """d(x @ y): x.T @ g, likewise."""
    if len(other_shape) == 1:
        return g * input if input.ndim == 1 else (input.mT @ g.unsqueeze(-1)).squeeze(-1)
    if input.ndim == 1:
        return input.unsqueeze(-1) * g.unsqueeze(-2)
    return input.mT @ g


@op(
    input=lambda g, input_shape, other: _matmul_input(g, input_shape, other),
    other=lambda g, input, other_shape: _matmul_other(g, input, other_shape),
)
def matmul(input: Array, other: Array) -> Any:
    """The matrix product ``y[..., i, j] = sum_k input[..., i, k] * other[..., k, j]``.

    Parameters
    ----------
    input : [..., M, K] or [K]
    other : [..., K, N] or [K]; leading dimensions broadcast

    Returns [..., M, N], without the dimensions that a vector argument lacks. Raises ShapeError where K differs.
    """
    return torch.matmul(input, other)


@op(
    input=lambda g, weight: torch.matmul(g, weight),
    weight=lambda g, input, weight_shape: torch.matmul(
        g.reshape(-1, weight_shape[0]).mT, input.reshape(-1, weight_shape[1])
    ),
    bias=lambda g: g,
    backward=lambda g, input, weight, needs: _C.linear_backward(g, input, weight, *needs),
)
def linear(input: Array, weight: Array, bias: Array | None = None) -> Any:
    """``y = x W^T + b``.

    Parameters
    ----------
    input : [..., in_features]
    weight : [out_features, in_features]
    bias : [out_features] or None

    Returns [..., out_features]. The backward kernel gives dX = g W, dW = g^T X and db = sum g in one call (report 3,
    equations 3 and 4).
    """
    return _C.linear(input, weight, bias)
