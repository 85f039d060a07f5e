#include "replay/pointwise.h"

#include <algorithm>
#include <cstring>

namespace tapegrad {
namespace {

// The elements from the first of a tensor to its last.
int64_t extent(const at::Tensor& t) {
  int64_t last = 0;
  for (int64_t d = 0; d < t.dim(); ++d) last += (t.size(d) - 1) * t.stride(d);
  return t.numel() == 0 ? 0 : last + 1;
}

bool each_once(const at::Tensor& t) {
  std::vector<std::pair<int64_t, int64_t>> dims;  // stride, size
  for (int64_t d = 0; d < t.dim(); ++d)
    if (t.size(d) > 1) dims.emplace_back(t.stride(d), t.size(d));
  std::sort(dims.begin(), dims.end());
  int64_t next = 1;
  for (const auto& [stride, size] : dims) {
    if (stride < next) return false;
    next = stride * (size - 1) + next;
  }
  return true;
}

// f(unsigned integer of an element's size) for dtypes without a sign bit set lazily
template <class F>
std::unique_ptr<Call> by_size(const at::Tensor& t, const F& f) {
  if (!t.defined() || t.layout() != at::kStrided || t.is_neg() || t.is_conj()) return nullptr;
  switch (t.element_size()) {
    case 1:
      return f(uint8_t{});
    case 2:
      return f(uint16_t{});
    case 4:
      return f(uint32_t{});
    case 8:
      return f(uint64_t{});
    default:
      return nullptr;
  }
}

bool is_floating(const at::Tensor& t) { return is_a<float>(t) || is_a<double>(t); }

int64_t wrapped(int64_t dim, int64_t dims) { return dim < 0 ? dim + dims : dim; }

// Loops over the places of x beside `dim`, in x and in results that may have kept that dimension.
std::optional<Loops<3>> loops_without(const at::Tensor& x, int64_t dim, const std::array<at::Tensor, 2>& results) {
  at::DimVector sizes(x.sizes());
  sizes.erase(sizes.begin() + dim);
  const auto strides = [&](const at::Tensor& t) {
    at::DimVector all(t.strides());
    if (t.dim() == x.dim()) all.erase(all.begin() + dim);
    return all;
  };
  return loops_over<3>(sizes, {strides(x), strides(results[0]), strides(results[1])});
}

int64_t checked(int64_t index, int64_t size, int64_t dim) {
  TORCH_CHECK_INDEX(index >= 0 && index < size, "index ", index, " is out of bounds for dimension ", dim, " with size ",
                    size);
  return index;
}

class Sequence final : public Call {
 public:
  explicit Sequence(std::vector<std::unique_ptr<Call>> calls) : calls_(std::move(calls)) {}
  void run() override {
    for (const auto& call : calls_) call->run();
  }
  void set(size_t, double) override {}
  void set(size_t, uint64_t) override {}

 private:
  std::vector<std::unique_ptr<Call>> calls_;
};

// Loops over places of `index` in three tensors; `other` is as large along other dimensions, at least.
std::optional<Loops<3>> loops_of_index(const at::Tensor& index, int64_t dim, const at::Tensor& one,
                                       const at::Tensor& other) {
  if (!is_a<int64_t>(index) || index.dim() == 0 || index.numel() > kSmall || dim < 0 || dim >= index.dim())
    return std::nullopt;
  if (one.sizes() != index.sizes() || other.dim() != index.dim()) return std::nullopt;
  for (int64_t d = 0; d < index.dim(); ++d)
    if (d != dim && other.size(d) < index.size(d)) return std::nullopt;
  at::DimVector strides(other.strides());
  strides[static_cast<size_t>(dim)] = 0;
  return loops_over<3>(index.sizes(), {at::DimVector(one.strides()), at::DimVector(index.strides()), strides});
}

}  // namespace

std::optional<at::DimVector> broadcast_strides(const at::Tensor& t, at::IntArrayRef sizes) {
  const size_t more = sizes.size() - static_cast<size_t>(t.dim());
  if (static_cast<size_t>(t.dim()) > sizes.size()) return std::nullopt;
  at::DimVector strides(sizes.size(), 0);
  for (size_t d = more; d < sizes.size(); ++d) {
    const auto own = static_cast<int64_t>(d - more);
    if (t.size(own) != sizes[d] && t.size(own) != 1) return std::nullopt;
    strides[d] = t.size(own) == 1 ? 0 : t.stride(own);
  }
  return strides;
}

bool may_write(const at::Tensor& out, const at::Tensor& t) {
  if (!each_once(out)) return false;
  if (out.unsafeGetTensorImpl()->unsafe_storage().unsafeGetStorageImpl() !=
      t.unsafeGetTensorImpl()->unsafe_storage().unsafeGetStorageImpl())
    return true;
  if (out.element_size() == t.element_size() && out.storage_offset() == t.storage_offset() &&
      out.sizes() == t.sizes() && out.strides() == t.strides())
    return true;
  const int64_t begin = out.storage_offset() * out.element_size(), first = t.storage_offset() * t.element_size();
  return begin + extent(out) * out.element_size() <= first || first + extent(t) * t.element_size() <= begin;
}

std::unique_ptr<Call> sequence(std::vector<std::unique_ptr<Call>> calls) {
  for (const auto& call : calls)
    if (!call) return nullptr;
  return std::make_unique<Sequence>(std::move(calls));
}

std::unique_ptr<Call> direct_moved(const at::Tensor& x, const at::Tensor& out) {
  if (!out.defined() || x.scalar_type() != out.scalar_type()) return nullptr;
  if (x.is_neg() || x.is_conj() || x.layout() != at::kStrided) return nullptr;
  return by_size(out, [&](auto zero) {
    using W = decltype(zero);
    return pointwise_bits<W, W>([](W v) { return v; }, out, {x});
  });
}

std::unique_ptr<Call> direct_cat(const std::vector<at::Tensor>& tensors, int64_t dim, bool is_new,
                                 const at::Tensor& out) {
  if (!out.defined() || out.numel() > kSmall) return nullptr;
  dim = wrapped(dim, out.dim());
  std::vector<std::unique_ptr<Call>> moves;
  int64_t at = 0;
  for (const at::Tensor& t : tensors) {
    if (!is_new && t.dim() == 1 && t.numel() == 0) continue;  // torch skips it, whatever the others are
    const int64_t length = is_new ? 1 : t.size(dim);
    if (!is_new && t.dim() != out.dim()) return nullptr;
    moves.push_back(direct_moved(t, is_new ? out.select(dim, at) : out.narrow(dim, at, length)));
    at += length;
  }
  return sequence(std::move(moves));
}

std::unique_ptr<Call> direct_pad(const at::Tensor& x, const std::vector<int64_t>& pad, double value,
                                 const at::Tensor& out) {
  if (!out.defined() || !is_floating(x) || x.scalar_type() != out.scalar_type()) return nullptr;
  at::Tensor inner = out;
  for (size_t i = 0; i + 1 < pad.size(); i += 2) {
    if (pad[i] < 0 || pad[i + 1] < 0) return nullptr;
    const int64_t dim = x.dim() - 1 - static_cast<int64_t>(i / 2);
    inner = inner.narrow(dim, pad[i], x.size(dim));
  }
  std::vector<std::unique_ptr<Call>> calls;
  calls.push_back(by_dtype(x, [&](auto zero) {
    using T = decltype(zero);
    return pointwise<T>([v = static_cast<T>(value)] { return v; }, out, {});
  }));
  calls.push_back(direct_moved(x, inner));
  return sequence(std::move(calls));
}

std::unique_ptr<Call> direct_gather(const at::Tensor& x, int64_t dim, const at::Tensor& index, const at::Tensor& out) {
  if (!out.defined() || x.scalar_type() != out.scalar_type() || x.is_neg() || x.is_conj()) return nullptr;
  dim = wrapped(dim, x.dim());
  const auto loops = loops_of_index(index, dim, out, x);
  if (!loops || !may_write(out, x) || !may_write(out, index)) return nullptr;
  return by_size(out, [&](auto zero) {
    using W = decltype(zero);
    return direct([=, l = *loops, size = x.size(dim), along = x.stride(dim), x = At<W>(x), index = At<int64_t>(index),
                   out = At<W>(out)] {
      const W* from = x.get();
      const int64_t* where = index.get();
      W* to = out.get();
      over_stretches(l, [&](const auto& at, int64_t n, const auto& step) {
        for (int64_t i = 0; i < n; ++i) {
          const int64_t which = checked(where[at[1] + i * step[1]], size, dim);
          to[at[0] + i * step[0]] = from[at[2] + i * step[2] + which * along];
        }
      });
    });
  });
}

std::unique_ptr<Call> direct_scatter_add(const at::Tensor& x, int64_t dim, const at::Tensor& index,
                                         const at::Tensor& src, const at::Tensor& out) {
  if (!out.defined() || !is_floating(out) || out.scalar_type() != src.scalar_type() || src.is_neg()) return nullptr;
  dim = wrapped(dim, out.dim());
  if (index.dim() == 0 || dim >= index.dim() || index.size(dim) != 1 || index.sizes() != src.sizes()) return nullptr;
  const auto loops = loops_of_index(index, dim, src, out);
  if (!loops || !may_write(out, src) || !may_write(out, index)) return nullptr;
  std::vector<std::unique_ptr<Call>> calls;
  calls.push_back(direct_moved(x, out));
  calls.push_back(by_dtype(out, [&](auto zero) {
    using T = decltype(zero);
    return direct([=, l = *loops, size = out.size(dim), along = out.stride(dim), src = At<T>(src),
                   index = At<int64_t>(index), out = At<T>(out)] {
      const T* from = src.get();
      const int64_t* where = index.get();
      T* to = out.get();
      over_stretches(l, [&](const auto& at, int64_t n, const auto& step) {
        for (int64_t i = 0; i < n; ++i) {
          const int64_t which = checked(where[at[1] + i * step[1]], size, dim);
          to[at[2] + i * step[2] + which * along] += from[at[0] + i * step[0]];
        }
      });
    });
  }));
  return sequence(std::move(calls));
}

std::unique_ptr<Call> direct_rows(const at::Tensor& x, const at::Tensor& index, bool wraps, const at::Tensor& out) {
  if (!out.defined() || x.dim() == 0 || x.scalar_type() != out.scalar_type() || out.numel() > kSmall) return nullptr;
  if (!x.is_contiguous() || !out.is_contiguous() || !is_a<int64_t>(index) || !index.is_contiguous()) return nullptr;
  const int64_t rows = x.size(0), each = c10::multiply_integers(x.sizes().slice(1));
  if (x.is_neg() || x.is_conj() || index.numel() * each != out.numel()) return nullptr;
  if (!may_write(out, x) || !may_write(out, index)) return nullptr;
  return by_size(out, [&](auto zero) {
    using W = decltype(zero);
    return direct([=, n = index.numel(), x = At<W>(x), index = At<int64_t>(index), out = At<W>(out)] {
      const W* from = x.get();
      const int64_t* where = index.get();
      W* to = out.get();
      for (int64_t i = 0; i < n; ++i) {
        const int64_t which = checked(where[i] < 0 && wraps ? where[i] + rows : where[i], rows, 0);
        std::memcpy(to + i * each, from + which * each, static_cast<size_t>(each) * sizeof(W));
      }
    });
  });
}

std::unique_ptr<Call> direct_max(const at::Tensor& x, int64_t dim, const at::Tensor& out, const at::Tensor& place) {
  dim = wrapped(dim, x.dim());
  if (!out.defined() || x.dim() == 0 || x.numel() > kSmall || x.size(dim) == 0) return nullptr;
  if (!is_floating(x) || x.scalar_type() != out.scalar_type() || !may_write(out, x)) return nullptr;
  if (place.defined() && (!is_a<int64_t>(place) || !may_write(place, x) || !may_write(out, place))) return nullptr;
  const auto loops = loops_without(x, dim, {place.defined() ? place : out, out});
  if (!loops) return nullptr;
  return by_dtype(x, [&](auto zero) {
    using T = decltype(zero);
    return direct([=, l = *loops, size = x.size(dim), along = x.stride(dim), x = At<T>(x), out = At<T>(out),
                   place = At<int64_t>(place)] {
      const T* from = x.get();
      T* to = out.get();
      int64_t* where = place.get();
      over_stretches(l, [&](const auto& at, int64_t n, const auto& step) {
        for (int64_t i = 0; i < n; ++i) {
          const T* one = from + at[0] + i * step[0];
          int64_t best = 0;
          for (int64_t k = 1; k < size && one[best * along] == one[best * along]; ++k)
            if (!(one[k * along] <= one[best * along])) best = k;
          if (where) where[at[1] + i * step[1]] = best;
          to[at[2] + i * step[2]] = one[best * along];
        }
      });
    });
  });
}

std::unique_ptr<Call> direct_all(const at::Tensor& x, int64_t dim, const at::Tensor& out) {
  dim = wrapped(dim, x.dim());
  if (x.dim() == 0 || x.numel() > kSmall || !is_a<bool>(x) || !is_a<bool>(out) || !may_write(out, x)) return nullptr;
  const auto loops = loops_without(x, dim, {out, out});
  if (!loops) return nullptr;
  return direct([=, l = *loops, size = x.size(dim), along = x.stride(dim), x = At<bool>(x), out = At<bool>(out)] {
    const bool* from = x.get();
    bool* to = out.get();
    over_stretches(l, [&](const auto& at, int64_t n, const auto& step) {
      for (int64_t i = 0; i < n; ++i) {
        bool all = true;
        for (int64_t k = 0; k < size; ++k) all = all && from[at[0] + i * step[0] + k * along];
        to[at[2] + i * step[2]] = all;
      }
    });
  });
}

}  // namespace tapegrad
