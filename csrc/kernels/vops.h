// What vec.h leaves out: the arithmetic, comparisons and bits that elementwise kernels need, on the compiler's vector
// operators, which are the same for every width.
#pragma once
#include "kernels/vec.h"

namespace tapegrad::TG_ISA {

template <class T>
struct Format;
template <>
struct Format<float> {
  typedef uint32_t Bits __attribute__((vector_size(sizeof(Vec<float>))));
  typedef int32_t Mask __attribute__((vector_size(sizeof(Vec<float>))));
  using Word = uint32_t;
  static constexpr int kMantissa = 23;
  static constexpr Word kOne = 0x3F800000, kAbs = 0x7FFFFFFF;
  static constexpr float kMagic = 0x1.8p23f;  // x + kMagic has x rounded to an integer in its low bits
};
template <>
struct Format<double> {
  typedef uint64_t Bits __attribute__((vector_size(sizeof(Vec<double>))));
  typedef int64_t Mask __attribute__((vector_size(sizeof(Vec<double>))));
  using Word = uint64_t;
  static constexpr int kMantissa = 52;
  static constexpr Word kOne = 0x3FF0000000000000, kAbs = 0x7FFFFFFFFFFFFFFF;
  static constexpr double kMagic = 0x1.8p52;
};
template <class T>
using BitsOf = typename Format<T>::Bits;
template <class T>
using MaskOf = typename Format<T>::Mask;

template <class T>
TG_INLINE Vec<T> operator-(Vec<T> a, Vec<T> b) {
  return {a.v - b.v};
}
template <class T>
TG_INLINE Vec<T> operator*(Vec<T> a, Vec<T> b) {
  return {a.v * b.v};
}
template <class T>
TG_INLINE Vec<T> operator/(Vec<T> a, Vec<T> b) {
  return {a.v / b.v};
}
template <class T>
TG_INLINE MaskOf<T> operator<(Vec<T> a, Vec<T> b) {
  return (MaskOf<T>)(a.v < b.v);
}
template <class T>
TG_INLINE MaskOf<T> operator<=(Vec<T> a, Vec<T> b) {
  return (MaskOf<T>)(a.v <= b.v);
}
template <class T>
TG_INLINE MaskOf<T> operator==(Vec<T> a, Vec<T> b) {
  return (MaskOf<T>)(a.v == b.v);
}
// a where the mask is set, else b
template <class T>
TG_INLINE Vec<T> select(MaskOf<T> mask, Vec<T> a, Vec<T> b) {
  return {mask ? a.v : b.v};
}
// A NaN in x stays: both comparisons with it are false, and the instructions give their second operand then.
#if defined(__AVX512F__)
TG_INLINE Vec<float> at_least(Vec<float> x, Vec<float> b) { return {_mm512_maskz_max_ps(0xFFFF, b.v, x.v)}; }
TG_INLINE Vec<double> at_least(Vec<double> x, Vec<double> b) { return {_mm512_maskz_max_pd(0xFF, b.v, x.v)}; }
TG_INLINE Vec<float> at_most(Vec<float> x, Vec<float> b) { return {_mm512_maskz_min_ps(0xFFFF, b.v, x.v)}; }
TG_INLINE Vec<double> at_most(Vec<double> x, Vec<double> b) { return {_mm512_maskz_min_pd(0xFF, b.v, x.v)}; }
#elif defined(__AVX2__)
TG_INLINE Vec<float> at_least(Vec<float> x, Vec<float> b) { return {_mm256_max_ps(b.v, x.v)}; }
TG_INLINE Vec<double> at_least(Vec<double> x, Vec<double> b) { return {_mm256_max_pd(b.v, x.v)}; }
TG_INLINE Vec<float> at_most(Vec<float> x, Vec<float> b) { return {_mm256_min_ps(b.v, x.v)}; }
TG_INLINE Vec<double> at_most(Vec<double> x, Vec<double> b) { return {_mm256_min_pd(b.v, x.v)}; }
#else
template <class T>
TG_INLINE Vec<T> at_least(Vec<T> x, Vec<T> bound) {
  return select(x < bound, bound, x);
}
template <class T>
TG_INLINE Vec<T> at_most(Vec<T> x, Vec<T> bound) {
  return select(bound < x, bound, x);
}
#endif

template <class T>
TG_INLINE BitsOf<T> bits(Vec<T> a) {
  return (BitsOf<T>)a.v;
}
template <class T>
TG_INLINE Vec<T> from_bits(BitsOf<T> b) {
  return {(decltype(Vec<T>::v))b};
}
template <class T>
TG_INLINE Vec<T> abs(Vec<T> a) {
  return from_bits<T>(bits(a) & Format<T>::kAbs);
}
template <class T>
TG_INLINE Vec<T> copysign(Vec<T> size, Vec<T> sign) {
  return from_bits<T>((bits(size) & Format<T>::kAbs) | (bits(sign) & ~Format<T>::kAbs));
}
// 2^n of the integer in the low bits of n + kMagic, n within the exponents of normal numbers
template <class T>
TG_INLINE Vec<T> power_of_two(Vec<T> magic_n) {
  return from_bits<T>((bits(magic_n) << Format<T>::kMantissa) + Format<T>::kOne);
}

// The maskz forms, because gcc 12 calls the plain ones uninitialised.
#if defined(__AVX512F__)
TG_INLINE Vec<float> sqrt(Vec<float> a) { return {_mm512_maskz_sqrt_ps(0xFFFF, a.v)}; }
TG_INLINE Vec<double> sqrt(Vec<double> a) { return {_mm512_maskz_sqrt_pd(0xFF, a.v)}; }
// a * 2^n, rounded once; overflows to infinity, underflows through the denormals
TG_INLINE Vec<float> ldexp(Vec<float> a, Vec<float> n) { return {_mm512_maskz_scalef_ps(0xFFFF, a.v, n.v)}; }
TG_INLINE Vec<double> ldexp(Vec<double> a, Vec<double> n) { return {_mm512_maskz_scalef_pd(0xFF, a.v, n.v)}; }
#else
#if defined(__AVX2__)
TG_INLINE Vec<float> sqrt(Vec<float> a) { return {_mm256_sqrt_ps(a.v)}; }
TG_INLINE Vec<double> sqrt(Vec<double> a) { return {_mm256_sqrt_pd(a.v)}; }
#elif defined(__aarch64__)
TG_INLINE Vec<float> sqrt(Vec<float> a) { return {(Vec<float>::Register)vsqrtq_f32((float32x4_t)a.v)}; }
TG_INLINE Vec<double> sqrt(Vec<double> a) { return {(Vec<double>::Register)vsqrtq_f64((float64x2_t)a.v)}; }
#else
TG_INLINE float sqrt_of(float a) { return __builtin_sqrtf(a); }
TG_INLINE double sqrt_of(double a) { return __builtin_sqrt(a); }
template <class T>
TG_INLINE Vec<T> sqrt(Vec<T> a) {
  for (int i = 0; i < Vec<T>::N; ++i) a.v[i] = sqrt_of(a.v[i]);
  return a;
}
#endif
// As above, in two steps, because 2^n itself may be no normal number; the first is exact.
template <class T>
TG_INLINE Vec<T> ldexp(Vec<T> a, Vec<T> n) {
  const Vec<T> magic = Vec<T>::set1(Format<T>::kMagic);
  const Vec<T> half = fma(n, Vec<T>::set1(T(0.5)), magic);
  return a * power_of_two(half) * power_of_two(n - (half - magic) + magic);
}
#endif

// a with its lanes moved HALF places, around
template <int HALF, class T>
TG_INLINE Vec<T> rotated(Vec<T> a) {
#ifdef __clang__
  Vec<T> r;
  for (int i = 0; i < Vec<T>::N; ++i) r.v[i] = a.v[(i + HALF) % Vec<T>::N];
  return r;
#else
  MaskOf<T> from;
  for (int i = 0; i < Vec<T>::N; ++i) from[i] = (i + HALF) % Vec<T>::N;
  return {__builtin_shuffle(a.v, from)};
#endif
}
// The sum and the maximum of all lanes, in every lane, by halves: a fixed tree. The maximum passes over NaN.
template <class T, int HALF = Vec<T>::N / 2>
TG_INLINE Vec<T> sum_lanes(Vec<T> a) {
  a = a + rotated<HALF>(a);
  if constexpr (HALF > 1) return sum_lanes<T, HALF / 2>(a);
  return a;
}
template <class T, int HALF = Vec<T>::N / 2>
TG_INLINE Vec<T> max_lanes(Vec<T> a) {
  a = at_least(a, rotated<HALF>(a));
  if constexpr (HALF > 1) return max_lanes<T, HALF / 2>(a);
  return a;
}
template <class T>
TG_INLINE T first_lane(Vec<T> a) {
  return a.v[0];
}
// n elements from p, the other lanes as `rest`
template <class T>
TG_INLINE Vec<T> load_or(const T* p, int n, T rest) {
  Vec<T> lane;
  for (int i = 0; i < Vec<T>::N; ++i) lane.v[i] = T(i);
  return select(lane < Vec<T>::set1(T(n)), Vec<T>::load(p, n), Vec<T>::set1(rest));
}

// out[i] = f(x[i]...) for i in [0, n): whole vectors, then one partial vector through the same f. Several vectors in
// one round, whose chains the compiler interleaves: one alone waits for itself most of the time. A result beyond the
// nearer caches has its lines asked for ahead, because loads queue behind a store that waits for its own.
template <class T, class F, class... X>
TG_INLINE void map(int64_t n, T* out, const F& f, const X*... x) {
  using V = Vec<T>;
  constexpr int ROUND = 4, LINE = 64 / sizeof(T), AHEAD = 16 * LINE;
  const bool far = n > (384 << 10) / static_cast<int64_t>(sizeof(T));
  int64_t i = 0;
  for (; i + ROUND * V::N <= n; i += ROUND * V::N) {
    V r[ROUND];
    if (far)
#pragma GCC unroll 4
      for (int j = 0; j < ROUND * V::N; j += LINE) __builtin_prefetch(out + i + AHEAD + j, 1, 2);
#pragma GCC unroll 4
    for (int j = 0; j < ROUND; ++j) r[j] = f(V::load(x + i + j * V::N)...);
#pragma GCC unroll 4
    for (int j = 0; j < ROUND; ++j) r[j].store(out + i + j * V::N);
  }
  for (; i + V::N <= n; i += V::N) f(V::load(x + i)...).store(out + i);
  if (const int tail = static_cast<int>(n - i)) f(V::load(x + i, tail)...).store(out + i, tail);
}

}  // namespace tapegrad::TG_ISA
