"""What to say when a forward function fails: torch's message turned into one that names op, argument and actual.

Called only after a failure, so it costs nothing on the way there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch

from .errors import ArgumentError, DTypeError, IndexShapeError, OpError, ShapeError, TapegradError
from .foreign import DTYPE_WORDS, MEMORY_WORDS, SHAPE_WORDS, from_torch
from .record import Op
from .tape import describe

Named = dict[str, Any]


def _broadcast(name: str, values: Named) -> str | None:
    """Why the arrays among `values` do not broadcast together."""
    arrays = [(key, value.shape) for key, value in values.items() if isinstance(value, torch.Tensor)]
    for (a, left), (b, right) in pairwise(arrays):
        for i in range(1, min(len(left), len(right)) + 1):
            if left[-i] != right[-i] and 1 not in (left[-i], right[-i]):
                return (
                    f"{name}: {a}.shape {list(left)} and {b}.shape {list(right)} do not broadcast: "
                    f"dimension {-i} is {left[-i]} against {right[-i]}"
                )
    return None


def _matmul(name: str, values: Named) -> str | None:
    """Why two arrays have no matrix product."""
    (a, x), (b, y) = list(values.items())[:2]
    for key, value in ((a, x), (b, y)):
        if not isinstance(value, torch.Tensor):
            return f"{name}: {key} must be a tensor; got {value!r}"
        if value.ndim == 0:
            return f"{name}: {key} must have at least 1 dimension; got a 0-dim tensor"
    inner = -2 if y.ndim > 1 else -1
    if x.shape[-1] != y.shape[inner]:
        return f"{name}: {b}.shape[{inner}] = {y.shape[inner]} must equal {a}.shape[-1] = {x.shape[-1]}"
    return None


def _dim(name: str, values: Named) -> str | None:
    """Which dimension argument lies outside the tensor."""
    x = next((value for value in values.values() if isinstance(value, torch.Tensor)), None)
    for key in ("dim", "dim0", "dim1", "dims", "start_dim", "end_dim"):
        dims = values.get(key)
        for dim in dims if isinstance(dims, list | tuple) else [dims]:
            if x is not None and isinstance(dim, int) and not -max(x.ndim, 1) <= dim < max(x.ndim, 1):
                bound = max(x.ndim, 1)
                return (
                    f"{name}: {key} = {dim} must lie in [{-bound}, {bound - 1}] for an input of shape {list(x.shape)}"
                )
    return None


def _size(name: str, values: Named) -> str | None:
    """Why a tensor has no view of the size asked for."""
    x, size = values.get("input"), values.get("shape")
    if isinstance(x, torch.Tensor) and isinstance(size, list | tuple) and all(isinstance(n, int) for n in size):
        known = math.prod(n for n in size if n != -1)
        if (
            name == "view"
            and not x.is_contiguous()
            and (x.numel() == known or (-1 in size and known and x.numel() % known == 0))
        ):
            strides = f"shape {list(x.shape)} and strides {list(x.stride())}"
            return f"{name}: input of {strides} has no view of shape {list(size)}; use reshape"
        return f"{name}: input of shape {list(x.shape)} ({x.numel()} elements) cannot take shape {list(size)}"
    return None


_SPECIFIC: dict[str, Callable[[str, Named], str | None]] = {
    **dict.fromkeys(("matmul", "mm", "bmm", "mv", "dot"), _matmul),
    **dict.fromkeys(("reshape", "view", "expand", "broadcast_to"), _size),
}


def calling(name: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """``function(*args, **kwargs)`` of torch's; what it refuses, or has no memory for, is refused in our words."""
    try:
        return function(*args, **kwargs)
    except (RuntimeError, TypeError, ValueError, MemoryError, OverflowError) as error:
        raise from_torch(name, error, f"got {', '.join(shown(value) for value in args)}") from error


def shown(value: Any) -> str:
    """A value for a message: a tensor by its dtype and shape."""
    return describe(value) if hasattr(value, "shape") else repr(value)


def composition(name: str, arguments: Sequence[str], values: Sequence[Any], error: Exception) -> Exception:
    """The exception to raise from `error`, one of `FOREIGN` that came out of a composition of ops."""
    given = zip(arguments, values, strict=True)
    return from_torch(name, error, f"got {', '.join(f'{x} = {shown(v)}' for x, v in given if v is not None)}")


def explain(op: Op, values: Sequence[Any], error: Exception) -> Exception:
    """The exception to raise from `error`, which ``op.forward(*values)`` raised."""
    named = dict(zip(op.arguments, values, strict=True))
    dim = None if isinstance(error, MemoryError) else _dim(op.name, named)
    if dim is not None:
        return IndexShapeError(dim)
    if isinstance(error, TapegradError):
        return error
    torch_says = str(error).strip().split("\n")[0]
    for name, value in named.items():
        parameter = op.signature.parameters[name]
        if value is None and name in op.arrays and parameter.default is not None and "None" not in f"{parameter}":
            return TypeError(f"{op.name}: {name} must be a Tensor, a torch tensor, an array or a number; got None")
    actual = ", ".join(f"{key} = {describe(value)}" for key, value in named.items() if value is not None)
    general = f"{op.name}: {torch_says} (got {actual})"
    if isinstance(error, IndexError):
        return IndexShapeError(general)
    if isinstance(error, OverflowError):
        return ArgumentError(general)
    if isinstance(error, MemoryError) or any(words in torch_says for words in MEMORY_WORDS):
        return from_torch(op.name, error, f"got {actual}")
    if isinstance(error, TypeError):
        return TypeError((_SPECIFIC[op.name](op.name, named) if op.name in _SPECIFIC else None) or general)
    dtypes = {value.dtype for value in named.values() if isinstance(value, torch.Tensor)}
    if isinstance(error, RuntimeError | ValueError | NotImplementedError):
        broadcasts = op.call.__module__.endswith(".elementwise")
        why = _SPECIFIC.get(op.name, _broadcast if broadcasts else None)
        message = why(op.name, named) if why else None
        if any(word in torch_says for word in DTYPE_WORDS) and (message is None or len(dtypes) > 1):
            return DTypeError(general)
        if message is not None or any(word in torch_says for word in SHAPE_WORDS):
            return ShapeError(message or general)
        return ShapeError(general) if isinstance(error, ValueError) else OpError(general)
    return error
