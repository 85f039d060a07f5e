// 2-D convolution (cross-correlation) and its gradients, float32 and float64, strides, padding, dilation and groups.
//   out[n, oc, oh, ow] = bias[oc] + sum over c, kh, kw of
//       weight[oc, c, kh, kw] * input[n, group(oc) + c, oh SH - PH + kh DH, ow SW - PW + kw DW]
//   OH = floor((H + 2 PH - DH (KH - 1) - 1) / SH) + 1, OW alike
#pragma once
#include <ATen/core/Tensor.h>

#include <array>
#include <optional>
#include <tuple>

namespace tapegrad {

using Pair = std::array<int64_t, 2>;  // height, width

struct ConvParams {
  Pair stride, padding, dilation;
  int64_t groups;
};

at::Tensor conv2d(const at::Tensor& input, const at::Tensor& weight, const std::optional<at::Tensor>& bias,
                  const ConvParams& params);
at::Tensor conv2d_input_grad(const at::Tensor& g, const at::Tensor& weight, at::IntArrayRef input_size,
                             const ConvParams& params);
at::Tensor conv2d_weight_grad(const at::Tensor& g, const at::Tensor& input, at::IntArrayRef weight_size,
                              const ConvParams& params);

// dx, dw, db, each where needed, else undefined.
using Gradients = std::tuple<at::Tensor, at::Tensor, at::Tensor>;
Gradients conv2d_backward(const at::Tensor& g, const at::Tensor& input, const at::Tensor& weight,
                          const ConvParams& params, bool need_input, bool need_weight, bool need_bias);

}  // namespace tapegrad
