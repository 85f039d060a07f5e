"""Methods that change in place which memory a tensor shows, and how: ``unsqueeze_``, ``t_``, ``detach_``, ``resize_``.

No value is written, so nothing else in the memory is concerned: the tensor takes the view's place on the tape.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ..core import _C, DTypeError, Leaf, ShapeError, TapeError, Tensor, functions, mode, raw
from .further import t
from .shape import squeeze, transpose, unsqueeze
from .strided import as_strided


def _shown(name: str, view: Callable[..., Any]) -> Callable[..., Any]:
    """The method `name`: the tensor becomes ``view(tensor, ...)``."""

    def method(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        node = self._node
        if isinstance(node, Leaf):
            if mode.record:
                raise TapeError(
                    f"{name}: a leaf that requires a gradient cannot be changed in place; change a view, "
                    "or write under tg.no_grad()"
                )
            self.data = view(self.detach(), *args, **kwargs)._data
            return self
        shown = view(Tensor._made(self._data, node), *args, **kwargs)
        if shown._node is None and node is not None:  # under no_grad, which torch lets lose nothing
            raise TapeError(f"{name}: a recorded output cannot be changed in place under tg.no_grad()")
        _C.hold(self, shown._data)
        self._node = shown._node
        return self

    method.__name__ = method.__qualname__ = name
    method.__doc__ = f"``{name.rstrip('_')}`` in place: the same object and memory, as ``torch.Tensor.{name}``."
    return method


def detach_(self: Tensor) -> Tensor:
    """Make this a constant, in place; TapeError for a view, whose base would still follow it."""
    recorded = self._node is not None and not isinstance(self._node, Leaf)
    if recorded and self._data._is_view() and _C.sharers(self):
        raise TapeError("detach_: a view cannot be detached in place; use x.detach()")
    if isinstance(self._node, Leaf):
        self.requires_grad = False
    self._node = None
    return self


def _constant(self: Tensor, name: str) -> torch.Tensor:
    """The raw tensor of a constant, as an object of its own, so that what others saved of it keeps its shape."""
    if self._node is not None:
        raise TapeError(f"{name}: a tensor that requires a gradient cannot change its memory; use x.detach().clone()")
    return self._data.detach()


def _raw_call(name: str, value: torch.Tensor, *args: Any) -> torch.Tensor:
    try:
        getattr(value, name)(*args)
    except (RuntimeError, TypeError) as error:
        raise ShapeError(f"{name}: {str(error).splitlines()[0]}") from error
    return value


def resize_(self: Tensor, *sizes: Any, memory_format: Any = None) -> Tensor:
    """Another shape in place; memory that comes new holds whatever lies there. Constants only, as in torch."""
    size = tuple(sizes[0]) if len(sizes) == 1 and not isinstance(sizes[0], int) else sizes
    _C.hold(self, _raw_call("resize_", _constant(self, "resize_"), torch.Size(size)))
    return self


def resize_as_(self: Tensor, tensor: Any, memory_format: Any = None) -> Tensor:
    """`resize_` to another tensor's shape."""
    _C.hold(self, _raw_call("resize_", _constant(self, "resize_as_"), raw(tensor, "resize_as_", "tensor").shape))
    return self


def set_(self: Tensor, source: Any = None, *where: Any) -> Tensor:
    """Show the memory of another tensor, or of a storage, offset, size and stride. Constants only."""
    value = _constant(self, "set_")
    if isinstance(source, Tensor) and not where:
        if source.dtype is not self.dtype:
            raise DTypeError(f"set_: source must have dtype {self.dtype}; got {source.dtype}")
        _C.hold(self, _constant(source, "set_"))
        return self
    given = () if source is None else (getattr(source, "_data", source), *where)
    _C.hold(self, _raw_call("set_", value, *given))
    return self


def _by_python(name: str) -> Callable[..., Any]:
    def method(self: Tensor, *args: Any) -> Tensor:
        if self._node is not None:
            raise TapeError(f"{name}: a Python function has no gradient; call it on x.detach()")
        if mode.tracer is not None:
            mode.tracer.refuse(f"{name} calls a Python function of each value, which a replay cannot follow")
        getattr(self._data, name)(*(getattr(a, "_data", a) for a in args))
        return self

    method.__name__ = method.__qualname__ = name
    method.__doc__ = (
        f"Each element replaced by what a Python function returns, as ``torch.Tensor.{name}``. Constants only."
    )
    return method


def _fill_diagonal(old: Tensor, fill_value: Any, wrap: bool = False) -> Tensor:
    if old.ndim < 2:
        raise ShapeError(f"fill_diagonal_: expected at least 2 dimensions; got shape {list(old.shape)}")
    mask = torch.zeros(tuple(old.shape), dtype=torch.bool).fill_diagonal_(True, wrap)
    return functions["masked_fill"](old, mask, fill_value)  # type: ignore[no-any-return]


WRITES = {"fill_diagonal_": _fill_diagonal}  # recorded as the others of `inplace`

METHODS: dict[str, Callable[..., Any]] = {
    "squeeze_": _shown("squeeze_", squeeze),
    "unsqueeze_": _shown("unsqueeze_", unsqueeze),
    **{name: _shown(name, transpose) for name in ("transpose_", "swapaxes_", "swapdims_")},
    "t_": _shown("t_", t),
    "as_strided_": _shown("as_strided_", as_strided),
    "detach_": detach_,
    "resize_": resize_,
    "resize_as_": resize_as_,
    "set_": set_,
    **{name: _by_python(name) for name in ("apply_", "map_", "map2_")},
}
