// Each function beside its derivative's product with g, both on one vector. a and b are its parameters.
#include "kernels/activation.h"

#include "kernels/table.h"
#include "kernels/vmath.h"

namespace tapegrad::TG_ISA {
namespace {

template <class T>
struct Functions {
  using V = Vec<T>;
  static TG_INLINE V c(double value) { return V::set1(static_cast<T>(value)); }

  struct relu {
    static TG_INLINE V forward(V x, V, V) { return at_least(x, c(0)); }
    static TG_INLINE V backward(V g, V out, V, V) { return select(out <= c(0), c(0), g); }
  };
  struct leaky_relu {  // slope a; from the output too where a > 0, which keeps the sign
    static TG_INLINE V forward(V x, V a, V) { return select(c(0) < x, x, x * a); }
    static TG_INLINE V backward(V g, V saved, V a, V) { return select(c(0) < saved, g, g * a); }
  };
  struct tanh {
    static TG_INLINE V forward(V x, V, V) { return TG_ISA::tanh(x); }
    static TG_INLINE V backward(V g, V out, V, V) { return g * (c(1) - out * out); }
  };
  struct sigmoid {
    static TG_INLINE V forward(V x, V, V) { return TG_ISA::sigmoid(x); }
    static TG_INLINE V backward(V g, V out, V, V) { return g * out * (c(1) - out); }
  };
  struct gelu {
    static TG_INLINE V forward(V x, V, V) { return x * normal(x).phi; }
    static TG_INLINE V backward(V g, V x, V, V) {
      const Normal<T> n = normal(x);
      return g * (n.phi + x * (n.bell * c(0.3989422804014327)));  // 1 / sqrt(2 pi)
    }
  };
  struct gelu_tanh {
    static constexpr double kRoot = 0.7978845608028654, kCube = 0.044715;  // sqrt(2 / pi)
    static TG_INLINE V inner(V x) { return TG_ISA::tanh(c(kRoot) * (x + c(kCube) * x * x * x)); }
    static TG_INLINE V forward(V x, V, V) { return c(0.5) * x * (c(1) + inner(x)); }
    static TG_INLINE V backward(V g, V x, V, V) {
      const V t = inner(x), slope = c(kRoot) * (c(1) + c(3 * kCube) * x * x);
      return g * (c(0.5) * (c(1) + t) + c(0.5) * x * (c(1) - t * t) * slope);
    }
  };
  struct silu {
    static TG_INLINE V forward(V x, V, V) { return x * TG_ISA::sigmoid(x); }
    static TG_INLINE V backward(V g, V x, V, V) {
      const V s = TG_ISA::sigmoid(x);
      return g * s * (c(1) + x * (c(1) - s));
    }
  };
  struct softplus {  // a = beta, b = threshold
    static TG_INLINE V forward(V x, V a, V b) {
      const V z = x * a;
      const V y = (at_least(z, c(0)) + log1p_unit(TG_ISA::exp(c(0) - abs(z)))) / a;
      return select(b < z, x, y);
    }
    static TG_INLINE V backward(V g, V x, V a, V b) {
      const V z = x * a;
      return select(b < z, g, g * TG_ISA::sigmoid(z));
    }
  };
  struct exp {
    static TG_INLINE V forward(V x, V, V) { return TG_ISA::exp(x); }
    static TG_INLINE V backward(V g, V out, V, V) { return g * out; }
  };
  struct log {
    static TG_INLINE V forward(V x, V, V) { return TG_ISA::log(x); }
    static TG_INLINE V backward(V g, V x, V, V) { return g / x; }
  };
};

template <class F, class T>
void forward(const T* x, T* out, int64_t n, T a, T b) {
  const Vec<T> va = Vec<T>::set1(a), vb = Vec<T>::set1(b);
  map(n, out, [=](Vec<T> x) __attribute__((always_inline)) { return F::forward(x, va, vb); }, x);
}

template <class F, class T>
void backward(const T* g, const T* saved, T* dx, int64_t n, T a, T b) {
  const Vec<T> va = Vec<T>::set1(a), vb = Vec<T>::set1(b);
  map(n, dx, [=](Vec<T> g, Vec<T> s) __attribute__((always_inline)) { return F::backward(g, s, va, vb); }, g, saved);
}

}  // namespace

// out[i] = f(x[i])
template <class T>
void activation(Activation f, const T* x, T* out, int64_t n, T a, T b) {
#define TG_CASE(name, saved, parameters) \
  case Activation::name:                 \
    return forward<typename Functions<T>::name>(x, out, n, a, b);
  switch (f) { TG_ACTIVATIONS(TG_CASE) }
#undef TG_CASE
}

// dx[i] = g[i] f'(x[i]), from what f saved
template <class T>
void activation_backward(Activation f, const T* g, const T* saved, T* dx, int64_t n, T a, T b) {
#define TG_CASE(name, what, parameters) \
  case Activation::name:                \
    return backward<typename Functions<T>::name>(g, saved, dx, n, a, b);
  switch (f) { TG_ACTIVATIONS(TG_CASE) }
#undef TG_CASE
}

template void activation(Activation, const float*, float*, int64_t, float, float);
template void activation(Activation, const double*, double*, int64_t, double, double);
template void activation_backward(Activation, const float*, const float*, float*, int64_t, float, float);
template void activation_backward(Activation, const double*, const double*, double*, int64_t, double, double);

}  // namespace tapegrad::TG_ISA
