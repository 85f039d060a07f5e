"""Discrete distributions whose samples let gradients through: relaxed ones, and the straight-through estimate."""

from __future__ import annotations

import math
from typing import Any

from ..ops import exp, expand, log, log1p, logsumexp, rand, sigmoid, softplus
from . import constraints
from .discrete import Bernoulli, Categorical, OneHotCategorical, clamp_probs
from .distribution import Distribution, parameters

__all__ = ["OneHotCategoricalStraightThrough", "RelaxedBernoulli", "RelaxedOneHotCategorical"]


class OneHotCategoricalStraightThrough(OneHotCategorical):
    """`OneHotCategorical` whose samples have the gradient of the probabilities. Source: Bengio et al. (2013)."""

    has_rsample = True

    def rsample(self, sample_shape: Any = ()) -> Any:
        return self.sample(sample_shape) + (self.probs - self.probs.detach())


class _Relaxed(Distribution):
    """``temperature`` (a number or 0-dim) takes samples from the corners (0) to the middle (infinity)."""

    has_rsample = True
    _kind: Any

    def __init__(
        self, temperature: Any, probs: Any = None, logits: Any = None, validate_args: bool | None = None
    ) -> None:
        self._hard = self._kind(probs, logits, validate_args)
        (self.temperature,) = parameters(type(self).__name__, temperature=temperature)
        shape = self._hard._parameter.shape if isinstance(self._hard, Categorical) else ()
        super().__init__(self._hard.batch_shape, shape[-1:], validate_args)

    @property
    def probs(self) -> Any:
        """The probabilities that are relaxed."""
        return self._hard.probs

    @property
    def logits(self) -> Any:
        """Their logarithms, or log odds."""
        return self._hard.logits

    def expand(self, batch_shape: Any) -> Any:
        made = type(self).__new__(type(self))
        made.__dict__.update(self.__dict__)
        made._hard = self._hard.expand(batch_shape)
        made.batch_shape = made._hard.batch_shape
        return made

    def _uniform(self, sample_shape: Any) -> Any:
        like = self._hard._parameter
        return clamp_probs(rand(self._extended(sample_shape), dtype=like.dtype))


class RelaxedOneHotCategorical(_Relaxed):
    """A point of the simplex, ``softmax((logits + Gumbel noise) / temperature)``.

    Source: Maddison et al., "The Concrete Distribution" (2017); Jang et al. (2017).
    """

    support = constraints.simplex
    _kind = Categorical

    def rsample(self, sample_shape: Any = ()) -> Any:
        noise = -log(-log(self._uniform(sample_shape)))
        scores = (expand(self.logits, noise.shape) + noise) / self.temperature
        return exp(scores - logsumexp(scores, -1, True))

    def log_prob(self, value: Any) -> Any:
        x = log(self._value(value))
        k = self.event_shape[0]
        score = self.logits - x * self.temperature
        score = (score - logsumexp(score, -1, True)).sum(-1)
        return score + math.lgamma(k) + (k - 1) * log(self.temperature) - x.sum(-1)


class RelaxedBernoulli(_Relaxed):
    """A number in (0, 1), ``sigmoid((logits + logistic noise) / temperature)``; see `RelaxedOneHotCategorical`."""

    support = constraints.unit_interval
    _kind = Bernoulli

    def rsample(self, sample_shape: Any = ()) -> Any:
        u, p = self._uniform(sample_shape), clamp_probs(self.probs)
        return sigmoid((log(u) - log1p(-u) + log(p) - log1p(-p)) / self.temperature)

    def log_prob(self, value: Any) -> Any:
        x = clamp_probs(self._value(value))
        y = log(x) - log1p(-x)
        rest = self.logits - y * self.temperature
        return log(self.temperature) + rest - 2 * softplus(rest) + softplus(-y) + softplus(y)
