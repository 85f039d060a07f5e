// What reductions share: which dimensions, memory for the sums of parts, how many units are worth a thread.
#pragma once
#include <ATen/core/Tensor.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "ops/border.h"

namespace tapegrad {

// How many units of so many elements are worth a thread.
inline int64_t units_of(int64_t elements) {
  constexpr int64_t kGrain = 32768;
  return std::max<int64_t>(1, kGrain / std::max<int64_t>(1, elements));
}

// Memory for partial results: the stack's as far as it goes.
template <class T>
class Partials {
 public:
  explicit Partials(int64_t n) : heap_(n > kFew ? new T[n] : nullptr) {}
  T* data() { return heap_ ? heap_.get() : few_; }

 private:
  static constexpr int64_t kFew = 256;
  T few_[kFew];
  std::unique_ptr<T[]> heap_;
};

inline int64_t wrapped(int64_t dim, int64_t ndim, const char* op) {
  const int64_t n = std::max<int64_t>(ndim, 1), d = dim < 0 ? dim + n : dim;
  if (d < 0 || d >= n)
    throw ShapeError(std::string(op) + ": dim must be in [" + std::to_string(-n) + ", " + std::to_string(n - 1) +
                     "], is " + std::to_string(dim));
  return d;
}

// Which of `ndim` dimensions are reduced: all where `dims` is empty.
inline std::vector<bool> reduced_dims(at::IntArrayRef dims, int64_t ndim, const char* op) {
  std::vector<bool> reduced(ndim, dims.empty());
  for (const int64_t dim : dims) {
    const int64_t d = wrapped(dim, ndim, op);
    if (ndim == 0) continue;
    if (reduced[d]) throw ShapeError(std::string(op) + ": dim " + std::to_string(d) + " is given twice");
    reduced[d] = true;
  }
  return reduced;
}

}  // namespace tapegrad
