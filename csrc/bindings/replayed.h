// One call of a compiled step as a whole: the program's run and everything that it leaves in Python.
#pragma once
#include <c10/util/SmallVector.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "bindings/guards.h"
#include "bindings/nodes.h"
#include "replay/executor.h"

namespace tapegrad {

// Where generators stand; they are moved on by their blocks at once, and back if the step fails.
class Streams {
 public:
  explicit Streams(const py::list& generators);  // of (generator, blocks)
  void back();
  std::vector<Draws> draws;

 private:
  std::vector<py::object> generators_;
};

// One step with all that it leaves, between two bytecodes: the streams, `left`, attributes (owner, name, value), and
// new gradients on `data` at `leaves`. `unlocked`: without the GIL. `fitting`: see Executor::step.
std::vector<at::Tensor> leave_step(Executor& e, at::TensorList arguments, const std::vector<double>& numbers,
                                   const py::list& generators, const py::list& left, const py::list& leaves,
                                   const py::list& data, bool unlocked, bool fitting);

using Copied = std::vector<at::Tensor>;
using Holders = c10::SmallVector<py::handle, 4>;  // of the arguments' tensors; `at` checks

// What a step returns, made of what was copied out and of the arguments' holders. As Python describes it
// (results.py): ("tensor", number of what was copied out), ("raw", number), ("same", holder), ("constant", value),
// ("tuple" or "list", [parts]), ("dict", [keys], [parts]).
class Returned {
 public:
  explicit Returned(const py::tuple& described);
  py::object made(const Copied& copied, const Holders& holders) const;

 private:
  enum Kind { tensor, raw, same, constant, tuple, list, dict } kind_;
  size_t which_ = 0;
  py::object value_;  // or the keys
  std::vector<Returned> parts_;
};

// A program bound to a model, with its guards.
class Replay {
 public:
  Replay(py::object executor, py::object guards, const py::list& numbers, py::list generators, py::list left,
         py::list leaves, py::list data, const py::object& returned, py::object finish, bool unlocked);

  // The step, whose arguments are known to fit if `fitting`; what it returns.
  py::object step(at::TensorList arguments, const Holders& holders, bool fitting);
  // Whether guards hold and memory is in place, apart from the arguments' layouts.
  bool serves(at::TensorList arguments) { return guards_->hold() && executor_->is_clear(arguments); }
  // Whether a call may let other threads run before it is over.
  bool lets_go() { return unlocked_ || guards_->may_run_python(); }
  bool takes(at::TensorList arguments) const { return executor_->takes(arguments); }
  int64_t failed() const { return executor_->failed(); }
  void set_guards(py::object guards);
  // Nanoseconds that the parts of a call take, apart from the program's run: the least of several turns. Changes
  // nothing; a step has run before.
  std::vector<std::pair<std::string, double>> parts(at::TensorList arguments, const Holders& holders);
  // Nanoseconds of each call of a step, as Executor::timed, which changes what a step changes but for Python's side.
  std::vector<std::pair<size_t, int64_t>> timed(at::TensorList arguments);

  uint64_t calls = 0;  // replays so far
  int64_t first_write = 0;
  py::object explain = py::none();  // explain(call, rethrow): raises what the user is told of a call after that one

 private:
  struct Number {  // a hyper-parameter: group[key], or of a tuple there one part
    py::object group, key;
    Py_ssize_t part;  // -1 where it is no tuple
  };

  std::vector<double> numbers() const;
  py::object finished(const Copied& copied, const Holders& holders) const;

  py::object executor_object_, guards_object_;
  Executor* executor_;
  Guards* guards_;
  std::vector<Number> numbers_;
  py::list generators_, left_, leaves_, data_;
  std::unique_ptr<Returned> returned_;  // null: `finish_` makes it
  py::object finish_;                   // finish(what was copied out, holders)
  bool unlocked_;
};

}  // namespace tapegrad
