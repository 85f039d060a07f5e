"""Whether two recordings of a step agree: in operators, arguments, wiring, results, and the memory they lie in."""

from __future__ import annotations

from typing import Any

import torch

from ..core import describe
from .results import agree
from .trace import Made, Ref, Slot, Trace

_GRADIENT = "a gradient that the step reads"
_KINDS = {"item": 0, "attribute": 1, "cell": 2, "length": 3, "keys": 4, "copy": 5, "buffer": 6}


_DECIDE = "decide outside the step, or with tg.where"


def difference(first: Trace, second: Trace) -> str | None:
    """Where two recorded calls of one step differ, with the line and both values; None if they agree."""
    for a, b in zip(first.calls, second.calls, strict=False):
        if a.function != b.function:
            return f"{b.source}: {a.name} ran in the first recorded call, {b.name} in the second (a branch?); {_DECIDE}"
        for i, (x, y) in enumerate(zip(a.arguments, b.arguments, strict=True)):
            if not _agree(x, y):
                return (
                    f"{b.source}: {a.name}: argument {i} was {x!r} in the first recorded call, {y!r} in the second; "
                    "pass what changes as an argument, a 0-dim tensor"
                )
        if a.outs != b.outs:
            return f"{b.source}: {a.name}: results {a.outs} in the first recorded call, {b.outs} in the second"
    if len(first.calls) != len(second.calls):
        longer = max(first.calls, second.calls, key=len)
        extra = longer[min(len(first.calls), len(second.calls))]
        return f"{extra.source}: {extra.name} ran in only one of two recorded calls (a branch?); {_DECIDE}"
    if _layout(first) != _layout(second):
        return "the memory that the step uses differs between two recorded calls"
    if not _agree(first.result, second.result):
        return f"the step returned {first.result!r} in the first recorded call, {second.result!r} in the second"
    if not _agree([made for _, made in first.gradients], [made for _, made in second.gradients]):
        return "the gradients left in .grad differ between two recorded calls"
    if first.carried != second.carried:
        return "the gradients that the step found in .grad differ between two recorded calls"
    if [one.fact.place for one in first.attributes] != [one.fact.place for one in second.attributes]:
        return "the attributes that the step sets differ between two recorded calls"
    if not _agree([one[1:] for one in first.attributes], [one[1:] for one in second.attributes]):
        return "what the step leaves in attributes differs between two recorded calls"
    anew = {one.slot for one in second.carried} | {one.slot for one in second.attributes}
    for i, (before, after) in enumerate(zip(first.slots, second.slots, strict=True)):
        if (
            i not in anew
            and before.kind == "outside"
            and not one_storage(before, after)
            and not _equal_bytes(before, after)
        ):
            return (
                f"{after.source}: a tensor {describe(after.tensor)} made from Python values inside the step "
                "differs between two calls; "
                "pass it as an argument"
            )
    return None


def _agree(x: Any, y: Any) -> bool:
    if type(x) is not type(y):
        return False
    if type(x) is Ref:
        return bool(x == y)
    if isinstance(x, float):
        return bool(x.hex() == y.hex())
    if isinstance(x, Made):
        return agree(x, y)
    if isinstance(x, dict):
        return list(x) == list(y) and all(_agree(x[k], y[k]) for k in x)
    if isinstance(x, tuple | list):
        return len(x) == len(y) and all(map(_agree, x, y))
    return bool(x == y)


def _layout(trace: Trace) -> Any:
    return [(s.kind, s.nbytes, s.written) for s in trace.slots], trace.needs, [n for _, n in trace.generators]


def one_storage(a: Slot, b: Slot) -> bool:
    """Whether two slots are the same memory from outside; the tensors that wrap it may be made in every call."""
    assert a.tensor is not None
    assert b.tensor is not None
    if a.tensor.untyped_storage()._cdata == b.tensor.untyped_storage()._cdata:
        return True
    return a.nbytes > 0 and a.extent == b.extent  # of an array, say: both are alive, so it is the same memory


def _equal_bytes(a: Slot, b: Slot) -> bool:
    assert a.tensor is not None
    assert b.tensor is not None
    if a.written or b.written:
        return False
    x, y = (torch.empty(0, dtype=torch.uint8).set_(s.tensor.untyped_storage()) for s in (a, b) if s.tensor is not None)
    return torch.equal(x, y)
