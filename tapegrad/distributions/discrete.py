"""Distributions over counts and categories, by ``probs`` or by ``logits``."""

from __future__ import annotations

import functools
from typing import Any

import torch

from ..core import ArgumentError, Tensor, no_grad
from ..ops import (
    argmax,
    bernoulli,
    binary_cross_entropy_with_logits,
    clamp,
    exp,
    expand,
    gather,
    lgamma,
    log,
    log1p,
    log_softmax,
    multinomial,
    one_hot,
    rand,
    sigmoid,
    softmax,
    sum,
    where,
    xlogy,
)
from . import constraints
from .distribution import Distribution, parameters

__all__ = ["Bernoulli", "Binomial", "Categorical", "Geometric", "OneHotCategorical", "Poisson"]


def clamp_probs(probs: Tensor) -> Tensor:
    """Probabilities kept machine epsilon away from 0 and 1, so that their logarithms are finite."""
    eps = torch.finfo(probs.dtype).eps
    return clamp(probs, eps, 1 - eps)


class _ByProbsOrLogits(Distribution):
    """Exactly one of ``probs`` and ``logits`` is given; the other follows when it is asked for."""

    _by_probs = True

    def _take(self, probs: Any, logits: Any) -> None:
        if (probs is None) == (logits is None):
            raise ArgumentError(f"{type(self).__name__}: exactly one of probs and logits must be given")
        self._by_probs = probs is not None
        name = "probs" if self._by_probs else "logits"
        (value,) = parameters(type(self).__name__, **{name: probs if self._by_probs else logits})
        self.__dict__[name] = value
        self._given = (name,)

    @property
    def _parameter(self) -> Tensor:
        value: Tensor = self.__dict__[self._given[0]]
        return value


class _Binary(_ByProbsOrLogits):
    @functools.cached_property
    def probs(self) -> Tensor:
        """The probability of a success."""
        return sigmoid(self.__dict__["logits"])

    @functools.cached_property
    def logits(self) -> Tensor:
        """``ln(p / (1 - p))``."""
        p = clamp_probs(self.__dict__["probs"])
        return log(p) - log1p(-p)

    def _checked(self, validate_args: bool | None) -> None:
        super().__init__(self._parameter.shape, (), validate_args)
        if self.validate_args and self._by_probs:
            self._check(constraints.unit_interval, self.__dict__["probs"], "parameter probs")
        elif self.validate_args:
            self._check(constraints.real, self.__dict__["logits"], "parameter logits")


class Bernoulli(_Binary):
    """1 with probability ``probs``, else 0."""

    support = constraints.boolean

    def __init__(self, probs: Any = None, logits: Any = None, validate_args: bool | None = None) -> None:
        self._take(probs, logits)
        self._checked(validate_args)

    @property
    def mean(self) -> Tensor:
        return self.probs

    @property
    def mode(self) -> Tensor:
        return where(self.probs == 0.5, float("nan"), (self.probs >= 0.5).to(self.probs.dtype))

    @property
    def variance(self) -> Tensor:
        return self.probs * (1 - self.probs)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        with no_grad():
            return bernoulli(expand(self.probs, self._extended(sample_shape)))

    def log_prob(self, value: Any) -> Tensor:
        x = self._value(value)
        shape = torch.broadcast_shapes(self.logits.shape, x.shape)  # type: ignore[no-untyped-call]
        logits = expand(self.logits, shape)
        return -binary_cross_entropy_with_logits(logits, expand(x.to(logits.dtype), shape), reduction="none")

    def entropy(self) -> Tensor:
        return binary_cross_entropy_with_logits(self.logits, self.probs, reduction="none")

    def enumerate_support(self, expand: bool = True) -> Tensor:
        """0 and 1, along a new first dimension."""
        values = Tensor(torch.arange(2, dtype=self._parameter.dtype).reshape(2, *(1,) * len(self.batch_shape)))
        return values.expand((2, *self.batch_shape)) if expand else values


class Geometric(_Binary):
    """The number of failures before the first success: ``(1 - p)**k p``."""

    support = constraints.nonnegative_integer

    def __init__(self, probs: Any = None, logits: Any = None, validate_args: bool | None = None) -> None:
        self._take(probs, logits)
        self._checked(validate_args)

    @property
    def mean(self) -> Tensor:
        return 1 / self.probs - 1

    @property
    def variance(self) -> Tensor:
        return (1 / self.probs - 1) / self.probs

    def sample(self, sample_shape: Any = ()) -> Tensor:
        with no_grad():
            u = clamp(rand(self._extended(sample_shape), dtype=self.probs.dtype), torch.finfo(self.probs.dtype).tiny)
            return (log(u) / log1p(-self.probs)).floor()

    def log_prob(self, value: Any) -> Tensor:
        x = self._value(value)
        return x * log1p(-clamp(self.probs, max=1 - torch.finfo(self.probs.dtype).eps)) + log(self.probs)

    def entropy(self) -> Tensor:
        return binary_cross_entropy_with_logits(self.logits, self.probs, reduction="none") / self.probs


class Binomial(_Binary):
    """The number of successes in ``total_count`` trials."""

    def __init__(
        self, total_count: Any = 1, probs: Any = None, logits: Any = None, validate_args: bool | None = None
    ) -> None:
        self._take(probs, logits)
        self.total_count, value = parameters("Binomial", total_count=total_count, value=self._parameter)
        self.__dict__[self._given[0]] = value
        self._checked(validate_args)
        self._given = ("total_count", *self._given)

    @property
    def _parameter(self) -> Tensor:
        value: Tensor = self.__dict__[self._given[-1]]
        return value

    @property
    def support(self) -> Any:
        return constraints.integer_interval(0, self.total_count.detach().data)

    @property
    def mean(self) -> Tensor:
        return self.total_count * self.probs

    @property
    def variance(self) -> Tensor:
        return self.total_count * self.probs * (1 - self.probs)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        with no_grad():
            shape = self._extended(sample_shape)
            most = int(self.total_count.max().item()) if self.total_count.numel() else 0
            trials = rand((most, *shape), dtype=self.probs.dtype) < self.probs
            counted = torch.arange(most).reshape(most, *(1,) * len(shape)) < self.total_count.data
            return sum((trials & Tensor(counted)).to(self.probs.dtype), 0)

    def log_prob(self, value: Any) -> Tensor:
        k, n = self._value(value), self.total_count
        ways = lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1)
        low = clamp(self.logits, min=0) + log1p(exp(-self.logits.abs()))  # ln(1 + e**logits)
        return ways + k * self.logits - n * low


class Poisson(Distribution):
    """``rate**k e**-rate / k!``."""

    arg_constraints = {"rate": constraints.nonnegative}  # noqa: RUF012
    support = constraints.nonnegative_integer
    _given = ("rate",)

    def __init__(self, rate: Any, validate_args: bool | None = None) -> None:
        (self.rate,) = parameters("Poisson", rate=rate)
        super().__init__(self.rate.shape, (), validate_args, rate=self.rate)

    @property
    def mean(self) -> Tensor:
        return self.rate

    @property
    def variance(self) -> Tensor:
        return self.rate

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """The number of unit-rate arrivals before ``rate``: exponential gaps are summed until all are past it."""
        with no_grad():
            shape = self._extended(sample_shape)
            rate = self.rate.expand(shape).double().data
            arrived, count = torch.zeros_like(rate), torch.zeros_like(rate)
            most = int(rate.max() + 12 * rate.max().sqrt() + 30) if rate.numel() else 0
            for _ in range(most):
                arrived = arrived - torch.log1p(-rand(shape, dtype=torch.float64).data)
                count += arrived < rate
            return Tensor(count.to(self.rate.dtype))

    def log_prob(self, value: Any) -> Tensor:
        k = self._value(value)
        return xlogy(k, self.rate) - self.rate - lgamma(k + 1)


class Categorical(_ByProbsOrLogits):
    """An index of the last dimension, with probability proportional to ``probs``, or to ``e**logits``.

    ``probs`` are divided by their sum; ``logits`` have their logarithm of the sum of exponentials subtracted.
    """

    def __init__(self, probs: Any = None, logits: Any = None, validate_args: bool | None = None) -> None:
        self._take(probs, logits)
        given = self._parameter
        if given.ndim < 1:
            raise ArgumentError(f"{type(self).__name__}: {self._given[0]} must have at least 1 dimension")
        super().__init__(given.shape[:-1], (), validate_args)
        if self.validate_args and self._by_probs:
            self._check(constraints.independent(constraints.nonnegative, 1), given, "parameter probs")
        elif self.validate_args:
            self._check(constraints.real_vector, given, "parameter logits")
        self.__dict__[self._given[0]] = given / sum(given, -1, True) if self._by_probs else log_softmax(given, -1)

    @functools.cached_property
    def probs(self) -> Tensor:
        """Probabilities [..., K] that add up to 1."""
        return softmax(self.__dict__["logits"], -1)

    @functools.cached_property
    def logits(self) -> Tensor:
        """Their logarithms."""
        return log(clamp_probs(self.__dict__["probs"]))

    @property
    def _events(self) -> int:
        return int(self._parameter.shape[-1])

    @property
    def support(self) -> Any:
        return constraints.integer_interval(0, self._events - 1)

    @property
    def mean(self) -> Tensor:
        return sum(self.probs, -1) * float("nan")

    @property
    def variance(self) -> Tensor:
        return sum(self.probs, -1) * float("nan")

    @property
    def mode(self) -> Tensor:
        return argmax(self.probs, -1)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        shape = torch.Size(sample_shape)
        with no_grad():
            rows = self.probs.detach().reshape(-1, self._events)
            drawn = multinomial(rows, max(shape.numel(), 1), replacement=True).T  # [samples, batch]
            return drawn[: shape.numel()].reshape((*shape, *self.batch_shape))

    def log_prob(self, value: Any) -> Tensor:
        index = self._value(value).long().unsqueeze(-1)
        shape = torch.broadcast_shapes(index.shape[:-1], self.batch_shape)  # type: ignore[no-untyped-call]
        logits = expand(self.logits, (*shape, self._events))
        return gather(logits, -1, expand(index, (*shape, 1))).squeeze(-1)

    def entropy(self) -> Tensor:
        logits = clamp(self.logits, min=torch.finfo(self.logits.dtype).min)
        return -sum(logits * self.probs, -1)

    def enumerate_support(self, expand: bool = True) -> Tensor:
        """All indices, along a new first dimension."""
        values = Tensor(torch.arange(self._events).reshape(-1, *(1,) * len(self.batch_shape)))
        return values.expand((self._events, *self.batch_shape)) if expand else values

    def expand(self, batch_shape: Any) -> Any:
        value = self._parameter.expand((*batch_shape, *self._parameter.shape[-1:]))
        return type(self)(**{self._given[0]: value}, validate_args=False)


class OneHotCategorical(Distribution):
    """`Categorical`, its index as a vector that is 1 there and 0 elsewhere."""

    support = constraints.one_hot

    def __init__(self, probs: Any = None, logits: Any = None, validate_args: bool | None = None) -> None:
        self._categorical = Categorical(probs, logits, validate_args)
        size = self._categorical._events
        super().__init__(self._categorical.batch_shape, (size,), validate_args)

    @property
    def probs(self) -> Tensor:
        """Probabilities [..., K] that add up to 1."""
        return self._categorical.probs

    @property
    def logits(self) -> Tensor:
        """Their logarithms."""
        return self._categorical.logits

    @property
    def mean(self) -> Tensor:
        return self.probs

    @property
    def variance(self) -> Tensor:
        return self.probs * (1 - self.probs)

    @property
    def mode(self) -> Tensor:
        return one_hot(self._categorical.mode, self.event_shape[0]).to(self.probs.dtype)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        return one_hot(self._categorical.sample(sample_shape), self.event_shape[0]).to(self.probs.dtype)

    def log_prob(self, value: Any) -> Tensor:
        return self._categorical.log_prob(argmax(self._value(value), -1))

    def entropy(self) -> Tensor:
        return self._categorical.entropy()

    def expand(self, batch_shape: Any) -> Any:
        logits = self.logits.expand((*batch_shape, *self.event_shape))
        return type(self)(logits=logits, validate_args=False)

    def __repr__(self) -> str:
        return f"OneHotCategorical({self._categorical!r})"
