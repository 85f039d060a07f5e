"""Rows of the elementwise ops."""

# fmt: off
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from .spec import K0, K1, K, P, R, Row, S, Sample, Spec, U, V, bools, data, ints

NAN, INF = float("nan"), float("inf")
SPECIAL = V([NAN, INF, -INF, 0.0, -0.0, 1e-30, -1e-30, 30.0, -30.0])
LIMITS = V([NAN, INF, -INF])


def unary(draw: Callable[..., Spec] = R, *more: Sample) -> list[Sample]:
    """Shapes with 0, 1 and 3 dimensions, an empty one, and NaN, infinities, zeros of both signs (value and slope)."""
    return [*(S(draw(*shape)) for shape in ((), (5,), (2, 3, 4), (0, 3))), K1(SPECIAL), *more]


def zero(draw: Callable[..., Spec] = R) -> list[Sample]:
    return unary(draw, K(V([-1.0, 0.0, -0.0, 1.0])), K(V(0.0)))


def finite() -> list[Sample]:
    """`zero` where torch's slopes at NaN (a number) or at infinity (NaN) are no example."""
    return [*(s for s in zero() if s.args[0] is not SPECIAL), K0(LIMITS), K(V([1e-30, -1e-30, 30.0, -30.0]))]


_UNARY: dict[str, list[Sample]] = {
    "neg": unary(),
    "abs": zero(),
    "sign": zero(),
    "exp": unary(),
    "expm1": unary(R, S(V([1e-9, -1e-9, 0.0]))),
    "log": unary(P, K1(V([0.0, -1.0]))),
    "log1p": unary(P, K1(V([-1.0, -2.0])), S(V([1e-9, 0.0]))),
    "log2": unary(P, K1(V([0.0, -1.0]))),
    "log10": unary(P, K1(V([0.0, -1.0]))),
    "sqrt": unary(P, K1(V([0.0, -1.0]))),
    "rsqrt": unary(P, K1(V([0.0, -1.0]))),
    "square": zero(),
    "reciprocal": unary(P, S(V([-0.5, 3.0])), K1(V([0.0]))),
    "sin": zero(),
    "cos": zero(),
    "tan": zero(),
    "asin": unary(U, K1(V([-1.0, 1.0, 1.5]))),
    "acos": unary(U, K1(V([-1.0, 1.0, 1.5]))),
    "atan": zero(),
    "sinh": zero(),
    "cosh": zero(),
    "tanh": zero(),
    "sigmoid": zero(),
    "erf": zero(),
    "floor": unary(R, K(V([-1.0, 0.0, 2.0]))),
    "ceil": unary(R, K(V([-1.0, 0.0, 2.0]))),
    "trunc": unary(R, K(V([-1.0, 0.0, 2.0]))),
    "round": unary(R, K(V([-1.5, -0.5, 0.5, 1.5, 2.5])), S(R(4), decimals=2), S(R(4), decimals=-1)),
    "relu": zero(),
    "leaky_relu": [*zero(), S(R(4), 0.2), S(R(4), negative_slope=1.5), K(V([0.0, -1.0, 2.0]), 0.3)],
    "elu": [*finite(), S(R(4), 0.5), S(R(4), alpha=2.0), K(V([0.0, -1.0, 2.0]), 0.5)],
    "selu": finite(),
    "celu": [*finite(), S(R(4), 0.5), S(R(4), alpha=2.0), K(V([0.0, -1.0, 2.0]), 0.5)],
    "gelu": [*(s for s in finite() if s.args[0] is not LIMITS), *(S(R(4), approximate=a) for a in ("tanh", "none"))],
    "silu": zero(),
    "mish": zero(),
    "softplus": [*zero(), S(R(4), 2.0, 1.0), S(R(4), beta=0.5, threshold=5), K(V([0.5, 0.25, 1.0]), 2.0, 1.0)],
    "softsign": finite(),
    "logsigmoid": zero(),
    "hardtanh": [
        *finite(), K(V([-1.0, 1.0, 0.5, 2.0])), S(R(4), -0.5, 0.25), K(V([-0.5, 0.25]), min_val=-0.5, max_val=0.25),
    ],
    "hardswish": [*(s for s in finite() if s.args[0] is not LIMITS), K(V([-3.0, 3.0, -4.0, 1.0]))],
    "hardshrink": [*finite(), K(V([-0.5, 0.5, 0.6])), S(R(4), 0.25)],
    "softshrink": [*finite(), K(V([-0.5, 0.5, 0.6])), S(R(4), 0.25)],
    "relu6": [*finite(), K(V([0.0, 6.0, 7.0, 3.0]))],
}
_PREDICATES = ("isnan", "isfinite", "isinf", "logical_not")

_THIRD = {"tanh": ("scaled_product",)}
_OPS = {"tanh": ("tanh", "tanh_backward"), "sigmoid": ("sigmoid", "sigmoid_backward")}

# our own formula or kernel, or torch's in another order of operations
_ROUNDED = {"exp", "log", "tanh", "sigmoid",
            "gelu", "mish", "silu", "softplus", "celu", "elu", "selu", "softsign", "logsigmoid"}


def pairs(
    left: Callable[..., Spec] = R, right: Callable[..., Spec] | None = None, numbers: bool = True,
) -> list[Sample]:
    """Broadcasting both ways, 0-dim, empty, one array as both arguments, Python numbers, integers, mixed dtypes."""
    right = right or left
    shapes: list[Any] = [((3, 4), (3, 4)), ((3, 4), (4,)), ((2, 1, 3), (4, 1)), ((), (3,)), ((2, 2), ()), ((), ())]
    samples = [S(left(*a), right(*b)) for a, b in [*shapes, ((0, 3), (3,)), ((2, 0), (2, 1))]]
    samples += [
        S(right(3), ints([1, 2, 3])),
        K(left(2, 3).to(torch.float32), right(3).to(torch.float64)),
        K(left(2).to(torch.float32), right().to(torch.float64)),
    ]
    return samples + ([S(left(3), 1.5), S(left(2, 2), 2), S(left(), 0.5)] if numbers else [])


def ties(left: Any, right: Any) -> Sample:
    return K(V(left), V(right))


both = R(3, 2)
_FLOAT_PAIRS = ((V([NAN, 1.0, INF, -INF, 0.0, -0.0]), V([1.0, NAN, INF, 2.0, -0.0, 0.0])),)
special = [K1(a, b) for a, b in _FLOAT_PAIRS]

_BINARY: dict[str, list[Sample]] = {
    "add": [*pairs(), *special, S(both, both), S(R(3), R(3), alpha=0.5), S(2.5, R(3)), S(R(3), 2, alpha=3)],
    "sub": [*pairs(), *special, S(both, both), S(R(3), R(3), alpha=0.5), S(R(3), 2, alpha=3)],
    "mul": [*pairs(), *special, S(both, both), S(2.5, R(3)), S(R(2), bools([True, False]))],
    "div": [
        *pairs(R, P), *special, S(P(3), P(3), rounding_mode=None), K1(V([1.0, 0.0, -1.0]), V([0.0, 0.0, 0.0])),
        *(S(R(3), P(3), rounding_mode=mode) for mode in ("trunc", "floor")),
        K(V([3.0, -3.0, 7.0]), V([1.0, 2.0, -2.0]), rounding_mode="floor"),
    ],
    "pow": [
        *pairs(P, R), S(R(4), 2), S(R(4), 3.0), S(P(4), -1.5), S(2.0, R(4)), S(R(3), 1), S(R(3), 0),
        S(V([-2.0, -0.5]), 3), S(P(3), 0.5),
        K(V([0.0, 1.0]), 0), K(V([0.0, 2.0]), 1), K(V([0.0, 2.0]), 2), K(V([0.0, -1.0]), 3.0),
        K1(V([0.0, 0.0]), 0.5), K1(V([0.0]), -1), K1(V([0.0]), 1.5),
        K1(V([0.0, 0.0, 0.0, 2.0]), V([0.0, 1.0, 2.0, 0.0])), K1(0.0, V([0.0, 1.0, -1.0])), K1(V([-2.0]), V([2.0])),
        K1(V([0.0, 0.0]), V([0.5, -1.0])),
    ],
    "maximum": [*pairs(numbers=False), *special, ties([1.0, 2.0, 3.0], [1.0, 3.0, 2.0])],
    "minimum": [*pairs(numbers=False), *special, ties([1.0, 2.0, 3.0], [1.0, 3.0, 2.0])],
    "fmod": [*pairs(R, P), S(R(5), -0.7), K(V([4.0, -3.0, 3.5]), V([2.0, 1.5, -1.0]))],
    "remainder": [*pairs(R, P), S(R(5), -0.7), K(V([4.0, -3.0, 3.5]), V([2.0, 1.5, -1.0]))],
    "floor_divide": [*pairs(R, P), S(R(5), -0.7), K(V([4.0, -3.0, 3.5]), V([2.0, 1.5, -1.0]))],
    "atan2": [*pairs(R, P, numbers=False), S(R(6), R(6)), K1(V([0.0, 0.0, 1.0, -1.0]), V([0.0, -1.0, 0.0, 0.0]))],
}
_COMPARISONS = ("eq", "ne", "lt", "le", "gt", "ge")
_LOGICAL = ("logical_and", "logical_or", "logical_xor")
_BITWISE = ("bitwise_and", "bitwise_or", "bitwise_xor")
compared = [*pairs(), K(V([1.0, 2.0, NAN, -0.0]), V([1.0, 3.0, NAN, 0.0]))]
truth = [
    S(data(s.args[0]), data(s.args[1])) for s in pairs(numbers=False)
] + [S(bools([True, False]), bools([[True], [False]]))]
bits = [
    S(bools([True, False, True]), bools([True, True, False])), S(ints([[5, 6], [7, 8]]), ints([3, 4])),
    S(ints([]), ints([])),
    S(ints(3), 5), S(ints([1, 2]), bools([True, False])),
]

mask = bools([[True, False, True], [False, False, True]])
_TERNARY: dict[str, list[Sample]] = {
    "where": [
        S(mask, R(2, 3), R(2, 3)), S(mask, R(3), R(2, 1)), S(mask, R(), R(1)), S(mask, R(2, 3), 1.5),
        S(mask, 2.0, R(3)),
        S(bools([[True], [False]]), R(3), R(3)), S(bools([]), R(0), R(0)), S(bools(True), R(), R()),
        K(mask, V([NAN, INF, 0.0]), R(2, 3)), K(mask, R(2, 3).to(torch.float32), R(3).to(torch.float64)),
    ],
    "lerp": [
        S(R(2, 3), R(2, 3), 0.3), S(R(2, 3), R(3), R(2, 1)), S(R(), R(), R()), S(R(0, 3), R(3), 0.5),
        S(R(3), R(3), R()),
        S(R(3), R(3), V([0.0, 0.5, 1.0])), S(R(3), R(3), 2),
    ],
    "addcmul": [
        S(R(2, 3), R(2, 3), R(2, 3)), S(R(3), R(2, 1), R(3), value=0.5), S(R(), R(), R()), S(R(0, 3), R(3), R(1)),
        S(both, both, both, value=-2),
    ],
    "addcdiv": [
        S(R(2, 3), R(2, 3), P(2, 3)), S(R(3), R(2, 1), P(3), value=0.5), S(R(), R(), P()), S(R(0, 3), R(3), P(1)),
        K1(R(2), V([0.0, 1.0]), V([0.0, 0.0])),
    ],
    "clamp": [
        S(R(2, 3), -0.5, 0.5), S(R(3), min=0.0), S(R(3), max=0.1), S(R(), -1, 1), S(R(0, 2), 0.0, 1.0),
        S(R(3), None, 0.2),
        S(R(2, 3), R(3), P(2, 1)), S(R(3), min=R(3)), S(R(3), max=R(2, 1)), S(R(2, 3), 0.5, -0.5),
        S(R(3), V([0.5, 0.2, 0.3]), V([-0.5, 0.1, 0.0])), S(R(0, 2), R(2), R(2)),
        K(V([-1.0, 0.0, 0.5, 1.0, 2.0]), 0.0, 1.0), K1(V([NAN, INF, -INF]), -1.0, 1.0),
        K(V([-1.0, 0.0, 1.0, 2.0]), V([-1.0, 0.0, 0.0, 0.0]), V([1.0, 1.0, 1.0, 2.0])),
        K(V([1.0, 1.0]), V([1.0, 2.0]), V([1.0, 2.0])),
    ],
}

# torch.floor_divide has no gradient
_REFERENCE = {"floor_divide": lambda x, y: torch.div(x, y, rounding_mode="floor")}

rows = [
    *(
        Row(name, s, exact=name not in _ROUNDED, ops=_OPS.get(name, ()), third=_THIRD.get(name, ()), integers=True,
            family="unary") for name, s in _UNARY.items()
    ),
    *(Row(name, unary(), differentiable=False, integers=True) for name in _PREDICATES),
    Row("bitwise_not", [S(bools([True, False])), S(ints([[1, -2]])), S(ints([])), S(ints(7))], differentiable=False),
    *(Row(name, s, _REFERENCE.get(name), integers=True, family="binary") for name, s in _BINARY.items()),
    *(Row(name, compared, differentiable=False, integers=True) for name in _COMPARISONS),
    *(Row(name, truth, differentiable=False, integers=True) for name in _LOGICAL),
    *(Row(name, bits, differentiable=False) for name in _BITWISE),
    *(Row(name, s, integers=name == "clamp", method=name != "where") for name, s in _TERNARY.items()),
]
