"""Normalisations of images by themselves, by root mean squares, by neighbours: torch's names, arguments, ``repr``."""

from __future__ import annotations

from typing import Any

import torch

from .. import ops as F
from ..core import ShapeError
from . import init
from .checks import ntuple
from .module import Module
from .norms import _BatchNorm, _Norm


class BatchNorm3d(_BatchNorm):
    """Batch normalisation of [N, C, D, H, W]; arguments as of `BatchNorm2d`."""

    dims = (5,)


class _InstanceNorm(_BatchNorm):
    """Every channel of every example normalised by itself."""

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float = 0.1,
        affine: bool = False,
        track_running_stats: bool = False,
        device: Any = None,
        dtype: torch.dtype | None = None,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype, bias=bias)

    def forward(self, input: Any) -> Any:
        """The input normalised by its own statistics in training (or without running ones), else by those."""
        low, high = self.dims
        if input.ndim not in self.dims or input.shape[input.ndim - low] != self.num_features:
            raise ShapeError(
                f"{type(self).__name__}: input must have {low} or {high} dimensions and {self.num_features} channels; "
                f"got shape {list(input.shape)}"
            )
        x = input.unsqueeze(0) if input.ndim == low else input
        own = self.training or not self.track_running_stats
        out = F.instance_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, own, self.momentum or 0.0, self.eps
        )
        return out.squeeze(0) if input.ndim == low else out


class InstanceNorm1d(_InstanceNorm):
    """`InstanceNorm2d` of [N, C, L] or [C, L]."""

    dims = (2, 3)


class InstanceNorm2d(_InstanceNorm):
    """``y = (x - mean) / sqrt(var + eps) * weight + bias``, statistics over each channel of each example.

    Parameters
    ----------
    num_features : C
    eps : added to the variance
    momentum : weight of the batch in the running statistics
    affine : learn ``weight`` and ``bias`` [C] (default False)
    track_running_stats : keep running statistics, used in evaluation mode (default False)

    Shapes: input [N, C, H, W] or [C, H, W], output the same. Source: Ulyanov et al., Instance Normalization (2016).
    """

    dims = (3, 4)


class InstanceNorm3d(_InstanceNorm):
    """`InstanceNorm2d` of [N, C, D, H, W] or [C, D, H, W]."""

    dims = (4, 5)


class RMSNorm(_Norm):
    """``y = x / sqrt(mean(x**2) + eps) * weight`` over the last dimensions, of ``normalized_shape``.

    ``eps`` is the dtype's machine epsilon unless given; ``elementwise_affine`` learns the weight. Source: Zhang and
    Sennrich, Root Mean Square Layer Normalization (2019).
    """

    def __init__(
        self,
        normalized_shape: Any,
        eps: float | None = None,
        elementwise_affine: bool = True,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
        self.normalized_shape = ntuple(shape, len(shape), "RMSNorm", "normalized_shape")
        self.eps = eps
        self.elementwise_affine = elementwise_affine
        self._affine(self.normalized_shape, elementwise_affine, False, device, dtype)
        del self.bias

    def reset_parameters(self) -> None:
        """Scale 1."""
        if self.weight is not None:
            init.ones_(self.weight)

    def forward(self, input: Any) -> Any:
        """input [..., *normalized_shape] -> the same shape."""
        return F.rms_norm(input, self.normalized_shape, self.weight, self.eps)

    def extra_repr(self) -> str:
        return f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}"


class LocalResponseNorm(Module):
    """``x / (k + alpha * m)**beta``, m the mean of x**2 over ``size`` neighbouring channels of [N, C, ...]."""

    def __init__(self, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> None:
        super().__init__()
        self.size, self.alpha, self.beta, self.k = size, alpha, beta, k

    def forward(self, input: Any) -> Any:
        """input [N, C, ...] -> the same shape."""
        return F.local_response_norm(input, self.size, self.alpha, self.beta, self.k)

    def extra_repr(self) -> str:
        return f"{self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}"
