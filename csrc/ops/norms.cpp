#include "ops/norms.h"

#include <cmath>
#include <limits>

#include "ops/loss.h"
#include "ops/moments.h"

namespace tapegrad {
namespace {

at::Tensor optional_sizes(const MaybeTensor& t, const char* op, const char* name, at::IntArrayRef sizes,
                          const at::Tensor& like) {
  return t ? checked_sizes(*t, op, name, sizes, like) : at::Tensor();
}

template <class T>
double value(const T* p, int64_t i, double otherwise) {
  return p ? static_cast<double>(p[i]) : otherwise;
}

at::Tensor zeros(at::IntArrayRef sizes, at::ScalarType dtype, const char* op, bool needed) {
  return needed ? make(sizes, dtype, op).zero_() : at::Tensor();
}

}  // namespace

// --- batch norm ---

namespace {

GroupExtents channels(const at::Tensor& x, const char* op) {
  if (x.dim() < 2) throw ShapeError(std::string(op) + ": input must be [N, C, ...], has shape " + text(x.sizes()));
  GroupExtents e = {1, x.size(0), x.size(1), 1};
  for (int64_t i = 2; i < x.dim(); ++i) e.P *= x.size(i);
  return e;
}

}  // namespace

std::tuple<at::Tensor, at::Tensor> batch_norm(const at::Tensor& input, const MaybeTensor& weight,
                                              const MaybeTensor& bias, const MaybeTensor& mean, const MaybeTensor& var,
                                              double eps) {
  const char* op = "batch_norm";
  const at::Tensor x = checked(input, op, "input");
  const GroupExtents e = channels(x, op);
  const at::Tensor w = optional_sizes(weight, op, "weight", {e.C}, x), b = optional_sizes(bias, op, "bias", {e.C}, x);
  const at::Tensor given = optional_sizes(mean, op, "running_mean", {e.C}, x),
                   spread = optional_sizes(var, op, "running_var", {e.C}, x);
  if (given.defined() != spread.defined())
    throw ShapeError("batch_norm: running_mean and running_var must be given together");
  const at::Tensor out = make(x.sizes(), x.scalar_type(), op), stats = make({3, e.C}, at::kDouble, op);
  double *const center = mutable_data<double>(stats), *const rstd = center + e.C, *const by = rstd + e.C;
  const bool own = !given.defined();
  if (own && x.numel() == 0) {
    stats.fill_(std::numeric_limits<double>::quiet_NaN());
    return {out, stats};
  }
  by_dtype(x, [&](auto zero) {
    using T = decltype(zero);
    const double n = static_cast<double>(e.count());
    Numbers<T> numbers(e.C);
    const auto some = [&](int64_t begin, int64_t end) {
      if (own) moments<T>(data<T>(x), e, begin, end, center, by);
      for (int64_t c = begin; c < end; ++c) {
        if (!own) center[c] = static_cast<double>(data<T>(given)[c]), by[c] = static_cast<double>(data<T>(spread)[c]);
        rstd[c] = 1 / std::sqrt((own ? by[c] / n : by[c]) + eps);
        if (own) by[c] /= n - 1;
        numbers.set(c, center[c], rstd[c] * value(data<T>(w), c, 1), value(data<T>(b), c, 0));
      }
      numbers.apply(e, begin, end, data<T>(x), nullptr, mutable_data<T>(out));
    };
    own ? by_channels<T>(e, 2, some) : some(0, e.C);
  });
  return {out, stats};
}

Gradients batch_norm_backward(const at::Tensor& grad, const at::Tensor& input, const MaybeTensor& weight,
                              const at::Tensor& stats, bool of_batch, bool need_input, bool need_weight,
                              bool need_bias) {
  const char* op = "batch_norm_backward";
  const at::Tensor x = checked(input, op, "input"), g = checked_sizes(grad, op, "g", x.sizes(), x);
  const GroupExtents e = channels(x, op);
  const at::Tensor w = optional_sizes(weight, op, "weight", {e.C}, x);
  const double *mean = checked_stats(stats, op, 3 * e.C), *rstd = mean + e.C;
  const at::Tensor dx = need_input ? make(x.sizes(), x.scalar_type(), op) : at::Tensor();
  if (x.numel() == 0)
    return {dx, zeros({e.C}, x.scalar_type(), op, need_weight), zeros({e.C}, x.scalar_type(), op, need_bias)};
  const at::Tensor dw = need_weight ? make({e.C}, x.scalar_type(), op) : at::Tensor(),
                   db = need_bias ? make({e.C}, x.scalar_type(), op) : at::Tensor();
  by_dtype(x, [&](auto zero) {
    using T = decltype(zero);
    Partials<double> sums(2 * e.C);
    double *const first = sums.data(), *const second = first + e.C;
    const double n = static_cast<double>(e.count());
    Numbers<T> numbers(e.C);
    by_channels<T>(e, 3, [&](int64_t begin, int64_t end) {
      if (need_weight || need_bias || of_batch)
        slope_sums<T>(data<T>(g), data<T>(x), e, begin, end, mean, first, second);
      for (int64_t c = begin; c < end; ++c) {
        if (need_weight) mutable_data<T>(dw)[c] = static_cast<T>(second[c] * rstd[c]);
        if (need_bias) mutable_data<T>(db)[c] = static_cast<T>(first[c]);
        const double k = rstd[c] * value(data<T>(w), c, 1);
        if (of_batch)
          numbers.set(c, mean[c], -k * rstd[c] * rstd[c] * second[c] / n, -k * first[c] / n, k);
        else
          numbers.set(c, 0, k, 0);
      }
      if (need_input)
        numbers.apply(e, begin, end, data<T>(of_batch ? x : g), of_batch ? data<T>(g) : nullptr, mutable_data<T>(dx));
    });
  });
  return {dx, dw, db};
}

void move_statistics_(const std::vector<at::Tensor>& means, const std::vector<at::Tensor>& vars,
                      const at::Tensor& stats, double momentum) {
  const char* op = "move_statistics_";
  const int64_t C = stats.defined() && stats.dim() == 2 ? stats.size(1) : 0;
  const double* const mean = checked_stats(stats, op, 3 * C);
  for (const auto& [list, name] : {std::pair{&means, "running_mean"}, std::pair{&vars, "running_var"}})
    for (const at::Tensor& t : *list) {
      if (checked_view(t, op, name).sizes() != at::IntArrayRef{C})
        throw ShapeError(std::string(op) + ": " + name + ".shape must be " + text({C}) + ", is " + text(t.sizes()));
      if (t.is_inference() || t._is_zerotensor() || t.is_neg())
        throw DTypeError(std::string(op) + ": " + name + " must be memory that can be written in place");
    }
  const auto move = [&](const at::Tensor& t, const double* to) {
    by_dtype(t, [&](auto zero) {
      using T = decltype(zero);
      T* const at = mutable_data<T>(t);
      const int64_t step = t.stride(0);
      for (int64_t c = 0; c < C; ++c)
        at[c * step] = static_cast<T>(momentum * to[c] + (1 - momentum) * static_cast<double>(at[c * step]));
    });
    t.unsafeGetTensorImpl()->bump_version();
  };
  for (const at::Tensor& t : means) move(t, mean);
  for (const at::Tensor& t : vars) move(t, mean + 2 * C);
}

// --- layer norm, group norm ---

namespace {

struct Rows {
  int64_t samples, G, D, P;
  int64_t parts() const { return (samples + kNormRows - 1) / kNormRows; }
  int64_t numel() const { return samples * G * D * P; }
};

template <class T>
RowNorm<T> row_norm_of(const Rows& r, const at::Tensor& x, const at::Tensor& w, const double* stats) {
  double* const mean = const_cast<double*>(stats);  // read only in backward
  RowNorm<T> a = {};
  a.samples = r.samples, a.G = r.G, a.D = r.D, a.P = r.P;
  a.x = data<T>(x);
  a.weight = data<T>(w);
  a.mean = mean;
  a.rstd = mean + r.samples * r.G;
  return a;
}

void row_norm(const Rows& r, const at::Tensor& x, const at::Tensor& w, const at::Tensor& b, double eps,
              const at::Tensor& out, const at::Tensor& stats) {
  if (r.numel() == 0) {
    stats.fill_(std::numeric_limits<double>::quiet_NaN());
    return;
  }
  by_dtype(x, [&](auto zero) {
    using T = decltype(zero);
    RowNorm<T> a = row_norm_of<T>(r, x, w, mutable_data<double>(stats));
    a.eps = eps;
    a.bias = data<T>(b);
    a.out = mutable_data<T>(out);
    over(r.samples * r.G, units_of(2 * r.D * r.P),
         [&](int64_t begin, int64_t end) { kernels_for<T>().row_norm(a, begin, end); });
  });
}

// P = 1: every part has gradients of weight and bias of its own, which are summed.
template <class T>
void vector_rows_backward(const Rows& r, RowNorm<T> a, T* dw, T* db) {
  const int64_t parts = r.parts(), width = r.G * r.D;
  Partials<T> partials(parts > 1 ? ((dw ? 1 : 0) + (db ? 1 : 0)) * parts * width : 0);
  a.dw = dw && parts > 1 ? partials.data() : dw;
  a.db = db && parts > 1 ? partials.data() + (dw ? parts * width : 0) : db;
  over(parts, units_of(3 * std::min(kNormRows, r.samples) * width),
       [&](int64_t begin, int64_t end) { kernels_for<T>().row_norm_backward(a, begin, end); });
  if (parts == 1) return;
  if (dw) sum_into<T>(a.dw, 1, parts, width, T(1), dw);
  if (db) sum_into<T>(a.db, 1, parts, width, T(1), db);
}

// P > 1: every plane has its sums, which are those of weight and bias, summed over the samples.
template <class T>
void plane_rows_backward(const Rows& r, RowNorm<T> a, T* dw, T* db) {
  const int64_t width = r.G * r.D, planes = r.samples * width;
  Partials<double> sums(2 * planes + 2 * width);
  a.first = sums.data();
  a.second = a.first + planes;
  double *const first = a.second + planes, *const second = first + width;
  over(r.samples * r.G, units_of(3 * r.D * r.P),
       [&](int64_t begin, int64_t end) { kernels_for<T>().plane_norm_backward(a, begin, end); });
  for (int64_t plane = 0; plane < planes; ++plane) a.second[plane] *= a.rstd[plane / r.D];
  if (dw) sum_into<double>(a.second, 1, r.samples, width, 1, second);
  if (db) sum_into<double>(a.first, 1, r.samples, width, 1, first);
  for (int64_t i = 0; i < width; ++i) {
    if (dw) dw[i] = static_cast<T>(second[i]);
    if (db) db[i] = static_cast<T>(first[i]);
  }
}

Gradients row_norm_backward(const Rows& r, const at::Tensor& g, const at::Tensor& x, const at::Tensor& w,
                            const double* stats, at::IntArrayRef shape, bool need_input, bool need_weight,
                            bool need_bias, const char* op) {
  const at::Tensor dx = need_input ? make(x.sizes(), x.scalar_type(), op) : at::Tensor();
  if (r.numel() == 0) {
    at::Tensor dw = zeros(shape, x.scalar_type(), op, need_weight);
    if (need_weight && r.samples > 0) dw.fill_(std::numeric_limits<double>::quiet_NaN());  // torch: 0 times NaN
    return {dx, dw, zeros(shape, x.scalar_type(), op, need_bias)};
  }
  const at::Tensor dw = need_weight ? make(shape, x.scalar_type(), op) : at::Tensor(),
                   db = need_bias ? make(shape, x.scalar_type(), op) : at::Tensor();
  by_dtype(x, [&](auto zero) {
    using T = decltype(zero);
    RowNorm<T> a = row_norm_of<T>(r, x, w, stats);
    a.g = data<T>(g);
    a.dx = need_input ? mutable_data<T>(dx) : nullptr;
    T *const to_w = need_weight ? mutable_data<T>(dw) : nullptr, *const to_b =
                                                                     need_bias ? mutable_data<T>(db) : nullptr;
    r.P == 1 ? vector_rows_backward(r, a, to_w, to_b) : plane_rows_backward(r, a, to_w, to_b);
  });
  return {dx, dw, db};
}

// [..., *shape] as rows; ShapeError where the last sizes are others
Rows last_dims(const at::Tensor& x, at::IntArrayRef shape, const char* op) {
  const int64_t lead = x.dim() - static_cast<int64_t>(shape.size());
  if (shape.empty() || lead < 0 || x.sizes().slice(lead) != shape)
    throw ShapeError(std::string(op) + ": normalized_shape " + text(shape) + " must be the last sizes of input.shape " +
                     text(x.sizes()));
  Rows r = {1, 1, 1, 1};
  for (int64_t i = 0; i < x.dim(); ++i) (i < lead ? r.samples : r.D) *= x.size(i);
  return r;
}

Rows grouped(const at::Tensor& x, int64_t groups, const char* op) {
  const GroupExtents e = channels(x, op);
  if (groups < 1 || e.C % groups)
    throw ShapeError(std::string(op) + ": num_groups = " + std::to_string(groups) + " must divide input.shape[1] of " +
                     text(x.sizes()));
  return {e.N, groups, e.C / groups, e.P};
}

}  // namespace

std::tuple<at::Tensor, at::Tensor> layer_norm(const at::Tensor& input, at::IntArrayRef shape, const MaybeTensor& weight,
                                              const MaybeTensor& bias, double eps) {
  const char* op = "layer_norm";
  const at::Tensor x = checked(input, op, "input");
  const Rows r = last_dims(x, shape, op);
  const at::Tensor w = optional_sizes(weight, op, "weight", shape, x), b = optional_sizes(bias, op, "bias", shape, x);
  at::DimVector sizes(x.sizes());
  std::fill(sizes.end() - static_cast<int64_t>(shape.size()), sizes.end(), 1);
  sizes.insert(sizes.begin(), 2);
  const at::Tensor out = make(x.sizes(), x.scalar_type(), op), stats = make(sizes, at::kDouble, op);
  row_norm(r, x, w, b, eps, out, stats);
  return {out, stats};
}

Gradients layer_norm_backward(const at::Tensor& grad, const at::Tensor& input, at::IntArrayRef shape,
                              const MaybeTensor& weight, const at::Tensor& stats, bool need_input, bool need_weight,
                              bool need_bias) {
  const char* op = "layer_norm_backward";
  const at::Tensor x = checked(input, op, "input"), g = checked_sizes(grad, op, "g", x.sizes(), x);
  const Rows r = last_dims(x, shape, op);
  const at::Tensor w = optional_sizes(weight, op, "weight", shape, x);
  const double* mean = checked_stats(stats, op, 2 * r.samples);
  return row_norm_backward(r, g, x, w, mean, shape, need_input, need_weight, need_bias, op);
}

std::tuple<at::Tensor, at::Tensor> group_norm(const at::Tensor& input, int64_t groups, const MaybeTensor& weight,
                                              const MaybeTensor& bias, double eps) {
  const char* op = "group_norm";
  const at::Tensor x = checked(input, op, "input");
  const Rows r = grouped(x, groups, op);
  const at::DimVector channel = {r.G * r.D};
  const at::Tensor w = optional_sizes(weight, op, "weight", channel, x),
                   b = optional_sizes(bias, op, "bias", channel, x);
  const at::Tensor out = make(x.sizes(), x.scalar_type(), op), stats = make({2, r.samples, r.G, 1}, at::kDouble, op);
  row_norm(r, x, w, b, eps, out, stats);
  return {out, stats};
}

Gradients group_norm_backward(const at::Tensor& grad, const at::Tensor& input, int64_t groups,
                              const MaybeTensor& weight, const at::Tensor& stats, bool need_input, bool need_weight,
                              bool need_bias) {
  const char* op = "group_norm_backward";
  const at::Tensor x = checked(input, op, "input"), g = checked_sizes(grad, op, "g", x.sizes(), x);
  const Rows r = grouped(x, groups, op);
  const at::DimVector channel = {r.G * r.D};
  const at::Tensor w = optional_sizes(weight, op, "weight", channel, x);
  const double* mean = checked_stats(stats, op, 2 * r.samples * r.G);
  return row_norm_backward(r, g, x, w, mean, channel, need_input, need_weight, need_bias, op);
}

}  // namespace tapegrad
