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

class LaneCall;

// The programs of a structure in lanes, and the memory of one network in each lane.
class Lanes {
 public:
  explicit Lanes(int64_t lanes) : lanes_(lanes) {}
  // The program of a network's next part; arguments [rows, ..., L], loss [L], both in memory of the executor's slots.
  void add_program(Executor* executor, std::vector<at::Tensor> arguments, at::Tensor loss);
  void add_number(size_t call, size_t argument, size_t source);  // of the program added last
  // A slot from outside as its elements [n, L]: entry `place` of Part::memory of part `part`.
  void add_outside(const at::Tensor& elements, size_t part, size_t place, bool read, bool written);
  int64_t lanes() const { return lanes_; }

 private:
  friend class Network;
  struct Number {
    LaneCall* call;
    size_t argument, source;
  };
  struct Program {
    Executor* executor;
    std::vector<at::Tensor> arguments;
    at::Tensor loss;
    std::vector<Number> numbers;
  };
  struct Outside {
    at::Tensor elements;
    size_t part, place;
    bool read, written;
  };
  int64_t lanes_;
  std::vector<Program> programs_;
  std::vector<Outside> outside_;
};

class Network {
 public:
  // losses [epochs, steps]; streams: (seed, offset) of its generators. std::invalid_argument where they do not fit.
  Network(Data data, at::Tensor losses, size_t streams);
  void set_part(size_t which, Part part);
  void set_rows(std::optional<at::Tensor> rows);  // Data::rows
  // Runs from batch `at` of epoch `epoch` to the end of epoch `until` - 1, or as long as `go_on(steps done)`, which is
  // asked every 50 ms; what stopped it is kept. Executors by program.
  // `pause`: in this epoch not beyond that batch.
  void run(const std::vector<Executor*>& executors, const std::function<bool(int64_t)>& go_on,
           int64_t pause = INT64_MAX);
  // The same for networks at one place, side by side in lanes. Stops early where a batch holds bad values.
  static void run_lanes(const std::vector<Network*>& group, const Lanes& lanes,
                        const std::function<bool(int64_t)>& go_on);
  bool done() const { return epoch >= until; }

  int64_t epoch = 0, at = 0, until = 0;
  std::vector<std::pair<uint64_t, uint64_t>> streams;
  int64_t failed = -1;       // the call that threw
  int64_t last_part = -1;    // the part whose program ran last
  std::exception_ptr error;  // what it threw

 private:
  static void check_lanes(const Network& one, const Lanes& lanes);
  int64_t run_part(const Part& part, int64_t last, Executor& executor, const std::optional<at::Tensor>& order,
                   const std::function<bool(int64_t)>& go_on);
  std::optional<at::Tensor> order() const;

  Data data_;
  at::Tensor losses_;
  std::vector<Part> parts_;
};

// Networks that are run together: side by side in lanes, if there are several.
struct Task {
  std::vector<Network*> networks;
  size_t structure;  // which of a worker's lanes
};
struct Worker {
  std::vector<Executor*> executors;  // by program
  std::vector<const Lanes*> lanes;   // by structure; null where it has none
};

// Runs every network to its end. There are as many workers as threads may run. ask(steps done in all) comes every 50 ms
// on the calling thread: when it throws, every network stops after its step, and it is thrown on.
void run_networks(const std::vector<Task>& tasks, const std::vector<Worker>& workers,
                  const std::function<void(int64_t)>& ask);

}  // namespace tapegrad
