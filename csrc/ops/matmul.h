// Products of matrices where they lie: views with any strides, a transpose for one, are read without a copy.
#pragma once
#include <ATen/core/Tensor.h>

namespace tapegrad {

// input [M, K] @ other [K, N] -> [M, N], or [B, M, K] @ [B, K, N] -> [B, M, N]
at::Tensor matmul(const at::Tensor& input, const at::Tensor& other);

}  // namespace tapegrad
