#include "replay/views.h"

#include <ATen/EmptyTensor.h>
#include <c10/core/CPUAllocator.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <new>
#include <stdexcept>

#include "ops/border.h"

namespace tapegrad {

void refuse(const std::string& why) { throw std::invalid_argument("Executor: " + why); }

c10::Storage storage_at(void* data, size_t nbytes, const at::Tensor& owner) {
  const auto drop = [](void* kept) { delete static_cast<at::Tensor*>(kept); };
  at::DataPtr at(data, owner.defined() ? new at::Tensor(owner) : nullptr, owner.defined() ? +drop : nullptr, at::kCPU);
  return c10::Storage(c10::Storage::use_byte_size_t(), static_cast<int64_t>(nbytes), std::move(at), nullptr, false);
}

bool in_memory(const at::Tensor& t) {
  return t.defined() && t.layout() == at::kStrided && t.device().type() == at::kCPU && !t.is_nested() &&
         t.has_storage() && !t._is_zerotensor() && !t.is_neg() && !t.is_conj();
}
void check_in_memory(const at::Tensor& t, const char* what) {
  if (!in_memory(t)) refuse(std::string(what) + " must be a dense CPU tensor");
}

size_t reach(int64_t offset, at::IntArrayRef sizes, at::IntArrayRef strides, size_t element) {
  int64_t last = offset, bytes = 0;
  for (size_t i = 0; i < sizes.size(); ++i) {
    int64_t step;
    if (sizes[i] == 0) return 0;
    if (__builtin_mul_overflow(sizes[i] - 1, strides[i], &step) || __builtin_add_overflow(last, step, &last))
      return SIZE_MAX;
  }
  if (last == INT64_MAX || __builtin_mul_overflow(last + 1, static_cast<int64_t>(element), &bytes)) return SIZE_MAX;
  return static_cast<size_t>(bytes);
}

void check_layout(int64_t offset, at::IntArrayRef sizes, at::IntArrayRef strides) {
  const auto below = [](at::IntArrayRef all) {
    return std::any_of(all.begin(), all.end(), [](int64_t n) { return n < 0; });
  };
  if (sizes.size() != strides.size() || offset < 0 || below(sizes) || below(strides))
    refuse("a view of sizes " + text(sizes) + " and strides " + text(strides) + " from " + std::to_string(offset) +
           " on");
}

at::Tensor view_of(c10::Storage storage, at::ScalarType dtype, int64_t offset, at::IntArrayRef sizes,
                   at::IntArrayRef strides) {
  at::Tensor t = at::detail::make_tensor<c10::TensorImpl>(
      std::move(storage), c10::DispatchKeySet(c10::DispatchKey::CPU), c10::scalarTypeToTypeMeta(dtype));
  t.unsafeGetTensorImpl()->set_storage_offset(offset);
  t.unsafeGetTensorImpl()->set_sizes_and_strides(sizes, strides);
  return t;
}

at::Tensor alias(const at::Tensor& memory, at::ScalarType dtype, int64_t offset, at::IntArrayRef sizes,
                 at::IntArrayRef strides) {
  check_in_memory(memory, "memory");
  check_layout(offset, sizes, strides);
  if (reach(offset, sizes, strides, c10::elementSize(dtype)) > bytes_of(memory))
    throw std::invalid_argument("alias: a view that reaches beyond its memory");
  at::Tensor t = view_of(c10::Storage(memory.storage()), dtype, offset, sizes, strides);
  t.unsafeGetTensorImpl()->set_version_counter(memory.unsafeGetTensorImpl()->version_counter());
  return t;
}

at::Tensor fresh(const at::Tensor& of) {
  constexpr size_t kSmall = 960, kAlign = 64;  // bytes
  const size_t n = of.nbytes();
  if (n > kSmall) {
    at::Tensor made = at::detail::empty_strided_cpu(of.sizes(), of.strides(), of.scalar_type());
    std::memcpy(made.mutable_data_ptr(), of.const_data_ptr(), n);
    return made;
  }
  void* const block = std::malloc(n + kAlign);
  if (!block) throw std::bad_alloc();
  char* const data = reinterpret_cast<char*>((reinterpret_cast<uintptr_t>(block) + kAlign - 1) / kAlign * kAlign);
  if (n > 0) std::memcpy(data, of.const_data_ptr(), n);
  at::DataPtr at(data, block, &std::free, at::kCPU);
  c10::Storage storage(c10::Storage::use_byte_size_t(), static_cast<int64_t>(n), std::move(at), c10::GetCPUAllocator(),
                       true);
  return view_of(std::move(storage), of.scalar_type(), 0, of.sizes(), of.strides());
}

}  // namespace tapegrad
