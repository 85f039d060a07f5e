#include "ops/loss.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <limits>
#include <memory>
#include <vector>

#include "dispatch.h"
#include "ops/elementwise.h"
#include "ops/reduction.h"

namespace tapegrad {
namespace {

constexpr int64_t kGrain = 32768;  // elements worth a thread

struct Extents {
  int64_t A = 1, R = 1, B = 1;
};

// [A, R, B] of sizes with dimensions [first, last) reduced
Extents extents(at::IntArrayRef sizes, int64_t first, int64_t last) {
  Extents e;
  for (int64_t i = 0; i < static_cast<int64_t>(sizes.size()); ++i) (i < first ? e.A : i < last ? e.R : e.B) *= sizes[i];
  return e;
}

template <class T>
T number(const at::Tensor& t, const char* op, const char* name, const at::Tensor& like) {
  return *data<T>(checked(t, op, name, 0, like));
}

}  // namespace

template <class T>
void sum_into(const T* x, int64_t A, int64_t R, int64_t B, T divisor, T* out) {
  const int64_t rows = B == 1 ? kSumRun : kSumRows, parts = R > rows ? (R + rows - 1) / rows : 1;
  const auto run = [&](T* result, T by) {
    const Sum<T> a = {A, R, B, x, result, by};
    over(A * parts * ((B + kSumColumns - 1) / kSumColumns), units_of(std::min(R, rows) * std::min(B, kSumColumns)),
         [&](int64_t begin, int64_t end) { kernels_for<T>().sum_segments(a, begin, end); });
  };
  if (parts == 1) return run(out, divisor);
  Partials<T> partials(A * parts * B);
  run(partials.data(), T(1));
  sum_into<T>(partials.data(), A, parts, B, divisor, out);
}

// out = the sum of what `kernel` makes of every kSumRun elements of x and y, over divisor
template <class T, class Kernel>
void in_parts(const at::Tensor& x, const at::Tensor& y, Kernel kernel, T divisor, const at::Tensor& out) {
  const int64_t n = x.numel(), parts = std::max<int64_t>(1, (n + kSumRun - 1) / kSumRun);
  Partials<T> partials(parts);
  over(parts, units_of(kSumRun),
       [&](int64_t begin, int64_t end) { kernel(data<T>(x), data<T>(y), n, partials.data(), begin, end); });
  sum_into<T>(partials.data(), 1, parts, 1, divisor, mutable_data<T>(out));
}

at::Tensor sum(const at::Tensor& input, at::IntArrayRef dims, bool keepdim, bool mean) {
  const char* op = mean ? "mean" : "sum";
  at::Tensor x = dense(input, op, "input");
  const int64_t ndim = x.dim();
  const std::vector<bool> reduced = reduced_dims(dims, ndim, op);
  // Over everything, the order in memory is as good as any.
  if (std::find(reduced.begin(), reduced.end(), false) != reduced.end()) x = checked(x, op, "input");
  if (ndim == 0) return x.clone();
  at::DimVector sizes(x.sizes()), kept;
  double divisor = 1;
  for (int64_t i = 0; i < ndim; ++i) {
    if (mean && reduced[i]) divisor *= static_cast<double>(sizes[i]);
    if (!reduced[i] || keepdim) kept.push_back(reduced[i] ? 1 : sizes[i]);
  }
  // One pass for each group of neighbouring dimensions, from the last.
  for (int64_t last = ndim; last > 0; --last) {
    if (!reduced[last - 1]) continue;
    int64_t first = last - 1;
    while (first > 0 && reduced[first - 1]) --first;
    const Extents e = extents(sizes, first, last);
    std::fill(sizes.begin() + first, sizes.begin() + last, 1);
    const bool final = std::find(reduced.begin(), reduced.begin() + first, true) == reduced.begin() + first;
    const at::Tensor out = make(final ? at::IntArrayRef(kept) : at::IntArrayRef(sizes), x.scalar_type(), op);
    by_dtype(x, [&](auto zero) {
      using T = decltype(zero);
      sum_into<T>(data<T>(x), e.A, e.R, e.B, final ? static_cast<T>(divisor) : T(1), mutable_data<T>(out));
    });
    x = out;
    last = first + 1;
  }
  return x;
}

at::Tensor softmax(const at::Tensor& input, int64_t dim, bool log) {
  const char* op = log ? "log_softmax" : "softmax";
  const at::Tensor x = checked(input, op, "input"), out = make(x.sizes(), x.scalar_type(), op);
  const int64_t d = wrapped(dim, x.dim(), op);
  const Extents e = extents(x.sizes(), d, d + 1);
  if (x.numel() == 0) return out;
  by_dtype(x, [&](auto zero) {
    using T = decltype(zero);
    const Softmax<T> a = {e.A, e.R, e.B, nullptr, data<T>(x), mutable_data<T>(out), log};
    over(e.A * ((e.B + kSoftmaxColumns - 1) / kSoftmaxColumns), units_of(4 * e.R * std::min(e.B, kSoftmaxColumns)),
         [&](int64_t begin, int64_t end) { kernels_for<T>().softmax(a, begin, end); });
  });
  return out;
}

at::Tensor softmax_backward(const at::Tensor& grad, const at::Tensor& output, int64_t dim, bool log) {
  const char* op = log ? "log_softmax_backward" : "softmax_backward";
  const at::Tensor y = checked(output, op, "out"), g = checked_sizes(grad, op, "g", y.sizes(), y);
  const at::Tensor dx = make(y.sizes(), y.scalar_type(), op);
  const int64_t d = wrapped(dim, y.dim(), op);
  const Extents e = extents(y.sizes(), d, d + 1);
  if (y.numel() == 0) return dx;
  by_dtype(y, [&](auto zero) {
    using T = decltype(zero);
    const Softmax<T> a = {e.A, e.R, e.B, data<T>(g), data<T>(y), mutable_data<T>(dx), log};
    over(e.A * ((e.B + kSoftmaxColumns - 1) / kSoftmaxColumns), units_of(2 * e.R * std::min(e.B, kSoftmaxColumns)),
         [&](int64_t begin, int64_t end) { kernels_for<T>().softmax_backward(a, begin, end); });
  });
  return dx;
}

at::Tensor dot(const at::Tensor& input, const at::Tensor& other) {
  const char* op = "dot";
  const at::Tensor x = checked(input, op, "input", 1), y = checked_sizes(other, op, "other", x.sizes(), x),
                   out = make({}, x.scalar_type(), op);
  by_dtype(x, [&](auto zero) {
    using T = decltype(zero);
    in_parts<T>(x, y, kernels_for<T>().dot, T(1), out);
  });
  return out;
}

template <class T>
void mse_loss(int64_t n, const T* x, const T* y, bool mean, T* out) {
  const int64_t parts = std::max<int64_t>(1, (n + kSumRun - 1) / kSumRun);
  Partials<T> partials(parts);
  over(parts, units_of(kSumRun),
       [&](int64_t begin, int64_t end) { kernels_for<T>().squared_error(x, y, n, partials.data(), begin, end); });
  sum_into<T>(partials.data(), 1, parts, 1, mean ? static_cast<T>(n) : T(1), out);
}

template <class T>
void mse_loss_backward(int64_t n, T g, const T* x, const T* y, bool mean, T* dx, T* dy) {
  const T scale = g * static_cast<T>(mean ? 2.0 / static_cast<double>(n) : 2.0);
  over(n, kGrain, [&](int64_t begin, int64_t end) {
    kernels_for<T>().mse_backward(x + begin, y + begin, scale, dx ? dx + begin : nullptr, dy ? dy + begin : nullptr,
                                  end - begin);
  });
}

#define TG_LOSS(T)                                                    \
  template void sum_into(const T*, int64_t, int64_t, int64_t, T, T*); \
  template void mse_loss(int64_t, const T*, const T*, bool, T*);      \
  template void mse_loss_backward(int64_t, T, const T*, const T*, bool, T*, T*);
TG_LOSS(float)
TG_LOSS(double)

at::Tensor mse_loss(const at::Tensor& input, const at::Tensor& target, bool mean) {
  const char* op = "mse_loss";
  const at::Tensor x = dense(input, op, "input"), y = laid_out(target, op, "target", x),
                   out = make({}, x.scalar_type(), op);
  by_dtype(x, [&](auto zero) {
    using T = decltype(zero);
    mse_loss<T>(x.numel(), data<T>(x), data<T>(y), mean, mutable_data<T>(out));
  });
  return out;
}

std::tuple<at::Tensor, at::Tensor> mse_loss_backward(const at::Tensor& g, const at::Tensor& input,
                                                     const at::Tensor& target, bool mean, bool need_input,
                                                     bool need_target) {
  const char* op = "mse_loss_backward";
  const at::Tensor x = dense(input, op, "input"), y = laid_out(target, op, "target", x);
  const at::Tensor dx = need_input ? make_like(x) : at::Tensor(), dy = need_target ? make_like(x) : at::Tensor();
  by_dtype(x, [&](auto zero) {
    using T = decltype(zero);
    mse_loss_backward<T>(x.numel(), number<T>(g, op, "g", x), data<T>(x), data<T>(y), mean,
                         need_input ? mutable_data<T>(dx) : nullptr, need_target ? mutable_data<T>(dy) : nullptr);
  });
  return {dx, dy};
}

namespace {

// What forward and backward have in common, checked: [N, C] logits, [N] targets that a kernel may index with.
template <class T>
struct Classes {
  at::Tensor x, t, w;
  CrossEntropy<T> a;
};

at::Tensor checked_targets(const at::Tensor& target, const at::Tensor& x) {
  const char* op = "cross_entropy";
  const at::Tensor t = checked_integers(target, op, "target");
  if (target.dim() != 1 || target.size(0) != x.size(0))
    throw ShapeError(std::string(op) + ": target.shape must be " + text(x.sizes().slice(0, 1)) + ", is " +
                     text(target.sizes()));
  return t;
}

template <class T>
Classes<T> classes(const at::Tensor& x, const at::Tensor& target, const std::optional<at::Tensor>& weight,
                   int64_t ignore_index, double label_smoothing) {
  Classes<T> c = {x, checked_targets(target, x), {}, {}};
  if (weight) c.w = checked_sizes(*weight, "cross_entropy", "weight", {x.size(1)}, x);
  c.a.C = x.size(1);
  c.a.x = data<T>(x);
  c.a.target = static_cast<const int64_t*>(c.t.const_data_ptr());
  c.a.weight = data<T>(c.w);
  c.a.ignore_index = ignore_index;
  c.a.smoothing = static_cast<T>(label_smoothing);
  return c;
}

}  // namespace

template <class T>
void check_classes(int64_t N, const CrossEntropy<T>& a) {
  for (int64_t n = 0; n < N; ++n)
    if ((a.target[n] < 0 || a.target[n] >= a.C) && a.target[n] != a.ignore_index)
      throw ShapeError("cross_entropy: targets must be class indices in [0, " + std::to_string(a.C) + "); got " +
                       std::to_string(a.target[n]) + " at row " + std::to_string(n));
}

template <class T>
void cross_entropy(int64_t N, CrossEntropy<T> a, Reduction reduction, T* loss, T* total) {
  check_classes(N, a);
  Partials<T> rows(2 * N);
  a.losses = reduction == Reduction::none ? loss : rows.data();
  a.weights = rows.data() + N;
  over(N, units_of(4 * a.C), [&](int64_t begin, int64_t end) { kernels_for<T>().cross_entropy(a, begin, end); });
  sum_into<T>(a.weights, 1, N, 1, T(1), total);
  if (reduction == Reduction::none) return;
  const T weights = reduction == Reduction::mean ? *total : T(1);
  const T divisor = weights == 0 ? std::numeric_limits<T>::quiet_NaN() : weights;  // a mean over no weight is NaN
  sum_into<T>(a.losses, 1, N, 1, divisor, loss);
}

template <class T>
void cross_entropy_backward(int64_t N, CrossEntropy<T> a, Reduction reduction, const T* total) {
  check_classes(N, a);
  a.g_stride = reduction == Reduction::none ? 1 : 0;
  a.divisor = reduction == Reduction::mean ? *total : T(1);
  a.weight_sum = static_cast<T>(a.C);
  if (a.weight) sum_into<T>(a.weight, 1, a.C, 1, T(1), &a.weight_sum);
  over(N, units_of(2 * a.C),
       [&](int64_t begin, int64_t end) { kernels_for<T>().cross_entropy_backward(a, begin, end); });
}

#define TG_CROSS_ENTROPY(T)                                                 \
  template void cross_entropy(int64_t, CrossEntropy<T>, Reduction, T*, T*); \
  template void cross_entropy_backward(int64_t, CrossEntropy<T>, Reduction, const T*);
TG_CROSS_ENTROPY(float)
TG_CROSS_ENTROPY(double)

std::tuple<at::Tensor, at::Tensor, at::Tensor> cross_entropy(const at::Tensor& input, const at::Tensor& target,
                                                             const std::optional<at::Tensor>& weight,
                                                             int64_t ignore_index, Reduction reduction,
                                                             double label_smoothing) {
  const char* op = "cross_entropy";
  const at::Tensor x = checked(input, op, "input", 2);
  const int64_t N = x.size(0);
  const at::Tensor loss = reduction == Reduction::none ? make({N}, x.scalar_type(), op) : make({}, x.scalar_type(), op),
                   stats = make({N, 2}, x.scalar_type(), op), total = make({}, x.scalar_type(), op);
  by_dtype(x, [&](auto zero) {
    using T = decltype(zero);
    Classes<T> c = classes<T>(x, target, weight, ignore_index, label_smoothing);
    c.a.stats = mutable_data<T>(stats);
    cross_entropy<T>(N, c.a, reduction, mutable_data<T>(loss), mutable_data<T>(total));
  });
  return {loss, stats, total};
}

at::Tensor cross_entropy_backward(const at::Tensor& grad, const at::Tensor& input, const at::Tensor& target,
                                  const std::optional<at::Tensor>& weight, const at::Tensor& stats_,
                                  const at::Tensor& total, int64_t ignore_index, Reduction reduction,
                                  double label_smoothing) {
  const char* op = "cross_entropy_backward";
  const at::Tensor x = checked(input, op, "input", 2), dx = make(x.sizes(), x.scalar_type(), op);
  const int64_t N = x.size(0);
  const at::Tensor g =
      reduction == Reduction::none ? checked_sizes(grad, op, "g", {N}, x) : checked_sizes(grad, op, "g", {}, x);
  const at::Tensor stats = checked_sizes(stats_, op, "stats", {N, 2}, x);
  by_dtype(x, [&](auto zero) {
    using T = decltype(zero);
    Classes<T> c = classes<T>(x, target, weight, ignore_index, label_smoothing);
    c.a.stats = const_cast<T*>(data<T>(stats));  // read only
    c.a.g = data<T>(g);
    c.a.dx = mutable_data<T>(dx);
    const at::Tensor weights = checked(total, op, "total", 0, x);
    cross_entropy_backward<T>(N, c.a, reduction, data<T>(weights));
  });
  return dx;
}

}  // namespace tapegrad
