// Vec<T>: one register of float or double under the instruction set this copy is compiled for. A loop's tail uses the
// same operations through partial load and store, so body and tail round alike.
#pragma once
#include <stdint.h>
#if defined(__AVX2__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

// Whether fma rounds once; how many registers a tile may fill. What depends on the instruction set asks these where it
// can.
#if defined(__AVX2__) || defined(__aarch64__)
#define TG_FUSED 1
#else
#define TG_FUSED 0
#endif
#if defined(__AVX512F__) || defined(__aarch64__)
#define TG_REGISTERS 32
#else
#define TG_REGISTERS 16
#endif

#define TG_INLINE inline __attribute__((always_inline))

namespace tapegrad::TG_ISA {

template <class T>
struct Vec;

#if defined(__AVX512F__)

template <>
struct Vec<float> {
  static constexpr int N = 16;
  __m512 v;
  static TG_INLINE Vec set1(float a) { return {_mm512_set1_ps(a)}; }
  static TG_INLINE Vec load(const float* p) { return {_mm512_loadu_ps(p)}; }
  static TG_INLINE Vec load(const float* p, int n) { return {_mm512_maskz_loadu_ps(mask(n), p)}; }  // the rest is 0
  TG_INLINE void store(float* p) const { _mm512_storeu_ps(p, v); }
  TG_INLINE void store(float* p, int n) const { _mm512_mask_storeu_ps(p, mask(n), v); }
  static TG_INLINE __mmask16 mask(int n) { return static_cast<__mmask16>((1u << n) - 1u); }
  friend TG_INLINE Vec operator+(Vec a, Vec b) { return {_mm512_add_ps(a.v, b.v)}; }
  friend TG_INLINE Vec fma(Vec a, Vec b, Vec c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }  // a * b + c
  friend TG_INLINE Vec low(Vec a, Vec b) {
    return {__builtin_shufflevector(a.v, b.v, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23)};
  }
  friend TG_INLINE Vec high(Vec a, Vec b) {
    return {__builtin_shufflevector(a.v, b.v, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31)};
  }
  friend TG_INLINE Vec even(Vec a, Vec b) {
    return {__builtin_shufflevector(a.v, b.v, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30)};
  }
  friend TG_INLINE Vec odd(Vec a, Vec b) {
    return {__builtin_shufflevector(a.v, b.v, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31)};
  }
};

template <>
struct Vec<double> {
  static constexpr int N = 8;
  __m512d v;
  static TG_INLINE Vec set1(double a) { return {_mm512_set1_pd(a)}; }
  static TG_INLINE Vec load(const double* p) { return {_mm512_loadu_pd(p)}; }
  static TG_INLINE Vec load(const double* p, int n) { return {_mm512_maskz_loadu_pd(mask(n), p)}; }
  TG_INLINE void store(double* p) const { _mm512_storeu_pd(p, v); }
  TG_INLINE void store(double* p, int n) const { _mm512_mask_storeu_pd(p, mask(n), v); }
  static TG_INLINE __mmask8 mask(int n) { return static_cast<__mmask8>((1u << n) - 1u); }
  friend TG_INLINE Vec operator+(Vec a, Vec b) { return {_mm512_add_pd(a.v, b.v)}; }
  friend TG_INLINE Vec fma(Vec a, Vec b, Vec c) { return {_mm512_fmadd_pd(a.v, b.v, c.v)}; }
  friend TG_INLINE Vec low(Vec a, Vec b) { return {__builtin_shufflevector(a.v, b.v, 0, 8, 1, 9, 2, 10, 3, 11)}; }
  friend TG_INLINE Vec high(Vec a, Vec b) { return {__builtin_shufflevector(a.v, b.v, 4, 12, 5, 13, 6, 14, 7, 15)}; }
  friend TG_INLINE Vec even(Vec a, Vec b) { return {__builtin_shufflevector(a.v, b.v, 0, 2, 4, 6, 8, 10, 12, 14)}; }
  friend TG_INLINE Vec odd(Vec a, Vec b) { return {__builtin_shufflevector(a.v, b.v, 1, 3, 5, 7, 9, 11, 13, 15)}; }
};

#elif defined(__AVX2__)

template <>
struct Vec<float> {
  static constexpr int N = 8;
  __m256 v;
  static TG_INLINE Vec set1(float a) { return {_mm256_set1_ps(a)}; }
  static TG_INLINE Vec load(const float* p) { return {_mm256_loadu_ps(p)}; }
  static TG_INLINE Vec load(const float* p, int n) { return {_mm256_maskload_ps(p, mask(n))}; }
  TG_INLINE void store(float* p) const { _mm256_storeu_ps(p, v); }
  TG_INLINE void store(float* p, int n) const { _mm256_maskstore_ps(p, mask(n), v); }
  static TG_INLINE __m256i mask(int n) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
  }
  friend TG_INLINE Vec operator+(Vec a, Vec b) { return {_mm256_add_ps(a.v, b.v)}; }
  friend TG_INLINE Vec fma(Vec a, Vec b, Vec c) { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }
  friend TG_INLINE Vec low(Vec a, Vec b) { return {__builtin_shufflevector(a.v, b.v, 0, 8, 1, 9, 2, 10, 3, 11)}; }
  friend TG_INLINE Vec high(Vec a, Vec b) { return {__builtin_shufflevector(a.v, b.v, 4, 12, 5, 13, 6, 14, 7, 15)}; }
  friend TG_INLINE Vec even(Vec a, Vec b) { return {__builtin_shufflevector(a.v, b.v, 0, 2, 4, 6, 8, 10, 12, 14)}; }
  friend TG_INLINE Vec odd(Vec a, Vec b) { return {__builtin_shufflevector(a.v, b.v, 1, 3, 5, 7, 9, 11, 13, 15)}; }
};

template <>
struct Vec<double> {
  static constexpr int N = 4;
  __m256d v;
  static TG_INLINE Vec set1(double a) { return {_mm256_set1_pd(a)}; }
  static TG_INLINE Vec load(const double* p) { return {_mm256_loadu_pd(p)}; }
  static TG_INLINE Vec load(const double* p, int n) { return {_mm256_maskload_pd(p, mask(n))}; }
  TG_INLINE void store(double* p) const { _mm256_storeu_pd(p, v); }
  TG_INLINE void store(double* p, int n) const { _mm256_maskstore_pd(p, mask(n), v); }
  static TG_INLINE __m256i mask(int n) {
    return _mm256_cmpgt_epi64(_mm256_set1_epi64x(n), _mm256_setr_epi64x(0, 1, 2, 3));
  }
  friend TG_INLINE Vec operator+(Vec a, Vec b) { return {_mm256_add_pd(a.v, b.v)}; }
  friend TG_INLINE Vec fma(Vec a, Vec b, Vec c) { return {_mm256_fmadd_pd(a.v, b.v, c.v)}; }
  friend TG_INLINE Vec low(Vec a, Vec b) { return {__builtin_shufflevector(a.v, b.v, 0, 4, 1, 5)}; }
  friend TG_INLINE Vec high(Vec a, Vec b) { return {__builtin_shufflevector(a.v, b.v, 2, 6, 3, 7)}; }
  friend TG_INLINE Vec even(Vec a, Vec b) { return {__builtin_shufflevector(a.v, b.v, 0, 2, 4, 6)}; }
  friend TG_INLINE Vec odd(Vec a, Vec b) { return {__builtin_shufflevector(a.v, b.v, 1, 3, 5, 7)}; }
};

#else

// The compiler's own 16-byte vectors: NEON on 64-bit ARM, whose fma is fused, SSE2 on x86-64. There is no fused
// instruction to count on there, so fma rounds twice, in the body and in the tail.
template <class T>
struct Vec {
  static constexpr int N = 16 / static_cast<int>(sizeof(T));
  typedef T Register __attribute__((vector_size(16)));
  Register v;
  static TG_INLINE Vec set1(T a) { return {a - Register{}}; }
  static TG_INLINE Vec load(const T* p) {
    Vec r;
    __builtin_memcpy(&r.v, p, sizeof(r.v));
    return r;
  }
  static TG_INLINE Vec load(const T* p, int n) {
    Vec r = {Register{}};
    for (int i = 0; i < n; ++i) r.v[i] = p[i];
    return r;
  }
  TG_INLINE void store(T* p) const { __builtin_memcpy(p, &v, sizeof(v)); }
  TG_INLINE void store(T* p, int n) const {
    for (int i = 0; i < n; ++i) p[i] = v[i];
  }
  friend TG_INLINE Vec operator+(Vec a, Vec b) { return {a.v + b.v}; }
  friend TG_INLINE Vec fma(Vec a, Vec b, Vec c) {
#if defined(__aarch64__)
    if constexpr (N == 4)
      return {(Register)vfmaq_f32((float32x4_t)c.v, (float32x4_t)a.v, (float32x4_t)b.v)};
    else
      return {(Register)vfmaq_f64((float64x2_t)c.v, (float64x2_t)a.v, (float64x2_t)b.v)};
#else
    return {a.v * b.v + c.v};
#endif
  }
  friend TG_INLINE Vec low(Vec a, Vec b) {
    if constexpr (N == 4)
      return {__builtin_shufflevector(a.v, b.v, 0, 4, 1, 5)};
    else
      return {__builtin_shufflevector(a.v, b.v, 0, 2)};
  }
  friend TG_INLINE Vec high(Vec a, Vec b) {
    if constexpr (N == 4)
      return {__builtin_shufflevector(a.v, b.v, 2, 6, 3, 7)};
    else
      return {__builtin_shufflevector(a.v, b.v, 1, 3)};
  }
  friend TG_INLINE Vec even(Vec a, Vec b) {
    if constexpr (N == 4)
      return {__builtin_shufflevector(a.v, b.v, 0, 2, 4, 6)};
    else
      return {__builtin_shufflevector(a.v, b.v, 0, 2)};
  }
  friend TG_INLINE Vec odd(Vec a, Vec b) {
    if constexpr (N == 4)
      return {__builtin_shufflevector(a.v, b.v, 1, 3, 5, 7)};
    else
      return {__builtin_shufflevector(a.v, b.v, 1, 3)};
  }
};

#endif

// N rows of N lanes become their transpose: log2 N perfect shuffles.
template <class T>
TG_INLINE void transpose(Vec<T> (&a)[Vec<T>::N]) {
  constexpr int N = Vec<T>::N;
  Vec<T> b[N];
  for (int step = 1; step < N; step *= 2) {
#pragma GCC unroll 16
    for (int i = 0; i < N / 2; ++i) {
      b[2 * i] = low(a[i], a[i + N / 2]);
      b[2 * i + 1] = high(a[i], a[i + N / 2]);
    }
#pragma GCC unroll 16
    for (int i = 0; i < N; ++i) a[i] = b[i];
  }
}

// to[c][r] = from[r][c] for R rows and C columns; a row of `to` has whole vectors, zeros behind R.
template <class T>
inline void transpose(const T* from, int64_t from_step, int64_t R, int64_t C, T* to, int64_t to_step) {
  using V = Vec<T>;
  if (C < 4) {  // shuffles of whole blocks take longer
    const int64_t whole = (R + V::N - 1) / V::N * V::N;
    for (int64_t c = 0; c < C; ++c)
      for (int64_t r = 0; r < whole; ++r) to[c * to_step + r] = r < R ? from[r * from_step + c] : T(0);
    return;
  }
  for (int64_t r = 0; r < R; r += V::N)
    for (int64_t c = 0; c < C; c += V::N) {
      const int rows = R - r < V::N ? static_cast<int>(R - r) : V::N;
      const int columns = C - c < V::N ? static_cast<int>(C - c) : V::N;
      V block[V::N];
      const T* source = from + r * from_step + c;
#pragma GCC unroll 16
      for (int i = 0; i < V::N; ++i)
        block[i] = i >= rows         ? V::set1(0)
                   : columns == V::N ? V::load(source + i * from_step)
                                     : V::load(source + i * from_step, columns);
      transpose<T>(block);
#pragma GCC unroll 16
      for (int i = 0; i < V::N; ++i)
        if (i < columns) block[i].store(to + (c + i) * to_step + r);
    }
}

}  // namespace tapegrad::TG_ISA
