#include "ops/ctc.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "ops/border.h"
#include "ops/elementwise.h"

namespace tapegrad {
namespace {

template <class T>
constexpr T kNever = -std::numeric_limits<T>::infinity();  // ln 0

// ln (e^a + e^b + ...)
template <class T, class... More>
T log_sum(T a, T b, More... more) {
  const T most = std::max({a, b, more...});
  if (!(most > kNever<T>)) return ((a + b) + ... + more);  // all ln 0, or NaN
  return std::log(((std::exp(a - most) + std::exp(b - most)) + ... + std::exp(more - most))) + most;
}

// Sequence n: its labels, between blanks where asked by `at`, and where its part of alpha [steps][states] begins.
struct Sequence {
  int64_t steps, labels, blank;
  const int64_t* label;
  int64_t alpha;  // in elements

  int64_t states() const { return 2 * labels + 1; }
  int64_t at(int64_t state) const { return state % 2 ? label[state / 2] : blank; }
  // whether a step may lead from state - 2 past the blank between
  bool skips(int64_t state) const { return state > 1 && at(state) != at(state - 2); }
};

struct Batch {
  int64_t T, N, C, alpha;  // alpha: elements of all
  std::vector<Sequence> sequences;
};

Batch batch_of(const char* op, const at::Tensor& x, const at::Tensor& targets, const at::Tensor& input_lengths,
               const at::Tensor& target_lengths, int64_t blank) {
  const auto refuse = [&](const std::string& what) { throw ShapeError(std::string(op) + ": " + what); };
  Batch b = {x.size(0), x.size(1), x.size(2), 0, {}};
  if (blank < 0 || blank >= b.C)
    refuse("blank must be a class from 0 to " + std::to_string(b.C - 1) + ", is " + std::to_string(blank));
  const bool padded = targets.dim() == 2;
  if (targets.dim() != 1 && (!padded || targets.size(0) != b.N))
    refuse("targets must have shape [N, S] or [sum of target_lengths], N = " + std::to_string(b.N) + "; it is " +
           text(targets.sizes()));
  for (const auto& [t, name] : {std::pair{&input_lengths, "input_lengths"}, {&target_lengths, "target_lengths"}})
    if (t->sizes() != at::IntArrayRef{b.N})
      refuse(std::string(name) + " must have N = " + std::to_string(b.N) + " elements, has shape " + text(t->sizes()));
  const int64_t* const label = data<int64_t>(targets);
  int64_t before = 0;
  for (int64_t n = 0; n < b.N; ++n) {
    const int64_t steps = data<int64_t>(input_lengths)[n], labels = data<int64_t>(target_lengths)[n];
    if (steps < 0 || steps > b.T)
      refuse("input_lengths[" + std::to_string(n) + "] must lie between 0 and T = " + std::to_string(b.T) + ", is " +
             std::to_string(steps));
    const int64_t most = padded ? targets.size(1) : targets.size(0) - before;
    if (labels < 0 || labels > most)
      refuse("target_lengths[" + std::to_string(n) + "] must lie between 0 and " + std::to_string(most) + ", is " +
             std::to_string(labels));
    const int64_t first = padded ? n * targets.size(1) : before;
    for (int64_t i = 0; i < labels; ++i)
      if (label[first + i] < 0 || label[first + i] >= b.C)
        refuse("targets must be classes from 0 to " + std::to_string(b.C - 1) + ", one is " +
               std::to_string(label[first + i]));
    b.sequences.push_back({steps, labels, blank, label + first, b.T * (2 * first + n)});
    before += labels;
  }
  if (!padded && before != targets.size(0))
    refuse("target_lengths must add up to targets.shape[0] = " + std::to_string(targets.size(0)) + "; they are " +
           std::to_string(before) + " together");
  b.alpha = b.T * (2 * targets.numel() + b.N);
  return b;
}

template <class T>
T forward(const Sequence& s, const T* x, int64_t step, T* alpha) {
  const int64_t states = s.states();
  if (s.steps == 0) return s.labels == 0 ? T(0) : -kNever<T>;
  for (int64_t i = 0; i < states; ++i) alpha[i] = i < 2 ? x[s.at(i)] : kNever<T>;
  for (int64_t t = 1; t < s.steps; ++t) {
    const T* const before = alpha;
    alpha += states, x += step;
    for (int64_t i = 0; i < states; ++i)
      alpha[i] =
          log_sum(before[i], i > 0 ? before[i - 1] : kNever<T>, s.skips(i) ? before[i - 2] : kNever<T>) + x[s.at(i)];
  }
  return -log_sum(alpha[states - 1], s.labels > 0 ? alpha[states - 2] : kNever<T>);
}

// dx = g (e^x - sum over the states of a class of e^(alpha + beta - x) / p); beta, like alpha, counts x of its step.
template <class T>
void backward(const Sequence& s, T g, T loss, const T* x, int64_t step, int64_t C, const T* alpha, T* dx) {
  const int64_t states = s.states();
  std::vector<T> beta(static_cast<size_t>(states)), sums(static_cast<size_t>(C));
  for (int64_t t = s.steps - 1; t >= 0; --t) {
    const T *const now = x + t * step, *const forward = alpha + t * states;
    T* const to = dx + t * step;
    for (int64_t i = 0; i < states; ++i) {  // upwards: what state i reads has not been overwritten
      const T next = i + 1 < states ? beta[i + 1] : kNever<T>,
              over = i + 2 < states && s.skips(i + 2) ? beta[i + 2] : kNever<T>;
      const T rest = t + 1 == s.steps ? (i + 2 < states ? kNever<T> : T(0)) : log_sum(beta[i], next, over);
      beta[i] = rest + now[s.at(i)];
    }
    std::fill(sums.begin(), sums.end(), kNever<T>);
    for (int64_t i = 0; i < states; ++i) {
      T& sum = sums[s.at(i)];
      sum = log_sum(sum, forward[i] + beta[i]);
    }
    for (int64_t c = 0; c < C; ++c) to[c] = g * (std::exp(now[c]) - std::exp(sums[c] + loss - now[c]));
  }
}

int64_t sequences_worth_a_thread(const Batch& b) {
  const int64_t each = b.N > 0 ? 3 * b.alpha / b.N + b.T * b.C : 1;
  return grain(20.0 * static_cast<double>(each));
}

}  // namespace

std::tuple<at::Tensor, at::Tensor> ctc_loss(const at::Tensor& log_probs, const at::Tensor& targets,
                                            const at::Tensor& input_lengths, const at::Tensor& target_lengths,
                                            int64_t blank) {
  const char* op = "ctc_loss";
  const at::Tensor x = checked(log_probs, op, "log_probs", 3), labels = checked_integers(targets, op, "targets"),
                   steps = checked_integers(input_lengths, op, "input_lengths"),
                   lengths = checked_integers(target_lengths, op, "target_lengths");
  const Batch b = batch_of(op, x, labels, steps, lengths, blank);
  const at::Tensor loss = make({b.N}, x.scalar_type(), op), alpha = make({b.alpha}, x.scalar_type(), op);
  by_dtype(x, [&](auto zero) {
    using T = decltype(zero);
    over(b.N, sequences_worth_a_thread(b), [&](int64_t begin, int64_t end) {
      for (int64_t n = begin; n < end; ++n)
        mutable_data<T>(loss)[n] =
            forward<T>(b.sequences[n], data<T>(x) + n * b.C, b.N * b.C, mutable_data<T>(alpha) + b.sequences[n].alpha);
    });
  });
  return {loss, alpha};
}

at::Tensor ctc_loss_backward(const at::Tensor& grad, const at::Tensor& log_probs, const at::Tensor& targets,
                             const at::Tensor& input_lengths, const at::Tensor& target_lengths, const at::Tensor& loss_,
                             const at::Tensor& alpha_, int64_t blank, bool zero_infinity) {
  const char* op = "ctc_loss_backward";
  const at::Tensor x = checked(log_probs, op, "log_probs", 3), labels = checked_integers(targets, op, "targets"),
                   steps = checked_integers(input_lengths, op, "input_lengths"),
                   lengths = checked_integers(target_lengths, op, "target_lengths");
  const Batch b = batch_of(op, x, labels, steps, lengths, blank);
  const at::Tensor g = checked_sizes(grad, op, "g", {b.N}, x), loss = checked_sizes(loss_, op, "loss", {b.N}, x),
                   alpha = checked_sizes(alpha_, op, "alpha", {b.alpha}, x),
                   dx = make(x.sizes(), x.scalar_type(), op).zero_();
  by_dtype(x, [&](auto zero) {
    using T = decltype(zero);
    over(b.N, sequences_worth_a_thread(b), [&](int64_t begin, int64_t end) {
      for (int64_t n = begin; n < end; ++n) {
        const T one = data<T>(loss)[n];
        if (zero_infinity && one == -kNever<T>) continue;
        backward<T>(b.sequences[n], data<T>(g)[n], one, data<T>(x) + n * b.C, b.N * b.C, b.C,
                    data<T>(alpha) + b.sequences[n].alpha, mutable_data<T>(dx) + n * b.C);
      }
    });
  });
  return dx;
}

}  // namespace tapegrad
