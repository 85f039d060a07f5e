"""Parameter: a leaf that a module finds among its attributes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ..core import Tensor, calling, to_torch


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


def new_parameter(layer: str, shape: Sequence[int], dtype: torch.dtype, value: float | None = None) -> Parameter:
    """A layer's parameter, filled with a value, or with what the memory holds; a shape too large names the layer."""
    if value is None:
        return Parameter(calling(layer, torch.empty, tuple(shape), dtype=dtype))
    return Parameter(calling(layer, torch.full, tuple(shape), value, dtype=dtype))
