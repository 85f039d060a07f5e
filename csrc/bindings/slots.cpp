#include "bindings/slots.h"

#include <c10/util/intrusive_ptr.h>

#include <map>
#include <memory>
#include <unordered_map>
#include <utility>

#include "bindings/nodes.h"

namespace tapegrad {
namespace {

py::object key_of(const at::Tensor& t) {  // UntypedStorage._cdata
  return own(PyLong_FromVoidPtr(t.storage().unsafeGetStorageImpl()));
}

py::object numbers(at::IntArrayRef values) {
  py::object made = own(PyTuple_New(values.size()));
  for (size_t i = 0; i < values.size(); ++i)
    PyTuple_SET_ITEM(made.ptr(), i, own(PyLong_FromLongLong(values[i])).release().ptr());
  return made;
}

// Makes a Ref (trace.py) of every tensor of a structure of lists and tuples.
struct References {
  PyTypeObject* kind;                // Ref, a tuple of five
  py::handle known, odd, otherwise;  // storage: slot; storages that are not the whole of a slot; ref(tensor) for those

  py::object of(py::handle value) const {
    if (is_tensor(value)) return of_tensor(value);
    const bool list = PyList_Check(value.ptr());
    if (!list && !PyTuple_Check(value.ptr())) return borrow<py::object>(value);
    py::object made = own(PyTuple_New(PySequence_Fast_GET_SIZE(value.ptr())));
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(made.ptr()); ++i)
      PyTuple_SET_ITEM(made.ptr(), i, of(PySequence_Fast_GET_ITEM(value.ptr(), i)).release().ptr());
    return made;
  }

 private:
  py::object of_tensor(py::handle value) const {
    const at::Tensor& t = THPVariable_Unpack(value.ptr());
    const py::object key = key_of(t);
    PyObject* const slot = PyDict_GetItemWithError(known.ptr(), key.ptr());
    if (!slot || PySet_Contains(odd.ptr(), key.ptr()) != 0)
      return own(PyObject_CallOneArg(otherwise.ptr(), value.ptr()));
    py::object made = own(kind->tp_alloc(kind, 5));
    Py_ssize_t i = 0;
    const auto put = [&](py::object item) { PyTuple_SET_ITEM(made.ptr(), i++, item.release().ptr()); };
    put(borrow<py::object>(slot));
    put(borrow<py::object>(reinterpret_cast<PyObject*>(torch::getTHPDtype(t.scalar_type()))));
    put(own(PyLong_FromLongLong(t.storage_offset())));
    put(numbers(t.sizes()));
    put(numbers(t.strides()));
    return made;
  }
};

// refs(Ref, known, odd, otherwise, value)
PyObject* refs_call(PyObject*, PyObject* const* given, Py_ssize_t count) {
  const bool fits = count == 5 && PyType_Check(given[0]) && PyDict_Check(given[1]) && PySet_Check(given[2]) &&
                    PyType_IsSubtype(reinterpret_cast<PyTypeObject*>(given[0]), &PyTuple_Type);
  return answer(fits, "refs: expected Ref, slots by storage (dict), odd storages (set), a function, a value", [&] {
    return References{reinterpret_cast<PyTypeObject*>(given[0]), given[1], given[2], given[3]}.of(given[4]);
  });
}

PyObject* storage_key_call(PyObject*, PyObject* const* given, Py_ssize_t count) {
  return answer(count == 1 && is_tensor(given[0]), "storage_key: expected a tensor",
                [&] { return key_of(THPVariable_Unpack(given[0])); });
}

// where() of watch.py: the line of the nearest frame that runs the user's code, the outermost if none does. What
// is_users(frame) and place(frame) answer is kept, by code object and instruction; code objects are kept alive for it.
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
      const bool answer = PyObject_IsTrue(own(PyObject_CallOneArg(is_users.ptr(), frame.ptr())).ptr()) == 1;
      known = users.emplace(code.inc_ref().ptr(), answer).first;
    }
    if (known->second) break;
    frame = next;
  }
  auto* const at = reinterpret_cast<PyFrameObject*>(frame.ptr());
  const int instruction = PyFrame_GetLasti(at);
  py::object& line = lines[{code.ptr(), instruction}];
  if (!line) {
    line = own(PyObject_CallOneArg(place.ptr(), frame.ptr()));
    code.inc_ref();
  }
  return line;
}

PyObject* user_line_call(PyObject*, PyObject* const* given, Py_ssize_t count) {
  return answer(count == 2, "user_line: expected is_users, place", [&] { return user_line(given[0], given[1]); });
}

using Weak = c10::weak_intrusive_ptr<c10::StorageImpl>;

// Something that keeps a storage's address from being used again, but not its memory.
py::object storage_address(const at::Tensor& t) {
  auto weak = std::make_unique<Weak>(t.storage().getWeakStorageImpl());
  py::capsule held(weak.get(), [](void* at) { delete static_cast<Weak*>(at); });
  (void)weak.release();
  return held;
}

}  // namespace

void bind_slots(py::module_& m) {
  static PyMethodDef methods[] = {
      method("refs", &refs_call), method("storage_key", &storage_key_call), method("user_line", &user_line_call), {}};
  PyModule_AddFunctions(m.ptr(), methods);
  m.def("storage_address", &storage_address, py::arg("t"));
}

}  // namespace tapegrad
