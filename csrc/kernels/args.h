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
  int64_t up;     // 1; 2: x is [N, C, H/2, W/2] and stands for its nearest doubling, which the direct kernels form
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

// How a band of an image becomes a map: padded, and split into planes_h x planes_w planes by the stride, so that a tap
// of any stride and dilation reads consecutive map elements. Row i, column j of plane (r, s) of channel c is source row
// (q0 + i) SH + r - top, column j SW + s - left, else 0. Stored [C][planes_h][planes_w][rows][pitch].
struct ConvMap {
  int64_t C, H, W;  // of the source: a group's channels, rows, columns
  int64_t SH, SW, planes_h, planes_w, top, left;
  int64_t band, halo, pitch;  // band result rows need rows = band + halo map rows
  int64_t up;                 // 2, with strides of 1: memory holds [C, H/2, W/2], of which the source is the doubling
};

// The terms k of a sum over taps: w[m * m_step + weight[k]] (+ group's offset) * map[offset[k] + pixel].
template <class T>
struct ConvTaps {
  int64_t K;
  const int64_t* offset;
  const int64_t* weight;
  T* packed;  // [G][tile of M][K][rows of the tile]
};

// A direct convolution: result element (m, e_h + SDH jh, e_w + SDW jw) = sum over the taps of phase (e_h, e_w) at pixel
// (jh, jw). SDH = SDW = 1 unless it is the input gradient of a strided convolution.
template <class T>
struct ConvDirect {
  ConvMap map;
  int64_t N, G, M, H, W, SDH, SDW;  // of the result; M channels a group
  int64_t m_step, group_step;       // of the weight
  const ConvTaps<T>* taps;          // [SDH][SDW]
  const T* w;
  const T* x;     // the map's source [N, G, C, H, W]
  const T* bias;  // [G, M] or null
  T* out;         // [N, G, M, H, W]
};

// The weight gradient: out[part][group][k][m] = sum over the part's images and pixels of
// map[offset[k] + pixel] * v[m][pixel].
template <class T>
struct ConvWeight {
  ConvMap map;
  int64_t N, G, M, H, W;  // of v; M channels a group
  int64_t m_step, group_step, parts;
  int64_t block;   // channels of the map that are summed in one go
  int64_t padded;  // M rounded up to whole vectors of any instruction set; `narrow`: kConvLanes for each of M
  int64_t v_up;    // 2: memory holds [N, G, M, H/2, W/2], of which v is the doubling
  bool narrow;     // vectors run along pixels instead of channels, and end as sums of lanes
  ConvTaps<T> taps;
  const T* x;  // the map's source
  const T* v;  // [N, G, M, H, W]
  T* sums;     // [parts][G][K + 1][padded]; row K is the sum of v alone
  T* dw;
  T* db;  // [G, M] or null
};
constexpr int64_t kConvTaps = 320;            // rows of the weight gradient that are summed in one go, about
constexpr int64_t kConvMapBytes = 384 << 10;  // what a band's map may take of the scratch
constexpr int64_t kConvDoubled = 32;          // channels of v that are doubled in scratch at a time, at most
constexpr int64_t kConvLanes = 16;            // M is padded to a multiple of it; slack behind a map

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
  int64_t factor_w;  // OW / W where every column is repeated that often, else 0
};

// Maxima of windows; where a window has elements outside, only those inside count. A unit is a plane.
template <class T>
struct MaxPool {
  int64_t H, W, KH, KW, OH, OW, SH, SW, PH, PW, DH, DW;
  const T* x;        // [planes, H, W]
  T* out;            // [planes, OH, OW]
  int64_t* indices;  // [planes, OH, OW], within a plane
};

// --- elementwise, reductions, losses, optimizers ---

// Sums over R of x [A, R, B], in parts of kSumRun elements where B = 1, else of kSumRows rows.
template <class T>
struct Sum {
  int64_t A, R, B;
  const T* x;  // [A, R, B]
  T* out;      // [A, parts, B]
  T divisor;   // every sum is divided by it
};
constexpr int64_t kDropoutUnit = 1024;  // elements; a multiple of every vector of words
constexpr int64_t kSumRun = 4096, kSumRows = 64, kSumColumns = 1024;

// Softmax over R. A unit is a row where B = 1, else kSoftmaxColumns columns of one a.
constexpr int64_t kSoftmaxColumns = 64;
template <class T>
struct Softmax {
  int64_t A, R, B;
  const T* g;  // backward: the output's gradient, [A, R, B]
  const T* x;  // forward: the input, backward: the output, [A, R, B]
  T* out;      // [A, R, B]
  bool log;
};

template <class T>
struct CrossEntropy {
  int64_t C;
  const T* x;             // [N, C]
  const int64_t* target;  // [N], each in [0, C) or ignore_index
  const T* weight;        // [C] or null
  int64_t ignore_index;
  T smoothing;
  T* stats;    // [N, 2]: the row's maximum, and ln sum_c e^(x - maximum)
  T* losses;   // forward: [N]
  T* weights;  // forward: [N], weight[target], 0 where ignored
  const T* g;  // backward: [1] or [N]
  int64_t g_stride;
  T divisor;     // backward: g is divided by it; 0 where every target is ignored
  T weight_sum;  // backward: of weight [C], or C
  T* dx;         // backward: [N, C]
};

template <class T>
struct Sgd {
  T lr, momentum, pull, weight_decay;  // pull: 1 - dampening, 1 on the first step
  bool nesterov, maximize;
};

template <class T>
struct Adam {
  T weight1, beta2, weight2, eps, weight_decay;  // weight1 = 1 - beta1, weight2 = 1 - beta2
  T shrink;                                      // 1 - lr * decoupled weight decay
  T step, root;                                  // lr / (1 - beta1^t), sqrt(1 - beta2^t)
  bool maximize;
};

}  // namespace tapegrad
