#pragma once
#include "bindings/pybind.h"  // before any other header

#include <string>

#include "kernels/activation.h"
#include "ops/loss.h"

namespace tapegrad {

// input f other, and told of to who records; None where torch's operator is to be called, as for other arguments.
py::object call_arithmetic(Arithmetic f, const py::object& input, const py::object& other);

// sum += other, of two raw tensors; false, and nothing done, where it is for torch.
bool call_add_(const py::object& sum, const py::object& other);

// "mean", "sum" or "none"; std::invalid_argument for anything else
Reduction reduction_of(const std::string& name);

// Activations, dropout, sums, softmax, losses, optimizers
void bind_elementwise(py::module_& m);

}  // namespace tapegrad
