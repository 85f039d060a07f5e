"""Losses by margins, ranks and distributions' parameters, composed of ops. ``reduction`` is "mean", "sum" or "none"."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from ..core import ArgumentError, ShapeError, Tensor, tensor_argument, verify
from .activation import logsigmoid, softplus
from .distances import pairwise_distance
from .elementwise import clamp, exp, log, minimum, pow, where
from .indexing import gather
from .loss import reduced
from .reduce import mean, sum

__all__ = [
    "cosine_embedding_loss",
    "gaussian_nll_loss",
    "hinge_embedding_loss",
    "margin_ranking_loss",
    "multi_margin_loss",
    "multilabel_margin_loss",
    "multilabel_soft_margin_loss",
    "poisson_nll_loss",
    "soft_margin_loss",
    "triplet_margin_loss",
    "triplet_margin_with_distance_loss",
]


def _positive(x: Tensor) -> Tensor:
    return clamp(x, min=0)


def _same(a: Tensor, b: Tensor, name: str) -> None:
    if a.shape != b.shape:
        raise ShapeError(f"{name}: target must have input's shape {list(a.shape)}; got {list(b.shape)}")


def margin_ranking_loss(input1: Any, input2: Any, target: Any, margin: float = 0.0, reduction: str = "mean") -> Tensor:
    """``max(0, -y (x1 - x2) + margin)``, y = 1 where x1 should rank higher, -1 where x2."""
    name = "margin_ranking_loss"
    a, b, y = (tensor_argument(v, name, n) for v, n in ((input1, "input1"), (input2, "input2"), (target, "target")))
    if not a.ndim == b.ndim == y.ndim:
        raise ShapeError(f"{name}: all must have as many dimensions; got {[list(v.shape) for v in (a, b, y)]}")
    return reduced(_positive(-y * (a - b) + margin), reduction, name)


def hinge_embedding_loss(input: Any, target: Any, margin: float = 1.0, reduction: str = "mean") -> Tensor:
    """x where y = 1, ``max(0, margin - x)`` where y = -1."""
    name = "hinge_embedding_loss"
    x, y = tensor_argument(input, name, "input"), tensor_argument(target, name, "target")
    loss = where(y != -1, x, 0.0) + where(y != 1, _positive(margin - x), 0.0)  # both where y is neither, as in torch
    return reduced(loss, reduction, name)


def cosine_embedding_loss(
    input1: Any, input2: Any, target: Any, margin: float = 0.0, reduction: str = "mean"
) -> Tensor:
    """``1 - cos`` where y = 1, ``max(0, cos - margin)`` where y = -1, cos that of rows [N, D] (or of vectors [D])."""
    name = "cosine_embedding_loss"
    a, b, y = (tensor_argument(v, name, n) for v, n in ((input1, "input1"), (input2, "input2"), (target, "target")))
    if a.ndim not in (1, 2) or b.ndim != a.ndim or y.ndim != a.ndim - 1:
        raise ShapeError(f"{name}: inputs [N, D] with target [N], or [D] with []; got {list(a.shape)}, {list(y.shape)}")
    tiny = 1e-12  # torch's: added to the squared norms
    dot, na, nb = sum(a * b, -1), sum(a * a, -1) + tiny, sum(b * b, -1) + tiny
    cosine = dot / pow(na * nb, 0.5)
    loss = where(y == 1, 1 - cosine, 0.0) + where(y == -1, _positive(cosine - margin), 0.0)
    return reduced(loss, reduction, name)


def soft_margin_loss(input: Any, target: Any, reduction: str = "mean") -> Tensor:
    """``ln(1 + e**(-y x))``, y = 1 or -1."""
    name = "soft_margin_loss"
    x, y = tensor_argument(input, name, "input"), tensor_argument(target, name, "target")
    _same(x, y, name)
    return reduced(softplus(-y * x, 1.0, 1e30), reduction, name)


def multilabel_soft_margin_loss(input: Any, target: Any, weight: Any = None, reduction: str = "mean") -> Tensor:
    """The mean over classes (the last dimension) of the binary cross-entropy of logits: targets 0 or 1."""
    name = "multilabel_soft_margin_loss"
    x, y = tensor_argument(input, name, "input"), tensor_argument(target, name, "target")
    _same(x, y, name)
    loss = -(y * logsigmoid(x) + (1 - y) * logsigmoid(-x))
    return reduced(mean(loss if weight is None else loss * weight, -1), reduction, name)


def multi_margin_loss(
    input: Any, target: Any, p: int = 1, margin: float = 1.0, weight: Any = None, reduction: str = "mean"
) -> Tensor:
    """``sum_{i != y} w_y max(0, margin - x_y + x_i)**p / C`` for scores x [N, C] (or [C]) of class y [N]."""
    name = "multi_margin_loss"
    x, y = tensor_argument(input, name, "input"), tensor_argument(target, name, "target")
    if x.ndim == 0:
        x = x.reshape((1,))
    if x.ndim == 1 and y.shape == (1,):
        x = x.unsqueeze(0)
    if p not in (1, 2) or x.ndim not in (1, 2) or y.shape != x.shape[:-1]:
        raise ShapeError(f"{name}: scores [N, C] with classes [N], p 1 or 2; got {list(x.shape)}, {list(y.shape)}, {p}")
    w = None if weight is None else tensor_argument(weight, name, "weight")
    if w is not None and tuple(w.shape) != (x.shape[-1],):
        raise ShapeError(f"{name}: weight must have shape {[x.shape[-1]]}; got {list(w.shape)}")
    chosen = y.unsqueeze(-1)
    terms = _positive(margin - gather(x, -1, chosen) + x)
    terms = terms * terms if p == 2 else terms
    if w is not None:
        terms = terms * w[y].unsqueeze(-1)
    others = Tensor(~(chosen.data == chosen.data.new_tensor(range(x.shape[-1]))))
    return reduced(sum(where(others, terms, 0.0), -1) / x.shape[-1], reduction, name)


def multilabel_margin_loss(input: Any, target: Any, reduction: str = "mean") -> Tensor:
    """``sum_ij max(0, 1 - x_{y_j} + x_i) / C``, y_j the classes of a row before its first -1, i none of them."""
    name = "multilabel_margin_loss"
    x, y = tensor_argument(input, name, "input"), tensor_argument(target, name, "target")
    if x.ndim == y.ndim == 0:
        x, y = x.reshape((1,)), y.reshape((1,))
    if x.ndim not in (1, 2) or x.shape != y.shape:
        raise ShapeError(f"{name}: input and target must be [N, C] or [C]; got {list(x.shape)} and {list(y.shape)}")
    classes, ids = x.shape[-1], y.data
    verify((ids >= -1) & (ids < classes), lambda: ArgumentError(f"{name}: classes must lie in [-1, {classes - 1}]"))
    listed = (ids < 0).cumsum(-1) == 0  # [N, J]
    safe = ids.clamp_min(0)
    every = ids.new_tensor(range(classes))
    is_target = ((safe.unsqueeze(-1) == every) & listed.unsqueeze(-1)).any(-2)  # [N, C]
    terms = _positive(1 - gather(x, -1, Tensor(safe)).unsqueeze(-1) + x.unsqueeze(-2))  # [N, J, C]
    counted = Tensor(listed.unsqueeze(-1) & ~is_target.unsqueeze(-2))
    return reduced(sum(where(counted, terms, 0.0), (-2, -1)) / classes, reduction, name)


def poisson_nll_loss(
    input: Any, target: Any, log_input: bool = True, full: bool = False, eps: float = 1e-8, reduction: str = "mean"
) -> Tensor:
    """``e**x - y x`` (with ``log_input``) or ``x - y ln(x + eps)``; ``full`` adds Stirling's ``ln y!`` where y > 1."""
    name = "poisson_nll_loss"
    x, y = tensor_argument(input, name, "input"), tensor_argument(target, name, "target")
    loss = exp(x) - y * x if log_input else x - y * log(x + eps)
    if full:
        above = where(y > 1, y, 2.0)
        stirling = above * log(above) - above + 0.5 * log(2 * math.pi * above)
        loss = loss + where(y > 1, stirling, 0.0)
    return reduced(loss, reduction, name)


def gaussian_nll_loss(
    input: Any, target: Any, var: Any, full: bool = False, eps: float = 1e-6, reduction: str = "mean"
) -> Tensor:
    """``(ln v + (x - y)**2 / v) / 2`` with ``v = max(var, eps)`` (the clamping is not differentiated); ``full`` adds
    ``ln(2 pi) / 2``. ``var`` has the input's shape, lacks its last dimension, or has extent 1 in one.
    """
    name = "gaussian_nll_loss"
    x, y = tensor_argument(input, name, "input"), tensor_argument(target, name, "target")
    v = tensor_argument(var if not isinstance(var, int | float) else x.data.new_full(tuple(x.shape), var), name, "var")
    if v.shape != x.shape:
        v = v.unsqueeze(-1) if v.shape == x.shape[:-1] else v
        differing = [n for m, n in zip(x.shape, v.shape, strict=False) if m != n]
        if v.ndim != x.ndim or differing != [1]:
            raise ShapeError(f"{name}: var of shape {list(v.shape)} does not fit input of shape {list(x.shape)}")
    verify(v.data >= 0, lambda: ArgumentError(f"{name}: var must not be negative"))
    v = v + Tensor((eps - v.data).clamp_min(0))
    loss = 0.5 * (log(v) + (x - y) ** 2 / v)
    return reduced(loss + 0.5 * math.log(2 * math.pi) if full else loss, reduction, name)


def triplet_margin_with_distance_loss(
    anchor: Any,
    positive: Any,
    negative: Any,
    *,
    distance_function: Callable[[Any, Any], Any] | None = None,
    margin: float = 1.0,
    swap: bool = False,
    reduction: str = "mean",
) -> Tensor:
    """``max(0, d(a, p) - d(a, n) + margin)``; with ``swap``, the smaller of d(a, n) and d(p, n).

    Source: Balntas et al. (2016).
    """
    name = "triplet_margin_with_distance_loss"
    if not margin > 0:
        raise ArgumentError(f"{name}: margin must be greater than 0; got {margin}")
    dims = [tensor_argument(x, name, "input").ndim for x in (anchor, positive, negative)]
    if len(set(dims)) > 1:
        raise ShapeError(f"{name}: anchor, positive and negative must have as many dimensions each; got {dims}")
    distance = distance_function or pairwise_distance
    near, far = distance(anchor, positive), distance(anchor, negative)
    if swap:
        far = minimum(far, distance(positive, negative))
    return reduced(_positive(near - far + margin), reduction, name)


def triplet_margin_loss(
    anchor: Any,
    positive: Any,
    negative: Any,
    margin: float = 1.0,
    p: float = 2.0,
    eps: float = 1e-6,
    swap: bool = False,
    reduction: str = "mean",
) -> Tensor:
    """`triplet_margin_with_distance_loss` with `pairwise_distance` of order p."""
    return triplet_margin_with_distance_loss(
        anchor,
        positive,
        negative,
        distance_function=lambda a, b: pairwise_distance(a, b, p, eps),
        margin=margin,
        swap=swap,
        reduction=reduction,
    )
