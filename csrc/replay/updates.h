// Optimizers' updates as instructions, over a table of segments made when the program is bound.
#pragma once
#include <memory>
#include <vector>

#include "ops/optim.h"
#include "replay/call.h"

namespace tapegrad {

// lists as `update` takes them (ops/optim.h). Null where the tensors are not plain; the ordinary call then serves.
template <class O>
std::unique_ptr<Call> direct_update(const std::vector<Tensors>& lists, const O& options);

// Sets a number by the position of the kernel's argument.
template <class O>
void set_number(O& options, size_t argument, double value) {
  constexpr auto& numbers = Rules<O>::numbers;
  if (argument >= kLists<O> && argument - kLists<O> < numbers.size()) options.*numbers[argument - kLists<O>].at = value;
}

}  // namespace tapegrad
