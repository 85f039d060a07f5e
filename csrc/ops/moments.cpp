#include "ops/moments.h"

#include <ATen/core/grad_mode.h>

#include <cmath>
#include <limits>

namespace tapegrad {
namespace {

template <class T>
Groups<T> in_parts(GroupExtents e, int64_t begin, int64_t end) {
  if (e.P == 1 && e.C == 1) std::swap(e.N, e.P);  // rows
  Groups<T> a = {};
  a.A = e.A, a.N = e.N, a.C = e.C, a.P = e.P;
  a.begin_c = begin, a.end_c = end;
  a.rows = e.P == 1 ? kNormRows : std::max<int64_t>(1, kNormRun / e.P);
  a.cuts = e.P <= kNormRun ? 1 : (e.P + kNormRun - 1) / kNormRun;
  a.parts = a.cuts > 1 ? e.N * a.cuts : (e.N + a.rows - 1) / a.rows;
  return a;
}

// How many elements of a group part `k` has.
template <class T>
double elements(const Groups<T>& a, int64_t k) {
  if (a.cuts > 1) return static_cast<double>(std::min(kNormRun, a.P - k % a.cuts * kNormRun));
  return static_cast<double>(std::min(a.rows, a.N - k * a.rows) * a.P);
}

// Two sums of every part, then add(part, group, its first, its second), the parts in ascending order. Where there is
// one part, the kernel writes `first` and `second`.
template <class T, class Kernel, class Add>
void over_parts(Groups<T> a, Kernel kernel, double* first, double* second, const Add& add) {
  const bool by_column = a.P == 1 && a.C > 1;
  const int64_t width = a.end_c - a.begin_c, step = by_column ? kNormColumns : 1, size = a.A * a.parts * width;
  const bool several = a.parts > 1;
  Partials<double> partials(several ? 2 * size : 0);
  a.first = several ? partials.data() : first + a.begin_c;
  a.second = several ? partials.data() + size : second + a.begin_c;
  const int64_t each = a.cuts > 1 ? kNormRun : std::min(a.rows, a.N) * a.P * std::min(step, width);
  over(a.A * a.parts * ((width + step - 1) / step), units_of(2 * each),
       [&](int64_t begin, int64_t end) { kernel(a, begin, end); });
  if (!several) return;
  for (int64_t i = 0; i < a.A; ++i)
    for (int64_t k = 0; k < a.parts; ++k)
      for (int64_t c = 0; c < width; ++c) {
        const int64_t at = (i * a.parts + k) * width + c;
        add(k, i * a.C + a.begin_c + c, a.first[at], a.second[at]);
      }
}

}  // namespace

// The parts' moments are merged in ascending order (Chan, Golub, LeVeque 1979).
template <class T>
void moments(const T* x, const GroupExtents& e, int64_t begin, int64_t end, double* mean, double* m2) {
  Groups<T> a = in_parts<T>(e, begin, end);
  a.x = x;
  double n = 0, m = 0;
  int64_t last = -1;
  over_parts(a, kernels_for<T>().moments, mean, m2, [&](int64_t k, int64_t i, double one, double two) {
    if (k != last) {
      n = k == 0 ? 0 : n + m;
      m = elements(a, k);
      last = k;
    }
    const double delta = k == 0 ? 0 : one - mean[i], share = m / (n + m);
    mean[i] = k == 0 ? one : std::isfinite(delta) ? mean[i] + delta * share : mean[i] + one;
    m2[i] = k == 0 ? two : m2[i] + two + delta * delta * (n * share);
  });
}

template <class T>
void slope_sums(const T* g, const T* x, const GroupExtents& e, int64_t begin, int64_t end, const double* mean,
                double* first, double* second) {
  Groups<T> a = in_parts<T>(e, begin, end);
  a.g = g;
  a.x = x;
  a.mean = mean;
  over_parts(a, kernels_for<T>().slope_sums, first, second, [&](int64_t k, int64_t i, double one, double two) {
    first[i] = k == 0 ? one : first[i] + one;
    second[i] = k == 0 ? two : second[i] + two;
  });
}

#define TG_MOMENTS(T)                                                                       \
  template void moments(const T*, const GroupExtents&, int64_t, int64_t, double*, double*); \
  template void slope_sums(const T*, const T*, const GroupExtents&, int64_t, int64_t, const double*, double*, double*);
TG_MOMENTS(float)
TG_MOMENTS(double)

const double* checked_stats(const at::Tensor& stats, const char* op, int64_t numel) {
  if (!stats.defined() || stats.scalar_type() != at::kDouble || stats.numel() != numel || !stats.is_contiguous() ||
      stats.device().type() != at::kCPU || (numel > 0 && stats.const_data_ptr() == nullptr) ||
      stats.storage().nbytes() < static_cast<size_t>(stats.storage_offset() + numel) * sizeof(double))
    throw ShapeError(std::string(op) + ": stats must be the contiguous float64 tensor of " + std::to_string(numel) +
                     " elements that the forward call returned");
  return data<double>(stats);
}

namespace {

// A reduction as groups; where its dimensions lie otherwise, of a copy that has them last.
struct Grouping {
  at::Tensor x;
  GroupExtents e;
  at::DimVector order;  // of the copy's dimensions; empty where x is the tensor given
};

Grouping as_groups(at::Tensor x, const std::vector<bool>& reduced) {
  Grouping r;
  std::vector<std::pair<bool, int64_t>> runs = {{false, 1}};  // (reduced, extent), alternating
  for (size_t i = 0; i < reduced.size(); ++i) {
    const int64_t n = x.size(static_cast<int64_t>(i));
    if (n == 1) continue;
    if (runs.back().first == reduced[i])
      runs.back().second *= n;
    else
      runs.emplace_back(reduced[i], n);
  }
  if (runs.size() > 4) {
    for (const bool last : {false, true})
      for (size_t i = 0; i < reduced.size(); ++i)
        if (reduced[i] == last) r.order.push_back(static_cast<int64_t>(i));
    const at::NoGradGuard unrecorded;
    r.x = x.permute(r.order).contiguous();
    for (size_t i = 0; i < reduced.size(); ++i) (reduced[i] ? r.e.P : r.e.A) *= x.size(static_cast<int64_t>(i));
    return r;
  }
  runs.resize(4, {false, 1});
  r.x = x;
  r.e = {runs[0].second, runs[1].second, runs[2].second, runs[3].second};
  if (r.e.C == 1) r.e = {r.e.A, 1, 1, r.e.N * r.e.P};  // rows
  return r;
}

// n - correction, as torch bounds it
double degrees(const GroupExtents& e, double correction) { return static_cast<double>(e.count()) - correction; }

}  // namespace

std::tuple<at::Tensor, at::Tensor> var(const at::Tensor& input, at::IntArrayRef dims, double correction, bool keepdim,
                                       bool root) {
  const char* op = root ? "std" : "var";
  at::Tensor x = dense(input, op, "input");
  const std::vector<bool> reduced = reduced_dims(dims, x.dim(), op);
  // Over everything, the order in memory is as good as any.
  if (std::find(reduced.begin(), reduced.end(), false) != reduced.end()) x = checked(x, op, "input");
  at::DimVector kept, stats_sizes = {2};
  for (int64_t i = 0; i < x.dim(); ++i) {
    if (!reduced[i] || keepdim) kept.push_back(reduced[i] ? 1 : x.size(i));
    stats_sizes.push_back(reduced[i] ? 1 : x.size(i));
  }
  const at::Tensor out = make(kept, x.scalar_type(), op), stats = make(stats_sizes, at::kDouble, op);
  if (out.numel() == 0) return {out, stats};
  double *mean = mutable_data<double>(stats), *m2 = mean + out.numel();
  if (x.numel() == 0) {
    out.fill_(std::numeric_limits<double>::quiet_NaN());
    stats.fill_(std::numeric_limits<double>::quiet_NaN());
    return {out, stats};
  }
  const Grouping r = as_groups(x, reduced);
  const double n = std::max(degrees(r.e, correction), 0.0);
  by_dtype(x, [&](auto zero) {
    using T = decltype(zero);
    moments<T>(data<T>(r.x), r.e, 0, r.e.C, mean, m2);
    T* to = mutable_data<T>(out);
    for (int64_t i = 0; i < out.numel(); ++i) to[i] = static_cast<T>(root ? std::sqrt(m2[i] / n) : m2[i] / n);
  });
  return {out, stats};
}

at::Tensor var_backward(const at::Tensor& grad, const at::Tensor& input, const at::Tensor& stats_, at::IntArrayRef dims,
                        double correction, bool root) {
  const char* op = root ? "std_backward" : "var_backward";
  const at::Tensor x = checked(input, op, "input"), g = checked(grad, op, "g", -1, x);
  const std::vector<bool> reduced = reduced_dims(dims, x.dim(), op);
  int64_t groups = 1;
  for (int64_t i = 0; i < x.dim(); ++i) groups *= reduced[i] ? 1 : x.size(i);
  if (g.numel() != groups)
    throw ShapeError(std::string(op) + ": g must have the " + std::to_string(groups) +
                     " elements of the result, has shape " + text(g.sizes()));
  const double* mean = checked_stats(stats_, op, 2 * groups);
  at::Tensor dx = make(x.sizes(), x.scalar_type(), op);
  if (x.numel() == 0) return dx;
  const Grouping r = as_groups(x, reduced);
  const double n = degrees(r.e, correction);
  const at::Tensor to = r.order.empty() ? dx : make(r.x.sizes(), x.scalar_type(), op);
  by_dtype(x, [&](auto zero) {
    using T = decltype(zero);
    Numbers<T> numbers(groups);
    const T* slope = data<T>(g);
    for (int64_t i = 0; i < groups; ++i) {
      const double deviation = std::sqrt(mean[groups + i] / std::max(n, 0.0));
      const double by = !root ? 2 / n : deviation == 0 ? 0 : 1 / (deviation * n);
      numbers.set(i, mean[i], static_cast<double>(slope[i]) * by, 0);
    }
    numbers.apply(r.e, 0, r.e.C, data<T>(r.x), nullptr, mutable_data<T>(to));
  });
  if (!r.order.empty()) {
    const at::NoGradGuard unrecorded;
    dx.permute(r.order).copy_(to);
  }
  return dx;
}

}  // namespace tapegrad
