// What kernels are told: plain structures of extents, strides (in elements) and pointers. No member functions, because
// this header is shared by every instruction set.
#pragma once
#include <stdint.h>

namespace tapegrad {

constexpr int64_t kScratchBytes = 1 << 20;  // one thread's scratch, whatever the kernel

// C[m][n] = sum over k, ascending, of A[m][k] * B[k][n], one chain per element whatever the blocking; then + bias.
template <class T>
struct Gemm {
  int64_t M, N, K;
  const T* A;  // A[m * a_m + k * a_k]
  int64_t a_m, a_k;
  const T* B;  // B[k * b_k + n * b_n]
  int64_t b_k, b_n;
  T* C;  // C[m * c_m + n]
  int64_t c_m;
  const T* bias_m = nullptr;  // [M] or null
  const T* bias_n = nullptr;  // [N] or null
  bool carry = false;         // the chains go on from what C holds, instead of from zero
};

// One convolution, its pointers as the kernel in question needs them.
template <class T>
struct Conv2d {
  int64_t N, C, H, W, OC, KH, KW, OH, OW;
  int64_t SH, SW, PH, PW, DH, DW, G;
  const T* x;     // [N, C, H, W]
  const T* w;     // [OC, C/G, KH, KW]; for the input gradient [C, OC/G, KH, KW]
  const T* bias;  // [OC] or null
  const T* g;     // [N, OC, OH, OW], the output's gradient
  T* out;         // forward [N, OC, OH, OW]; input gradient [N, C, H, W]; weight gradient [parts, OC, C/G, KH, KW]
  int64_t parts;  // the weight gradient's batch is summed in this many parts
};

// Units of work of the convolutions, and the tile each forms in scratch.
template <class T>
constexpr int64_t kConvPixels = 768 / static_cast<int64_t>(sizeof(T));  // pixels in a tile
constexpr int64_t kConvDepth = 256;                                     // rows (c, kh, kw) of a tile
constexpr int64_t kConvColumns = 96;                                    // columns of the weight gradient in a unit

// Nearest-neighbour resampling of `planes` planes. A unit is a plane.
template <class T>
struct Upsample {
  int64_t H, W, OH, OW;
  const T* x;  // forward [planes, H, W]; backward [planes, OH, OW]
  T* out;      // forward [planes, OH, OW]; backward [planes, H, W]
  // forward: [OH] and [OW], the source of each row and column
  // backward: [H + 1] and [W + 1], source i feeds destinations [rows[i], rows[i + 1])
  const int64_t* rows;
  const int64_t* columns;
  int64_t factor_w;  // forward: OW / W where every column is repeated that often, else 0
};

}  // namespace tapegrad
