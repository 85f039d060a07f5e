"""Losses. Mean reduction unless asked otherwise; log-sum-exp forms that stay finite for large logits."""

from __future__ import annotations

from typing import Any

import torch

from ..errors import DTypeError, ShapeError
from ..op import Array, op
from ..tensor import FLOATS, Tensor, raw
from .activation import log_softmax
from .elementwise import mul, sub
from .reduce import mean, sum
from .shape import gather

__all__ = [
    "cross_entropy",
    "mse_loss",
    "nll_loss",
]


def reduced(loss: Any, reduction: str, name: str) -> Tensor:
    """``loss`` summed, averaged over all elements, or as it is."""
    if reduction == "mean":
        return mean(loss)
    if reduction == "sum":
        return sum(loss)
    if reduction == "none":
        return loss  # type: ignore[no-any-return]
    raise ValueError(f'{name}: reduction must be "mean", "sum" or "none"; got {reduction!r}')


def _mse_scale(input_shape: torch.Size, reduction: str) -> float:
    return 2 / max(input_shape.numel(), 1) if reduction == "mean" else 2.0


@op(
    name="mse_loss",
    input=lambda g, input, target, reduction: g * ((input - target) * _mse_scale(input.shape, reduction)),
    target=lambda g, input, target, reduction: g * ((target - input) * _mse_scale(input.shape, reduction)),
)
def mse_loss_op(input: Array, target: Array, reduction: str) -> Any:
    """`mse_loss` of tensors of one shape."""
    return torch.nn.functional.mse_loss(input, target, reduction=reduction)


def mse_loss(input: Any, target: Any, reduction: str = "mean") -> Tensor:
    """The squared error ``(input - target)**2``, averaged over all elements.

    Parameters
    ----------
    input, target : one shape and float dtype (they are not broadcast: that is nearly always a mistake in a loss)
    reduction : "mean", "sum" or "none"

    Source: report 1, table I, with the 1/n that report 4's derivative drops.
    """
    a, b = raw(input, "mse_loss", "input"), raw(target, "mse_loss", "target")
    if not isinstance(a, torch.Tensor) or not isinstance(b, torch.Tensor) or a.shape != b.shape:
        shapes = [list(v.shape) if isinstance(v, torch.Tensor) else v for v in (a, b)]
        raise ShapeError(f"mse_loss: target must have input's shape {shapes[0]}; got {shapes[1]}")
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f'mse_loss: reduction must be "mean", "sum" or "none"; got {reduction!r}')
    return mse_loss_op(input, target, reduction)


def _check_classes(target: torch.Tensor, classes: int, ignore_index: int, name: str) -> None:
    """Every target a class index in [0, classes) or `ignore_index`; else ShapeError with the first bad one."""
    bad = ((target < 0) | (target >= classes)) & (target != ignore_index)
    if bool(bad.any()):
        index = bad.nonzero()[0].tolist()
        where = index[0] if len(index) == 1 else index
        got = target[tuple(index)].item()
        raise ShapeError(f"{name}: targets must be class indices in [0, {classes}); got {got} at row {where}")


def nll_loss(
    input: Any, target: Any, weight: Any = None, ignore_index: int = -100, reduction: str = "mean"
) -> Tensor:
    """The negative log-likelihood ``-w[t] * input[n, t]`` of log-probabilities, given class indices t.

    Parameters
    ----------
    input : [N, C] or [C] or [N, C, d1, ...], log-probabilities
    target : [N], [] or [N, d1, ...], integer class indices in [0, C)
    weight : [C] or None, weight of each class; "mean" divides by the sum of the targets' weights
    ignore_index : targets with this value count nothing
    """
    return _nll(input, target, weight, ignore_index, reduction, 0.0, "nll_loss")


def _nll(
    input: Any, target: Any, weight: Any, ignore_index: int, reduction: str, smoothing: float, name: str
) -> Tensor:
    """`nll_loss` with label smoothing: (1 - s) times the target's term plus s times the mean over all classes."""
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f'{name}: reduction must be "mean", "sum" or "none"; got {reduction!r}')
    labels = raw(target, name, "target").long()
    dim = 0 if input.ndim == 1 else 1
    expected = [n for i, n in enumerate(input.shape) if i != dim]
    if list(labels.shape) != expected:
        raise ShapeError(
            f"{name}: target must have shape {expected} for input {list(input.shape)}; got {list(labels.shape)}"
        )
    classes = input.shape[dim]
    _check_classes(labels, classes, ignore_index, name)
    counted = labels != ignore_index
    index = torch.where(counted, labels, 0)
    dtype = raw(input, name, "input").dtype
    scale = counted.to(dtype)
    weight = None if weight is None else raw(weight, name, "weight")
    if weight is not None:
        if list(weight.shape) != [classes]:
            raise ShapeError(f"{name}: weight must have shape [{classes}], one per class; got {list(weight.shape)}")
        scale = scale * weight[index]
    loss = mul(gather(input, dim, index.unsqueeze(dim)).squeeze(dim), -scale)
    if smoothing:
        shape = [classes if i == dim else 1 for i in range(input.ndim)]
        spread = input if weight is None else mul(input, weight.reshape(shape))
        smooth = mul(sum(spread, dim), -counted.to(dtype) * (smoothing / classes))
        loss = loss * (1 - smoothing) + smooth
    if reduction == "mean":
        return sum(loss) / scale.sum()
    return reduced(loss, reduction, name)


def cross_entropy(
    input: Any,
    target: Any,
    weight: Any = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """The cross-entropy ``-sum_c p_c * log softmax(input)_c`` between logits and targets.

    Parameters
    ----------
    input : [N, C] or [C] or [N, C, d1, ...], logits
    target : class indices (integers, the input's shape without C), or class probabilities (the input's shape)
    weight : [C] or None, weight of each class
    ignore_index : class indices with this value count nothing
    reduction : "mean" (over the targets' weights, or over N for probabilities), "sum" or "none"
    label_smoothing : in [0, 1], the share of each target spread evenly over all classes

    Source: report 3, equation 7; Szegedy et al., Rethinking the Inception Architecture (CVPR 2016) for the smoothing.
    """
    name = "cross_entropy"
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"{name}: label_smoothing must lie in [0, 1]; got {label_smoothing}")
    logits = raw(input, name, "input")
    labels = raw(target, name, "target")
    if not isinstance(logits, torch.Tensor) or logits.dtype not in FLOATS or logits.ndim == 0:
        got = f"{logits.dtype} of shape {list(logits.shape)}" if isinstance(logits, torch.Tensor) else repr(logits)
        raise DTypeError(f"{name}: input must be float logits with at least 1 dimension; got {got}")
    if not isinstance(labels, torch.Tensor):
        raise TypeError(f"{name}: target must be a tensor of class indices or probabilities; got {labels!r}")
    dim = 0 if logits.ndim == 1 else 1
    if not labels.is_floating_point():
        return _nll(log_softmax(input, dim), target, weight, ignore_index, reduction, label_smoothing, name)
    if labels.shape != logits.shape:
        raise ShapeError(
            f"{name}: a float target holds class probabilities and must have input's shape {list(logits.shape)}; "
            f"got {list(labels.shape)}"
        )
    classes = logits.shape[dim]
    p = target if not label_smoothing else target * (1 - label_smoothing) + label_smoothing / classes
    terms = mul(log_softmax(input, dim), p)
    if weight is not None:
        w = raw(weight, name, "weight")
        if list(w.shape) != [classes]:
            raise ShapeError(f"{name}: weight must have shape [{classes}], one per class; got {list(w.shape)}")
        terms = mul(terms, w.reshape([classes if i == dim else 1 for i in range(logits.ndim)]))
    loss = -sum(terms, dim)
    if reduction == "mean":
        return sum(loss) / (logits.numel() // max(classes, 1))
    return reduced(loss, reduction, name)
