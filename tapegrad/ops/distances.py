"""Norms and distances between rows, composed of ops."""

from __future__ import annotations

from typing import Any

import torch

from ..core import ArgumentError, Ints, ShapeError, Tensor, tensor_argument
from .elementwise import clamp
from .linalg import matmul
from .reduce import norm, sum
from .shape import expand, reshape

__all__ = ["bilinear", "cdist", "cosine_similarity", "normalize", "pairwise_distance"]


def normalize(input: Any, p: float = 2.0, dim: Ints = 1, eps: float = 1e-12) -> Tensor:
    """``x / max(||x||_p, eps)``, the norm taken along ``dim``."""
    x = tensor_argument(input, "normalize", "input")
    return x / clamp(norm(x, p, dim, True), min=eps)


def cosine_similarity(x1: Any, x2: Any, dim: int = 1, eps: float = 1e-8) -> Tensor:
    """``x1 . x2 / (max(|x1|, eps) max(|x2|, eps))`` along ``dim``, with broadcasting."""
    a, b = tensor_argument(x1, "cosine_similarity", "x1"), tensor_argument(x2, "cosine_similarity", "x2")
    try:
        shape = torch.broadcast_shapes(a.shape, b.shape)  # type: ignore[no-untyped-call]
    except RuntimeError as error:
        shapes = f"x1 of shape {list(a.shape)} and x2 of shape {list(b.shape)}"
        raise ShapeError(f"cosine_similarity: {shapes} do not broadcast") from error
    a, b = expand(a, shape), expand(b, shape)  # norms are of the vectors that meet
    a, b = a / clamp(norm(a, 2.0, dim, True), min=eps), b / clamp(norm(b, 2.0, dim, True), min=eps)
    return sum(a * b, dim)


def pairwise_distance(x1: Any, x2: Any, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False) -> Tensor:
    """``||x1 - x2 + eps||_p`` along the last dimension."""
    a, b = tensor_argument(x1, "pairwise_distance", "x1"), tensor_argument(x2, "pairwise_distance", "x2")
    return norm(a - b + eps, p, -1, keepdim)


def cdist(x1: Any, x2: Any, p: float = 2.0, compute_mode: str = "") -> Tensor:
    """The distance ``||x1_i - x2_j||_p`` of every pair of rows: [..., N, D] and [..., M, D] give [..., N, M].

    Differences are formed (torch's "donot_use_mm_for_euclid_dist"), so that near points lose no digits; the slope
    where two rows are equal is 0.
    """
    a, b = tensor_argument(x1, "cdist", "x1"), tensor_argument(x2, "cdist", "x2")
    if a.ndim < 2 or b.ndim < 2 or a.shape[-1] != b.shape[-1]:
        raise ShapeError(
            f"cdist: x1 [..., N, D] and x2 [..., M, D] must have one D; got {list(a.shape)} and {list(b.shape)}"
        )
    if p < 0:
        raise ArgumentError(f"cdist: p must not be negative; got {p}")
    return norm(a.unsqueeze(-2) - b.unsqueeze(-3), float(p), -1)


def bilinear(input1: Any, input2: Any, weight: Any, bias: Any = None) -> Tensor:
    """``y_o = sum_ij input1_i weight_oij input2_j + bias_o``.

    Shapes: input1 [..., I], input2 [..., J], weight [O, I, J], bias [O], result [..., O].
    """
    a, b = tensor_argument(input1, "bilinear", "input1"), tensor_argument(input2, "bilinear", "input2")
    w = tensor_argument(weight, "bilinear", "weight")
    fits = w.ndim == 3 and a.ndim == b.ndim > 0 and a.shape[:-1] == b.shape[:-1]
    if not fits or a.shape[-1] != w.shape[1] or b.shape[-1] != w.shape[2]:
        raise ShapeError(
            f"bilinear: input1 [..., I], input2 [..., J] and weight [O, I, J] must fit; got {list(a.shape)}, "
            f"{list(b.shape)} and {list(w.shape)}"
        )
    outs, i, j = w.shape
    inner = reshape(matmul(b, reshape(w, (outs * i, j)).T), (*b.shape[:-1], outs, i))
    y = sum(inner * a.unsqueeze(-2), -1)
    return y if bias is None else y + bias
