#include "bindings/slots.h"

#include <map>
#include <unordered_map>
#include <utility>

#include "bindings/nodes.h"
#include "bindings/profile.h"

namespace tapegrad {
namespace {

py::object key_of(const at::Tensor& t) {  // UntypedStorage._cdata
  return own(PyLong_FromVoidPtr(t.storage().unsafeGetStorageImpl()));
}

PyObject* storage_key_call(PyObject*, PyObject* const* given, Py_ssize_t count) {
  return answer(count == 1 && is_tensor(given[0]), "storage_key: expected a tensor",
                [&] { return key_of(THPVariable_Unpack(given[0])); });
}

}  // namespace

py::object user_line(py::handle is_users, py::handle place) {
  static std::unordered_map<const PyObject*, bool> users;
  static std::map<std::pair<const PyObject*, int>, py::object> lines;
  auto frame = borrow<py::object>(reinterpret_cast<PyObject*>(PyEval_GetFrame()));
  if (!frame) throw std::runtime_error("user_line: no function of Python is running");
  py::object code;
  while (true) {
    auto* const at = reinterpret_cast<PyFrameObject*>(frame.ptr());
    code = own(reinterpret_cast<PyObject*>(PyFrame_GetCode(at)));
    PyFrameObject* const back = PyFrame_GetBack(at);
    if (!back) break;
    const auto next = py::reinterpret_steal<py::object>(reinterpret_cast<PyObject*>(back));
    auto known = users.find(code.ptr());
    if (known == users.end()) {
      const ProfilePaused paused;
      const int answer = PyObject_IsTrue(own(PyObject_CallOneArg(is_users.ptr(), frame.ptr())).ptr());
      if (answer < 0) throw py::error_already_set();
      known = users.emplace(code.inc_ref().ptr(), answer == 1).first;
    }
    if (known->second) break;
    frame = next;
  }
  auto* const at = reinterpret_cast<PyFrameObject*>(frame.ptr());
  const int instruction = PyFrame_GetLasti(at);
  py::object& line = lines[{code.ptr(), instruction}];
  if (!line) {
    const ProfilePaused paused;
    line = own(PyObject_CallOneArg(place.ptr(), frame.ptr()));
    code.inc_ref();
  }
  return line;
}

namespace {

PyObject* user_line_call(PyObject*, PyObject* const* given, Py_ssize_t count) {
  return answer(count == 2, "user_line: expected is_users, place", [&] { return user_line(given[0], given[1]); });
}

}  // namespace

void bind_slots(py::module_& m) {
  static PyMethodDef methods[] = {method("storage_key", &storage_key_call), method("user_line", &user_line_call), {}};
  PyModule_AddFunctions(m.ptr(), methods);
}

}  // namespace tapegrad
