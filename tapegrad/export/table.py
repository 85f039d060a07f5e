"""The table of instructions: what writes each in C."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from .values import Unsupported, Value, literal
from .values import number as constant
from .writer import Writer


@dataclass(frozen=True)
class Symbol:
    """A number of double type that the struct holds: a learning rate, say; or a place in the random stream."""

    text: str


@dataclass(frozen=True)
class Instruction:
    """A call with its values: ``arguments`` and ``outs`` as `Value`, numbers as they are, or `Symbol`."""

    name: str
    arguments: tuple[Any, ...]
    outs: tuple[Value | None, ...]
    transposed: Callable[[int], Value | None]  # argument i, a constant matrix, stored column by column

    @property
    def out(self) -> Value:
        """The result, or what the instruction changes in place."""
        value = self.outs[0] if self.outs else self.arguments[0]
        if not isinstance(value, Value):
            raise Unsupported(f"{self.name} has no result")
        return value

    def __getitem__(self, i: int) -> Any:
        return self.arguments[i] if i < len(self.arguments) else None

    @property
    def dtype(self) -> torch.dtype:
        """What it computes in: its result's type."""
        return self.out.dtype


Emitter = Callable[[Writer, Instruction], None]
EMITTERS: dict[str, Emitter] = {}


def emits(*names: str) -> Callable[[Emitter], Emitter]:
    """Decorates the function that writes these instructions."""

    def register(emitter: Emitter) -> Emitter:
        EMITTERS.update(dict.fromkeys(names, emitter))
        return emitter

    return register


def as_value(argument: Any, dtype: torch.dtype) -> Value:
    """An operand: a tensor's value, or a number."""
    if isinstance(argument, Value):
        return argument
    if isinstance(argument, bool | int | float):
        return constant(argument, dtype)
    raise Unsupported(f"an operand that is a {type(argument).__name__}")


def as_text(argument: Any) -> str:
    """A number in double: a literal, or a member of the struct."""
    return argument.text if isinstance(argument, Symbol) else literal(float(argument), torch.float64)


def dims(axes: Any, ndim: int) -> list[int]:
    """Dimensions counted from the front; all of them where there are none."""
    if isinstance(axes, int):
        axes = (axes,)
    return sorted({d % ndim for d in axes}) if axes and ndim else list(range(ndim))


def split(value: Value, reduced: Sequence[int]) -> tuple[Value, tuple[int, ...], tuple[int, ...]]:
    """(the value with the reduced dimensions last, sizes of the kept ones, of the reduced ones)."""
    kept = [d for d in range(value.ndim) if d not in reduced]
    return (
        value.view(lambda t: t.permute((*kept, *reduced))),
        tuple(value.sizes[d] for d in kept),
        tuple(value.sizes[d] for d in reduced),
    )


def unreduced(value: Value, like: Value, reduced: Sequence[int]) -> Value:
    """A reduction's result, with keepdim or without, as the kept dimensions alone."""
    kept = [like.sizes[d] for d in range(like.ndim) if d not in reduced]
    return value.view(lambda t: t.reshape(kept) if tuple(t.shape) != tuple(kept) else t)


def unflatten(value: Value, d: int, groups: int) -> Value:
    """Dimension d as [groups, the rest]."""
    sizes = value.sizes
    return value.view(lambda t: t.reshape((*sizes[:d], groups, sizes[d] // groups, *sizes[d + 1 :])))
