// One recorded call of a step. It is C++ from the first switch to the last: a signal handler may raise between any two
// bytecodes, and here there are none.
#pragma once
#include "bindings/pybind.h"  // before any other header

#include <utility>
#include <vector>

namespace py = pybind11;

namespace tapegrad {

// What a call is about to change, as it was before.
class Before {
 public:
  void memory(const at::Tensor& bytes);                              // uint8; their values are copied
  void attribute(py::object owner, py::str name, py::object value);  // owner.name was value
  void restore();                                                    // the latest first; then nothing is kept
  void forget();

 private:
  struct Attribute {
    py::object owner;
    py::str name;
    py::object value;
  };
  std::vector<std::pair<at::Tensor, at::Tensor>> memory_;  // (bytes, what they were)
  std::vector<Attribute> attributes_;
};

// function(*args, **kwargs) while `recorder` is on: it is mode.tracer and the innermost dispatch mode, its log hears
// of kernels, recorder._profile of functions, recorder.read_unseen of values that are read out of its sight; the
// garbage collector is off. Whatever happens, all of that is as it was before when this returns or raises.
py::object record_call(const py::object& mode, const py::object& recorder, const py::object& function,
                       const py::tuple& args, const py::dict& kwargs);

// function(*args), which changes all or nothing: if it raises, `before` is restored first.
py::object all_or_nothing(Before& before, const py::object& function, const py::args& args);

// The same, but `before` is restored in any case.
py::object taken_back(Before& before, const py::object& function, const py::args& args);

void bind_recording(py::module_& m);

}  // namespace tapegrad
