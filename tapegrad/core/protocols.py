"""What a Tensor is to Python, NumPy and torch: numbers, lists, arrays, truth values, text, torch's own functions."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch

from .errors import DTypeError, ShapeError, TapeError
from .incoming import plain
from .methods import Methods
from .mode import mode
from .tape import Leaf, Node, describe

T = TypeVar("T")

functions: dict[str, Callable[..., Any]] = {}  # ops by torch's name, filled by `tapegrad.ops`

_TORCH_ONLY = {"inplace", "size_average", "reduce", "_stacklevel"}  # what torch's functions pass on to themselves
_IN_PLACE = re.compile(r"\w*[^_]_|__setitem__|__i(add|sub|mul|truediv|floordiv|mod|pow|matmul|and|or|xor)__")
_NUMPY = {"axis": "dim", "keepdims": "keepdim", "x1": "input", "x2": "other"}  # torch's functions take these names too


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
            mode.tracer.refuse("__dlpack__() takes a value out of the program, which a replay cannot follow")
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

    def __reversed__(self) -> Any:
        """The order along dimension 0 reversed, as torch has it."""
        return self.flip(0) if self._data.ndim else self

    def __iter__(self) -> Iterator[T]:
        if self._data.ndim == 0:
            raise TypeError("iteration over a 0-dim tensor")
        return iter(self.unbind())

    def __contains__(self, value: Any) -> bool:
        equal: Any = self.eq(value)
        return bool(equal.any())

    def _repr_html_(self) -> str:
        """For a notebook: type and values, a picture of an image, the spread of a large tensor."""
        from ..show import cell_of_tensor

        return cell_of_tensor(self)  # type: ignore[arg-type]  # every Protocols is a Tensor

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
        """``torch.NAME(tensor)`` is ``tg.NAME(tensor)``, recorded, and ``raw.NAME(tensor)`` is ``Tensor.NAME``.

        Where torch writes (``raw.add_(tensor)``, ``raw[0] = tensor``, ``out=``), it gets the values, if no gradient is
        lost with them. What tapegrad does not have is refused by name.
        """
        name = function.__name__
        given = {_NUMPY.get(key, key): value for key, value in (kwargs or {}).items() if key not in _TORCH_ONLY}
        if not args and "input" in given:
            args = (given.pop("input"),)
        out = given.pop("out", None)
        if _IN_PLACE.fullmatch(name):
            return cls._written(function, args, given)
        result = _counterpart(cls, function)(*args, **given)
        return result if out is None else put(out, result, name)

    @classmethod
    def _written(cls, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A function of torch's that writes into its first argument: a torch tensor's own, or a Tensor's method."""
        name = function.__name__
        ours = functions.get(f"{getattr(function, '__module__', None)}.{name}")  # torch.nn.init's
        if ours is not None:
            return ours(*args, **kwargs)
        if not isinstance(args[0] if args else next(iter(kwargs.values())), Protocols):
            return function(*_values(args, name), **{key: _values(value, name) for key, value in kwargs.items()})
        method = getattr(cls, name, None)
        if method is None:
            raise _without_counterpart(name)
        return method(*args, **kwargs)


# --- torch's own functions ---------------------------------------------------------------------------------------


def _without_counterpart(name: str) -> TypeError:
    return TypeError(
        f"torch.{name} has no counterpart in tapegrad; pass x.data to compute without a gradient, "
        "or define an op with @tg.op"
    )


def _counterpart(cls: Any, function: Any) -> Callable[..., Any]:
    """What tapegrad has for a function or a method of torch's."""
    name = function.__name__
    method = getattr(cls, name, None)
    if getattr(torch.Tensor, name, None) is not function or not callable(method):
        own = functions.get(
            f"{getattr(function, '__module__', None)}.{name}"
        )  # where torch has two functions of one name
        found = own or functions.get(name) or functions.get(name.removeprefix("special_"))
        if found is not None:
            return found
    if not callable(method):
        raise _without_counterpart(name)

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        return method(self if isinstance(self, cls) else cls._made(plain(self, f"{name}: self"), None), *args, **kwargs)

    return call


def _values(value: Any, name: str) -> Any:
    """An argument, or a nest of them, with raw values for Tensors; TapeError where one would lose its gradient."""
    if isinstance(value, Protocols):
        if value._node is not None and mode.record:
            raise TapeError(
                f"torch.Tensor.{name}: a tapegrad Tensor written into a torch tensor loses its gradient; "
                "pass .detach(), or write under tg.no_grad()"
            )
        return value._data
    if isinstance(value, slice):
        return slice(*_values((value.start, value.stop, value.step), name))
    return type(value)([_values(v, name) for v in value]) if type(value) in (tuple, list) else value


def put(out: Any, result: Any, name: str) -> Any:
    """``out=`` as in torch: resized to the result, which it takes if its dtype can hold it and no gradient is lost."""
    if isinstance(result, tuple):
        if not isinstance(out, tuple | list) or len(out) != len(result):
            raise TypeError(f"torch.{name}: out must be {len(result)} tensors; got {type(out).__name__}")
        for o, r in zip(out, result, strict=True):
            put(o, r, name)
        return out
    values = _values(result, name)
    writable: Any = getattr(out, "_writable", None)  # a Tensor's
    target = out if writable is None else writable("out")
    if not torch.can_cast(values.dtype, target.dtype):
        raise DTypeError(f"torch.{name}: out has dtype {target.dtype}, which cannot hold a result of {values.dtype}")
    if target.shape != values.shape:
        target.resize_(values.shape)
    target.copy_(values)
    return out
