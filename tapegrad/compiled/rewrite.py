"""Rewrites of a recorded step: those that keep every bit, and those that ``compile(step, exact=False)`` asks for."""

from __future__ import annotations

from typing import Any

from .trace import Call, Ref, refs_of


def read_small_maps(calls: list[Call], kept: set[int]) -> tuple[list[Call], list[str]]:
    """A convolution of a map that nearest upsampling doubled reads the small map; bit for bit, and no large map.

    Only where nothing else reads the large one, and the small one is never changed.
    """
    changed = {ref.slot for call in calls for i in call.writes for ref in refs_of(call.arguments[i])}
    result: list[Call | None] = list(calls)
    notes = []
    doubling = [i for i, call in enumerate(calls) if call.function == "upsample_nearest2d" and _doubles(call)]
    uses_of = _users(calls) if doubling else {}
    for i in doubling:
        up = calls[i]
        small, large = up.arguments[0], up.outs[0]
        assert large is not None
        if small.slot in changed or large.slot in changed or large.slot in kept:
            continue
        uses = [j for j in uses_of[large.slot] if j != i]
        of_small = [_of_small(calls, uses_of, j, small, large, kept) for j in uses]
        if not uses or None in of_small:
            continue
        for j, found in zip(uses, of_small, strict=True):
            assert found is not None
            result[j], down = found
            if down is not None:
                result[down] = None
        result[i] = None
        notes.append(f"upsampling at {up.source} read by its convolution from the small map")
    return [call for call in result if call is not None], notes


def _users(calls: list[Call]) -> dict[int, list[int]]:
    """By slot: the calls that read, change or make it, in order."""
    found: dict[int, list[int]] = {}
    for i, call in enumerate(calls):
        for slot in {ref.slot for ref in refs_of((call.arguments, call.outs))}:
            found.setdefault(slot, []).append(i)
    return found


def _of_small(
    calls: list[Call], uses_of: dict[int, list[int]], j: int, small: Ref, large: Ref, kept: set[int]
) -> tuple[Call, int | None] | None:
    """(call j reading the small map, the call that summed its gradient down); None where it cannot be."""
    call = calls[j]
    place = {"conv2d": 0, "conv2d_backward": 1}.get(call.name)
    if place is None or call.arguments[place] != large:
        return None
    if [ref.slot for ref in refs_of((call.arguments, call.outs))].count(large.slot) > 1:
        return None
    if tuple(call.arguments[3 if place == 0 else 5]) != (1, 1):  # strides
        return None
    arguments = (*call.arguments[:place], small, *call.arguments[place + 1 :])
    if place == 0:
        return call._replace(function="conv2d_of_doubled", arguments=arguments), None
    down, dx = None, call.outs[0]
    if dx is not None:
        uses = [k for k in uses_of[dx.slot] if k != j]
        if dx.slot in kept or len(uses) != 1 or not _halves(calls[uses[0]], dx, small):
            return None
        down = uses[0]
        dx = calls[down].outs[0]
    function = "conv2d_of_doubled_backward"
    return call._replace(function=function, arguments=arguments, outs=(dx, *call.outs[1:])), down


def _halves(call: Call, gradient: Ref, small: Ref) -> bool:
    """Whether this is the upsampling's backward on the whole of that gradient."""
    if call.name != "upsample_nearest2d_backward" or call.arguments[0] != gradient:
        return False
    out = call.outs[0]
    return out is not None and out.sizes == small.sizes


def _doubles(up: Call) -> bool:
    """Exactly twice the height and the width."""
    x, out = up.arguments[0], up.outs[0]
    return isinstance(out, Ref) and out.sizes[2:] == (2 * x.sizes[2], 2 * x.sizes[3])


def fold_upsampling(calls: list[Call]) -> tuple[list[Call], list[str]]:
    """Convolutions of a doubled map (`read_small_maps`) as four of 2x2 on the small one: 2.25 times less arithmetic.

    ``conv2d_of_doubled`` becomes ``upsample_conv2d`` and its backward that one's, where the kernel is 3x3 with stride
    1 and padding 1; their sums are in another order.
    """
    result, notes = [], []
    for call in calls:
        if call.name == "conv2d_of_doubled" and _is_plain(call.arguments[3:7], call.arguments[1].sizes):
            notes.append(f"upsampling folded into the convolution at {call.source}")
            call = call._replace(function="upsample_conv2d", arguments=call.arguments[:3])
        elif call.name == "conv2d_of_doubled_backward" and _is_plain(call.arguments[5:9], call.arguments[4]):
            arguments = (*call.arguments[:3], *call.arguments[9:])
            call = call._replace(function="upsample_conv2d_backward", arguments=arguments)
        result.append(call)
    return result, notes


def _is_plain(geometry: tuple[Any, ...], weight_size: tuple[int, ...]) -> bool:
    """The convolution that the folded kernel stands for: 3x3, stride 1, padding 1."""
    return geometry == ((1, 1), (1, 1), (1, 1), 1) and tuple(weight_size[2:]) == (3, 3)
