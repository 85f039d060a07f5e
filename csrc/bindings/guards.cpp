#include "bindings/guards.h"

#include <structmember.h>  // PyMemberDescrObject

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <functional>
#include <memory>

#include "bindings/tape.h"

namespace tapegrad {
namespace {

py::object steal(PyObject* made) { return py::reinterpret_steal<py::object>(made); }

// Numbers and strings of exactly these types, and tuples of them: to compare them runs no Python code.
bool is_scalar(PyObject* value) {
  if (PyTuple_CheckExact(value)) {
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(value); ++i)
      if (!is_scalar(PyTuple_GET_ITEM(value, i))) return false;
    return true;
  }
  return PyFloat_CheckExact(value) || PyLong_CheckExact(value) || PyBool_Check(value) || PyUnicode_CheckExact(value) ||
         PyBytes_CheckExact(value) || value == Py_None;
}

bool equal_values(PyObject* now, PyObject* then) {
  if (Py_TYPE(now) != Py_TYPE(then)) return false;
  if (PyFloat_CheckExact(now)) {
    const double a = PyFloat_AS_DOUBLE(now), b = PyFloat_AS_DOUBLE(then);
    return std::memcmp(&a, &b, sizeof a) == 0;  // 0.0 is not -0.0, NaN is NaN
  }
  const int equal = PyObject_RichCompareBool(now, then, Py_EQ);
  if (equal < 0) PyErr_Clear();
  return equal == 1;
}

bool lies_in(PyObject* gradient, PyObject* data, Py_ssize_t at) {
  return gradient && at >= 0 && at < PyList_GET_SIZE(data) && lies_at(gradient, PyList_GET_ITEM(data, at));
}

// Another one after every change of a dict (PEP 509); 0 where this Python keeps none.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
uint64_t version_of_dict([[maybe_unused]] PyObject* dict) {
#if PY_VERSION_HEX < 0x030D0000
  return reinterpret_cast<PyDictObject*>(dict)->ma_version_tag;
#else
  return 0;
#endif
}
#pragma GCC diagnostic pop

// Another one after every change of a class or of one that it derives from; 0 where it has none at present.
uint64_t version_of_class(PyObject* kind) {
  const auto* type = reinterpret_cast<PyTypeObject*>(kind);
#if PY_VERSION_HEX < 0x030C0000
  if (!PyType_HasFeature(const_cast<PyTypeObject*>(type), Py_TPFLAGS_VALID_VERSION_TAG)) return 0;
#endif
  return type->tp_version_tag;
}

PyObject* in_class(PyTypeObject* type, PyObject* name) {  // borrowed; what the class and its bases define
  return PyUnicode_CheckExact(name) ? _PyType_Lookup(type, name) : nullptr;
}

bool named(PyObject* key, const char* name) {
  return PyUnicode_CheckExact(key) && PyUnicode_CompareWithASCIIString(key, name) == 0;
}

}  // namespace

std::string buffer_state(py::handle object, bool place) {
  Py_buffer view;
  if (PyObject_GetBuffer(object.ptr(), &view, PyBUF_FULL_RO) != 0) throw py::error_already_set();
  const std::unique_ptr<Py_buffer, decltype(&PyBuffer_Release)> released(&view, &PyBuffer_Release);
  std::string state;
  const auto put = [&](const void* from, size_t n) {
    if (from) state.append(static_cast<const char*>(from), n);
  };
  put(&view.ndim, sizeof view.ndim);
  put(view.shape, sizeof(Py_ssize_t) * static_cast<size_t>(view.ndim));
  put(view.strides, sizeof(Py_ssize_t) * static_cast<size_t>(view.ndim));
  if (view.format) state.append(view.format);
  if (place) {
    put(&view.buf, sizeof view.buf);
  } else if (view.len > 0) {
    const size_t header = state.size();
    state.resize(header + static_cast<size_t>(view.len));
    if (PyBuffer_ToContiguous(&state[header], &view, view.len, 'C') != 0) throw py::error_already_set();
    if (view.len > kHashed) {
      const size_t hash = std::hash<std::string>()(state);
      state.resize(header);
      put(&hash, sizeof hash);
    }
  }
  return state;
}

void Guards::add(int kind, py::object container, py::object key, py::object value, bool by_value) {
  if (checking_) throw std::runtime_error("Guards: they are being checked");
  const PyObject* of = value.ptr();
  if (kind < item || kind > gradient || (kind == length && !PyLong_Check(of)) || (kind == keys && !PyTuple_Check(of)) ||
      (kind == buffer && !PyBytes_Check(of)) ||
      (kind == gradient && !(PyList_CheckExact(of) && PyLong_CheckExact(key.ptr()))))
    throw std::invalid_argument("Guards: no guard of kind " + std::to_string(kind) + " has such a value");
  all_.push_back({static_cast<Kind>(kind), std::move(container), std::move(key), std::move(value), by_value});
  sorted_ = false;
}

int64_t Guards::check() {
  if (checking_) throw std::runtime_error("Guards: they are being checked");
  checking_ = true;
  int64_t failed = -1;
  for (size_t i = 0; i < all_.size() && failed < 0; ++i)
    if (!holds(all_[i])) failed = static_cast<int64_t>(i);
  checking_ = false;
  return failed;
}

bool Guards::holds(const Guard& g) {
  PyObject* container = g.container.ptr();
  if (g.kind == length) {
    const Py_ssize_t size = PyObject_Size(container), expected = PyLong_AsSsize_t(g.value.ptr());
    if (PyErr_Occurred()) PyErr_Clear();
    return size >= 0 && size == expected;
  }
  py::object now;
  if (g.kind == keys) return same_keys(container, g.value.ptr());
  if (g.kind == copy) {  // the key freezes a container's content
    now = steal(PyObject_CallOneArg(g.key.ptr(), container));
    const int equal = now ? PyObject_RichCompareBool(now.ptr(), g.value.ptr(), Py_EQ) : -1;
    if (equal < 0) PyErr_Clear();
    return equal == 1;
  }
  if (g.kind == buffer) {  // the key: whether it is the place that counts
    try {
      const std::string state = buffer_state(container, g.key.ptr() == Py_True);
      return static_cast<Py_ssize_t>(state.size()) == PyBytes_GET_SIZE(g.value.ptr()) &&
             std::memcmp(state.data(), PyBytes_AS_STRING(g.value.ptr()), state.size()) == 0;
    } catch (const py::error_already_set&) {
      return false;
    }
  }
  if (g.kind == cell) {
    now = steal(PyCell_Get(container));
  } else if (g.kind == attribute) {
    now = steal(PyObject_GetAttr(container, g.key.ptr()));
  } else if (g.kind == gradient) {
    now = steal(PyObject_GetAttrString(container, "grad"));
  } else if (PyDict_CheckExact(container)) {
    now = py::reinterpret_borrow<py::object>(PyDict_GetItemWithError(container, g.key.ptr()));
  } else {
    now = steal(PyObject_GetItem(container, g.key.ptr()));
  }
  if (!now) {
    PyErr_Clear();
    return false;
  }
  if (g.kind == gradient) return lies_in(now.ptr(), g.value.ptr(), PyLong_AsSsize_t(g.key.ptr()));
  return now.ptr() == g.value.ptr() || (g.by_value && equal_values(now.ptr(), g.value.ptr()));
}

// The keys of a dict, in order; they are mostly the same objects.
bool Guards::same_keys(PyObject* dict, PyObject* keys) {
  if (!PyDict_Check(dict) || PyDict_Size(dict) != PyTuple_GET_SIZE(keys)) return false;
  PyObject *key, *value;
  Py_ssize_t position = 0, i = 0;
  while (PyDict_Next(dict, &position, &key, &value)) {
    if (i == PyTuple_GET_SIZE(keys)) return false;  // a comparison added one
    PyObject* expected = PyTuple_GET_ITEM(keys, i++);
    if (key == expected) continue;
    const py::object held = py::reinterpret_borrow<py::object>(key);
    const int equal = PyObject_RichCompareBool(key, expected, Py_EQ);
    if (equal < 0) PyErr_Clear();
    if (equal != 1) return false;
  }
  return true;
}

// --- quickly ------------------------------------------------------------------------------------------------------

bool Guards::by_value(size_t guard, PyObject* now) const {
  const Guard& g = all_[guard];
  return g.by_value && now && is_scalar(now) && is_scalar(g.value.ptr()) && equal_values(now, g.value.ptr());
}

void Guards::add_to(std::vector<Versioned>& all, PyObject* container, size_t guard) {
  const auto same = [&](const Versioned& v) { return v.container == container; };
  auto known = std::find_if(all.rbegin(), all.rend(), same);  // mostly the last
  if (known != all.rend()) return known->guards.push_back(guard);
  all.push_back({container, 0, {guard}});
}

// Whether an attribute can be watched; then it is.
bool Guards::sort_attribute(size_t i) {
  const Guard& g = all_[i];
  PyObject *owner = g.container.ptr(), *value = g.value.ptr();
  PyTypeObject* const type = Py_TYPE(owner);
  if (PyType_Check(owner)) {  // an attribute of a class is what it defines, where that is no descriptor of its own
    if (!Py_IS_TYPE(owner, &PyType_Type) || in_class(type, g.key.ptr())) return false;
    if (in_class(reinterpret_cast<PyTypeObject*>(owner), g.key.ptr()) != value) return false;
    if (Py_TYPE(value)->tp_descr_get && !PyFunction_Check(value)) return false;
    add_to(classes_, owner, i);
    return true;
  }
  if (PyFunction_Check(owner)) {
    const bool code = named(g.key.ptr(), "__code__");
    if (!code && !named(g.key.ptr(), "__defaults__")) return false;
    const Py_ssize_t at = code ? offsetof(PyFunctionObject, func_code) : offsetof(PyFunctionObject, func_defaults);
    pointers_.push_back({owner, type, at, value == Py_None ? nullptr : value, i});
    return true;
  }
  PyObject* const found = in_class(type, g.key.ptr());
  if (!found || in_class(type, py::str("__getattribute__").ptr()) !=
                    in_class(&PyBaseObject_Type, py::str("__getattribute__").ptr()))
    return false;
  if (named(g.key.ptr(), "__class__") && found == in_class(&PyBaseObject_Type, g.key.ptr())) {
    pointers_.push_back({owner, nullptr, offsetof(PyObject, ob_type), value, i});
  } else if (Py_IS_TYPE(found, &PyMemberDescr_Type)) {
    const PyMemberDef* member = reinterpret_cast<PyMemberDescrObject*>(found)->d_member;
    if (member->type != T_OBJECT_EX) return false;
    pointers_.push_back({owner, type, member->offset, value, i});
  } else {
    return false;
  }
  add_to(classes_, reinterpret_cast<PyObject*>(type), i);
  return true;
}

bool Guards::sort_gradient(size_t i) {
  const Guard& g = all_[i];
  PyTypeObject* const type = Py_TYPE(g.container.ptr());
  PyObject* const found = in_class(type, py::str("grad").ptr());
  if (!found || !Py_IS_TYPE(found, &PyMemberDescr_Type)) return false;
  const PyMemberDef* member = reinterpret_cast<PyMemberDescrObject*>(found)->d_member;
  gradients_.push_back({g.container.ptr(), member->offset, g.value.ptr(), PyLong_AsSsize_t(g.key.ptr())});
  add_to(classes_, reinterpret_cast<PyObject*>(type), i);
  return true;
}

// Finds for every guard how it can be watched. What is found depends on classes, which are looked at here and whose
// versions tell when it has to be found again.
void Guards::sort() {
  dicts_.clear();
  classes_.clear();
  pointers_.clear();
  elements_.clear();
  gradients_.clear();
  rest_.clear();
  for (size_t i = 0; i < all_.size(); ++i) {
    const Guard& g = all_[i];
    PyObject *container = g.container.ptr(), *value = g.value.ptr();
    const bool in_dict = g.kind == item || g.kind == length || g.kind == keys;
    if (in_dict && PyDict_CheckExact(container)) {
      add_to(dicts_, container, i);
    } else if (PyTuple_CheckExact(container) && (g.kind == item || g.kind == length) && holds(g)) {
      continue;  // for good
    } else if (PyList_CheckExact(container) && g.kind == length) {
      elements_.push_back({container, -1, nullptr, PyLong_AsSsize_t(value), i});
    } else if (PyList_CheckExact(container) && g.kind == item && PyLong_CheckExact(g.key.ptr())) {
      elements_.push_back({container, PyLong_AsSsize_t(g.key.ptr()), value, 0, i});
    } else if (g.kind == cell && PyCell_Check(container)) {
      pointers_.push_back({container, &PyCell_Type, offsetof(PyCellObject, ob_ref), value, i});
    } else if (g.kind == gradient && sort_gradient(i)) {
      continue;
    } else if (g.kind != attribute || !sort_attribute(i)) {
      rest_.push_back(i);
    }
  }
  if (PyErr_Occurred()) PyErr_Clear();
  for (Versioned& kind : classes_) kind.version = version_of_class(kind.container);
  sorted_ = true;
}

// An item, the length or the keys of a dict, without running Python code; false also where that is not enough. Keys are
// strings, numbers, and objects whose hash is their address, which a dict finds by identity.
bool Guards::holds_in_dict(const Guard& g) {
  PyObject *dict = g.container.ptr(), *value = g.value.ptr();
  if (g.kind == length) return PyDict_GET_SIZE(dict) == PyLong_AsSsize_t(value);
  if (g.kind == keys) {
    if (PyDict_GET_SIZE(dict) != PyTuple_GET_SIZE(value)) return false;
    PyObject *key, *unused;
    for (Py_ssize_t position = 0, i = 0; PyDict_Next(dict, &position, &key, &unused); ++i)
      if (key != PyTuple_GET_ITEM(value, i)) return false;
    return true;
  }
  if (!is_scalar(g.key.ptr()) && Py_TYPE(g.key.ptr())->tp_hash != PyBaseObject_Type.tp_hash) return false;
  PyObject* const now = PyDict_GetItemWithError(dict, g.key.ptr());
  if (!now) PyErr_Clear();
  return now == value || (now && g.by_value && is_scalar(now) && is_scalar(value) && equal_values(now, value));
}

bool Guards::may_run_python() {
  if (!sorted_ && !checking_) sort();
  return !rest_.empty();
}

bool Guards::hold() {
  if (checking_) return false;
  if (!sorted_) sort();
  if (!rest_.empty()) {
    checking_ = true;
    const bool all = std::all_of(rest_.begin(), rest_.end(), [&](size_t i) { return holds(all_[i]); });
    checking_ = false;
    if (!all) return false;
  }
  for (const Versioned& kind : classes_)
    if (kind.version == 0 || version_of_class(kind.container) != kind.version) {
      sorted_ = false;
      return false;
    }
  for (const Pointer& p : pointers_) {
    if (p.type && !Py_IS_TYPE(p.owner, p.type)) return false;
    PyObject* const now = *reinterpret_cast<PyObject**>(reinterpret_cast<char*>(p.owner) + p.offset);
    if (now != p.expected && !by_value(p.guard, now)) return false;
  }
  for (const Element& e : elements_) {
    if (e.at < 0) {
      if (PyList_GET_SIZE(e.list) != e.size) return false;
      continue;
    }
    if (e.at >= PyList_GET_SIZE(e.list)) return false;
    PyObject* const now = PyList_GET_ITEM(e.list, e.at);
    if (now != e.expected && !by_value(e.guard, now)) return false;
  }
  for (const Gradient& g : gradients_)
    if (!lies_in(*reinterpret_cast<PyObject**>(reinterpret_cast<char*>(g.leaf) + g.offset), g.data, g.at)) return false;
  for (Versioned& dict : dicts_) {
    const uint64_t version = version_of_dict(dict.container);
    if (version != 0 && version == dict.version) continue;
    for (const size_t i : dict.guards)
      if (!holds_in_dict(all_[i])) return false;
    dict.version = version;
  }
  return true;
}

void bind_guards(py::module_& m) {
  py::class_<Guards>(m, "Guards")
      .def(py::init<>())
      .def("add", &Guards::add, py::arg("kind"), py::arg("container"), py::arg("key"), py::arg("value"),
           py::arg("by_value"))
      .def("check", &Guards::check)
      .def("hold", &Guards::hold);
  m.def(
      "buffer_state", [](const py::object& object, bool place) { return py::bytes(buffer_state(object, place)); },
      py::arg("object"), py::arg("place"));
  m.attr("watched_bytes") = kHashed;
}

}  // namespace tapegrad
