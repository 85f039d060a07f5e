// Operators of torch whose bits depend on how many threads share the work: where a thread's share of an elementwise
// one ends, its vector loop ends in scalar code of another rounding; a reduction to one number adds up by threads. Here
// they are called panel by panel, of a fixed size, whatever the number of threads. Up to one panel torch itself uses
// one thread, and gets the tensors as they are.
#pragma once
#include <ATen/core/Tensor.h>

#include <optional>

namespace tapegrad {

// While one exists, this thread does all of torch's work alone: for what cannot be cut into panels.
class OneThread {
 public:
  OneThread();
  ~OneThread();
  OneThread(const OneThread&) = delete;
  OneThread& operator=(const OneThread&) = delete;

 private:
  int before_, mkl_before_;
};

// Elementwise, of float tensors; dense ones keep their strides.
at::Tensor sinh(const at::Tensor& x);
at::Tensor cosh(const at::Tensor& x);
at::Tensor atanh(const at::Tensor& x);
at::Tensor exp2(const at::Tensor& x);
at::Tensor mish(const at::Tensor& x);
at::Tensor logsigmoid(const at::Tensor& x);
// scale x for x > 0, scale alpha (e^(input_scale x) - 1) otherwise: elu, selu and celu
at::Tensor elu(const at::Tensor& x, double alpha, double scale, double input_scale);

// With broadcasting and torch's dtype promotion; the result must be a float.
at::Tensor maximum(const at::Tensor& a, const at::Tensor& b);
at::Tensor minimum(const at::Tensor& a, const at::Tensor& b);
at::Tensor logaddexp(const at::Tensor& a, const at::Tensor& b);
at::Tensor logaddexp2(const at::Tensor& a, const at::Tensor& b);
at::Tensor atan2(const at::Tensor& y, const at::Tensor& x);
at::Tensor pow(const at::Tensor& x, const at::Tensor& exponent);
at::Tensor pow(const at::Tensor& x, double exponent);
at::Tensor pow(double x, const at::Tensor& exponent);

// Over one dimension, or over all of them where there is none.
at::Tensor prod(const at::Tensor& x, std::optional<int64_t> dim, bool keepdim);
// (sum |x|^p)^(1/p), and ln sum e^x; over all dimensions where `dims` is empty.
at::Tensor norm(const at::Tensor& x, double p, at::IntArrayRef dims, bool keepdim);
at::Tensor logsumexp(const at::Tensor& x, at::IntArrayRef dims, bool keepdim);

}  // namespace tapegrad
