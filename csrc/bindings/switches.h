// What each thread records (tapegrad/core/mode.py): read at every op and at every call of a compiled step.
#pragma once
#include "bindings/pybind.h"  // before any other header

namespace py = pybind11;

namespace tapegrad {

struct Switches {
  bool record = true;          // grad mode
  bool watched = false;        // a Tape is open or anomalies are looked for
  PyObject* tracer = nullptr;  // owned; a compiled step is being recorded
};
inline thread_local Switches switches;

void bind_switches(py::module_& m);

}  // namespace tapegrad
