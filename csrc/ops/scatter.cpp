#include "ops/scatter.h"

#include <ATen/ops/index_add.h>
#include <ATen/ops/zeros.h>

#include <algorithm>

#include "ops/border.h"
#include "ops/elementwise.h"

namespace tapegrad {
namespace {

constexpr int64_t kGrain = 32768;  // elements worth a thread

// Whether the kernel may run: torch computes, or refuses, anything else.
bool fits(const at::Tensor& index, at::IntArrayRef size, int64_t dim, const at::Tensor& source) {
  const int64_t ndim = static_cast<int64_t>(size.size());
  if (index.dim() != 1 || ndim == 0 || dim < 0 || dim >= ndim || source.dim() != ndim) return false;
  for (int64_t i = 0; i < ndim; ++i)
    if (source.size(i) != (i == dim ? index.size(0) : size[i])) return false;
  const int64_t* at = static_cast<const int64_t*>(index.const_data_ptr());
  const int64_t most = size[dim];
  return std::all_of(at, at + index.numel(), [=](int64_t i) { return i >= 0 && i < most; });
}

// out[a][index[i]][b] += src[a][i][b], i ascending, of those rows of out [A, R, B] that lie in [begin, end)
template <class T>
void add_rows(int64_t A, int64_t R, int64_t n, int64_t B, const int64_t* index, const T* src, T* out, int64_t begin,
              int64_t end) {
  for (int64_t a = 0; a < A; ++a, out += R * B)
    for (int64_t i = 0; i < n; ++i, src += B) {
      if (index[i] < begin || index[i] >= end) continue;
      T* const to = out + index[i] * B;
      for (int64_t b = 0; b < B; ++b) to[b] += src[b];
    }
}

// out += the rows of source; each thread has rows of its own, so that it does not matter how many there are
void add(const at::Tensor& out, int64_t dim, const at::Tensor& index, const at::Tensor& source) {
  if (source.numel() == 0) return;
  by_dtype(out, [&](auto zero) {
    using T = decltype(zero);
    const at::IntArrayRef sizes = out.sizes();
    const int64_t A = c10::multiply_integers(sizes.slice(0, dim)), R = sizes[dim],
                  B = c10::multiply_integers(sizes.slice(dim + 1));
    over(R, std::max<int64_t>(1, R * kGrain / source.numel()), [&](int64_t begin, int64_t end) {
      add_rows(A, R, index.numel(), B, static_cast<const int64_t*>(index.const_data_ptr()), data<T>(source),
               mutable_data<T>(out), begin, end);
    });
  });
}

at::Tensor as_index(const at::Tensor& index) {
  if (!index.defined() || (index.scalar_type() != at::kLong && index.scalar_type() != at::kInt) ||
      index.device().type() != at::kCPU || index.layout() != at::kStrided || index._is_zerotensor())
    throw DTypeError("index_add: index must be a dense CPU tensor of int64 or int32 indices");
  check_storage(index, "index_add", "index");
  return index.to(at::kLong).contiguous();
}

}  // namespace

at::Tensor index_add(const at::Tensor& input, int64_t dim, const at::Tensor& index, const at::Tensor& source) {
  const char* op = "index_add";
  const at::Tensor x = checked(input, op, "input"), s = checked(source, op, "source", -1, x), i = as_index(index);
  const int64_t d = dim < 0 ? dim + x.dim() : dim;
  if (!fits(i, x.sizes(), d, s)) return at::index_add(input, dim, index, source);
  const at::Tensor out = make(x.sizes(), x.scalar_type(), op);
  out.copy_(x);
  add(out, d, i, s);
  return out;
}

at::Tensor index_sum(const at::Tensor& source, at::IntArrayRef size, int64_t dim, const at::Tensor& index) {
  const char* op = "index_sum";
  check_sizes(size, source.scalar_type(), op);
  const at::Tensor s = checked(source, op, "source"), i = as_index(index);
  const int64_t d = dim < 0 ? dim + static_cast<int64_t>(size.size()) : dim;
  if (!fits(i, size, d, s)) return at::index_add(at::zeros(size, s.options()), dim, index, source);
  const at::Tensor out = make(size, s.scalar_type(), op);
  out.zero_();
  add(out, d, i, s);
  return out;
}

}  // namespace tapegrad
