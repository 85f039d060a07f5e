#include "bindings/lanes.h"

#include <functional>
#include <map>
#include <set>

#include "bindings/direct.h"
#include "bindings/optimizers.h"
#include "kernels/activation.h"
#include "replay/lanes.h"

namespace tapegrad {
namespace {

using Maker = std::function<std::unique_ptr<Call>(const py::tuple&, const Tensors&)>;

template <class T>
T get(const py::tuple& arguments, size_t i) {
  return arguments[i].cast<T>();
}
at::Tensor tensor(const py::tuple& arguments, size_t i) { return get<at::Tensor>(arguments, i); }
Optional optional(const py::tuple& arguments, size_t i) { return get<Optional>(arguments, i); }

Reduction reduction_of(const std::string& name) {
  return name == "mean" ? Reduction::mean : name == "sum" ? Reduction::sum : Reduction::none;
}

// Each result depends on its own operands alone: the plain instruction on L times the elements.
const std::set<std::string>& elementwise() {
  static const std::set<std::string>& all = *new std::set<std::string>{
#define TG_NAMES(name, saved, parameters) #name, #name "_backward",
      TG_ACTIVATIONS(TG_NAMES)
#undef TG_NAMES
          "scaled_product",
      "aten::add.Tensor",
      "aten::sub.Tensor",
      "aten::mul.Tensor",
      "aten::div.Tensor",
      "aten::add_.Tensor",
      "aten::sub_.Tensor",
      "aten::mul_.Tensor",
      "aten::div_.Tensor",
      "aten::rsub.Scalar",
      "aten::neg",
      "aten::pow.Tensor_Scalar",
      "aten::clone",
      "aten::copy_",
      "aten::zeros"};
  return all;
}

std::map<std::string, Maker> makers() {
  std::map<std::string, Maker> all;
  all["linear"] = [](const py::tuple& a, const Tensors& outs) {
    return lane_linear(tensor(a, 0), tensor(a, 1), optional(a, 2), false, outs);
  };
  all["linear_relu"] = [](const py::tuple& a, const Tensors& outs) {
    return lane_linear(tensor(a, 0), tensor(a, 1), optional(a, 2), true, outs);
  };
  all["linear_backward"] = [](const py::tuple& a, const Tensors& outs) {
    return lane_linear_backward(tensor(a, 0), optional(a, 1), optional(a, 2), std::nullopt, outs);
  };
  all["linear_backward_relu"] = [](const py::tuple& a, const Tensors& outs) {  // the relu's result comes last
    return lane_linear_backward(tensor(a, 0), optional(a, 1), optional(a, 2), optional(a, a.size() - 1), outs);
  };
  for (const bool mean : {false, true})
    all[mean ? "mean" : "sum"] = [mean](const py::tuple& a, const Tensors& outs) {
      return lane_sum(tensor(a, 0), std::nullopt, mean, outs);
    };
  all["matmul"] = [](const py::tuple& a, const Tensors& outs) -> std::unique_ptr<Call> {
    if (tensor(a, 0).dim() != 2 || tensor(a, 1).dim() != 2) return nullptr;  // no vectors
    return lane_sum(tensor(a, 0), optional(a, 1), false, outs);
  };
  all["mse_loss"] = [](const py::tuple& a, const Tensors& outs) {
    return lane_mse_loss(tensor(a, 0), tensor(a, 1), get<bool>(a, 2), outs);
  };
  all["mse_loss_backward"] = [](const py::tuple& a, const Tensors& outs) {
    return lane_mse_loss_backward(tensor(a, 0), tensor(a, 1), tensor(a, 2), get<bool>(a, 3), outs);
  };
  all["cross_entropy"] = [](const py::tuple& a, const Tensors& outs) -> std::unique_ptr<Call> {
    if (!a[2].is_none() || get<double>(a, 5) != 0) return nullptr;
    return lane_cross_entropy(tensor(a, 0), tensor(a, 1), get<int64_t>(a, 3), reduction_of(get<std::string>(a, 4)),
                              outs);
  };
  all["cross_entropy_backward"] = [](const py::tuple& a, const Tensors& outs) -> std::unique_ptr<Call> {
    if (!a[3].is_none() || get<double>(a, 8) != 0) return nullptr;
    return lane_cross_entropy_backward(tensor(a, 0), tensor(a, 1), tensor(a, 2), tensor(a, 4), tensor(a, 5),
                                       get<int64_t>(a, 6), reduction_of(get<std::string>(a, 7)), outs);
  };
  all["sgd_"] = [](const py::tuple& a, const Tensors&) {
    return lane_update(lists_of<SgdOptions>(a), options_of<SgdOptions>(a));
  };
  all["adam_"] = [](const py::tuple& a, const Tensors&) {
    return lane_update(lists_of<AdamOptions>(a), options_of<AdamOptions>(a));
  };
  return all;
}

}  // namespace

std::unique_ptr<Call> lane_call(const std::string& name, const py::tuple& arguments, const Tensors& outs) {
  if (elementwise().count(name)) return direct_call(name, arguments, outs);
  static const std::map<std::string, Maker>& all = *new std::map<std::string, Maker>(makers());
  const auto found = all.find(name);
  return found == all.end() ? nullptr : found->second(arguments, outs);
}

}  // namespace tapegrad
