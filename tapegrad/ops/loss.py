"""Losses. Mean reduction unless asked otherwise; log-sum-exp forms that stay finite for large logits."""

from __future__ import annotations

import math
from typing import Any

import torch

from ..core import (
    _C,
    FLOATS,
    ArgumentError,
    Array,
    DTypeError,
    ShapeError,
    Tensor,
    op,
    raw,
    sum_over,
    tensor_argument,
    verify,
)
from .activation import log_softmax, logsigmoid
from .elementwise import abs, add, div, exp, mul, neg, square, sub, where
from .indexing import gather
from .reduce import mean, sum
from .shape import constant_pad_nd, expand, movedim, reshape
from .special import xlogy

__all__ = [
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "cross_entropy",
    "huber_loss",
    "kl_div",
    "l1_loss",
    "mse_loss",
    "nll_loss",
    "smooth_l1_loss",
]


def reduced(loss: Any, reduction: str, name: str) -> Tensor:
    """``loss`` summed, averaged over all elements, or as it is."""
    if reduction == "mean":
        return mean(loss)
    if reduction == "sum":
        return sum(loss)
    if reduction == "none":
        return loss  # type: ignore[no-any-return]
    raise ArgumentError(f'{name}: reduction must be "mean", "sum" or "none"; got {reduction!r}')


def _mse_scale(input_shape: torch.Size, reduction: str) -> float:
    return 2 / max(input_shape.numel(), 1) if reduction == "mean" else 2.0


@op(
    name="mse_loss",
    input=lambda g, input, target, reduction: g * ((input - target) * _mse_scale(input.shape, reduction)),
    target=lambda g, input, target, reduction: g * ((target - input) * _mse_scale(input.shape, reduction)),
    backward=lambda g, input, target, reduction, needs: _C.mse_loss_backward(
        g, input, target, reduction == "mean", *needs
    ),
)
def mse_loss_op(input: Array, target: Array, reduction: str) -> Any:
    """`mse_loss` summed or averaged, of tensors of one shape and dtype."""
    return _C.mse_loss(input, target, reduction == "mean")


def mse_loss(input: Any, target: Any, reduction: str = "mean", weight: Any = None) -> Tensor:
    """The squared error ``(input - target)**2``, averaged over all elements.

    Parameters
    ----------
    input, target : one shape and float dtype (they are not broadcast: that is nearly always a mistake in a loss)
    reduction : "mean", "sum" or "none"
    weight : of each element, or None; "mean" then divides by the sum of the weights

    Source: report 1, table I, with the 1/n that report 4's derivative drops.
    """
    a, b = raw(input, "mse_loss", "input"), raw(target, "mse_loss", "target")
    if not isinstance(a, torch.Tensor) or not isinstance(b, torch.Tensor) or a.shape != b.shape:
        shapes = [list(v.shape) if isinstance(v, torch.Tensor) else v for v in (a, b)]
        raise ShapeError(f"mse_loss: target must have input's shape {shapes[0]}; got {shapes[1]}")
    if reduction not in ("mean", "sum", "none"):
        raise ArgumentError(f'mse_loss: reduction must be "mean", "sum" or "none"; got {reduction!r}')
    if weight is not None:
        return _weighted(square(sub(input, target)), weight, reduction, "mse_loss")
    if reduction == "none" or a.dtype != b.dtype or not a.is_floating_point():
        return reduced(square(sub(input, target)), reduction, "mse_loss")
    return mse_loss_op(input, target, reduction)


def _weighted(terms: Tensor, weight: Any, reduction: str, name: str) -> Tensor:
    """Weighted terms, their mean being over the weights."""
    terms = mul(terms, weight)
    if reduction == "mean":
        return div(sum(terms), sum(expand(weight if isinstance(weight, Tensor) else Tensor(weight), terms.shape)))
    return reduced(terms, reduction, name)


def check_classes(target: torch.Tensor, classes: int, ignore_index: int, name: str) -> None:
    """Every target a class index in [0, classes) or `ignore_index`; else ShapeError with the first bad one."""
    good = ((target >= 0) & (target < classes)) | (target == ignore_index)

    def failure() -> ShapeError:
        index = (~good).nonzero()[0].tolist()
        where = index[0] if len(index) == 1 else index
        got = target[tuple(index)].item()
        return ShapeError(f"{name}: targets must be class indices in [0, {classes}); got {got} at row {where}")

    verify(good, failure)


def nll_loss(input: Any, target: Any, weight: Any = None, ignore_index: int = -100, reduction: str = "mean") -> Tensor:
    """The negative log-likelihood ``-w[t] * input[n, t]`` of log-probabilities, given class indices t.

    Parameters
    ----------
    input : [N, C] or [C] or [N, C, d1, ...], log-probabilities
    target : [N], [] or [N, d1, ...], integer class indices in [0, C)
    weight : [C] or None, weight of each class; "mean" divides by the sum of the targets' weights
    ignore_index : targets with this value count nothing
    """
    name = "nll_loss"
    if reduction not in ("mean", "sum", "none"):
        raise ArgumentError(f'{name}: reduction must be "mean", "sum" or "none"; got {reduction!r}')
    input = tensor_argument(input, name, "input")
    labels = tensor_argument(target, name, "target").data
    if labels.is_floating_point() or labels.dtype is torch.bool:
        raise DTypeError(f"{name}: target must hold integer class indices; got {labels.dtype}")
    labels = labels.long()
    dim = 0 if input.ndim == 1 else 1
    expected = [n for i, n in enumerate(input.shape) if i != dim]
    if list(labels.shape) != expected:
        raise ShapeError(
            f"{name}: target must have shape {expected} for input {list(input.shape)}; got {list(labels.shape)}"
        )
    classes = input.shape[dim]
    check_classes(labels, classes, ignore_index, name)
    counted = labels != ignore_index
    if not classes:  # then every target is ignored, and reads a class that is not there
        input = constant_pad_nd(input, [0, 0] * (input.ndim - 1 - dim) + [0, 1])
    index = torch.where(counted, labels, 0)
    scale = counted.to(input.dtype)
    if weight is not None and classes:
        _check_weight(weight, input.data, dim, name)
        chosen = raw(weight, name, "weight").index_select(0, index.reshape(-1)).reshape(index.shape)
        scale = torch.where(counted, chosen, 0)
    own = where(counted, gather(input, dim, index.unsqueeze(dim)).squeeze(dim), 0)  # an ignored -inf counts nothing
    loss = mul(own, -scale)
    return div(sum(loss), sum_over(scale, None)) if reduction == "mean" else reduced(loss, reduction, name)


def _cross_entropy_rule(
    g: Any,
    input: Any,
    target: Any,
    weight: Any,
    total: Any,
    ignore_index: int,
    reduction: str,
    label_smoothing: float,
) -> Any:
    """g (p sum_c q_c - q), p the softmax and q each row's target weights; rows that are ignored have q = 0."""
    target, weight, total = (v.data if isinstance(v, Tensor) else v for v in (target, weight, total))
    if not input.shape[1]:  # every target is ignored
        return torch.zeros_like(input)
    counted = (target != ignore_index).unsqueeze(1)
    index, share = torch.where(counted, target.unsqueeze(1), 0), label_smoothing / input.shape[1]
    own = (
        torch.ones(index.shape, dtype=input.dtype)
        if weight is None
        else weight.index_select(0, index.reshape(-1)).unsqueeze(1)
    )
    q = torch.full(input.shape, share, dtype=input.dtype)
    if weight is not None and share:
        q *= weight
    q.scatter_add_(1, index, own * (1 - label_smoothing))
    g = g.unsqueeze(1) if reduction == "none" else g
    slope = g * (torch.softmax(input, 1) * sum_over(q, 1, True) - q)
    if reduction == "mean":  # over no weight it is NaN
        slope = slope / torch.where(counted, torch.where(total == 0, math.nan, total), 1)
    return torch.where(counted, slope, 0)


@op(
    name="cross_entropy",
    residuals=("stats", "total"),
    input=_cross_entropy_rule,
    backward=lambda g, input, target, weight, stats, total, ignore_index, reduction, label_smoothing: (
        _C.cross_entropy_backward(g, input, target, weight, stats, total, ignore_index, reduction, label_smoothing),
        None,
        None,
    ),
)
def cross_entropy_op(
    input: Array, target: Array, weight: Array | None, ignore_index: int, reduction: str, label_smoothing: float
) -> Any:
    """`cross_entropy` of logits [N, C] and class indices [N], in one pass forward and one backward."""
    return _C.cross_entropy(input, target, weight, ignore_index, reduction, label_smoothing)


def _cross_entropy(
    input: Any,
    logits: torch.Tensor,
    labels: torch.Tensor,
    dim: int,
    weight: Any,
    ignore_index: int,
    reduction: str,
    smoothing: float,
) -> Tensor:
    """`cross_entropy` with class indices: other dimensions become rows of [N, C] and come back for "none"."""
    name = "cross_entropy"
    if reduction not in ("mean", "sum", "none"):
        raise ArgumentError(f'{name}: reduction must be "mean", "sum" or "none"; got {reduction!r}')
    expected = logits.shape[:dim] + logits.shape[dim + 1 :]
    if labels.shape != expected:
        raise ShapeError(
            f"{name}: target must have shape {list(expected)} for input {list(logits.shape)}; got {list(labels.shape)}"
        )
    if labels.dtype is torch.bool:
        raise DTypeError(f"{name}: target must hold integer class indices; got {labels.dtype}")
    _check_weight(weight, logits, dim, name)
    rows = input
    if logits.ndim != 2:
        rows = reshape(movedim(tensor_argument(input, name, "input"), dim, -1), (labels.numel(), logits.shape[dim]))
    indices = labels if labels.ndim == 1 else labels.reshape(-1)
    loss = cross_entropy_op(rows, indices.long(), weight, ignore_index, reduction, smoothing)
    return reshape(loss, labels.shape) if reduction == "none" and labels.ndim != 1 else loss


def _check_weight(weight: Any, logits: torch.Tensor, dim: int, name: str) -> None:
    if weight is None:
        return
    classes, value = logits.shape[dim], raw(weight, name, "weight")
    if list(value.shape) != [classes]:
        raise ShapeError(f"{name}: weight must have shape [{classes}], one per class; got {list(value.shape)}")


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
        raise ArgumentError(f"{name}: label_smoothing must lie in [0, 1]; got {label_smoothing}")
    logits = raw(input, name, "input")
    labels = raw(target, name, "target")
    if not isinstance(logits, torch.Tensor) or logits.dtype not in FLOATS or logits.ndim == 0:
        got = f"{logits.dtype} of shape {list(logits.shape)}" if isinstance(logits, torch.Tensor) else repr(logits)
        raise DTypeError(f"{name}: input must be float logits with at least 1 dimension; got {got}")
    if not isinstance(labels, torch.Tensor):
        raise TypeError(f"{name}: target must be a tensor of class indices or probabilities; got {labels!r}")
    dim = 0 if logits.ndim == 1 else 1
    if not labels.is_floating_point():
        return _cross_entropy(input, logits, labels, dim, weight, ignore_index, reduction, label_smoothing)
    if labels.shape != logits.shape:
        raise ShapeError(
            f"{name}: a float target holds class probabilities and must have input's shape {list(logits.shape)}; "
            f"got {list(labels.shape)}"
        )
    if ignore_index >= 0:
        raise ArgumentError(
            f"{name}: ignore_index goes with class indices; got {ignore_index} with a target of class probabilities"
        )
    classes = logits.shape[dim]
    p = target if not label_smoothing else target * (1 - label_smoothing) + label_smoothing / max(classes, 1)
    terms = mul(log_softmax(input, dim), p)
    if weight is not None:
        _check_weight(weight, logits, dim, name)
        w = raw(weight, name, "weight")
        terms = mul(terms, w.reshape([classes if i == dim else 1 for i in range(logits.ndim)]))
    loss = neg(sum(terms, dim))
    if reduction == "mean":
        return div(sum(loss), logits.numel() // max(classes, 1))
    return reduced(loss, reduction, name)


# --- regression --------------------------------------------------------------------------------------------------


def _same_shape(name: str, input: Any, target: Any) -> None:
    """Input and target of one shape; a loss that broadcasts is nearly always a mistake."""
    a, b = raw(input, name, "input"), raw(target, name, "target")
    if not isinstance(a, torch.Tensor) or not isinstance(b, torch.Tensor) or a.shape != b.shape:
        shapes = [list(v.shape) if isinstance(v, torch.Tensor) else v for v in (a, b)]
        raise ShapeError(f"{name}: target must have input's shape {shapes[0]}; got {shapes[1]}")


def l1_loss(input: Any, target: Any, reduction: str = "mean", weight: Any = None) -> Tensor:
    """The absolute error ``|input - target|``; arguments as `mse_loss`."""
    _same_shape("l1_loss", input, target)
    if weight is not None:
        return _weighted(abs(sub(input, target)), weight, reduction, "l1_loss")
    return reduced(abs(sub(input, target)), reduction, "l1_loss")


def _huber_slope(d: Any, delta: float) -> Any:
    """The difference, clamped to [-delta, delta]; its own slope at the bounds is 0, as torch's."""
    return torch.where(torch.abs(d) >= delta, delta * torch.sign(d), d)


@op(input=lambda g, input, delta: g * _huber_slope(input, delta))
def huber(input: Array, delta: float) -> Any:
    """``y = x**2 / 2 for |x| <= delta, delta (|x| - delta / 2) otherwise`` (Huber, 1964)."""
    size = torch.abs(input)
    return torch.where(size <= delta, 0.5 * input * input, delta * (size - 0.5 * delta))


def huber_loss(input: Any, target: Any, reduction: str = "mean", delta: float = 1.0, weight: Any = None) -> Tensor:
    """`huber` of the difference; arguments as `mse_loss`, ``delta > 0``, and an optional weight per element."""
    _same_shape("huber_loss", input, target)
    if not delta > 0:
        raise ArgumentError(f"huber_loss: delta must be positive; got {delta}")
    terms = huber(sub(input, target), float(delta))
    if weight is not None:
        return _weighted(terms, weight, reduction, "huber_loss")
    return reduced(terms, reduction, "huber_loss")


def smooth_l1_loss(input: Any, target: Any, reduction: str = "mean", beta: float = 1.0) -> Tensor:
    """`huber_loss` divided by ``beta``: ``d**2 / (2 beta)`` for |d| < beta, ``|d| - beta / 2`` otherwise."""
    _same_shape("smooth_l1_loss", input, target)
    if not beta >= 0:
        raise ArgumentError(f"smooth_l1_loss: beta must not be negative; got {beta}")
    if beta == 0:
        return l1_loss(input, target, reduction)
    return reduced(div(huber(sub(input, target), float(beta)), beta), reduction, "smooth_l1_loss")


# --- probabilities -----------------------------------------------------------------------------------------------


_BCE_FLOOR = torch.tensor(1e-12).item()  # torch's 1e-12 is a float32 in both dtypes


def _bce_input(g: Any, input: Any, target: Any) -> Any:
    return g * (input - target) / torch.clamp(input * (1 - input), min=_BCE_FLOOR)


@op(
    input=_bce_input,
    target=lambda g, input: (
        g * (torch.clamp(torch.log(1 - input), min=-100.0) - torch.clamp(torch.log(input), min=-100.0))
    ),
)
def bce(input: Array, target: Array) -> Any:
    """``-(t ln p + (1 - t) ln(1 - p))``, logarithms kept above -100."""
    good = (input >= 0) & (input <= 1)

    def failure() -> ArgumentError:
        return ArgumentError(
            f"binary_cross_entropy: input must hold probabilities in [0, 1]; got {input[~good][0].item()}"
        )

    verify(good, failure)
    return torch.nn.functional.binary_cross_entropy(input, target, reduction="none")


def binary_cross_entropy(input: Any, target: Any, weight: Any = None, reduction: str = "mean") -> Tensor:
    """``-(t ln p + (1 - t) ln(1 - p))`` between probabilities, the logarithms kept above -100.

    Parameters
    ----------
    input, target : probabilities in [0, 1], of one shape
    weight : broadcasts with them, or None
    """
    _same_shape("binary_cross_entropy", input, target)
    terms = bce(input, target)
    return reduced(terms if weight is None else mul(terms, weight), reduction, "binary_cross_entropy")


def binary_cross_entropy_with_logits(
    input: Any, target: Any, weight: Any = None, reduction: str = "mean", pos_weight: Any = None
) -> Tensor:
    """`binary_cross_entropy` of ``sigmoid(input)``, finite for every finite logit.

    ``(1 - t) x + (1 + (pos_weight - 1) t) softplus(-x)``, softplus in log-sum-exp form.

    Parameters
    ----------
    input : logits x
    target : probabilities t in [0, 1], of the same shape
    weight : broadcasts with them, or None
    pos_weight : weight of the positive part, broadcasts, or None
    """
    _same_shape("binary_cross_entropy_with_logits", input, target)
    softplus = neg(logsigmoid(input))
    if pos_weight is not None:
        softplus = mul(softplus, add(mul(sub(pos_weight, 1), target), 1))
    terms = add(mul(1 - target, input), softplus)
    return reduced(terms if weight is None else mul(terms, weight), reduction, "binary_cross_entropy_with_logits")


def kl_div(input: Any, target: Any, reduction: str = "mean", log_target: bool = False) -> Tensor:
    """The Kullback-Leibler divergence ``t (ln t - input)``, the input holding log-probabilities.

    Parameters
    ----------
    input : log-probabilities
    target : probabilities (or log-probabilities with ``log_target``), of the same shape
    reduction : "mean" (over all elements), "batchmean" (over the first dimension, if there is one), "sum" or "none"
    """
    _same_shape("kl_div", input, target)
    if not raw(target, "kl_div", "target").is_floating_point():
        raise DTypeError(f"kl_div: target must hold float probabilities; got {raw(target, 'kl_div', 'target').dtype}")
    terms = mul(exp(target), sub(target, input)) if log_target else sub(xlogy(target, target), mul(target, input))
    if reduction == "batchmean":
        return div(sum(terms), input.shape[0]) if input.ndim else terms
    return reduced(terms, reduction, "kl_div")
