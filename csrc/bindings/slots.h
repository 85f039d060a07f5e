// Which memory tensors lie in, as the recorder of the compiled tape (tapegrad/compiled/record.py) names it.
#pragma once
#include <torch/csrc/utils/pybind.h>

namespace tapegrad {
void bind_slots(py::module_& m);
}
