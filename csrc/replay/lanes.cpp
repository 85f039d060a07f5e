#include "replay/lanes.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <stdexcept>
#include <string>

#include "dispatch.h"
#include "isas.h"
#include "kernels/lanes.h"
#include "replay/executor.h"
#include "replay/updates.h"

namespace tapegrad {

#define TG_DECLARE_LANE_TABLE(name, has) \
  namespace name {                       \
  extern const LaneKernels lane_table;   \
  }
TG_ISAS(TG_DECLARE_LANE_TABLE)

namespace {

// Of the instruction set that the other kernels are of.
const LaneKernels& lane_kernels() {
  const std::string isa = kernels().isa;
#define TG_LANE_TABLE(name, has) \
  if (isa == #name) return name::lane_table;
  TG_ISAS(TG_LANE_TABLE)
  throw std::logic_error("no kernels in lanes for " + isa);
}
template <class T>
const TypedLaneKernels<T>& lane_kernels_for() {
  static const LaneKernels& chosen = lane_kernels();
  if constexpr (std::is_same_v<T, float>)
    return chosen.f32;
  else
    return chosen.f64;
}

template <class F>
class Plain final : public LaneCall {
 public:
  explicit Plain(F f) : f_(std::move(f)) {}
  void run() override { f_(); }

 private:
  F f_;
};
template <class F>
std::unique_ptr<Call> call_of(F f) {
  return std::make_unique<Plain<F>>(std::move(f));
}

bool is_float(const at::Tensor& t) {
  return t.defined() && (t.scalar_type() == at::kFloat || t.scalar_type() == at::kDouble);
}
// [..., L], contiguous, of one dtype; what is undefined counts
bool fit(const at::Tensor& like, std::initializer_list<at::Tensor> all) {
  if (!is_float(like) || !like.is_contiguous() || like.dim() == 0 || like.size(-1) != lanes_of(like.scalar_type()))
    return false;
  for (const at::Tensor& t : all)
    if (t.defined() &&
        (!t.is_contiguous() || t.scalar_type() != like.scalar_type() || t.dim() == 0 || t.size(-1) != like.size(-1)))
      return false;
  return true;
}
int64_t elements(const at::Tensor& t) { return t.numel() / t.size(-1); }
at::Tensor value(const Optional& t) { return t ? *t : at::Tensor(); }
at::Tensor place_of(const Tensors& outs, size_t i) { return i < outs.size() ? outs[i] : at::Tensor(); }
template <class T>
const T* from(const at::Tensor& t) {
  return t.defined() ? data<T>(t) : nullptr;
}
template <class T>
T* to(const at::Tensor& t) {
  return t.defined() ? mutable_data<T>(t) : nullptr;
}

}  // namespace

int64_t lanes_of(at::ScalarType dtype) {
  return dtype == at::kDouble ? lane_kernels_for<double>().lanes : lane_kernels_for<float>().lanes;
}

std::unique_ptr<Call> lane_linear(const at::Tensor& x, const at::Tensor& w, const Optional& b, bool relu,
                                  const Tensors& outs) {
  const at::Tensor out = place_of(outs, 0);
  if (!fit(x, {w, value(b), out}) || !out.defined() || !w.defined() || w.dim() != 3 || x.dim() < 2) return nullptr;
  const int64_t N = w.size(0), K = w.size(1);
  if (K == 0 || N == 0 || x.size(-2) != K) return nullptr;
  const int64_t M = elements(x) / K;
  return by_dtype(x, [&](auto zero) {
    using T = decltype(zero);
    const Gemm<T> a = {.M = M,
                       .N = N,
                       .K = K,
                       .A = from<T>(x),
                       .a_m = K,
                       .a_k = 1,
                       .B = from<T>(w),
                       .b_k = 1,
                       .b_n = K,
                       .C = to<T>(out),
                       .c_m = N,
                       .bias_n = from<T>(value(b))};
    return call_of([=, all = LaneGemm<T>{a, relu, nullptr}] { lane_kernels_for<T>().lane_gemm(all); });
  });
}

std::unique_ptr<Call> lane_linear_backward(const at::Tensor& g, const Optional& x, const Optional& w,
                                           const Optional& gate, const Tensors& outs) {
  const at::Tensor dx = place_of(outs, 0), dw = place_of(outs, 1), db = place_of(outs, 2);
  if (!fit(g, {value(x), value(w), value(gate), dx, dw, db}) || g.dim() < 2 || g.size(-2) == 0) return nullptr;
  if ((dx.defined() && (!w || w->dim() != 3)) || (dw.defined() && (!x || x->dim() < 2))) return nullptr;
  if (gate && (!dx.defined() || gate->sizes() != dx.sizes())) return nullptr;
  const int64_t N = g.size(-2), K = dw.defined() ? x->size(-2) : dx.defined() ? w->size(1) : 0, M = elements(g) / N;
  return by_dtype(g, [&](auto zero) {
    using T = decltype(zero);
    const Gemm<T> by_x = {.M = M,
                          .N = K,
                          .K = N,
                          .A = from<T>(g),
                          .a_m = N,
                          .a_k = 1,
                          .B = dx.defined() ? from<T>(*w) : nullptr,
                          .b_k = K,
                          .b_n = 1,
                          .C = to<T>(dx),
                          .c_m = K};
    const Gemm<T> by_w = {.M = N,
                          .N = K,
                          .K = M,
                          .A = from<T>(g),
                          .a_m = 1,
                          .a_k = N,
                          .B = dw.defined() ? from<T>(*x) : nullptr,
                          .b_k = K,
                          .b_n = 1,
                          .C = to<T>(dw),
                          .c_m = K};
    const LaneGemm<T> inputs = {by_x, false, from<T>(value(gate))}, weights = {by_w, false, nullptr};
    return call_of([=, b = to<T>(db), slope = from<T>(g)] {
      if (inputs.product.C) lane_kernels_for<T>().lane_gemm(inputs);
      if (weights.product.C) lane_kernels_for<T>().lane_gemm(weights);
      if (b) lane_kernels_for<T>().lane_column_sums(slope, M, N, b);
    });
  });
}

std::unique_ptr<Call> lane_sum(const at::Tensor& x, const Optional& y, bool mean, const Tensors& outs) {
  const at::Tensor out = place_of(outs, 0);
  if (!fit(x, {value(y), out}) || !out.defined() || elements(out) != 1 || (y && y->sizes() != x.sizes()))
    return nullptr;
  const int64_t n = elements(x);
  if (n == 0 || n > kSumRun) return nullptr;  // more are summed in parts
  return by_dtype(x, [&](auto zero) {
    using T = decltype(zero);
    return call_of([=, x = from<T>(x), y = from<T>(value(y)), out = to<T>(out)] {
      lane_kernels_for<T>().lane_sum(x, y, n, mean ? static_cast<T>(n) : T(1), out);
    });
  });
}

std::unique_ptr<Call> lane_mse_loss(const at::Tensor& x, const at::Tensor& y, bool mean, const Tensors& outs) {
  const at::Tensor out = place_of(outs, 0);
  if (!fit(x, {y, out}) || !y.defined() || !out.defined() || y.sizes() != x.sizes()) return nullptr;
  const int64_t n = elements(x);
  if (n == 0 || n > kSumRun) return nullptr;  // more are summed in parts
  return by_dtype(x, [&](auto zero) {
    using T = decltype(zero);
    return call_of([=, x = from<T>(x), y = from<T>(y), out = to<T>(out)] {
      lane_kernels_for<T>().lane_squared_error(x, y, n, mean ? static_cast<T>(n) : T(1), out);
    });
  });
}

std::unique_ptr<Call> lane_mse_loss_backward(const at::Tensor& g, const at::Tensor& x, const at::Tensor& y, bool mean,
                                             const Tensors& outs) {
  const at::Tensor dx = place_of(outs, 0), dy = place_of(outs, 1);
  if (!fit(x, {g, y, dx, dy}) || !g.defined() || !y.defined() || y.sizes() != x.sizes() || elements(g) != 1)
    return nullptr;
  const int64_t n = elements(x);
  return by_dtype(x, [&](auto zero) {
    using T = decltype(zero);
    const T factor = static_cast<T>(mean ? 2.0 / static_cast<double>(n) : 2.0);
    return call_of([=, g = from<T>(g), x = from<T>(x), y = from<T>(y), dx = to<T>(dx), dy = to<T>(dy)] {
      lane_kernels_for<T>().lane_mse_backward(g, x, y, factor, dx, dy, n);
    });
  });
}

namespace {

constexpr int64_t kFewClasses = 64;  // up to here the plain kernel, too, has a row in a lane

bool fit_classes(const at::Tensor& x, const at::Tensor& target, Reduction reduction) {
  return x.dim() == 3 && x.size(1) <= kFewClasses && x.size(0) > 0 && x.size(0) <= kSumRun && target.dim() == 2 &&
         target.is_contiguous() && target.scalar_type() == at::kLong && target.size(0) == x.size(0) &&
         target.size(1) == x.size(2) && reduction != Reduction::none;
}

}  // namespace

std::unique_ptr<Call> lane_cross_entropy(const at::Tensor& x, const at::Tensor& target, int64_t ignore_index,
                                         Reduction reduction, const Tensors& outs) {
  const at::Tensor loss = place_of(outs, 0), stats = place_of(outs, 1), total = place_of(outs, 2);
  if (!fit(x, {loss, stats, total}) || !fit_classes(x, target, reduction)) return nullptr;
  const int64_t N = x.size(0), C = x.size(1), L = x.size(2);
  const auto* t = static_cast<const int64_t*>(target.const_data_ptr());
  return by_dtype(x, [&](auto zero) {
    using T = decltype(zero);
    // losses, weights, stats and total, as far as nobody reads them
    std::vector<T> own(static_cast<size_t>((4 * N + 2) * L));
    return call_of([=, x = from<T>(x), loss = to<T>(loss), stats = to<T>(stats), total = to<T>(total)]() mutable {
      for (int64_t i = 0; i < N * L; ++i)
        if ((t[i] < 0 || t[i] >= C) && t[i] != ignore_index) throw std::out_of_range("a target is no class");
      CrossEntropy<T> a = {};
      a.C = C;
      a.x = x;
      a.target = t;
      a.ignore_index = ignore_index;
      a.losses = own.data();
      a.weights = own.data() + N * L;
      a.stats = stats ? stats : own.data() + 2 * N * L;
      T* rest = own.data() + 4 * N * L;
      lane_kernels_for<T>().lane_cross_entropy(a, N, reduction == Reduction::mean, loss ? loss : rest,
                                               total ? total : rest + L);
    });
  });
}

std::unique_ptr<Call> lane_cross_entropy_backward(const at::Tensor& g, const at::Tensor& x, const at::Tensor& target,
                                                  const at::Tensor& stats, const at::Tensor& total,
                                                  int64_t ignore_index, Reduction reduction, const Tensors& outs) {
  const at::Tensor dx = place_of(outs, 0);
  if (!fit(x, {g, stats, total, dx}) || !fit_classes(x, target, reduction) || !dx.defined() || elements(g) != 1)
    return nullptr;
  const int64_t N = x.size(0), C = x.size(1);
  return by_dtype(x, [&](auto zero) {
    using T = decltype(zero);
    CrossEntropy<T> a = {};
    a.C = C;
    a.x = from<T>(x);
    a.target = static_cast<const int64_t*>(target.const_data_ptr());
    a.ignore_index = ignore_index;
    a.stats = const_cast<T*>(from<T>(stats));  // read only
    a.g = from<T>(g);
    a.dx = to<T>(dx);
    return call_of([=, total = from<T>(total)] {
      lane_kernels_for<T>().lane_cross_entropy_backward(a, N, reduction == Reduction::mean, total);
    });
  });
}

namespace {

template <class T>
struct LaneSegment {
  int64_t n;
  Arrays<T> at;
  float* steps;  // [L]
};

template <class T>
void set_lane(SgdLanes<T>& h, size_t lane, const Sgd<T>& one) {
  h.lr[lane] = one.lr;
  h.momentum[lane] = one.momentum;
  h.pull[lane] = one.pull;
  h.weight_decay[lane] = one.weight_decay;
  h.nesterov = one.nesterov;
  h.maximize = one.maximize;
}
template <class T>
void set_lane(AdamLanes<T>& h, size_t lane, const Adam<T>& one) {
  h.weight1[lane] = one.weight1;
  h.beta2[lane] = one.beta2;
  h.weight2[lane] = one.weight2;
  h.eps[lane] = one.eps;
  h.weight_decay[lane] = one.weight_decay;
  h.shrink[lane] = one.shrink;
  h.step[lane] = one.step;
  h.root[lane] = one.root;
  h.maximize = one.maximize;
}
template <class T>
void run(SgdLanes<T>& h, const Arrays<T>& a, int64_t n, size_t lanes) {
  const auto moves = std::count_if(h.momentum, h.momentum + lanes, [](T momentum) { return momentum != 0; });
  h.all_move = moves == static_cast<int64_t>(lanes);
  lane_kernels_for<T>().lane_sgd(h, a.p, a.g, moves == 0 ? nullptr : a.state[0], n);
}
template <class T>
void run(AdamLanes<T>& h, const Arrays<T>& a, int64_t n, size_t) {
  lane_kernels_for<T>().lane_adam(h, a.p, a.g, a.state[0], a.state[1], a.state[2], n);
}

// As `Update` in updates.cpp, with options and counts of steps for every lane.
template <class T, class Numbers, class O>
class LaneUpdate final : public LaneCall {
 public:
  LaneUpdate(std::vector<LaneSegment<T>> all, size_t lanes, const O& options)
      : all_(std::move(all)), options_(lanes, options), before_(lanes, -1) {}
  void run() override {
    const size_t lanes = options_.size();
    for (const LaneSegment<T>& s : all_) {
      for (size_t l = 0; l < lanes; ++l) {
        const bool counts = s.steps && Rules<O>::counts(options_[l]);
        const double before = counts ? s.steps[l] : 0.0;
        if (counts) s.steps[l] += 1;
        if (before == before_[l]) continue;
        tapegrad::set_lane(numbers_, l, numbers_of<T>(options_[l], &before));
        before_[l] = before;
      }
      tapegrad::run(numbers_, s.at, s.n, lanes);
    }
  }
  void set_lane(size_t lane, size_t argument, double value) override {
    set_number(options_[lane], argument, value);
    before_[lane] = -1;
  }

 private:
  std::vector<LaneSegment<T>> all_;
  std::vector<O> options_;
  std::vector<double> before_;  // steps, that the numbers are for
  Numbers numbers_ = {};
};

template <template <class> class Numbers, class O>
std::unique_ptr<Call> made_update(const std::vector<Tensors>& lists, const O& options) {
  constexpr size_t kStates = Rules<O>::states.size();
  const Tensors &params = lists[0], &grads = lists[1], &steps = lists[2 + kStates];
  if (params.empty() || grads.size() != params.size()) return nullptr;
  for (size_t i = 0; i < params.size(); ++i) {
    if (!fit(params[0], {params[i], grads[i]}) || grads[i].sizes() != params[i].sizes()) return nullptr;
    for (size_t j = 0; j < kStates; ++j) {
      const Tensors& list = lists[2 + j];
      if (list.empty() == Rules<O>::uses(options, j)) return nullptr;
      if (list.empty()) continue;
      if (list.size() != params.size() || !fit(params[0], {list[i]}) || list[i].sizes() != params[i].sizes())
        return nullptr;
    }
    if (steps.empty() == Rules<O>::counts(options)) return nullptr;
    if (steps.empty()) continue;
    if (steps.size() != params.size() || steps[i].scalar_type() != at::kFloat || steps[i].numel() != params[0].size(-1))
      return nullptr;
  }
  return by_dtype(params[0], [&](auto zero) -> std::unique_ptr<Call> {
    using T = decltype(zero);
    std::vector<LaneSegment<T>> all;
    for (size_t i = 0; i < params.size(); ++i) {
      LaneSegment<T> s = {elements(params[i]), {to<T>(params[i]), from<T>(grads[i]), {}}, nullptr};
      for (size_t j = 0; j < kStates; ++j) s.at.state[j] = lists[2 + j].empty() ? nullptr : to<T>(lists[2 + j][i]);
      if (!steps.empty()) s.steps = to<float>(steps[i]);
      all.push_back(s);
    }
    const auto lanes = static_cast<size_t>(params[0].size(-1));
    return std::make_unique<LaneUpdate<T, Numbers<T>, O>>(std::move(all), lanes, options);
  });
}

}  // namespace

template <>
std::unique_ptr<Call> lane_update(const std::vector<Tensors>& lists, const SgdOptions& options) {
  return made_update<SgdLanes>(lists, options);
}
template <>
std::unique_ptr<Call> lane_update(const std::vector<Tensors>& lists, const AdamOptions& options) {
  return made_update<AdamLanes>(lists, options);
}

namespace {

// f(zero) of a number as long as an element
template <class F>
void by_size(int64_t bytes, const F& f) {
  if (bytes == 1) return f(uint8_t{});
  if (bytes == 2) return f(uint16_t{});
  if (bytes == 4) return f(uint32_t{});
  if (bytes == 8) return f(uint64_t{});
  throw std::invalid_argument("lanes: elements of " + std::to_string(bytes) + " bytes");
}

class LaneByLane final : public LaneCall {
 public:
  LaneByLane(Executor& one, std::vector<Carried> in, std::vector<Carried> out, bool refuses)
      : one_(one), in_(std::move(in)), out_(std::move(out)), refuses_(refuses) {
    for (const std::vector<Carried>* all : {&in_, &out_})
      for (const Carried& c : *all) {
        const bool fits = c.one.dim() == 1 && c.lanes.dim() == 2 && c.lanes.size(0) == c.one.size(0) &&
                          c.one.is_contiguous() && c.lanes.is_contiguous() &&
                          c.one.scalar_type() == c.lanes.scalar_type() && c.lanes.size(1) > 0;
        if (!fits || (lanes_ && c.lanes.size(1) != lanes_) || !one_.owns(c.one))
          throw std::invalid_argument("lanes: expected elements [n] of the executor's and [n, L]");
        lanes_ = c.lanes.size(1);
      }
    one_.call(0);
  }
  void run() override {
    for (int64_t l = 0; l < lanes_; ++l) {
      for (const Carried& c : in_)
        by_size(c.one.element_size(), [&](auto zero) {
          using E = decltype(zero);
          const E* from = static_cast<const E*>(c.lanes.const_data_ptr()) + l;
          E* to = static_cast<E*>(c.one.mutable_data_ptr());
          for (int64_t i = 0, n = c.one.numel(); i < n; ++i) to[i] = from[i * lanes_];
        });
      for (const Number& n : numbers_)
        if (n.lane == l) one_.call(0).set(n.argument, n.value);
      if (!refuses_) {
        one_.replay();
      } else {
        try {
          one_.replay();
        } catch (const std::exception& error) {
          throw std::out_of_range(error.what());
        }
      }
      for (const Carried& c : out_)
        by_size(c.one.element_size(), [&](auto zero) {
          using E = decltype(zero);
          const E* from = static_cast<const E*>(c.one.const_data_ptr());
          E* to = static_cast<E*>(c.lanes.mutable_data_ptr()) + l;
          for (int64_t i = 0, n = c.one.numel(); i < n; ++i) to[i * lanes_] = from[i];
        });
    }
  }
  void set_lane(size_t lane, size_t argument, double value) override {
    for (Number& n : numbers_)
      if (n.lane == static_cast<int64_t>(lane) && n.argument == argument) {
        n.value = value;
        return;
      }
    numbers_.push_back({static_cast<int64_t>(lane), argument, value});
  }

 private:
  struct Number {
    int64_t lane;
    size_t argument;
    double value;
  };
  Executor& one_;
  std::vector<Carried> in_, out_;
  bool refuses_;
  int64_t lanes_ = 0;
  std::vector<Number> numbers_;
};

}  // namespace

std::unique_ptr<LaneCall> lane_by_lane(Executor& one, std::vector<Carried> in, std::vector<Carried> out, bool refuses) {
  return std::make_unique<LaneByLane>(one, std::move(in), std::move(out), refuses);
}

}  // namespace tapegrad
