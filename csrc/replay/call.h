// One instruction of a compiled tape: a function with its arguments in place and the memory its results go to.
#pragma once
#include <ATen/core/Tensor.h>

#include <array>
#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "ops/border.h"

namespace tapegrad {

class Call {
 public:
  virtual ~Call() = default;
  virtual void run() = 0;
  // Replaces a number among the arguments: a learning rate, a place in the random stream.
  virtual void set(size_t argument, double value) = 0;
  virtual void set(size_t argument, uint64_t value) = 0;
  // The memory from outside is another network's from now on; for calls that keep pointers into it.
  virtual void rebound() {}
};

// A call that works element by element on `count` elements, each result depending on its own operands alone: a row of
// them may be run tile by tile.
class Elementwise : public Call {
 public:
  explicit Elementwise(int64_t n) : count(n) {}
  virtual void run(int64_t begin, int64_t end) = 0;
  const int64_t count;
};

// Puts a result where it belongs, if the function did not write it there itself.
inline void place(const at::Tensor& result, const at::Tensor& out) {
  if (out.defined() && !result.is_same(out) && result.const_data_ptr() != out.const_data_ptr()) out.copy_(result);
}

// The same for several results. One that was written to another's place (`make` goes by sizes) is moved away first.
template <size_t N>
void place_all(std::array<at::Tensor, N> results, const std::vector<at::Tensor>& outs) {
  for (size_t i = 0; i < N; ++i)
    for (size_t j = 0; j < N; ++j)
      if (i != j && results[i].defined() && results[i].is_same(outs[j])) results[i] = results[i].clone();
  for (size_t i = 0; i < N; ++i) place(results[i], outs[i]);
}
template <class... T>
void place_all(const std::tuple<T...>& results, const std::vector<at::Tensor>& outs) {
  place_all(std::apply([](const T&... one) { return std::array<at::Tensor, sizeof...(T)>{one...}; }, results), outs);
}
inline void place_all(const at::Tensor& result, const std::vector<at::Tensor>& outs) { place(result, outs[0]); }

// How many places the results of a function of this type take.
template <class R>
constexpr size_t kResults = 1;
template <>
inline constexpr size_t kResults<void> = 0;
template <class... T>
constexpr size_t kResults<std::tuple<T...>> = sizeof...(T);

// A kernel of ours: f(arguments), typed once, when the program is bound. What it allocates by `make` it is given from
// `outs`, so the same code that serves eager calls writes straight into the arena.
template <class F, class... A>
class KernelCall final : public Call {
 public:
  KernelCall(F f, std::tuple<A...> arguments, std::vector<at::Tensor> outs)
      : f_(std::move(f)), arguments_(std::move(arguments)), outs_(std::move(outs)) {
    constexpr size_t results = kResults<std::invoke_result_t<F, const A&...>>;
    if (outs_.size() < results)
      throw std::invalid_argument("the kernel has " + std::to_string(results) + " results; got places for " +
                                  std::to_string(outs_.size()));
  }

  void run() override {
    const Given given(outs_);
    if constexpr (std::is_void_v<std::invoke_result_t<F, const A&...>>)
      std::apply(f_, arguments_);
    else
      place_all(std::apply(f_, arguments_), outs_);
  }
  void set(size_t argument, double value) override { assign(argument, value, std::index_sequence_for<A...>{}); }
  void set(size_t argument, uint64_t value) override { assign(argument, value, std::index_sequence_for<A...>{}); }

 private:
  template <class V, size_t... I>
  void assign(size_t argument, V value, std::index_sequence<I...>) {
    (
        [&] {
          using T = std::tuple_element_t<I, std::tuple<A...>>;
          if constexpr (std::is_arithmetic_v<T>)
            if (argument == I) std::get<I>(arguments_) = static_cast<T>(value);
        }(),
        ...);
  }

  F f_;
  std::tuple<A...> arguments_;
  std::vector<at::Tensor> outs_;
};

}  // namespace tapegrad
