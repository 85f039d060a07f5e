#include "replay/networks.h"

#include <ATen/EmptyTensor.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <stdexcept>
#include <string>

#include "ops/random.h"
#include "replay/lanes.h"
#include "replay/views.h"

namespace tapegrad {
namespace {

using Clock = std::chrono::steady_clock;
constexpr auto kTick = std::chrono::milliseconds(50);

[[noreturn]] void unfit(const std::string& why) { throw std::invalid_argument("Network: " + why); }

// Whether t's memory holds all of it.
bool there(const at::Tensor& t) { return in_memory(t) && bytes_of(t) >= begin_of(t) + span(t); }

const int64_t* numbers_of(const at::Tensor& t) { return static_cast<const int64_t*>(t.const_data_ptr()); }

}  // namespace

Network::Network(Data data, at::Tensor losses, size_t count)
    : streams(count), data_(std::move(data)), losses_(std::move(losses)) {
  const Data& d = data_;
  if (d.n < 1 || d.batch < 1 || d.steps < 1) unfit("expected rows, a batch size and steps of at least 1");
  if (losses_.dim() != 2 || losses_.size(1) != d.steps || !losses_.is_contiguous())
    unfit("losses must be contiguous, [epochs, steps]");
  set_rows(d.rows);
}

void Network::set_rows(std::optional<at::Tensor> rows) {
  if (rows &&
      (rows->scalar_type() != at::kLong || rows->dim() != 1 || !rows->is_contiguous() || rows->size(0) != data_.n))
    unfit("rows must be contiguous int64 numbers, as many as there are rows");
  data_.rows = std::move(rows);
}

void Network::set_part(size_t which, Part part) {
  if (which > parts_.size()) unfit("parts come in order");
  if (part.first < 0 || part.count < 0 || part.rows < 1 || part.count > data_.steps - part.first)
    unfit("a part of " + std::to_string(part.count) + " batches from " + std::to_string(part.first) + " on");
  const auto known = [&](size_t stream) { return stream < streams.size(); };
  if (part.streams.size() != part.blocks.size() || !std::all_of(part.streams.begin(), part.streams.end(), known))
    unfit("a part takes from streams that are not there");
  if (which == parts_.size()) parts_.emplace_back();
  parts_[which] = std::move(part);
}

// The rows of this epoch's batches, one after the other; none where they are those of the arrays.
std::optional<at::Tensor> Network::order() const {
  if (!data_.shuffle) return data_.rows;
  at::Tensor order = permutation(data_.n, data_.seed, static_cast<uint64_t>(epoch));
  if (!data_.rows) return order;
  const int64_t* rows = numbers_of(*data_.rows);
  auto* to = static_cast<int64_t*>(order.mutable_data_ptr());
  for (int64_t i = 0; i < data_.n; ++i) to[i] = rows[to[i]];
  return order;
}

// Batches `at` to `last`; how many were done.
int64_t Network::run_part(const Part& part, int64_t last, Executor& executor, const std::optional<at::Tensor>& order,
                          const std::function<bool(int64_t)>& go_on) {
  std::vector<Draws> draws;
  for (size_t i = 0; i < part.streams.size(); ++i) {
    const auto& [seed, offset] = streams[part.streams[i]];
    draws.push_back({seed, offset, part.blocks[i]});
  }
  executor.rebind(part.memory);
  // A part begins where the batches before it end; those have `batch` rows.
  const int64_t skipped = part.first * data_.batch, count = last - at;
  std::optional<at::Tensor> rows;
  std::vector<at::Tensor> arrays = data_.arrays;
  if (order)
    rows = order->narrow(0, skipped, data_.n - skipped);
  else if (skipped > 0)
    for (at::Tensor& array : arrays) array = array.narrow(0, skipped, data_.n - skipped);
  const at::Tensor losses = losses_.select(0, epoch).narrow(0, at, count);
  const auto finish = [&] {
    const int64_t steps = executor.steps();
    for (size_t i = 0; i < part.streams.size(); ++i)
      streams[part.streams[i]].second += part.blocks[i] * static_cast<uint64_t>(steps);
    return steps;
  };
  try {
    executor.run(arrays, rows, part.rows, at - part.first, count, losses, part.numbers, draws, go_on);
  } catch (...) {
    failed = executor.failed();
    error = std::current_exception();
  }
  return finish();
}

void Network::run(const std::vector<Executor*>& executors, const std::function<bool(int64_t)>& go_on, int64_t pause) {
  failed = -1;
  error = nullptr;
  int64_t total = 0;
  bool stopped = false;
  const auto ask = [&](int64_t steps) {
    stopped = !go_on(total + steps);
    return !stopped;
  };
  try {
    while (!done() && !stopped && !error) {
      const std::optional<at::Tensor> rows = order();
      for (size_t i = 0; i < parts_.size() && !stopped && !error; ++i) {
        const Part& part = parts_[i];
        const int64_t last = std::min(part.first + part.count, pause);
        if (at < part.first || at >= last) continue;
        const int64_t steps = run_part(part, last, *executors.at(part.program), rows, ask);
        if (steps > 0) last_part = static_cast<int64_t>(i);
        at += steps;
        total += steps;
      }
      if (at < data_.steps) break;
      at = 0;
      ++epoch;
      ask(0);
    }
  } catch (...) {
    error = std::current_exception();
  }
}

void Lanes::add_program(Executor* executor, std::vector<at::Tensor> arguments, at::Tensor loss) {
  if (!executor) unfit("a program is an executor");
  for (const at::Tensor& t : arguments)
    if (t.dim() < 2 || t.size(-1) != lanes_ || !t.is_contiguous() || !executor->owns(t))
      unfit("an argument must be [rows, ..., lanes] in memory of the program");
  if (loss.dim() != 1 || loss.size(0) != lanes_ || !executor->owns(loss)) unfit("the loss must be [lanes]");
  programs_.push_back({executor, std::move(arguments), std::move(loss), {}});
}

void Lanes::add_number(size_t call, size_t argument, size_t source) {
  if (programs_.empty()) unfit("a number of no program");
  auto* instruction = dynamic_cast<LaneCall*>(&programs_.back().executor->call(call));
  if (!instruction) unfit("a number of an instruction that takes none");
  programs_.back().numbers.push_back({instruction, argument, source});
}

void Lanes::add_outside(const at::Tensor& elements, size_t part, size_t place, bool read, bool written) {
  if (elements.dim() != 2 || elements.size(1) != lanes_ || !elements.is_contiguous() || !in_memory(elements))
    unfit("a slot in lanes must be [elements, lanes]");
  outside_.push_back({elements, part, place, read, written});
}

namespace {

// f(zero) of a number as long as an element
template <class F>
void by_size(int64_t bytes, const F& f) {
  switch (bytes) {
    case 1:
      return f(uint8_t{});
    case 2:
      return f(uint16_t{});
    case 4:
      return f(uint32_t{});
    case 8:
      return f(uint64_t{});
    default:
      unfit("elements of " + std::to_string(bytes) + " bytes");
  }
}

// lanes[i][l] = from[l][i], and the other way
template <class E>
void interleave(const std::vector<char*>& from, int64_t n, int64_t L, E* lanes) {
  for (int64_t l = 0; l < L; ++l) {
    const E* one = reinterpret_cast<const E*>(from[static_cast<size_t>(l)]);
    for (int64_t i = 0; i < n; ++i) lanes[i * L + l] = one[i];
  }
}
template <class E>
void separate(const E* lanes, int64_t n, int64_t L, const std::vector<char*>& to) {
  for (size_t l = 0; l < to.size(); ++l) {
    E* one = reinterpret_cast<E*>(to[l]);
    for (int64_t i = 0; i < n; ++i) one[i] = lanes[i * L + static_cast<int64_t>(l)];
  }
}

constexpr int64_t kMostLanes = 64;

// Rows order[l][first .. first + rows) of each lane's array, of `each` elements, side by side; N: lanes, 0 where any
// number.
template <int64_t N, class E>
void gather_rows(const std::vector<const char*>& arrays, const std::vector<const int64_t*>& order, int64_t first,
                 int64_t rows, int64_t each, E* to) {
  const int64_t L = N ? N : static_cast<int64_t>(arrays.size());
  const char* const* base = arrays.data();
  const int64_t* const* numbers = order.data();
  const bool ordered = numbers[0] != nullptr;  // all are, or none
  const E* from[N ? N : kMostLanes];
  for (int64_t b = first; b < first + rows; ++b) {
    for (int64_t l = 0; l < L; ++l)
      from[l] = reinterpret_cast<const E*>(base[l]) + (ordered ? numbers[l][b] : b) * each;
    for (int64_t i = 0; i < each; ++i, to += L)
      for (int64_t l = 0; l < L; ++l) to[l] = from[l][i];
  }
}
template <class E>
void gather_lanes(const std::vector<const char*>& arrays, const std::vector<const int64_t*>& order, int64_t first,
                  int64_t rows, int64_t each, E* to) {
  const size_t L = arrays.size();
  const auto run = L == 16 ? gather_rows<16, E> : L == 8 ? gather_rows<8, E> : gather_rows<0, E>;
  run(arrays, order, first, rows, each, to);
}

}  // namespace

// Nothing is looked at again while they run: what a network brings must fit the programs in lanes.
void Network::check_lanes(const Network& one, const Lanes& lanes) {
  const Data& d = one.data_;
  const at::Tensor& losses = one.losses_;
  if (one.epoch < 0 || one.at < 0 || one.until > losses.size(0) || !there(losses))
    unfit("losses must have a row for each epoch");
  for (size_t i = 0; i < lanes.programs_.size(); ++i) {
    const Lanes::Program& program = lanes.programs_[i];
    const Part& part = one.parts_[i];
    if (!program.executor->in_place()) unfit("the memory of a program in lanes is not where it was");
    if (program.loss.scalar_type() != losses.scalar_type()) unfit("losses of another dtype than the program's");
    if (program.arguments.size() != d.arrays.size()) unfit("a program in lanes takes other arrays");
    int64_t rows = 0;
    if (part.first > d.n / d.batch || __builtin_mul_overflow(part.count, part.rows, &rows) ||
        rows > d.n - part.first * d.batch)
      unfit("a part has more rows than there are");
    for (size_t k = 0; k < d.arrays.size(); ++k) {
      const at::Tensor &from = d.arrays[k], &to = program.arguments[k];
      if (!there(from) || !from.is_contiguous() || from.dim() + 1 != to.dim() ||
          from.scalar_type() != to.scalar_type() || to.size(0) != part.rows ||
          from.sizes().slice(1) != to.sizes().slice(1, to.dim() - 2))
        unfit("an array must be [rows, ...] as the program in lanes takes it");
    }
  }
  int64_t least = d.n;
  for (const at::Tensor& array : d.arrays) least = std::min(least, array.size(0));
  if (!d.rows) {
    if (least < d.n) unfit("an array has fewer rows than there are");
    return;
  }
  if (!there(*d.rows)) unfit("the numbers of rows are not there");
  for (const at::Tensor& array : d.arrays)
    for (int64_t i = 0; i < d.n; ++i)
      if (const int64_t row = numbers_of(*d.rows)[i]; row < 0 || row >= array.size(0))
        unfit("row " + std::to_string(row) + " of " + std::to_string(array.size(0)));
}

// Networks that fill the lanes stand at the same batch, and end at the same epoch; lanes without one repeat the first.
void Network::run_lanes(const std::vector<Network*>& group, const Lanes& lanes,
                        const std::function<bool(int64_t)>& go_on) {
  const auto L = static_cast<size_t>(lanes.lanes_);
  Network& lead = *group.at(0);
  const auto member = [&](size_t l) -> Network& { return *group[l < group.size() ? l : 0]; };
  for (const Network* one : group)
    if (one->epoch != lead.epoch || one->at != lead.at || one->until != lead.until || one->data_.n != lead.data_.n ||
        one->data_.batch != lead.data_.batch || one->data_.steps != lead.data_.steps ||
        one->data_.shuffle != lead.data_.shuffle || one->parts_.size() != lead.parts_.size() ||
        one->data_.rows.has_value() != lead.data_.rows.has_value())
      unfit("networks in lanes must stand at one place");
  if (group.size() > L || lead.parts_.size() != lanes.programs_.size()) unfit("more networks than lanes");

  for (size_t l = 0; l < group.size(); ++l) check_lanes(*group[l], lanes);
  const auto memory_of = [&](const Lanes::Outside& o, size_t count) {
    std::vector<char*> found;
    for (size_t l = 0; l < count; ++l) {
      const at::Tensor& t = member(l).parts_.at(o.part).memory.at(o.place);
      const auto needed = static_cast<size_t>(o.elements.size(0)) * o.elements.element_size();
      if (!t.defined() || !in_memory(t) || t.storage().nbytes() < needed) unfit("a lane's memory is not there");
      found.push_back(static_cast<char*>(const_cast<void*>(t.storage().data())));
    }
    return found;
  };
  for (const Lanes::Outside& o : lanes.outside_) {
    if (!o.read) continue;
    const std::vector<char*> memory = memory_of(o, L);
    by_size(o.elements.element_size(), [&](auto zero) {
      using E = decltype(zero);
      interleave(memory, o.elements.size(0), lanes.lanes_, static_cast<E*>(o.elements.mutable_data_ptr()));
    });
  }
  for (size_t i = 0; i < lanes.programs_.size(); ++i)
    for (const Lanes::Number& n : lanes.programs_[i].numbers)
      for (size_t l = 0; l < L; ++l) n.call->set_lane(l, n.argument, member(l).parts_[i].numbers.at(n.source));

  std::vector<std::vector<const char*>> arrays(lead.data_.arrays.size());
  for (size_t i = 0; i < arrays.size(); ++i)
    for (size_t l = 0; l < L; ++l)
      arrays[i].push_back(static_cast<const char*>(member(l).data_.arrays.at(i).const_data_ptr()));
  int64_t total = 0;
  bool stopped = false;
  auto asked = Clock::now();
  std::vector<std::optional<at::Tensor>> orders(L);
  std::vector<const int64_t*> order(L);
  const auto step = [&](const Part& part, const Lanes::Program& program) {
    const int64_t first = (part.first * lead.data_.batch) + (lead.at - part.first) * part.rows;
    for (size_t i = 0; i < arrays.size(); ++i) {
      const at::Tensor& to = program.arguments.at(i);
      const int64_t each = to.numel() / (to.size(0) * lanes.lanes_);
      by_size(to.element_size(), [&](auto zero) {
        using E = decltype(zero);
        gather_lanes(arrays[i], order, first, part.rows, each, static_cast<E*>(to.mutable_data_ptr()));
      });
    }
    program.executor->replay();
    program.executor->count_writes();
    const size_t size = program.loss.element_size();
    const char* from = static_cast<const char*>(program.loss.const_data_ptr());
    for (size_t l = 0; l < group.size(); ++l) {
      char* to = static_cast<char*>(group[l]->losses_.mutable_data_ptr());
      const int64_t place = group[l]->epoch * lead.data_.steps + group[l]->at;
      std::copy_n(from + l * size, size, to + static_cast<size_t>(place) * size);
    }
  };
  const auto ask = [&] {
    const auto now = Clock::now();
    if (now - asked <= kTick) return;
    asked = now;
    stopped = !go_on(total);
  };
  try {
    while (!lead.done() && !stopped) {
      for (size_t l = 0; l < L; ++l) {
        orders[l] = member(l).order();
        order[l] = orders[l] ? numbers_of(*orders[l]) : nullptr;
      }
      for (size_t i = 0; i < lead.parts_.size() && !stopped; ++i) {
        const Part& part = lead.parts_[i];
        for (; lead.at >= part.first && lead.at < part.first + part.count && !stopped; ask()) {
          step(part, lanes.programs_[i]);
          for (Network* one : group) {
            ++one->at;
            one->last_part = static_cast<int64_t>(i);
          }
          total += static_cast<int64_t>(group.size());
        }
      }
      if (lead.at < lead.data_.steps) break;
      for (Network* one : group) {
        one->at = 0;
        ++one->epoch;
      }
    }
  } catch (const std::out_of_range&) {
    // bad values, met before anything had changed: each network goes on by itself, and the one that has them says so
  }
  for (const Lanes::Outside& o : lanes.outside_) {
    if (!o.written) continue;
    by_size(o.elements.element_size(), [&](auto zero) {
      using E = decltype(zero);
      const auto* from = static_cast<const E*>(o.elements.const_data_ptr());
      separate(from, o.elements.size(0), lanes.lanes_, memory_of(o, group.size()));
    });
    for (const Network* one : group) one->parts_[o.part].memory[o.place].unsafeGetTensorImpl()->bump_version();
  }
  go_on(total);
}

void run_networks(const std::vector<Task>& tasks, const std::vector<Worker>& workers,
                  const std::function<void(int64_t)>& ask) {
  std::atomic<int64_t> steps = 0;
  std::atomic<bool> stop = false;
  std::mutex lock;
  std::condition_variable idle;
  size_t next = 0, running = 0;  // networks, under the lock
  std::exception_ptr thrown;
  auto asked = Clock::now();
  const auto ask_now = [&] {  // on the calling thread
    asked = Clock::now();
    try {
      ask(steps);
    } catch (...) {
      thrown = std::current_exception();
      stop = true;
    }
  };
  const auto work = [&](size_t worker) {
    for (;;) {
      size_t mine;
      {
        const std::lock_guard<std::mutex> held(lock);
        if (stop || next == tasks.size()) break;
        mine = next++;
        ++running;
      }
      const Task& task = tasks[mine];
      const Lanes* lanes = task.networks.size() > 1 ? workers[worker].lanes.at(task.structure) : nullptr;
      const auto run = [&](const auto& one) {
        int64_t told = 0;
        one([&](int64_t done) {
          steps += done - told;
          told = done;
          if (worker == 0 && Clock::now() - asked > kTick) ask_now();
          return !stop;
        });
      };
      try {
        if (lanes) {
          int64_t at = 0;  // where the foremost stands: the others catch up
          for (const Network* network : task.networks) at = std::max(at, network->at);
          bool together = true;
          for (Network* network : task.networks) {
            if (!stop && network->at < at)
              run([&](const auto& go_on) { network->run(workers[worker].executors, go_on, at); });
            together = together && network->at == at;
          }
          if (together && !stop) run([&](const auto& go_on) { Network::run_lanes(task.networks, *lanes, go_on); });
        }
        for (Network* network : task.networks)  // those that lanes did not bring to the end, too
          if (!stop && !network->error) run([&](const auto& go_on) { network->run(workers[worker].executors, go_on); });
      } catch (...) {
        const std::lock_guard<std::mutex> held(lock);
        thrown = std::current_exception();
        stop = true;
      }
      const std::lock_guard<std::mutex> held(lock);
      --running;
      idle.notify_all();
    }
    if (worker != 0) return;
    std::unique_lock<std::mutex> held(lock);
    while (running > 0) {
      if (idle.wait_for(held, kTick, [&] { return running == 0; })) break;
      held.unlock();
      if (!stop) ask_now();
      held.lock();
    }
  };
  const auto threads = static_cast<int64_t>(std::min(workers.size(), tasks.size()));
  if (threads <= 1) {
    work(0);
  } else {
    at::parallel_for(0, threads, 1, [&](int64_t begin, int64_t end) {
      for (int64_t worker = begin; worker < end; ++worker) work(static_cast<size_t>(worker));
    });
  }
  if (thrown) std::rethrow_exception(thrown);
}

}  // namespace tapegrad
