"""Values as C: an array, and the view of it that an instruction sees."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch

TYPES = {
    torch.float32: "float",
    torch.float64: "double",
    torch.int64: "int64_t",
    torch.int32: "int32_t",
    torch.int16: "int16_t",
    torch.int8: "int8_t",
    torch.uint8: "uint8_t",
    torch.bool: "uint8_t",
}


class Unsupported(Exception):
    """Why an instruction has no form in C."""


KEYWORDS = {
    *("auto", "break", "case", "char", "const", "continue", "default", "do", "double", "else", "enum", "extern"),
    *("float", "for", "goto", "if", "inline", "int", "long", "register", "restrict", "return", "short", "signed"),
    *("sizeof", "static", "struct", "switch", "typedef", "union", "unsigned", "void", "volatile", "while"),
    *("_Bool", "_Complex", "_Imaginary"),
}


def is_identifier(name: str) -> bool:
    """Whether C takes it as a name."""
    return re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) is not None and name not in KEYWORDS


def identifier(name: str) -> str:
    """``0.weight`` as a name in C: ``layer0_weight``."""
    name = re.sub(r"\W", "_", name, flags=re.ASCII)
    name = f"layer{name}" if name[:1].isdigit() else name or "value"
    return name if is_identifier(name) else f"{name}_"


def literal(value: float, dtype: torch.dtype) -> str:
    """A number in C, exact in ``dtype``; infinities and NaN without a header."""
    if dtype == torch.bool:
        return str(int(bool(value)))
    if not dtype.is_floating_point:
        number = int(value)
        if dtype == torch.int64 and not -(2**31) < number < 2**31:
            return f"INT64_C({number})" if number > -(2**63) else "(-INT64_C(9223372036854775807) - 1)"
        return str(number)
    suffix, one = ("f", "1.0f") if dtype == torch.float32 else ("", "1.0")
    rounded = float(torch.tensor(value, dtype=dtype).item())
    if math.isnan(rounded):
        return f"(0.0{suffix} / 0.0{suffix})"
    if math.isinf(rounded):
        return f"({'-' if rounded < 0 else ''}{one} / 0.0{suffix})"
    text = shortest(rounded, dtype)
    return f"{text if any(c in text for c in '.e') else text + '.0'}{suffix}"


def shortest(value: float, dtype: torch.dtype) -> str:
    """The decimal number with the fewest digits that ``dtype`` rounds to this one."""
    if dtype == torch.float32:
        for digits in range(1, 10):
            text = f"{value:.{digits}g}"
            if torch.tensor(float(text), dtype=dtype).item() == value:
                return text
    return repr(value)


class Value(NamedTuple):
    """A view of a C array. ``shape`` is a meta tensor: its sizes, strides and offset say which elements it sees.

    ``bound`` are the terms of an index that loops around have set already; ``number`` stands for every element where
    all are one number that is known.
    """

    array: str
    dtype: torch.dtype
    shape: torch.Tensor
    bound: tuple[str, ...] = ()
    number: Any = None

    @property
    def sizes(self) -> tuple[int, ...]:
        return tuple(self.shape.shape)

    @property
    def strides(self) -> tuple[int, ...]:
        return self.shape.stride()

    @property
    def ndim(self) -> int:
        return self.shape.ndim

    @property
    def numel(self) -> int:
        return self.shape.numel()

    def view(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Value:
        """The same memory seen in another shape: what ``change`` makes of a tensor, without a copy."""
        made = change(self.shape)
        if made.untyped_storage()._cdata != self.shape.untyped_storage()._cdata:
            raise Unsupported(f"memory of sizes {list(self.sizes)} and strides {list(self.strides)} would be copied")
        return self._replace(shape=made)

    def flat_at(self, i: str) -> str:
        """Element ``i`` of the contiguous order, in C."""
        if self.is_flat():
            return self.view(lambda t: t.reshape(-1)).bind([i]).element
        terms, inner = [], self.numel
        for n in self.sizes:
            inner //= n
            terms.append(f"({i}) / {inner} % {n}")
        return self.bind(terms).element

    def expand(self, sizes: Sequence[int]) -> Value:
        return self.view(lambda t: t.expand(tuple(sizes)))

    def is_flat(self) -> bool:
        return self.shape.is_contiguous()

    def bind(self, terms: Sequence[str]) -> Value:
        """The value with its leading dimensions at these indices."""
        found = list(self.bound)
        for term, stride in zip(terms, self.strides, strict=False):
            found += [] if stride == 0 or term == "0" else [term if stride == 1 else f"{_factor(term)} * {stride}"]
        rest, offset = self.shape.shape[len(terms) :], self.shape.storage_offset()
        left = self.shape.as_strided(rest, self.strides[len(terms) :], offset)
        return self._replace(shape=left, bound=tuple(found))

    @property
    def element(self) -> str:
        """The one element, in C: something that can be read, and assigned to."""
        if self.number is not None:
            return literal(self.number, self.dtype)
        offset = int(self.shape.storage_offset())
        terms = [*self.bound, *([str(offset)] if offset or not self.bound else [])]
        return f"{self.array}[{' + '.join(terms)}]"

    def read(self, dtype: torch.dtype | None = None) -> str:
        """The one element, converted where the instruction computes in another type."""
        if dtype is None or dtype == self.dtype:
            return self.element
        if self.number is not None:
            return literal(self.number, dtype)
        if dtype == torch.bool:
            return f"({self.element} != 0)"
        return f"({TYPES[dtype]}){self.element}"


def _factor(term: str) -> str:
    return term if re.fullmatch(r"[\w]+", term) else f"({term})"


def number(value: float, dtype: torch.dtype) -> Value:
    """A number that stands for every element."""
    return Value("", dtype, torch.empty((), device="meta"), (), value)


def view_of(array: str, dtype: torch.dtype, offset: int, sizes: Sequence[int], strides: Sequence[int]) -> Value:
    """A view of an array, offset, sizes and strides in elements."""
    reach = offset + 1 + sum((n - 1) * step for n, step in zip(sizes, strides, strict=True) if n)
    base = torch.empty(max(reach, 1), device="meta", dtype=torch.uint8)
    return Value(array, dtype, base.as_strided(tuple(sizes), tuple(strides), offset))


def broadcast(*sizes: Sequence[int]) -> tuple[int, ...]:
    """The sizes that these have together."""
    return tuple(torch.broadcast_shapes(*sizes))  # type: ignore[no-untyped-call]


def collapsed(sizes: Sequence[int], values: Sequence[Value]) -> tuple[list[int], list[Value]]:
    """The leading dimensions, of these sizes, with neighbours made one where every value allows it; no sizes of 1."""
    n = len(sizes)
    kept = [i for i in range(n) if sizes[i] != 1]
    steps = [[value.strides[i] for i in kept] for value in values]
    extents = [sizes[i] for i in kept]
    i = 0
    while i + 1 < len(extents):
        if all(step[i] == step[i + 1] * extents[i + 1] for step in steps):
            extents[i : i + 2] = [extents[i] * extents[i + 1]]
            for step in steps:
                del step[i]
        else:
            i += 1
    result = []
    for value, step in zip(values, steps, strict=True):
        shape = value.shape.as_strided(
            (*extents, *value.sizes[n:]), (*step, *value.strides[n:]), value.shape.storage_offset()
        )
        result.append(value._replace(shape=shape))
    return extents, result
