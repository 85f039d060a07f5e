"""Making tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ..core import Tensor, from_torch, known_dtype, plain, raw, to_torch

__all__ = [
    "arange",
    "as_tensor",
    "empty",
    "empty_like",
    "eye",
    "from_numpy",
    "full",
    "full_like",
    "linspace",
    "ones",
    "ones_like",
    "tensor",
    "zeros",
    "zeros_like",
]


def tensor(data: Any, *, dtype: torch.dtype | None = None, requires_grad: bool = False) -> Tensor:
    """A new tensor holding a copy of ``data``.

    Parameters
    ----------
    data : number, nested sequence, NumPy array, torch tensor or Tensor
    dtype : default as torch: float32 for Python floats, int64 for ints, an array's own
    requires_grad : collect a gradient (float32 and float64 only)
    """
    return Tensor(to_torch(data, dtype, "tensor"), requires_grad)


def as_tensor(data: Any, *, dtype: torch.dtype | None = None) -> Tensor:
    """``data`` as a Tensor, sharing memory with an array or torch tensor where the dtype allows it."""
    if isinstance(data, Tensor):
        return data if dtype is None or data.dtype is dtype else data.to(dtype)
    if isinstance(data, torch.Tensor) or hasattr(data, "__array__"):
        value = raw(data, "as_tensor", "data")
        if isinstance(value, torch.Tensor):
            return Tensor(value if dtype is None else value.to(known_dtype(dtype, "as_tensor")))
    return Tensor(to_torch(data, dtype, "as_tensor"))


def from_numpy(array: Any) -> Tensor:
    """A Tensor that shares memory with a NumPy array. Writes through the array are not seen by the tape's checks."""
    try:
        value = torch.from_numpy(array)
    except TypeError as error:
        raise TypeError(f"from_numpy: array must be a NumPy array of a supported dtype: {error}") from error
    return Tensor(plain(value, "from_numpy: array"))


def _maker(name: str, what: str) -> Callable[..., Tensor]:
    make = getattr(torch, name)

    def function(*size: Any, dtype: torch.dtype | None = None, requires_grad: bool = False) -> Tensor:
        known_dtype(dtype, name)
        try:
            value = make(*size, dtype=dtype)
        except (RuntimeError, TypeError, ValueError) as error:
            raise from_torch(name, error, f"got {', '.join(map(repr, size))}") from error
        return Tensor(value, requires_grad)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"{what} Arguments as ``torch.{name}``, and ``requires_grad``."
    return function


def _like(name: str, what: str) -> Callable[..., Tensor]:
    make = getattr(torch, name)

    def function(input: Any, *args: Any, dtype: torch.dtype | None = None, requires_grad: bool = False) -> Tensor:
        return Tensor(make(raw(input, name, "input"), *args, dtype=known_dtype(dtype, name)), requires_grad)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"{what} Arguments as ``torch.{name}``, and ``requires_grad``."
    return function


zeros = _maker("zeros", "Zeros of the given size.")
ones = _maker("ones", "Ones of the given size.")
full = _maker("full", "One value in every element: ``full(size, fill_value)``.")
empty = _maker("empty", "A tensor of the given size whose values are whatever lies in memory.")
arange = _maker("arange", "``start`` (0), ``start + step``, ... below ``end``: ``arange([start,] end[, step])``.")
linspace = _maker("linspace", "``steps`` numbers evenly from ``start`` to ``end``, both included.")
eye = _maker("eye", "The identity matrix: ``eye(n[, m])``.")
zeros_like = _like("zeros_like", "Zeros with the input's shape and dtype.")
ones_like = _like("ones_like", "Ones with the input's shape and dtype.")
full_like = _like("full_like", "One value with the input's shape and dtype: ``full_like(input, fill_value)``.")
empty_like = _like("empty_like", "Whatever lies in memory, with the input's shape and dtype.")
