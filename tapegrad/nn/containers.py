"""ModuleList, ModuleDict, ParameterList, ParameterDict: what a module finds in a list or dict."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar, Generic, TypeVar

import torch

from ..core import IndexShapeError, Tensor
from .module import Module, _indent
from .parameter import Parameter

Self = TypeVar("Self", bound="Numbered")
T = TypeVar("T")


def position(index: Any, length: int, what: str) -> int:
    """A list index as a number from 0."""
    i = operator.index(index)
    if not -length <= i < length:
        raise IndexShapeError(f"{what}: index {i} is outside a list of {length}")
    return i % length


class Numbered(Module):
    """Modules in a list; their names are their positions."""

    def _items(self) -> list[tuple[str, Module]]:
        return [(name, value) for name, value in self.__dict__.items() if isinstance(value, Module)]

    def _replace(self, modules: Iterable[Module]) -> None:
        """Take out all modules and put these in, numbered."""
        modules = list(modules)
        for module in modules:
            if not isinstance(module, Module):
                raise TypeError(f"{type(self).__name__}: expected a Module; got {type(module).__name__}")
        for name, _ in self._items():
            delattr(self, name)
        for i, module in enumerate(modules):
            setattr(self, str(i), module)

    def __len__(self) -> int:
        return len(self._items())

    def __iter__(self) -> Iterator[Module]:
        return iter([module for _, module in self._items()])

    def __contains__(self, module: object) -> bool:
        return any(module is other for other in self)

    def __getitem__(self, index: Any) -> Any:
        items = self._items()
        if isinstance(index, slice):
            part = type(self).__new__(type(self))  # a subclass may need arguments to be constructed
            part._replace(module for _, module in items[index])
            return part
        return items[position(index, len(items), type(self).__name__)][1]

    def __setitem__(self, index: int, module: Module) -> None:
        items = self._items()
        name = items[position(index, len(items), type(self).__name__)][0]
        setattr(self, name, module)

    def __delitem__(self, index: Any) -> None:
        modules = list(self)
        del modules[index if isinstance(index, slice) else position(index, len(modules), type(self).__name__)]
        self._replace(modules)

    def append(self: Self, module: Module) -> Self:
        """Put a module at the end; returns the list itself."""
        self.add_module(str(len(self)), module)
        return self

    def extend(self: Self, modules: Iterable[Module]) -> Self:
        """Put modules at the end; returns the list itself."""
        for module in list(modules):
            self.append(module)
        return self

    def insert(self: Self, index: int, module: Module) -> Self:
        """Put a module before position `index`; returns the list itself."""
        modules = list(self)
        modules.insert(index, module)
        self._replace(modules)
        return self

    def pop(self, index: int = -1) -> Module:
        """Take a module out and return it."""
        module = self[index]
        del self[index]
        return module  # type: ignore[no-any-return]


class ModuleList(Numbered):
    """A list of modules that is not itself called: ``self.layers = ModuleList([...])``; ``for layer in self.layers``.

    Source: ``torch.nn.ModuleList``.
    """

    def __init__(self, modules: Iterable[Module] | None = None) -> None:
        super().__init__()
        self.extend(modules or ())

    def __iadd__(self: Self, modules: Iterable[Module]) -> Self:
        return self.extend(modules)

    def __add__(self, other: Iterable[Module]) -> ModuleList:
        return ModuleList([*self, *other])

    def __repr__(self) -> str:
        runs: list[list[Any]] = []  # [first, last, repr] of equal neighbours
        for i, module in enumerate(self):
            text = repr(module)
            if runs and runs[-1][2] == text:
                runs[-1][1] = i
            else:
                runs.append([i, i, text])
        if not runs:
            return f"{type(self).__name__}()"
        lines = [f"({a}): {text}" if a == b else f"({a}-{b}): {b - a + 1} x {text}" for a, b, text in runs]
        return f"{type(self).__name__}(\n  " + "\n  ".join(map(_indent, lines)) + "\n)"


class Keyed(Module, Generic[T]):
    """Values of one kind by name, in the order in which they were put in."""

    kind: ClassVar[Any]

    def __init__(self, values: Mapping[str, T] | Iterable[tuple[str, T]] | None = None) -> None:
        super().__init__()
        self.update(values or {})

    def _items(self) -> dict[str, T]:
        return {name: value for name, value in self.__dict__.items() if isinstance(value, self.kind)}

    def __getitem__(self, key: str) -> T:
        return self._items()[key]

    def __delitem__(self, key: str) -> None:
        self.pop(key)

    def __len__(self) -> int:
        return len(self._items())

    def __iter__(self) -> Iterator[str]:
        return iter(self._items())

    def __contains__(self, key: object) -> bool:
        return key in self._items()

    def keys(self) -> Iterable[str]:
        """The names."""
        return self._items().keys()

    def values(self) -> Iterable[T]:
        """The values."""
        return self._items().values()

    def items(self) -> Iterable[tuple[str, T]]:
        """(name, value) pairs."""
        return self._items().items()

    def update(self, values: Mapping[str, T] | Iterable[tuple[str, T]]) -> None:
        """Add or replace values by name."""
        for key, value in dict(values).items():
            self[key] = value

    def pop(self, key: str) -> T:
        """Take a value out and return it."""
        value = self[key]
        delattr(self, key)
        return value

    def clear(self) -> None:
        """Take all values out."""
        for key in list(self):
            del self[key]

    def __setitem__(self, key: str, value: Any) -> None:
        raise NotImplementedError


class ModuleDict(Keyed[Module]):
    """A dict of modules that is not itself called. Source: ``torch.nn.ModuleDict``."""

    kind = Module

    def __init__(self, modules: Mapping[str, Module] | Iterable[tuple[str, Module]] | None = None) -> None:
        super().__init__(modules)

    def __setitem__(self, key: str, module: Module) -> None:
        self.add_module(key, module)


class ParameterList(Module):
    """A list of parameters that a module finds; other tensors put into it become parameters.

    What is no tensor is kept as it is, a nested list's parameters are found too. Source: ``torch.nn.ParameterList``.
    """

    def __init__(self, values: Iterable[Any] | None = None) -> None:
        super().__init__()
        self.extend(values or ())

    def _items(self) -> list[Any]:
        return [value for name, value in self.__dict__.items() if name.isdecimal()]

    def __len__(self) -> int:
        return len(self._items())

    def __iter__(self) -> Iterator[Any]:
        return iter(self._items())

    def __getitem__(self, index: Any) -> Any:
        items = self._items()
        if isinstance(index, slice):
            return type(self)(items[index])
        return items[position(index, len(items), "ParameterList")]

    def __setitem__(self, index: int, value: Any) -> None:
        setattr(self, str(position(index, len(self), "ParameterList")), _kept(value))

    def append(self, value: Any) -> ParameterList:
        """Put a parameter at the end; returns the list itself."""
        setattr(self, str(len(self)), _kept(value))
        return self

    def extend(self, values: Iterable[Any]) -> ParameterList:
        """Put parameters at the end; returns the list itself."""
        if isinstance(values, Tensor):
            raise TypeError("ParameterList.extend: values must be a list of tensors; got one Tensor")
        for value in list(values):
            self.append(value)
        return self

    def __iadd__(self, values: Iterable[Any]) -> ParameterList:
        return self.extend(values)

    def extra_repr(self) -> str:
        lines = []
        for i, value in enumerate(self):
            if isinstance(value, Parameter):
                size = "x".join(map(str, value.shape))
                lines.append(f"  ({i}): Parameter containing: [{value.dtype} of size {size}]")
            else:
                lines.append(f"  ({i}): Object of type: {type(value).__name__}")
        return "\n".join(lines)


def _kept(value: Any) -> Any:
    """A tensor as a parameter, anything else as it is."""
    tensor = isinstance(value, Tensor | torch.Tensor) and not isinstance(value, Parameter)
    return Parameter(value) if tensor else value


class ParameterDict(Keyed[Parameter]):
    """A dict of parameters that a module finds; other tensors put into it become parameters.

    Source: ``torch.nn.ParameterDict``.
    """

    kind = Parameter

    def __init__(self, parameters: Mapping[str, Any] | Iterable[tuple[str, Any]] | None = None) -> None:
        super().__init__(parameters)

    def __setitem__(self, key: str, value: Any) -> None:
        self.register_parameter(key, value if isinstance(value, Parameter) else Parameter(value))

    def get(self, key: str, default: Any = None) -> Any:
        """The parameter of that name, or the default."""
        return self._items().get(key, default)

    def extra_repr(self) -> str:
        lines = []
        for key, value in self._items().items():
            size = "x".join(map(str, value.shape))
            lines.append(f"  ({key}): Parameter containing: [{value.dtype} of size {size}]")
        return "\n".join(lines)

    def setdefault(self, key: str, default: Any = None) -> Any:
        """The parameter of that name; where there is none, the default becomes it."""
        if key not in self:
            if default is None:
                return None
            self[key] = default
        return self[key]

    def popitem(self) -> tuple[str, Parameter]:
        """Take out the parameter that came last, and its name; KeyError where there is none."""
        if not len(self):
            raise KeyError("ParameterDict.popitem: there is no parameter")
        key = list(self._items())[-1]
        return key, self.pop(key)

    def copy(self) -> ParameterDict:
        """A dict of its own with the same parameters."""
        return type(self)(self._items())

    def fromkeys(self, keys: Iterable[str], default: Any = None) -> ParameterDict:
        """A dict with one value under each key."""
        return type(self)({key: default for key in keys if default is not None})

    def __or__(self, other: Any) -> ParameterDict:
        made = self.copy()
        made.update(other)
        return made

    def __ror__(self, other: Any) -> ParameterDict:
        made = type(self)(other)
        made.update(self._items())
        return made

    def __ior__(self, other: Any) -> ParameterDict:
        self.update(other)
        return self

    def __reversed__(self) -> Iterator[str]:
        return reversed(list(self._items()))
