"""Helper functions in C that instructions call: those of <math.h>, our own in their place, and activations.

A function is written once for both types: REAL stands for float or double, ``$name`` for another helper of that type,
``%0.5`` for a number in it, BITS for an unsigned integer as wide, and names in capitals for constants of the type.
"""

from __future__ import annotations

import re

import torch

from ..core import ArgumentError
from .own import CONSTANTS, OWN
from .values import TYPES, Unsupported, literal

MATHS = ("libm", "own")

# C99's <math.h>, as far as it is used
LIBM = {
    *("exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "sqrt", "pow", "hypot", "erf", "erfc", "lgamma"),
    *("sin", "cos", "tan", "asin", "acos", "atan", "atan2"),
    *("sinh", "cosh", "tanh", "asinh", "acosh", "atanh"),
    *("floor", "ceil", "trunc", "rint", "fabs", "fmod", "copysign"),
}

# In terms of those. The normal distribution's is Phi(x) = erfc(-x / sqrt 2) / 2.
COMMON = {
    "relu": "return x < 0 ? 0 : x;",
    "sigmoid": "const REAL e = $exp(-$fabs(x));\nreturn (x < 0 ? e : 1) / (1 + e);",
    "normal_cdf": "return %0.5 * $erfc(x * %-0.7071067811865476);",
    "gelu": "return x * $normal_cdf(x);",
    "gelu_slope": "return $normal_cdf(x) + x * (%0.3989422804014327 * $exp(%-0.5 * x * x));",
    "gelu_tanh": "return %0.5 * x * (1 + $tanh(%0.7978845608028654 * (x + %0.044715 * x * x * x)));",
    "gelu_tanh_slope": (
        "const REAL t = $tanh(%0.7978845608028654 * (x + %0.044715 * x * x * x));\n"
        "const REAL slope = %0.7978845608028654 * (1 + %0.134145 * x * x);\n"
        "return %0.5 * (1 + t) + %0.5 * x * (1 - t * t) * slope;"
    ),
    "silu": "return x * $sigmoid(x);",
    "silu_slope": "const REAL s = $sigmoid(x);\nreturn s * (1 + x * (1 - s));",
    "log1p_exp": "return $relu(x) + $log1p($exp(-$fabs(x)));",  # ln(1 + e^x)
    "mish": "return x * $tanh($log1p_exp(x));",
    "sign": "return (REAL)(x > 0) - (REAL)(x < 0);",
    "maximum": "return a > b || a != a ? a : b;",
    "minimum": "return a < b || a != a ? a : b;",
    "fmax": "return a > b || b != b ? a : b;",
    "fmin": "return a < b || b != b ? a : b;",
    "logaddexp": (
        "const REAL most = a > b ? a : b, least = a > b ? b : a;\n"
        "return most - least == 0 || most != most ? most + %0.6931471805599453 * (most == most)\n"
        "                                         : most + $log1p($exp(least - most));"
    ),
    "log_sum": (  # ln (e^a + e^b + e^c)
        "const REAL most = a > b ? (a > c ? a : c) : b > c ? b : c;\n"
        "return most > %-1e400 ? $log($exp(a - most) + $exp(b - most) + $exp(c - most)) + most : a + b + c;"
    ),
    "remainder": "const REAL r = $fmod(a, b);\nreturn r != 0 && (r < 0) != (b < 0) ? r + b : r;",
    "floor_divide": "return $floor((a - $remainder(a, b)) / b + %0.5);",
    "xlogy": "return b != b ? b : a == 0 ? 0 : a * $log(b);",
    "power": (  # b^n for a whole n >= 0
        "REAL result = 1;\n"
        "for (; a >= 1; a = $floor(a / 2), x *= x)\n"
        "  if ($fmod(a, 2) >= 1) result *= x;\n"
        "return result;"
    ),
    "flushed": "return x < TINY && x > -TINY ? 0 : x;",  # results below the least normal number are 0
    "rsqrt": "return 1 / $sqrt(x);",
    "hardswish": "return x <= -3 ? 0 : x >= 3 ? x : x * (x + 3) / 6;",
    "sinc": "const REAL y = x * %3.141592653589793;\nreturn y == 0 ? 1 : $sin(y) / y;",
    "frac": "return x - $trunc(x);",
    "elu": "return x > 0 ? b * x : b * a * $expm1(c * x);",
}
_PARAMETERS = {"power": "xa", "elu": "xabc", "log_sum": "abc"}
_TWO = {
    *("maximum", "minimum", "fmax", "fmin", "logaddexp", "remainder", "floor_divide", "xlogy", "atan2", "pow"),
    *("fmod", "copysign", "hypot"),
}

PHILOX = """\
/* Four words of block number `block` under the key `seed`: Philox4x32-10 (Salmon et al., SC 2011). */
static void philox(uint64_t block, uint64_t seed, uint32_t *w) {
  uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
  w[0] = (uint32_t)block, w[1] = (uint32_t)(block >> 32), w[2] = 0, w[3] = 0;
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = (uint64_t)0xD2511F53u * w[0], p1 = (uint64_t)0xCD9E8D57u * w[2];
    w[0] = (uint32_t)(p1 >> 32) ^ w[1] ^ k0;
    w[1] = (uint32_t)p1;
    w[2] = (uint32_t)(p0 >> 32) ^ w[3] ^ k1;
    w[3] = (uint32_t)p0;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
}"""


class Library:
    """Which functions a file uses, each before those that call it."""

    def __init__(self, math: str) -> None:
        if math not in MATHS:
            raise ArgumentError(f"export_c: math must be 'libm' or 'own'; got {math!r}")
        self.math = math
        self.sources: dict[str, str] = {}
        self.headers: set[str] = set()

    def name(self, function: str, dtype: torch.dtype) -> str:
        """A function's name in C for a type; its source is added."""
        single = dtype == torch.float32
        if function in LIBM and self.math == "libm":
            self.headers.add("math.h")
            return f"{function}f" if single else function
        text = OWN.get(function) if function in LIBM else COMMON.get(function)
        text = text or OWN.get(function)
        if text is None:
            raise Unsupported(f"math='own' has no {function}; use math='libm'")
        name = f"{function}_{'f32' if single else 'f64'}"
        if name not in self.sources:
            body = self._typed(text, dtype)
            given = _PARAMETERS.get(function, "ab" if function in _TWO else "x")
            if not body.startswith("static"):
                head = ", ".join(f"{TYPES[dtype]} {p}" for p in given)
                inner = "\n".join(f"  {line}" for line in body.splitlines())
                body = f"static inline {TYPES[dtype]} {name}({head}) {{\n{inner}\n}}"
            self.sources[name] = body
        return name

    def philox(self) -> str:
        self.sources["philox"] = PHILOX
        return "philox"

    def _typed(self, text: str, dtype: torch.dtype) -> str:
        single = dtype == torch.float32
        text = re.sub(r"\$(\w+)", lambda m: self.name(m[1], dtype), text)
        text = re.sub(r"&(\w+)\(", lambda m: f"{self.name(m[1], torch.float64)}(", text)  # in double for both
        text = re.sub(r"%(-?[\d.]+(?:e-?\d+)?)", lambda m: literal(float(m[1]), dtype), text)
        for name, values in CONSTANTS.items():
            value = values[0 if single else 1]
            text = re.sub(rf"\b{name}\b", value if isinstance(value, str) else literal(value, dtype), text)
        text = text.replace("SUFFIX", "f32" if single else "f64").replace("REAL", TYPES[dtype])
        return text.replace("BITS", "uint32_t" if single else "uint64_t")
