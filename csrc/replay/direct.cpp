#include "replay/direct.h"

#include <algorithm>
#include <cstring>

#include "dispatch.h"
#include "ops/elementwise.h"
#include "ops/linear.h"
#include "ops/loss.h"
#include "ops/recurrent.h"
#include "replay/places.h"
#include "replay/pointwise.h"

namespace tapegrad {
namespace {

bool plain(const at::Tensor& t, const at::Tensor& like) {
  return !t.defined() || (t.is_contiguous() && t.scalar_type() == like.scalar_type() && !t.is_neg());
}
bool all_plain(const at::Tensor& like, std::initializer_list<at::Tensor> tensors) {
  if (!like.defined() || (like.scalar_type() != at::kFloat && like.scalar_type() != at::kDouble)) return false;
  for (const at::Tensor& t : tensors)
    if (!plain(t, like)) return false;
  return like.is_contiguous() && !like.is_neg();
}
at::Tensor value(const Optional& t) { return t ? *t : at::Tensor(); }
bool has_size(const at::Tensor& t, at::IntArrayRef size) { return t.defined() && t.sizes() == size; }
// Undefined where the result is not wanted.
at::Tensor place_of(const Tensors& outs, size_t i) { return i < outs.size() ? outs[i] : at::Tensor(); }

}  // namespace

std::unique_ptr<Call> direct_linear(const at::Tensor& x, const at::Tensor& w, const Optional& b, const Tensors& outs) {
  const at::Tensor out = place_of(outs, 0);
  if (!all_plain(x, {w, value(b), out}) || !out.defined() || !w.defined() || x.dim() == 0 || w.dim() != 2)
    return nullptr;
  const int64_t N = w.size(0), K = w.size(1), M = x.numel() / std::max<int64_t>(K, 1);
  if (K == 0 || x.size(-1) != K || (b && !has_size(*b, {N})) || out.numel() != M * N) return nullptr;
  return by_dtype(x, [&](auto zero) {
    using T = decltype(zero);
    return direct([=, x = At<T>(x), w = At<T>(w), b = At<T>(value(b)), out = At<T>(out)] {
      linear<T>(M, N, K, x.get(), w.get(), b.get(), out.get());
    });
  });
}

std::unique_ptr<Call> direct_linear_backward(const at::Tensor& g, const Optional& x, const Optional& w,
                                             const Tensors& outs) {
  const at::Tensor dx = place_of(outs, 0), dw = place_of(outs, 1), db = place_of(outs, 2);
  if (!all_plain(g, {value(x), value(w), dx, dw, db}) || g.dim() == 0 || g.size(-1) == 0) return nullptr;
  if ((dx.defined() && (!w || w->dim() != 2)) || (dw.defined() && (!x || x->dim() == 0))) return nullptr;
  const int64_t N = g.size(-1), K = dw.defined() ? x->size(-1) : dx.defined() ? w->size(1) : 0, M = g.numel() / N;
  if (dx.defined() && (!has_size(*w, {N, K}) || dx.numel() != M * K)) return nullptr;
  if (dw.defined() && (!has_size(dw, {N, K}) || x->numel() != M * K)) return nullptr;
  if (db.defined() && !has_size(db, {N})) return nullptr;
  return by_dtype(g, [&](auto zero) {
    using T = decltype(zero);
    return direct([=, g = At<T>(g), x = At<T>(dw.defined() ? *x : at::Tensor()),
                   w = At<T>(dx.defined() ? *w : at::Tensor()), dx = At<T>(dx), dw = At<T>(dw), db = At<T>(db)] {
      linear_backward<T>(M, N, K, g.get(), x.get(), w.get(), dx.get(), dw.get(), db.get());
    });
  });
}

std::unique_ptr<Call> direct_activation(Activation f, const at::Tensor& x, double a, double b, const Tensors& outs) {
  const at::Tensor out = place_of(outs, 0);
  if (!has_size(out, x.sizes()) || !all_plain(x, {out})) return nullptr;
  return by_dtype(x, [&](auto zero) {
    using T = decltype(zero);
    return elementwise(x.numel(), [=, a = static_cast<T>(a), b = static_cast<T>(b), x = At<T>(x), out = At<T>(out)](
                                      int64_t begin, int64_t end) {
      kernels_for<T>().activation(f, x.get() + begin, out.get() + begin, end - begin, a, b);
    });
  });
}

std::unique_ptr<Call> direct_activation_backward(Activation f, const at::Tensor& g, const at::Tensor& saved, double a,
                                                 double b, const Tensors& outs) {
  const at::Tensor dx = place_of(outs, 0);
  if (!has_size(dx, saved.sizes()) || !has_size(g, saved.sizes()) || !all_plain(saved, {g, dx})) return nullptr;
  return by_dtype(saved, [&](auto zero) {
    using T = decltype(zero);
    return elementwise(saved.numel(), [=, a = static_cast<T>(a), b = static_cast<T>(b), g = At<T>(g),
                                       saved = At<T>(saved), dx = At<T>(dx)](int64_t begin, int64_t end) {
      kernels_for<T>().activation_backward(f, g.get() + begin, saved.get() + begin, dx.get() + begin, end - begin, a,
                                           b);
    });
  });
}

std::unique_ptr<Call> direct_arithmetic(Arithmetic f, const Operand& a, const Operand& b, const at::Tensor& out) {
  if (!out.defined() || !all_plain(out, {a.tensor, b.tensor})) return nullptr;
  for (const Operand* one : {&a, &b}) {
    if (!one->tensor.defined()) continue;
    if (one->tensor.dim() != 0 && one->tensor.sizes() != out.sizes()) return nullptr;
    if (!may_write(out, one->tensor)) return nullptr;
  }
  const auto is_one = [&](const Operand& one) { return !one.tensor.defined() || one.tensor.sizes() != out.sizes(); };
  const bool one_a = is_one(a), one_b = is_one(b);
  if (one_a && one_b) return nullptr;
  return by_dtype(out, [&](auto zero) {
    using T = decltype(zero);
    return elementwise(out.numel(),
                       [=, x = At<T>(a.tensor), y = At<T>(b.tensor), to = At<T>(out), u = static_cast<T>(a.number),
                        v = static_cast<T>(b.number)](int64_t begin, int64_t end) {
                         const T *left = x.get(), *right = y.get();
                         left = !left ? &u : one_a ? left : left + begin;
                         right = !right ? &v : one_b ? right : right + begin;
                         kernels_for<T>().arithmetic(f, left, one_a, right, one_b, to.get() + begin, end - begin);
                       });
  });
}

std::unique_ptr<Call> direct_scaled_product(const at::Tensor& a, const at::Tensor& b, const at::Tensor& c, double scale,
                                            const Tensors& outs) {
  const at::Tensor out = place_of(outs, 0);
  for (const at::Tensor* t : {&b, &c, &out})
    if (!has_size(*t, a.sizes())) return nullptr;
  if (!all_plain(a, {b, c, out})) return nullptr;
  return by_dtype(a, [&](auto zero) {
    using T = decltype(zero);
    return elementwise(a.numel(), [=, a = At<T>(a), b = At<T>(b), c = At<T>(c), scale = static_cast<T>(scale),
                                   out = At<T>(out)](int64_t begin, int64_t end) {
      kernels_for<T>().scaled_product(a.get() + begin, b.get() + begin, c.get() + begin, scale, out.get() + begin,
                                      end - begin);
    });
  });
}

std::unique_ptr<Call> direct_copy(const at::Tensor& x, const at::Tensor& out) {
  if (!out.defined() || !x.defined() || !x.is_contiguous() || !out.is_contiguous() || x.dtype() != out.dtype() ||
      x.is_neg() || x.sizes() != out.sizes())
    return nullptr;
  const int64_t size = x.element_size();
  return elementwise(x.numel(), [=, x = At<char>(x), to = At<char>(out), skip = x.storage_offset() * (size - 1),
                                 skip_to = out.storage_offset() * (size - 1)](int64_t begin, int64_t end) {
    std::memmove(to.get() + skip_to + begin * size, x.get() + skip + begin * size,
                 static_cast<size_t>((end - begin) * size));
  });
}

std::unique_ptr<Call> direct_zeros(const at::Tensor& out) {
  if (!out.defined() || !out.is_contiguous()) return nullptr;
  const int64_t size = out.element_size(), skip = out.storage_offset() * (size - 1);
  return elementwise(out.numel(), [=, to = At<char>(out)](int64_t begin, int64_t end) {
    std::memset(to.get() + skip + begin * size, 0, static_cast<size_t>((end - begin) * size));
  });
}

std::unique_ptr<Call> direct_mse_loss(const at::Tensor& x, const at::Tensor& y, bool mean, const Tensors& outs) {
  const at::Tensor out = place_of(outs, 0);
  if (!has_size(out, {}) || !has_size(y, x.sizes()) || !all_plain(x, {y, out})) return nullptr;
  const int64_t n = x.numel();
  return by_dtype(x, [&](auto zero) {
    using T = decltype(zero);
    return direct(
        [=, x = At<T>(x), y = At<T>(y), out = At<T>(out)] { mse_loss<T>(n, x.get(), y.get(), mean, out.get()); });
  });
}

std::unique_ptr<Call> direct_mse_loss_backward(const at::Tensor& g, const at::Tensor& x, const at::Tensor& y, bool mean,
                                               const Tensors& outs) {
  const at::Tensor dx = place_of(outs, 0), dy = place_of(outs, 1);
  for (const at::Tensor* t : {&y, &dx, &dy})
    if (t->defined() && t->sizes() != x.sizes()) return nullptr;
  if (!has_size(g, {}) || !y.defined() || !all_plain(x, {g, y, dx, dy})) return nullptr;
  const int64_t n = x.numel();
  return by_dtype(x, [&](auto zero) {
    using T = decltype(zero);
    return direct([=, g = At<T>(g), x = At<T>(x), y = At<T>(y), dx = At<T>(dx), dy = At<T>(dy)] {
      mse_loss_backward<T>(n, *g.get(), x.get(), y.get(), mean, dx.get(), dy.get());
    });
  });
}

namespace {

// What both directions have in common; unfit where the tensors are not plain.
bool are_classes(const at::Tensor& x, const at::Tensor& target, const at::Tensor& weight) {
  return x.dim() == 2 && has_size(target, {x.size(0)}) && is_a<int64_t>(target) && target.is_contiguous() &&
         (!weight.defined() || has_size(weight, {x.size(1)}));
}

}  // namespace

std::unique_ptr<Call> direct_cross_entropy(const at::Tensor& x, const at::Tensor& target, const Optional& weight,
                                           int64_t ignore_index, Reduction reduction, double smoothing,
                                           const Tensors& outs) {
  const at::Tensor loss = place_of(outs, 0), stats = place_of(outs, 1), total = place_of(outs, 2), w = value(weight);
  if (!are_classes(x, target, w) || !has_size(total, {}) || !all_plain(x, {w, loss, stats, total})) return nullptr;
  const int64_t N = x.size(0), C = x.size(1);
  const bool one = reduction != Reduction::none;
  if (!has_size(stats, {N, 2}) || !(one ? has_size(loss, {}) : has_size(loss, {N}))) return nullptr;
  return by_dtype(x, [&](auto zero) {
    using T = decltype(zero);
    return direct([=, s = static_cast<T>(smoothing), x = At<T>(x), t = At<int64_t>(target), w = At<T>(w),
                   loss = At<T>(loss), stats = At<T>(stats), total = At<T>(total)] {
      CrossEntropy<T> a{};
      a.C = C, a.x = x.get(), a.target = t.get(), a.weight = w.get(), a.stats = stats.get();
      a.ignore_index = ignore_index, a.smoothing = s;
      cross_entropy<T>(N, a, reduction, loss.get(), total.get());
    });
  });
}

std::unique_ptr<Call> direct_cross_entropy_backward(const at::Tensor& g, const at::Tensor& x, const at::Tensor& target,
                                                    const Optional& weight, const at::Tensor& stats,
                                                    const at::Tensor& total, int64_t ignore_index, Reduction reduction,
                                                    double smoothing, const Tensors& outs) {
  const at::Tensor dx = place_of(outs, 0), w = value(weight);
  if (!are_classes(x, target, w) || !has_size(total, {}) || !all_plain(x, {w, g, stats, total, dx})) return nullptr;
  const int64_t N = x.size(0), C = x.size(1);
  const bool one = reduction != Reduction::none;
  if (!has_size(stats, {N, 2}) || !has_size(dx, {N, C}) || !(one ? has_size(g, {}) : has_size(g, {N}))) return nullptr;
  return by_dtype(x, [&](auto zero) {
    using T = decltype(zero);
    return direct([=, s = static_cast<T>(smoothing), x = At<T>(x), t = At<int64_t>(target), w = At<T>(w), g = At<T>(g),
                   stats = At<T>(stats), total = At<T>(total), dx = At<T>(dx)] {
      CrossEntropy<T> a{};
      a.C = C, a.x = x.get(), a.target = t.get(), a.weight = w.get(), a.stats = stats.get(), a.g = g.get();
      a.dx = dx.get(), a.ignore_index = ignore_index, a.smoothing = s;
      cross_entropy_backward<T>(N, a, reduction, total.get());
    });
  });
}

namespace {

// Each of these sizes, or not there.
bool have_sizes(std::initializer_list<std::pair<at::Tensor, at::DimVector>> all) {
  return std::all_of(all.begin(), all.end(),
                     [](const auto& one) { return !one.first.defined() || one.first.sizes() == one.second; });
}

template <class T, size_t N>
std::array<At<T>, N> places(const std::array<at::Tensor, N>& tensors) {
  std::array<At<T>, N> made;
  std::transform(tensors.begin(), tensors.end(), made.begin(), [](const at::Tensor& t) { return At<T>(t); });
  return made;
}

template <size_t N>
std::array<at::Tensor, N> values(const std::array<Optional, N>& given) {
  std::array<at::Tensor, N> made;
  std::transform(given.begin(), given.end(), made.begin(), value);
  return made;
}

template <size_t N>
std::array<at::Tensor, N> places_of(const Tensors& outs) {
  std::array<at::Tensor, N> made;
  for (size_t i = 0; i < N; ++i) made[i] = place_of(outs, i);
  return made;
}

}  // namespace

std::unique_ptr<Call> direct_recurrent(const std::array<Optional, 8>& inputs, const std::string& mode,
                                       const std::vector<int64_t>& sizes, bool reverse, bool keep,
                                       const Tensors& outs) {
  const auto in = values(inputs);
  auto out = places_of<5>(outs);
  const auto& [x, h0, c0, ih, hh, b_ih, b_hh, hr] = in;
  if (!all_plain(x, {h0, c0, ih, hh, b_ih, b_hh, hr, out[0], out[1], out[2], out[3], out[4]})) return nullptr;
  if (x.dim() != 2 || ih.dim() != 2 || hh.dim() != 2) return nullptr;
  const RecurrentShape s = recurrent_shape("recurrent", mode, reverse, sizes, x, ih, hh, hr);
  if (!have_sizes({{h0, {s.N, s.P}}, {c0, {s.N, s.H}}, {b_ih, {s.gates()}}, {b_hh, {s.gates()}}})) return nullptr;
  const std::array<at::DimVector, 5> shapes = {
      at::DimVector{s.M, s.P}, {s.N, s.P}, {s.N, s.H}, {s.M, s.saved()}, {s.M, s.P}};
  for (size_t i = 0; i < out.size(); ++i) {
    if (out[i].defined() && out[i].sizes() != shapes[i]) return nullptr;
    const bool computed = i < 2 || (i == 2 ? s.mode == Recurrence::lstm : keep);  // whoever reads it
    if (!out[i].defined() && computed) out[i] = make(shapes[i], x.scalar_type(), "recurrent");
  }
  return by_dtype(x, [&](auto zero) {
    using T = decltype(zero);
    return direct([s, a = places<T>(in), r = places<T>(out)] {
      recurrent<T>(s, {a[0].get(), a[1].get(), a[2].get(), a[3].get(), a[4].get(), a[5].get(), a[6].get(), a[7].get(),
                       r[0].get(), r[1].get(), r[2].get(), r[3].get(), r[4].get()});
    });
  });
}

std::unique_ptr<Call> direct_recurrent_backward(const std::array<Optional, 9>& inputs, const std::string& mode,
                                                const std::vector<int64_t>& sizes, bool reverse, const Tensors& outs) {
  const auto in = values(inputs);
  const auto out = places_of<8>(outs);
  const auto& [g_out, g_h, g_c, x, ih, hh, hr, saved, before] = in;
  if (!all_plain(x, {g_out, g_h, g_c, ih, hh, hr, saved, before})) return nullptr;
  if (!std::all_of(out.begin(), out.end(), [&x = x](const at::Tensor& t) { return plain(t, x); })) return nullptr;
  if (x.dim() != 2 || ih.dim() != 2 || hh.dim() != 2) return nullptr;
  const RecurrentShape s = recurrent_shape("recurrent_backward", mode, reverse, sizes, x, ih, hh, hr);
  if (!has_size(saved, {s.M, s.saved()}) || !has_size(before, {s.M, s.P})) return nullptr;
  if (!have_sizes({{g_out, {s.M, s.P}}, {g_h, {s.N, s.P}}, {g_c, {s.N, s.H}}})) return nullptr;
  if (!have_sizes({{out[0], {s.M, s.F}},
                   {out[1], {s.N, s.P}},
                   {out[2], {s.N, s.H}},
                   {out[3], {s.gates(), s.F}},
                   {out[4], {s.gates(), s.P}},
                   {out[5], {s.gates()}},
                   {out[6], {s.gates()}},
                   {out[7], {s.P, s.H}}}))
    return nullptr;
  return by_dtype(x, [&](auto zero) {
    using T = decltype(zero);
    return direct([s, a = places<T>(in), r = places<T>(out)] {
      recurrent_backward<T>(s, {a[0].get(), a[1].get(), a[2].get(), a[3].get(), a[4].get(), a[5].get(), a[6].get(),
                                a[7].get(), a[8].get(), r[0].get(), r[1].get(), r[2].get(), r[3].get(), r[4].get(),
                                r[5].get(), r[6].get(), r[7].get()});
    });
  });
}

}  // namespace tapegrad
