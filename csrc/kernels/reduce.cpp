#include "kernels/table.h"
#include "kernels/vec.h"

namespace tapegrad::TG_ISA {

// out[n] = sum over m, ascending, of x[m][n], for n in [begin, end)
template <class T>
void column_sums(const T* x, int64_t M, int64_t N, int64_t begin, int64_t end, T* out) {
  using V = Vec<T>;
  for (int64_t n = begin; n < end; n += V::N) {
    const int64_t left = end - n;
    const int count = left < V::N ? static_cast<int>(left) : V::N;
    V sum = V::set1(0);
    for (int64_t m = 0; m < M; ++m) sum = sum + V::load(x + m * N + n, count);
    sum.store(out + n, count);
  }
}

// out[c] = sum of x[n][c][p] over n and p, for c in [begin, end): one chain per lane, lanes added in ascending order
template <class T>
void plane_sums(const T* x, int64_t N, int64_t C, int64_t P, int64_t begin, int64_t end, T* out) {
  using V = Vec<T>;
  for (int64_t c = begin; c < end; ++c) {
    V sum = V::set1(0);
    for (int64_t n = 0; n < N; ++n) {
      const T* plane = x + (n * C + c) * P;
      int64_t p = 0;
      for (; p + V::N <= P; p += V::N) sum = sum + V::load(plane + p);
      if (p < P) sum = sum + V::load(plane + p, static_cast<int>(P - p));
    }
    T lanes[V::N];
    sum.store(lanes);
    T total = 0;
    for (int i = 0; i < V::N; ++i) total += lanes[i];
    out[c] = total;
  }
}

// x[0][i] += x[1][i] + ... + x[parts - 1][i], ascending, for i in [begin, end) of n
template <class T>
void sum_parts(T* x, int64_t parts, int64_t n, int64_t begin, int64_t end) {
  for (int64_t part = 1; part < parts; ++part)
    for (int64_t i = begin; i < end; ++i) x[i] += x[part * n + i];
}

template void column_sums(const float*, int64_t, int64_t, int64_t, int64_t, float*);
template void column_sums(const double*, int64_t, int64_t, int64_t, int64_t, double*);
template void plane_sums(const float*, int64_t, int64_t, int64_t, int64_t, int64_t, float*);
template void plane_sums(const double*, int64_t, int64_t, int64_t, int64_t, int64_t, double*);
template void sum_parts(float*, int64_t, int64_t, int64_t, int64_t);
template void sum_parts(double*, int64_t, int64_t, int64_t, int64_t);

}  // namespace tapegrad::TG_ISA
