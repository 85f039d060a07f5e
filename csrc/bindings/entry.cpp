#include "bindings/entry.h"

#include <structmember.h>  // PyMemberDef

#include <utility>

namespace tapegrad {
namespace {

using Field = PyObject* EntryObject::*;
constexpr Field fields[] = {&EntryObject::op,    &EntryObject::parents, &EntryObject::env, &EntryObject::versions,
                            &EntryObject::shape, &EntryObject::dtype,   &EntryObject::seq, &EntryObject::where,
                            &EntryObject::hooks, &EntryObject::args};

#define TG_FIELD(name, field, flags) {name, T_OBJECT_EX, offsetof(EntryObject, field), flags, nullptr}
PyMemberDef members[] = {
    TG_FIELD("op", op, READONLY),
    TG_FIELD("parents", parents, READONLY),
    TG_FIELD("env", env, READONLY),
    TG_FIELD("versions", versions, READONLY),
    TG_FIELD("shape", shape, READONLY),
    TG_FIELD("dtype", dtype, READONLY),
    TG_FIELD("seq", seq, READONLY),
    TG_FIELD("_where", where, READONLY),
    TG_FIELD("hooks", hooks, 0),
    TG_FIELD("_args", args, 0),
    {},
};
#undef TG_FIELD

EntryObject* cast(PyObject* self) { return reinterpret_cast<EntryObject*>(self); }
PyObject* object(EntryObject* entry) { return reinterpret_cast<PyObject*>(entry); }

void show(PyObject* value, bool visible) {
  if (static_cast<bool>(PyObject_GC_IsTracked(value)) == visible) return;
  if (visible)
    PyObject_GC_Track(value);
  else
    PyObject_GC_UnTrack(value);
}

// --- the list of hidden entries -----------------------------------------------------------------------------------

EntryObject hidden{};  // the ring's head; `entry_base` closes it

void link(EntryObject* entry) {
  entry->before = &hidden;
  entry->after = hidden.after;
  entry->after->before = hidden.after = entry;
}

void unlink(EntryObject* entry) {
  if (is_open(entry)) return;
  entry->before->after = entry->after;
  entry->after->before = entry->before;
  entry->before = entry->after = nullptr;
}

// f(raw tensor) for those saved directly; tensors in lists are left to the collector. `is_tensor`
// runs no Python, and so starts no collection, in the middle of which an entry would be half of one.
template <class F>
void each_saved(const EntryObject* entry, const F& f) {
  if (!entry->env || !PyList_CheckExact(entry->env)) return;
  for (Py_ssize_t i = 0; i < PyList_GET_SIZE(entry->env); ++i)
    if (PyObject* const value = PyList_GET_ITEM(entry->env, i); value && is_tensor(value)) f(value);
}

void show_whole(EntryObject* entry, bool visible) {
  show(object(entry), visible);
  each_saved(entry, [&](PyObject* raw) { show(raw, visible); });
}

// What others hold of the saved tensors is no longer ours to hide.
void give_back(const EntryObject* entry) {
  each_saved(entry, [](PyObject* raw) {
    if (Py_REFCNT(raw) > 1) show(raw, true);
  });
}

// --- the type -----------------------------------------------------------------------------------------------------

// Visits a container, or what is in it where the collector does not see the container itself and nobody else holds it.
int traverse_through(PyObject* container, visitproc visit, void* arg) {
  if (!container) return 0;
  const bool ours = Py_REFCNT(container) == 1 && !PyObject_GC_IsTracked(container);
  if (ours && PyList_CheckExact(container)) {
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(container); ++i) Py_VISIT(PyList_GET_ITEM(container, i));
  } else if (ours && PyTuple_CheckExact(container)) {
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(container); ++i) Py_VISIT(PyTuple_GET_ITEM(container, i));
  } else {
    Py_VISIT(container);
  }
  return 0;
}

int traverse(PyObject* self, visitproc visit, void* arg) {
  for (const Field field : fields)
    if (const int stop = traverse_through(cast(self)->*field, visit, arg)) return stop;
  return 0;
}

int clear(PyObject* self) {
  for (const Field field : fields) Py_CLEAR(cast(self)->*field);
  return 0;
}

void dealloc(PyObject* self) {
  PyObject_GC_UnTrack(self);
  const py::error_scope pending;  // entries go while an exception passes, and Python's own checks want none
  if (!is_open(cast(self))) {
    unlink(cast(self));
    give_back(cast(self));
  }
  clear(self);
  Py_TYPE(self)->tp_free(self);
}

PyTypeObject make_type() {
  PyTypeObject type{};
  Py_SET_REFCNT(reinterpret_cast<PyObject*>(&type), 1);
  type.tp_name = "tapegrad._C.EntryBase";
  type.tp_basicsize = sizeof(EntryObject);
  type.tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION;
  type.tp_doc = "The memory of an Entry.";
  type.tp_traverse = traverse;
  type.tp_clear = clear;
  type.tp_dealloc = dealloc;
  type.tp_members = members;
  return type;
}

// A value that can be part of no cycle: of a type without references, or a slice or tuple of such values.
bool is_plain(PyObject* value) {
  if (!PyObject_IS_GC(value)) return true;
  if (PySlice_Check(value)) {  // stays visible: a slice takes itself out of the collector's list when it goes
    const auto* slice = reinterpret_cast<PySliceObject*>(value);
    return is_plain(slice->start) && is_plain(slice->stop) && is_plain(slice->step);
  }
  if (!PyTuple_Check(value) || Py_TYPE(value)->tp_dictoffset) return false;
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(value); ++i)
    if (!is_plain(PyTuple_GET_ITEM(value, i))) return false;
  show(value, false);
  return true;
}

}  // namespace

PyTypeObject* entry_base() {
  if (!hidden.after) hidden.before = hidden.after = &hidden;
  static PyTypeObject type = make_type();
  static const bool ready = PyType_Ready(&type) == 0;
  if (!ready) throw py::error_already_set();
  return &type;
}

bool is_closed(PyObject* value) {
  if (is_plain(value) || is_tensor(value)) return true;
  if (PyList_CheckExact(value)) {
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(value); ++i)
      if (!is_closed(PyList_GET_ITEM(value, i))) return false;
    return true;
  }
  if (!PyTuple_CheckExact(value)) return false;
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(value); ++i)
    if (!is_closed(PyTuple_GET_ITEM(value, i))) return false;
  return true;
}

void hide(EntryObject* entry) {
  link(entry);
  show_whole(entry, false);
  for (PyObject* const container : {entry->env, entry->parents, entry->versions}) show(container, false);
  for (const py::handle version : py::handle(entry->versions)) is_plain(version.ptr());
}

void release(EntryObject* entry) {
  if (!entry->versions || !PyList_CheckExact(entry->versions)) return;
  if (!entry->env || !PyList_CheckExact(entry->env)) return;
  if (PyList_GET_SIZE(entry->versions) == 0) return;
  if (!is_open(entry)) give_back(entry);
  const auto versions = py::reinterpret_steal<py::list>(std::exchange(entry->versions, Py_NewRef(Py_None)));
  const auto env = py::reinterpret_borrow<py::list>(entry->env);
  for (const py::handle pair : versions) {
    const auto [at, version] = pair.cast<std::pair<size_t, py::object>>();
    env[at] = py::none();
  }
}

void open_entries() {
  while (hidden.after != &hidden) {
    EntryObject* const entry = hidden.after;
    unlink(entry);
    show_whole(entry, true);
  }
}

PyObject* collecting(PyObject*, PyObject* const* given, Py_ssize_t count) {
  if (count == 2 && PyUnicode_Check(given[0]) && PyDict_Check(given[1])) {
    PyObject* const generation = PyDict_GetItemString(given[1], "generation");
    int overflow = 0;
    if (generation && PyLong_Check(generation) && PyLong_AsLongAndOverflow(generation, &overflow) == 2) {
      const bool visible = PyUnicode_CompareWithASCIIString(given[0], "start") == 0;
      for (EntryObject* entry = hidden.after; entry != &hidden; entry = entry->after) show_whole(entry, visible);
    }
  }
  Py_RETURN_NONE;
}

}  // namespace tapegrad
