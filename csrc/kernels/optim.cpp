// Optimizer updates of one stretch of memory, torch's formulas in one pass.
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

// The gradient to descend: g or -g, plus weight_decay * p
template <class T>
TG_INLINE Vec<T> direction(Vec<T> g, Vec<T> p, Vec<T> sign, bool decay, Vec<T> weight_decay) {
  g = g * sign;
  return decay ? fma(p, weight_decay, g) : g;
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

}  // namespace

// b <- momentum b + pull g; p <- p - lr b, or with nesterov p - lr (g + momentum b); without b, p <- p - lr g
template <class T>
void sgd(const Sgd<T>& h, T* p, const T* g, T* b, int64_t n) {
  using V = Vec<T>;
  [[maybe_unused]] const FlushToZero flush;
  const V lr = V::set1(-h.lr), sign = V::set1(h.maximize ? T(-1) : T(1)), decay = V::set1(h.weight_decay);
  const V momentum = V::set1(h.momentum), pull = V::set1(h.pull);
  over_vectors<T>(n, [&](const Stretch<T>& s) __attribute__((always_inline)) {
    const V x = s.load(p);
    V d = direction(s.load(g), x, sign, h.weight_decay != 0, decay);
    if (b) {
      const V moved = fma(d, pull, s.load(b) * momentum);
      s.store(moved, b);
      d = h.nesterov ? fma(moved, momentum, d) : moved;
    }
    s.store(fma(d, lr, x), p);
  });
}

// m <- b1 m + (1 - b1) g, v <- b2 v + (1 - b2) g^2, p <- p - step m / (sqrt(v) / root + eps)
template <class T>
void adam(const Adam<T>& h, T* p, const T* g, T* m, T* v, T* v_max, int64_t n) {
  using V = Vec<T>;
  [[maybe_unused]] const FlushToZero flush;
  const V sign = V::set1(h.maximize ? T(-1) : T(1)), decay = V::set1(h.weight_decay), shrink = V::set1(h.shrink);
  const V w1 = V::set1(h.weight1), rest1 = V::set1(T(1) - h.weight1), beta2 = V::set1(h.beta2);
  const V w2 = V::set1(h.weight2), root = V::set1(h.root), eps = V::set1(h.eps), step = V::set1(-h.step);
  over_vectors<T>(n, [&](const Stretch<T>& s) __attribute__((always_inline)) {
    V x = s.load(p);
    const V d = direction(s.load(g), x, sign, h.weight_decay != 0, decay);
    x = x * shrink;
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
    s.store(fma(step, mean / (sqrt(largest) / root + eps), x), p);
  });
}

#define TG_INSTANTIATE(T)                                      \
  template void sgd(const Sgd<T>&, T*, const T*, T*, int64_t); \
  template void adam(const Adam<T>&, T*, const T*, T*, T*, T*, int64_t);
TG_INSTANTIATE(float)
TG_INSTANTIATE(double)

}  // namespace tapegrad::TG_ISA
