#include "bindings/direct.h"

#include <map>

#include "replay/direct.h"

namespace tapegrad {
namespace {

using Maker = std::function<std::unique_ptr<Call>(const py::tuple&, const Tensors&)>;

template <class T>
T get(const py::tuple& arguments, size_t i) {
  return arguments[i].cast<T>();
}
at::Tensor tensor(const py::tuple& arguments, size_t i) { return get<at::Tensor>(arguments, i); }
Optional optional(const py::tuple& arguments, size_t i) { return get<Optional>(arguments, i); }
Tensors list(const py::tuple& arguments, size_t i) { return get<Tensors>(arguments, i); }

// The numbers of an activation stand behind its tensors.
double parameter(const py::tuple& arguments, size_t i) {
  return i < arguments.size() ? get<double>(arguments, i) : 0.0;
}

std::map<std::string, Maker> makers() {
  std::map<std::string, Maker> all;
#define TG_DIRECT(name, saved, parameters)                                                               \
  all[#name] = [](const py::tuple& a, const Tensors& outs) {                                             \
    return direct_activation(Activation::name, tensor(a, 0), parameter(a, 1), parameter(a, 2), outs);    \
  };                                                                                                     \
  all[#name "_backward"] = [](const py::tuple& a, const Tensors& outs) {                                 \
    return direct_activation_backward(Activation::name, tensor(a, 0), tensor(a, 1), parameter(a, 2),     \
                                      parameter(a, 3), outs);                                            \
  };
  TG_ACTIVATIONS(TG_DIRECT)
#undef TG_DIRECT
  all["linear"] = [](const py::tuple& a, const Tensors& outs) {
    return direct_linear(tensor(a, 0), tensor(a, 1), optional(a, 2), outs);
  };
  all["linear_backward"] = [](const py::tuple& a, const Tensors& outs) {
    return direct_linear_backward(tensor(a, 0), optional(a, 1), optional(a, 2), outs);
  };
  all["mse_loss"] = [](const py::tuple& a, const Tensors& outs) {
    return direct_mse_loss(tensor(a, 0), tensor(a, 1), get<bool>(a, 2), outs);
  };
  all["mse_loss_backward"] = [](const py::tuple& a, const Tensors& outs) {
    return direct_mse_loss_backward(tensor(a, 0), tensor(a, 1), tensor(a, 2), get<bool>(a, 3), outs);
  };
  all["sgd_"] = [](const py::tuple& a, const Tensors&) {
    const SgdOptions options = {get<double>(a, 4), get<double>(a, 5), get<double>(a, 6),
                                get<double>(a, 7), get<bool>(a, 8),   get<bool>(a, 9)};
    return direct_sgd(list(a, 0), list(a, 1), list(a, 2), list(a, 3), options);
  };
  all["adam_"] = [](const py::tuple& a, const Tensors&) {
    const AdamOptions options = {get<double>(a, 6),  get<double>(a, 7), get<double>(a, 8),  get<double>(a, 9),
                                 get<double>(a, 10), get<bool>(a, 11),  get<bool>(a, 12), get<bool>(a, 13)};
    return direct_adam(list(a, 0), list(a, 1), list(a, 2), list(a, 3), list(a, 4), list(a, 5), options);
  };
  return all;
}

}  // namespace

std::unique_ptr<Call> direct_call(const std::string& name, const py::tuple& arguments, const Tensors& outs) {
  static const std::map<std::string, Maker>& all = *new std::map<std::string, Maker>(makers());
  const auto found = all.find(name);
  return found == all.end() ? nullptr : found->second(arguments, outs);
}

}  // namespace tapegrad
