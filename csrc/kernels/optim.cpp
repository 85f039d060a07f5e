// Updates of SGD and Adam of one stretch of memory, torch's formulas in one pass, and in lanes.
#include "kernels/descent.h"
#include "kernels/lanes.h"
#include "kernels/table.h"

namespace tapegrad::TG_ISA {
namespace {

template <class T>
struct SgdVectors {
  Descent<T> descent;
  Vec<T> lr, momentum, pull;  // -lr
  MaskOf<T> moves;            // momentum is not 0; what does not move keeps its b
  bool nesterov, all_move;
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
      const V old = s.load(b), moved = fma(d, h.pull, old * h.momentum);
      const V step = h.nesterov ? fma(moved, h.momentum, d) : moved;
      s.store(h.all_move ? moved : select(h.moves, moved, old), b);
      d = h.all_move ? step : select(h.moves, step, d);
    }
    s.store(fma(d, h.lr, x), p);
  });
}

template <class T>
struct AdamVectors {
  Descent<T> descent;
  Mean<T> means;
  Square<T> squares;
  Vec<T> shrink, step, root, eps;  // -step
};

// m <- b1 m + (1 - b1) g, v <- b2 v + (1 - b2) g^2, p <- p - step m / (sqrt(v) / root + eps)
template <class T>
TG_INLINE void descend(const AdamVectors<T>& h, T* p, const T* g, T* m, T* v, T* v_max, int64_t n) {
  using V = Vec<T>;
  [[maybe_unused]] const FlushToZero flush;
  over_vectors<T>(n, [&](const Stretch<T>& s) __attribute__((always_inline)) {
    const V x = s.load(p), d = h.descent.of(s.load(g), x);
    const V mean = h.means.of(s.load(m), d), square = h.squares.of(s.load(v), d);
    s.store(mean, m);
    s.store(square, v);
    V largest = square;
    if (v_max) {
      largest = larger(s.load(v_max), square);
      s.store(largest, v_max);
    }
    s.store(x * h.shrink + h.step * mean / (sqrt(largest) / h.root + h.eps), p);
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
  const Descent<T> d = descent(h.maximize, h.weight_decay);
  const V momentum = V::set1(h.momentum);
  descend<T>({d, V::set1(-h.lr), momentum, V::set1(h.pull), momentum == momentum, h.nesterov, true}, p, g, b, n);
}

template <class T>
void adam(const Adam<T>& h, T* p, const T* g, T* m, T* v, T* v_max, int64_t n) {
  using V = Vec<T>;
  descend<T>({descent(h.maximize, h.weight_decay),
              mean(V::set1(h.weight1)),
              {V::set1(h.beta2), V::set1(h.weight2)},
              V::set1(h.shrink),
              V::set1(-h.step),
              V::set1(h.root),
              V::set1(h.eps)},
             p, g, m, v, v_max, n);
}

// In lanes: n elements of a vector each
template <class T>
void lane_sgd(const SgdLanes<T>& h, T* p, const T* g, T* b, int64_t n) {
  using V = Vec<T>;
  const Descent<T> d = descent(h.maximize, lanes<T>(h.weight_decay), true);
  const V momentum = lanes<T>(h.momentum);
  descend<T>({d, minus<T>(h.lr), momentum, lanes<T>(h.pull), ~(momentum == V::set1(0)), h.nesterov, h.all_move}, p, g,
             b, n * V::N);
}

template <class T>
void lane_adam(const AdamLanes<T>& h, T* p, const T* g, T* m, T* v, T* v_max, int64_t n) {
  using V = Vec<T>;
  descend<T>({descent(h.maximize, lanes<T>(h.weight_decay), true),
              mean(lanes<T>(h.weight1)),
              {lanes<T>(h.beta2), lanes<T>(h.weight2)},
              lanes<T>(h.shrink),
              minus<T>(h.step),
              lanes<T>(h.root),
              lanes<T>(h.eps)},
             p, g, m, v, v_max, n * V::N);
}

#define TG_INSTANTIATE(T)                                                \
  template void sgd(const Sgd<T>&, T*, const T*, T*, int64_t);           \
  template void adam(const Adam<T>&, T*, const T*, T*, T*, T*, int64_t); \
  template void lane_sgd(const SgdLanes<T>&, T*, const T*, T*, int64_t); \
  template void lane_adam(const AdamLanes<T>&, T*, const T*, T*, T*, T*, int64_t);
TG_INSTANTIATE(float)
TG_INSTANTIATE(double)

}  // namespace tapegrad::TG_ISA
