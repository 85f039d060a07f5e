// The Python names of csrc/replay: the executor, and who is told of kernel calls while a step is recorded.
#pragma once
#include "bindings/pybind.h"  // before any other header

namespace tapegrad {
void bind_replay(py::module_& m);
void bind_networks(py::module_& m);
}  // namespace tapegrad
