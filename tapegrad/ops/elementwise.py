"""Elementwise ops: arithmetic, elementary functions, comparisons. One line each: name, formula, gradient rule.

Subgradients at kinks and ties are torch's: 0 for abs and sign at 0, clamp passes g at its bounds, maximum and minimum
halve it at ties. Where a formula has a removable singularity, the rule removes it before the division or logarithm, so
that its own derivative is right too.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import torch

from ..core import _C, FLOATS, Array, DTypeError, Op, Tensor, arithmetic, caller, either, functions, op

__all__ = [
    "abs",
    "acos",
    "add",
    "addcdiv",
    "addcmul",
    "asin",
    "atan",
    "atan2",
    "bitwise_and",
    "bitwise_not",
    "bitwise_or",
    "bitwise_xor",
    "ceil",
    "clamp",
    "cos",
    "cosh",
    "div",
    "eq",
    "erf",
    "exp",
    "expm1",
    "floor",
    "floor_divide",
    "fmod",
    "ge",
    "gt",
    "isfinite",
    "isinf",
    "isnan",
    "le",
    "lerp",
    "log",
    "log1p",
    "log2",
    "log10",
    "logical_and",
    "logical_not",
    "logical_or",
    "logical_xor",
    "lt",
    "maximum",
    "minimum",
    "mul",
    "ne",
    "neg",
    "pow",
    "reciprocal",
    "remainder",
    "round",
    "rsqrt",
    "sigmoid",
    "sign",
    "sin",
    "sinh",
    "sqrt",
    "square",
    "sub",
    "tan",
    "tanh",
    "trunc",
    "where",
]


Rule = Callable[..., Any]


def unary(
    name: str, formula: str, rule: Rule | None, backward: Rule | None = None, *, ours: bool = False
) -> Callable[[Any], Tensor]:
    """The op ``y = torch.name(input)``; `rule` gives the input's gradient, None for an op with boolean output.

    With ``backward``, the gradient in one pass on raw tensors, the forward function is a C++ kernel too; `ours` says so
    without one.
    """

    def forward(input: Array) -> Any: ...

    forward.__name__ = name
    forward.__doc__ = f"""Elementwise ``y = {formula}``.

    Parameters
    ----------
    input : any shape; integers are promoted as torch promotes them

    Returns a tensor of the input's shape. Source: ``torch.{name}``.
    """
    torchs = getattr(torch, name)
    op = Op(
        forward,
        {} if rule is None else {"input": rule},
        backward,
        direct=_of_floats(name) if ours or backward is not None else torchs,
    )
    made: Callable[[Any], Tensor] = caller(op, __name__)
    return made


def _of_floats(name: str) -> Rule:
    """The C++ kernel `name`; integers and bools are promoted as torch promotes them."""
    ours, torchs = getattr(_C, name), getattr(torch, name)

    def forward(input: Any) -> Any:
        return ours(_promoted(input)) if type(input) is torch.Tensor else torchs(input)

    return forward


def _promoted(x: torch.Tensor) -> torch.Tensor:
    """Integers and bools in the dtype to which a float number promotes them."""
    return x if x.dtype in FLOATS else x.to(torch.get_default_dtype())


def binary(
    name: str, formula: str, input: Rule | None = None, other: Rule | None = None, direct: Rule | None = None
) -> Callable[..., Tensor]:
    """The op ``y = torch.name(input, other)`` with broadcasting; `direct` is called instead of torch's function."""

    def forward(input: Array, other: Array) -> Any: ...

    forward.__name__ = name
    forward.__doc__ = f"""Elementwise ``y = {formula}``, with broadcasting and torch's dtype promotion.

    Parameters
    ----------
    input, other : arrays or numbers whose shapes broadcast together

    Returns a tensor of the broadcast shape. Raises ShapeError where the shapes do not broadcast.
    Source: ``torch.{name}``.
    """
    rules = {key: rule for key, rule in (("input", input), ("other", other)) if rule is not None}
    made: Callable[..., Tensor] = caller(Op(forward, rules, direct=direct or getattr(torch, name)), __name__)
    return made


def zero(g: Any) -> Any:
    """The gradient of a step function."""
    return torch.zeros_like(g)


_ERF_SLOPE = 2 / math.sqrt(math.pi)

# --- functions of one array --------------------------------------------------------------------------------------

neg = unary("neg", "-x", lambda g: -g)
abs = unary("abs", "|x|", lambda g, input: g * torch.sign(input))
sign = unary("sign", "x / |x|, 0 at 0", zero)
floor = unary("floor", "the largest integer <= x", zero)
ceil = unary("ceil", "the smallest integer >= x", zero)
trunc = unary("trunc", "x without its fraction", zero)
exp = unary("exp", "e**x", lambda g, out: g * out, lambda g, out: (_C.exp_backward(g, out),))
expm1 = unary("expm1", "e**x - 1", lambda g, out: g * (out + 1))
log = unary("log", "ln x", lambda g, input: g / input, lambda g, input: (_C.log_backward(g, input),))
log1p = unary("log1p", "ln(1 + x)", lambda g, input: g / (input + 1))
log2 = unary("log2", "ln x / ln 2", lambda g, input: g / (input * math.log(2)))
log10 = unary("log10", "ln x / ln 10", lambda g, input: g / (input * math.log(10)))
sqrt = unary("sqrt", "x**0.5", lambda g, out: g / (2 * out))
rsqrt = unary("rsqrt", "x**-0.5", lambda g, out: -0.5 * g * out**3)
square = unary("square", "x**2", lambda g, input: 2 * g * input)
reciprocal = unary("reciprocal", "1 / x", lambda g, out: -g * out * out)
sin = unary("sin", "sin x", lambda g, input: g * torch.cos(input))
cos = unary("cos", "cos x", lambda g, input: -g * torch.sin(input))
tan = unary("tan", "tan x", lambda g, out: g * (1 + out * out))
asin = unary("asin", "arcsin x", lambda g, input: g * torch.rsqrt(1 - input * input))
acos = unary("acos", "arccos x", lambda g, input: -g * torch.rsqrt(1 - input * input))
atan = unary("atan", "arctan x", lambda g, input: g / (1 + input * input))
sinh = unary("sinh", "(e**x - e**-x) / 2", lambda g, input: g * either("cosh", input), ours=True)
cosh = unary("cosh", "(e**x + e**-x) / 2", lambda g, input: g * either("sinh", input), ours=True)


@op(
    a=lambda u, b, c, scale: either("scaled_product", u, b, c, scale),
    b=lambda u, a, c, scale: either("scaled_product", u, a, c, scale),
    c=lambda u, a, b, scale: either("scaled_product", u, a, b, scale),
)
def scaled_product(a: Array, b: Array, c: Array, scale: float) -> Any:
    """``scale a b c``, elementwise, of equal shapes: the second derivative of `tanh`, and its own third."""
    return _C.scaled_product(a, b, c, scale)


@op(g=lambda u, y: either("tanh_backward", u, y), y=lambda u, g, y: either("scaled_product", u, g, y, -2.0))
def tanh_backward(g: Array, y: Array) -> Any:
    """``g (1 - y**2)``, the input gradient of `tanh`."""
    return _C.tanh_backward(g, y)


@op(g=lambda u, y: either("sigmoid_backward", u, y), y=lambda u, g, y: u * g * (1 - 2 * y))
def sigmoid_backward(g: Array, y: Array) -> Any:
    """``g y (1 - y)``, the input gradient of `sigmoid`."""
    return _C.sigmoid_backward(g, y)


tanh = unary(
    "tanh",
    "(e**2x - 1) / (e**2x + 1)",
    lambda g, out: either("tanh_backward", g, out),
    lambda g, out: (_C.tanh_backward(g, out),),
)
sigmoid = unary(
    "sigmoid",
    "1 / (1 + e**-x)",
    lambda g, out: either("sigmoid_backward", g, out),
    lambda g, out: (_C.sigmoid_backward(g, out),),
)
erf = unary("erf", "2 / sqrt(pi) int_0^x e**-t**2 dt", lambda g, input: g * torch.exp(-input * input) * _ERF_SLOPE)
isnan = unary("isnan", "x is NaN", None)
isfinite = unary("isfinite", "x is neither infinite nor NaN", None)
isinf = unary("isinf", "x is infinite", None)
logical_not = unary("logical_not", "not x", None)
bitwise_not = unary("bitwise_not", "the complement of x's bits", None)


@op(input=lambda g: torch.zeros_like(g))
def round(input: Array, *, decimals: int = 0) -> Any:
    """Elementwise ``y`` = x rounded to ``decimals`` places, halves to even. The gradient is 0."""
    return torch.round(input, decimals=decimals) if decimals else torch.round(input)


def _inside(g: Any, input: Any, min: Any, max: Any) -> Any:
    """`g` where min <= input <= max, else 0 (also at NaN)."""
    if min is not None:
        g = torch.where(input >= min, g, 0)
    if max is not None:
        g = torch.where(input <= max, g, 0)
    return g


def _above(g: Any, input: Any, min: Any, max: Any) -> Any:
    """`g` where clamping put `max` in the place of the input, or of `min`."""
    replaced = input > max
    return torch.where(replaced if min is None else torch.logical_or(replaced, max < min), g, 0)


@op(
    input=lambda g, input, min, max: _inside(g, input, min, max),
    min=lambda g, input, min, max: torch.where(input < min, g if max is None else torch.where(min < max, g, 0), 0),
    max=lambda g, input, min, max: _above(g, input, min, max),
)
def clamp(input: Array, min: Array | None = None, max: Array | None = None) -> Any:
    """Elementwise ``y = min(max(x, min), max)``; the gradient passes where min <= x <= max.

    Parameters
    ----------
    input : any shape
    min, max : numbers or arrays that broadcast with the input; at least one must be given
    """
    if isinstance(min, torch.Tensor) != isinstance(max, torch.Tensor) and min is not None and max is not None:
        dtype = torch.result_type(input, min if isinstance(min, torch.Tensor) else max)
        min, max = (v if isinstance(v, torch.Tensor) else torch.tensor(v, dtype=dtype) for v in (min, max))
    if isinstance(min, torch.Tensor) or isinstance(max, torch.Tensor):  # of two zeros torch takes either
        return _C.on_one_thread(torch.clamp, input, min, max)
    return torch.clamp(input, min, max)


# --- functions of two arrays -------------------------------------------------------------------------------------

_add = arithmetic(_C.add, operator.add)
_sub = arithmetic(_C.sub, operator.sub)
_div = arithmetic(_C.div, operator.truediv)


@op(input=lambda g: g, other=lambda g, alpha: g if alpha == 1 else g * alpha)
def add(input: Array, other: Array, *, alpha: float = 1) -> Any:
    """Elementwise ``y = input + alpha * other``, with broadcasting and torch's dtype promotion."""
    return _add(input, other) if type(alpha) is int and alpha == 1 else torch.add(input, other, alpha=alpha)


@op(input=lambda g: g, other=lambda g, alpha: -g if alpha == 1 else g * -alpha)
def sub(input: Array, other: Array, *, alpha: float = 1) -> Any:
    """Elementwise ``y = input - alpha * other``, with broadcasting and torch's dtype promotion."""
    return _sub(input, other) if type(alpha) is int and alpha == 1 else torch.sub(input, other, alpha=alpha)


_mul = arithmetic(_C.mul, operator.mul)
mul = binary("mul", "input * other", lambda g, other: _mul(g, other), lambda g, input: _mul(g, input), _mul)


@op(
    input=lambda g, other, rounding_mode: _div(g, other) if rounding_mode is None else torch.zeros_like(g),
    other=lambda g, input, other, rounding_mode: (
        -g * ((input / other) / other) if rounding_mode is None else torch.zeros_like(g)
    ),
)
def div(input: Array, other: Array, *, rounding_mode: str | None = None) -> Any:
    """Elementwise ``y = input / other``, with broadcasting; ``rounding_mode`` None, "trunc" or "floor" (gradient 0)."""
    return _div(input, other) if rounding_mode is None else torch.div(input, other, rounding_mode=rounding_mode)


_ROUNDED_ONCE = (0, 0.5, 1, 2, 3, -0.5, -1, -2)  # exponents that torch replaces by products, quotients and roots


def _pow(input: Any, exponent: Any) -> Any:
    """torch's power, by kernels of ours where its bits would depend on the number of threads: of floats."""
    if isinstance(exponent, int | float):
        if not isinstance(input, torch.Tensor) or exponent in _ROUNDED_ONCE:
            return input**exponent
        if not isinstance(exponent, float) and input.dtype not in FLOATS:
            return input**exponent
        return _C.pow_to_number(_promoted(input), exponent)
    if isinstance(input, int | float):
        floats = isinstance(input, float) or exponent.dtype in FLOATS
        return _C.pow_of_number(input, _promoted(exponent)) if floats else input**exponent
    return _C.pow(input, exponent) if input.dtype in FLOATS or exponent.dtype in FLOATS else input**exponent


def _pow_input(g: Any, input: Any, exponent: Any) -> Any:
    """g * n * x**(n - 1), and 0 for n = 0 also where x**-1 is no number."""
    if isinstance(exponent, int | float):
        return torch.zeros_like(g) if exponent == 0 else g * (exponent * either("pow", input, exponent - 1))
    exponent = _as_float(exponent, g)
    if isinstance(input, int | float):
        return g * (exponent * either("pow", input, exponent - 1))
    least = torch.finfo(g.dtype).tiny  # numbers whose inverse is finite, and no NaN
    constant = torch.logical_and(exponent == 0, torch.logical_not(torch.abs(input) >= least))
    power = either("pow", torch.where(constant, 1, input), exponent - 1)
    return g * torch.where(constant, 0, exponent * power)


def _as_float(x: Any, g: Any) -> Any:
    """An integer array in the gradient's dtype: 0 - 1 and 200 * 200 are no bytes."""
    return x if x.is_floating_point() else x.to(g.dtype)


def _pow_exponent(g: Any, input: Any, exponent: Any, out: Any) -> Any:
    """g * y * ln x, and 0 at x = 0 for n >= 0; NaN below 0, where only whole n have a power."""
    if not isinstance(input, int | float):
        base = torch.where(torch.logical_and(input == 0, exponent >= 0), 1, input).to(out.dtype)
        return g * (out * torch.log(base))
    if input == 0:  # the slope is chosen, not the product: 0 * inf would come back in the derivative by g
        return g * (out * torch.where(exponent >= 0, 0.0, -math.inf))
    return g * (out * (math.log(input) if input > 0 else math.nan))


@op(input=_pow_input, exponent=_pow_exponent)
def pow(input: Array, exponent: Array) -> Any:
    """Elementwise ``y = input ** exponent``, with broadcasting. The gradients at 0**0 are 0, as torch's."""
    return _pow(input, exponent)


def between_floats(ours: Rule, torchs: Rule) -> Rule:
    """`ours` for arrays one of which holds floats (which zero of two signs is taken may depend on the threads)."""

    def direct(input: Any, other: Any) -> Any:
        arrays = isinstance(input, torch.Tensor) and isinstance(other, torch.Tensor)
        floats = arrays and (input.dtype in FLOATS or other.dtype in FLOATS)
        return ours(input, other) if floats else torchs(input, other)

    return direct


maximum = binary(
    "maximum",
    "max(input, other)",
    lambda g, input, other: torch.where(input == other, g / 2, torch.where(input < other, 0, g)),
    lambda g, input, other: torch.where(input == other, g / 2, torch.where(input > other, 0, g)),
    between_floats(_C.maximum, torch.maximum),
)
minimum = binary(
    "minimum",
    "min(input, other)",
    lambda g, input, other: torch.where(input == other, g / 2, torch.where(input > other, 0, g)),
    lambda g, input, other: torch.where(input == other, g / 2, torch.where(input < other, 0, g)),
    between_floats(_C.minimum, torch.minimum),
)
fmod = binary(
    "fmod",
    "input - other * trunc(input / other)",
    lambda g: g,
    lambda g, input, other: -g * torch.div(input, other, rounding_mode="trunc"),
)
remainder = binary(
    "remainder",
    "input - other * floor(input / other)",
    lambda g: g,
    lambda g, input, other: -g * torch.div(input, other, rounding_mode="floor"),
)


def _atan2_slope(g: Any, y: Any, x: Any, side: Any) -> Any:
    """g * side / (x**2 + y**2), and 0 at the origin, where the gradients are 0 (and their own are not defined)."""
    y, x = _as_float(y, g), _as_float(x, g)
    r2 = y * y + x * x
    return g * (side * torch.where(r2 == 0, 0, 1 / r2))


def _atan2(input: Any, other: Any) -> Any:
    if not (isinstance(input, torch.Tensor) and isinstance(other, torch.Tensor)):
        return torch.atan2(input, other)
    if input.dtype not in FLOATS and other.dtype not in FLOATS:
        input, other = _promoted(input), _promoted(other)
    return _C.atan2(input, other)


floor_divide = binary("floor_divide", "floor(input / other)", zero, zero, operator.floordiv)
atan2 = binary(
    "atan2",
    "the angle of the point (other, input)",
    lambda g, input, other: _atan2_slope(g, input, other, other),
    lambda g, input, other: _atan2_slope(-g, input, other, input),
    _atan2,
)

eq = binary("eq", "input == other")
ne = binary("ne", "input != other")
lt = binary("lt", "input < other")
le = binary("le", "input <= other")
gt = binary("gt", "input > other")
ge = binary("ge", "input >= other")
logical_and = binary("logical_and", "input and other")
logical_or = binary("logical_or", "input or other")
logical_xor = binary("logical_xor", "input != other, as truth values")
bitwise_and = binary("bitwise_and", "input & other")
bitwise_or = binary("bitwise_or", "input | other")
bitwise_xor = binary("bitwise_xor", "input ^ other")

# --- functions of three arrays -----------------------------------------------------------------------------------


@op(
    name="where",
    input=lambda g, condition: torch.where(condition, g, 0),
    other=lambda g, condition: torch.where(condition, 0, g),
)
def where_op(condition: Array, input: Array, other: Array) -> Any:
    """`where` of three arguments."""
    if isinstance(condition, torch.Tensor) and condition.dtype is not torch.bool:
        if condition.dtype is not torch.uint8:
            raise DTypeError(f"where: condition must be bool; got {condition.dtype}; write condition != 0")
        condition = condition != 0
    return torch.where(condition, input, other)


def where(condition: Any, input: Any = None, other: Any = None) -> Tensor:
    """Elementwise ``y = input if condition else other``, with broadcasting.

    Parameters
    ----------
    condition : bool array (uint8 stands for one, as in torch)
    input, other : arrays or numbers; without them, the indices of the elements that are not 0, a vector a dimension
    """
    if input is None and other is None:
        return functions["nonzero"](condition, as_tuple=True)  # type: ignore[no-any-return]
    return where_op(condition, input, other)


@op(
    input=lambda g, weight: g * (1 - weight),
    end=lambda g, weight: g * weight,
    weight=lambda g, input, end: g * (end - input),
)
def lerp(input: Array, end: Array, weight: Array) -> Any:
    """Elementwise ``y = input + weight * (end - input)``."""
    return torch.lerp(input, end, weight)


@op(
    input=lambda g: g,
    tensor1=lambda g, tensor2, value: g * tensor2 * value,
    tensor2=lambda g, tensor1, value: g * tensor1 * value,
)
def addcmul(input: Array, tensor1: Array, tensor2: Array, *, value: float = 1) -> Any:
    """Elementwise ``y = input + value * tensor1 * tensor2``."""
    return torch.addcmul(input, tensor1, tensor2, value=value)


@op(
    input=lambda g: g,
    tensor1=lambda g, tensor2, value: g * value / tensor2,
    tensor2=lambda g, tensor1, tensor2, value: -g * value * tensor1 / (tensor2 * tensor2),
)
def addcdiv(input: Array, tensor1: Array, tensor2: Array, *, value: float = 1) -> Any:
    """Elementwise ``y = input + value * tensor1 / tensor2``."""
    return torch.addcdiv(input, tensor1, tensor2, value=value)
