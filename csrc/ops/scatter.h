// Sums by index: what a lookup of rows gives back to them. Every row adds up in ascending order of the index.
#pragma once
#include <ATen/core/Tensor.h>

namespace tapegrad {

// input with source[i] added to its slice index[i] along dim, as torch's; index [n], source of input's dtype and its
// sizes, n along dim
at::Tensor index_add(const at::Tensor& input, int64_t dim, const at::Tensor& index, const at::Tensor& source);

// The same on zeros of these sizes
at::Tensor index_sum(const at::Tensor& source, at::IntArrayRef size, int64_t dim, const at::Tensor& index);

}  // namespace tapegrad
