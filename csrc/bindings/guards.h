// Whether the Python state that a compiled step relies on is what it was when it was recorded (facts.py).
//
// `check` is the definition: it looks every reference up, as Python would. `hold` gives the same answer for a fraction
// of the time, or says that it does not know: most references lie in dicts and classes that nobody has touched since,
// and their version says so; others are slots, cells and list items, which are compared in place.
#pragma once
#include "bindings/pybind.h"  // before any other header

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace py = pybind11;

namespace tapegrad {

// What an object's buffer is: sizes, strides and format, with its address (`place`) or what it holds (by hash where
// that is more than kHashed bytes). Throws Python's error for an object without a buffer.
constexpr Py_ssize_t kHashed = 1 << 20;  // bytes
std::string buffer_state(py::handle object, bool place);

class Guards {
 public:
  enum Kind { item, attribute, cell, length, keys, copy, buffer, gradient };

  // Identity, or for numbers and strings (`by_value`) equal value. A gradient: ``container.grad`` is a Tensor around
  // ``value[key]``, ``value`` being a list.
  void add(int kind, py::object container, py::object key, py::object value, bool by_value);
  // The number of the first that does not hold, or -1.
  int64_t check();
  // True: all hold. False: perhaps not, ask `check`. Looks at memory alone where it can: no Python code runs.
  bool hold();
  // Whether `hold` may have to run Python code.
  bool may_run_python();

 private:
  struct Guard {
    Kind kind;
    py::object container, key, value;
    bool by_value;
  };
  // References that change with one version: a dict's, or a class's.
  struct Versioned {
    PyObject* container;
    uint64_t version = 0;  // 0: none that is known to be good
    std::vector<size_t> guards;
  };
  struct Pointer {  // owner's type is `type`, and the pointer `offset` bytes into it is `expected`
    PyObject* owner;
    PyTypeObject* type;  // null: any
    Py_ssize_t offset;
    PyObject* expected;
    size_t guard;
  };
  struct Element {  // of a list
    PyObject* list;
    Py_ssize_t at;  // -1: its length is `size`
    PyObject* expected;
    Py_ssize_t size;
    size_t guard;
  };
  struct Gradient {  // ``grad`` of a leaf: the pointer `offset` bytes into it
    PyObject* leaf;
    Py_ssize_t offset;
    PyObject* data;
    Py_ssize_t at;
  };

  static bool holds(const Guard& g);
  static bool same_keys(PyObject* dict, PyObject* keys);
  static bool holds_in_dict(const Guard& g);

  void sort();
  void add_to(std::vector<Versioned>& all, PyObject* container, size_t guard);
  bool sort_attribute(size_t i);
  bool sort_gradient(size_t i);
  bool by_value(size_t guard, PyObject* now) const;

  std::vector<Guard> all_;
  bool checking_ = false, sorted_ = false;
  std::vector<Versioned> dicts_, classes_;
  std::vector<Pointer> pointers_;
  std::vector<Element> elements_;
  std::vector<Gradient> gradients_;
  std::vector<size_t> rest_;  // looked up every time
};

void bind_guards(py::module_& m);

}  // namespace tapegrad
