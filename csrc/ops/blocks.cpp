#include "ops/blocks.h"

#include <c10/core/impl/alloc_cpu.h>

#include <array>
#include <cstring>
#include <deque>
#include <mutex>
#include <utility>

namespace tapegrad {
namespace {

constexpr size_t kHeader = 64;          // in front of the data: its size; keeps the data 64-byte aligned
constexpr size_t kMost = 256ull << 20;  // bytes kept at most
constexpr size_t kMostBlocks = 256;     // blocks kept at most, which every search may have to pass
constexpr size_t kMostSmall = 1 << 20;  // bytes kept in blocks below kBlockBytes

size_t& size_of(void* data) { return *reinterpret_cast<size_t*>(static_cast<char*>(data) - kHeader); }

void* acquire(size_t size) {
  char* block = static_cast<char*>(c10::alloc_cpu(size + kHeader));
  *reinterpret_cast<size_t*>(block) = size;
  return block + kHeader;
}

void release(void* data) { c10::free_cpu(static_cast<char*>(data) - kHeader); }

// Blocks below kBlockBytes by size, rounded up to 64 bytes: malloc takes longer to align one than a small op computes.
class Small {
 public:
  static size_t rounded(size_t size) { return (size + 63) & ~size_t{63}; }
  void* take(size_t size) {
    void*& first = first_[size / 64];
    void* const data = first;
    if (data == nullptr) return nullptr;
    first = next(data);
    kept_ -= size;
    return data;
  }
  bool keep(void* data, size_t size) {
    if (kept_ + size > kMostSmall) return false;
    next(data) = first_[size / 64];
    first_[size / 64] = data;
    kept_ += size;
    return true;
  }
  size_t empty() {
    const size_t bytes = kept_;
    for (void*& first : first_)
      while (first != nullptr) release(std::exchange(first, next(first)));
    kept_ = 0;
    return bytes;
  }

 private:
  static void*& next(void* data) { return *(reinterpret_cast<void**>(static_cast<char*>(data) - kHeader) + 1); }
  std::array<void*, kBlockBytes / 64> first_{};
  size_t kept_ = 0;
};

class Blocks final : public c10::Allocator {
 public:
  c10::DataPtr allocate(size_t size) override {
    size = Small::rounded(size);
    void* data = take(size);
    if (data == nullptr) data = acquire(size);
    return {data, data, &give_back, c10::Device(c10::DeviceType::CPU)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &give_back; }
  void copy_data(void* to, const void* from, size_t count) const override { std::memcpy(to, from, count); }

  int64_t empty() {
    const std::lock_guard<std::mutex> guard(lock_);
    const int64_t bytes = static_cast<int64_t>(kept_ + small_.empty());
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
    if (size < kBlockBytes) return small_.take(size);
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
    if (size < kBlockBytes) return small_.keep(data, size);
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
  Small small_;
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
  if (!blocks().keep(data)) release(data);
}

}  // namespace

c10::Allocator* block_allocator() { return &blocks(); }

int64_t empty_cache() { return blocks().empty(); }

}  // namespace tapegrad
