#include "bindings/switches.h"

#include <utility>

namespace tapegrad {
namespace {

PyObject* get_record(PyObject*, void*) { return PyBool_FromLong(switches.record); }
int set_record(PyObject*, PyObject* value, void*) {
  const int on = PyObject_IsTrue(value ? value : Py_True);  // del puts the default back
  if (on >= 0) switches.record = on == 1;
  return on < 0 ? -1 : 0;
}

PyObject* get_tracer(PyObject*, void*) {
  PyObject* const tracer = switches.tracer ? switches.tracer : Py_None;
  Py_INCREF(tracer);
  return tracer;
}
int set_tracer(PyObject*, PyObject* value, void*) {
  PyObject* const tracer = value == Py_None ? nullptr : value;  // null: del
  Py_XINCREF(tracer);
  PyObject* const before = std::exchange(switches.tracer, tracer);
  Py_XDECREF(before);
  return 0;
}

PyGetSetDef fields[] = {{"record", get_record, set_record, "grad mode", nullptr},
                        {"tracer", get_tracer, set_tracer, "what records a compiled step, or None", nullptr},
                        {}};

PyTypeObject make_type() {
  PyTypeObject type{};
  Py_SET_REFCNT(reinterpret_cast<PyObject*>(&type), 1);
  type.tp_name = "tapegrad._C.Switches";
  type.tp_basicsize = sizeof(PyObject);
  type.tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE;
  type.tp_doc = "This thread's switches.";
  type.tp_getset = fields;
  type.tp_new = PyType_GenericNew;
  return type;
}

}  // namespace

void bind_switches(py::module_& m) {
  static PyTypeObject type = make_type();
  if (PyType_Ready(&type) != 0) throw py::error_already_set();
  m.attr("Switches") = py::handle(reinterpret_cast<PyObject*>(&type));
}

}  // namespace tapegrad
