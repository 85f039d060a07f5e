// Plans of direct convolutions: the shape of the map and the offset table of its taps.
#pragma once
#include <cstdint>
#include <vector>

#include "kernels/args.h"

namespace tapegrad {

// The taps of one phase of the result: ConvTaps' arrays.
struct PhaseTaps {
  std::vector<int64_t> offset, weight;
};

struct ConvPlan {
  ConvMap map;
  int64_t M, H, W, SDH, SDW, m_step, group_step;  // as in ConvDirect
  std::vector<PhaseTaps> phases;                  // [SDH][SDW]
  bool fits;                                      // else the scratch is too small for even one row
};

// Both leave map.band to choose_band. The result is [OC, OH, OW], its source x.
template <class T>
ConvPlan forward_plan(const Conv2d<T>& a);

// The result is [C, H, W], its source the output's gradient.
template <class T>
ConvPlan input_grad_plan(const Conv2d<T>& a);

}  // namespace tapegrad
