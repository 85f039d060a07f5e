#include "bindings/profile.h"

#include <unordered_set>

namespace tapegrad {
namespace {

// What the callback need not be told of again: code objects of this recording, and methods that it called harmless.
struct Known {
  std::unordered_set<const void*> codes, methods;
};
thread_local Known known;

bool ask(PyObject* callback, PyFrameObject* frame, const char* event, PyObject* argument, bool* harmless) {
  PyObject* answer = PyObject_CallFunction(callback, "OsO", reinterpret_cast<PyObject*>(frame), event, argument);
  if (!answer) return false;
  *harmless = PyObject_IsTrue(answer) == 1;
  Py_DECREF(answer);
  return true;
}

int profile(PyObject* callback, PyFrameObject* frame, int what, PyObject* argument) {
  bool harmless = false;
  if (what == PyTrace_CALL) {
    PyCodeObject* code = PyFrame_GetCode(frame);
    const bool fresh = known.codes.insert(code).second;
    Py_DECREF(code);  // the frame keeps it
    return !fresh || ask(callback, frame, "call", Py_None, &harmless) ? 0 : -1;
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
  known.codes.clear();
  if (callback.is_none())
    PyEval_SetProfile(nullptr, nullptr);
  else
    PyEval_SetProfile(&profile, callback.ptr());
}

}  // namespace tapegrad
