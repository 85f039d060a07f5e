// The kernels in lanes: an element is a vector, of which each lane belongs to another network. A table of their own, as
// the other kernels know nothing of them.
#pragma once
#include "kernels/args.h"

namespace tapegrad {

// An optimizer's numbers: those of each network, and those that all share.
template <class T>
constexpr int kLanes = 64 / static_cast<int>(sizeof(T));  // at most
template <class T>
struct SgdLanes {
  T lr[kLanes<T>], momentum[kLanes<T>], pull[kLanes<T>], weight_decay[kLanes<T>];
  bool nesterov, maximize, all_move;  // all_move: no momentum is 0
};
template <class T>
struct AdamLanes {
  T weight1[kLanes<T>], beta2[kLanes<T>], weight2[kLanes<T>], eps[kLanes<T>];
  T weight_decay[kLanes<T>], shrink[kLanes<T>], step[kLanes<T>], root[kLanes<T>];
  bool maximize;
};

// A product, strides in elements, without `carry` and bias_m; then relu, or 0 where gate [M, N] is not above 0: the
// gradient of a relu whose result that was.
template <class T>
struct LaneGemm {
  Gemm<T> product;
  bool relu;
  const T* gate;
};

#define TG_LANE_KERNELS(X)                                                                         \
  X(lane_gemm, (const LaneGemm<T>& a))                                                             \
  X(lane_column_sums, (const T* x, int64_t M, int64_t N, T* out))                                  \
  X(lane_sum, (const T* x, const T* y, int64_t n, T divisor, T* out))                              \
  X(lane_squared_error, (const T* x, const T* y, int64_t n, T divisor, T* out))                    \
  X(lane_mse_backward, (const T* g, const T* x, const T* y, T factor, T* dx, T* dy, int64_t n))    \
  X(lane_cross_entropy, (const CrossEntropy<T>& a, int64_t N, bool mean, T* loss, T* total))       \
  X(lane_cross_entropy_backward, (const CrossEntropy<T>& a, int64_t N, bool mean, const T* total)) \
  X(lane_sgd, (const SgdLanes<T>& h, T* p, const T* g, T* b, int64_t n))                           \
  X(lane_adam, (const AdamLanes<T>& h, T* p, const T* g, T* m, T* v, T* v_max, int64_t n))

#define TG_LANE_POINTER(name, args) void(*name) args;
template <class T>
struct TypedLaneKernels {
  int64_t lanes;
  TG_LANE_KERNELS(TG_LANE_POINTER)
};
struct LaneKernels {
  TypedLaneKernels<float> f32;
  TypedLaneKernels<double> f64;
};

}  // namespace tapegrad

#ifdef TG_ISA
#define TG_DECLARE_LANES(name, args) \
  template <class T>                 \
  void name args;
namespace tapegrad::TG_ISA {
TG_LANE_KERNELS(TG_DECLARE_LANES)
}  // namespace tapegrad::TG_ISA
#endif
