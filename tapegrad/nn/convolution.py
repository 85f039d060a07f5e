"""Convolution layers: torch's arguments, initial values and ``repr``.

N batch, C channels, H W extents; OC, OH, OW those of the output. ``device`` is taken as torch takes it and can only be
the CPU; ``dtype`` is that of the parameters (float32 unless torch's default says otherwise).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch

from ..core import ShapeError
from ..ops import conv_transpose3d
from ..ops.conv import upsample_conv2d
from . import functional as F
from .checks import extent, ntuple, one_of, parameter_dtype, require
from .layers import reset_uniform
from .module import Module
from .parameter import Parameter, new_parameter


class _Conv(Module):
    """What convolutions of any number of dimensions share: checked arguments, parameters, ``repr``."""

    bias: Parameter | None
    ndim: int
    transposed = False

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any,
        padding: Any,
        dilation: Any,
        output_padding: Any,
        groups: int,
        bias: bool,
        padding_mode: str,
        device: Any,
        dtype: torch.dtype | None,
    ) -> None:
        super().__init__()
        name, n = type(self).__name__, self.ndim
        self.in_channels = extent(in_channels, name, "in_channels")
        self.out_channels = extent(out_channels, name, "out_channels")
        self.groups = extent(groups, name, "groups", 1)
        for argument, channels in (("in_channels", self.in_channels), ("out_channels", self.out_channels)):
            require(channels % self.groups == 0, name, argument, f"be divisible by groups = {groups}", channels)
        self.kernel_size = ntuple(kernel_size, n, name, "kernel_size", 1)
        self.stride = ntuple(stride, n, name, "stride", 1)
        self.dilation = ntuple(dilation, n, name, "dilation", 1)
        self.output_padding = ntuple(output_padding, n, name, "output_padding")
        self.padding: str | tuple[int, ...]
        if isinstance(padding, str):
            one_of(padding, ("same", "valid"), name, "padding")
            require(padding == "valid" or max(self.stride) == 1, name, "stride", 'be 1 with padding="same"', stride)
            self.padding = padding
        else:
            self.padding = ntuple(padding, n, name, "padding")
        modes = ("zeros",) if self.transposed else ("zeros", "reflect", "replicate", "circular")
        one_of(padding_mode, modes, name, "padding_mode")
        self.padding_mode = padding_mode

        dtype = parameter_dtype(device, dtype, name)
        rows, columns = self.in_channels, self.out_channels
        if not self.transposed:
            rows, columns = columns, rows
        self.weight = new_parameter(name, (rows, columns // self.groups, *self.kernel_size), dtype)
        self.bias = new_parameter(name, (self.out_channels,), dtype) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new initial values: weight and bias uniform in ``+-1 / sqrt(fan_in)``."""
        reset_uniform(self.weight, self.bias)

    def _padded(self, input: Any) -> tuple[Any, Any]:
        """The input with its borders filled as ``padding_mode`` says, and the (zero) padding that remains."""
        if self.padding_mode == "zeros":
            return input, self.padding
        both: list[int] = []  # (before, after) of each dimension, last dimension first, as F.pad takes them
        for i in reversed(range(self.ndim)):
            if isinstance(self.padding, str):
                total = self.dilation[i] * (self.kernel_size[i] - 1) if self.padding == "same" else 0
                both += [total // 2, total - total // 2]
            else:
                both += [self.padding[i]] * 2
        return F.pad(input, both, mode=self.padding_mode), (0,) * self.ndim

    def extra_repr(self) -> str:
        zeros, ones = (0,) * self.ndim, (1,) * self.ndim
        shown = [f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"]
        for name, default in (("padding", zeros), ("dilation", ones), ("output_padding", zeros), ("groups", 1)):
            value = getattr(self, name)
            if value != default:
                shown.append(f"{name}={value}")
        if self.bias is None:
            shown.append("bias=False")
        if self.padding_mode != "zeros":
            shown.append(f"padding_mode={self.padding_mode}")
        return ", ".join(shown)


class _Plain(_Conv):
    """A convolution that is not transposed; `convolve` is the function of its number of dimensions."""

    convolve: ClassVar[Callable[..., Any]]

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        channels, window = (in_channels, out_channels), (kernel_size, stride, padding, dilation)
        super().__init__(*channels, *window, 0, groups, bias, padding_mode, device, dtype)

    def forward(self, input: Any) -> Any:
        """input [N, C, ...] -> [N, OC, ...]."""
        x, padding = self._padded(input)
        return self.convolve(x, self.weight, self.bias, self.stride, padding, self.dilation, self.groups)


class Conv1d(_Plain):
    """Cross-correlation along one dimension; arguments as of `Conv2d`.

    Shapes: input [N, C, L] or [C, L], output [N, OC, OL]; ``weight`` [OC, C / groups, K], ``bias`` [OC].
    """

    ndim = 1
    convolve = staticmethod(F.conv1d)


class Conv2d(_Plain):
    """Cross-correlation with a bank of filters: ``y[n, oc] = b[oc] + sum_c w[oc, c] * x[n, c]``.

    Parameters
    ----------
    in_channels, out_channels : C and OC
    kernel_size, stride, dilation : int or pair
    padding : int, pair, "valid" (none) or "same" (output as large as the input, stride 1)
    groups : blocks of channels that are convolved separately; divides C and OC
    bias : learn an additive bias (default True)
    padding_mode : what the borders hold: "zeros", "reflect", "replicate", "circular"

    Shapes: input [N, C, H, W] or [C, H, W], output [N, OC, OH, OW]; ``weight`` [OC, C / groups, KH, KW], ``bias`` [OC],
    both uniform in ``+-1 / sqrt(C / groups * KH * KW)`` at the start. Source: report 5, equation 4.
    """

    ndim = 2
    convolve = staticmethod(F.conv2d)


class Conv3d(_Plain):
    """Cross-correlation in three dimensions; arguments as of `Conv2d`.

    Shapes: input [N, C, D, H, W] or [C, D, H, W], output [N, OC, OD, OH, OW]; ``weight`` [OC, C / groups, KD, KH, KW],
    ``bias`` [OC].
    """

    ndim = 3
    convolve = staticmethod(F.conv3d)


class _Transposed(_Conv):
    """The transposed convolution; `convolve` is the function of its number of dimensions."""

    transposed = True
    convolve: ClassVar[Callable[..., Any]]

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = 0,
        output_padding: Any = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Any = 1,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        require(not isinstance(padding, str), type(self).__name__, "padding", "be an int or a tuple", padding)
        channels, window = (in_channels, out_channels), (kernel_size, stride, padding, dilation)
        super().__init__(*channels, *window, output_padding, groups, bias, padding_mode, device, dtype)

    def forward(self, input: Any, output_size: Sequence[int] | None = None) -> Any:
        """input [N, C, ...] -> [N, OC, ...]; ``output_size`` chooses the extents that a stride leaves open."""
        extra = self.output_padding if output_size is None else self._extra(input, list(output_size)[-self.ndim :])
        window = (self.stride, self.padding, extra, self.groups, self.dilation)
        return self.convolve(input, self.weight, self.bias, *window)

    def _extra(self, input: Any, output_size: list[int]) -> tuple[int, ...]:
        """The output padding that gives `output_size`."""
        assert not isinstance(self.padding, str)
        sizes = zip(input.shape[-self.ndim :], self.stride, self.padding, self.dilation, self.kernel_size, strict=True)
        least = [(n - 1) * s - 2 * p + d * (k - 1) + 1 for n, s, p, d, k in sizes]
        extra = tuple(size - low for size, low in zip(output_size, least, strict=True))
        if any(not 0 <= e < s for e, s in zip(extra, self.stride, strict=True)):
            most = [low + s - 1 for low, s in zip(least, self.stride, strict=True)]
            name = type(self).__name__
            raise ShapeError(f"{name}: output_size must lie between {least} and {most}; got {output_size}")
        return extra


class ConvTranspose1d(_Transposed):
    """The transposed convolution along one dimension; arguments as of `ConvTranspose2d`.

    Shapes: input [N, C, L], output [N, OC, (L - 1) S - 2 P + D (K - 1) + OP + 1]; ``weight`` [C, OC / groups, K].
    """

    ndim = 1
    convolve = staticmethod(F.conv_transpose1d)


class ConvTranspose2d(_Transposed):
    """The transposed convolution: the input gradient of a `Conv2d` with the same weight, as a layer.

    Parameters
    ----------
    output_padding : rows and columns added at one side of the output, less than stride or dilation; int or pair
    others : as of `Conv2d`; padding shrinks the output

    Shapes: input [N, C, H, W], output [N, OC, (H - 1) S - 2 P + D (KH - 1) + OP + 1, ...]; ``weight``
    [C, OC / groups, KH, KW], ``bias`` [OC].
    """

    ndim = 2
    convolve = staticmethod(F.conv_transpose2d)


class ConvTranspose3d(_Transposed):
    """The transposed convolution of volumes; arguments as of `ConvTranspose2d`.

    Shapes: input [N, C, D, H, W], output [N, OC, OD, OH, OW]; ``weight`` [C, OC / groups, KD, KH, KW].
    """

    ndim = 3
    convolve = staticmethod(conv_transpose3d)


class UpsampleConv2d(Conv2d):
    """Nearest upsampling and then a convolution (the upsampling layer of report 5), as one layer.

    Parameters
    ----------
    scale_factor : of the upsampling, a positive int or pair (default 2)
    others : as of `Conv2d`, and applied to the upsampled image

    Shapes: input [N, C, H, W], convolved at [N, C, H * scale, W * scale]; parameters as of `Conv2d`. Equal to
    ``Sequential(Upsample(scale_factor=...), Conv2d(...))``, to rounding where both are folded into one: a 3x3 kernel
    with padding 1 behind a doubling.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        scale_factor: Any = 2,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        self.scale_factor = ntuple(scale_factor, 2, "UpsampleConv2d", "scale_factor", 1)
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode, device, dtype
        )

    def forward(self, input: Any) -> Any:
        """input [N, C, H, W] -> [N, OC, OH, OW]."""
        if self._folds:
            return upsample_conv2d(input, self.weight, self.bias)
        return super().forward(F.upsample_nearest2d(input, None, self.scale_factor))

    @property
    def _folds(self) -> bool:
        """Whether `upsample_conv2d` computes this layer."""
        return (
            self.scale_factor == (2, 2)
            and self.kernel_size == (3, 3)
            and self.padding in ((1, 1), "same")
            and self.stride == self.dilation == (1, 1)
            and self.groups == 1
            and self.padding_mode == "zeros"
        )

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, scale_factor={self.scale_factor}"
