// Philox4x32-10, a vector of blocks at a time: Salmon, Moraes, Dror, Shaw, SC 2011.
#pragma once
#include "kernels/vec.h"
#ifdef __SSE2__
#include <emmintrin.h>
#endif

namespace tapegrad::TG_ISA {

constexpr int W = Vec<double>::N;  // blocks at a time, one in each 64-bit lane
typedef uint64_t Lanes __attribute__((vector_size(W * 8)));

// The product of the low halves
TG_INLINE Lanes multiply(Lanes a, Lanes b) {
#if defined(__AVX512F__)
  return (Lanes)_mm512_maskz_mul_epu32(0xFF, (__m512i)a, (__m512i)b);
#elif defined(__AVX2__)
  return (Lanes)_mm256_mul_epu32((__m256i)a, (__m256i)b);
#elif defined(__SSE2__)
  return (Lanes)_mm_mul_epu32((__m128i)a, (__m128i)b);
#elif defined(__aarch64__)
  return (Lanes)vmull_u32(vmovn_u64((uint64x2_t)a), vmovn_u64((uint64x2_t)b));
#else
  return (a & 0xFFFFFFFF) * (b & 0xFFFFFFFF);
#endif
}

// The 4 * W words of blocks [block, block + W) of a stream, in order (kernels/random.cpp has the plain form). Even
// lanes take the first half of the blocks and odd lanes the second, so that one interleaving sorts the words.
TG_INLINE void philox(uint64_t block, uint64_t stream, uint64_t seed, void* words) {
  Lanes index;
  for (int i = 0; i < W; ++i) index[i] = static_cast<uint64_t>(i / 2 + i % 2 * (W / 2));
  constexpr uint64_t kLow = 0xFFFFFFFF;
  const Lanes m0 = Lanes{} + 0xD2511F53u, m1 = Lanes{} + 0xCD9E8D57u;
  index += block;
  Lanes c0 = index & kLow, c1 = index >> 32, c2 = Lanes{} + (stream & kLow), c3 = Lanes{} + (stream >> 32);
  uint32_t k0 = static_cast<uint32_t>(seed), k1 = static_cast<uint32_t>(seed >> 32);
  for (int round = 0; round < 10; ++round) {  // only the low halves of c0 to c3 count
    const Lanes p0 = multiply(c0, m0), p1 = multiply(c2, m1);
    c0 = (p1 >> 32) ^ c1 ^ uint64_t{k0};
    c1 = p1;
    c2 = (p0 >> 32) ^ c3 ^ uint64_t{k1};
    c3 = p0;
    k0 += 0x9E3779B9;
    k1 += 0xBB67AE85;
  }
  const Lanes low = (c0 & kLow) | (c1 << 32), high = (c2 & kLow) | (c3 << 32);
  for (int i = 0; i < W; ++i) {
    const int at = i % 2 * W + i / 2 * 2;
    const uint64_t pair[2] = {low[i], high[i]};
    __builtin_memcpy(static_cast<char*>(words) + 8 * at, pair, sizeof(pair));
  }
}

}  // namespace tapegrad::TG_ISA
