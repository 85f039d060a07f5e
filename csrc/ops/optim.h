// Optimizer updates, one call for a list of parameters, in place: torch's formulas (torch.optim's single-tensor path).
// Everything is checked before the first write. A parameter and its state may have any strides that do not overlap;
// where they differ from one another the update works on contiguous copies and writes those back.
//
// An optimizer is a struct of options and its `Rules`, from which its kernel, its Python name, its instruction of the
// compiled tape are made. The kernel's arguments are, in this order: params, grads; a list for each of `states`,
// tensors like the parameters; a list for each of `counts`, 0-dim float32, the number of steps first, which counts up;
// `numbers`, which may be others at every step; `switches`. A list that the options do not use may be empty, and is
// left alone.
#pragma once
#include <ATen/core/Tensor.h>

#include <array>
#include <cstddef>
#include <utility>
#include <vector>

#include "kernels/updates.h"

namespace tapegrad {

using Tensors = std::vector<at::Tensor>;
using Names = std::initializer_list<const char*>;

// One parameter's memory: n elements; counts, null where nothing is counted, as they were before the step.
template <class T>
struct Segment {
  int64_t n;
  Arrays<T> at;
  float* counts[2];
  double before[2] = {0, 0};
};

struct SgdOptions {
  double lr, momentum, dampening, weight_decay;
  bool nesterov, maximize;
};
struct AdamOptions {
  double lr, beta1, beta2, eps, weight_decay;
  bool amsgrad, maximize, decoupled;
};
struct AdadeltaOptions {
  double lr, weight_decay, rho, eps;
  bool maximize;
};
struct AdagradOptions {
  double lr, weight_decay, lr_decay, eps;
  bool maximize;
};
struct AdamaxOptions {
  double lr, weight_decay, beta1, beta2, eps;
  bool maximize;
};
struct NadamOptions {
  double lr, weight_decay, beta1, beta2, eps, momentum_decay;
  bool decoupled, maximize;
};
struct RadamOptions {
  double lr, weight_decay, beta1, beta2, eps;
  bool decoupled, maximize;
};
struct RmspropOptions {
  double lr, weight_decay, momentum, alpha, eps;
  bool centered, maximize;
};
struct RpropOptions {
  double lr;  // the first step, which has become state
  double shrink, grow, least, most;
  bool maximize;
};

template <class O>
struct Number {
  const char* name;
  double O::* at;
};

// uses: whether a list of state takes part; counts: whether steps are counted
struct UsesAll {
  template <class O>
  static bool uses(const O&, size_t) {
    return true;
  }
  template <class O>
  static bool counts(const O&) {
    return true;
  }
};

template <class O>
struct Rules;
template <>
struct Rules<SgdOptions> {
  using O = SgdOptions;
  static constexpr const char* op = "sgd_";
  static constexpr std::array states = {"momentum_buffers"};
  static constexpr std::array count_names = {"steps"};
  static constexpr std::array<Number<O>, 4> numbers = {
      {{"lr", &O::lr}, {"momentum", &O::momentum}, {"dampening", &O::dampening}, {"weight_decay", &O::weight_decay}}};
  static constexpr std::array switches = {"nesterov", "maximize"};
  static bool uses(const O& o, size_t) { return o.momentum != 0; }
  static bool counts(const O& o) { return o.momentum != 0; }
};
template <>
struct Rules<AdamOptions> : UsesAll {
  using O = AdamOptions;
  static constexpr const char* op = "adam_";
  static constexpr std::array states = {"exp_avgs", "exp_avg_sqs", "max_exp_avg_sqs"};
  static constexpr std::array count_names = {"steps"};
  static constexpr std::array<Number<O>, 5> numbers = {{{"lr", &O::lr},
                                                        {"beta1", &O::beta1},
                                                        {"beta2", &O::beta2},
                                                        {"eps", &O::eps},
                                                        {"weight_decay", &O::weight_decay}}};
  static constexpr std::array switches = {"amsgrad", "maximize", "decoupled"};
  static bool uses(const O& o, size_t state) { return state < 2 || o.amsgrad; }
};
template <>
struct Rules<AdadeltaOptions> : UsesAll {
  using O = AdadeltaOptions;
  static constexpr const char* op = "adadelta_";
  static constexpr std::array states = {"square_avgs", "acc_deltas"};
  static constexpr std::array count_names = {"steps"};
  static constexpr std::array<Number<O>, 4> numbers = {
      {{"lr", &O::lr}, {"weight_decay", &O::weight_decay}, {"rho", &O::rho}, {"eps", &O::eps}}};
  static constexpr std::array switches = {"maximize"};
};
template <>
struct Rules<AdagradOptions> : UsesAll {
  using O = AdagradOptions;
  static constexpr const char* op = "adagrad_";
  static constexpr std::array states = {"sums"};
  static constexpr std::array count_names = {"steps"};
  static constexpr std::array<Number<O>, 4> numbers = {
      {{"lr", &O::lr}, {"weight_decay", &O::weight_decay}, {"lr_decay", &O::lr_decay}, {"eps", &O::eps}}};
  static constexpr std::array switches = {"maximize"};
};
template <>
struct Rules<AdamaxOptions> : UsesAll {
  using O = AdamaxOptions;
  static constexpr const char* op = "adamax_";
  static constexpr std::array states = {"exp_avgs", "exp_infs"};
  static constexpr std::array count_names = {"steps"};
  static constexpr std::array<Number<O>, 5> numbers = {{{"lr", &O::lr},
                                                        {"weight_decay", &O::weight_decay},
                                                        {"beta1", &O::beta1},
                                                        {"beta2", &O::beta2},
                                                        {"eps", &O::eps}}};
  static constexpr std::array switches = {"maximize"};
};
template <>
struct Rules<NadamOptions> : UsesAll {
  using O = NadamOptions;
  static constexpr const char* op = "nadam_";
  static constexpr std::array states = {"exp_avgs", "exp_avg_sqs"};
  static constexpr std::array count_names = {"steps", "mu_products"};
  static constexpr std::array<Number<O>, 6> numbers = {{{"lr", &O::lr},
                                                        {"weight_decay", &O::weight_decay},
                                                        {"beta1", &O::beta1},
                                                        {"beta2", &O::beta2},
                                                        {"eps", &O::eps},
                                                        {"momentum_decay", &O::momentum_decay}}};
  static constexpr std::array switches = {"decoupled", "maximize"};
};
template <>
struct Rules<RadamOptions> : UsesAll {
  using O = RadamOptions;
  static constexpr const char* op = "radam_";
  static constexpr std::array states = {"exp_avgs", "exp_avg_sqs"};
  static constexpr std::array count_names = {"steps"};
  static constexpr std::array<Number<O>, 5> numbers = {{{"lr", &O::lr},
                                                        {"weight_decay", &O::weight_decay},
                                                        {"beta1", &O::beta1},
                                                        {"beta2", &O::beta2},
                                                        {"eps", &O::eps}}};
  static constexpr std::array switches = {"decoupled", "maximize"};
};
template <>
struct Rules<RmspropOptions> : UsesAll {
  using O = RmspropOptions;
  static constexpr const char* op = "rmsprop_";
  static constexpr std::array states = {"square_avgs", "grad_avgs", "momentum_buffers"};
  static constexpr std::array count_names = {"steps"};
  static constexpr std::array<Number<O>, 5> numbers = {{{"lr", &O::lr},
                                                        {"weight_decay", &O::weight_decay},
                                                        {"momentum", &O::momentum},
                                                        {"alpha", &O::alpha},
                                                        {"eps", &O::eps}}};
  static constexpr std::array switches = {"centered", "maximize"};
  static bool uses(const O& o, size_t state) { return state == 0 || (state == 1 ? o.centered : o.momentum > 0); }
};
template <>
struct Rules<RpropOptions> : UsesAll {
  using O = RpropOptions;
  static constexpr const char* op = "rprop_";
  static constexpr std::array states = {"prevs", "step_sizes"};
  static constexpr std::array count_names = {"steps"};
  static constexpr std::array<Number<O>, 5> numbers = {
      {{"lr", &O::lr}, {"shrink", &O::shrink}, {"grow", &O::grow}, {"least", &O::least}, {"most", &O::most}}};
  static constexpr std::array switches = {"maximize"};
};

#define TG_OPTIMIZERS(X) \
  X(Sgd)                 \
  X(Adam)                \
  X(Adadelta)            \
  X(Adagrad)             \
  X(Adamax)              \
  X(Nadam)               \
  X(Radam)               \
  X(Rmsprop)             \
  X(Rprop)

// How many lists come before the numbers
template <class O>
constexpr size_t kLists = 2 + Rules<O>::states.size() + Rules<O>::count_names.size();

// What the kernel of one stretch needs, before the step of that number (counting from 0)
template <class T>
Sgd<T> numbers_of(const SgdOptions& o, const double* before);
template <class T>
Adam<T> numbers_of(const AdamOptions& o, const double* before);

// One step of all, which have been checked.
template <class T, class O>
void update(std::vector<Segment<T>>& all, const O& options);
// lists: kLists<O> of them
template <class O>
void update(const std::vector<Tensors>& lists, const O& options);

}  // namespace tapegrad
