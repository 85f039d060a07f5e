// Programs in lanes: one instruction works on the same element of as many networks as a vector has lanes. A value of
// shape [...] lies in memory as [..., L]; what is elementwise is so on L times the elements, the rest is here.
#pragma once
#include <memory>
#include <optional>
#include <vector>

#include "ops/loss.h"
#include "ops/optim.h"
#include "replay/call.h"

namespace tapegrad {

// An instruction whose hyper-parameters each network has for itself.
class LaneCall : public Call {
 public:
  void set(size_t, double) override {}
  void set(size_t, uint64_t) override {}
  virtual void set_lane(size_t /*lane*/, size_t /*argument*/, double) {}
};

// Elements of a network, [n], and those of all networks, [n, L], between which they are carried.
struct Carried {
  at::Tensor one, lanes;
};
class Executor;
// An instruction without a form in lanes: `one`, whose only call it is, for each network after the other. Elements are
// carried in before and out after. What it throws is std::out_of_range where `refuses` says that it looks at values.
std::unique_ptr<LaneCall> lane_by_lane(Executor& one, std::vector<Carried> in, std::vector<Carried> out, bool refuses);

// How many networks an instruction of float32 or float64 works on.
int64_t lanes_of(at::ScalarType dtype);

// Each null where it has no form in lanes; tensors are [..., L], contiguous.
using Optional = std::optional<at::Tensor>;
// relu: of the result. gate: dx is 0 where it is not above 0.
std::unique_ptr<Call> lane_linear(const at::Tensor& x, const at::Tensor& w, const Optional& b, bool relu,
                                  const Tensors& outs);
std::unique_ptr<Call> lane_linear_backward(const at::Tensor& g, const Optional& x, const Optional& w,
                                           const Optional& gate, const Tensors& outs);
// The sum or mean of everything, of x * y where there is a y.
std::unique_ptr<Call> lane_sum(const at::Tensor& x, const Optional& y, bool mean, const Tensors& outs);
std::unique_ptr<Call> lane_mse_loss(const at::Tensor& x, const at::Tensor& y, bool mean, const Tensors& outs);
std::unique_ptr<Call> lane_mse_loss_backward(const at::Tensor& g, const at::Tensor& x, const at::Tensor& y, bool mean,
                                             const Tensors& outs);
// Throws std::out_of_range for a target that is no class, before anything is written.
std::unique_ptr<Call> lane_cross_entropy(const at::Tensor& x, const at::Tensor& target, int64_t ignore_index,
                                         Reduction reduction, const Tensors& outs);
std::unique_ptr<Call> lane_cross_entropy_backward(const at::Tensor& g, const at::Tensor& x, const at::Tensor& target,
                                                  const at::Tensor& stats, const at::Tensor& total,
                                                  int64_t ignore_index, Reduction reduction, const Tensors& outs);
// lists as `update` takes them (ops/optim.h); of SGD and Adam
template <class O>
std::unique_ptr<Call> lane_update(const std::vector<Tensors>& lists, const O& options);

}  // namespace tapegrad
