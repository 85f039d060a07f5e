"""Pooling of volumes, at random places, and its inverse: torch's names, arguments and ``repr``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from .. import ops as F
from ..core import ArgumentError
from .checks import ntuple
from .module import Module
from .windows import Listed


@dataclass(eq=False, repr=False)
class MaxPool3d(Listed):
    """The largest value of each window of [N, C, D, H, W] or [C, D, H, W]; arguments as of `MaxPool2d`."""

    shown = ("kernel_size", "stride", "padding", "dilation", "ceil_mode")
    kernel_size: Any
    stride: Any = None
    padding: Any = 0
    dilation: Any = 1
    return_indices: bool = False
    ceil_mode: bool = False

    def __post_init__(self) -> None:
        self.stride = self.kernel_size if self.stride is None else self.stride

    def forward(self, input: Any) -> Any:
        """input [N, C, D, H, W] -> [N, C, OD, OH, OW]."""
        windows = (self.kernel_size, self.stride, self.padding, self.dilation)
        return F.max_pool3d(input, *windows, self.ceil_mode, self.return_indices)


@dataclass(eq=False, repr=False)
class AvgPool3d(Listed):
    """The mean of each window of [N, C, D, H, W] or [C, D, H, W]; arguments as of `AvgPool2d`."""

    function = "avg_pool3d"
    shown = ("kernel_size", "stride", "padding")
    kernel_size: Any
    stride: Any = None
    padding: Any = 0
    ceil_mode: bool = False
    count_include_pad: bool = True
    divisor_override: int | None = None

    def __post_init__(self) -> None:
        self.stride = self.kernel_size if self.stride is None else self.stride


@dataclass(eq=False, repr=False)
class AdaptiveAvgPool3d(Listed):
    """The mean over ``output_size`` windows of [N, C, D, H, W] or [C, D, H, W]; None keeps an extent."""

    function = "adaptive_avg_pool3d"
    shown = ("output_size",)
    output_size: Any


@dataclass(eq=False, repr=False)
class AdaptiveMaxPool3d(Listed):
    """The largest value of ``output_size`` windows of [N, C, D, H, W] or [C, D, H, W]; None keeps an extent."""

    function = "adaptive_max_pool3d"
    shown = ("output_size",)
    output_size: Any
    return_indices: bool = False


@dataclass(eq=False, repr=False)
class LPPool3d(Listed):
    """``(sum x**p)**(1 / p)`` over each window of [N, C, D, H, W], p = ``norm_type``."""

    function = "lp_pool3d"
    shown = ("norm_type", "kernel_size", "stride", "ceil_mode")
    norm_type: float
    kernel_size: Any
    stride: Any = None
    ceil_mode: bool = False


# --- at random places --------------------------------------------------------------------------------------------


@dataclass(eq=False, repr=False)
class FractionalMaxPool2d(Module):
    """Maxima of windows at random places, which give ``output_size``, or ``output_ratio`` of the input's extents.

    Parameters
    ----------
    kernel_size : int or pair
    output_size, output_ratio : one of them; int or pair, or numbers between 0 and 1
    return_indices : also return where the maxima lie
    _random_samples : the places, in [0, 1): [N, C, 2]; None draws them in every call

    Shapes: input [N, C, H, W] or [C, H, W]. Source: Graham, "Fractional Max-Pooling" (2014).
    """

    function: ClassVar[str] = "fractional_max_pool2d"
    ndim: ClassVar[int] = 2
    kernel_size: Any
    output_size: Any = None
    output_ratio: Any = None
    return_indices: bool = False
    _random_samples: Any = None

    def __post_init__(self) -> None:
        name = type(self).__name__
        self.kernel_size = ntuple(self.kernel_size, self.ndim, name, "kernel_size", 1)
        self.register_buffer("_random_samples", self.__dict__.pop("_random_samples"))
        if (self.output_size is None) == (self.output_ratio is None):
            raise ArgumentError(f"{name}: one of output_size and output_ratio must be given")
        for which in ("output_size", "output_ratio"):
            value = getattr(self, which)
            if value is not None and not isinstance(value, tuple | list):
                setattr(self, which, (value,) * self.ndim)
        if self.output_ratio is not None and not all(0 < ratio < 1 for ratio in self.output_ratio):
            raise ArgumentError(f"{name}: output_ratio must be between 0 and 1; got {self.output_ratio}")

    def forward(self, input: Any) -> Any:
        """input [N, C, ...] -> [N, C, ...]."""
        names = ("kernel_size", "output_size", "output_ratio", "return_indices", "_random_samples")
        return getattr(F, self.function)(input, *[getattr(self, name) for name in names])


class FractionalMaxPool3d(FractionalMaxPool2d):
    """`FractionalMaxPool2d` of [N, C, D, H, W] or [C, D, H, W]."""

    function = "fractional_max_pool3d"
    ndim = 3


# --- back again --------------------------------------------------------------------------------------------------


@dataclass(eq=False, repr=False)
class MaxUnpool1d(Listed):
    """Maxima of `MaxPool1d` where they lay, 0 elsewhere: [N, C, L] or [C, L], with their indices.

    ``output_size`` of a call chooses among the extents that pool to this one.
    """

    function = "max_unpool1d"
    ndim: ClassVar[int] = 1
    shown = ("kernel_size", "stride", "padding")
    kernel_size: Any
    stride: Any = None
    padding: Any = 0

    def __post_init__(self) -> None:
        name = type(self).__name__
        stride = self.kernel_size if self.stride is None else self.stride
        self.kernel_size = ntuple(self.kernel_size, self.ndim, name, "kernel_size", 1)
        self.stride = ntuple(stride, self.ndim, name, "stride", 1)
        self.padding = ntuple(self.padding, self.ndim, name, "padding")

    def forward(self, input: Any, indices: Any, output_size: Any = None) -> Any:  # type: ignore[override]
        """(input, indices) [N, C, ...] -> [N, C, ...]."""
        windows = (self.kernel_size, self.stride, self.padding)
        return getattr(F, self.function)(input, indices, *windows, output_size)


class MaxUnpool2d(MaxUnpool1d):
    """Maxima of `MaxPool2d` where they lay, 0 elsewhere: [N, C, H, W] or [C, H, W]; as `MaxUnpool1d`."""

    function = "max_unpool2d"
    ndim = 2


class MaxUnpool3d(MaxUnpool1d):
    """Maxima of `MaxPool3d` where they lay, 0 elsewhere: [N, C, D, H, W] or [C, D, H, W]; as `MaxUnpool1d`."""

    function = "max_unpool3d"
    ndim = 3
