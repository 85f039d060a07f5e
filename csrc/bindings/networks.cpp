#include "replay/networks.h"

#include <ATen/Parallel.h>

#include "bindings/replay.h"
#include "replay/lanes.h"

namespace tapegrad {
namespace {

using Tensors = std::vector<at::Tensor>;

Tensors defined_or_not(const std::vector<std::optional<at::Tensor>>& given) {
  Tensors all;
  for (const auto& t : given) all.push_back(t.value_or(at::Tensor()));
  return all;
}

// Networks, executors and lanes are Python's, which holds them while this runs.
void run(const std::vector<std::pair<std::vector<Network*>, size_t>>& given,
         const std::vector<std::pair<std::vector<Executor*>, std::vector<const Lanes*>>>& working,
         const py::function& tick) {
  std::vector<Task> tasks;
  std::vector<Worker> workers;
  for (const auto& [networks, structure] : given) tasks.push_back({networks, structure});
  for (const auto& [executors, lanes] : working) workers.push_back({executors, lanes});
  if (workers.empty()) throw std::invalid_argument("run_networks: expected at least one worker");
  for (const Task& task : tasks)
    for (const Network* network : task.networks)
      if (!network) throw std::invalid_argument("run_networks: expected networks");
  for (const Worker& worker : workers)
    for (const Executor* executor : worker.executors)
      if (!executor) throw std::invalid_argument("run_networks: expected executors");
  const auto ask = [&](int64_t steps) {
    const py::gil_scoped_acquire locked;
    if (PyErr_CheckSignals() != 0) throw py::error_already_set();
    tick(steps);
  };
  const py::gil_scoped_release unlocked;
  run_networks(tasks, workers, ask);
}

}  // namespace

void bind_networks(py::module_& m) {
  py::class_<Network>(m, "Network")
      .def(py::init([](Tensors arrays, std::optional<at::Tensor> rows, int64_t n, int64_t batch, int64_t steps,
                       bool shuffle, uint64_t seed, at::Tensor losses, size_t streams) {
             Data data = {std::move(arrays), std::move(rows), n, batch, steps, shuffle, seed};
             return std::make_unique<Network>(std::move(data), std::move(losses), streams);
           }),
           py::arg("arrays"), py::arg("rows"), py::arg("n"), py::arg("batch"), py::arg("steps"), py::arg("shuffle"),
           py::arg("seed"), py::arg("losses"), py::arg("streams"))
      .def(
          "set_part",
          [](Network& self, size_t which, size_t program, int64_t first, int64_t count, int64_t rows,
             const std::vector<std::optional<at::Tensor>>& memory, std::vector<double> numbers,
             std::vector<size_t> streams, std::vector<uint64_t> blocks) {
            self.set_part(which, {program, first, count, rows, defined_or_not(memory), std::move(numbers),
                                  std::move(streams), std::move(blocks)});
          },
          py::arg("which"), py::arg("program"), py::arg("first"), py::arg("count"), py::arg("rows"), py::arg("memory"),
          py::arg("numbers"), py::arg("streams"), py::arg("blocks"))
      .def("set_rows", &Network::set_rows, py::arg("rows"))
      .def("rethrow",
           [](const Network& self) {
             if (self.error) std::rethrow_exception(self.error);
           })
      .def_property_readonly("stuck", [](const Network& self) { return self.error != nullptr; })
      .def_readonly("failed", &Network::failed)
      .def_readonly("last_part", &Network::last_part)
      .def_readwrite("epoch", &Network::epoch)
      .def_readwrite("at", &Network::at)
      .def_readwrite("until", &Network::until)
      .def_readwrite("streams", &Network::streams);
  py::class_<Lanes>(m, "Lanes")
      .def(py::init<int64_t>(), py::arg("lanes"))
      .def("add_program", &Lanes::add_program, py::arg("executor"), py::arg("arguments"), py::arg("loss"),
           py::keep_alive<1, 2>())
      .def("add_number", &Lanes::add_number, py::arg("call"), py::arg("argument"), py::arg("source"))
      .def("add_outside", &Lanes::add_outside, py::arg("elements"), py::arg("part"), py::arg("place"), py::arg("read"),
           py::arg("written"));
  m.def("lanes_of", &lanes_of, py::arg("dtype"));
  m.def("run_networks", &run, py::arg("tasks"), py::arg("workers"), py::arg("tick"));
}

}  // namespace tapegrad
