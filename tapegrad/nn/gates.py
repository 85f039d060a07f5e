"""More activations as modules: those of `tapegrad.ops.gates`, with torch's arguments and ``repr``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from .. import ops as F
from ..core import ArgumentError, ShapeError
from ..ops.inplace import overwritten
from .activations import Activation
from .checks import extent, parameter_dtype
from .module import Module
from .parameter import new_parameter


class _WithArguments(Activation):
    """Passes its arguments on, in their order, ``inplace`` left out."""

    def forward(self, input: Any) -> Any:
        """The function of the input."""
        given = [getattr(self, name) for name in self.__match_args__ if name != "inplace"]
        return overwritten(getattr(self, "inplace", False), input, getattr(F, self.function)(input, *given))


@dataclass(eq=False, repr=False)
class GLU(_WithArguments):
    """``a * sigmoid(b)`` for the halves a, b of the input along ``dim``."""

    function = "glu"
    dim: int = -1


@dataclass(eq=False, repr=False)
class Hardshrink(_WithArguments):
    """x where ``|x| > lambd``, else 0."""

    function = "hardshrink"
    lambd: float = 0.5

    def extra_repr(self) -> str:
        return f"{self.lambd}"


@dataclass(eq=False, repr=False)
class Hardsigmoid(_WithArguments):
    """``min(max(x + 3, 0), 6) / 6``."""

    function = "hardsigmoid"
    inplace: bool = False

    def extra_repr(self) -> str:
        return ""


@dataclass(eq=False, repr=False)
class Hardswish(_WithArguments):
    """``x * min(max(x + 3, 0), 6) / 6``."""

    function = "hardswish"
    inplace: bool = False

    def extra_repr(self) -> str:
        return ""


class PReLU(Module):
    """``y = x for x > 0, weight * x otherwise``, the weight learned: one, or one a channel (dimension 1).

    Parameters
    ----------
    num_parameters : 1, or the number of channels
    init : the weight at the start
    """

    def __init__(
        self, num_parameters: int = 1, init: float = 0.25, device: Any = None, dtype: torch.dtype | None = None
    ) -> None:
        super().__init__()
        self.num_parameters = extent(num_parameters, "PReLU", "num_parameters", 1)
        self.init = init
        dtype = parameter_dtype(device, dtype, "PReLU")
        self.weight = new_parameter("PReLU", (self.num_parameters,), dtype, float(init))

    def forward(self, input: Any) -> Any:
        """The input, its negative part scaled."""
        return F.prelu(input, self.weight)

    def reset_parameters(self) -> None:
        """The weight as at the start."""
        self.weight.data.fill_(self.init)

    def extra_repr(self) -> str:
        return f"num_parameters={self.num_parameters}"


@dataclass(eq=False, repr=False)
class RReLU(Activation):
    """`LeakyReLU` whose slope is drawn from [lower, upper) for each element in training, else their mean."""

    lower: float = 1.0 / 8
    upper: float = 1.0 / 3
    inplace: bool = False

    def forward(self, input: Any) -> Any:
        return overwritten(self.inplace, input, F.rrelu(input, self.lower, self.upper, self.training))


@dataclass(eq=False, repr=False)
class Softmin(Activation):
    """`Softmax` of ``-x``."""

    dim: int | None = None

    def forward(self, input: Any) -> Any:
        if self.dim is None:
            raise ArgumentError("Softmin: dim must be given")
        return F.softmin(input, self.dim)


class Softmax2d(Module):
    """`Softmax` over the channels of [N, C, H, W] or [C, H, W]."""

    def forward(self, input: Any) -> Any:
        """The same shape; sums over channels are 1."""
        if input.ndim not in (3, 4):
            raise ShapeError(f"Softmax2d: input must have 3 or 4 dimensions; got shape {list(input.shape)}")
        return F.softmax(input, -3)


@dataclass(eq=False, repr=False)
class Softshrink(_WithArguments):
    """``x - lambd`` above lambd, ``x + lambd`` below -lambd, else 0."""

    function = "softshrink"
    lambd: float = 0.5

    def extra_repr(self) -> str:
        return str(self.lambd)


class Tanhshrink(Activation):
    """``x - tanh x``."""

    function = "tanhshrink"


@dataclass(eq=False, repr=False)
class Threshold(_WithArguments):
    """x above the threshold, else ``value``."""

    function = "threshold"
    threshold: float
    value: float
    inplace: bool = False
