"""Layers of two inputs: distances and bilinear forms."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch

from .. import ops as F
from . import init
from .checks import extent, parameter_dtype
from .module import Module
from .parameter import new_parameter


@dataclass(eq=False, repr=False)
class CosineSimilarity(Module):
    """``x1 . x2 / (max(|x1|, eps) max(|x2|, eps))`` along ``dim``."""

    dim: int = 1
    eps: float = 1e-8

    def forward(self, x1: Any, x2: Any) -> Any:
        """Two inputs that broadcast together -> their shape without ``dim``."""
        return F.cosine_similarity(x1, x2, self.dim, self.eps)


@dataclass(eq=False, repr=False)
class PairwiseDistance(Module):
    """``||x1 - x2 + eps||_p`` along the last dimension."""

    p: float = 2.0
    eps: float = 1e-6
    keepdim: bool = False

    def forward(self, x1: Any, x2: Any) -> Any:
        """[N, D] and [N, D] (or [D]) -> [N]."""
        return F.pairwise_distance(x1, x2, self.p, self.eps, self.keepdim)


class Bilinear(Module):
    """``y_o = sum_ij x1_i weight_oij x2_j + bias_o``.

    Shapes: inputs [..., in1_features] and [..., in2_features], output [..., out_features]; ``weight``
    [out_features, in1_features, in2_features], ``bias`` [out_features], uniform in ``+-1 / sqrt(in1_features)``.
    """

    def __init__(
        self,
        in1_features: int,
        in2_features: int,
        out_features: int,
        bias: bool = True,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.in1_features = extent(in1_features, "Bilinear", "in1_features", 1)
        self.in2_features = extent(in2_features, "Bilinear", "in2_features")
        self.out_features = extent(out_features, "Bilinear", "out_features")
        dtype = parameter_dtype(device, dtype, "Bilinear")
        shape = (self.out_features, self.in1_features, self.in2_features)
        self.weight = new_parameter("Bilinear", shape, dtype)
        self.bias = new_parameter("Bilinear", (self.out_features,), dtype) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new initial values."""
        bound = 1 / math.sqrt(self.in1_features)
        init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            init.uniform_(self.bias, -bound, bound)

    def forward(self, input1: Any, input2: Any) -> Any:
        """Two inputs -> [..., out_features]."""
        return F.bilinear(input1, input2, self.weight, self.bias)

    def extra_repr(self) -> str:
        sizes = f"in1_features={self.in1_features}, in2_features={self.in2_features}"
        return f"{sizes}, out_features={self.out_features}, bias={self.bias is not None}"
