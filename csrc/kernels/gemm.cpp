#include "kernels/extents.h"
#include "kernels/table.h"
#include "kernels/vec.h"

namespace tapegrad::TG_ISA {
namespace {

// The register tile: ROWS x VECS accumulators, VECS vectors of B and one broadcast of A.
#if defined(__AVX512F__)
constexpr int ROWS = 8, VECS = 3;
constexpr int64_t DEPTH = 1024;
#elif defined(__aarch64__)
constexpr int ROWS = 8, VECS = 3;
constexpr int64_t DEPTH = 384;
#elif defined(__AVX2__)
constexpr int ROWS = 4, VECS = 3;
constexpr int64_t DEPTH = 384;
#else
constexpr int ROWS = 4, VECS = 2;
constexpr int64_t DEPTH = 384;
#endif

// Blocks: DEPTH of K at a time, less where A is packed, so that more of its rows are; what is packed of A and B at a
// time. Every further block of K reads and writes C once more, from far away where it is large; a short vector's panel
// of B is narrow, and a deep one of it passes through the nearest cache for few products.
constexpr int64_t PACKED_DEPTH = 384;
constexpr int64_t A_BYTES = 128 << 10, B_BYTES = 384 << 10;
constexpr int64_t FAR_BYTES = 1024;  // strides from here on share few sets of the nearest cache
constexpr int AHEAD = 8;             // rows of an operand that are asked for before their turn
static_assert(A_BYTES + B_BYTES <= kScratchBytes / 2, "conv2d keeps its tile in the other half");

// One block of the product, operands where they are or packed.
template <class T>
struct Block {
  int64_t M, K;
  const T* A;
  int64_t a_m, a_k, a_tile;  // row m of a tile is A[first * a_tile + (m - first) * a_m]
  const T* B;
  int64_t b_k;
  T* C;
  int64_t c_m;
  const T *bias_m, *bias_n;
  bool carry;
  int columns;  // of the last vector that are real
};

// Asks for the lines of rows [m, m + MR) of C, which come from far away, while the tile before is computed.
template <class T, int MR, int NV>
TG_INLINE void fetch_result(const Block<T>& a, int64_t m) {
  const T* C = a.C + m * a.c_m;
#pragma GCC unroll 8
  for (int i = 0; i < MR; ++i)
#pragma GCC unroll 8
    for (int j = 0; j < NV; ++j) __builtin_prefetch(C + i * a.c_m + j * Vec<T>::N, 1);
}

// C[0..MR)[0..NV vectors) (+)= A @ B; rows from m on
// Not inlined: a caller of all sizes of it would compute every one's addresses first.
template <class T, int MR, int NV, bool TAIL>
__attribute__((noinline)) void tile(const Block<T>& a, int64_t m) {
  using V = Vec<T>;
  const T *A = a.A + m * a.a_tile, *B = a.B;
  T* C = a.C + m * a.c_m;
  V acc[MR][NV];
#pragma GCC unroll 8
  for (int i = 0; i < MR; ++i)
#pragma GCC unroll 8
    for (int j = 0; j < NV; ++j) acc[i][j] = V::set1(0);
  if (a.carry)
#pragma GCC unroll 8
    for (int i = 0; i < MR; ++i)
#pragma GCC unroll 8
      for (int j = 0; j < NV; ++j) {
        const T* c = C + i * a.c_m + j * V::N;
        acc[i][j] = TAIL && j == NV - 1 ? V::load(c, a.columns) : V::load(c);
      }
  if (m + MR < a.M) fetch_result<T, MR, NV>(a, m + MR);
  const int64_t a_m = a.a_m, a_k = a.a_k, b_k = a.b_k;
  for (int64_t k = a.K; k > 0; --k, A += a_k, B += b_k) {
    V b[NV];
#pragma GCC unroll 8
    for (int j = 0; j < NV; ++j) b[j] = TAIL && j == NV - 1 ? V::load(B + j * V::N, a.columns) : V::load(B + j * V::N);
#pragma GCC unroll 8
    for (int i = 0; i < MR; ++i) {
      const V x = V::set1(A[i * a_m]);
#pragma GCC unroll 8
      for (int j = 0; j < NV; ++j) acc[i][j] = fma(x, b[j], acc[i][j]);
    }
  }
  if (a.bias_m)
#pragma GCC unroll 8
    for (int i = 0; i < MR; ++i)
#pragma GCC unroll 8
      for (int j = 0; j < NV; ++j) acc[i][j] = acc[i][j] + V::set1(a.bias_m[m + i]);
  if (a.bias_n)
#pragma GCC unroll 8
    for (int j = 0; j < NV; ++j) {
      const T* from = a.bias_n + j * V::N;
      const V bias = TAIL && j == NV - 1 ? V::load(from, a.columns) : V::load(from);
#pragma GCC unroll 8
      for (int i = 0; i < MR; ++i) acc[i][j] = acc[i][j] + bias;
    }
#pragma GCC unroll 8
  for (int i = 0; i < MR; ++i, C += a.c_m)
#pragma GCC unroll 8
    for (int j = 0; j < NV; ++j)
      TAIL&& j == NV - 1 ? acc[i][j].store(C + j * V::N, a.columns) : acc[i][j].store(C + j * V::N);
}

// The tile of so many rows and vectors, the last of them whole or in part.
template <class T>
struct Tiles {
  void (*of[VECS][ROWS][2])(const Block<T>&, int64_t);
};
template <class T, int I = 0>
constexpr void fill(Tiles<T>& all) {
  constexpr int VEC = I / ROWS, ROW = I % ROWS;
  all.of[VEC][ROW][0] = tile<T, ROW + 1, VEC + 1, false>;
  all.of[VEC][ROW][1] = tile<T, ROW + 1, VEC + 1, true>;
  if constexpr (I + 1 < VECS * ROWS) fill<T, I + 1>(all);
}
template <class T>
constexpr Tiles<T> filled() {
  Tiles<T> all = {};
  fill(all);
  return all;
}

// All rows of a block of nv vectors, in tiles of nearly equal height
template <class T>
void panel(int64_t nv, const Block<T>& a) {
  static constexpr Tiles<T> all = filled<T>();
  const bool part = a.columns != Vec<T>::N;
  const int64_t rows = share(a.M, ROWS);
  for (int64_t m = 0; m < a.M; m += rows) all.of[nv - 1][smaller(rows, a.M - m) - 1][part](a, m);
}

// B[K][columns] -> to[K][width], zeros behind its columns
template <class T>
void pack_b(const Gemm<T>& a, int64_t k, int64_t K, int64_t n, int64_t columns, T* to, int64_t width) {
  using V = Vec<T>;
  const T* B = a.B + k * a.b_k + n * a.b_n;
  if (a.b_k == 1) return transpose(B, a.b_n, columns, K, to, width);
  for (int64_t i = 0; i < K; ++i, B += a.b_k, to += width) {
    if (a.b_n != 1) {
      for (int64_t j = 0; j < width; ++j) to[j] = j < columns ? B[j * a.b_n] : 0;
      continue;
    }
    for (int64_t j = 0; j < columns; j += V::N)
      columns - j >= V::N ? V::load(B + j).store(to + j) : V::load(B + j, static_cast<int>(columns - j)).store(to + j);
  }
}

// The block's A -> to [tile][K][rows of the tile], which the block then reads
template <class T>
void pack_a(Block<T>& block, T* to) {
  const int64_t rows = share(block.M, ROWS), a_m = block.a_m, K = block.K, M = block.M;
  const int64_t whole = a_m == 1 && rows == ROWS ? M / ROWS * ROWS : 0;
  const T* A = block.A;
  block.A = to;
  for (int64_t k = 0; k < K; ++k, A += block.a_k, to += rows) {
    T* tile = to;
    for (int64_t m = 0; m < whole; m += ROWS, tile += ROWS * K) {
      __builtin_prefetch(A + AHEAD * block.a_k + m);
      __builtin_memcpy(tile, A + m, ROWS * sizeof(T));
    }
    for (int64_t m = whole; m < M; m += rows, tile += rows * K)
      for (int64_t i = 0; i < smaller(rows, M - m); ++i) tile[i] = A[(m + i) * a_m];
  }
  block.a_m = 1;
  block.a_k = rows;
  block.a_tile = K;
}

template <class T>
bool is_far(int64_t step) {
  return step * static_cast<int64_t>(sizeof(T)) >= FAR_BYTES;
}

}  // namespace

// scratch: half of kScratchBytes
template <class T>
void gemm(const Gemm<T>& a, T* scratch) {
  if (a.M <= 0 || a.N <= 0) return;
  constexpr int64_t V = Vec<T>::N, element = sizeof(T);
  const int64_t vectors = share(cut(a.N, V), VECS), width = vectors * V;
  // Packing costs one pass over an operand and pays where many tiles read it.
  const bool packs_b = a.b_n != 1 || (a.M > 4 * ROWS && is_far<T>(a.b_k));
  const bool packs_a = a.N > 2 * width && is_far<T>(a.a_k);
  const int64_t depth = a.K > 0 ? share(a.K, packs_a ? PACKED_DEPTH : DEPTH) : 1;
  T* const packed_a = scratch + B_BYTES / element;
  const int64_t NB = packs_b && depth * cut(a.N, width) * width > B_BYTES / element
                         ? B_BYTES / element / (depth * width) * width
                         : a.N;
  const int64_t MB =
      (packs_a || packs_b) && depth * a.M > A_BYTES / element ? A_BYTES / element / depth / ROWS * ROWS : a.M;
  for (int64_t k = 0; k == 0 || k < a.K; k += depth) {  // once even where K = 0: the result is then the bias
    const int64_t K = smaller(depth, a.K - k);
    const bool last = k + K >= a.K;
    for (int64_t n0 = 0; n0 < a.N; n0 += NB) {
      const int64_t n1 = smaller(n0 + NB, a.N);
      if (packs_b)
        for (int64_t n = n0; n < n1; n += width)
          pack_b(a, k, K, n, smaller(width, n1 - n), scratch + (n - n0) * depth, width);
      for (int64_t m = 0; m < a.M; m += MB) {
        Block<T> block = {.M = smaller(MB, a.M - m),
                          .K = K,
                          .A = a.A + m * a.a_m + k * a.a_k,
                          .a_m = a.a_m,
                          .a_k = a.a_k,
                          .a_tile = a.a_m,
                          .B = nullptr,
                          .b_k = packs_b ? width : a.b_k,
                          .C = nullptr,
                          .c_m = a.c_m,
                          .bias_m = last && a.bias_m ? a.bias_m + m : nullptr,
                          .bias_n = nullptr,
                          .carry = a.carry || k > 0,
                          .columns = 0};
        if (packs_a) pack_a(block, packed_a);
        for (int64_t n = n0; n < n1; n += width) {
          const int64_t columns = smaller(width, n1 - n), nv = cut(columns, V);
          block.B = packs_b ? scratch + (n - n0) * depth : a.B + k * a.b_k + n;
          block.C = a.C + m * a.c_m + n;
          block.bias_n = last && a.bias_n ? a.bias_n + n : nullptr;
          block.columns = static_cast<int>(columns - (nv - 1) * V);
          panel<T>(nv, block);
        }
      }
    }
  }
}

template void gemm(const Gemm<float>&, float*);
template void gemm(const Gemm<double>&, double*);

}  // namespace tapegrad::TG_ISA
