"""The base class that tells type checkers which ops are methods of `Tensor`; its stub is generated."""


class Methods:
    """Every op that torch has as a method (bound to `Tensor` in `tapegrad.ops`, declared in ``_methods.pyi``)."""

    __slots__ = ()
