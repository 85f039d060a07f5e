// A recurrent network of one layer and direction over whole sequences, forward and backward in one call each.
//
// Sequences are packed: rows [M, ...] of all steps one after another, step t having sizes[t] rows, sizes never growing;
// a padded batch [L, N, ...] is L steps of N rows. Every sequence's arithmetic is its own, so threads share out
// sequences, and nothing waits between steps.
#pragma once
#include <ATen/core/Tensor.h>

#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "kernels/recurrent.h"

namespace tapegrad {

struct RecurrentShape {
  Recurrence mode;
  bool reverse, projected;  // whether time runs from the last step; whether h is W_hr times the cells' h
  std::vector<int64_t> sizes;
  int64_t M, N, F, H, P;  // rows, sequences, features, hidden units, features of h (H unless projected)

  int64_t gates() const { return gates_of(mode) * H; }
  int64_t saved() const { return saved_of(mode, projected) * H; }
};

// Contiguous memory; null where there is none: states start as zeros then.
template <class T>
struct RecurrentForward {
  const T *x, *h0, *c0;                                // [M, F], [N, P], [N, H]
  const T *weight_ih, *weight_hh, *bias_ih, *bias_hh;  // [gates, F], [gates, P], [gates]
  const T* weight_hr;                                  // [P, H]
  T *out, *h, *c;                                      // [M, P], [N, P], [N, H]
  T *saved, *before;  // for backward, null if there is none: [M, saved], and h before each step [M, P]
};
template <class T>
void recurrent(const RecurrentShape& s, const RecurrentForward<T>& a);

// Gradients are null where they are not given, or not wanted.
template <class T>
struct RecurrentBackward {
  const T *g_out, *g_h, *g_c;
  const T *x, *weight_ih, *weight_hh, *weight_hr, *saved, *before;
  T *dx, *dh, *dc, *dweight_ih, *dweight_hh, *dbias_ih, *dbias_hh, *dweight_hr;
};
template <class T>
void recurrent_backward(const RecurrentShape& s, const RecurrentBackward<T>& a);

// --- the same on tensors ---

using MaybeTensor = std::optional<at::Tensor>;

// ShapeError where sizes, rows and weights do not belong together.
RecurrentShape recurrent_shape(const char* op, const std::string& mode, bool reverse, const std::vector<int64_t>& sizes,
                               const at::Tensor& x, const at::Tensor& weight_ih, const at::Tensor& weight_hh,
                               const at::Tensor& weight_hr);

// (out, h, c, saved, before); c is undefined unless `mode` is lstm, the last two unless they are to be kept
std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor> recurrent(
    const at::Tensor& x, const MaybeTensor& h0, const MaybeTensor& c0, const at::Tensor& weight_ih,
    const at::Tensor& weight_hh, const MaybeTensor& bias_ih, const MaybeTensor& bias_hh, const MaybeTensor& weight_hr,
    const std::string& mode, const std::vector<int64_t>& sizes, bool reverse, bool keep);

// The gradients of x, h0, c0, weight_ih, weight_hh, bias_ih, bias_hh, weight_hr: those that `needs` names, else
// undefined
using RecurrentGradients =
    std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor>;
RecurrentGradients recurrent_backward(const MaybeTensor& g_out, const MaybeTensor& g_h, const MaybeTensor& g_c,
                                      const at::Tensor& x, const at::Tensor& weight_ih, const at::Tensor& weight_hh,
                                      const MaybeTensor& weight_hr, const at::Tensor& saved, const at::Tensor& before,
                                      const std::string& mode, const std::vector<int64_t>& sizes, bool reverse,
                                      const std::vector<bool>& needs);

}  // namespace tapegrad
