// The Python names of csrc/replay: the executor, and who is told of kernel calls while a step is recorded.
#pragma once
#include <torch/csrc/utils/pybind.h>

namespace tapegrad {
void bind_replay(py::module_& m);
void bind_networks(py::module_& m);
}  // namespace tapegrad
