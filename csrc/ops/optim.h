// Optimizer updates, one call for a list of parameters, in place: torch's formulas (torch.optim's single-tensor path).
// Everything is checked before the first write. A parameter and its state may have any strides that do not overlap;
// where they differ from one another the update works on contiguous copies and writes those back.
#pragma once
#include <ATen/core/Tensor.h>

#include <vector>

namespace tapegrad {

using Tensors = std::vector<at::Tensor>;

// One parameter's memory: n elements, up to three state arrays (null where there is none), the count of steps.
template <class T>
struct Segment {
  int64_t n;
  T* p;
  const T* g;
  T* state[3];
  float* step;
  double before = 0;  // steps before this one
};

struct SgdOptions {
  double lr, momentum, dampening, weight_decay;
  bool nesterov, maximize;
};
// buffers and steps have one entry per parameter where momentum != 0, else none. A step is a 0-dim float32 that counts
// up; where it is 0, dampening does not apply.
template <class T>
void sgd_(std::vector<Segment<T>>& all, const SgdOptions& options);
void sgd_(const Tensors& params, const Tensors& grads, const Tensors& buffers, const Tensors& steps,
          const SgdOptions& options);

struct AdamOptions {
  double lr, beta1, beta2, eps, weight_decay;
  bool amsgrad, maximize, decoupled;
};
// max_exp_avg_sqs has entries where amsgrad, else none. A step is a 0-dim float32 that counts up.
template <class T>
void adam_(std::vector<Segment<T>>& all, const AdamOptions& options);
void adam_(const Tensors& params, const Tensors& grads, const Tensors& exp_avgs, const Tensors& exp_avg_sqs,
           const Tensors& max_exp_avg_sqs, const Tensors& steps, const AdamOptions& options);

}  // namespace tapegrad
