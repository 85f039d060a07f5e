// The memory of an `Entry` of the tape (tapegrad/tape.py derives it), and what Python's garbage collector sees of it.
//
// A long tape is many objects that live long, and the collector would go through them again and again. It need not: an
// entry owns its producers and raw values, never what owns it, so entries form no cycle. They are hidden from it, in a
// list of their own, with their environments, the tuples of their parents and the raw tensors saved.
//
// A cycle needs a way out of the tape: a hook (whose closure may hold a later value), or a parameter that is an object
// of the user's. An entry that has one is open, and so is all that is recorded after it and depends on it; the
// collector sees open entries. A hook may come late, when what depends on it exists already: then all entries become
// open
// (`open_entries`). For whatever else there may be, such as an attribute that the user hung on a raw tensor, a full
// collection sees every entry.
#pragma once
#include "bindings/pybind.h"  // before any other header

#include <torch/csrc/utils/python_symnode.h>  // THPVariableClass

namespace tapegrad {

struct EntryObject {
  PyObject_HEAD PyObject *op, *parents, *env, *versions, *shape, *dtype, *seq, *where, *hooks, *args;  // as in tape.py
  EntryObject *before, *after;  // in the list of those that are hidden; null in open ones
};

// THPVariable_Check without the detour through __instancecheck__, which takes long to say no.
inline bool is_tensor(py::handle value) {
  return PyObject_TypeCheck(value.ptr(), reinterpret_cast<PyTypeObject*>(THPVariableClass));
}

PyTypeObject* entry_base();

// Whether a value saved with an entry, such as a parameter, offers no way out of the tape. Tuples of plain values,
// which can be part of no cycle, are hidden for good on the way.
bool is_closed(PyObject* value);

void hide(EntryObject* entry);
inline bool is_open(const EntryObject* entry) { return !entry->before; }

// Gives up the saved values, once; what is needed to print the entry stays.
void release(EntryObject* entry);

// From now on the collector sees every entry there is.
void open_entries();

// A callback for gc.callbacks: full collections see every entry.
PyObject* collecting(PyObject* module, PyObject* const* given, Py_ssize_t count);

}  // namespace tapegrad
