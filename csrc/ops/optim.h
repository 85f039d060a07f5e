// Optimizer updates, one call for a list of parameters, in place: torch's formulas (torch.optim's single-tensor path).
// Everything is checked before the first write. A parameter and its state may have any strides that do not overlap;
// where they differ from one another the update works on contiguous copies and writes those back.
#pragma once
#include <ATen/core/Tensor.h>

#include <vector>

namespace tapegrad {

using Tensors = std::vector<at::Tensor>;

struct SgdOptions {
  double lr, momentum, dampening, weight_decay;
  bool nesterov, maximize;
};
// buffers and steps have one entry per parameter where momentum != 0, else none. A step is a 0-dim float32 that counts
// up; where it is 0, dampening does not apply.
void sgd_(const Tensors& params, const Tensors& grads, const Tensors& buffers, const Tensors& steps,
          const SgdOptions& options);

struct AdamOptions {
  double lr, beta1, beta2, eps, weight_decay;
  bool amsgrad, maximize, decoupled;
};
// max_exp_avg_sqs has entries where amsgrad, else none. A step is a 0-dim float32 that counts up.
void adam_(const Tensors& params, const Tensors& grads, const Tensors& exp_avgs, const Tensors& exp_avg_sqs,
           const Tensors& max_exp_avg_sqs, const Tensors& steps, const AdamOptions& options);

}  // namespace tapegrad
