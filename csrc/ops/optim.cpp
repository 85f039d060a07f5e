#include "ops/optim.h"

#include <ATen/MemoryOverlap.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>

#include "dispatch.h"
#include "ops/elementwise.h"

namespace tapegrad {
namespace {

constexpr int64_t kGrain = 32768;  // elements worth a thread

std::string item(const char* list, size_t i) { return std::string(list) + "[" + std::to_string(i) + "]"; }

void check_length(const char* op, const char* name, const Tensors& list, size_t expected) {
  if (list.size() != expected)
    throw ShapeError(std::string(op) + ": " + name + " must have " + std::to_string(expected) + " entries, has " +
                     std::to_string(list.size()));
}

// A tensor that the update writes, and the memory it works on: the tensor itself or a copy.
struct Written {
  at::Tensor tensor, work;
};

Written written(const char* op, const char* list, size_t i, const at::Tensor& t, const at::Tensor* like) {
  const at::NoGradGuard unrecorded;
  const std::string name = item(list, i);
  const at::Tensor c = like ? checked_sizes(t, op, name.c_str(), like->sizes(), *like) : checked(t, op, name.c_str());
  if (t.is_inference() || t._is_zerotensor() || t.is_neg())
    throw DTypeError(std::string(op) + ": " + name + " must be an ordinary tensor, which can be changed in place");
  if (at::has_internal_overlap(t) == at::MemOverlap::Yes)
    throw ShapeError(std::string(op) + ": " + name + " of strides " + text(t.strides()) + " overlaps itself");
  const bool in_place = like ? t.strides() == like->strides() : t.is_non_overlapping_and_dense();
  if (in_place) return {t, t};
  if (!like || like->is_contiguous()) return {t, c.is_same(t) ? c.clone() : c};
  return {t, make_like(*like).copy_(t)};
}

struct Parameter {
  Written p;
  at::Tensor g;
  Written state[3];  // undefined where there is none
  at::Tensor step;
};

using States = std::initializer_list<std::pair<const char*, const Tensors*>>;

std::vector<Parameter> checked_lists(const char* op, const Tensors& params, const Tensors& grads, States states,
                                     const Tensors& steps) {
  const at::NoGradGuard unrecorded;
  check_length(op, "grads", grads, params.size());
  for (const auto& [name, list] : states)
    if (!list->empty()) check_length(op, name, *list, params.size());
  if (!steps.empty()) check_length(op, "steps", steps, params.size());
  std::vector<Parameter> all(params.size());
  for (size_t i = 0; i < params.size(); ++i) {
    Parameter& one = all[i];
    one.p = written(op, "params", i, params[i], nullptr);
    const at::Tensor& like = one.p.work;
    one.g = laid_out(grads[i], op, item("grads", i).c_str(), like);
    int slot = 0;
    for (const auto& [name, list] : states) {
      if (!list->empty()) one.state[slot] = written(op, name, i, (*list)[i], &like);
      ++slot;
    }
    if (steps.empty()) continue;
    one.step = steps[i];
    const at::Tensor& s = one.step;
    if (!s.defined() || s.scalar_type() != at::kFloat || s.device().type() != at::kCPU || s.numel() != 1 ||
        s.layout() != at::kStrided || s.is_inference() || s.is_neg() || s._is_zerotensor())
      throw DTypeError(std::string(op) + ": " + item("steps", i) + " must be a 0-dim float32 CPU tensor");
    check_storage(s, op, item("steps", i).c_str());
  }
  return all;
}

void finish(const Written& w) {
  if (!w.tensor.defined()) return;
  if (w.tensor.is_same(w.work))
    w.tensor.unsafeGetTensorImpl()->bump_version();
  else
    w.tensor.copy_(w.work);
}

// update(numbers, segment, begin, end) over all elements of all segments as if they were one array; make(steps before)
// gives the kernel's numbers. Counts every step up.
template <class T, class Make, class Update>
void over_segments(std::vector<Segment<T>>& all, const Make& make, const Update& update) {
  int64_t total = 0;
  for (Segment<T>& one : all) {
    total += one.n;
    one.before = one.step ? *one.step : 0.0;
    if (one.step) *one.step += 1;
  }
  over(total, kGrain, [&](int64_t begin, int64_t end) {
    int64_t first = 0;
    double before = -1;
    decltype(make(0.0)) numbers = make(0.0);
    for (size_t i = 0; i < all.size() && first < end; ++i) {
      const Segment<T>& one = all[i];
      const int64_t from = std::max(begin - first, int64_t{0}), to = std::min(end - first, one.n);
      if (from < to) {
        if (one.before != before) numbers = make(before = one.before);
        update(numbers, one, from, to);
      }
      first += one.n;
    }
  });
}

// The update of parameters of one dtype, which the caller has checked.
template <class T, class Options>
void apply(const std::vector<Parameter>& parameters, const Options& options,
           void (*update)(std::vector<Segment<T>>&, const Options&)) {
  std::vector<Segment<T>> all;
  all.reserve(parameters.size());
  const auto memory = [](const Written& w) { return w.work.defined() ? mutable_data<T>(w.work) : nullptr; };
  for (const Parameter& one : parameters)
    all.push_back({one.g.numel(),
                   memory(one.p),
                   data<T>(one.g),
                   {memory(one.state[0]), memory(one.state[1]), memory(one.state[2])},
                   one.step.defined() ? mutable_data<float>(one.step) : nullptr});
  update(all, options);
  const at::NoGradGuard unrecorded;
  for (const Parameter& one : parameters) {
    finish(one.p);
    for (const Written& w : one.state) finish(w);
    if (one.step.defined()) one.step.unsafeGetTensorImpl()->bump_version();
  }
}

// Splits a list by dtype, and calls f(zero of the dtype, the parameters that have it).
template <class F>
void by_dtypes(std::vector<Parameter> all, const F& f) {
  const auto middle = std::stable_partition(all.begin(), all.end(),
                                            [](const Parameter& one) { return one.g.scalar_type() == at::kFloat; });
  if (middle == all.end() && !all.empty()) return f(float{}, all);
  if (middle == all.begin() && !all.empty()) return f(double{}, all);
  std::vector<Parameter> doubles(middle, all.end());
  all.erase(middle, all.end());
  if (!all.empty()) f(float{}, all);
  if (!doubles.empty()) f(double{}, doubles);
}

}  // namespace

template <class T>
T* moved(T* p, int64_t begin) {
  return p ? p + begin : nullptr;
}

template <class T>
void sgd_(std::vector<Segment<T>>& all, const SgdOptions& o) {
  const auto make = [&](double before) {
    return Sgd<T>{static_cast<T>(o.lr),
                  static_cast<T>(o.momentum),
                  static_cast<T>(before == 0 ? 1 : 1 - o.dampening),
                  static_cast<T>(o.weight_decay),
                  o.nesterov,
                  o.maximize};
  };
  over_segments<T>(all, make, [](const Sgd<T>& h, const Segment<T>& one, int64_t begin, int64_t end) {
    kernels_for<T>().sgd(h, one.p + begin, one.g + begin, moved(one.state[0], begin), end - begin);
  });
}

template <class T>
void adam_(std::vector<Segment<T>>& all, const AdamOptions& o) {
  const auto make = [&](double before) {
    const double t = before + 1;
    return Adam<T>{static_cast<T>(1 - o.beta1),
                   static_cast<T>(o.beta2),
                   static_cast<T>(1 - o.beta2),
                   static_cast<T>(o.eps),
                   static_cast<T>(o.decoupled ? 0 : o.weight_decay),
                   static_cast<T>(o.decoupled ? 1 - o.lr * o.weight_decay : 1),
                   static_cast<T>(o.lr / (1 - std::pow(o.beta1, t))),
                   static_cast<T>(std::sqrt(1 - std::pow(o.beta2, t))),
                   o.maximize};
  };
  over_segments<T>(all, make, [](const Adam<T>& h, const Segment<T>& one, int64_t begin, int64_t end) {
    kernels_for<T>().adam(h, one.p + begin, one.g + begin, one.state[0] + begin, one.state[1] + begin,
                          moved(one.state[2], begin), end - begin);
  });
}

#define TG_OPTIM(T)                                                \
  template void sgd_(std::vector<Segment<T>>&, const SgdOptions&); \
  template void adam_(std::vector<Segment<T>>&, const AdamOptions&);
TG_OPTIM(float)
TG_OPTIM(double)

void sgd_(const Tensors& params, const Tensors& grads, const Tensors& buffers, const Tensors& steps,
          const SgdOptions& o) {
  const size_t expected = o.momentum != 0 ? params.size() : 0;
  check_length("sgd_", "momentum_buffers", buffers, expected);
  check_length("sgd_", "steps", steps, expected);
  by_dtypes(checked_lists("sgd_", params, grads, {{"momentum_buffers", &buffers}}, steps),
            [&](auto zero, const std::vector<Parameter>& all) {
              apply<decltype(zero), SgdOptions>(all, o, &sgd_<decltype(zero)>);
            });
}

void adam_(const Tensors& params, const Tensors& grads, const Tensors& exp_avgs, const Tensors& exp_avg_sqs,
           const Tensors& max_exp_avg_sqs, const Tensors& steps, const AdamOptions& o) {
  check_length("adam_", "exp_avgs", exp_avgs, params.size());
  check_length("adam_", "exp_avg_sqs", exp_avg_sqs, params.size());
  check_length("adam_", "max_exp_avg_sqs", max_exp_avg_sqs, o.amsgrad ? params.size() : 0);
  check_length("adam_", "steps", steps, params.size());
  const States states = {{"exp_avgs", &exp_avgs}, {"exp_avg_sqs", &exp_avg_sqs}, {"max_exp_avg_sqs", &max_exp_avg_sqs}};
  by_dtypes(checked_lists("adam_", params, grads, states, steps), [&](auto zero, const std::vector<Parameter>& all) {
    apply<decltype(zero), AdamOptions>(all, o, &adam_<decltype(zero)>);
  });
}

}  // namespace tapegrad
