"""Rows of the special functions and the rarer elementwise ones."""

# fmt: off
from __future__ import annotations

import torch

from .elementwise import pairs, ties, unary, zero
from .spec import K0, K1, K, P, R, Row, S, U, V

NAN, INF = float("nan"), float("inf")

_UNARY = {
    "asinh": zero(),
    "acosh": [*(S(V(x)) for x in (1.5, [1.2, 3.0], [[2.0]])), S(P(0, 3)), K1(V([1.0, 0.5]))],
    "atanh": [*unary(U)[:-1], K1(V([1.0, -1.0, 1.5]))],
    "exp2": unary(),
    "erfc": zero(),
    "erfinv": [*unary(U)[:-1], K1(V([1.0, -1.0, 1.5, NAN]))],
    "lgamma": [*unary(P)[:-1], S(V([-0.5, -1.5, 7.0])), K1(V([0.0, -1.0, INF]))],
    "digamma": [*unary(P)[:-1], S(V([-0.5, 7.0])), K1(V([0.0, -1.0]))],
    "frac": [*unary()[:-1], K(V([-1.0, 0.0, 2.0]))],
    "deg2rad": unary(),
    "rad2deg": unary(),
    "sgn": [*unary()[:-1], K(V([0.0, -0.0]))],
    "sinc": [*unary()[:-1], S(V([1e-3, -1e-3, 0.014, 0.017]).to(torch.float64)), K1(V([0.0])), K0(V([INF, NAN]))],
    "nan_to_num": [*unary()[:-1], K(V([NAN, INF, -INF, 1.0])), K(V([NAN, INF, -INF]), 1.0, 2.0, 3.0)],
}
_BINARY = {
    "hypot": [*pairs(P, numbers=False), K1(V([3.0, 0.0]), V([4.0, 0.0]))],
    "copysign": [*pairs(), K1(V([1.0, -2.0, 0.0, 3.0]), V([-1.0, -0.0, -1.0, 0.0]))],
    "fmax": [*pairs(numbers=False), ties([1.0, NAN, 3.0, NAN], [1.0, 3.0, NAN, NAN])],
    "fmin": [*pairs(numbers=False), ties([1.0, NAN, 3.0, NAN], [1.0, 3.0, NAN, NAN])],
    "logaddexp": [*pairs(numbers=False), K1(V([1e3, -1e3]), V([-1e3, -1e3]))],
    "logaddexp2": [*pairs(numbers=False), K1(V([1e3, -1e3]), V([-1e3, -1e3]))],
    "xlogy": [*pairs(R, P), K1(V([0.0, 0.0, 1.0, 0.0]), V([0.0, 1.0, 2.0, NAN])), S(2.5, P(3))],
}

rows = [
    *(Row(name, samples) for name, samples in _UNARY.items()),
    *(Row(name, samples) for name, samples in _BINARY.items()),
    Row("polygamma", [S(1, P(3)), S(2, P(2, 2)), S(0, P()), S(1, P(0, 2))], method=False),
]
