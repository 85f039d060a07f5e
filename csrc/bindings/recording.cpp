#include "bindings/recording.h"

#include <ATen/Functions.h>
#include <ATen/record_function.h>
#include <c10/core/impl/TorchDispatchModeTLS.h>
#include <torch/csrc/PyInterpreter.h>

#include <cstring>
#include <exception>
#include <memory>

#include "bindings/log.h"
#include "bindings/profile.h"
#include "ops/border.h"
#include "replay/views.h"

namespace tapegrad {
namespace {

py::object call(const py::object& function, const py::tuple& args, const py::dict& kwargs) {
  PyObject* result = PyObject_Call(function.ptr(), args.ptr(), kwargs.ptr());
  if (!result) throw py::error_already_set();
  return py::reinterpret_steal<py::object>(result);
}

// The profile function of this thread, of whatever kind: put back when it ends.
class Profiler {
 public:
  Profiler() {
    const PyThreadState* state = PyThreadState_Get();
    function_ = state->c_profilefunc;
    object_ = py::reinterpret_borrow<py::object>(state->c_profileobj);
  }
  ~Profiler() { PyEval_SetProfile(function_, object_.ptr()); }
  Profiler(const Profiler&) = delete;
  Profiler& operator=(const Profiler&) = delete;

 private:
  Py_tracefunc function_;
  py::object object_;
};

// The innermost of torch's dispatch modes, while it lives; then the stack is what it was.
class DispatchMode {
 public:
  explicit DispatchMode(const py::object& mode) : before_(Stack::get_state()) {
    Stack::push_non_infra_mode_onto_stack(
        std::make_shared<c10::impl::PyObject_TorchDispatchMode>(py::object(mode).release().ptr(), getPyInterpreter()));
  }
  ~DispatchMode() { Stack::set_state(std::move(before_)); }
  DispatchMode(const DispatchMode&) = delete;
  DispatchMode& operator=(const DispatchMode&) = delete;

 private:
  using Stack = c10::impl::TorchDispatchModeTLS;
  Stack before_;
};

class Tracer {
 public:
  Tracer(const py::object& mode, const py::object& recorder) : mode_(mode) {
    mode.attr("tracer") = recorder;
    set_recorder(recorder);
  }
  ~Tracer() {
    set_recorder(py::none());
    try {
      mode_.attr("tracer") = py::none();
    } catch (py::error_already_set& error) {
      error.discard_as_unraisable("tapegrad: leaving a recording");
    }
  }
  Tracer(const Tracer&) = delete;
  Tracer& operator=(const Tracer&) = delete;

 private:
  const py::object& mode_;
};

// Tells the recorder of values that are read where torch has switched dispatch modes off: `torch.tensor([x[0], 1.0])`
// does while it fills its memory. Torch catches what an observer throws, so it is kept until the call is over.
class UnseenReads {
 public:
  explicit UnseenReads(const py::object& recorder)
      : tell_(recorder.attr("read_unseen")), modes_(c10::impl::TorchDispatchModeTLS::stack_len()), before_(current_) {
    const auto observer = at::RecordFunctionCallback(&started).scopes({at::RecordScope::FUNCTION});
    handle_ = at::addThreadLocalCallback(observer);
    current_ = this;
  }
  ~UnseenReads() {
    at::removeCallback(handle_);
    current_ = before_;
  }
  UnseenReads(const UnseenReads&) = delete;
  UnseenReads& operator=(const UnseenReads&) = delete;

  void rethrow() const {
    if (error_) std::rethrow_exception(error_);
  }

 private:
  static std::unique_ptr<at::ObserverContext> started(const at::RecordFunction& function) {
    if (std::strcmp(function.name(), "aten::_local_scalar_dense") == 0 && current_->unseen()) current_->tell();
    return nullptr;
  }
  // What fills a tensor from a list switches functorch's modes off, too, which kernels and the recorder do not; while
  // the recorder runs an operator it is off the stack of modes.
  bool unseen() const {
    return c10::impl::tls_is_dispatch_key_excluded(c10::DispatchKey::Python) &&
           c10::impl::tls_is_dispatch_key_excluded(c10::DispatchKey::FuncTorchDynamicLayerFrontMode) &&
           c10::impl::TorchDispatchModeTLS::stack_len() >= modes_;
  }
  void tell() {
    const py::gil_scoped_acquire held;
    const ProfilePaused paused;
    try {
      tell_();
    } catch (...) {
      if (!error_) error_ = std::current_exception();
    }
  }

  inline static thread_local UnseenReads* current_ = nullptr;
  py::object tell_;
  int64_t modes_;
  UnseenReads* before_;
  at::CallbackHandle handle_;
  std::exception_ptr error_;
};

class NoCollection {  // what runs when garbage is collected is not the step's doing
 public:
  NoCollection() : before_(PyGC_Disable()) {}
  ~NoCollection() {
    if (before_) PyGC_Enable();
  }
  NoCollection(const NoCollection&) = delete;
  NoCollection& operator=(const NoCollection&) = delete;

 private:
  int before_;
};

// Plain C, as every replay passes through here.
PyObject* locked(PyObject*, PyObject* const* args, Py_ssize_t n) {
  static PyObject* const acquire = PyUnicode_InternFromString("acquire");
  static PyObject* const release = PyUnicode_InternFromString("release");
  if (n < 2) return PyErr_Format(PyExc_TypeError, "locked() takes a lock and a function");
  PyObject* held = PyObject_CallMethodNoArgs(args[0], acquire);
  if (!held) return nullptr;
  Py_DECREF(held);
  PyObject* result = PyObject_Vectorcall(args[1], args + 2, n - 2, nullptr);
  PyObject *type, *value, *traceback;
  PyErr_Fetch(&type, &value, &traceback);
  PyObject* released = PyObject_CallMethodNoArgs(args[0], release);
  if (released) PyErr_Restore(type, value, traceback);
  if (!released) Py_CLEAR(result);
  Py_XDECREF(released);
  return result;
}

}  // namespace

void Before::memory(const at::Tensor& bytes) {
  check_storage(bytes, "Before.memory", "bytes");
  if (!in_memory(bytes) || bytes.scalar_type() != at::kByte || bytes.storage_offset() != 0 || !bytes.is_contiguous())
    throw ShapeError("Before.memory: bytes must be contiguous uint8 from the start of a storage");
  memory_.emplace_back(bytes, bytes.clone());
}

void Before::attribute(py::object owner, py::str name, py::object value) {
  attributes_.push_back({std::move(owner), std::move(name), std::move(value)});
}

void Before::restore() {
  for (size_t i = memory_.size(); i-- > 0;) {
    const auto& [now, old] = memory_[i];
    if (now.storage().nbytes() >= static_cast<size_t>(old.numel()) && old.numel() > 0)
      std::memcpy(now.storage().mutable_data(), old.const_data_ptr(), old.numel());  // `now` may have been resized
  }
  for (size_t i = attributes_.size(); i-- > 0;) {
    const Attribute& a = attributes_[i];
    if (PyObject_SetAttr(a.owner.ptr(), a.name.ptr(), a.value.ptr()) != 0) throw py::error_already_set();
  }
  forget();
}

void Before::forget() {
  memory_.clear();
  attributes_.clear();
}

py::object record_call(const py::object& mode, const py::object& recorder, const py::object& function,
                       const py::tuple& args, const py::dict& kwargs) {
  const py::object record = mode.attr("record");
  try {
    const NoCollection none;
    const Tracer tracer(mode, recorder);
    const DispatchMode innermost(recorder);
    const UnseenReads reads(recorder);
    const Profiler profiler;
    set_profile(recorder.attr("_profile"));
    py::object result = call(function, args, kwargs);
    reads.rethrow();
    return result;
  } catch (...) {
    mode.attr("record") = record;  // backward switches it, and may have been interrupted
    throw;
  }
}

py::object all_or_nothing(Before& before, const py::object& function, const py::args& args) {
  const NoCollection still;  // comparing and lowering a long recording makes many objects, and garbage in no cycle
  try {
    return call(function, args, py::dict());
  } catch (...) {
    before.restore();
    throw;
  }
}

py::object taken_back(Before& before, const py::object& function, const py::args& args) {
  py::object result = all_or_nothing(before, function, args);
  before.restore();
  return result;
}

void bind_recording(py::module_& m) {
  py::class_<Before>(m, "Before")
      .def(py::init<>())
      .def("memory", &Before::memory, py::arg("bytes"))
      .def("attribute", &Before::attribute, py::arg("owner"), py::arg("name"), py::arg("value"))
      .def("restore", &Before::restore)
      .def("forget", &Before::forget);
  m.def("record_call", &record_call, py::arg("mode"), py::arg("recorder"), py::arg("function"), py::arg("args"),
        py::arg("kwargs"));
  m.def("all_or_nothing", &all_or_nothing, py::arg("before"), py::arg("function"));
  m.def("taken_back", &taken_back, py::arg("before"), py::arg("function"));
  static PyMethodDef functions[] = {
      {"locked", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(&locked)), METH_FASTCALL,
       "locked(lock, function, *args): function(*args) while this thread holds the lock."},
      {nullptr, nullptr, 0, nullptr}};
  if (PyModule_AddFunctions(m.ptr(), functions) != 0) throw py::error_already_set();
}

}  // namespace tapegrad
