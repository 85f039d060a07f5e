// Runs a compiled tape: a list of calls over memory laid out beforehand. No Python, no planning, no allocation.
//
// A slot is a piece of memory: part of the arena, a tensor that lives outside (a parameter, a constant, a gradient), or
// an argument, which is another tensor at every call. A value is a view of a slot; the calls hold values. To bind an
// argument is to set its slot's pointer, whatever number of views there are.
#pragma once
#include <c10/core/Storage.h>

#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <unordered_set>
#include <vector>

#include "replay/call.h"

namespace tapegrad {

// Where a call's number comes from when it changes from step to step.
struct Dynamic {
  enum Kind { number, seed, offset } kind;
  size_t call, argument, source;  // source: which number, or which generator
  uint64_t delta;                 // offset: blocks after the step's first
};

struct Draws {  // one random generator
  uint64_t seed, offset;
  uint64_t blocks;  // a step takes
};

// What it is given is checked, and nothing is built while it runs: std::invalid_argument, std::runtime_error.
class Executor {
 public:
  explicit Executor(int64_t arena_bytes);

  // --- binding ---
  size_t add_arena(int64_t offset, int64_t nbytes);
  size_t add_outside(const at::Tensor& t, bool written);  // the whole storage of t
  size_t add_argument(const at::Tensor& example, bool written);
  at::Tensor view(size_t slot, at::ScalarType dtype, int64_t offset, at::IntArrayRef sizes, at::IntArrayRef strides);
  size_t add(std::unique_ptr<Call> call);
  // Whether t is a view of one of the slots, whose memory is there whenever the program runs.
  bool owns(const at::Tensor& t) const;
  // Makes one tiled pass of calls [first, last), if all are elementwise and of one size; whether it did.
  bool fuse(size_t first, size_t last);
  void add_dynamic(const Dynamic& dynamic);
  // What a step copies out: results of one slot share their new memory as they share the slot's.
  void add_result(const at::Tensor& value, int64_t slot);
  void set_loss(const at::Tensor& value);  // what `run` notes of every step
  // A tensor that the step may look at: its memory, sizes and strides must stay what they are.
  void watch(const at::Tensor& t);
  void unwatch(const at::Tensor& t);
  // Works on another network's memory from now on: one tensor for each of `add_outside`, undefined where it stays.
  void rebind(const std::vector<at::Tensor>& memory);
  Call& call(size_t i) { return *calls_.at(i); }

  // --- running ---
  // The arguments are laid out as those recorded, in memory that is there.
  bool takes(at::TensorList arguments) const;
  // Nothing of the program lies in the arguments' memory, nor an argument in another's, and `in_place`.
  bool is_clear(at::TensorList arguments) const;
  // Both.
  bool fits(at::TensorList arguments) const { return takes(arguments) && is_clear(arguments); }
  // Every tensor that is watched lies where it lay when it was bound, with the same sizes and strides.
  bool in_place() const;
  // Whether one of these shares its storage with a tensor from outside.
  bool overlaps(at::TensorList arguments) const;
  // One step: the results, in fresh memory. `fitting`: the caller has just asked `fits`.
  std::vector<at::Tensor> step(at::TensorList arguments, const std::vector<double>& numbers,
                               const std::vector<Draws>& draws, bool fitting = false);
  // The same without results, for those who ask how long it takes: the nanoseconds of each call that ran, by its number
  // (a chain's is that of its first).
  std::vector<std::pair<size_t, int64_t>> timed(at::TensorList arguments, const std::vector<double>& numbers,
                                                const std::vector<Draws>& draws);
  // What the last step copies out, once more.
  std::vector<at::Tensor> copied_out() const;
  // Steps over batches first, first + 1, ... of `count` in an epoch: rows order[batch * b .. ) of every array (rows in
  // order where there is none). losses[i] is the result of step i. tick(steps done), asked every 50 ms, stops the run
  // when it is false. Returns the steps done.
  int64_t run(const std::vector<at::Tensor>& arrays, const std::optional<at::Tensor>& order, int64_t rows,
              int64_t first, int64_t count, const at::Tensor& losses, const std::vector<double>& numbers,
              std::vector<Draws> draws, const std::function<bool(int64_t)>& tick);

  // The calls, once, on whatever is bound. No step: it checks and counts nothing.
  void replay();
  // Tensors from outside that the program writes have one more version.
  void count_writes();

  int64_t steps() const { return steps_; }    // done by the last run
  int64_t failed() const { return failed_; }  // the call that threw last

 private:
  class Running;  // while one lives, the executor is not to be changed, and its arguments are bound

  size_t add_slot(void* data, size_t nbytes, const at::Tensor& owner);
  void not_running() const;
  void check_memory() const;
  void bind(size_t argument, const at::Tensor& t);
  std::vector<at::Tensor> first_batches(const std::vector<at::Tensor>& arrays, const std::optional<at::Tensor>& order,
                                        int64_t rows, int64_t last);
  void set(const std::vector<double>& numbers, const std::vector<Draws>& draws);

  struct Outside {
    at::Tensor tensor;
    const char* data;  // its storage's
    size_t nbytes;
    bool written;
    size_t slot;
  };
  struct Watched {
    at::Tensor tensor;
    const void* data;  // its storage's
    size_t nbytes;
    int64_t offset;
    at::DimVector sizes, strides;
  };
  struct Argument {
    c10::Storage storage;
    at::ScalarType dtype;
    at::DimVector sizes, strides;
    size_t nbytes, slot;  // bytes: from its first element on, as far as a view of it reaches
    bool written;
  };
  struct Result {
    at::Tensor value;
    size_t group;
    bool whole;  // copied as the bytes that it spans: some of its elements share a place
  };
  struct Group {  // the results of one slot
    int64_t slot;
    size_t begin, end, count;  // bytes in the slot
  };
  at::Tensor arena_;
  std::vector<c10::Storage> slots_;
  std::unordered_set<const c10::StorageImpl*> owned_;  // the slots'
  std::vector<Outside> outside_;
  std::vector<Watched> watched_;
  std::vector<Argument> arguments_;
  std::vector<std::unique_ptr<Call>> calls_;
  std::vector<std::pair<size_t, Call*>> order_;  // what runs: (number of the first call in it, call or chain)
  std::vector<std::unique_ptr<Call>> chains_;
  std::vector<Dynamic> dynamics_;
  size_t numbers_ = 0, generators_ = 0;  // how many the dynamics ask for
  std::atomic<bool> running_ = false;
  std::vector<Result> results_;
  std::vector<Group> groups_;
  std::vector<at::Tensor> staged_;
  at::Tensor loss_;
  int64_t failed_ = -1, steps_ = 0;
};

}  // namespace tapegrad
