// torch's operators that have a direct form: what is one rounding for each element, comparisons, and moves. Where an
// operator is called in place there are no outputs: the first argument is then written.
#include <cmath>
#include <limits>
#include <type_traits>

#include "bindings/makers.h"
#include "replay/pointwise.h"

namespace tapegrad {
namespace {

using Made = std::unique_ptr<Call>;

at::Tensor result(const py::tuple& a, const Tensors& outs) { return outs.empty() ? tensor(a, 0) : outs[0]; }

bool is_number(const py::handle& value) { return PyFloat_Check(value.ptr()) || PyLong_Check(value.ptr()); }

Operand operand(const py::handle& value) {
  if (is_number(value)) return {{}, value.cast<double>()};
  return {value.cast<at::Tensor>(), 0};
}

// alpha, torch's factor of the second operand, must be 1
bool without_alpha(const py::tuple& a, size_t i) {
  return a.size() <= i || (py::isinstance<py::int_>(a[i]) ? a[i].cast<int64_t>() == 1 : a[i].cast<double>() == 1.0);
}

// f(zero of the tensor's dtype); null for other dtypes
template <class... T, class F>
Made by_types(const at::Tensor& t, const F& f) {
  Made made;
  (void)((t.scalar_type() == c10::CppTypeToScalarType<T>::value && (made = f(T{}), true)) || ...);
  return made;
}
template <class F>
Made floating(const at::Tensor& t, const F& f) {
  return by_types<float, double>(t, f);
}

// A number that torch takes for one of dtype T: a floating-point one would turn integers into float32.
template <class T>
bool fits(const py::handle& number) {
  return std::is_floating_point_v<T> || (PyLong_Check(number.ptr()) && !PyBool_Check(number.ptr()));
}

// --- f(x), f(x, y): one rounding or none -------------------------------------------------------------------------

// f(x) of a floating-point x
template <class F>
Maker unary(F f) {
  return [f](const py::tuple& a, const Tensors& outs) {
    return floating(tensor(a, 0), [&](auto zero) {
      using T = decltype(zero);
      return pointwise<T, T>([f](T x) { return f(x); }, result(a, outs), {tensor(a, 0)});
    });
  };
}

// Out is a type, or void for that of the operands. A number may stand for the second.
template <class Out, class... T, class F>
Made binary(F f, const py::handle& left, const py::handle& right, const at::Tensor& out) {
  if (is_number(left)) return nullptr;
  const auto x = left.cast<at::Tensor>();
  return by_types<T...>(x, [&](auto zero) -> Made {
    using U = decltype(zero);
    using R = std::conditional_t<std::is_void_v<Out>, U, Out>;
    if (!is_number(right))
      return pointwise<R, U, U>([f](U x, U y) -> R { return f(x, y); }, out, {x, right.cast<at::Tensor>()});
    if (!fits<U>(right)) return nullptr;
    const U y = right.cast<U>();
    return pointwise<R, U>([f, y](U x) -> R { return f(x, y); }, out, {x});
  });
}

// What does not overflow: integers wrap, as torch's do.
template <class T>
using Wraps = std::conditional_t<std::is_integral_v<T>, std::make_unsigned<T>, std::type_identity<T>>::type;

struct Plus {
  template <class T>
  T operator()(T x, T y) const {
    return static_cast<T>(Wraps<T>(x) + Wraps<T>(y));
  }
};
struct Minus {
  template <class T>
  T operator()(T x, T y) const {
    return static_cast<T>(Wraps<T>(x) - Wraps<T>(y));
  }
};
struct Times {
  template <class T>
  T operator()(T x, T y) const {
    return static_cast<T>(Wraps<T>(x) * Wraps<T>(y));
  }
};
struct Over {
  template <class T>
  T operator()(T x, T y) const {
    return x / y;
  }
};

// The vectorised kernel where the operands lie as the result does, and loops where they do not, over types T.
template <class... T, class F>
void add_arithmetic(std::map<std::string, Maker>& all, const std::string& name, Arithmetic kind, size_t alpha, F f) {
  const Maker make = [=](const py::tuple& a, const Tensors& outs) -> Made {
    if (!without_alpha(a, alpha)) return nullptr;
    const at::Tensor out = result(a, outs);
    if (Made made = direct_arithmetic(kind, operand(a[0]), operand(a[1]), out)) return made;
    return binary<void, T...>(f, a[0], a[1], out);
  };
  all["aten::" + name + ".Tensor"] = make;
  all["aten::" + name + "_.Tensor"] = make;
}

void add_floating(std::map<std::string, Maker>& all) {
  add_arithmetic<float, double, int64_t>(all, "add", Arithmetic::add, 2, Plus());
  add_arithmetic<float, double, int64_t>(all, "sub", Arithmetic::sub, 2, Minus());
  add_arithmetic<float, double, int64_t>(all, "mul", Arithmetic::mul, 2, Times());
  add_arithmetic<float, double>(all, "div", Arithmetic::div, 2, Over());
  all["aten::rsub.Scalar"] = [](const py::tuple& a, const Tensors& outs) -> Made {
    return without_alpha(a, 2) ? direct_arithmetic(Arithmetic::sub, operand(a[1]), operand(a[0]), outs.at(0)) : nullptr;
  };
  const Maker negated = unary([](auto x) { return -x; });
  all["aten::neg"] = [negated](const py::tuple& a, const Tensors& outs) -> Made {
    Made made = direct_arithmetic(Arithmetic::sub, {{}, -0.0}, operand(a[0]), outs.at(0));
    return made ? std::move(made) : negated(a, outs);
  };
  const auto both = [&all](const char* name, const Maker& make) {
    all["aten::" + std::string(name)] = make;
    all["aten::" + std::string(name) + "_"] = make;
  };
  both("abs", unary([](auto x) { return std::abs(x); }));
  both("reciprocal", unary([](auto x) { return 1 / x; }));
  both("sign", unary([](auto x) { return static_cast<decltype(x)>(x > 0) - static_cast<decltype(x)>(x < 0); }));
  both("clamp", [](const py::tuple& a, const Tensors& outs) {
    return floating(tensor(a, 0), [&](auto zero) -> Made {
      using T = decltype(zero);
      constexpr T kAll = std::numeric_limits<T>::infinity();
      const T low = a[1].is_none() ? -kAll : a[1].cast<T>();
      const T high = a.size() < 3 || a[2].is_none() ? kAll : a[2].cast<T>();
      if (low != low || high != high) return nullptr;
      const auto f = [low, high](T x) {
        const T least = x < low ? low : x;
        return least > high ? high : least;
      };
      return pointwise<T, T>(f, result(a, outs), {tensor(a, 0)});
    });
  });
  all["aten::pow.Tensor_Scalar"] = [](const py::tuple& a, const Tensors& outs) -> Made {
    const double exponent = get<double>(a, 1);
    const at::Tensor x = tensor(a, 0);
    if (exponent == 2)
      if (Made made = direct_arithmetic(Arithmetic::mul, operand(a[0]), operand(a[0]), outs.at(0))) return made;
    const auto as = [&](auto f) { return unary(f)(a, outs); };
    if (exponent == 1) return direct_moved(x, outs.at(0));
    if (exponent == 2) return as([](auto x) { return x * x; });
    if (exponent == 3) return as([](auto x) { return x * x * x; });
    if (exponent == -1) return as([](auto x) { return 1 / x; });
    return exponent == -2 ? as([](auto x) { return 1 / (x * x); }) : nullptr;  // torch's root is not sqrt's to the bit
  };
  all["aten::_foreach_mul_.Tensor"] = [](const py::tuple& a, const Tensors&) {
    std::vector<Made> calls;
    for (const at::Tensor& t : list(a, 0)) calls.push_back(binary<void, float, double>(Times(), py::cast(t), a[1], t));
    return sequence(std::move(calls));
  };
}

// --- truth values -------------------------------------------------------------------------------------------------

void add_comparisons(std::map<std::string, Maker>& all) {
  const auto add = [&all](const std::string& name, auto f) {
    const Maker make = [f](const py::tuple& a, const Tensors& outs) {
      return binary<bool, float, double, int64_t>(f, a[0], a[1], outs.empty() ? at::Tensor() : outs[0]);
    };
    all["aten::" + name + ".Scalar"] = all["aten::" + name + ".Tensor"] = make;
  };
  add("eq", [](auto x, auto y) { return x == y; });
  add("ne", [](auto x, auto y) { return x != y; });
  add("lt", [](auto x, auto y) { return x < y; });
  add("le", [](auto x, auto y) { return x <= y; });
  add("gt", [](auto x, auto y) { return x > y; });
  add("ge", [](auto x, auto y) { return x >= y; });
  const auto logic = [&all](const std::string& name, auto f) {
    all["aten::" + name] = [f](const py::tuple& a, const Tensors& outs) -> Made {
      if (is_number(a[1])) return nullptr;
      return pointwise<bool, bool, bool>(f, result(a, outs), {tensor(a, 0), tensor(a, 1)});
    };
  };
  logic("bitwise_and.Tensor", [](bool x, bool y) { return x && y; });
  logic("bitwise_or.Tensor", [](bool x, bool y) { return x || y; });
  logic("bitwise_xor.Tensor", [](bool x, bool y) { return x != y; });
  logic("logical_and", [](bool x, bool y) { return x && y; });
  logic("logical_or", [](bool x, bool y) { return x || y; });
  all["aten::bitwise_not"] = all["aten::logical_not"] = [](const py::tuple& a, const Tensors& outs) {
    return pointwise<bool, bool>([](bool x) { return !x; }, result(a, outs), {tensor(a, 0)});
  };
}

// --- moves --------------------------------------------------------------------------------------------------------

void add_moves(std::map<std::string, Maker>& all) {
  const auto moved = [](const at::Tensor& x, const at::Tensor& out) {
    Made made = direct_copy(x, out);
    return made ? std::move(made) : direct_moved(x, out);
  };
  all["aten::clone"] = [moved](const py::tuple& a, const Tensors& outs) { return moved(tensor(a, 0), outs.at(0)); };
  all["aten::copy_"] = [moved](const py::tuple& a, const Tensors&) { return moved(tensor(a, 1), tensor(a, 0)); };
  all["aten::zeros"] = [](const py::tuple&, const Tensors& outs) { return direct_zeros(outs.at(0)); };
  all["aten::zero_"] = [](const py::tuple& a, const Tensors&) { return direct_zeros(tensor(a, 0)); };
  all["aten::_to_copy"] = [](const py::tuple& a, const Tensors& outs) {
    const at::Tensor x = tensor(a, 0), out = outs.at(0);
    return by_types<float, double, int64_t>(out, [&](auto zero) {
      using T = decltype(zero);
      return by_types<float, double, int64_t, bool>(x, [&](auto other) -> Made {
        using U = decltype(other);
        if (std::is_integral_v<T> && std::is_floating_point_v<U>) return nullptr;  // what is too large is torch's
        return pointwise<T, U>([](U v) { return static_cast<T>(v); }, out, {x});
      });
    });
  };
  const auto chosen = [](const at::Tensor& out, const at::Tensor& mask, const at::Tensor& x, const at::Tensor& y) {
    return by_types<float, double, int64_t>(out, [&](auto zero) {
      using T = decltype(zero);
      return pointwise<T, bool, T, T>([](bool first, T x, T y) { return first ? x : y; }, out, {mask, x, y});
    });
  };
  all["aten::where.self"] = [chosen](const py::tuple& a, const Tensors& outs) {
    return chosen(outs.at(0), tensor(a, 0), tensor(a, 1), tensor(a, 2));
  };
  all["aten::masked_fill.Scalar"] = all["aten::masked_fill_.Scalar"] = [](const py::tuple& a, const Tensors& outs) {
    return floating(tensor(a, 0), [&](auto zero) {
      using T = decltype(zero);
      const auto f = [v = a[2].cast<T>()](bool masked, T x) { return masked ? v : x; };
      return pointwise<T, bool, T>(f, result(a, outs), {tensor(a, 1), tensor(a, 0)});
    });
  };
  all["aten::masked_fill.Tensor"] =
      all["aten::masked_fill_.Tensor"] = [chosen](const py::tuple& a, const Tensors& outs) {
        return chosen(result(a, outs), tensor(a, 1), tensor(a, 2), tensor(a, 0));
      };
  const auto dim = [](const py::tuple& a, size_t i) { return a.size() > i ? get<int64_t>(a, i) : 0; };
  all["aten::cat"] = [dim](const py::tuple& a, const Tensors& outs) {
    return direct_cat(list(a, 0), dim(a, 1), false, outs.at(0));
  };
  all["aten::stack"] = [dim](const py::tuple& a, const Tensors& outs) {
    return direct_cat(list(a, 0), dim(a, 1), true, outs.at(0));
  };
  all["aten::constant_pad_nd"] = [](const py::tuple& a, const Tensors& outs) {
    return direct_pad(tensor(a, 0), get<std::vector<int64_t>>(a, 1), a.size() > 2 ? get<double>(a, 2) : 0, outs.at(0));
  };
  all["aten::gather"] = [](const py::tuple& a, const Tensors& outs) {
    return direct_gather(tensor(a, 0), get<int64_t>(a, 1), tensor(a, 2), outs.at(0));
  };
  all["aten::scatter_add"] = [](const py::tuple& a, const Tensors& outs) {
    return direct_scatter_add(tensor(a, 0), get<int64_t>(a, 1), tensor(a, 2), tensor(a, 3), outs.at(0));
  };
  all["aten::embedding"] = [](const py::tuple& a, const Tensors& outs) {
    return direct_rows(tensor(a, 0), tensor(a, 1), false, outs.at(0));
  };
  all["aten::index.Tensor"] = [](const py::tuple& a, const Tensors& outs) -> Made {
    const py::sequence indices = a[1];
    if (indices.size() != 1 || py::object(indices[0]).is_none()) return nullptr;
    return direct_rows(tensor(a, 0), py::object(indices[0]).cast<at::Tensor>(), true, outs.at(0));
  };
  all["aten::max.dim"] = [](const py::tuple& a, const Tensors& outs) -> Made {
    return outs.size() == 2 ? direct_max(tensor(a, 0), get<int64_t>(a, 1), outs[0], outs[1]) : nullptr;
  };
  all["aten::all.dim"] = [](const py::tuple& a, const Tensors& outs) {
    return direct_all(tensor(a, 0), get<int64_t>(a, 1), outs.at(0));
  };
}

}  // namespace

void add_torch_operators(std::map<std::string, Maker>& all) {
  add_floating(all);
  add_comparisons(all);
  add_moves(all);
}

}  // namespace tapegrad
