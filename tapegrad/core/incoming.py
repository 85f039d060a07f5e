"""The border: what raw values may come in from torch and NumPy."""

from __future__ import annotations

from typing import Any

import torch

from .errors import DTypeError
from .extension import _C
from .mode import mode
from .tape import DTYPE_NAMES

FLOATS = (torch.float32, torch.float64)


def known_dtype(dtype: torch.dtype | None, what: str) -> torch.dtype | None:
    """`dtype`, if tapegrad has it."""
    if dtype is not None and dtype not in DTYPE_NAMES:
        known = ", ".join(str(d).removeprefix("torch.") for d in DTYPE_NAMES)
        raise DTypeError(f"{what}: dtype must be one of {known}; got {dtype}")
    return dtype


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
        raise mode.tracer.refuse(f"{what} is an array that is read-only or runs backward; pass it as an argument")
    return plain(value, what)


def plain(value: torch.Tensor, what: str) -> torch.Tensor:
    """`value` as a strided CPU tensor that torch's own autograd does not follow; DTypeError for what is not one."""
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
        value = value.detach()
    if type(value) is not torch.Tensor:
        value = value.as_subclass(torch.Tensor)
    return value.clone() if value.is_inference() or value.is_neg() else value


def kind(value: Any) -> str:
    return f"{type(value).__name__} {value!r}" if isinstance(value, str) else type(value).__name__
