"""The compiled kernel behind a public call, to be called on raw tensors: what the tape recorded, without the tape."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

import tapegrad as tg

from .ops_page import native

Call = Callable[[], Any]


def kernel_calls(call: Callable[..., Any], inputs: Sequence[Any], g: torch.Tensor | None) -> tuple[Call | None, ...]:
    """The forward kernel of the one op a public call records, and forward kernel then backward kernel.

    None where it records several ops, or where torch does the work.
    """
    with tg.Tape() as tape:
        out = call(*inputs)
    if len(tape.entries) != 1 or not native(tape.entries[0].op.forward):
        return None, None
    entry = tape.entries[0]
    op = entry.op
    raws = {x._node: x.data for x in inputs if x._node is not None}
    given = dict(zip(op.arguments, entry.env, strict=False))
    given |= {name: raws[node] for name, node in zip(op.arrays, entry.parents, strict=True) if node is not None}
    arguments = [given[name] for name in op.arguments]
    if not same(op, op.forward(*arguments), out.data):  # a constant array that the tape had no need to keep
        return None, None
    seed = torch.ones(()) if g is None else g
    return lambda: op.forward(*arguments), backward_call(op, arguments, [p is not None for p in entry.parents], seed)


def same(op: Any, results: Any, out: torch.Tensor) -> bool:
    return torch.equal(results[0] if op.residuals else results, out)


def backward_call(op: Any, arguments: list[Any], needs: list[bool], g: torch.Tensor) -> Call | None:
    """Forward, then the gradients, as one callable on raw tensors; None where torch computes the gradients."""
    rules = [op.rules[name] for name, need in zip(op.arrays, needs, strict=True) if need]
    if not all(native(rule.function) for rule in ([op.backward] if op.backward else rules)):
        return None
    shapes = [
        getattr(value, "shape", ()) for name, value in zip(op.arguments, arguments, strict=True) if name in op.arrays
    ]

    def both() -> Any:
        results = op.forward(*arguments)
        environment = [*arguments, *(results if op.residuals else (results,)), *shapes, needs]
        if op.backward is not None:
            return op.backward.function(g, *op.backward.fetch(environment))
        return [rule.function(g, *rule.fetch(environment)) for rule in rules]

    return both
