"""Dropout of whole channels, and the dropout that keeps mean and variance: composed of ops and random numbers."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

from ..core import ArgumentError, ShapeError, Tensor, tensor_argument
from .elementwise import where
from .random import Generator, raw_uniform

__all__ = ["alpha_dropout", "dropout1d", "dropout2d", "dropout3d", "feature_alpha_dropout"]


def _checked(p: float, name: str) -> None:
    if not 0 <= p <= 1:
        raise ArgumentError(f"{name}: p must lie in [0, 1]; got {p}")


def _kept(shape: tuple[int, ...], p: float, x: Tensor, generator: Generator | None, name: str) -> Tensor:
    """True with probability 1 - p."""
    return Tensor(raw_uniform(shape, x.dtype, generator, name) >= p)


def _by_channel(name: str, dims: tuple[int, ...]) -> Callable[..., Tensor]:
    def function(
        input: Any, p: float = 0.5, training: bool = True, inplace: bool = False, *, generator: Generator | None = None
    ) -> Tensor:
        _checked(p, name)
        x = tensor_argument(input, name, "input")
        if name == "dropout2d" and x.ndim not in dims:  # as torch: of [N, C] every element is a channel
            warnings.warn(f"{name}: input should have 3 or 4 dimensions; got {list(x.shape)}", UserWarning, 2)
        elif x.ndim not in dims:
            raise ShapeError(f"{name}: input must have {' or '.join(map(str, dims))} dimensions; got {list(x.shape)}")
        if x.ndim < 2:
            raise ShapeError(f"{name}: input must have at least 2 dimensions; got {list(x.shape)}")
        if not training or p == 0:
            return x
        if p == 1:
            return x * 0.0
        channels = x.ndim - dims[0] + 1 if x.ndim in dims else 2  # the batch, where there is one, and the channels
        shape = (*x.shape[:channels], *(1,) * (x.ndim - channels))
        return where(_kept(shape, p, x, generator, name), x * (1 / (1 - p)), 0.0)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"""Each channel of each example 0 with probability ``p``, else times 1 / (1 - p).

    Shapes: input with {" or ".join(map(str, dims))} dimensions, [N, C, ...] or [C, ...]; the result has its shape.
    Source: Tompson et al. (2015).
    """
    return function


dropout1d = _by_channel("dropout1d", (2, 3))
dropout2d = _by_channel("dropout2d", (3, 4))
dropout3d = _by_channel("dropout3d", (4, 5))

_SATURATED = -1.7580993408473766  # what SELU tends to on the left


def _alpha(input: Any, p: float, training: bool, by_channel: bool, generator: Generator | None, name: str) -> Tensor:
    _checked(p, name)
    x = tensor_argument(input, name, "input")
    if not training or p == 0:
        return x
    if p == 1:
        return x * 0.0
    if by_channel and x.ndim < 2:
        raise ShapeError(f"{name}: input must be [N, C, ...]; got shape {list(x.shape)}")
    shape = (*x.shape[:2], *(1,) * (x.ndim - 2)) if by_channel else tuple(x.shape)
    a = 1 / math.sqrt((1 - p) * (1 + p * _SATURATED**2))
    return where(_kept(shape, p, x, generator, name), x * a, _SATURATED * a) - a * p * _SATURATED


def alpha_dropout(
    input: Any, p: float = 0.5, training: bool = False, inplace: bool = False, *, generator: Generator | None = None
) -> Tensor:
    """Elements set to SELU's limit with probability ``p``, then shifted and scaled to keep mean 0 and variance 1.

    Source: Klambauer et al., Self-normalizing neural networks (2017).
    """
    return _alpha(input, p, training, False, generator, "alpha_dropout")


def feature_alpha_dropout(
    input: Any, p: float = 0.5, training: bool = False, inplace: bool = False, *, generator: Generator | None = None
) -> Tensor:
    """`alpha_dropout` of whole channels of [N, C, ...]."""
    return _alpha(input, p, training, True, generator, "feature_alpha_dropout")
