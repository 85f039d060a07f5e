// The updates of optimizers with a step of its own for every element. A table of their own, as the other kernels know
// nothing of them. What depends on the number of the step alone is worked out in double before.
#pragma once
#include "kernels/args.h"

namespace tapegrad {

// A stretch of a parameter: its elements, its gradient, and up to three arrays of state, null where there is none.
template <class T>
struct Arrays {
  T* p;
  const T* g;
  T* state[3];
};

template <class T>
struct Adadelta {
  T lr, rho, weight, eps, weight_decay;  // weight = 1 - rho
  bool maximize;
};

template <class T>
struct Adagrad {
  T lr, eps, weight_decay;  // lr as it has decayed
  bool maximize;
};

template <class T>
struct Adamax {
  T lr, weight1, beta2, eps, weight_decay;  // lr / (1 - beta1^t), weight1 = 1 - beta1
  bool maximize;
};

template <class T>
struct Nadam {
  T weight1, beta2, weight2, eps, weight_decay, shrink;
  T left;        // 1 - beta2^t
  T push, pull;  // what the gradient and its mean are multiplied by, over the root
  bool maximize;
};

template <class T>
struct Radam {
  T lr, weight1, beta2, weight2, eps, weight_decay, shrink;
  T left, root, rectified;  // 1 - beta1^t, sqrt(1 - beta2^t), and the rectification
  bool certain, maximize;   // certain: the second moment counts
};

template <class T>
struct Rmsprop {
  T lr, momentum, alpha, weight, eps, weight_decay;  // weight = 1 - alpha
  bool maximize;
};

template <class T>
struct Rprop {
  T shrink, grow, least, most;
  bool maximize;
};

#define TG_UPDATE_KERNELS(X)                                         \
  X(adadelta, (const Adadelta<T>& h, const Arrays<T>& a, int64_t n)) \
  X(adagrad, (const Adagrad<T>& h, const Arrays<T>& a, int64_t n))   \
  X(adamax, (const Adamax<T>& h, const Arrays<T>& a, int64_t n))     \
  X(nadam, (const Nadam<T>& h, const Arrays<T>& a, int64_t n))       \
  X(radam, (const Radam<T>& h, const Arrays<T>& a, int64_t n))       \
  X(rmsprop, (const Rmsprop<T>& h, const Arrays<T>& a, int64_t n))   \
  X(rprop, (const Rprop<T>& h, const Arrays<T>& a, int64_t n))

#define TG_UPDATE_POINTER(name, args) void(*name) args;
template <class T>
struct TypedUpdateKernels {
  TG_UPDATE_KERNELS(TG_UPDATE_POINTER)
};
struct UpdateKernels {
  TypedUpdateKernels<float> f32;
  TypedUpdateKernels<double> f64;
};

}  // namespace tapegrad

#ifdef TG_ISA
#define TG_DECLARE_UPDATE(name, args) \
  template <class T>                  \
  void name args;
namespace tapegrad::TG_ISA {
TG_UPDATE_KERNELS(TG_DECLARE_UPDATE)
}  // namespace tapegrad::TG_ISA
#endif
