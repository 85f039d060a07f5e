"""Rows of the shape ops: views, joins, padding, reading and writing by index, sorting."""

# fmt: off
from __future__ import annotations

from typing import Any

import torch

import tapegrad as tg

from .spec import K1, K, R, Row, S, V, bools, data, ints

x = R(2, 3, 4)
NAN = float("nan")
mask = bools([[True, False, True], [False, False, True]])


def _written(x: Any, index: Any, value: Any) -> Any:
    """A clone of x with ``x[index] = value``."""
    copy = x.clone()
    copy[index] = value
    return copy


def _read(x: Any, index: Any) -> Any:
    return x[index]


_INDICES: list[tuple[tuple[int, ...], Any]] = [
    ((3, 4), 1), ((3, 4), -1), ((3, 4), slice(1, 3)), ((3, 4), (slice(None), 2)),
    ((3, 4), (slice(None, None, 2), slice(1, None))),
    ((3, 4), None), ((3, 4), (None, 0, ..., None)), ((3, 4), ...), ((2, 3, 4), (..., 1)),
    ((2, 3, 4), (0, ..., slice(0, 2))),
    ((3, 4), ints([0, 2, 0])), ((3, 4), (ints([0, 2]), ints([1, 1]))), ((3, 4), (slice(None), ints([[0, 3], [3, 3]]))),
    ((2, 3, 4), (ints([0, 1, 1]), slice(None), ints([0, 3, 3]))), ((2, 3, 4), (0, slice(None), ints([1, 1]))),
    ((2, 3), mask), ((3,), bools([False, False, False])), ((3, 4), (bools([True, False, True]), 1)),
    ((3, 4), (ints(2),)),
    ((2, 3, 4), mask), ((2, 3, 4), (..., ints([-1, 0]))), ((0, 3), ints([])), ((3, 4), slice(2, 1)), ((), ()),
    ((), None), ((), ...),
    ((3, 4), (ints([[0], [2]]), ints([1, 3]))), ((3, 4), [0, 2, 0]), ((3, 4), ([0, 1], [1, 3])), ((2,), True),
    ((2,), False),
    ((3, 4), (slice(None), None, ints([1, 0]))), ((3,), ints([], (0,))), ((4,), slice(-3, None)),
]
_WRITES: list[tuple[tuple[int, ...], Any, tuple[int, ...]]] = [
    ((3, 4), 1, (4,)), ((3, 4), 1, ()), ((3, 4), slice(1, 3), (4,)), ((3, 4), (slice(None), 2), (3,)),
    ((3, 4), ..., (3, 4)),
    ((3, 4), ints([0, 2]), (2, 4)), ((3, 4), (ints([0, 2]), ints([1, 1])), (2,)), ((2, 3), mask, (3,)),
    ((2, 3), mask, ()),
    ((3, 4), (slice(None), ints([0, 3])), (3, 2)), ((0, 3), slice(None), (3,)), ((2, 3, 4), (..., 1), (2, 3)),
    ((), ..., ()),
]
_PADS: list[tuple[Any, ...]] = [
    ((2, 3), [1, 2]), ((2, 3, 4), [1, 0, 0, 2]), ((4,), [-1, 2]), ((0, 3), [1, 1]), ((2, 3), [0, 0]), ((1,), [2, 1]),
]

def _vandermonde(x: torch.Tensor, N: int | None = None, increasing: bool = False) -> torch.Tensor:
    """torch's own has no gradient: it multiplies in place."""
    powers = torch.arange(len(x) if N is None else N)
    return x.unsqueeze(1) ** (powers if increasing else powers.flip(0))


def _placed(input, src, *place):  # torch 2.13's own as_strided_scatter fails torch's gradcheck
    y = input.clone()
    y.as_strided(*place).copy_(src)
    return y


def _dense(name):  # places in memory mean the same for elements that lie in order
    return lambda input, *args: getattr(tg, name)(tg.Tensor.contiguous(input), *args)


rows = [
    Row(
        "reshape",
        [
            S(x, (6, 4)), S(x, (-1,)), S(R(), (1, 1)), S(R(1), ()), S(R(0, 3), (3, 0)), S(R(0, 3), (-1, 3)),
            S(x, [4, -1]),
        ],
        family="shape",
    ),
    Row("view", [S(x, (6, 4)), S(x, (2, -1)), S(R(), (1,)), S(R(0, 3), (3, 0))]),
    Row("flatten", [S(x), S(x, 1), S(x, 0, 1), S(x, start_dim=-2), S(x, 1, 1), S(R()), S(R(0, 3)), S(R(2, 0, 3), 1)]),
    Row(
        "unflatten",
        [
            S(R(2, 6), 1, (2, 3)), S(R(2, 6), -1, (-1, 2)), S(R(4, 2), dim=0, sizes=(2, 2)), S(R(0, 4), 1, (2, 2)),
            S(R(1), 0, (1, 1)),
        ],
    ),
    Row(
        "transpose", [S(x, 0, 1), S(x, -1, 0), S(x, 1, 1), S(R(), 0, -1), S(R(0, 3), 0, 1), S(R(2, 3), dim0=0, dim1=1)],
    ),
    Row("permute", [S(x, (2, 0, 1)), S(x, (-1, 0, -2)), S(R(), ()), S(R(0, 3), (1, 0)), S(R(2, 3), dims=(1, 0))]),
    Row(
        "movedim",
        [S(x, 0, 2), S(x, -1, 0), S(x, (0, 1), (2, 0)), S(x, (0, -1), (-1, 0)), S(R(), 0, 0), S(R(0, 3), 0, 1)],
    ),
    Row(
        "squeeze",
        [
            S(R(1, 3, 1)), S(R(1, 3, 1), 0), S(R(1, 3, 1), -1), S(R(1, 3, 1), 1), S(R(1, 3, 1), (0, 2)), S(R()),
            S(R(), 0), S(R(0, 1)),
        ],
    ),
    Row("unsqueeze", [S(x, 0), S(x, -1), S(x, 2), S(R(), 0), S(R(), -1), S(R(0, 3), dim=1)]),
    Row(
        "expand",
        [
            S(R(2, 1), (2, 3)), S(R(3), (2, 3)), S(R(2, 1), (-1, 4)), S(R(), (2, 2)), S(R(), ()), S(R(1), (0,)),
            S(R(0, 1), (0, 3)), S(R(1, 3), (2, 1, -1)),
        ],
    ),
    Row(
        "broadcast_to",
        [S(R(2, 1), (2, 3)), S(R(3), (2, 3)), S(R(), (2, 2)), S(R(), ()), S(R(1), (0,)), S(R(0, 1), (0, 3))],
    ),
    Row(
        "repeat",
        [
            S(R(2, 3), (2, 1)), S(R(3), (2, 2)), S(R(), (3,)), S(R(), ()), S(R(2), (0,)), S(R(0, 2), (2, 3)),
            S(R(2, 3), (1, 2, 3)),
        ],
    ),
    Row(
        "tile",
        [
            S(R(2, 3), (2,)), S(R(2, 3), (2, 1)), S(R(3), (2, 2)), S(R(), (3,)), S(R(2), ()), S(R(0, 2), (2, 3)),
            S(R(2), (0,)),
        ],
        ops=(),
    ),
    Row("cat", [
        S([R(2, 3), R(1, 3)]), S([R(2, 3), R(2, 1), R(2, 2)], 1), S([R(2, 3), R(2, 1)], dim=-1), S([R(0, 3), R(2, 3)]),
        S((R(2),)),
        S([R(0), R(2, 3)], 1), K([R(2).to(torch.float32), R(2).to(torch.float64)]), S([R(2), ints([1, 2])]),
        S([R(0, 2), R(0, 2)]),
        S([x, x], 2), S([R(2), data(R(3))]), S([R(1), R(1)]),
    ]),
    Row(
        "stack",
        [
            S([R(2, 3), R(2, 3)]), S([R(2), R(2), R(2)], 1), S([R(2), R(2)], dim=-1), S([R(), R()]), S([R(0), R(0)]),
            S([x, x], 2),
        ],
    ),
    Row(
        "split",
        [
            S(R(5, 2), 2), S(R(2, 5), 2, 1), S(R(2, 5), [1, 4], -1), S(R(5), 7), S(R(4), [0, 4]), S(R(0, 3), 2),
            S(R(3, 0), 2, dim=0), S(R(1), 1),
        ],
    ),
    Row(
        "chunk", [S(R(5, 2), 2), S(R(2, 5), 3, 1), S(R(3), 5), S(R(0, 3), 2), S(R(2, 4), chunks=2, dim=-1), S(R(1), 1)],
    ),
    Row("unbind", [S(x), S(x, 1), S(x, -1), S(R(2)), S(R(2, 0)), S(R(0, 2), 1), S(R(1, 1))]),
    Row("flip", [S(x, (0,)), S(x, (0, -1)), S(x, ()), S(R(), ()), S(R(0, 3), (1,)), S(R(3), dims=[0])]),
    Row(
        "roll",
        [
            S(x, 1), S(x, 2, 1), S(x, (1, -1), (0, 2)), S(x, -5, -1), S(R(), 1), S(R(0, 3), 1, 0),
            S(R(4), shifts=3, dims=0), S(R(3), 0, 0),
        ],
    ),
    Row(
        "tril",
        [
            S(R(1, 1)), S(R(3, 4)), S(R(3, 4), 1), S(R(2, 3, 3), -1), S(R(3, 0)), S(R(0, 3, 3)),
            S(R(4, 3), diagonal=-2), K(V([[1.0, NAN], [2.0, 3.0]])),
        ],
    ),
    Row(
        "triu",
        [
            S(R(1, 1)), S(R(3, 4)), S(R(3, 4), 1), S(R(2, 3, 3), -1), S(R(3, 0)), S(R(0, 3, 3)),
            S(R(4, 3), diagonal=-2), K(V([[1.0, 2.0], [NAN, 3.0]])),
        ],
    ),
    Row(
        "diagonal",
        [
            S(R(1, 1)), S(R(3, 4)), S(R(3, 4), 1), S(R(3, 4), -2), S(x, 0, 0, 2), S(x, 1, -1, 0), S(R(0, 3)),
            S(R(3, 3), 3), S(R(2, 2, 2), offset=0, dim1=1, dim2=2),
        ],
        ops=("diagonal", "diagonal_backward"),
    ),
    Row("pad", [
        *(S(R(*shape), pads) for shape, pads in _PADS), *(S(R(*shape), pads, "constant", 1.5) for shape, pads in _PADS),
        S(R(2, 3), (1, 1), value=-2.0),
        *(S(R(1, 2, 4), [1, 2], mode) for mode in ("reflect", "replicate", "circular")),
        S(R(2, 3), [3, 0], mode="circular"), S(R(2, 3), [4, 1], "replicate"),
        *(S(R(1, 2, 4, 3), [1, 2, 2, 1], mode=mode) for mode in ("reflect", "replicate", "circular")),
        S(R(1, 3, 3), [-1, 2], "replicate"), S(R(1, 4), [-1, 1], "reflect"),
    ], ops=("constant_pad_nd",), method=False),
    Row(
        "narrow",
        [
            S(R(1), 0, 0, 1), S(x, 1, 0, 2), S(x, -1, 1, 3), S(x, 0, -1, 1), S(x, 2, 4, 0), S(R(0, 3), 1, 1, 1),
            S(R(3), dim=0, start=1, length=2),
        ],
    ),
    Row(
        "select",
        [S(R(1), 0, 0), S(x, 0, 1), S(x, -1, -2), S(R(3), 0, 0), S(R(0, 3), 1, 2), S(R(2, 3), dim=1, index=-3)],
    ),
    Row(
        "index_select",
        [
            S(x, 0, ints([0, 1, 1])), S(x, -1, ints([3])), S(x, 1, ints([])), S(R(0, 3), 1, ints([2, 2])),
            S(R(), 0, ints([0])), S(R(3), dim=0, index=ints(1)),
        ],
    ),
    Row(
        "index_add",
        [
            S(R(3, 2), 0, ints([0, 2, 0]), R(3, 2)), S(R(2, 3), -1, ints([1]), R(2, 1)), S(R(3), 0, ints([]), R(0)),
            S(R(3), 0, ints([0, 0]), R(2)), S(R(3, 2), 0, ints([0, 2]), R(2, 2), alpha=-0.5),
        ],
    ),
    Row("gather", [
        S(R(3, 4), 0, ints([[0, 1, 2, 0], [2, 2, 0, 0]])), S(R(3, 4), 1, ints([[3, 3], [0, 1], [2, 0]])),
        S(R(3, 4), -1, ints([[0]])), S(R(4), 0, ints([1, 1, 3])),
        S(R(3), 0, ints([])), S(R(), 0, ints(0)), S(R(2, 3), dim=1, index=ints([[0, 2]])),
        S(R(0, 3), 1, ints([], (0, 2))),
    ]),
    Row("scatter_add", [
        S(R(3, 4), 0, ints([[0, 1, 2, 0], [2, 2, 0, 0]]), R(2, 4)), S(R(3, 4), -1, ints([[3, 3], [0, 1]]), R(2, 2)),
        S(R(4), 0, ints([1, 1, 3]), R(3)),
        S(R(4), 0, ints([]), R(0)), S(R(), 0, ints(0), R()), S(R(3, 4), 1, ints([[1, 1]]), R(1, 2)),
    ]),
    Row("take_along_dim", [
        S(R(3, 4), ints([[3, 3], [0, 1], [2, 0]]), 1), S(R(3, 4), ints([5, 0, 0])), S(R(3, 4), ints([[1]]), 0),
        S(R(1, 4), ints([[0, 1], [2, 3]]), 1), S(R(3, 1), ints([[0, 1, 2]]), dim=0),
        S(R(0, 3), ints([], (0, 2)), 1), S(R(3), ints([-1, -3]), 0),
    ], ops=()),
    Row("masked_fill", [
        S(R(2, 3), mask, 1.5), S(R(2, 3), mask, R()), S(R(2, 2, 3), mask, 0), S(R(3), bools([True, False, True]), -1.0),
        S(R(1, 3), mask, 2.0), S(R(), bools(True), 1.0), S(R(0), bools([]), 1.0),
        K(V([NAN, 1.0]), bools([True, False]), 0.0),
    ]),
    Row("clone", [S(x), S(R()), S(R(0))]),
    Row("alias", [S(x), S(R()), S(R(0))], reference=lambda x: x.view_as(x)),
    Row(
        "contiguous", [S(R(2, 3)), S(R()), S(R(0))], call=lambda x: x.t().contiguous(),
        reference=lambda x: x.t().contiguous(), method=False,
    ),
    Row(
        "to_dtype",
        [K(R(2, 3), torch.float32), S(R(), torch.float64), K(R(0), torch.float32), S(ints([1, 2]), torch.float32)],
        reference=torch.Tensor.to, method=False,
    ),
    Row(
        "getitem", [S(R(*shape), index) for shape, index in _INDICES], reference=_read, call=_read,
        ops=("getitem", "getitem_backward"),
    ),
    Row(
        "setitem",
        [S(R(*a), index, R(*b)) for a, index, b in _WRITES] + [
            S(R(3), 0, 2.0), S(R(2, 3), mask, 1.0), S(data(R(3)), 1, R()),
        ],
        reference=_written, call=_written,
    ),
    Row(
        "sort",
        [
            S(x), S(x, 0), S(x, -1, True), S(x, dim=1, descending=True), S(R()), S(R(0, 3), 0), S(R(0, 3)),
            K(V([2.0, 1.0, 2.0, 1.0]), stable=True), K(V([NAN, 1.0, 2.0])),
        ],
    ),
    Row(
        "topk",
        [
            S(x, 2), S(x, 1, 0), S(x, 2, -1, False), S(R(5), 5), S(R(5), 3, largest=False, sorted=True), S(R(), 1),
            S(R(0, 3), 2), S(R(3), 0),
        ],
    ),
    Row("cartesian_prod", [
        S(R(2), R(3)), S(R(1), R(2), R(2)), S(R(3)), S(R(0), R(2)), S(x1 := R(2), x1),
    ], ops=(), method=False),
    Row("combinations", [
        S(R(4)), S(R(3), 3), S(R(3), r=2, with_replacement=True), S(R(1), 1), S(R(0)), S(R(2), 3),
    ], ops=(), method=False),
    Row("vander", [
        S(R(3)), S(R(3), 5), S(R(2), 4, True), S(R(1)), S(R(0)), S(R(3), N=1), S(R(2), 0), K1(V([0.0, 1.0, -1.0])),
    ], ops=(), method=False, exact=False, reference=_vandermonde),
    Row("argsort", [S(x), S(x, 0), S(x, -1, True), S(R()), S(R(0, 3))], differentiable=False),
    Row("as_strided", [
        S(R(3, 4), (2, 2), (4, 1)), S(R(3, 4), (2, 3), (1, 2), 4), S(R(6), (3, 3), (1, 1)), S(R(5), (4,), (0,), 2),
        S(R(), (), ()), S(R(0), (0, 2), (2, 1)), S(R(1), (2, 2), (0, 0)),
    ], ops=("as_strided", "as_strided_backward"), call=_dense("as_strided"), method=False),
    Row("as_strided_scatter", [
        S(R(3, 4), R(2, 2), (2, 2), (4, 1)), S(R(3, 4), R(2, 3), (2, 3), (6, 2), 1), S(R(), R(), (), ()),
        S(R(0), R(0, 2), (0, 2), (2, 1)),
    ], ops=("as_strided_scatter", "as_strided"), call=_dense("as_strided_scatter"), method=False, reference=_placed),
]
