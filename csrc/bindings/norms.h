#pragma once
#include "bindings/pybind.h"  // before any other header

namespace tapegrad {

// Normalisations and variances
void bind_norms(py::module_& m);

}  // namespace tapegrad
