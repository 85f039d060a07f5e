// What a recording writes for every kernel and every operator of torch: Refs, slots and Calls (tapegrad/compiled/
// trace.py), made here, as a long step makes some ten thousands of them. What is out of the ordinary, memory from
// outside above all, goes to methods of the recorder (tapegrad/compiled/record.py).
#pragma once
#include "bindings/pybind.h"  // before any other header

#include <ATen/core/Tensor.h>
#include <c10/util/intrusive_ptr.h>

#include <unordered_map>
#include <vector>

namespace py = pybind11;

namespace tapegrad {

// Each method takes the recorder whose log it is, which owns it.
class Log {
 public:
  Log(py::list calls, py::list slots, int64_t often)
      : calls_(std::move(calls)), slots_(std::move(slots)), often_(often) {}

  // The slot that a storage is, or lies in; -1.
  int64_t slot(const at::Tensor& t) const;
  // From now on a storage is that slot; `odd`: not the whole of it. Its address is not used again while the log lives.
  void name(const at::Tensor& t, int64_t slot, bool odd);
  // References to a storage that recording added when it was made.
  int64_t added(const at::Tensor& t) const;

  // Tensors as Refs, in lists and tuples too, lists becoming tuples.
  py::object refs(const py::object& recorder, py::handle value);
  // The Ref of a new result, None of None.
  py::object made(const py::object& recorder, py::handle value);
  void append(const py::object& recorder, py::object function, py::object arguments, py::object outs,
              py::object writes);

  // A kernel of ours ran, or is about to if it writes its arguments.
  void kernel(const py::object& recorder, const char* name, const py::tuple& arguments, const py::object& result);
  // Runs an operator of torch.
  py::object operate(const py::object& recorder, const py::object& function, const py::tuple& arguments);

  void stop() { over_ = true; }  // nothing is written any more

 private:
  struct Place {
    int64_t slot = 0;
    bool odd = false;
    int64_t added = 0;
    // the Ref that was made of it first: most tensors are looked at as a whole
    at::ScalarType dtype = at::kFloat;
    int64_t offset = 0;
    c10::SmallVector<int64_t, 4> sizes, strides;
    py::object ref;
  };
  using Weak = c10::weak_intrusive_ptr<c10::StorageImpl>;

  const Place* find(const at::Tensor& t) const;
  py::object ref(const py::object& recorder, py::handle tensor);
  py::object outs(const py::object& recorder, const py::object& result);
  void before_write(const py::object& recorder, py::handle value);
  bool write(const py::object& recorder, const py::object& function, py::object refs, const py::tuple& writes,
             bool makes, const py::object& result);
  template <class F>
  bool ours(const py::object& recorder, const F& f);

  py::list calls_, slots_;
  int64_t often_;
  bool over_ = false;
  std::unordered_map<const c10::StorageImpl*, Place> places_;
  std::vector<Weak> alive_;
};

// Told of every kernel call of this thread while it records a step; None where nothing is recorded.
void set_recorder(const py::object& recorder);

void bind_log(py::module_& m);

}  // namespace tapegrad
