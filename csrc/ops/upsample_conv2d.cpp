#include "ops/upsample_conv2d.h"

#include "ops/border.h"

namespace tapegrad {
namespace {

constexpr ConvParams kTransposed = {{2, 2}, {1, 1}, {1, 1}, 1};

// Along one axis the four taps are sums of the three: row t of the 4x4 kernel is the sum of weight rows
// [kFirst[t], kLast[t]]. Tap t carries source i to result 2 i - 1 + t.
constexpr int kFirst[] = {2, 1, 0, 0}, kLast[] = {2, 2, 1, 0};

// weight [OC, C, 3, 3] -> [C, OC, 4, 4]
template <class T>
void fold(const T* w, int64_t OC, int64_t C, T* to) {
  for (int64_t c = 0; c < C; ++c)
    for (int64_t oc = 0; oc < OC; ++oc)
      for (int i = 0; i < 4; ++i)
        for (int j = 0; j < 4; ++j) {
          T sum = 0;
          for (int h = kFirst[i]; h <= kLast[i]; ++h)
            for (int v = kFirst[j]; v <= kLast[j]; ++v) sum += w[(oc * C + c) * 9 + h * 3 + v];
          *to++ = sum;
        }
}

// The transpose of fold: dw4 [C, OC, 4, 4] -> dw [OC, C, 3, 3]
template <class T>
void unfold(const T* dw4, int64_t OC, int64_t C, T* dw) {
  for (int64_t i = 0; i < OC * C * 9; ++i) dw[i] = 0;
  for (int64_t c = 0; c < C; ++c)
    for (int64_t oc = 0; oc < OC; ++oc)
      for (int i = 0; i < 4; ++i)
        for (int j = 0; j < 4; ++j, ++dw4)
          for (int h = kFirst[i]; h <= kLast[i]; ++h)
            for (int v = kFirst[j]; v <= kLast[j]; ++v) dw[(oc * C + c) * 9 + h * 3 + v] += *dw4;
}

constexpr int64_t kMostExtent = int64_t{1} << 40;  // twice it fits

struct Shape {
  int64_t N, C, H, W, OC;
};

Shape shape(const char* op, const at::Tensor& x, const at::Tensor& w, int64_t padding) {
  const std::string who = op;
  if (w.size(2) != 3 || w.size(3) != 3)
    throw ShapeError(who + ": weight.shape[2:] must be [3, 3], is " + text(w.sizes().slice(2)));
  if (padding != 1) throw ShapeError(who + ": padding must be 1, is " + std::to_string(padding));
  if (w.size(1) != x.size(1))
    throw ShapeError(who + ": weight.shape[1] = " + std::to_string(w.size(1)) +
                     " must equal input.shape[1] = " + std::to_string(x.size(1)));
  if (x.size(2) < 1 || x.size(3) < 1)
    throw ShapeError(who + ": input height and width must be at least 1, are " + text(x.sizes().slice(2)));
  if (x.size(2) > kMostExtent || x.size(3) > kMostExtent)
    throw ShapeError(who + ": a tensor of shape " + text(x.sizes()) + " has too many elements");
  return {x.size(0), x.size(1), x.size(2), x.size(3), w.size(0)};
}

at::Tensor folded(const char* op, const at::Tensor& w, const Shape& s) {
  const at::Tensor to = make({s.C, s.OC, 4, 4}, w.scalar_type(), op);
  by_dtype(w, [&](auto zero) {
    using T = decltype(zero);
    fold(data<T>(w), s.OC, s.C, mutable_data<T>(to));
  });
  return to;
}

}  // namespace

at::Tensor upsample_conv2d(const at::Tensor& input, const at::Tensor& weight, const std::optional<at::Tensor>& bias,
                           int64_t padding) {
  const char* op = "upsample_conv2d";
  const at::Tensor x = checked(input, op, "input", 4), w = checked(weight, op, "weight", 4, x);
  const Shape s = shape(op, x, w, padding);
  const at::Tensor b = bias ? checked_sizes(*bias, op, "bias", {s.OC}, x) : at::Tensor();
  return conv_transpose2d(x, folded(op, w, s), b, {s.N, s.OC, 2 * s.H, 2 * s.W}, kTransposed);
}

Gradients upsample_conv2d_backward(const at::Tensor& grad, const at::Tensor& input, const at::Tensor& weight,
                                   int64_t padding, bool need_input, bool need_weight, bool need_bias) {
  const char* op = "upsample_conv2d_backward";
  const at::Tensor x = checked(input, op, "input", 4), w = checked(weight, op, "weight", 4, x);
  const Shape s = shape(op, x, w, padding);
  const at::Tensor g = checked_sizes(grad, op, "g", {s.N, s.OC, 2 * s.H, 2 * s.W}, x);
  at::Tensor dx, dw, db;
  if (need_input) dx = conv2d(g, folded(op, w, s), std::nullopt, kTransposed);
  if (need_weight) {
    const at::Tensor dw4 = conv2d_weight_grad(x, g, {s.C, s.OC, 4, 4}, kTransposed);
    dw = make(w.sizes(), w.scalar_type(), op);
    by_dtype(w, [&](auto zero) {
      using T = decltype(zero);
      unfold(data<T>(dw4), s.OC, s.C, mutable_data<T>(dw));
    });
  }
  if (need_bias) db = channel_sums(g);
  return {dx, dw, db};
}

}  // namespace tapegrad
