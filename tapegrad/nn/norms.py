"""Normalisation layers: torch's arguments, buffers and ``repr``."""

from __future__ import annotations

from typing import Any

import torch

from ..core import ShapeError, Tensor, calling, integers
from . import functional as F
from . import init
from .checks import extent, ntuple, parameter_dtype, require
from .module import Module
from .parameter import Parameter, new_parameter


class _Norm(Module):
    """What normalisations share: a scale that starts at 1 and a shift that starts at 0."""

    weight: Parameter | None
    bias: Parameter | None

    def _affine(
        self, shape: tuple[int, ...], weight: bool, bias: bool, device: Any, dtype: torch.dtype | None
    ) -> torch.dtype:
        name = type(self).__name__
        dtype = parameter_dtype(device, dtype, name)
        self.weight = new_parameter(name, shape, dtype, 1.0) if weight else None
        self.bias = new_parameter(name, shape, dtype, 0.0) if weight and bias else None
        return dtype

    def reset_parameters(self) -> None:
        """Scale 1, shift 0."""
        if self.weight is not None:
            init.ones_(self.weight)
        if self.bias is not None:
            init.zeros_(self.bias)


class _BatchNorm(_Norm):
    """Batch normalisation over all dimensions but the second."""

    running_mean: Tensor | None
    running_var: Tensor | None
    num_batches_tracked: Tensor | None
    dims: tuple[int, ...]

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device: Any = None,
        dtype: torch.dtype | None = None,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.num_features = extent(num_features, type(self).__name__, "num_features")
        self.eps = eps
        self.momentum = momentum
        self.affine = affine
        self.track_running_stats = track_running_stats
        dtype = self._affine((self.num_features,), affine, bias, device, dtype)
        tracked = track_running_stats
        self.register_buffer(
            "running_mean", calling(type(self).__name__, torch.zeros, num_features, dtype=dtype) if tracked else None
        )
        self.register_buffer(
            "running_var", calling(type(self).__name__, torch.ones, num_features, dtype=dtype) if tracked else None
        )
        self.register_buffer("num_batches_tracked", torch.tensor(0) if tracked else None)

    def reset_running_stats(self) -> None:
        """Running mean 0, running variance 1, no batches seen."""
        for buffer, value in ((self.running_mean, 0), (self.running_var, 1), (self.num_batches_tracked, 0)):
            if buffer is not None:
                buffer.data.fill_(value)

    def reset_parameters(self) -> None:
        """Scale 1, shift 0, running statistics as at the start."""
        self.reset_running_stats()
        super().reset_parameters()

    def forward(self, input: Any) -> Any:
        """The input normalised by this batch's statistics in training (or without running ones), else by those."""
        if input.ndim not in self.dims:
            allowed = " or ".join(map(str, self.dims))
            raise ShapeError(
                f"{type(self).__name__}: input must have {allowed} dimensions; got shape {list(input.shape)}"
            )
        tracked = self.track_running_stats
        counter = self.num_batches_tracked if self.training and tracked else None
        mean, var = (self.running_mean, self.running_var) if not self.training or tracked else (None, None)
        if counter is None or mean is None or var is None or self.momentum is not None:
            output = self._normalised(input, mean, var, self.momentum or 0.0)
        else:  # the running ones are the mean over all batches; nothing is read
            batch_mean, batch_var = torch.zeros_like(mean.data), torch.zeros_like(var.data)
            output = self._normalised(input, batch_mean, batch_var, 1.0)
            share = 1 / (counter.data + 1).to(mean.dtype)
            mean.data.lerp_(batch_mean, share)
            var.data.lerp_(batch_var, share)
        if counter is not None:
            counter.data.add_(1)
        return output

    def _normalised(self, input: Any, mean: Any, var: Any, momentum: float) -> Any:
        training = self.training or self.running_mean is None
        return F.batch_norm(input, mean, var, self.weight, self.bias, training, momentum, self.eps)

    def extra_repr(self) -> str:
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}, "
            f"bias={self.bias is not None}, track_running_stats={self.track_running_stats}"
        )


class BatchNorm1d(_BatchNorm):
    """Batch normalisation of [N, C] or [N, C, L]; arguments as of `BatchNorm2d`."""

    dims = (2, 3)


class BatchNorm2d(_BatchNorm):
    """``y = (x - mean) / sqrt(var + eps) * weight + bias``, statistics per channel over batch and space.

    Parameters
    ----------
    num_features : C
    eps : added to the variance
    momentum : weight of the batch in the running statistics; None for the mean over all batches
    affine : learn ``weight`` and ``bias`` [C], which start at 1 and 0
    track_running_stats : keep running statistics, used in evaluation mode; else the batch's are always used
    bias : whether ``affine`` includes the shift

    Shapes: input [N, C, H, W], output the same. Source: Ioffe and Szegedy, Batch Normalization (2015).
    """

    dims = (4,)


class LayerNorm(_Norm):
    """``y = (x - mean) / sqrt(var + eps) * weight + bias``, statistics over the last dimensions of each example.

    Parameters
    ----------
    normalized_shape : the extents of those dimensions, int or tuple
    eps : added to the variance
    elementwise_affine : learn ``weight`` (and ``bias``) of ``normalized_shape``, which start at 1 and 0

    Shapes: input [..., *normalized_shape], output the same. Source: Ba et al., Layer Normalization (2016).
    """

    def __init__(
        self,
        normalized_shape: Any,
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        shape = integers(normalized_shape, "LayerNorm", "normalized_shape")
        shape = (shape,) if isinstance(shape, int) else tuple(shape)
        self.normalized_shape = ntuple(shape, len(shape), "LayerNorm", "normalized_shape")
        self.eps = eps
        self.elementwise_affine = elementwise_affine
        self._affine(self.normalized_shape, elementwise_affine, bias, device, dtype)

    def forward(self, input: Any) -> Any:
        """input [..., *normalized_shape] -> the same shape."""
        return F.layer_norm(input, self.normalized_shape, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return (
            f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}, "
            f"bias={self.bias is not None}"
        )


class GroupNorm(_Norm):
    """``y = (x - mean) / sqrt(var + eps) * weight + bias``, statistics per example over a group of channels.

    Parameters
    ----------
    num_groups : of channels; divides ``num_channels``
    num_channels : C
    eps : added to the variance
    affine : learn ``weight`` (and ``bias``) [C], which start at 1 and 0

    Shapes: input [N, C, ...], output the same. Source: Wu and He, Group Normalization (2018).
    """

    def __init__(
        self,
        num_groups: int,
        num_channels: int,
        eps: float = 1e-5,
        affine: bool = True,
        device: Any = None,
        dtype: torch.dtype | None = None,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.num_groups = extent(num_groups, "GroupNorm", "num_groups", 1)
        self.num_channels = extent(num_channels, "GroupNorm", "num_channels")
        fits = self.num_channels % self.num_groups == 0
        require(fits, "GroupNorm", "num_channels", f"be divisible by num_groups = {num_groups}", num_channels)
        self.eps = eps
        self.affine = affine
        self._affine((self.num_channels,), affine, bias, device, dtype)

    def forward(self, input: Any) -> Any:
        """input [N, C, ...] -> the same shape."""
        return F.group_norm(input, self.num_groups, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return (
            f"{self.num_groups}, {self.num_channels}, eps={self.eps}, affine={self.affine}, "
            f"bias={self.bias is not None}"
        )
