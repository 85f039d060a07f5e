// The elementwise half of recurrent networks, forward and backward, one pass over a step's rows each; and the layout in
// which a weight is multiplied at every step.
#include "kernels/recurrent.h"

#include "kernels/extents.h"
#include "kernels/table.h"
#include "kernels/vmath.h"

namespace tapegrad::TG_ISA {
namespace {

// A vector's worth of elements, or the last ones of a row
template <class T>
struct Lanes {
  int n;
  TG_INLINE Vec<T> load(const T* p) const { return n == Vec<T>::N ? Vec<T>::load(p) : Vec<T>::load(p, n); }
  TG_INLINE void store(Vec<T> v, T* p) const { n == Vec<T>::N ? v.store(p) : v.store(p, n); }
};

// f(row, first column, lanes) over all of them
template <class T, class F>
TG_INLINE void each(int64_t rows, int64_t H, const F& f) {
  constexpr int N = Vec<T>::N;
  for (int64_t i = 0; i < rows; ++i) {
    int64_t j = 0;
    for (; j + N <= H; j += N) f(i, j, Lanes<T>{N});
    if (j < H) f(i, j, Lanes<T>{static_cast<int>(H - j)});
  }
}

template <class T>
TG_INLINE Vec<T> one() {
  return Vec<T>::set1(1);
}

// g times the slope of sigmoid and tanh, from their values
template <class T>
TG_INLINE Vec<T> through_sigmoid(Vec<T> g, Vec<T> y) {
  return g * y * (one<T>() - y);
}
template <class T>
TG_INLINE Vec<T> through_tanh(Vec<T> g, Vec<T> y) {
  return g * (one<T>() - y * y);
}

// --- i f g o -> c = f c + i g, h = o tanh c ---

template <class T>
void lstm(const RecurrentStep<T>& a) {
  const int64_t H = a.H;
  each<T>(a.rows, H, [&](int64_t row, int64_t j, Lanes<T> l) __attribute__((always_inline)) {
    T *const s = a.saved + row * a.saved_step + j, *const c = a.c + row * H + j;
    const Vec<T> i = sigmoid(l.load(s)), f = sigmoid(l.load(s + H)), g = tanh(l.load(s + 2 * H)),
                 o = sigmoid(l.load(s + 3 * H)), before = l.load(c);
    const Vec<T> after = fma(f, before, i * g), squashed = tanh(after);
    l.store(i, s), l.store(f, s + H), l.store(g, s + 2 * H), l.store(o, s + 3 * H);
    l.store(before, s + 4 * H), l.store(squashed, s + 5 * H);
    l.store(after, c);
    l.store(o * squashed, a.h + row * a.h_step + j);
  });
}

template <class T>
void lstm_back(const RecurrentStepBack<T>& a) {
  const int64_t H = a.H;
  each<T>(a.rows, H, [&](int64_t row, int64_t j, Lanes<T> l) __attribute__((always_inline)) {
    const T* const s = a.saved + row * a.saved_step + j;
    T *const to = a.to_inputs + row * 4 * H + j, *const at = a.dc + row * H + j;
    const Vec<T> i = l.load(s), f = l.load(s + H), g = l.load(s + 2 * H), o = l.load(s + 3 * H);
    const Vec<T> before = l.load(s + 4 * H), squashed = l.load(s + 5 * H);
    Vec<T> dh = l.load(a.dh + row * H + j);
    if (a.g) dh = dh + l.load(a.g + row * H + j);
    const Vec<T> dc = l.load(at) + through_tanh(dh * o, squashed);
    l.store(through_sigmoid(dc * g, i), to);
    l.store(through_sigmoid(dc * before, f), to + H);
    l.store(through_tanh(dc * i, g), to + 2 * H);
    l.store(through_sigmoid(dh * squashed, o), to + 3 * H);
    l.store(dc * f, at);
  });
}

// --- r z n -> h' = n + z (h - n), n = tanh(inputs' share + r q) ---

template <class T>
void gru(const RecurrentStep<T>& a) {
  const int64_t H = a.H;
  each<T>(a.rows, H, [&](int64_t row, int64_t j, Lanes<T> l) __attribute__((always_inline)) {
    T* const s = a.saved + row * a.saved_step + j;
    const T* const p = a.product + row * 3 * H + j;
    const Vec<T> r = sigmoid(l.load(s) + l.load(p)), z = sigmoid(l.load(s + H) + l.load(p + H)), q = l.load(p + 2 * H);
    const Vec<T> n = tanh(fma(r, q, l.load(s + 2 * H))), before = l.load(a.before + row * H + j);
    l.store(r, s), l.store(z, s + H), l.store(n, s + 2 * H), l.store(q, s + 3 * H);
    l.store(fma(z, before - n, n), a.h + row * a.h_step + j);
  });
}

template <class T>
void gru_back(const RecurrentStepBack<T>& a) {
  const int64_t H = a.H;
  each<T>(a.rows, H, [&](int64_t row, int64_t j, Lanes<T> l) __attribute__((always_inline)) {
    const T* const s = a.saved + row * a.saved_step + j;
    T *const inputs = a.to_inputs + row * 3 * H + j, *const state = a.to_state + row * 3 * H + j;
    const Vec<T> r = l.load(s), z = l.load(s + H), n = l.load(s + 2 * H), q = l.load(s + 3 * H);
    Vec<T> dh = l.load(a.dh + row * H + j);
    if (a.g) dh = dh + l.load(a.g + row * H + j);
    const Vec<T> dz = through_sigmoid(dh * (l.load(a.before + row * H + j) - n), z);
    const Vec<T> dn = through_tanh(dh * (one<T>() - z), n), dr = through_sigmoid(dn * q, r);
    l.store(dr, inputs), l.store(dz, inputs + H), l.store(dn, inputs + 2 * H);
    l.store(dr, state), l.store(dz, state + H), l.store(dn * r, state + 2 * H);
    l.store(dh * z, a.dh + row * H + j);
  });
}

// --- h = f(x) ---

template <class T, bool RELU>
void rnn(const RecurrentStep<T>& a) {
  each<T>(a.rows, a.H, [&](int64_t row, int64_t j, Lanes<T> l) __attribute__((always_inline)) {
    T* const s = a.saved + row * a.saved_step + j;
    const Vec<T> x = l.load(s), h = RELU ? at_least(x, Vec<T>::set1(0)) : tanh(x);
    l.store(h, s);
    l.store(h, a.h + row * a.h_step + j);
  });
}

template <class T, bool RELU>
void rnn_back(const RecurrentStepBack<T>& a) {
  const Vec<T> zero = Vec<T>::set1(0);
  each<T>(a.rows, a.H, [&](int64_t row, int64_t j, Lanes<T> l) __attribute__((always_inline)) {
    const Vec<T> h = l.load(a.saved + row * a.saved_step + j);
    Vec<T> dh = l.load(a.dh + row * a.H + j);
    if (a.g) dh = dh + l.load(a.g + row * a.H + j);
    l.store(RELU ? select(h <= zero, zero, dh) : through_tanh(dh, h), a.to_inputs + row * a.H + j);
  });
}

}  // namespace

template <class T>
void recurrent_step(const RecurrentStep<T>& a) {
  switch (a.mode) {
    case Recurrence::lstm:
      return lstm(a);
    case Recurrence::gru:
      return gru(a);
    case Recurrence::rnn_tanh:
      return rnn<T, false>(a);
    case Recurrence::rnn_relu:
      return rnn<T, true>(a);
  }
}

template <class T>
void recurrent_step_back(const RecurrentStepBack<T>& a) {
  switch (a.mode) {
    case Recurrence::lstm:
      return lstm_back(a);
    case Recurrence::gru:
      return gru_back(a);
    case Recurrence::rnn_tanh:
      return rnn_back<T, false>(a);
    case Recurrence::rnn_relu:
      return rnn_back<T, true>(a);
  }
}

// B[k * b_k + n * b_n], K x N, as panels of `width` columns, a multiple of every vector: to [N / width][K][width]; one
// of the steps is 1.
template <class T>
void pack_panels(const T* B, int64_t b_k, int64_t b_n, int64_t K, int64_t N, int64_t width, T* to) {
  for (int64_t n = 0; n < N; n += width, to += K * width) {
    const int64_t columns = smaller(width, N - n);
    if (b_k == 1) {
      transpose(B + n * b_n, b_n, columns, K, to, width);
      continue;
    }
    for (int64_t k = 0; k < K; ++k)
      each<T>(1, columns, [&](int64_t, int64_t j, Lanes<T> l) __attribute__((always_inline)) {
        l.store(l.load(B + k * b_k + n + j), to + k * width + j);
      });
  }
}

#define TG_INSTANTIATE(T)                                         \
  template void recurrent_step(const RecurrentStep<T>&);          \
  template void recurrent_step_back(const RecurrentStepBack<T>&); \
  template void pack_panels(const T*, int64_t, int64_t, int64_t, int64_t, int64_t, T*);
TG_INSTANTIATE(float)
TG_INSTANTIATE(double)

}  // namespace tapegrad::TG_ISA
