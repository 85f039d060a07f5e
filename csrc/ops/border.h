// The border between torch tensors and kernels: what is wrong is refused here, by name, so that a kernel sees only
// contiguous float32 or float64 memory of the size it was told.
#pragma once
#include <ATen/core/Tensor.h>

#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "kernels/args.h"

namespace tapegrad {

// Become tapegrad.core.errors.ShapeError and DTypeError in Python.
struct ShapeError : std::runtime_error {
  using std::runtime_error::runtime_error;
};
struct DTypeError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

std::string text(at::IntArrayRef sizes);  // "[2, 3]"

// t as a contiguous CPU tensor whose memory is really there, copied only if it must be. ndim < 0: any. Throws
// DTypeError for other dtypes than float32 and float64, other devices and layouts; ShapeError for another ndim.
at::Tensor checked(const at::Tensor& t, const char* op, const char* name, int64_t ndim = -1);

// t as it lies, with its strides.
at::Tensor checked_view(const at::Tensor& t, const char* op, const char* name);

// As `checked`, of `like`'s dtype.
at::Tensor checked(const at::Tensor& t, const char* op, const char* name, int64_t ndim, const at::Tensor& like);

// The same, of exactly these sizes.
at::Tensor checked_sizes(const at::Tensor& t, const char* op, const char* name, at::IntArrayRef sizes,
                         const at::Tensor& like);

// ShapeError where t's storage does not hold all of its elements: it can be resized behind the tensor's back.
void check_storage(const at::Tensor& t, const char* op, const char* name);

// t as contiguous int64: indices, classes.
at::Tensor checked_integers(const at::Tensor& t, const char* op, const char* name);

// ShapeError where a size is negative or the bytes of all elements are beyond int64.
void check_sizes(at::IntArrayRef sizes, at::ScalarType dtype, const char* op);

// value, or ShapeError for `name[axis]`: from `least` to the largest int32, so that products of two fit int64.
int64_t in_range(int64_t value, int64_t least, const char* op, const char* name, int axis);

// A contiguous CPU tensor of such sizes, uninitialised.
at::Tensor make(at::IntArrayRef sizes, at::ScalarType dtype, const char* op);

// While one exists, `make` hands out these tensors instead of allocating, each once, where one of the wanted sizes and
// dtype is left: how a compiled tape has its kernels write into its arena.
class Given {
 public:
  explicit Given(const std::vector<at::Tensor>& outs);
  ~Given();
  Given(const Given&) = delete;
  Given& operator=(const Given&) = delete;
  // The first tensor left with these sizes, strides (contiguous where there are none) and dtype; undefined if none is.
  static at::Tensor take(at::IntArrayRef sizes, std::optional<at::IntArrayRef> strides, at::ScalarType dtype);
};

// This thread's scratch: kScratchBytes, 64-byte aligned, kept for the thread's life. One user at a time.
void* scratch();

// f(float{}) or f(double{})
template <class F>
auto by_dtype(const at::Tensor& t, F&& f) {
  return t.scalar_type() == at::kFloat ? f(float{}) : f(double{});
}

template <class T>
const T* data(const at::Tensor& t) {
  return t.defined() ? static_cast<const T*>(t.const_data_ptr()) : nullptr;
}
template <class T>
T* mutable_data(const at::Tensor& t) {
  return static_cast<T*>(t.mutable_data_ptr());
}

// How many units of `flops` each are worth a thread.
inline int64_t grain(double flops) { return static_cast<int64_t>(100000.0 / (flops < 1 ? 1 : flops)) + 1; }

}  // namespace tapegrad
