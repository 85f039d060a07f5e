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

// of_doubled: of the map that nearest upsampling makes of `input`, twice as high and wide, bit for bit, without it.
at::Tensor conv2d(const at::Tensor& input, const at::Tensor& weight, const std::optional<at::Tensor>& bias,
                  const ConvParams& params, bool of_doubled = false);
at::Tensor conv2d_input_grad(const at::Tensor& g, const at::Tensor& weight, at::IntArrayRef input_size,
                             const ConvParams& params);
at::Tensor conv2d_weight_grad(const at::Tensor& g, const at::Tensor& input, at::IntArrayRef weight_size,
                              const ConvParams& params);

// The input gradient with a bias [C] (or undefined) added: g [N, OC, OH, OW], weight [OC, C, KH, KW] -> output_size.
at::Tensor conv_transpose2d(const at::Tensor& g, const at::Tensor& weight, const at::Tensor& bias,
                            at::IntArrayRef output_size, const ConvParams& params);

// g [N, C, H, W], contiguous -> [C], the sum over all else
at::Tensor channel_sums(const at::Tensor& g);

// dx, dw, db, each where needed, else undefined. `input` is read for dw only, and weight for dx. dw and db are complete
// before the first element of dx is written, and `input` is not read after that: dx may lie in its memory. of_doubled:
// `input` is what was doubled and dx its gradient, input_size that of the large map.
using Gradients = std::tuple<at::Tensor, at::Tensor, at::Tensor>;
Gradients conv2d_backward(const at::Tensor& g, const std::optional<at::Tensor>& input,
                          const std::optional<at::Tensor>& weight, at::IntArrayRef input_size,
                          at::IntArrayRef weight_size, const ConvParams& params, bool need_input, bool need_weight,
                          bool need_bias, bool of_doubled = false);

}  // namespace tapegrad
