// Sums, differences, products and quotients of two arrays, or of an array and one number: what compiled tapes run
// between the kernels, bit for bit as torch computes it.
#include "kernels/table.h"
#include "kernels/vops.h"

namespace tapegrad::TG_ISA {
namespace {

template <class T, class F>
void apply(const F& f, const T* a, bool one_a, const T* b, bool one_b, T* out, int64_t n) {
  using V = Vec<T>;
  if (one_a) {
    const V x = V::set1(*a);
    map(n, out, [=](V y) __attribute__((always_inline)) { return f(x, y); }, b);
  } else if (one_b) {
    const V y = V::set1(*b);
    map(n, out, [=](V x) __attribute__((always_inline)) { return f(x, y); }, a);
  } else {
    map(n, out, [=](V x, V y) __attribute__((always_inline)) { return f(x, y); }, a, b);
  }
}

}  // namespace

// out[i] = a[i] f b[i]; one_a, one_b: that operand is a single number
template <class T>
void arithmetic(Arithmetic f, const T* a, bool one_a, const T* b, bool one_b, T* out, int64_t n) {
  using V = Vec<T>;
  switch (f) {
    case Arithmetic::add:
      return apply([](V x, V y) __attribute__((always_inline)) { return x + y; }, a, one_a, b, one_b, out, n);
    case Arithmetic::sub:
      return apply([](V x, V y) __attribute__((always_inline)) { return x - y; }, a, one_a, b, one_b, out, n);
    case Arithmetic::mul:
      return apply([](V x, V y) __attribute__((always_inline)) { return x * y; }, a, one_a, b, one_b, out, n);
    case Arithmetic::div:
      return apply([](V x, V y) __attribute__((always_inline)) { return x / y; }, a, one_a, b, one_b, out, n);
  }
}

// out[i] = a[i] b[i] c[i] scale, multiplied in that order
template <class T>
void scaled_product(const T* a, const T* b, const T* c, T scale, T* out, int64_t n) {
  using V = Vec<T>;
  const V s = V::set1(scale);
  map(n, out, [=](V a, V b, V c) __attribute__((always_inline)) { return a * b * c * s; }, a, b, c);
}

template void scaled_product(const float*, const float*, const float*, float, float*, int64_t);
template void scaled_product(const double*, const double*, const double*, double, double*, int64_t);
template void arithmetic(Arithmetic, const float*, bool, const float*, bool, float*, int64_t);
template void arithmetic(Arithmetic, const double*, bool, const double*, bool, double*, int64_t);

}  // namespace tapegrad::TG_ISA
