#include "bindings/replay.h"

#include <torch/csrc/jit/python/pybind_utils.h>
#include <torch/csrc/utils/python_symnode.h>  // THPVariable_Unpack

#include <cstring>

#include "bindings/direct.h"
#include "bindings/kernel.h"
#include "bindings/lanes.h"
#include "bindings/tape.h"
#include "replay/arena.h"
#include "replay/executor.h"
#include "replay/tile.h"
#include "replay/torch_call.h"

namespace tapegrad {
namespace {

using Sizes = std::vector<int64_t>;
using Tensors = std::vector<at::Tensor>;

std::vector<Draws> draws_of(const std::vector<std::tuple<uint64_t, uint64_t, uint64_t>>& given) {
  std::vector<Draws> draws;
  for (const auto& [seed, offset, blocks] : given) draws.push_back({seed, offset, blocks});
  return draws;
}

Tensors defined_or_not(const std::vector<std::optional<at::Tensor>>& outs) {
  Tensors given;
  for (const auto& t : outs) given.push_back(t.value_or(at::Tensor()));
  return given;
}

std::unique_ptr<Call> bind_kernel(const std::string& name, const py::tuple& arguments, Tensors outs) {
  const auto found = binders().find(name);
  if (found == binders().end()) throw std::invalid_argument("no kernel is called " + name);
  return found->second(arguments, std::move(outs));
}

// Arguments in the order of the operator's schema, out= ones included.
std::unique_ptr<Call> bind_torch(const std::string& name, const std::string& overload, const py::tuple& arguments,
                                 Tensors outs, bool into) {
  const c10::OperatorHandle op = c10::Dispatcher::singleton().findSchemaOrThrow(name.c_str(), overload.c_str());
  const auto& formal = op.schema().arguments();
  if (formal.size() != arguments.size())
    throw std::invalid_argument(name + " takes " + std::to_string(formal.size()) + " arguments");
  const torch::jit::ToIValueAllowNumbersAsTensors numbers(true);
  torch::jit::Stack stack;
  for (size_t i = 0; i < formal.size(); ++i) stack.push_back(torch::jit::toIValue(arguments[i], formal[i].type()));
  return std::make_unique<TorchCall>(op, std::move(stack), std::move(outs), into);
}

// Whether every tensor among these values, in lists and tuples too, lies in the executor's own memory.
bool all_own(const Executor& e, py::handle values) {
  if (THPVariable_Check(values.ptr())) return e.owns(THPVariable_Unpack(values.ptr()));
  if (!PyTuple_Check(values.ptr()) && !PyList_Check(values.ptr())) return true;
  for (const py::handle value : values)
    if (!all_own(e, value)) return false;
  return true;
}
Tensors own_places(const Executor& e, const std::vector<std::optional<at::Tensor>>& outs) {
  Tensors given = defined_or_not(outs);
  for (const at::Tensor& t : given)
    if (t.defined() && !e.owns(t)) throw std::invalid_argument("Executor: results go to views of its slots");
  return given;
}

using DrawsGiven = std::vector<std::tuple<uint64_t, uint64_t, uint64_t>>;

int64_t run(Executor& e, const Tensors& arrays, const std::optional<at::Tensor>& order, int64_t rows, int64_t first,
            int64_t count, const at::Tensor& losses, const std::vector<double>& numbers, const DrawsGiven& draws,
            const py::function& tick) {
  const auto ask = [&](int64_t done) {
    const py::gil_scoped_acquire locked;
    if (PyErr_CheckSignals() != 0) throw py::error_already_set();
    return tick(done).cast<bool>();
  };
  const py::gil_scoped_release unlocked;
  return e.run(arrays, order, rows, first, count, losses, numbers, draws_of(draws), ask);
}

// Where generators stand; they are moved on by their blocks at once, and back if the step fails.
class Streams {
 public:
  explicit Streams(const py::list& generators) {  // of (generator, blocks)
    for (const py::handle& item : generators) {
      const auto [generator, blocks] = item.cast<std::pair<py::object, uint64_t>>();
      const Draws now{generator.attr("seed").cast<uint64_t>(), generator.attr("offset").cast<uint64_t>(), blocks};
      generator.attr("offset") = now.offset + blocks;
      generators_.push_back(generator);
      draws.push_back(now);
    }
  }
  void back() {
    for (size_t i = 0; i < draws.size(); ++i) generators_[i].attr("offset") = draws[i].offset;
  }
  std::vector<Draws> draws;

 private:
  std::vector<py::object> generators_;
};

// One step with all that it leaves, between two bytecodes: the streams, `left`, attributes (owner, name, value), and
// new gradients on `data` at `leaves`.
Tensors step(Executor& e, const Tensors& arguments, const std::vector<double>& numbers, const py::list& generators,
             const py::list& left, const py::list& leaves, const py::list& data) {
  Streams streams(generators);
  Tensors results;
  try {
    const py::gil_scoped_release unlocked;
    results = e.step(arguments, numbers, streams.draws);
  } catch (...) {
    streams.back();
    throw;
  }
  for (const py::handle& item : left) {
    const auto [owner, name, value] = item.cast<std::tuple<py::object, py::object, py::object>>();
    if (PyObject_SetAttr(owner.ptr(), name.ptr(), value.ptr()) != 0) throw py::error_already_set();
  }
  leave_gradients(leaves, data);
  return results;
}

// place() for Python, which gives (bytes, first step, last step) of each piece.
std::vector<int64_t> place_pieces(const std::vector<std::tuple<int64_t, int64_t, int64_t>>& given) {
  std::vector<Piece> pieces;
  int64_t total = 0;
  for (const auto& [bytes, first, last] : given) {
    if (bytes < 0 || first < 0 || last < first) throw std::invalid_argument("place: a piece of no time, or below 0");
    if (__builtin_add_overflow(total, bytes, &total))
      throw std::invalid_argument("place: more bytes than int64 counts");
    pieces.push_back({bytes, first, last});
  }
  return place(pieces);
}

constexpr Py_ssize_t kHashed = 1 << 20;  // bytes

// What an object's buffer is: sizes, strides and format, with its address (`place`) or what it holds (by hash where
// that is more than kHashed bytes). Throws Python's error for an object without a buffer.

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

// The addresses that an object's buffer spans: [begin, end).
std::pair<uintptr_t, uintptr_t> buffer_extent(py::handle object) {
  Py_buffer view;
  if (PyObject_GetBuffer(object.ptr(), &view, PyBUF_FULL_RO) != 0) throw py::error_already_set();
  const std::unique_ptr<Py_buffer, decltype(&PyBuffer_Release)> released(&view, &PyBuffer_Release);
  uintptr_t begin = reinterpret_cast<uintptr_t>(view.buf), end = begin;
  if (view.len == 0) return {begin, end};
  if (!view.strides) return {begin, begin + static_cast<uintptr_t>(view.len)};
  for (int i = 0; i < view.ndim; ++i) {
    const Py_ssize_t reach = (view.shape[i] - 1) * view.strides[i];
    (reach < 0 ? begin : end) += static_cast<uintptr_t>(reach);
  }
  return {begin, end + static_cast<uintptr_t>(view.itemsize)};
}

// Whether references that a program relies on still hold: identity, or for numbers and strings equal value.
class Guards {
 public:
  enum Kind { item, attribute, cell, length, keys, copy, buffer };
  void add(int kind, py::object container, py::object key, py::object value, bool by_value) {
    if (checking_) throw std::runtime_error("Guards: they are being checked");
    const PyObject* of = value.ptr();
    if (kind < item || kind > buffer || (kind == length && !PyLong_Check(of)) || (kind == keys && !PyTuple_Check(of)) ||
        (kind == buffer && !PyBytes_Check(of)))
      throw std::invalid_argument("Guards: no guard of kind " + std::to_string(kind) + " has such a value");
    all_.push_back({static_cast<Kind>(kind), std::move(container), std::move(key), std::move(value), by_value});
  }
  // The number of the first that does not hold, or -1.
  int64_t check() {
    if (checking_) throw std::runtime_error("Guards: they are being checked");
    checking_ = true;
    int64_t failed = -1;
    for (size_t i = 0; i < all_.size() && failed < 0; ++i)
      if (!holds(all_[i])) failed = static_cast<int64_t>(i);
    checking_ = false;
    return failed;
  }

 private:
  struct Guard {
    Kind kind;
    py::object container, key, value;
    bool by_value;
  };

  static bool holds(const Guard& g) {
    PyObject* container = g.container.ptr();
    if (g.kind == length) {
      const Py_ssize_t size = PyObject_Size(container), expected = PyLong_AsSsize_t(g.value.ptr());
      if (PyErr_Occurred()) PyErr_Clear();
      return size >= 0 && size == expected;
    }
    py::object now;
    if (g.kind == keys) return same_keys(container, g.value.ptr());
    if (g.kind == copy) {  // the key freezes a container's content
      now = py::reinterpret_steal<py::object>(PyObject_CallOneArg(g.key.ptr(), container));
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
      now = py::reinterpret_steal<py::object>(PyCell_Get(container));
    } else if (g.kind == attribute) {
      now = py::reinterpret_steal<py::object>(PyObject_GetAttr(container, g.key.ptr()));
    } else if (PyDict_CheckExact(container)) {
      now = py::reinterpret_borrow<py::object>(PyDict_GetItemWithError(container, g.key.ptr()));
    } else {
      now = py::reinterpret_steal<py::object>(PyObject_GetItem(container, g.key.ptr()));
    }
    if (!now) {
      PyErr_Clear();
      return false;
    }
    if (now.ptr() == g.value.ptr()) return true;
    if (!g.by_value || Py_TYPE(now.ptr()) != Py_TYPE(g.value.ptr())) return false;
    if (PyFloat_CheckExact(now.ptr())) {
      const double a = PyFloat_AS_DOUBLE(now.ptr()), b = PyFloat_AS_DOUBLE(g.value.ptr());
      return std::memcmp(&a, &b, sizeof a) == 0;  // 0.0 is not -0.0, NaN is NaN
    }
    const int equal = PyObject_RichCompareBool(now.ptr(), g.value.ptr(), Py_EQ);
    if (equal < 0) PyErr_Clear();
    return equal == 1;
  }

  // The keys of a dict, in order; they are mostly the same objects.
  static bool same_keys(PyObject* dict, PyObject* keys) {
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

  std::vector<Guard> all_;
  bool checking_ = false;
};

}  // namespace

void bind_replay(py::module_& m) {
  py::class_<Guards>(m, "Guards")
      .def(py::init<>())
      .def("add", &Guards::add, py::arg("kind"), py::arg("container"), py::arg("key"), py::arg("value"),
           py::arg("by_value"))
      .def("check", &Guards::check);
  m.def("place", &place_pieces, py::arg("pieces"));
  m.def(
      "alias",
      [](const at::Tensor& memory, at::ScalarType dtype, int64_t offset, const Sizes& sizes, const Sizes& strides) {
        return alias(memory, dtype, offset, sizes, strides);
      },
      py::arg("memory"), py::arg("dtype"), py::arg("offset"), py::arg("sizes"), py::arg("strides"));
  m.def(
      "buffer_state", [](const py::object& object, bool place) { return py::bytes(buffer_state(object, place)); },
      py::arg("object"), py::arg("place"));
  m.def("buffer_extent", &buffer_extent, py::arg("object"));
  m.attr("watched_bytes") = kHashed;
  m.attr("tile") = kTile;
  py::class_<Executor>(m, "Executor")
      .def(py::init<int64_t>(), py::arg("arena_bytes"))
      .def("add_arena", &Executor::add_arena, py::arg("offset"), py::arg("nbytes"))
      .def("add_outside", &Executor::add_outside, py::arg("tensor"), py::arg("written"))
      .def("add_argument", &Executor::add_argument, py::arg("example"), py::arg("written"))
      .def(
          "view",
          [](Executor& e, size_t slot, at::ScalarType dtype, int64_t offset, const Sizes& sizes, const Sizes& strides) {
            return e.view(slot, dtype, offset, sizes, strides);
          },
          py::arg("slot"), py::arg("dtype"), py::arg("offset"), py::arg("sizes"), py::arg("strides"))
      .def(
          "add_direct",
          [](Executor& e, const std::string& name, const py::tuple& arguments,
             const std::vector<std::optional<at::Tensor>>& outs) -> std::optional<size_t> {
            if (!all_own(e, arguments)) return std::nullopt;
            std::unique_ptr<Call> call = direct_call(name, arguments, own_places(e, outs));
            if (!call) return std::nullopt;
            return e.add(std::move(call));
          },
          py::arg("name"), py::arg("arguments"), py::arg("outs"))
      .def(
          "add_lanes",
          [](Executor& e, const std::string& name, const py::tuple& arguments,
             const std::vector<std::optional<at::Tensor>>& outs) -> std::optional<size_t> {
            if (!all_own(e, arguments)) return std::nullopt;
            std::unique_ptr<Call> call = lane_call(name, arguments, own_places(e, outs));
            if (!call) return std::nullopt;
            return e.add(std::move(call));
          },
          py::arg("name"), py::arg("arguments"), py::arg("outs"))
      .def(
          "add_kernel",
          [](Executor& e, const std::string& name, const py::tuple& arguments,
             const std::vector<std::optional<at::Tensor>>& outs) {
            return e.add(bind_kernel(name, arguments, own_places(e, outs)));
          },
          py::arg("name"), py::arg("arguments"), py::arg("outs"))
      .def(
          "add_torch",
          [](Executor& e, const std::string& name, const std::string& overload, const py::tuple& arguments,
             const std::vector<std::optional<at::Tensor>>& outs, bool into) {
            if (!all_own(e, arguments)) throw std::invalid_argument("Executor: torch works on views of its slots");
            return e.add(bind_torch(name, overload, arguments, own_places(e, outs), into));
          },
          py::arg("name"), py::arg("overload"), py::arg("arguments"), py::arg("outs"), py::arg("into"))
      .def(
          "add_dynamic",
          [](Executor& e, int kind, size_t call, size_t argument, size_t source, uint64_t delta) {
            e.add_dynamic({static_cast<Dynamic::Kind>(kind), call, argument, source, delta});
          },
          py::arg("kind"), py::arg("call"), py::arg("argument"), py::arg("source"), py::arg("delta"))
      .def("fuse", &Executor::fuse, py::arg("first"), py::arg("last"))
      .def("add_result", &Executor::add_result, py::arg("value"), py::arg("slot"))
      .def("set_loss", &Executor::set_loss, py::arg("value"))
      .def("watch", &Executor::watch, py::arg("tensor"))
      .def("unwatch", &Executor::unwatch, py::arg("tensor"))
      .def(
          "rebind",
          [](Executor& e, const std::vector<std::optional<at::Tensor>>& memory) { e.rebind(defined_or_not(memory)); },
          py::arg("memory"))
      .def("fits", &Executor::fits, py::arg("arguments"))
      .def("in_place", &Executor::in_place)
      .def("overlaps", &Executor::overlaps, py::arg("arguments"))
      .def("step", &step, py::arg("arguments"), py::arg("numbers"), py::arg("generators"), py::arg("left"),
           py::arg("leaves"), py::arg("data"))
      .def("run", &run, py::arg("arrays"), py::arg("order"), py::arg("rows"), py::arg("first"), py::arg("count"),
           py::arg("losses"), py::arg("numbers"), py::arg("draws"), py::arg("tick"))
      .def_property_readonly("steps", &Executor::steps)
      .def_property_readonly("failed", &Executor::failed);
}

}  // namespace tapegrad
