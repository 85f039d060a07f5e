#include "ops/product.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <utility>

#include "dispatch.h"
#include "ops/border.h"

namespace tapegrad {
namespace {

constexpr double kLarge = 1e7;  // FLOP of a product in a batch that is worth threads of its own
constexpr double kShare = 1e6;  // FLOP that are worth a thread: about 8 us, starting one takes 5

double flops(int64_t m, int64_t n, int64_t k) {
  return 2.0 * static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k);
}

// A single column is a row of the transposed product, whose elements fill the kernel's vectors.
template <class T>
void turn_column(Gemm<T>& a) {
  if (a.N != 1 || a.M == 1 || a.c_m != 1) return;
  std::swap(a.M, a.N);
  std::swap(a.A, a.B);
  std::swap(a.a_k, a.b_k);
  a.b_n = std::exchange(a.a_m, a.b_n);
  a.c_m = a.N;
  std::swap(a.bias_m, a.bias_n);
}

template <class T>
void serial(Gemm<T> a) {
  turn_column(a);
  kernels_for<T>().gemm(a, static_cast<T*>(scratch()));
}

// Joins neighbouring dimensions of the batch that are one in memory, and the last one with the rows where it reads the
// same B: fewer and larger products.
template <class T>
void join(Products<T>& p) {
  int64_t dims = 0;
  for (int64_t i = 0; i < p.dims; ++i) {
    if (p.extent[i] == 1) continue;
    const int64_t last = dims - 1;
    if (dims > 0 && p.a_step[last] == p.a_step[i] * p.extent[i] && p.b_step[last] == p.b_step[i] * p.extent[i]) {
      p.extent[last] *= p.extent[i];
      p.a_step[last] = p.a_step[i];
      p.b_step[last] = p.b_step[i];
      continue;
    }
    p.extent[dims] = p.extent[i];
    p.a_step[dims] = p.a_step[i];
    p.b_step[dims++] = p.b_step[i];
  }
  p.dims = dims;
  Gemm<T>& a = p.first;
  if (dims == 0 || p.b_step[dims - 1] != 0) return;
  const int64_t last = dims - 1, step = p.a_step[last];
  if (a.M != 1 && step != a.M * a.a_m) return;
  if (a.M == 1) a.a_m = step;
  a.M *= p.extent[last];
  p.dims = last;
}

}  // namespace

template <class T>
void product(Gemm<T> a) {
  constexpr int64_t block = 16;  // rows or columns in a unit
  turn_column(a);
  const bool by_rows = a.M >= a.N;
  const int64_t extent = by_rows ? a.M : a.N;
  const double unit = flops(by_rows ? a.N : a.M, block, a.K);
  const int64_t units = (extent + block - 1) / block, least = static_cast<int64_t>(kShare / std::max(unit, 1.0)) + 1;
  if (units <= least) return serial(a);
  at::parallel_for(0, units, least, [&](int64_t begin, int64_t end) {
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

template <class T>
void products(Products<T> p) {
  join(p);
  const Gemm<T>& first = p.first;
  if (p.dims == 0) return product(first);
  int64_t count = 1;
  for (int64_t i = 0; i < p.dims; ++i) count *= p.extent[i];
  const auto run = [&](int64_t begin, int64_t end, auto&& one) {
    for (int64_t index = begin; index < end; ++index) {
      Gemm<T> a = first;
      a.C += index * first.M * first.N;
      int64_t rest = index;
      for (int64_t i = p.dims - 1; i >= 0; --i) {
        a.A += rest % p.extent[i] * p.a_step[i];
        a.B += rest % p.extent[i] * p.b_step[i];
        rest /= p.extent[i];
      }
      one(a);
    }
  };
  const double each = flops(first.M, first.N, first.K);
  if (each >= kLarge) return run(0, count, [](const Gemm<T>& a) { product(a); });
  at::parallel_for(0, count, grain(each), [&](int64_t begin, int64_t end) { run(begin, end, serial<T>); });
}

template void product(Gemm<float>);
template void product(Gemm<double>);
template void products(Products<float>);
template void products(Products<double>);

}  // namespace tapegrad
