// Maximum over windows of [N, C, H, W] or [C, H, W], as torch: a NaN wins, the first of equal elements does, indices
// count within a plane. Windows that padding or ceil_mode let begin or end outside see only what is inside.
#pragma once
#include <ATen/core/Tensor.h>

#include <array>
#include <tuple>

namespace tapegrad {

using Pair = std::array<int64_t, 2>;

// (the maxima, where in its plane each lies, int64)
std::tuple<at::Tensor, at::Tensor> max_pool2d(const at::Tensor& input, Pair kernel_size, Pair stride, Pair padding,
                                              Pair dilation, bool ceil_mode);

// Zeros of input_size, and in each plane every g added at its index, in order.
at::Tensor max_pool2d_backward(const at::Tensor& g, const at::Tensor& indices, at::IntArrayRef input_size);

}  // namespace tapegrad
