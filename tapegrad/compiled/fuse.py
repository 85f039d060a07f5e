"""Calls that run as one in lanes: a relu in the product that it follows, forward and backward, bit for bit."""

from __future__ import annotations

from .trace import Call, Ref, refs_of

_WITH_RELU = {"relu": "linear", "relu_backward": "linear_backward"}


def with_relus(calls: list[Call], kept: set[int]) -> list[Call]:
    """``linear_relu``, and ``linear_backward_relu``, whose last argument is the result of the relu before the layer.

    Only where nothing else reads what the product would have made.
    """
    uses: dict[int, int] = {}
    for call in calls:
        for ref in refs_of((call.arguments, call.outs)):
            uses[ref.slot] = uses.get(ref.slot, 0) + 1
    result: list[Call] = []
    for call in calls:
        before = result[-1] if result else None
        made = before.outs[0] if before is not None and before.outs else None
        if (
            before is not None
            and made is not None
            and before.function == _WITH_RELU.get(call.function if isinstance(call.function, str) else "")
            and call.arguments[0] == made
            and uses[made.slot] == 2
            and made.slot not in kept
            and _is_whole(call.outs[0], made)
        ):
            extra = () if call.function == "relu" else (call.arguments[1],)
            outs = (call.outs[0], *before.outs[1:])
            name = f"{before.function}_relu"
            result[-1] = before._replace(function=name, arguments=(*before.arguments, *extra), outs=outs)
        else:
            result.append(call)
    return result


def _is_whole(out: Ref | None, made: Ref) -> bool:
    return out is not None and (out.sizes, out.strides) == (made.sizes, made.strides)
