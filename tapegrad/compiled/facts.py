"""The Python state that a step read: what a replay relies on, and what a step must not change.

The recorder collects the code objects of the user's functions that ran. From the step's function the walk goes through
closure cells, defaults, bound ``self`` and the globals that those functions name, and on through dicts, lists, tuples,
sets, modules and attributes (of the user's objects those that some function names). Every reference on the way is a
*fact*: (container, kind, key) holds this value. Numbers and strings are compared by value, everything else by identity.

Facts that differ before and after one recorded call are side effects; those that hold become the guards of the program.
Objects that hold memory of their own (NumPy arrays, ``bytearray``, ``memoryview``, ``array.array``, ctypes) are facts
by place, sizes and format, and by content, because Python may have read their elements. Where the step wraps the memory
in a tensor, a replay reads it anew; a recorded call after the first change shows whether that is all.

What the walk cannot see is the state of C objects (files, iterators) and properties.
"""

from __future__ import annotations

import enum
import functools
import sys
from collections import deque
from collections.abc import Callable, Iterable
from types import BuiltinMethodType, CellType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any, NamedTuple

import torch

from ..core import _C, CompileError, Entry, Leaf, Tensor
from ..nn import Module
from ..ops import Generator
from .watch import STDLIB

LIMIT = 20_000  # facts; a step that reads more state than this is refused
SMALL = 16_384  # bytes of an array that is read anew, compared until it has changed once

_SCALARS = (bool, int, float, complex, str, bytes)
_BY_VALUE = (*_SCALARS, tuple, frozenset, enum.Enum, torch.dtype, range, slice)
_OPAQUE = (torch.dtype, torch.device, CodeType, Leaf, Entry)
_LIBRARIES = {"torch", "numpy", "tapegrad"}

_HEAP_TYPE = 1 << 9  # Py_TPFLAGS_HEAPTYPE: made while Python runs
_OF_MODULES = ("_hooks",)  # what `nn.Module` reads of an object of a user's class

_missing = object()


@functools.cache
def is_library(module: str) -> bool:
    """Whether a module is this package's, torch's or the standard library's, and not a user's of such a name."""
    top = module.partition(".")[0]
    if top not in sys.stdlib_module_names or top == "__main__":
        return top in _LIBRARIES
    file = getattr(sys.modules.get(top), "__file__", None)
    return file is None or file.startswith(STDLIB)


def of_library(kind: type) -> bool:
    """Whether a class is a library's; one made by ``exec`` without a module's name says it were Python's own."""
    made = kind.__module__ == "builtins" and kind.__flags__ & _HEAP_TYPE
    return not made and is_library(kind.__module__)


class Fact(NamedTuple):
    """``kind`` says how ``key`` is looked up in ``container``; "keys", "copy" and "buffer" are the container's own.

    A "buffer" is the container's memory: its place where ``key`` is True, what it holds where ``key`` is False. A
    "layout" is where a torch tensor lies, its shape and its strides. A "gradient" is that of a leaf: a Tensor around
    ``value[key]``.
    """

    container: Any
    kind: str
    key: Any
    value: Any
    path: str

    @property
    def is_content(self) -> bool:
        """Whether it is what a buffer holds."""
        return self.kind == "buffer" and not self.key

    @property
    def place(self) -> tuple[int, str, Any]:
        """What identifies the reference."""
        return (id(self.container), self.kind, self.key)

    def now(self) -> Any:
        """The present value; ``_missing`` if there is none."""
        return look_up(self.kind, self.container, self.key)


def look_up(kind: str, container: Any, key: Any) -> Any:
    """What such a fact says of this container now; ``_missing`` if there is nothing."""
    try:
        if kind == "item":
            return container[key]
        if kind == "attribute":
            return getattr(container, key)
        if kind == "keys":
            return tuple(container)
        if kind == "copy":
            return _frozen(container)
        if kind == "layout":
            return layout(container)
        if kind == "buffer":
            return _C.buffer_state(container, key)
        return container.cell_contents if kind == "cell" else len(container)
    except (KeyError, IndexError, AttributeError, ValueError, BufferError):
        return _missing


def _frozen(value: Any) -> Any:
    """The content by value; types too, because 1 == True."""
    if isinstance(value, set):
        return frozenset([(type(v), v) for v in value])
    return value.shape, value.strides, str(value.dtype), value.tobytes()  # an array of dates has no buffer


def layout(t: torch.Tensor) -> tuple[Any, ...]:
    """Where a tensor lies and how."""
    storage = t.untyped_storage()
    return storage.data_ptr(), storage.nbytes(), t.storage_offset(), tuple(t.shape), t.stride()


def has_buffer(value: Any) -> bool:
    """Whether a value holds memory that others may share."""
    try:
        memoryview(value).release()
    except (TypeError, ValueError, BufferError):
        return False
    return True


def same(a: Any, b: Any) -> bool:
    """Whether two values of one place count as unchanged."""
    if a is b:
        return True
    if type(a) is not type(b) or not isinstance(a, _BY_VALUE):
        return False
    if type(a) is tuple:
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, float):
        return bool(a.hex() == b.hex())  # 0.0 is not -0.0, NaN is NaN
    return bool(a == b)


class _Walk:
    def __init__(self, codes: Iterable[CodeType], dynamic: set[tuple[int, str]]) -> None:
        self.codes = set(codes)
        self.names = {name for code in self.codes for name in code.co_names}
        self.everything = bool(self.names & {"getattr", "setattr", "vars", "__dict__", "dir"})
        self.dynamic = dynamic  # (dict, key) that a replay reads anew
        self.facts: list[Fact] = []
        self.seen: set[int] = set()
        self.kinds: set[type] = set()  # whose methods are known
        self.todo: list[tuple[Any, str]] = []

    def note(self, container: Any, kind: str, key: Any, value: Any, path: str) -> None:
        if len(self.facts) >= LIMIT:
            raise CompileError(f"compile: the step reads more than {LIMIT} values, at {path}; pass data as arguments")
        self.facts.append(Fact(container, kind, key, value, path))
        if not isinstance(value, _SCALARS) and value is not None and kind not in ("keys", "copy", "layout", "buffer"):
            self.todo.append((value, path))

    def run(self, roots: Iterable[tuple[Any, str]]) -> list[Fact]:
        self.todo = list(roots)
        while self.todo:
            value, path = self.todo.pop()
            if id(value) not in self.seen and not isinstance(value, _OPAQUE):
                self.seen.add(id(value))
                self.visit(value, path)
        return self.facts

    def visit(self, value: Any, path: str) -> None:
        if isinstance(value, FunctionType):
            self.function(value, path)
        elif isinstance(value, MethodType):
            self.todo += [(value.__self__, path), (value.__func__, path)]
        elif isinstance(value, BuiltinMethodType):  # log.append
            self.todo.append((value.__self__, path))
        elif isinstance(value, functools.partial):
            self.todo += [(value.func, path), (value.args, path + ".args"), (value.keywords, path + ".keywords")]
        elif isinstance(value, Tensor):
            self.note(value, "attribute", "_data", value._data, path)
            self.note(value, "attribute", "_node", value._node, f"{path}.requires_grad")
            if isinstance(value._node, Leaf):
                self.note(value._node, "attribute", "hooks", value._node.hooks, f"{path}'s hooks")
        elif isinstance(value, torch.Tensor):
            if value.layout is torch.strided:
                self.note(value, "layout", None, layout(value), f"the memory, shape or strides of {path}")
        elif isinstance(value, dict):
            self.note(value, "keys", None, tuple(value), f"the keys of {path}")
            for key, item in list(value.items()):
                if (id(value), key) not in self.dynamic:
                    self.note(value, "item", key, item, f"{path}[{key!r}]" if isinstance(key, str) else f"{path}[...]")
        elif isinstance(value, list | tuple | deque):
            self.note(value, "length", None, len(value), f"len({path})")
            for i, item in enumerate(value):
                self.note(value, "item", i, item, f"{path}[{i}]")
        elif isinstance(value, set):
            self.note(value, "copy", None, _frozen(value), path)
        elif has_buffer(value):
            self.note(value, "buffer", True, _C.buffer_state(value, True), path)
            self.note(value, "buffer", False, _C.buffer_state(value, False), f"the content of {path}")
            if getattr(getattr(value, "dtype", None), "hasobject", False):
                self.todo.append((value.ravel().tolist(), path))
        elif hasattr(type(value), "__array_interface__"):
            self.note(value, "copy", None, _frozen(value), f"the content of {path}")
        elif isinstance(value, Generator):
            self.note(value, "attribute", "__class__", type(value), path)  # its state is read at every step
        elif isinstance(value, CellType):
            self.cell(value, path)
        elif isinstance(value, type):
            self.classes(value, path)
        elif isinstance(value, ModuleType):
            if is_library(value.__name__):
                self.replaceable(value, path)
            else:
                self.attributes(value, path, self.names)
        elif isinstance(value, functools._lru_cache_wrapper):
            self.todo.append((value.__wrapped__, path))
        else:
            self.object(value, path)

    def function(self, f: FunctionType, path: str) -> None:
        if f.__code__ not in self.codes:
            wrapped = getattr(f, "__wrapped__", None)  # a decorator of the package's around the user's function
            cells = f.__closure__ or ()
            self.todo += [(wrapped, path)] if wrapped is not None else [(c, path) for c in cells]
            return
        if vars(f):
            self.attributes(f, path, self.names)
        self.note(f, "attribute", "__code__", f.__code__, f"{path}.__code__")
        self.note(f, "attribute", "__defaults__", f.__defaults__, f"{path}.__defaults__")
        for name, cell in zip(f.__code__.co_freevars, f.__closure__ or (), strict=True):
            self.cell(cell, name)
        for i, default in enumerate(f.__defaults__ or ()):
            self.todo.append((default, f"{f.__name__}'s default {i}"))
        self.todo += [(v, f"{f.__name__}'s default {k}") for k, v in (f.__kwdefaults__ or {}).items()]
        self.globals(f.__code__, f.__globals__)

    def globals(self, code: CodeType, scope: dict[str, Any]) -> None:
        """The globals that a function names, and those that functions written inside it name."""
        for name in code.co_names:
            if name in scope:
                self.note(scope, "item", name, scope[name], name)
            elif name in sys.modules:  # imported inside the function
                self.todo.append((sys.modules[name], name))
        for constant in code.co_consts:
            if isinstance(constant, CodeType):
                self.globals(constant, scope)

    def cell(self, cell: CellType, path: str) -> None:
        try:
            self.note(cell, "cell", None, cell.cell_contents, path)
        except ValueError:  # a variable that has no value yet
            return

    def attributes(self, value: Any, path: str, names: Iterable[str]) -> None:
        own = vars(value)
        if not isinstance(value, ModuleType):  # so that a new attribute is seen
            self.note(own, "length", None, len(own), f"the attributes of {path}")
        for name in names:
            if name in own and (id(own), name) not in self.dynamic:
                self.note(own, "item", name, own[name], f"{path}.{name}")

    def object(self, value: Any, path: str) -> None:
        """An instance: all attributes of our own classes, those that are named of the user's."""
        own = getattr(value, "__dict__", None)
        if hasattr(type(value), "walked"):  # a compiled step: what it calls, not its cache; and what is named
            self.attributes(value, path, {*type(value).walked, *self.names})
            for name in set(type(value).walked) - set(own or ()):  # a slot, or the class's
                self.note(value, "attribute", name, getattr(value, name), f"{path}.{name}")
        elif isinstance(own, dict):
            library = of_library(type(value))
            self.attributes(value, path, list(own) if library or self.everything else {*self.names, *_OF_MODULES})
        for name in self.names & {slot for kind in type(value).__mro__ for slot in getattr(kind, "__slots__", ())}:
            if hasattr(value, name):
                self.note(value, "attribute", name, getattr(value, name), f"{path}.{name}")
        if not of_library(type(value)) or isinstance(value, Module):
            self.note(value, "attribute", "__class__", type(value), f"{path}.__class__")
        if isinstance(own, dict) and (of_library(type(value)) or isinstance(value, Module)):
            self.methods(type(value))

    def replaceable(self, module: ModuleType, path: str) -> None:
        """A library's functions, classes and modules that are named: a test may put others in their places."""
        own = vars(module)
        for name in self.names & own.keys():
            value = own[name]
            if isinstance(value, FunctionType | BuiltinMethodType | type | ModuleType):
                self.facts.append(Fact(own, "item", name, value, f"{path}.{name}"))
                if isinstance(value, ModuleType):
                    self.todo.append((value, f"{path}.{name}"))

    def methods(self, kind: type) -> None:
        """A library's methods that are named or called by the library, likewise."""
        if kind in self.kinds:
            return
        self.kinds.add(kind)
        for name in {*self.names, "forward", "__call__"}:
            method = getattr(kind, name, None)
            if isinstance(method, FunctionType):
                self.facts.append(Fact(kind, "attribute", name, method, f"{kind.__name__}.{name}"))

    def classes(self, kind: type, path: str) -> None:
        """What the user's classes define, as an instance would find it: a subclass may come to shadow a base."""
        if of_library(kind):
            return
        found: dict[str, Any] = {}
        for base in reversed(kind.__mro__):
            if not of_library(base):
                found.update(vars(base))
        for name, attribute in found.items():
            if isinstance(attribute, FunctionType) and attribute.__code__ not in self.codes:
                continue
            if isinstance(attribute, staticmethod | classmethod):
                self.todo.append((attribute.__func__, f"{path}.{name}"))
            elif isinstance(attribute, property):
                self.todo.append((attribute.fget, f"{path}.{name}"))
            elif (name in self.names or isinstance(attribute, FunctionType)) and not name.startswith("__"):
                self.note(kind, "attribute", name, getattr(kind, name), f"{path}.{name}")
            elif isinstance(attribute, FunctionType):
                self.todo.append((attribute, f"{path}.{name}"))


def collect(
    fn: Callable[..., Any], codes: set[CodeType], dynamic: Iterable[tuple[dict[str, Any], str]] = ()
) -> list[Fact]:
    """The facts that the step ``fn`` depends on, given which of the user's functions ran."""
    return _Walk(codes, {(id(group), key) for group, key in dynamic}).run([(fn, getattr(fn, "__name__", "step"))])


def lies_in(buffer: Any, extents: Iterable[tuple[int, int]]) -> bool:
    """Whether some of these addresses [begin, end) are a buffer's memory."""
    begin, end = _C.buffer_extent(buffer)
    return any(begin < last and first < end for first, last in extents)


def is_small(content: Fact) -> bool:
    """Whether a content costs next to nothing to compare at every call."""
    return memoryview(content.container).nbytes <= SMALL


def check_size(contents: Iterable[Fact]) -> None:
    """CompileError if more bytes than can be compared at every call are relied on."""
    total = 0
    for fact in contents:
        total += memoryview(fact.container).nbytes
        if total > _C.watched_bytes:
            raise CompileError(
                f"compile: the step reads {fact.path}, {memoryview(fact.container).nbytes} bytes, which is too much to "
                "be compared at every call; pass it as an argument, or let tg.from_numpy wrap it in the step"
            )


def changed(facts: list[Fact]) -> Fact | None:
    """The first fact that no longer holds."""
    return next((fact for fact in facts if not same(fact.now(), fact.value)), None)
