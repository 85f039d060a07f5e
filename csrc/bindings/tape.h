// Recording: what happens at every recorded call of an op, in C++ because it is the overhead of all of them.
#pragma once
#include "bindings/pybind.h"  // before any other header

namespace tapegrad {
// leaf.grad = Tensor(data), a new one, for every leaf of a list: what a compiled step leaves.
void leave_gradients(const pybind11::list& leaves, const pybind11::list& data);
// Whether a gradient is a Tensor around `data`, and no value of the tape.
bool lies_at(PyObject* gradient, py::handle data);
// What tapegrad/core/incoming.py asks of a tensor from outside, and finds of nearly every one.
bool is_plain(py::handle value);
void bind_tape(py::module_& m);
}  // namespace tapegrad
