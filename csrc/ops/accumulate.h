// Gradients that add up: sum += other.
#pragma once
#include <ATen/core/Tensor.h>

namespace tapegrad {

// Whether add_ takes them: dense tensors of one dtype, shape and layout that share no memory.
bool can_add_(const at::Tensor& sum, const at::Tensor& other);
void add_(const at::Tensor& sum, const at::Tensor& other);

}  // namespace tapegrad
