// The list of kernels. One line here declares a kernel in every instruction set's namespace and gives it a place in the
// table that csrc/dispatch.cpp chooses once at load. A kernel is a template over float and double, defined in one
// csrc/kernels/*.cpp and instantiated there with TG_INSTANTIATE, or a plain function for integers.
//
// No header of the standard library is included by a kernel: an inline function of it, compiled here for AVX-512, could
// be the copy that the linker keeps for everybody.
#pragma once
#include <stdint.h>

#include "kernels/activation.h"
#include "kernels/args.h"
#include "kernels/norms.h"
#include "kernels/recurrent.h"

// X(name, arguments): T is float or double. [begin, end) is a range of units of work; a unit's result does not depend
// on how units are spread over ranges.
#define TG_TYPED_KERNELS(X)                                                                           \
  X(gemm, (const Gemm<T>& a, T* scratch))                                                             \
  X(column_sums, (const T* x, int64_t M, int64_t N, int64_t begin, int64_t end, T* out))              \
  X(plane_sums, (const T* x, int64_t N, int64_t C, int64_t P, int64_t begin, int64_t end, T* out))    \
  X(sum_parts, (T * x, int64_t parts, int64_t n, int64_t begin, int64_t end))                         \
  X(conv2d_forward, (const Conv2d<T>& a, int64_t begin, int64_t end, T* scratch))                     \
  X(conv2d_input_grad, (const Conv2d<T>& a, int64_t begin, int64_t end, T* scratch))                  \
  X(conv2d_weight_grad, (const Conv2d<T>& a, int64_t begin, int64_t end, T* scratch))                 \
  X(conv_pack, (const ConvDirect<T>& a))                                                              \
  X(conv_direct, (const ConvDirect<T>& a, int64_t begin, int64_t end, T* scratch))                    \
  X(conv_weight, (const ConvWeight<T>& a, int64_t begin, int64_t end, T* scratch))                    \
  X(conv_weight_fold, (const ConvWeight<T>& a))                                                       \
  X(upsample_nearest2d, (const Upsample<T>& a, int64_t begin, int64_t end))                           \
  X(upsample_nearest2d_backward, (const Upsample<T>& a, int64_t begin, int64_t end))                  \
  X(max_pool2d, (const MaxPool<T>& a, int64_t begin, int64_t end))                                    \
  X(max_pool2d_backward, (const T* g, const int64_t* index, int64_t from, int64_t to, int64_t begin,  \
                          int64_t end, T* dx))                                                        \
  X(random_uniform, (T * out, int64_t n, uint64_t seed, uint64_t offset, int64_t begin, int64_t end)) \
  X(random_normal, (T * out, int64_t n, uint64_t seed, uint64_t offset, int64_t begin, int64_t end))  \
  TG_ELEMENTWISE_KERNELS(X)

#define TG_ELEMENTWISE_KERNELS(X)                                                                                    \
  X(activation, (Activation f, const T* x, T* out, int64_t n, T a, T b))                                             \
  X(activation_backward, (Activation f, const T* g, const T* saved, T* dx, int64_t n, T a, T b))                     \
  X(arithmetic, (Arithmetic f, const T* a, bool one_a, const T* b, bool one_b, T* out, int64_t n))                   \
  X(scaled_product, (const T* a, const T* b, const T* c, T scale, T* out, int64_t n))                                 \
  X(dropout, (const T* x, T* out, int64_t n, uint32_t limit, T scale, uint64_t seed, uint64_t offset, int64_t begin, \
              int64_t end))                                                                                          \
  X(sum_segments, (const Sum<T>& a, int64_t begin, int64_t end))                                                     \
  X(dot, (const T* x, const T* y, int64_t n, T* out, int64_t begin, int64_t end))                                    \
  X(squared_error, (const T* x, const T* y, int64_t n, T* out, int64_t begin, int64_t end))                          \
  X(mse_backward, (const T* x, const T* y, T scale, T* dx, T* dy, int64_t n))                                        \
  X(softmax, (const Softmax<T>& a, int64_t begin, int64_t end))                                                      \
  X(softmax_backward, (const Softmax<T>& a, int64_t begin, int64_t end))                                             \
  X(cross_entropy, (const CrossEntropy<T>& a, int64_t begin, int64_t end))                                           \
  X(cross_entropy_backward, (const CrossEntropy<T>& a, int64_t begin, int64_t end))                                  \
  X(moments, (const Groups<T>& a, int64_t begin, int64_t end))                                                       \
  X(slope_sums, (const Groups<T>& a, int64_t begin, int64_t end))                                                    \
  X(affine, (const Affine<T>& a, int64_t begin, int64_t end))                                                        \
  X(row_norm, (const RowNorm<T>& a, int64_t begin, int64_t end))                                                     \
  X(row_norm_backward, (const RowNorm<T>& a, int64_t begin, int64_t end))                                            \
  X(plane_norm_backward, (const RowNorm<T>& a, int64_t begin, int64_t end))                                          \
  X(recurrent_step, (const RecurrentStep<T>& a))                                                                     \
  X(recurrent_step_back, (const RecurrentStepBack<T>& a))                                                            \
  X(pack_panels, (const T* B, int64_t b_k, int64_t b_n, int64_t K, int64_t N, int64_t width, T* to))                 \
  X(sgd, (const Sgd<T>& h, T* p, const T* g, T* b, int64_t n))                                                       \
  X(adam, (const Adam<T>& h, T* p, const T* g, T* m, T* v, T* v_max, int64_t n))

#define TG_PLAIN_KERNELS(X)                                                                                           \
  X(random_int, (int64_t* out, int64_t n, int64_t low, uint64_t range, uint64_t seed, uint64_t offset, int64_t begin, \
                 int64_t end))                                                                                        \
  X(random_bernoulli, (bool* out, int64_t n, double p, uint64_t seed, uint64_t offset, int64_t begin, int64_t end))   \
  X(random_words, (uint32_t* out, uint64_t seed, uint64_t block, uint64_t stream, int64_t blocks))                    \
  X(permutation, (int64_t* out, int64_t n, uint64_t seed, uint64_t epoch))

#define TG_POINTER(name, args) void(*name) args;

namespace tapegrad {

template <class T>
struct TypedKernels {
  TG_TYPED_KERNELS(TG_POINTER)
};

struct Kernels {
  const char* isa;
  TypedKernels<float> f32;
  TypedKernels<double> f64;
  TG_PLAIN_KERNELS(TG_POINTER)
};

}  // namespace tapegrad

#ifdef TG_ISA
#define TG_DECLARE_TYPED(name, args) \
  template <class T>                 \
  void name args;
#define TG_DECLARE_PLAIN(name, args) void name args;

namespace tapegrad::TG_ISA {
TG_TYPED_KERNELS(TG_DECLARE_TYPED)
TG_PLAIN_KERNELS(TG_DECLARE_PLAIN)
}  // namespace tapegrad::TG_ISA

#endif
