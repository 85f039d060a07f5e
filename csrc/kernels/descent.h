// What optimizers' updates share: the gradient to descend, running means, and the walk over a stretch of memory.
#pragma once
#include "kernels/vops.h"
#ifdef __SSE2__
#include <xmmintrin.h>
#endif

namespace tapegrad::TG_ISA {
namespace {

// While one lives, results below the least normal number are zero. The moments of a unit that is dead decay into that
// range and stay, where every operation takes a hundred cycles: a step of Adam had grown 7 times slower.
class FlushToZero {
#ifdef __SSE2__
 public:
  FlushToZero() { _mm_setcsr(before_ | _MM_FLUSH_ZERO_ON); }
  ~FlushToZero() { _mm_setcsr(before_); }
  FlushToZero(const FlushToZero&) = delete;
  FlushToZero& operator=(const FlushToZero&) = delete;

 private:
  const unsigned before_ = _mm_getcsr();
#endif
};

// The gradient to descend: g or -g, plus weight_decay * p where that is not 0
template <class T>
struct Descent {
  Vec<T> sign, weight_decay;
  MaskOf<T> decays;
  bool any;
  TG_INLINE Vec<T> of(Vec<T> g, Vec<T> p) const {
    g = g * sign;
    return any ? select(decays, fma(p, weight_decay, g), g) : g;
  }
};
template <class T>
TG_INLINE Descent<T> descent(bool maximize, Vec<T> weight_decay, bool any) {
  const Vec<T> zero = Vec<T>::set1(0);
  return {Vec<T>::set1(maximize ? T(-1) : T(1)), weight_decay, ~(weight_decay == zero), any};
}
template <class T>
TG_INLINE Descent<T> descent(bool maximize, T weight_decay) {
  return descent(maximize, Vec<T>::set1(weight_decay), weight_decay != 0);
}

template <class T>
struct Stretch {  // `count` lanes at i
  int64_t i;
  int count;
  TG_INLINE Vec<T> load(const T* p) const {
    return count == Vec<T>::N ? Vec<T>::load(p + i) : Vec<T>::load(p + i, count);
  }
  TG_INLINE void store(Vec<T> v, T* p) const { count == Vec<T>::N ? v.store(p + i) : v.store(p + i, count); }
};

template <class T, class F>
TG_INLINE void over_vectors(int64_t n, const F& f) {
  int64_t i = 0;
  for (; i + Vec<T>::N <= n; i += Vec<T>::N) f(Stretch<T>{i, Vec<T>::N});
  if (i < n) f(Stretch<T>{i, static_cast<int>(n - i)});
}

// A running mean, (1 - weight) old + weight new: torch's lerp, from the nearer end
template <class T>
struct Mean {
  Vec<T> weight, rest;
  MaskOf<T> near;
  TG_INLINE Vec<T> of(Vec<T> old, Vec<T> now) const {
    return select(near, fma(weight, now - old, old), fma(rest, old - now, now));
  }
};
template <class T>
TG_INLINE Mean<T> mean(Vec<T> weight) {
  return {weight, Vec<T>::set1(1) - weight, weight < Vec<T>::set1(T(0.5))};
}

// keep old + weight new^2
template <class T>
struct Square {
  Vec<T> keep, weight;
  TG_INLINE Vec<T> of(Vec<T> old, Vec<T> now) const { return fma(now * weight, now, old * keep); }
};

// The larger of two; a NaN in either stays
template <class T>
TG_INLINE Vec<T> larger(Vec<T> a, Vec<T> b) {
  return select(a == a, select(b <= a, a, b), a);
}

}  // namespace
}  // namespace tapegrad::TG_ISA
