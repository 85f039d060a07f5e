"""Checks of the arguments that data sets and training loops share: numbers of things, seeds, arrays of samples."""

from __future__ import annotations

from typing import Any

import torch

from ..core import ShapeError, raw


def as_count(value: Any, what: str, least: int = 1) -> int:
    """`value` as an int of at least `least`."""
    number = _integer(value, what)
    if number < least:
        raise ShapeError(f"{what} must be at least {least}; got {number}")
    return number


def as_seed(value: Any, what: str) -> int:
    """A seed as the generator takes it: any integer, modulo 2**64."""
    return _integer(value, what) % 2**64


def _integer(value: Any, what: str) -> int:
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{what} must be an integer; got {type(value).__name__} {value!r}")
    return int(value.__index__())


def as_rows(array: Any, what: str) -> torch.Tensor:
    """The torch tensor behind `array`, which must have a first dimension."""
    value = raw(array, *what.split(": "))
    if not isinstance(value, torch.Tensor):
        raise TypeError(f"{what} must be an array or a tensor; got {type(array).__name__}")
    if value.ndim == 0:
        raise ShapeError(f"{what} must have samples along dimension 0; got a 0-dim tensor")
    return value
