// Sums in a fixed order: parts of a fixed number of rows or elements, each summed in one go; the border sums the parts
// the same way. Every chain is short, which is what keeps float32 accurate.
#include "kernels/table.h"
#include "kernels/vops.h"

namespace tapegrad::TG_ISA {
namespace {

// The sum over i of f(x[i]...), in four chains of vectors.
template <class T, class F, class... X>
TG_INLINE T sum_of(int64_t n, const F& f, const X*... x) {
  using V = Vec<T>;
  V sum[4] = {V::set1(0), V::set1(0), V::set1(0), V::set1(0)};
  int64_t i = 0;
  for (; i + 4 * V::N <= n; i += 4 * V::N)
    for (int j = 0; j < 4; ++j) sum[j] = sum[j] + f(V::load(x + i + j * V::N)...);
  for (; i + V::N <= n; i += V::N) sum[0] = sum[0] + f(V::load(x + i)...);
  if (const int tail = static_cast<int>(n - i)) sum[1] = sum[1] + f(V::load(x + i, tail)...);
  return first_lane(sum_lanes((sum[0] + sum[1]) + (sum[2] + sum[3])));
}

// out[b] = sum over r of x[r * B + b], r ascending, over `divisor`, for VECS vectors of columns
template <class T, int VECS>
void columns(const T* x, int64_t R, int64_t B, T divisor, int64_t count, T* out) {
  using V = Vec<T>;
  V sum[VECS];
  for (int j = 0; j < VECS; ++j) sum[j] = V::set1(0);
  for (int64_t r = 0; r < R; ++r, x += B)
    for (int j = 0; j < VECS; ++j)
      sum[j] = sum[j] + (VECS > 1 ? V::load(x + j * V::N) : V::load(x, static_cast<int>(count)));
  for (int j = 0; j < VECS; ++j) {
    sum[j] = sum[j] / V::set1(divisor);
    VECS > 1 ? sum[j].store(out + j * V::N) : sum[j].store(out, static_cast<int>(count));
  }
}

}  // namespace

// A unit is one part of one a and, where B > 1, one stretch of kSumColumns columns.
template <class T>
void sum_segments(const Sum<T>& a, int64_t begin, int64_t end) {
  const int64_t rows = a.B == 1 ? kSumRun : kSumRows;
  const int64_t parts = a.R > rows ? (a.R + rows - 1) / rows : 1, stretches = (a.B + kSumColumns - 1) / kSumColumns;
  for (int64_t unit = begin; unit < end; ++unit) {
    const int64_t stretch = unit % stretches, part = unit / stretches % parts, i = unit / stretches / parts;
    const int64_t first = part * rows, count = a.R - first < rows ? a.R - first : rows;
    const T* x = a.x + (i * a.R + first) * a.B;
    T* out = a.out + (i * parts + part) * a.B;
    if (a.B == 1) {
      *out = sum_of<T>(count, [](Vec<T> x) __attribute__((always_inline)) { return x; }, x) / a.divisor;
      continue;
    }
    constexpr int64_t N = Vec<T>::N;
    int64_t b = stretch * kSumColumns;
    const int64_t last = b + kSumColumns < a.B ? b + kSumColumns : a.B;
    for (; b + 4 * N <= last; b += 4 * N) columns<T, 4>(x + b, count, a.B, a.divisor, 4 * N, out + b);
    for (; b < last; b += N) columns<T, 1>(x + b, count, a.B, a.divisor, last - b < N ? last - b : N, out + b);
  }
}

// out[part] = sum of x * y over elements [part, part + 1) * kSumRun of n
template <class T>
void dot(const T* x, const T* y, int64_t n, T* out, int64_t begin, int64_t end) {
  for (int64_t part = begin; part < end; ++part) {
    const int64_t first = part * kSumRun, count = n - first < kSumRun ? n - first : kSumRun;
    out[part] = sum_of<T>(
        count, [](Vec<T> x, Vec<T> y) __attribute__((always_inline)) { return x * y; }, x + first, y + first);
  }
}

// out[part] = sum of (x - y)^2 over elements [part, part + 1) * kSumRun of n
template <class T>
void squared_error(const T* x, const T* y, int64_t n, T* out, int64_t begin, int64_t end) {
  for (int64_t part = begin; part < end; ++part) {
    const int64_t first = part * kSumRun, count = n - first < kSumRun ? n - first : kSumRun;
    out[part] = sum_of<T>(
        count,
        [](Vec<T> x, Vec<T> y) __attribute__((always_inline)) {
          const Vec<T> d = x - y;
          return d * d;
        },
        x + first, y + first);
  }
}

// dx[i] = scale * (x[i] - y[i]) and dy = -dx, where they are not null
template <class T>
void mse_backward(const T* x, const T* y, T scale, T* dx, T* dy, int64_t n) {
  using V = Vec<T>;
  const V s = V::set1(scale);
  if (dx) map(n, dx, [=](V x, V y) __attribute__((always_inline)) { return s * (x - y); }, x, y);
  if (dy) map(n, dy, [=](V x, V y) __attribute__((always_inline)) { return s * (y - x); }, x, y);
}

#define TG_INSTANTIATE(T)                                                         \
  template void sum_segments(const Sum<T>&, int64_t, int64_t);                    \
  template void dot(const T*, const T*, int64_t, T*, int64_t, int64_t);           \
  template void squared_error(const T*, const T*, int64_t, T*, int64_t, int64_t); \
  template void mse_backward(const T*, const T*, T, T*, T*, int64_t);
TG_INSTANTIATE(float)
TG_INSTANTIATE(double)

}  // namespace tapegrad::TG_ISA
