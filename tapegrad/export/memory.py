"""Where every value of a program lies in C: in an argument, the struct, a constant array, or the arena."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from ..compiled import Call, Ref, changed, reads, refs_of
from ..core import _C
from .values import TYPES, Unsupported, Value, identifier, literal, number, view_of

ROUND = 4  # elements: a value in the arena begins at a multiple
_STATISTICS = {"layer_norm", "group_norm", "batch_norm", "var", "std"}  # their second result is for their backward


@dataclass
class Array:
    """A constant, or a member of the struct: ``values`` is what it holds, or starts from."""

    name: str
    values: torch.Tensor  # flat
    comment: str


@dataclass
class Memory:
    """What `place` fills, and what the file then declares.

    Attributes
    ----------
    arrays : the C array of each slot
    known : slots whose elements are all one number
    """

    arrays: dict[int, str] = field(default_factory=dict)
    dtypes: dict[int, torch.dtype] = field(default_factory=dict)
    known: dict[int, Any] = field(default_factory=dict)
    values: dict[int, torch.Tensor] = field(default_factory=dict)  # of constants, flat
    labels: dict[int, str] = field(default_factory=dict)  # what a value is called by people
    state: list[Array] = field(default_factory=list)
    constants: dict[str, Array] = field(default_factory=dict)  # those that were asked for
    offsets: dict[int, int] = field(default_factory=dict)  # of arena slots, in elements of their type
    sizes: dict[torch.dtype, int] = field(default_factory=dict)  # of the arena
    planned: dict[torch.dtype, int] = field(default_factory=dict)  # the same, without what instructions use meanwhile
    pointers: dict[str, str] = field(default_factory=dict)  # local names of arena slots: declaration
    _taken: set[str] = field(default_factory=set)

    def unique(self, name: str) -> str:
        """A name in C that nothing else has."""
        base, i = identifier(name), 1
        while identifier(name) in self._taken:
            i += 1
            name = f"{base}_{i}"
        self._taken.add(identifier(name))
        return identifier(name)

    @property
    def arena_bytes(self) -> int:
        return sum(n * dtype.itemsize for dtype, n in self.sizes.items())

    def value(self, ref: Ref) -> Value:
        """The view that a Ref names."""
        slot, dtype = ref.slot, self.dtypes[ref.slot]
        if dtype != ref.dtype and not (dtype == torch.float32 and ref.dtype == torch.float64):
            raise Unsupported(f"memory of {dtype} is read as {ref.dtype}")
        if slot in self.known:
            return number(self.known[slot], ref.dtype).expand(ref.sizes)
        if slot in self.values:
            return self._constant(slot, ref)
        if slot in self.offsets:
            name, kind = self.arrays[slot], TYPES[dtype]
            self.pointers.setdefault(
                name, f"{kind} *const {name} = arena->{short(dtype)} + {self.offsets[slot]};{self._comment(slot)}"
            )
        return view_of(self.arrays[slot], dtype, ref.offset, ref.sizes, ref.strides)

    def scratch(self, dtype: torch.dtype, n: int) -> str:
        """The name of ``n`` elements behind what lives longer, which an instruction may use as it runs."""
        kind = short(dtype)
        planned = self.planned.setdefault(dtype, self.sizes.get(dtype, 0))
        self.sizes[dtype] = max(self.sizes.get(dtype, 0), planned + n)
        name = f"scratch_{kind}"
        self.pointers.setdefault(name, f"{TYPES[dtype]} *const {name} = arena->{kind} + {planned};")
        return name

    def _comment(self, slot: int) -> str:
        return f" /* {self.labels[slot]} */" if slot in self.labels else ""

    def _constant(self, slot: int, ref: Ref) -> Value:
        name = self.arrays[slot]
        self.constants.setdefault(name, Array(name, self.values[slot], self.labels[slot]))
        return view_of(name, self.dtypes[slot], ref.offset, ref.sizes, ref.strides)

    def transposed(self, ref: Ref) -> Value | None:
        """A constant matrix with its elements stored column by column; None where it is no constant."""
        if ref.slot not in self.values or ref.slot in self.known or len(ref.sizes) != 2:
            return None
        values = self.values[ref.slot].as_strided(ref.sizes, ref.strides, ref.offset)
        if ref.strides[0] == 1 and ref.strides[1] == ref.sizes[0]:
            return self._constant(ref.slot, ref)
        name = f"{self.arrays[ref.slot]}_t{ref.offset or ''}"
        comment = f"{self.labels[ref.slot]}, transposed"
        self.constants.setdefault(name, Array(name, values.t().contiguous().flatten(), comment))
        return view_of(name, ref.dtype, 0, ref.sizes, (1, ref.sizes[0]))


def short(dtype: torch.dtype) -> str:
    """``f32``: the arena's member of that type."""
    return {torch.float32: "f32", torch.float64: "f64", torch.bool: "u8", torch.uint8: "u8"}.get(
        dtype, TYPES[dtype].removesuffix("_t").replace("int", "i")
    )


def dtypes_of(calls: Iterable[Call], ends: Iterable[Ref]) -> dict[int, torch.dtype]:
    """The element type of every slot. Statistics of normalisations, float64 on a PC, take the type of their input."""
    found: dict[int, torch.dtype] = {}
    ends = list(ends)
    kept = {ref.slot for ref in ends}
    for call in calls:
        for ref in (*reads(call), *refs_of(call.outs)):
            found.setdefault(ref.slot, ref.dtype)
        if call.function in _STATISTICS and call.outs[1] is not None and call.outs[1].slot not in kept:
            found[call.outs[1].slot] = call.arguments[0].dtype
    for ref in ends:
        found.setdefault(ref.slot, ref.dtype)
    return found


def place_in_arena(
    memory: Memory, calls: list[Call], ends: Iterable[Ref], slots: set[int], counts: Mapping[int, int]
) -> None:
    """Offsets for slots that live for a part of the step; slots that do not live at one time share memory."""
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    for i, call in enumerate(calls):
        for ref in (*reads(call), *refs_of(call.outs), *changed(call)):
            first.setdefault(ref.slot, i)
            last[ref.slot] = i
    for ref in ends:
        first.setdefault(ref.slot, 0)
        last[ref.slot] = len(calls)
    for dtype in sorted({memory.dtypes[s] for s in slots}, key=short):
        mine = sorted([s for s in slots if memory.dtypes[s] == dtype], key=lambda s: (-counts[s], first[s]))
        sizes = [-(-max(counts[s], 1) // ROUND) * ROUND for s in mine]
        places = _C.place([(n, first[s], last[s]) for s, n in zip(mine, sizes, strict=True)])
        memory.offsets.update(zip(mine, places, strict=True))
        memory.sizes[dtype] = max((at + n for at, n in zip(places, sizes, strict=True)), default=0)


def uniform(values: torch.Tensor) -> Any:
    """The number that every element is; None where they differ."""
    if not values.numel():
        return None
    one = values[:1]
    same = (values == one) & (torch.signbit(values) == torch.signbit(one) if values.is_floating_point() else True)
    return one.item() if bool(same.all()) else None


def initial(array: Array) -> list[str]:
    """The elements of an array as C, a few on a line."""
    dtype = array.values.dtype
    if dtype.is_floating_point:
        ends = "f" if dtype == torch.float32 else ""
        texts = [f"{x.hex()}{ends}" if x - x == 0 else literal(x, dtype) for x in array.values.double().tolist()]
        each = 4
    else:
        texts = [literal(x, dtype) for x in array.values.tolist()]
        each = 12
    return [", ".join(texts[i : i + each]) + "," for i in range(0, len(texts), each)]
