"""A program run in Python, call by call: what the executor in C++ must do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ..core import _C
from .program import Program, reads
from .trace import Number, Offset, Ref, Seed, refs_of, results_of


def view(memory: torch.Tensor, ref: Ref) -> torch.Tensor:
    """The view that a Ref names, given any tensor on its slot's storage."""
    return torch.empty(0, dtype=ref.dtype).set_(memory.untyped_storage(), ref.offset, ref.sizes, ref.strides)


def resolve(value: Any, memory: Mapping[int, torch.Tensor], numbers: Sequence[float], draws: Sequence[Any]) -> Any:
    """An argument with its tensors, hyper-parameters and places in the random stream filled in."""
    if isinstance(value, Ref):
        return view(memory[value.slot], value)
    if isinstance(value, Number):
        return numbers[value.which]
    if isinstance(value, Seed):
        return draws[value.which][0]
    if isinstance(value, Offset):
        return (draws[value.which][1] + value.delta) % 2**64
    return [resolve(v, memory, numbers, draws) for v in value] if type(value) is tuple else value


def evaluate(
    program: Program, memory: dict[int, torch.Tensor], numbers: Sequence[float] = (), draws: Sequence[Any] = ()
) -> None:
    """Run a program in Python: what the executor must do, call by call.

    Parameters
    ----------
    memory : a tensor on the storage of every argument and outside slot; those the program makes are added
    numbers : hyper-parameters, as `Trace.numbers` lists them
    draws : (seed, offset) of every generator
    """
    for call in (*program.once, *program.calls):
        for ref in refs_of(call.outs):
            if ref.slot not in memory:
                memory[ref.slot] = torch.empty(program.slots[ref.slot].nbytes, dtype=torch.uint8)
        for ref in reads(call):  # memory that only in-place calls fill
            memory.setdefault(ref.slot, torch.empty(program.slots[ref.slot].nbytes, dtype=torch.uint8))
        arguments = [resolve(a, memory, numbers, draws) for a in call.arguments]
        for out, value in zip(call.outs, results_of(run(call.function, arguments)), strict=False):
            if out is not None:
                view(memory[out.slot], out).copy_(value)


def run(function: Any, arguments: Sequence[Any]) -> Any:
    """Call a kernel by name, or a torch operator with its arguments in the order of its schema."""
    if isinstance(function, str):
        return getattr(_C, function)(*arguments)
    formal = function._schema.arguments
    positional = [a for a, f in zip(arguments, formal, strict=True) if not f.kwarg_only]
    named = {f.name: a for a, f in zip(arguments, formal, strict=True) if f.kwarg_only}
    return function(*positional, **named)
