"""Types under torch's older names: ``FloatTensor(2, 3)``, ``x.type(...)``, ``x.new_zeros(...)``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ..core import DTypeError, Tensor, known_dtype, on_cpu
from . import create

__all__ = ["BoolTensor", "ByteTensor", "CharTensor", "DoubleTensor", "FloatTensor", "IntTensor", "LongTensor"]
__all__ += ["ShortTensor", "is_floating_point", "is_tensor", "numel"]
_ASKED = [
    "get_device",
    "is_complex",
    "is_conj",
    "is_distributed",
    "is_inference",
    "is_neg",
    "is_nonzero",
    "is_same_size",
    "is_signed",
]
__all__ += _ASKED


class TensorType(type):
    """A constructor for one dtype: ``FloatTensor(2, 3)`` by sizes, ``FloatTensor([1, 2])`` by values.

    ``isinstance(x, FloatTensor)`` asks whether a Tensor has the dtype, and ``x.type(FloatTensor)`` converts; it is a
    type of torch's name, so that a torch tensor's ``type`` takes it too.
    """

    dtype: torch.dtype

    def __call__(cls, *data: Any, device: Any = None) -> Any:
        name = cls.__name__.removeprefix("torch.")
        on_cpu(device, name)
        if len(data) == 1 and isinstance(data[0], Tensor | torch.Tensor) and data[0].dtype is not cls.dtype:
            raise DTypeError(f"{name}: data has dtype {data[0].dtype}; expected {cls.dtype}; write x.to(...)")
        made = Tensor(*data)
        return made if made.dtype is cls.dtype else Tensor(made.data.to(cls.dtype))

    def __instancecheck__(cls, value: object) -> bool:
        return isinstance(value, Tensor | torch.Tensor) and value.dtype is cls.dtype

    def __repr__(cls) -> str:
        return f"<class '{cls.__name__}'>"


def _type(name: str, dtype: torch.dtype) -> TensorType:
    return TensorType(f"torch.{name}", (), {"dtype": dtype, "__doc__": f"Makes tensors of {dtype}."})


FloatTensor = _type("FloatTensor", torch.float32)
DoubleTensor = _type("DoubleTensor", torch.float64)
LongTensor = _type("LongTensor", torch.int64)
IntTensor = _type("IntTensor", torch.int32)
ShortTensor = _type("ShortTensor", torch.int16)
CharTensor = _type("CharTensor", torch.int8)
ByteTensor = _type("ByteTensor", torch.uint8)
BoolTensor = _type("BoolTensor", torch.bool)
TYPES = {t.dtype: t for t in (FloatTensor, DoubleTensor, LongTensor, IntTensor, ShortTensor, CharTensor, ByteTensor)}
TYPES[torch.bool] = BoolTensor
_BY_NAME = {t.__name__: t.dtype for t in TYPES.values()}


def is_tensor(obj: Any) -> bool:
    """Whether it is a Tensor (or a torch tensor)."""
    return isinstance(obj, Tensor | torch.Tensor)


def is_floating_point(input: Any) -> bool:
    """Whether the dtype is float32 or float64."""
    return bool(input.is_floating_point())


def numel(input: Any) -> int:
    """The number of elements."""
    return int(input.numel())


def _asking(name: str) -> Callable[..., Any]:
    def function(input: Any, *others: Any) -> Any:
        return getattr(input, name)(*others)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = getattr(Tensor, name).__doc__
    return function


globals().update({name: _asking(name) for name in _ASKED})


# --- methods -----------------------------------------------------------------------------------------------------


def as_type(self: Tensor, dtype: Any = None, non_blocking: bool = False) -> Any:
    """Without ``dtype`` the type's name, such as "torch.FloatTensor"; else the values in that type: a dtype, a name,
    or one of the constructors.
    """
    if dtype is None:
        return TYPES[self.dtype].__name__
    wanted = dtype.dtype if isinstance(dtype, TensorType) else _BY_NAME.get(dtype, dtype)
    if not isinstance(wanted, torch.dtype):
        raise DTypeError(f"type: dtype must be one of {', '.join(_BY_NAME)}, or a dtype; got {dtype!r}")
    return self.to(wanted)


def cpu(self: Tensor, memory_format: Any = None) -> Tensor:
    """The tensor itself, which is on the CPU."""
    return self


def cuda(self: Tensor, device: Any = None, non_blocking: bool = False) -> Tensor:
    """Raises DTypeError: there is no CUDA device."""
    raise DTypeError("cuda: there is no CUDA device; leave the call out, or make it depend on tg.cuda.is_available()")


def pin_memory(self: Tensor, device: Any = None) -> Tensor:
    """The tensor itself: no device would copy from pinned memory."""
    return self


def _like_self(name: str, what: str) -> Callable[..., Tensor]:
    make = getattr(create, name.removeprefix("new_"))

    def method(self: Tensor, *size: Any, **options: Any) -> Tensor:
        dtype = known_dtype(options.pop("dtype", None), name) or self.dtype
        made: Tensor = make(*size, dtype=dtype, **options)
        return made

    method.__name__ = method.__qualname__ = name
    method.__doc__ = f"{what} in the tensor's own dtype unless another is given. Arguments as ``torch.Tensor.{name}``."
    return method


def new(self: Tensor, *args: Any, device: Any = None) -> Tensor:
    """A tensor of this one's dtype, by sizes or values, as ``torch.Tensor.new``."""
    made = Tensor(*args, device=device) if args else Tensor(torch.empty(0))
    return made if made.dtype is self.dtype else Tensor(made.data.to(self.dtype))


def _refused(name: str, dtype: str) -> Callable[..., Tensor]:
    def method(self: Tensor, memory_format: Any = None) -> Tensor:
        raise DTypeError(f"{name}: tapegrad has no {dtype}; it computes in float32 and float64")

    method.__name__ = method.__qualname__ = name
    method.__doc__ = f"Raises DTypeError: there is no {dtype}."
    return method


def dense(self: Tensor, dtype: Any = None, *, masked_grad: bool | None = None) -> Tensor:
    """The tensor itself, which is dense."""
    return self if dtype is None else self.to(dtype)


def to_sparse(self: Tensor, *args: Any, **options: Any) -> Tensor:
    """Raises DTypeError: there is no sparse layout."""
    raise DTypeError("to_sparse: Tensors are dense; leave the call out, products of dense ones have the same values")


METHODS: dict[str, Callable[..., Any]] = {
    "new": new,
    "half": _refused("half", "float16"),
    "bfloat16": _refused("bfloat16", "bfloat16"),
    "coalesce": dense,
    "to_sparse": to_sparse,
    "type": as_type,
    "cpu": cpu,
    "cuda": cuda,
    "pin_memory": pin_memory,
    "new_zeros": _like_self("new_zeros", "Zeros of the given size,"),
    "new_ones": _like_self("new_ones", "Ones of the given size,"),
    "new_empty": _like_self("new_empty", "Whatever lies in memory, of the given size,"),
    "new_full": _like_self("new_full", "One value, of the given size: ``new_full(size, fill_value)``,"),
    "new_tensor": _like_self("new_tensor", "A copy of the data,"),
}
