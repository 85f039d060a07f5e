// Many networks at once: each has its own memory, numbers, data, order of batches and place in its training; the
// programs are shared. A worker is one executor for every program, bound to one network after the other.
#pragma once
#include <exception>
#include <functional>
#include <optional>
#include <vector>

#include "replay/executor.h"

namespace tapegrad {

// The batches of one size in a network's epoch: `count` from `first` on, `rows` rows each.
struct Part {
  size_t program;
  int64_t first, count, rows;
  std::vector<at::Tensor> memory;  // for Executor::rebind
  std::vector<double> numbers;
  std::vector<size_t> streams;   // for each generator of the program: which of the network's
  std::vector<uint64_t> blocks;  // that a step takes of it
};

struct Data {
  std::vector<at::Tensor> arrays;
  std::optional<at::Tensor> rows;  // int64: the network's own rows of the arrays, in order; all where it is absent
  int64_t n;                       // rows
  int64_t batch, steps;            // rows in a batch, batches in an epoch
  bool shuffle;
  uint64_t seed;
};

class Network {
 public:
  // losses [epochs, steps]; streams: (seed, offset) of its generators. std::invalid_argument where they do not fit.
  Network(Data data, at::Tensor losses, size_t streams);
  void set_part(size_t which, Part part);
  // Runs from batch `at` of epoch `epoch` to the end of epoch `until` - 1, or as long as `go_on(steps done)`, which is
  // asked every 50 ms; what stopped it is kept. Executors by program.
  void run(const std::vector<Executor*>& executors, const std::function<bool(int64_t)>& go_on);
  bool done() const { return epoch >= until; }

  int64_t epoch = 0, at = 0, until = 0;
  std::vector<std::pair<uint64_t, uint64_t>> streams;
  int64_t failed = -1;       // the call that threw
  int64_t last_part = -1;    // the part whose program ran last
  std::exception_ptr error;  // what it threw

 private:
  int64_t run_part(const Part& part, Executor& executor, const std::optional<at::Tensor>& order,
                   const std::function<bool(int64_t)>& go_on);
  std::optional<at::Tensor> order() const;

  Data data_;
  at::Tensor losses_;
  std::vector<Part> parts_;
};

// Runs every network to its end. workers[i][program] is an executor of worker i; there are as many workers as threads
// may run. ask(steps done in all) comes every 50 ms on the calling thread: when it throws, every network stops after
// its step, and it is thrown on.
void run_networks(const std::vector<Network*>& networks, const std::vector<std::vector<Executor*>>& workers,
                  const std::function<void(int64_t)>& ask);

}  // namespace tapegrad
