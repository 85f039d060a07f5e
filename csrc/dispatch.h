// The kernels for the processor this process runs on.
#pragma once
#include "kernels/table.h"

namespace tapegrad {

// Chosen at the first call, which the module's initialisation makes. Throws std::runtime_error where TAPEGRAD_ISA asks
// for an instruction set that is unknown or not there.
const Kernels& kernels();

template <class T>
const TypedKernels<T>& kernels_for();
template <>
inline const TypedKernels<float>& kernels_for<float>() {
  return kernels().f32;
}
template <>
inline const TypedKernels<double>& kernels_for<double>() {
  return kernels().f64;
}

}  // namespace tapegrad
