// What direct instructions are made of: places that are looked up at every step, and calls of plain functions.
#pragma once
#include <ATen/core/Tensor.h>
#include <c10/core/Storage.h>

#include <memory>
#include <utility>

#include "ops/elementwise.h"
#include "replay/call.h"

namespace tapegrad {

constexpr int64_t kGrain = 32768;  // elements worth a thread

// Where a tensor's elements lie, asked anew at every step: an argument's memory is another one each time.
template <class T>
class At {
 public:
  At() = default;
  explicit At(const at::Tensor& t) {
    if (!t.defined()) return;
    storage_ = t.storage();
    offset_ = t.storage_offset();
  }
  T* get() const {
    if (!storage_) return nullptr;
    return static_cast<T*>(storage_.unsafeGetStorageImpl()->_mutable_data_ptr_no_checks().get()) + offset_;
  }

 private:
  c10::Storage storage_;
  int64_t offset_ = 0;
};

template <class F>
class Direct final : public Call {
 public:
  explicit Direct(F f) : f_(std::move(f)) {}
  void run() override { f_(); }
  void set(size_t, double) override {}
  void set(size_t, uint64_t) override {}

 private:
  F f_;
};
template <class F>
std::unique_ptr<Call> direct(F f) {
  return std::make_unique<Direct<F>>(std::move(f));
}

// The same for a range of elements: f(begin, end).
template <class F>
class DirectElementwise final : public Elementwise {
 public:
  DirectElementwise(int64_t n, F f) : Elementwise(n), f_(std::move(f)) {}
  void run() override {
    over(count, kGrain, [&](int64_t begin, int64_t end) { f_(begin, end); });
  }
  void run(int64_t begin, int64_t end) override { f_(begin, end); }
  void set(size_t, double) override {}
  void set(size_t, uint64_t) override {}

 private:
  F f_;
};
template <class F>
std::unique_ptr<Call> elementwise(int64_t n, F f) {
  return std::make_unique<DirectElementwise<F>>(n, std::move(f));
}

}  // namespace tapegrad
