// From a recorded call's Python arguments to a direct instruction (csrc/replay/direct.h).
#pragma once
#include "bindings/pybind.h"  // before any other header

#include <memory>
#include <string>
#include <vector>

#include "replay/call.h"

namespace tapegrad {

// Null where the kernel has no direct form, or the tensors are not plain.
std::unique_ptr<Call> direct_call(const std::string& name, const py::tuple& arguments,
                                  const std::vector<at::Tensor>& outs);

// The names of the functions that have one.
std::vector<std::string> direct_forms();

}  // namespace tapegrad
