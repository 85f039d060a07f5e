"""Labels: what a user's targets mean to a loss, which class each of them names, and how many are met.

`as_targets` turns labels into what a loss takes beside a model's output, and names what does not fit before anything is
trained. `accuracy_of` reads back which class a target names.

=====================================  ==========================================================================
loss                                   targets
=====================================  ==========================================================================
cross_entropy, nll_loss                class indices [N, ...]; or one-hot, the output's shape; cross_entropy also
                                       class probabilities
mse_loss, l1_loss, smooth_l1_loss,     the output's shape (a missing or additional dimension of 1 is no matter);
huber_loss, binary_cross_entropy       or class indices [N] for an output [N, C], which become one-hot; or, for
(with_logits)                          C = 2, -1 and +1, which become (1, -1) and (-1, 1)
any other                              as they are
=====================================  ==========================================================================
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from ..core import ArgumentError, DTypeError, ShapeError
from ..nn import functional as F
from ..nn.losses import Loss
from ..ops.loss import check_classes

Accuracy = Callable[[torch.Tensor, torch.Tensor], float]

INDICES = {"cross_entropy", "nll_loss"}
PROBABILITIES = {"binary_cross_entropy", "binary_cross_entropy_with_logits"}
VALUES = {"mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss"} | PROBABILITIES


def _function(loss: Any) -> str:
    """The name in `nn.functional` of the loss that a module or a function computes; "" for a loss of the user's."""
    if isinstance(loss, Loss):
        return loss.function
    name = getattr(loss, "__name__", "")
    return name if getattr(F, name, None) is loss else ""


def _list(shape: Sequence[int]) -> str:
    """The shape of any number of samples: [N, 2]."""
    return "[" + ", ".join(["N", *map(str, shape[1:])]) + "]"


# --- labels to targets -------------------------------------------------------------------------------------------


def as_targets(y: torch.Tensor, output: torch.Tensor, loss: Any) -> torch.Tensor:
    """Labels [N, ...] as `loss` takes them beside outputs shaped like `output`, one batch of them.

    Raises
    ------
    ShapeError, DTypeError, ArgumentError
        named after the loss, with the first row that does not fit.
    """
    function = _function(loss)
    if function not in INDICES | VALUES:
        return y
    name = type(loss).__name__ if isinstance(loss, Loss) else function
    y = y if y.is_floating_point() else y.long()
    if function in INDICES:
        return _indices(y, output, function, getattr(loss, "ignore_index", -100), name)
    y = _values(y, output, name)
    if function in PROBABILITIES:
        _check_unit(y, "targets", name)
    return y


def _indices(y: torch.Tensor, output: torch.Tensor, function: str, ignore_index: int, name: str) -> torch.Tensor:
    """Class indices, or class probabilities for cross_entropy."""
    if output.ndim < 2:
        raise ShapeError(f"{name}: the model's output must be [N, C], a column per class; got {_list(output.shape)}")
    if y.shape[1:] == output.shape[2:] and not y.is_floating_point():
        check_classes(y, output.shape[1], ignore_index, name)
        return y
    if y.shape[1:] != output.shape[1:]:
        problem = ShapeError if y.shape[1:] != output.shape[2:] else DTypeError
        raise problem(
            f"{name}: targets must be integer class indices {_list([0, *output.shape[2:]])} or one-hot "
            f"{_list(output.shape)}; got {y.dtype} of shape {list(y.shape)}"
        )
    if function == "cross_entropy" and y.is_floating_point():
        _check_unit(y, "class probabilities", name)
        return y.to(output.dtype)
    if not _is_one_hot(y, 0):
        raise ArgumentError(f"{name}: targets of the output's shape {_list(output.shape)} must be one-hot")
    return y.argmax(1)


def _values(y: torch.Tensor, output: torch.Tensor, name: str) -> torch.Tensor:
    """Targets of the output's shape and dtype."""
    row = output.shape[1:]
    if y.shape[1:] == row or y.shape[1:].numel() == row.numel() == 1:
        return y.reshape(len(y), *row).to(output.dtype)
    if y.ndim != 1 or output.ndim != 2 or y.is_floating_point():
        also = ", or be integer class indices [N]" if output.ndim == 2 else ""
        raise ShapeError(
            f"{name}: targets must have the output's shape {_list(output.shape)}{also}; "
            f"got {y.dtype} of shape {list(y.shape)}"
        )
    if row[0] == 2 and bool((y == -1).any()):
        bad = ((y != -1) & (y != 1)).nonzero().flatten().tolist()
        if bad:
            raise ArgumentError(f"{name}: targets must be -1 or +1 throughout; got {y[bad[0]].item()} at row {bad[0]}")
        return torch.stack([-y, y], 1).to(output.dtype)
    check_classes(y, row[0], -100, name)
    return torch.nn.functional.one_hot(y, row[0]).to(output.dtype)


def _check_unit(y: torch.Tensor, what: str, name: str) -> None:
    bad = ~((y >= 0) & (y <= 1))
    if bool(bad.any()):
        index = tuple(bad.nonzero()[0].tolist())
        raise ArgumentError(f"{name}: {what} must lie in [0, 1]; got {y[index].item()} at row {index[0]}")


# --- targets to classes ------------------------------------------------------------------------------------------


def accuracy_of(targets: Sequence[torch.Tensor], output: torch.Tensor, loss: Any) -> Accuracy | None:
    """The share of outputs that name the class their target names, as a function of (output, target).

    A target names a class by its index, by a row of zeros (or -1) with a single 1, or as one number that is 0 (or -1)
    or 1. An output names the class of its largest entry along dimension 1; as one number, class 1 above the middle (0
    for logits). None where the targets, all of them together, name no classes.
    """
    function = _function(loss)
    classes = output.shape[1] if output.ndim > 1 else 1
    if classes > 1 and all(not y.is_floating_point() and y.shape[1:] == output.shape[2:] for y in targets):
        ignored = getattr(loss, "ignore_index", -100)
        return lambda output, y: _share((output.argmax(1) == y)[y != ignored])
    if any(y.shape[1:] != output.shape[1:] for y in targets):
        return None
    low = -1 if any(bool((y == -1).any()) for y in targets) else 0
    if output.shape[1:].numel() == 1:
        middle = _middle(function, low)
        if middle is None or not all(bool(((y == low) | (y == 1)).all()) for y in targets):
            return None
        return lambda output, y: _share((output > middle) == (y == 1))
    if not all(_is_one_hot(y, low) for y in targets):
        return None
    return lambda output, y: _share(output.argmax(1) == y.argmax(1))


def _middle(function: str, low: int) -> float | None:
    """Above which number an output means 1; None where that is the loss's secret."""
    if function == "binary_cross_entropy_with_logits":
        return 0.0
    return (low + 1) / 2 if function in VALUES or low == -1 else None


def _is_one_hot(y: torch.Tensor, low: int) -> bool:
    """Whether every row is `low` but for a single 1 along dimension 1."""
    one = y == 1
    return y.ndim > 1 and bool((one | (y == low)).all()) and bool((one.sum(1) == 1).all())


def _share(met: torch.Tensor) -> float:
    return float(met.double().mean())
