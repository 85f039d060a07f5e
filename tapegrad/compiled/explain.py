"""A program as text, one instruction a line, for people."""

from __future__ import annotations

import functools
import inspect
import math
import re
import textwrap
from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch

from ..core import _C, DTYPE_NAMES, bytes_text, describe
from ..optim.kernels import hyper, spelled
from .bind import Bound
from .facts import Fact, of_library
from .naming import Names
from .program import function_name, written
from .trace import Call, Number, Offset, Ref, Seed, refs_of

WIDTH = 119  # columns
_SHOWN = 6  # facts of a kind
_LONG = 3  # tensors in a list that are named one by one
_FLOATS = (torch.float32, torch.float64)


def explain(bound: Bound, exact: bool, names: Names) -> str:
    """Instructions, what lowering did, what torch computes and why, memory, guards."""
    program = bound.program
    writer = Writer(bound, names)
    ours = sum(bound.is_ours(i) for i in range(len(program.calls)))
    lines = [
        f"program: {len(program.calls)} instructions, {ours} kernels of tapegrad, {len(program.calls) - ours} of torch"
    ]
    given = writer.read_of("argument")
    lines += _wrapped("arguments: ", [f"{names.of(ref)} {size(ref)}" for ref in given])
    marks = _marks(program.chains)
    rows = [("  once  ", call) for call in program.once]
    for i, call in enumerate(program.calls):
        rows.append((f"{i:4} {'     ' if bound.is_ours(i) else 'torch'}{marks.get(i, ' ')}", call))
    ends = [writer.end(call) for _, call in rows]
    wide = min(max((len(source) for _, source in ends), default=0), 24)
    for (start, call), (made, source) in zip(rows, ends, strict=True):
        lines.append(_fitted(start, writer.text(call), f"{made:>8}  {source[-wide:].ljust(wide)}"))
    if any(re.search(r"[\w\]]@\d", line) for line in lines[1:]):
        lines.append("a view that begins 16 elements into %7 is %7@16")
    notes = [*program.notes, *([] if exact else ["exact=False"])]
    lines += _wrapped("rewrites: ", notes, "; ") if notes else ["rewrites: none"]
    if program.chains:
        lines.append("  calls marked / | \\ run as one, tile by tile, their values staying in the nearest cache")
    lines += _torch_calls(bound)
    lines.append(f"arena: {program.arena_bytes} bytes for {program.unshared_bytes} bytes of values")
    kinds = [slot.kind for slot in program.slots]
    lines.append(
        f"memory: {kinds.count('argument')} arguments, {kinds.count('outside')} tensors from outside, "
        f"{len(program.own)} buffers of its own"
    )
    lines += [f"read at every step: {spelled(key)} = {hyper(group, key)}" for group, key in bound.trace.numbers]
    for generator, blocks in bound.trace.generators:
        lines.append(f"random numbers: {blocks} blocks a step of {generator!r}")
    return "\n".join((*lines, *_guards(bound.facts)))


def rows_of(bound: Bound, names: Names) -> list[tuple[str, str, str, str]]:
    """(by whom, instruction, bytes, source) of every instruction."""
    writer = Writer(bound, names)
    by = ["tapegrad" if bound.is_ours(i) else "torch" for i in range(len(bound.program.calls))]
    return [(who, writer.text(call), *writer.end(call)) for who, call in zip(by, bound.program.calls, strict=True)]


# --- one instruction -----------------------------------------------------------------------------------------------


class Writer:
    """Writes instructions: ``%4 f32[64, 64] = linear(x, 0.weight, 0.bias)``."""

    def __init__(self, bound: Bound, names: Names) -> None:
        self.bound, self.names = bound, names

    def read_of(self, kind: str) -> list[Ref]:
        """The first view of each slot of a kind, by slot."""
        found: dict[int, Ref] = {}
        for call in (*self.bound.program.once, *self.bound.program.calls):
            for ref in refs_of((call.arguments, call.outs)):
                if self.bound.trace.slots[ref.slot].kind == kind:
                    found.setdefault(ref.slot, ref)
        return [found[slot] for slot in sorted(found)]

    def text(self, call: Call) -> str:
        """What it makes or changes, and of what."""
        outs = [f"{self.names.of(ref)} {size(ref)}" for ref in refs_of(call.outs)]
        if not outs:  # a list of tensors is named among the arguments
            outs = [self.names.of(a) for a in (call.arguments[i] for i in call.writes) if isinstance(a, Ref)]
        left = ", ".join(dict.fromkeys(outs))
        return f"{left}{' = ' if left else ''}{short_name(call)}({', '.join(self._arguments(call))})"

    def _arguments(self, call: Call) -> Iterator[str]:
        names = argument_names(function_name(call), call.function)
        length = None  # of the first list of tensors; lists beside it hold what belongs to the same ones
        for i, value in enumerate(call.arguments):
            name = names[i] if i < len(names) else ""
            refs = refs_of((value,))
            if isinstance(value, Ref):
                yield self.names.of(value)
            elif refs and len(refs) != length:
                length = length or len(refs)
                few = ", ".join(map(self.names.of, refs))
                ends = f"{self.names.of(refs[0])} ... {self.names.of(refs[-1])}: {len(refs)}"
                yield f"[{few if len(refs) <= _LONG else ends}]"
            elif isinstance(value, Number):
                key = spelled(self.bound.trace.numbers[value.which][1])
                yield key if name in (key, "") else f"{name}={key}"
            elif not (refs or isinstance(value, Seed | Offset) or is_usual(name, value)):
                text = describe(list(value)) if isinstance(value, tuple) else str(value).removeprefix("torch.")
                yield f"{name}={text}" if name and name not in ("other", "exponent", "value") else text

    def end(self, call: Call) -> tuple[str, str]:
        """(bytes that it makes or changes, the line of the user's code)."""
        made = sum(math.prod(ref.sizes) * ref.dtype.itemsize for ref in written(call))
        return (bytes_text(made) if made else "", call.source)


_USUAL = {
    **dict.fromkeys(("stride", "dilation", "groups", "alpha"), 1),
    **dict.fromkeys(("padding", "output_padding", "label_smoothing", "dampening"), 0),
    "ignore_index": -100,
}
_SAID = ("input_size", "weight_size", "size", "device", "layout", "memory_format")  # by the shapes, or the same for all


def is_usual(name: str, value: Any) -> bool:
    """Whether an argument says nothing that a reader would miss."""
    if value is None or value is False or value == () or name in _SAID or name.startswith("need_"):
        return True
    return name in _USUAL and set(value if isinstance(value, tuple) else (value,)) == {_USUAL[name]}


def size(ref: Ref) -> str:
    return f"{DTYPE_NAMES.get(ref.dtype, str(ref.dtype))}{list(ref.sizes)}"


def short_name(call: Call) -> str:
    """``linear``; ``aten.flip``, without the overload."""
    return call.name if isinstance(call.function, str) else ".".join(call.name.split(".")[:2])


@functools.cache
def argument_names(name: str, function: Any) -> list[str]:
    """Of a kernel of ours from the first line of its docstring, of an operator from its schema."""
    if not isinstance(function, str):
        return [argument.name for argument in function._schema.arguments]
    doc = inspect.getdoc(getattr(_C, name, None)) or ""
    inside = doc.partition("\n")[0].partition("(")[2]
    return re.findall(r"(?:^|, )(\w+): ", inside)


def _fitted(start: str, text: str, end: str) -> str:
    """One line of at most `WIDTH` columns: the end is kept, the middle gives way."""
    room = WIDTH - len(start) - 3 - len(end)
    if len(text) > room and " = " in text:
        left, _, right = text.partition(" = ")
        left = re.sub(r" \w+\[[^]]*\]", "", left)  # without the shapes of the results
        text = (left if len(left) <= room // 2 else left[: room // 2 - 4] + " ...") + " = " + right
    if len(text) > room:
        text = re.sub(r"\b\w+=", "", text)  # without the names of settings
    if len(text) > room:
        text = text[: max(room - 4, 0)] + " ..."
    return f"{start} {text.ljust(room)}  {end}".rstrip()


def _marks(chains: list[tuple[int, int]]) -> dict[int, str]:
    marks = {i: "|" for first, last in chains for i in range(first, last)}
    return marks | {first: "/" for first, _ in chains} | {last - 1: "\\" for _, last in chains}


def _wrapped(head: str, items: list[str], comma: str = ", ") -> list[str]:
    if not items:
        return []
    return textwrap.wrap(
        head + comma.join(items), WIDTH, subsequent_indent="    ", break_on_hyphens=False, break_long_words=True
    )


# --- what torch computes -------------------------------------------------------------------------------------------


def why_torch(call: Call) -> str:
    """Why an instruction is a call of torch's operator."""
    name, bare = function_name(call), short_name(call).rpartition(".")[2].rstrip("_")
    if not isinstance(call.function, str) and call.function.namespace != "aten":
        return "an operator of another library"
    if name in _C.direct_forms:
        return "so many elements are worth its threads, or not of dtypes that tapegrad's loop takes"
    dtypes = {ref.dtype for ref in refs_of((call.arguments, call.outs))}
    if dtypes and not dtypes & set(_FLOATS):
        return "no float32 or float64 in it"
    if hasattr(_C, bare):
        return "tapegrad's kernel does not take these shapes, strides or dtypes"
    return "tapegrad has no kernel of it"


def _torch_calls(bound: Bound) -> list[str]:
    calls = [call for i, call in enumerate(bound.program.calls) if not bound.is_ours(i)]
    reasons: dict[str, Counter[str]] = {}
    for call in calls:
        reasons.setdefault(why_torch(call), Counter())[short_name(call)] += 1
    lines = []
    for reason, names in reasons.items():
        lines += _wrapped(f"torch, as {reason}: ", [n if k == 1 else f"{n} ({k} times)" for n, k in names.items()])
    return lines


# --- guards ----------------------------------------------------------------------------------------------------------


def _guards(facts: list[Fact]) -> list[str]:
    """How many, and first the kinds that a user changes by accident: with each change the step is recorded again."""
    lines = [f"guards: {len(facts)} facts, and the addresses of the tensors from outside"]
    kinds = guards_by_kind(facts)
    for kind, items in kinds.items():
        shown = items if len(items) <= _SHOWN else [*items[: _SHOWN - 1], f"... and {len(items) - _SHOWN + 1} more"]
        lines += _wrapped(f"  {kind}: ", shown)
    rest = len(facts) - sum(map(len, kinds.values()))
    lines.append(f"  and {rest} more: the same objects, functions, layers and parameters in the same places")
    return lines


def guards_by_kind(facts: list[Fact]) -> dict[str, list[str]]:
    """The facts that may well change between two calls, by kind; ``gain = 3.0``."""
    known = {fact.path: fact.value for fact in facts if not isinstance(fact.value, bool | int | float | str)}
    kinds: dict[str, list[str]] = {"numbers and strings": [], "modes": [], "arrays": []}
    for fact in facts:
        kind = _kind(fact, known)
        if kind is not None:
            name = str(fact.key) if kind not in kinds or kind.startswith("settings") else fact.path
            text = fact.path if kind == "arrays" else f"{name} = {fact.value!r}"
            kinds.setdefault(kind, []).append(text if len(text) <= 60 else text[:56] + " ...")
    return {kind: items for kind, items in kinds.items() if items}


def _kind(fact: Fact, known: dict[str, Any]) -> str | None:
    if fact.kind in ("buffer", "copy", "layout"):
        return "arrays"
    if not isinstance(fact.value, bool | int | float | str | tuple) or fact.kind in ("length", "keys"):
        return None
    if fact.key == "training":
        return "modes"
    if isinstance(fact.container, dict) and {"params", "lr"} <= fact.container.keys():
        return f"settings of {fact.path.rpartition('[')[0]}"
    if fact.kind == "cell" or (fact.kind in ("item", "attribute") and fact.path.isidentifier()):
        return "numbers and strings"  # variables
    owner = known.get(fact.path.rpartition(".")[0])  # attributes of the user's objects
    own = owner is not None and not isinstance(owner, type) and not of_library(type(owner))
    return "numbers and strings" if own and isinstance(fact.key, str) and not fact.key.startswith("__") else None
