"""The functions of <math.h> in C of our own, for ``math="own"``: those of csrc/kernels/vmath.h, one element at a time,
without branches where compilers then make vectors of them. Right to a few units in the last place; pow in float64 to
1e-13, sin and cos for |x| up to 1e6.

Written as library.py says; ``&name`` stands for a helper in double, whatever the type.
"""

from __future__ import annotations

# name: (float's, double's); a string is taken as it is written
CONSTANTS: dict[str, tuple[float | str, float | str]] = {
    "LOG2E": (1.44269504, 1.4426950408889634),
    "LN2_HI": (0.693359375, 6.93147180369123816490e-01),  # n LN2_HI is exact
    "LN2_LO": (-2.12194440e-4, 1.90821492927058770002e-10),
    "EXP_MIN": (-104.0, -746.0),  # e^x is 0 and infinity from there on
    "EXP_MAX": (89.0, 710.0),
    "EXPM1_MIN": (-40.0, -80.0),  # e^x - 1 is -1
    "EXPM1_MAX": (80.0, 700.0),
    "MAGIC": (1.5 * 2**23, 1.5 * 2**52),
    "MAGIC_BITS": ("0x4B400000u", "0x4338000000000000u"),
    "BIAS": ("127", "1023"),
    "MANTISSA": ("23", "52"),
    "FRACTION": ("0x7FFFFFu", "0xFFFFFFFFFFFFFu"),
    "ONE_BITS": ("0x3F800000u", "0x3FF0000000000000u"),
    "ROOT_HALF": ("0x3F3504F3u", "0x3FE6A09E667F3BCDu"),
    "SIGN_BIT": ("0x80000000u", "0x8000000000000000u"),
    "UPPER_HALF": ("0xFFFFF000u", "0xFFFFFFFFF8000000u"),
    "ROOT_SEED": ("0x1FBD1DF5u", "0x1FF7A3BEA91D9B1Bu"),
    "TINY": (2.0**-126, 2.0**-1022),
    "SCALE": (2.0**25, 2.0**54),
    "SCALE_LOG": ("25", "54"),
    "ROOT_SCALE": (2.0**24, 2.0**54),
    "ROOT_UNSCALE": (2.0**-12, 2.0**-27),
    "WHOLE": (2.0**23, 2.0**52),  # from there on numbers are whole
    "PHI_MOST": (14.5, 38.7),
}
_EXP = (
    "0.5 0.1666657667 0.04166655421 0.008363232884 0.001392625083",
    "0.5 0.1666666666666667103 0.04166666666666666978 0.00833333333332608312 0.001388888888888371117 "
    "0.0001984126987500227879 0.0000248015873256774619 2.755725517000088744e-6 2.755727347871858047e-7 "
    "2.510531272962210179e-8 2.09147553258932022e-9",
)
_LOG = (  # of f in float, of s^2 in double: see log_rest
    "0.3333333265 -0.2499998969 0.2000021905 -0.1666812179 0.1427568268 -0.124405409 0.1122035174 -0.1089532361 "
    "0.09550870471 -0.0448564323",
    "0.6666666666666666418 0.4000000000000794104 0.285714285672759346 0.2222222304835158806 0.1818173762630293717 "
    "0.1538886780561371663 0.1320970824205946325 0.1360903026285849872",
)
_PHI = (
    "0.7552851385 -0.6078966061 0.3871366798 -0.1865230059 0.06040646975 -0.007527212912 -0.003523574056 "
    "0.001569313645 0.0001948018511 -0.000122983157",
    "0.7552851304157514799 -0.6078966419718917589 0.3871374007422188786 -0.1865218579596941633 0.06039657489069946413 "
    "-0.007540188965593059021 -0.003479692362242533344 0.001630818441890359596 0.0001333442540490191162 "
    "-0.0002310948183193762113 -1.907866531661357434e-6 0.00003514418115776097273 7.150055959216098661e-7 "
    "-5.918892731763236447e-6 -6.251321040478680193e-7 1.019804851813517266e-6 2.636824857640762506e-7 "
    "-1.542632053677107395e-7 -7.63808205349045035e-8 1.457859334703645972e-8 1.39240239935017101e-8 "
    "7.269545479026689456e-11 -9.653425420228504669e-10",
)


def _horner(x: str, coefficients: tuple[str, str]) -> tuple[str, str]:
    """c[0] + c[1] x + ... by Horner's rule, for both types."""
    made = []
    for text, suffix in zip(coefficients, "f ", strict=True):
        numbers = [f"{n}{'' if '.' in n or 'e' in n else '.0'}{suffix.strip()}" for n in text.split()]
        form = numbers[-1]
        for n in reversed(numbers[:-1]):
            form = f"({form}) * {x} + {n}"
        made.append(form)
    return made[0], made[1]


CONSTANTS["EXP_POLYNOMIAL"] = _horner("r", _EXP)
CONSTANTS["PHI_POLYNOMIAL"] = _horner("q", _PHI)
_log_float, _log_double = _horner("f", (_LOG[0], "0")), _horner("z", ("0", _LOG[1]))
# ln(1 + f) - f + f^2 / 2: in double as fdlibm's e_log.c, through s = f / (2 + f)
CONSTANTS["LOG_PARTS"] = ("", "\nconst double s = f / (2 + f), z = s * s;")
CONSTANTS["LOG_REST"] = (
    f"(square * f * ({_log_float[0]}))",
    f"(s * (z * ({_log_double[1]}) + 0.5 * square))",
)

# n = x / ln 2, rounded, stands in the low bits of what 1.5 * 2^23 (2^52) makes of it. Limits come last, and
# by `choose`: where there is a condition, compilers put the arithmetic behind it, and then there are no vectors.
_EXPONENT = """\
union { REAL r; BITS b; } u;
u.r = x * LOG2E + MAGIC;
const int n = (int)(u.b - MAGIC_BITS);
const REAL r = (x - (REAL)n * LN2_HI) - (REAL)n * LN2_LO;
const REAL rest = r * r * (EXP_POLYNOMIAL) + r; /* e^r - 1 */"""

OWN = {
    "fabs": "union { REAL r; BITS b; } u;\nu.r = x;\nu.b &= ~SIGN_BIT;\nreturn u.r;",
    "copysign": (
        "union { REAL r; BITS b; } u, v;\nu.r = a, v.r = b;\nu.b = (u.b & ~SIGN_BIT) | (v.b & SIGN_BIT);\nreturn u.r;"
    ),
    "choose": (  # a where the condition holds, else b
        "static inline REAL choose_SUFFIX(int condition, REAL a, REAL b) {\n"
        "  const BITS mask = 0 - (BITS)condition;\n"
        "  union { BITS b; REAL r; } u, v;\n"
        "  u.r = a, v.r = b;\n"
        "  u.b = (u.b & mask) | (v.b & ~mask);\n"
        "  return u.r;\n}"
    ),
    "two_to": (
        "static inline REAL two_to_SUFFIX(int n) {\n"
        "  union { BITS b; REAL r; } u;\n  u.b = ((BITS)n + BIAS) << MANTISSA;\n  return u.r;\n}"
    ),
    "exp": (
        f"{_EXPONENT}\n"
        "const int half = n / 2;\n"
        "const REAL result = (1 + rest) * $two_to(half) * $two_to(n - half);\n"
        "return $choose(x < EXP_MIN, 0, $choose(x > EXP_MAX, 1 / %0.0, result));"
    ),
    "expm1_inside": (  # for x <= EXPM1_MAX
        f"{_EXPONENT}\n"
        "const REAL power = $two_to(n), result = power * rest + (power - 1);\n"
        "return $choose(x < EXPM1_MIN, -1, result);"
    ),
    "expm1": "return x != x ? x : x < EXPM1_MAX ? $expm1_inside(x) : $exp(x);",
    "tanh": (  # with t = e^(-2|x|) - 1: tanh |x| = -t / (2 + t), without cancellation near 0
        "const REAL t = $expm1_inside(-2 * $fabs(x));\nreturn $copysign(t / (2 + t), x);"
    ),
    "log": (  # x = 2^k (1 + f)
        "union { REAL r; BITS b; } u;\n"
        "u.r = x < TINY ? x * SCALE : x;\n"
        "const BITS shifted = u.b + (ONE_BITS - ROOT_HALF);\n"
        "const REAL k = (REAL)((int)(shifted >> MANTISSA) - BIAS - (x < TINY ? SCALE_LOG : 0));\n"
        "u.b = (shifted & FRACTION) + ROOT_HALF;\n"
        "const REAL f = u.r - 1, square = f * f;LOG_PARTS\n"
        "const REAL result = k * LN2_HI + (f + (%-0.5 * square + (k * LN2_LO + LOG_REST)));\n"
        "return $choose(x > 0 && x - x == 0, result, x > 0 ? x : x == 0 ? -1 / %0.0 : %0.0 / %0.0);"
    ),
    "exp2": "return (REAL)&exp((double)x * 0.6931471805599453);",
    "log2": "return (REAL)(&log((double)x) * 1.4426950408889634);",
    "log10": "return (REAL)(&log((double)x) * 0.4342944819032518);",
    "log1p": "const REAL u = 1 + x;\nreturn u < WHOLE && u > 0 ? $log(u) + (x - (u - 1)) / u : $log(u);",
    "sqrt": (  # Newton's iteration from half the exponent
        "union { REAL r; BITS b; } u;\n"
        "const REAL y = x < TINY * 4 ? x * ROOT_SCALE : x;\n"
        "u.r = y;\n"
        "u.b = (u.b >> 1) + ROOT_SEED;\n"
        "REAL r = u.r;\n"
        "for (int step = 0; step < 4; ++step) r = %0.5 * (r + y / r);\n"
        "r = x < TINY * 4 ? r * ROOT_UNSCALE : r;\n"
        "return x > 0 ? (x - x == 0 ? r : x) : x < 0 ? %0.0 / %0.0 : x;"
    ),
    "trunc": "return x < WHOLE && x > -WHOLE ? (REAL)(int64_t)x : x;",
    "floor": "const REAL t = $trunc(x);\nreturn t > x ? t - 1 : t;",
    "ceil": "const REAL t = $trunc(x);\nreturn t < x ? t + 1 : t;",
    "rint": (
        "const REAL t = $floor(x), r = x - t;\n"
        "const REAL odd = t - 2 * $floor(t / 2);\n"
        "return r > %0.5 || (r == %0.5 && odd != 0) ? t + 1 : t;"
    ),
    "fmod": (  # exact while a / b is below 2^23 or 2^52
        "const REAL r = a - b * $trunc(a / b);\n"
        "return (a < 0 && r > 0) || (a > 0 && r < 0) ? r + (r > 0 ? -$fabs(b) : $fabs(b)) : r;"
    ),
    "quarter": (  # x less n quarter turns; sine or cosine of what is left
        "static double quarter_SUFFIX(double x, int turn) {\n"
        "  const double n = &floor(x * 0.6366197723675814 + 0.5);\n"
        "  const double r = ((x - n * 1.5707963267341256) - n * 6.077100506303966e-11) - n * 2.0222662487959506e-21;\n"
        "  const int k = (int)(n - 4 * &floor(n / 4)) + turn;\n"
        "  const double z = r * r;\n"
        "  const double sine = r + r * z * (-1.66666666666666324348e-01 + z * (8.33333333332248946124e-03 +\n"
        "      z * (-1.98412698298579493134e-04 + z * (2.75573137070700676789e-06 +\n"
        "      z * (-2.50507602534068634195e-08 + z * 1.58969099521155010221e-10)))));\n"
        "  const double cosine = 1 - 0.5 * z + z * z * (4.16666666666666019037e-02 +\n"
        "      z * (-1.38888888888741095749e-03 +\n"
        "      z * (2.48015872894767294178e-05 + z * (-2.75573143513906633035e-07 +\n"
        "      z * (2.08757232129817482790e-09 - z * 1.13596475577881948265e-11)))));\n"
        "  const double y = k % 2 ? cosine : sine;\n"
        "  return k % 4 >= 2 ? -y : y;\n"
        "}"
    ),
    "sin": "return x - x == 0 ? (REAL)$quarter((double)x, 0) : x - x;",
    "cos": "return x - x == 0 ? (REAL)$quarter((double)x, 1) : x - x;",
    "tan": "return x - x == 0 ? (REAL)($quarter((double)x, 0) / $quarter((double)x, 1)) : x - x;",
    "sinh": "const REAL e = $expm1($fabs(x)), y = %0.5 * (e + e / (e + 1));\n"
    "return x < 0 ? -(x - x == 0 && y == y ? y : -x) : x - x == 0 && y == y ? y : x;",
    "cosh": "const REAL e = $exp(%0.5 * $fabs(x));\nreturn %0.5 * (e * e + 1 / e / e);",
    "asinh": "const REAL a = $fabs(x), y = $log1p(a + a * a / (1 + $sqrt(a * a + 1)));\nreturn x < 0 ? -y : y;",
    "acosh": "return $log1p((x - 1) + $sqrt((x - 1) * (x + 1)));",
    "atanh": "const REAL a = $fabs(x), y = %0.5 * $log1p(2 * a / (1 - a));\nreturn x < 0 ? -y : y;",
    "arctangent": (
        "static double arctangent_SUFFIX(double x) {\n"
        "  double t = x < 0 ? -x : x, from = 0, sign = 1;\n"
        "  if (t > 1) t = 1 / t, from = 1.5707963267948966, sign = -1;\n"
        "  if (t > 0.2679491924311227) { /* tan(pi / 12) */\n"
        "    from += sign * 0.5235987755982989;\n"
        "    t = (t * 1.7320508075688772 - 1) / (t + 1.7320508075688772);\n"
        "  }\n"
        "  double sum = 0;\n"
        "  for (int k = 29; k > 0; k -= 2) sum = 1.0 / k - t * t * sum;\n"
        "  const double y = from + sign * t * sum;\n"
        "  return x < 0 ? -y : y;\n"
        "}"
    ),
    "atan": "return x == x ? (REAL)$arctangent((double)x) : x;",
    "asin": "const double y = (double)x;\n"
    "return y * y < 1 ? (REAL)$arctangent(y / &sqrt((1 - y) * (1 + y)))\n"
    "       : y == 1 || y == -1 ? (REAL)(y * 1.5707963267948966) : %0.0 / %0.0;",
    "acos": "const double y = (double)x;\n"
    "return y * y <= 1 ? (REAL)(2 * $arctangent(&sqrt((1 - y) / (1 + y)))) : %0.0 / %0.0;",
    "atan2": (
        "const double y = (double)a, x = (double)b;\n"
        "if (a != a || b != b) return a + b;\n"
        "if (y == 0) return x < 0 ? (REAL)$copysign(%3.141592653589793, a) : a;\n"
        "if (x == 0) return (REAL)(y < 0 ? -1.5707963267948966 : 1.5707963267948966);\n"
        "const double t = $arctangent(y / x);\n"
        "return (REAL)(x > 0 ? t : y < 0 ? t - 3.141592653589793 : t + 3.141592653589793);"
    ),
    "hypot": "return (REAL)&sqrt((double)a * (double)a + (double)b * (double)b);",
    "bell": (  # e^(-t^2 / 2): t^2 = h^2 + (t - h)(t + h), h the upper half of t's bits, whose square is exact
        "union { REAL r; BITS b; } u;\n"
        "u.r = x;\n"
        "u.b &= UPPER_HALF;\n"
        "const REAL h = u.r;\n"
        "return $exp(%-0.5 * h * h) * (1 + $expm1_inside(%-0.5 * (x - h) * (x + h)));"
    ),
    "tail": (  # Phi(-t) = e^(-t^2 / 2) f(q) / (t + 4), q = (t - 4) / (t + 4)
        "const REAL t = x < PHI_MOST ? x : PHI_MOST, inverse = 1 / (t + 4), q = (t - 4) * inverse;\n"
        "return $bell(t) * ((PHI_POLYNOMIAL) * inverse);"
    ),
    "erfc": ("const REAL y = $tail($fabs(x) * %1.4142135623730951);\nreturn x == x ? (x < 0 ? 2 - 2 * y : 2 * y) : x;"),
    "erf": (
        "const REAL z = x * x;\n"
        "REAL sum = 0;\n"
        "for (int k = 12; k > 0; --k) sum = -z * (2 * (REAL)k - 1) / ((REAL)k * (2 * (REAL)k + 1)) * (1 + sum);\n"
        "return z < %0.25 ? %1.1283791670955126 * x * (1 + sum) : x > 0 ? 1 - $erfc(x) : $erfc(-x) - 1;"
    ),
    "pow": (
        "const REAL n = $trunc(b), m = $fabs(a);\n"
        "if (b == 0 || a == 1) return 1;\n"
        "if (n == b && n <= 64 && n >= -64) {\n"
        "  REAL r = 1;\n"
        "  for (int k = (int)$fabs(n); k > 0; --k) r *= a;\n"
        "  return n < 0 ? 1 / r : r;\n"
        "}\n"
        "if (a < 0 && n != b) return %0.0 / %0.0;\n"
        "if (m == 0) return b < 0 ? 1 / %0.0 : 0;\n"
        "const REAL y = (REAL)&exp((double)b * &log((double)m));\n"
        "return a < 0 && $fmod(n, 2) != 0 ? -y : y;"
    ),
}
