"""The base class that tells type checkers which ops are methods of `Tensor`; its stub is generated."""

from typing import Any


class Methods:
    """Every op that torch has as a method (bound to `Tensor` in `tapegrad.ops`, declared in ``methods.pyi``).

    To type checkers it is generic in what the methods return, so that it need not know `Tensor`.
    """

    __slots__ = ()

    def __class_getitem__(cls, result: Any) -> Any:
        return cls
