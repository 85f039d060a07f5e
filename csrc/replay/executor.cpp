#include "replay/executor.h"

#include <ATen/EmptyTensor.h>
#include <ATen/core/LegacyTypeDispatch.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <stdexcept>
#include <string>

#include "ops/border.h"
#include "ops/elementwise.h"
#include "replay/tile.h"
#include "replay/views.h"

namespace tapegrad {
namespace {

using Clock = std::chrono::steady_clock;
constexpr std::chrono::milliseconds kTick(50), kShort(1);

template <class F>
class Finally {
 public:
  explicit Finally(F f) : f_(std::move(f)) {}
  ~Finally() { f_(); }
  Finally(const Finally&) = delete;
  Finally& operator=(const Finally&) = delete;

 private:
  F f_;
};

// Rows order[0 .. n) of `array`, one after the other. The rows of a large one lie far away, and are asked for before
// they are needed; a call of memcpy for a few numbers takes longer than the numbers.
void gather(const at::Tensor& array, const int64_t* order, int64_t n, const at::Tensor& out) {
  constexpr int64_t kFar = 1 << 20, kAhead = 4096, kLine = 64;  // bytes
  const int64_t row = static_cast<int64_t>(out.nbytes()) / n;
  const char* from = static_cast<const char*>(array.const_data_ptr());
  char* to = static_cast<char*>(out.mutable_data_ptr());
  if (row == 4 || row == 8) {
    for (int64_t i = 0; i < n; ++i)
      row == 4 ? std::memcpy(to + i * 4, from + order[i] * 4, 4) : std::memcpy(to + i * 8, from + order[i] * 8, 8);
    return;
  }
  const int64_t ahead = kAhead / std::max<int64_t>(row, 1) + 1;  // rows
  const bool far = array.nbytes() > kFar;
  for (int64_t i = 0; i < n; ++i) {
    if (far && i + ahead < n)
      for (int64_t byte = 0; byte < std::min(row, kAhead); byte += kLine)
        __builtin_prefetch(from + order[i + ahead] * row + byte);
    std::memcpy(to + i * row, from + order[i] * row, static_cast<size_t>(row));
  }
}

// Elementwise calls of one size, tile by tile, so that what one makes is still near when the next reads it.
class Chain final : public Call {
 public:
  explicit Chain(std::vector<Elementwise*> links) : links_(std::move(links)) {}
  void run() override {
    const int64_t n = links_[0]->count;
    over(n, kGrain, [&](int64_t begin, int64_t end) {
      for (int64_t tile = begin; tile < end; tile += kTile)
        for (Elementwise* link : links_) link->run(tile, std::min(tile + kTile, end));
    });
  }
  void set(size_t, double) override {}
  void set(size_t, uint64_t) override {}

 private:
  static constexpr int64_t kGrain = 32768;  // elements; a multiple of every vector
  std::vector<Elementwise*> links_;
};

}  // namespace

class Executor::Running {
 public:
  explicit Running(Executor& e) : e_(e) {
    if (e.running_.exchange(true)) throw std::runtime_error("Executor: it is running already");
  }
  ~Running() {
    for (const Argument& a : e_.arguments_) {  // a view of it that somebody kept has no memory any more
      c10::StorageImpl* storage = a.storage.unsafeGetStorageImpl();
      storage->set_data_ptr_noswap(at::DataPtr(nullptr, at::kCPU));
      storage->set_nbytes(0);
    }
    e_.running_ = false;
  }
  Running(const Running&) = delete;
  Running& operator=(const Running&) = delete;

 private:
  Executor& e_;
};

void Executor::not_running() const {
  if (running_) throw std::runtime_error("Executor: it is running");
}

Executor::Executor(int64_t arena_bytes) : arena_(at::detail::empty_cpu({arena_bytes}, at::kByte)) {}

size_t Executor::add_slot(void* data, size_t nbytes, const at::Tensor& owner) {
  not_running();
  slots_.push_back(storage_at(data, nbytes, owner));
  owned_.insert(slots_.back().unsafeGetStorageImpl());
  return slots_.size() - 1;
}

size_t Executor::add_arena(int64_t offset, int64_t nbytes) {
  const int64_t size = arena_.numel();
  if (offset < 0 || nbytes < 0 || offset > size || nbytes > size - offset)
    refuse(std::to_string(nbytes) + " bytes from " + std::to_string(offset) + " on are not in an arena of " +
           std::to_string(size));
  return add_slot(static_cast<char*>(arena_.mutable_data_ptr()) + offset, static_cast<size_t>(nbytes), arena_);
}

size_t Executor::add_outside(const at::Tensor& t, bool written) {
  check_in_memory(t, "tensor");
  const size_t slot = add_slot(start_of(t), bytes_of(t), t);
  outside_.push_back({t, static_cast<const char*>(start_of(t)), bytes_of(t), written, slot});
  watch(t);
  return slot;
}

size_t Executor::add_argument(const at::Tensor& example, bool written) {
  check_in_memory(example, "example");
  const size_t slot = add_slot(nullptr, 0, {});
  arguments_.push_back({slots_.back(), example.scalar_type(), at::DimVector(example.sizes()),
                        at::DimVector(example.strides()), span(example), slot, written});
  return slot;
}

bool Executor::takes(at::TensorList arguments) const {
  if (arguments.size() != arguments_.size()) return false;
  for (size_t i = 0; i < arguments.size(); ++i) {
    const at::Tensor& t = arguments[i];
    const Argument& a = arguments_[i];
    if (!in_memory(t) || t.scalar_type() != a.dtype || t.sizes() != at::IntArrayRef(a.sizes) ||
        t.strides() != at::IntArrayRef(a.strides) ||
        bytes_of(t) < static_cast<size_t>(t.storage_offset()) * t.element_size() + a.nbytes)
      return false;
  }
  return true;
}

bool Executor::is_clear(at::TensorList arguments) const {
  for (size_t i = 0; i < arguments.size(); ++i)
    for (size_t j = 0; j < i; ++j)
      if (start_of(arguments[i]) == start_of(arguments[j])) return false;  // perhaps; the slow path looks closer
  return in_place() && !overlaps(arguments);
}

at::Tensor Executor::view(size_t slot, at::ScalarType dtype, int64_t offset, at::IntArrayRef sizes,
                          at::IntArrayRef strides) {
  not_running();
  check_layout(offset, sizes, strides);
  const c10::Storage& storage = slots_.at(slot);
  const size_t needed = reach(offset, sizes, strides, c10::elementSize(dtype));
  const auto argument =
      std::find_if(arguments_.begin(), arguments_.end(), [&](const auto& a) { return a.slot == slot; });
  if (argument != arguments_.end() && needed <= INT64_MAX)
    argument->nbytes = std::max(argument->nbytes, needed);
  else if (needed > storage.nbytes())
    refuse("a view of sizes " + text(sizes) + " needs " + std::to_string(needed) + " bytes of slot " +
           std::to_string(slot) + ", which has " + std::to_string(storage.nbytes()));
  return view_of(c10::Storage(storage), dtype, offset, sizes, strides);
}

bool Executor::owns(const at::Tensor& t) const {
  return in_memory(t) && owned_.count(t.unsafeGetTensorImpl()->unsafe_storage().unsafeGetStorageImpl()) > 0;
}

size_t Executor::add(std::unique_ptr<Call> call) {
  not_running();
  calls_.push_back(std::move(call));
  order_.emplace_back(calls_.size() - 1, calls_.back().get());
  return calls_.size() - 1;
}

void Executor::add_dynamic(const Dynamic& dynamic) {
  not_running();
  if (dynamic.kind < Dynamic::number || dynamic.kind > Dynamic::offset || dynamic.call >= calls_.size())
    refuse("a dynamic of kind " + std::to_string(dynamic.kind) + " for call " + std::to_string(dynamic.call) + " of " +
           std::to_string(calls_.size()));
  size_t& least = dynamic.kind == Dynamic::number ? numbers_ : generators_;
  least = std::max(least, dynamic.source + 1);
  if (dynamic.source == SIZE_MAX) refuse("a dynamic needs a source");
  dynamics_.push_back(dynamic);
}

bool Executor::fuse(size_t first, size_t last) {
  not_running();
  if (first >= last) return false;
  std::vector<Elementwise*> links;
  for (size_t i = first; i < last; ++i) {
    auto* link = dynamic_cast<Elementwise*>(calls_.at(i).get());
    if (!link || (!links.empty() && link->count != links[0]->count)) return false;
    links.push_back(link);
  }
  chains_.push_back(std::make_unique<Chain>(std::move(links)));
  const auto from = std::find_if(order_.begin(), order_.end(), [&](const auto& one) { return one.first >= first; });
  const auto to = std::find_if(from, order_.end(), [&](const auto& one) { return one.first >= last; });
  const auto place = order_.erase(from, to);
  order_.insert(place, {first, chains_.back().get()});
  return true;
}

void Executor::set_loss(const at::Tensor& value) {
  not_running();
  if (!owns(value)) refuse("the loss must be a view of a slot");
  loss_ = value;
}

void Executor::add_result(const at::Tensor& value, int64_t slot) {
  not_running();
  if (!owns(value)) refuse("a result must be a view of a slot");
  constexpr size_t kAlign = 64;  // bytes: every dtype's
  const size_t begin = begin_of(value) / kAlign * kAlign, end = begin_of(value) + span(value);
  const auto same = [&](const Group& g) { return g.slot == slot; };
  auto group = std::find_if(groups_.begin(), groups_.end(), same);
  if (group == groups_.end()) group = groups_.insert(groups_.end(), {slot, begin, end, 0});
  group->begin = std::min(group->begin, begin);
  group->end = std::max(group->end, end);
  ++group->count;
  bool whole = false;
  for (int64_t i = 0; i < value.dim(); ++i) whole = whole || (value.stride(i) == 0 && value.size(i) > 1);
  results_.push_back({value, static_cast<size_t>(group - groups_.begin()), whole && value.numel() > 0});
}

void Executor::watch(const at::Tensor& t) {
  check_in_memory(t, "tensor");
  const auto is_it = [&](const Watched& w) { return w.tensor.is_same(t); };
  if (std::any_of(watched_.begin(), watched_.end(), is_it)) return;
  watched_.push_back(
      {t, t.storage().data(), bytes_of(t), t.storage_offset(), at::DimVector(t.sizes()), at::DimVector(t.strides())});
}

void Executor::unwatch(const at::Tensor& t) {
  const auto is_it = [&](const Watched& w) { return w.tensor.is_same(t); };
  watched_.erase(std::remove_if(watched_.begin(), watched_.end(), is_it), watched_.end());
}

void Executor::rebind(const std::vector<at::Tensor>& memory) {
  not_running();
  if (memory.size() != outside_.size())
    refuse("expected the memory of " + std::to_string(outside_.size()) + " tensors, got " +
           std::to_string(memory.size()));
  for (size_t i = 0; i < memory.size(); ++i) {
    if (!memory[i].defined()) continue;
    check_in_memory(memory[i], "tensor");
    if (bytes_of(memory[i]) != outside_[i].nbytes)
      refuse("tensor " + std::to_string(i) + " must lie in " + std::to_string(outside_[i].nbytes) + " bytes, has " +
             std::to_string(bytes_of(memory[i])));
  }
  for (size_t i = 0; i < memory.size(); ++i) {
    if (!memory[i].defined()) continue;
    Outside& o = outside_[i];
    o.tensor = memory[i];
    o.data = static_cast<const char*>(start_of(memory[i]));
    c10::StorageImpl* storage = slots_[o.slot].unsafeGetStorageImpl();
    storage->set_data_ptr_noswap(at::DataPtr(start_of(memory[i]), at::kCPU));  // `outside_` keeps it alive
  }
  for (const auto& call : calls_) call->rebound();
}

bool Executor::in_place() const {
  for (const Watched& w : watched_) {
    const c10::TensorImpl& t = *w.tensor.unsafeGetTensorImpl();
    const c10::StorageImpl& memory = *t.unsafe_storage().unsafeGetStorageImpl();
    if (memory.data() != w.data || memory.nbytes() != w.nbytes || t.storage_offset() != w.offset ||
        t.sizes() != at::IntArrayRef(w.sizes) || t.strides() != at::IntArrayRef(w.strides))
      return false;
  }
  return true;
}

bool Executor::overlaps(at::TensorList arguments) const {
  for (const at::Tensor& t : arguments) {
    const char* begin = static_cast<const char*>(start_of(t));
    const char* end = begin + bytes_of(t);
    for (const Outside& o : outside_)  // which may have moved since, and is then not in place
      if (begin < o.data + o.nbytes && o.data < end) return true;
  }
  return false;
}

void Executor::bind(size_t argument, const at::Tensor& t) {
  c10::StorageImpl* storage = arguments_[argument].storage.unsafeGetStorageImpl();
  storage->set_data_ptr_noswap(at::DataPtr(const_cast<void*>(t.const_data_ptr()), at::kCPU));
  storage->set_nbytes(bytes_of(t) - static_cast<size_t>(t.storage_offset()) * t.element_size());
}

// The program writes where an outside tensor's memory was when it was bound. Callers that ask `in_place` know; this is
// for those that do not.
void Executor::check_memory() const {
  for (const Outside& o : outside_) {
    const c10::StorageImpl& memory = *o.tensor.unsafeGetTensorImpl()->unsafe_storage().unsafeGetStorageImpl();
    if (memory.data() != o.data || memory.nbytes() != o.nbytes) refuse("the memory of a tensor is not where it was");
  }
}

void Executor::set(const std::vector<double>& numbers, const std::vector<Draws>& draws) {
  if (numbers.size() < numbers_ || draws.size() < generators_)
    refuse("expected " + std::to_string(numbers_) + " numbers and " + std::to_string(generators_) + " generators");
  for (const Dynamic& d : dynamics_) {
    Call& call = *calls_[d.call];
    if (d.kind == Dynamic::number)
      call.set(d.argument, numbers[d.source]);
    else
      call.set(d.argument, d.kind == Dynamic::seed ? draws[d.source].seed : draws[d.source].offset + d.delta);
  }
}

void Executor::replay() {
  const at::AutoDispatchBelowADInplaceOrView plain;
  for (const auto& [number, call] : order_) {
    try {
      call->run();
    } catch (...) {
      failed_ = static_cast<int64_t>(number);
      throw;
    }
  }
}

// Tensors from outside that the program writes have one more version.
void Executor::count_writes() {
  for (const Outside& o : outside_)
    if (o.written) o.tensor.unsafeGetTensorImpl()->bump_version();
}

std::vector<at::Tensor> Executor::step(at::TensorList arguments, const std::vector<double>& numbers,
                                       const std::vector<Draws>& draws, bool fitting) {
  const Running running(*this);
  failed_ = -1;
  if (!fitting) {
    if (!takes(arguments)) refuse("the arguments are not laid out as those recorded");
    check_memory();
  }
  for (size_t i = 0; i < arguments.size(); ++i) bind(i, arguments[i]);
  set(numbers, draws);
  const Finally counted([&] {  // a step that fails midway has written, too
    count_writes();
    for (size_t i = 0; i < arguments.size(); ++i)
      if (arguments_[i].written) arguments[i].unsafeGetTensorImpl()->bump_version();
  });
  replay();
  return copied_out();
}

std::vector<std::pair<size_t, int64_t>> Executor::timed(at::TensorList arguments, const std::vector<double>& numbers,
                                                        const std::vector<Draws>& draws) {
  const Running running(*this);
  if (!takes(arguments)) refuse("the arguments are not laid out as those recorded");
  check_memory();
  for (size_t i = 0; i < arguments.size(); ++i) bind(i, arguments[i]);
  set(numbers, draws);
  const at::AutoDispatchBelowADInplaceOrView plain;
  std::vector<std::pair<size_t, int64_t>> all;
  all.reserve(order_.size());
  auto reading = Clock::duration::max();  // what it takes to read the clock
  for (int i = 0; i < 8; ++i) {
    const auto began = Clock::now();
    reading = std::min(reading, Clock::now() - began);
  }
  const Finally counted([&] { count_writes(); });
  for (const auto& [number, call] : order_) {
    const auto began = Clock::now();
    call->run();
    all.emplace_back(number,
                     std::chrono::duration_cast<std::chrono::nanoseconds>(Clock::now() - began - reading).count());
  }
  return all;
}

std::vector<at::Tensor> Executor::copied_out() const {
  std::vector<at::Tensor> out, shared(groups_.size());
  out.reserve(results_.size());
  for (const Result& result : results_) {
    const at::Tensor& r = result.value;
    const Group& group = groups_[result.group];
    if (group.count == 1 && r.is_contiguous()) {
      out.push_back(fresh(r));
      continue;
    }
    if (group.count == 1 && !result.whole) {
      out.push_back(at::detail::empty_strided_cpu(r.sizes(), r.strides(), r.scalar_type()));
      out.back().copy_(r);
      continue;
    }
    at::Tensor& memory = shared[result.group];
    if (!memory.defined()) memory = at::detail::empty_cpu({static_cast<int64_t>(group.end - group.begin)}, at::kByte);
    const auto offset = static_cast<int64_t>((begin_of(r) - group.begin) / r.element_size());
    out.push_back(view_of(c10::Storage(memory.storage()), r.scalar_type(), offset, r.sizes(), r.strides()));
    if (result.whole)
      std::memcpy(out.back().mutable_data_ptr(), r.const_data_ptr(), span(r));
    else
      out.back().copy_(r);
  }
  return out;
}

// The memory of the first batch of every array: part of the array, or what the rows of `order` are gathered into.
// Throws where it is not laid out as the step's arguments, or rows up to `last` are not there.
std::vector<at::Tensor> Executor::first_batches(const std::vector<at::Tensor>& arrays,
                                                const std::optional<at::Tensor>& order, int64_t rows, int64_t last) {
  int64_t length = INT64_MAX;  // the shortest array's
  for (const at::Tensor& array : arrays) {
    check_in_memory(array, "an array");
    check_storage(array, "Executor", "an array");
    if (array.dim() == 0 || (order && !array.is_contiguous())) refuse("run: an array must have rows, contiguous ones");
    length = std::min(length, array.size(0));
  }
  if (order) {
    if (!in_memory(*order) || order->scalar_type() != at::kLong || !order->is_contiguous() || order->numel() < last)
      refuse("run: order must be " + std::to_string(last) + " contiguous int64 numbers");
    check_storage(*order, "Executor", "order");
    const auto* begin = static_cast<const int64_t*>(order->const_data_ptr());
    if (std::any_of(begin, begin + last, [&](int64_t row) { return row < 0 || row >= length; }))
      refuse("run: order must name rows of arrays of " + std::to_string(length));
  } else if (last > length) {
    refuse("run: rows up to " + std::to_string(last) + " of arrays of " + std::to_string(length));
  }
  std::vector<at::Tensor> batch;
  staged_.resize(arrays.size());
  for (size_t i = 0; i < arrays.size(); ++i) {
    if (!order) {
      batch.push_back(arrays[i].narrow(0, 0, rows));
      continue;
    }
    at::DimVector sizes(arrays[i].sizes());
    sizes[0] = rows;
    if (!staged_[i].defined() || staged_[i].sizes() != at::IntArrayRef(sizes) ||
        staged_[i].scalar_type() != arrays[i].scalar_type())
      staged_[i] = at::detail::empty_cpu(sizes, arrays[i].scalar_type());
    batch.push_back(staged_[i]);
  }
  if (!takes(batch)) refuse("run: the arrays are not laid out as the arguments recorded");
  return batch;
}

int64_t Executor::run(const std::vector<at::Tensor>& arrays, const std::optional<at::Tensor>& order, int64_t rows,
                      int64_t first, int64_t count, const at::Tensor& losses, const std::vector<double>& numbers,
                      std::vector<Draws> draws, const std::function<bool(int64_t)>& tick) {
  const Running running(*this);
  steps_ = 0;
  failed_ = -1;
  int64_t last = 0;  // one beyond the last row
  if (rows < 1 || first < 0 || count < 0 || __builtin_add_overflow(first, count, &last) ||
      __builtin_mul_overflow(last, rows, &last))
    refuse("run: batches " + std::to_string(first) + " to " + std::to_string(count) + " of " + std::to_string(rows) +
           " rows");
  const std::vector<at::Tensor> batch = first_batches(arrays, order, rows, last);
  const at::Tensor& loss = loss_;
  if (!loss.defined() || loss.dim() != 0) refuse("run: set_loss comes first, with a 0-dim tensor");
  check_in_memory(losses, "losses");
  check_storage(losses, "Executor", "losses");
  if (losses.scalar_type() != loss.scalar_type() || !losses.is_contiguous() || losses.numel() < count)
    refuse("run: losses must be " + std::to_string(count) + " numbers of the loss's dtype");
  check_memory();
  for (size_t i = 0; i < batch.size(); ++i) bind(i, batch[i]);
  const int64_t* index = order ? static_cast<const int64_t*>(order->const_data_ptr()) : nullptr;
  char* to = static_cast<char*>(losses.mutable_data_ptr());
  auto asked = Clock::now(), read = asked;
  int64_t next = 1, last_read = 0;  // the clock is read after these steps: after every one, or some if they are short
  const Finally counted([&] { count_writes(); });
  for (int64_t step = 0; step < count; ++step) {
    const int64_t begin = (first + step) * rows;
    for (size_t i = 0; i < arrays.size(); ++i) {
      if (index) {
        gather(arrays[i], index + begin, rows, batch[i]);
      } else {  // a view of the array, as torch's slice: the same memory further on
        c10::StorageImpl* storage = arguments_[i].storage.unsafeGetStorageImpl();
        const size_t skip = static_cast<size_t>(begin * arrays[i].stride(0)) * arrays[i].element_size();
        char* start = const_cast<char*>(static_cast<const char*>(arrays[i].const_data_ptr()));
        storage->set_data_ptr_noswap(at::DataPtr(start + skip, at::kCPU));
        storage->set_nbytes(span(arrays[i]) - skip);
      }
    }
    set(numbers, draws);
    replay();
    for (Draws& d : draws) d.offset += d.blocks;
    steps_ = step + 1;
    std::memcpy(to + static_cast<size_t>(step) * loss.element_size(), loss.const_data_ptr(), loss.element_size());
    if (steps_ < next) continue;
    const auto now = Clock::now();
    next = steps_ + (now - read < kShort ? std::min<int64_t>(2 * (steps_ - last_read), 64) : 1);
    read = now;
    last_read = steps_;
    if (now - asked > kTick) {
      asked = now;
      count_writes();
      if (!tick(steps_)) return steps_;
    }
  }
  return count;
}

}  // namespace tapegrad
