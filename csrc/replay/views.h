// Tensors as pieces of memory: where they lie, how far they reach, views of it.
#pragma once
#include <ATen/core/Tensor.h>
#include <c10/core/Storage.h>

#include <string>

namespace tapegrad {

[[noreturn]] void refuse(const std::string& why);  // std::invalid_argument

// Memory that keeps its owner.
c10::Storage storage_at(void* data, size_t nbytes, const at::Tensor& owner);

// Whether t lies in ordinary memory, with sizes, strides and a storage.
bool in_memory(const at::Tensor& t);
void check_in_memory(const at::Tensor& t, const char* what);
void check_layout(int64_t offset, at::IntArrayRef sizes, at::IntArrayRef strides);

// One beyond the last byte that such a view reaches, SIZE_MAX where that is beyond int64.
size_t reach(int64_t offset, at::IntArrayRef sizes, at::IntArrayRef strides, size_t element);
// What the elements span, from the first on.
inline size_t span(const at::Tensor& t) { return reach(0, t.sizes(), t.strides(), t.element_size()); }
inline size_t bytes_of(const at::Tensor& t) { return t.storage().nbytes(); }
inline void* start_of(const at::Tensor& t) { return const_cast<void*>(t.storage().data()); }
inline size_t begin_of(const at::Tensor& t) { return static_cast<size_t>(t.storage_offset()) * t.element_size(); }

at::Tensor view_of(c10::Storage storage, at::ScalarType dtype, int64_t offset, at::IntArrayRef sizes,
                   at::IntArrayRef strides);

// A view of any tensor's memory, which counts writes together with that tensor. Throws where it would reach beyond.
at::Tensor alias(const at::Tensor& memory, at::ScalarType dtype, int64_t offset, at::IntArrayRef sizes,
                 at::IntArrayRef strides);

// A contiguous copy. A few numbers are copied faster than torch's allocator finds memory for them, which takes care of
// alignment in a way that goes by the small blocks that malloc keeps at hand.
at::Tensor fresh(const at::Tensor& of);

}  // namespace tapegrad
