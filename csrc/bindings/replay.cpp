#include "bindings/replay.h"

#include <torch/csrc/jit/python/pybind_utils.h>
#include <torch/csrc/utils/python_symnode.h>  // THPVariable_Unpack

#include <cstring>

#include "bindings/direct.h"
#include "bindings/guards.h"
#include "bindings/kernel.h"
#include "bindings/lanes.h"
#include "bindings/replayed.h"
#include "replay/arena.h"
#include "replay/executor.h"
#include "replay/lanes.h"
#include "replay/tile.h"
#include "replay/torch_call.h"
#include "replay/views.h"

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

}  // namespace

void bind_replay(py::module_& m) {
  m.def("place", &place_pieces, py::arg("pieces"));
  m.def(
      "alias",
      [](const at::Tensor& memory, at::ScalarType dtype, int64_t offset, const Sizes& sizes, const Sizes& strides) {
        return alias(memory, dtype, offset, sizes, strides);
      },
      py::arg("memory"), py::arg("dtype"), py::arg("offset"), py::arg("sizes"), py::arg("strides"));
  m.def("buffer_extent", &buffer_extent, py::arg("object"));
  m.attr("tile") = kTile;
  m.attr("direct_forms") = py::cast(direct_forms());
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
          "add_lane_by_lane",
          [](Executor& e, Executor* one, const std::vector<std::pair<at::Tensor, at::Tensor>>& in,
             const std::vector<std::pair<at::Tensor, at::Tensor>>& out, bool refuses) {
            const auto carried = [&](const std::vector<std::pair<at::Tensor, at::Tensor>>& pairs) {
              std::vector<Carried> all;
              for (const auto& [single, lanes] : pairs) {
                if (!e.owns(lanes)) throw std::invalid_argument("Executor: lanes must be in memory of the program");
                all.push_back({single, lanes});
              }
              return all;
            };
            if (!one || one == &e) throw std::invalid_argument("Executor: expected another executor");
            return e.add(lane_by_lane(*one, carried(in), carried(out), refuses));
          },
          py::arg("one"), py::arg("carried_in"), py::arg("carried_out"), py::arg("refuses"), py::keep_alive<1, 2>())
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
      .def(
          "fits", [](const Executor& e, const Tensors& arguments) { return e.fits(arguments); }, py::arg("arguments"))
      .def("in_place", &Executor::in_place)
      .def(
          "overlaps", [](const Executor& e, const Tensors& arguments) { return e.overlaps(arguments); },
          py::arg("arguments"))
      .def(
          "step",
          [](Executor& e, const Tensors& arguments, const std::vector<double>& numbers, const py::list& generators,
             const py::list& left, const py::list& leaves, const py::list& data) {
            return leave_step(e, arguments, numbers, generators, left, leaves, data, true, false);
          },
          py::arg("arguments"), py::arg("numbers"), py::arg("generators"), py::arg("left"), py::arg("leaves"),
          py::arg("data"))
      .def("run", &run, py::arg("arrays"), py::arg("order"), py::arg("rows"), py::arg("first"), py::arg("count"),
           py::arg("losses"), py::arg("numbers"), py::arg("draws"), py::arg("tick"))
      .def_property_readonly("steps", &Executor::steps)
      .def_property_readonly("failed", &Executor::failed);
}

}  // namespace tapegrad
