// The Python names of csrc/ops and nothing else. tapegrad/_C.pyi is their typed stub.
#include <ATen/Parallel.h>
#include <omp.h>

#include <mutex>
#include <set>
#include <thread>

#include "bindings/elementwise.h"
#include "bindings/guards.h"
#include "bindings/kernel.h"
#include "bindings/log.h"
#include "bindings/norms.h"
#include "bindings/optimizers.h"
#include "bindings/panels.h"
#include "bindings/recording.h"
#include "bindings/replay.h"
#include "bindings/slots.h"
#include "bindings/step.h"
#include "bindings/switches.h"
#include "bindings/tape.h"
#include "dispatch.h"
#include "ops/blocks.h"
#include "ops/border.h"
#include "ops/conv2d.h"
#include "ops/ctc.h"
#include "ops/linear.h"
#include "ops/matmul.h"
#include "ops/pool.h"
#include "ops/random.h"
#include "ops/recurrent.h"
#include "ops/resample.h"
#include "ops/upsample.h"
#include "ops/upsample_conv2d.h"

namespace tapegrad {
namespace {

using In = const at::Tensor&;
using Optional = std::optional<at::Tensor>;
using Sizes = std::vector<int64_t>;

py::dict build_info() {
  py::dict info;
  info["torch"] = TG_TORCH_VERSION;
  info["isa"] = kernels().isa;
  info["compiler"] = __VERSION__;
  info["openmp"] = _OPENMP;
  info["threads"] = at::get_num_threads();
  return info;
}

int64_t parallel_threads(int64_t n) {
  const py::gil_scoped_release release;
  std::mutex lock;
  std::set<std::thread::id> seen;
  at::parallel_for(0, n, 1, [&](int64_t, int64_t) {
    const std::lock_guard<std::mutex> guard(lock);
    seen.insert(std::this_thread::get_id());
  });
  return static_cast<int64_t>(seen.size());
}

// Ends the threads that share this thread's work, torch's too; the next work that is shared starts new ones. False
// where they are at work.
bool end_threads() { return omp_pause_resource_all(omp_pause_hard) == 0; }

// Raises tapegrad.core.errors.NAME, so that C++ and Python refuse with the same classes.
void raise(const char* name, const std::exception& error) {
  py::set_error(py::module_::import("tapegrad.core.errors").attr(name), error.what());
}

void translate(std::exception_ptr thrown) {
  try {
    if (thrown) std::rethrow_exception(thrown);
  } catch (const ShapeError& error) {
    raise("ShapeError", error);
  } catch (const DTypeError& error) {
    raise("DTypeError", error);
  }
}

void bind_conv2d(py::module_& m) {
  const auto input_grad = [](In g, In weight, const Sizes& size, Pair stride, Pair padding, Pair dilation,
                             int64_t groups) {
    return conv2d_input_grad(g, weight, size, {stride, padding, dilation, groups});
  };
  const auto weight_grad = [](In g, In input, const Sizes& size, Pair stride, Pair padding, Pair dilation,
                              int64_t groups) {
    return conv2d_weight_grad(g, input, size, {stride, padding, dilation, groups});
  };
  for (const bool of_doubled : {false, true}) {
    const auto forward = [of_doubled](In input, In weight, const Optional& bias, Pair stride, Pair padding,
                                      Pair dilation, int64_t groups) {
      return conv2d(input, weight, bias, {stride, padding, dilation, groups}, of_doubled);
    };
    const auto backward = [of_doubled](In g, const Optional& input, const Optional& weight, const Sizes& input_size,
                                       const Sizes& weight_size, Pair stride, Pair padding, Pair dilation,
                                       int64_t groups, bool need_input, bool need_weight, bool need_bias) {
      return conv2d_backward(g, input, weight, input_size, weight_size, {stride, padding, dilation, groups}, need_input,
                             need_weight, need_bias, of_doubled);
    };
    kernel(m, of_doubled ? "conv2d_of_doubled" : "conv2d", forward, "input", "weight", "bias", "stride", "padding",
           "dilation", "groups");
    kernel(m, of_doubled ? "conv2d_of_doubled_backward" : "conv2d_backward", backward, "g", "input", "weight",
           "input_size", "weight_size", "stride", "padding", "dilation", "groups", "need_input", "need_weight",
           "need_bias");
  }
  kernel(m, "conv2d_input_grad", input_grad, "g", "weight", "input_size", "stride", "padding", "dilation", "groups");
  kernel(m, "conv2d_weight_grad", weight_grad, "g", "input", "weight_size", "stride", "padding", "dilation", "groups");
}

void bind_upsample(py::module_& m) {
  const auto backward = [](In g, const Sizes& size, const Scales& scales) {
    return upsample_nearest2d_backward(g, size, scales);
  };
  const auto unpool = [](const at::Tensor& g, const at::Tensor& indices, const Sizes& size) {
    return max_pool2d_backward(g, indices, size);
  };
  kernel(m, "max_pool2d", &max_pool2d, "input", "kernel_size", "stride", "padding", "dilation", "ceil_mode");
  kernel(m, "max_pool2d_backward", unpool, "g", "indices", "input_size");
  kernel(m, "upsample_nearest2d", &upsample_nearest2d, "input", "output_size", "scales");
  kernel(m, "upsample_nearest2d_backward", backward, "g", "input_size", "scales");
  const auto resampled = [](In x, const Sizes& size, const std::string& mode, bool align, const Factors& factors) {
    return resample(x, size, mode, align, factors);
  };
  const auto unsampled = [](In g, const Sizes& size, const std::string& mode, bool align, const Factors& factors) {
    return resample_backward(g, size, mode, align, factors);
  };
  kernel(m, "resample", resampled, "input", "size", "mode", "align_corners", "factors");
  kernel(m, "resample_backward", unsampled, "g", "size", "mode", "align_corners", "factors");
  kernel(m, "upsample_conv2d", &upsample_conv2d, "input", "weight", "bias");
  kernel(m, "upsample_conv2d_backward", &upsample_conv2d_backward, "g", "input", "weight", "need_input", "need_weight",
         "need_bias");
}

void bind_products(py::module_& m) {
  const auto affine = [](In input, In weight, const Optional& bias) { return linear(input, weight, bias); };
  const auto affine_backward = [](In g, const Optional& input, const Optional& weight, bool need_input,
                                  bool need_weight, bool need_bias) {
    return linear_backward(g, input, weight, need_input, need_weight, need_bias);
  };
  kernel(m, "linear", affine, "input", "weight", "bias");
  kernel(m, "linear_backward", affine_backward, "g", "input", "weight", "need_input", "need_weight", "need_bias");
  const auto backward = [](In g, const Optional& input, const Optional& other, const Sizes& input_size,
                           const Sizes& other_size, bool need_input, bool need_other) {
    return matmul_backward(g, input, other, input_size, other_size, need_input, need_other);
  };
  kernel(m, "matmul", &matmul, "input", "other");
  kernel(m, "matmul_backward", backward, "g", "input", "other", "input_size", "other_size", "need_input", "need_other");
}

void bind_sequences(py::module_& m) {
  const auto forward = [](In x, const Optional& h0, const Optional& c0, In weight_ih, In weight_hh,
                          const Optional& bias_ih, const Optional& bias_hh, const Optional& weight_hr,
                          const std::string& mode, const Sizes& sizes, bool reverse, bool keep) {
    return recurrent(x, h0, c0, weight_ih, weight_hh, bias_ih, bias_hh, weight_hr, mode, sizes, reverse, keep);
  };
  const auto backward = [](const Optional& g_out, const Optional& g_h, const Optional& g_c, In x, In weight_ih,
                           In weight_hh, const Optional& weight_hr, In saved, In before, const std::string& mode,
                           const Sizes& sizes, bool reverse, const std::vector<bool>& needs) {
    return recurrent_backward(g_out, g_h, g_c, x, weight_ih, weight_hh, weight_hr, saved, before, mode, sizes, reverse,
                              needs);
  };
  kernel(m, "recurrent", forward, "input", "hx", "cx", "weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr",
         "mode", "sizes", "reverse", "keep");
  kernel(m, "recurrent_backward", backward, "g_out", "g_h", "g_c", "input", "weight_ih", "weight_hh", "weight_hr",
         "saved", "before", "mode", "sizes", "reverse", "needs");
  kernel(m, "ctc_loss", &ctc_loss, "log_probs", "targets", "input_lengths", "target_lengths", "blank");
  kernel(m, "ctc_loss_backward", &ctc_loss_backward, "g", "log_probs", "targets", "input_lengths", "target_lengths",
         "loss", "alpha", "blank", "zero_infinity");
}

void bind_random(py::module_& m) {
  const auto uniform = [](const Sizes& size, at::ScalarType dtype, uint64_t seed, uint64_t offset) {
    return random_uniform(size, dtype, seed, offset);
  };
  const auto normal = [](const Sizes& size, at::ScalarType dtype, uint64_t seed, uint64_t offset) {
    return random_normal(size, dtype, seed, offset);
  };
  const auto integers = [](int64_t low, int64_t high, const Sizes& size, uint64_t seed, uint64_t offset) {
    return random_int(low, high, size, seed, offset);
  };
  const auto bernoulli = [](double p, const Sizes& size, uint64_t seed, uint64_t offset) {
    return random_bernoulli(p, size, seed, offset);
  };
  kernel(m, "random_uniform", uniform, "size", "dtype", "seed", "offset");
  kernel(m, "random_normal", normal, "size", "dtype", "seed", "offset");
  kernel(m, "random_int", integers, "low", "high", "size", "seed", "offset");
  kernel(m, "random_bernoulli", bernoulli, "p", "size", "seed", "offset");
  kernel(m, "permutation", &permutation, "n", "seed", "epoch");
  m.def("random_blocks", &random_blocks, py::arg("numel"), py::arg("dtype"));
  m.def("philox", &philox, py::arg("block"), py::arg("stream"), py::arg("seed"));
}

}  // namespace

PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) {
  kernels();  // refuses a wrong TAPEGRAD_ISA here, at import
  py::register_local_exception_translator(translate);
  bind_conv2d(m);
  bind_products(m);
  bind_upsample(m);
  bind_random(m);
  bind_sequences(m);
  bind_elementwise(m);
  bind_norms(m);
  bind_optimizers(m);
  bind_panels(m);
  const auto check = [](In ok) {
    check_storage(ok, "check", "ok");
    if (!ok.all().item<bool>()) throw std::runtime_error("a check of the step's values failed");
  };
  kernel(m, "check", check, "ok");
  bind_log(m);
  bind_recording(m);
  bind_guards(m);
  bind_replay(m);
  bind_replayed(m);
  bind_networks(m);
  bind_slots(m);
  bind_step(m);
  bind_switches(m);
  bind_tape(m);
  m.def("empty_cache", &empty_cache, py::call_guard<py::gil_scoped_release>());
  m.def("build_info", &build_info);
  m.def("parallel_threads", &parallel_threads, py::arg("n"));
  m.def("end_threads", &end_threads);
  m.def(
      "storage_use_count", [](const at::Tensor& t) { return static_cast<int64_t>(t.storage().use_count()); },
      py::arg("t"));
  m.def(
      "same_storage", [](const at::Tensor& a, const at::Tensor& b) { return a.is_alias_of(b); }, py::arg("a"),
      py::arg("b"));
  m.def("bump_version", [](const at::Tensor& t) { t.unsafeGetTensorImpl()->bump_version(); }, py::arg("t"));
}

}  // namespace tapegrad
