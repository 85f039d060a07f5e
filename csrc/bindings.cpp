// The Python names of csrc/ops and nothing else. tapegrad/_C.pyi is their typed stub.
#include <ATen/Parallel.h>
#include <torch/csrc/utils/pybind.h>

#include <mutex>
#include <set>
#include <thread>

#include "bindings/elementwise.h"
#include "dispatch.h"
#include "ops/blocks.h"
#include "ops/border.h"
#include "ops/conv2d.h"
#include "ops/linear.h"
#include "ops/matmul.h"
#include "ops/random.h"
#include "ops/upsample.h"
#include "ops/upsample_conv2d.h"

namespace tapegrad {
namespace {

using Optional = std::optional<at::Tensor>;
using Sizes = std::vector<int64_t>;

// Runs f without the GIL where it touches enough elements to take more than a few microseconds.
template <class F>
auto unlocked(double elements, const F& f) {
  std::optional<py::gil_scoped_release> release;
  if (elements > 4096) release.emplace();
  return f();
}

double count(const at::Tensor& t) { return t.defined() ? static_cast<double>(t.numel()) : 0; }
double count(const Optional& t) { return t ? count(*t) : 0; }
double count(const Sizes& size) {
  double n = 1;
  for (const int64_t extent : size) n *= static_cast<double>(extent);
  return n;
}

py::object or_none(const at::Tensor& t) { return t.defined() ? py::cast(t) : py::none(); }

py::tuple gradients(const std::tuple<at::Tensor, at::Tensor, at::Tensor>& g) {
  return py::make_tuple(or_none(std::get<0>(g)), or_none(std::get<1>(g)), or_none(std::get<2>(g)));
}

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

// Raises tapegrad.errors.NAME, so that C++ and Python refuse with the same classes.
void raise(const char* name, const std::exception& error) {
  py::set_error(py::module_::import("tapegrad.errors").attr(name), error.what());
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
  m.def(
      "conv2d",
      [](const at::Tensor& input, const at::Tensor& weight, const Optional& bias, Pair stride, Pair padding,
         Pair dilation, int64_t groups) {
        return unlocked(count(input) + count(weight),
                        [&] { return conv2d(input, weight, bias, {stride, padding, dilation, groups}); });
      },
      py::arg("input"), py::arg("weight"), py::arg("bias"), py::arg("stride"), py::arg("padding"), py::arg("dilation"),
      py::arg("groups"));
  m.def(
      "conv2d_input_grad",
      [](const at::Tensor& g, const at::Tensor& weight, const Sizes& input_size, Pair stride, Pair padding,
         Pair dilation, int64_t groups) {
        return unlocked(count(g) + count(weight),
                        [&] { return conv2d_input_grad(g, weight, input_size, {stride, padding, dilation, groups}); });
      },
      py::arg("g"), py::arg("weight"), py::arg("input_size"), py::arg("stride"), py::arg("padding"),
      py::arg("dilation"), py::arg("groups"));
  m.def(
      "conv2d_weight_grad",
      [](const at::Tensor& g, const at::Tensor& input, const Sizes& weight_size, Pair stride, Pair padding,
         Pair dilation, int64_t groups) {
        return unlocked(count(g) + count(input),
                        [&] { return conv2d_weight_grad(g, input, weight_size, {stride, padding, dilation, groups}); });
      },
      py::arg("g"), py::arg("input"), py::arg("weight_size"), py::arg("stride"), py::arg("padding"),
      py::arg("dilation"), py::arg("groups"));
  m.def(
      "conv2d_backward",
      [](const at::Tensor& g, const Optional& input, const Optional& weight, const Sizes& input_size,
         const Sizes& weight_size, Pair stride, Pair padding, Pair dilation, int64_t groups, bool need_input,
         bool need_weight, bool need_bias) {
        return gradients(unlocked(count(g) + count(input_size) + count(weight_size), [&] {
          return conv2d_backward(g, input, weight, input_size, weight_size, {stride, padding, dilation, groups},
                                 need_input, need_weight, need_bias);
        }));
      },
      py::arg("g"), py::arg("input"), py::arg("weight"), py::arg("input_size"), py::arg("weight_size"),
      py::arg("stride"), py::arg("padding"), py::arg("dilation"), py::arg("groups"), py::arg("need_input"),
      py::arg("need_weight"), py::arg("need_bias"));
}

void bind_linear(py::module_& m) {
  m.def(
      "linear",
      [](const at::Tensor& input, const at::Tensor& weight, const Optional& bias) {
        return unlocked(count(input) + count(weight), [&] { return linear(input, weight, bias); });
      },
      py::arg("input"), py::arg("weight"), py::arg("bias"));
  m.def(
      "linear_backward",
      [](const at::Tensor& g, const Optional& input, const Optional& weight, bool need_input, bool need_weight,
         bool need_bias) {
        return gradients(unlocked(count(g) + count(input) + count(weight), [&] {
          return linear_backward(g, input, weight, need_input, need_weight, need_bias);
        }));
      },
      py::arg("g"), py::arg("input"), py::arg("weight"), py::arg("need_input"), py::arg("need_weight"),
      py::arg("need_bias"));
}

void bind_matmul(py::module_& m) {
  m.def(
      "matmul",
      [](const at::Tensor& input, const at::Tensor& other) {
        return unlocked(count(input) + count(other), [&] { return matmul(input, other); });
      },
      py::arg("input"), py::arg("other"));
  m.def(
      "matmul_backward",
      [](const at::Tensor& g, const Optional& input, const Optional& other, const Sizes& input_size,
         const Sizes& other_size, bool need_input, bool need_other) {
        const auto [dx, dy] = unlocked(count(g) + count(input_size) + count(other_size), [&] {
          return matmul_backward(g, input, other, input_size, other_size, need_input, need_other);
        });
        return py::make_tuple(or_none(dx), or_none(dy));
      },
      py::arg("g"), py::arg("input"), py::arg("other"), py::arg("input_size"), py::arg("other_size"),
      py::arg("need_input"), py::arg("need_other"));
}

void bind_upsample_conv2d(py::module_& m) {
  m.def(
      "upsample_conv2d",
      [](const at::Tensor& input, const at::Tensor& weight, const Optional& bias) {
        return unlocked(count(input) + count(weight), [&] { return upsample_conv2d(input, weight, bias); });
      },
      py::arg("input"), py::arg("weight"), py::arg("bias"));
  m.def(
      "upsample_conv2d_backward",
      [](const at::Tensor& g, const Optional& input, const Optional& weight, bool need_input, bool need_weight,
         bool need_bias) {
        return gradients(unlocked(count(g) + count(weight), [&] {
          return upsample_conv2d_backward(g, input, weight, need_input, need_weight, need_bias);
        }));
      },
      py::arg("g"), py::arg("input"), py::arg("weight"), py::arg("need_input"), py::arg("need_weight"),
      py::arg("need_bias"));
}

void bind_upsample(py::module_& m) {
  m.def(
      "upsample_nearest2d",
      [](const at::Tensor& input, Pair output_size, const Scales& scales) {
        return unlocked(count(input) + 1.0 * output_size[0] * output_size[1],
                        [&] { return upsample_nearest2d(input, output_size, scales); });
      },
      py::arg("input"), py::arg("output_size"), py::arg("scales"));
  m.def(
      "upsample_nearest2d_backward",
      [](const at::Tensor& g, const Sizes& input_size, const Scales& scales) {
        return unlocked(count(g), [&] { return upsample_nearest2d_backward(g, input_size, scales); });
      },
      py::arg("g"), py::arg("input_size"), py::arg("scales"));
}

void bind_random(py::module_& m) {
  m.def(
      "random_uniform",
      [](const Sizes& size, at::ScalarType dtype, uint64_t seed, uint64_t offset) {
        return unlocked(count(size), [&] { return random_uniform(size, dtype, seed, offset); });
      },
      py::arg("size"), py::arg("dtype"), py::arg("seed"), py::arg("offset"));
  m.def(
      "random_normal",
      [](const Sizes& size, at::ScalarType dtype, uint64_t seed, uint64_t offset) {
        return unlocked(count(size), [&] { return random_normal(size, dtype, seed, offset); });
      },
      py::arg("size"), py::arg("dtype"), py::arg("seed"), py::arg("offset"));
  m.def(
      "random_int",
      [](int64_t low, int64_t high, const Sizes& size, uint64_t seed, uint64_t offset) {
        return unlocked(count(size), [&] { return random_int(low, high, size, seed, offset); });
      },
      py::arg("low"), py::arg("high"), py::arg("size"), py::arg("seed"), py::arg("offset"));
  m.def(
      "random_bernoulli",
      [](double p, const Sizes& size, uint64_t seed, uint64_t offset) {
        return unlocked(count(size), [&] { return random_bernoulli(p, size, seed, offset); });
      },
      py::arg("p"), py::arg("size"), py::arg("seed"), py::arg("offset"));
  m.def(
      "permutation",
      [](int64_t n, uint64_t seed, uint64_t epoch) {
        return unlocked(static_cast<double>(n), [&] { return permutation(n, seed, epoch); });
      },
      py::arg("n"), py::arg("seed"), py::arg("epoch"));
  m.def("random_blocks", &random_blocks, py::arg("numel"), py::arg("dtype"));
  m.def("philox", &philox, py::arg("block"), py::arg("stream"), py::arg("seed"));
}

}  // namespace

PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) {
  kernels();  // refuses a wrong TAPEGRAD_ISA here, at import
  py::register_local_exception_translator(translate);
  bind_conv2d(m);
  bind_linear(m);
  bind_matmul(m);
  bind_upsample_conv2d(m);
  bind_upsample(m);
  bind_random(m);
  bind_elementwise(m);
  m.def("empty_cache", &empty_cache, py::call_guard<py::gil_scoped_release>());
  m.def("build_info", &build_info);
  m.def("parallel_threads", &parallel_threads, py::arg("n"));
  m.def(
      "storage_use_count", [](const at::Tensor& t) { return static_cast<int64_t>(t.storage().use_count()); },
      py::arg("t"));
  m.def("bump_version", [](const at::Tensor& t) { t.unsafeGetTensorImpl()->bump_version(); }, py::arg("t"));
}

}  // namespace tapegrad
