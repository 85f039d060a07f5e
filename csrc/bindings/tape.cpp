// One recorded call of an op becomes one `Entry` (tapegrad/core/tape.py) and the `Tensor` of its output: made here,
// read in Python. Both are Python classes with __slots__, which are written in place.
#include "bindings/tape.h"

#include <algorithm>

#include "bindings/backward.h"
#include "bindings/holder.h"
#include "bindings/nodes.h"
#include "bindings/switches.h"

namespace tapegrad {

const Classes* classes = nullptr;

namespace {

py::object tensor(py::object data, py::object node) {
  return make_tensor(classes->tensor, std::move(data), std::move(node));
}

py::object shape(py::handle value) {
  if (!is_tensor(value)) return py::tuple();
  const at::IntArrayRef sizes = THPVariable_Unpack(value.ptr()).sizes();
  PyTypeObject* const type = reinterpret_cast<PyTypeObject*>(classes->size.ptr());  // a tuple
  py::object made = own(type->tp_alloc(type, sizes.size()));
  for (size_t i = 0; i < sizes.size(); ++i)
    PyTuple_SET_ITEM(made.ptr(), i, own(PyLong_FromLongLong(sizes[i])).release().ptr());
  return made;
}
py::object dtype(py::handle value) {
  if (!is_tensor(value)) throw py::type_error("expected a torch tensor as output");
  const at::ScalarType type = THPVariable_Unpack(value.ptr()).scalar_type();
  return borrow<py::object>(reinterpret_cast<PyObject*>(torch::getTHPDtype(type)));
}

template <class F>
py::list each(const py::list& values, const F& f) {
  py::list made(values.size());
  for (size_t i = 0; i < values.size(); ++i) PyList_SET_ITEM(made.ptr(), i, f(item(values, i)).release().ptr());
  return made;
}

// (code object, instruction) of the nearest calling frame outside the package, the outermost if there is none
py::tuple where() {
  static PyObject* const depth = PyLong_FromLong(1);  // the caller of the op's public function
  PyObject* first = PyObject_Vectorcall(classes->get_frame.ptr(), &depth, 1, nullptr);
  if (!first && PyErr_ExceptionMatches(PyExc_ValueError)) {  // a thread that was started with the op has no caller
    PyErr_Clear();
    first = Py_NewRef(reinterpret_cast<PyObject*>(PyEval_GetFrame()));
  }
  py::object frame = own(first);
  while (true) {
    PyFrameObject* const at = reinterpret_cast<PyFrameObject*>(frame.ptr());
    py::object code = own(reinterpret_cast<PyObject*>(PyFrame_GetCode(at)));
    PyObject* const file = reinterpret_cast<PyCodeObject*>(code.ptr())->co_filename;
    PyFrameObject* back = nullptr;
    if (own(PyObject_GetItem(classes->inside.ptr(), file)).is(py::handle(Py_True))) back = PyFrame_GetBack(at);
    if (!back) return py::make_tuple(std::move(code), PyFrame_GetLasti(at));
    frame = py::reinterpret_steal<py::object>(reinterpret_cast<PyObject*>(back));
  }
}

// What Op.plan (record.py) answers: the environment's size and the positions in it of what is saved, what is dropped,
// and of the shapes that are noted (to, from).
struct Plan {
  Py_ssize_t size, residuals;
  bool variadic;
  py::list hold, drop, shapes;
};

Plan plan_of(py::handle op, const py::dict& plans, const py::tuple& parents) {
  uint64_t needs = 0;  // bit i: the gradient of array argument i
  if (parents.size() > 64) throw py::type_error("record: expected at most 64 parents");
  for (size_t i = 0; i < parents.size(); ++i)
    if (!item(parents, i).is_none()) needs |= uint64_t{1} << i;
  const py::int_ key(needs);
  PyObject* const known = PyDict_GetItemWithError(plans.ptr(), key.ptr());
  if (!known && PyErr_Occurred()) throw py::error_already_set();
  const py::tuple plan = as_tuple(known ? py::reinterpret_borrow<py::object>(known) : op.attr("plan")(key));
  const Plan p = {index(item(plan, 0)),   index(item(plan, 1)),   item(plan, 2).ptr() == Py_True,
                  as_list(item(plan, 3)), as_list(item(plan, 4)), as_list(item(plan, 5))};
  if (p.size > 1 << 20) throw py::type_error("record: a plan of " + std::to_string(p.size) + " values");
  return p;
}

// Arguments, output, residuals, shapes; None for what the plan drops. `out` becomes the output alone.
py::list environment(py::handle op, const Plan& plan, const py::tuple& values, py::object& out) {
  if (static_cast<Py_ssize_t>(values.size()) + 1 + plan.residuals > plan.size)
    throw py::type_error("record: expected a value for each argument");
  py::list env(plan.size);
  size_t n = 0;
  const auto put = [&](py::object value) {
    if (n == env.size()) throw py::type_error("record: more values than the plan has places");
    PyList_SET_ITEM(env.ptr(), n++, value.release().ptr());
  };
  for (size_t i = 0; i < values.size(); ++i) put(borrow<py::object>(item(values, i)));
  if (plan.residuals) {
    const auto results = py::tuple(op.attr("with_residuals")(out));
    for (size_t i = 0; i < results.size(); ++i) put(borrow<py::object>(item(results, i)));
    out = borrow<py::object>(item(results, 0));
  } else {
    put(out);
  }
  while (n < env.size()) put(py::none());
  for (size_t i = 0; i < plan.shapes.size(); ++i) {
    const py::tuple pair = as_tuple(item(plan.shapes, i));
    const py::handle value = item(env, index(item(pair, 1)));
    const bool several = PyList_CheckExact(value.ptr());
    env[index(item(pair, 0))] = several ? py::object(each(borrow<py::list>(value), shape)) : shape(value);
  }
  for (size_t i = 0; i < plan.drop.size(); ++i) {  // numbers stay, to be printed
    const py::handle value = item(env, index(item(plan.drop, i)));
    if (PyList_CheckExact(value.ptr()) || PyTuple_CheckExact(value.ptr()) || is_tensor(value))
      env[index(item(plan.drop, i))] = py::none();
  }
  return env;
}

// How often a tensor was written to, which those of inference mode do not count; 0 for anything else.
py::object version(py::handle value) {
  return py::int_(is_tensor(value) ? THPVariable_Unpack(value.ptr())._version() : 0);
}

py::list versions_of(const Plan& plan, const py::list& env) {
  py::list versions;
  for (size_t i = 0; i < plan.hold.size(); ++i) {
    const py::handle at = item(plan.hold, i), value = item(env, index(at));
    if (is_tensor(value))
      versions.append(py::make_tuple(at, version(value)));
    else if (PyList_CheckExact(value.ptr()))
      versions.append(py::make_tuple(at, each(borrow<py::list>(value), version)));
  }
  return versions;
}

}  // namespace

bool unchanged(const py::list& env, const py::list& versions) {
  for (size_t i = 0; i < versions.size(); ++i) {
    const py::tuple saved = as_tuple(item(versions, i));
    const py::handle value = at(env, index(item(saved, 0))), then = item(saved, 1);
    if (is_tensor(value) ? THPVariable_Unpack(value.ptr())._version() != index(then)
                         : !PyList_CheckExact(value.ptr()) || !each(borrow<py::list>(value), version).equal(then))
      return false;
  }
  return true;
}

namespace {

// One list of nodes for each sequence argument becomes part of one flat tuple.
py::tuple flat(const py::tuple& parents) {
  py::list nodes;
  for (const py::handle parent : parents)
    if (PyList_CheckExact(parent.ptr()))
      for (const py::handle node : borrow<py::list>(parent)) nodes.append(node);
    else if (!parent.is_none())
      nodes.append(parent);
  return py::tuple(nodes);
}

// Whether a cycle may lead through an entry with these nodes behind it and these values.
bool is_on_open_path(const py::tuple& parents, const py::list& env) {
  for (py::handle node : parents) {
    if (PyTuple_CheckExact(node.ptr()) && PyTuple_GET_SIZE(node.ptr()) > 0) node = PyTuple_GET_ITEM(node.ptr(), 0);
    if (Py_IS_TYPE(node.ptr(), classes->entry)) {
      if (is_open(reinterpret_cast<EntryObject*>(node.ptr()))) return true;
    } else if (classes->leaf.holds(node)) {
      PyObject* const hooks = classes->leaf.get(node, 0);
      if (hooks && hooks != Py_None) return true;
    }
  }
  for (const py::handle value : env)
    if (!is_closed(value.ptr())) return true;
  return false;
}

py::object entry(py::handle op, py::tuple parents, py::list env, py::list versions, py::object shape,
                 py::object dtype) {
  const bool open = is_on_open_path(parents, env);
  py::object made = own(classes->entry->tp_alloc(classes->entry, 0));
  auto* const e = reinterpret_cast<EntryObject*>(made.ptr());
  e->op = Py_NewRef(op.ptr());
  e->parents = parents.release().ptr();
  e->env = env.release().ptr();
  e->versions = versions.release().ptr();
  e->shape = shape.release().ptr();
  e->dtype = dtype.release().ptr();
  e->seq = own(PyObject_CallNoArgs(classes->next_slot.ptr())).release().ptr();
  e->where = where().release().ptr();
  e->hooks = Py_NewRef(Py_None);
  e->args = Py_NewRef(Py_None);
  for (PyObject* const plain : {e->shape, e->dtype, e->where}) is_closed(plain);
  if (!open) hide(e);
  return made;
}

py::object record(py::handle op, const py::dict& plans, py::object out, py::tuple parents, const py::tuple& values) {
  const Plan plan = plan_of(op, plans, parents);
  py::list env = environment(op, plan, values, out);
  py::list versions;
  try {
    versions = versions_of(plan, env);
  } catch (const c10::Error&) {
    op.attr("refuse_inference")();
  }
  const bool one = Py_IS_TYPE(out.ptr(), reinterpret_cast<PyTypeObject*>(THPVariableClass));
  if (!one) op.attr("check_outputs")(out);
  const auto outs = one ? py::make_tuple(out) : py::tuple(out);
  const py::object shapes = one ? shape(out) : py::object(py::tuple(each(py::list(outs), shape)));
  const py::object dtypes = one ? dtype(out) : py::object(py::tuple(each(py::list(outs), dtype)));
  const py::object entry = tapegrad::entry(op, plan.variadic ? flat(parents) : std::move(parents), std::move(env),
                                           std::move(versions), shapes, dtypes);
  if (switches.watched) op.attr("_watch")(entry, outs, values);
  if (one) return tensor(std::move(out), entry);
  py::tuple made(outs.size());
  for (size_t i = 0; i < outs.size(); ++i) made[i] = tensor(outs[i], py::make_tuple(entry, i));
  return made;
}

PyObject* record_call(PyObject*, PyObject* const* given, Py_ssize_t count) {
  const bool fits =
      count == 5 && PyDict_CheckExact(given[1]) && PyTuple_CheckExact(given[3]) && PyTuple_CheckExact(given[4]);
  return answer(fits, "record: expected op, its plans (dict), output, parents (tuple), values (tuple)", [&] {
    return record(given[0], borrow<py::dict>(given[1]), borrow<py::object>(given[2]), borrow<py::tuple>(given[3]),
                  borrow<py::tuple>(given[4]));
  });
}

PyObject* tensor_call(PyObject*, PyObject* const* given, Py_ssize_t count) {
  return answer(count == 2, "tensor: expected data, node",
                [&] { return tensor(borrow<py::object>(given[0]), borrow<py::object>(given[1])); });
}

PyObject* leave_gradients_call(PyObject*, PyObject* const* given, Py_ssize_t count) {
  const bool fits = count == 2 && PyList_CheckExact(given[0]) && PyList_CheckExact(given[1]);
  return answer(fits, "leave_gradients: expected leaves (list), data (list)", [&] {
    leave_gradients(borrow<py::list>(given[0]), borrow<py::list>(given[1]));
    return py::none();
  });
}

PyObject* release_call(PyObject*, PyObject* const* given, Py_ssize_t count) {
  const bool fits = count == 1 && classes && Py_IS_TYPE(given[0], classes->entry);
  return answer(fits, "release: expected an entry", [&] {
    release(reinterpret_cast<EntryObject*>(given[0]));
    return py::none();
  });
}

PyObject* unchanged_call(PyObject*, PyObject* const* given, Py_ssize_t count) {
  const bool fits = count == 2 && PyList_CheckExact(given[0]) && PyList_CheckExact(given[1]);
  return answer(fits, "unchanged: expected environment (list), versions (list)",
                [&] { return py::bool_(unchanged(borrow<py::list>(given[0]), borrow<py::list>(given[1]))); });
}

bool fits_64_bits(PyObject* value) {
  int overflow = 0;
  PyLong_AsLongLongAndOverflow(value, &overflow);
  return overflow == 0;
}

bool is_number(PyObject* value) {
  return PyLong_Check(value) ? fits_64_bits(value) : PyFloat_CheckExact(value) || value == Py_None;
}

// Whether an argument that stands for integers holds nothing that incoming.py's `integers` would turn into one.
bool all_numbers(PyObject* value) {
  if (is_number(value) || PyUnicode_CheckExact(value)) return true;
  if (!PyTuple_Check(value) && !PyList_CheckExact(value)) return false;
  PyObject* const* const items = PySequence_Fast_ITEMS(value);
  return std::all_of(items, items + PySequence_Fast_GET_SIZE(value), is_number);
}

PyObject* integers_call(PyObject*, PyObject* const* given, Py_ssize_t count) {
  return answer(count == 3, "integers: expected value, op, argument", [&] {
    if (all_numbers(given[0])) return borrow<py::object>(given[0]);
    return own(PyObject_Vectorcall(classes->integers.ptr(), given, 3, nullptr));
  });
}

// Whether a leaf's gradient is still the Tensor around `data` that was left there, and nobody has it: a new one could
// not be told from it.
bool is_unseen(PyObject* gradient, py::handle data) {
  if (Py_REFCNT(gradient) != 1 || !lies_at(gradient, data) || *PyObject_GET_WEAKREFS_LISTPTR(gradient)) return false;
  return reinterpret_cast<TensorObject*>(gradient)->grad == Py_None;
}

}  // namespace

bool lies_at(PyObject* gradient, py::handle data) {
  if (!classes || !Py_IS_TYPE(gradient, classes->tensor)) return false;
  const auto* t = reinterpret_cast<TensorObject*>(gradient);
  return t->data == data.ptr() && t->node == Py_None;
}

bool is_plain(py::handle value) {
  if (Py_TYPE(value.ptr()) != reinterpret_cast<PyTypeObject*>(THPVariableClass)) return false;
  const at::Tensor& t = THPVariable_Unpack(value.ptr());
  const at::ScalarType type = t.scalar_type();
  const bool known = type == at::kFloat || type == at::kDouble || type == at::kLong || type == at::kBool;
  return known && t.layout() == at::kStrided && t.device().type() == at::kCPU && !t.requires_grad() && !t.is_nested() &&
         !t.is_inference() && !t.is_neg();
}

void leave_gradients(const py::list& leaves, const py::list& data) {
  if (leaves.size() != data.size()) throw py::type_error("leave_gradients: expected as many tensors as leaves");
  static PyTypeObject* type = nullptr;
  static Py_ssize_t offset = 0;
  for (size_t i = 0; i < leaves.size() && i < data.size(); ++i) {
    PyObject* const leaf = item(leaves, i).ptr();
    if (!type) {
      const py::object slot = own(PyObject_GetAttrString(reinterpret_cast<PyObject*>(Py_TYPE(leaf)), "grad"));
      if (!Py_IS_TYPE(slot.ptr(), &PyMemberDescr_Type)) throw py::type_error("leave_gradients: expected leaves");
      offset = reinterpret_cast<PyMemberDescrObject*>(slot.ptr())->d_member->offset;
      type = Py_TYPE(leaf);
    }
    if (!Py_IS_TYPE(leaf, type) || !is_tensor(item(data, i))) throw py::type_error("leave_gradients: expected leaves");
    PyObject** const at = reinterpret_cast<PyObject**>(reinterpret_cast<char*>(leaf) + offset);
    if (*at && is_unseen(*at, item(data, i))) continue;
    PyObject* const before = std::exchange(*at, tensor(borrow<py::object>(item(data, i)), py::none()).release().ptr());
    Py_XDECREF(before);
  }
}

void bind_tape(py::module_& m) {
  static PyMethodDef methods[] = {method("record", &record_call),
                                  method("tensor", &tensor_call),
                                  method("leave_gradients", &leave_gradients_call),
                                  method("unchanged", &unchanged_call),
                                  method("release", &release_call),
                                  method("collecting", &collecting),
                                  method("integers", &integers_call),
                                  method("walk", &walk),
                                  method("hold", &hold),
                                  method("sharers", &sharers),
                                  {}};
  PyModule_AddFunctions(m.ptr(), methods);
  const auto set = [](py::type entry, py::object leaf, py::object tensor, py::object next_slot, py::object inside,
                      py::object integers) {
    if (reinterpret_cast<PyTypeObject*>(entry.ptr())->tp_base != entry_base())
      throw py::type_error("tape_classes: entry must derive from EntryBase");
    if (!PyType_Check(tensor.ptr()) || !PyType_IsSubtype(reinterpret_cast<PyTypeObject*>(tensor.ptr()), tensor_base()))
      throw py::type_error("tape_classes: tensor must derive from TensorBase");
    auto* const tensor_type = reinterpret_cast<PyTypeObject*>(tensor.release().ptr());
    auto* const made = new Classes{reinterpret_cast<PyTypeObject*>(entry.release().ptr()),
                                   {std::move(leaf), {"hooks", "shape", "dtype"}},
                                   tensor_type,
                                   std::move(next_slot),
                                   std::move(inside),
                                   std::move(integers),
                                   py::module_::import("torch").attr("Size"),
                                   py::module_::import("sys").attr("_getframe")};
    // torch would read a Tensor that is an index as a tuple of its slices, with a warning: it asks PySequence_Size,
    // which fails without this slot. len() finds the mapping's. (A class with slots of Python's is one of its heap
    // types.)
    tensor_type->tp_as_sequence->sq_length = nullptr;
    classes = made;
  };
  m.def("tape_classes", set, py::arg("entry"), py::arg("leaf"), py::arg("tensor"), py::arg("next_slot"),
        py::arg("inside"), py::arg("integers"));
  m.attr("TensorBase") = py::handle(reinterpret_cast<PyObject*>(tensor_base()));
  m.attr("EntryBase") = py::handle(reinterpret_cast<PyObject*>(entry_base()));
  m.def("open_entries", &open_entries);
  m.def("is_plain", [](const py::object& value) { return is_plain(value); }, py::arg("value"));
  m.def("watched", [] { return switches.watched; });
  m.def("watch", [](bool on) { switches.watched = on; }, py::arg("on"));
}

}  // namespace tapegrad
