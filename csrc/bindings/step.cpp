// A call of a compiled step. The usual one, a program of the last few calls whose arguments have come in the same
// layout and whose guards hold, is served here, without a frame of Python, and without its lock while the GIL is held
// from the first guard to the last result. Every other call is `__call__` of step.py, which is the definition, and
// which says by `_serve` what may be served here.
#include "bindings/step.h"

#include <pthread.h>
#include <structmember.h>
#include <torch/csrc/utils/tensor_numpy.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <tuple>
#include <utility>
#include <vector>

#include "bindings/holder.h"
#include "bindings/replayed.h"
#include "bindings/switches.h"
#include "bindings/tape.h"

namespace tapegrad {
namespace {

// A program, and the calls that it serves.
struct Served {
  std::shared_ptr<Replay> replay;
  bool record;
  at::ScalarType dtype;  // torch's default when it was recorded
  uint64_t audit;        // every so many calls one is left to Python
  py::tuple types;       // of the arguments: Tensor, torch.Tensor or numpy.ndarray
};

struct StepObject {
  PyObject_HEAD vectorcallfunc call;
  std::vector<Served>* served;  // latest first
  PyObject* lock;               // held by Python's calls, and by those from here that let other threads run
  Py_ssize_t inside;            // calls that hold it
  int forks;                    // of this process and its parents when they came in
};
constexpr size_t kServed = 4;
int forks = 0;

StepObject* cast(PyObject* self) { return reinterpret_cast<StepObject*>(self); }

// The arguments of a call: their tensors, and the objects that hold these.
struct Arguments {
  c10::SmallVector<at::Tensor, 4> tensors;
  Holders holders;
  std::vector<py::object> made;  // Tensors around arrays
};

// An array whose memory a tensor can share; false where Python has to see to it.
bool take_array(PyObject* array, Arguments& taken) {
  Py_buffer view;
  if (PyObject_GetBuffer(array, &view, PyBUF_STRIDES | PyBUF_WRITABLE) != 0) {
    PyErr_Clear();
    return false;
  }
  bool sharable = view.ndim > 0;
  for (int i = 0; i < view.ndim; ++i) sharable = sharable && view.strides[i] >= 0;
  PyBuffer_Release(&view);
  if (!sharable) return false;
  try {
    taken.tensors.push_back(torch::utils::tensor_from_numpy(array, false));
  } catch (const std::exception&) {
    PyErr_Clear();
    return false;
  }
  taken.made.push_back(make_tensor(classes->tensor, own(THPVariable_Wrap(taken.tensors.back())), py::none()));
  taken.holders.push_back(taken.made.back());
  return true;
}

bool take(PyObject* value, PyObject* type, Arguments& taken) {
  if (reinterpret_cast<PyObject*>(Py_TYPE(value)) != type) return false;
  PyObject* data = value;
  if (Py_IS_TYPE(value, classes->tensor)) {
    const auto* t = reinterpret_cast<TensorObject*>(value);
    data = t->data;
    if (t->node != Py_None || t->grad != Py_None || !data || !is_tensor(data)) return false;
  } else if (type != THPVariableClass) {
    return take_array(value, taken);
  } else if (!is_plain(value)) {
    return false;
  }
  taken.tensors.push_back(THPVariable_Unpack(data));
  taken.holders.push_back(value);
  return true;
}

bool fits(const Served& one, PyObject* const* given, size_t count, Arguments& taken) {
  if (one.record != switches.record || one.dtype != c10::get_default_dtype_as_scalartype()) return false;
  if (one.types.size() != count || (one.replay->calls + 1) % one.audit == 0) return false;
  taken = {};
  for (size_t i = 0; i < count; ++i)
    if (!take(given[i], PyTuple_GET_ITEM(one.types.ptr(), static_cast<Py_ssize_t>(i)), taken)) return false;
  return one.replay->takes(taken.tensors);
}

// A forked child has a new lock, which nobody holds.
Py_ssize_t now_inside(const StepObject* step) { return step->forks == forks ? step->inside : 0; }

// False where waiting for it was interrupted.
bool enter(StepObject* step) {
  static PyObject* const acquire = PyUnicode_InternFromString("acquire");
  if (!step->lock) return PyErr_SetString(PyExc_AttributeError, "_lock"), false;
  PyObject* const held = PyObject_CallMethodNoArgs(step->lock, acquire);
  if (!held) return false;
  Py_DECREF(held);
  step->inside = now_inside(step) + 1;
  step->forks = forks;
  return true;
}

void leave(StepObject* step) {
  static PyObject* const release = PyUnicode_InternFromString("release");
  if (now_inside(step) > 0) --step->inside;
  const py::error_scope pending;
  py::reinterpret_steal<py::object>(PyObject_CallMethodNoArgs(step->lock, release));
}

// Held while a call lets other threads run.
class Lock {
 public:
  explicit Lock(StepObject* step) : step_(step) {
    if (!enter(step)) throw py::error_already_set();
  }
  ~Lock() { leave(step_); }
  Lock(const Lock&) = delete;
  Lock& operator=(const Lock&) = delete;

 private:
  StepObject* step_;
};

// Python's exception for what C++ has thrown.
void raise(std::exception_ptr thrown) {
  static std::exception_ptr now;
  static PyObject* const thrower =
      py::cpp_function([] { std::rethrow_exception(std::exchange(now, nullptr)); }).release().ptr();
  now = std::move(thrown);
  Py_XDECREF(PyObject_CallNoArgs(thrower));
}

// self.name(*given)
PyObject* call_method(PyObject* self, const char* name, PyObject* const* given, size_t count) {
  const py::object method = py::reinterpret_steal<py::object>(PyObject_GetAttrString(self, name));
  return method ? PyObject_Vectorcall(method.ptr(), given, count, nullptr) : nullptr;
}

// The class's __call__, which is Python's.
PyObject* call_python(PyObject* self, PyObject* const* given, size_t count, PyObject* names) {
  try {
    py::tuple positional(count);
    for (size_t i = 0; i < count; ++i) positional[i] = borrow<py::object>(given[i]);
    py::dict named;
    for (Py_ssize_t i = 0; names && i < PyTuple_GET_SIZE(names); ++i)
      named[PyTuple_GET_ITEM(names, i)] = borrow<py::object>(given[count + static_cast<size_t>(i)]);
    return Py_TYPE(self)->tp_call(self, positional.ptr(), named ? named.ptr() : nullptr);
  } catch (py::error_already_set& error) {
    error.restore();
    return nullptr;
  }
}

// What the program returns, or null: without an error where it does not serve the call after all.
PyObject* replayed(PyObject* self, const Served& one, PyObject* const* given, size_t count, const Arguments& taken) {
  std::exception_ptr thrown;
  {
    std::optional<Lock> alone;
    if (one.replay->lets_go()) alone.emplace(cast(self));
    if (!one.replay->serves(taken.tensors)) return nullptr;
    try {
      return one.replay->step(taken.tensors, taken.holders, true).release().ptr();
    } catch (...) {
      thrown = std::current_exception();
    }
  }
  const int64_t failed = one.replay->failed();
  if (failed >= one.replay->first_write) {
    raise(thrown);
    return nullptr;
  }
  return call_method(self, "_eager", given, count);  // which says what is wrong
}

void latest_first(std::vector<Served>& all, const std::shared_ptr<Replay>& last) {
  const auto is_it = [&](const Served& one) { return one.replay == last; };
  const auto at = std::find_if(all.begin(), all.end(), is_it);
  if (at != all.end()) std::rotate(all.begin(), at, at + 1);
}

PyObject* called(PyObject* self, PyObject* const* given, size_t flagged, PyObject* names) {
  StepObject* const step = cast(self);
  const size_t count = static_cast<size_t>(PyVectorcall_NARGS(flagged));
  const bool usual = !names || PyTuple_GET_SIZE(names) == 0;
  if (usual && step->served && now_inside(step) == 0 && !switches.tracer && !switches.watched) {
    Arguments taken;
    for (size_t i = 0; i < step->served->size(); ++i) {
      const Served one = (*step->served)[i];  // what is called may change the list
      if (!fits(one, given, count, taken)) continue;
      PyObject* result = nullptr;
      try {
        result = replayed(self, one, given, count, taken);
      } catch (py::error_already_set& error) {
        error.restore();
      }
      if (result && i > 0) latest_first(*step->served, one.replay);
      if (result || PyErr_Occurred()) return result;
    }
  }
  return call_python(self, given, count, names);
}

// --- for Python ---------------------------------------------------------------------------------------------------

// _serve(replay, record, dtype, audit, types of the arguments): calls that this program serves.
PyObject* serve(PyObject* self, PyObject* args) {
  return answer(true, "", [&] {
    const auto [replay, record, dtype, audit, types] =
        borrow<py::tuple>(args).cast<std::tuple<std::shared_ptr<Replay>, bool, at::ScalarType, uint64_t, py::tuple>>();
    if (!replay || audit == 0) throw py::value_error("_serve: expected a program, and an audit of at least 1");
    StepObject* const step = cast(self);
    if (!step->served) step->served = new std::vector<Served>();
    auto& all = *step->served;
    const auto is_it = [&r = replay](const Served& one) { return one.replay == r; };
    all.erase(std::remove_if(all.begin(), all.end(), is_it), all.end());
    all.insert(all.begin(), Served{replay, record, dtype, audit, types});
    if (all.size() > kServed) all.pop_back();
    return py::none();
  });
}

// _forget(replay): this program serves nothing any more.
PyObject* forget(PyObject* self, PyObject* replay) {
  return answer(true, "", [&] {
    auto gone = py::handle(replay).cast<std::shared_ptr<Replay>>();
    if (auto* all = cast(self)->served) {
      const auto is_it = [&](const Served& one) { return one.replay == gone; };
      all->erase(std::remove_if(all->begin(), all->end(), is_it), all->end());
    }
    return py::none();
  });
}

// _latest(): the programs that are served here, latest first.
PyObject* latest(PyObject* self, PyObject*) {
  return answer(true, "", [&] {
    py::list all;
    if (cast(self)->served)
      for (const Served& one : *cast(self)->served) all.append(one.replay);
    return all;
  });
}

// _alone(function, *args): function(*args) while this thread alone is inside.
PyObject* alone(PyObject* self, PyObject* const* given, Py_ssize_t count) {
  return answer(count > 0, "_alone: expected a function", [&] {
    const Lock held(cast(self));
    return own(PyObject_Vectorcall(given[0], given + 1, static_cast<size_t>(count - 1), nullptr));
  });
}

// `with step:` this thread alone is inside.
PyObject* enter_step(PyObject* self, PyObject*) { return enter(cast(self)) ? Py_NewRef(self) : nullptr; }
PyObject* exit_step(PyObject* self, PyObject*) {
  leave(cast(self));
  return Py_NewRef(Py_None);
}

PyObject* create(PyTypeObject* type, PyObject*, PyObject*) {
  if (!type->tp_call) return PyErr_Format(PyExc_TypeError, "%s does not define __call__", type->tp_name);
  type->tp_flags |= Py_TPFLAGS_HAVE_VECTORCALL;  // which a class of Python's does not inherit
  PyObject* const made = type->tp_alloc(type, 0);
  if (made) cast(made)->call = &called;
  return made;
}

int visit_all(PyObject* self, visitproc visit, void* arg) {
  Py_VISIT(cast(self)->lock);
  return 0;
}

int clear(PyObject* self) {
  std::unique_ptr<std::vector<Served>> served(std::exchange(cast(self)->served, nullptr));
  Py_CLEAR(cast(self)->lock);
  return 0;
}

void dealloc(PyObject* self) {
  PyObject_GC_UnTrack(self);
  clear(self);
  Py_TYPE(self)->tp_free(self);
}

PyMethodDef methods[] = {{"_serve", serve, METH_VARARGS, nullptr},
                         {"_forget", forget, METH_O, nullptr},
                         {"_latest", latest, METH_NOARGS, nullptr},
                         method("_alone", &alone),
                         {"__enter__", enter_step, METH_NOARGS, nullptr},
                         {"__exit__", exit_step, METH_VARARGS, nullptr},
                         {}};
PyMemberDef members[] = {{"_lock", T_OBJECT_EX, offsetof(StepObject, lock), 0, nullptr}, {}};

PyTypeObject make_type() {
  PyTypeObject type{};
  Py_SET_REFCNT(reinterpret_cast<PyObject*>(&type), 1);
  type.tp_name = "tapegrad._C.Step";
  type.tp_basicsize = sizeof(StepObject);
  type.tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC;
  type.tp_doc = "What a compiled step is: a call of it, and its lock.";
  type.tp_vectorcall_offset = offsetof(StepObject, call);
  type.tp_new = create;
  type.tp_traverse = visit_all;
  type.tp_clear = clear;
  type.tp_dealloc = dealloc;
  type.tp_methods = methods;
  type.tp_members = members;
  return type;
}

}  // namespace

void bind_step(py::module_& m) {
  static PyTypeObject type = make_type();
  if (PyType_Ready(&type) != 0) throw py::error_already_set();
  pthread_atfork(nullptr, nullptr, [] { ++forks; });
  m.attr("Step") = py::handle(reinterpret_cast<PyObject*>(&type));
}

}  // namespace tapegrad
