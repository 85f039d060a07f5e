// out = input @ weight^T + bias over the last dimension, and its gradients in one call.
#pragma once
#include <ATen/core/Tensor.h>

#include <optional>
#include <tuple>

namespace tapegrad {

// input [..., K], weight [N, K], bias [N] -> [..., N]
at::Tensor linear(const at::Tensor& input, const at::Tensor& weight, const std::optional<at::Tensor>& bias);

// g [..., N] -> dx = g @ weight [..., K], dw = g^T @ input [N, K], db = sum of g over its rows [N]; each where needed,
// else undefined. `input` is read for dw only, and weight for dx.
std::tuple<at::Tensor, at::Tensor, at::Tensor> linear_backward(const at::Tensor& g,
                                                               const std::optional<at::Tensor>& input,
                                                               const std::optional<at::Tensor>& weight,
                                                               bool need_input, bool need_weight, bool need_bias);

// The same on memory, contiguous: x [M, K], w [N, K], b [N] or null, out [M, N].
template <class T>
void linear(int64_t M, int64_t N, int64_t K, const T* x, const T* w, const T* b, T* out);

// g [M, N]; x, w and the gradients null where not needed.
template <class T>
void linear_backward(int64_t M, int64_t N, int64_t K, const T* g, const T* x, const T* w, T* dx, T* dw, T* db);

}  // namespace tapegrad
