"""Pooling along one dimension and adaptive maxima, shuffles, folding: torch's names, arguments and ``repr``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from .. import ops as F
from .module import Module


class Listed(Module):
    """Calls `function` with its arguments in their order, and shows those of `shown`, by name."""

    function: ClassVar[str]
    shown: ClassVar[tuple[str, ...]] = ()
    __match_args__: ClassVar[tuple[str, ...]] = ()

    def forward(self, input: Any) -> Any:
        """The function of the input."""
        return getattr(F, self.function)(input, *[getattr(self, name) for name in self.__match_args__])

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={getattr(self, name)}" for name in self.shown)


@dataclass(eq=False, repr=False)
class MaxPool1d(Listed):
    """The largest value of each window of [N, C, L] or [C, L]; arguments as of `MaxPool2d`."""

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
        """input [N, C, L] -> [N, C, OL]."""
        windows = (self.kernel_size, self.stride, self.padding, self.dilation)
        return F.max_pool1d(input, *windows, self.ceil_mode, self.return_indices)


def _alone(value: Any) -> Any:
    """torch keeps numbers of one dimension as tuples of one."""
    return tuple(value) if isinstance(value, tuple | list) else (value,)


@dataclass(eq=False, repr=False)
class AvgPool1d(Listed):
    """The mean of each window of [N, C, L] or [C, L]; arguments as of `AvgPool2d`."""

    function = "avg_pool1d"
    shown = ("kernel_size", "stride", "padding")
    kernel_size: Any
    stride: Any = None
    padding: Any = 0
    ceil_mode: bool = False
    count_include_pad: bool = True

    def __post_init__(self) -> None:
        self.stride = _alone(self.kernel_size if self.stride is None else self.stride)
        self.kernel_size, self.padding = _alone(self.kernel_size), _alone(self.padding)


@dataclass(eq=False, repr=False)
class AdaptiveAvgPool1d(Listed):
    """The mean over ``output_size`` windows of [N, C, L] or [C, L]."""

    function = "adaptive_avg_pool1d"
    shown = ("output_size",)
    output_size: Any


@dataclass(eq=False, repr=False)
class AdaptiveMaxPool1d(Listed):
    """The largest value of ``output_size`` windows of [N, C, L] or [C, L]; with ``return_indices`` their places too."""

    function = "adaptive_max_pool1d"
    shown = ("output_size",)
    output_size: Any
    return_indices: bool = False


@dataclass(eq=False, repr=False)
class AdaptiveMaxPool2d(Listed):
    """The largest value of ``output_size`` windows of [N, C, H, W] or [C, H, W]; None keeps an extent."""

    function = "adaptive_max_pool2d"
    shown = ("output_size",)
    output_size: Any
    return_indices: bool = False


@dataclass(eq=False, repr=False)
class LPPool1d(Listed):
    """``(sum x**p)**(1 / p)`` over each window of [N, C, L], p = ``norm_type``."""

    function = "lp_pool1d"
    shown = ("norm_type", "kernel_size", "stride", "ceil_mode")
    norm_type: float
    kernel_size: Any
    stride: Any = None
    ceil_mode: bool = False


@dataclass(eq=False, repr=False)
class LPPool2d(Listed):
    """``(sum x**p)**(1 / p)`` over each window of [N, C, H, W], p = ``norm_type``."""

    function = "lp_pool2d"
    shown = ("norm_type", "kernel_size", "stride", "ceil_mode")
    norm_type: float
    kernel_size: Any
    stride: Any = None
    ceil_mode: bool = False


@dataclass(eq=False, repr=False)
class PixelShuffle(Listed):
    """Channels into space: [..., C r**2, H, W] gives [..., C, H r, W r]."""

    function = "pixel_shuffle"
    shown = ("upscale_factor",)
    upscale_factor: int


@dataclass(eq=False, repr=False)
class PixelUnshuffle(Listed):
    """Space into channels: [..., C, H r, W r] gives [..., C r**2, H, W]."""

    function = "pixel_unshuffle"
    shown = ("downscale_factor",)
    downscale_factor: int


@dataclass(eq=False, repr=False)
class ChannelShuffle(Listed):
    """Channels of ``groups`` groups interleaved: [N, C, ...]."""

    function = "channel_shuffle"
    shown = ("groups",)
    groups: int


@dataclass(eq=False, repr=False)
class Unfold(Listed):
    """The blocks of an image as columns: [N, C, H, W] gives [N, C KH KW, blocks]."""

    function = "unfold"
    shown = ("kernel_size", "dilation", "padding", "stride")
    kernel_size: Any
    dilation: Any = 1
    padding: Any = 0
    stride: Any = 1


@dataclass(eq=False, repr=False)
class Fold(Listed):
    """Columns of blocks summed into an image: [N, C KH KW, blocks] gives [N, C, *output_size]."""

    function = "fold"
    shown = ("output_size", "kernel_size", "dilation", "padding", "stride")
    output_size: Any
    kernel_size: Any
    dilation: Any = 1
    padding: Any = 0
    stride: Any = 1
