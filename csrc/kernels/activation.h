// The elementwise functions that have kernels, shared by kernels, border and bindings.
#pragma once
#include <stdint.h>

namespace tapegrad {

// X(name, what the backward reads, number of parameters)
#define TG_ACTIVATIONS(X) \
  X(relu, out, 0)         \
  X(leaky_relu, saved, 1) \
  X(tanh, out, 0)         \
  X(sigmoid, out, 0)      \
  X(gelu, input, 0)       \
  X(gelu_tanh, input, 0)  \
  X(silu, input, 0)       \
  X(softplus, input, 2)   \
  X(exp, out, 0)          \
  X(log, input, 0)

#define TG_ACTIVATION_NAME(name, saved, parameters) name,
enum class Activation { TG_ACTIVATIONS(TG_ACTIVATION_NAME) };
#undef TG_ACTIVATION_NAME

enum class Arithmetic { add, sub, mul, div };

}  // namespace tapegrad
