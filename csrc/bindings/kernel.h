// How a kernel becomes a Python function, and at the same time an instruction of the compiled tape: one line each.
#pragma once
#include "bindings/pybind.h"  // before any other header

#include <ATen/core/Tensor.h>

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>
#include <vector>

#include "replay/call.h"

namespace tapegrad {

// The recorder that hears of every kernel call of this thread while it records a step (log.h); null where nothing is
// recorded. It is told of a kernel that writes its arguments (its name ends in _) before that runs.
PyObject* recorder();
void tell(const char* name, const py::tuple& arguments, const py::object& result);

using Binder = std::function<std::unique_ptr<Call>(const py::tuple& arguments, std::vector<at::Tensor> outs)>;
std::map<std::string, Binder>& binders();  // by kernel

// What a call works on, in elements.
inline double work(const at::Tensor& t) { return t.defined() ? static_cast<double>(t.numel()) : 0; }
inline double work(const std::optional<at::Tensor>& t) { return t ? work(*t) : 0; }
inline double work(const std::vector<at::Tensor>& list) {
  double n = 0;
  for (const at::Tensor& t : list) n += work(t);
  return n;
}
inline double work(const std::vector<int64_t>& size) {
  double n = 1;
  for (const int64_t extent : size) n *= static_cast<double>(extent);
  return n;
}
template <class T>
double work(const T&) {
  return 0;
}

inline py::object to_python(const at::Tensor& t) { return t.defined() ? py::cast(t) : py::none(); }
template <class... T>
py::object to_python(const std::tuple<T...>& results) {
  return std::apply([](const T&... one) -> py::object { return py::make_tuple(to_python(one)...); }, results);
}

// Calls f without the GIL where that takes more than a few microseconds.
template <class F, class... A>
py::object call_unlocked(const F& f, const A&... arguments) {
  const bool large = (work(arguments) + ... + 0) > 4096;
  std::optional<py::gil_scoped_release> release;
  if (large) release.emplace();
  if constexpr (std::is_void_v<std::invoke_result_t<F, const A&...>>) {
    f(arguments...);
    release.reset();
    return py::none();
  } else {
    const auto result = f(arguments...);
    release.reset();
    return to_python(result);
  }
}

// Inside, torch's operators are called by a kernel, and not recorded themselves.
struct NoDispatch : c10::impl::ExcludeDispatchKeyGuard {
  NoDispatch()
      : ExcludeDispatchKeyGuard(c10::DispatchKeySet({c10::DispatchKey::Python, c10::DispatchKey::PythonTLSSnapshot})) {}
};

template <class F, class... A>
py::object call_recorded(const char* name, const F& f, const py::tuple& given, const A&... arguments) {
  const bool writes = std::string_view(name).back() == '_';
  if (writes) tell(name, given, py::none());
  const NoDispatch inside;
  py::object result = call_unlocked(f, arguments...);
  if (!writes) tell(name, given, result);
  return result;
}

template <class F>
struct Signature : Signature<decltype(&F::operator())> {};
template <class F, class R, class... A>
struct Signature<R (F::*)(A...) const> : Signature<R (*)(A...)> {};
template <class R, class... A>
struct Signature<R (*)(A...)> {
  template <class F, class... Names>
  static void define(py::module_& m, const char* name, const F& f, const Names&... names) {
    static_assert(sizeof...(A) == sizeof...(Names), "one name for each argument");
    const auto parameters = std::array<const char*, sizeof...(A)>{names...};
    (void)parameters;
    m.def(
        name,
        [f, name](const std::decay_t<A>&... arguments) {
          return recorder() ? call_recorded(name, f, py::make_tuple(arguments...), arguments...)
                            : call_unlocked(f, arguments...);
        },
        py::arg(names)...);
    binders()[name] = [f](const py::tuple& arguments, std::vector<at::Tensor> outs) -> std::unique_ptr<Call> {
      return std::make_unique<KernelCall<F, std::decay_t<A>...>>(f, arguments.cast<std::tuple<std::decay_t<A>...>>(),
                                                                 std::move(outs));
    };
  }
};

// kernel(m, "linear", &linear, "input", "weight", "bias"): binds f under these argument names.
template <class F, class... Names>
void kernel(py::module_& m, const char* name, const F& f, const Names&... names) {
  Signature<F>::define(m, name, f, names...);
}

}  // namespace tapegrad
