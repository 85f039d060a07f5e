#include "bindings/kernel.h"

namespace tapegrad {
namespace {
thread_local PyObject* current = nullptr;  // owned
}

void set_recorder(const py::object& recorder) {
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
