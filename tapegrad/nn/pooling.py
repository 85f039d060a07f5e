"""Pooling layers: torch's arguments and ``repr``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from . import functional as F
from .checks import extent, ntuple, require
from .module import Module


def _both(value: Any, name: str, argument: str, least: int = 0) -> tuple[int, ...]:
    """For rows and columns: n, (n, n) and, as torch takes it, (n,)."""
    if isinstance(value, tuple | list) and len(value) == 1:
        value = value[0]
    return ntuple(value, 2, name, argument, least)


def _check_window(layer: MaxPool2d | AvgPool2d) -> None:
    """A window of at least one element, moved by at least one, with at most half of it outside the input."""
    name = type(layer).__name__
    kernel = _both(layer.kernel_size, name, "kernel_size", 1)
    _both(layer.stride, name, "stride", 1)
    padding = _both(layer.padding, name, "padding")
    half = all(2 * p <= k for p, k in zip(padding, kernel, strict=True))
    require(half, name, "padding", f"be at most half of kernel_size = {layer.kernel_size}", layer.padding)


@dataclass(eq=False, repr=False)
class MaxPool2d(Module):
    """The largest value of each window.

    Parameters
    ----------
    kernel_size, stride, padding, dilation : int or pair; ``stride`` is ``kernel_size`` unless given
    return_indices : also return where the maxima lie
    ceil_mode : round the output size up instead of down

    Shapes: input [N, C, H, W] or [C, H, W], output [N, C, OH, OW].
    """

    kernel_size: Any
    stride: Any = None
    padding: Any = 0
    dilation: Any = 1
    return_indices: bool = False
    ceil_mode: bool = False

    def __post_init__(self) -> None:
        self.stride = self.kernel_size if self.stride is None else self.stride
        _check_window(self)
        _both(self.dilation, "MaxPool2d", "dilation", 1)

    def forward(self, input: Any) -> Any:
        """input [N, C, H, W] -> [N, C, OH, OW]."""
        return F.max_pool2d(
            input,
            self.kernel_size,
            self.stride,
            self.padding,
            self.dilation,
            ceil_mode=self.ceil_mode,
            return_indices=self.return_indices,
        )

    def extra_repr(self) -> str:
        names = ("kernel_size", "stride", "padding", "dilation", "ceil_mode")
        return ", ".join(f"{name}={getattr(self, name)}" for name in names)


@dataclass(eq=False, repr=False)
class AvgPool2d(Module):
    """The mean of each window.

    Parameters
    ----------
    kernel_size, stride, padding : int or pair; ``stride`` is ``kernel_size`` unless given
    ceil_mode : round the output size up instead of down
    count_include_pad : whether padding counts into the mean
    divisor_override : divide by this instead of the number of elements

    Shapes: input [N, C, H, W] or [C, H, W], output [N, C, OH, OW].
    """

    kernel_size: Any
    stride: Any = None
    padding: Any = 0
    ceil_mode: bool = False
    count_include_pad: bool = True
    divisor_override: int | None = None

    def __post_init__(self) -> None:
        self.stride = self.kernel_size if self.stride is None else self.stride
        _check_window(self)

    def forward(self, input: Any) -> Any:
        """input [N, C, H, W] -> [N, C, OH, OW]."""
        return F.avg_pool2d(
            input,
            self.kernel_size,
            self.stride,
            self.padding,
            self.ceil_mode,
            self.count_include_pad,
            self.divisor_override,
        )

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


@dataclass(eq=False, repr=False)
class AdaptiveAvgPool2d(Module):
    """The mean over as many windows as ``output_size`` (int or pair; None keeps an extent) asks for.

    Shapes: input [N, C, H, W] or [C, H, W], output [N, C, OH, OW].
    """

    output_size: Any

    def __post_init__(self) -> None:
        sizes = self.output_size if isinstance(self.output_size, tuple | list) else [self.output_size]
        for size in sizes:
            if size is not None:
                extent(size, "AdaptiveAvgPool2d", "output_size")

    def forward(self, input: Any) -> Any:
        """input [N, C, H, W] -> [N, C, OH, OW]."""
        return F.adaptive_avg_pool2d(input, self.output_size)

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}"
