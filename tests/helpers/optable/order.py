"""Rows of order statistics, scans that choose, and writing by index into a copy."""

# fmt: off
from __future__ import annotations

import torch

from .spec import K0, K1, D, K, Q, R, Row, S, Sample, V, bools, data, ints

NAN, INF = float("nan"), float("inf")
tied = V([[1.0, 3.0, 3.0], [2.0, 2.0, 2.0]])
holes = V([[1.0, NAN, 3.0, 0.5], [NAN, NAN, NAN, 2.0]])
x = D(2, 3, 4)
mask = bools([[True, False, True], [False, False, True]])
at = ints([[0, 1, 2, 0], [2, 2, 0, 0]])
once = ints([[0, 1, 2, 0], [2, 2, 0, 1]])  # no element twice, so that any order is torch's

_CHOICES: dict[str, list[Sample]] = {
    "median": [S(x), S(x, 1), S(x, -1, True), S(D()), S(D(), 0), S(D(1)), K(tied), K(V([NAN, 1.0])), S(D(0, 3), 1),
               K(holes, 1)],
    "nanmedian": [S(x), S(x, 1), S(x, dim=0, keepdim=True), S(D()), S(D(1)), K(tied), K(holes), K(holes, 1), S(D(0,
              3), 1)],
    "kthvalue": [S(x, 2), S(x, 1, 0), S(x, 3, 1, True), S(D(1), 1), S(D(), 1), S(D(0, 3), 2, 1), K(V([2.0, NAN, 1.0]),
              3)],
    "cummax": [S(x, 0), S(x, -1), S(D(), 0), S(D(1), 0), S(D(0, 2), 1), K(tied, 1), K(V([1.0, NAN, 3.0]), 0)],
    "cummin": [S(x, 0), S(x, -1), S(D(), 0), S(D(1), 0), S(D(0, 2), 1), K(tied, 1), K(V([1.0, NAN, 3.0]), 0)],
    "nansum": [S(x), S(x, 1), S(x, (0, 2), True), S(D()), S(D(0, 2), 0), K(holes), K(holes, 1)],
    "nanmean": [S(x), S(x, 1), S(x, (0, 2), True), S(D()), K(D(0, 2), 1), K(holes), K0(holes, 0)],
    "var_mean": [S(x), S(x, 1), S(x, (0, 2), True, True), S(x, False), S(x, 1, correction=0), S(R(1), correction=0),
                 K(R(0, 2), 1)],
    "std_mean": [S(x), S(x, 1), S(x, (0, 2), True, True), S(x, 1, correction=0), K1(R(1), correction=0), K(R(0, 2), 1)],
    "dist": [S(R(2, 3), R(3)), S(R(4), R(4), 1), S(R(4), R(4), INF), S(R(1), R(1)), S(R(0), R(0)), S(R(3), R(3), 3.0)],
    "take": [S(R(2, 3), ints([[0, 5], [-1, 2]])), S(R(3), ints([1, 1])), S(R(1), ints(0)), S(R(0), ints([]))],
    "masked_select": [S(R(2, 3), mask), S(R(3), mask), S(R(1), bools([True])), S(R(0), bools([])), S(R(2, 2, 3), mask)],
    "masked_scatter": [S(R(2, 3), mask, R(3)), S(R(3), mask, R(2, 2)), S(R(1), bools([True]), R(1)),
                       S(R(0), bools([]), R(0)), S(R(2), bools([False, False]), R(0))],
    "select_scatter": [S(R(2, 3), R(2), 1, 0), S(R(2, 3), R(3), 0, -1), S(R(1), R(), 0, 0), S(R(0, 2), R(0), 1, 1)],
    "slice_scatter": [S(R(4, 3), R(2, 3), 0, 1, 3), S(R(2, 5), R(2, 3), 1, step=2), S(R(1), R(1)), S(R(0, 2), R(0, 2)),
                      S(R(3), R(0), 0, 2, 1), S(R(2, 3), R(2, 1), dim=-1, start=-1)],
    "index_copy": [S(R(3, 2), 0, ints([2, 0]), R(2, 2)), S(R(2, 3), -1, ints([1]), R(2, 1)), S(R(), 0, ints([0]), R()),
                   S(R(1), 0, ints(0), R(1)), S(R(0, 2), 1, ints([1]), R(0, 1))],
    "index_fill": [S(R(3, 2), 0, ints([2, 0]), 1.5), S(R(2, 3), -1, ints([1, 1]), R()), S(R(), 0, ints([0]), 2.0),
                   S(R(1), 0, ints([]), 1.0), S(R(0, 2), 1, ints([1]), 1.0)],
    "index_put": [S(R(3, 4), (ints([0, 2]), ints([1, 1])), R(2)), S(R(3, 4), (ints([0, 2]),), R(2, 4)), S(R(2, 3),
              (mask,), R()),
                  S(R(3, 4), (ints([0, 0, 1]), ints([1, 1, 2])), R(3), True), S(R(3, 4), [ints([1, 1])], R(4),
              accumulate=True),
                  S(R(1), (ints([0]),), R(1)), S(R(0), (ints([]),), R(0))],
}

_REDUCES = [S(R(3, 4), 0, at, R(2, 4), r, include_self=own)
            for r in ("sum", "mean", "amax", "amin", "prod") for own in (True, False)]

rows = [
    *(Row(name, samples, exact=False, ops={"median": ("median",), "nanmedian": ("nanmedian",)}.get(name, ()),
          method=hasattr(torch.Tensor, name)) for name, samples in _CHOICES.items()),
    *(Row(name, [
        S(D(7), 0.3), S(D(3, 4), 0.5, 1), S(D(3, 5), data(V([0.1, 0.5, 1.0])), 0), S(D(3, 5), data(V([0.2, 0.0])), -1,
        True), S(D(5), Q(2)),
        *(S(D(6), 0.45, interpolation=way) for way in ("lower", "higher", "midpoint", "nearest")), S(D(), 0.3),
              S(D(1), 0.3, 0),
        S(D(4), 0.3, None, True), K(holes, 0.5, 1), K(holes, V([0.5, 0.2]), 0, True), K(V([NAN, NAN]), 0.5),
        S(D(3), V([])),
    ], exact=False) for name in ("quantile", "nanquantile")),
    Row("embedding_bag", [
        *(S(ints([[0, 2, 1], [3, 3, 0]]), D(4, 3), mode=mode) for mode in ("sum", "mean", "max")),
        *(S(ints([0, 2, 1, 3]), D(4, 3), ints([0, 2, 2]), mode=mode, padding_idx=1) for mode in ("sum", "mean", "max")),
        S(ints([0, 2, 1, 3]), D(4, 3), ints([0, 1, 4]), include_last_offset=True),
        S(ints([[0, 2], [1, 1]]), R(4, 3), mode="sum", per_sample_weights=R(2, 2)), S(ints([[0]]), R(1, 1)),
        S(ints([]), R(2, 3), ints([0, 0])), K1(ints([[0, 2], [2, 2]]), R(4, 3), None, None, 2.0, True, "sum"),
    ], exact=False, method=False),
    Row("grid_sample", [
        *(S(R(2, 3, 4, 5), R(2, 3, 2, 2), mode, padding, corners) for padding in ("zeros", "border", "reflection")
          for mode, corners in (("bilinear", False), ("bilinear", True))),
        *(S(R(2, 3, 4, 5), data(R(2, 3, 2, 2)), "nearest", padding, corners)
          for padding in ("zeros", "border", "reflection") for corners in (False, True)),
        S(R(1, 1, 1, 1), R(1, 1, 1, 2), align_corners=False), S(R(1, 2, 3, 3), R(1, 0, 2, 2), align_corners=False),
    ], exact=False, method=False),
    Row("aminmax", [
        S(x), S(x, dim=1), S(x, dim=-1, keepdim=True), S(D()), S(D(1)), S(D(0, 2), dim=1), K(tied), K(tied, dim=1),
        K(V([NAN, 1.0])),
    ], exact=False),
    Row("logcumsumexp", [
        S(R(2, 3, 4), 1), S(R(2, 3), -1), S(R(), 0), S(R(1), 0), S(R(0, 3), 0), K(V([1e4, -1e4,
        1e4 + 1]).to(torch.float64), 0),
        K(V([-1e4, 1e4]).to(torch.float64), 0),
    ], exact=False),
    Row("scatter", [
        S(R(3, 4), 0, once, R(2, 4)), K0(R(3, 4), 1, ints([[1, 0], [3, 2]]), R(3, 3)), S(R(4), 0, ints([1, 3]), 2.5),
        S(R(4), 0, ints([1, 3]), value=2.5), S(R(), 0, ints(0), R()), S(R(1), 0, ints([0]), R(1)),
        S(R(0, 3), 1, ints([], (0, 2)), R(0, 2)),
    ], ops=("scatter", "scatter_value")),
    Row("scatter_reduce", [
        *_REDUCES, K0(R(4), 0, ints([1, 1]), R(3), "mean"), S(R(1), 0, ints([0]), R(1), "prod"), S(R(), 0, ints(0),
              R(), "amax"),
        S(R(0), 0, ints([]), R(0), "sum"), K1(V([1.0, 2.0, 2.0]), 0, ints([1, 1, 2]), V([2.0, 2.0, 3.0]), "amax"),
        K1(V([1.0, 2.0, 2.0]), 0, ints([1, 1, 2]), V([2.0, 0.0, 3.0]), "prod"),
        K1(V([0.0, 2.0]), 0, ints([0, 0, 1]), V([2.0, 5.0, 3.0]), "prod"),
    ], exact=False, method=True),
]
