#include "bindings/replayed.h"

#include <algorithm>
#include <chrono>
#include <functional>
#include <iterator>
#include <optional>
#include <string>
#include <tuple>
#include <utility>

#include "bindings/holder.h"
#include "bindings/step.h"
#include "bindings/tape.h"

namespace tapegrad {
namespace {

double number(PyObject* value) {
  if (PyFloat_CheckExact(value)) return PyFloat_AS_DOUBLE(value);
  const py::object now = own(PyNumber_Float(value));  // as optimizer.py's `number`; 0-dim tensors are read
  return PyFloat_AS_DOUBLE(now.ptr());
}

py::object wrapped(const at::Tensor& t) { return own(THPVariable_Wrap(t)); }

Holders held(const py::list& objects) {
  Holders all;
  for (const py::handle one : objects) all.push_back(one);
  return all;
}

}  // namespace

Streams::Streams(const py::list& generators) {
  for (const py::handle& item : generators) {
    const auto [generator, blocks] = item.cast<std::pair<py::object, uint64_t>>();
    const Draws now{generator.attr("seed").cast<uint64_t>(), generator.attr("offset").cast<uint64_t>(), blocks};
    generator.attr("offset") = now.offset + blocks;
    generators_.push_back(generator);
    draws.push_back(now);
  }
}

void Streams::back() {
  for (size_t i = 0; i < draws.size(); ++i) generators_[i].attr("offset") = draws[i].offset;
}

std::vector<at::Tensor> leave_step(Executor& e, at::TensorList arguments, const std::vector<double>& numbers,
                                   const py::list& generators, const py::list& left, const py::list& leaves,
                                   const py::list& data, bool unlocked, bool fitting) {
  Streams streams(generators);
  std::vector<at::Tensor> results;
  try {
    std::optional<py::gil_scoped_release> released;
    if (unlocked) released.emplace();
    results = e.step(arguments, numbers, streams.draws, fitting);
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

Returned::Returned(const py::tuple& described) {
  const Deeper deeper;
  static const std::pair<const char*, Kind> kinds[] = {{"tensor", tensor},     {"raw", raw},     {"same", same},
                                                       {"constant", constant}, {"tuple", tuple}, {"list", list},
                                                       {"dict", dict}};
  const auto name = described[0].cast<std::string>();
  const auto* found = std::find_if(std::begin(kinds), std::end(kinds), [&](const auto& k) { return name == k.first; });
  if (found == std::end(kinds)) throw std::invalid_argument("Returned: no kind is called " + name);
  kind_ = found->second;
  if (kind_ == tensor || kind_ == raw || kind_ == same) {
    which_ = described[1].cast<size_t>();
    return;
  }
  value_ = described[1];
  const size_t parts = kind_ == dict ? 2 : 1;
  if (kind_ == constant) return;
  for (const py::handle part : described[parts].cast<py::list>()) parts_.emplace_back(part.cast<py::tuple>());
  if (kind_ == dict && py::len(value_) != parts_.size()) throw std::invalid_argument("Returned: a key for each part");
}

py::object Returned::made(const Copied& copied, const Holders& holders) const {
  if (which_ >= (kind_ == same ? holders.size() : kind_ == tensor || kind_ == raw ? copied.size() : SIZE_MAX))
    throw py::index_error("Returned: a result that is not there");
  switch (kind_) {
    case tensor:
      return make_tensor(classes->tensor, wrapped(copied[which_]), py::none());
    case raw:
      return wrapped(copied[which_]);
    case same:
      return borrow<py::object>(holders[which_]);
    case constant:
      return value_;
    case tuple: {
      py::object made = own(PyTuple_New(static_cast<Py_ssize_t>(parts_.size())));
      for (size_t i = 0; i < parts_.size(); ++i)
        PyTuple_SET_ITEM(made.ptr(), static_cast<Py_ssize_t>(i), parts_[i].made(copied, holders).release().ptr());
      return made;
    }
    case list: {
      py::object made = own(PyList_New(static_cast<Py_ssize_t>(parts_.size())));
      for (size_t i = 0; i < parts_.size(); ++i)
        PyList_SET_ITEM(made.ptr(), static_cast<Py_ssize_t>(i), parts_[i].made(copied, holders).release().ptr());
      return made;
    }
    case dict: {
      py::dict made;
      for (size_t i = 0; i < parts_.size(); ++i) made[value_[py::int_(i)]] = parts_[i].made(copied, holders);
      return made;
    }
  }
  throw std::logic_error("Returned: an unknown kind");
}

Replay::Replay(py::object executor, py::object guards, const py::list& numbers, py::list generators, py::list left,
               py::list leaves, py::list data, const py::object& returned, py::object finish, bool unlocked)
    : executor_object_(std::move(executor)),
      executor_(&executor_object_.cast<Executor&>()),
      generators_(std::move(generators)),
      left_(std::move(left)),
      leaves_(std::move(leaves)),
      data_(std::move(data)),
      finish_(std::move(finish)),
      unlocked_(unlocked) {
  if (!classes) throw std::runtime_error("_C.tape_classes comes first");
  set_guards(std::move(guards));
  for (const py::handle item : numbers) {
    const auto [group, key] = item.cast<std::pair<py::dict, py::object>>();
    const bool pair = py::isinstance<py::tuple>(key);  // ("betas", 0)
    numbers_.push_back(
        {group, pair ? py::object(key[py::int_(0)]) : key, pair ? key[py::int_(1)].cast<Py_ssize_t>() : -1});
  }
  if (!returned.is_none()) returned_ = std::make_unique<Returned>(returned.cast<py::tuple>());
}

void Replay::set_guards(py::object guards) {
  guards_ = &guards.cast<Guards&>();
  guards_object_ = std::move(guards);
}

std::vector<double> Replay::numbers() const {
  std::vector<double> all;
  all.reserve(numbers_.size());
  for (const Number& n : numbers_) {
    const py::object value = own(PyObject_GetItem(n.group.ptr(), n.key.ptr()));
    all.push_back(number(n.part < 0 ? value.ptr() : own(PySequence_GetItem(value.ptr(), n.part)).ptr()));
  }
  return all;
}

py::object Replay::finished(const Copied& copied, const Holders& holders) const {
  if (returned_) return returned_->made(copied, holders);
  py::list out(copied.size()), held(holders.size());
  for (size_t i = 0; i < copied.size(); ++i) out[i] = wrapped(copied[i]);
  for (size_t i = 0; i < holders.size(); ++i) held[i] = borrow<py::object>(holders[i]);
  return finish_(std::move(out), std::move(held));
}

py::object Replay::step(at::TensorList arguments, const Holders& holders, bool fitting) {
  const std::vector<double> now = numbers();
  ++calls;
  try {
    return finished(
        leave_step(*executor_, arguments, now, generators_, left_, leaves_, data_, unlocked_, fitting), holders);
  } catch (...) {
    if (explain.is_none() || executor_->failed() < first_write) throw;
    const auto thrown = std::current_exception();
    explain(executor_->failed(), py::cpp_function([thrown] { std::rethrow_exception(thrown); }));
    throw;
  }
}

std::vector<std::pair<std::string, double>> Replay::parts(at::TensorList arguments, const Holders& holders) {
  const std::pair<const char*, std::function<void()>> all[] = {
      {"layouts of the arguments", [&] { executor_->takes(arguments); }},
      {"guards", [&] { guards_->hold(); }},
      {"memory in place, and apart", [&] { executor_->is_clear(arguments); }},
      {"hyper-parameters", [&] { numbers(); }},
      {"gradients", [&] { leave_gradients(leaves_, data_); }},
      {"results", [&] { finished(executor_->copied_out(), holders); }}};
  constexpr int kTurns = 7, kTimes = 1000;
  std::vector<std::pair<std::string, double>> least;
  for (int turn = 0; turn < kTurns; ++turn)
    for (size_t i = 0; i < std::size(all); ++i) {
      const auto began = std::chrono::steady_clock::now();
      for (int time = 0; time < kTimes; ++time) all[i].second();
      const std::chrono::duration<double, std::nano> taken = (std::chrono::steady_clock::now() - began) / kTimes;
      if (turn == 0) least.emplace_back(all[i].first, taken.count());
      least[i].second = std::min(least[i].second, taken.count());
    }
  return least;
}

std::vector<std::pair<size_t, int64_t>> Replay::timed(at::TensorList arguments) {
  Streams streams(generators_);
  streams.back();
  return executor_->timed(arguments, numbers(), streams.draws);
}

void bind_replayed(py::module_& m) {
  py::class_<Replay, std::shared_ptr<Replay>>(m, "Replay")
      .def(py::init<py::object, py::object, const py::list&, py::list, py::list, py::list, py::list, const py::object&,
                    py::object, bool>(),
           py::arg("executor"), py::arg("guards"), py::arg("numbers"), py::arg("generators"), py::arg("left"),
           py::arg("leaves"), py::arg("data"), py::arg("returned"), py::arg("finish"), py::arg("unlocked"))
      .def(
          "step",
          [](Replay& r, const std::vector<at::Tensor>& arguments, const py::sequence& holders) {
            return r.step(arguments, held(py::list(holders)), false);
          },
          py::arg("arguments"), py::arg("holders"))
      .def(
          "parts",
          [](Replay& r, const std::vector<at::Tensor>& arguments, const py::list& holders) {
            return r.parts(arguments, held(holders));
          },
          py::arg("arguments"), py::arg("holders"))
      .def(
          "timed", [](Replay& r, const std::vector<at::Tensor>& arguments) { return r.timed(arguments); },
          py::arg("arguments"))
      .def("set_guards", &Replay::set_guards, py::arg("guards"))
      .def_readwrite("calls", &Replay::calls)
      .def_readwrite("first_write", &Replay::first_write)
      .def_readwrite("explain", &Replay::explain);
}

}  // namespace tapegrad
