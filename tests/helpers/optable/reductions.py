"""Rows of the reductions and scans."""

# fmt: off
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

import tapegrad as tg

from .spec import K1, K, R, Row, S, Sample, Spec, V, bools

NAN, INF = float("nan"), float("inf")


def over(draw: Callable[..., Spec] = R, whole: bool = True, several: bool = True, empty: bool = True) -> list[Sample]:
    """All of it, one dim from either end, several dims, keepdim, 0-dim; dims of size 0 beside and under it."""
    x = draw(2, 3, 4)
    samples = [S(x, 1), S(x, -1, True), S(x, dim=0, keepdim=True), S(draw(), 0), S(draw(), -1, keepdim=True)]
    samples += [K(draw(3, 0, 2), 0), K(draw(3, 0, 2), dim=-1, keepdim=True), S(draw(1, 3), 0)]
    samples += [S(x), S(draw()), S(draw(1))] if whole else []
    samples += [S(x, (0, 2)), S(x, (-1, 0), True), S(x, (1,)), S(x, dim=(0, 1, 2), keepdim=True)] if several else []
    return samples + ([K(draw(0, 3), 0), *([K(draw(0))] if whole else [])] if empty else [])


def wide(*shape: int) -> Spec:
    """At least two numbers along every dimension, so that there is a variance."""
    return R(*(max(n, 2) for n in shape or (2,)))


def every(name: str, **more: Any) -> list[Sample]:
    """`dim` None and () mean all dimensions."""
    return [S(R(2, 3), None, True), S(R(2, 3), dim=()), S(R(2, 3), (), True)]


tied = V([[1.0, 3.0, 3.0], [2.0, 2.0, 2.0]])
_TIES = [K(tied), K(tied, 1), K(tied, (0, 1), True), K(tied, 0, True), K(V([NAN, 1.0])), K(V([INF, INF, 1.0]))]
_TIES_DIM = [K(tied), K(tied, 1), K(tied, 0, True), K(V([NAN, 1.0])), K(V([[NAN, 1.0], [2.0, 2.0]]), 1)]

_ZEROS = [V([2.0, 0.0, 3.0]), V([2.0, 0.0, 0.0]), V([0.0, 0.0, 0.0]), V([[2.0, 0.0], [0.0, 0.0]])]
_REDUCTIONS: dict[str, list[Sample]] = {
    "sum": [*over(), *every("sum"), S(R(3).to(torch.float32), dtype=torch.float64), S(R(2, 3), 0, dtype=torch.float64)],
    "mean": [*over(), *every("mean"), S(R(2, 3), 0, dtype=torch.float64)],
    "amax": [*over(empty=False), S(R(2, 3), ()), S(R(2, 3), (), True), *_TIES],
    "amin": [*over(empty=False), S(R(2, 3), ()), S(R(2, 3), (), True), *_TIES],
    "max": [*over(several=False, empty=False), S(R(2, 3), R(3)), K(tied, V([1.0, 3.0, 2.0])), *_TIES_DIM],
    "min": [*over(several=False, empty=False), S(R(2, 3), R(3)), K(tied, V([1.0, 3.0, 2.0])), *_TIES_DIM],
    "prod": [
        *over(several=False), *(S(v) for v in _ZEROS), *(S(v, 0) for v in _ZEROS), S(_ZEROS[3], 1, True),
        S(R(2, 3), 0, dtype=torch.float64),
    ],
    "logsumexp": [
        *over(whole=False), K(V([[INF, 1.0], [-INF, -INF], [-INF, 1.0]]), 1), K(V([[1e4, -1e4], [1e4, 1e4 + 1]]), 1),
        K(V([1e4, -1e4]), (0,)),
    ],
    "cumsum": [S(R(2, 3, 4), dim) for dim in (0, 1, -1)] + [
        S(R(), 0), S(R(0, 3), 0), S(R(3, 0), 0), S(R(3), dim=0, dtype=torch.float64),
    ],
    "cumprod": [
        *(S(R(2, 3, 4), dim) for dim in (0, 1, -1)), S(R(), 0), S(R(0, 3), 0), S(R(3, 0), dim=0),
        *(S(v, 0) for v in _ZEROS), *(S(v, -1) for v in _ZEROS), S(V([0.0, 1.0, 2.0]), 0), S(V([1.0, 2.0, 0.0]), 0),
        S(V([[0.0, 2.0, 0.0, 3.0, 0.0, 4.0]]), 1),
    ],
}

one = V([1.5])  # a single element has no variance: NaN, and so has its derivative
_SPREAD = [
    *over(wide, whole=False, empty=False), S(R(2, 3)), K1(one), K1(V(1.5), 0), K1(V(1.5)), K1(R(0)), K1(R(0, 3), 0),
    K1(R(3, 1), 1), K1(one, correction=0), S(R(2, 3), 1, unbiased=False), S(R(2, 3), 1, correction=0),
    S(R(2, 3), dim=(0, 1), correction=2, keepdim=True),
    S(R(4), unbiased=False), S(R(2, 3), None, correction=0, keepdim=True), S(R(2, 3), False), S(R(2, 3), 1, True, True),
    K1(V([2.0, 2.0, 2.0])), K1(V([[1.0, 1.0], [1.0, 2.0]]), 1),
]
_NORM = [
    *(S(R(2, 3, 4), p) for p in (2, 1, 3, 0.5, INF, -INF, 0, -1, "fro")),
    *(S(R(2, 3, 4), p, 1) for p in (2, 1, 3, INF, -INF, 0)),
    S(R(2, 3)), S(R(2, 3), dim=-1, keepdim=True), S(R(2, 3), 2, (0, 1)), S(R(2, 3), 1, (0, 1), True),
    S(R(2, 3, 4), INF, (0, 2)),
    S(R()), S(R(), 1, 0), S(R(0)), S(R(0, 3), 2, 0), S(R(3, 0), 1, 0), S(R(3, 0), INF, 0),
    S(R(3), dtype=torch.float64), S(R(2, 3), "fro", (0, 1)),
    *(K(V([0.0, 0.0, 0.0]), p) for p in (1, INF, -INF, 0)), *(K1(V([0.0, 0.0, 0.0]), p) for p in (2, "fro")),
    K(V([0.0, 1.0, -2.0]), 1), K(V([0.0, 1.0, -2.0]), 2), K1(V([[0.0, 0.0], [3.0, 4.0]]), 2, 1),
    K(V([2.0, -2.0, 1.0]), INF),
    K1(V([0.0, 0.0]), 3), K1(V([0.0, 1.0]), 0.5), K1(V([0.0, 1.0]), 1.5), K(V([0.0, 1.0]), 3),
]
_NUCLEAR = [
    S(R(3, 2)), S(R(2, 4)), S(R(3, 3), keepdim=True), S(R(1, 1)), S(R(2, 3, 2), (0, 2)), S(R(2, 3, 4), (-1, 1), True),
    S(R(0, 2, 3), (1, 2)), S(R(2, 3), dtype=torch.float64),
]

_COUNTS = {
    "argmax": [*over(several=False, empty=False), S(R(2, 3), None, True), K(V([1.0, 3.0, 3.0]), 0), K(V([NAN, 3.0]))],
    "argmin": [*over(several=False, empty=False), S(R(2, 3), None, True), K(V([1.0, 1.0, 3.0]), 0), K(V([NAN, 3.0]))],
    "all": [*over(), S(bools([[True, False], [True, True]]), 1), S(bools([True, True])), S(V([NAN, 1.0]))],
    "any": [*over(), S(bools([[True, False], [False, False]]), 1), S(bools([])), S(V([NAN, 0.0]))],
}

_OURS = ("sum", "mean", "logsumexp")
_OPS = {"cumprod": ("cumprod", "linear_recurrence")}

rows = [
    *(
        Row(name, s, ops=_OPS.get(name, ()), integers=True, family="reduction", exact=name not in _OURS)
        for name, s in _REDUCTIONS.items()
    ),
    Row("var", _SPREAD, exact=False, family="reduction", integers=True),
    Row("std", _SPREAD, exact=False, family="reduction", integers=True),
    Row("norm", _NORM, exact=False, integers=True),
    Row(
        "nuclear_norm", _NUCLEAR, reference=lambda x, *a, **k: torch.norm(x, "nuc", *a, **k),
        call=lambda x, *a, **k: tg.norm(x, "nuc", *a, **k), exact=False, ops=("nuclear_norm", "polar"),
        third=("lyapunov",), method=False,
    ),
    *(Row(name, samples, differentiable=False, integers=True) for name, samples in _COUNTS.items()),
]
