// From a recorded call's Python arguments to an instruction in lanes (csrc/replay/lanes.h).
#pragma once
#include "bindings/pybind.h"  // before any other header

#include <memory>
#include <string>
#include <vector>

#include "replay/call.h"

namespace tapegrad {

// Null where it has no form in lanes. Tensors are [..., L].
std::unique_ptr<Call> lane_call(const std::string& name, const py::tuple& arguments,
                                const std::vector<at::Tensor>& outs);

}  // namespace tapegrad
