#include "ops/blocks.h"

#include <c10/core/impl/alloc_cpu.h>

#include <cstring>
#include <deque>
#include <mutex>

namespace tapegrad {
namespace {

constexpr size_t kHeader = 64;          // in front of the data: its size; keeps the data 64-byte aligned
constexpr size_t kMost = 256ull << 20;  // bytes kept at most
constexpr size_t kMostBlocks = 256;     // blocks kept at most, which every search may have to pass

size_t& size_of(void* data) { return *reinterpret_cast<size_t*>(static_cast<char*>(data) - kHeader); }

void* acquire(size_t size) {
  char* block = static_cast<char*>(c10::alloc_cpu(size + kHeader));
  *reinterpret_cast<size_t*>(block) = size;
  return block + kHeader;
}

void release(void* data) { c10::free_cpu(static_cast<char*>(data) - kHeader); }

class Blocks final : public c10::Allocator {
 public:
  c10::DataPtr allocate(size_t size) override {
    void* data = size >= static_cast<size_t>(kBlockBytes) ? take(size) : nullptr;
    if (data == nullptr) data = acquire(size);
    return {data, data, &give_back, c10::Device(c10::DeviceType::CPU)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &give_back; }
  void copy_data(void* to, const void* from, size_t count) const override { std::memcpy(to, from, count); }

  int64_t empty() {
    const std::lock_guard<std::mutex> guard(lock_);
    const int64_t bytes = static_cast<int64_t>(kept_);
    for (const Free& block : free_) release(block.data);
    free_.clear();
    kept_ = 0;
    return bytes;
  }

 private:
  // A lock that is held (by another thread, or for ever in a forked child) is not waited for: the cache is passed by.
  void* take(size_t size) {
    const std::unique_lock<std::mutex> guard(lock_, std::try_to_lock);
    if (!guard) return nullptr;
    auto best = free_.end();
    for (auto i = free_.end(); i != free_.begin();) {  // the latest first: it may still be in the processor's cache
      --i;
      if (i->size < size || i->size > size + size / 8 || (best != free_.end() && i->size >= best->size)) continue;
      best = i;
      if (best->size == size) break;
    }
    if (best == free_.end()) return nullptr;
    const Free block = *best;
    free_.erase(best);
    kept_ -= block.size;
    return block.data;
  }

  bool keep(void* data) {
    const size_t size = size_of(data);
    const std::unique_lock<std::mutex> guard(lock_, std::try_to_lock);
    if (!guard || size > kMost) return false;
    for (; kept_ + size > kMost || free_.size() >= kMostBlocks; free_.pop_front()) {  // the oldest goes first
      kept_ -= free_.front().size;
      release(free_.front().data);
    }
    free_.push_back({data, size});
    kept_ += size;
    return true;
  }

  static void give_back(void* data);

  std::mutex lock_;
  struct Free {
    void* data;
    size_t size;
  };
  std::deque<Free> free_;  // oldest first
  size_t kept_ = 0;
};

// Never destroyed: a tensor may outlive every static object.
Blocks& blocks() {
  static Blocks& one = *new Blocks;
  return one;
}

void Blocks::give_back(void* data) {
  if (size_of(data) < static_cast<size_t>(kBlockBytes) || !blocks().keep(data)) release(data);
}

}  // namespace

c10::Allocator* block_allocator() { return &blocks(); }

int64_t empty_cache() { return blocks().empty(); }

}  // namespace tapegrad
