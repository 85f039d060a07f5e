#include "bindings/kernel.h"

namespace tapegrad {
namespace {
thread_local PyObject* current = nullptr;  // owned
}

void set_recorder(const py::object& recorder) {
  if (!recorder.is_none() && !PyCallable_Check(recorder.ptr()))
    throw py::type_error("set_recorder: recorder must be callable or None");
  PyObject* before = current;
  current = recorder.is_none() ? nullptr : recorder.inc_ref().ptr();
  Py_XDECREF(before);
}

PyObject* recorder() { return current; }

std::map<std::string, Binder>& binders() {
  static std::map<std::string, Binder>& one = *new std::map<std::string, Binder>;
  return one;
}

}  // namespace tapegrad
