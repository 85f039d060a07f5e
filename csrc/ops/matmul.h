// Products of matrices where they lie: views with any strides, a transpose for one, are read without a copy.
#pragma once
#include <ATen/core/Tensor.h>

#include <optional>
#include <tuple>

namespace tapegrad {

// input [..., M, K] @ other [..., K, N] -> [..., M, N], leading dimensions broadcast. A vector is one row as input, one
// column as other, and the result lacks that dimension. torch multiplies integers, and refuses two dtypes.
at::Tensor matmul(const at::Tensor& input, const at::Tensor& other);

// g [..., M, N] -> g @ other^T and input^T @ g, summed over what was broadcast; each where needed, else undefined.
// `input` is read for other's gradient only, and other for input's.
std::tuple<at::Tensor, at::Tensor> matmul_backward(const at::Tensor& g, const std::optional<at::Tensor>& input,
                                                   const std::optional<at::Tensor>& other, at::IntArrayRef input_size,
                                                   at::IntArrayRef other_size, bool need_input, bool need_other);

}  // namespace tapegrad
