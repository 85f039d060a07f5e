"""Parameter: a leaf that a module finds among its attributes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ..core import Leaf, ShapeError, Tensor, calling, tensor_argument, to_torch
from .checks import parameter_dtype


class Parameter(Tensor):
    """A `Tensor` that registers itself as a parameter when it is assigned to an attribute of a `Module`.

    Parameters
    ----------
    data : a ``Tensor`` or ``torch.Tensor``, whose storage is shared, or anything `tapegrad.tensor` takes (copied)
    requires_grad : collect a gradient (default True); float32 and float64 only

    Raises
    ------
    DTypeError
        for a dtype that cannot have a gradient, unless ``requires_grad=False``.

    Source: ``torch.nn.Parameter``.
    """

    __slots__ = ()

    def __init__(self, data: Any, requires_grad: bool = True) -> None:
        value = data.data if isinstance(data, Tensor | torch.Tensor) else to_torch(data, None, "Parameter")
        super().__init__(value, requires_grad=requires_grad)  # a leaf of its own, whatever `data` was: as in torch

    def __repr__(self) -> str:
        return "Parameter containing:\n" + super().__repr__()


class UninitializedParameter(Parameter):
    """A parameter whose shape the first input decides; it has no values until then."""

    __slots__ = ()

    def __init__(self, requires_grad: bool = True, device: Any = None, dtype: torch.dtype | None = None) -> None:
        super().__init__(torch.empty(0, dtype=dtype), requires_grad)

    def materialize(self, shape: Any, device: Any = None, dtype: torch.dtype | None = None) -> None:
        """Become a `Parameter` of a shape, of arbitrary values."""
        self._become(torch.empty(tuple(shape), dtype=dtype or self.dtype))

    def _become(self, value: torch.Tensor) -> None:
        self.data = value
        if isinstance(self._node, Leaf):
            self._node.shape = value.shape
        self.__class__ = Parameter  # type: ignore[assignment]

    def __repr__(self) -> str:
        return "<UninitializedParameter>"


def new_parameter(layer: str, shape: Sequence[int], dtype: torch.dtype, value: float | None = None) -> Parameter:
    """A layer's parameter, filled with a value, or with what the memory holds; a shape too large names the layer."""
    if value is None:
        return Parameter(calling(layer, torch.empty, tuple(shape), dtype=dtype))
    return Parameter(calling(layer, torch.full, tuple(shape), value, dtype=dtype))


def rows_of(layer: str, embeddings: Any) -> tuple[int, int]:
    """The shape of a table of vectors."""
    value = tensor_argument(embeddings, f"{layer}.from_pretrained", "embeddings")
    if value.ndim != 2:
        raise ShapeError(f"{layer}.from_pretrained: embeddings must be [n, m]; got shape {list(value.shape)}")
    n, m = value.shape
    return n, m


def table(layer: str, n: int, m: int, weight: Any, freeze: bool, device: Any, dtype: torch.dtype | None) -> Parameter:
    """A table of vectors [n, m]: the one given, or one whose values are still to be drawn."""
    if weight is None:
        made = new_parameter(layer, (n, m), parameter_dtype(device, dtype, layer))
    else:
        value = weight if isinstance(weight, Parameter) else Parameter(weight)
        if tuple(value.shape) != (n, m):
            raise ShapeError(f"{layer}: _weight must have shape {[n, m]}; got {list(value.shape)}")
        made = value
    if freeze:
        made.requires_grad = False
    return made
