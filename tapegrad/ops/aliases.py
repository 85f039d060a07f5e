"""torch's second names of ops."""

from .elementwise import (
    abs,
    acos,
    asin,
    atan,
    atan2,
    clamp,
    div,
    ge,
    gt,
    le,
    lt,
    mul,
    ne,
    neg,
    sub,
    trunc,
)
from .linalg import outer
from .shape import cat, movedim, transpose
from .special import acosh, asinh, atanh

__all__ = [
    "absolute",
    "arccos",
    "arccosh",
    "arcsin",
    "arcsinh",
    "arctan",
    "arctan2",
    "arctanh",
    "clip",
    "concat",
    "concatenate",
    "divide",
    "fix",
    "ger",
    "greater",
    "greater_equal",
    "less",
    "less_equal",
    "moveaxis",
    "multiply",
    "negative",
    "not_equal",
    "subtract",
    "swapaxes",
    "swapdims",
    "true_divide",
]

absolute, negative, fix = abs, neg, trunc
arccos, arcsin, arctan, arctan2 = acos, asin, atan, atan2
arccosh, arcsinh, arctanh = acosh, asinh, atanh
multiply, divide, true_divide, subtract = mul, div, div, sub
greater, greater_equal, less, less_equal, not_equal = gt, ge, lt, le, ne
clip = clamp
concat = concatenate = cat
moveaxis = movedim
swapaxes = swapdims = transpose
ger = outer

_PARTS = {"indices": "indices_or_sections", "sections": "indices_or_sections"}
ARGUMENTS = {  # second names of arguments
    **dict.fromkeys(("tensor_split", "hsplit", "vsplit", "dsplit"), _PARTS),
    **{name: {"train": "training"} for name in ("alpha_dropout", "feature_alpha_dropout")},
    "broadcast_to": {"size": "shape"},
    "cholesky_inverse": {"input": "L"},
    "cholesky_solve": {"input2": "L"},
    "one_hot": {"input": "tensor"},
    "orgqr": {"input": "A", "input2": "tau"},
    "ormqr": {"input2": "tau", "input3": "other"},
    "swapaxes": {"axis0": "dim0", "axis1": "dim1"},
}
