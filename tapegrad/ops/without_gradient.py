"""Functions whose results are constants: torch's own, called on the raw values. One table; arguments as torch's.

A tensor among the arguments, in lists too, may be ours, torch's or an array, and may need a gradient, which ends here.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch

from ..core import Tensor, from_torch, plain, raw

_TABLE = {
    "allclose": "Whether ``|input - other| <= atol + rtol |other|`` everywhere, a bool.",
    "bincount": "How often each of 0, 1, ... occurs in a vector of integers (with ``weights``, their sums).",
    "bucketize": "The index of the interval between ``boundaries`` that each element falls into.",
    "can_cast": "Whether a dtype can be cast to another without changing its kind.",
    "count_nonzero": "The number of elements that are not 0.",
    "equal": "Whether two tensors have one shape and the same elements, a bool.",
    "heaviside": "0 below 0, ``values`` at 0, 1 above.",
    "histc": "Counts of the elements in ``bins`` intervals of one width.",
    "histogram": "Counts of the elements in intervals, and the intervals' edges.",
    "isclose": "Where ``|input - other| <= atol + rtol |other|``.",
    "isin": "Where the elements are among those of another tensor.",
    "isneginf": "Where the elements are -infinity.",
    "isposinf": "Where the elements are +infinity.",
    "isreal": "Where the elements are real: everywhere.",
    "nonzero": "The indices of the elements that are not 0, a row each (with ``as_tuple``, a vector a dimension).",
    "argwhere": "The indices of the elements that are not 0, a row each.",
    "promote_types": "The dtype of a result of two dtypes.",
    "result_type": "The dtype of a result of two values.",
    "searchsorted": "Where the values would be inserted in a sorted sequence to keep it sorted.",
    "signbit": "Where the sign bit is set.",
    "tril_indices": "The indices of the lower triangle of a matrix.",
    "triu_indices": "The indices of the upper triangle of a matrix.",
    "unique": "The distinct elements, sorted; their places and counts if asked for.",
    "unique_consecutive": "The elements without those equal to the one before.",
    "hamming_window": "The Hamming window.",
    "hann_window": "The Hann window.",
    "from_dlpack": "A tensor that shares the memory of another library's.",
    "histogramdd": "Counts of points in a grid of intervals, and the intervals' edges.",
    "nonzero_static": "The first ``size`` rows of `nonzero`, filled up with ``fill_value``.",
    "bartlett_window": "Bartlett's window.",
    "blackman_window": "Blackman's window.",
    "kaiser_window": "Kaiser's window.",
    "bitwise_left_shift": "``input * 2**other``, integers.",
    "bitwise_right_shift": "``input // 2**other``, integers.",
    "gcd": "The greatest common divisor of integers.",
    "lcm": "The least common multiple of integers.",
    "unravel_index": "Positions in a flattened tensor as indices of each dimension.",
}
METHODS_TOO = (
    "allclose", "bincount", "count_nonzero", "equal", "histc", "isclose", "isneginf", "isposinf", "isreal", "nonzero",
    "argwhere", "signbit", "unique", "unique_consecutive", "gcd", "lcm", "heaviside", "histogram",
    "nonzero_static",
    "bitwise_left_shift", "bitwise_right_shift",
)  # fmt: skip

__all__ = [*_TABLE]


_SIGNATURE = inspect.signature(lambda input, *args, **kwargs: None)


def _wrapped(value: Any) -> Any:
    """torch tensors as Tensors, in tuples too."""
    if isinstance(value, torch.Tensor):
        return Tensor._made(plain(value, "result"), None)
    if isinstance(value, tuple | list):
        items = [_wrapped(v) for v in value]
        return type(value)(items) if type(value) in (tuple, list) else tuple(items)
    return value


def _calling(name: str, what: str) -> Callable[..., Any]:
    function = getattr(torch, name)

    def given(value: Any, argument: str) -> Any:
        if isinstance(value, tuple | list):
            return type(value)([given(v, argument) for v in value])
        detached = value.detach() if isinstance(value, torch.Tensor) else value
        array = isinstance(detached, Tensor | torch.Tensor) or hasattr(detached, "__array__")
        return raw(detached, name, argument) if array else value

    def call(*args: Any, **kwargs: Any) -> Any:
        values = [given(value, f"argument {i + 1}") for i, value in enumerate(args)]
        named = {key: given(value, key) for key, value in kwargs.items()}
        try:
            return _wrapped(function(*values, **named))
        except (RuntimeError, ValueError, OverflowError, MemoryError) as error:
            raise from_torch(name, error, f"got {len(args)} arguments") from error

    call.__name__ = call.__qualname__ = name
    call.__signature__ = _SIGNATURE  # type: ignore[attr-defined]
    call.__doc__ = f"{what}\n\n    A constant: no gradient passes. Arguments and errors as of ``torch.{name}``."
    return call


globals().update({name: _calling(name, what) for name, what in _TABLE.items()})
