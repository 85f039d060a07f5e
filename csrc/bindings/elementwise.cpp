#include "bindings/elementwise.h"

#include "ops/elementwise.h"
#include "ops/loss.h"
#include "ops/optim.h"

namespace tapegrad {
namespace {

using Optional = std::optional<at::Tensor>;

// Runs f without the GIL where it touches enough elements to take more than a few microseconds.
template <class F>
auto unlocked(int64_t elements, const F& f) {
  std::optional<py::gil_scoped_release> release;
  if (elements > 4096) release.emplace();
  return f();
}

int64_t count(const at::Tensor& t) { return t.defined() ? t.numel() : 0; }
int64_t count(const Tensors& list) {
  int64_t n = 0;
  for (const at::Tensor& t : list) n += count(t);
  return n;
}

template <Activation F, int PARAMETERS>
void bind_activation(py::module_& m, const char* op, const char* backward, const char* saved) {
  const auto run = [op](const at::Tensor& x, double a, double b) {
    return unlocked(count(x), [&] { return activation(F, op, x, a, b); });
  };
  const auto back = [backward](const at::Tensor& g, const at::Tensor& saved, double a, double b) {
    return unlocked(count(g), [&] { return activation_backward(F, backward, g, saved, a, b); });
  };
  using T = const at::Tensor&;
  if constexpr (PARAMETERS == 0) {
    m.def(op, [=](T x) { return run(x, 0, 0); }, py::arg("input"));
    m.def(backward, [=](T g, T y) { return back(g, y, 0, 0); }, py::arg("g"), py::arg(saved));
  } else if constexpr (PARAMETERS == 1) {
    m.def(op, [=](T x, double a) { return run(x, a, 0); }, py::arg("input"), py::arg("negative_slope"));
    m.def(
        backward, [=](T g, T y, double a) { return back(g, y, a, 0); }, py::arg("g"), py::arg(saved),
        py::arg("negative_slope"));
  } else {
    m.def(op, run, py::arg("input"), py::arg("beta"), py::arg("threshold"));
    m.def(backward, back, py::arg("g"), py::arg(saved), py::arg("beta"), py::arg("threshold"));
  }
}

Reduction reduction_of(const std::string& name) {
  if (name == "mean") return Reduction::mean;
  if (name == "sum") return Reduction::sum;
  if (name == "none") return Reduction::none;
  throw py::value_error("reduction must be \"mean\", \"sum\" or \"none\"; got \"" + name + "\"");
}

void bind_reductions(py::module_& m) {
  for (const bool mean : {false, true})
    m.def(
        mean ? "mean" : "sum",
        [mean](const at::Tensor& x, const std::vector<int64_t>& dims, bool keepdim) {
          return unlocked(count(x), [&] { return sum(x, dims, keepdim, mean); });
        },
        py::arg("input"), py::arg("dims"), py::arg("keepdim"));
  for (const bool log : {false, true}) {
    m.def(
        log ? "log_softmax" : "softmax",
        [log](const at::Tensor& x, int64_t dim) { return unlocked(count(x), [&] { return softmax(x, dim, log); }); },
        py::arg("input"), py::arg("dim"));
    m.def(
        log ? "log_softmax_backward" : "softmax_backward",
        [log](const at::Tensor& g, const at::Tensor& out, int64_t dim) {
          return unlocked(count(g), [&] { return softmax_backward(g, out, dim, log); });
        },
        py::arg("g"), py::arg("out"), py::arg("dim"));
  }
}

void bind_losses(py::module_& m) {
  m.def(
      "mse_loss",
      [](const at::Tensor& input, const at::Tensor& target, bool mean) {
        return unlocked(count(input), [&] { return mse_loss(input, target, mean); });
      },
      py::arg("input"), py::arg("target"), py::arg("mean"));
  m.def(
      "mse_loss_backward",
      [](const at::Tensor& g, const at::Tensor& input, const at::Tensor& target, bool mean, bool need_input,
         bool need_target) {
        const auto [dx, dy] =
            unlocked(count(input), [&] { return mse_loss_backward(g, input, target, mean, need_input, need_target); });
        return py::make_tuple(need_input ? py::cast(dx) : py::none(), need_target ? py::cast(dy) : py::none());
      },
      py::arg("g"), py::arg("input"), py::arg("target"), py::arg("mean"), py::arg("need_input"),
      py::arg("need_target"));
  m.def(
      "cross_entropy",
      [](const at::Tensor& input, const at::Tensor& target, const Optional& weight, int64_t ignore_index,
         const std::string& reduction, double label_smoothing) {
        const Reduction r = reduction_of(reduction);
        return unlocked(count(input),
                        [&] { return cross_entropy(input, target, weight, ignore_index, r, label_smoothing); });
      },
      py::arg("input"), py::arg("target"), py::arg("weight"), py::arg("ignore_index"), py::arg("reduction"),
      py::arg("label_smoothing"));
  m.def(
      "cross_entropy_backward",
      [](const at::Tensor& g, const at::Tensor& input, const at::Tensor& target, const Optional& weight,
         const at::Tensor& stats, const at::Tensor& total, int64_t ignore_index, const std::string& reduction,
         double label_smoothing) {
        const Reduction r = reduction_of(reduction);
        return unlocked(count(input), [&] {
          return cross_entropy_backward(g, input, target, weight, stats, total, ignore_index, r, label_smoothing);
        });
      },
      py::arg("g"), py::arg("input"), py::arg("target"), py::arg("weight"), py::arg("stats"), py::arg("total"),
      py::arg("ignore_index"), py::arg("reduction"), py::arg("label_smoothing"));
}

void bind_optimizers(py::module_& m) {
  m.def(
      "sgd_",
      [](const Tensors& params, const Tensors& grads, const Tensors& momentum_buffers, const Tensors& steps, double lr,
         double momentum, double dampening, double weight_decay, bool nesterov, bool maximize) {
        unlocked(count(params), [&] {
          sgd_(params, grads, momentum_buffers, steps, {lr, momentum, dampening, weight_decay, nesterov, maximize});
        });
      },
      py::arg("params"), py::arg("grads"), py::arg("momentum_buffers"), py::arg("steps"), py::arg("lr"),
      py::arg("momentum"), py::arg("dampening"), py::arg("weight_decay"), py::arg("nesterov"), py::arg("maximize"));
  m.def(
      "adam_",
      [](const Tensors& params, const Tensors& grads, const Tensors& exp_avgs, const Tensors& exp_avg_sqs,
         const Tensors& max_exp_avg_sqs, const Tensors& steps, double lr, double beta1, double beta2, double eps,
         double weight_decay, bool amsgrad, bool maximize, bool decoupled) {
        unlocked(count(params), [&] {
          adam_(params, grads, exp_avgs, exp_avg_sqs, max_exp_avg_sqs, steps,
                {lr, beta1, beta2, eps, weight_decay, amsgrad, maximize, decoupled});
        });
      },
      py::arg("params"), py::arg("grads"), py::arg("exp_avgs"), py::arg("exp_avg_sqs"), py::arg("max_exp_avg_sqs"),
      py::arg("steps"), py::arg("lr"), py::arg("beta1"), py::arg("beta2"), py::arg("eps"), py::arg("weight_decay"),
      py::arg("amsgrad"), py::arg("maximize"), py::arg("decoupled"));
}

}  // namespace

void bind_elementwise(py::module_& m) {
#define TG_BIND(name, saved, parameters) \
  bind_activation<Activation::name, parameters>(m, #name, #name "_backward", #saved);
  TG_ACTIVATIONS(TG_BIND)
#undef TG_BIND
  m.def(
      "dropout",
      [](const at::Tensor& input, double p, uint64_t seed, uint64_t offset) {
        return unlocked(count(input), [&] { return dropout(input, p, seed, offset); });
      },
      py::arg("input"), py::arg("p"), py::arg("seed"), py::arg("offset"));
  bind_reductions(m);
  bind_losses(m);
  bind_optimizers(m);
}

}  // namespace tapegrad
