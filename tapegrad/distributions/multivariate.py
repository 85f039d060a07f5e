"""Distributions over vectors, and distributions made of others."""

from __future__ import annotations

import functools
import math
from typing import Any

import torch

from ..core import ArgumentError, Tensor, tensor_argument
from ..ops import (
    cholesky,
    digamma,
    expand,
    inverse,
    lgamma,
    log,
    log_softmax,
    logsumexp,
    matmul,
    randn,
    solve_triangular,
    square,
    sum,
    xlogy,
)
from . import constraints
from .continuous import gamma_sample
from .discrete import Categorical
from .distribution import Distribution

__all__ = ["Dirichlet", "Independent", "MixtureSameFamily", "MultivariateNormal"]


class MultivariateNormal(Distribution):
    """A normal vector by its mean ``loc`` and one of covariance_matrix, precision_matrix, scale_tril.

    ``exp(-|L^-1 (x - loc)|**2 / 2) / (det L sqrt(2 pi)**N)``, ``L`` the lower Cholesky factor of the covariance.
    """

    has_rsample = True
    support = constraints.real_vector
    _given = ("loc", "scale_tril")

    def __init__(
        self,
        loc: Any,
        covariance_matrix: Any = None,
        precision_matrix: Any = None,
        scale_tril: Any = None,
        validate_args: bool | None = None,
    ) -> None:
        name = "MultivariateNormal"
        mean = tensor_argument(loc, name, "loc")
        given = {"covariance_matrix": covariance_matrix, "precision_matrix": precision_matrix, "scale_tril": scale_tril}
        found = {key: tensor_argument(value, name, key) for key, value in given.items() if value is not None}
        if len(found) != 1 or mean.ndim < 1:
            raise ArgumentError(f"{name}: loc [..., N] and one of {', '.join(given)} must be given")
        ((key, matrix),) = found.items()
        if matrix.ndim < 2 or matrix.shape[-1] != matrix.shape[-2] or matrix.shape[-1] != mean.shape[-1]:
            raise ArgumentError(f"{name}: {key} must be [..., N, N] for loc [..., N]; got {list(matrix.shape)}")
        batch = torch.broadcast_shapes(matrix.shape[:-2], mean.shape[:-1])  # type: ignore[no-untyped-call]
        n = mean.shape[-1]
        self.loc = expand(mean, (*batch, n))
        super().__init__(batch, (n,), validate_args)
        if self.validate_args:
            kind = constraints.lower_cholesky if key == "scale_tril" else constraints.positive_definite
            self._check(kind, matrix, f"parameter {key}")
            self._check(constraints.real_vector, mean, "parameter loc")
        factor = matrix if key == "scale_tril" else cholesky(matrix if key == "covariance_matrix" else inverse(matrix))
        self.scale_tril = expand(factor, (*batch, n, n))

    @property
    def covariance_matrix(self) -> Tensor:
        """``L L^T``."""
        return matmul(self.scale_tril, self.scale_tril.mT)

    @property
    def precision_matrix(self) -> Tensor:
        """The inverse of the covariance."""
        return inverse(self.covariance_matrix)

    @property
    def mean(self) -> Tensor:
        return self.loc

    @property
    def mode(self) -> Tensor:
        return self.loc

    @property
    def variance(self) -> Tensor:
        return sum(square(self.scale_tril), -1)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        drawn = randn(self._extended(sample_shape), dtype=self.loc.dtype).unsqueeze(-1)
        return self.loc + matmul(self.scale_tril, drawn).squeeze(-1)

    def _half_log_det(self) -> Tensor:
        return sum(log(self.scale_tril.diagonal(0, -2, -1)), -1)

    def log_prob(self, value: Any) -> Tensor:
        off = self._value(value) - self.loc
        scaled = solve_triangular(self.scale_tril, off.unsqueeze(-1), upper=False).squeeze(-1)
        return -0.5 * (self.event_shape[0] * math.log(2 * math.pi) + sum(square(scaled), -1)) - self._half_log_det()

    def entropy(self) -> Tensor:
        return 0.5 * self.event_shape[0] * (1 + math.log(2 * math.pi)) + self._half_log_det()


class Dirichlet(Distribution):
    """``prod x_i**(a_i - 1) Gamma(sum a) / prod Gamma(a_i)`` over vectors that add up to 1."""

    has_rsample = True
    arg_constraints = {"concentration": constraints.independent(constraints.positive, 1)}  # noqa: RUF012
    support = constraints.simplex
    _given = ("concentration",)

    def __init__(self, concentration: Any, validate_args: bool | None = None) -> None:
        self.concentration = tensor_argument(concentration, "Dirichlet", "concentration")
        if self.concentration.ndim < 1:
            raise ArgumentError("Dirichlet: concentration must have at least 1 dimension")
        shape = self.concentration.shape
        super().__init__(shape[:-1], shape[-1:], validate_args, concentration=self.concentration)

    @property
    def mean(self) -> Tensor:
        return self.concentration / sum(self.concentration, -1, True)

    @property
    def variance(self) -> Tensor:
        total = sum(self.concentration, -1, True)
        return self.concentration * (total - self.concentration) / (square(total) * (total + 1))

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        drawn = gamma_sample(self.concentration, self._extended(sample_shape))
        return drawn / sum(drawn, -1, True)

    def log_prob(self, value: Any) -> Tensor:
        a = self.concentration
        return sum(xlogy(a - 1, self._value(value)), -1) + lgamma(sum(a, -1)) - sum(lgamma(a), -1)

    def entropy(self) -> Tensor:
        a, k = self.concentration, self.concentration.shape[-1]
        total = sum(a, -1)
        norm = sum(lgamma(a), -1) - lgamma(total)
        return norm - (k - total) * digamma(total) - sum((a - 1) * digamma(a), -1)


class Independent(Distribution):
    """The last ``reinterpreted_batch_ndims`` batch dimensions of a distribution, as part of one event."""

    def __init__(
        self, base_distribution: Any, reinterpreted_batch_ndims: int, validate_args: bool | None = None
    ) -> None:
        base, n = base_distribution, reinterpreted_batch_ndims
        if not 0 <= n <= len(base.batch_shape):
            raise ArgumentError(
                f"Independent: reinterpreted_batch_ndims must lie in [0, {len(base.batch_shape)}]; got {n}"
            )
        self.base_dist, self.reinterpreted_batch_ndims = base, n
        cut = len(base.batch_shape) - n
        self.has_rsample = base.has_rsample
        super().__init__(base.batch_shape[:cut], base.batch_shape[cut:] + base.event_shape, validate_args)

    @property
    def support(self) -> Any:
        base = self.base_dist.support
        return base and constraints.independent(base, self.reinterpreted_batch_ndims)

    @property
    def mean(self) -> Tensor:
        return self.base_dist.mean  # type: ignore[no-any-return]

    @property
    def mode(self) -> Tensor:
        return self.base_dist.mode  # type: ignore[no-any-return]

    @property
    def variance(self) -> Tensor:
        return self.base_dist.variance  # type: ignore[no-any-return]

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        return self.base_dist.rsample(sample_shape)  # type: ignore[no-any-return]

    def sample(self, sample_shape: Any = ()) -> Tensor:
        return self.base_dist.sample(sample_shape)  # type: ignore[no-any-return]

    def _joined(self, x: Tensor) -> Tensor:
        n = self.reinterpreted_batch_ndims
        return sum(x, tuple(range(-n, 0))) if n else x

    def log_prob(self, value: Any) -> Tensor:
        return self._joined(self.base_dist.log_prob(value))

    def entropy(self) -> Tensor:
        return self._joined(self.base_dist.entropy())

    def expand(self, batch_shape: Any) -> Any:
        inner = self.event_shape[: self.reinterpreted_batch_ndims]
        return Independent(self.base_dist.expand((*batch_shape, *inner)), self.reinterpreted_batch_ndims)

    def __repr__(self) -> str:
        return f"Independent({self.base_dist!r}, {self.reinterpreted_batch_ndims})"


class MixtureSameFamily(Distribution):
    """A mixture: a `Categorical` chooses one of the components, the last batch dimension of a distribution."""

    def __init__(
        self, mixture_distribution: Categorical, component_distribution: Any, validate_args: bool | None = None
    ) -> None:
        mixture, component = mixture_distribution, component_distribution
        if not isinstance(mixture, Categorical):
            raise TypeError(f"MixtureSameFamily: the mixture must be a Categorical; got {type(mixture).__name__}")
        if not component.batch_shape or component.batch_shape[-1] != mixture._events:
            raise ArgumentError(
                f"MixtureSameFamily: the components' last batch extent must be {mixture._events}, the number of "
                f"categories; got batch shape {list(component.batch_shape)}"
            )
        self.mixture_distribution, self.component_distribution = mixture, component
        super().__init__(component.batch_shape[:-1], component.event_shape, validate_args)

    @property
    def support(self) -> Any:
        found = self.component_distribution.support
        return found if found is None or "bound=tensor" not in repr(found) else constraints.dependent

    @functools.cached_property
    def _dims(self) -> int:
        return len(self.event_shape)

    def _weights(self) -> Tensor:
        """Probabilities, with a dimension of 1 for each of the event's."""
        probs = self.mixture_distribution.probs
        return probs.reshape((*probs.shape, *(1,) * self._dims))

    @property
    def mean(self) -> Tensor:
        return sum(self._weights() * self.component_distribution.mean, -1 - self._dims)

    @property
    def variance(self) -> Tensor:
        dim, parts = -1 - self._dims, self.component_distribution
        within = sum(self._weights() * parts.variance, dim)
        return within + sum(self._weights() * square(parts.mean - self.mean.unsqueeze(dim)), dim)

    def _padded(self, x: Tensor) -> Tensor:
        return x.unsqueeze(-1 - self._dims)

    def log_prob(self, value: Any) -> Tensor:
        parts = self.component_distribution.log_prob(self._padded(self._value(value)))
        return logsumexp(parts + log_softmax(self.mixture_distribution.logits, -1), -1)

    def cdf(self, value: Any) -> Tensor:
        parts = self.component_distribution.cdf(self._padded(self._value(value)))
        return sum(parts * self.mixture_distribution.probs, -1)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        chosen = self.mixture_distribution.sample(sample_shape)
        drawn = self.component_distribution.sample(sample_shape)
        index = chosen.reshape((*chosen.shape, *(1,) * (1 + self._dims)))
        index = expand(index, (*chosen.shape, 1, *self.event_shape))
        return drawn.gather(-1 - self._dims, index).squeeze(-1 - self._dims)  # type: ignore[no-any-return]

    def __repr__(self) -> str:
        return f"MixtureSameFamily({self.mixture_distribution!r}, {self.component_distribution!r})"
