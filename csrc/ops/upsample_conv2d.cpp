#include "ops/upsample_conv2d.h"

#include "ops/border.h"

namespace tapegrad {
namespace {

constexpr ConvParams kTransposed = {{2, 2}, {1, 1}, {1, 1}, 1};

// Along one axis the four taps are sums of the three: (w2, w1 + w2, w0 + w1, w0). Tap t carries source i to result
// 2 i - 1 + t.
template <class T>
void fold_axis(const T* w, int64_t step, T* to, int64_t to_step) {
  to[0] = w[2 * step];
  to[to_step] = w[step] + w[2 * step];
  to[2 * to_step] = w[0] + w[step];
  to[3 * to_step] = w[0];
}

// The transpose of fold_axis
template <class T>
void unfold_axis(const T* g, int64_t step, T* to, int64_t to_step) {
  to[0] = g[2 * step] + g[3 * step];
  to[to_step] = g[step] + g[2 * step];
  to[2 * to_step] = g[0] + g[step];
}

// weight [OC, C, 3, 3] -> [C, OC, 4, 4]
template <class T>
void fold(const T* w, int64_t OC, int64_t C, T* to) {
  for (int64_t c = 0; c < C; ++c)
    for (int64_t oc = 0; oc < OC; ++oc, to += 16) {
      T rows[12];  // [3][4]
      for (int i = 0; i < 3; ++i) fold_axis(w + (oc * C + c) * 9 + 3 * i, 1, rows + 4 * i, 1);
      for (int j = 0; j < 4; ++j) fold_axis(rows + j, 4, to + j, 4);
    }
}

// The transpose of fold: dw4 [C, OC, 4, 4] -> dw [OC, C, 3, 3]
template <class T>
void unfold(const T* dw4, int64_t OC, int64_t C, T* dw) {
  for (int64_t c = 0; c < C; ++c)
    for (int64_t oc = 0; oc < OC; ++oc, dw4 += 16) {
      T rows[12];  // [3][4]
      for (int j = 0; j < 4; ++j) unfold_axis(dw4 + j, 4, rows + j, 4);
      for (int i = 0; i < 3; ++i) unfold_axis(rows + 4 * i, 1, dw + (oc * C + c) * 9 + 3 * i, 1);
    }
}

constexpr int64_t kMostExtent = int64_t{1} << 40;  // twice it fits

void check_weight(const char* op, const at::Tensor& w) {
  if (w.size(2) != 3 || w.size(3) != 3)
    throw ShapeError(std::string(op) + ": weight.shape[2:] must be [3, 3], is " + text(w.sizes().slice(2)));
}

// The result's size, for an input of size x and OC channels
at::DimVector result_size(const char* op, at::IntArrayRef x, int64_t OC) {
  const std::string who = op;
  if (x[2] < 1 || x[3] < 1)
    throw ShapeError(who + ": input height and width must be at least 1, are " + text(x.slice(2)));
  if (x[2] > kMostExtent || x[3] > kMostExtent)
    throw ShapeError(who + ": a tensor of shape " + text(x) + " has too many elements");
  return {x[0], OC, 2 * x[2], 2 * x[3]};
}

at::Tensor folded(const char* op, const at::Tensor& w) {
  const int64_t OC = w.size(0), C = w.size(1);
  const at::Tensor to = make({C, OC, 4, 4}, w.scalar_type(), op);
  by_dtype(w, [&](auto zero) {
    using T = decltype(zero);
    fold(data<T>(w), OC, C, mutable_data<T>(to));
  });
  return to;
}

}  // namespace

at::Tensor upsample_conv2d(const at::Tensor& input, const at::Tensor& weight, const std::optional<at::Tensor>& bias) {
  const char* op = "upsample_conv2d";
  const at::Tensor x = checked(input, op, "input", 4), w = checked(weight, op, "weight", 4, x);
  check_weight(op, w);
  if (w.size(1) != x.size(1))
    throw ShapeError("upsample_conv2d: weight.shape[1] = " + std::to_string(w.size(1)) +
                     " must equal input.shape[1] = " + std::to_string(x.size(1)));
  const at::DimVector size = result_size(op, x.sizes(), w.size(0));
  const at::Tensor b = bias ? checked_sizes(*bias, op, "bias", {w.size(0)}, x) : at::Tensor();
  return conv_transpose2d(x, folded(op, w), b, size, kTransposed);
}

Gradients upsample_conv2d_backward(const at::Tensor& grad, const std::optional<at::Tensor>& input,
                                   const std::optional<at::Tensor>& weight, bool need_input, bool need_weight,
                                   bool need_bias) {
  const char* op = "upsample_conv2d_backward";
  const at::Tensor g = checked(grad, op, "g", 4);
  if (g.size(2) % 2 != 0 || g.size(3) % 2 != 0)
    throw ShapeError("upsample_conv2d_backward: g.shape[2:] must be even, is " + text(g.sizes().slice(2)));
  at::Tensor dx, dw, db;
  if (need_weight) {
    const at::Tensor x = checked(input ? *input : at::Tensor(), op, "input", 4, g);
    const at::DimVector size = result_size(op, x.sizes(), g.size(1));
    if (g.sizes() != size)
      throw ShapeError("upsample_conv2d_backward: g.shape must be " + text(size) + ", is " + text(g.sizes()));
    const int64_t C = x.size(1), OC = g.size(1);
    const at::Tensor dw4 = conv2d_weight_grad(x, g, {C, OC, 4, 4}, kTransposed);
    dw = make({OC, C, 3, 3}, g.scalar_type(), op);
    by_dtype(g, [&](auto zero) {
      using T = decltype(zero);
      unfold(data<T>(dw4), OC, C, mutable_data<T>(dw));
    });
  }
  if (need_bias) db = channel_sums(g);
  if (need_input) {
    const at::Tensor w = checked(weight ? *weight : at::Tensor(), op, "weight", 4, g);
    check_weight(op, w);
    if (w.size(0) != g.size(1))
      throw ShapeError("upsample_conv2d_backward: weight.shape[0] = " + std::to_string(w.size(0)) +
                       " must equal g.shape[1] = " + std::to_string(g.size(1)));
    dx = conv2d(g, folded(op, w), std::nullopt, kTransposed);
  }
  return {dx, dw, db};
}

}  // namespace tapegrad
