"""Dropout of whole channels, and the one that keeps mean and variance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from .. import ops as F
from ..ops.inplace import overwritten
from .layers import Dropout


@dataclass(eq=False, repr=False)
class _Dropped(Dropout):
    function: ClassVar[str]

    def forward(self, input: Any) -> Any:
        """input -> the same shape."""
        return overwritten(self.inplace, input, getattr(F, self.function)(input, self.p, self.training))


class Dropout1d(_Dropped):
    """In training, each channel of [N, C, L] or [C, L] 0 with probability ``p``, else times ``1 / (1 - p)``."""

    function = "dropout1d"


class Dropout2d(_Dropped):
    """In training, each channel of [N, C, H, W] or [C, H, W] 0 with probability ``p``, else times ``1 / (1 - p)``."""

    function = "dropout2d"


class Dropout3d(_Dropped):
    """In training, each channel of [N, C, D, H, W] 0 with probability ``p``, else times ``1 / (1 - p)``."""

    function = "dropout3d"


class AlphaDropout(_Dropped):
    """In training, elements set to SELU's limit with probability ``p``; mean 0 and variance 1 are kept."""

    function = "alpha_dropout"


class FeatureAlphaDropout(_Dropped):
    """`AlphaDropout` of whole channels of [N, C, ...]."""

    function = "feature_alpha_dropout"
