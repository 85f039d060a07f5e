// What the recurrent kernels are told: one time step of some sequences, after the products with the weights.
#pragma once
#include <stdint.h>

namespace tapegrad {

enum class Recurrence { rnn_tanh, rnn_relu, gru, lstm };

// Gates of H columns each, in the order of the weights' rows (torch's): i f g o of an LSTM, r z n of a GRU.
constexpr int64_t gates_of(Recurrence mode) { return mode == Recurrence::lstm ? 4 : mode == Recurrence::gru ? 3 : 1; }

// What backward reads of a step, columns of H: an LSTM's i f g o, the c before and tanh of the c after (behind them, of
// one with projection, the h before it); a GRU's r z n and q, the state's share of n; h of the others.
constexpr int64_t saved_of(Recurrence mode, bool projected) {
  return mode == Recurrence::lstm ? (projected ? 7 : 6) : mode == Recurrence::gru ? 4 : 1;
}

// Rows of `saved` and `h` are as far apart as is said, all others as they are wide.
template <class T>
struct RecurrentStep {
  Recurrence mode;
  int64_t rows, H;
  T* saved;  // before: in its first columns what the weights contribute to the gates (a GRU: the inputs' share)
  int64_t saved_step;
  const T* product;  // GRU: the state's share of r z n [rows, 3 H]
  const T* before;   // GRU: h before the step [rows, H]
  T* c;              // LSTM: c before, then after the step [rows, H]
  T* h;              // the result [rows, H]
  int64_t h_step;
};

template <class T>
struct RecurrentStepBack {
  Recurrence mode;
  int64_t rows, H;
  const T* saved;
  int64_t saved_step;
  const T* before;  // GRU: h before the step [rows, H]
  const T* g;       // the output's own gradient [rows, H] or null, added to dh
  T* dh;            // h's gradient from later steps [rows, H]; GRU: then the part of it that passes by the weights
  T* dc;            // LSTM: of the c after, then of the c before the step [rows, H]
  T* to_inputs;     // the gradient of the inputs' share [rows, gates H]
  T* to_state;      // GRU: of the state's share, else it is the same
};

}  // namespace tapegrad
