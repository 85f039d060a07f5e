"""Writing C: lines, loop nests, and which helper functions they call."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from .library import Library
from .memory import Memory
from .values import TYPES, Value, collapsed, literal, view_of

_INDICES = "ijklmnpq"


class Writer:
    """The body of a function. ``fail`` is what it does on a value that no program can work with."""

    def __init__(self, library: Library, memory: Memory, fail: Sequence[str]) -> None:
        self.library = library
        self.memory = memory
        self.fail = list(fail)
        self.lines: list[str] = []
        self.depth = 1
        self._loops = 0
        self._tables: dict[tuple[int, ...], str] = {}
        self.tables: list[str] = []  # constant arrays of indices

    def __call__(self, *lines: str) -> None:
        self.lines += ["  " * self.depth + line for line in lines]

    @contextlib.contextmanager
    def block(self, head: str = "") -> Iterator[None]:
        """``head { ... }``."""
        self(f"{head} {{" if head else "{")
        self.depth += 1
        yield
        self.depth -= 1
        self("}")

    def index(self) -> str:
        """A name for the next loop's index; the caller opens one loop with it."""
        return _INDICES[self._loops] if self._loops < len(_INDICES) else f"i{self._loops}"

    @contextlib.contextmanager
    def loop(self, last: int | str, first: int | str = 0, name: str = "") -> Iterator[str]:
        """One loop; yields its index. None where there is one turn."""
        if not name and last == 1 and first == 0:
            yield "0"
            return
        index = name or self.index()
        self._loops += 1
        with self.block(f"for (int {index} = {first}; {index} < {last}; ++{index})"):
            yield index
        self._loops -= 1

    @contextlib.contextmanager
    def loops(self, sizes: Sequence[int], *values: Value) -> Iterator[Any]:
        """Loops over the leading dimensions, of ``sizes``; yields the values with these bound."""
        extents, seen = collapsed(sizes, values)
        with contextlib.ExitStack() as stack:
            indices = [stack.enter_context(self.loop(n)) for n in extents]
            yield [value.bind(indices) for value in seen]

    @contextlib.contextmanager
    def over(self, sizes: Sequence[int], *values: Value) -> Iterator[Any]:
        """Loops over all elements of values broadcast to ``sizes``."""
        with self.loops(tuple(sizes), *[value.expand(sizes) for value in values]) as seen:
            yield seen

    def call(self, function: str, dtype: torch.dtype, *arguments: str) -> str:
        """A call of a helper function in C, which is then part of the file."""
        return f"{self.library.name(function, dtype)}({', '.join(arguments)})"

    def scratch(self, dtype: torch.dtype, **sizes: int) -> list[Value]:
        """Vectors of these names and sizes for the length of an instruction, in the arena."""
        memory, at, made = self.memory.scratch(dtype, sum(sizes.values())), 0, []
        for name, n in sizes.items():
            if n:
                self(f"{TYPES[dtype]} *const {name} = {memory} + {at};")
            made.append(view_of(name, dtype, 0, (n,), (1,)))
            at += n
        return made

    def label(self, value: Value) -> str:
        """What people call the array of a value."""
        return value.array.rpartition("->")[2]

    def accumulator(self, name: str, dtype: torch.dtype, start: float = 0) -> None:
        self(f"{TYPES[dtype]} {name} = {literal(start, dtype)};")

    def table(self, values: Sequence[int]) -> str:
        """A constant array of indices, shared by all that need the same one."""
        key = tuple(values)
        if key not in self._tables:
            self._tables[key] = f"table_{len(self._tables)}"
            self.tables.append(f"static const int {self._tables[key]}[{len(key)}] = {{{', '.join(map(str, key))}}};")
        return self._tables[key]

    def numbers(self, values: Sequence[float], dtype: torch.dtype) -> str:
        """A constant array of numbers of a type."""
        name = f"numbers_{len(self.tables)}"
        texts = ", ".join(literal(v, dtype) for v in values)
        self.tables.append(f"static const {TYPES[dtype]} {name}[{len(values)}] = {{{texts}}};")
        return name

    def check(self, condition: str) -> None:
        """Fails unless the condition holds."""
        with self.block(f"if (!({condition}))"):
            self(*self.fail)
