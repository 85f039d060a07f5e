"""The border: what raw values may come in from torch and NumPy."""

from __future__ import annotations

import operator
from typing import Any, TypeAlias

import torch

from .errors import ArgumentError, DTypeError, TapeError
from .extension import _C
from .mode import mode
from .tape import DTYPE_NAMES, describe

FLOATS = (torch.float32, torch.float64)
_INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
Ints: TypeAlias = Any  # an int or several: sizes, dims, windows; `op` turns what stands for an int into one


def known_dtype(dtype: torch.dtype | None, what: str) -> torch.dtype | None:
    """`dtype`, if tapegrad has it."""
    if dtype is not None and dtype not in DTYPE_NAMES:
        known = ", ".join(str(d).removeprefix("torch.") for d in DTYPE_NAMES)
        raise DTypeError(f"{what}: dtype must be one of {known}; got {dtype}")
    return dtype


def on_cpu(device: Any, what: str) -> None:
    """Refuse a device other than the CPU (None: the CPU)."""
    if device is not None and torch.device(device).type != "cpu":
        raise DTypeError(f"{what}: device must be 'cpu', the only one tapegrad has; got {str(device)!r}")


def integers(value: Any, op_name: str, argument: str, *, floats: bool = False) -> Any:
    """An argument that stands for an int, or for several: a 0-dim integer tensor (ours or torch's) or a NumPy integer
    becomes the int it holds, alone or in a list; everything else is left for the op to judge.

    Ops call it through ``_C.integers``, which answers for Python's own numbers. With ``floats``, any number will do.
    """
    if isinstance(value, int) and not floats and not -(2**63) <= value < 2**63:
        raise ArgumentError(f"{op_name}: {argument} must fit 64 bits; got {value}")
    if value is None or isinstance(value, int | float | str):
        return value
    if isinstance(value, tuple | list):
        return [integers(item, op_name, argument, floats=floats) for item in value]
    tensor = getattr(value, "_data", value)
    if isinstance(tensor, torch.Tensor):
        if tensor.ndim or value.requires_grad or not (floats or tensor.dtype in _INTEGERS):
            expected = "a number or a 0-dim tensor of one" if floats else "an int or a 0-dim integer tensor"
            raise TypeError(f"{op_name}: {argument} must be {expected}; got {describe(tensor)}")
        return tensor.item()
    return operator.index(value) if hasattr(value, "__index__") and not getattr(value, "shape", ()) else value


def from_array(array: Any, what: str) -> torch.Tensor:
    """A NumPy array as a torch tensor, sharing memory unless torch cannot (negative strides, read-only)."""
    copied = not array.flags.writeable or any(stride < 0 for stride in array.strides)
    if copied:
        array = array.copy()
    try:
        value = torch.as_tensor(array)
    except (TypeError, ValueError) as error:
        raise DTypeError(f"{what} has NumPy dtype {array.dtype}, which torch cannot take") from error
    if copied and mode.tracer is not None:
        mode.tracer.refuse(f"{what} is an array that is read-only or runs backward; pass it as an argument")
    return plain(value, what)


def plain(value: torch.Tensor, what: str) -> torch.Tensor:
    """`value` as a strided CPU tensor that torch's own autograd does not follow.

    Raises DTypeError for what is not one; TapeError, while recording, for a tensor that waits for torch's gradient.
    """
    if _C.is_plain(value):
        return value
    if value.dtype not in DTYPE_NAMES:
        known = ", ".join(str(dtype).removeprefix("torch.") for dtype in DTYPE_NAMES)
        raise DTypeError(f"{what} has dtype {value.dtype}; expected one of {known}")
    if value.is_nested:
        raise DTypeError(f"{what} is a nested tensor; expected a dense tensor on the CPU")
    if value.device.type != "cpu" or value.layout is not torch.strided:
        where = f"device '{value.device}'" if value.device.type != "cpu" else f"layout {value.layout}"
        raise DTypeError(f"{what} has {where}; expected a dense tensor on the CPU")
    if value.requires_grad:
        if mode.record:
            raise waits_for_torch(what)
        value = value.detach()
    if type(value) is not torch.Tensor:
        value = value.as_subclass(torch.Tensor)
    return value.clone() if value.is_inference() or value.is_neg() else value


def waits_for_torch(what: str) -> TapeError:
    """Why a torch tensor that requires a gradient is refused where its values would go on without it."""
    return TapeError(
        f"{what} is a torch tensor that requires a gradient, which it would never get: torch does not see what "
        "tapegrad computes; pass .detach() for a constant, or a leaf, tg.tensor(value, requires_grad=True)"
    )


def kind(value: Any) -> str:
    return f"{type(value).__name__} {value!r}" if isinstance(value, str) else type(value).__name__
