"""Activation functions as modules: torch's names, arguments and ``repr``; the values are those of `nn.functional`.

A class states its arguments (the dataclass makes the constructor) and which function it calls.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, ClassVar

from .. import ops as F
from ..ops.inplace import overwritten
from .checks import require
from .module import Module


class Activation(Module):
    """A function without arguments, by its name in `nn.functional`; subclasses with arguments call it themselves.

    With ``inplace`` the input takes the values of the result, as in torch; not so a leaf that requires a gradient.
    """

    function: ClassVar[str]
    __match_args__: ClassVar[tuple[str, ...]] = ()  # the constructor's arguments; @dataclass fills it

    def forward(self, input: Any) -> Any:
        """The function of the input."""
        return overwritten(getattr(self, "inplace", False), input, getattr(F, self.function)(input))

    def extra_repr(self) -> str:
        shown = [f"{name}={getattr(self, name)!r}" for name in self.__match_args__ if name != "inplace"]
        return ", ".join([*shown, "inplace=True"] if getattr(self, "inplace", False) else shown)


@dataclass(eq=False, repr=False)
class ReLU(Activation):
    """``y = max(0, x)``; slope 0 at 0."""

    function = "relu"
    inplace: bool = False


@dataclass(eq=False, repr=False)
class ReLU6(Activation):
    """``y = min(max(0, x), 6)``."""

    function = "relu6"
    inplace: bool = False


@dataclass(eq=False, repr=False)
class LeakyReLU(Activation):
    """``y = x for x > 0, negative_slope * x otherwise``."""

    negative_slope: float = 0.01
    inplace: bool = False

    def forward(self, input: Any) -> Any:
        return overwritten(self.inplace, input, F.leaky_relu(input, self.negative_slope))


@dataclass(eq=False, repr=False)
class ELU(Activation):
    """``y = x for x > 0, alpha * (e**x - 1) otherwise``. Source: Clevert et al. (2016)."""

    alpha: float = 1.0
    inplace: bool = False

    def forward(self, input: Any) -> Any:
        return overwritten(self.inplace, input, F.elu(input, self.alpha))


@dataclass(eq=False, repr=False)
class SELU(Activation):
    """``y = s * (x for x > 0, a * (e**x - 1) otherwise)``, s = 1.0507..., a = 1.6733...

    Source: Klambauer et al., Self-normalizing neural networks (2017).
    """

    function = "selu"
    inplace: bool = False


@dataclass(eq=False, repr=False)
class CELU(Activation):
    """``y = max(0, x) + min(0, alpha * (e**(x / alpha) - 1))``. Source: Barron (2017)."""

    alpha: float = 1.0
    inplace: bool = False

    def forward(self, input: Any) -> Any:
        return overwritten(self.inplace, input, F.celu(input, self.alpha))


@dataclass(eq=False, repr=False)
class GELU(Activation):
    """``y = x * Phi(x)``, Phi the normal distribution function; ``approximate="tanh"`` for its tanh form.

    Source: Hendrycks and Gimpel (2016).
    """

    approximate: str = "none"

    def forward(self, input: Any) -> Any:
        return F.gelu(input, approximate=self.approximate)


@dataclass(eq=False, repr=False)
class SiLU(Activation):
    """``y = x * sigmoid(x)``."""

    function = "silu"
    inplace: bool = False


@dataclass(eq=False, repr=False)
class Mish(Activation):
    """``y = x * tanh(softplus(x))``. Source: Misra (2020)."""

    function = "mish"
    inplace: bool = False


@dataclass(eq=False, repr=False)
class Softplus(Activation):
    """``y = log(1 + e**(beta * x)) / beta``; x itself where ``beta * x > threshold``."""

    beta: float = 1.0
    threshold: float = 20.0

    def forward(self, input: Any) -> Any:
        return F.softplus(input, self.beta, self.threshold)


class Softsign(Activation):
    """``y = x / (1 + |x|)``."""

    function = "softsign"


class LogSigmoid(Activation):
    """``y = log(1 / (1 + e**-x))``."""

    function = "logsigmoid"


@dataclass(eq=False, repr=False)
class Hardtanh(Activation):
    """``y = min(max(x, min_val), max_val)``."""

    min_val: float = -1.0
    max_val: float = 1.0
    inplace: bool = False

    def __post_init__(self) -> None:
        fits = self.min_val < self.max_val
        require(fits, "Hardtanh", "min_val", f"be less than max_val = {self.max_val}", self.min_val)

    def forward(self, input: Any) -> Any:
        return overwritten(self.inplace, input, F.hardtanh(input, self.min_val, self.max_val))


class Tanh(Activation):
    """``y = tanh x``."""

    function = "tanh"


class Sigmoid(Activation):
    """``y = 1 / (1 + e**-x)``."""

    function = "sigmoid"


@dataclass(eq=False, repr=False)
class Softmax(Activation):
    """``y_i = e**x_i / sum_j e**x_j`` along ``dim`` (give it: guessed as torch guesses, with a warning, if None)."""

    function = "softmax"
    dim: int | None = None

    def forward(self, input: Any) -> Any:
        """Softmax along ``dim``."""
        return getattr(F, self.function)(input, self.dim if self.dim is not None else self._guess(input))

    def _guess(self, input: Any) -> int:
        dim = 0 if input.ndim in (0, 1, 3) else 1
        warnings.warn(f"{type(self).__name__}: dim was not given; dim = {dim} is used, as torch does", stacklevel=4)
        return dim


@dataclass(eq=False, repr=False)
class LogSoftmax(Softmax):
    """``y_i = x_i - log sum_j e**x_j`` along ``dim``."""

    function = "log_softmax"
