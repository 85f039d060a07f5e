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
template <size_t N>
std::array<Optional, N> optionals(const py::tuple& arguments) {  // the first N
  std::array<Optional, N> made;
  for (size_t i = 0; i < N; ++i) made[i] = optional(arguments, i);
  return made;
}
Tensors list(const py::tuple& arguments, size_t i) { return get<Tensors>(arguments, i); }

// The numbers of an activation stand behind its tensors.
double parameter(const py::tuple& arguments, size_t i) {
  return i < arguments.size() ? get<double>(arguments, i) : 0.0;
}

Operand operand(const py::handle& value) {
  if (PyFloat_Check(value.ptr()) || PyLong_Check(value.ptr())) return {{}, value.cast<double>()};
  return {value.cast<at::Tensor>(), 0};
}

// alpha, torch's factor of the second operand, must be 1
bool without_alpha(const py::tuple& a, size_t i) {
  return a.size() <= i || (py::isinstance<py::int_>(a[i]) ? a[i].cast<int64_t>() == 1 : a[i].cast<double>() == 1.0);
}

// torch's operators, in place where there are no outputs: the first argument is then written.
void add_arithmetic(std::map<std::string, Maker>& all) {
  const auto binary = [&all](const char* name, Arithmetic f, size_t alpha) {
    const Maker make = [f, alpha](const py::tuple& a, const Tensors& outs) -> std::unique_ptr<Call> {
      if (!without_alpha(a, alpha)) return nullptr;
      return direct_arithmetic(f, operand(a[0]), operand(a[1]), outs.empty() ? tensor(a, 0) : outs.at(0));
    };
    all["aten::" + std::string(name) + ".Tensor"] = make;
    all["aten::" + std::string(name) + "_.Tensor"] = make;
  };
  binary("add", Arithmetic::add, 2);
  binary("sub", Arithmetic::sub, 2);
  binary("mul", Arithmetic::mul, 2);
  binary("div", Arithmetic::div, 2);
  all["aten::rsub.Scalar"] = [](const py::tuple& a, const Tensors& outs) -> std::unique_ptr<Call> {
    return without_alpha(a, 2) ? direct_arithmetic(Arithmetic::sub, operand(a[1]), operand(a[0]), outs.at(0)) : nullptr;
  };
  all["aten::neg"] = [](const py::tuple& a, const Tensors& outs) {
    return direct_arithmetic(Arithmetic::sub, {{}, -0.0}, operand(a[0]), outs.at(0));
  };
  all["aten::pow.Tensor_Scalar"] = [](const py::tuple& a, const Tensors& outs) -> std::unique_ptr<Call> {
    const double exponent = get<double>(a, 1);
    if (exponent == 1) return direct_copy(tensor(a, 0), outs.at(0));
    return exponent == 2 ? direct_arithmetic(Arithmetic::mul, operand(a[0]), operand(a[0]), outs.at(0)) : nullptr;
  };
  all["aten::clone"] = [](const py::tuple& a, const Tensors& outs) { return direct_copy(tensor(a, 0), outs.at(0)); };
  all["aten::copy_"] = [](const py::tuple& a, const Tensors&) { return direct_copy(tensor(a, 1), tensor(a, 0)); };
  all["aten::zeros"] = [](const py::tuple&, const Tensors& outs) { return direct_zeros(outs.at(0)); };
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
  all["sgd_"] = [](const py::tuple& a, const Tensors&) {
    const SgdOptions options = sgd_options(a);
    return direct_sgd(list(a, 0), list(a, 1), list(a, 2), list(a, 3), options);
  };
  all["adam_"] = [](const py::tuple& a, const Tensors&) {
    const AdamOptions options = adam_options(a);
    return direct_adam(list(a, 0), list(a, 1), list(a, 2), list(a, 3), list(a, 4), list(a, 5), options);
  };
  add_arithmetic(all);
  return all;
}

}  // namespace

SgdOptions sgd_options(const py::tuple& a) {
  return {get<double>(a, 4), get<double>(a, 5), get<double>(a, 6), get<double>(a, 7), get<bool>(a, 8), get<bool>(a, 9)};
}

AdamOptions adam_options(const py::tuple& a) {
  return {get<double>(a, 6),  get<double>(a, 7), get<double>(a, 8), get<double>(a, 9),
          get<double>(a, 10), get<bool>(a, 11),  get<bool>(a, 12),  get<bool>(a, 13)};
}

std::unique_ptr<Call> direct_call(const std::string& name, const py::tuple& arguments, const Tensors& outs) {
  static const std::map<std::string, Maker>& all = *new std::map<std::string, Maker>(makers());
  const auto found = all.find(name);
  return found == all.end() ? nullptr : found->second(arguments, outs);
}

}  // namespace tapegrad
