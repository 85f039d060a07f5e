#include "bindings/norms.h"

#include "bindings/kernel.h"
#include "ops/moments.h"
#include "ops/norms.h"

namespace tapegrad {
namespace {

using In = const at::Tensor&;
using Sizes = std::vector<int64_t>;
using Tensors = std::vector<at::Tensor>;

void bind_variances(py::module_& m) {
  for (const bool root : {false, true}) {
    const auto forward = [root](In x, const Sizes& dims, double correction, bool keepdim) {
      return var(x, dims, correction, keepdim, root);
    };
    const auto backward = [root](In g, In x, In stats, const Sizes& dims, double correction) {
      return var_backward(g, x, stats, dims, correction, root);
    };
    kernel(m, root ? "std" : "var", forward, "input", "dims", "correction", "keepdim");
    kernel(m, root ? "std_backward" : "var_backward", backward, "g", "input", "stats", "dims", "correction");
  }
}

}  // namespace

void bind_norms(py::module_& m) {
  bind_variances(m);
  const auto move = [](const Tensors& means, const Tensors& vars, In stats, double momentum) {
    move_statistics_(means, vars, stats, momentum);
  };
  kernel(m, "batch_norm", &batch_norm, "input", "weight", "bias", "running_mean", "running_var", "eps");
  kernel(m, "batch_norm_backward", &batch_norm_backward, "g", "input", "weight", "stats", "of_batch", "need_input",
         "need_weight", "need_bias");
  kernel(m, "move_statistics_", move, "means", "vars", "stats", "momentum");
  const auto layer = [](In x, const Sizes& shape, const MaybeTensor& weight, const MaybeTensor& bias, double eps) {
    return layer_norm(x, shape, weight, bias, eps);
  };
  const auto layer_backward = [](In g, In x, const Sizes& shape, const MaybeTensor& weight, In stats, bool need_input,
                                 bool need_weight, bool need_bias) {
    return layer_norm_backward(g, x, shape, weight, stats, need_input, need_weight, need_bias);
  };
  kernel(m, "layer_norm", layer, "input", "normalized_shape", "weight", "bias", "eps");
  kernel(m, "layer_norm_backward", layer_backward, "g", "input", "normalized_shape", "weight", "stats", "need_input",
         "need_weight", "need_bias");
  kernel(m, "group_norm", &group_norm, "input", "num_groups", "weight", "bias", "eps");
  kernel(m, "group_norm_backward", &group_norm_backward, "g", "input", "num_groups", "weight", "stats", "need_input",
         "need_weight", "need_bias");
}

}  // namespace tapegrad
