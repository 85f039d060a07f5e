// pybind11 with torch's casters, for every file here. Where pybind11 refuses a call it prints the arguments; torch
// prints a tensor's elements whether their memory is there or not, and lists and the like print what is in them.
#pragma once
#ifdef PYBIND11_VERSION_MAJOR
#error "bindings/pybind.h is to come before pybind11"
#endif
#include <torch/csrc/python_headers.h>

namespace tapegrad {
// A number, a word or None as it prints; of anything else the name of its type
PyObject* described(PyObject* value);
}  // namespace tapegrad

#define PyObject_Repr(value) ::tapegrad::described(value)
#include <torch/csrc/utils/pybind.h>
#undef PyObject_Repr
