// Nearest-neighbour resampling by torch's rule: destination i reads source i where the sizes are equal, i / 2 where the
// output is twice the input, else min(floor(i * scale), size - 1) in float32, where scale is 1 / scale_factor if that
// is given, else input / output.
#pragma once
#include <ATen/core/Tensor.h>

#include <array>
#include <optional>

namespace tapegrad {

using Scales = std::optional<std::array<double, 2>>;

// input [N, C, H, W] -> [N, C, OH, OW]
at::Tensor upsample_nearest2d(const at::Tensor& input, std::array<int64_t, 2> output_size, const Scales& scales);

// g [N, C, OH, OW] -> [N, C, H, W]: each source sums the destinations that read it
at::Tensor upsample_nearest2d_backward(const at::Tensor& g, at::IntArrayRef input_size, const Scales& scales);

}  // namespace tapegrad
