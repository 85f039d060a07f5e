"""What distributions that scripts write need: torch.distributions.utils."""

from __future__ import annotations

import functools
from typing import Any

from ..core import Tensor
from ..ops import log, log1p, sigmoid, softmax
from .discrete import clamp_probs
from .distribution import parameters

__all__ = ["broadcast_all", "clamp_probs", "lazy_property", "logits_to_probs", "probs_to_logits"]

lazy_property = functools.cached_property


def broadcast_all(*values: Any) -> tuple[Tensor, ...]:
    """Numbers and tensors as Tensors of one shape."""
    return tuple(parameters("broadcast_all", **{f"values[{i}]": value for i, value in enumerate(values)}))


def logits_to_probs(logits: Tensor, is_binary: bool = False) -> Tensor:
    """Probabilities of log odds (``is_binary``), or of logarithms up to a constant, along the last dimension."""
    return sigmoid(logits) if is_binary else softmax(logits, -1)


def probs_to_logits(probs: Tensor, is_binary: bool = False) -> Tensor:
    """The inverse of `logits_to_probs`, of probabilities kept away from 0 and 1."""
    p = clamp_probs(probs)
    return log(p) - log1p(-p) if is_binary else log(p)
