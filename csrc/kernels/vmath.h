// Elementary functions on Vec<T>, right to 3 ulp over the whole range, NaN, infinities and denormals included
// (tests/kernels/test_vmath.py). Polynomials are Chebyshev interpolants, computed in 60 digits.
#pragma once
#include "kernels/vops.h"

namespace tapegrad::TG_ISA {

template <class T>
struct Constants;
template <>
struct Constants<float> {
  static constexpr float kLog2e = 1.44269504f, kLn2Hi = 0.693359375f, kLn2Lo = -2.12194440e-4f;  // n * kLn2Hi is exact
  static constexpr float kLogHi = 6.9313812256e-01f, kLogLo = 9.0580006145e-06f;  // both positive: see log
  static constexpr float kExpMin = -104.0f, kExpMax = 89.0f;                      // e^x is 0 and infinity from there on
  static constexpr float kExpm1Min = -40.0f;                                      // e^x - 1 is -1
  static constexpr float kExp[] = {0x1p-1f, 0.1666657667f, 0.04166655421f, 0.008363232884f,
                                   0.001392625083f};  // (e^r - 1 - r) / r^2
  static constexpr float kTiny = 0x1p-126f, kScale = 0x1p25f, kScaleLog = -25.0f;
  static constexpr uint32_t kRootHalf = 0x3F3504F3;
  // (ln(1 + f) - f + f^2 / 2) / f^3
  static constexpr float kLog[] = {0.3333333265f, -0.2499998969f, 0.2000021905f,  -0.1666812179f, 0.1427568268f,
                                   -0.124405409f, 0.1122035174f,  -0.1089532361f, 0.09550870471f, -0.0448564323f};
  static constexpr float kPhiPole = 4.0f, kPhiMost = 14.5f;  // e^(-x^2 / 2) is 0 from there on
  static constexpr float kPhi[] = {0.7552851385f,    -0.6078966061f,   0.3871366798f,    -0.1865230059f,
                                   0.06040646975f,   -0.007527212912f, -0.003523574056f, 0.001569313645f,
                                   0.0001948018511f, -0.000122983157f};
  static constexpr uint32_t kUpperHalf = 0xFFFFF000;
};
template <>
struct Constants<double> {
  static constexpr double kLog2e = 1.4426950408889634, kLn2Hi = 6.93147180369123816490e-01,
                          kLn2Lo = 1.90821492927058770002e-10, kLogHi = kLn2Hi, kLogLo = kLn2Lo;
  static constexpr double kExpMin = -746.0, kExpMax = 710.0;
  static constexpr double kExpm1Min = -80.0;
  static constexpr double kExp[] = {0x1p-1,
                                    0.1666666666666667103,
                                    0.04166666666666666978,
                                    0.00833333333332608312,
                                    0.001388888888888371117,
                                    0.0001984126987500227879,
                                    0.0000248015873256774619,
                                    2.755725517000088744e-6,
                                    2.755727347871858047e-7,
                                    2.510531272962210179e-8,
                                    2.09147553258932022e-9};
  static constexpr double kTiny = 0x1p-1022, kScale = 0x1p54, kScaleLog = -54.0;
  static constexpr uint64_t kRootHalf = 0x3FE6A09E667F3BCD;
  static constexpr double
      kLog[] = {0.6666666666666666418, 0.4000000000000794104, 0.285714285672759346,
                0.2222222304835158806, 0.1818173762630293717, 0.1538886780561371663,
                0.1320970824205946325, 0.1360903026285849872};  // (ln((1 + s) / (1 - s)) / s - 2) / s^2, in s^2
  static constexpr double kPhiPole = 4.0, kPhiMost = 38.7;
  static constexpr double kPhi[] = {
      0.7552851304157514799,    -0.6078966419718917589,    0.3871374007422188786,    -0.1865218579596941633,
      0.06039657489069946413,   -0.007540188965593059021,  -0.003479692362242533344, 0.001630818441890359596,
      0.0001333442540190491162, -0.0002310948183193762113, -1.907866531661357434e-6, 0.00003514418115776097273,
      7.150055959216098661e-7,  -5.918892731763236447e-6,  -6.251321040478680193e-7, 1.019804851813517266e-6,
      2.636824857640762506e-7,  -1.542632053677107395e-7,  -7.63808205349045035e-8,  1.457859334703645972e-8,
      1.39240239935017101e-8,   7.269545479026689456e-11,  -9.653425420228504669e-10};
  static constexpr uint64_t kUpperHalf = 0xFFFFFFFFF8000000;
};

// c[0] + c[1] x + ... by Horner's rule
template <class T, int N>
TG_INLINE Vec<T> polynomial(Vec<T> x, const T (&c)[N]) {
  Vec<T> r = Vec<T>::set1(c[N - 1]);
  for (int i = N - 2; i >= 0; --i) r = fma(r, x, Vec<T>::set1(c[i]));
  return r;
}

// e^x = 2^n (1 + expm1_r); magic is n + kMagic.
template <class T>
struct Exponent {
  Vec<T> magic, n, expm1_r;
};

// `low` is an addend of x too small for x to hold.
template <class T, class... Low>
TG_INLINE Exponent<T> exponent(Vec<T> x, Low... low) {
  using V = Vec<T>;
  using C = Constants<T>;
  const V shift = V::set1(Format<T>::kMagic);
  const V magic = fma(x, V::set1(C::kLog2e), shift), n = magic - shift;
  const V r = (fma(n, V::set1(-C::kLn2Lo), fma(n, V::set1(-C::kLn2Hi), x)) + ... + low);
  return {magic, n, fma(r * r, polynomial(r, C::kExp), r)};
}

// e^(x + low) for x not far outside of kExpMin to kExpMax
template <class T, class... Low>
TG_INLINE Vec<T> exp_inside(Vec<T> x, Low... low) {
  const Exponent<T> e = exponent(x, low...);
  return ldexp(Vec<T>::set1(1) + e.expm1_r, e.n);
}
template <class T>
TG_INLINE Vec<T> exp(Vec<T> x) {
  using V = Vec<T>;
  return exp_inside(at_most(at_least(x, V::set1(Constants<T>::kExpMin)), V::set1(Constants<T>::kExpMax)));
}

// e^x - 1 for x <= 0
template <class T>
TG_INLINE Vec<T> expm1_negative(Vec<T> x) {
  using V = Vec<T>;
  const Exponent<T> e = exponent(at_least(x, V::set1(Constants<T>::kExpm1Min)));
  const V power = power_of_two(e.magic);
  return fma(power, e.expm1_r, power - V::set1(1));
}

// ln(1 + f) - f + f^2 / 2, f from sqrt(1/2) - 1 to 1/2: in float32 a polynomial, in float64 as
// fdlibm's e_log.c, through s = f / (2 + f)
TG_INLINE Vec<float> log_rest(Vec<float> f, Vec<float> square) {
  return square * f * polynomial(f, Constants<float>::kLog);
}
TG_INLINE Vec<double> log_rest(Vec<double> f, Vec<double> square) {
  const Vec<double> s = f / (Vec<double>::set1(2) + f), z = s * s;
  return s * fma(z, polynomial(z, Constants<double>::kLog), Vec<double>::set1(0.5) * square);
}

// k ln 2 + ln(1 + f). Both parts of ln 2 are positive, so that an infinite k stays one.
template <class T>
TG_INLINE Vec<T> log_sum(Vec<T> k, Vec<T> f) {
  using V = Vec<T>;
  const V square = f * f, rest = fma(k, V::set1(Constants<T>::kLogLo), log_rest(f, square));
  return fma(k, V::set1(Constants<T>::kLogHi), f + fma(square, V::set1(T(-0.5)), rest));
}

// ln x, x = 2^k (1 + f)
#if defined(__AVX512F__)
// The mantissa from 3/4 to 3/2, NaN for x < 0; the exponent of 0 is -infinity.
TG_INLINE Vec<float> log(Vec<float> x) {
  const Vec<float> m = {_mm512_maskz_getmant_ps(0xFFFF, x.v, _MM_MANT_NORM_p75_1p5, _MM_MANT_SIGN_nan)};
  const Vec<float> k = {_mm512_maskz_getexp_ps(0xFFFF, x.v)}, own = {_mm512_maskz_getexp_ps(0xFFFF, m.v)};
  return log_sum(k - own, m - Vec<float>::set1(1));
}
TG_INLINE Vec<double> log(Vec<double> x) {
  const Vec<double> m = {_mm512_maskz_getmant_pd(0xFF, x.v, _MM_MANT_NORM_p75_1p5, _MM_MANT_SIGN_nan)};
  const Vec<double> k = {_mm512_maskz_getexp_pd(0xFF, x.v)}, own = {_mm512_maskz_getexp_pd(0xFF, m.v)};
  return log_sum(k - own, m - Vec<double>::set1(1));
}
#else
template <class T>
TG_INLINE Vec<T> log(Vec<T> x) {
  using V = Vec<T>;
  using C = Constants<T>;
  using F = Format<T>;
  constexpr auto kMantissaBits = (typename F::Word(1) << F::kMantissa) - 1;
  const V zero = V::set1(0), infinity = V::set1(T(__builtin_inf()));
  const MaskOf<T> tiny = x < V::set1(C::kTiny);
  const V normal = select(tiny, x * V::set1(C::kScale), x);
  const BitsOf<T> shifted = bits(normal) + (F::kOne - C::kRootHalf);
  // The biased exponent, made a float by putting it into the low bits of 2^mantissa.
  const V base = V::set1(T(typename F::Word(1) << F::kMantissa)), bias = V::set1(T(F::kOne >> F::kMantissa));
  const V biased = from_bits<T>((shifted >> F::kMantissa) | bits(base)) - base;
  const V k = biased - bias + select(tiny, V::set1(C::kScaleLog), zero);
  const V result = log_sum(k, from_bits<T>((shifted & kMantissaBits) + C::kRootHalf) - V::set1(1));
  const V outside = select(x == zero, zero - infinity, V::set1(T(__builtin_nan(""))));
  return select(zero < x, select(x < infinity, result, x), outside);
}
#endif

// ln(1 + e) for e from 0 to 1: what 1 + e rounds away is put back to first order.
template <class T>
TG_INLINE Vec<T> log1p_unit(Vec<T> e) {
  const Vec<T> one = Vec<T>::set1(1), u = one + e;
  return log(u) + (e - (u - one)) / u;
}

// With t = e^(-2|x|) - 1: tanh |x| = -t / (2 + t), without cancellation near 0.
template <class T>
TG_INLINE Vec<T> tanh(Vec<T> x) {
  using V = Vec<T>;
  const V t = expm1_negative(V::set1(-2) * abs(x));
  return copysign(t / (V::set1(2) + t), x);
}

// 1 / (1 + e^-x), as e^x / (1 + e^x) below 0, where the first form loses its denormals.
template <class T>
TG_INLINE Vec<T> sigmoid(Vec<T> x) {
  using V = Vec<T>;
  const V one = V::set1(1), e = exp(V::set1(0) - abs(x));
  return select(x < V::set1(0), e, one) / (one + e);
}

// The normal distribution function Phi and e^(-x^2 / 2), which share their exponential.
template <class T>
struct Normal {
  Vec<T> phi, bell;
};

// e^(-t^2 / 2) with what the rounding of t^2 leaves out, so that the tail keeps its relative accuracy.
template <class T>
TG_INLINE Vec<T> bell_curve(Vec<T> t) {
  using V = Vec<T>;
#if TG_FUSED
  const V half = V::set1(T(-0.5)) * t, square = half * t;
  return exp_inside(square, fma(half, t, V{-square.v}));
#else
  // Without a fused product: t^2 = h^2 + (t - h)(t + h), h the upper half of t's bits, whose square is exact.
  const V h = from_bits<T>(bits(t) & Constants<T>::kUpperHalf), minus_half = V::set1(T(-0.5));
  return exp_inside(minus_half * h * h, minus_half * (t - h) * (t + h));
#endif
}

// Phi(-t) = e^(-t^2 / 2) f(q) / (t + k), q = (t - k) / (t + k), t = |x|
template <class T>
TG_INLINE Normal<T> normal(Vec<T> x) {
  using V = Vec<T>;
  const V t = at_most(abs(x), V::set1(Constants<T>::kPhiMost)), k = V::set1(Constants<T>::kPhiPole);
  const V bell = bell_curve(t), inverse = V::set1(1) / (t + k);
  const V tail = bell * (polynomial((t - k) * inverse, Constants<T>::kPhi) * inverse);
  return {select(x < V::set1(0), tail, V::set1(1) - tail), bell};
}

}  // namespace tapegrad::TG_ISA
