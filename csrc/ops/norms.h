// Normalisations, forward and backward, float32 and float64, with statistics as of ops/moments.h.
#pragma once
#include <ATen/core/Tensor.h>

#include <optional>
#include <tuple>
#include <vector>

namespace tapegrad {

using MaybeTensor = std::optional<at::Tensor>;
using Gradients = std::tuple<at::Tensor, at::Tensor, at::Tensor>;  // of input, weight, bias; undefined where not needed

// (out, stats) of input [N, C, ...]: statistics over all but C, or those given. stats [3, C]: mean, 1 / sqrt(var +
// eps), and the variance that running statistics take: the batch's with n - 1, or the one given.
std::tuple<at::Tensor, at::Tensor> batch_norm(const at::Tensor& input, const MaybeTensor& weight,
                                              const MaybeTensor& bias, const MaybeTensor& mean, const MaybeTensor& var,
                                              double eps);
// of_batch: the statistics were input's own
Gradients batch_norm_backward(const at::Tensor& g, const at::Tensor& input, const MaybeTensor& weight,
                              const at::Tensor& stats, bool of_batch, bool need_input, bool need_weight,
                              bool need_bias);
// Each of `means` and `vars` moves by `momentum` towards batch_norm's stats.
void move_statistics_(const std::vector<at::Tensor>& means, const std::vector<at::Tensor>& vars,
                      const at::Tensor& stats, double momentum);

// (out, stats): statistics over the last dimensions, of sizes `shape`; weight and bias of that shape. stats
// [2, the others..., 1...]: mean and 1 / sqrt(var + eps).
std::tuple<at::Tensor, at::Tensor> layer_norm(const at::Tensor& input, at::IntArrayRef shape, const MaybeTensor& weight,
                                              const MaybeTensor& bias, double eps);
Gradients layer_norm_backward(const at::Tensor& g, const at::Tensor& input, at::IntArrayRef shape,
                              const MaybeTensor& weight, const at::Tensor& stats, bool need_input, bool need_weight,
                              bool need_bias);

// (out, stats) of input [N, C, ...]: statistics over each of `groups` groups of channels of each sample; weight and
// bias [C]. stats [2, N, groups, 1].
std::tuple<at::Tensor, at::Tensor> group_norm(const at::Tensor& input, int64_t groups, const MaybeTensor& weight,
                                              const MaybeTensor& bias, double eps);
Gradients group_norm_backward(const at::Tensor& g, const at::Tensor& input, int64_t groups, const MaybeTensor& weight,
                              const at::Tensor& stats, bool need_input, bool need_weight, bool need_bias);

}  // namespace tapegrad
