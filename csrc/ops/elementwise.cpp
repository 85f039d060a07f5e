#include "ops/elementwise.h"

#include <ATen/EmptyTensor.h>
#include <ATen/core/grad_mode.h>

#include "dispatch.h"
#include "ops/accumulate.h"

namespace tapegrad {
namespace {

constexpr int64_t kGrain = 32768;  // elements worth a thread

// What nearly every argument is: nothing to refuse and nothing to copy.
bool plain(const at::Tensor& t) {
  return t.defined() && t.layout() == at::kStrided && t.device().type() == at::kCPU &&
         (t.scalar_type() == at::kFloat || t.scalar_type() == at::kDouble) && !t.is_neg() && !t._is_zerotensor() &&
         t.is_non_overlapping_and_dense() &&
         t.storage().nbytes() >= static_cast<size_t>(t.storage_offset() + t.numel()) * t.element_size() &&
         (t.numel() == 0 || t.const_data_ptr() != nullptr);
}

bool same_layout(const at::Tensor& a, const at::Tensor& b) {
  return (a.is_contiguous() && b.is_contiguous()) || a.strides() == b.strides();
}

}  // namespace

at::Tensor dense(const at::Tensor& t, const char* op, const char* name) { return plain(t) ? t : checked(t, op, name); }

at::Tensor laid_out(const at::Tensor& t, const char* op, const char* name, const at::Tensor& like) {
  if (plain(t) && t.scalar_type() == like.scalar_type() && t.sizes() == like.sizes() && same_layout(t, like)) return t;
  const at::Tensor c = checked_sizes(t, op, name, like.sizes(), like);
  if (same_layout(c, like)) return c;
  const at::NoGradGuard unrecorded;
  return make_like(like).copy_(c);
}

at::Tensor make_like(const at::Tensor& t) {
  if (at::Tensor out = Given::take(t.sizes(), t.strides(), t.scalar_type()); out.defined()) return out;
  if (t.is_contiguous()) return make(t.sizes(), t.scalar_type(), "make_like");
  return at::detail::empty_strided_cpu(t.sizes(), t.strides(), t.scalar_type());
}

at::Tensor activation(Activation f, const char* op, const at::Tensor& input, double a, double b) {
  const at::Tensor x = dense(input, op, "input"), out = make_like(x);
  by_dtype(x, [&](auto zero) {
    using T = decltype(zero);
    over(x.numel(), kGrain, [&](int64_t begin, int64_t end) {
      kernels_for<T>().activation(f, data<T>(x) + begin, mutable_data<T>(out) + begin, end - begin, static_cast<T>(a),
                                  static_cast<T>(b));
    });
  });
  return out;
}

at::Tensor activation_backward(Activation f, const char* op, const at::Tensor& grad, const at::Tensor& saved, double a,
                               double b) {
  const at::Tensor s = dense(saved, op, "saved"), g = laid_out(grad, op, "g", s), dx = make_like(s);
  by_dtype(s, [&](auto zero) {
    using T = decltype(zero);
    over(s.numel(), kGrain, [&](int64_t begin, int64_t end) {
      kernels_for<T>().activation_backward(f, data<T>(g) + begin, data<T>(s) + begin, mutable_data<T>(dx) + begin,
                                           end - begin, static_cast<T>(a), static_cast<T>(b));
    });
  });
  return dx;
}

at::Tensor arithmetic(Arithmetic f, const at::Tensor& a, const at::Tensor& b, double u, double v) {
  const at::Tensor& like = !a.defined() || (b.defined() && a.dim() == 0) ? b : a;
  if (!plain(like)) return {};
  const auto is_one = [&](const at::Tensor& t) { return !t.defined() || (t.dim() == 0 && like.dim() != 0); };
  const bool one_a = is_one(a), one_b = is_one(b);
  for (const at::Tensor* t : {&a, &b})
    if (t->defined() && (!plain(*t) || t->scalar_type() != like.scalar_type())) return {};
  if (!one_a && !one_b && (a.sizes() != b.sizes() || !same_layout(a, b))) return {};
  const at::Tensor out = make_like(like);
  by_dtype(like, [&](auto zero) {
    using T = decltype(zero);
    const T left = static_cast<T>(u), right = static_cast<T>(v);
    const T *x = a.defined() ? data<T>(a) : &left, *y = b.defined() ? data<T>(b) : &right;
    over(like.numel(), kGrain, [&](int64_t begin, int64_t end) {
      kernels_for<T>().arithmetic(f, x + (one_a ? 0 : begin), one_a, y + (one_b ? 0 : begin), one_b,
                                  mutable_data<T>(out) + begin, end - begin);
    });
  });
  return out;
}

bool can_add_(const at::Tensor& sum, const at::Tensor& other) {
  return plain(sum) && plain(other) && sum.scalar_type() == other.scalar_type() && sum.sizes() == other.sizes() &&
         same_layout(sum, other) && !sum.is_alias_of(other) && !sum.is_inference();
}

void add_(const at::Tensor& sum, const at::Tensor& other) {
  by_dtype(sum, [&](auto zero) {
    using T = decltype(zero);
    T* const to = mutable_data<T>(sum);
    over(sum.numel(), kGrain, [&](int64_t begin, int64_t end) {
      kernels_for<T>().arithmetic(Arithmetic::add, to + begin, false, data<T>(other) + begin, false, to + begin,
                                  end - begin);
    });
  });
  sum.unsafeGetTensorImpl()->bump_version();
}

at::Tensor scaled_product(const at::Tensor& first, const at::Tensor& second, const at::Tensor& third, double scale) {
  const char* op = "scaled_product";
  const at::Tensor a = dense(first, op, "a"), b = laid_out(second, op, "b", a), c = laid_out(third, op, "c", a);
  const at::Tensor out = make_like(a);
  by_dtype(a, [&](auto zero) {
    using T = decltype(zero);
    over(a.numel(), kGrain, [&](int64_t begin, int64_t end) {
      kernels_for<T>().scaled_product(data<T>(a) + begin, data<T>(b) + begin, data<T>(c) + begin, static_cast<T>(scale),
                                      mutable_data<T>(out) + begin, end - begin);
    });
  });
  return out;
}

at::Tensor dropout(const at::Tensor& input, double p, uint64_t seed, uint64_t offset) {
  const char* op = "dropout";
  if (!(p >= 0 && p <= 1)) throw ShapeError("dropout: p must be from 0 to 1, is " + std::to_string(p));
  const at::Tensor x = checked(input, op, "input"), out = make(x.sizes(), x.scalar_type(), op);
  const uint64_t below = static_cast<uint64_t>((1 - p) * 0x1p32);  // as random_bernoulli
  by_dtype(x, [&](auto zero) {
    using T = decltype(zero);
    const T scale = below == 0 ? T(0) : static_cast<T>(1 / (1 - p));
    const uint32_t limit = below == 0 ? 0 : static_cast<uint32_t>(below - 1);
    over((x.numel() + kDropoutUnit - 1) / kDropoutUnit, 16, [&](int64_t begin, int64_t end) {
      kernels_for<T>().dropout(data<T>(x), mutable_data<T>(out), x.numel(), limit, scale, seed, offset, begin, end);
    });
  });
  return out;
}

}  // namespace tapegrad
