#include "kernels/table.h"
#include "kernels/vec.h"

namespace tapegrad::TG_ISA {
namespace {

// The register tile: ROWS x VECS accumulators, VECS vectors of B and one broadcast of A.
#if defined(__AVX512F__)
constexpr int ROWS = 8, VECS = 3;
#elif defined(__AVX2__)
constexpr int ROWS = 4, VECS = 3;
#else
constexpr int ROWS = 4, VECS = 2;
#endif

constexpr int64_t DEPTH = 1024;  // rows of B packed at a time
static_assert(DEPTH * VECS * Vec<double>::N * 8 <= kScratchBytes / 2, "conv2d keeps its tile in the other half");

// C[0..MR)[0..columns) (+)= A @ B over K rows of B. `tail` columns of the last vector are real.
template <class T, int MR, int NV, bool TAIL>
void tile(const Gemm<T>& a, const T* A, const T* B, int64_t b_k, T* C, int64_t K, bool carry, int tail, const T* bias_m,
          const T* bias_n) {
  using V = Vec<T>;
  V acc[MR][NV];
  for (int i = 0; i < MR; ++i)
    for (int j = 0; j < NV; ++j) {
      const T* c = C + i * a.c_m + j * V::N;
      acc[i][j] = !carry ? V::set1(0) : TAIL && j == NV - 1 ? V::load(c, tail) : V::load(c);
    }
  for (int64_t k = 0; k < K; ++k, A += a.a_k, B += b_k) {
    V b[NV];
    for (int j = 0; j < NV; ++j) b[j] = TAIL && j == NV - 1 ? V::load(B + j * V::N, tail) : V::load(B + j * V::N);
    for (int i = 0; i < MR; ++i) {
      const V x = V::set1(A[i * a.a_m]);
      for (int j = 0; j < NV; ++j) acc[i][j] = fma(x, b[j], acc[i][j]);
    }
  }
  for (int i = 0; i < MR; ++i)
    for (int j = 0; j < NV; ++j) {
      const bool part = TAIL && j == NV - 1;
      V r = acc[i][j];
      if (bias_m) r = r + V::set1(bias_m[i]);
      if (bias_n) r = r + (part ? V::load(bias_n + j * V::N, tail) : V::load(bias_n + j * V::N));
      T* c = C + i * a.c_m + j * V::N;
      part ? r.store(c, tail) : r.store(c);
    }
}

// All M rows of one panel of NV vectors, ROWS at a time; MR counts down to the rows that are left at the end.
template <class T, int MR, int NV, bool TAIL>
void rows(const Gemm<T>& a, int64_t m, const T* A, const T* B, int64_t b_k, T* C, int64_t K, bool carry, int tail,
          const T* bias_m, const T* bias_n) {
  for (; a.M - m >= MR; m += MR)
    tile<T, MR, NV, TAIL>(a, A + m * a.a_m, B, b_k, C + m * a.c_m, K, carry, tail, bias_m ? bias_m + m : nullptr,
                          bias_n);
  if constexpr (MR > 1)
    if (m < a.M) rows<T, MR - 1, NV, TAIL>(a, m, A, B, b_k, C, K, carry, tail, bias_m, bias_n);
}

template <class T, int NV>
void panel(const Gemm<T>& a, int64_t columns, const T* A, const T* B, int64_t b_k, T* C, int64_t K, bool carry,
           const T* bias_m, const T* bias_n) {
  if constexpr (NV > 1)
    if (columns <= (NV - 1) * Vec<T>::N) return panel<T, NV - 1>(a, columns, A, B, b_k, C, K, carry, bias_m, bias_n);
  const int tail = static_cast<int>(columns - (NV - 1) * Vec<T>::N);
  if (tail == Vec<T>::N)
    rows<T, ROWS, NV, false>(a, 0, A, B, b_k, C, K, carry, tail, bias_m, bias_n);
  else
    rows<T, ROWS, NV, true>(a, 0, A, B, b_k, C, K, carry, tail, bias_m, bias_n);
}

}  // namespace

// scratch: up to DEPTH x VECS vectors, used where B's columns are not adjacent.
template <class T>
void gemm(const Gemm<T>& a, T* scratch) {
  constexpr int64_t WIDTH = VECS * Vec<T>::N;
  for (int64_t n = 0; n < a.N; n += WIDTH) {
    const int64_t columns = a.N - n < WIDTH ? a.N - n : WIDTH;
    int64_t k = 0;
    do {  // once even where K = 0: the result is then the bias
      const int64_t depth = a.b_n == 1 ? a.K : a.K - k < DEPTH ? a.K - k : DEPTH;
      const T* B = a.B + k * a.b_k + n * a.b_n;
      int64_t b_k = a.b_k;
      if (a.b_n != 1) {
        // B[depth][columns] -> scratch[depth][columns], read along the longer runs of B
        for (int64_t j = 0; j < columns; ++j)
          for (int64_t i = 0; i < depth; ++i) scratch[i * columns + j] = B[i * a.b_k + j * a.b_n];
        B = scratch;
        b_k = columns;
      }
      const bool last = k + depth == a.K;
      panel<T, VECS>(a, columns, a.A + k * a.a_k, B, b_k, a.C + n, depth, a.carry || k > 0, last ? a.bias_m : nullptr,
                     last && a.bias_n ? a.bias_n + n : nullptr);
      k += depth;
    } while (k < a.K);
  }
}

template void gemm(const Gemm<float>&, float*);
template void gemm(const Gemm<double>&, double*);

}  // namespace tapegrad::TG_ISA
