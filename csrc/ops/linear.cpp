#include "ops/linear.h"

#include <ATen/Parallel.h>

#include <algorithm>

#include "dispatch.h"
#include "ops/border.h"
#include "ops/product.h"

namespace tapegrad {

template <class T>
void linear(int64_t M, int64_t N, int64_t K, const T* x, const T* w, const T* b, T* out) {
  product<T>({.M = M, .N = N, .K = K, .A = x, .a_m = K, .a_k = 1, .B = w, .b_k = 1, .b_n = K, .C = out, .c_m = N,
              .bias_n = b});
}

template <class T>
void linear_backward(int64_t M, int64_t N, int64_t K, const T* g, const T* x, const T* w, T* dx, T* dw, T* db) {
  if (dx)  // [M, K] = g [M, N] @ w [N, K]
    product<T>({.M = M, .N = K, .K = N, .A = g, .a_m = N, .a_k = 1, .B = w, .b_k = K, .b_n = 1, .C = dx, .c_m = K});
  if (dw)  // [N, K] = g^T [N, M] @ x [M, K]
    product<T>({.M = N, .N = K, .K = M, .A = g, .a_m = 1, .a_k = N, .B = x, .b_k = K, .b_n = 1, .C = dw, .c_m = K});
  if (!db) return;
  constexpr int64_t block = 64;  // columns in a unit
  at::parallel_for(0, (N + block - 1) / block, grain(static_cast<double>(M) * block), [&](int64_t begin, int64_t end) {
    kernels_for<T>().column_sums(g, M, N, begin * block, std::min(end * block, N), db);
  });
}

#define TG_LINEAR(T)                                                                  \
  template void linear(int64_t, int64_t, int64_t, const T*, const T*, const T*, T*); \
  template void linear_backward(int64_t, int64_t, int64_t, const T*, const T*, const T*, T*, T*, T*);
TG_LINEAR(float)
TG_LINEAR(double)

at::Tensor linear(const at::Tensor& input, const at::Tensor& weight, const std::optional<at::Tensor>& bias) {
  const char* op = "linear";
  const at::Tensor x = checked(input, op, "input"), w = checked(weight, op, "weight", 2, x);
  if (x.dim() == 0) throw ShapeError("linear: input must have at least 1 dimension, has shape []");
  const int64_t N = w.size(0), K = w.size(1);
  if (x.size(-1) != K)
    throw ShapeError("linear: input.shape[-1] = " + std::to_string(x.size(-1)) +
                     " must equal weight.shape[1] = " + std::to_string(K));
  const at::Tensor b = bias ? checked_sizes(*bias, op, "bias", {N}, x) : at::Tensor();
  at::DimVector size(x.sizes());
  size.back() = N;
  const int64_t M = c10::multiply_integers(x.sizes().slice(0, x.dim() - 1));
  const at::Tensor out = make(size, x.scalar_type(), op);
  by_dtype(x, [&](auto zero) {
    using T = decltype(zero);
    linear<T>(M, N, K, data<T>(x), data<T>(w), data<T>(b), mutable_data<T>(out));
  });
  return out;
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> linear_backward(const at::Tensor& grad,
                                                               const std::optional<at::Tensor>& input,
                                                               const std::optional<at::Tensor>& weight,
                                                               bool need_input, bool need_weight, bool need_bias) {
  const char* op = "linear_backward";
  const at::Tensor g = checked(grad, op, "g");
  if (g.dim() == 0) throw ShapeError("linear_backward: g must have at least 1 dimension, has shape []");
  const int64_t N = g.size(-1), M = c10::multiply_integers(g.sizes().slice(0, g.dim() - 1));
  at::DimVector size(g.sizes());
  int64_t K = 0;
  at::Tensor x, w, dx, dw, db;
  if (need_weight) {
    x = checked(input ? *input : at::Tensor(), op, "input", g.dim(), g);
    size.back() = K = x.size(-1);
    if (x.sizes() != size)
      throw ShapeError("linear_backward: g.shape[:-1] must be input.shape[:-1]; g.shape is " + text(g.sizes()) +
                       " and input.shape " + text(x.sizes()));
    dw = make({N, K}, g.scalar_type(), op);
  }
  if (need_input) {
    w = checked(weight ? *weight : at::Tensor(), op, "weight", 2, g);
    if (w.size(0) != N || (need_weight && w.size(1) != K))
      throw ShapeError("linear_backward: weight.shape must be " +
                       (need_weight ? text({N, K}) : "[" + std::to_string(N) + ", in_features]") + ", is " +
                       text(w.sizes()));
    size.back() = K = w.size(1);
    dx = make(size, g.scalar_type(), op);
  }
  if (need_bias) db = make({N}, g.scalar_type(), op);
  by_dtype(g, [&](auto zero) {
    using T = decltype(zero);
    const auto result = [](const at::Tensor& t) { return t.defined() ? mutable_data<T>(t) : nullptr; };
    linear_backward<T>(M, N, K, data<T>(g), data<T>(x), data<T>(w), result(dx), result(dw), result(db));
  });
  return {dx, dw, db};
}

}  // namespace tapegrad
