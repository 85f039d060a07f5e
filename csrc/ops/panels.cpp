#include "ops/panels.h"

#include <ATen/ExpandUtils.h>
#include <ATen/Parallel.h>
#include <ATen/ops/amax.h>
#include <ATen/ops/atan2.h>
#include <ATen/ops/atanh.h>
#include <ATen/ops/cosh.h>
#include <ATen/ops/elu.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/exp.h>
#include <ATen/ops/exp2.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/log_sigmoid.h>
#include <ATen/ops/logaddexp.h>
#include <ATen/ops/logaddexp2.h>
#include <ATen/ops/maximum.h>
#include <ATen/ops/minimum.h>
#include <ATen/ops/mish.h>
#include <ATen/ops/pow.h>
#include <ATen/ops/prod.h>
#include <ATen/ops/result_type.h>
#include <ATen/ops/sinh.h>
#include <omp.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "dispatch.h"
#include "ops/border.h"
#include "ops/elementwise.h"
#include "ops/loss.h"

extern "C" int MKL_Set_Num_Threads_Local(int) __attribute__((weak));  // absent where torch has no MKL

namespace tapegrad {
namespace {

constexpr int64_t kPanel = 32768;  // elements: torch's grain, and a multiple of every vector

// Of any dtype.
void check_dense(const at::Tensor& t, const char* op, const char* name) {
  if (!t.defined() || t.layout() != at::kStrided || t.device().type() != at::kCPU)
    throw DTypeError(std::string(op) + ": " + name + " must be a dense CPU tensor");
  check_storage(t, op, name);
}

// f(begin, end) for every panel of [0, n). In threads, where torch's own threads are then off.
template <class F>
void in_panels(int64_t n, const F& f) {
  at::parallel_for(0, (n + kPanel - 1) / kPanel, 1, [&](int64_t first, int64_t last) {
    for (int64_t panel = first; panel < last; ++panel) f(panel * kPanel, std::min((panel + 1) * kPanel, n));
  });
}

// Elements [begin, end) of a dense tensor, in the order of its memory
at::Tensor piece(const at::Tensor& t, int64_t begin, int64_t end) {
  return t.as_strided({end - begin}, {1}, t.storage_offset() + begin);
}

// f(out, x)
template <class F>
at::Tensor elementwise(const at::Tensor& input, const char* op, const F& f) {
  const at::Tensor x = dense(input, op, "input");
  at::Tensor out = make_like(x);
  if (x.numel() <= kPanel) return f(out, x);
  in_panels(x.numel(), [&](int64_t begin, int64_t end) {
    at::Tensor part = piece(out, begin, end);
    f(part, piece(x, begin, end));
  });
  return out;
}

// f(out, a, b)
template <class F>
at::Tensor elementwise(at::Tensor a, at::Tensor b, const char* op, const F& f) {
  check_dense(a, op, "input");
  check_dense(b, op, "other");
  const auto dtype = at::result_type(a, b);
  const at::DimVector sizes = at::infer_size_dimvector(a.sizes(), b.sizes());
  const int64_t n = c10::multiply_integers(sizes);
  if (n <= kPanel) {
    at::Tensor out = at::empty({0}, dtype);
    return f(out, a, b);
  }
  at::Tensor out = make(sizes, dtype, op);
  for (at::Tensor* t : {&a, &b}) *t = t->to(dtype).expand(sizes).contiguous();
  in_panels(n, [&](int64_t begin, int64_t end) {
    at::Tensor part = piece(out, begin, end);
    f(part, piece(a, begin, end), piece(b, begin, end));
  });
  return out;
}

// join of what f makes of start, x[0], x[1], ..., in as many chains as fill the registers: element i goes to chain i
// modulo their number.
template <class T, class F, class Join>
T folded(const T* x, int64_t n, T start, const F& f, const Join& join) {
  constexpr int kChains = 128 / static_cast<int>(sizeof(T));
  T chain[kChains];
  for (T& one : chain) one = start;
  int64_t i = 0;
  for (; i + kChains <= n; i += kChains)
    for (int j = 0; j < kChains; ++j) chain[j] = f(chain[j], x[i + j]);
  for (int j = 0; i + j < n; ++j) chain[j] = f(chain[j], x[i + j]);
  for (int width = kChains / 2; width > 0; width /= 2)
    for (int j = 0; j < width; ++j) chain[j] = join(chain[j], chain[j + width]);
  return chain[0];
}

template <class T>
T sum_of(const T* x, int64_t n) {
  const auto plus = [](T a, T b) { return a + b; };
  return folded(x, n, T(0), plus, plus);
}

template <class T>
T product_of(const T* x, int64_t n) {
  const auto times = [](T a, T b) { return a * b; };
  return folded(x, n, T(1), times, times);
}

// Of a panel
template <class T>
T sum_of_squares(const T* x, int64_t n) {
  static_assert(kPanel % kSumRun == 0);
  T runs[kPanel / kSumRun];
  const int64_t count = (n + kSumRun - 1) / kSumRun;
  kernels_for<T>().dot(x, x, n, runs, 0, count);
  return sum_of(static_cast<const T*>(runs), count);
}

// NaNs are passed by.
template <class T>
T largest_of(const T* x, int64_t n) {
  const auto larger = [](T a, T b) { return b > a ? b : a; };
  return folded(x, n, -std::numeric_limits<T>::infinity(), larger, larger);
}

// The number that f(x, n) makes of the n elements of every panel, in order.
template <class T, class F>
std::vector<T> of_panels(const at::Tensor& x, const F& f) {
  std::vector<T> parts(static_cast<size_t>((x.numel() + kPanel - 1) / kPanel));
  const T* const first = data<T>(x);
  in_panels(x.numel(), [&](int64_t begin, int64_t end) {
    parts[static_cast<size_t>(begin / kPanel)] = f(first + begin, end - begin);
  });
  return parts;
}

template <class T>
at::Tensor number(T value, const at::Tensor& like) {
  const at::Tensor one = at::empty({}, like.options().memory_format(at::MemoryFormat::Contiguous));
  *mutable_data<T>(one) = value;
  return one;
}

// f of all elements, which are [n]: of each panel, then `again` of what these gave.
template <class F, class G>
at::Tensor to_one(const at::Tensor& input, const char* op, const F& f, const G& again) {
  const at::Tensor x = dense(input, op, "input");
  const int64_t n = x.numel();
  if (n <= kPanel) return f(piece(x, 0, n));
  const at::Tensor parts = at::empty({(n + kPanel - 1) / kPanel}, x.options());
  in_panels(n, [&](int64_t begin, int64_t end) { parts[begin / kPanel].copy_(f(piece(x, begin, end))); });
  return again(parts);
}

// A number as the result of reducing x: [] or, with keepdim, [1, ..., 1]
at::Tensor shaped(const at::Tensor& one, int64_t ndim, bool keepdim) {
  return keepdim ? one.view(at::DimVector(ndim, 1)) : one;
}

// Whether reducing `dims` of these sizes leaves one number of several; wrong dims are for torch to refuse.
bool leaves_one(at::IntArrayRef sizes, at::IntArrayRef dims) {
  const int64_t ndim = static_cast<int64_t>(sizes.size());
  for (int64_t i = 0; i < ndim; ++i) {
    const bool reduced = std::any_of(dims.begin(), dims.end(), [&](int64_t d) { return d == i || d + ndim == i; });
    if (!dims.empty() && !reduced && sizes[i] != 1) return false;
  }
  return std::all_of(dims.begin(), dims.end(), [&](int64_t d) { return d >= -ndim && d < ndim; });
}

// The shape of what is left of x [...] where all but dimensions of size 1 are reduced
at::Tensor as_reduced(const at::Tensor& one, const at::Tensor& x, at::IntArrayRef dims, bool keepdim) {
  const int64_t left = dims.empty() ? 0 : x.dim() - static_cast<int64_t>(dims.size());
  return shaped(one, keepdim ? x.dim() : left, keepdim || left > 0);
}

}  // namespace

// Of this thread only: torch's setter is for all of them.
OneThread::OneThread() : before_(at::get_num_threads()), mkl_before_(0) {
  omp_set_num_threads(1);
  if (MKL_Set_Num_Threads_Local) mkl_before_ = MKL_Set_Num_Threads_Local(1);
}
OneThread::~OneThread() {
  omp_set_num_threads(before_);
  if (MKL_Set_Num_Threads_Local) MKL_Set_Num_Threads_Local(mkl_before_);
}

#define TG_UNARY(name, torchs)                                                                                 \
  at::Tensor name(const at::Tensor& input) {                                                                   \
    return elementwise(input, #name, [](at::Tensor& out, const at::Tensor& x) { return at::torchs(out, x); }); \
  }
TG_UNARY(sinh, sinh_out)
TG_UNARY(cosh, cosh_out)
TG_UNARY(atanh, atanh_out)
TG_UNARY(exp2, exp2_out)
TG_UNARY(mish, mish_out)
TG_UNARY(logsigmoid, log_sigmoid_out)
#undef TG_UNARY

at::Tensor elu(const at::Tensor& input, double alpha, double scale, double input_scale) {
  return elementwise(input, "elu", [=](at::Tensor& out, const at::Tensor& x) {
    return at::elu_out(out, x, alpha, scale, input_scale);
  });
}

at::Tensor pow(const at::Tensor& input, double exponent) {
  return elementwise(input, "pow", [=](at::Tensor& out, const at::Tensor& x) { return at::pow_out(out, x, exponent); });
}

at::Tensor pow(double input, const at::Tensor& exponent) {
  return elementwise(exponent, "pow", [=](at::Tensor& out, const at::Tensor& x) { return at::pow_out(out, input, x); });
}

#define TG_BINARY(name, torchs)                                                                             \
  at::Tensor name(const at::Tensor& input, const at::Tensor& other) {                                       \
    return elementwise(input, other, #name, [](at::Tensor& out, const at::Tensor& a, const at::Tensor& b) { \
      return at::torchs(out, a, b);                                                                         \
    });                                                                                                     \
  }
TG_BINARY(pow, pow_out)
TG_BINARY(atan2, atan2_out)
TG_BINARY(logaddexp, logaddexp_out)
TG_BINARY(logaddexp2, logaddexp2_out)
TG_BINARY(maximum, maximum_out)
TG_BINARY(minimum, minimum_out)
#undef TG_BINARY

at::Tensor prod(const at::Tensor& x, std::optional<int64_t> dim, bool keepdim) {
  check_dense(x, "prod", "input");
  const at::DimVector dims = dim ? at::DimVector{*dim} : at::DimVector{};
  if (!leaves_one(x.sizes(), dims)) return at::prod(x, *dim, keepdim);
  const at::Tensor all = dense(x, "prod", "input");
  if (all.numel() <= kPanel) return as_reduced(at::prod(piece(all, 0, all.numel())), x, dims, keepdim);
  const at::Tensor one = by_dtype(all, [&](auto zero) {
    using T = decltype(zero);
    const std::vector<T> parts = of_panels<T>(all, product_of<T>);
    return number(product_of(parts.data(), static_cast<int64_t>(parts.size())), all);
  });
  return as_reduced(one, x, dims, keepdim);
}

at::Tensor norm(const at::Tensor& x, double p, at::IntArrayRef dims, bool keepdim) {
  check_dense(x, "norm", "input");
  if (p == 2 && x.numel() > kPanel && leaves_one(x.sizes(), dims)) {
    const at::Tensor all = dense(x, "norm", "input");
    const at::Tensor one = by_dtype(all, [&](auto zero) {
      using T = decltype(zero);
      const std::vector<T> parts = of_panels<T>(all, sum_of_squares<T>);
      return number(std::sqrt(sum_of(parts.data(), static_cast<int64_t>(parts.size()))), all);
    });
    return as_reduced(one, x, dims, keepdim);
  }
  if (x.numel() <= kPanel || !leaves_one(x.sizes(), dims))
    return at::linalg_vector_norm(x, p, dims.empty() ? at::OptionalIntArrayRef() : dims, keepdim);
  const auto f = [p](const at::Tensor& x) { return at::linalg_vector_norm(x, p); };
  const at::Tensor one = to_one(x, "norm", f, [&](const at::Tensor& parts) {
    return p == 0 ? tapegrad::sum(parts, {}, false, false) : f(parts);  // p = 0 counts
  });
  return as_reduced(one, x, dims, keepdim);
}

// The sum of e^(x - most) over the elements of a panel, few at a time, which stay near.
template <class T>
T exp_sum(const T* x, int64_t n, T most) {
  constexpr int64_t kFew = 1024;
  alignas(64) T less[kFew], powers[kFew];
  T parts[kPanel / kFew];
  int64_t count = 0;
  for (int64_t i = 0; i < n; i += kFew) {
    const int64_t left = std::min(kFew, n - i);
    for (int64_t j = 0; j < left; ++j) less[j] = x[i + j] - most;
    kernels_for<T>().activation(Activation::exp, less, powers, left, T(0), T(0));
    parts[count++] = sum_of(powers, left);
  }
  return sum_of(parts, count);
}

// Of all elements. The maximum passes NaNs by; they come back in the sum.
at::Tensor logsumexp_of_all(const at::Tensor& x) {
  return by_dtype(x, [&](auto zero) {
    using T = decltype(zero);
    const std::vector<T> highest = of_panels<T>(x, largest_of<T>);
    T most = largest_of(highest.data(), static_cast<int64_t>(highest.size()));
    if (std::isinf(most)) most = 0;
    const std::vector<T> sums = of_panels<T>(x, [most](const T* x, int64_t n) { return exp_sum(x, n, most); });
    return number(std::log(sum_of(sums.data(), static_cast<int64_t>(sums.size()))) + most, x);
  });
}

at::Tensor logsumexp(const at::Tensor& x, at::IntArrayRef dims, bool keepdim) {
  if (x.numel() > 0 && leaves_one(x.sizes(), dims))
    return as_reduced(logsumexp_of_all(dense(x, "logsumexp", "input")), x, dims, keepdim);
  check_dense(x, "logsumexp", "input");
  if (x.numel() == 0) return tapegrad::sum(x, dims, keepdim, false).log_();
  at::Tensor most = at::amax(x, dims, true);
  most.masked_fill_(most.abs().eq(INFINITY), 0);
  at::Tensor sum = tapegrad::sum(at::exp(x.sub(most)), dims, true, false);
  sum.log_().add_(most);
  if (keepdim || x.dim() == 0) return sum;
  at::DimVector kept;
  for (int64_t i = 0; i < x.dim(); ++i)
    if (!dims.empty() && std::none_of(dims.begin(), dims.end(), [&](int64_t d) { return d == i || d + x.dim() == i; }))
      kept.push_back(x.size(i));
  return sum.view(kept);
}

}  // namespace tapegrad
