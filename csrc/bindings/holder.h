// The memory of a `Tensor` (tapegrad/core/tensor.py derives it), and which Tensors lie in one storage: those that a
// write to one of them reaches. They form a ring, so that a write finds them without a search.
#pragma once
#include "bindings/pybind.h"  // before any other header

namespace tapegrad {

struct TensorObject {
  PyObject_HEAD PyObject *data, *node, *grad;  // _data, _node, _grad
  TensorObject *before, *after;                // in the ring of its storage; null outside any
  const c10::StorageImpl* storage;             // whose ring it is; compared, never followed
};

PyTypeObject* tensor_base();

// A Tensor of `type` around a raw value.
pybind11::object make_tensor(PyTypeObject* type, pybind11::object data, pybind11::object node);

// hold(tensor, data): puts `data` in the place of what the Tensor held, and the Tensor into that storage's ring.
PyObject* hold(PyObject* module, PyObject* const* given, Py_ssize_t count);

// sharers(tensor): the other Tensors in its memory, in the order in which they were made.
PyObject* sharers(PyObject* module, PyObject* const* given, Py_ssize_t count);

}  // namespace tapegrad
