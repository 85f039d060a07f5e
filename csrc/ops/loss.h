// Sums, inner products, softmax and losses. Fixed order of summation: parts of a fixed size, then the parts' sums the same way.
#pragma once
#include <ATen/core/Tensor.h>

#include <optional>
#include <tuple>

#include "kernels/args.h"

namespace tapegrad {

// The sum (or mean) over `dims`, every dimension where it is empty; the reduced ones stay as 1 with keepdim.
at::Tensor sum(const at::Tensor& input, at::IntArrayRef dims, bool keepdim, bool mean);

// sum of input * other, vectors of one length; 0-dim
at::Tensor dot(const at::Tensor& input, const at::Tensor& other);

// softmax or log_softmax along dim, and its backward from the output
at::Tensor softmax(const at::Tensor& input, int64_t dim, bool log);
at::Tensor softmax_backward(const at::Tensor& g, const at::Tensor& out, int64_t dim, bool log);

// sum (input - target)^2, over numel with mean; 0-dim. Backward: gradients (input, target), each undefined where not
// needed; g is 0-dim.
at::Tensor mse_loss(const at::Tensor& input, const at::Tensor& target, bool mean);
std::tuple<at::Tensor, at::Tensor> mse_loss_backward(const at::Tensor& g, const at::Tensor& input,
                                                     const at::Tensor& target, bool mean, bool need_input,
                                                     bool need_target);

// The same on memory: x and y [n] in one order, gradients null where not needed.
template <class T>
void mse_loss(int64_t n, const T* x, const T* y, bool mean, T* out);
template <class T>
void mse_loss_backward(int64_t n, T g, const T* x, const T* y, bool mean, T* dx, T* dy);

// out [A, B] = the sum over R of x [A, R, B], divided
template <class T>
void sum_into(const T* x, int64_t A, int64_t R, int64_t B, T divisor, T* out);

enum class Reduction { none, mean, sum };

// Cross-entropy of logits input [N, C] and class indices target [N] (int64): (loss, stats, total). loss is [N] or
// 0-dim; stats [N, 2] and total (0-dim, the weights of the targets) are what backward needs. ShapeError for a target
// outside [0, C) that is not ignore_index.
std::tuple<at::Tensor, at::Tensor, at::Tensor> cross_entropy(const at::Tensor& input, const at::Tensor& target,
                                                             const std::optional<at::Tensor>& weight,
                                                             int64_t ignore_index, Reduction reduction,
                                                             double label_smoothing);

// input's gradient [N, C]; g is [N] or 0-dim, as the loss was
at::Tensor cross_entropy_backward(const at::Tensor& g, const at::Tensor& input, const at::Tensor& target,
                                  const std::optional<at::Tensor>& weight, const at::Tensor& stats,
                                  const at::Tensor& total, int64_t ignore_index, Reduction reduction,
                                  double label_smoothing);

// The same on memory; the targets are checked. a: what csrc/kernels/args.h says, but for what is worked out here.
template <class T>
void cross_entropy(int64_t N, CrossEntropy<T> a, Reduction reduction, T* loss, T* total);
template <class T>
void cross_entropy_backward(int64_t N, CrossEntropy<T> a, Reduction reduction, const T* total);

}  // namespace tapegrad
