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

import functools
import inspect
import itertools
import operator
import os
import sys
import threading
from collections.abc import Callable, Container, Iterable, Iterator
from types import CodeType, FrameType, TracebackType
from typing import TYPE_CHECKING, Any, TypeAlias

import torch

from .errors import NonFiniteError, TapeError

if TYPE_CHECKING:
    from .op import Op
    from .tensor import Tensor

Node: TypeAlias = "Leaf | Entry | tuple[Entry, int]"
Hook: TypeAlias = Callable[["Tensor"], Any]

PACKAGE = os.path.dirname(os.path.abspath(__file__)) + os.sep
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


# --- what this thread records ------------------------------------------------------------------------------------


class _Mode(threading.local):
    """Per-thread switches; the class attributes are each new thread's defaults."""

    record = True  # grad mode
    watched = False  # a Tape is open or anomalies are looked for: the slow path of recording
    anomaly = False
    tapes: tuple[Tape, ...] = ()


mode = _Mode()


class set_grad_enabled:
    """Switch recording on or off for this thread, at once; as a context manager or decorator, for its extent."""

    def __init__(self, enabled: bool) -> None:
        self._enabled = bool(enabled)
        self._before = mode.record
        mode.record = self._enabled

    def __enter__(self) -> None:
        mode.record = self._enabled

    def __exit__(self, *exc: object) -> None:
        mode.record = self._before

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        mode.record = self._before  # decorating is not entering
        return _during(lambda: set_grad_enabled(self._enabled), function)


def _during(context: Callable[[], Any], function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` run inside a fresh `context()` on every call; a generator function, on every step."""
    if inspect.isgeneratorfunction(function):

        @functools.wraps(function)
        def steps(*args: Any, **kwargs: Any) -> Any:
            generator, sent = function(*args, **kwargs), None
            try:
                while True:
                    with context():
                        item = generator.send(sent)
                    sent = yield item
            except StopIteration as stop:
                return stop.value
            finally:
                generator.close()

        return steps

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        with context():
            return function(*args, **kwargs)

    return run


class _GradMode:
    """Context manager and decorator (with or without parentheses) that fixes grad mode for its extent."""

    enabled: bool

    def __new__(cls, function: Callable[..., Any] | None = None) -> Any:
        return super().__new__(cls) if function is None else _during(cls, function)

    def __init__(self) -> None:
        self._before: list[bool] = []

    def __enter__(self) -> None:
        self._before.append(mode.record)
        mode.record = self.enabled

    def __exit__(self, *exc: object) -> None:
        mode.record = self._before.pop()

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        return _during(type(self), function)


class no_grad(_GradMode):
    """Record nothing inside: results need no gradient, leaves may be updated in place."""

    enabled = False


class enable_grad(_GradMode):
    """Record inside, also within `no_grad`."""

    enabled = True


def is_grad_enabled() -> bool:
    """Whether this thread records."""
    return mode.record


class detect_anomaly:
    """Inside, the first entry (forward or backward) that makes a NaN or an infinity raises `NonFiniteError`.

    The error names the op, the line that recorded it, the shape and the first bad index. Every recorded value is
    read once more, so this is for finding a fault, not for training.
    """

    def __enter__(self) -> None:
        self._before = mode.anomaly, mode.watched
        mode.anomaly = mode.watched = True

    def __exit__(self, *exc: object) -> None:
        mode.anomaly, mode.watched = self._before


def check_finite(value: torch.Tensor, what: str, entry: Entry) -> None:
    """Raise `NonFiniteError` if `value` holds a NaN or an infinity; `what` says which value of the entry it is."""
    if not value.is_floating_point() or bool(torch.isfinite(value).all()):
        return
    index = torch.nonzero(~torch.isfinite(value))[0].tolist()
    bad = value[tuple(index)].item()
    raise NonFiniteError(
        f"{entry.op.name}: {what} {describe(value)} is {bad} at index {index}; recorded at {entry.source}"
    )


# --- nodes -------------------------------------------------------------------------------------------------------


class Leaf:
    """The tape's side of a value the user created with ``requires_grad=True``: where its gradient collects."""

    __slots__ = ("dtype", "grad", "hooks", "seq", "shape")

    def __init__(self, shape: torch.Size, dtype: torch.dtype, grad: Tensor | None = None) -> None:
        self.shape = shape
        self.dtype = dtype
        self.grad = grad
        self.hooks: dict[int, tuple[int, Hook]] | None = None
        self.seq = next_slot()


class Entry:
    """One line of the tape: ``output = op(inputs, **params)``.

    Attributes
    ----------
    op : the `Op` record (name, forward function, gradient rules)
    parents : one node per array argument; None where the argument needs no gradient
    shape, dtype : of the output (tuples for an op with several outputs)
    seq : process-wide sequence number, which is also the output's slot
    """

    __slots__ = ("_args", "_where", "dtype", "env", "hooks", "op", "parents", "seq", "shape", "versions")

    op: Op
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
        code, instruction = self._where
        line = next((line for start, end, line in code.co_lines() if start <= instruction < end), None)
        return f"{os.path.basename(code.co_filename)}:{line or code.co_firstlineno}"

    def release(self) -> None:
        """Drop the saved values; what is needed to print the entry stays."""
        if self.versions:
            env = self.env
            for i, _ in self.versions:
                env[i] = None
            self.versions = None

    def __repr__(self) -> str:
        return f"%{self.seq} = {self.op.name}({', '.join(map(str, self.inputs))})  {self.source}"


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
        self[filename] = inside = filename.startswith(PACKAGE)
        return inside


_inside = _Inside()


def user_frame(depth: int = 1) -> FrameType:
    """The nearest calling frame outside the package (the outermost one if there is none)."""
    frame = sys._getframe(depth)
    while _inside[frame.f_code.co_filename] and frame.f_back is not None:
        frame = frame.f_back
    return frame


def describe(value: Any) -> str:
    """``f32[25, 2]`` for a tensor; ``repr`` for anything else."""
    if isinstance(value, torch.Tensor):
        return f"{DTYPE_NAMES.get(value.dtype, str(value.dtype))}{list(value.shape)}"
    if isinstance(value, list | tuple) and any(isinstance(item, torch.Tensor) for item in value):
        return "[" + ", ".join(describe(item) for item in value) + "]"
    return getattr(value, "__qualname__", None) or repr(value)


# --- the reverse replay ------------------------------------------------------------------------------------------


_by_sequence = operator.attrgetter("seq")


def gather(roots: Iterable[Node], frontier: Container[Node] = ()) -> list[Entry]:
    """Every entry the roots depend on, in execution order, none beyond a frontier node.

    Iterative, so depth does not matter.
    """
    stack: list[Any] = [entry_of(node) for node in roots if node not in frontier]
    stack = [entry for entry in stack if type(entry) is Entry]
    seen: set[Entry] = set(stack)
    while stack:
        for parent in stack.pop().parents:
            if type(parent) is tuple and parent not in frontier:
                parent = parent[0]
            if type(parent) is Entry and parent not in seen and parent not in frontier:
                seen.add(parent)
                stack.append(parent)
    return sorted(seen, key=_by_sequence)


def active_entries(entries: list[Entry], wanted: Container[Node]) -> dict[Entry, tuple[Node | None, ...]]:
    """Activity analysis: those of `entries` (in execution order) through which a wanted node is reached.

    Each comes with its parents, None in the place of those that lead to no wanted node.
    """
    active: dict[Entry, tuple[Node | None, ...]] = {}
    for entry in entries:
        parents = tuple(
            [
                parent if parent is not None and (parent in wanted or entry_of(parent) in active) else None
                for parent in entry.parents
            ]
        )
        if any(parent is not None for parent in parents):
            active[entry] = parents
    return active


class Slots(dict[Any, Any]):
    """Gradients by node; ``owned`` are the nodes whose tensor nobody else holds, so that sums can go in place."""

    def __init__(self) -> None:
        super().__init__()
        self.owned: set[Any] = set()

    def add(self, node: Node, g: Any) -> None:
        """One more contribution: the first is kept by reference, the second makes a new sum, later ones add to it."""
        before = self.get(node)
        if before is None:
            self[node] = g
        elif node in self.owned:
            before.add_(g)
        else:
            self[node] = before + g
            if type(g) is torch.Tensor:  # sums of recorded Tensors stay apart
                self.owned.add(node)


def replay(
    seeds: Iterable[tuple[Node, Any]],
    *,
    wanted: set[Node] | None,
    create_graph: bool,
    retain_graph: bool,
    stop: bool = False,
) -> Slots:
    """Walk the tape backward from `seeds` and return the gradients of the leaves, or of the `wanted` nodes.

    ``seeds`` pairs each root with the gradient that flows into it: raw tensors, or `Tensor`s with ``create_graph``,
    in which case the rules themselves are recorded. With ``stop`` nothing beyond a wanted node is visited, so the
    gradients are partial derivatives by the wanted nodes as if they were independent.
    """
    slots = Slots()
    for node, g in seeds:
        slots.add(node, g)
    entries = gather(list(slots), wanted if stop and wanted is not None else ())
    active = None if wanted is None else active_entries(entries, wanted)
    result = Slots()

    before = mode.record
    mode.record = create_graph
    anomaly = mode.anomaly
    try:
        for entry in reversed(entries):
            if entry.hooks is None and wanted is None and type(entry.shape) is not tuple:
                g = slots.pop(entry, None)
            else:
                g = _take(slots, entry, result, wanted)
            if g is None:
                continue
            parents = entry.parents if active is None else active.get(entry)
            if parents is None:
                continue
            gradients = entry.op.pull(entry, parents, g, create_graph)
            if anomaly:
                for i, dx in enumerate(gradients):
                    if dx is not None:
                        check_finite(getattr(dx, "data", dx), f"gradient of input {i}", entry)
            for parent, dx in zip(parents, gradients, strict=True):
                if dx is None or parent is None:
                    continue
                if parent in slots:
                    slots.add(parent, dx)
                else:
                    slots[parent] = dx
                    if entry.op.fresh and type(parent) is Leaf:
                        slots.owned.add(parent)
        _finish(slots, result, wanted)
    finally:
        mode.record = before
    if not retain_graph:
        for entry in entries if active is None else active:
            entry.release()
    return result


def _take(slots: Slots, entry: Entry, result: Slots, wanted: set[Node] | None) -> Any:
    """The complete gradient of an entry's output, hooks applied; a list for several outputs; None if there is none."""
    several = type(entry.shape) is tuple
    nodes: list[Node] = [(entry, i) for i in range(len(entry.shape))] if several else [entry]
    grads = []
    for i, node in enumerate(nodes):
        g = slots.pop(node, None)
        if g is not None and entry.hooks:
            g = run_hooks(entry.hooks, i, g)
        if g is not None and wanted is not None and node in wanted:
            result[node] = g
        grads.append(g)
    if not several:
        return grads[0]
    return None if all(g is None for g in grads) else grads


def _finish(slots: Slots, result: Slots, wanted: set[Node] | None) -> None:
    """Move what is left in the slots to the result: gradients of leaves, and of what lies beyond the frontier."""
    for node, g in slots.items():
        hooks = node.hooks if type(node) is Leaf else None
        if hooks:
            g = run_hooks(hooks, 0, g)
        if wanted is None or node in wanted:
            result[node] = g
            if node in slots.owned and not hooks:
                result.owned.add(node)


def _retained_last(key: int) -> bool:
    return key < 0


def run_hooks(hooks: dict[int, tuple[int, Hook]], index: int, g: Any) -> Any:
    """Pass a gradient through the hooks registered on output `index`; a hook may return a replacement."""
    from .tensor import Tensor, as_gradient

    for key in sorted(hooks, key=_retained_last):
        which, hook = hooks[key]
        if which == index:
            raw = type(g) is torch.Tensor
            seen = Tensor(g) if raw else g
            returned = hook(seen)
            if returned is not None:
                replacement = as_gradient(returned, seen.shape, seen.dtype, "hook")
                g = replacement.data if raw else replacement
    return g


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

    def __enter__(self) -> Tape:
        self._before = mode.watched
        mode.tapes = (*mode.tapes, self)
        mode.watched = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        mode.tapes = tuple(tape for tape in mode.tapes if tape is not self)
        mode.watched = self._before

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, i: int) -> Entry:
        return self.entries[i]

    def __iter__(self) -> Iterator[Entry]:
        return iter(self.entries)

    def backward(self, loss: Tensor, gradient: Any = None, retain_graph: bool = False) -> None:
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
            yield (f"{left} = {entry.op.name}({_arguments(entry, numbers)})", kind, _bytes(entry.nbytes), entry.source)

    def __str__(self) -> str:
        rows = list(self._rows())
        widths = [max((len(row[i]) for row in rows), default=0) for i in range(3)]
        lines = ["  ".join([*(row[i].ljust(widths[i]) for i in range(3)), row[3]]).rstrip() for row in rows]
        return "\n".join(lines) if lines else "(empty tape)"

    __repr__ = __str__

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


def _bytes(n: int) -> str:
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
