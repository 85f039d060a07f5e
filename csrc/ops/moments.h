// Variances, and what they share with batch norm: sums over groups of elements and maps with a few numbers for each
// group. float32 and float64; statistics are float64 whatever the input is. Every sum is taken in parts of a fixed
// size, and the parts' sums in ascending order.
#pragma once
#include <ATen/core/Tensor.h>

#include <cmath>
#include <tuple>

#include "dispatch.h"
#include "kernels/norms.h"
#include "ops/elementwise.h"
#include "ops/reduction.h"

namespace tapegrad {

// (out, stats): the variance of input over `dims` (all where empty), or with `root` its square root; stats
// [2, kept dimensions as 1...] holds the mean and the sum of (input - mean)^2.
std::tuple<at::Tensor, at::Tensor> var(const at::Tensor& input, at::IntArrayRef dims, double correction, bool keepdim,
                                       bool root);
// input's gradient; g has the elements of var's result, in the same order
at::Tensor var_backward(const at::Tensor& g, const at::Tensor& input, const at::Tensor& stats, at::IntArrayRef dims,
                        double correction, bool root);

// x [A, N, C, P], a group being the elements of one (a, c)
struct GroupExtents {
  int64_t A = 1, N = 1, C = 1, P = 1;
  int64_t groups() const { return A * C; }
  int64_t count() const { return N * P; }  // elements of a group
};

// f(first channel, beyond the last): a few channels at a time while they fit into the processor's cache, so that they
// are read from memory once for all that f does with them, and about a page of memory at a time; else all at once. A
// = 1. `arrays`: how many of x's size f works on
template <class T, class F>
void by_channels(const GroupExtents& e, int64_t arrays, const F& f) {
  constexpr int64_t kCached = 1 << 20, kPage = 4096;  // bytes
  const int64_t plane = e.P * static_cast<int64_t>(sizeof(T)), channel = e.N * plane * arrays;
  if (e.P == 1 || channel > kCached) return f(0, e.C);
  const int64_t page = std::min((kPage + plane - 1) / plane, (e.C + 7) / 8);
  const int64_t some = std::max<int64_t>(1, std::min(page, kCached / channel));
  over((e.C + some - 1) / some, units_of(arrays * e.count() * some), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) f(i * some, std::min((i + 1) * some, e.C));
  });
}

// Of the channels [begin, end), all of them where P = 1: mean and m2 = sum (x - mean)^2 [A, C]
template <class T>
void moments(const T* x, const GroupExtents& e, int64_t begin, int64_t end, double* mean, double* m2);

// the sums of g and of g (x - mean), [A, C]
template <class T>
void slope_sums(const T* g, const T* x, const GroupExtents& e, int64_t begin, int64_t end, const double* mean,
                double* first, double* second);

// The numbers of an affine map for each group: out = (x - from) scale + shift + g gain
template <class T>
class Numbers {
 public:
  explicit Numbers(int64_t groups) : groups_(groups), memory_(4 * groups) {}
  // (x - mean) scale + shift, with what rounding takes from the mean in the shift
  void set(int64_t i, double mean, double scale, double shift, double gain = 0) {
    T* const at = memory_.data() + i;
    at[0] = static_cast<T>(mean);
    at[groups_] = static_cast<T>(scale);
    const double rest = mean - static_cast<double>(at[0]);  // NaN of an infinite mean
    at[2 * groups_] = static_cast<T>(std::abs(rest) > 0 ? shift - rest * scale : shift);
    at[3 * groups_] = static_cast<T>(gain);
  }
  void apply(const GroupExtents& e, int64_t begin, int64_t end, const T* x, const T* g, T* out) {
    const T* at = memory_.data();
    const Affine<T> a = {e.N, e.C, e.P, begin, end, x, at, at + groups_, at + 2 * groups_, at + 3 * groups_, g, out};
    const int64_t units = e.A * e.N * (e.P == 1 ? 1 : end - begin);
    if (units > 0 && e.P > 0)
      over(units, units_of(e.P == 1 ? e.C : e.P),
           [&](int64_t one, int64_t beyond) { kernels_for<T>().affine(a, one, beyond); });
  }

 private:
  int64_t groups_;
  Partials<T> memory_;
};

// The statistics that a forward call returned, as its backward call gets them.
const double* checked_stats(const at::Tensor& stats, const char* op, int64_t numel);

}  // namespace tapegrad
