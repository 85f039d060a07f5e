"""Whether two steps are the same program over different objects: their worlds are walked side by side.

The facts of a recorded step (facts.py) lead from its function to everything that it read. `Likeness` follows them from
another step's function: every container, key and value must have its counterpart, one to one, numbers and strings must
be equal, code must be the same object. Then a recording of the other step would be this one with each object replaced
by its counterpart, and need not be made. What the facts cannot prove (arrays, objects of C) must be the same object.
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable, Iterable
from types import BuiltinMethodType, CellType, FunctionType, MethodType
from typing import Any

import torch

from ..core import Leaf, Tensor
from ..ops import Generator
from ..optim import Optimizer
from ..optim.kernels import numbers_read
from .facts import _BY_VALUE, Fact, _frozen, is_library, look_up, same

_CONTAINERS = (Tensor, Leaf, dict, list, deque, set, CellType, MethodType, BuiltinMethodType, functools.partial)
_PLAIN = {int, float, bool, str, type(None)}
_NOTED = {"initial_lr", "max_lr", "min_lr", "base_momentum", "max_momentum"}  # by schedulers


class Unlike(Exception):
    """The other step is not the same program."""


class Likeness:
    """Counterparts in another step's world. ``facts`` and ``names`` are the first's; raises `Unlike`.

    Attributes
    ----------
    mapped : the facts as they hold for the other: (kind, container, key, value)
    """

    def __init__(self, first: Callable[..., Any], other: Callable[..., Any], facts: Iterable[Fact], names: set[str]):
        self._of: dict[int, Any] = {}  # by id of the first's
        self._taken: dict[int, int] = {}  # id of the other's -> id of the first's
        self._kept: list[Any] = []  # so that no id is used again
        self._memory: dict[int, torch.Tensor] = {}  # by address of the first's storage
        self._loose: dict[int, set[str]] = {}  # by dict: keys of numbers that may differ
        self._aside: set[int] = set()  # tuples of such numbers
        self._named = names
        self.mapped: list[tuple[str, Any, Any, Any]] = []
        self._pair(first, other)
        for fact in facts:
            self._check(fact)

    def of(self, thing: Any) -> Any:
        """The counterpart of an object of the first."""
        if id(thing) not in self._of:
            raise Unlike
        return self._of[id(thing)]

    def memory(self, t: torch.Tensor) -> torch.Tensor:
        """A tensor in the storage that is the counterpart of one's storage."""
        address = t.untyped_storage().data_ptr()
        if address not in self._memory:
            raise Unlike
        return self._memory[address]

    # --- facts ------------------------------------------------------------------------------------------------

    def _check(self, fact: Fact) -> None:
        first, kind, key, value, _ = fact
        if kind == "layout":  # `_pair` compares it
            return
        if isinstance(first, type) and id(first) not in self._of:  # a library's class, which both have
            if fact.now() is not value:
                raise Unlike
            self.mapped.append((kind, first, key, value))
            return
        if id(first) in self._aside and id(first) not in self._of:
            return
        container = self.of(first)
        if kind == "buffer":
            if container is not first:
                raise Unlike
            self.mapped.append((kind, container, key, value))
            return
        if type(key) is str:
            if kind == "item" and id(first) in self._loose and key in self._loose[id(first)]:
                self._aside.add(id(value))
                return
        elif type(key) is not int and kind in ("item", "attribute"):
            key = self._value(key, self._of.get(id(key), key))
        try:
            now = look_up(kind, container, key)
        except TypeError as error:
            raise Unlike from error
        if kind == "copy":
            if now != value:
                raise Unlike
            key = _frozen
        elif now is not value or type(value) not in _PLAIN:  # one that both have, and has no parts
            self._value(value, now)
        self.mapped.append((kind, container, key, now))

    def _value(self, a: Any, b: Any) -> Any:
        """b, if it can be the counterpart of a."""
        if type(a) is not type(b):
            raise Unlike
        if type(a) is tuple:
            if len(a) != len(b):
                raise Unlike
            self._of[id(a)] = b
            self._kept.append(a)
            for x, y in zip(a, b, strict=True):
                self._value(x, y)
        elif isinstance(a, _BY_VALUE) or a is None:
            if not same(a, b):
                raise Unlike
        else:
            self._pair(a, b)
        return b

    # --- objects ----------------------------------------------------------------------------------------------

    def _pair(self, a: Any, b: Any) -> None:
        if id(a) in self._of:
            if self._of[id(a)] is not b:
                raise Unlike
            return
        if id(b) in self._taken or type(a) is not type(b) or not (a is b or self._may_differ(a, b)):
            raise Unlike
        self._of[id(a)] = b
        self._taken[id(b)] = id(a)
        self._kept += [a, b]
        self._parts(a, b)

    def _may_differ(self, a: Any, b: Any) -> bool:
        if isinstance(a, FunctionType):
            return a.__code__ is b.__code__ and a.__globals__ is b.__globals__
        if isinstance(a, torch.Tensor):
            return bool(_layout(a) == _layout(b))
        if isinstance(a, BuiltinMethodType) and a.__name__ != b.__name__:
            return False
        if isinstance(a, (*_CONTAINERS, Generator)):
            return True
        if isinstance(a, type | functools._lru_cache_wrapper) or hasattr(type(a), "__array_interface__"):
            return False
        return hasattr(a, "__dict__") or is_library(type(a).__module__)

    def _parts(self, a: Any, b: Any) -> None:
        """What facts find in an object without a fact of its own."""
        if isinstance(a, torch.Tensor):
            if a.layout is torch.strided:
                self._storages(a, b)
        elif isinstance(a, Tensor):
            self._value(a._data, b._data)
            self._value(a._node, b._node)
            self._value(a._grad, b._grad)
        elif isinstance(a, FunctionType):
            self._pair(a.__globals__, b.__globals__)
            for x, y in zip(a.__closure__ or (), b.__closure__ or (), strict=True):
                self._pair(x, y)
            self._value(a.__defaults__, b.__defaults__)
            self._value(tuple((a.__kwdefaults__ or {}).items()), tuple((b.__kwdefaults__ or {}).items()))
            self._attributes(a, b)
        elif isinstance(a, MethodType):
            self._value(a.__func__, b.__func__)
            self._value(a.__self__, b.__self__)
        elif isinstance(a, BuiltinMethodType):
            self._value(a.__self__, b.__self__)
        elif isinstance(a, functools.partial):
            self._value((a.func, a.args, a.keywords), (b.func, b.args, b.keywords))
        elif isinstance(getattr(a, "__dict__", None), dict):
            self._attributes(a, b)
            if isinstance(a, Optimizer):
                self._loosen(a)

    def _loosen(self, optimizer: Optimizer) -> None:
        """Numbers of an optimizer that no update reads where they are: its defaults, and what schedulers note."""
        if "defaults" not in self._named:
            self._loose[id(optimizer.defaults)] = set(numbers_read())
        for group in optimizer.param_groups:
            self._loose[id(group)] = _NOTED - self._named

    def _attributes(self, a: Any, b: Any) -> None:
        self._pair(vars(a), vars(b))
        if isinstance(a, FunctionType) and hasattr(a, "__wrapped__"):
            self._value(a.__wrapped__, getattr(b, "__wrapped__", None))

    def _storages(self, a: torch.Tensor, b: torch.Tensor) -> None:
        first, other = a.untyped_storage().data_ptr(), b.untyped_storage().data_ptr()
        known = self._memory.setdefault(first, b)
        if known.untyped_storage().data_ptr() != other or self._taken.setdefault(-1 - other, first) != first:
            raise Unlike


def _layout(t: torch.Tensor) -> Any:
    if t.layout is not torch.strided:
        return object()
    return t.dtype, t.shape, t.stride(), t.storage_offset(), t.untyped_storage().nbytes(), t.requires_grad, t.device
