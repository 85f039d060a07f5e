#include "ops/matmul.h"

#include "ops/product.h"

namespace tapegrad {
namespace {

template <class T>
void products(const at::Tensor& x, const at::Tensor& y, const at::Tensor& out) {
  const int64_t d = x.dim() - 2, B = d ? x.size(0) : 1, M = x.size(d), K = x.size(d + 1), N = y.size(d + 1);
  const Gemm<T> first = {.M = M,
                         .N = N,
                         .K = K,
                         .A = data<T>(x),
                         .a_m = x.stride(d),
                         .a_k = x.stride(d + 1),
                         .B = data<T>(y),
                         .b_k = y.stride(d),
                         .b_n = N == 1 ? 1 : y.stride(d + 1),
                         .C = mutable_data<T>(out),
                         .c_m = N};
  if (B == 1) return product(first);
  const int64_t x_step = x.stride(0), y_step = y.stride(0);
  const double flops = 2.0 * static_cast<double>(M) * static_cast<double>(N) * static_cast<double>(K);
  at::parallel_for(0, B, grain(flops), [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) {
      Gemm<T> a = first;
      a.A += b * x_step;
      a.B += b * y_step;
      a.C += b * M * N;
      kernels_for<T>().gemm(a, static_cast<T*>(scratch()));
    }
  });
}

}  // namespace

at::Tensor matmul(const at::Tensor& input, const at::Tensor& other) {
  const char* op = "matmul";
  const at::Tensor x = checked_view(input, op, "input"), y = checked_view(other, op, "other");
  const int64_t d = x.dim() - 2;
  if (d != 0 && d != 1) throw ShapeError("matmul: input must have 2 or 3 dimensions, has shape " + text(x.sizes()));
  if (y.dim() != x.dim())
    throw ShapeError("matmul: other must have input's " + std::to_string(x.dim()) + " dimensions, has shape " +
                     text(y.sizes()));
  if (y.scalar_type() != x.scalar_type())
    throw DTypeError(std::string("matmul: other.dtype must be ") + c10::toString(x.scalar_type()) +
                     " as the other arguments', is " + c10::toString(y.scalar_type()));
  if (y.size(d) != x.size(d + 1))
    throw ShapeError("matmul: other.shape[-2] = " + std::to_string(y.size(d)) +
                     " must equal input.shape[-1] = " + std::to_string(x.size(d + 1)));
  if (d && y.size(0) != x.size(0))
    throw ShapeError("matmul: other.shape[0] = " + std::to_string(y.size(0)) +
                     " must equal input.shape[0] = " + std::to_string(x.size(0)));
  const int64_t M = x.size(d), N = y.size(d + 1);
  const at::Tensor out = d ? make({x.size(0), M, N}, x.scalar_type(), op) : make({M, N}, x.scalar_type(), op);
  if (out.numel() > 0) by_dtype(x, [&](auto zero) { products<decltype(zero)>(x, y, out); });
  return out;
}

}  // namespace tapegrad
