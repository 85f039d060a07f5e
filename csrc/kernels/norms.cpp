// Layer norm and group norm: rows that are each normalised by statistics of their own.
#include "kernels/moments.h"
#include "kernels/table.h"

namespace tapegrad::TG_ISA {
namespace {

// (x - from) scale + shift = (x - mean) rstd: what rounding takes from the mean is in the shift
template <class T>
struct Standard {
  T from, scale, shift;
};
template <class T>
TG_INLINE Standard<T> standard(double mean, double rstd) {
  const T from = static_cast<T>(mean);
  return {from, static_cast<T>(rstd), static_cast<T>(-(mean - static_cast<double>(from)) * rstd)};
}

template <class T>
TG_INLINE void apply_row(const RowNorm<T>& a, const T* x, int64_t first, const Standard<T>& s, T* out) {
  using V = Vec<T>;
  const V from = V::set1(s.from), scale = V::set1(s.scale), shift = V::set1(s.shift);
  const T *w = a.weight ? a.weight + first : nullptr, *b = a.bias ? a.bias + first : nullptr;
  const auto hat = [=](V x) __attribute__((always_inline)) { return fma(x - from, scale, shift); };
  if (w && b)
    map(a.D, out, [=](V x, V w, V b) __attribute__((always_inline)) { return fma(hat(x), w, b); }, x, w, b);
  else if (w)
    map(a.D, out, [=](V x, V w) __attribute__((always_inline)) { return hat(x) * w; }, x, w);
  else if (b)
    map(a.D, out, [=](V x, V b) __attribute__((always_inline)) { return hat(x) + b; }, x, b);
  else
    map(a.D, out, hat, x);
}

template <class T>
TG_INLINE void apply_planes(const RowNorm<T>& a, const T* x, int64_t first, double mean, double rstd, T* out) {
  using V = Vec<T>;
  const T from = static_cast<T>(mean);
  for (int64_t d = 0; d < a.D; ++d, x += a.P, out += a.P) {
    const double scale = a.weight ? rstd * static_cast<double>(a.weight[first + d]) : rstd;
    const double bias = a.bias ? static_cast<double>(a.bias[first + d]) : 0;
    const V less = V::set1(from), by = V::set1(static_cast<T>(scale));
    const V more = V::set1(static_cast<T>(bias - (mean - static_cast<double>(from)) * scale));
    map(a.P, out, [=](V x) __attribute__((always_inline)) { return fma(x - less, by, more); }, x);
  }
}

}  // namespace

// A unit is a row.
template <class T>
void row_norm(const RowNorm<T>& a, int64_t begin, int64_t end) {
  const int64_t R = a.D * a.P;
  const double inverse = 1 / static_cast<double>(R);
  int64_t group = begin % a.G;
  for (int64_t row = begin; row < end; ++row, group = group + 1 < a.G ? group + 1 : 0) {
    const T* x = a.x + row * R;
    const Moment m = row_moment(x, R, inverse);
    const double rstd = 1 / __builtin_sqrt(m.m2 * inverse + a.eps);
    a.mean[row] = m.mean;
    a.rstd[row] = rstd;
    const int64_t first = group * a.D;
    if (a.P == 1)
      apply_row(a, x, first, standard<T>(m.mean, rstd), a.out + row * R);
    else
      apply_planes(a, x, first, m.mean, rstd, a.out + row * R);
  }
}

namespace {

template <class T>
TG_INLINE Vec<T> load(const T* p, int count) {
  return count < Vec<T>::N ? Vec<T>::load(p, count) : Vec<T>::load(p);
}
template <class T>
TG_INLINE void store(Vec<T> v, T* p, int count) {
  count < Vec<T>::N ? v.store(p, count) : v.store(p);
}

// The means of u and of u xhat, u = g w
template <class T>
struct RowMean {
  T plain, along;
};
template <class T>
TG_INLINE RowMean<T> row_mean(const Standard<T>& s, const T* g, const T* x, const T* w, int64_t n, double inverse) {
  using V = Vec<T>;
  const V from = V::set1(s.from), scale = V::set1(s.scale), shift = V::set1(s.shift);
  double plain = 0, along = 0;
  for (int64_t first = 0; first < n; first += kNormRun) {
    Sums<V> sums;
    over_run<V::N>(n - first < kNormRun ? n - first : kNormRun,
                   [&](int64_t i, int count, int chain) __attribute__((always_inline)) {
                     i += first;
                     const V u = w ? load(g + i, count) * load(w + i, count) : load(g + i, count);
                     sums.add(chain, u, fma(load(x + i, count) - from, scale, shift));
                   });
    plain += sums.total(sums.first);
    along += sums.total(sums.second);
  }
  return {static_cast<T>(plain * inverse), static_cast<T>(along * inverse)};
}

}  // namespace

// P = 1; a unit is a part of kNormRows samples: dx = rstd (u - mean u - xhat mean(u xhat)), u = g w
template <class T>
void row_norm_backward(const RowNorm<T>& a, int64_t begin, int64_t end) {
  using V = Vec<T>;
  const int64_t width = a.G * a.D;
  const double inverse = 1 / static_cast<double>(a.D);
  for (int64_t part = begin; part < end; ++part) {
    T *const dw = a.dw ? a.dw + part * width : nullptr, *const db = a.db ? a.db + part * width : nullptr;
    for (int64_t i = 0; i < width; ++i) {
      if (dw) dw[i] = 0;
      if (db) db[i] = 0;
    }
    const int64_t last = (part + 1) * kNormRows < a.samples ? (part + 1) * kNormRows : a.samples;
    int64_t group = 0;
    for (int64_t row = part * kNormRows * a.G; row < last * a.G; ++row, group = group + 1 < a.G ? group + 1 : 0) {
      const int64_t first = group * a.D, at = row * a.D;
      const T *g = a.g + at, *x = a.x + at, *w = a.weight ? a.weight + first : nullptr;
      const Standard<T> s = standard<T>(a.mean[row], a.rstd[row]);
      const RowMean<T> mean = a.dx ? row_mean(s, g, x, w, a.D, inverse) : RowMean<T>{0, 0};
      const V from = V::set1(s.from), scale = V::set1(s.scale), shift = V::set1(s.shift);
      const V plain = V::set1(mean.plain), along = V::set1(-mean.along);
      over_run<V::N>(a.D, [&](int64_t i, int count, int) __attribute__((always_inline)) {
        const V u = load(g + i, count), hat = fma(load(x + i, count) - from, scale, shift);
        if (dw) store(fma(u, hat, load(dw + first + i, count)), dw + first + i, count);
        if (db) store(u + load(db + first + i, count), db + first + i, count);
        if (!a.dx) return;
        const V scaled = w ? u * load(w + i, count) : u;
        store(fma(hat, along, scaled - plain) * scale, a.dx + at + i, count);
      });
    }
  }
}

// P > 1; a unit is a row.
template <class T>
void plane_norm_backward(const RowNorm<T>& a, int64_t begin, int64_t end) {
  using V = Vec<T>;
  const double n = static_cast<double>(a.D * a.P);
  for (int64_t row = begin; row < end; ++row) {
    const int64_t first = row % a.G * a.D;
    const double mean = a.mean[row], rstd = a.rstd[row];
    double plain = 0, along = 0;  // the sums of g w and g w (x - mean)
    const auto weight = [&](int64_t d) { return a.weight ? static_cast<double>(a.weight[first + d]) : 1.0; };
    for (int64_t d = 0; d < a.D; ++d) {
      const int64_t plane = row * a.D + d, at = plane * a.P;
      const Slope one = row_slope(a.g + at, a.x + at, a.P, mean);
      a.first[plane] = one.plain;
      a.second[plane] = one.along;
      plain += weight(d) * a.first[plane];
      along += weight(d) * a.second[plane];
    }
    if (!a.dx) continue;
    const T from = static_cast<T>(mean), scale = static_cast<T>(-rstd * rstd * rstd * along / n);
    const double rest = (mean - static_cast<double>(from)) * static_cast<double>(scale);
    const V less = V::set1(from), by = V::set1(scale), more = V::set1(static_cast<T>(-rstd * plain / n - rest));
    for (int64_t d = 0; d < a.D; ++d) {
      const int64_t at = (row * a.D + d) * a.P;
      const V gain = V::set1(static_cast<T>(rstd * weight(d)));
      map(
          a.P, a.dx + at,
          [=](V x, V g) __attribute__((always_inline)) { return fma(g, gain, fma(x - less, by, more)); }, a.x + at,
          a.g + at);
    }
  }
}

#define TG_INSTANTIATE(T)                                               \
  template void row_norm(const RowNorm<T>&, int64_t, int64_t);          \
  template void row_norm_backward(const RowNorm<T>&, int64_t, int64_t); \
  template void plane_norm_backward(const RowNorm<T>&, int64_t, int64_t);
TG_INSTANTIATE(float)
TG_INSTANTIATE(double)

}  // namespace tapegrad::TG_ISA
