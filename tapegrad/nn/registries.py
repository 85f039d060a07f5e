"""torch's registries of a module, as views of its attributes: ``module._modules["conv"]``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, MutableMapping
from typing import Any, TypeVar

T = TypeVar("T")


class Registry(MutableMapping[str, T]):
    """The attributes of a module that belong to it, by name.

    Parameters
    ----------
    module : whose attributes they are
    belongs : ``belongs(name, value)`` tells which
    register : ``register(name, value)`` assigns one
    """

    def __init__(self, module: Any, belongs: Callable[[str, Any], bool], register: Callable[[str, Any], None]) -> None:
        self._module, self._belongs, self._register = module, belongs, register

    def __getitem__(self, name: str) -> T:
        value = vars(self._module).get(name, self)
        if value is self or not self._belongs(name, value):
            raise KeyError(name)
        return value  # type: ignore[no-any-return]

    def __setitem__(self, name: str, value: T) -> None:
        if value is None and name in self:
            vars(self._module)[name] = None
        else:
            self._register(name, value)

    def __delitem__(self, name: str) -> None:
        self[name]
        delattr(self._module, name)

    def __iter__(self) -> Iterator[str]:
        return iter([name for name, value in vars(self._module).items() if self._belongs(name, value)])

    def __len__(self) -> int:
        return len(list(iter(self)))

    def __repr__(self) -> str:
        return repr(dict(self))
