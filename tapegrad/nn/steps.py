"""One time step of each recurrent network, and the walk over time.

Sequences are packed: the rows [M, F] of all steps one after another, step t having ``sizes[t]`` rows, sizes never
growing. A padded batch [L, N, F] is the special case of L times N rows. What does not depend on the state (the product
of all inputs with ``weight_ih``) is computed for all rows at once; the walk adds one product per step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from .. import ops

State = tuple[Any, ...]  # (h,), or (h, c) of an LSTM: one row per sequence
Step = Callable[[tuple[Any, ...], State], State]  # the inputs' shares of one step, the state -> the next state


class Weights(NamedTuple):
    """The parameters of one layer and direction (or of a cell)."""

    ih: Any
    hh: Any
    bias_ih: Any = None
    bias_hh: Any = None
    hr: Any = None


def _both(weights: Weights) -> Any:
    return None if weights.bias_ih is None else ops.add(weights.bias_ih, weights.bias_hh)


def _rnn(activation: Callable[[Any], Any]) -> Callable[[Any, Weights], tuple[tuple[Any, ...], Step]]:
    def prepared(x: Any, weights: Weights) -> tuple[tuple[Any, ...], Step]:
        hh = ops.transpose(weights.hh, 0, 1)

        def step(inputs: tuple[Any, ...], state: State) -> State:
            return (activation(ops.addmm(inputs[0], state[0], hh)),)

        return (ops.linear(x, weights.ih, _both(weights)),), step

    return prepared


def _lstm(x: Any, weights: Weights) -> tuple[tuple[Any, ...], Step]:
    n = weights.hh.shape[0] // 4
    hh = ops.transpose(weights.hh, 0, 1)

    def step(inputs: tuple[Any, ...], state: State) -> State:
        h, c = state
        both, g, o = ops.split(ops.addmm(inputs[0], h, hh), [2 * n, n, n], 1)
        i, f = ops.chunk(ops.sigmoid(both), 2, 1)
        c = ops.addcmul(ops.mul(f, c), i, ops.tanh(g))
        h = ops.mul(ops.sigmoid(o), ops.tanh(c))
        return h if weights.hr is None else ops.linear(h, weights.hr), c

    return (ops.linear(x, weights.ih, _both(weights)),), step


def _gru(x: Any, weights: Weights) -> tuple[tuple[Any, ...], Step]:
    n = weights.hh.shape[0] // 3

    def step(inputs: tuple[Any, ...], state: State) -> State:
        (h,) = state
        both, inner = ops.split(ops.linear(h, weights.hh, weights.bias_hh), [2 * n, n], 1)
        r, z = ops.chunk(ops.sigmoid(ops.add(inputs[0], both)), 2, 1)
        new = ops.tanh(ops.addcmul(inputs[1], r, inner))
        return (ops.addcmul(new, z, ops.sub(h, new)),)

    return tuple(ops.split(ops.linear(x, weights.ih, weights.bias_ih), [2 * n, n], 1)), step


# mode -> (rows x [M, F], weights) -> (what the inputs contribute, [M, ...] each; the step)
STEPS: dict[str, Callable[[Any, Weights], tuple[tuple[Any, ...], Step]]] = {
    "RNN_TANH": _rnn(ops.tanh),
    "RNN_RELU": _rnn(ops.relu),
    "LSTM": _lstm,
    "GRU": _gru,
}


def walk(mode: str, x: Any, sizes: list[int], weights: Weights, state: State, reverse: bool) -> tuple[Any, State]:
    """Rows x [M, F] in steps of `sizes`, the state before -> (outputs h [M, H], the state after)."""
    shares, step = STEPS[mode](x, weights)
    steps = list(zip(*(ops.split(share, sizes) for share in shares), strict=True))
    over = _backward if reverse else _forward
    outputs, state = over(step, steps, sizes, state)
    return ops.cat(outputs), state


def _forward(step: Step, steps: list[tuple[Any, ...]], sizes: list[int], state: State) -> tuple[list[Any], State]:
    """Sequences end on the way: their rows are set aside, the shortest first."""
    rows, outputs, ended = sizes[0], [], []
    for inputs, size in zip(steps, sizes, strict=True):
        if size < rows:
            ended.append([ops.narrow(s, 0, size, rows - size) for s in state])
            state = tuple(ops.narrow(s, 0, 0, size) for s in state)
            rows = size
        state = step(inputs, state)
        outputs.append(state[0])
    if ended:
        state = tuple(ops.cat([s, *(rows[k] for rows in reversed(ended))]) for k, s in enumerate(state))
    return outputs, state


def _backward(step: Step, steps: list[tuple[Any, ...]], sizes: list[int], state: State) -> tuple[list[Any], State]:
    """Sequences begin on the way: their rows of the first state are added, the longest first."""
    first, rows, outputs = state, sizes[-1], []
    if rows < sizes[0]:
        state = tuple(ops.narrow(s, 0, 0, rows) for s in first)
    for inputs, size in zip(reversed(steps), reversed(sizes), strict=True):
        if size > rows:
            state = tuple(ops.cat([s, ops.narrow(f, 0, rows, size - rows)]) for s, f in zip(state, first, strict=True))
            rows = size
        state = step(inputs, state)
        outputs.append(state[0])
    return outputs[::-1], state
