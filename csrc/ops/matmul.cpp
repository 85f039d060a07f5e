#include "ops/matmul.h"

#include <ATen/ExpandUtils.h>
#include <ATen/ops/matmul.h>

#include <utility>

#include "ops/border.h"
#include "ops/loss.h"
#include "ops/product.h"

namespace tapegrad {
namespace {

// A tensor as a batch of matrices: extents and strides, in elements.
struct Matrices {
  at::DimVector batch, steps;
  int64_t rows, columns, row_step, column_step;
};

// A vector is one row or one column.
Matrices matrices(at::IntArrayRef sizes, at::IntArrayRef strides, bool vector_is_row) {
  const int64_t d = static_cast<int64_t>(sizes.size());
  if (d == 1 && vector_is_row) return {{}, {}, 1, sizes[0], 0, strides[0]};
  if (d == 1) return {{}, {}, sizes[0], 1, strides[0], 1};
  return {at::DimVector(sizes.slice(0, d - 2)),
          at::DimVector(strides.slice(0, d - 2)),
          sizes[d - 2],
          sizes[d - 1],
          strides[d - 2],
          sizes[d - 1] == 1 ? 1 : strides[d - 1]};  // whatever a tensor of one column says
}
Matrices matrices(const at::Tensor& t, bool vector_is_row) { return matrices(t.sizes(), t.strides(), vector_is_row); }

Matrices transposed(Matrices m) {
  std::swap(m.rows, m.columns);
  std::swap(m.row_step, m.column_step);
  return m;
}

// [*batch, rows, columns]
at::DimVector with_matrix(at::IntArrayRef batch, int64_t rows, int64_t columns) {
  at::DimVector sizes;
  for (const int64_t extent : batch) sizes.push_back(extent);
  sizes.push_back(rows);
  sizes.push_back(columns);
  return sizes;
}

// The step along dimension i of a batch that m's own, shorter perhaps, is broadcast to
int64_t step(const Matrices& m, int64_t i, int64_t dims) {
  const int64_t own = i - (dims - static_cast<int64_t>(m.batch.size()));
  return own < 0 || m.batch[own] == 1 ? 0 : m.steps[own];
}

// x @ y for every index of `batch`, to which both are broadcast -> [*batch, M, N]
at::Tensor multiply(const char* op, const at::Tensor& x, const Matrices& a, const at::Tensor& y, const Matrices& b,
                    at::IntArrayRef batch) {
  const int64_t dims = static_cast<int64_t>(batch.size());
  if (dims > kBatchDims)
    throw ShapeError(std::string(op) + ": at most " + std::to_string(kBatchDims) +
                     " leading dimensions are broadcast, are " + text(batch));
  const at::Tensor out = make(with_matrix(batch, a.rows, b.columns), x.scalar_type(), op);
  if (out.numel() == 0) return out;
  by_dtype(x, [&](auto zero) {
    using T = decltype(zero);
    Products<T> p = {.first = {.M = a.rows,
                               .N = b.columns,
                               .K = a.columns,
                               .A = data<T>(x),
                               .a_m = a.row_step,
                               .a_k = a.column_step,
                               .B = data<T>(y),
                               .b_k = b.row_step,
                               .b_n = b.column_step,
                               .C = mutable_data<T>(out),
                               .c_m = b.columns},
                     .dims = dims,
                     .extent = {},
                     .a_step = {},
                     .b_step = {}};
    for (int64_t i = 0; i < dims; ++i) {
      p.extent[i] = batch[i];
      p.a_step[i] = step(a, i, dims);
      p.b_step[i] = step(b, i, dims);
    }
    products(p);
  });
  return out;
}

// [*batch, rows, columns] summed over the dimensions along which `size` was broadcast
at::Tensor unbroadcast(const at::Tensor& t, at::IntArrayRef size) {
  const int64_t lead = t.dim() - std::max<int64_t>(2, static_cast<int64_t>(size.size()));
  at::DimVector dims;
  for (int64_t i = 0; i < t.dim() - 2; ++i)
    if (i < lead || (size[i - lead] == 1 && t.size(i) != 1)) dims.push_back(i);
  return dims.empty() ? t.view(size) : tapegrad::sum(t, dims, false, false).view(size);
}

struct Shape {
  at::DimVector batch;
  int64_t M, N;
};

// The result's extents, a vector being one row or one column. ShapeError where there is no product.
Shape shape_of(const char* op, at::IntArrayRef x, at::IntArrayRef y) {
  const std::string who(op);
  for (const bool first : {true, false})
    if ((first ? x : y).empty())
      throw ShapeError(who + ": " + (first ? "input" : "other") + " must have at least 1 dimension, is 0-dim");
  const bool row = x.size() == 1, column = y.size() == 1;
  const int64_t K = column ? y[0] : y[y.size() - 2];
  if (x.back() != K)
    throw ShapeError(who + ": other.shape[" + (column ? "-1" : "-2") + "] = " + std::to_string(K) +
                     " must equal input.shape[-1] = " + std::to_string(x.back()));
  Shape s = {{}, row ? 1 : x[x.size() - 2], column ? 1 : y.back()};
  const at::IntArrayRef a = x.slice(0, row ? 0 : x.size() - 2), b = y.slice(0, column ? 0 : y.size() - 2);
  if (a.empty() && b.empty()) return s;
  try {
    s.batch = at::infer_size_dimvector(a, b);
  } catch (const c10::Error&) {
    throw ShapeError(who + ": the leading dimensions of input.shape " + text(x) + " and other.shape " + text(y) +
                     " do not broadcast");
  }
  return s;
}

at::Tensor checked_operand(const char* op, const char* name, const std::optional<at::Tensor>& t, at::IntArrayRef size,
                           const at::Tensor& like) {
  const at::Tensor x = checked_view(t ? *t : at::Tensor(), op, name);
  if (x.sizes() != size)
    throw ShapeError(std::string(op) + ": " + name + ".shape must be " + text(size) + ", is " + text(x.sizes()));
  if (x.scalar_type() != like.scalar_type())
    throw DTypeError(std::string(op) + ": " + name + ".dtype must be " + c10::toString(like.scalar_type()) +
                     " as g's, is " + c10::toString(x.scalar_type()));
  return x;
}

}  // namespace

at::Tensor matmul(const at::Tensor& input, const at::Tensor& other) {
  const char* op = "matmul";
  if (input.scalar_type() != other.scalar_type() || !input.is_floating_point()) return at::matmul(input, other);
  const at::Tensor x = checked_view(input, op, "input"), y = checked_view(other, op, "other");
  const Shape s = shape_of(op, x.sizes(), y.sizes());
  if (x.dim() == 1 && y.dim() == 1) return tapegrad::dot(x, y);
  const at::Tensor out = multiply(op, x, matrices(x, true), y, matrices(y, false), s.batch);
  if (x.dim() == 1) return out.squeeze(-2);
  return y.dim() == 1 ? out.squeeze(-1) : out;
}

std::tuple<at::Tensor, at::Tensor> matmul_backward(const at::Tensor& grad, const std::optional<at::Tensor>& input,
                                                   const std::optional<at::Tensor>& other, at::IntArrayRef input_size,
                                                   at::IntArrayRef other_size, bool need_input, bool need_other) {
  const char* op = "matmul_backward";
  const Shape s = shape_of(op, input_size, other_size);
  at::Tensor g = checked_view(grad, op, "g");
  if (other_size.size() == 1) g = g.unsqueeze(-1);
  if (input_size.size() == 1) g = g.unsqueeze(-2);
  const at::DimVector expected = with_matrix(s.batch, s.M, s.N);
  if (g.sizes() != expected)
    throw ShapeError(std::string(op) + ": g.shape, vectors as matrices, must be " + text(expected) + ", is " +
                     text(g.sizes()));
  const Matrices of_g = matrices(g, true);
  at::Tensor dx, dy;
  if (need_input) {
    const at::Tensor y = checked_operand(op, "other", other, other_size, g);
    dx = unbroadcast(multiply(op, g, of_g, y, transposed(matrices(y, false)), s.batch), input_size);
  }
  if (need_other) {
    const at::Tensor x = checked_operand(op, "input", input, input_size, g);
    const Matrices of_x = matrices(x, true);
    if (other_size.size() <= 2 && !s.batch.empty()) {  // summed over the batch too: one product over all rows
      const int64_t rows = c10::multiply_integers(s.batch) * s.M;
      const at::Tensor xs = x.reshape({rows, of_x.columns}), gs = g.reshape({rows, s.N});
      dy = multiply(op, xs, transposed(matrices(xs, true)), gs, matrices(gs, true), {}).view(other_size);
    } else {
      dy = unbroadcast(multiply(op, x, transposed(of_x), g, of_g, s.batch), other_size);
    }
  }
  return {dx, dy};
}

}  // namespace tapegrad
