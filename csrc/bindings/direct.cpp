#include "bindings/direct.h"

#include "bindings/elementwise.h"
#include "bindings/makers.h"
#include "bindings/optimizers.h"

namespace tapegrad {
namespace {

// The numbers of an activation stand behind its tensors.
double parameter(const py::tuple& arguments, size_t i) {
  return i < arguments.size() ? get<double>(arguments, i) : 0.0;
}

std::map<std::string, Maker> makers() {
  std::map<std::string, Maker> all;
#define TG_DIRECT(name, saved, parameters)                                                                            \
  all[#name] = [](const py::tuple& a, const Tensors& outs) {                                                          \
    return direct_activation(Activation::name, tensor(a, 0), parameter(a, 1), parameter(a, 2), outs);                 \
  };                                                                                                                  \
  all[#name "_backward"] = [](const py::tuple& a, const Tensors& outs) {                                              \
    return direct_activation_backward(Activation::name, tensor(a, 0), tensor(a, 1), parameter(a, 2), parameter(a, 3), \
                                      outs);                                                                          \
  };
  TG_ACTIVATIONS(TG_DIRECT)
#undef TG_DIRECT
  all["scaled_product"] = [](const py::tuple& a, const Tensors& outs) {
    return direct_scaled_product(tensor(a, 0), tensor(a, 1), tensor(a, 2), get<double>(a, 3), outs);
  };
  all["linear"] = [](const py::tuple& a, const Tensors& outs) {
    return direct_linear(tensor(a, 0), tensor(a, 1), optional(a, 2), outs);
  };
  all["linear_backward"] = [](const py::tuple& a, const Tensors& outs) {
    return direct_linear_backward(tensor(a, 0), optional(a, 1), optional(a, 2), outs);
  };
  all["recurrent"] = [](const py::tuple& a, const Tensors& outs) {
    return direct_recurrent(optionals<8>(a), get<std::string>(a, 8), get<std::vector<int64_t>>(a, 9), get<bool>(a, 10),
                            get<bool>(a, 11), outs);
  };
  all["recurrent_backward"] = [](const py::tuple& a, const Tensors& outs) {
    return direct_recurrent_backward(optionals<9>(a), get<std::string>(a, 9), get<std::vector<int64_t>>(a, 10),
                                     get<bool>(a, 11), outs);
  };
  all["mse_loss"] = [](const py::tuple& a, const Tensors& outs) {
    return direct_mse_loss(tensor(a, 0), tensor(a, 1), get<bool>(a, 2), outs);
  };
  all["mse_loss_backward"] = [](const py::tuple& a, const Tensors& outs) {
    return direct_mse_loss_backward(tensor(a, 0), tensor(a, 1), tensor(a, 2), get<bool>(a, 3), outs);
  };
  all["cross_entropy"] = [](const py::tuple& a, const Tensors& outs) {
    return direct_cross_entropy(tensor(a, 0), tensor(a, 1), optional(a, 2), get<int64_t>(a, 3),
                                reduction_of(get<std::string>(a, 4)), get<double>(a, 5), outs);
  };
  all["cross_entropy_backward"] = [](const py::tuple& a, const Tensors& outs) {
    return direct_cross_entropy_backward(tensor(a, 0), tensor(a, 1), tensor(a, 2), optional(a, 3), tensor(a, 4),
                                         tensor(a, 5), get<int64_t>(a, 6), reduction_of(get<std::string>(a, 7)),
                                         get<double>(a, 8), outs);
  };
  add_updates(all);
  add_torch_operators(all);
  return all;
}

const std::map<std::string, Maker>& all_makers() {
  static const std::map<std::string, Maker>& all = *new std::map<std::string, Maker>(makers());
  return all;
}

}  // namespace

std::unique_ptr<Call> direct_call(const std::string& name, const py::tuple& arguments, const Tensors& outs) {
  const auto found = all_makers().find(name);
  return found == all_makers().end() ? nullptr : found->second(arguments, outs);
}

std::vector<std::string> direct_forms() {
  std::vector<std::string> names;
  for (const auto& [name, make] : all_makers()) names.push_back(name);
  return names;
}

}  // namespace tapegrad
