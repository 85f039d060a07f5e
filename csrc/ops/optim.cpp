#include "ops/optim.h"

#include <ATen/MemoryOverlap.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>

#include "dispatch.h"
#include "isas.h"
#include "ops/elementwise.h"

namespace tapegrad {

#define TG_DECLARE_UPDATE_TABLE(name, has) \
  namespace name {                         \
  extern const UpdateKernels update_table; \
  }
TG_ISAS(TG_DECLARE_UPDATE_TABLE)

namespace {

// Of the instruction set that the other kernels are of.
const UpdateKernels& update_kernels() {
  const std::string isa = kernels().isa;
#define TG_UPDATE_TABLE(name, has) \
  if (isa == #name) return name::update_table;
  TG_ISAS(TG_UPDATE_TABLE)
  throw std::logic_error("no kernels of updates for " + isa);
}
template <class T>
const TypedUpdateKernels<T>& update_kernels_for() {
  static const UpdateKernels& chosen = update_kernels();
  if constexpr (std::is_same_v<T, float>)
    return chosen.f32;
  else
    return chosen.f64;
}

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
  at::Tensor counts[2];
};

template <class O>
std::vector<Parameter> checked_lists(const std::vector<Tensors>& lists, const O& options) {
  using R = Rules<O>;
  const char* const op = R::op;
  const at::NoGradGuard unrecorded;
  const Tensors &params = lists[0], &grads = lists[1];
  const Tensors* const states = &lists[2];
  const Tensors* const counts = states + R::states.size();
  check_length(op, "grads", grads, params.size());
  for (size_t j = 0; j < R::states.size(); ++j)
    if (R::uses(options, j)) check_length(op, R::states[j], states[j], params.size());
  if (R::counts(options))
    for (size_t j = 0; j < R::count_names.size(); ++j) check_length(op, R::count_names[j], counts[j], params.size());
  std::vector<Parameter> all(params.size());
  for (size_t i = 0; i < params.size(); ++i) {
    Parameter& one = all[i];
    one.p = written(op, "params", i, params[i], nullptr);
    const at::Tensor& like = one.p.work;
    one.g = laid_out(grads[i], op, item("grads", i).c_str(), like);
    for (size_t j = 0; j < R::states.size(); ++j)
      if (R::uses(options, j)) one.state[j] = written(op, R::states[j], i, states[j][i], &like);
    for (size_t j = 0; R::counts(options) && j < R::count_names.size(); ++j) {
      const at::Tensor& s = one.counts[j] = counts[j][i];
      const std::string name = item(R::count_names[j], i);
      if (!s.defined() || s.scalar_type() != at::kFloat || s.device().type() != at::kCPU || s.numel() != 1 ||
          s.layout() != at::kStrided || s.is_inference() || s.is_neg() || s._is_zerotensor())
        throw DTypeError(std::string(op) + ": " + name + " must be a 0-dim float32 CPU tensor");
      check_storage(s, op, name.c_str());
    }
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

// The update of parameters of one dtype, which the caller has checked.
template <class T, class O>
void apply(const std::vector<Parameter>& parameters, const O& options) {
  std::vector<Segment<T>> all;
  all.reserve(parameters.size());
  const auto memory = [](const Written& w) { return w.work.defined() ? mutable_data<T>(w.work) : nullptr; };
  const auto count = [](const at::Tensor& t) { return t.defined() ? mutable_data<float>(t) : nullptr; };
  for (const Parameter& one : parameters)
    all.push_back({one.g.numel(),
                   {memory(one.p), data<T>(one.g), {memory(one.state[0]), memory(one.state[1]), memory(one.state[2])}},
                   {count(one.counts[0]), count(one.counts[1])}});
  update<T, O>(all, options);
  const at::NoGradGuard unrecorded;
  for (const Parameter& one : parameters) {
    finish(one.p);
    for (const Written& w : one.state) finish(w);
    for (const at::Tensor& t : one.counts)
      if (t.defined()) t.unsafeGetTensorImpl()->bump_version();
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

template <class T>
T* moved(T* p, int64_t begin) {
  return p ? p + begin : nullptr;
}
template <class T>
Arrays<T> moved(const Arrays<T>& a, int64_t begin) {
  return {moved(a.p, begin),
          moved(a.g, begin),
          {moved(a.state[0], begin), moved(a.state[1], begin), moved(a.state[2], begin)}};
}

double mu(const NadamOptions& o, double t) { return o.beta1 * (1 - 0.5 * std::pow(0.96, t * o.momentum_decay)); }

// What counts beside the steps.
template <class T, class O>
void count_on(Segment<T>&, const O&) {}
template <class T>
void count_on(Segment<T>& one, const NadamOptions& o) {
  *one.counts[1] *= static_cast<float>(mu(o, one.before[0] + 1));
}

}  // namespace

// Numbers as torch's Python computes them, in double, and as its operators take them, in T.

template <class T>
Sgd<T> numbers_of(const SgdOptions& o, const double* before) {
  return {static_cast<T>(o.lr),
          static_cast<T>(o.momentum),
          static_cast<T>(before[0] == 0 ? 1 : 1 - o.dampening),
          static_cast<T>(o.weight_decay),
          o.nesterov,
          o.maximize};
}

template <class T>
Adam<T> numbers_of(const AdamOptions& o, const double* before) {
  const double t = before[0] + 1;
  return {static_cast<T>(1 - o.beta1),
          static_cast<T>(o.beta2),
          static_cast<T>(1 - o.beta2),
          static_cast<T>(o.eps),
          static_cast<T>(o.decoupled ? 0 : o.weight_decay),
          static_cast<T>(o.decoupled ? 1 - o.lr * o.weight_decay : 1),
          static_cast<T>(o.lr / (1 - std::pow(o.beta1, t))),
          static_cast<T>(std::pow(1 - std::pow(o.beta2, t), 0.5)),  // as Python's ** 0.5
          o.maximize};
}

namespace {

template <class T>
Adadelta<T> numbers_of(const AdadeltaOptions& o, const double*) {
  return {static_cast<T>(o.lr),  static_cast<T>(o.rho),          static_cast<T>(1 - o.rho),
          static_cast<T>(o.eps), static_cast<T>(o.weight_decay), o.maximize};
}

template <class T>
Adagrad<T> numbers_of(const AdagradOptions& o, const double* before) {
  return {static_cast<T>(o.lr / (1 + before[0] * o.lr_decay)), static_cast<T>(o.eps), static_cast<T>(o.weight_decay),
          o.maximize};
}

template <class T>
Adamax<T> numbers_of(const AdamaxOptions& o, const double* before) {
  return {static_cast<T>(o.lr / (1 - std::pow(o.beta1, before[0] + 1))),
          static_cast<T>(1 - o.beta1),
          static_cast<T>(o.beta2),
          static_cast<T>(o.eps),
          static_cast<T>(o.weight_decay),
          o.maximize};
}

template <class T>
Nadam<T> numbers_of(const NadamOptions& o, const double* before) {
  const double t = before[0] + 1, now = mu(o, t), next = mu(o, t + 1);
  const double product = static_cast<float>(before[1]) * static_cast<float>(now);
  return {static_cast<T>(1 - o.beta1),
          static_cast<T>(o.beta2),
          static_cast<T>(1 - o.beta2),
          static_cast<T>(o.eps),
          static_cast<T>(o.decoupled ? 0 : o.weight_decay),
          static_cast<T>(o.decoupled ? 1 - o.lr * o.weight_decay : 1),
          static_cast<T>(1 - std::pow(o.beta2, t)),
          static_cast<T>(-o.lr * (1 - now) / (1 - product)),
          static_cast<T>(-o.lr * next / (1 - product * next)),
          o.maximize};
}

template <class T>
Radam<T> numbers_of(const RadamOptions& o, const double* before) {
  const double t = before[0] + 1, power = std::pow(o.beta2, t), left = 1 - power;
  const double longest = 2 / (1 - o.beta2) - 1, length = longest - 2 * t * power / left;  // of the average, in effect
  const double share = (length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length);
  return {static_cast<T>(o.lr),
          static_cast<T>(1 - o.beta1),
          static_cast<T>(o.beta2),
          static_cast<T>(1 - o.beta2),
          static_cast<T>(o.eps),
          static_cast<T>(o.decoupled ? 0 : o.weight_decay),
          static_cast<T>(o.decoupled ? 1 - o.lr * o.weight_decay : 1),
          static_cast<T>(1 - std::pow(o.beta1, t)),
          static_cast<T>(std::pow(left, 0.5)),
          static_cast<T>(length > 5 ? std::pow(share, 0.5) : 0),
          length > 5,
          o.maximize};
}

template <class T>
Rmsprop<T> numbers_of(const RmspropOptions& o, const double*) {
  return {static_cast<T>(o.lr),
          static_cast<T>(o.momentum),
          static_cast<T>(o.alpha),
          static_cast<T>(1 - o.alpha),
          static_cast<T>(o.eps),
          static_cast<T>(o.weight_decay),
          o.maximize};
}

template <class T>
Rprop<T> numbers_of(const RpropOptions& o, const double*) {
  return {static_cast<T>(o.shrink), static_cast<T>(o.grow), static_cast<T>(o.least), static_cast<T>(o.most),
          o.maximize};
}

template <class T>
void run(const Sgd<T>& numbers, const Arrays<T>& a, int64_t n) {
  kernels_for<T>().sgd(numbers, a.p, a.g, a.state[0], n);
}
template <class T>
void run(const Adam<T>& numbers, const Arrays<T>& a, int64_t n) {
  kernels_for<T>().adam(numbers, a.p, a.g, a.state[0], a.state[1], a.state[2], n);
}
#define TG_RUN(Name, kernel)                                        \
  template <class T>                                                \
  void run(const Name<T>& numbers, const Arrays<T>& a, int64_t n) { \
    update_kernels_for<T>().kernel(numbers, a, n);                  \
  }
TG_RUN(Adadelta, adadelta)
TG_RUN(Adagrad, adagrad)
TG_RUN(Adamax, adamax)
TG_RUN(Nadam, nadam)
TG_RUN(Radam, radam)
TG_RUN(Rmsprop, rmsprop)
TG_RUN(Rprop, rprop)
#undef TG_RUN

}  // namespace

// All elements of all segments as if they were one array; numbers are worked out anew where the counts differ.
template <class T, class O>
void update(std::vector<Segment<T>>& all, const O& options) {
  using R = Rules<O>;
  int64_t total = 0;
  for (Segment<T>& one : all) {
    total += one.n;
    for (size_t j = 0; j < R::count_names.size(); ++j)
      one.before[j] = R::counts(options) && one.counts[j] ? *one.counts[j] : 0.0;
    if (!R::counts(options) || !one.counts[0]) continue;
    *one.counts[0] += 1;
    count_on(one, options);
  }
  over(total, kGrain, [&](int64_t begin, int64_t end) {
    int64_t first = 0;
    double before[2] = {0, 0};
    auto numbers = numbers_of<T>(options, before);
    for (size_t i = 0; i < all.size() && first < end; ++i) {
      const Segment<T>& one = all[i];
      const int64_t from = std::max(begin - first, int64_t{0}), to = std::min(end - first, one.n);
      if (from < to) {
        if (!std::equal(before, before + 2, one.before)) {
          std::copy_n(one.before, 2, before);
          numbers = numbers_of<T>(options, before);
        }
        Arrays<T> at = moved(one.at, from);
        for (size_t j = 0; j < R::states.size(); ++j)
          if (!R::uses(options, j)) at.state[j] = nullptr;
        run(numbers, at, to - from);
      }
      first += one.n;
    }
  });
}

template <class O>
void update(const std::vector<Tensors>& lists, const O& options) {
  by_dtypes(checked_lists(lists, options),
            [&](auto zero, const std::vector<Parameter>& all) { apply<decltype(zero), O>(all, options); });
}

#define TG_INSTANTIATE(Name)                                                         \
  template void update<float>(std::vector<Segment<float>>&, const Name##Options&);   \
  template void update<double>(std::vector<Segment<double>>&, const Name##Options&); \
  template void update(const std::vector<Tensors>&, const Name##Options&);
TG_OPTIMIZERS(TG_INSTANTIATE)
template Sgd<float> numbers_of(const SgdOptions&, const double*);
template Sgd<double> numbers_of(const SgdOptions&, const double*);
template Adam<float> numbers_of(const AdamOptions&, const double*);
template Adam<double> numbers_of(const AdamOptions&, const double*);

}  // namespace tapegrad
