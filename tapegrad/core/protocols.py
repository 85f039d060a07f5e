"""What a Tensor is to Python, NumPy and torch: numbers, lists, arrays, truth values, text, torch's own functions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch

from .errors import ShapeError, TapeError
from .methods import Methods
from .mode import mode
from .tape import Leaf, Node, describe

T = TypeVar("T")

functions: dict[str, Callable[..., Any]] = {}  # ops by torch's name, filled by `tapegrad.ops`

_TORCH_ONLY = {"inplace", "size_average", "reduce", "_stacklevel"}  # what torch's functions pass on to themselves

_OPERATORS = {
    "__add__": "add",
    "__sub__": "sub",
    "__mul__": "mul",
    "__truediv__": "div",
    "__div__": "div",
    "__floordiv__": "floor_divide",
    "__mod__": "remainder",
    "__pow__": "pow",
    "__matmul__": "matmul",
    "__neg__": "neg",
    "__abs__": "abs",
    "__eq__": "eq",
    "__ne__": "ne",
    "__lt__": "lt",
    "__le__": "le",
    "__gt__": "gt",
    "__ge__": "ge",
    "__and__": "bitwise_and",
    "__or__": "bitwise_or",
    "__xor__": "bitwise_xor",
    "__invert__": "bitwise_not",
    "__getitem__": "getitem",
}


class Protocols(Methods[T]):
    """The protocols of `Tensor` (``T``), which holds the raw value in ``_data`` and its node in ``_node``."""

    __slots__ = ()

    _data: torch.Tensor
    _node: Node | None

    def item(self) -> Any:
        """The value of a one-element tensor as a Python number."""
        return self._only("item")

    def _only(self, what: str) -> Any:
        if self._data.numel() != 1:
            raise ShapeError(
                f"{what}: a tensor of shape {list(self._data.shape)} has {self._data.numel()} elements; expected 1"
            )
        return self._data.item()

    def tolist(self) -> Any:
        """The values as (nested lists of) Python numbers."""
        return self._data.tolist()

    def numpy(self) -> Any:
        """The values as a NumPy array that shares memory. Writes through it are not seen by the tape's checks."""
        if self._node is not None:
            raise TapeError("numpy: the tensor needs a gradient, which NumPy would lose; call .detach().numpy()")
        return self._data.numpy()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        array = self.numpy()
        if dtype is not None and array.dtype != dtype:
            return array.astype(dtype)
        return array.copy() if copy else array

    def __dlpack__(self, **kwargs: Any) -> Any:
        if self._node is not None:
            raise TapeError("__dlpack__: the tensor needs a gradient; export .detach()")
        if mode.tracer is not None:
            raise mode.tracer.refuse("__dlpack__() takes a value out of the program, which a replay cannot follow")
        return self._data.__dlpack__(**kwargs)

    def __dlpack_device__(self) -> Any:
        return self._data.__dlpack_device__()

    def __bool__(self) -> bool:
        if self._data.numel() != 1:
            raise ShapeError(
                f"bool: a tensor of shape {list(self._data.shape)} has no one truth value; use .all() or .any()"
            )
        return bool(self._data)

    def __float__(self) -> float:
        return float(self._only("float"))

    def __int__(self) -> int:
        return int(self._only("int"))

    def __index__(self) -> int:
        if self._data.is_floating_point() or self._data.numel() != 1:
            raise TypeError(f"only a one-element integer tensor is an index; got {describe(self._data)}")
        return int(self._data.item())

    def __len__(self) -> int:
        if self._data.ndim == 0:
            raise TypeError("len() of a 0-dim tensor")
        return self._data.shape[0]

    def __iter__(self) -> Iterator[T]:
        if self._data.ndim == 0:
            raise TypeError("iteration over a 0-dim tensor")
        return iter(self.unbind())

    def __contains__(self, value: Any) -> bool:
        equal: Any = self.eq(value)
        return bool(equal.any())

    def __repr__(self) -> str:
        text = repr(self._data).replace("tensor(", "Tensor(", 1).replace("\n", "\n ")
        node = self._node
        if isinstance(node, Leaf):
            return text[:-1] + ", requires_grad=True)"
        if node is not None:
            return text[:-1] + f", op={(node[0] if isinstance(node, tuple) else node).op.name})"
        return text

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if self._data.ndim == 0 and spec else format(str(self), spec)

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """``torch.NAME(tensor)`` is ``tg.NAME(tensor)``, recorded; what tapegrad has no op for is refused by name."""
        name = function.__name__
        in_place = name.endswith("_") and not name.endswith("__")
        if in_place or (name.startswith("__i") and name.endswith("__") and name != "__invert__"):
            raise TapeError(f"torch.Tensor.{name}: a tapegrad Tensor written into a torch tensor loses its gradient")
        reflected = name.startswith("__r") and f"__{name[3:]}" in _OPERATORS
        plain_name = _OPERATORS.get(f"__{name[3:]}" if reflected else name, name)
        found = functions.get(plain_name)
        if found is None:
            raise TypeError(
                f"torch.{name} has no counterpart in tapegrad; pass x.data to compute without a gradient, "
                "or define an op with @tg.op"
            )
        given = {key: value for key, value in (kwargs or {}).items() if key not in _TORCH_ONLY}
        return found(*(args[::-1] if reflected else args), **given)
