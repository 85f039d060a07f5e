#include "ops/random.h"

#include <ATen/Parallel.h>

#include "dispatch.h"
#include "ops/border.h"

namespace tapegrad {
namespace {

constexpr int64_t kGrain = 2048;  // blocks worth a thread

template <class F>
void over_blocks(const at::Tensor& out, const F& f) {
  at::parallel_for(0, random_blocks(out.numel(), out.scalar_type()), kGrain, f);
}

at::Tensor make_float(at::IntArrayRef size, at::ScalarType dtype, const char* op) {
  if (dtype != at::kFloat && dtype != at::kDouble)
    throw DTypeError(std::string(op) + ": dtype must be float32 or float64, is " + c10::toString(dtype));
  return make(size, dtype, op);
}

}  // namespace

int64_t random_blocks(int64_t numel, at::ScalarType dtype) {
  if (numel < 0) throw ShapeError("random_blocks: numel must not be negative, is " + std::to_string(numel));
  switch (dtype) {
    case at::kFloat:
    case at::kBool:
      return numel / 4 + (numel % 4 != 0);
    case at::kDouble:
    case at::kLong:
      return numel / 2 + numel % 2;
    default:
      throw DTypeError(std::string("random_blocks: dtype must be float32, float64, int64 or bool, is ") +
                       c10::toString(dtype));
  }
}

at::Tensor random_uniform(at::IntArrayRef size, at::ScalarType dtype, uint64_t seed, uint64_t offset) {
  const at::Tensor out = make_float(size, dtype, "random_uniform");
  by_dtype(out, [&](auto zero) {
    using T = decltype(zero);
    over_blocks(out, [&](int64_t begin, int64_t end) {
      kernels_for<T>().random_uniform(mutable_data<T>(out), out.numel(), seed, offset, begin, end);
    });
  });
  return out;
}

at::Tensor random_normal(at::IntArrayRef size, at::ScalarType dtype, uint64_t seed, uint64_t offset) {
  const at::Tensor out = make_float(size, dtype, "random_normal");
  by_dtype(out, [&](auto zero) {
    using T = decltype(zero);
    over_blocks(out, [&](int64_t begin, int64_t end) {
      kernels_for<T>().random_normal(mutable_data<T>(out), out.numel(), seed, offset, begin, end);
    });
  });
  return out;
}

at::Tensor random_int(int64_t low, int64_t high, at::IntArrayRef size, uint64_t seed, uint64_t offset) {
  if (low >= high)
    throw ShapeError("random_int: low = " + std::to_string(low) + " must be below high = " + std::to_string(high));
  const at::Tensor out = make(size, at::kLong, "random_int");
  const uint64_t range = static_cast<uint64_t>(high) - static_cast<uint64_t>(low);
  over_blocks(out, [&](int64_t begin, int64_t end) {
    kernels().random_int(mutable_data<int64_t>(out), out.numel(), low, range, seed, offset, begin, end);
  });
  return out;
}

at::Tensor random_bernoulli(double p, at::IntArrayRef size, uint64_t seed, uint64_t offset) {
  if (!(p >= 0 && p <= 1)) throw ShapeError("random_bernoulli: p must be from 0 to 1, is " + std::to_string(p));
  const at::Tensor out = make(size, at::kBool, "random_bernoulli");
  over_blocks(out, [&](int64_t begin, int64_t end) {
    kernels().random_bernoulli(mutable_data<bool>(out), out.numel(), p, seed, offset, begin, end);
  });
  return out;
}

at::Tensor permutation(int64_t n, uint64_t seed, uint64_t epoch) {
  if (epoch >> 63) throw ShapeError("permutation: epoch must be below 2^63, is " + std::to_string(epoch));
  const at::Tensor out = make({n}, at::kLong, "permutation");
  kernels().permutation(mutable_data<int64_t>(out), n, seed, epoch);
  return out;
}

std::array<uint32_t, 4> philox(uint64_t block, uint64_t stream, uint64_t seed) {
  std::array<uint32_t, 4> words;
  kernels().random_words(words.data(), seed, block, stream, 1);
  return words;
}

}  // namespace tapegrad
