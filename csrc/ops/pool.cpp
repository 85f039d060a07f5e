#include "ops/pool.h"

#include <ATen/EmptyTensor.h>
#include <ATen/Parallel.h>

#include "dispatch.h"
#include "ops/border.h"

namespace tapegrad {
namespace {

int64_t windows(int axis, int64_t size, int64_t kernel, int64_t stride, int64_t padding, int64_t dilation,
                bool ceil_mode) {
  const std::string who = std::string("max_pool2d: ") + (axis == 0 ? "rows: " : "columns: ");
  in_range(kernel, 1, "max_pool2d", "kernel_size", axis);
  in_range(stride, 1, "max_pool2d", "stride", axis);
  in_range(dilation, 1, "max_pool2d", "dilation", axis);
  if (padding < 0 || padding > kernel / 2)
    throw ShapeError(who + "padding must be from 0 to half of kernel_size " + std::to_string(kernel) + ", is " +
                     std::to_string(padding));
  const int64_t extent = (kernel - 1) * dilation + 1;
  const int64_t room = size + 2 * padding - extent + (ceil_mode ? stride - 1 : 0);
  int64_t count = room < 0 ? 0 : room / stride + 1;
  if (ceil_mode && count > 0 && (count - 1) * stride >= size + padding) --count;  // it would begin outside
  if (count < 1)
    throw ShapeError(who + "a window of extent " + std::to_string(extent) + " does not fit into " +
                     std::to_string(size) + " elements padded by " + std::to_string(padding));
  for (int64_t i = 0; i < count && i * stride < padding; ++i) {  // windows that begin in the padding
    const int64_t begin = i * stride - padding, first = (-begin + dilation - 1) / dilation;
    if (first >= kernel || begin + first * dilation >= size)
      throw ShapeError(who + "window " + std::to_string(i) + " reads padding only: no tap of kernel_size " +
                       std::to_string(kernel) + " with dilation " + std::to_string(dilation) + " lies in the " +
                       std::to_string(size) + " elements padded by " + std::to_string(padding));
  }
  return count;
}

at::Tensor checked_planes(const at::Tensor& t, const char* op, const char* name) {
  const at::Tensor x = checked(t, op, name);
  if (x.dim() != 3 && x.dim() != 4)
    throw ShapeError(std::string(op) + ": " + name + " must be [N, C, H, W] or [C, H, W], has shape " +
                     text(x.sizes()));
  return x;
}

}  // namespace

std::tuple<at::Tensor, at::Tensor> max_pool2d(const at::Tensor& input, Pair kernel_size, Pair stride, Pair padding,
                                              Pair dilation, bool ceil_mode) {
  const char* op = "max_pool2d";
  const at::Tensor x = checked_planes(input, op, "input");
  const int64_t H = x.size(-2), W = x.size(-1);
  const int64_t OH = windows(0, H, kernel_size[0], stride[0], padding[0], dilation[0], ceil_mode);
  const int64_t OW = windows(1, W, kernel_size[1], stride[1], padding[1], dilation[1], ceil_mode);
  at::DimVector sizes(x.sizes());
  sizes[x.dim() - 2] = OH;
  sizes[x.dim() - 1] = OW;
  const at::Tensor out = make(sizes, x.scalar_type(), op), indices = make(sizes, at::kLong, op);
  if (out.numel() == 0) return {out, indices};
  by_dtype(x, [&](auto zero) {
    using T = decltype(zero);
    const MaxPool<T> a = {.H = H,
                          .W = W,
                          .KH = kernel_size[0],
                          .KW = kernel_size[1],
                          .OH = OH,
                          .OW = OW,
                          .SH = stride[0],
                          .SW = stride[1],
                          .PH = padding[0],
                          .PW = padding[1],
                          .DH = dilation[0],
                          .DW = dilation[1],
                          .x = data<T>(x),
                          .out = mutable_data<T>(out),
                          .indices = static_cast<int64_t*>(indices.mutable_data_ptr())};
    at::parallel_for(0, x.numel() / (H * W), grain(static_cast<double>(OH * OW) * a.KH * a.KW),
                     [&](int64_t begin, int64_t end) { kernels_for<T>().max_pool2d(a, begin, end); });
  });
  return {out, indices};
}

at::Tensor max_pool2d_backward(const at::Tensor& grad, const at::Tensor& indices, at::IntArrayRef input_size) {
  const char* op = "max_pool2d_backward";
  const at::Tensor g = checked_planes(grad, op, "g");
  const at::Tensor at = checked_integers(indices, op, "indices");
  if (indices.sizes() != g.sizes() || static_cast<int64_t>(input_size.size()) != g.dim() ||
      input_size.slice(0, g.dim() - 2) != g.sizes().slice(0, g.dim() - 2))
    throw ShapeError(std::string(op) + ": indices.shape " + text(indices.sizes()) + " and input_size " +
                     text(input_size) + " must go with g.shape " + text(g.sizes()));
  const at::Tensor dx = make(input_size, g.scalar_type(), op);
  const int64_t from = g.size(-2) * g.size(-1), to = input_size[g.dim() - 2] * input_size[g.dim() - 1];
  const int64_t* index = static_cast<const int64_t*>(at.const_data_ptr());
  for (int64_t i = 0; i < g.numel(); ++i)
    if (index[i] < 0 || index[i] >= to)
      throw ShapeError(std::string(op) + ": indices must be in [0, " + std::to_string(to) + "), one is " +
                       std::to_string(index[i]));
  if (dx.numel() == 0) return dx;
  by_dtype(g, [&](auto zero) {
    using T = decltype(zero);
    at::parallel_for(0, dx.numel() / to, grain(static_cast<double>(from + to)), [&](int64_t begin, int64_t end) {
      kernels_for<T>().max_pool2d_backward(data<T>(g), index, from, to, begin, end, mutable_data<T>(dx));
    });
  });
  return dx;
}

}  // namespace tapegrad
