// The one caller of the product kernel: which product runs how, whoever asks (linear, matmul, a compiled step).
#pragma once
#include "kernels/args.h"

namespace tapegrad {

// Shares the product's rows or columns out to threads. An element's chain runs over all of K in one thread, so the cut
// is free. Ours at every size: torch's does not give the same bits with 1, 2 and 3 threads, not as panels in a parallel
// region either.
template <class T>
void product(Gemm<T> a);

// One product for every index of a batch of `dims` extents, the last running fastest. C is [batch][M][N], contiguous.
constexpr int64_t kBatchDims = 8;
template <class T>
struct Products {
  Gemm<T> first;
  int64_t dims;
  int64_t extent[kBatchDims];
  int64_t a_step[kBatchDims], b_step[kBatchDims];  // in elements, 0 where an operand is broadcast
};

// The same bits as a product for each index.
template <class T>
void products(Products<T> p);

}  // namespace tapegrad
