"""Special functions and the rarer elementwise ones, a line each; torch computes the values."""

from __future__ import annotations

import math
from typing import Any

import torch

from ..core import _C, Array, either, op
from .elementwise import between_floats, binary, unary, zero

__all__ = [
    "acosh",
    "asinh",
    "atanh",
    "copysign",
    "deg2rad",
    "digamma",
    "erfc",
    "erfinv",
    "exp2",
    "fmax",
    "fmin",
    "frac",
    "hypot",
    "lgamma",
    "logaddexp",
    "logaddexp2",
    "nan_to_num",
    "polygamma",
    "rad2deg",
    "sgn",
    "sinc",
    "xlogy",
]

_LN2, _ROOT_PI = math.log(2), math.sqrt(math.pi)

# --- functions of one array --------------------------------------------------------------------------------------

asinh = unary("asinh", "ln(x + sqrt(x**2 + 1))", lambda g, input: g * torch.rsqrt(input * input + 1))
acosh = unary("acosh", "ln(x + sqrt(x**2 - 1))", lambda g, input: g * torch.rsqrt(input * input - 1))
atanh = unary("atanh", "ln((1 + x) / (1 - x)) / 2", lambda g, input: g / (1 - input * input), ours=True)
exp2 = unary("exp2", "2**x", lambda g, out: g * out * _LN2, ours=True)
erfc = unary("erfc", "1 - erf x", lambda g, input: g * torch.exp(-input * input) * (-2 / _ROOT_PI))
erfinv = unary("erfinv", "y with erf y = x", lambda g, out: g * torch.exp(out * out) * (_ROOT_PI / 2))
lgamma = unary("lgamma", "ln |Gamma(x)|", lambda g, input: g * torch.digamma(input))
digamma = unary("digamma", "d/dx ln |Gamma(x)|", lambda g, input: g * either("polygamma", 1, input))
frac = unary("frac", "x - trunc(x)", lambda g: g)
deg2rad = unary("deg2rad", "x pi / 180", lambda g: g * (math.pi / 180))
rad2deg = unary("rad2deg", "x 180 / pi", lambda g: g * (180 / math.pi))
sgn = unary("sgn", "x / |x|, 0 at 0", zero)


_MOST = 2**63 - 1  # the largest order that torch takes; beyond a few hundred all of one parity are infinite alike


@op(input=lambda g, n, input: g * either("polygamma", n + 1 if n < _MOST else n - 1, input))
def polygamma(n: int, input: Array) -> Any:
    """The n-th derivative of `digamma` (n = 0: itself)."""
    return torch.polygamma(n, input)


def _sinc_slope(x: Any) -> Any:
    """d/dx sin(pi x) / (pi x), by its series near 0."""
    t = x * math.pi
    near = torch.abs(t) < 0.05
    safe = torch.where(near, 1.0, t)
    far = (torch.cos(safe) - torch.sin(safe) / safe) / safe
    t2 = t * t
    series = t * (-1 / 3 + t2 * (1 / 30 + t2 * (-1 / 840 + t2 * (1 / 45360 - t2 / 3991680))))
    return math.pi * torch.where(near, series, far)


sinc = unary("sinc", "sin(pi x) / (pi x), 1 at 0", lambda g, input: g * _sinc_slope(input))


@op(input=lambda g, input: torch.where(torch.isfinite(input), g, 0))
def nan_to_num(input: Array, nan: float = 0.0, posinf: float | None = None, neginf: float | None = None) -> Any:
    """x, with ``nan`` for NaN, ``posinf`` and ``neginf`` (the largest and least number) for infinities."""
    return torch.nan_to_num(input, nan, posinf, neginf)


# --- functions of two arrays -------------------------------------------------------------------------------------

hypot = binary(
    "hypot",
    "sqrt(input**2 + other**2)",
    lambda g, input, out: g * (input / out),
    lambda g, other, out: g * (other / out),
)
copysign = binary(
    "copysign",
    "|input| with the sign of other",
    lambda g, input, out: g * torch.where(input == 0, 0, out / torch.where(input == 0, 1, input)),
    zero,
)
fmax = binary(
    "fmax",
    "the larger of both, the other one where one is NaN",
    lambda g, input, other: torch.where(torch.logical_or(input >= other, torch.isnan(other)), g, 0),
    lambda g, input, other: torch.where(torch.logical_or(input >= other, torch.isnan(other)), 0, g),
)
fmin = binary(
    "fmin",
    "the smaller of both, the other one where one is NaN",
    lambda g, input, other: torch.where(torch.logical_or(input <= other, torch.isnan(other)), g, 0),
    lambda g, input, other: torch.where(torch.logical_or(input <= other, torch.isnan(other)), 0, g),
)


logaddexp = binary(
    "logaddexp",
    "ln(e**input + e**other)",
    lambda g, input, other: g * either("sigmoid", input - other),
    lambda g, input, other: g * either("sigmoid", other - input),
    between_floats(_C.logaddexp, torch.logaddexp),
)
logaddexp2 = binary(
    "logaddexp2",
    "log2(2**input + 2**other)",
    lambda g, input, other: g * either("sigmoid", (input - other) * _LN2),
    lambda g, input, other: g * either("sigmoid", (other - input) * _LN2),
    between_floats(_C.logaddexp2, torch.logaddexp2),
)


def _xlogy_input(g: Any, input: Any, other: Any) -> Any:
    """g ln other, and 0 where the input is 0 and other not positive."""
    if isinstance(other, int | float):  # the number NaN counts as not positive, as in torch
        other = torch.full_like(g, -1.0 if math.isnan(other) else other)
    other = other.to(g.dtype)
    return g * torch.log(torch.where(torch.logical_and(input == 0, other <= 0), 1, other))


@op(input=_xlogy_input, other=lambda g, input, other: g * input / other)
def xlogy(input: Array, other: Array) -> Any:
    """Elementwise ``input * ln other``, 0 where the input is 0 (and other is no NaN)."""
    return torch.xlogy(input, other)
