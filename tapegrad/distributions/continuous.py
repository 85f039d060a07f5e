"""Distributions over numbers. ``U`` is uniform in [0, 1), ``N`` standard normal; formulas are of the density."""

from __future__ import annotations

import math
from typing import Any

import torch

from ..core import Array, TapeError, Tensor, either, no_grad, op
from ..ops import (
    abs,
    clamp,
    digamma,
    erf,
    erfinv,
    exp,
    expm1,
    lgamma,
    log,
    log1p,
    rand,
    randn,
    sign,
    square,
    where,
    xlogy,
)
from . import constraints
from .distribution import Distribution, parameters

__all__ = ["Beta", "Cauchy", "Exponential", "Gamma", "Gumbel", "HalfNormal", "Laplace", "Normal", "StudentT", "Uniform"]


class _LocationScale(Distribution):
    """A distribution of ``loc + scale * z``."""

    has_rsample = True
    arg_constraints = {"loc": constraints.real, "scale": constraints.positive}  # noqa: RUF012
    support = constraints.real
    _given = ("loc", "scale")

    def __init__(self, loc: Any, scale: Any, validate_args: bool | None = None) -> None:
        self.loc, self.scale = parameters(type(self).__name__, loc=loc, scale=scale)
        super().__init__(self.loc.shape, (), validate_args, loc=self.loc, scale=self.scale)

    @property
    def mean(self) -> Tensor:
        return self.loc

    @property
    def mode(self) -> Tensor:
        return self.loc


class Normal(_LocationScale):
    """``exp(-(x - loc)**2 / (2 scale**2)) / (scale sqrt(2 pi))``."""

    @property
    def variance(self) -> Tensor:
        return square(self.scale)

    @property
    def stddev(self) -> Tensor:
        return self.scale

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        return self.loc + randn(self._extended(sample_shape), dtype=self.loc.dtype) * self.scale

    def log_prob(self, value: Any) -> Tensor:
        x = self._value(value)
        return -square(x - self.loc) / (2 * square(self.scale)) - log(self.scale) - math.log(math.sqrt(2 * math.pi))

    def cdf(self, value: Any) -> Tensor:
        return 0.5 * (1 + erf((self._value(value) - self.loc) / self.scale / math.sqrt(2)))

    def icdf(self, value: Any) -> Tensor:
        return self.loc + self.scale * erfinv(2 * value - 1) * math.sqrt(2)

    def entropy(self) -> Tensor:
        return 0.5 + 0.5 * math.log(2 * math.pi) + log(self.scale)


class Laplace(_LocationScale):
    """``exp(-|x - loc| / scale) / (2 scale)``."""

    @property
    def variance(self) -> Tensor:
        return 2 * square(self.scale)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        u = rand(self._extended(sample_shape), dtype=self.loc.dtype) * 2 - 1
        tiny = torch.finfo(self.loc.dtype).eps
        return self.loc - self.scale * sign(u) * log1p(-clamp(abs(u), max=1 - tiny))

    def log_prob(self, value: Any) -> Tensor:
        return -log(2 * self.scale) - abs(self._value(value) - self.loc) / self.scale

    def cdf(self, value: Any) -> Tensor:
        z = self._value(value) - self.loc
        return 0.5 - 0.5 * sign(z) * expm1(-abs(z) / self.scale)

    def icdf(self, value: Any) -> Tensor:
        term = value - 0.5
        return self.loc - self.scale * sign(term) * log1p(-2 * abs(term))

    def entropy(self) -> Tensor:
        return 1 + log(2 * self.scale)


class Cauchy(_LocationScale):
    """``1 / (pi scale (1 + ((x - loc) / scale)**2))``; it has neither mean nor variance (NaN, infinity)."""

    @property
    def mean(self) -> Tensor:
        return self.loc * float("nan")

    @property
    def variance(self) -> Tensor:
        return self.loc * 0 + float("inf")

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        u = rand(self._extended(sample_shape), dtype=self.loc.dtype)
        return self.loc + self.scale * ((u - 0.5) * math.pi).tan()

    def log_prob(self, value: Any) -> Tensor:
        return -math.log(math.pi) - log(self.scale) - log1p(square((self._value(value) - self.loc) / self.scale))

    def cdf(self, value: Any) -> Tensor:
        return ((self._value(value) - self.loc) / self.scale).atan() / math.pi + 0.5

    def entropy(self) -> Tensor:
        return math.log(4 * math.pi) + log(self.scale)


class Gumbel(_LocationScale):
    """``exp(-(z + e**-z)) / scale`` with ``z = (x - loc) / scale``."""

    @property
    def mean(self) -> Tensor:
        return self.loc + self.scale * 0.57721566490153286060

    @property
    def variance(self) -> Tensor:
        return square(math.pi / math.sqrt(6) * self.scale)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        u = clamp(rand(self._extended(sample_shape), dtype=self.loc.dtype), min=torch.finfo(self.loc.dtype).tiny)
        return self.loc - self.scale * log(-log(clamp(u, max=1 - torch.finfo(self.loc.dtype).eps)))

    def log_prob(self, value: Any) -> Tensor:
        z = (self._value(value) - self.loc) / self.scale
        return -(z + exp(-z)) - log(self.scale)

    def cdf(self, value: Any) -> Tensor:
        return exp(-exp(-(self._value(value) - self.loc) / self.scale))

    def entropy(self) -> Tensor:
        return log(self.scale) + (1 + 0.57721566490153286060)


class HalfNormal(Distribution):
    """``|scale * N|``: twice the normal density, for x >= 0."""

    has_rsample = True
    arg_constraints = {"scale": constraints.positive}  # noqa: RUF012
    support = constraints.nonnegative
    _given = ("scale",)

    def __init__(self, scale: Any, validate_args: bool | None = None) -> None:
        (self.scale,) = parameters("HalfNormal", scale=scale)
        super().__init__(self.scale.shape, (), validate_args, scale=self.scale)

    @property
    def mean(self) -> Tensor:
        return self.scale * math.sqrt(2 / math.pi)

    @property
    def variance(self) -> Tensor:
        return square(self.scale) * (1 - 2 / math.pi)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        return abs(randn(self._extended(sample_shape), dtype=self.scale.dtype) * self.scale)

    def log_prob(self, value: Any) -> Tensor:
        x = self._value(value)
        normal = -square(x) / (2 * square(self.scale)) - log(self.scale) - 0.5 * math.log(2 * math.pi)
        return where(x >= 0, normal + math.log(2), -math.inf)

    def entropy(self) -> Tensor:
        return 0.5 + 0.5 * math.log(2 * math.pi) + log(self.scale) - math.log(2)


class Uniform(Distribution):
    """``1 / (high - low)`` in [low, high)."""

    has_rsample = True
    _given = ("low", "high")

    def __init__(self, low: Any, high: Any, validate_args: bool | None = None) -> None:
        self.low, self.high = parameters("Uniform", low=low, high=high)
        super().__init__(self.low.shape, (), validate_args)
        if self.validate_args:
            self._check(constraints.positive, self.high - self.low, "high - low")

    @property
    def support(self) -> Any:
        return constraints.interval(self.low.detach().data, self.high.detach().data)

    @property
    def mean(self) -> Tensor:
        return (self.high + self.low) / 2

    @property
    def variance(self) -> Tensor:
        return square(self.high - self.low) / 12

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        return self.low + rand(self._extended(sample_shape), dtype=self.low.dtype) * (self.high - self.low)

    def log_prob(self, value: Any) -> Tensor:
        x = self._value(value)
        inside = (x >= self.low) & (x < self.high)
        return where(inside, -log(self.high - self.low), -math.inf)

    def cdf(self, value: Any) -> Tensor:
        return clamp((self._value(value) - self.low) / (self.high - self.low), 0, 1)

    def icdf(self, value: Any) -> Tensor:
        return value * (self.high - self.low) + self.low  # type: ignore[no-any-return]

    def entropy(self) -> Tensor:
        return log(self.high - self.low)


class Exponential(Distribution):
    """``rate e**(-rate x)`` for x >= 0."""

    has_rsample = True
    arg_constraints = {"rate": constraints.positive}  # noqa: RUF012
    support = constraints.nonnegative
    _given = ("rate",)

    def __init__(self, rate: Any, validate_args: bool | None = None) -> None:
        (self.rate,) = parameters("Exponential", rate=rate)
        super().__init__(self.rate.shape, (), validate_args, rate=self.rate)

    @property
    def mean(self) -> Tensor:
        return 1 / self.rate

    @property
    def variance(self) -> Tensor:
        return 1 / square(self.rate)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        return -log1p(-rand(self._extended(sample_shape), dtype=self.rate.dtype)) / self.rate

    def log_prob(self, value: Any) -> Tensor:
        return log(self.rate) - self.rate * self._value(value)

    def cdf(self, value: Any) -> Tensor:
        return -expm1(-self.rate * self._value(value))

    def icdf(self, value: Any) -> Tensor:
        return -log1p(-value) / self.rate

    def entropy(self) -> Tensor:
        return 1 - log(self.rate)


# --- gamma and what is made of it --------------------------------------------------------------------------------

_ROUNDS = 24  # of Marsaglia and Tsang's rejection, each of which accepts more than 95 %: a miss is one in 1e30


def _gamma_numbers(shape: torch.Tensor) -> torch.Tensor:
    """Standard gamma numbers, by a fixed number of vectorised rounds. Source: Marsaglia and Tsang (2000)."""
    dtype = shape.dtype
    small = shape < 1
    d = torch.where(small, shape + 1, shape) - 1 / 3
    c = 1 / torch.sqrt(9 * d)
    result, missing = d.clone(), torch.ones_like(shape, dtype=torch.bool)
    for _ in range(_ROUNDS):
        x, u = randn(shape.shape, dtype=dtype).data, 1 - rand(shape.shape, dtype=dtype).data
        v = (1 + c * x) ** 3
        safe = v.clamp_min(torch.finfo(dtype).tiny)
        accepted = (v > 0) & (torch.log(u) < 0.5 * x * x + d - d * v + d * torch.log(safe))
        result = torch.where(missing & accepted, d * v, result)
        missing = missing & ~accepted
    boost = (1 - rand(shape.shape, dtype=dtype).data) ** (1 / shape)
    return torch.where(small, result * boost, result).clamp_min(torch.finfo(dtype).tiny)


def _none(g: Any) -> Any:
    raise TapeError("gamma samples have no second derivative by their concentration (torch has none either)")


@op(concentration=_none, sample=_none)
def standard_gamma_slope(concentration: Array, sample: Array) -> Any:
    """The derivative of a standard gamma sample by its concentration, at constant probability."""
    return torch._standard_gamma_grad(concentration, sample)


@op(concentration=lambda g, concentration, out: g * either("standard_gamma_slope", concentration, out))
def standard_gamma(concentration: Array, sample: Array) -> Any:
    """A standard gamma sample as a function of its concentration.

    Source: Figurnov et al., Implicit reparameterization gradients (2018).
    """
    return sample.clone()


def gamma_sample(concentration: Tensor, shape: Any) -> Tensor:
    """A differentiable standard gamma sample."""
    alpha = concentration.expand(shape)
    with no_grad():
        drawn = Tensor(_gamma_numbers(alpha.detach().data.contiguous()))
    return standard_gamma(alpha, drawn)


class Gamma(Distribution):
    """``rate**a x**(a - 1) e**(-rate x) / Gamma(a)`` for x >= 0, a the concentration."""

    has_rsample = True
    arg_constraints = {"concentration": constraints.positive, "rate": constraints.positive}  # noqa: RUF012
    support = constraints.nonnegative
    _given = ("concentration", "rate")

    def __init__(self, concentration: Any, rate: Any, validate_args: bool | None = None) -> None:
        self.concentration, self.rate = parameters("Gamma", concentration=concentration, rate=rate)
        named = {"concentration": self.concentration, "rate": self.rate}
        super().__init__(self.rate.shape, (), validate_args, **named)

    @property
    def mean(self) -> Tensor:
        return self.concentration / self.rate

    @property
    def mode(self) -> Tensor:
        return clamp((self.concentration - 1) / self.rate, min=0)

    @property
    def variance(self) -> Tensor:
        return self.concentration / square(self.rate)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        return gamma_sample(self.concentration, self._extended(sample_shape)) / self.rate

    def log_prob(self, value: Any) -> Tensor:
        x, a = self._value(value), self.concentration
        return xlogy(a, self.rate) + xlogy(a - 1, x) - self.rate * x - lgamma(a)

    def entropy(self) -> Tensor:
        a = self.concentration
        return a - log(self.rate) + lgamma(a) + (1 - a) * digamma(a)


class Beta(Distribution):
    """``x**(a - 1) (1 - x)**(b - 1) Gamma(a + b) / (Gamma(a) Gamma(b))`` in [0, 1], a and b the concentrations."""

    has_rsample = True
    arg_constraints = {"concentration1": constraints.positive, "concentration0": constraints.positive}  # noqa: RUF012
    support = constraints.unit_interval
    _given = ("concentration1", "concentration0")

    def __init__(self, concentration1: Any, concentration0: Any, validate_args: bool | None = None) -> None:
        named = {"concentration1": concentration1, "concentration0": concentration0}
        self.concentration1, self.concentration0 = parameters("Beta", **named)
        named = {"concentration1": self.concentration1, "concentration0": self.concentration0}
        super().__init__(self.concentration1.shape, (), validate_args, **named)

    @property
    def mean(self) -> Tensor:
        return self.concentration1 / (self.concentration1 + self.concentration0)

    @property
    def variance(self) -> Tensor:
        total = self.concentration1 + self.concentration0
        return self.concentration1 * self.concentration0 / (square(total) * (total + 1))

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        shape = self._extended(sample_shape)
        a, b = gamma_sample(self.concentration1, shape), gamma_sample(self.concentration0, shape)
        return a / (a + b)

    def log_prob(self, value: Any) -> Tensor:
        x, a, b = self._value(value), self.concentration1, self.concentration0
        return xlogy(a - 1, x) + xlogy(b - 1, 1 - x) + lgamma(a + b) - lgamma(a) - lgamma(b)

    def entropy(self) -> Tensor:
        a, b = self.concentration1, self.concentration0
        total = a + b
        slopes = (a - 1) * digamma(a) + (b - 1) * digamma(b) - (total - 2) * digamma(total)
        return lgamma(a) + lgamma(b) - lgamma(total) - slopes


class StudentT(Distribution):
    """Student's t with ``df`` degrees of freedom, at ``loc`` with ``scale``."""

    has_rsample = True
    arg_constraints = {"df": constraints.positive, "loc": constraints.real, "scale": constraints.positive}  # noqa: RUF012
    support = constraints.real
    _given = ("df", "loc", "scale")

    def __init__(self, df: Any, loc: Any = 0.0, scale: Any = 1.0, validate_args: bool | None = None) -> None:
        self.df, self.loc, self.scale = parameters("StudentT", df=df, loc=loc, scale=scale)
        super().__init__(self.df.shape, (), validate_args, df=self.df, loc=self.loc, scale=self.scale)

    @property
    def mean(self) -> Tensor:
        return where(self.df > 1, self.loc, float("nan"))

    @property
    def mode(self) -> Tensor:
        return self.loc

    @property
    def variance(self) -> Tensor:
        heavy = where(self.df > 1, float("inf"), float("nan"))
        safe = where(self.df > 2, self.df, 3.0)
        return where(self.df > 2, square(self.scale) * safe / (safe - 2), heavy)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        shape = self._extended(sample_shape)
        chi2 = gamma_sample(self.df / 2, shape) * 2
        return self.loc + self.scale * randn(shape, dtype=self.df.dtype) * (self.df / chi2).sqrt()

    def log_prob(self, value: Any) -> Tensor:
        y = (self._value(value) - self.loc) / self.scale
        z = log(self.scale) + 0.5 * log(self.df) + 0.5 * math.log(math.pi) + lgamma(self.df / 2)
        return -0.5 * (self.df + 1) * log1p(square(y) / self.df) - z + lgamma((self.df + 1) / 2)
