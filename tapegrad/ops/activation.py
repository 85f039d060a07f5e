"""Activation functions and softmax.

Slopes at the kinks are torch's (relu and leaky_relu take the left one at 0), and at NaN those of torch's scalar code
(its vector code differs): no comparison with NaN holds. Exponentials are taken of arguments that cannot overflow, so
that a masked branch never turns into 0 * inf in a second derivative.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch

from ..core import _C, ArgumentError, Array, Tensor, either, kernel, known_dtype, op, sum_over, tensor_argument

__all__ = [
    "celu",
    "elu",
    "gelu",
    "hardtanh",
    "leaky_relu",
    "log_softmax",
    "logsigmoid",
    "mish",
    "relu",
    "relu6",
    "selu",
    "silu",
    "softmax",
    "softplus",
    "softsign",
]


_relu = kernel("relu", torch.relu)
_leaky_relu = kernel("leaky_relu", torch.nn.functional.leaky_relu)
_gelu = kernel("gelu", torch.nn.functional.gelu)
_gelu_tanh = kernel("gelu_tanh", partial(torch.nn.functional.gelu, approximate="tanh"))
_silu = kernel("silu", torch.nn.functional.silu)
_softplus = kernel("softplus", torch.nn.functional.softplus)
_elu = kernel("elu", torch.ops.aten.elu)
_mish = kernel("mish", torch.nn.functional.mish)
_logsigmoid = kernel("logsigmoid", torch.nn.functional.logsigmoid)
_softmax = kernel("softmax", torch.softmax)
_log_softmax = kernel("log_softmax", torch.log_softmax)


@op(
    input=lambda g, out: torch.where(out <= 0, 0, g),
    backward=lambda g, out: (_C.relu_backward(g, out),),
)
def relu(input: Array) -> Any:
    """``y = max(0, x)``; slope 0 at 0."""
    return _relu(input)


@op(
    input=lambda g, input, negative_slope: torch.where(input > 0, g, g * negative_slope),
    backward=lambda g, input, negative_slope: (_C.leaky_relu_backward(g, input, negative_slope),),
)
def leaky_relu(input: Array, negative_slope: float = 0.01) -> Any:
    """``y = x for x > 0, negative_slope * x otherwise`` (report 3)."""
    return _leaky_relu(input, negative_slope)


def _softmax_rule(g: Any, out: Any, dim: int) -> Any:
    return out * (g - sum_over(g * out, dim, True))


@op(name="softmax", input=_softmax_rule, backward=lambda g, out, dim: (_C.softmax_backward(g, out, dim),))
def softmax_op(input: Array, dim: int) -> Any:
    """`softmax` in the input's own dtype."""
    return _softmax(input, dim)


def softmax(input: Any, dim: int, dtype: torch.dtype | None = None) -> Tensor:
    """``y_i = e**x_i / sum_j e**x_j`` along ``dim``, with the maximum subtracted first; in ``dtype`` if given."""
    return softmax_op(_as_dtype(input, dtype, "softmax"), dim)


@op(
    name="log_softmax",
    input=lambda g, out, dim: g - torch.exp(out) * sum_over(g, dim, True),
    backward=lambda g, out, dim: (_C.log_softmax_backward(g, out, dim),),
)
def log_softmax_op(input: Array, dim: int) -> Any:
    """`log_softmax` in the input's own dtype."""
    return _log_softmax(input, dim)


def log_softmax(input: Any, dim: int, dtype: torch.dtype | None = None) -> Tensor:
    """``y_i = x_i - log sum_j e**x_j`` along ``dim``, in log-sum-exp form; in ``dtype`` if given."""
    return log_softmax_op(_as_dtype(input, dtype, "log_softmax"), dim)


def _as_dtype(input: Any, dtype: torch.dtype | None, name: str) -> Any:
    """The input cast, where a dtype is asked for."""
    if dtype is None:
        return input
    x = tensor_argument(input, name, "input")
    return x.to(known_dtype(dtype, name))


def _below(x: Any, bound: float) -> Any:
    """min(x, bound) with slope 0 at the bound: torch's second derivatives there are those of the linear side."""
    return torch.where(x >= bound, bound, x)


def _exp_below(x: Any) -> Any:
    """e**min(x, 0): the exponential branch of a function that is linear above 0, and at NaN."""
    return torch.exp(torch.where(x < 0, x, 0.0))


@op(input=lambda g, input, alpha: torch.where(input <= 0, g * alpha * _exp_below(input), g))
def elu(input: Array, alpha: float = 1.0) -> Any:
    """``y = x for x > 0, alpha (e**x - 1) otherwise`` (Clevert et al., 2016)."""
    return _elu(input, alpha, 1.0, 1.0)


_SELU_ALPHA, _SELU_SCALE = 1.6732632423543772, 1.0507009873554805


@op(input=lambda g, input: _SELU_SCALE * torch.where(input <= 0, g * _SELU_ALPHA * _exp_below(input), g))
def selu(input: Array) -> Any:
    """``y = s x for x > 0, s a (e**x - 1) otherwise``, s = 1.0507, a = 1.6733 (Klambauer et al., 2017)."""
    return _elu(input, _SELU_ALPHA, _SELU_SCALE, 1.0)


@op(input=lambda g, input, alpha: torch.where(input <= 0, g * _exp_below(input / alpha), g))
def celu(input: Array, alpha: float = 1.0) -> Any:
    """``y = max(0, x) + min(0, alpha (e**(x / alpha) - 1))`` (Barron, 2017)."""
    return _elu(input, alpha, 1.0, 1.0 / alpha)


def _gelu_rule(g: Any, input: Any, approximate: str) -> Any:
    if approximate == "none":
        density = torch.exp(-0.5 * input * input) * _INV_SQRT_2PI
        return g * (0.5 * (1 + torch.erf(input * _INV_SQRT_2)) + input * density)
    cube = input * input * input
    t = torch.tanh(_SQRT_2_OVER_PI * (input + 0.044715 * cube))
    slope = _SQRT_2_OVER_PI * (1 + 3 * 0.044715 * input * input)
    return g * (0.5 * (1 + t) + 0.5 * input * (1 - t * t) * slope)


_INV_SQRT_2, _INV_SQRT_2PI, _SQRT_2_OVER_PI = 2**-0.5, (2 * math.pi) ** -0.5, (2 / math.pi) ** 0.5


@op(
    input=_gelu_rule,
    backward=lambda g, input, approximate: (
        (_C.gelu_backward if approximate == "none" else _C.gelu_tanh_backward)(g, input),
    ),
)
def gelu(input: Array, approximate: str = "none") -> Any:
    """``y = x Phi(x)``, Phi the normal distribution function; ``approximate="tanh"`` for its tanh form.

    Source: Hendrycks and Gimpel, Gaussian Error Linear Units (2016).
    """
    if approximate not in ("none", "tanh"):
        raise ArgumentError(f'gelu: approximate must be "none" or "tanh"; got {approximate!r}')
    return _gelu(input) if approximate == "none" else _gelu_tanh(input)


def _silu_rule(g: Any, input: Any) -> Any:
    s = torch.sigmoid(input)
    return g * s * (1 + input * (1 - s))


@op(input=_silu_rule, backward=lambda g, input: (_C.silu_backward(g, input),))
def silu(input: Array) -> Any:
    """``y = x sigmoid(x)`` (Elfwing et al., 2017)."""
    return _silu(input)


def _mish_rule(g: Any, input: Any) -> Any:
    t = either("tanh", either("softplus", input, 1.0, 20.0))
    return g * (t + input * (1 - t * t) * either("sigmoid", input))


@op(input=_mish_rule)
def mish(input: Array) -> Any:
    """``y = x tanh(softplus(x))`` (Misra, 2019)."""
    return _mish(input)


@op(
    input=lambda g, input, beta, threshold: torch.where(
        input * beta > threshold, g, g * torch.sigmoid(_below(input * beta, threshold))
    ),
    backward=lambda g, input, beta, threshold: (_C.softplus_backward(g, input, beta, threshold),),
)
def softplus(input: Array, beta: float = 1.0, threshold: float = 20.0) -> Any:
    """``y = ln(1 + e**(beta x)) / beta``, and x itself where ``beta x > threshold``."""
    return _softplus(input, beta, threshold)


@op(input=lambda g, input, out: g * (1 / torch.square(1 + torch.abs(input)) + 0 * out))  # at infinity both are NaN
def softsign(input: Array) -> Any:
    """``y = x / (1 + |x|)``."""
    return torch.nn.functional.softsign(input)


@op(input=lambda g, input: g * either("sigmoid", -input))
def logsigmoid(input: Array) -> Any:
    """``y = ln sigmoid(x) = min(x, 0) - ln(1 + e**-|x|)``."""
    return _logsigmoid(input)


@op(input=lambda g, input, min_val, max_val: torch.where(torch.logical_or(input <= min_val, input >= max_val), 0, g))
def hardtanh(input: Array, min_val: float = -1.0, max_val: float = 1.0) -> Any:
    """``y = min(max(x, min_val), max_val)``; slope 0 at both bounds, as torch's."""
    return torch.nn.functional.hardtanh(input, min_val, max_val)


@op(input=lambda g, input: torch.where(torch.logical_or(input <= 0, input >= 6), 0, g))
def relu6(input: Array) -> Any:
    """``y = min(max(x, 0), 6)``; slope 0 at both bounds."""
    return torch.nn.functional.relu6(input)
