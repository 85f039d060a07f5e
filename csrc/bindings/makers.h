// What makes direct instructions of recorded calls, by the names of functions.
#pragma once
#include <array>
#include <functional>
#include <map>

#include "bindings/direct.h"
#include "replay/direct.h"

namespace tapegrad {

using Maker = std::function<std::unique_ptr<Call>(const py::tuple&, const Tensors&)>;

template <class T>
T get(const py::tuple& arguments, size_t i) {
  return arguments[i].cast<T>();
}
inline at::Tensor tensor(const py::tuple& arguments, size_t i) { return get<at::Tensor>(arguments, i); }
inline Optional optional(const py::tuple& arguments, size_t i) { return get<Optional>(arguments, i); }
template <size_t N>
std::array<Optional, N> optionals(const py::tuple& arguments) {  // the first N
  std::array<Optional, N> made;
  for (size_t i = 0; i < N; ++i) made[i] = optional(arguments, i);
  return made;
}
inline Tensors list(const py::tuple& arguments, size_t i) { return get<Tensors>(arguments, i); }

// torch's operators: arithmetic, comparisons, and what moves elements.
void add_torch_operators(std::map<std::string, Maker>& all);

}  // namespace tapegrad
