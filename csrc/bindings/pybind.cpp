#include "bindings/pybind.h"

namespace tapegrad {

PyObject* described(PyObject* value) {
  const bool plain = value == Py_None || PyBool_Check(value) || PyLong_CheckExact(value) || PyFloat_CheckExact(value) ||
                     PyUnicode_CheckExact(value);
  return plain ? PyObject_Repr(value) : PyUnicode_FromFormat("<%.200s>", Py_TYPE(value)->tp_name);
}

}  // namespace tapegrad
