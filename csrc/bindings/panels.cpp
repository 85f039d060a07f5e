#include "bindings/panels.h"

#include "bindings/kernel.h"
#include "ops/panels.h"
#include "ops/scatter.h"

namespace tapegrad {

void bind_panels(py::module_& m) {
  using In = const at::Tensor&;
  using Sizes = std::vector<int64_t>;
  kernel(m, "sinh", &sinh, "input");
  kernel(m, "cosh", &cosh, "input");
  kernel(m, "atanh", &atanh, "input");
  kernel(m, "exp2", &exp2, "input");
  kernel(m, "mish", &mish, "input");
  kernel(m, "logsigmoid", &logsigmoid, "input");
  kernel(m, "elu", &elu, "input", "alpha", "scale", "input_scale");
  kernel(m, "atan2", &atan2, "input", "other");
  kernel(m, "logaddexp", &logaddexp, "input", "other");
  kernel(m, "logaddexp2", &logaddexp2, "input", "other");
  kernel(m, "maximum", &maximum, "input", "other");
  kernel(m, "minimum", &minimum, "input", "other");
  kernel(m, "pow", [](In x, In exponent) { return pow(x, exponent); }, "input", "exponent");
  kernel(m, "pow_to_number", [](In x, double exponent) { return pow(x, exponent); }, "input", "exponent");
  kernel(m, "pow_of_number", [](double x, In exponent) { return pow(x, exponent); }, "input", "exponent");
  kernel(m, "prod", &prod, "input", "dim", "keepdim");
  kernel(
      m, "norm", [](In x, double p, const Sizes& dims, bool keepdim) { return norm(x, p, dims, keepdim); }, "input",
      "p", "dims", "keepdim");
  kernel(
      m, "logsumexp", [](In x, const Sizes& dims, bool keepdim) { return logsumexp(x, dims, keepdim); }, "input",
      "dims", "keepdim");
  kernel(m, "index_add", &index_add, "input", "dim", "index", "source");
  kernel(
      m, "index_sum",
      [](In source, const Sizes& size, int64_t dim, In index) { return index_sum(source, size, dim, index); }, "source",
      "size", "dim", "index");
  m.def("on_one_thread", [](const py::function& f, const py::args& arguments, const py::kwargs& named) {
    const OneThread alone;
    return f(*arguments, **named);
  });
}

}  // namespace tapegrad
