// torch's resampling of [N, C, L], [N, C, H, W] and [N, C, D, H, W] in the modes that have no kernel here, and its
// transpose, plane by plane: torch shares an image's rows out to threads, and a share's last elements are rounded
// another way. Here a thread takes whole planes, a fixed number at a time, so that the bits do not depend on how many
// there are.
#pragma once
#include <ATen/core/Tensor.h>

#include <optional>
#include <string>
#include <vector>

namespace tapegrad {

using Factors = std::optional<std::vector<double>>;  // how many times as large, by dimension, where that was said

// mode: nearest, nearest-exact, linear, bilinear, bicubic, trilinear, area; with "-aa" behind it antialiased.
// input [N, C, ...] -> [N, C, size...]
at::Tensor resample(const at::Tensor& input, at::IntArrayRef size, const std::string& mode, bool align_corners,
                    const Factors& factors);

// g [N, C, ...] -> [N, C, size...]: the gradient of the input, whose spatial sizes these are
at::Tensor resample_backward(const at::Tensor& g, at::IntArrayRef size, const std::string& mode, bool align_corners,
                             const Factors& factors);

}  // namespace tapegrad
