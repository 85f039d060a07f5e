// Python's names for csrc/ops/panels.h and csrc/ops/scatter.h.
#pragma once
#include "bindings/pybind.h"  // before any other header

namespace tapegrad {
void bind_panels(py::module_& m);
}
