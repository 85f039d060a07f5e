"""One layer and direction of a recurrent network over whole sequences: one entry, computed in C++.

Sequences are packed: the rows [M, F] of all steps one after another, step t having ``sizes[t]`` rows, sizes never
growing. A padded batch [L, N, F] is the special case of L times N rows. The plain formulation, op by op, is what
derivatives of derivatives and forward mode differentiate; `csrc/ops/recurrent.cpp` computes the same values and first
derivatives.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch

from ..core import _C, Array, Tensor, caller
from ..core import mode as thread
from .activation import relu
from .defined import Defined
from .elementwise import add, addcmul, mul, sigmoid, sub, tanh
from .linalg import addmm, linear
from .shape import cat, chunk, narrow, split, transpose

State = tuple[Any, ...]  # (h,), or (h, c) of an LSTM: one row per sequence
Step = Callable[[tuple[Any, ...], State], State]  # the inputs' shares of one step, the state -> the next state


class Weights(NamedTuple):
    """The parameters of one layer and direction (or of a cell)."""

    ih: Any
    hh: Any
    bias_ih: Any = None
    bias_hh: Any = None
    hr: Any = None


# --- the plain formulation ---------------------------------------------------------------------------------------


def _both(weights: Weights) -> Any:
    biases = [bias for bias in weights[2:4] if bias is not None]
    return add(*biases) if len(biases) == 2 else biases[0] if biases else None


def _rnn(activation: Callable[[Any], Any]) -> Callable[[Any, Weights], tuple[tuple[Any, ...], Step]]:
    def prepared(x: Any, weights: Weights) -> tuple[tuple[Any, ...], Step]:
        hh = transpose(weights.hh, 0, 1)

        def step(inputs: tuple[Any, ...], state: State) -> State:
            return (activation(addmm(inputs[0], state[0], hh)),)

        return (linear(x, weights.ih, _both(weights)),), step

    return prepared


def _lstm(x: Any, weights: Weights) -> tuple[tuple[Any, ...], Step]:
    n = weights.hh.shape[0] // 4
    hh = transpose(weights.hh, 0, 1)

    def step(inputs: tuple[Any, ...], state: State) -> State:
        h, c = state
        both, g, o = split(addmm(inputs[0], h, hh), [2 * n, n, n], 1)
        i, f = chunk(sigmoid(both), 2, 1)
        c = addcmul(mul(f, c), i, tanh(g))
        h = mul(sigmoid(o), tanh(c))
        return h if weights.hr is None else linear(h, weights.hr), c

    return (linear(x, weights.ih, _both(weights)),), step


def _gru(x: Any, weights: Weights) -> tuple[tuple[Any, ...], Step]:
    n = weights.hh.shape[0] // 3

    def step(inputs: tuple[Any, ...], state: State) -> State:
        (h,) = state
        both, inner = split(linear(h, weights.hh, weights.bias_hh), [2 * n, n], 1)
        r, z = chunk(sigmoid(add(inputs[0], both)), 2, 1)
        new = tanh(addcmul(inputs[1], r, inner))
        return (addcmul(new, z, sub(h, new)),)

    return tuple(split(linear(x, weights.ih, weights.bias_ih), [2 * n, n], 1)), step


# mode -> (rows x [M, F], weights) -> (what the inputs contribute, [M, ...] each; the step)
STEPS: dict[str, Callable[[Any, Weights], tuple[tuple[Any, ...], Step]]] = {
    "RNN_TANH": _rnn(tanh),
    "RNN_RELU": _rnn(relu),
    "LSTM": _lstm,
    "GRU": _gru,
}


def walk(mode: str, x: Any, sizes: Sequence[int], weights: Weights, state: State, reverse: bool) -> tuple[Any, State]:
    """Rows x [M, F] in steps of `sizes`, the state before -> (outputs h [M, H], the state after)."""
    shares, step = STEPS[mode](x, weights)
    steps = list(zip(*(split(share, list(sizes)) for share in shares), strict=True))
    over = _against_time if reverse else _in_time
    outputs, state = over(step, steps, sizes, state)
    return cat(outputs), state


def _in_time(step: Step, steps: list[tuple[Any, ...]], sizes: Sequence[int], state: State) -> tuple[list[Any], State]:
    """Sequences end on the way: their rows are set aside, the shortest first."""
    rows, outputs, ended = sizes[0], [], []
    for inputs, size in zip(steps, sizes, strict=True):
        if size < rows:
            ended.append([narrow(s, 0, size, rows - size) for s in state])
            state = tuple(narrow(s, 0, 0, size) for s in state)
            rows = size
        state = step(inputs, state)
        outputs.append(state[0])
    if ended:
        state = tuple(cat([s, *(rows[k] for rows in reversed(ended))]) for k, s in enumerate(state))
    return outputs, state


def _against_time(
    step: Step, steps: list[tuple[Any, ...]], sizes: Sequence[int], state: State
) -> tuple[list[Any], State]:
    """Sequences begin on the way: their rows of the first state are added, the longest first."""
    first, rows, outputs = state, sizes[-1], []
    if rows < sizes[0]:
        state = tuple(narrow(s, 0, 0, rows) for s in first)
    for inputs, size in zip(reversed(steps), reversed(sizes), strict=True):
        if size > rows:
            state = tuple(cat([s, narrow(f, 0, rows, size - rows)]) for s, f in zip(state, first, strict=True))
            rows = size
        state = step(inputs, state)
        outputs.append(state[0])
    return outputs[::-1], state


# --- the op ------------------------------------------------------------------------------------------------------


def _plain(input: Any, hx: Any, cx: Any, weight_ih: Any, weight_hh: Any, *rest: Any) -> list[Any]:
    """The op's outputs, op by op."""
    *weights, mode, sizes, reverse, _ = rest
    widths = [weight_hh.shape[1], weight_ih.shape[0] // 4][: 2 if mode == "LSTM" else 1]
    state = [
        Tensor(torch.zeros(sizes[0], width, dtype=input.dtype)) if s is None else s
        for s, width in zip((hx, cx), widths, strict=False)
    ]
    output, last = walk(mode, input, sizes, Weights(weight_ih, weight_hh, *weights), tuple(state), reverse)
    return [output, *last]


def _backward(
    g: Any,
    input: Any,
    weight_ih: Any,
    weight_hh: Any,
    weight_hr: Any,
    saved: Any,
    before: Any,
    mode: str,
    sizes: list[int],
    reverse: bool,
    needs: list[bool],
) -> Any:
    out, h, c = [*g, None][:3]
    weights = weight_ih, weight_hh, weight_hr
    return _C.recurrent_backward(out, h, c, input, *weights, saved, before, mode, sizes, reverse, needs)


def _declared(
    input: Array,
    hx: Array | None,
    cx: Array | None,
    weight_ih: Array,
    weight_hh: Array,
    bias_ih: Array | None,
    bias_hh: Array | None,
    weight_hr: Array | None,
    mode: str,
    sizes: list[int],
    reverse: bool,
    keep: bool = True,
) -> Any:
    """The outputs of one layer and direction, the state behind the last step, and what backward reads.

    ``h, c = step(x W_ih^T + b_ih, h W_hh^T + b_hh, c)`` of `mode` for each step of ``sizes`` rows, from the last one
    with ``reverse``; ``h <- W_hr h`` where there is a projection. A state of None is zeros.

    Parameters
    ----------
    input : [M, F], M the sum of ``sizes``
    hx, cx : [sizes[0], P], [sizes[0], H]
    weight_ih, weight_hh, weight_hr : [gates H, F], [gates H, P], [P, H]
    bias_ih, bias_hh : [gates H]
    keep : what backward reads is kept; a call that nobody differentiates needs no memory for it

    Returns (h of every step [M, P], h after, of an LSTM also c after).
    """
    out, h, c, saved, before = _C.recurrent(
        input, hx, cx, weight_ih, weight_hh, bias_ih, bias_hh, weight_hr, mode, sizes, reverse, keep
    )
    return ((out, h) if c is None else (out, h, c)), saved, before


recurrent = caller(
    Defined(
        _declared,
        _plain,
        _backward,
        ("input", "hx", "cx", "weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr"),
        residuals=("saved", "before"),
        name="recurrent",
    ),
    __name__,
)


def run(
    mode: str, x: Any, sizes: list[int], weights: Weights, state: Sequence[Any] = (), reverse: bool = False
) -> tuple[Tensor, ...]:
    """`recurrent` from these weights and this state, (h,) or (h, c); of zeros where it is empty."""
    h, c = [*state, None, None][:2]
    keep = thread.record and any(isinstance(v, Tensor) and v._node is not None for v in (x, h, c, *weights))
    outputs: tuple[Tensor, ...] = recurrent(x, h, c, *weights, mode, sizes, reverse, keep)
    return outputs
