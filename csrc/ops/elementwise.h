// Activations and dropout, forward and backward in one pass each. Dense tensors keep their strides, as torch's do;
// others are copied to contiguous memory first. float32 and float64.
#pragma once
#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>

#include "kernels/activation.h"
#include "kernels/table.h"
#include "ops/border.h"

namespace tapegrad {

// t, if its elements lie in memory without gaps and overlaps, in whatever order; else `checked`, a contiguous copy.
at::Tensor dense(const at::Tensor& t, const char* op, const char* name);

// The same elements, of `like`'s dtype, shape and strides; `like` is dense. ShapeError, DTypeError otherwise.
at::Tensor laid_out(const at::Tensor& t, const char* op, const char* name, const at::Tensor& like);

// Uninitialised, with the strides of `t`, which is dense.
at::Tensor make_like(const at::Tensor& t);

// f(begin, end) over [0, n), in threads where every one gets at least `grain`; small n without any of that's cost.
template <class F>
void over(int64_t n, int64_t grain, const F& f) {
  if (n <= grain)
    f(int64_t{0}, n);
  else
    at::parallel_for(0, n, grain, f);
}

at::Tensor activation(Activation f, const char* op, const at::Tensor& input, double a, double b);

// g * f', from what TG_ACTIVATIONS says f saves: its output or its input
at::Tensor activation_backward(Activation f, const char* op, const at::Tensor& g, const at::Tensor& saved, double a,
                               double b);

// f of two tensors of one dtype, shape and layout, or of a tensor and one number (`a` or `b` undefined: u or v; or of
// dimension 0), as torch computes it; undefined where they are anything else.
at::Tensor arithmetic(Arithmetic f, const at::Tensor& a, const at::Tensor& b, double u, double v);

// scale * a * b * c, of equal shapes: multilinear, so that its gradients are calls of it again.
at::Tensor scaled_product(const at::Tensor& a, const at::Tensor& b, const at::Tensor& c, double scale);

// input * (random_bernoulli(1 - p) / (1 - p)), element i of the contiguous order taking element i of the mask; zeros
// (NaN where the input is not finite) for p = 1. Its own backward, called with g.
at::Tensor dropout(const at::Tensor& input, double p, uint64_t seed, uint64_t offset);

}  // namespace tapegrad
