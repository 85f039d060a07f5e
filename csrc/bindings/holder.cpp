#include "bindings/holder.h"

#include <c10/util/flat_hash_map.h>

#include <utility>
#include <vector>

#include "bindings/nodes.h"

namespace tapegrad {
namespace {

TensorObject* cast(PyObject* self) { return reinterpret_cast<TensorObject*>(self); }

// --- rings --------------------------------------------------------------------------------------------------------

// The oldest Tensor of each storage. It lives as long as the process: Tensors go after static objects do.
auto& oldest() {
  static auto& map = *new ska::flat_hash_map<const c10::StorageImpl*, TensorObject*>();
  return map;
}

void leave(TensorObject* t) {
  if (!t->after) return;
  if (t->after == t) {
    oldest().erase(t->storage);
  } else {
    t->before->after = t->after;
    t->after->before = t->before;
    TensorObject*& first = oldest()[t->storage];
    if (first == t) first = t->after;
  }
  t->before = t->after = nullptr;
}

void join(TensorObject* t) {
  t->storage = THPVariable_Unpack(t->data).storage().unsafeGetStorageImpl();
  const auto [at, alone] = oldest().emplace(t->storage, t);
  if (alone) {
    t->before = t->after = t;
    return;
  }
  TensorObject* const first = at->second;
  t->before = first->before;
  t->after = first;
  t->before->after = first->before = t;
}

// --- the type -----------------------------------------------------------------------------------------------------

#define TG_FIELD(name, field, flags) {name, T_OBJECT_EX, offsetof(TensorObject, field), flags, nullptr}
PyMemberDef members[] = {
    TG_FIELD("_data", data, READONLY),  // `hold` writes it
    TG_FIELD("_node", node, 0),
    TG_FIELD("_grad", grad, 0),
    {},
};
#undef TG_FIELD

int traverse(PyObject* self, visitproc visit, void* arg) {
  Py_VISIT(cast(self)->data);
  Py_VISIT(cast(self)->node);
  Py_VISIT(cast(self)->grad);
  return 0;
}

int clear(PyObject* self) {
  leave(cast(self));
  Py_CLEAR(cast(self)->data);
  Py_CLEAR(cast(self)->node);
  Py_CLEAR(cast(self)->grad);
  return 0;
}

void dealloc(PyObject* self) {
  PyObject_GC_UnTrack(self);
  const py::error_scope pending;  // values go while an exception passes, and Python's own checks want none
  clear(self);
  Py_TYPE(self)->tp_free(self);
}

PyTypeObject make_type() {
  PyTypeObject type{};
  Py_SET_REFCNT(reinterpret_cast<PyObject*>(&type), 1);
  type.tp_name = "tapegrad._C.TensorBase";
  type.tp_basicsize = sizeof(TensorObject);
  type.tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC;
  type.tp_doc = "The memory of a Tensor.";
  type.tp_new = PyType_GenericNew;
  type.tp_traverse = traverse;
  type.tp_clear = clear;
  type.tp_dealloc = dealloc;
  type.tp_members = members;
  return type;
}

}  // namespace

PyTypeObject* tensor_base() {
  static PyTypeObject type = make_type();
  static const bool ready = PyType_Ready(&type) == 0;
  if (!ready) throw py::error_already_set();
  return &type;
}

py::object make_tensor(PyTypeObject* type, py::object data, py::object node) {
  if (!is_tensor(data)) throw py::type_error("tensor: expected a torch tensor");
  py::object made = own(type->tp_alloc(type, 0));
  TensorObject* const t = cast(made.ptr());
  t->data = data.release().ptr();
  t->node = node.release().ptr();
  t->grad = Py_NewRef(Py_None);
  join(t);
  return made;
}

PyObject* hold(PyObject*, PyObject* const* given, Py_ssize_t count) {
  const bool fits = count == 2 && PyObject_TypeCheck(given[0], tensor_base()) && is_tensor(given[1]);
  return answer(fits, "hold: expected a Tensor, a torch tensor", [&] {
    TensorObject* const t = cast(given[0]);
    leave(t);
    const py::object before = py::reinterpret_steal<py::object>(std::exchange(t->data, Py_NewRef(given[1])));
    join(t);
    return py::none();
  });
}

PyObject* sharers(PyObject*, PyObject* const* given, Py_ssize_t count) {
  const bool fits = count == 1 && PyObject_TypeCheck(given[0], tensor_base());
  return answer(fits, "sharers: expected a Tensor", [&] {
    TensorObject* const t = cast(given[0]);
    py::list found;
    if (!t->after || t->after == t) return found;
    TensorObject* const first = oldest()[t->storage];
    TensorObject* other = first;
    do {  // one that is going has no references left; raw memory may have been replaced behind our back
      PyObject* const object = reinterpret_cast<PyObject*>(other);
      if (other != t && Py_REFCNT(object) > 0 &&
          THPVariable_Unpack(other->data).is_alias_of(THPVariable_Unpack(t->data)))
        found.append(object);
      other = other->after;
    } while (other != first);
    return found;
  });
}

}  // namespace tapegrad
