// Counter-based random numbers: Philox4x32-10 (Salmon et al., SC 2011) under the key `seed`, at the counter
// (offset + block, stream). A block is four 32-bit words w0 w1 w2 w3, and two 64-bit words w1:w0 and w3:w2. Element i
// depends on (seed, offset, i) alone, so threads and instruction sets do not matter; the normals' logarithms, sines and
// cosines are the C library's.
//
//   uniform float32   4 elements a block: (word >> 8) * 2^-24
//   uniform float64   2 elements a block: (64-bit word >> 11) * 2^-53
//   normal  float32   4 elements a block: Box-Muller on (w0, w1) and (w2, w3)
//   normal  float64   2 elements a block: Box-Muller on both 64-bit words
//   int               2 elements a block: low + the high half of (64-bit word) * (high - low); off from uniform by at
//                     most (high - low) / 2^64
//   bernoulli         4 elements a block: word < p * 2^32
//   permutation       its own stream, 2^63 + epoch: Fisher-Yates, two positions a block
//
// A caller advances its offset by random_blocks(numel, dtype) after each call.
#pragma once
#include <ATen/core/Tensor.h>

#include <array>

namespace tapegrad {

at::Tensor random_uniform(at::IntArrayRef size, at::ScalarType dtype, uint64_t seed, uint64_t offset);  // [0, 1)
at::Tensor random_normal(at::IntArrayRef size, at::ScalarType dtype, uint64_t seed, uint64_t offset);
at::Tensor random_int(int64_t low, int64_t high, at::IntArrayRef size, uint64_t seed, uint64_t offset);  // [low, high)
at::Tensor random_bernoulli(double p, at::IntArrayRef size, uint64_t seed, uint64_t offset);  // bool, true with p
at::Tensor permutation(int64_t n, uint64_t seed, uint64_t epoch);                             // int64, of 0 .. n - 1
std::array<uint32_t, 4> philox(uint64_t block, uint64_t stream, uint64_t seed);

// Blocks that `numel` elements consume: float32 and bool four to a block, float64 and int64 two.
int64_t random_blocks(int64_t numel, at::ScalarType dtype);

}  // namespace tapegrad
