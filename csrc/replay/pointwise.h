// torch's operators that are one exact operation for each element, or move elements, on operands of any layout that
// broadcast to the result: the loops are worked out when the program is bound. Null where the tensors are not of these
// dtypes, lie over each other, or are so many that torch's threads and vectors are worth its call.
#pragma once
#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <tuple>
#include <utility>
#include <vector>

#include "replay/places.h"

namespace tapegrad {

constexpr size_t kDims = 6;
constexpr int64_t kSmall = 1 << 15;  // elements; more are worth torch's threads

// Extents, outermost first, and the step of each operand along them in elements; as few as the layouts allow.
template <size_t N>
struct Loops {
  size_t dims = 0;
  int64_t count = 1;
  std::array<int64_t, kDims> size{};
  std::array<std::array<int64_t, kDims>, N> step{};

  // Of all operands: whether element i lies at i, or they are one element.
  bool flat() const {
    if (dims == 0) return true;
    if (dims > 1 || step[0][0] != 1) return false;
    for (const auto& one : step)
      if (one[0] > 1) return false;
    return true;
  }
};

// Strides of a tensor as it broadcasts to `sizes`; none where it does not.
std::optional<at::DimVector> broadcast_strides(const at::Tensor& t, at::IntArrayRef sizes);

template <size_t N>
std::optional<Loops<N>> loops_over(at::IntArrayRef sizes, const std::array<at::DimVector, N>& strides) {
  Loops<N> l;
  for (size_t d = 0; d < sizes.size(); ++d) {
    l.count *= sizes[d];
    if (sizes[d] == 1) continue;
    const auto goes_on = [&](size_t i) { return l.step[i][l.dims - 1] == strides[i][d] * sizes[d]; };
    bool merged = l.dims > 0;
    for (size_t i = 0; i < N; ++i) merged = merged && goes_on(i);
    if (!merged && l.dims == kDims) return std::nullopt;
    if (!merged) ++l.dims;
    l.size[l.dims - 1] = merged ? l.size[l.dims - 1] * sizes[d] : sizes[d];
    for (size_t i = 0; i < N; ++i) l.step[i][l.dims - 1] = strides[i][d];
  }
  return l;
}

// f(offsets of the operands, elements, steps of the operands) for each innermost stretch
template <size_t N, class F>
void over_stretches(const Loops<N>& l, const F& f) {
  if (l.count == 0) return;
  std::array<int64_t, N> at{}, step{};
  if (l.dims == 0) return f(at, int64_t{1}, step);
  const size_t last = l.dims - 1;
  for (size_t i = 0; i < N; ++i) step[i] = l.step[i][last];
  std::array<int64_t, kDims> index{};
  while (true) {
    f(at, l.size[last], step);
    size_t d = last;
    while (true) {
      if (d == 0) return;
      --d;
      for (size_t i = 0; i < N; ++i) at[i] += l.step[i][d];
      if (++index[d] < l.size[d]) break;
      for (size_t i = 0; i < N; ++i) at[i] -= l.step[i][d] * l.size[d];
      index[d] = 0;
    }
  }
}

// Whether what is written is dense enough to hold each element once, and lies apart from `t` or exactly on it.
bool may_write(const at::Tensor& out, const at::Tensor& t);

template <class T>
bool is_a(const at::Tensor& t) {
  return t.defined() && t.scalar_type() == c10::CppTypeToScalarType<T>::value && t.layout() == at::kStrided &&
         !t.is_neg();
}

// n elements, `step` apart in the result and `steps` in the operands
template <size_t... I, class F, class Out, class... In>
void stretch(std::index_sequence<I...>, const F& f, int64_t n, Out* to, int64_t step,
             const std::array<int64_t, sizeof...(In)>& steps, const In*... from) {
  if (step == 1 && ((steps[I] == 1) && ...))
    for (int64_t i = 0; i < n; ++i) to[i] = f(from[i]...);
  else
    for (int64_t i = 0; i < n; ++i) to[i * step] = f(from[i * steps[I]]...);
}

// A call of f over such loops; `all` numbers the operands.
template <class Out, class... In, class F, size_t... I>
std::unique_ptr<Call> looped(std::index_sequence<I...> all, const F& f, const Loops<1 + sizeof...(In)>& l,
                             const at::Tensor& out, const std::array<at::Tensor, sizeof...(In)>& in) {
  using Steps = std::array<int64_t, sizeof...(In)>;
  const std::tuple<At<In>...> places{At<In>(in[I])...};
  if (l.flat()) {
    const Steps steps{l.step[1 + I][0]...};  // 0 where there are no dimensions
    return elementwise(l.count, [=, to = At<Out>(out)](int64_t begin, int64_t end) {
      stretch(all, f, end - begin, to.get() + begin, 1, steps, (std::get<I>(places).get() + begin * steps[I])...);
    });
  }
  return direct([=, to = At<Out>(out)] {
    Out* const result = to.get();
    const std::tuple<const In*...> from{std::get<I>(places).get()...};
    over_stretches(l, [&](const auto& at, int64_t n, const auto& step) {
      stretch(all, f, n, result + at[0], step[0], Steps{step[1 + I]...}, (std::get<I>(from) + at[1 + I])...);
    });
  });
}

// out[i] = f(in[i]...), the elements taken for what the types say
template <class Out, class... In, class F>
std::unique_ptr<Call> pointwise_bits(F f, const at::Tensor& out, const std::array<at::Tensor, sizeof...(In)>& in) {
  constexpr size_t N = sizeof...(In);
  if (out.numel() > kSmall || !may_write(out, out)) return nullptr;
  std::array<at::DimVector, 1 + N> strides{at::DimVector(out.strides())};
  for (size_t i = 0; i < N; ++i) {
    const auto found = broadcast_strides(in[i], out.sizes());
    if (!found || !may_write(out, in[i])) return nullptr;
    strides[1 + i] = *found;
  }
  const auto l = loops_over<1 + N>(out.sizes(), strides);
  return l ? looped<Out, In...>(std::index_sequence_for<In...>(), f, *l, out, in) : nullptr;
}

template <class... In, size_t... I>
bool are(std::index_sequence<I...>, const std::array<at::Tensor, sizeof...(In)>& in) {
  return (is_a<In>(in[I]) && ...);
}

// The same for tensors of these dtypes
template <class Out, class... In, class F>
std::unique_ptr<Call> pointwise(F f, const at::Tensor& out, const std::array<at::Tensor, sizeof...(In)>& in) {
  if (!is_a<Out>(out) || !are<In...>(std::index_sequence_for<In...>(), in)) return nullptr;
  return pointwise_bits<Out, In...>(f, out, in);
}

// Calls one after the other; null if one of them is.
std::unique_ptr<Call> sequence(std::vector<std::unique_ptr<Call>> calls);

// out = x, of any dtypes of one size; x broadcasts.
std::unique_ptr<Call> direct_moved(const at::Tensor& x, const at::Tensor& out);
// out = the tensors one after the other along a dimension, or along a new one
std::unique_ptr<Call> direct_cat(const std::vector<at::Tensor>& tensors, int64_t dim, bool is_new,
                                 const at::Tensor& out);
std::unique_ptr<Call> direct_pad(const at::Tensor& x, const std::vector<int64_t>& pad, double value,
                                 const at::Tensor& out);
// out[..., i, ...] = x[..., index[..., i, ...], ...] along dim; an index outside is an IndexError.
std::unique_ptr<Call> direct_gather(const at::Tensor& x, int64_t dim, const at::Tensor& index, const at::Tensor& out);
// out = x, to which src is added where index says; one index along dim, so that nothing is added to twice.
std::unique_ptr<Call> direct_scatter_add(const at::Tensor& x, int64_t dim, const at::Tensor& index,
                                         const at::Tensor& src, const at::Tensor& out);
// out = rows of x; `wraps`: negative indices count from the end.
std::unique_ptr<Call> direct_rows(const at::Tensor& x, const at::Tensor& index, bool wraps, const at::Tensor& out);
// The maximum along dim and its first place, if that is wanted, as torch: NaN above all.
std::unique_ptr<Call> direct_max(const at::Tensor& x, int64_t dim, const at::Tensor& out, const at::Tensor& place);
std::unique_ptr<Call> direct_all(const at::Tensor& x, int64_t dim, const at::Tensor& out);

}  // namespace tapegrad
