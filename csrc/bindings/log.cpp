#include "bindings/log.h"

#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "bindings/kernel.h"
#include "bindings/nodes.h"
#include "bindings/profile.h"
#include "bindings/slots.h"

namespace tapegrad {
namespace {

// What the Python side gives once: the classes of trace.py and what is known of kernels and operators.
struct TraceClasses {
  py::object ref, call;  // named tuples of five
  Slotted<5> slot;       // kind, nbytes, tensor, source, written
  py::object special;    // kernels (names) that go to recorder._kernel
  py::object operators;  // operators by the names of kernels that stand for them
  py::object schemas;    // of operators, see schemas.py
  py::object special_operators;
  py::object is_users, place;  // of watch.py
  py::object made = own(PyUnicode_InternFromString("made")), nothing = py::tuple();
};
const TraceClasses* known = nullptr;  // for the life of the process

thread_local PyObject* current = nullptr;  // the recorder, owned
thread_local Log* current_log = nullptr;   // its own

struct Kernel {
  py::object function;
  bool special, writes;  // writes: its first argument
};

// By the address of its name, which stays.
const Kernel& kernel_of(const char* name) {
  static auto& all = *new std::unordered_map<const void*, Kernel>;
  const auto found = all.find(name);
  if (found != all.end()) return found->second;
  const py::object text = own(PyUnicode_InternFromString(name));
  const py::object stands_for = borrow<py::object>(PyDict_GetItemWithError(known->operators.ptr(), text.ptr()));
  const bool special = PySequence_Contains(known->special.ptr(), text.ptr()) == 1;
  const std::string_view base = std::string_view(name).substr(0, std::string_view(name).find('.'));
  return all.emplace(name, Kernel{stands_for ? stands_for : text, special, base.back() == '_'}).first->second;
}

struct Operator {
  py::object self, run;  // kept: its address is the key
  py::tuple defaults, writes;
  bool special, makes, view;
};

const Operator& operator_of(const py::object& function) {
  static auto& all = *new std::unordered_map<const void*, Operator>;
  const auto found = all.find(function.ptr());
  if (found != all.end()) return found->second;
  const py::object schema = known->schemas[function];
  const bool special =
      !schema.attr("refusal").is_none() || PySequence_Contains(known->special_operators.ptr(), function.ptr()) == 1;
  const Operator made{function,
                      schema.attr("run"),
                      schema.attr("defaults"),
                      schema.attr("writes"),
                      special,
                      schema.attr("makes").cast<bool>(),
                      schema.attr("view").cast<bool>()};
  return all.emplace(function.ptr(), made).first->second;
}

bool is_plain_tensor(py::handle value) {
  return Py_IS_TYPE(value.ptr(), reinterpret_cast<PyTypeObject*>(THPVariableClass));
}

// Tuples of numbers and Refs can be part of no cycle: the collector need not see them.
py::object hidden(py::object made) {
  PyObject_GC_UnTrack(made.ptr());
  return made;
}

py::object numbers(at::IntArrayRef values) {
  if (values.empty()) return known->nothing;
  py::object made = own(PyTuple_New(static_cast<Py_ssize_t>(values.size())));
  for (size_t i = 0; i < values.size(); ++i)
    PyTuple_SET_ITEM(made.ptr(), i, own(PyLong_FromLongLong(values[i])).release().ptr());
  return hidden(std::move(made));
}

template <class... Items>
py::object named_tuple(const py::object& kind, Items&&... items) {
  auto* const type = reinterpret_cast<PyTypeObject*>(kind.ptr());
  py::object made = own(type->tp_alloc(type, sizeof...(Items)));
  Py_ssize_t i = 0;
  (PyTuple_SET_ITEM(made.ptr(), i++, py::object(std::forward<Items>(items)).release().ptr()), ...);
  return made;
}

const c10::StorageImpl* storage_of(const at::Tensor& t) {
  const c10::StorageImpl* storage = t.storage().unsafeGetStorageImpl();
  if (!storage) throw py::type_error("a tensor without a storage cannot be recorded");
  return storage;
}

void gather(PyObject* value, PyObject* found) {
  if (Py_IS_TYPE(value, reinterpret_cast<PyTypeObject*>(known->ref.ptr()))) {
    if (PyList_Append(found, value) != 0) throw py::error_already_set();
    return;
  }
  if (PyDict_Check(value)) {
    const Deeper deeper;
    PyObject *key, *item;
    for (Py_ssize_t at = 0; PyDict_Next(value, &at, &key, &item);) gather(item, found);
    return;
  }
  if (!PyTuple_Check(value) && !PyList_CheckExact(value)) return;
  if (!PyTuple_CheckExact(value) && !PyList_CheckExact(value)) {  // a named tuple of the user's, or none
    static PyObject* const fields = PyUnicode_InternFromString("_fields");
    if (!PyObject_HasAttr(reinterpret_cast<PyObject*>(Py_TYPE(value)), fields)) return;
  }
  const Deeper deeper;
  for (Py_ssize_t i = 0; i < PySequence_Fast_GET_SIZE(value); ++i) gather(PySequence_Fast_GET_ITEM(value, i), found);
}

void check_known() {
  if (!known) throw std::runtime_error("_C.trace_classes comes first");
}

// refs_of(value): every Ref among arguments, in lists and structures too.
PyObject* refs_of_call(PyObject*, PyObject* const* given, Py_ssize_t count) {
  return answer(count == 1 && known, "refs_of: expected a value, and _C.trace_classes before", [&] {
    py::object found = own(PyList_New(0));
    gather(given[0], found.ptr());
    return found;
  });
}

}  // namespace

void set_recorder(const py::object& recorder) {
  Log* const log = recorder.is_none() ? nullptr : &recorder.attr("log").cast<Log&>();
  PyObject* before = current;
  current = recorder.is_none() ? nullptr : recorder.inc_ref().ptr();
  current_log = log;
  Py_XDECREF(before);
}

PyObject* recorder() { return current; }

void tell(const char* name, const py::tuple& arguments, const py::object& result) {
  const auto told = py::reinterpret_borrow<py::object>(current);
  current_log->kernel(told, name, arguments, result);
}

const Log::Place* Log::find(const at::Tensor& t) const {
  const auto found = places_.find(storage_of(t));
  return found == places_.end() ? nullptr : &found->second;
}

int64_t Log::slot(const at::Tensor& t) const {
  const Place* place = find(t);
  return place ? place->slot : -1;
}

int64_t Log::added(const at::Tensor& t) const {
  const Place* place = find(t);
  return place ? place->added : 0;
}

void Log::name(const at::Tensor& t, int64_t slot, bool odd) {
  const c10::StorageImpl* const storage = storage_of(t);
  alive_.emplace_back(t.storage().getWeakStorageImpl());
  Place place;
  place.slot = slot;
  place.odd = odd;
  places_[storage] = std::move(place);
}

py::object Log::ref(const py::object& recorder, py::handle tensor) {
  const at::Tensor& t = THPVariable_Unpack(tensor.ptr());
  const auto found = places_.find(storage_of(t));
  if (found == places_.end() || found->second.odd) {
    const ProfilePaused paused;
    return recorder.attr("_odd_ref")(tensor);
  }
  Place& place = found->second;
  if (place.ref && place.dtype == t.scalar_type() && place.offset == t.storage_offset() &&
      t.sizes() == at::IntArrayRef(place.sizes) && t.strides() == at::IntArrayRef(place.strides))
    return place.ref;
  py::object made =
      hidden(named_tuple(known->ref, own(PyLong_FromLongLong(place.slot)),
                         borrow<py::object>(reinterpret_cast<PyObject*>(torch::getTHPDtype(t.scalar_type()))),
                         own(PyLong_FromLongLong(t.storage_offset())), numbers(t.sizes()), numbers(t.strides())));
  if (!place.ref) {
    place.dtype = t.scalar_type();
    place.offset = t.storage_offset();
    place.sizes.assign(t.sizes().begin(), t.sizes().end());
    place.strides.assign(t.strides().begin(), t.strides().end());
    place.ref = made;
  }
  return made;
}

py::object Log::refs(const py::object& recorder, py::handle value) {
  check_known();
  if (is_tensor(value)) return ref(recorder, value);
  const bool list = PyList_Check(value.ptr());
  if (!list && !PyTuple_Check(value.ptr())) return borrow<py::object>(value);
  const Deeper deeper;
  py::object made = own(PyTuple_New(PySequence_Fast_GET_SIZE(value.ptr())));
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(made.ptr()); ++i)
    PyTuple_SET_ITEM(made.ptr(), i,
                     refs(recorder, borrow<py::object>(PySequence_Fast_GET_ITEM(value.ptr(), i))).release().ptr());
  return made;
}

py::object Log::made(const py::object& recorder, py::handle value) {
  check_known();
  if (value.is_none()) return py::none();
  if (!is_tensor(value)) throw py::type_error("a result is a tensor");
  const at::Tensor& t = THPVariable_Unpack(value.ptr());
  if (!find(t)) {
    const auto nbytes = own(PyLong_FromSize_t(t.storage().nbytes()));
    slots_.append(known->slot.make(known->made, nbytes, py::none(), py::str(), py::bool_(false)));
    name(t, static_cast<int64_t>(slots_.size()) - 1, false);
    places_.at(storage_of(t)).added = static_cast<int64_t>(t.storage().use_count()) - 1;
  }
  return ref(recorder, value);
}

void Log::append(const py::object& recorder, py::object function, py::object arguments, py::object outs,
                 py::object writes) {
  check_known();
  py::object line = user_line(known->is_users, known->place);
  calls_.append(named_tuple(known->call, std::move(function), std::move(arguments), std::move(outs), std::move(writes),
                            std::move(line)));
  if (static_cast<int64_t>(calls_.size()) % often_ == 0) {
    const ProfilePaused paused;
    recorder.attr("_look")();
  }
}

py::object Log::outs(const py::object& recorder, const py::object& result) {
  if (result.is_none()) return known->nothing;
  const bool several = PyTuple_Check(result.ptr()) || PyList_Check(result.ptr());
  py::object all = own(PyTuple_New(several ? PySequence_Fast_GET_SIZE(result.ptr()) : 1));
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(all.ptr()); ++i) {
    const py::handle one = several ? py::handle(PySequence_Fast_GET_ITEM(result.ptr(), i)) : py::handle(result);
    PyTuple_SET_ITEM(all.ptr(), i, made(recorder, one).release().ptr());
  }
  return all;
}

void Log::before_write(const py::object& recorder, py::handle value) {
  if (is_tensor(value)) {
    const Place* place = find(THPVariable_Unpack(value.ptr()));
    if (place && !place->odd && static_cast<size_t>(place->slot) < slots_.size()) {
      const py::object slot = slots_[static_cast<size_t>(place->slot)];
      if (known->slot.holds(slot) && known->slot.get(slot, 0) == known->made.ptr()) {
        slot.attr("written") = true;
        return;
      }
    }
  }
  const ProfilePaused paused;
  recorder.attr("_before_write")(value);
}

// f(); what it raises goes through the recorder, which makes a CompileError of it or ends the recording. Whether all
// is well.
template <class F>
bool Log::ours(const py::object& recorder, const F& f) {
  py::object error;
  try {
    f();
    return true;
  } catch (const py::error_already_set& raised) {
    if (!raised.matches(PyExc_Exception)) throw;
    error = raised.value();
  } catch (const std::exception& raised) {
    error = py::reinterpret_borrow<py::object>(PyExc_RuntimeError)(raised.what());
  }
  const ProfilePaused paused;
  recorder.attr("_fail")(error);
  return false;
}

void Log::kernel(const py::object& recorder, const char* name, const py::tuple& arguments, const py::object& result) {
  if (over_) return;
  const Kernel& kernel = kernel_of(name);
  if (kernel.special) {
    const ProfilePaused paused;
    recorder.attr("_kernel")(name, arguments, result);
    return;
  }
  ours(recorder, [&] {
    py::object given = refs(recorder, arguments);
    if (kernel.writes) before_write(recorder, item(arguments, 0));
    append(recorder, kernel.function, std::move(given), outs(recorder, result),
           kernel.writes ? py::object(py::make_tuple(0)) : known->nothing);
  });
}

// Notes what an operator did, where it is one tensor that is new, or the one that was written; else false.
bool Log::write(const py::object& recorder, const py::object& function, py::object refs, const py::tuple& writes,
                bool makes, const py::object& result) {
  if (!is_plain_tensor(result)) return false;
  const Place* place = find(THPVariable_Unpack(result.ptr()));
  if (writes.empty() && !place) {
    py::object out = made(recorder, result);
    if (makes) append(recorder, function, std::move(refs), py::make_tuple(std::move(out)), known->nothing);
    return true;
  }
  if (writes.size() != 1 || !place) return false;
  const py::handle target = item(borrow<py::tuple>(refs), static_cast<size_t>(index(item(writes, 0))));
  if (!Py_IS_TYPE(target.ptr(), reinterpret_cast<PyTypeObject*>(known->ref.ptr()))) return false;
  if (index(item(borrow<py::tuple>(target), 0)) != place->slot) return false;
  append(recorder, function, std::move(refs), known->nothing, writes);
  return true;
}

py::object Log::operate(const py::object& recorder, const py::object& function, const py::tuple& arguments) {
  check_known();
  const Operator& op = operator_of(function);
  if (op.special || over_) return recorder.attr("_operate")(function, arguments, py::dict());
  const auto run = [&] {
    PyObject* const* const first = arguments.empty() ? nullptr : &PyTuple_GET_ITEM(arguments.ptr(), 0);
    return own(PyObject_Vectorcall(op.run.ptr(), first, arguments.size(), nullptr));
  };
  if (op.view) {
    py::object result = run();
    const py::handle of = arguments.empty() ? py::handle(Py_None) : item(arguments, 0);
    const auto inside = [&](py::handle one) {
      return is_plain_tensor(one) && is_tensor(of) &&
             THPVariable_Unpack(one.ptr()).storage().is_alias_of(THPVariable_Unpack(of.ptr()).storage());
    };
    const bool several = PyList_CheckExact(result.ptr()) || PyTuple_CheckExact(result.ptr());
    bool all = several || inside(result);
    for (Py_ssize_t i = 0; several && all && i < PySequence_Fast_GET_SIZE(result.ptr()); ++i)
      all = inside(PySequence_Fast_GET_ITEM(result.ptr(), i));
    if (!all) recorder.attr("_viewed")(function, arguments, py::dict(), result);
    return result;
  }
  py::object given;
  const bool announced = ours(recorder, [&] {
    py::list values(arguments);
    for (size_t i = values.size(); i < op.defaults.size(); ++i) values.append(item(op.defaults, i));
    given = refs(recorder, values);
    for (const py::handle i : op.writes) before_write(recorder, item(values, static_cast<size_t>(index(i))));
  });
  py::object result = run();
  if (!announced || over_) return result;
  bool noted = true;
  ours(recorder, [&] { noted = write(recorder, function, given, op.writes, op.makes, result); });
  if (!noted) recorder.attr("_ran")(function, given, op.writes, result);
  return result;
}

void bind_log(py::module_& m) {
  static PyMethodDef methods[] = {method("refs_of", &refs_of_call), {}};
  PyModule_AddFunctions(m.ptr(), methods);
  const auto set = [](py::type ref, py::type call, py::type slot, py::object special, py::dict operators,
                      py::dict schemas, py::object special_operators, py::object is_users, py::object place) {
    for (const py::type& kind : {ref, call})
      if (!PyType_IsSubtype(reinterpret_cast<PyTypeObject*>(kind.ptr()), &PyTuple_Type) ||
          py::len(kind.attr("_fields")) != 5)
        throw py::type_error("trace_classes: Ref and Call are named tuples of five");
    known = new TraceClasses{std::move(ref),
                             std::move(call),
                             {std::move(slot), {"kind", "nbytes", "tensor", "source", "written"}},
                             std::move(special),
                             std::move(operators),
                             std::move(schemas),
                             std::move(special_operators),
                             std::move(is_users),
                             std::move(place)};
  };
  m.def("trace_classes", set, py::arg("ref"), py::arg("call"), py::arg("slot"), py::arg("special"),
        py::arg("operators"), py::arg("schemas"), py::arg("special_operators"), py::arg("is_users"), py::arg("place"));
  py::class_<Log>(m, "Log")
      .def(py::init([](py::list calls, py::list slots, int64_t often) {
             if (often < 1) throw std::invalid_argument("Log: often must be at least 1");
             return std::make_unique<Log>(std::move(calls), std::move(slots), often);
           }),
           py::arg("calls"), py::arg("slots"), py::arg("often"))
      .def("slot", &Log::slot, py::arg("t"))
      .def("name", &Log::name, py::arg("t"), py::arg("slot"), py::arg("odd") = false)
      .def("added", &Log::added, py::arg("t"))
      .def("refs", &Log::refs, py::arg("recorder"), py::arg("value"))
      .def("made", &Log::made, py::arg("recorder"), py::arg("value"))
      .def("append", &Log::append, py::arg("recorder"), py::arg("function"), py::arg("arguments"), py::arg("outs"),
           py::arg("writes"))
      .def("operate", &Log::operate, py::arg("recorder"), py::arg("function"), py::arg("arguments"))
      .def("stop", &Log::stop);
}

}  // namespace tapegrad
