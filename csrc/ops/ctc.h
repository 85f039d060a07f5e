// Connectionist temporal classification (Graves et al., 2006): all alignments of a sequence with its labels, summed by
// dynamic programming in log space. float32 and float64.
#pragma once
#include <ATen/core/Tensor.h>

#include <tuple>

namespace tapegrad {

// (-ln p of each sequence [N], ln alpha for backward) of log_probs [T, N, C]. targets: int64, [N, S] or those of all
// sequences one after another; lengths int64 [N]. ShapeError where lengths or labels do not fit.
std::tuple<at::Tensor, at::Tensor> ctc_loss(const at::Tensor& log_probs, const at::Tensor& targets,
                                            const at::Tensor& input_lengths, const at::Tensor& target_lengths,
                                            int64_t blank);

// g_n (e^log_probs - posterior): the gradient as it is behind a log_softmax, which torch's is too. 0 for steps beyond a
// sequence's end and, with zero_infinity, for a sequence without alignment.
at::Tensor ctc_loss_backward(const at::Tensor& g, const at::Tensor& log_probs, const at::Tensor& targets,
                             const at::Tensor& input_lengths, const at::Tensor& target_lengths, const at::Tensor& loss,
                             const at::Tensor& alpha, int64_t blank, bool zero_infinity);

}  // namespace tapegrad
