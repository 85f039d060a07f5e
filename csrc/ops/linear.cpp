#include "ops/linear.h"

#include "ops/product.h"

namespace tapegrad {
namespace {

struct Sizes {
  int64_t M = 1, N, K;
  at::DimVector out;  // input's with N last
};

Sizes sizes(const std::string& op, const at::Tensor& x, const at::Tensor& w) {
  if (x.dim() == 0) throw ShapeError(op + ": input must have at least 1 dimension, has shape []");
  Sizes s{1, w.size(0), w.size(1), at::DimVector(x.sizes())};
  if (x.size(-1) != s.K)
    throw ShapeError(op + ": input.shape[-1] = " + std::to_string(x.size(-1)) +
                     " must equal weight.shape[1] = " + std::to_string(s.K));
  for (int64_t i = 0; i + 1 < x.dim(); ++i) s.M *= x.size(i);
  s.out.back() = s.N;
  return s;
}

}  // namespace

at::Tensor linear(const at::Tensor& input, const at::Tensor& weight, const std::optional<at::Tensor>& bias) {
  const char* op = "linear";
  const at::Tensor x = checked(input, op, "input"), w = checked(weight, op, "weight", 2, x);
  const Sizes s = sizes(op, x, w);
  const at::Tensor b = bias ? checked_sizes(*bias, op, "bias", {s.N}, x) : at::Tensor();
  const at::Tensor out = make(s.out, x.scalar_type(), op);
  by_dtype(x, [&](auto zero) {
    using T = decltype(zero);
    product<T>({
        .M = s.M,
        .N = s.N,
        .K = s.K,
        .A = data<T>(x),
        .a_m = s.K,
        .a_k = 1,
        .B = data<T>(w),
        .b_k = 1,
        .b_n = s.K,
        .C = mutable_data<T>(out),
        .c_m = s.N,
        .bias_n = data<T>(b),
    });
  });
  return out;
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> linear_backward(const at::Tensor& grad, const at::Tensor& input,
                                                               const at::Tensor& weight, bool need_input,
                                                               bool need_weight, bool need_bias) {
  const char* op = "linear_backward";
  const at::Tensor x = checked(input, op, "input"), w = checked(weight, op, "weight", 2, x);
  const Sizes s = sizes(op, x, w);
  const at::Tensor g = checked_sizes(grad, op, "g", s.out, x);
  at::Tensor dx, dw, db;
  by_dtype(x, [&](auto zero) {
    using T = decltype(zero);
    if (need_input) {  // [M, K] = g [M, N] @ weight [N, K]
      dx = make(x.sizes(), x.scalar_type(), op);
      product<T>({
          .M = s.M,
          .N = s.K,
          .K = s.N,
          .A = data<T>(g),
          .a_m = s.N,
          .a_k = 1,
          .B = data<T>(w),
          .b_k = s.K,
          .b_n = 1,
          .C = mutable_data<T>(dx),
          .c_m = s.K,
      });
    }
    if (need_weight) {  // [N, K] = g^T [N, M] @ input [M, K]
      dw = make(w.sizes(), x.scalar_type(), op);
      product<T>({
          .M = s.N,
          .N = s.K,
          .K = s.M,
          .A = data<T>(g),
          .a_m = 1,
          .a_k = s.N,
          .B = data<T>(x),
          .b_k = s.K,
          .b_n = 1,
          .C = mutable_data<T>(dw),
          .c_m = s.K,
      });
    }
    if (need_bias) {
      db = make({s.N}, x.scalar_type(), op);
      constexpr int64_t block = 64;  // columns in a unit
      at::parallel_for(0, (s.N + block - 1) / block, grain(static_cast<double>(s.M) * block),
                       [&](int64_t begin, int64_t end) {
                         kernels_for<T>().column_sums(data<T>(g), s.M, s.N, begin * block, std::min(end * block, s.N),
                                                      mutable_data<T>(db));
                       });
    }
  });
  return {dx, dw, db};
}

}  // namespace tapegrad
