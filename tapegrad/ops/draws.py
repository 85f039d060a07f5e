"""Random numbers in place, from our generators: ``normal_``, ``uniform_``, ``exponential_`` and the rest, one table."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from ..core import _C, FLOATS, ArgumentError, Leaf, Tensor, mode, raw
from .random import bernoulli, default_generator, raw_normal, raw_uniform


def _floats(like: torch.Tensor, generator: Any, name: str) -> torch.Tensor:
    """Uniform numbers in [0, 1) of a shape, in its dtype, or float64 for integers."""
    return raw_uniform(like.shape, like.dtype if like.dtype in FLOATS else torch.float64, generator, name)


def _uniform(like: torch.Tensor, a: float = 0.0, b: float = 1.0, *, generator: Any = None) -> torch.Tensor:
    if not a <= b:
        raise ArgumentError(f"uniform_: expected from <= to; got {a} and {b}")
    return raw_uniform(like.shape, like.dtype, generator, "uniform_") * (b - a) + a


def _normal(like: torch.Tensor, mean: float = 0.0, std: float = 1.0, *, generator: Any = None) -> torch.Tensor:
    if std < 0:
        raise ArgumentError(f"normal_: std must not be negative; got {std}")
    return raw_normal(like.shape, like.dtype, generator, "normal_") * std + mean


def _bernoulli(like: torch.Tensor, p: Any = 0.5, *, generator: Any = None) -> torch.Tensor:
    chance = torch.full(like.shape, 1.0).mul_(raw(p, "bernoulli_", "p"))
    return bernoulli(chance, generator=generator)._data


def _exponential(like: torch.Tensor, lambd: float = 1.0, *, generator: Any = None) -> torch.Tensor:
    if not lambd > 0:
        raise ArgumentError(f"exponential_: lambd must be positive; got {lambd}")
    return -torch.log1p(-raw_uniform(like.shape, like.dtype, generator, "exponential_")) / lambd


def _geometric(like: torch.Tensor, p: float, *, generator: Any = None) -> torch.Tensor:
    if not 0 < p < 1:
        raise ArgumentError(f"geometric_: p must be between 0 and 1; got {p}")
    u = 1 - _floats(like, generator, "geometric_")  # in (0, 1]
    return torch.ceil(torch.log(u) / math.log1p(-p)).clamp(min=1)


def _cauchy(like: torch.Tensor, median: float = 0.0, sigma: float = 1.0, *, generator: Any = None) -> torch.Tensor:
    if not sigma > 0:
        raise ArgumentError(f"cauchy_: sigma must be positive; got {sigma}")
    return median + sigma * torch.tan(math.pi * (raw_uniform(like.shape, like.dtype, generator, "cauchy_") - 0.5))


def _log_normal(like: torch.Tensor, mean: float = 1.0, std: float = 2.0, *, generator: Any = None) -> torch.Tensor:
    if not std > 0:
        raise ArgumentError(f"log_normal_: std must be positive; got {std}")
    return torch.exp(raw_normal(like.shape, like.dtype, generator, "log_normal_") * std + mean)


_EXACT = {torch.float32: 2**24, torch.float64: 2**53, torch.bool: 1}  # up to here every integer is one


def _random(
    like: torch.Tensor, a: int | None = None, b: int | None = None, *, generator: Any = None, **named: Any
) -> torch.Tensor:
    """Integers in [a, b); with one number in [0, a); without any in the dtype's."""
    low, high = named.pop("from", a), named.pop("to", b)
    if b is None and high is None and low is not None:
        low, high = 0, low
    if high is None:
        most = _EXACT[like.dtype] if like.dtype in _EXACT else torch.iinfo(like.dtype).max
        low, high = low or 0, min(most + 1, 2**63 - 1)
    if not low < high:
        raise ArgumentError(f"random_: expected from < to; got {low} and {high}")
    numbers = (generator or default_generator).take(like.numel(), torch.int64)
    return _C.random_int(low, high, list(like.shape), *numbers)


def _drawn(name: str, draw: Callable[..., torch.Tensor]) -> Callable[..., Any]:
    """A method that fills a tensor with random numbers of our generators."""

    def method(self: Tensor, *args: Any, generator: Any = None, **kwargs: Any) -> Tensor:
        if isinstance(self._node, Leaf) and mode.record:
            self.zero_()  # which refuses
        value = draw(self._data, *args, generator=generator, **kwargs)
        return self.copy_(Tensor._made(value, None))

    method.__name__ = method.__qualname__ = name
    method.__doc__ = f"Random numbers in place, as ``torch.Tensor.{name}``, from `tapegrad`'s generators."
    return method


_TABLE: dict[str, Callable[..., torch.Tensor]] = {
    "bernoulli_": _bernoulli,
    "cauchy_": _cauchy,
    "exponential_": _exponential,
    "geometric_": _geometric,
    "log_normal_": _log_normal,
    "normal_": _normal,
    "random_": _random,
    "uniform_": _uniform,
}
METHODS = {name: _drawn(name, draw) for name, draw in _TABLE.items()}
