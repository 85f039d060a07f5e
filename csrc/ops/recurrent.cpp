#include "ops/recurrent.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "dispatch.h"
#include "ops/blocks.h"
#include "ops/denormals.h"
#include "ops/elementwise.h"
#include "ops/linear.h"
#include "ops/product.h"

namespace tapegrad {
namespace {

// Memory for the length of a call
template <class T>
class Room {
 public:
  explicit Room(int64_t n) {
    if (n > 0) memory_ = block_allocator()->allocate(static_cast<size_t>(n) * sizeof(T));
  }
  T* data() const { return static_cast<T*>(memory_.get()); }

 private:
  at::DataPtr memory_;
};

template <class T>
void copy(const T* from, int64_t n, T* to) {  // zeros from nowhere
  if (n == 0) return;
  from ? std::memcpy(to, from, static_cast<size_t>(n) * sizeof(T))
       : std::memset(to, 0, static_cast<size_t>(n) * sizeof(T));
}

// A matrix B[k * b_k + n * b_n] [K, N] that is multiplied at every step: rearranged once, so that a product's columns
// lie side by side and near each other.
template <class T>
class Weight {
 public:
  Weight(const T* B, int64_t b_k, int64_t b_n, int64_t K, int64_t N, bool once)
      : K_(K), N_(N), width_(N), b_k_(b_k), b_n_(b_n), B_(B), room_(0) {
    const bool near = N * kElement < kNear;
    if (!B || N == 0 || once || (near && b_n == 1)) return;
    width_ = near ? (N + kPanel / 3 - 1) / (kPanel / 3) * (kPanel / 3) : kPanel;
    room_ = Room<T>((N + width_ - 1) / width_ * width_ * K);
    kernels_for<T>().pack_panels(B, b_k, b_n, K, N, width_, room_.data());
    B_ = room_.data();
    b_k_ = width_, b_n_ = 1;
  }

  // C [M, N] = (C +) A [M, K] @ B + bias, rows as far apart as is said
  void times(int64_t M, const T* A, int64_t a_m, T* C, int64_t c_m, bool carry, const T* bias = nullptr) const {
    for (int64_t n = 0; n < N_; n += width_)
      kernels_for<T>().gemm({.M = M,
                             .N = std::min(width_, N_ - n),
                             .K = K_,
                             .A = A,
                             .a_m = a_m,
                             .a_k = 1,
                             .B = B_ + n * K_,
                             .b_k = b_k_,
                             .b_n = b_n_,
                             .C = C + n,
                             .c_m = c_m,
                             .bias_n = bias ? bias + n : nullptr,
                             .carry = carry},
                            static_cast<T*>(scratch()));
  }

 private:
  // A panel is three vectors of AVX-512 wide, as the product's tile is. Rows nearer than this share its cache lines'
  // sets.
  static constexpr int64_t kElement = sizeof(T), kPanel = 192 / kElement, kNear = 1024;
  int64_t K_, N_, width_, b_k_, b_n_;
  const T* B_;
  Room<T> room_;
};

// Steps that follow one another: [from, to) in the order in which they are taken, and where the rows of the first begin
// in memory (end, against its order).
struct Steps {
  int64_t from, to, at;
};
Steps all_steps(const RecurrentShape& s, bool against) {
  return {0, static_cast<int64_t>(s.sizes.size()), against ? s.M : 0};
}
int64_t size_of(const RecurrentShape& s, bool against, int64_t step) {
  return s.sizes[against ? s.sizes.size() - 1 - step : step];
}

// f(first row, rows) of sequences [begin, end) at every step that they take part in, in the order of memory or against
// it
template <class F>
void walk(const RecurrentShape& s, bool against, const Steps& steps, int64_t begin, int64_t end, const F& f) {
  int64_t at = steps.at;
  for (int64_t i = steps.from; i < steps.to; ++i) {
    const int64_t size = size_of(s, against, i), rows = std::min(end, size) - begin;
    if (against) at -= size;
    if (rows > 0) f(at + begin, rows);
    if (!against) at += size;
  }
}

// f(first, beyond the last) over the sequences. Few rows at a time would read the weights for few products.
template <class F>
void by_sequences(const RecurrentShape& s, const Steps& steps, const F& f) {
  constexpr double kShare = 8e6;  // FLOP that are worth a thread
  const double each = 2.0 * static_cast<double>(s.gates() * s.P) * static_cast<double>(steps.to - steps.from);
  over(s.N, std::max<int64_t>(4, static_cast<int64_t>(kShare / std::max(each, 1.0))), f);
}

}  // namespace

// The inputs' share of the gates is computed for some steps at a time, as many as stay in the nearer caches.
template <class T>
void recurrent(const RecurrentShape& s, const RecurrentForward<T>& a) {
  constexpr int64_t kNearby = 512 << 10;  // bytes
  const bool gru = s.mode == Recurrence::gru, once = s.sizes.size() == 1;
  const int64_t H = s.H, P = s.P, G = s.gates(), S = s.saved();
  const int64_t most = std::max(s.N, kNearby / std::max<int64_t>(1, S * static_cast<int64_t>(sizeof(T))));  // rows
  const Room<T> shares(gru ? s.N * G : 0), both(a.bias_ih && a.bias_hh && !gru ? G : 0),
      own(a.saved ? 0 : std::min(most, s.M) * S);
  const T* bias = a.bias_ih || gru ? a.bias_ih : a.bias_hh;
  if (both.data()) {
    kernels_for<T>().arithmetic(Arithmetic::add, a.bias_ih, false, a.bias_hh, false, both.data(), G);
    bias = both.data();
  }
  copy(a.h0, s.N * P, a.h);
  if (a.c) copy(a.c0, s.N * H, a.c);
  const Weight<T> hh(a.weight_hh, 1, P, P, G, once), hr(a.weight_hr, 1, H, H, P, once);
  for (Steps steps = {0, 0, s.reverse ? s.M : 0}; steps.from < static_cast<int64_t>(s.sizes.size());) {
    int64_t count = 0;
    while (steps.to < static_cast<int64_t>(s.sizes.size()) && count + size_of(s, s.reverse, steps.to) <= most)
      count += size_of(s, s.reverse, steps.to++);
    const int64_t start = s.reverse ? steps.at - count : steps.at;
    T* const room = a.saved ? a.saved + start * S : own.data();  // of row `start`
    product<T>({.M = count,
                .N = G,
                .K = s.F,
                .A = a.x + start * s.F,
                .a_m = s.F,
                .a_k = 1,
                .B = a.weight_ih,
                .b_k = 1,
                .b_n = s.F,
                .C = room,
                .c_m = S,
                .bias_n = bias});
    by_sequences(s, steps, [&](int64_t begin, int64_t end) {
      T *const h = a.h + begin * P, *const share = gru ? shares.data() + begin * G : nullptr;
      walk(s, s.reverse, steps, begin, end, [&](int64_t first, int64_t rows) {
        T *const saved = room + (first - start) * S, *const out = a.out + first * P;
        if (a.before) copy(h, rows * P, a.before + first * P);
        gru ? hh.times(rows, h, P, share, G, false, a.bias_hh) : hh.times(rows, h, P, saved, S, true);
        kernels_for<T>().recurrent_step({.mode = s.mode,
                                         .rows = rows,
                                         .H = H,
                                         .saved = saved,
                                         .saved_step = S,
                                         .product = share,
                                         .before = h,
                                         .c = a.c ? a.c + begin * H : nullptr,
                                         .h = s.projected ? saved + S - H : out,
                                         .h_step = s.projected ? S : P});
        if (s.projected) hr.times(rows, saved + S - H, S, out, P, false);
        copy(out, rows * P, h);
      });
    });
    steps = {steps.to, steps.to, s.reverse ? start : start + count};
  }
}

template <class T>
void recurrent_backward(const RecurrentShape& s, const RecurrentBackward<T>& a) {
  const bool gru = s.mode == Recurrence::gru, lstm = s.mode == Recurrence::lstm, once = s.sizes.size() == 1;
  const int64_t H = s.H, P = s.P, G = s.gates(), S = s.saved();
  const Room<T> to_inputs(s.M * G), to_state(gru ? s.M * G : 0), own_dh(a.dh ? 0 : s.N * P),
      own_dc(lstm && !a.dc ? s.N * H : 0), outer(s.projected ? s.M * P : 0), inner(s.projected ? s.N * H : 0);
  T *const state = gru ? to_state.data() : to_inputs.data(), *const dh = a.dh ? a.dh : own_dh.data(),
           *const dc = a.dc ? a.dc : own_dc.data();
  copy(a.g_h, s.N * P, dh);
  if (lstm) copy(a.g_c, s.N * H, dc);
  const Weight<T> hh(a.weight_hh, P, 1, G, P, once), hr(a.weight_hr, H, 1, P, H, once);
  const Steps steps = all_steps(s, !s.reverse);
  by_sequences(s, steps, [&](int64_t begin, int64_t end) {
    const FlushDenormals fading;
    T* const from = dh + begin * P;
    walk(s, !s.reverse, steps, begin, end, [&](int64_t first, int64_t rows) {
      const T* g = a.g_out ? a.g_out + first * P : nullptr;
      T* cell = from;
      if (s.projected) {
        T* const total = outer.data() + first * P;
        g ? kernels_for<T>().arithmetic(Arithmetic::add, from, false, g, false, total, rows * P)
          : copy<T>(from, rows * P, total);
        g = nullptr;
        cell = inner.data() + begin * H;
        hr.times(rows, total, P, cell, H, false);
      }
      kernels_for<T>().recurrent_step_back({.mode = s.mode,
                                            .rows = rows,
                                            .H = H,
                                            .saved = a.saved + first * S,
                                            .saved_step = S,
                                            .before = a.before + first * P,
                                            .g = g,
                                            .dh = cell,
                                            .dc = lstm ? dc + begin * H : nullptr,
                                            .to_inputs = to_inputs.data() + first * G,
                                            .to_state = gru ? to_state.data() + first * G : nullptr});
      hh.times(rows, state + first * G, G, from, P, gru);
    });
  });
  linear_backward<T>(s.M, G, s.F, to_inputs.data(), a.x, a.weight_ih, a.dx, a.dweight_ih, a.dbias_ih);
  T* const db = a.dbias_ih && !gru ? nullptr : a.dbias_hh;
  linear_backward<T>(s.M, G, P, state, a.before, nullptr, nullptr, a.dweight_hh, db);
  if (a.dbias_hh && !db) copy<T>(a.dbias_ih, G, a.dbias_hh);
  if (a.dweight_hr)
    product<T>({.M = P,
                .N = H,
                .K = s.M,
                .A = outer.data(),
                .a_m = 1,
                .a_k = P,
                .B = a.saved + S - H,
                .b_k = S,
                .b_n = 1,
                .C = a.dweight_hr,
                .c_m = H});
}

#define TG_RECURRENT(T)                                                       \
  template void recurrent(const RecurrentShape&, const RecurrentForward<T>&); \
  template void recurrent_backward(const RecurrentShape&, const RecurrentBackward<T>&);
TG_RECURRENT(float)
TG_RECURRENT(double)

// --- the border ---

namespace {

Recurrence mode_of(const char* op, const std::string& mode) {
  if (mode == "LSTM") return Recurrence::lstm;
  if (mode == "GRU") return Recurrence::gru;
  if (mode == "RNN_TANH") return Recurrence::rnn_tanh;
  if (mode == "RNN_RELU") return Recurrence::rnn_relu;
  throw ShapeError(std::string(op) + ": mode must be LSTM, GRU, RNN_TANH or RNN_RELU, is " + mode);
}

at::Tensor given(const MaybeTensor& t, const char* op, const char* name, at::IntArrayRef sizes,
                 const at::Tensor& like) {
  return t && t->defined() ? checked_sizes(*t, op, name, sizes, like) : at::Tensor();
}

}  // namespace

RecurrentShape recurrent_shape(const char* op, const std::string& mode, bool reverse, const std::vector<int64_t>& sizes,
                               const at::Tensor& x, const at::Tensor& weight_ih, const at::Tensor& weight_hh,
                               const at::Tensor& weight_hr) {
  const auto expect = [&](bool good, const std::string& what, const at::Tensor& t) {
    if (!good) throw ShapeError(std::string(op) + ": " + what + ", is " + text(t.sizes()));
  };
  RecurrentShape s = {mode_of(op, mode), reverse, weight_hr.defined(), sizes, x.size(0), 0, x.size(1), 0, 0};
  int64_t rows = 0, least = sizes.empty() ? -1 : sizes[0];
  for (const int64_t size : sizes) {
    if (size < 0 || size > least || size > s.M - rows) least = -1;
    if (least < 0) break;
    rows += least = size;
  }
  if (least < 0 || rows != s.M)
    throw ShapeError(std::string(op) + ": sizes of the steps must not grow, and add up to input.shape[0] = " +
                     std::to_string(s.M) + "; they are " + text(sizes));
  const int64_t gates = gates_of(s.mode);
  s.N = sizes[0], s.H = weight_ih.size(0) / gates, s.P = weight_hh.size(1);
  expect(s.H * gates == weight_ih.size(0),
         "weight_ih.shape[0] must be a multiple of " + std::to_string(gates) + " gates", weight_ih);
  expect(weight_ih.size(1) == s.F, "weight_ih.shape[1] must be input.shape[1] = " + std::to_string(s.F), weight_ih);
  expect(weight_hh.size(0) == s.gates(), "weight_hh.shape[0] must be weight_ih.shape[0] = " + std::to_string(s.gates()),
         weight_hh);
  expect(s.projected || s.P == s.H, "weight_hh.shape[1] must be hidden_size = " + std::to_string(s.H), weight_hh);
  if (!s.projected) return s;
  if (s.mode != Recurrence::lstm) throw ShapeError(std::string(op) + ": weight_hr is for an LSTM");
  expect(weight_hr.dim() == 2 && weight_hr.size(0) == s.P && weight_hr.size(1) == s.H,
         "weight_hr.shape must be " + text({s.P, s.H}), weight_hr);
  return s;
}

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor> recurrent(
    const at::Tensor& input, const MaybeTensor& h0, const MaybeTensor& c0, const at::Tensor& weight_ih,
    const at::Tensor& weight_hh, const MaybeTensor& bias_ih, const MaybeTensor& bias_hh, const MaybeTensor& weight_hr,
    const std::string& mode, const std::vector<int64_t>& sizes, bool reverse, bool keep) {
  const char* op = "recurrent";
  const at::Tensor x = checked(input, op, "input", 2), ih = checked(weight_ih, op, "weight_ih", 2, x),
                   hh = checked(weight_hh, op, "weight_hh", 2, x),
                   hr = weight_hr ? checked(*weight_hr, op, "weight_hr", 2, x) : at::Tensor();
  const RecurrentShape s = recurrent_shape(op, mode, reverse, sizes, x, ih, hh, hr);
  const bool lstm = s.mode == Recurrence::lstm;
  if (c0 && !lstm) throw ShapeError("recurrent: cx is for an LSTM");
  const at::Tensor h = given(h0, op, "hx", {s.N, s.P}, x), c = given(c0, op, "cx", {s.N, s.H}, x),
                   b_ih = given(bias_ih, op, "bias_ih", {s.gates()}, x),
                   b_hh = given(bias_hh, op, "bias_hh", {s.gates()}, x);
  const auto dtype = x.scalar_type();
  const at::Tensor out = make({s.M, s.P}, dtype, op), h_n = make({s.N, s.P}, dtype, op),
                   c_n = lstm ? make({s.N, s.H}, dtype, op) : at::Tensor(),
                   saved = keep ? make({s.M, s.saved()}, dtype, op) : at::Tensor(),
                   before = keep ? make({s.M, s.P}, dtype, op) : at::Tensor();
  by_dtype(x, [&](auto zero) {
    using T = decltype(zero);
    const auto to = [](const at::Tensor& t) { return t.defined() ? mutable_data<T>(t) : nullptr; };
    recurrent<T>(s, {data<T>(x), data<T>(h), data<T>(c), data<T>(ih), data<T>(hh), data<T>(b_ih), data<T>(b_hh),
                     data<T>(hr), to(out), to(h_n), to(c_n), to(saved), to(before)});
  });
  return {out, h_n, c_n, saved, before};
}

RecurrentGradients recurrent_backward(const MaybeTensor& g_out, const MaybeTensor& g_h, const MaybeTensor& g_c,
                                      const at::Tensor& input, const at::Tensor& weight_ih, const at::Tensor& weight_hh,
                                      const MaybeTensor& weight_hr, const at::Tensor& saved_, const at::Tensor& before_,
                                      const std::string& mode, const std::vector<int64_t>& sizes, bool reverse,
                                      const std::vector<bool>& needs) {
  const char* op = "recurrent_backward";
  const at::Tensor x = checked(input, op, "input", 2), ih = checked(weight_ih, op, "weight_ih", 2, x),
                   hh = checked(weight_hh, op, "weight_hh", 2, x),
                   hr = weight_hr ? checked(*weight_hr, op, "weight_hr", 2, x) : at::Tensor();
  const RecurrentShape s = recurrent_shape(op, mode, reverse, sizes, x, ih, hh, hr);
  const bool lstm = s.mode == Recurrence::lstm;
  const at::Tensor g = given(g_out, op, "g_out", {s.M, s.P}, x), gh = given(g_h, op, "g_h", {s.N, s.P}, x),
                   gc = given(g_c, op, "g_c", {s.N, s.H}, x),
                   saved = checked_sizes(saved_, op, "saved", {s.M, s.saved()}, x),
                   before = checked_sizes(before_, op, "before", {s.M, s.P}, x);
  const std::array<at::DimVector, 8> shapes = {at::DimVector{s.M, s.F}, {s.N, s.P},  {s.N, s.H},  {s.gates(), s.F},
                                               {s.gates(), s.P},        {s.gates()}, {s.gates()}, {s.P, s.H}};
  if (needs.size() != shapes.size()) throw ShapeError("recurrent_backward: needs must have 8 elements");
  std::array<at::Tensor, 8> d;
  for (size_t i = 0; i < d.size(); ++i)
    if (needs[i] && (i != 2 || lstm) && (i != 7 || s.projected)) d[i] = make(shapes[i], x.scalar_type(), op);
  by_dtype(x, [&](auto zero) {
    using T = decltype(zero);
    const auto to = [&](size_t i) { return d[i].defined() ? mutable_data<T>(d[i]) : nullptr; };
    recurrent_backward<T>(s, {data<T>(g), data<T>(gh), data<T>(gc), data<T>(x), data<T>(ih), data<T>(hh), data<T>(hr),
                              data<T>(saved), data<T>(before), to(0), to(1), to(2), to(3), to(4), to(5), to(6), to(7)});
  });
  return {d[0], d[1], d[2], d[3], d[4], d[5], d[6], d[7]};
}

}  // namespace tapegrad
