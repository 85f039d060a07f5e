// out = input @ weight^T + bias over the last dimension, and its gradients in one call.
#pragma once
#include <ATen/core/Tensor.h>

#include <optional>
#include <tuple>

namespace tapegrad {

// input [..., K], weight [N, K], bias [N] -> [..., N]
at::Tensor linear(const at::Tensor& input, const at::Tensor& weight, const std::optional<at::Tensor>& bias);

// g [..., N] -> dx = g @ weight [..., K], dw = g^T @ input [N, K], db = sum of g over its rows [N]; each where needed,
// else undefined.
std::tuple<at::Tensor, at::Tensor, at::Tensor> linear_backward(const at::Tensor& g, const at::Tensor& input,
                                                               const at::Tensor& weight, bool need_input,
                                                               bool need_weight, bool need_bias);

}  // namespace tapegrad
