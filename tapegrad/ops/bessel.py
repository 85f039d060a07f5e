"""The rest of ``torch.special``: Bessel functions, the normal distribution's, incomplete gamma functions, polynomials.

torch computes the values. What has no gradient in torch has none here: a call on a value that requires one is refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from ..core import _C, ArgumentError, Array, Op, Tensor, caller, either, op, tensor_argument
from .shape import unsqueeze
from .special import lgamma

__all__ = ["i0", "igamma", "igammac", "mvlgamma"]

_ROOT_2PI, _ROOT_PI = math.sqrt(2 * math.pi), math.sqrt(math.pi)


def _op(name: str, formula: str, arguments: str, **rules: Callable[..., Any]) -> Callable[..., Tensor]:
    """The op ``torch.special.name`` of one or two arrays."""
    torchs = getattr(torch.special, name)
    one = arguments == "input"

    def of_one(input: Array) -> Any: ...
    def of_two(input: Array, other: Array) -> Any: ...

    forward = of_one if one else of_two
    forward.__name__ = forward.__qualname__ = name
    forward.__doc__ = f"Elementwise ``y = {formula}``. Source: ``torch.special.{name}``."
    made: Callable[..., Tensor] = caller(Op(forward, rules, direct=torchs), __name__)
    return made


# --- modified Bessel functions of the first kind -----------------------------------------------------------------


def _over(value: Any, x: Any) -> Any:
    """value / x, and at 0 the limit 1/2 of I1(x) / x."""
    small = torch.abs(x) < torch.finfo(x.dtype).eps
    return torch.where(small, 0.5, value / torch.where(small, 1.0, x))


def _i1_rule(g: Any, input: Any, out: Any) -> Any:
    return g * (either("i0", input) - _over(out, input))


def _i1e_rule(g: Any, input: Any, out: Any) -> Any:
    return g * (either("i0e", input) - torch.sign(input) * out - _over(out, input))


i0 = _op("i0", "I0(x), the modified Bessel function", "input", input=lambda g, input: g * either("i1", input))
i1 = _op("i1", "I1(x), the modified Bessel function", "input", input=_i1_rule)
i0e = _op(
    "i0e", "e**-|x| I0(x)", "input", input=lambda g, input, out: g * (either("i1e", input) - torch.sign(input) * out)
)
i1e = _op("i1e", "e**-|x| I1(x)", "input", input=_i1e_rule)

# --- the normal distribution and the error function --------------------------------------------------------------

ndtr = _op(
    "ndtr",
    "the normal distribution function",
    "input",
    input=lambda g, input: g * torch.exp(-input * input / 2) / _ROOT_2PI,
)
log_ndtr = _op(
    "log_ndtr",
    "ln of the normal distribution function",
    "input",
    input=lambda g, input: g / either("erfcx", input * -math.sqrt(0.5)) * math.sqrt(2 / math.pi),
)
ndtri = _op(
    "ndtri",
    "the normal distribution's quantile",
    "input",
    input=lambda g, out: g * torch.exp(out * out / 2) * _ROOT_2PI,
)
erfcx = _op("erfcx", "e**(x**2) erfc x", "input", input=lambda g, input, out: g * (2 * input * out - 2 / _ROOT_PI))
entr = _op("entr", "-x ln x, 0 at 0, -infinity below", "input", input=lambda g, input: g * (-torch.log(input) - 1))

# --- of two arrays -----------------------------------------------------------------------------------------------


def _xlog1py_input(g: Any, input: Any, other: Any) -> Any:
    """g ln(1 + other), and 0 where the input is 0 and other not above -1."""
    if isinstance(other, int | float):
        other = torch.full_like(g, -2.0 if math.isnan(other) else other)
    other = other.to(g.dtype)
    return g * torch.log1p(torch.where(torch.logical_and(input == 0, other <= -1), 0, other))


xlog1py = _op(
    "xlog1py",
    "input * ln(1 + other), 0 where the input is 0",
    "input, other",
    input=_xlog1py_input,
    other=lambda g, input, other: g * input / (other + 1),
)
zeta = _op(
    "zeta",
    "Hurwitz' zeta function, sum_k (k + other)**-input; no gradient of the input",
    "input, other",
    other=lambda g, input, other: g * -input * either("zeta", input + 1.0, other),
)


def _gamma_density(a: Any, x: Any) -> Any:
    return torch.exp((a - 1) * torch.log(x) - x - torch.lgamma(a))


@op(other=lambda g, input, other: g * _gamma_density(input, other))
def igamma(input: Array, other: Array) -> Any:
    """The regularised lower incomplete gamma function P(input, other); no gradient of the input."""
    return _C.on_one_thread(torch.igamma, input, other)


@op(other=lambda g, input, other: -g * _gamma_density(input, other))
def igammac(input: Array, other: Array) -> Any:
    """The regularised upper incomplete gamma function Q(input, other); no gradient of the input."""
    return _C.on_one_thread(torch.igammac, input, other)


def mvlgamma(input: Any, p: int) -> Tensor:
    """ln of the multivariate gamma function of dimension ``p``."""
    x = tensor_argument(input, "mvlgamma", "input")
    if p < 1:
        raise ArgumentError(f"mvlgamma: p must be at least 1; got {p}")
    x = x if x.is_floating_point() else x.to(torch.get_default_dtype())
    steps = torch.arange(1 - p, 1, dtype=x.dtype) / 2
    return lgamma(unsqueeze(x, -1) + steps).sum(-1) + p * (p - 1) / 4 * math.log(math.pi)


# --- without a gradient, in torch too ----------------------------------------------------------------------------

_OF_ONE = {
    "airy_ai": "Airy's function Ai",
    "bessel_j0": "the Bessel function J0",
    "bessel_j1": "the Bessel function J1",
    "bessel_y0": "the Bessel function Y0",
    "bessel_y1": "the Bessel function Y1",
    "modified_bessel_i0": "the modified Bessel function I0",
    "modified_bessel_i1": "the modified Bessel function I1",
    "modified_bessel_k0": "the modified Bessel function K0",
    "modified_bessel_k1": "the modified Bessel function K1",
    "scaled_modified_bessel_k0": "e**x K0(x)",
    "scaled_modified_bessel_k1": "e**x K1(x)",
    "spherical_bessel_j0": "the spherical Bessel function j0",
}
_POLYNOMIALS = (
    *(f"chebyshev_polynomial_{kind}" for kind in "tuvw"),
    *(f"shifted_chebyshev_polynomial_{kind}" for kind in "tuvw"),
    "hermite_polynomial_h",
    "hermite_polynomial_he",
    "laguerre_polynomial_l",
    "legendre_polynomial_p",
)

CONSTANT = {
    **{name: _op(name, f"{what}; no gradient", "input") for name, what in _OF_ONE.items()},
    **{
        name: _op(name, f"the {name.replace('_', ' ')} of degree other; no gradient", "input, other")
        for name in _POLYNOMIALS
    },
}
