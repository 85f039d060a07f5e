// Optimizer updates of one stretch of memory, torch's formulas in one pass.
#include "kernels/lanes.h"
#include "kernels/table.h"
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

template <class T>
struct SgdVectors {
  Descent<T> descent;
  Vec<T> lr, momentum, pull;  // -lr
  bool nesterov;
};

// b <- momentum b + pull g; p <- p - lr b, or with nesterov p - lr (g + momentum b); without b, p <- p - lr g
template <class T>
TG_INLINE void descend(const SgdVectors<T>& h, T* p, const T* g, T* b, int64_t n) {
  using V = Vec<T>;
  [[maybe_unused]] const FlushToZero flush;
  over_vectors<T>(n, [&](const Stretch<T>& s) __attribute__((always_inline)) {
    const V x = s.load(p);
    V d = h.descent.of(s.load(g), x);
    if (b) {
      const V moved = fma(d, h.pull, s.load(b) * h.momentum);
      s.store(moved, b);
      d = h.nesterov ? fma(moved, h.momentum, d) : moved;
    }
    s.store(fma(d, h.lr, x), p);
  });
}

template <class T>
struct AdamVectors {
  Descent<T> descent;
  Vec<T> shrink, step, root;  // -step
  T weight1, beta2, weight2, eps;
};

// m <- b1 m + (1 - b1) g, v <- b2 v + (1 - b2) g^2, p <- p - step m / (sqrt(v) / root + eps)
template <class T>
TG_INLINE void descend(const AdamVectors<T>& h, T* p, const T* g, T* m, T* v, T* v_max, int64_t n) {
  using V = Vec<T>;
  [[maybe_unused]] const FlushToZero flush;
  const V w1 = V::set1(h.weight1), rest1 = V::set1(T(1) - h.weight1), beta2 = V::set1(h.beta2);
  const V w2 = V::set1(h.weight2), eps = V::set1(h.eps);
  over_vectors<T>(n, [&](const Stretch<T>& s) __attribute__((always_inline)) {
    V x = s.load(p);
    const V d = h.descent.of(s.load(g), x);
    x = x * h.shrink;
    const V old = s.load(m);
    // torch's lerp: from the nearer end
    const V mean = h.weight1 < T(0.5) ? fma(w1, d - old, old) : d - (d - old) * rest1;
    const V square = fma(d * w2, d, s.load(v) * beta2);
    s.store(mean, m);
    s.store(square, v);
    V largest = square;
    if (v_max) {  // a NaN in either stays
      const V before = s.load(v_max);
      largest = select(square <= before, before, square);
      largest = select(before == before, largest, before);
      s.store(largest, v_max);
    }
    s.store(fma(h.step, mean / (sqrt(largest) / h.root + eps), x), p);
  });
}

// The first of a whole vector of lanes; numbers of lanes that a shorter vector does not have stay where they are.
template <class T>
TG_INLINE Vec<T> lanes(const T* numbers) {
  return Vec<T>::load(numbers);
}
template <class T>
TG_INLINE Vec<T> minus(const T* numbers) {
  T turned[Vec<T>::N];
  for (int l = 0; l < Vec<T>::N; ++l) turned[l] = -numbers[l];
  return Vec<T>::load(turned);
}

}  // namespace

template <class T>
void sgd(const Sgd<T>& h, T* p, const T* g, T* b, int64_t n) {
  using V = Vec<T>;
  const Descent<T> d = descent(h.maximize, V::set1(h.weight_decay), h.weight_decay != 0);
  descend<T>({d, V::set1(-h.lr), V::set1(h.momentum), V::set1(h.pull), h.nesterov}, p, g, b, n);
}

template <class T>
void adam(const Adam<T>& h, T* p, const T* g, T* m, T* v, T* v_max, int64_t n) {
  using V = Vec<T>;
  const Descent<T> d = descent(h.maximize, V::set1(h.weight_decay), h.weight_decay != 0);
  const V shrink = V::set1(h.shrink), step = V::set1(-h.step), root = V::set1(h.root);
  descend<T>({d, shrink, step, root, h.weight1, h.beta2, h.weight2, h.eps}, p, g, m, v, v_max, n);
}

// In lanes: n elements of a vector each
template <class T>
void lane_sgd(const SgdLanes<T>& h, T* p, const T* g, T* b, int64_t n) {
  using V = Vec<T>;
  const Descent<T> d = descent(h.maximize, lanes<T>(h.weight_decay), true);
  descend<T>({d, minus<T>(h.lr), V::set1(h.momentum), lanes<T>(h.pull), h.nesterov}, p, g, b, n * V::N);
}

template <class T>
void lane_adam(const AdamLanes<T>& h, T* p, const T* g, T* m, T* v, T* v_max, int64_t n) {
  using V = Vec<T>;
  const Descent<T> d = descent(h.maximize, lanes<T>(h.weight_decay), true);
  descend<T>({d, lanes<T>(h.shrink), minus<T>(h.step), lanes<T>(h.root), h.weight1, h.beta2, h.weight2, h.eps}, p, g, m,
             v, v_max, n * V::N);
}

#define TG_INSTANTIATE(T)                                                \
  template void sgd(const Sgd<T>&, T*, const T*, T*, int64_t);           \
  template void adam(const Adam<T>&, T*, const T*, T*, T*, T*, int64_t); \
  template void lane_sgd(const SgdLanes<T>&, T*, const T*, T*, int64_t); \
  template void lane_adam(const AdamLanes<T>&, T*, const T*, T*, T*, T*, int64_t);
TG_INSTANTIATE(float)
TG_INSTANTIATE(double)

}  // namespace tapegrad::TG_ISA
