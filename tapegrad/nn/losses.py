"""Losses as modules: torch's names and arguments; its older ``size_average`` and ``reduce`` by keyword.

Where torch has those in front, the arguments behind them are keyword-only here, so that no position changes meaning.
``reduction`` is "mean", "sum" or "none".
"""

from __future__ import annotations

from dataclasses import InitVar, dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar

from . import functional as F
from .checks import one_of
from .module import Module


@dataclass(eq=False, repr=False)
class Loss(Module):
    """A loss; its dataclass fields are the keyword arguments of the function in `nn.functional` that it calls."""

    function: ClassVar[str]
    __match_args__: ClassVar[tuple[str, ...]] = ()
    reductions: ClassVar[tuple[str, ...]] = ("mean", "sum", "none")
    if TYPE_CHECKING:
        reduction: str  # a field of each loss, in torch's place
    size_average: InitVar[bool | None] = field(default=None, kw_only=True)
    reduce: InitVar[bool | None] = field(default=None, kw_only=True)

    def __post_init__(self, size_average: bool | None, reduce: bool | None) -> None:
        if size_average is not None or reduce is not None:
            self.reduction = F.older_reduction(size_average, reduce)
        one_of(self.reduction, self.reductions, type(self).__name__, "reduction")
        for name in ("weight", "pos_weight"):
            if name in self.arguments():  # tensors of weights are buffers, as torch's
                self.register_buffer(name, self.__dict__.pop(name))

    def arguments(self) -> dict[str, Any]:
        """The keyword arguments of the function."""
        return {f.name: getattr(self, f.name, None) for f in fields(self)}

    def forward(self, input: Any, target: Any) -> Any:
        """The loss of the input against the target: a scalar, or per element with ``reduction="none"``."""
        return getattr(F, self.function)(input, target, **self.arguments())


@dataclass(eq=False, repr=False)
class MSELoss(Loss):
    """``(input - target)**2``, averaged over all elements."""

    function = "mse_loss"
    reduction: str = field(default="mean", kw_only=True)


@dataclass(eq=False, repr=False)
class L1Loss(Loss):
    """``|input - target|``, averaged over all elements."""

    function = "l1_loss"
    reduction: str = field(default="mean", kw_only=True)


@dataclass(eq=False, repr=False)
class SmoothL1Loss(Loss):
    """``d**2 / (2 beta)`` where ``d = |input - target| < beta``, else ``d - beta / 2``."""

    function = "smooth_l1_loss"
    reduction: str = field(default="mean", kw_only=True)
    beta: float = field(default=1.0, kw_only=True)


@dataclass(eq=False, repr=False)
class HuberLoss(Loss):
    """``d**2 / 2`` where ``d = |input - target| <= delta``, else ``delta * (d - delta / 2)``."""

    function = "huber_loss"
    reduction: str = "mean"
    delta: float = 1.0


@dataclass(eq=False, repr=False)
class CrossEntropyLoss(Loss):
    """``-log softmax(input)[target]`` of logits [N, C, ...] against class indices, or class probabilities.

    Parameters
    ----------
    weight : [C], of each class; a buffer, so in the state dict
    ignore_index : targets with this value count nothing
    label_smoothing : in [0, 1], the share of each target spread evenly over all classes
    """

    function = "cross_entropy"
    weight: Any = None
    ignore_index: int = field(default=-100, kw_only=True)
    reduction: str = field(default="mean", kw_only=True)
    label_smoothing: float = field(default=0.0, kw_only=True)


@dataclass(eq=False, repr=False)
class NLLLoss(Loss):
    """``-input[target]`` of log-probabilities [N, C, ...] against class indices; arguments as of `CrossEntropyLoss`."""

    function = "nll_loss"
    weight: Any = None
    ignore_index: int = field(default=-100, kw_only=True)
    reduction: str = field(default="mean", kw_only=True)


@dataclass(eq=False, repr=False)
class BCELoss(Loss):
    """``-(t log x + (1 - t) log(1 - x))`` of probabilities x; ``weight`` broadcasts to the target."""

    function = "binary_cross_entropy"
    weight: Any = None
    reduction: str = field(default="mean", kw_only=True)


@dataclass(eq=False, repr=False)
class BCEWithLogitsLoss(Loss):
    """`BCELoss` of ``sigmoid(input)``, finite for all logits; ``pos_weight`` multiplies the positive term."""

    function = "binary_cross_entropy_with_logits"
    weight: Any = None
    reduction: str = field(default="mean", kw_only=True)
    pos_weight: Any = field(default=None, kw_only=True)


@dataclass(eq=False, repr=False)
class KLDivLoss(Loss):
    """``t * (log t - input)`` of log-probabilities against probabilities t (log t with ``log_target``).

    ``reduction="batchmean"`` divides the sum by the first extent, "mean" by all of them.
    """

    function = "kl_div"
    reductions = ("mean", "batchmean", "sum", "none")
    reduction: str = field(default="mean", kw_only=True)
    log_target: bool = field(default=False, kw_only=True)
