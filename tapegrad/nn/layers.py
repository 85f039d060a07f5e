"""Layers: linear, resampling, shape, dropout, embedding. torch's arguments, initial values and ``repr``.

``device`` is taken as torch takes it and can only be the CPU; ``dtype`` is that of the parameters (float32 unless
torch's default says otherwise).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch

from .. import ops
from ..core import Tensor, integers
from ..ops.inplace import overwritten
from . import functional as F
from . import init
from .checks import extent, parameter_dtype, require
from .module import Module
from .parameter import Parameter, new_parameter, rows_of, table


def reset_uniform(weight: Tensor, bias: Tensor | None) -> None:
    """torch's start of linear and convolution layers: weight and bias uniform in ``+-1 / sqrt(fan_in)``."""
    init.kaiming_uniform_(weight, a=math.sqrt(5))
    if bias is not None:
        fan_in = weight.shape[1] * math.prod(weight.shape[2:])
        bound = 1 / math.sqrt(fan_in) if fan_in else 0.0
        init.uniform_(bias, -bound, bound)


class Identity(Module):
    """``y = x``; takes any arguments and ignores them."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()

    def forward(self, input: Any) -> Any:
        """The input."""
        return input


class Linear(Module):
    """``y = x W^T + b``.

    Parameters
    ----------
    in_features, out_features : sizes of the last dimension
    bias : learn an additive bias (default True)

    Shapes: input [..., in_features], output [..., out_features]; ``weight`` [out_features, in_features], ``bias``
    [out_features], both uniform in ``+-1 / sqrt(in_features)`` at the start. Source: report 3, equation 1.
    """

    bias: Parameter | None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.in_features = extent(in_features, "Linear", "in_features")
        self.out_features = extent(out_features, "Linear", "out_features")
        dtype = parameter_dtype(device, dtype, "Linear")
        self.weight = new_parameter("Linear", (self.out_features, self.in_features), dtype)
        self.bias = new_parameter("Linear", (self.out_features,), dtype) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new initial values."""
        reset_uniform(self.weight, self.bias)

    def forward(self, input: Any) -> Any:
        """input [..., in_features] -> [..., out_features]."""
        return F.linear(input, self.weight, self.bias)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


class Upsample(Module):
    """Resample the spatial dimensions of [N, C, ...] to ``size``, or by ``scale_factor``.

    Parameters
    ----------
    size : output extents, int or tuple; or
    scale_factor : number or tuple of them
    mode : "nearest" (default), "linear", "bilinear", "bicubic" or "trilinear" (by the input's dimensions), ...
    align_corners : not for nearest: whether the corners keep their values
    recompute_scale_factor : work with output / input instead of ``scale_factor``
    """

    scale_factor: float | tuple[float, ...] | None

    def __init__(
        self,
        size: Any = None,
        scale_factor: Any = None,
        mode: str = "nearest",
        align_corners: bool | None = None,
        recompute_scale_factor: bool | None = None,
    ) -> None:
        super().__init__()
        self.size = size
        if isinstance(scale_factor, tuple | list):
            self.scale_factor = tuple(float(factor) for factor in scale_factor)
        else:
            self.scale_factor = float(scale_factor) if scale_factor else None
        one = (size is None) != (scale_factor is None)
        require(one, "Upsample", "one of size and scale_factor", "be given", (size, scale_factor))
        self.mode = mode
        self.align_corners = align_corners
        self.recompute_scale_factor = recompute_scale_factor

    def forward(self, input: Any) -> Any:
        """input [N, C, ...] -> [N, C, size]."""
        return F.interpolate(
            input,
            self.size,
            self.scale_factor,
            self.mode,
            self.align_corners,
            recompute_scale_factor=self.recompute_scale_factor,
        )

    def extra_repr(self) -> str:
        size = f"size={self.size!r}" if self.scale_factor is None else f"scale_factor={self.scale_factor!r}"
        return f"{size}, mode={self.mode!r}"


@dataclass(eq=False, repr=False)
class Flatten(Module):
    """Make one dimension of ``start_dim`` to ``end_dim`` (inclusive); by default of all but the batch."""

    start_dim: int = 1
    end_dim: int = -1

    def forward(self, input: Any) -> Any:
        """input [N, a, b, ...] -> [N, a b ...]."""
        return ops.flatten(input, self.start_dim, self.end_dim)

    def extra_repr(self) -> str:
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"


@dataclass(eq=False, repr=False)
class Unflatten(Module):
    """Split dimension ``dim`` into ``unflattened_size`` (one of them may be -1)."""

    dim: int
    unflattened_size: Any

    def __post_init__(self) -> None:
        sizes = self.unflattened_size
        if isinstance(sizes, tuple | list) and not all(type(n) is int for n in sizes):
            self.unflattened_size = sizes = tuple(integers(sizes, "Unflatten", "unflattened_size"))
        if not isinstance(sizes, tuple | list) or not all(isinstance(n, int) for n in sizes):
            raise TypeError(f"Unflatten: unflattened_size must be a tuple of ints; got {sizes!r}")

    def forward(self, input: Any) -> Any:
        """input [..., a b, ...] -> [..., a, b, ...]."""
        return ops.unflatten(input, self.dim, self.unflattened_size)

    def extra_repr(self) -> str:
        return f"dim={self.dim}, unflattened_size={self.unflattened_size}"


@dataclass(eq=False, repr=False)
class Dropout(Module):
    """In training, each element 0 with probability ``p``, else multiplied by ``1 / (1 - p)``; in evaluation, ``y = x``.

    Source: Srivastava et al., Dropout (JMLR 15, 2014).
    """

    p: float = 0.5
    inplace: bool = False

    def __post_init__(self) -> None:
        require(0 <= self.p <= 1, "Dropout", "p", "lie in [0, 1]", self.p)

    def forward(self, input: Any) -> Any:
        """input of any shape -> the same shape."""
        return overwritten(self.inplace, input, F.dropout(input, self.p, self.training))

    def extra_repr(self) -> str:
        return f"p={self.p}, inplace={self.inplace}"


class UpsamplingNearest2d(Upsample):
    """`Upsample` of images by the nearest pixel."""

    def __init__(self, size: Any = None, scale_factor: Any = None) -> None:
        super().__init__(size, scale_factor, mode="nearest")


class UpsamplingBilinear2d(Upsample):
    """`Upsample` of images, bilinear, with aligned corners."""

    def __init__(self, size: Any = None, scale_factor: Any = None) -> None:
        super().__init__(size, scale_factor, mode="bilinear", align_corners=True)


class Embedding(Module):
    """A table of vectors, looked up by index: ``y = weight[input]``.

    Parameters
    ----------
    num_embeddings, embedding_dim : rows and columns of the table
    padding_idx : a row that starts at 0 and gets no gradient
    max_norm : first scale the looked-up rows, in place, to at most this ``norm_type`` norm (default None: do not)
    scale_grad_by_freq : divide a row's gradient by how often the row was looked up
    sparse : taken as torch takes it, and must be False: gradients are dense
    _weight, _freeze : the table, [num_embeddings, embedding_dim], instead of a random one, and whether it stays so

    Shapes: input [...] of integers in [0, num_embeddings), output [..., embedding_dim]; ``weight``
    [num_embeddings, embedding_dim], standard normal at the start.
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        sparse: bool = False,
        _weight: Any = None,
        _freeze: bool = False,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        n = self.num_embeddings = extent(num_embeddings, "Embedding", "num_embeddings")
        self.embedding_dim = extent(embedding_dim, "Embedding", "embedding_dim")
        if padding_idx is not None:
            require(-n <= padding_idx < n, "Embedding", "padding_idx", f"lie in [{-n}, {n})", padding_idx)
            padding_idx %= n
        self.padding_idx = padding_idx
        require(not sparse, "Embedding", "sparse", "be False (gradients are dense)", sparse)
        self.max_norm = max_norm
        self.norm_type = norm_type
        self.scale_grad_by_freq = scale_grad_by_freq
        self.sparse = sparse
        self.weight = table("Embedding", n, self.embedding_dim, _weight, _freeze, device, dtype)
        if _weight is None:
            self.reset_parameters()

    @classmethod
    def from_pretrained(cls, embeddings: Any, freeze: bool = True, *args: Any, **options: Any) -> Embedding:
        """A layer with the rows of ``embeddings`` [n, m] as its table, which learns unless ``freeze``; options as of
        the class.
        """
        options |= {"_weight": embeddings, "_freeze": freeze}
        return cls(*rows_of(cls.__name__, embeddings), *args, **options)

    def reset_parameters(self) -> None:
        """Draw new initial values."""
        init.normal_(self.weight)
        if self.padding_idx is not None:
            self.weight.data[self.padding_idx].zero_()

    def forward(self, input: Any) -> Any:
        """input [...] -> [..., embedding_dim]."""
        return F.embedding(input, self.weight, self.padding_idx, self.max_norm, self.norm_type, self.scale_grad_by_freq)

    def extra_repr(self) -> str:
        shown = [str(self.num_embeddings), str(self.embedding_dim)]
        defaults = {"padding_idx": None, "max_norm": None, "norm_type": 2, "scale_grad_by_freq": False}
        for name, default in defaults.items():
            if getattr(self, name) != default:
                shown.append(f"{name}={getattr(self, name)}")
        return ", ".join(shown)
