"""The arguments of a call: their signature, the tensors among them, and what is refused."""

from __future__ import annotations

from typing import Any

import torch

from ..core import CompileError, Leaf, ShapeError, Tensor, describe, from_array, mode, plain
from .results import grad_of
from .trace import extent
from .watch import where

_UNKNOWN = "arguments that cannot be taken"


class Arguments:
    """The arguments of a call: its signature, the tensors in it, and the objects that hold them.

    The gradients that arguments come with are arguments, too: a step may add to them.
    """

    __slots__ = ("args", "form", "gradients", "holders", "key", "kwargs", "tensors")

    def __init__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.tensors: list[torch.Tensor] = []
        self.holders: list[Any] = []
        self.gradients: list[Any] = []
        self.args = args
        self.kwargs = kwargs
        parts = [self._part(a, f"argument {i}") for i, a in enumerate(args)]
        if kwargs:
            parts += [(name, self._part(kwargs[name], f"argument '{name}'")) for name in sorted(kwargs)]
        self.form = parts
        self.key = (mode.record, torch.get_default_dtype(), *parts, tuple(self.gradients))

    def _part(self, value: Any, what: str) -> Any:
        if isinstance(value, Tensor):
            node = value._node
            if node is not None and type(node) is not Leaf:
                raise CompileError(f"compile: {what} is the recorded output of an op; pass x.detach()")
            grad = grad_of(node if isinstance(node, Leaf) else value)
            if grad is not None and grad._node is not None:
                raise CompileError(f"compile: the gradient of {what} is recorded; detach it")
            form = (*self._tensor(value._data, value, what), type(value), node is not None)
            self.gradients.append(None if grad is None else self._tensor(grad._data, grad, f"the gradient of {what}"))
            return form
        if isinstance(value, torch.Tensor):
            return (*self._tensor(plain(value, f"compile: {what}"), value, what), type(value), None)
        if isinstance(value, tuple | list):
            return (type(value), *[self._part(v, f"{what}[{i}]") for i, v in enumerate(value)])
        if isinstance(value, dict):
            return (dict, *[(k, self._part(v, f"{what}[{k!r}]")) for k, v in value.items()])
        if value is None or isinstance(value, bool | int | float | str):
            return (type(value), value.hex() if isinstance(value, float) else value)
        raise CompileError(f"compile: {what} is a {type(value).__name__}; expected tensors, arrays, numbers, strings")

    def _tensor(self, t: torch.Tensor, holder: Any, what: str) -> Any:
        begin, end = extent(t)
        if end > t.untyped_storage().nbytes():
            raise ShapeError(
                f"compile: the storage of {what} {describe(t)} must hold {end} bytes; "
                f"got one of {t.untyped_storage().nbytes()}"
            )
        for i, other in enumerate(self.tensors):
            if other.untyped_storage()._cdata != t.untyped_storage()._cdata:
                continue
            if other is t or (
                extent(other) == (begin, end) and other.stride() == t.stride() and other.dtype is t.dtype
            ):
                return ("same", i)
            first, last = extent(other)
            if first < end and begin < last:
                raise CompileError(f"compile: {what} overlaps the memory of an argument before it; pass a clone")
        self.tensors.append(t)
        self.holders.append(holder)
        return (t.shape, t.stride(), t.dtype)


def without_arrays(value: Any) -> Any:
    """NumPy arrays among arguments become Tensors that share their memory."""
    if isinstance(value, tuple | list) and not hasattr(value, "_fields"):
        return type(value)([without_arrays(v) for v in value])
    if isinstance(value, dict):
        return {k: without_arrays(v) for k, v in value.items()}
    if hasattr(value, "__array_interface__") and hasattr(value, "dtype") and getattr(value, "ndim", 0) > 0:
        return Tensor(from_array(value, "compile: argument"))
    return value


def as_refusal(error: Exception, what: str) -> CompileError:
    """What went wrong in the package, with the line of the user's code."""
    refusal = CompileError(f"compile: {where()}: {what}: {type(error).__name__}: {error}")
    refusal.__cause__ = error
    return refusal


def is_loss(value: Any) -> bool:
    """A 0-dim tensor."""
    raw = value._data if isinstance(value, Tensor) else value
    return isinstance(raw, torch.Tensor) and raw.ndim == 0


def is_plain(value: Any) -> bool:
    """An array, a torch tensor, or a Tensor that needs no gradient: what C++ can take."""
    if type(value) is Tensor:
        return value._node is None and value._grad is None
    return type(value) is torch.Tensor or (type(value).__module__ == "numpy" and type(value).__name__ == "ndarray")
