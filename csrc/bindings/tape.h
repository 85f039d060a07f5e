// Recording: what happens at every recorded call of an op, in C++ because it is the overhead of all of them.
#pragma once
#include <torch/csrc/utils/pybind.h>

namespace tapegrad {
void bind_tape(py::module_& m);
}
