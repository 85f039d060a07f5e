// The reversed loop of backward (tapegrad/core/backward.py) over plain entries: one output, no hooks, raw gradients.
#pragma once
#include "bindings/pybind.h"  // before any other header

namespace tapegrad {

// walk(entries, slots, owned, wanted, active, visit): visits the entries in reverse, those that are not plain by
// visit(entry). Wanted nodes and active entries are None for backward to all leaves.
PyObject* walk(PyObject* module, PyObject* const* given, Py_ssize_t count);

}  // namespace tapegrad
