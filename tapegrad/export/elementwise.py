"""Instructions that work element by element: one line of the table each."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import torch

from .table import EMITTERS, Instruction, as_value, emits
from .values import TYPES, Unsupported, Value, literal
from .writer import Writer

# The result in terms of the operands a, b, c: ``$f`` a helper function, ``%1`` a number in the result's type, and
# {alpha} an argument that is a number, by position.
FORMS = {
    "relu": "$relu(a)",
    "relu_backward": "b <= 0 ? 0 : a",
    "leaky_relu": "a > 0 ? a : a * {1}",
    "leaky_relu_backward": "b > 0 ? a : a * {2}",
    "tanh": "$tanh(a)",
    "tanh_backward": "a * (1 - b * b)",
    "sigmoid": "$sigmoid(a)",
    "sigmoid_backward": "a * b * (1 - b)",
    "gelu": "$gelu(a)",
    "gelu_backward": "a * $gelu_slope(b)",
    "gelu_tanh": "$gelu_tanh(a)",
    "gelu_tanh_backward": "a * $gelu_tanh_slope(b)",
    "silu": "$silu(a)",
    "silu_backward": "a * $silu_slope(b)",
    "softplus": "a * {1} > {2} ? a : $log1p_exp(a * {1}) / {1}",
    "softplus_backward": "b * {2} > {3} ? a : a * $sigmoid(b * {2})",
    "exp": "$exp(a)",
    "exp_backward": "a * b",
    "log": "$log(a)",
    "log_backward": "a / b",
    "sinh": "$sinh(a)",
    "cosh": "$cosh(a)",
    "atanh": "$atanh(a)",
    "exp2": "$exp2(a)",
    "mish": "$mish(a)",
    "logsigmoid": "-$log1p_exp(-a)",
    "elu": "$elu(a, {1}, {2}, {3})",
    "atan2": "$atan2(a, b)",
    "logaddexp": "$logaddexp(a, b)",
    "logaddexp2": "$logaddexp(a * %0.6931471805599453, b * %0.6931471805599453) * %1.4426950408889634",
    "maximum": "$maximum(a, b)",
    "minimum": "$minimum(a, b)",
    "pow": "$pow(a, b)",
    "pow_of_number": "$pow(a, b)",
    "scaled_product": "{3} * a * b * c",
    "aten::add.Tensor": "a + b",
    "aten::sub.Tensor": "a - b",
    "aten::rsub.Scalar": "b - a",
    "aten::mul.Tensor": "a * b",
    "aten::div.Tensor": "a / b",
    "aten::add.Scalar": "a + b",
    "aten::sub.Scalar": "a - b",
    "aten::mul.Scalar": "a * b",
    "aten::div.Scalar": "a / b",
    "aten::neg": "-a",
    "aten::abs": "a < 0 ? -a : a",
    "aten::sign": "(a > 0) - (a < 0)",
    "aten::sgn": "(a > 0) - (a < 0)",
    "aten::square": "a * a",
    "aten::reciprocal": "1 / a",
    "aten::rsqrt": "$rsqrt(a)",
    "aten::hardswish": "$hardswish(a)",
    "aten::frac": "$frac(a)",
    "aten::sinc": "$sinc(a)",
    "aten::round": "$rint(a)",
    "aten::deg2rad": "a * %0.017453292519943295",
    "aten::rad2deg": "a * %57.29577951308232",
    "aten::hypot": "$hypot(a, b)",
    "aten::fmod.Tensor": "$fmod(a, b)",
    "aten::fmod.Scalar": "$fmod(a, b)",
    "aten::remainder.Tensor": "$remainder(a, b)",
    "aten::remainder.Scalar": "$remainder(a, b)",
    "aten::floor_divide": "$floor_divide(a, b)",
    "aten::copysign.Tensor": "$copysign(a, b)",
    "aten::copysign.Scalar": "$copysign(a, b)",
    "aten::fmax": "$fmax(a, b)",
    "aten::fmin": "$fmin(a, b)",
    "aten::maximum": "$maximum(a, b)",
    "aten::minimum": "$minimum(a, b)",
    "aten::xlogy.Tensor": "$xlogy(a, b)",
    "aten::xlogy.Scalar_Self": "$xlogy(a, b)",
    "aten::xlogy.Scalar_Other": "$xlogy(a, b)",
    "aten::clamp_min": "$maximum(a, b)",
    "aten::clamp_max": "$minimum(a, b)",
    "aten::clamp_min.Tensor": "$maximum(a, b)",
    "aten::clamp_max.Tensor": "$minimum(a, b)",
    "aten::hardtanh": "a < {1} ? {1} : a > {2} ? {2} : a",
    "aten::lerp.Scalar": "c < %0.5 ? a + c * (b - a) : b - (b - a) * (1 - c)",
    "aten::lerp.Tensor": "c < %0.5 ? a + c * (b - a) : b - (b - a) * (1 - c)",
    "aten::addcmul": "a + {3} * b * c",
    "aten::addcdiv": "a + {3} * b / c",
    "aten::bitwise_and.Tensor": "a & b",
    "aten::bitwise_or.Tensor": "a | b",
    "aten::bitwise_xor.Tensor": "a ^ b",
    "aten::bitwise_and.Scalar": "a & b",
    "aten::bitwise_or.Scalar": "a | b",
    "aten::bitwise_xor.Scalar": "a ^ b",
    "aten::bitwise_not": "~a",
    "aten::clone": "a",
    "aten::_to_copy": "a",
    "aten::contiguous": "a",
    "aten::alias": "a",
    "aten::detach": "a",
}
FORMS |= {
    f"aten::{name}": f"${name}(a)"
    for name in (
        *("exp", "expm1", "exp2", "log", "log2", "log10", "log1p", "sqrt", "sin", "cos", "tan", "asin", "acos", "atan"),
        *("sinh", "cosh", "tanh", "asinh", "acosh", "atanh", "erf", "erfc", "lgamma", "floor", "ceil", "trunc", "relu"),
        *("sigmoid", "silu", "mish"),
    )
}

# Of truth: computed in the type that the operands have together.
TESTS = {
    "aten::isnan": "a != a",
    "aten::isinf": "a - a != 0 && a == a",
    "aten::isfinite": "a - a == 0",
    "aten::logical_and": "a != 0 && b != 0",
    "aten::logical_or": "a != 0 || b != 0",
    "aten::logical_xor": "(a != 0) != (b != 0)",
    "aten::logical_not": "a == 0",
}
for _name, _sign in {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}.items():
    TESTS |= {f"aten::{_name}.{kind}": f"a {_sign} b" for kind in ("Tensor", "Scalar")}

# What helper functions do, of integers
INTEGERS = {
    "$maximum(a, b)": "a > b ? a : b",
    "$minimum(a, b)": "a < b ? a : b",
    "$remainder(a, b)": "(a % b + b) % b",
    "$fmod(a, b)": "a % b",
    "$floor_divide(a, b)": "a / b - (a % b != 0 && (a < 0) != (b < 0))",
    "$floor(a)": "a",
    "$ceil(a)": "a",
    "$trunc(a)": "a",
    "$rint(a)": "a",
    "$relu(a)": "a < 0 ? 0 : a",
}
_SCALE = {f"aten::{name}": 2 for name in ("add.Tensor", "sub.Tensor", "rsub.Scalar", "add.Scalar", "sub.Scalar")}


def form(w: Writer, text: str, operands: list[str], numbers: Callable[[int], str], dtype: torch.dtype) -> str:
    """A form of the tables in C."""

    if not dtype.is_floating_point:
        text = INTEGERS.get(text, text)

    def function(match: re.Match[str]) -> str:
        if not dtype.is_floating_point:
            raise Unsupported(f"{match[1]} of integers")
        return w.library.name(match[1], dtype)

    made = re.sub(r"\$(\w+)", function, text)
    made = re.sub(r"%(-?[\d.]+)", lambda m: literal(float(m[1]), dtype), made)
    made = re.sub(r"\{(\d)\}", lambda m: numbers(int(m[1])), made)
    operands = [f"({o})" if o.startswith("-") else o for o in operands]
    return re.sub(r"\b([abc])\b(?!\()", lambda m: operands["abc".index(m[1])], made)


def base_name(name: str) -> str:
    """``aten::add.Tensor`` of ``aten::add_.Tensor``."""
    head, dot, overload = name.partition(".")
    return head.removesuffix("_") + dot + overload


def operands_of(x: Instruction) -> list[Any]:
    """Tensors, and numbers in their place among the first two or three arguments."""
    found = [a for a in x.arguments if isinstance(a, Value)]
    if x.name == "pow_of_number" or (len(found) < 2 and x.name.startswith("aten::")):
        text = {**FORMS, **TESTS}[base_name(x.name)]
        wanted = 1 + max(["abc".index(c) for c in re.findall(r"\b([abc])\b(?!\()", text)], default=0)
        found = list(x.arguments[:wanted])
    elif base_name(x.name) == "aten::lerp.Scalar":
        found = list(x.arguments[:3])
    return found


def elementwise(w: Writer, x: Instruction) -> None:
    name = base_name(x.name)
    out = x.out
    tests = name in TESTS
    operands = operands_of(x)
    dtype = _common(operands) if tests else out.dtype
    values = [as_value(a, dtype) for a in operands]
    text = TESTS[name] if tests else FORMS[name]
    _nothing_left(x, name, text, len(operands))
    text = "a == 0" if name == "aten::bitwise_not" and out.dtype == torch.bool else text
    alpha = x[_SCALE[name]] if name in _SCALE else 1
    if alpha not in (1, None):
        text = (
            text.replace("b - a", f"b - {literal(alpha, dtype)} * a")
            if "rsub" in name
            else (text.replace("b", f"{literal(alpha, dtype)} * b"))
        )

    def numbers(i: int) -> str:
        given = x[i]
        if not isinstance(given, bool | int | float):
            raise Unsupported(f"argument {i} of {name} is a {type(given).__name__}")
        return literal(given, dtype)

    with w.over(out.sizes, out, *values) as (to, *seen):
        made = form(w, text, [v.read(dtype) for v in seen], numbers, dtype)
        made = f"{made} ? 1 : 0" if tests else made
        if out.dtype == torch.bool and not tests and text != "a":
            made = f"({made}) != 0"
        elif not out.dtype.is_floating_point and out.dtype.itemsize < 4 and not tests and text != "a":
            made = f"({TYPES[out.dtype]})({made})"
        w(f"{to.element} = {made};")


def _nothing_left(x: Instruction, name: str, text: str, operands: int) -> None:
    """Refuse a number among an operator's arguments that its form does not speak of."""
    known = {*map(int, re.findall(r"\{(\d)\}", text)), _SCALE.get(name, 0)}
    for i, argument in enumerate(x.arguments[operands:], operands):
        if i not in known and isinstance(argument, int | float | Value) and argument is not False:
            raise Unsupported(f"its argument {i} = {argument}")


def _common(operands: list[Any]) -> torch.dtype:
    """The type that torch compares in."""
    kinds = [torch.empty((1,) * a.ndim, dtype=a.dtype) if isinstance(a, Value) else a for a in operands]
    found: torch.dtype = torch.result_type(*kinds) if len(kinds) > 1 else kinds[0].dtype
    return found


for _name in (*FORMS, *TESTS):
    EMITTERS[_name] = elementwise
    if _name.startswith("aten::"):
        _head, _dot, _overload = _name.partition(".")
        EMITTERS[f"{_head}_{_dot}{_overload}"] = elementwise  # in place


@emits("aten::copy_")
def copy(w: Writer, x: Instruction) -> None:
    out = x[0]
    with w.over(out.sizes, out, x[1]) as (to, one):
        w(f"{to.element} = {one.read(out.dtype)};")


@emits("aten::pow.Tensor_Scalar", "aten::pow_.Scalar", "pow_to_number")
def power(w: Writer, x: Instruction) -> None:
    """x^n; small whole powers, roots and their inverses without pow()."""
    n, dtype = float(x[1]), x.dtype
    with w.over(x.out.sizes, x.out, x[0]) as (to, one):
        a = one.read(dtype)
        product = " * ".join([a] * int(abs(n))) if n in (1, 2, 3, 4, -1, -2, -3) else ""
        if product:
            made = product if n > 0 else f"1 / ({product})"
        elif n == 0:
            made = literal(1, dtype)
        elif n in (0.5, -0.5):
            made = f"{'1 / ' if n < 0 else ''}{w.call('sqrt', dtype, a)}"
        elif not dtype.is_floating_point:
            raise Unsupported(f"power {n} of integers")
        else:
            made = w.call("pow", dtype, a, literal(n, dtype))
        w(f"{to.element} = {made};")


@emits("aten::pow.Tensor_Tensor", "aten::pow.Scalar")
def any_power(w: Writer, x: Instruction) -> None:
    dtype = x.dtype
    with w.over(x.out.sizes, x.out, as_value(x[0], dtype), as_value(x[1], dtype)) as (to, a, b):
        w(f"{to.element} = {form(w, '$pow(a, b)', [a.read(dtype), b.read(dtype)], lambda i: '', dtype)};")


@emits("aten::where.self", "aten::where.ScalarOther", "aten::where.ScalarSelf", "aten::where.Scalar")
def where(w: Writer, x: Instruction) -> None:
    out = x.out
    with w.over(out.sizes, out, x[0], as_value(x[1], out.dtype), as_value(x[2], out.dtype)) as (to, ask, a, b):
        w(f"{to.element} = {ask.element} ? {a.read(out.dtype)} : {b.read(out.dtype)};")


@emits("aten::masked_fill.Scalar", "aten::masked_fill.Tensor", "aten::masked_fill_.Scalar", "aten::masked_fill_.Tensor")
def masked_fill(w: Writer, x: Instruction) -> None:
    out = x.out
    with w.over(out.sizes, out, x[0], x[1], as_value(x[2], out.dtype)) as (to, a, ask, value):
        w(f"{to.element} = {ask.element} ? {value.read(out.dtype)} : {a.read(out.dtype)};")


@emits("aten::clamp", "aten::clamp_", "aten::clamp.Tensor", "aten::clamp_.Tensor")
def clamp(w: Writer, x: Instruction) -> None:
    out, dtype = x.out, x.dtype
    bounds = [(sign, as_value(x[i], dtype)) for i, sign in ((1, "<"), (2, ">")) if x[i] is not None]
    with w.over(out.sizes, out, x[0], *[value for _, value in bounds]) as (to, one, *ends):
        made = one.read(dtype)
        for (sign, _), end in zip(bounds, ends, strict=True):
            made = f"({made} {sign} {end.read(dtype)} ? {end.read(dtype)} : {made})"
        w(f"{to.element} = {made};")


@emits("aten::logit")
def logit(w: Writer, x: Instruction) -> None:
    """ln(x / (1 - x)), x not nearer than eps to 0 and 1"""
    dtype = x.dtype
    with w.over(x.out.sizes, x.out, x[0]) as (to, one):
        a = one.read(dtype)
        if x[1] is not None:
            low, high = literal(x[1], dtype), literal(1 - x[1], dtype)
            a = f"({a} < {low} ? {low} : {a} > {high} ? {high} : {a})"
        w(f"const {TYPES[dtype]} p = {a};")
        w(f"{to.element} = {w.call('log', dtype, 'p / (1 - p)')};")


@emits("aten::div.Tensor_mode", "aten::div.Scalar_mode")
def divided(w: Writer, x: Instruction) -> None:
    text = {None: "a / b", "floor": "$floor_divide(a, b)", "trunc": "$trunc(a / b)"}[x[2]]
    if not x.dtype.is_floating_point and x[2] == "trunc":
        text = "a / b"
    with w.over(x.out.sizes, x.out, x[0], as_value(x[1], x.dtype)) as (to, a, b):
        w(f"{to.element} = {form(w, text, [a.read(x.dtype), b.read(x.dtype)], lambda i: '', x.dtype)};")


@emits("aten::nan_to_num")
def nan_to_num(w: Writer, x: Instruction) -> None:
    dtype, most = x.dtype, torch.finfo(x.dtype).max
    nan, up, down = (d if v is None else v for v, d in zip(x.arguments[1:4], (0.0, most, -most), strict=True))
    with w.over(x.out.sizes, x.out, x[0]) as (to, one):
        a, numbers = one.read(dtype), [literal(v, dtype) for v in (nan, up, down)]
        w(f"{to.element} = {a} != {a} ? {numbers[0]} : {a} - {a} == 0 ? {a} : {a} > 0 ? {numbers[1]} : {numbers[2]};")


_FILLED = {"zeros": 0, "zeros_like": 0, "new_zeros": 0, "ones": 1, "ones_like": 1, "new_ones": 1, "zero_": 0}
_GIVEN = {"full": 1, "full_like": 1, "new_full": 2, "fill_.Scalar": 1, "fill_.Tensor": 1, "fill.Scalar": 1}
_GIVEN |= {"fill.Tensor": 1, "scalar_tensor": 0}


@emits(*(f"aten::{name}" for name in (*_FILLED, *_GIVEN)))
def filled(w: Writer, x: Instruction) -> None:
    name, out = x.name.removeprefix("aten::"), x.out
    value = as_value(_FILLED[name] if name in _FILLED else x[_GIVEN[name]], out.dtype)
    with w.over(out.sizes, out, value) as (to, one):
        w(f"{to.element} = {one.read(out.dtype)};")


@emits("aten::empty", "aten::empty_like", "aten::new_empty", "aten::empty_strided")
def unfilled(w: Writer, x: Instruction) -> None:
    """Memory that is written later."""
