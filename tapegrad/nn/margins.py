"""Losses by margins, ranks and distributions' parameters, as modules: torch's names and arguments."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from .. import ops as F
from .distances import PairwiseDistance
from .losses import Loss
from .module import Module


class _OfTwoInputs(Loss):
    """A loss of two inputs and a target."""

    def forward(self, input1: Any, input2: Any, target: Any) -> Any:  # type: ignore[override]
        """The loss of the two inputs against the target."""
        return getattr(F, self.function)(input1, input2, target, **self.arguments())


@dataclass(eq=False, repr=False)
class MarginRankingLoss(_OfTwoInputs):
    """``max(0, -y (x1 - x2) + margin)``, y = 1 where x1 should rank higher, -1 where x2."""

    function = "margin_ranking_loss"
    margin: float = 0.0
    reduction: str = field(default="mean", kw_only=True)


@dataclass(eq=False, repr=False)
class CosineEmbeddingLoss(_OfTwoInputs):
    """``1 - cos`` where y = 1, ``max(0, cos - margin)`` where y = -1."""

    function = "cosine_embedding_loss"
    margin: float = 0.0
    reduction: str = field(default="mean", kw_only=True)


@dataclass(eq=False, repr=False)
class HingeEmbeddingLoss(Loss):
    """x where y = 1, ``max(0, margin - x)`` where y = -1."""

    function = "hinge_embedding_loss"
    margin: float = 1.0
    reduction: str = field(default="mean", kw_only=True)


@dataclass(eq=False, repr=False)
class SoftMarginLoss(Loss):
    """``ln(1 + e**(-y x))``, y = 1 or -1."""

    function = "soft_margin_loss"
    reduction: str = field(default="mean", kw_only=True)


@dataclass(eq=False, repr=False)
class MultiLabelSoftMarginLoss(Loss):
    """The mean over classes of the binary cross-entropy of logits: targets 0 or 1."""

    function = "multilabel_soft_margin_loss"
    weight: Any = None
    reduction: str = field(default="mean", kw_only=True)


@dataclass(eq=False, repr=False)
class MultiLabelMarginLoss(Loss):
    """Hinges of each class of a row against the classes that it has not; a row's classes end at -1."""

    function = "multilabel_margin_loss"
    reduction: str = field(default="mean", kw_only=True)


@dataclass(eq=False, repr=False)
class MultiMarginLoss(Loss):
    """``sum_{i != y} w_y max(0, margin - x_y + x_i)**p / C``."""

    function = "multi_margin_loss"
    p: int = 1
    margin: float = 1.0
    weight: Any = None
    reduction: str = field(default="mean", kw_only=True)


@dataclass(eq=False, repr=False)
class PoissonNLLLoss(Loss):
    """``e**x - y x``, or without ``log_input`` ``x - y ln(x + eps)``; ``full`` adds Stirling's ``ln y!``."""

    function = "poisson_nll_loss"
    log_input: bool = True
    full: bool = False
    eps: float = field(default=1e-8, kw_only=True)
    reduction: str = field(default="mean", kw_only=True)


@dataclass(eq=False, repr=False)
class GaussianNLLLoss(Loss):
    """``(ln v + (x - y)**2 / v) / 2`` with ``v = max(var, eps)``; ``full`` adds ``ln(2 pi) / 2``."""

    function = "gaussian_nll_loss"
    full: bool = field(default=False, kw_only=True)
    eps: float = field(default=1e-6, kw_only=True)
    reduction: str = field(default="mean", kw_only=True)

    def forward(self, input: Any, target: Any, var: Any) -> Any:  # type: ignore[override]
        """The loss of the input against the target, given its variance."""
        return F.gaussian_nll_loss(input, target, var, self.full, self.eps, self.reduction)


@dataclass(eq=False, repr=False)
class CTCLoss(Loss):
    """``-ln p(targets | log_probs)`` over all alignments of steps with labels: `nn.functional.ctc_loss`."""

    function = "ctc_loss"
    blank: int = 0
    reduction: str = "mean"
    zero_infinity: bool = False

    def forward(self, log_probs: Any, targets: Any, input_lengths: Any, target_lengths: Any) -> Any:  # type: ignore[override]
        """The loss of log_probs [T, N, C] against targets [N, S], or those of all sequences in one row."""
        options = self.blank, self.reduction, self.zero_infinity
        return F.ctc_loss(log_probs, targets, input_lengths, target_lengths, *options)


@dataclass(eq=False, repr=False)
class TripletMarginLoss(Loss):
    """``max(0, d(a, p) - d(a, n) + margin)`` with d a distance of order ``p``."""

    function = "triplet_margin_loss"
    margin: float = 1.0
    p: float = 2.0
    eps: float = 1e-6
    swap: bool = False
    reduction: str = field(default="mean", kw_only=True)

    def forward(self, anchor: Any, positive: Any, negative: Any) -> Any:  # type: ignore[override]
        """Three inputs [N, D] (or [D])."""
        return F.triplet_margin_loss(anchor, positive, negative, **self.arguments())


class TripletMarginWithDistanceLoss(Module):
    """``max(0, d(a, p) - d(a, n) + margin)`` with d any function of two inputs (`PairwiseDistance` unless given)."""

    def __init__(
        self,
        *,
        distance_function: Callable[[Any, Any], Any] | None = None,
        margin: float = 1.0,
        swap: bool = False,
        reduction: str = "mean",
    ) -> None:
        super().__init__()
        self.distance_function = distance_function or PairwiseDistance()
        self.margin, self.swap, self.reduction = margin, swap, reduction

    def forward(self, anchor: Any, positive: Any, negative: Any) -> Any:
        """Three inputs."""
        return F.triplet_margin_with_distance_loss(
            anchor,
            positive,
            negative,
            distance_function=self.distance_function,
            margin=self.margin,
            swap=self.swap,
            reduction=self.reduction,
        )
