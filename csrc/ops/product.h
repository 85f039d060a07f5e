// The one caller of the product kernel: which product runs how, whoever asks (linear, matmul).
#pragma once
#include <ATen/Parallel.h>

#include <algorithm>

#include "dispatch.h"
#include "ops/border.h"

namespace tapegrad {

// Shares the product's rows or columns out to threads, whichever there are more of. An element's chain runs over all
// of K in one thread, so the cut is free. Ours at every size: torch's is up to 1.3 times faster where operands are far
// beyond the cache, but did not give the same bits with 1, 2 and 3 threads, not as panels in a parallel region either.
template <class T>
void product(const Gemm<T>& a) {
  constexpr int64_t block = 48;  // rows or columns in a unit
  const bool by_rows = a.M >= a.N;
  const int64_t extent = by_rows ? a.M : a.N;
  const double flops = 2.0 * static_cast<double>(by_rows ? a.N : a.M) * static_cast<double>(a.K) * block;
  if (extent <= block || flops * static_cast<double>(extent) < 1e5 * block)
    return kernels_for<T>().gemm(a, static_cast<T*>(scratch()));
  at::parallel_for(0, (extent + block - 1) / block, grain(flops), [&](int64_t begin, int64_t end) {
    const int64_t first = begin * block, count = std::min(end * block, extent) - first;
    Gemm<T> part = a;
    if (by_rows) {
      part.M = count;
      part.A += first * a.a_m;
      part.C += first * a.c_m;
      if (a.bias_m) part.bias_m += first;
    } else {
      part.N = count;
      part.B += first * a.b_n;
      part.C += first;
      if (a.bias_n) part.bias_n += first;
    }
    kernels_for<T>().gemm(part, static_cast<T*>(scratch()));
  });
}

}  // namespace tapegrad
