// Optimizers' updates as Python functions and as instructions: all from `Rules` (csrc/ops/optim.h).
#pragma once
#include "bindings/pybind.h"  // before any other header

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "ops/optim.h"
#include "replay/call.h"

namespace tapegrad {

void bind_optimizers(py::module_& m);

// From a kernel's arguments to an instruction, added by the kernel's name.
using CallMaker = std::function<std::unique_ptr<Call>(const py::tuple& arguments, const Tensors& outs)>;
void add_updates(std::map<std::string, CallMaker>& all);

template <class V>
V argument(const py::tuple& arguments, size_t i) {
  return py::cast<V>(py::object(arguments[i]));
}
template <class O>
std::vector<Tensors> lists_of(const py::tuple& arguments) {
  std::vector<Tensors> lists;
  for (size_t i = 0; i < kLists<O>; ++i) lists.push_back(argument<Tensors>(arguments, i));
  return lists;
}

template <class O, size_t... N, size_t... S>
O options_of(const py::tuple& arguments, std::index_sequence<N...>, std::index_sequence<S...>) {
  return {argument<double>(arguments, kLists<O> + N)..., argument<bool>(arguments, kLists<O> + sizeof...(N) + S)...};
}
template <class O>
O options_of(const py::tuple& arguments) {
  return options_of<O>(arguments, std::make_index_sequence<Rules<O>::numbers.size()>(),
                       std::make_index_sequence<Rules<O>::switches.size()>());
}

}  // namespace tapegrad
