"""What one call of a step did, as plain data: its calls, the memory they worked on, and what it left behind.

Values are named by the memory they lie in: a *slot* is a storage (an argument's, one that existed before, or one that
an instruction made), a `Ref` is a view of a slot. Views are therefore no instructions at all.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from types import CodeType
from typing import Any, NamedTuple

import torch

from ..core import _C, DTYPE_NAMES, Leaf
from ..optim.kernels import Key


class Ref(NamedTuple):
    """A view of a slot; offset, sizes and strides in elements."""

    slot: int
    dtype: torch.dtype
    offset: int
    sizes: tuple[int, ...]
    strides: tuple[int, ...]

    def __repr__(self) -> str:
        return f"%{self.slot}:{DTYPE_NAMES.get(self.dtype, str(self.dtype))}{list(self.sizes)}"


class Number(NamedTuple):
    """A hyper-parameter that is read at every replay: entry ``which`` of `Trace.numbers`."""

    which: int


class Seed(NamedTuple):
    """The seed of generator ``which`` of `Trace.generators`."""

    which: int


class Offset(NamedTuple):
    """A place in the random stream: ``delta`` blocks after where generator ``which`` stood when the step began."""

    which: int
    delta: int


class Same(NamedTuple):
    """A returned value that is argument ``which`` itself."""

    which: int


class Made(NamedTuple):
    """A returned tensor, or a gradient."""

    ref: Ref
    kind: type  # `Tensor`, a class of its kind, or a raw torch tensor's
    which: int  # objects that come out, numbered: one may come out in several places
    value: Any = None  # itself, where it lies outside: a parameter, a buffer


class Carried(NamedTuple):
    """A gradient that the step found in ``.grad``, in ``slot`` (None: only whether there is one), and replaced.

    ``left`` is the slot of its own; see `compiled.carried`.
    """

    leaf: Leaf
    slot: int | None
    left: int


class Attribute(NamedTuple):
    """A tensor that the step leaves in an attribute, an item or a closure's cell, in the place of another one.

    ``fact`` says where, and what was known of the other; ``slot`` is where that lay (None: it was not read), ``made``
    where the new one lies. See `compiled.attributes`.
    """

    fact: Any
    slot: int | None
    made: Made


@dataclass(slots=True)
class Slot:
    """A storage. ``kind``: "argument" (``tensor`` is None), "outside" (``tensor`` lies in it), "made" by a call."""

    kind: str
    nbytes: int
    tensor: torch.Tensor | None = None
    source: str = ""  # the line that saw it first
    written: bool = False

    @property
    def extent(self) -> tuple[int, int]:
        """The addresses of memory from outside: [begin, end)."""
        assert self.tensor is not None
        begin = self.tensor.untyped_storage().data_ptr()
        return begin, begin + self.nbytes


class Call(NamedTuple):
    """One instruction: ``outs = function(*arguments)``, and the positions of arguments that it writes."""

    function: Any  # the name of a kernel of ours, or an OpOverload of torch
    arguments: tuple[Any, ...]
    outs: tuple[Ref | None, ...]
    writes: tuple[int, ...]
    source: str

    @property
    def name(self) -> str:
        """As printed: ``linear``, or ``aten.add.Tensor``."""
        return self.function if isinstance(self.function, str) else str(self.function)


@dataclass
class Trace:
    """One recorded call."""

    calls: list[Call] = field(default_factory=list)
    slots: list[Slot] = field(default_factory=list)
    result: Any = None  # what the step returned, tensors as Ref
    gradients: list[tuple[Any, Any]] = field(default_factory=list)  # (leaf, tensor or argument's number, final .grad)
    needs: list[int] = field(default_factory=list)  # arguments that were made to require gradients
    numbers: list[tuple[dict[str, Any], Key]] = field(default_factory=list)  # (parameter group, key)
    values: list[Any] = field(default_factory=list)  # of these numbers, when they were used
    generators: list[tuple[Any, int]] = field(default_factory=list)  # (generator, blocks a step takes)
    grads_read: dict[int, tuple[Any, Any]] = field(default_factory=dict)  # leaf or tensor, its .grad when first read
    carried: list[Carried] = field(default_factory=list)  # gradients of the call before, which it replaces
    attributes: list[Attribute] = field(default_factory=list)  # tensors that it leaves for the next call
    codes: set[CodeType] = field(default_factory=set)  # the user's functions that ran

    @property
    def ends(self) -> list[Ref]:
        """What is looked at when the calls are done: results and gradients."""
        left = [*[made for _, made in self.gradients], *[one.made for one in self.attributes]]
        return [made.ref for made in (*made_in(self.result), *made_in(left))]


def results_of(value: Any) -> Any:
    """What a kernel or an operator returned, as a sequence: one tensor, several, or nothing."""
    return value if isinstance(value, list | tuple) else () if value is None else (value,)


def refs_of(value: Any) -> list[Ref]:
    """Every Ref among arguments, in lists and structures too."""
    return _C.refs_of(value)


def made_in(tree: Any) -> Iterator[Made]:
    """Every `Made` of a tree."""
    if isinstance(tree, Made):
        yield tree
    elif isinstance(tree, dict):
        for v in tree.values():
            yield from made_in(v)
    elif isinstance(tree, list | tuple) and not isinstance(tree, Same):
        for v in tree:
            yield from made_in(v)


def outlived(trace: Trace, copies: list[tuple[int, int, int]]) -> Call | None:
    """The call that would tell a copy from the view that it stands for: it writes one, and reads the other later.

    ``copies`` lists (calls before it, slot of the copy, slot it was taken from).
    """
    of: dict[int, list[int]] = {}
    stale: set[int] = set()
    todo = list(reversed(copies))
    for i, call in enumerate(trace.calls):
        while todo and todo[-1][0] <= i:
            _, copy, source = todo.pop()
            of.setdefault(source, []).append(copy)
        if any(ref.slot in stale for ref in refs_of(call.arguments)):
            return call
        changed = [ref.slot for at in call.writes for ref in refs_of((call.arguments[at],))]
        if any(slot in copied for slot in changed for copied in of.values()):
            return call
        while changed:
            further = of.get(changed.pop(), [])
            stale.update(further)
            changed += further
    return None


def extent(t: torch.Tensor) -> tuple[int, int]:
    """The bytes of its storage that a tensor lies in: [begin, end)."""
    begin = t.storage_offset()
    last = sum((n - 1) * step for n, step in zip(t.shape, t.stride(), strict=True))
    return int(begin * t.itemsize), int((begin + 1 + last if t.numel() else begin) * t.itemsize)
