"""``tg.testing``: torch's comparison, on Tensors."""

from __future__ import annotations

from typing import Any

from torch.testing import assert_close as _assert_close
from torch.testing import make_tensor as _make_tensor

from .core import Tensor

__all__ = ["assert_close", "make_tensor"]


def _plain(value: Any) -> Any:
    """torch's tensors in the place of Tensors, in nests of dicts, lists and tuples too."""
    if isinstance(value, Tensor):
        return value.data
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return type(value)([_plain(item) for item in value]) if type(value) in (list, tuple) else value


def assert_close(actual: Any, expected: Any, **options: Any) -> None:
    """Raise AssertionError, showing the largest difference, unless two tensors (or nests of them) are close.

    Arguments and tolerances as of ``torch.testing.assert_close``.
    """
    _assert_close(_plain(actual), _plain(expected), **options)


def make_tensor(*shape: Any, requires_grad: bool = False, **options: Any) -> Tensor:
    """Random values of a dtype, of torch's generator. Arguments as of ``torch.testing.make_tensor``."""
    return Tensor(_make_tensor(*shape, **options), requires_grad=requires_grad)
