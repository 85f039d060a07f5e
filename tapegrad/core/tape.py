"""The tape: a flat list of entries in execution order, and the one reversed loop that differentiates it.

Recording an op makes one `Entry`. An entry owns the nodes it read (its parents) and the raw values its rule needs,
never the `Tensor` it produced, so there is no reference cycle: when the last `Tensor` that depends on an entry goes,
the entry and its saved values go with it, at once, by reference counting.

Entries carry a process-wide sequence number. Execution order is a topological order, so backward is: collect the
entries the loss depends on, lay them out as the flat list by that number, walk it once from the end. There is no
recursion, no global list, and nothing that two threads share but the counter.

A *node* is what a value is on the tape: `Leaf` (a value the user created), `Entry` (the output of an op), or
``(Entry, i)`` (output i of an op with several outputs); ``None`` stands for a constant.
"""

from __future__ import annotations

import gc
import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from types import CodeType, TracebackType
from typing import Any, Protocol, TypeAlias

import torch

from .errors import TapeError
from .extension import _C
from .mode import mode
from .notes import Notes

Node: TypeAlias = "Leaf | Entry | tuple[Entry, int]"
Hook: TypeAlias = Callable[[Any], Any]  # takes and returns a gradient, raw or recorded

PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
DTYPE_NAMES = {
    torch.float32: "f32",
    torch.float64: "f64",
    torch.bool: "bool",
    torch.uint8: "u8",
    torch.int8: "i8",
    torch.int16: "i16",
    torch.int32: "i32",
    torch.int64: "i64",
}

next_slot = itertools.count().__next__  # process-wide; the one thing threads share


# --- nodes -------------------------------------------------------------------------------------------------------


class Operation(Protocol):
    """What the list knows of an op, whose record (`Op`) is made above it."""

    name: str
    arguments: list[str]
    arrays: list[str]
    environment: list[str]
    fresh: bool
    runs_users_code: bool

    def pull(self, entry: Entry, parents: tuple[Node | None, ...], g: Any, recorded: bool) -> Sequence[Any]:
        """The gradients of an entry's inputs, given that of its output."""


class Value(Protocol):
    """What the list knows of a `Tensor`."""

    @property
    def _node(self) -> Node | None: ...

    def backward(self, gradient: Any = None, retain_graph: bool | None = None) -> None:
        """Differentiate it."""


class Leaf:
    """The tape's side of a value the user created with ``requires_grad=True``: where its gradient collects."""

    __slots__ = ("dtype", "grad", "hooks", "seq", "shape")

    def __init__(self, shape: torch.Size, dtype: torch.dtype, grad: Any = None) -> None:
        self.shape = shape
        self.dtype = dtype
        self.grad = grad  # a Tensor or None
        self.hooks: dict[int, tuple[int, Hook]] | None = None
        self.seq = next_slot()


class Entry(_C.EntryBase):
    """One line of the tape: ``output = op(inputs, **params)``.

    Attributes
    ----------
    op : the `Op` record (name, forward function, gradient rules)
    parents : one node per array argument; None where the argument needs no gradient
    shape, dtype : of the output (tuples for an op with several outputs)
    seq : process-wide sequence number, which is also the output's slot
    """

    __slots__ = ()  # csrc/bindings/entry.h holds them, and keeps entries out of the garbage collector's sight

    op: Operation
    parents: tuple[Node | None, ...]
    env: list[Any]  # argument values, output, residuals; None where the rule does not need them
    versions: list[tuple[int, Any]] | None  # (position in env, torch version when saved); None once released
    shape: Any
    dtype: Any
    seq: int
    hooks: dict[int, tuple[int, Hook]] | None
    _where: tuple[CodeType, int]
    _args: tuple[Any, ...] | None

    @property
    def inputs(self) -> tuple[Any, ...]:
        """Slot of each array argument; None for a constant."""
        return tuple(None if node is None else slot(node) for node in self.parents)

    @property
    def output(self) -> Any:
        """Slot of the output; a tuple of slots for an op with several outputs."""
        if isinstance(self.shape, tuple) and not isinstance(self.shape, torch.Size):
            return tuple((self.seq, i) for i in range(len(self.shape)))
        return self.seq

    @property
    def params(self) -> dict[str, Any]:
        """The arguments that are not arrays, and numbers given in the place of arrays, by name."""
        named = zip(self.op.arguments, self.env, strict=False)
        return {n: v for n, v in named if n not in self.op.arrays or isinstance(v, bool | int | float)}

    @property
    def saved(self) -> dict[str, torch.Tensor]:
        """The raw values still held for backward, by name."""
        named = zip(self.op.environment, self.env, strict=False)
        return {name: value for name, value in named if isinstance(value, torch.Tensor)}

    @property
    def outputs(self) -> list[tuple[torch.Size, torch.dtype]]:
        """(shape, dtype) of every output."""
        if type(self.shape) is tuple:
            return list(zip(self.shape, self.dtype, strict=True))
        return [(self.shape, self.dtype)]

    @property
    def nbytes(self) -> int:
        """Size of the output in bytes."""
        return sum(shape.numel() * dtype.itemsize for shape, dtype in self.outputs)

    @property
    def source(self) -> str:
        """``file.py:line`` of the user's code that recorded the entry."""
        file, line = self.place
        return f"{os.path.basename(file)}:{line}"

    @property
    def place(self) -> tuple[str, int]:
        """The file of that code, as Python names it, and the line."""
        code, instruction = self._where
        line = next((line for start, end, line in code.co_lines() if start <= instruction < end), None)
        return code.co_filename, line or code.co_firstlineno

    def release(self) -> None:
        """Drop the saved values; what is needed to print the entry stays."""
        _C.release(self)

    def __repr__(self) -> str:
        return f"%{self.seq} = {self.op.name}({', '.join(map(str, self.inputs))})  {self.source}"


gc.callbacks.append(_C.collecting)


def entry_of(node: Node) -> Leaf | Entry:
    """The entry (or leaf) that stands behind a node."""
    return node[0] if type(node) is tuple else node  # type: ignore[return-value]


def slot(node: Node) -> Any:
    """A node's slot number; ``(number, i)`` for output i of several."""
    return (node[0].seq, node[1]) if isinstance(node, tuple) else node.seq


def shape_of(node: Node) -> torch.Size:
    """The shape of the value at a node."""
    shape: torch.Size = node[0].shape[node[1]] if isinstance(node, tuple) else node.shape
    return shape


def dtype_of(node: Node) -> torch.dtype:
    """The dtype of the value at a node."""
    dtype: torch.dtype = node[0].dtype[node[1]] if isinstance(node, tuple) else node.dtype
    return dtype


class _Inside(dict[str, bool]):
    """Whether a source file belongs to the package, worked out once per file."""

    def __missing__(self, filename: str) -> bool:
        self[filename] = answer = filename.startswith(PACKAGE)
        return answer


inside = _Inside()


_MANY = 12  # items of a list, from where on it is shown in part


def describe(value: Any) -> str:
    """``f32[25, 2]`` for a tensor, the first few of many numbers; ``repr`` for anything else."""
    if isinstance(value, torch.Tensor):
        return f"{DTYPE_NAMES.get(value.dtype, str(value.dtype))}{list(value.shape)}"
    if isinstance(value, list | tuple) and any(isinstance(item, torch.Tensor) for item in value):
        return "[" + ", ".join(describe(item) for item in value) + "]"
    if isinstance(value, list | tuple) and len(value) > _MANY:
        return "[" + ", ".join(map(repr, value[:3])) + f", ... {len(value)} in all]"
    return getattr(value, "__qualname__", None) or repr(value)


# --- a tape one can hold -----------------------------------------------------------------------------------------


class Tape:
    """The list of what this thread records inside the ``with`` block: to read, print, check and draw.

    >>> import tapegrad as tg
    >>> x = tg.tensor([1.0, 2.0], requires_grad=True)
    >>> with tg.Tape() as tape:
    ...     loss = (x * x).sum()
    >>> [entry.op.name for entry in tape]
    ['mul', 'sum']

    Backward needs no tape; a held tape keeps its entries (op, shapes, source lines) readable after it.
    """

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.notes = Notes()

    def __enter__(self) -> Tape:
        self.notes.restart()
        self._before = mode.watched
        mode.tapes = (*mode.tapes, self)
        mode.watched = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        mode.tapes = tuple(tape for tape in mode.tapes if tape is not self)
        mode.watched = self._before

    def add(self, entry: Entry, outputs: Sequence[torch.Tensor]) -> None:
        """One more entry, just recorded, with its values."""
        self.entries.append(entry)
        self.notes.add(entry, outputs)

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, i: int) -> Entry:
        return self.entries[i]

    def __iter__(self) -> Iterator[Entry]:
        return iter(self.entries)

    def backward(self, loss: Value, gradient: Any = None, retain_graph: bool = False) -> None:
        """``loss.backward()``, for a loss that was recorded on this tape."""
        node = loss._node
        if node is None or entry_of(node) not in set(self.entries):
            raise TapeError("Tape.backward: loss was not recorded on this tape")
        loss.backward(gradient, retain_graph=retain_graph)

    def _numbers(self) -> dict[Any, int]:
        """Slots renumbered 0, 1, ... in order of first appearance."""
        numbers: dict[Any, int] = {}
        for entry in self.entries:
            outputs = entry.output if isinstance(entry.output, tuple) else (entry.output,)
            for name in (*entry.inputs, *outputs):
                if name is not None:
                    numbers.setdefault(name, len(numbers))
        return numbers

    def _rows(self) -> Iterator[tuple[str, str, str, str]]:
        """(assignment, type, size, source) of every line, values from outside the block first."""
        numbers = self._numbers()
        known: set[Any] = set()
        for entry in self.entries:
            for node in entry.parents:
                if node is not None and slot(node) not in known:
                    known.add(slot(node))
                    what = "leaf" if isinstance(node, Leaf) else "value"
                    yield (f"%{numbers[slot(node)]} = {what}", _type(shape_of(node), dtype_of(node)), "", "")
            outputs = entry.output if isinstance(entry.output, tuple) else (entry.output,)
            known.update(outputs)
            left = ", ".join(f"%{numbers[name]}" for name in outputs)
            kind = ", ".join(dict.fromkeys(_type(shape, dtype) for shape, dtype in entry.outputs))
            yield (
                f"{left} = {entry.op.name}({_arguments(entry, numbers)})",
                kind,
                bytes_text(entry.nbytes),
                entry.source,
            )

    def __str__(self) -> str:
        rows = list(self._rows())
        widths = [max((len(row[i]) for row in rows), default=0) for i in range(3)]
        lines = ["  ".join([*(row[i].ljust(widths[i]) for i in range(3)), row[3]]).rstrip() for row in rows]
        return "\n".join(lines) if lines else "(empty tape)"

    __repr__ = __str__

    def _repr_html_(self) -> str:
        """The list, for a notebook."""
        from ..show import cell_of_tape

        return cell_of_tape(self)

    def validate(self) -> None:
        """Check the list: single assignment, every value made before it is read, shapes and dtypes as recorded.

        Raises
        ------
        TapeError
            naming the first line that breaks a rule.
        """
        made: dict[Entry, int] = {}
        inside = set(self.entries)
        for i, entry in enumerate(self.entries):
            if entry in made:
                raise TapeError(f"tape line {i}: {entry!r} assigns %{entry.seq} a second time")
            for parent in entry.parents:
                owner = None if parent is None else entry_of(parent)
                if owner is None:
                    continue
                if owner.seq >= entry.seq or (owner in inside and owner not in made):
                    raise TapeError(f"tape line {i}: {entry!r} reads %{owner.seq} before it is made")
            out = entry.saved.get("out")
            if out is not None and (out.shape != entry.shape or out.dtype != entry.dtype):
                raise TapeError(f"tape line {i}: {entry!r} saved {describe(out)} for its output")
            made[entry] = i

    def to_json(self) -> str:
        """The list as JSON: op, input and output slots, parameters, shape, dtype, bytes, source."""
        import json

        numbers = self._numbers()

        def number(name: Any) -> Any:
            return None if name is None else numbers[name]

        lines = [
            {
                "op": entry.op.name,
                "inputs": [number(name) for name in entry.inputs],
                "output": [number(n) for n in entry.output] if type(entry.output) is tuple else number(entry.output),
                "params": {name: _plain(value) for name, value in entry.params.items()},
                "shape": [list(s) for s in entry.shape] if type(entry.shape) is tuple else list(entry.shape),
                "dtype": str(entry.outputs[0][1]).removeprefix("torch."),
                "nbytes": entry.nbytes,
                "source": entry.source,
            }
            for entry in self.entries
        ]
        return json.dumps(lines, indent=1)

    def show(self, path: str | os.PathLike[str] | None = None) -> str:
        """Write the tape as one HTML page, for any browser, and open it if there is a screen.

        The list with source lines, sizes, times, statistics of values and (after backward) gradients; filters by
        module, op and file; the graph, folded by module; the memory over time.

        Parameters
        ----------
        path : the file; None is a temporary one

        Returns the path of the file.
        """
        from ..show import page_of_tape, publish

        return publish(page_of_tape(self), path)

    def to_dot(self) -> str:
        """The list as a Graphviz graph: boxes are entries, ellipses the values from outside."""
        numbers = self._numbers()
        inside = set(self.entries)
        lines = ["digraph tape {", "  rankdir=TB; node [fontname=monospace];"]
        drawn: set[Any] = set()
        for entry in self.entries:
            kind = ", ".join(dict.fromkeys(_type(shape, dtype) for shape, dtype in entry.outputs))
            lines.append(f'  e{entry.seq} [shape=box, label="{entry.op.name}\\n{kind}\\n{entry.source}"];')
            for node in entry.parents:
                if node is None:
                    continue
                owner = entry_of(node)
                if owner not in inside and owner.seq not in drawn:
                    drawn.add(owner.seq)
                    lines.append(f'  e{owner.seq} [shape=ellipse, label="{_type(shape_of(node), dtype_of(node))}"];')
                lines.append(f'  e{owner.seq} -> e{entry.seq} [label="%{numbers[slot(node)]}"];')
        return "\n".join([*lines, "}"])


def _type(shape: torch.Size, dtype: torch.dtype) -> str:
    return f"{DTYPE_NAMES[dtype]}{list(shape)}"


def bytes_text(n: int) -> str:
    """A size for reading: 2500 -> 2.5 kB."""
    size = float(n)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    raise AssertionError("unreachable")


def _plain(value: Any) -> Any:
    """A parameter as JSON knows it."""
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _arguments(entry: Entry, numbers: dict[Any, int]) -> str:
    """The argument list of a printed line; parameters are shown where they differ from their defaults."""
    given = entry._args or ()
    return ", ".join(f"%{numbers[slot(node)]}" if node is not None else text for node, text in given)
