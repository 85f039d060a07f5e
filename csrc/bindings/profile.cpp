#include "bindings/profile.h"

#include <unordered_set>

namespace tapegrad {
namespace {

// What the callback need not be told of again: code objects of this recording, code objects and methods that it called
// harmless for good. The harmless code objects are kept, so that no other takes the address of one.
struct Known {
  std::unordered_set<const void*> codes, harmless_codes, methods;
};
thread_local Known known;

bool ask(PyObject* callback, PyFrameObject* frame, const char* event, PyObject* argument, bool* harmless) {
  PyObject* answer = PyObject_CallFunction(callback, "OsO", reinterpret_cast<PyObject*>(frame), event, argument);
  const int truth = answer ? PyObject_IsTrue(answer) : -1;
  Py_XDECREF(answer);
  if (truth <
      0) {  // one that fails is off, as Python's own: else nothing could be called any more, not even to stop it
    PyObject *type, *value, *trace;
    PyErr_Fetch(&type, &value, &trace);
    PyEval_SetProfile(nullptr, nullptr);
    PyErr_Restore(type, value, trace);
    return false;
  }
  *harmless = truth == 1;
  return true;
}

int profile(PyObject* callback, PyFrameObject* frame, int what, PyObject* argument) {
  bool harmless = false;
  if (what == PyTrace_CALL) {
    const py::object code = py::reinterpret_steal<py::object>(reinterpret_cast<PyObject*>(PyFrame_GetCode(frame)));
    if (known.harmless_codes.count(code.ptr()) || !known.codes.insert(code.ptr()).second) return 0;
    if (!ask(callback, frame, "call", Py_None, &harmless)) return -1;
    if (harmless && known.harmless_codes.insert(code.ptr()).second) code.inc_ref();
    return 0;
  }
  if (what != PyTrace_C_CALL || !PyCFunction_Check(argument)) return 0;
  const void* method = reinterpret_cast<PyCFunctionObject*>(argument)->m_ml;
  if (known.methods.count(method)) return 0;
  if (!ask(callback, frame, "c_call", argument, &harmless)) return -1;
  if (harmless) known.methods.insert(method);
  return 0;
}

}  // namespace

void set_profile(const py::object& callback) {
  if (!callback.is_none() && !PyCallable_Check(callback.ptr()))
    throw py::type_error("set_profile: callback must be callable or None");
  known.codes.clear();
  if (callback.is_none())
    PyEval_SetProfile(nullptr, nullptr);
  else
    PyEval_SetProfile(&profile, callback.ptr());
}

ProfilePaused::ProfilePaused() {
  PyThreadState* state = PyThreadState_Get();
  if (state->c_profilefunc != &profile) return;
  callback_ = py::reinterpret_borrow<py::object>(state->c_profileobj);
  PyEval_SetProfile(nullptr, nullptr);
}

ProfilePaused::~ProfilePaused() {
  if (callback_) PyEval_SetProfile(&profile, callback_.ptr());
}

}  // namespace tapegrad
