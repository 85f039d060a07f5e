#pragma once
#include <torch/csrc/utils/pybind.h>

namespace tapegrad {

// Activations, dropout, sums, softmax, losses, optimizers
void bind_elementwise(py::module_& m);

}  // namespace tapegrad
