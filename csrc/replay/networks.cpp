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

namespace tapegrad {
namespace {

using Clock = std::chrono::steady_clock;
constexpr auto kTick = std::chrono::milliseconds(50);

[[noreturn]] void refuse(const std::string& why) { throw std::invalid_argument("Network: " + why); }

const int64_t* numbers_of(const at::Tensor& t) { return static_cast<const int64_t*>(t.const_data_ptr()); }

}  // namespace

Network::Network(Data data, at::Tensor losses, size_t count)
    : streams(count), data_(std::move(data)), losses_(std::move(losses)) {
  const Data& d = data_;
  if (d.n < 1 || d.batch < 1 || d.steps < 1) refuse("expected rows, a batch size and steps of at least 1");
  if (losses_.dim() != 2 || losses_.size(1) != d.steps || !losses_.is_contiguous())
    refuse("losses must be contiguous, [epochs, steps]");
  if (d.rows &&
      (d.rows->scalar_type() != at::kLong || d.rows->dim() != 1 || !d.rows->is_contiguous() || d.rows->size(0) != d.n))
    refuse("rows must be contiguous int64 numbers, as many as there are rows");
}

void Network::set_part(size_t which, Part part) {
  if (which > parts_.size()) refuse("parts come in order");
  if (part.first < 0 || part.count < 0 || part.rows < 1 || part.count > data_.steps - part.first)
    refuse("a part of " + std::to_string(part.count) + " batches from " + std::to_string(part.first) + " on");
  const auto known = [&](size_t stream) { return stream < streams.size(); };
  if (part.streams.size() != part.blocks.size() || !std::all_of(part.streams.begin(), part.streams.end(), known))
    refuse("a part takes from streams that are not there");
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

// From batch `at` on; the batches done.
int64_t Network::run_part(const Part& part, Executor& executor, const std::optional<at::Tensor>& order,
                          const std::function<bool(int64_t)>& go_on) {
  std::vector<Draws> draws;
  for (size_t i = 0; i < part.streams.size(); ++i) {
    const auto& [seed, offset] = streams[part.streams[i]];
    draws.push_back({seed, offset, part.blocks[i]});
  }
  executor.rebind(part.memory);
  // A part begins where the batches before it end; those have `batch` rows.
  const int64_t skipped = part.first * data_.batch, count = part.first + part.count - at;
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

void Network::run(const std::vector<Executor*>& executors, const std::function<bool(int64_t)>& go_on) {
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
        if (at < part.first || at >= part.first + part.count) continue;
        const int64_t steps = run_part(part, *executors.at(part.program), rows, ask);
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

void run_networks(const std::vector<Network*>& networks, const std::vector<std::vector<Executor*>>& workers,
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
        if (stop || next == networks.size()) break;
        mine = next++;
        ++running;
      }
      int64_t told = 0;
      networks[mine]->run(workers[worker], [&](int64_t done) {
        steps += done - told;
        told = done;
        if (worker == 0 && Clock::now() - asked > kTick) ask_now();
        return !stop;
      });
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
  const auto threads = static_cast<int64_t>(std::min(workers.size(), networks.size()));
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
