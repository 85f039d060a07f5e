// Means, squared deviations and slopes of runs of elements: at most kNormRun of them, so that every chain of additions
// is short; whoever calls adds the runs up in double.
#pragma once
#include "kernels/norms.h"
#include "kernels/vops.h"

namespace tapegrad::TG_ISA {

using D = Vec<double>;
constexpr int kLanes = D::N;

// Vec<W>::N elements from x, as W
template <class W>
TG_INLINE Vec<W> wide(const W* x) {
  return Vec<W>::load(x);
}
template <class W>
TG_INLINE D wide(const float* x)
  requires(sizeof(W) == sizeof(double))
{
  typedef float Half __attribute__((vector_size(sizeof(float) * kLanes)));
  Half half;
  __builtin_memcpy(&half, x, sizeof(half));
  return {__builtin_convertvector(half, decltype(D::v))};
}
// The same of `count` of them, and `rest` in the other lanes
template <class W, class T>
TG_INLINE Vec<W> lanes_of(const T* x, int count, T rest) {
  if (count == Vec<W>::N) return wide<W>(x);
  T lanes[Vec<T>::N];
  load_or(x, count, rest).store(lanes);
  return wide<W>(static_cast<const T*>(lanes));
}

// The sums of u and of u times d, in four chains of vectors each.
template <class V>
struct Sums {
  V first[4], second[4];
  TG_INLINE Sums() {
    for (int j = 0; j < 4; ++j) first[j] = second[j] = V::set1(0);
  }
  TG_INLINE void add(int chain, V u, V d) {
    first[chain] = first[chain] + u;
    second[chain] = fma(u, d, second[chain]);
  }
  static TG_INLINE double total(const V (&sum)[4]) {
    return static_cast<double>(first_lane(sum_lanes((sum[0] + sum[1]) + (sum[2] + sum[3]))));
  }
};

// f(first element, how many, chain) for n elements, LANES at a time
template <int LANES, class F>
TG_INLINE void over_run(int64_t n, const F& f) {
  int64_t i = 0;
  for (; i + 4 * LANES <= n; i += 4 * LANES)
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) f(i + j * LANES, LANES, j);
  for (; i + LANES <= n; i += LANES) f(i, LANES, 0);
  if (i < n) f(i, static_cast<int>(n - i), 1);
}

// x, or `otherwise` in place of an infinity or NaN: as a shift it would hide the others
template <class T>
TG_INLINE T finite_or(T x, T otherwise) {
  return x - x == 0 ? x : otherwise;
}
TG_INLINE D finite_or(D x, D otherwise) { return select(x - x == D::set1(0), x, otherwise); }

struct Moment {
  double mean, m2;  // m2: the sum of (x - mean)^2
};

// a, of n elements, and b, of m, as one
TG_INLINE void merge(Moment& a, double n, const Moment& b, double m) {
  const double delta = b.mean - a.mean, share = m / (n + m);
  a.mean = delta - delta == 0 ? a.mean + delta * share : a.mean + b.mean;
  a.m2 += b.m2 + delta * delta * (n * share);
}

template <class W, class T>
TG_INLINE Sums<Vec<W>> deviations(const T* x, int64_t planes, int64_t step, int64_t n, W shift) {
  Sums<Vec<W>> sums;
  const Vec<W> from = Vec<W>::set1(shift);
  const T rest = static_cast<T>(shift);  // exactly: behind the run d = 0
  for (; planes > 0; --planes, x += step)
    over_run<Vec<W>::N>(n, [&](int64_t i, int count, int chain) __attribute__((always_inline)) {
      const Vec<W> d = lanes_of<W>(x + i, count, rest) - from;
      sums.add(chain, d, d);
    });
  return sums;
}

// Of `planes` runs of n elements, `step` apart, in sums of type W. Deviations from an element of the group, whose
// squares sum up to at most as many times m2 as there are elements: in a W wider than T that costs nothing. Otherwise
// they are taken anew, from the mean that they gave. inverse: 1 over the number of elements
template <class W, class T>
TG_INLINE Moment moment(const T* x, int64_t planes, int64_t step, int64_t n, double inverse) {
  W shift = finite_or(static_cast<W>(x[0]), W(0));
  auto sums = deviations<W>(x, planes, step, n, shift);
  if constexpr (sizeof(T) == sizeof(W)) {
    shift = finite_or(shift + static_cast<W>(sums.total(sums.first) * inverse), shift);
    sums = deviations<W>(x, planes, step, n, shift);
  }
  const double first = sums.total(sums.first), m2 = sums.total(sums.second) - first * first * inverse;
  return {static_cast<double>(shift) + first * inverse, m2 < 0 ? 0 : m2};
}

// The same of a row of any length, in runs
template <class T>
TG_INLINE Moment row_moment(const T* x, int64_t n, double inverse) {
  if (n <= kNormRun) return moment<T>(x, 1, 0, n, inverse);
  Moment all = moment<T>(x, 1, 0, kNormRun, 1.0 / kNormRun);
  for (int64_t i = kNormRun; i < n; i += kNormRun) {
    const int64_t count = n - i < kNormRun ? n - i : kNormRun;
    const double m = static_cast<double>(count);
    merge(all, static_cast<double>(i), moment<T>(x + i, 1, 0, count, 1 / m), m);
  }
  return all;
}

// The sums of g and of g (x - mean)
struct Slope {
  double plain, along;
};
// over `planes` runs of n elements, `step` apart
template <class T>
TG_INLINE Slope slope(const T* g, const T* x, int64_t planes, int64_t step, int64_t n, double mean) {
  using V = Vec<T>;
  Sums<V> sums;
  const T from = static_cast<T>(mean);
  for (; planes > 0; --planes, g += step, x += step)
    over_run<V::N>(n, [&](int64_t i, int count, int chain) __attribute__((always_inline)) {
      sums.add(chain, lanes_of<T>(g + i, count, T(0)), lanes_of<T>(x + i, count, T(0)) - V::set1(from));
    });
  const double plain = sums.total(sums.first), rest = mean - static_cast<double>(from);
  return {plain, sums.total(sums.second) - rest * plain};
}

// over a row of any length, in runs
template <class T>
TG_INLINE Slope row_slope(const T* g, const T* x, int64_t n, double mean) {
  Slope all = {0, 0};
  for (int64_t i = 0; i < n; i += kNormRun) {
    const Slope one = slope(g + i, x + i, 1, 0, n - i < kNormRun ? n - i : kNormRun, mean);
    all.plain += one.plain;
    all.along += one.along;
  }
  return all;
}

}  // namespace tapegrad::TG_ISA
