// Updates of the optimizers with a step of its own for every element but Adam, torch's formulas in one pass, in the
// order of its single-tensor path.
#include "kernels/descent.h"
#include "kernels/updates.h"

namespace tapegrad::TG_ISA {

// v <- rho v + (1 - rho) g^2, step = sqrt(u + eps) / sqrt(v + eps) g, u <- rho u + (1 - rho) step^2, p <- p - lr step
template <class T>
void adadelta(const Adadelta<T>& h, const Arrays<T>& a, int64_t n) {
  using V = Vec<T>;
  [[maybe_unused]] const FlushToZero flush;
  const Descent<T> d = descent(h.maximize, h.weight_decay);
  const Square<T> squares = {V::set1(h.rho), V::set1(h.weight)};
  const V eps = V::set1(h.eps), lr = V::set1(-h.lr);
  over_vectors<T>(n, [&](const Stretch<T>& s) __attribute__((always_inline)) {
    const V x = s.load(a.p), g = d.of(s.load(a.g), x), u = s.load(a.state[1]);
    const V v = squares.of(s.load(a.state[0]), g);
    const V step = sqrt(u + eps) / sqrt(v + eps) * g;
    s.store(v, a.state[0]);
    s.store(squares.of(u, step), a.state[1]);
    s.store(fma(step, lr, x), a.p);
  });
}

// s <- s + g^2, p <- p - lr g / (sqrt(s) + eps)
template <class T>
void adagrad(const Adagrad<T>& h, const Arrays<T>& a, int64_t n) {
  using V = Vec<T>;
  [[maybe_unused]] const FlushToZero flush;
  const Descent<T> d = descent(h.maximize, h.weight_decay);
  const V eps = V::set1(h.eps), lr = V::set1(-h.lr);
  over_vectors<T>(n, [&](const Stretch<T>& s) __attribute__((always_inline)) {
    const V x = s.load(a.p), g = d.of(s.load(a.g), x), sum = fma(g, g, s.load(a.state[0]));
    s.store(sum, a.state[0]);
    s.store(x + lr * g / (sqrt(sum) + eps), a.p);
  });
}

// m <- b1 m + (1 - b1) g, u <- max(b2 u, |g| + eps), p <- p - lr m / u
template <class T>
void adamax(const Adamax<T>& h, const Arrays<T>& a, int64_t n) {
  using V = Vec<T>;
  [[maybe_unused]] const FlushToZero flush;
  const Descent<T> d = descent(h.maximize, h.weight_decay);
  const Mean<T> means = mean(V::set1(h.weight1));
  const V beta2 = V::set1(h.beta2), eps = V::set1(h.eps), lr = V::set1(-h.lr);
  over_vectors<T>(n, [&](const Stretch<T>& s) __attribute__((always_inline)) {
    const V x = s.load(a.p), g = d.of(s.load(a.g), x), m = means.of(s.load(a.state[0]), g);
    const V u = larger(s.load(a.state[1]) * beta2, abs(g) + eps);
    s.store(m, a.state[0]);
    s.store(u, a.state[1]);
    s.store(x + lr * m / u, a.p);
  });
}

// m, v as Adam's; root = sqrt(v / left) + eps, p <- p + push g / root + pull m / root
template <class T>
void nadam(const Nadam<T>& h, const Arrays<T>& a, int64_t n) {
  using V = Vec<T>;
  [[maybe_unused]] const FlushToZero flush;
  const Descent<T> d = descent(h.maximize, h.weight_decay);
  const Mean<T> means = mean(V::set1(h.weight1));
  const Square<T> squares = {V::set1(h.beta2), V::set1(h.weight2)};
  const V eps = V::set1(h.eps), shrink = V::set1(h.shrink), left = V::set1(h.left);
  const V push = V::set1(h.push), pull = V::set1(h.pull);
  over_vectors<T>(n, [&](const Stretch<T>& s) __attribute__((always_inline)) {
    const V x = s.load(a.p), g = d.of(s.load(a.g), x);
    const V m = means.of(s.load(a.state[0]), g), v = squares.of(s.load(a.state[1]), g);
    const V root = sqrt(v / left) + eps;
    s.store(m, a.state[0]);
    s.store(v, a.state[1]);
    s.store(x * shrink + push * g / root + pull * m / root, a.p);
  });
}

// m, v as Adam's; p <- p - lr m / (1 - b1^t), times rectified sqrt(1 - b2^t) / (sqrt(v) + eps) where that is certain
template <class T>
void radam(const Radam<T>& h, const Arrays<T>& a, int64_t n) {
  using V = Vec<T>;
  [[maybe_unused]] const FlushToZero flush;
  const Descent<T> d = descent(h.maximize, h.weight_decay);
  const Mean<T> means = mean(V::set1(h.weight1));
  const Square<T> squares = {V::set1(h.beta2), V::set1(h.weight2)};
  const V one = V::set1(1), eps = V::set1(h.eps), lr = V::set1(h.lr), shrink = V::set1(h.shrink);
  const V left = V::set1(h.left), root = V::set1(h.root), rectified = V::set1(h.rectified);
  over_vectors<T>(n, [&](const Stretch<T>& s) __attribute__((always_inline)) {
    const V x = s.load(a.p), g = d.of(s.load(a.g), x);
    const V m = means.of(s.load(a.state[0]), g), v = squares.of(s.load(a.state[1]), g);
    V step = m / left * lr;
    if (h.certain) step = step * (one / (sqrt(v) + eps) * root) * rectified;
    s.store(m, a.state[0]);
    s.store(v, a.state[1]);
    s.store(x * shrink - step, a.p);
  });
}

// v <- alpha v + (1 - alpha) g^2, less the square of the mean c of g where there is one; root = sqrt(v) + eps;
// p <- p - lr g / root, or b <- momentum b + g / root, p <- p - lr b. State: v, c, b.
template <class T>
void rmsprop(const Rmsprop<T>& h, const Arrays<T>& a, int64_t n) {
  using V = Vec<T>;
  [[maybe_unused]] const FlushToZero flush;
  const Descent<T> d = descent(h.maximize, h.weight_decay);
  const Mean<T> means = mean(V::set1(h.weight));
  const Square<T> squares = {V::set1(h.alpha), V::set1(h.weight)};
  const V zero = V::set1(0), eps = V::set1(h.eps), lr = V::set1(-h.lr), momentum = V::set1(h.momentum);
  over_vectors<T>(n, [&](const Stretch<T>& s) __attribute__((always_inline)) {
    const V x = s.load(a.p), g = d.of(s.load(a.g), x), v = squares.of(s.load(a.state[0]), g);
    s.store(v, a.state[0]);
    V spread = v;
    if (a.state[1]) {
      const V c = means.of(s.load(a.state[1]), g);
      s.store(c, a.state[1]);
      spread = fma(zero - c, c, v);
    }
    const V root = sqrt(spread) + eps;
    if (a.state[2]) {
      const V b = s.load(a.state[2]) * momentum + g / root;
      s.store(b, a.state[2]);
      s.store(fma(b, lr, x), a.p);
    } else {
      s.store(x + lr * g / root, a.p);
    }
  });
}

// A step grows while the gradient keeps its sign and shrinks where it turns, where the element rests once; p moves by
// the step against the gradient's sign. State: the gradient before, the step. Products of small gradients stay as they
// are: their sign counts.
template <class T>
void rprop(const Rprop<T>& h, const Arrays<T>& a, int64_t n) {
  using V = Vec<T>;
  const V sign = V::set1(h.maximize ? T(-1) : T(1)), zero = V::set1(0), one = V::set1(1);
  const V shrink = V::set1(h.shrink), grow = V::set1(h.grow), least = V::set1(h.least), most = V::set1(h.most);
  over_vectors<T>(n, [&](const Stretch<T>& s) __attribute__((always_inline)) {
    const V g = s.load(a.g) * sign, turn = g * s.load(a.state[0]);
    const V factor = select(zero < turn, grow, select(turn < zero, shrink, one));
    const V size = at_most(at_least(s.load(a.state[1]) * factor, least), most);
    const V kept = select(turn < zero, zero, g);
    const V way = select(zero < kept, one, zero) - select(kept < zero, one, zero);  // 0 for NaN
    s.store(s.load(a.p) - way * size, a.p);
    s.store(size, a.state[1]);
    s.store(kept, a.state[0]);
  });
}

#define TG_F32(name, args) name<float>,
#define TG_F64(name, args) name<double>,
extern const UpdateKernels update_table;
const UpdateKernels update_table = {{TG_UPDATE_KERNELS(TG_F32)}, {TG_UPDATE_KERNELS(TG_F64)}};

}  // namespace tapegrad::TG_ISA
