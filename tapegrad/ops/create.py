"""Making tensors."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from ..core import (
    _C,
    DTypeError,
    Tensor,
    calling,
    describe,
    from_torch,
    integers,
    known_dtype,
    on_cpu,
    plain,
    raw,
    tensor_argument,
    to_torch,
)

__all__ = [
    "arange",
    "as_tensor",
    "asarray",
    "empty",
    "empty_like",
    "empty_permuted",
    "empty_strided",
    "eye",
    "from_numpy",
    "frombuffer",
    "full",
    "full_like",
    "linspace",
    "logspace",
    "ones",
    "ones_like",
    "range",
    "scalar_tensor",
    "tensor",
    "zeros",
    "zeros_like",
]


def tensor(
    data: Any,
    *,
    dtype: torch.dtype | None = None,
    requires_grad: bool = False,
    device: Any = None,
    pin_memory: bool = False,
) -> Tensor:
    """A new tensor holding a copy of ``data``: as in torch, the copy of a tensor is a constant (or, with
    ``requires_grad``, a leaf) whatever gradient its source required. Numbers in a list that require one are refused:
    `stack` joins them and keeps it.

    Parameters
    ----------
    data : number, nested sequence, NumPy array, torch tensor or Tensor
    dtype : default as torch: float32 for Python floats, int64 for ints, an array's own
    requires_grad : collect a gradient (float32 and float64 only)
    pin_memory : changes nothing: no device would copy from it
    """
    on_cpu(device, "tensor")
    return Tensor(to_torch(data, dtype, "tensor"), requires_grad=requires_grad)


def as_tensor(data: Any, dtype: torch.dtype | None = None, device: Any = None) -> Tensor:
    """``data`` as a Tensor, sharing memory with an array or torch tensor where the dtype allows it.

    As in torch, a Tensor comes back as it is, gradient included; a torch tensor that requires one is refused
    (TapeError), because that gradient cannot be kept.
    """
    on_cpu(device, "as_tensor")
    if isinstance(data, Tensor):
        return data if dtype is None or data.dtype is dtype else data.to(dtype)
    if isinstance(data, torch.Tensor) or hasattr(data, "__array__"):
        value = raw(data, "as_tensor", "data")
        if isinstance(value, torch.Tensor):
            return Tensor(value if dtype is None else value.to(known_dtype(dtype, "as_tensor")))
    return Tensor(to_torch(data, dtype, "as_tensor"))


def asarray(
    obj: Any,
    *,
    dtype: torch.dtype | None = None,
    device: Any = None,
    copy: bool | None = None,
    requires_grad: bool = False,
) -> Tensor:
    """`as_tensor`, or `tensor` with ``copy``; with ``requires_grad``, a leaf."""
    if copy or (requires_grad and isinstance(obj, Tensor)):
        return tensor(obj, dtype=dtype, device=device, requires_grad=requires_grad)
    made = as_tensor(obj, dtype, device)
    return made.requires_grad_() if requires_grad else made


def scalar_tensor(
    s: Any, *, dtype: torch.dtype | None = None, requires_grad: bool = False, device: Any = None
) -> Tensor:
    """A 0-dim tensor, of torch's default dtype unless another is given."""
    return tensor(s, dtype=dtype or torch.get_default_dtype(), requires_grad=requires_grad, device=device)


def frombuffer(
    buffer: Any, *, dtype: torch.dtype, count: int = -1, offset: int = 0, requires_grad: bool = False
) -> Tensor:
    """The bytes of a buffer as a vector that shares its memory. Arguments as of ``torch.frombuffer``."""
    known_dtype(dtype, "frombuffer")
    value = calling("frombuffer", torch.frombuffer, buffer, dtype=dtype, count=count, offset=offset)
    return Tensor(value, requires_grad=requires_grad)


def empty_strided(size: Any, stride: Any, **options: Any) -> Tensor:
    """`empty`, laid out with the given strides."""
    made = empty(*size, **options)
    made.data = calling("empty_strided", torch.empty_strided, tuple(size), tuple(stride), dtype=made.dtype)
    return made


def from_numpy(array: Any) -> Tensor:
    """A Tensor that shares memory with a NumPy array. Writes through the array are not seen by the tape's checks."""
    try:
        value = torch.from_numpy(array)
    except TypeError as error:
        raise TypeError(f"from_numpy: array must be a NumPy array of a supported dtype: {error}") from error
    return Tensor(plain(value, "from_numpy: array"))


def dense(layout: Any, what: str) -> None:
    """Refuse a layout other than the dense one (None: that)."""
    if layout not in (None, torch.strided):
        raise DTypeError(f"{what}: layout must be torch.strided, the only one tapegrad has; got {layout}")


def _maker(name: str, what: str) -> Callable[..., Tensor]:
    make = getattr(torch, name)
    if name == "arange":  # of floats: torch's bits depend on where a thread begins
        make = partial(_C.on_one_thread, make)

    def function(
        *size: Any,
        dtype: torch.dtype | None = None,
        requires_grad: bool = False,
        device: Any = None,
        layout: Any = torch.strided,
        pin_memory: bool = False,
        **named: Any,
    ) -> Tensor:
        known_dtype(dtype, name)
        on_cpu(device, name)
        dense(layout, name)
        size = integers(size, name, "size", floats=True)
        named = {key: integers(value, name, key, floats=True) for key, value in named.items()}
        try:
            value = make(*size, dtype=dtype, **named)
        except (RuntimeError, TypeError, ValueError, OverflowError, MemoryError) as error:
            got = [*map(repr, size), *[f"{key}={value!r}" for key, value in named.items()]]
            raise from_torch(name, error, f"got {', '.join(got)}") from error
        return Tensor(plain(value, f"{name}: result"), requires_grad=requires_grad)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"{what} Arguments as ``torch.{name}``, and ``requires_grad``."
    return function


def _like(name: str, what: str) -> Callable[..., Tensor]:
    make = getattr(torch, name)

    def function(
        input: Any,
        *args: Any,
        dtype: torch.dtype | None = None,
        requires_grad: bool = False,
        device: Any = None,
        layout: Any = torch.strided,
        pin_memory: bool = False,
        **named: Any,
    ) -> Tensor:
        on_cpu(device, name)
        known_dtype(dtype, name)
        dense(layout, name)
        args = integers(args, name, "fill_value", floats=True)
        named = {key: integers(value, name, key, floats=True) for key, value in named.items()}
        like = (
            input.detach() if isinstance(input, Tensor | torch.Tensor) else input
        )  # only its shape and dtype are read
        like = tensor_argument(like, name, "input").data
        try:
            value = make(like, *args, dtype=dtype, **named)
        except (RuntimeError, TypeError, ValueError, OverflowError, MemoryError) as error:
            raise from_torch(name, error, f"input {describe(like)}") from error
        return Tensor(value, requires_grad=requires_grad)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"{what} Arguments as ``torch.{name}``, and ``requires_grad``."
    return function


zeros = _maker("zeros", "Zeros of the given size.")
ones = _maker("ones", "Ones of the given size.")
full = _maker("full", "One value in every element: ``full(size, fill_value)``.")
empty = _maker("empty", "A tensor of the given size whose values are whatever lies in memory.")
arange = _maker("arange", "``start`` (0), ``start + step``, ... below ``end``: ``arange([start,] end[, step])``.")
logspace = _maker("logspace", "``base`` (10) to the power of ``steps`` numbers evenly from ``start`` to ``end``.")
range = _maker("range", "Numbers from start to end, both included, ``step`` apart.")
empty_permuted = _maker("empty_permuted", "A tensor whose dimensions lie in memory in the given order.")
linspace = _maker("linspace", "``steps`` numbers evenly from ``start`` to ``end``, both included.")
eye = _maker("eye", "The identity matrix: ``eye(n[, m])``.")
zeros_like = _like("zeros_like", "Zeros with the input's shape and dtype.")
ones_like = _like("ones_like", "Ones with the input's shape and dtype.")
full_like = _like("full_like", "One value with the input's shape and dtype: ``full_like(input, fill_value)``.")
empty_like = _like("empty_like", "Whatever lies in memory, with the input's shape and dtype.")
