// The tape's Python objects as C++ reads and makes them: classes with __slots__, which are written in place.
#pragma once
#include "bindings/pybind.h"  // before any other header

#include <structmember.h>  // PyMemberDescrObject
#include <torch/csrc/DynamicTypes.h>
#include <torch/csrc/utils/python_symnode.h>  // THPVariable_Unpack
#include <torch/csrc/utils/pythoncapi_compat.h>

#include <array>

#include "bindings/entry.h"

namespace tapegrad {

inline py::object own(PyObject* made) {  // a new reference, or the Python error
  if (!made) throw py::error_already_set();
  return py::reinterpret_steal<py::object>(made);
}

template <class T>
T borrow(py::handle value) {
  return py::reinterpret_borrow<T>(value);
}
// What the Python side hands over is checked as it is read: a wrong call raises, it does not read other memory.
inline py::handle item(const py::tuple& values, size_t i) {
  if (i >= values.size()) throw py::index_error("a tuple of " + std::to_string(values.size()) + " has no such item");
  return PyTuple_GET_ITEM(values.ptr(), i);
}
inline py::handle item(const py::list& values, size_t i) {
  if (i >= values.size()) throw py::index_error("a list of " + std::to_string(values.size()) + " has no such item");
  return PyList_GET_ITEM(values.ptr(), i);
}
inline py::handle at(const py::list& values, Py_ssize_t i) {
  if (i < 0 || i >= PyList_GET_SIZE(values.ptr())) throw py::index_error("the environment of an entry was changed");
  return item(values, static_cast<size_t>(i));
}
inline Py_ssize_t index(py::handle value) {
  const Py_ssize_t i = PyLong_Check(value.ptr()) ? PyLong_AsSsize_t(value.ptr()) : -1;
  if (i < 0) {
    PyErr_Clear();
    throw py::type_error("expected an index");
  }
  return i;
}
inline py::tuple as_tuple(py::handle value) {
  if (!PyTuple_Check(value.ptr())) throw py::type_error("expected a tuple");
  return borrow<py::tuple>(value);
}
inline py::list as_list(py::handle value) {
  if (!PyList_Check(value.ptr())) throw py::type_error("expected a list");
  return borrow<py::list>(value);
}

// Lists may hold themselves.
class Deeper {
 public:
  Deeper() {
    if (Py_EnterRecursiveCall(" in arguments")) throw py::error_already_set();
  }
  ~Deeper() { Py_LeaveRecursiveCall(); }
  Deeper(const Deeper&) = delete;
  Deeper& operator=(const Deeper&) = delete;
};

// A class with these __slots__, whose objects are made without __init__.
template <size_t N>
class Slotted {
 public:
  Slotted(py::object type, const std::array<const char*, N>& names) : type_(std::move(type)) {
    if (!PyType_Check(type_.ptr())) throw py::type_error("expected a class");
    for (size_t i = 0; i < N; ++i) {
      const py::object slot = type_.attr(names[i]);
      if (!Py_IS_TYPE(slot.ptr(), &PyMemberDescr_Type)) throw py::type_error(std::string(names[i]) + " is no slot");
      const auto* descriptor = reinterpret_cast<PyMemberDescrObject*>(slot.ptr());
      if (!PyType_IsSubtype(reinterpret_cast<PyTypeObject*>(type_.ptr()), descriptor->d_common.d_type) ||
          descriptor->d_member->type != T_OBJECT_EX || (descriptor->d_member->flags & READONLY))
        throw py::type_error(std::string(names[i]) + " is no slot of the class");
      offsets_[i] = descriptor->d_member->offset;
    }
  }
  template <class... Values>
  py::object make(Values&&... values) const {  // one py::object for each name
    static_assert(sizeof...(Values) == N, "one value for each slot");
    PyTypeObject* const type = reinterpret_cast<PyTypeObject*>(type_.ptr());
    py::object made = own(type->tp_alloc(type, 0));
    size_t i = 0;
    char* const at = reinterpret_cast<char*>(made.ptr());
    ((*reinterpret_cast<PyObject**>(at + offsets_[i++]) = py::object(std::forward<Values>(values)).release().ptr()),
     ...);
    return made;
  }

  py::handle type() const { return type_; }
  bool holds(py::handle value) const { return Py_IS_TYPE(value.ptr(), reinterpret_cast<PyTypeObject*>(type_.ptr())); }
  PyObject* get(py::handle value, size_t i) const {
    return *reinterpret_cast<PyObject**>(reinterpret_cast<char*>(value.ptr()) + offsets_[i]);
  }

 private:
  py::object type_;
  std::array<Py_ssize_t, N> offsets_{};
};

struct Classes {
  PyTypeObject* entry;           // derived from entry_base()
  Slotted<3> leaf;               // hooks, shape, dtype
  PyTypeObject* tensor;          // derived from tensor_base()
  py::object next_slot, inside;  // of tape.py: the counter, and whether a file is the package's
  py::object integers;           // of border.py: what an argument that should be an int, or several, stands for
  py::object size, get_frame;    // torch.Size, sys._getframe
};
extern const Classes* classes;  // for the life of the process

// Whether every saved value is still what it was.
bool unchanged(const py::list& env, const py::list& versions);

// f() for Python, without what pybind11 takes to read arguments: for what is called at every op.
template <class F>
PyObject* answer(bool accepted, const char* expected, const F& f) {
  try {
    if (!accepted) throw py::type_error(expected);
    if (!classes) throw std::runtime_error("_C.tape_classes comes first");
    return f().release().ptr();
  } catch (py::error_already_set& error) {
    error.restore();
  } catch (const py::builtin_exception& error) {
    error.set_error();
  } catch (const std::exception& error) {
    PyErr_SetString(PyExc_RuntimeError, error.what());
  }
  return nullptr;
}

template <class F>
PyMethodDef method(const char* name, const F& f) {
  return {name, reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(f)), METH_FASTCALL, nullptr};
}

}  // namespace tapegrad
