// Kernels in lanes: an element is a whole vector, and lane l of it belongs to network l. No element has a tail, nothing
// is turned or broadcast, and every lane adds in the order of the plain kernels, so that its bits are theirs.
#include "kernels/lanes.h"

#include "kernels/extents.h"
#include "kernels/table.h"
#include "kernels/vmath.h"

namespace tapegrad::TG_ISA {
namespace {

// The register tile: as many accumulators as leave room for one row of B and one element of A.
#if TG_REGISTERS == 32
constexpr int ROWS = 8, COLUMNS = 5;
#else
constexpr int ROWS = 6, COLUMNS = 4;
#endif
constexpr bool fits(int rows, int columns) { return rows * columns + columns + 1 <= TG_REGISTERS; }
constexpr int rows_for(int columns) {
  int rows = ROWS;
  while (!fits(rows, columns)) --rows;
  return rows;
}

// C[0..MR)[0..NR) = A @ B + bias, one chain over k for each.
template <class T, int MR, int NR>
__attribute__((noinline)) void tile(const LaneGemm<T>& all, int64_t m, int64_t n) {
  using V = Vec<T>;
  const Gemm<T>& a = all.product;
  constexpr int64_t L = V::N;
  const T *A = a.A + m * a.a_m * L, *B = a.B + n * a.b_n * L;
  const int64_t a_m = a.a_m * L, a_k = a.a_k * L, b_k = a.b_k * L, b_n = a.b_n * L;
  V acc[MR][NR];
#pragma GCC unroll 8
  for (int i = 0; i < MR; ++i)
#pragma GCC unroll 8
    for (int j = 0; j < NR; ++j) acc[i][j] = V::set1(0);
  for (int64_t k = a.K; k > 0; --k, A += a_k, B += b_k) {
    V b[NR];
#pragma GCC unroll 8
    for (int j = 0; j < NR; ++j) b[j] = V::load(B + j * b_n);
#pragma GCC unroll 8
    for (int i = 0; i < MR; ++i) {
      const V x = V::load(A + i * a_m);
#pragma GCC unroll 8
      for (int j = 0; j < NR; ++j) acc[i][j] = fma(x, b[j], acc[i][j]);
    }
  }
  if (a.bias_n)
#pragma GCC unroll 8
    for (int j = 0; j < NR; ++j) {
      const V bias = V::load(a.bias_n + (n + j) * L);
#pragma GCC unroll 8
      for (int i = 0; i < MR; ++i) acc[i][j] = acc[i][j] + bias;
    }
  const V zero = V::set1(0);
  if (all.relu)
#pragma GCC unroll 8
    for (int i = 0; i < MR; ++i)
#pragma GCC unroll 8
      for (int j = 0; j < NR; ++j) acc[i][j] = at_least(acc[i][j], zero);
  // Addresses of their own: what is stored might lie in `a`, for all that the compiler knows.
  const int64_t first = (m * a.c_m + n) * L, c_m = a.c_m * L;
  if (const T* gate = all.gate) {
    gate += first;
#pragma GCC unroll 8
    for (int i = 0; i < MR; ++i, gate += c_m)
#pragma GCC unroll 8
      for (int j = 0; j < NR; ++j) acc[i][j] = select(V::load(gate + j * L) <= zero, zero, acc[i][j]);
  }
  T* C = a.C + first;
#pragma GCC unroll 8
  for (int i = 0; i < MR; ++i, C += c_m)
#pragma GCC unroll 8
    for (int j = 0; j < NR; ++j) acc[i][j].store(C + j * L);
}

template <class T>
struct Tiles {
  void (*of[COLUMNS][ROWS])(const LaneGemm<T>&, int64_t, int64_t);
};
template <class T, int I = 0>
constexpr void fill(Tiles<T>& all) {
  constexpr int COLUMN = I / ROWS, ROW = I % ROWS;
  if constexpr (fits(ROW + 1, COLUMN + 1)) all.of[COLUMN][ROW] = tile<T, ROW + 1, COLUMN + 1>;
  if constexpr (I + 1 < COLUMNS * ROWS) fill<T, I + 1>(all);
}
template <class T>
constexpr Tiles<T> filled() {
  Tiles<T> all = {};
  fill(all);
  return all;
}

// The sum of f(0) ... f(n - 1), as sum_of in sums.cpp adds them: four chains for each place in a vector, then a tree.
template <class T, class F>
TG_INLINE Vec<T> sum_of(int64_t n, const F& f) {
  using V = Vec<T>;
  constexpr int P = V::N;
  V sum[4 * P];
  for (int j = 0; j < 4 * P; ++j) sum[j] = V::set1(0);
  int64_t i = 0;
  for (; i + 4 * P <= n; i += 4 * P)
    for (int j = 0; j < 4 * P; ++j) sum[j] = sum[j] + f(i + j);
  for (; i + P <= n; i += P)
    for (int j = 0; j < P; ++j) sum[j] = sum[j] + f(i + j);
  for (int j = 0; i < n; ++i, ++j) sum[P + j] = sum[P + j] + f(i);
  for (int j = 0; j < P; ++j) sum[j] = (sum[j] + sum[P + j]) + (sum[2 * P + j] + sum[3 * P + j]);
  for (int half = P / 2; half > 0; half /= 2)
    for (int j = 0; j < half; ++j) sum[j] = sum[j] + sum[j + half];
  return sum[0];
}

// out[n] = sum over m of x[m][n], m ascending, for COUNT columns of N
template <class T, int COUNT>
void columns(const T* x, int64_t M, int64_t N, T* out) {
  using V = Vec<T>;
  V sum[COUNT];
  for (int j = 0; j < COUNT; ++j) sum[j] = V::set1(0);
  for (int64_t m = 0; m < M; ++m, x += N * V::N)
    for (int j = 0; j < COUNT; ++j) sum[j] = sum[j] + V::load(x + j * V::N);
  for (int j = 0; j < COUNT; ++j) sum[j].store(out + j * V::N);
}

template <class T>
constexpr T kLowest = -__builtin_inf();

}  // namespace

// Rows of A in blocks that stay in the nearest cache while all columns of B pass by.
template <class T>
void lane_gemm(const LaneGemm<T>& all) {
  static constexpr Tiles<T> tiles = filled<T>();
  constexpr int64_t NEAR = 24 << 10;  // bytes
  const Gemm<T>& a = all.product;
  const int64_t columns = share(a.N, COLUMNS), rows = share(a.M, rows_for(static_cast<int>(columns)));
  const int64_t row = (a.K > 0 ? a.K : 1) * static_cast<int64_t>(sizeof(Vec<T>));
  const int64_t block = NEAR / row > rows ? NEAR / row / rows * rows : rows;
  for (int64_t first = 0; first < a.M; first += block) {
    const int64_t last = smaller(first + block, a.M);
    for (int64_t n = 0; n < a.N; n += columns) {
      const int64_t nr = smaller(columns, a.N - n);
      for (int64_t m = first; m < last; m += rows) tiles.of[nr - 1][smaller(rows, last - m) - 1](all, m, n);
    }
  }
}

// out[n] = sum over m of x[m][n], m ascending
template <class T>
void lane_column_sums(const T* x, int64_t M, int64_t N, T* out) {
  constexpr int64_t L = Vec<T>::N;
  int64_t n = 0;
  for (; n + 8 <= N; n += 8) columns<T, 8>(x + n * L, M, N, out + n * L);
  for (; n < N; ++n) columns<T, 1>(x + n * L, M, N, out + n * L);
}

// out = sum of x, or of x * y where y is not null, over divisor
template <class T>
void lane_sum(const T* x, const T* y, int64_t n, T divisor, T* out) {
  using V = Vec<T>;
  const V sum =
      y ? sum_of<T>(n, [=](int64_t i)
                           __attribute__((always_inline)) { return V::load(x + i * V::N) * V::load(y + i * V::N); })
        : sum_of<T>(n, [=](int64_t i) __attribute__((always_inline)) { return V::load(x + i * V::N); });
  (sum / V::set1(divisor)).store(out);
}

// out = sum of (x - y)^2 over divisor
template <class T>
void lane_squared_error(const T* x, const T* y, int64_t n, T divisor, T* out) {
  using V = Vec<T>;
  const V sum = sum_of<T>(n, [=](int64_t i) __attribute__((always_inline)) {
    const V d = V::load(x + i * V::N) - V::load(y + i * V::N);
    return d * d;
  });
  (sum / V::set1(divisor)).store(out);
}

// dx[i] = g factor (x[i] - y[i]) and dy = -dx, where they are not null
template <class T>
void lane_mse_backward(const T* g, const T* x, const T* y, T factor, T* dx, T* dy, int64_t n) {
  using V = Vec<T>;
  const V scale = V::load(g) * V::set1(factor);
  for (int64_t i = 0; i < n * V::N; i += V::N) {
    const V a = V::load(x + i), b = V::load(y + i);
    if (dx) (scale * (a - b)).store(dx + i);
    if (dy) (scale * (b - a)).store(dy + i);
  }
}

// As cross_entropy in softmax.cpp for few classes, without weights and smoothing: a.losses and a.weights are scratch
// [N].
template <class T>
void lane_cross_entropy(const CrossEntropy<T>& a, int64_t N, bool mean, T* loss, T* total) {
  using V = Vec<T>;
  constexpr int64_t L = V::N;
  for (int64_t n = 0; n < N; ++n) {
    const T* x = a.x + n * a.C * L;
    V most = V::set1(kLowest<T>), sum = V::set1(0);
    for (int64_t c = 0; c < a.C; ++c) most = at_least(most, V::load(x + c * L));
    for (int64_t c = 0; c < a.C; ++c) sum = sum + exp(V::load(x + c * L) - most);
    const V ln = log(sum);
    most.store(a.stats + 2 * n * L);
    ln.store(a.stats + (2 * n + 1) * L);
    T own[L], counted[L];
    for (int64_t l = 0; l < L; ++l) {
      const int64_t t = a.target[n * L + l];
      counted[l] = t != a.ignore_index;
      own[l] = t != a.ignore_index ? x[t * L + l] : T(0);
    }
    const V weight = V::load(counted);
    weight.store(a.weights + n * L);
    select(weight == V::set1(0), V::set1(0), (most - V::load(own)) + ln).store(a.losses + n * L);
  }
  const auto sum = [&](const T* of) {
    return sum_of<T>(N, [=](int64_t i) __attribute__((always_inline)) { return V::load(of + i * L); });
  };
  const V weights = sum(a.weights), nan = V::set1(__builtin_nan(""));
  weights.store(total);
  const V divisor = mean ? select(weights == V::set1(0), nan, weights) : V::set1(1);
  (sum(a.losses) / divisor).store(loss);
}

template <class T>
void lane_cross_entropy_backward(const CrossEntropy<T>& a, int64_t N, bool mean, const T* total) {
  using V = Vec<T>;
  constexpr int64_t L = V::N;
  const V divisor = mean ? V::load(total) : V::set1(1), g = V::load(a.g);
  const V scale = select(divisor == V::set1(0), divisor, g) / divisor;
  T own[L];
  scale.store(own);
  for (int64_t n = 0; n < N; ++n) {
    const T* x = a.x + n * a.C * L;
    T* dx = a.dx + n * a.C * L;
    const V most = V::load(a.stats + 2 * n * L), ln = V::load(a.stats + (2 * n + 1) * L);
    for (int64_t c = 0; c < a.C; ++c) (exp(V::load(x + c * L) - most - ln) * scale).store(dx + c * L);
    for (int64_t l = 0; l < L; ++l) {
      const int64_t t = a.target[n * L + l];
      if (t != a.ignore_index)
        dx[t * L + l] -= own[l];
      else
        for (int64_t c = 0; c < a.C; ++c) dx[c * L + l] = 0;
    }
  }
}

#define TG_INSTANTIATE(T)                                                            \
  template void lane_gemm(const LaneGemm<T>&);                                       \
  template void lane_column_sums(const T*, int64_t, int64_t, T*);                    \
  template void lane_sum(const T*, const T*, int64_t, T, T*);                        \
  template void lane_squared_error(const T*, const T*, int64_t, T, T*);              \
  template void lane_mse_backward(const T*, const T*, const T*, T, T*, T*, int64_t); \
  template void lane_cross_entropy(const CrossEntropy<T>&, int64_t, bool, T*, T*);   \
  template void lane_cross_entropy_backward(const CrossEntropy<T>&, int64_t, bool, const T*);
TG_INSTANTIATE(float)
TG_INSTANTIATE(double)

#define TG_LANE_F32(name, args) name<float>,
#define TG_LANE_F64(name, args) name<double>,
extern const LaneKernels lane_table;
const LaneKernels lane_table = {{Vec<float>::N, TG_LANE_KERNELS(TG_LANE_F32)},
                                {Vec<double>::N, TG_LANE_KERNELS(TG_LANE_F64)}};

}  // namespace tapegrad::TG_ISA
