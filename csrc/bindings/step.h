// The class that a compiled step is an object of (tapegrad/compiled/step.py derives it).
#pragma once
#include "bindings/pybind.h"  // before any other header

namespace py = pybind11;

namespace tapegrad {

void bind_step(py::module_& m);
void bind_replayed(py::module_& m);  // replayed.h

}  // namespace tapegrad
