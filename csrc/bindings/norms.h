#pragma once
#include <torch/csrc/utils/pybind.h>

namespace tapegrad {

// Normalisations and variances
void bind_norms(py::module_& m);

}  // namespace tapegrad
