"""Invertible functions, and distributions pushed through them."""

from __future__ import annotations

import math
from typing import Any

import torch

from ..core import Tensor, tensor_argument
from ..ops import abs, clamp, exp, log, sigmoid, softplus, sum, tanh
from . import constraints
from .continuous import Normal
from .distribution import Distribution

__all__ = [
    "AffineTransform",
    "ComposeTransform",
    "ExpTransform",
    "LogNormal",
    "SigmoidTransform",
    "TanhTransform",
    "Transform",
    "TransformedDistribution",
]


class Transform:
    """``y = transform(x)``, its inverse ``inv``, and ``ln |dy/dx|``."""

    event_dim = 0

    def __init__(self, cache_size: int = 0) -> None:
        self.cache_size = cache_size
        self._last: tuple[Any, Any] = (None, None)

    def __call__(self, x: Any) -> Tensor:
        if self._last[0] is x:
            return self._last[1]  # type: ignore[no-any-return]
        y = self._call(tensor_argument(x, type(self).__name__, "x"))
        if self.cache_size:
            self._last = x, y
        return y

    def inverse(self, y: Any) -> Tensor:
        """The x with ``transform(x) = y``; the very one that gave y last, with ``cache_size=1``."""
        if self._last[1] is y and y is not None:
            return self._last[0]  # type: ignore[no-any-return]
        return self._inverse(tensor_argument(y, type(self).__name__, "y"))

    @property
    def inv(self) -> Transform:
        """The inverse, as a transform."""
        return _Inverse(self)

    def _call(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def _inverse(self, y: Tensor) -> Tensor:
        raise NotImplementedError

    def log_abs_det_jacobian(self, x: Any, y: Any) -> Tensor:
        """``ln |dy/dx|`` at x, for which y is given too."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class _Inverse(Transform):
    def __init__(self, transform: Transform) -> None:
        super().__init__()
        self._forward, self.event_dim = transform, transform.event_dim

    @property
    def inv(self) -> Transform:
        return self._forward

    def _call(self, x: Tensor) -> Tensor:
        return self._forward.inverse(x)

    def _inverse(self, y: Tensor) -> Tensor:
        return self._forward(y)

    def log_abs_det_jacobian(self, x: Any, y: Any) -> Tensor:
        return -self._forward.log_abs_det_jacobian(y, x)


class AffineTransform(Transform):
    """``y = loc + scale * x``; with ``event_dim``, of so many dimensions as one event."""

    def __init__(self, loc: Any, scale: Any, event_dim: int = 0, cache_size: int = 0) -> None:
        super().__init__(cache_size)
        self.loc, self.scale, self.event_dim = loc, scale, event_dim

    def _call(self, x: Tensor) -> Tensor:
        return self.loc + self.scale * x  # type: ignore[no-any-return]

    def _inverse(self, y: Tensor) -> Tensor:
        return (y - self.loc) / self.scale  # type: ignore[no-any-return]

    def log_abs_det_jacobian(self, x: Any, y: Any) -> Tensor:
        if isinstance(self.scale, int | float):
            slope = x * 0 + math.log(math.fabs(self.scale))
        else:
            slope = log(abs(self.scale)) + x * 0
        return sum(slope, tuple(range(-self.event_dim, 0))) if self.event_dim else slope


class ExpTransform(Transform):
    """``y = e**x``."""

    def _call(self, x: Tensor) -> Tensor:
        return exp(x)

    def _inverse(self, y: Tensor) -> Tensor:
        return log(y)

    def log_abs_det_jacobian(self, x: Any, y: Any) -> Tensor:
        return x  # type: ignore[no-any-return]


class SigmoidTransform(Transform):
    """``y = 1 / (1 + e**-x)``."""

    def _call(self, x: Tensor) -> Tensor:
        limits = torch.finfo(x.dtype)
        return clamp(sigmoid(x), limits.tiny, 1 - limits.eps)

    def _inverse(self, y: Tensor) -> Tensor:
        limits = torch.finfo(y.dtype)
        y = clamp(y, limits.tiny, 1 - limits.eps)
        return log(y) - (-y).log1p()

    def log_abs_det_jacobian(self, x: Any, y: Any) -> Tensor:
        return -softplus(-x) - softplus(x)


class TanhTransform(Transform):
    """``y = tanh x``; its logarithm of the slope is computed without cancellation."""

    def _call(self, x: Tensor) -> Tensor:
        return tanh(x)

    def _inverse(self, y: Tensor) -> Tensor:
        return y.atanh()

    def log_abs_det_jacobian(self, x: Any, y: Any) -> Tensor:
        return 2 * (math.log(2) - x - softplus(-2 * x))  # type: ignore[no-any-return]


class ComposeTransform(Transform):
    """Several transforms, one after the other."""

    def __init__(self, parts: list[Transform], cache_size: int = 0) -> None:
        super().__init__(cache_size)
        self.parts = list(parts)
        self.event_dim = max((part.event_dim for part in self.parts), default=0)

    def _call(self, x: Tensor) -> Tensor:
        for part in self.parts:
            x = part(x)
        return x

    def _inverse(self, y: Tensor) -> Tensor:
        for part in reversed(self.parts):
            y = part.inverse(y)
        return y

    def log_abs_det_jacobian(self, x: Any, y: Any) -> Tensor:
        total: Any = 0
        for part in self.parts:
            z = part(x)
            slope = part.log_abs_det_jacobian(x, z)
            extra = self.event_dim - part.event_dim
            total = total + (sum(slope, tuple(range(-extra, 0))) if extra else slope)
            x = z
        return total  # type: ignore[no-any-return]


class TransformedDistribution(Distribution):
    """The distribution of ``transform(x)`` with x from a base: ``ln p(y) = ln p_base(x) - ln |dy/dx|``."""

    def __init__(self, base_distribution: Any, transforms: Any, validate_args: bool | None = None) -> None:
        self.base_dist = base_distribution
        self.transforms = [transforms] if isinstance(transforms, Transform) else list(transforms)
        self.has_rsample = base_distribution.has_rsample
        shape = base_distribution.batch_shape + base_distribution.event_shape
        self._event_dim = max([len(base_distribution.event_shape), *(t.event_dim for t in self.transforms)])
        cut = len(shape) - self._event_dim
        super().__init__(shape[:cut], shape[cut:], validate_args)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        x = self.base_dist.rsample(sample_shape)
        for transform in self.transforms:
            x = transform(x)
        return x  # type: ignore[no-any-return]

    def sample(self, sample_shape: Any = ()) -> Tensor:
        x = self.base_dist.sample(sample_shape)
        for transform in self.transforms:
            x = transform(x)
        return x.detach()  # type: ignore[no-any-return]

    def log_prob(self, value: Any) -> Tensor:
        total: Any = 0.0
        y = value
        for transform in reversed(self.transforms):
            x = transform.inverse(y)
            slope = transform.log_abs_det_jacobian(x, y)
            extra = self._event_dim - transform.event_dim
            total = total - (sum(slope, tuple(range(-extra, 0))) if extra else slope)
            y = x
        base = self.base_dist.log_prob(y)
        extra = self._event_dim - len(self.base_dist.event_shape)
        return total + (sum(base, tuple(range(-extra, 0))) if extra else base)  # type: ignore[no-any-return]

    def cdf(self, value: Any) -> Tensor:
        rising = 1.0
        for transform in reversed(self.transforms):
            value = transform.inverse(value)
            if isinstance(transform, AffineTransform):
                rising = rising * (self._sign(transform.scale))
        below = self.base_dist.cdf(value)
        return rising * (below - 0.5) + 0.5  # type: ignore[no-any-return]

    @staticmethod
    def _sign(scale: Any) -> Any:
        return math.copysign(1.0, scale) if isinstance(scale, int | float) else scale.sign()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.base_dist!r}, {self.transforms!r})"


class LogNormal(TransformedDistribution):
    """``e**x`` with x normal."""

    support = constraints.positive

    def __init__(self, loc: Any, scale: Any, validate_args: bool | None = None) -> None:
        super().__init__(Normal(loc, scale, validate_args), ExpTransform(), validate_args)

    @property
    def loc(self) -> Tensor:
        """The mean of the logarithm."""
        return self.base_dist.loc  # type: ignore[no-any-return]

    @property
    def scale(self) -> Tensor:
        """The standard deviation of the logarithm."""
        return self.base_dist.scale  # type: ignore[no-any-return]

    @property
    def mean(self) -> Tensor:
        return exp(self.loc + self.scale**2 / 2)

    @property
    def mode(self) -> Tensor:
        return exp(self.loc - self.scale**2)

    @property
    def variance(self) -> Tensor:
        s2 = self.scale**2
        return (exp(s2) - 1) * exp(2 * self.loc + s2)

    def entropy(self) -> Tensor:
        return self.base_dist.entropy() + self.loc  # type: ignore[no-any-return]
