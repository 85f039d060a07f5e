#include "ops/border.h"

#include <ATen/EmptyTensor.h>
#include <ATen/core/grad_mode.h>
#include <c10/util/typeid.h>

#include <limits>
#include <memory>
#include <new>

#include "ops/blocks.h"

namespace tapegrad {

std::string text(at::IntArrayRef sizes) {
  std::string s = "[";
  for (size_t i = 0; i < sizes.size(); ++i) s += (i ? ", " : "") + std::to_string(sizes[i]);
  return s + "]";
}

// Refuses what no kernel reads.
static void check_kind(const at::Tensor& t, const char* op, const char* name) {
  if (t.defined() && t.layout() == at::kStrided && t.device().type() == at::kCPU &&
      (t.scalar_type() == at::kFloat || t.scalar_type() == at::kDouble))
    return;
  const std::string who = std::string(op) + ": " + name;
  if (!t.defined()) throw DTypeError(who + " must be a tensor, is None");
  if (t.layout() != at::kStrided || t.device().type() != at::kCPU)
    throw DTypeError(who + " must be a dense CPU tensor, is " + c10::toString(t.options().computeDispatchKey()));
  throw DTypeError(who + ".dtype must be float32 or float64, is " + c10::toString(t.scalar_type()));
}

void check_storage(const at::Tensor& t, const char* op, const char* name) {
  if (t.numel() == 0 || t._is_zerotensor()) return;
  int64_t end = t.storage_offset() + 1;  // one beyond the last element that t names in its storage
  for (int64_t i = 0; i < t.dim(); ++i) end += (t.size(i) - 1) * t.stride(i);
  const size_t needed = static_cast<size_t>(end) * t.element_size();
  if (t.storage().nbytes() < needed || t.const_data_ptr() == nullptr)
    throw ShapeError(std::string(op) + ": " + name + " of shape " + text(t.sizes()) + " needs " +
                     std::to_string(needed) + " bytes of storage, has " + std::to_string(t.storage().nbytes()));
}

at::Tensor checked_integers(const at::Tensor& t, const char* op, const char* name) {
  if (!t.defined() || t.scalar_type() != at::kLong || t.device().type() != at::kCPU || t.layout() != at::kStrided ||
      t._is_zerotensor())
    throw DTypeError(std::string(op) + ": " + name + " must be a dense int64 CPU tensor");
  check_storage(t, op, name);
  const at::NoGradGuard unrecorded;
  return t.resolve_neg().contiguous();
}

at::Tensor checked(const at::Tensor& t, const char* op, const char* name, int64_t ndim) {
  check_kind(t, op, name);
  if (ndim >= 0 && t.dim() != ndim)
    throw ShapeError(std::string(op) + ": " + name + " must have " + std::to_string(ndim) + " dimensions, has shape " +
                     text(t.sizes()));
  check_storage(t, op, name);
  at::Tensor c = t;
  if (!t.is_contiguous() || t.is_neg() || t._is_zerotensor()) {
    const at::NoGradGuard unrecorded;
    c = t._is_zerotensor() ? make(t.sizes(), t.scalar_type(), op).zero_() : t.resolve_neg().contiguous();
  }
  return c;
}

at::Tensor checked_view(const at::Tensor& t, const char* op, const char* name) {
  check_kind(t, op, name);
  if (t.is_neg() || t._is_zerotensor()) return checked(t, op, name);
  check_storage(t, op, name);
  return t;
}

at::Tensor checked(const at::Tensor& t, const char* op, const char* name, int64_t ndim, const at::Tensor& like) {
  at::Tensor c = checked(t, op, name, ndim);
  if (c.scalar_type() != like.scalar_type())
    throw DTypeError(std::string(op) + ": " + name + ".dtype must be " + c10::toString(like.scalar_type()) +
                     " as the other arguments', is " + c10::toString(c.scalar_type()));
  return c;
}

at::Tensor checked_sizes(const at::Tensor& t, const char* op, const char* name, at::IntArrayRef sizes,
                         const at::Tensor& like) {
  at::Tensor c = checked(t, op, name, -1, like);
  if (c.sizes() != sizes)
    throw ShapeError(std::string(op) + ": " + name + ".shape must be " + text(sizes) + ", is " + text(c.sizes()));
  return c;
}

int64_t in_range(int64_t value, int64_t least, const char* op, const char* name, int axis) {
  constexpr int64_t most = std::numeric_limits<int32_t>::max();
  if (value < least || value > most)
    throw ShapeError(std::string(op) + ": " + name + "[" + std::to_string(axis) + "] must be from " +
                     std::to_string(least) + " to " + std::to_string(most) + ", is " + std::to_string(value));
  return value;
}

void check_sizes(at::IntArrayRef sizes, at::ScalarType dtype, const char* op) {
  // counted without the empty extents, so that the strides fit too
  int64_t count = static_cast<int64_t>(c10::elementSize(dtype));
  for (const int64_t size : sizes) {
    if (size < 0) throw ShapeError(std::string(op) + ": sizes must not be negative, are " + text(sizes));
    if (__builtin_mul_overflow(count, size > 0 ? size : 1, &count))
      throw ShapeError(std::string(op) + ": a tensor of shape " + text(sizes) + " has too many elements");
  }
}

namespace {
thread_local const std::vector<at::Tensor>* given = nullptr;
thread_local uint64_t taken = 0;  // bit i: given[i] has been handed out
}  // namespace

Given::Given(const std::vector<at::Tensor>& outs) {
  given = &outs;
  taken = 0;
}

Given::~Given() { given = nullptr; }

at::Tensor Given::take(at::IntArrayRef sizes, std::optional<at::IntArrayRef> strides, at::ScalarType dtype) {
  if (!given) return {};
  for (size_t i = 0; i < given->size() && i < 64; ++i) {
    const at::Tensor& t = (*given)[i];
    if (taken >> i & 1 || !t.defined() || t.scalar_type() != dtype || t.sizes() != sizes) continue;
    if (strides ? t.strides() != *strides : !t.is_contiguous()) continue;
    taken |= uint64_t{1} << i;
    return t;
  }
  return {};
}

at::Tensor make(at::IntArrayRef sizes, at::ScalarType dtype, const char* op) {
  if (at::Tensor t = Given::take(sizes, std::nullopt, dtype); t.defined()) return t;
  check_sizes(sizes, dtype, op);
  constexpr c10::DispatchKeySet cpu(c10::DispatchKey::CPU);
  return at::detail::empty_generic(sizes, block_allocator(), cpu, dtype, std::nullopt);
}

void* scratch() {
  struct Free {
    void operator()(void* p) const { ::operator delete(p, std::align_val_t{64}); }
  };
  thread_local const std::unique_ptr<void, Free> memory(::operator new(kScratchBytes, std::align_val_t{64}));
  return memory.get();
}

}  // namespace tapegrad
