"""Nested objects as JSON and tensors by name: what `save` puts into a file, without pickle.

Dicts, lists, tuples, sets, numbers, text, None, dtypes, sizes, NumPy arrays; and whole modules, as the name of their
class and what their attributes hold, where all of that can be written.
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch

from .. import nn
from ..core import DTYPE_NAMES, StateError, Tensor, plain

KINDS = {"again", "array", "device", "dict", "dtype", "function", "list", "module", "ordered", "parameter", "set"}
KINDS |= {"size", "tensor", "tuple"}
_PLAIN = (bool, int, float, str)
_OURS = __name__.partition(".")[0]


def _place(value: Any) -> list[str]:
    """Where a class or function is found again: its module and its name there."""
    return [value.__module__, value.__qualname__]


def _found(place: list[str], what: str) -> Any:
    """What is there, in a module that has been imported already: a file must not import."""
    module, name = place
    value: Any = sys.modules.get(module)
    for part in name.split("."):
        value = getattr(value, part, None)
    if value is None:
        raise StateError(f"load: {what} {module}.{name} is not there; define or import it before loading")
    return value


class Packer:
    """Packs one object: ``tensors`` by name, and what `pack` returns, which JSON can hold."""

    def __init__(self) -> None:
        self.tensors: dict[str, torch.Tensor] = {}
        self._seen: dict[int, int] = {}  # modules and parameters, by the order in which they were met

    def tensor(self, value: Any, path: str) -> str:
        """The name under which a tensor is kept."""
        data = value.data if isinstance(value, Tensor) else plain(value.detach(), f"save: {path}")
        name = path.encode(errors="replace").decode()  # half of a surrogate pair is no text for a file
        while name in self.tensors or name in ("", "__metadata__"):
            name += "_"
        self.tensors[name] = data.detach().contiguous()
        return name

    def pack(self, value: Any, path: str = "") -> Any:
        """A value as JSON. TypeError by its path for what cannot be written."""
        if value is None or type(value) in _PLAIN:
            return value
        below = f"{path}." if path else ""
        if isinstance(value, Tensor | torch.Tensor):
            return {"tensor": self.tensor(value, path)}
        if isinstance(value, dict):
            kind = "ordered" if isinstance(value, OrderedDict) else "dict"
            items = [[self._key(key, path), self.pack(item, f"{below}{key}")] for key, item in value.items()]
            return {kind: items}
        if isinstance(value, torch.Size):
            return {"size": list(value)}
        if isinstance(value, list | tuple | set):
            kind = "tuple" if isinstance(value, tuple) else "set" if isinstance(value, set) else "list"
            return {kind: [self.pack(item, f"{below}{i}") for i, item in enumerate(value)]}
        if isinstance(value, torch.dtype):
            return {"dtype": str(value).removeprefix("torch.")}
        if isinstance(value, torch.device):
            return {"device": str(value)}
        if isinstance(value, nn.Module):
            return self._module(value, path)
        return self._array(value, path)

    def _key(self, key: Any, path: str) -> Any:
        if isinstance(key, tuple):
            return {"tuple": [self._key(k, path) for k in key]}
        if key is not None and not isinstance(key, _PLAIN):
            raise TypeError(f"save: {path or 'obj'}: keys must be numbers, str, None or tuples of them; got {key!r}")
        return key

    def _array(self, value: Any, path: str) -> Any:
        numpy = sys.modules.get("numpy")
        if numpy is not None and isinstance(value, numpy.generic) and value.dtype.kind in "biufU":
            return value.item()
        if numpy is not None and isinstance(value, numpy.ndarray) and value.dtype.kind in "biufcU":
            data = numpy.ascontiguousarray(value)
            name = self.tensor(torch.frombuffer(bytearray(data.tobytes()) or bytearray(1), dtype=torch.uint8), path)
            return {"array": [name, data.dtype.str, list(data.shape)]}
        raise TypeError(
            f"save: {path or 'obj'} must be a tensor, number, str, None, or a dict, list or tuple of them; "
            f"got {type(value).__name__}"
        )

    # --- whole modules ---------------------------------------------------------------------------------------

    def _module(self, module: nn.Module, path: str) -> Any:
        if id(module) in self._seen:
            return {"again": self._seen[id(module)]}
        kind = type(module)
        if "<locals>" in kind.__qualname__ or _or_none(_found, _place(kind), "class") is not kind:
            raise TypeError(
                f"save: {path or 'obj'} is a {kind.__qualname__}, a class that no module has, so a file cannot name "
                "it; save model.state_dict(), and load it into a new model with load_state_dict"
            )
        self._seen[id(module)] = len(self._seen)
        below = f"{path}." if path else ""
        try:
            items = [
                [name, self._attribute(value, f"{below}{name}")]
                for name, value in vars(module).items()
                if name != "_buffer_names"  # what it is a mapping of stands beside
            ]
        except TypeError as error:
            raise TypeError(f"{error}; save model.state_dict() instead of {kind.__qualname__}") from None
        return {"module": [_place(kind), dict(module._buffer_names), items]}

    def _attribute(self, value: Any, path: str) -> Any:
        if isinstance(value, nn.Parameter):
            if id(value) in self._seen:
                return {"again": self._seen[id(value)]}
            self._seen[id(value)] = len(self._seen)
            return {"parameter": [self.tensor(value, path), value.requires_grad]}
        if callable(value) and not isinstance(value, nn.Module):
            place = [getattr(value, "__module__", ""), getattr(value, "__qualname__", "")]
            if place[0].partition(".")[0] == _OURS and _or_none(_found, place, "function") is value:
                return {"function": place}
        return self.pack(value, path)


def _or_none(function: Callable[..., Any], *args: Any) -> Any:
    try:
        return function(*args)
    except StateError:
        return None


class Unpacker:
    """The inverse of `Packer`: ``whole`` allows modules."""

    def __init__(self, tensors: dict[str, Tensor], whole: bool) -> None:
        self._tensors = tensors
        self._whole = whole
        self._seen: list[Any] = []

    def unpack(self, value: Any) -> Any:
        """What `Packer.pack` was given."""
        if not isinstance(value, dict):
            return value
        ((kind, content),) = value.items()
        if kind not in KINDS:
            raise KeyError(kind)
        return getattr(self, f"_{kind}")(content)

    def _tensor(self, name: str) -> Any:
        return self._tensors[name]

    def _dict(self, items: Any) -> Any:
        return {self.unpack(key): self.unpack(item) for key, item in items}

    def _ordered(self, items: Any) -> Any:
        return OrderedDict(self._dict(items))

    def _list(self, items: Any) -> Any:
        return [self.unpack(item) for item in items]

    def _tuple(self, items: Any) -> Any:
        return tuple(self._list(items))

    def _set(self, items: Any) -> Any:
        return set(self._list(items))

    def _size(self, items: Any) -> Any:
        return torch.Size(items)

    def _dtype(self, name: str) -> Any:
        found = {str(d).removeprefix("torch."): d for d in DTYPE_NAMES}.get(name, getattr(torch, name, None))
        if not isinstance(found, torch.dtype):
            raise ValueError(f"{name!r} is no dtype")
        return found

    def _device(self, name: str) -> Any:
        return torch.device(name)

    def _array(self, content: Any) -> Any:
        import numpy

        name, dtype, shape = content
        kind = numpy.dtype(dtype)
        count = int(numpy.prod(shape, dtype=int))
        return numpy.frombuffer(self._tensors[name].numpy().tobytes(), kind, count).reshape(shape).copy()

    # --- whole modules ---------------------------------------------------------------------------------------

    def _again(self, index: int) -> Any:
        return self._seen[index]

    def _parameter(self, content: Any) -> Any:
        name, requires_grad = content
        made = nn.Parameter(self._tensors[name].data, requires_grad)
        self._seen.append(made)
        return made

    def _function(self, place: Any) -> Any:
        if not isinstance(place[0], str) or place[0].partition(".")[0] != _OURS:
            raise ValueError(f"{place!r} is no function of tapegrad's")
        return _found(place, "function")

    def _module(self, content: Any) -> Any:
        place, buffers, items = content
        if not self._whole:
            raise StateError(
                f"load: the file holds a whole model ({'.'.join(place)}); leave weights_only=True out to have it "
                "made anew"
            )
        kind = _found(place, "class")
        if not (isinstance(kind, type) and issubclass(kind, nn.Module)):
            raise ValueError(f"{'.'.join(place)} is no module")
        module = kind.__new__(kind)
        self._seen.append(module)
        attributes = {name: self.unpack(item) for name, item in items}
        vars(module).update(attributes)
        if buffers:
            vars(module)["_buffer_names"] = dict(buffers)
        return module
