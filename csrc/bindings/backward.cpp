#include "bindings/backward.h"

#include <c10/util/SmallVector.h>

#include "bindings/elementwise.h"
#include "bindings/nodes.h"

namespace tapegrad {
namespace {

using Values = c10::SmallVector<PyObject*, 8>;  // borrowed

// What Op.lean (record.py) says of one gradient rule: the function, and what it reads of the environment.
struct Rule {
  py::handle function;
  py::tuple reads;
};

Rule rule_of(py::handle pair) {
  const auto both = borrow<py::tuple>(pair);
  return {item(both, 0), borrow<py::tuple>(item(both, 1))};
}

py::object call(const Rule& rule, py::handle g, const py::list& env, py::handle last = {}) {
  Values arguments{g.ptr()};
  for (const py::handle position : rule.reads) arguments.push_back(at(env, index(position)).ptr());
  if (last) arguments.push_back(last.ptr());
  return own(PyObject_Vectorcall(rule.function.ptr(), arguments.data(), arguments.size(), nullptr));
}

// Whether a gradient has the shape and dtype of the value at a node, so that nothing is to be summed or cast.
bool fits(py::handle dx, py::handle node) {
  if (!Py_IS_TYPE(dx.ptr(), reinterpret_cast<PyTypeObject*>(THPVariableClass))) return false;
  PyObject *shape = nullptr, *dtype = nullptr;
  if (Py_IS_TYPE(node.ptr(), classes->entry)) {
    const auto* entry = reinterpret_cast<EntryObject*>(node.ptr());
    shape = entry->shape, dtype = entry->dtype;
  } else if (classes->leaf.holds(node)) {
    shape = classes->leaf.get(node, 1), dtype = classes->leaf.get(node, 2);
  }
  if (!shape || !PyTuple_Check(shape)) return false;
  const at::Tensor& t = THPVariable_Unpack(dx.ptr());
  if (reinterpret_cast<PyObject*>(torch::getTHPDtype(t.scalar_type())) != dtype) return false;
  if (PyTuple_GET_SIZE(shape) != t.dim()) return false;
  for (int64_t i = 0; i < t.dim(); ++i)
    if (PyLong_AsLongLong(PyTuple_GET_ITEM(shape, i)) != t.size(i)) return false;
  return true;
}

// The gradients of an entry's inputs, as Op.pull gives them.
py::object pull(py::handle entry, const EntryObject& e, const py::tuple& parents, const py::tuple& lean, py::handle g) {
  const auto op = borrow<py::object>(e.op);
  const auto env = borrow<py::list>(e.env);
  if (!PyList_CheckExact(e.versions) || !unchanged(env, borrow<py::list>(e.versions)))
    op.attr("_check_unchanged")(entry);  // says what is wrong
  if (const py::handle fused = item(lean, 0); !fused.is_none()) {
    py::object needs;
    if (item(lean, 1).ptr() == Py_True) {
      py::list wanted(parents.size());
      for (size_t i = 0; i < parents.size(); ++i) wanted[i] = py::bool_(!item(parents, i).is_none());
      needs = std::move(wanted);
    }
    py::object gradients = call(rule_of(fused), g, env, needs);
    if (PyTuple_CheckExact(gradients.ptr()) && PyTuple_GET_SIZE(gradients.ptr()) == PyTuple_GET_SIZE(parents.ptr()))
      return gradients;
    return op.attr("_one_for_each")(gradients, parents);
  }
  const auto rules = borrow<py::tuple>(item(lean, 2));
  py::tuple gradients(parents.size());
  for (size_t i = 0; i < parents.size(); ++i) {
    const py::handle node = item(parents, i), rule = item(rules, i);
    py::object dx = node.is_none() || rule.is_none() ? py::none() : call(rule_of(rule), g, env);
    if (!dx.is_none() && !fits(dx, node)) dx = op.attr("_fit")(dx, node, entry, false);
    PyTuple_SET_ITEM(gradients.ptr(), i, dx.release().ptr());
  }
  return gradients;
}

bool contains(const py::object& set, py::handle node) {
  const int found = PySet_Contains(set.ptr(), node.ptr());
  if (found < 0) throw py::error_already_set();
  return found;
}

// The dict, and the set of nodes, of a `Slots`; entries to their parents less those that nobody wants, or None.
struct Walk {
  py::object slots, owned, wanted, active;
  py::handle failed;  // (entry, g, exception): raises what the user is told

  bool plain(py::handle entry) const;  // visits an entry that is; whether it was
  void add(py::handle node, py::handle g, bool fresh) const;
  py::object pulled(py::handle entry, const py::tuple& parents, const py::tuple& lean, py::handle g) const;
};

// `pull` of backward.py
py::object Walk::pulled(py::handle entry, const py::tuple& parents, const py::tuple& lean, py::handle g) const {
  try {
    return pull(entry, *reinterpret_cast<EntryObject*>(entry.ptr()), parents, lean, g);
  } catch (const py::error_already_set& error) {
    if (!error.matches(PyExc_Exception)) throw;
    if (error.trace()) PyException_SetTraceback(error.value().ptr(), error.trace().ptr());
    failed(entry, g, error.value());
    throw;
  }
}

// None where Slots.add does it, or says why nobody can
py::object sum_of(const py::object& one, const py::object& other) {
  try {
    return call_arithmetic(Arithmetic::add, one, other);
  } catch (const c10::Error&) {  // no memory for it
    return py::none();
  }
}

// Slots.add, and the first contribution
void Walk::add(py::handle node, py::handle g, bool fresh) const {
  const auto set = [](const py::object& dict, py::handle key, py::handle value) {
    if (PyDict_SetItem(dict.ptr(), key.ptr(), value.ptr()) != 0) throw py::error_already_set();
  };
  const auto own_it = [&] {
    if (PySet_Add(owned.ptr(), node.ptr()) != 0) throw py::error_already_set();
  };
  const auto before = borrow<py::object>(PyDict_GetItemWithError(slots.ptr(), node.ptr()));
  if (!before) {
    if (PyErr_Occurred()) throw py::error_already_set();
    set(slots, node, g);
    if (fresh && classes->leaf.holds(node)) own_it();
    return;
  }
  if (is_tensor(before) && is_tensor(g)) {
    if (contains(owned, node)) {
      if (call_add_(before, borrow<py::object>(g))) return;
    } else if (const py::object sum = sum_of(before, borrow<py::object>(g)); !sum.is_none()) {
      set(slots, node, sum);
      own_it();
      return;
    }
  }
  slots.attr("add")(node, g);
}

bool Walk::plain(py::handle entry) const {
  const auto& e = *reinterpret_cast<EntryObject*>(entry.ptr());
  if (e.hooks != Py_None || PyTuple_CheckExact(e.shape)) return false;
  if (!wanted.is_none() && contains(wanted, entry)) return false;
  static PyObject* const name = PyUnicode_InternFromString("lean");
  const py::object lean = own(PyObject_GetAttr(e.op, name));
  if (lean.is_none()) return false;
  const auto g = borrow<py::object>(PyDict_GetItemWithError(slots.ptr(), entry.ptr()));
  if (!g) return true;  // what follows does not depend on it
  if (PyDict_DelItem(slots.ptr(), entry.ptr()) != 0) throw py::error_already_set();
  auto parents = borrow<py::tuple>(e.parents);
  if (!active.is_none()) {
    PyObject* const some = PyDict_GetItemWithError(active.ptr(), entry.ptr());
    if (!some) return true;
    parents = borrow<py::tuple>(some);
  }
  const auto gradients = borrow<py::tuple>(pulled(entry, parents, borrow<py::tuple>(lean), g));
  const bool fresh = !item(borrow<py::tuple>(lean), 0).is_none();
  for (size_t i = 0; i < parents.size(); ++i) {
    const py::handle node = item(parents, i), dx = item(gradients, i);
    if (!node.is_none() && !dx.is_none()) add(node, dx, fresh);
  }
  return true;
}

}  // namespace

PyObject* walk(PyObject*, PyObject* const* given, Py_ssize_t count) {
  bool fits = count == 7 && classes && PyList_CheckExact(given[0]) && PyDict_Check(given[1]) && PySet_Check(given[2]) &&
              (given[3] == Py_None || PySet_Check(given[3])) && (given[4] == Py_None || PyDict_CheckExact(given[4]));
  for (Py_ssize_t i = 0; fits && i < PyList_GET_SIZE(given[0]); ++i)
    fits = Py_IS_TYPE(PyList_GET_ITEM(given[0], i), classes->entry);
  return answer(fits,
                "walk: expected entries (list), slots (dict), owned and wanted nodes, active entries, visit, "
                "failed",
                [&] {
                  const auto entries = py::reinterpret_steal<py::tuple>(PyList_AsTuple(given[0]));
                  const Walk walk{borrow<py::object>(given[1]), borrow<py::object>(given[2]),
                                  borrow<py::object>(given[3]), borrow<py::object>(given[4]), given[6]};
                  for (size_t i = entries.size(); i-- > 0;)
                    if (!walk.plain(item(entries, i))) own(PyObject_CallOneArg(given[5], item(entries, i).ptr()));
                  return py::none();
                });
}

}  // namespace tapegrad
