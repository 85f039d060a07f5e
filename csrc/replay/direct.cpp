#include "replay/direct.h"

#include <c10/core/Storage.h>

#include <cstring>

#include "dispatch.h"
#include "ops/elementwise.h"
#include "ops/linear.h"
#include "ops/loss.h"

namespace tapegrad {
namespace {

constexpr int64_t kGrain = 32768;  // elements worth a thread

// Where a tensor's elements lie, asked anew at every step: an argument's memory is another one each time.
template <class T>
class At {
 public:
  At() = default;
  explicit At(const at::Tensor& t) {
    if (!t.defined()) return;
    storage_ = t.storage();
    offset_ = t.storage_offset();
  }
  T* get() const {
    if (!storage_) return nullptr;
    return static_cast<T*>(storage_.unsafeGetStorageImpl()->_mutable_data_ptr_no_checks().get()) + offset_;
  }

 private:
  c10::Storage storage_;
  int64_t offset_ = 0;
};

template <class F>
class Direct final : public Call {
 public:
  explicit Direct(F f) : f_(std::move(f)) {}
  void run() override { f_(); }
  void set(size_t, double) override {}
  void set(size_t, uint64_t) override {}

 private:
  F f_;
};
template <class F>
std::unique_ptr<Call> direct(F f) {
  return std::make_unique<Direct<F>>(std::move(f));
}

// The same for a range of elements: f(begin, end).
template <class F>
class DirectElementwise final : public Elementwise {
 public:
  DirectElementwise(int64_t n, F f) : Elementwise(n), f_(std::move(f)) {}
  void run() override {
    over(count, kGrain, [&](int64_t begin, int64_t end) { f_(begin, end); });
  }
  void run(int64_t begin, int64_t end) override { f_(begin, end); }
  void set(size_t, double) override {}
  void set(size_t, uint64_t) override {}

 private:
  F f_;
};
template <class F>
std::unique_ptr<Call> elementwise(int64_t n, F f) {
  return std::make_unique<DirectElementwise<F>>(n, std::move(f));
}

bool plain(const at::Tensor& t, const at::Tensor& like) {
  return !t.defined() || (t.is_contiguous() && t.scalar_type() == like.scalar_type() && !t.is_neg());
}
bool all_plain(const at::Tensor& like, std::initializer_list<at::Tensor> tensors) {
  if (like.scalar_type() != at::kFloat && like.scalar_type() != at::kDouble) return false;
  for (const at::Tensor& t : tensors)
    if (!plain(t, like)) return false;
  return like.is_contiguous() && !like.is_neg();
}
bool all_plain(const at::Tensor& like, const Tensors& tensors) {
  for (const at::Tensor& t : tensors)
    if (!t.defined() || !plain(t, like) || !like.defined()) return false;
  return true;
}
at::Tensor value(const Optional& t) { return t ? *t : at::Tensor(); }

}  // namespace

std::unique_ptr<Call> direct_linear(const at::Tensor& x, const at::Tensor& w, const Optional& b, const Tensors& outs) {
  if (!all_plain(x, {w, value(b), outs[0]}) || !outs[0].defined() || x.dim() == 0) return nullptr;
  const int64_t N = w.size(0), K = w.size(1), M = x.numel() / std::max<int64_t>(K, 1);
  if (K == 0) return nullptr;
  return by_dtype(x, [&](auto zero) {
    using T = decltype(zero);
    return direct([=, x = At<T>(x), w = At<T>(w), b = At<T>(value(b)), out = At<T>(outs[0])] {
      linear<T>(M, N, K, x.get(), w.get(), b.get(), out.get());
    });
  });
}

std::unique_ptr<Call> direct_linear_backward(const at::Tensor& g, const Optional& x, const Optional& w,
                                             const Tensors& outs) {
  const at::Tensor &dx = outs[0], &dw = outs[1], &db = outs[2];
  if (!all_plain(g, {value(x), value(w), dx, dw, db}) || g.dim() == 0) return nullptr;
  if ((dx.defined() && !w) || (dw.defined() && !x)) return nullptr;
  const int64_t N = g.size(-1), K = dw.defined() ? dw.size(1) : dx.defined() ? dx.size(-1) : 0;
  if (N == 0) return nullptr;
  const int64_t M = g.numel() / N;
  return by_dtype(g, [&](auto zero) {
    using T = decltype(zero);
    return direct([=, g = At<T>(g), x = At<T>(dw.defined() ? *x : at::Tensor()),
                   w = At<T>(dx.defined() ? *w : at::Tensor()), dx = At<T>(dx), dw = At<T>(dw), db = At<T>(db)] {
      linear_backward<T>(M, N, K, g.get(), x.get(), w.get(), dx.get(), dw.get(), db.get());
    });
  });
}

std::unique_ptr<Call> direct_activation(Activation f, const at::Tensor& x, double a, double b, const Tensors& outs) {
  if (!outs[0].defined() || !all_plain(x, {outs[0]})) return nullptr;
  return by_dtype(x, [&](auto zero) {
    using T = decltype(zero);
    return elementwise(x.numel(), [=, a = static_cast<T>(a), b = static_cast<T>(b), x = At<T>(x),
                                   out = At<T>(outs[0])](int64_t begin, int64_t end) {
      kernels_for<T>().activation(f, x.get() + begin, out.get() + begin, end - begin, a, b);
    });
  });
}

std::unique_ptr<Call> direct_activation_backward(Activation f, const at::Tensor& g, const at::Tensor& saved, double a,
                                                 double b, const Tensors& outs) {
  if (!outs[0].defined() || !all_plain(saved, {g, outs[0]}) || g.sizes() != saved.sizes()) return nullptr;
  return by_dtype(saved, [&](auto zero) {
    using T = decltype(zero);
    return elementwise(saved.numel(), [=, a = static_cast<T>(a), b = static_cast<T>(b), g = At<T>(g),
                                       saved = At<T>(saved), dx = At<T>(outs[0])](int64_t begin, int64_t end) {
      kernels_for<T>().activation_backward(f, g.get() + begin, saved.get() + begin, dx.get() + begin, end - begin, a,
                                           b);
    });
  });
}

std::unique_ptr<Call> direct_arithmetic(Arithmetic f, const Operand& a, const Operand& b, const at::Tensor& out) {
  if (!out.defined() || !all_plain(out, {a.tensor, b.tensor})) return nullptr;
  for (const Operand* one : {&a, &b})
    if (one->tensor.defined() && one->tensor.dim() != 0 && one->tensor.sizes() != out.sizes()) return nullptr;
  const auto is_one = [&](const Operand& one) { return !one.tensor.defined() || one.tensor.sizes() != out.sizes(); };
  const bool one_a = is_one(a), one_b = is_one(b);
  if (one_a && one_b) return nullptr;
  return by_dtype(out, [&](auto zero) {
    using T = decltype(zero);
    return elementwise(out.numel(), [=, x = At<T>(a.tensor), y = At<T>(b.tensor), to = At<T>(out),
                                     u = static_cast<T>(a.number),
                                     v = static_cast<T>(b.number)](int64_t begin, int64_t end) {
      const T *left = x.get(), *right = y.get();
      left = !left ? &u : one_a ? left : left + begin;
      right = !right ? &v : one_b ? right : right + begin;
      kernels_for<T>().arithmetic(f, left, one_a, right, one_b, to.get() + begin, end - begin);
    });
  });
}

std::unique_ptr<Call> direct_scaled_product(const at::Tensor& a, const at::Tensor& b, const at::Tensor& c, double scale,
                                            const Tensors& outs) {
  if (!outs[0].defined() || !all_plain(a, {b, c, outs[0]}) || b.sizes() != a.sizes() || c.sizes() != a.sizes())
    return nullptr;
  return by_dtype(a, [&](auto zero) {
    using T = decltype(zero);
    return elementwise(a.numel(), [=, a = At<T>(a), b = At<T>(b), c = At<T>(c), scale = static_cast<T>(scale),
                                   out = At<T>(outs[0])](int64_t begin, int64_t end) {
      kernels_for<T>().scaled_product(a.get() + begin, b.get() + begin, c.get() + begin, scale, out.get() + begin,
                                      end - begin);
    });
  });
}

std::unique_ptr<Call> direct_copy(const at::Tensor& x, const at::Tensor& out) {
  if (!out.defined() || !x.is_contiguous() || !out.is_contiguous() || x.dtype() != out.dtype() || x.is_neg() ||
      x.sizes() != out.sizes())
    return nullptr;
  const int64_t size = x.element_size();
  return elementwise(x.numel(), [=, x = At<char>(x), to = At<char>(out), skip = x.storage_offset() * (size - 1),
                                 skip_to = out.storage_offset() * (size - 1)](int64_t begin, int64_t end) {
    std::memmove(to.get() + skip_to + begin * size, x.get() + skip + begin * size,
                 static_cast<size_t>((end - begin) * size));
  });
}

std::unique_ptr<Call> direct_zeros(const at::Tensor& out) {
  if (!out.defined() || !out.is_contiguous()) return nullptr;
  const int64_t size = out.element_size(), skip = out.storage_offset() * (size - 1);
  return elementwise(out.numel(), [=, to = At<char>(out)](int64_t begin, int64_t end) {
    std::memset(to.get() + skip + begin * size, 0, static_cast<size_t>((end - begin) * size));
  });
}

std::unique_ptr<Call> direct_mse_loss(const at::Tensor& x, const at::Tensor& y, bool mean, const Tensors& outs) {
  if (!outs[0].defined() || !all_plain(x, {y, outs[0]}) || x.sizes() != y.sizes()) return nullptr;
  const int64_t n = x.numel();
  return by_dtype(x, [&](auto zero) {
    using T = decltype(zero);
    return direct([=, x = At<T>(x), y = At<T>(y), out = At<T>(outs[0])] {
      mse_loss<T>(n, x.get(), y.get(), mean, out.get());
    });
  });
}

std::unique_ptr<Call> direct_mse_loss_backward(const at::Tensor& g, const at::Tensor& x, const at::Tensor& y, bool mean,
                                               const Tensors& outs) {
  if (!all_plain(x, {g, y, outs[0], outs[1]}) || x.sizes() != y.sizes() || g.dim() != 0) return nullptr;
  const int64_t n = x.numel();
  return by_dtype(x, [&](auto zero) {
    using T = decltype(zero);
    return direct([=, g = At<T>(g), x = At<T>(x), y = At<T>(y), dx = At<T>(outs[0]), dy = At<T>(outs[1])] {
      mse_loss_backward<T>(n, *g.get(), x.get(), y.get(), mean, dx.get(), dy.get());
    });
  });
}

namespace {

// An optimizer's update over a table of segments.
template <class T, class Options, size_t LR, size_t DECAY>
class Update final : public Call {
 public:
  Update(std::vector<Segment<T>> all, Options options) : all_(std::move(all)), options_(options) {}
  void run() override {
    if constexpr (std::is_same_v<Options, SgdOptions>)
      sgd_<T>(all_, options_);
    else
      adam_<T>(all_, options_);
  }
  void set(size_t argument, double value) override {
    if (argument == LR) options_.lr = value;
    if (argument == DECAY) options_.weight_decay = value;
  }
  void set(size_t, uint64_t) override {}

 private:
  std::vector<Segment<T>> all_;
  Options options_;
};

// Parameters, gradients and state do not move once they are bound, so these are pointers.
template <size_t LR, size_t DECAY, class Options>
std::unique_ptr<Call> update(const Tensors& params, const Tensors& grads,
                             std::initializer_list<const Tensors*> states, const Tensors& steps,
                             const Options& options) {
  if (params.empty() || !all_plain(params[0], params) || !all_plain(params[0], grads)) return nullptr;
  if (params[0].scalar_type() != at::kFloat && params[0].scalar_type() != at::kDouble) return nullptr;
  for (const Tensors* list : states)
    if (!all_plain(params[0], *list)) return nullptr;
  return by_dtype(params[0], [&](auto zero) -> std::unique_ptr<Call> {
    using T = decltype(zero);
    std::vector<Segment<T>> all;
    for (size_t i = 0; i < params.size(); ++i) {
      Segment<T> one = {params[i].numel(), mutable_data<T>(params[i]), data<T>(grads[i]), {}, nullptr};
      size_t slot = 0;
      for (const Tensors* list : states) {
        if (!list->empty()) one.state[slot] = mutable_data<T>((*list)[i]);
        ++slot;
      }
      if (!steps.empty()) one.step = mutable_data<float>(steps[i]);
      all.push_back(one);
    }
    return std::make_unique<Update<T, Options, LR, DECAY>>(std::move(all), options);
  });
}

}  // namespace

std::unique_ptr<Call> direct_sgd(const Tensors& params, const Tensors& grads, const Tensors& buffers,
                                 const Tensors& steps, const SgdOptions& options) {
  return update<4, 7>(params, grads, {&buffers}, steps, options);
}

std::unique_ptr<Call> direct_adam(const Tensors& params, const Tensors& grads, const Tensors& exp_avgs,
                                  const Tensors& exp_avg_sqs, const Tensors& max_exp_avg_sqs, const Tensors& steps,
                                  const AdamOptions& options) {
  return update<6, 10>(params, grads, {&exp_avgs, &exp_avg_sqs, &max_exp_avg_sqs}, steps, options);
}

}  // namespace tapegrad
