"""The errors of networks and optimizers, and the checks of arguments that many layers share."""

from __future__ import annotations

import operator
from typing import Any

import torch

from ..core import FLOATS, ArgumentError, DTypeError, calling


def require(condition: bool, what: str, argument: str, expected: str, actual: Any) -> None:
    """Raise ``ArgumentError("what: argument must expected; got actual")`` unless the condition holds."""
    if not condition:
        raise ArgumentError(f"{what}: {argument} must {expected}; got {actual!r}")


def one_of(value: Any, allowed: tuple[Any, ...], what: str, argument: str) -> None:
    """`value` must be one of a few."""
    require(value in allowed, what, argument, "be one of " + ", ".join(map(repr, allowed)), value)


def extent(value: Any, what: str, argument: str, least: int = 0) -> int:
    """A number of features, channels or elements: an int of at least `least`."""
    try:
        n = operator.index(value)
    except TypeError:
        raise TypeError(f"{what}: {argument} must be an int; got {value!r}") from None
    require(n >= least, what, argument, f"be at least {least}", n)
    return n


_LAYER = 4096  # bytes that a layer's Python objects take at least


def layers(value: Any, what: str, argument: str, nbytes: int, least: int = 0) -> int:
    """How many layers of `nbytes` each: an int of at least `least`, for which there is memory.

    They are made one by one, which for too many would go on until memory is full.
    """
    n = extent(value, what, argument, least)
    if n > 1:
        calling(f"{what}: {argument} = {n}", torch.empty, n * max(nbytes, _LAYER), dtype=torch.uint8)
    return n


def ntuple(value: Any, n: int, what: str, argument: str, least: int = 0) -> tuple[int, ...]:
    """``k`` and ``(k, ..., k)`` both mean n times k, as ints of at least `least`."""
    values = tuple(value) if isinstance(value, tuple | list) else (value,) * n
    if len(values) != n:
        raise ArgumentError(f"{what}: {argument} must be an int or {n} of them; got {value!r}")
    return tuple(extent(v, what, argument, least) for v in values)


def parameter_dtype(device: Any, dtype: torch.dtype | None, what: str) -> torch.dtype:
    """The dtype a layer's parameters get; the device, taken because torch's constructors do, can only be the CPU."""
    if device is not None and torch.device(device).type != "cpu":
        raise DTypeError(f"{what}: device must be 'cpu'; got {str(device)!r}")
    dtype = torch.get_default_dtype() if dtype is None else dtype
    if dtype not in FLOATS:
        raise DTypeError(f"{what}: dtype must be float32 or float64; got {dtype}")
    return dtype
