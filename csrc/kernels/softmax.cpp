#include "kernels/table.h"
#include "kernels/vmath.h"

namespace tapegrad::TG_ISA {
namespace {

// f(vector at x + i, its number of real lanes) over a row of n; the other lanes hold `rest`.
template <class T, class F>
TG_INLINE void over_row(const T* x, int64_t n, T rest, const F& f) {
  using V = Vec<T>;
  int64_t i = 0;
  for (; i + V::N <= n; i += V::N) f(i, V::load(x + i));
  if (const int tail = static_cast<int>(n - i)) f(i, load_or(x + i, tail, rest));
}

template <class T>
constexpr T kLowest = -T(__builtin_inf());

template <class T>
TG_INLINE Vec<T> row_max(const T* x, int64_t n) {
  Vec<T> m = Vec<T>::set1(kLowest<T>);
  over_row(x, n, kLowest<T>, [&](int64_t, Vec<T> v) __attribute__((always_inline)) { m = at_least(m, v); });
  return max_lanes(m);
}

// The sum of e^(x - m), m being the maximum
template <class T>
TG_INLINE Vec<T> row_sum(const T* x, int64_t n, Vec<T> m) {
  Vec<T> sum = Vec<T>::set1(0);
  over_row(x, n, kLowest<T>, [&](int64_t, Vec<T> v) __attribute__((always_inline)) { sum = sum + exp(v - m); });
  return sum_lanes(sum);
}

template <class T>
TG_INLINE void store(Vec<T> v, T* out, int64_t left) {
  left < Vec<T>::N ? v.store(out, static_cast<int>(left)) : v.store(out);
}

template <class T>
void softmax_row(const T* x, int64_t n, bool log, T* out) {
  using V = Vec<T>;
  const V m = row_max(x, n);
  if (log) {
    const V ln = TG_ISA::log(row_sum(x, n, m));
    return map(n, out, [=](V v) __attribute__((always_inline)) { return v - m - ln; }, x);
  }
  V sum = V::set1(0);
  over_row(x, n, kLowest<T>, [&](int64_t i, V v) __attribute__((always_inline)) {
    const V e = exp(v - m);
    sum = sum + e;
    store(e, out + i, n - i);
  });
  const V scale = V::set1(1) / sum_lanes(sum);
  map(n, out, [=](V e) __attribute__((always_inline)) { return e * scale; }, static_cast<const T*>(out));
}

// One vector of columns, `count` real ones, of [R, B]
template <class T>
void softmax_columns(const T* x, int64_t R, int64_t B, int count, bool log, T* out) {
  using V = Vec<T>;
  V m = V::set1(kLowest<T>), sum = V::set1(0);
  for (int64_t r = 0; r < R; ++r) m = at_least(m, V::load(x + r * B, count));
  for (int64_t r = 0; r < R; ++r) {
    const V e = exp(V::load(x + r * B, count) - m);
    sum = sum + e;
    if (!log) e.store(out + r * B, count);
  }
  const V factor = log ? TG_ISA::log(sum) : V::set1(1) / sum;
  for (int64_t r = 0; r < R; ++r) {
    const V y = log ? V::load(x + r * B, count) - m - factor : V::load(out + r * B, count) * factor;
    y.store(out + r * B, count);
  }
}

// softmax: out * (g - sum g * out); log_softmax: g - e^out * sum g
template <class T>
TG_INLINE Vec<T> slope(Vec<T> g, Vec<T> out, Vec<T> sum, bool log) {
  return log ? g - exp(out) * sum : out * (g - sum);
}

template <class T>
void backward_row(const T* g, const T* out, int64_t n, bool log, T* dx) {
  using V = Vec<T>;
  V sum = V::set1(0);
  int64_t i = 0;
  for (; i + V::N <= n; i += V::N) sum = sum + (log ? V::load(g + i) : V::load(g + i) * V::load(out + i));
  if (const int tail = static_cast<int>(n - i))
    sum = sum + (log ? V::load(g + i, tail) : V::load(g + i, tail) * V::load(out + i, tail));
  sum = sum_lanes(sum);
  map(n, dx, [=](V g, V y) __attribute__((always_inline)) { return slope(g, y, sum, log); }, g, out);
}

template <class T>
void backward_columns(const T* g, const T* out, int64_t R, int64_t B, int count, bool log, T* dx) {
  using V = Vec<T>;
  V sum = V::set1(0);
  for (int64_t r = 0; r < R; ++r)
    sum = sum + (log ? V::load(g + r * B, count) : V::load(g + r * B, count) * V::load(out + r * B, count));
  for (int64_t r = 0; r < R; ++r)
    slope(V::load(g + r * B, count), V::load(out + r * B, count), sum, log).store(dx + r * B, count);
}

// Rows of few elements would leave most lanes of a vector idle, so they are turned: a lane is then a row.
constexpr int64_t kNarrow = 64;
template <class T>
using Turned = T[kNarrow * Vec<T>::N];

// `count` rows of n -> [n][lanes]
template <class T>
void turn(const T* x, int64_t n, int64_t count, Turned<T>& to) {
  transpose(x, n, count, n, to, Vec<T>::N);
}
template <class T>
void turn_back(const Turned<T>& from, int64_t n, int64_t count, T* out) {
  Turned<T> rows;
  transpose(static_cast<const T*>(from), Vec<T>::N, n, count, rows, kNarrow);
  for (int64_t i = 0; i < count; ++i)
    map(n, out + i * n, [](Vec<T> v) __attribute__((always_inline)) { return v; },
        static_cast<const T*>(rows + i * kNarrow));
}

// f(first row, rows) for rows [begin, end), a vector of rows at a time
template <class T, class F>
TG_INLINE void over_rows(int64_t begin, int64_t end, const F& f) {
  constexpr int64_t N = Vec<T>::N;
  for (int64_t n = begin; n < end; n += N) f(n, end - n < N ? end - n : N);
}

// f(offset of the first element, columns in the vector) for the vectors of units [begin, end)
template <class T, class F>
TG_INLINE void over_units(const Softmax<T>& a, int64_t begin, int64_t end, const F& f) {
  constexpr int64_t N = Vec<T>::N;
  const int64_t stretches = (a.B + kSoftmaxColumns - 1) / kSoftmaxColumns;
  for (int64_t unit = begin; unit < end; ++unit) {
    const int64_t first = unit % stretches * kSoftmaxColumns;
    const int64_t last = first + kSoftmaxColumns < a.B ? first + kSoftmaxColumns : a.B;
    for (int64_t b = first; b < last; b += N)
      f(unit / stretches * a.R * a.B + b, static_cast<int>(last - b < N ? last - b : N));
  }
}

}  // namespace

template <class T>
void softmax(const Softmax<T>& a, int64_t begin, int64_t end) {
  constexpr int N = Vec<T>::N;
  if (a.B == 1 && a.R <= kNarrow)
    return over_rows<T>(begin, end, [&](int64_t n, int64_t rows) {
      Turned<T> x;
      turn(a.x + n * a.R, a.R, rows, x);
      softmax_columns<T>(x, a.R, N, N, a.log, x);
      turn_back<T>(x, a.R, rows, a.out + n * a.R);
    });
  over_units(a, begin, end, [&](int64_t at, int count) {
    a.B == 1 ? softmax_row(a.x + at, a.R, a.log, a.out + at)
             : softmax_columns(a.x + at, a.R, a.B, count, a.log, a.out + at);
  });
}

template <class T>
void softmax_backward(const Softmax<T>& a, int64_t begin, int64_t end) {
  constexpr int N = Vec<T>::N;
  if (a.B == 1 && a.R <= kNarrow)
    return over_rows<T>(begin, end, [&](int64_t n, int64_t rows) {
      Turned<T> g, y;
      turn(a.g + n * a.R, a.R, rows, g);
      turn(a.x + n * a.R, a.R, rows, y);
      backward_columns<T>(g, y, a.R, N, N, a.log, g);
      turn_back<T>(g, a.R, rows, a.out + n * a.R);
    });
  over_units(a, begin, end, [&](int64_t at, int count) {
    a.B == 1 ? backward_row(a.g + at, a.x + at, a.R, a.log, a.out + at)
             : backward_columns(a.g + at, a.x + at, a.R, a.B, count, a.log, a.out + at);
  });
}

// The maximum m of each of `count` rows of n, and ln sum e^(x - m)
template <class T>
void row_stats(const T* x, int64_t n, int64_t count, T* m, T* ln) {
  using V = Vec<T>;
  if (n > kNarrow) {
    for (int64_t i = 0; i < count; ++i, x += n) {
      const V most = row_max(x, n);
      m[i] = first_lane(most);
      ln[i] = first_lane(log(row_sum(x, n, most)));
    }
    return;
  }
  Turned<T> columns;
  turn(x, n, count, columns);
  V most = V::set1(kLowest<T>), sum = V::set1(0);
  for (int64_t c = 0; c < n; ++c) most = at_least(most, V::load(columns + c * V::N));
  for (int64_t c = 0; c < n; ++c) sum = sum + exp(V::load(columns + c * V::N) - most);
  most.store(m);
  log(sum).store(ln);
}

// sum_c w[c] ln p[c] of a row
template <class T>
T smooth_sum(const CrossEntropy<T>& a, const T* x, T m, T ln) {
  using V = Vec<T>;
  const V most = V::set1(m), rest = V::set1(ln);
  V sum = V::set1(0);
  int64_t c = 0;
  const auto term = [&](V v, V w) __attribute__((always_inline)) { return (v - most - rest) * w; };
  for (; c + V::N <= a.C; c += V::N)
    sum = sum + term(V::load(x + c), a.weight ? V::load(a.weight + c) : V::set1(1));
  if (const int tail = static_cast<int>(a.C - c)) {
    const V y = term(V::load(x + c, tail), a.weight ? V::load(a.weight + c, tail) : V::set1(1));
    T lanes[V::N];
    y.store(lanes);  // lanes beyond the row hold (0 - m - ln) * w
    sum = sum + V::load(lanes, tail);
  }
  return first_lane(sum_lanes(sum));
}

// Rows [begin, end): stats = (m, ln sum e^(x - m)), and with p = softmax(x), a = (1 - s) w[t]:
// loss = -a ln p[t] - s / C sum_c w[c] ln p[c], 0 where the target is ignored; weight = w[t] or 0.
template <class T>
void cross_entropy(const CrossEntropy<T>& a, int64_t begin, int64_t end) {
  over_rows<T>(begin, end, [&](int64_t first, int64_t count) {
    T m[Vec<T>::N], ln[Vec<T>::N];
    row_stats(a.x + first * a.C, a.C, count, m, ln);
    for (int64_t i = 0; i < count; ++i) {
      const int64_t n = first + i, t = a.target[n];
      const T* x = a.x + n * a.C;
      a.stats[2 * n] = m[i];
      a.stats[2 * n + 1] = ln[i];
      a.losses[n] = a.weights[n] = 0;
      if (t == a.ignore_index) continue;
      a.weights[n] = a.weight ? a.weight[t] : T(1);
      a.losses[n] = (1 - a.smoothing) * a.weights[n] * ((m[i] - x[t]) + ln[i]);
      if (a.smoothing != 0) a.losses[n] -= a.smoothing / static_cast<T>(a.C) * smooth_sum(a, x, m[i], ln[i]);
    }
  });
}

// What a row's gradient needs: dx[c] = p[c] total - spread w[c] - own [c = t], all zero where the target is ignored.
template <class T>
struct RowSlope {
  T total, spread, own;
};
template <class T>
RowSlope<T> row_slope(const CrossEntropy<T>& a, int64_t n) {
  const int64_t t = a.target[n];
  if (t == a.ignore_index) return {0, 0, 0};
  const T share = a.smoothing / static_cast<T>(a.C), own = (1 - a.smoothing) * (a.weight ? a.weight[t] : T(1));
  const T scale = (a.divisor == 0 ? a.divisor : a.g[a.g_stride * n]) / a.divisor;  // a mean over no weight is NaN
  return {scale * (share == 0 ? own : own + share * a.weight_sum), scale * share, scale * own};
}

template <class T>
void wide_slope(const CrossEntropy<T>& a, int64_t n, const RowSlope<T>& s) {
  using V = Vec<T>;
  const T* x = a.x + n * a.C;
  T* dx = a.dx + n * a.C;
  const V m = V::set1(a.stats[2 * n]), ln = V::set1(a.stats[2 * n + 1]);
  const V total = V::set1(s.total), spread = V::set1(s.spread);
  const auto p = [=](V v) __attribute__((always_inline)) { return exp(v - m - ln) * total; };
  if (a.smoothing == 0)
    map(a.C, dx, p, x);
  else if (a.weight)
    map(a.C, dx, [=](V v, V w) __attribute__((always_inline)) { return p(v) - spread * w; }, x, a.weight);
  else
    map(a.C, dx, [=](V v) __attribute__((always_inline)) { return p(v) - spread; }, x);
}

// The same for `count` rows of few elements, a lane each
template <class T>
void narrow_slopes(const CrossEntropy<T>& a, int64_t first, int64_t count, const RowSlope<T>* s) {
  using V = Vec<T>;
  T m[V::N] = {}, ln[V::N] = {}, total[V::N] = {}, spread[V::N] = {};
  for (int64_t i = 0; i < count; ++i) {
    m[i] = a.stats[2 * (first + i)], ln[i] = a.stats[2 * (first + i) + 1];
    total[i] = s[i].total, spread[i] = s[i].spread;
  }
  const V most = V::load(m), rest = V::load(ln), scale = V::load(total), less = V::load(spread);
  Turned<T> x;
  turn(a.x + first * a.C, a.C, count, x);
  for (int64_t c = 0; c < a.C; ++c) {
    V y = exp(V::load(x + c * V::N) - most - rest) * scale;
    if (a.smoothing != 0) y = y - less * V::set1(a.weight ? a.weight[c] : T(1));
    y.store(x + c * V::N);
  }
  turn_back<T>(x, a.C, count, a.dx + first * a.C);
}

// dx[n][c] = scale (p[c] (a + s / C sum w) - s / C w[c] - a [c = t]), scale = g over the divisor
template <class T>
void cross_entropy_backward(const CrossEntropy<T>& a, int64_t begin, int64_t end) {
  over_rows<T>(begin, end, [&](int64_t first, int64_t count) {
    RowSlope<T> s[Vec<T>::N];
    for (int64_t i = 0; i < count; ++i) s[i] = row_slope(a, first + i);
    if (a.C <= kNarrow) narrow_slopes(a, first, count, s);
    for (int64_t i = 0; i < count; ++i) {
      const int64_t n = first + i, t = a.target[n];
      T* dx = a.dx + n * a.C;
      if (t == a.ignore_index) {  // whatever x holds
        for (int64_t c = 0; c < a.C; ++c) dx[c] = 0;
        continue;
      }
      if (a.C > kNarrow) wide_slope(a, n, s[i]);
      dx[t] -= s[i].own;
    }
  });
}

#define TG_INSTANTIATE(T)                                                \
  template void softmax(const Softmax<T>&, int64_t, int64_t);            \
  template void softmax_backward(const Softmax<T>&, int64_t, int64_t);   \
  template void cross_entropy(const CrossEntropy<T>&, int64_t, int64_t); \
  template void cross_entropy_backward(const CrossEntropy<T>&, int64_t, int64_t);
TG_INSTANTIATE(float)
TG_INSTANTIATE(double)

}  // namespace tapegrad::TG_ISA
