"""Layers that pad: torch's names, arguments and ``repr``. One table of kinds, one of dimensions."""

from __future__ import annotations

from typing import Any, ClassVar

from ..core import ShapeError
from . import functional as F
from .checks import ntuple
from .module import Module


class _Pad(Module):
    """The last `ndim` dimensions of [N, C, ...] or [C, ...] padded by ``padding``: one number, or (before, after) of
    each, the last dimension first; negative widths crop.
    """

    ndim: ClassVar[int]
    mode: ClassVar[str]

    def __init__(self, padding: Any) -> None:
        super().__init__()
        self.padding = ntuple(padding, 2 * self.ndim, type(self).__name__, "padding", -(2**31))

    def forward(self, input: Any) -> Any:
        """The padded input."""
        if input.ndim not in (self.ndim + 1, self.ndim + 2) and self.mode != "constant":
            name, low = type(self).__name__, self.ndim + 1
            raise ShapeError(f"{name}: input must have {low} or {low + 1} dimensions; got shape {list(input.shape)}")
        return F.pad(input, self.padding, self.mode)

    def extra_repr(self) -> str:
        return f"{self.padding}"


class _ConstantPad(_Pad):
    mode = "constant"

    def __init__(self, padding: Any, value: float) -> None:
        super().__init__(padding)
        self.value = value

    def forward(self, input: Any) -> Any:
        return F.pad(input, self.padding, "constant", self.value)

    def extra_repr(self) -> str:
        return f"padding={self.padding}, value={self.value}"


class _ZeroPad(_Pad):
    mode = "constant"


def _layer(base: type[_Pad], name: str, ndim: int, what: str, **more: Any) -> Any:
    doc = f"{what}, along the last {ndim} dimension{'s' if ndim > 1 else ''}. Arguments as ``torch.nn.{name}``."
    return type(name, (base,), {"ndim": ndim, "__doc__": doc, "__module__": __name__, "__qualname__": name, **more})


ConstantPad1d, ConstantPad2d, ConstantPad3d = (
    _layer(_ConstantPad, f"ConstantPad{n}d", n, "Borders of one value") for n in (1, 2, 3)
)
ZeroPad1d, ZeroPad2d, ZeroPad3d = (_layer(_ZeroPad, f"ZeroPad{n}d", n, "Borders of zeros") for n in (1, 2, 3))
ReflectionPad1d, ReflectionPad2d, ReflectionPad3d = (
    _layer(_Pad, f"ReflectionPad{n}d", n, "Borders mirrored at the edge element", mode="reflect") for n in (1, 2, 3)
)
ReplicationPad1d, ReplicationPad2d, ReplicationPad3d = (
    _layer(_Pad, f"ReplicationPad{n}d", n, "Borders of the edge element", mode="replicate") for n in (1, 2, 3)
)
CircularPad1d, CircularPad2d, CircularPad3d = (
    _layer(_Pad, f"CircularPad{n}d", n, "Borders wrapped from the other side", mode="circular") for n in (1, 2, 3)
)
