// Sums over groups of elements, and maps with a few numbers for each group: batch norm and variances.
#include "kernels/moments.h"

#include "kernels/table.h"

namespace tapegrad::TG_ISA {
namespace {

// --- columns: a lane is a column of [R, C] ---

// VECS vectors of columns, or `count` columns with VECS = 1
template <class T, int VECS>
TG_INLINE void column_moments(const T* x, int64_t R, int64_t C, int count, double* mean, double* m2) {
  const D n = D::set1(static_cast<double>(R));
  D shift[VECS], first[VECS], second[VECS];
#pragma GCC unroll 4
  for (int j = 0; j < VECS; ++j) shift[j] = finite_or(lanes_of<double>(x + j * kLanes, count, T(0)), D::set1(0));
  for (int pass = sizeof(T) == sizeof(double) ? 0 : 1; pass < 2; ++pass) {
#pragma GCC unroll 4
    for (int j = 0; j < VECS; ++j) first[j] = second[j] = D::set1(0);
    for (int64_t r = 0; r < R; ++r)
#pragma GCC unroll 4
      for (int j = 0; j < VECS; ++j) {
        const D d = lanes_of<double>(x + r * C + j * kLanes, count, T(0)) - shift[j];
        first[j] = first[j] + d;
        second[j] = fma(d, d, second[j]);
      }
    if (pass == 0)
      for (int j = 0; j < VECS; ++j) shift[j] = finite_or(shift[j] + first[j] / n, shift[j]);
  }
#pragma GCC unroll 4
  for (int j = 0; j < VECS; ++j) {
    (shift[j] + first[j] / n).store(mean + j * kLanes, count);
    at_least(second[j] - first[j] * first[j] / n, D::set1(0)).store(m2 + j * kLanes, count);
  }
}

template <class T, int VECS>
TG_INLINE void column_slopes(const T* g, const T* x, int64_t R, int64_t C, int count, const double* mean, double* first,
                             double* second) {
  D from[VECS], sum[VECS], product[VECS];
#pragma GCC unroll 4
  for (int j = 0; j < VECS; ++j) {
    from[j] = D::load(mean + j * kLanes, count);
    sum[j] = product[j] = D::set1(0);
  }
  for (int64_t r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int j = 0; j < VECS; ++j) {
      const D u = lanes_of<double>(g + r * C + j * kLanes, count, T(0));
      sum[j] = sum[j] + u;
      product[j] = fma(u, lanes_of<double>(x + r * C + j * kLanes, count, T(0)) - from[j], product[j]);
    }
#pragma GCC unroll 4
  for (int j = 0; j < VECS; ++j) {
    sum[j].store(first + j * kLanes, count);
    product[j].store(second + j * kLanes, count);
  }
}

// For every unit: planes(first element, planes, elements of each, (a, c), place of the result), or, where P = 1 and
// C > 1, columns(first element, rows, columns, (a, c), place).
template <class T, class Planes, class Columns>
TG_INLINE void over_parts(const Groups<T>& a, int64_t begin, int64_t end, const Planes& planes,
                          const Columns& columns) {
  const bool by_column = a.P == 1 && a.C > 1;
  const int64_t step = by_column ? kNormColumns : 1, width = a.end_c - a.begin_c, across = (width + step - 1) / step;
  for (int64_t unit = begin; unit < end; ++unit) {
    const int64_t left = unit % across * step, c = a.begin_c + left, part = unit / across % a.parts;
    const int64_t i = unit / across / a.parts, n = part / a.cuts * a.rows, p = part % a.cuts * kNormRun;
    const int64_t rows = a.N - n < a.rows ? a.N - n : a.rows, to = (i * a.parts + part) * width + left;
    const int64_t at = ((i * a.N + n) * a.C + c) * a.P + p;
    if (by_column)
      columns(at, rows, width - left < step ? width - left : step, i * a.C + c, to);
    else
      planes(at, rows, a.cuts == 1 ? a.P : a.P - p < kNormRun ? a.P - p : kNormRun, i * a.C + c, to);
  }
}

}  // namespace

template <class T>
void moments(const Groups<T>& a, int64_t begin, int64_t end) {
  over_parts(
      a, begin, end,
      [&](int64_t at, int64_t planes, int64_t run, int64_t, int64_t to) {
        const Moment one = moment<double>(a.x + at, planes, a.C * a.P, run, 1 / static_cast<double>(planes * run));
        a.first[to] = one.mean;
        a.second[to] = one.m2;
      },
      [&](int64_t at, int64_t rows, int64_t columns, int64_t, int64_t to) {
        const T* x = a.x + at;
        double *mean = a.first + to, *m2 = a.second + to;
        int64_t c = 0;
        for (; c + 4 * kLanes <= columns; c += 4 * kLanes)
          column_moments<T, 4>(x + c, rows, a.C, kLanes, mean + c, m2 + c);
        for (; c + kLanes <= columns; c += kLanes) column_moments<T, 1>(x + c, rows, a.C, kLanes, mean + c, m2 + c);
        if (c < columns) column_moments<T, 1>(x + c, rows, a.C, static_cast<int>(columns - c), mean + c, m2 + c);
      });
}

template <class T>
void slope_sums(const Groups<T>& a, int64_t begin, int64_t end) {
  over_parts(
      a, begin, end,
      [&](int64_t at, int64_t planes, int64_t run, int64_t group, int64_t to) {
        const Slope one = slope(a.g + at, a.x + at, planes, a.C * a.P, run, a.mean[group]);
        a.first[to] = one.plain;
        a.second[to] = one.along;
      },
      [&](int64_t at, int64_t rows, int64_t columns, int64_t group, int64_t to) {
        const T *g = a.g + at, *x = a.x + at;
        const double* mean = a.mean + group;
        double *first = a.first + to, *second = a.second + to;
        int64_t c = 0;
        for (; c + 4 * kLanes <= columns; c += 4 * kLanes)
          column_slopes<T, 4>(g + c, x + c, rows, a.C, kLanes, mean + c, first + c, second + c);
        for (; c < columns; c += kLanes) {
          const int count = columns - c < kLanes ? static_cast<int>(columns - c) : kLanes;
          column_slopes<T, 1>(g + c, x + c, rows, a.C, count, mean + c, first + c, second + c);
        }
      });
}

template <class T>
void affine(const Affine<T>& a, int64_t begin, int64_t end) {
  using V = Vec<T>;
  if (a.P == 1) {
    for (int64_t row = begin; row < end; ++row) {
      const int64_t at = row * a.C, group = row / a.N * a.C;
      const T *from = a.from + group, *scale = a.scale + group, *shift = a.shift + group;
      if (a.g)
        map(
            a.C, a.out + at,
            [](V x, V g, V from, V scale, V shift, V gain)
                __attribute__((always_inline)) { return fma(g, gain, fma(x - from, scale, shift)); },
            a.x + at, a.g + at, from, scale, shift, a.gain + group);
      else
        map(
            a.C, a.out + at,
            [](V x, V from, V scale, V shift) __attribute__((always_inline)) { return fma(x - from, scale, shift); },
            a.x + at, from, scale, shift);
    }
    return;
  }
  const int64_t width = a.end_c - a.begin_c;
  int64_t row = begin / width, c = a.begin_c + begin % width;
  for (int64_t unit = begin; unit < end; ++unit) {
    const int64_t at = (row * a.C + c) * a.P, group = row / a.N * a.C + c;
    const V from = V::set1(a.from[group]), scale = V::set1(a.scale[group]), shift = V::set1(a.shift[group]);
    const auto f = [=](V x) __attribute__((always_inline)) { return fma(x - from, scale, shift); };
    if (a.g) {
      const V gain = V::set1(a.gain[group]);
      map(
          a.P, a.out + at, [=](V x, V g) __attribute__((always_inline)) { return fma(g, gain, f(x)); }, a.x + at,
          a.g + at);
    } else {
      map(a.P, a.out + at, f, a.x + at);
    }
    if (++c == a.end_c) c = a.begin_c, ++row;
  }
}

#define TG_INSTANTIATE(T)                                       \
  template void moments(const Groups<T>&, int64_t, int64_t);    \
  template void slope_sums(const Groups<T>&, int64_t, int64_t); \
  template void affine(const Affine<T>&, int64_t, int64_t);
TG_INSTANTIATE(float)
TG_INSTANTIATE(double)

}  // namespace tapegrad::TG_ISA
