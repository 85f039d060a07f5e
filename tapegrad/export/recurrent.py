"""Recurrent layers, one sequence after another: rows of packed steps, as tapegrad/ops/recurrent.py describes them.

``saved`` holds of every step the gates' values side by side, of an LSTM also c before the step, tanh of c after it, and
the cells' h where there is a projection; of a GRU the state's share q of n = tanh(a + r q).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from .products import contract
from .table import Instruction, emits
from .values import TYPES, Value
from .writer import Writer

GATES = {"LSTM": 4, "GRU": 3, "RNN_TANH": 1, "RNN_RELU": 1}


def _rows(value: Value) -> Value:
    """[K] as [1, K], which stands for every row of a product."""
    return value.view(lambda t: t.unsqueeze(0))


def _product(w: Writer, out: Value, vector: Value, matrix: Value, start: Value | None) -> None:
    """out [N] = start + matrix [N, K] vector [K]"""
    contract(w, out, _rows(vector), matrix, 1, start)


def _set(w: Writer, out: Value, value: Value | None, sign: str = "=") -> None:
    """out = value, or zeros."""
    with w.loops(out.sizes, out, *([] if value is None else [value])) as (to, *one):
        w(f"{to.element} {sign} {one[0].element if one else '0'};")


def _at(value: Value | None, *terms: str) -> Value | None:
    return None if value is None else value.bind(terms)


def _room(w: Writer, mode: str, H: int, P: int, hr: Value | None, dtype: torch.dtype) -> list[Value]:
    """What a step works in: gates, a GRU's second product, h, an LSTM's c, and the cells' h before a projection."""
    n = GATES[mode] * H
    second, c, cells = n if mode == "GRU" else 0, H if mode == "LSTM" else 0, H if hr is not None else 0
    return w.scratch(dtype, gates=n, of_state=second, h=P, c=c, cells=cells)


class Sequences:
    """The steps of every sequence: row of step t is first[t] + n; sequence n has length[n] steps."""

    def __init__(self, w: Writer, sizes: Sequence[int], reverse: bool) -> None:
        self.w, self.sizes, self.reverse = w, list(sizes), reverse
        self.N = self.sizes[0] if self.sizes else 0
        self.even = len(set(self.sizes)) <= 1

    @contextlib.contextmanager
    def each(self) -> Iterator[tuple[str, str]]:
        """Over sequences: (index, number of steps)."""
        with self.w.loop(self.N, 0, self.w.index()) as n:
            if self.even:
                yield n, str(len(self.sizes))
                return
            lengths = self.w.table([sum(size > k for size in self.sizes) for k in range(self.N)])
            yield n, f"{lengths}[{n}]"

    @contextlib.contextmanager
    def steps(self, n: str, count: str, back: bool = False) -> Iterator[None]:
        """Over the steps of a sequence, in the order of time, or against it: declares ``row``."""
        with self.w.loop(count, 0, self.w.index()) as k:
            t = k if self.reverse == back else f"({count} - 1 - {k})"
            if self.even:
                self.w(f"const int row = {t} * {self.N} + {n};")
            else:
                firsts = self.w.table([sum(self.sizes[:i]) for i in range(len(self.sizes))])
                self.w(f"const int row = {firsts}[{t}] + {n};")
            yield


@emits("recurrent")
def recurrent(w: Writer, x: Instruction) -> None:
    given, h0, c0, ih, hh, bias_ih, bias_hh, hr, mode, sizes, reverse = x.arguments[:11]
    out, h_n, c_n, saved, before = x.outs
    dtype, gates = given.dtype, GATES[mode]
    H, P = ih.sizes[0] // gates, hh.sizes[1]
    weight_ih, weight_hh = x.transposed(3) or ih, x.transposed(4) or hh
    weight_hr = None if hr is None else x.transposed(7) or hr
    gru = mode == "GRU"
    g, q, h, c, cells = _room(w, mode, H, P, hr, dtype)
    walk = Sequences(w, sizes, reverse)
    with walk.each() as (n, count):
        _set(w, h, _at(h0, n))
        if mode == "LSTM":
            _set(w, c, _at(c0, n))
        with walk.steps(n, count):
            if before is not None:
                _set(w, before.bind(["row"]), h)
            _product(w, g, given.bind(["row"]), weight_ih, bias_ih)
            if gru:
                _product(w, q, h, weight_hh, bias_hh)
            else:
                if bias_hh is not None:
                    _set(w, g, bias_hh, "+=")
                _product(w, g, h, weight_hh, g)
            keep = None if saved is None else saved.bind(["row"])
            with w.loop(H, 0, w.index()) as j:
                _cell(w, mode, dtype, H, j, [v.array for v in (g, q, c, cells if hr is not None else h)], keep)
            if weight_hr is not None:
                _product(w, h, cells, weight_hr, None)
            if out is not None:
                _set(w, out.bind(["row"]), h)
        if h_n is not None:
            _set(w, h_n.bind([n]), h)
        if c_n is not None:
            _set(w, c_n.bind([n]), c)


def _cell(w: Writer, mode: str, dtype: torch.dtype, H: int, j: str, arrays: list[str], saved: Value | None) -> None:
    """Unit j of a step, from the gates' sums."""
    g, q, c, h = arrays
    kind = TYPES[dtype]

    def gate(k: int) -> str:
        return f"{g}[{j}{f' + {k * H}' if k else ''}]"

    def of(function: str, text: str) -> str:
        return w.call(function, dtype, text)

    if mode == "LSTM":
        for k, (name, function) in enumerate((("i", "sigmoid"), ("f", "sigmoid"), ("z", "tanh"), ("o", "sigmoid"))):
            w(f"const {kind} {name}_ = {of(function, gate(k))};")
        w(f"const {kind} c_before = {c}[{j}];")
        w(f"{c}[{j}] = f_ * c_before + i_ * z_;")
        w(f"const {kind} squashed = {of('tanh', f'{c}[{j}]')};")
        w(f"{h}[{j}] = o_ * squashed;")
        names = ["i_", "f_", "z_", "o_", "c_before", "squashed", f"{h}[{j}]"]
    elif mode == "GRU":
        r, z = (of("sigmoid", f"{gate(k)} + {gate(k).replace(g, q, 1)}") for k in (0, 1))
        share = gate(2).replace(g, q, 1)
        w(f"const {kind} r_ = {r}, z_ = {z}, q_ = {share};")
        w(f"const {kind} n_ = {of('tanh', f'{gate(2)} + r_ * q_')};")
        w(f"{h}[{j}] = n_ + z_ * ({h}[{j}] - n_);")
        names = ["r_", "z_", "n_", "q_"]
    else:
        w(f"{h}[{j}] = {of('relu' if mode == 'RNN_RELU' else 'tanh', gate(0))};")
        names = [f"{h}[{j}]"]
    if saved is not None:
        for k, name in zip(range(saved.sizes[0] // H), names, strict=False):
            w(f"{saved.bind([f'({j} + {k * H})' if k else j]).element} = {name};")


@emits("recurrent_backward")
def recurrent_backward(w: Writer, x: Instruction) -> None:
    g_out, g_h, g_c, given, ih, hh, hr, saved, before, mode, sizes, reverse = x.arguments[:12]
    dx, dh0, dc0, dih, dhh, db_ih, db_hh, dhr = x.outs
    dtype, gates = given.dtype, GATES[mode]
    H, P = ih.sizes[0] // gates, hh.sizes[1]
    gru = mode == "GRU"
    for target in (dih, dhh, db_ih, db_hh, dhr):
        if target is not None:
            _set(w, target, None)
    to_inputs, to_state, dh, dc, dcells = _room(w, mode, H, P, hr, dtype)
    if not gru:
        to_state = to_inputs
    walk = Sequences(w, sizes, reverse)
    with walk.each() as (n, count):
        _set(w, dh, _at(g_h, n))
        if mode == "LSTM":
            _set(w, dc, _at(g_c, n))
        with walk.steps(n, count, back=True):
            if g_out is not None:
                _set(w, dh, g_out.bind(["row"]), "+=")
            at, of_h = saved.bind(["row"]), dh
            if hr is not None:
                of_h = dcells
                contract(w, dcells, _rows(dh), hr.view(lambda t: t.t()), 1)
                if dhr is not None:
                    _outer(w, dhr, dh, at.view(lambda t: t.narrow(0, 6 * H, H)))
            with w.loop(H, 0, w.index()) as j:
                _cell_back(w, mode, dtype, H, j, of_h.array, dc.array, (to_inputs.array, to_state.array), at, before)
            if dx is not None:
                contract(w, dx.bind(["row"]), _rows(to_inputs), ih.view(lambda t: t.t()), 1)
            for weight, bias, gate, vector in (
                (dih, db_ih, to_inputs, given.bind(["row"])),
                (dhh, db_hh, to_state, before.bind(["row"])),
            ):
                if weight is not None:
                    _outer(w, weight, gate, vector)
                if bias is not None:
                    _set(w, bias, gate, "+=")
            contract(w, dh, _rows(to_state), hh.view(lambda t: t.t()), 1, dh if gru else None)
        if dh0 is not None:
            _set(w, dh0.bind([n]), dh)
        if dc0 is not None:
            _set(w, dc0.bind([n]), dc)


def _outer(w: Writer, out: Value, left: Value, right: Value) -> None:
    """out [N, M] += left [N] right [M]"""
    column = left.view(lambda t: t.unsqueeze(1))
    with w.over(out.sizes, out, column, right) as (to, a, b):
        w(f"{to.element} += {a.element} * {b.element};")


def _cell_back(
    w: Writer, mode: str, dtype: torch.dtype, H: int, j: str, dh: str, dc: str, to: Any, saved: Value, before: Value
) -> None:
    """Unit j's gradients at the gates' sums, from that of h; dc, and a GRU's dh, become what the step before gets."""
    kind, (inputs, state) = TYPES[dtype], to

    def at(k: int) -> str:
        return saved.bind([f"({j} + {k * H})" if k else j]).element

    def gate(array: str, k: int) -> str:
        return f"{array}[{j}{f' + {k * H}' if k else ''}]"

    if mode == "LSTM":
        w(f"const {kind} i_ = {at(0)}, f_ = {at(1)}, z_ = {at(2)}, o_ = {at(3)}, squashed = {at(5)};")
        w(f"const {kind} d = {dc}[{j}] + {dh}[{j}] * o_ * (1 - squashed * squashed);")
        w(f"{gate(inputs, 0)} = d * z_ * i_ * (1 - i_);")
        w(f"{gate(inputs, 1)} = d * {at(4)} * f_ * (1 - f_);")
        w(f"{gate(inputs, 2)} = d * i_ * (1 - z_ * z_);")
        w(f"{gate(inputs, 3)} = {dh}[{j}] * squashed * o_ * (1 - o_);")
        w(f"{dc}[{j}] = d * f_;")
    elif mode == "GRU":
        h = before.bind(["row"]).bind([j]).element
        w(f"const {kind} r_ = {at(0)}, z_ = {at(1)}, n_ = {at(2)}, d = {dh}[{j}];")
        w(f"const {kind} dz = d * ({h} - n_) * z_ * (1 - z_), dn = d * (1 - z_) * (1 - n_ * n_);")
        w(f"const {kind} dr = dn * {at(3)} * r_ * (1 - r_);")
        w(f"{gate(inputs, 0)} = {gate(state, 0)} = dr;")
        w(f"{gate(inputs, 1)} = {gate(state, 1)} = dz;")
        w(f"{gate(inputs, 2)} = dn, {gate(state, 2)} = dn * r_;")
        w(f"{dh}[{j}] = d * z_;")
    elif mode == "RNN_RELU":
        w(f"{gate(inputs, 0)} = {at(0)} <= 0 ? 0 : {dh}[{j}];")
    else:
        w(f"{gate(inputs, 0)} = {dh}[{j}] * (1 - {at(0)} * {at(0)});")
