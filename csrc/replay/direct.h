// Instructions for the kernels that small networks spend their time in: pointers and sizes are worked out when the
// program is bound, so that a step pays for the arithmetic alone. They call what csrc/ops calls, on the same memory
// layouts, so the bits are the same. Each returns null where the tensors are not plain: float32 or float64, contiguous,
// of one dtype; the ordinary call then serves.
#pragma once
#include <array>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "kernels/activation.h"
#include "ops/loss.h"
#include "replay/call.h"

namespace tapegrad {

using Tensors = std::vector<at::Tensor>;
using Optional = std::optional<at::Tensor>;

std::unique_ptr<Call> direct_linear(const at::Tensor& x, const at::Tensor& w, const Optional& b, const Tensors& outs);
std::unique_ptr<Call> direct_linear_backward(const at::Tensor& g, const Optional& x, const Optional& w,
                                             const Tensors& outs);
std::unique_ptr<Call> direct_activation(Activation f, const at::Tensor& x, double a, double b, const Tensors& outs);
std::unique_ptr<Call> direct_activation_backward(Activation f, const at::Tensor& g, const at::Tensor& saved, double a,
                                                 double b, const Tensors& outs);

// torch's arithmetic where it is one rounding for each element: out = a f b; a 0-dim operand or a number stands for
// every element.
struct Operand {
  at::Tensor tensor;
  double number = 0;  // where there is no tensor
};
std::unique_ptr<Call> direct_arithmetic(Arithmetic f, const Operand& a, const Operand& b, const at::Tensor& out);
std::unique_ptr<Call> direct_scaled_product(const at::Tensor& a, const at::Tensor& b, const at::Tensor& c, double scale,
                                            const Tensors& outs);
std::unique_ptr<Call> direct_copy(const at::Tensor& x, const at::Tensor& out);
std::unique_ptr<Call> direct_zeros(const at::Tensor& out);

// Arguments and results as those of csrc/ops/recurrent.h, in their order.
std::unique_ptr<Call> direct_recurrent(const std::array<Optional, 8>& inputs, const std::string& mode,
                                       const std::vector<int64_t>& sizes, bool reverse, bool keep, const Tensors& outs);
std::unique_ptr<Call> direct_recurrent_backward(const std::array<Optional, 9>& inputs, const std::string& mode,
                                                const std::vector<int64_t>& sizes, bool reverse, const Tensors& outs);

std::unique_ptr<Call> direct_mse_loss(const at::Tensor& x, const at::Tensor& y, bool mean, const Tensors& outs);
std::unique_ptr<Call> direct_mse_loss_backward(const at::Tensor& g, const at::Tensor& x, const at::Tensor& y, bool mean,
                                               const Tensors& outs);
// loss, stats and total are all wanted.
std::unique_ptr<Call> direct_cross_entropy(const at::Tensor& x, const at::Tensor& target, const Optional& weight,
                                           int64_t ignore_index, Reduction reduction, double smoothing,
                                           const Tensors& outs);
std::unique_ptr<Call> direct_cross_entropy_backward(const at::Tensor& g, const at::Tensor& x, const at::Tensor& target,
                                                    const Optional& weight, const at::Tensor& stats,
                                                    const at::Tensor& total, int64_t ignore_index, Reduction reduction,
                                                    double smoothing, const Tensors& outs);

}  // namespace tapegrad
