"""Connectionist temporal classification: a loss over all alignments of a sequence with its labels."""

from __future__ import annotations

from typing import Any

import torch

from ..core import _C, ArgumentError, Array, DTypeError, ShapeError, Tensor, caller, raw, tensor_argument
from .defined import Defined
from .elementwise import add, clamp, exp, where
from .indexing import gather
from .loss import reduced
from .reduce import logsumexp, sum
from .shape import cat, stack, unsqueeze

__all__ = ["ctc_loss"]

_NEVER = -1e30  # stands for ln 0 in the plain formulation, so that nothing there becomes inf - inf


def _prime(targets: torch.Tensor, lengths: torch.Tensor, blank: int) -> torch.Tensor:
    """[N, 2 S + 1]: the labels of each sequence with blanks between and around them; what is behind its end is unused.

    No value is read: of targets in one row, S is the number of all.
    """
    most = targets.shape[-1]
    if targets.ndim == 1 and most:
        place = (torch.cumsum(lengths, 0) - lengths).unsqueeze(1) + torch.arange(most)
        targets = targets[place.clamp(max=most - 1)]
    prime = torch.full((len(lengths), 2 * most + 1), blank)
    prime[:, 1::2] = targets
    return prime


def _plain(
    log_probs: Any, targets: Any, input_lengths: Any, target_lengths: Any, blank: int, zero_infinity: bool
) -> Any:
    """The op's output, op by op; its derivative is torch's, as behind a log_softmax."""
    targets, steps, lengths = (v.data for v in (targets, input_lengths, target_lengths))
    prime = _prime(targets, lengths, blank)
    n, states = prime.shape
    t, state = torch.arange(len(log_probs)).unsqueeze(1), torch.arange(states)
    skips = (state > 1) & (prime != prime.roll(2, 1))
    emitted = clamp(gather(log_probs, 2, prime.expand(len(log_probs), n, states)), min=_NEVER)  # [T, N, states]
    never = torch.full((n, 2), _NEVER, dtype=log_probs.dtype)
    alpha = where(state < 2, emitted[0], _NEVER) if len(log_probs) else Tensor(never[:, :1].expand(n, states))
    for i in range(1, len(log_probs)):
        padded = cat([never, alpha], 1)  # [N, 2 + states]
        before = [alpha, padded[:, 1:-1], where(skips, padded[:, :-2], _NEVER)]
        new = add(logsumexp(stack(before), 0), emitted[i])
        alpha = where((i < steps).unsqueeze(1), new, alpha)
    last = (2 * lengths).unsqueeze(1)
    ends = [gather(alpha, 1, last), gather(alpha, 1, (last - 1).clamp(min=0))]
    total = logsumexp(stack([ends[0], where(last > 0, ends[1], _NEVER)]), 0)[:, 0]
    none = torch.where(lengths > 0, torch.inf, 0.0).to(log_probs.dtype)  # the loss of a sequence without steps
    loss = where(steps > 0, where(total > _NEVER / 10, -total, torch.inf), none)
    mass = sum(where((t < steps).unsqueeze(2), exp(log_probs), 0.0), [0, 2])
    found = torch.isfinite(loss.data) if zero_infinity else torch.ones(n, dtype=torch.bool)
    return add(loss, where(found, mass - mass.detach(), 0.0))


def _backward(
    g: Any,
    log_probs: Any,
    targets: Any,
    input_lengths: Any,
    target_lengths: Any,
    out: Any,
    alpha: Any,
    blank: int,
    zero_infinity: bool,
) -> Any:
    call = log_probs, targets, input_lengths, target_lengths, out, alpha, blank, zero_infinity
    return _C.ctc_loss_backward(g, *call), None, None, None


def _ctc_loss(
    log_probs: Array, targets: Array, input_lengths: Array, target_lengths: Array, blank: int, zero_infinity: bool
) -> Any:
    """`ctc_loss` of each sequence [N], infinite where there is no alignment."""
    return _C.ctc_loss(log_probs, targets, input_lengths, target_lengths, blank)


_op = caller(Defined(_ctc_loss, _plain, _backward, ("log_probs",), residuals=("alpha",), name="ctc_loss"), __name__)


def _lengths(value: Any, name: str) -> torch.Tensor:
    """Lengths as int64 [N], from a tensor, ints or one int."""
    given = value if isinstance(value, tuple | list) else raw(value, "ctc_loss", name)
    given = given if isinstance(given, torch.Tensor) else torch.tensor(given)
    if given.is_floating_point() or given.dtype is torch.bool:
        raise DTypeError(f"ctc_loss: {name} must hold integers; got {given.dtype}")
    return given.long().reshape(1) if given.ndim == 0 else given.long()


def ctc_loss(
    log_probs: Any,
    targets: Any,
    input_lengths: Any,
    target_lengths: Any,
    blank: int = 0,
    reduction: str = "mean",
    zero_infinity: bool = False,
) -> Tensor:
    """``-ln p(targets | log_probs)``, p the sum over all alignments of the labels, blanks between them, with the steps.

    The gradient by ``log_probs`` is torch's: ``e^log_probs - posterior``, which is right behind a ``log_softmax``.

    Parameters
    ----------
    log_probs : [T, N, C] or [T, C], logarithms of probabilities
    targets : classes other than ``blank``: [N, S], or [sum of target_lengths], those of all sequences in one row
    input_lengths, target_lengths : [N], ints or tensors
    blank : the class of "no label"
    reduction : "mean" (each loss over its target's length, then over N), "sum" or "none" ([N])
    zero_infinity : loss and gradient of a sequence that is too short for its labels are 0, not infinite

    Source: Graves et al., Connectionist temporal classification (ICML 2006).
    """
    if reduction not in ("mean", "sum", "none"):
        raise ArgumentError(f'ctc_loss: reduction must be "mean", "sum" or "none"; got {reduction!r}')
    x = tensor_argument(log_probs, "ctc_loss", "log_probs")
    labels = raw(targets, "ctc_loss", "targets")
    if not isinstance(labels, torch.Tensor) or labels.is_floating_point() or labels.dtype is torch.bool:
        raise DTypeError("ctc_loss: targets must be a tensor of integers")
    if x.ndim not in (2, 3):
        raise ShapeError(f"ctc_loss: log_probs must have shape [T, N, C] or [T, C]; got {list(x.shape)}")
    batched = x.ndim == 3
    if not batched:
        x, labels = unsqueeze(x, 1), labels.reshape(1, -1)
    steps, lengths = _lengths(input_lengths, "input_lengths"), _lengths(target_lengths, "target_lengths")
    loss: Tensor = _op(x, labels.long(), steps, lengths, blank, zero_infinity)
    if zero_infinity:
        loss = where(loss == torch.inf, 0.0, loss)
    if reduction == "mean":
        loss = loss / lengths.clamp(min=1)
    if not batched and reduction == "none":
        loss = loss[0]
    return reduced(loss, reduction, "ctc_loss")
