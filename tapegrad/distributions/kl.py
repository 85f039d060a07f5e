"""``KL(p || q) = E_p ln(p / q)`` in closed form, one function a pair."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from ..core import Tensor
from ..ops import abs, digamma, exp, lgamma, log, solve_triangular, square, sum, where
from .continuous import Beta, Exponential, Gamma, Laplace, Normal, Uniform
from .discrete import Bernoulli, Categorical, OneHotCategorical, Poisson
from .multivariate import Dirichlet, Independent, MultivariateNormal
from .transforms import LogNormal

__all__ = ["kl_divergence", "register_kl"]

_PAIRS: dict[tuple[type, type], Callable[[Any, Any], Tensor]] = {}


def register_kl(type_p: type, type_q: type) -> Callable[..., Any]:
    """Decorates a function of (p, q) that gives the divergence of this pair of types."""

    def enter(function: Callable[[Any, Any], Tensor]) -> Callable[[Any, Any], Tensor]:
        _PAIRS[type_p, type_q] = function
        return function

    return enter


def kl_divergence(p: Any, q: Any) -> Tensor:
    """The divergence of q from p, of the batch's shape; NotImplementedError for a pair without a closed form here."""
    for a in type(p).__mro__:
        for b in type(q).__mro__:
            if (a, b) in _PAIRS:
                return _PAIRS[a, b](p, q)
    raise NotImplementedError(f"kl_divergence: no closed form for {type(p).__name__} and {type(q).__name__}")


@register_kl(Normal, Normal)
def _normal(p: Any, q: Any) -> Any:
    ratio = square(p.scale / q.scale)
    return 0.5 * (ratio + square((p.loc - q.loc) / q.scale) - 1 - log(ratio))


@register_kl(LogNormal, LogNormal)
def _log_normal(p: Any, q: Any) -> Any:
    return _normal(p.base_dist, q.base_dist)


@register_kl(Laplace, Laplace)
def _laplace(p: Any, q: Any) -> Any:
    ratio, apart = p.scale / q.scale, abs(p.loc - q.loc)
    return -log(ratio) + apart / q.scale + ratio * exp(-apart / p.scale) - 1


@register_kl(Uniform, Uniform)
def _uniform(p: Any, q: Any) -> Any:
    return where((q.low > p.low) | (q.high < p.high), math.inf, log((q.high - q.low) / (p.high - p.low)))


@register_kl(Exponential, Exponential)
def _exponential(p: Any, q: Any) -> Any:
    ratio = q.rate / p.rate
    return -log(ratio) + ratio - 1


@register_kl(Gamma, Gamma)
def _gamma(p: Any, q: Any) -> Any:
    a, b = p.concentration, q.concentration
    slopes = (a - b) * digamma(a) + (q.rate - p.rate) * (a / p.rate)
    return b * log(p.rate / q.rate) + lgamma(b) - lgamma(a) + slopes


@register_kl(Beta, Beta)
def _beta(p: Any, q: Any) -> Any:
    a, b, c, d = p.concentration1, p.concentration0, q.concentration1, q.concentration0
    norms = lgamma(c) + lgamma(d) + lgamma(a + b) - (lgamma(a) + lgamma(b) + lgamma(c + d))
    return norms + (a - c) * digamma(a) + (b - d) * digamma(b) + (c + d - a - b) * digamma(a + b)


@register_kl(Dirichlet, Dirichlet)
def _dirichlet(p: Any, q: Any) -> Any:
    a, b = p.concentration, q.concentration
    total = sum(a, -1)
    norms = lgamma(total) - lgamma(sum(b, -1)) - sum(lgamma(a) - lgamma(b), -1)
    return norms + sum((a - b) * (digamma(a) - digamma(total).unsqueeze(-1)), -1)


@register_kl(Bernoulli, Bernoulli)
def _bernoulli(p: Any, q: Any) -> Any:
    a, b = p.probs, q.probs
    return _term(a, b) + _term(1 - a, 1 - b)


def _term(a: Any, b: Any) -> Any:
    """``a ln(a / b)``, 0 for a = 0, infinite for b = 0 alone."""
    finite = a * (log(where(a == 0, 1.0, a)) - log(where(b == 0, 1.0, b)))
    return where(a == 0, 0.0, where(b == 0, math.inf, finite))


@register_kl(Categorical, Categorical)
def _categorical(p: Any, q: Any) -> Any:
    terms = p.probs * (p.logits - q.logits)
    return sum(where(p.probs == 0, 0.0, where(q.probs == 0, math.inf, terms)), -1)


@register_kl(OneHotCategorical, OneHotCategorical)
def _one_hot(p: Any, q: Any) -> Any:
    return _categorical(p._categorical, q._categorical)


@register_kl(Poisson, Poisson)
def _poisson(p: Any, q: Any) -> Any:
    return p.rate * (log(p.rate) - log(q.rate)) - (p.rate - q.rate)


@register_kl(MultivariateNormal, MultivariateNormal)
def _multivariate_normal(p: Any, q: Any) -> Any:
    inner = solve_triangular(q.scale_tril, p.scale_tril, upper=False)
    off = solve_triangular(q.scale_tril, (q.loc - p.loc).unsqueeze(-1), upper=False)
    trace = sum(square(inner), (-2, -1)) + sum(square(off), (-2, -1))
    return q._half_log_det() - p._half_log_det() + 0.5 * (trace - p.event_shape[0])


@register_kl(Independent, Independent)
def _independent(p: Any, q: Any) -> Any:
    if p.reinterpreted_batch_ndims != q.reinterpreted_batch_ndims:
        raise NotImplementedError("kl_divergence: two Independent must have one reinterpreted_batch_ndims")
    return p._joined(kl_divergence(p.base_dist, q.base_dist))
