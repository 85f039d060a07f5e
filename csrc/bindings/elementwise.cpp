#include "bindings/elementwise.h"

#include <torch/csrc/utils/python_symnode.h>  // THPVariable_Unpack

#include <array>

#include "bindings/entry.h"  // is_tensor
#include "bindings/kernel.h"
#include "ops/accumulate.h"
#include "ops/elementwise.h"
#include "ops/loss.h"

namespace tapegrad {
namespace {

using In = const at::Tensor&;
using Optional = std::optional<at::Tensor>;

template <Activation F, int PARAMETERS>
void bind_activation(py::module_& m, const char* op, const char* backward, const char* saved) {
  const auto run = [op](In x, double a, double b) { return activation(F, op, x, a, b); };
  const auto back = [backward](In g, In y, double a, double b) { return activation_backward(F, backward, g, y, a, b); };
  if constexpr (PARAMETERS == 0) {
    kernel(
        m, op, [=](In x) { return run(x, 0, 0); }, "input");
    kernel(
        m, backward, [=](In g, In y) { return back(g, y, 0, 0); }, "g", saved);
  } else if constexpr (PARAMETERS == 1) {
    kernel(
        m, op, [=](In x, double a) { return run(x, a, 0); }, "input", "negative_slope");
    kernel(
        m, backward, [=](In g, In y, double a) { return back(g, y, a, 0); }, "g", saved, "negative_slope");
  } else {
    kernel(m, op, run, "input", "beta", "threshold");
    kernel(m, backward, back, "g", saved, "beta", "threshold");
  }
}

void bind_reductions(py::module_& m) {
  for (const bool mean : {false, true}) {
    const auto f = [mean](In x, const std::vector<int64_t>& dims, bool keepdim) { return sum(x, dims, keepdim, mean); };
    kernel(m, mean ? "mean" : "sum", f, "input", "dims", "keepdim");
  }
  for (const bool log : {false, true}) {
    const auto f = [log](In x, int64_t dim) { return softmax(x, dim, log); };
    const auto back = [log](In g, In out, int64_t dim) { return softmax_backward(g, out, dim, log); };
    kernel(m, log ? "log_softmax" : "softmax", f, "input", "dim");
    kernel(m, log ? "log_softmax_backward" : "softmax_backward", back, "g", "out", "dim");
  }
}

void bind_losses(py::module_& m) {
  const auto mse = [](In x, In y, bool mean) { return mse_loss(x, y, mean); };
  const auto mse_backward = [](In g, In x, In y, bool mean, bool need_input, bool need_target) {
    return mse_loss_backward(g, x, y, mean, need_input, need_target);
  };
  kernel(m, "mse_loss", mse, "input", "target", "mean");
  kernel(m, "mse_loss_backward", mse_backward, "g", "input", "target", "mean", "need_input", "need_target");
  const auto forward = [](In input, In target, const Optional& weight, int64_t ignore_index,
                          const std::string& reduction, double label_smoothing) {
    return cross_entropy(input, target, weight, ignore_index, reduction_of(reduction), label_smoothing);
  };
  kernel(m, "cross_entropy", forward, "input", "target", "weight", "ignore_index", "reduction", "label_smoothing");
  const auto backward = [](In g, In input, In target, const Optional& weight, In stats, In total, int64_t ignore_index,
                           const std::string& reduction, double label_smoothing) {
    return cross_entropy_backward(g, input, target, weight, stats, total, ignore_index, reduction_of(reduction),
                                  label_smoothing);
  };
  kernel(m, "cross_entropy_backward", backward, "g", "input", "target", "weight", "stats", "total", "ignore_index",
         "reduction", "label_smoothing");
}

// A number that float64 holds exactly, or a tensor; false for anything else
bool read(PyObject* value, at::Tensor& tensor, double& number) {
  if (PyFloat_CheckExact(value)) {
    number = PyFloat_AS_DOUBLE(value);
    return true;
  }
  if (is_tensor(value)) {
    tensor = THPVariable_Unpack(value);
    return true;
  }
  if (!PyLong_CheckExact(value)) return false;
  int overflow = 0;
  const long long integer = PyLong_AsLongLongAndOverflow(value, &overflow);
  number = static_cast<double>(integer);
  return overflow == 0 && -(1ll << 53) <= integer && integer <= 1ll << 53;
}

// What is recorded is torch's operator, of which this is the kernel; a number comes second there.
void tell_arithmetic(Arithmetic f, const py::object& input, const py::object& other, const py::object& result) {
  const bool scaled = f == Arithmetic::add || f == Arithmetic::sub;  // by alpha
  static const std::array<const char*, 4> names{"aten::add.Tensor", "aten::sub.Tensor", "aten::mul.Tensor",
                                                "aten::div.Tensor"};
  const bool turned = !is_tensor(input);
  const char* name = turned && f == Arithmetic::sub ? "aten::rsub.Scalar" : names.at(static_cast<size_t>(f));
  const py::object &first = turned ? other : input, &second = turned ? input : other;
  static const py::object& one = *new py::object(py::int_(1));
  tell(name, scaled ? py::tuple(py::make_tuple(first, second, one)) : py::tuple(py::make_tuple(first, second)), result);
}

}  // namespace

Reduction reduction_of(const std::string& name) {
  if (name == "mean") return Reduction::mean;
  if (name == "sum") return Reduction::sum;
  if (name == "none") return Reduction::none;
  throw std::invalid_argument("reduction must be \"mean\", \"sum\" or \"none\"; got \"" + name + "\"");
}

py::object call_arithmetic(Arithmetic f, const py::object& input, const py::object& other) {
  at::Tensor a, b;
  double u = 0, v = 0;
  if (!read(input.ptr(), a, u) || !read(other.ptr(), b, v)) return py::none();
  if (f == Arithmetic::div && !a.defined()) return py::none();  // torch rounds twice: number * (1 / other)
  if (!recorder()) return to_python(arithmetic(f, a, b, u, v));
  const NoDispatch inside;
  const at::Tensor out = arithmetic(f, a, b, u, v);
  if (!out.defined()) return py::none();
  py::object result = to_python(out);
  tell_arithmetic(f, input, other, result);
  return result;
}

bool call_add_(const py::object& sum, const py::object& other) {
  const at::Tensor &to = THPVariable_Unpack(sum.ptr()), &from = THPVariable_Unpack(other.ptr());
  if (!can_add_(to, from)) return false;
  const NoDispatch inside;
  if (recorder()) tell("aten::add_.Tensor", py::make_tuple(sum, other, 1), py::none());
  add_(to, from);
  return true;
}

namespace {

void bind_arithmetic(py::module_& m) {
  const auto bind = [&m](const char* name, Arithmetic f) {
    m.def(
        name, [f](const py::object& input, const py::object& other) { return call_arithmetic(f, input, other); },
        py::arg("input"), py::arg("other"));
  };
  bind("add", Arithmetic::add);
  bind("sub", Arithmetic::sub);
  bind("mul", Arithmetic::mul);
  bind("div", Arithmetic::div);
}

}  // namespace

void bind_elementwise(py::module_& m) {
#define TG_BIND(name, saved, parameters) \
  bind_activation<Activation::name, parameters>(m, #name, #name "_backward", #saved);
  TG_ACTIVATIONS(TG_BIND)
#undef TG_BIND
  kernel(m, "dropout", &dropout, "input", "p", "seed", "offset");
  kernel(m, "scaled_product", &scaled_product, "a", "b", "c", "scale");
  bind_arithmetic(m);
  bind_reductions(m);
  bind_losses(m);
}

}  // namespace tapegrad
