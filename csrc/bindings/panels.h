// Python's names for csrc/ops/panels.h and csrc/ops/scatter.h.
#pragma once
#include <torch/csrc/utils/pybind.h>

namespace tapegrad {
void bind_panels(py::module_& m);
}
