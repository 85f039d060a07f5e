"""The compiled kernel behind a public call, to be called on raw tensors: what the tape recorded, without the tape."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

import tapegrad as tg
from tapegrad.core import _C

from ..pages.ops import native

Call = Callable[[], Any]


def kernel_calls(call: Callable[..., Any], inputs: Sequence[Any], g: torch.Tensor | None) -> tuple[Call | None, ...]:
    """The forward kernel of the one op a public call records, and forward kernel then backward kernel.

    None where it records several ops, or where torch does the work.
    """
    with tg.Tape() as tape:
        out = call(*inputs)
    if len(tape.entries) != 1:
        return None, None
    entry = tape.entries[0]
    op = entry.op
    # an op that lets torch compute its value may have a kernel of its name all the same (compiled programs use it)
    forward = op.forward if native(op.forward) else getattr(_C, op.name, None)
    raws = {x._node: x.data for x in inputs if x._node is not None}
    given = dict(zip(op.arguments, entry.env, strict=False))
    given |= {name: raws[node] for name, node in zip(op.arrays, entry.parents, strict=True) if node is not None}
    arguments = [given[name] for name in op.arguments]
    if forward is None or not gives(forward, arguments, out.data, bool(op.residuals)):
        return None, None
    seed = torch.ones(()) if g is None else g
    needs = [parent is not None for parent in entry.parents]
    return lambda: forward(*arguments), backward_call(op, forward, arguments, needs, seed)


def gives(forward: Callable[..., Any], arguments: list[Any], out: torch.Tensor, residuals: bool) -> bool:
    """Whether a function takes these arguments and gives this output; not where the tape dropped a constant array."""
    try:
        results = forward(*arguments)
    except (TypeError, AttributeError):
        return False
    value = results[0] if residuals else results
    return isinstance(value, torch.Tensor) and torch.allclose(value, out, rtol=1e-5, atol=1e-6)


def backward_call(
    op: Any, forward: Callable[..., Any], arguments: list[Any], needs: list[bool], g: torch.Tensor
) -> Call | None:
    """Forward, then the gradients, as one callable on raw tensors; None where torch computes the gradients."""
    rules = [op.rules[name] for name, need in zip(op.arrays, needs, strict=True) if need]
    if not all(native(rule.function) for rule in ([op.backward] if op.backward else rules)):
        return None
    shapes = [
        getattr(value, "shape", ()) for name, value in zip(op.arguments, arguments, strict=True) if name in op.arrays
    ]

    def both() -> Any:
        results = forward(*arguments)
        environment = [*arguments, *(results if op.residuals else (results,)), *shapes]
        if op.backward is not None:
            wanted = [needs] if op.backward.needs else []
            return op.backward.function(g, *op.backward.fetch(environment), *wanted)
        return [rule.function(g, *rule.fetch(environment)) for rule in rules]

    return both
