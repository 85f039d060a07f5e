// Philox4x32-10: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
// ops/random.h says which words of which block each function uses.
#include "kernels/philox.h"
#include "kernels/table.h"

namespace tapegrad::TG_ISA {
namespace {

struct Block {
  uint32_t word[4];
};

inline Block philox(uint64_t block, uint64_t stream, uint64_t seed) {
  uint32_t c0 = static_cast<uint32_t>(block), c1 = static_cast<uint32_t>(block >> 32);
  uint32_t c2 = static_cast<uint32_t>(stream), c3 = static_cast<uint32_t>(stream >> 32);
  uint32_t k0 = static_cast<uint32_t>(seed), k1 = static_cast<uint32_t>(seed >> 32);
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t{0xD2511F53} * c0, p1 = uint64_t{0xCD9E8D57} * c2;
    c0 = static_cast<uint32_t>(p1 >> 32) ^ c1 ^ k0;
    c1 = static_cast<uint32_t>(p1);
    c2 = static_cast<uint32_t>(p0 >> 32) ^ c3 ^ k1;
    c3 = static_cast<uint32_t>(p0);
    k0 += 0x9E3779B9;
    k1 += 0xBB67AE85;
  }
  return {{c0, c1, c2, c3}};
}

inline uint64_t word64(const Block& b, int i) { return (uint64_t{b.word[2 * i + 1]} << 32) | b.word[2 * i]; }

// The high half of a product: r in [0, 2^64) to [0, range). Off from uniform by at most range / 2^64.
inline uint64_t scale(uint64_t r, uint64_t range) {
  __extension__ typedef unsigned __int128 Wide;
  return static_cast<uint64_t>((static_cast<Wide>(r) * range) >> 64);
}

constexpr uint64_t kDraws = 0;                     // the stream of random_*
constexpr uint64_t kShuffles = uint64_t{1} << 63;  // + epoch, the streams of permutation

inline int count(int64_t n, int64_t first, int per_block) {
  return n - first < per_block ? static_cast<int>(n - first) : per_block;
}

// [0, 1) in steps of the format's own precision
inline void uniforms(const Block& b, float* u) {
  for (int i = 0; i < 4; ++i) u[i] = static_cast<float>(b.word[i] >> 8) * 0x1p-24f;
}
inline void uniforms(const Block& b, double* u) {
  for (int i = 0; i < 2; ++i) u[i] = static_cast<double>(word64(b, i) >> 11) * 0x1p-53;
}

// Box-Muller on words (0, 1) and (2, 3), the radius from (0, 1], so that its logarithm is finite
inline void normals(const Block& b, float* z) {
  for (int i = 0; i < 4; i += 2) {
    const float u = static_cast<float>((static_cast<double>(b.word[i]) + 1.0) * 0x1p-32);
    const float angle = static_cast<float>(static_cast<double>(b.word[i + 1]) * (0x1p-32 * 6.283185307179586));
    const float radius = __builtin_sqrtf(-2.0f * __builtin_logf(u));
    z[i] = radius * __builtin_cosf(angle);
    z[i + 1] = radius * __builtin_sinf(angle);
  }
}
inline void normals(const Block& b, double* z) {
  const double u = (static_cast<double>(word64(b, 0) >> 11) + 1.0) * 0x1p-53;
  const double angle = static_cast<double>(word64(b, 1) >> 11) * (0x1p-53 * 6.283185307179586);
  const double radius = __builtin_sqrt(-2.0 * __builtin_log(u));
  z[0] = radius * __builtin_cos(angle);
  z[1] = radius * __builtin_sin(angle);
}

}  // namespace

template <class T>
void random_uniform(T* out, int64_t n, uint64_t seed, uint64_t offset, int64_t begin, int64_t end) {
  constexpr int M = 16 / static_cast<int>(sizeof(T));
  for (int64_t b = begin; b < end; ++b) {
    T u[M];
    uniforms(philox(offset + static_cast<uint64_t>(b), kDraws, seed), u);
    for (int i = 0, m = count(n, b * M, M); i < m; ++i) out[b * M + i] = u[i];
  }
}

template <class T>
void random_normal(T* out, int64_t n, uint64_t seed, uint64_t offset, int64_t begin, int64_t end) {
  constexpr int M = 16 / static_cast<int>(sizeof(T));
  for (int64_t b = begin; b < end; ++b) {
    T z[M];
    normals(philox(offset + static_cast<uint64_t>(b), kDraws, seed), z);
    for (int i = 0, m = count(n, b * M, M); i < m; ++i) out[b * M + i] = z[i];
  }
}

void random_int(int64_t* out, int64_t n, int64_t low, uint64_t range, uint64_t seed, uint64_t offset, int64_t begin,
                int64_t end) {
  for (int64_t b = begin; b < end; ++b) {
    const Block block = philox(offset + static_cast<uint64_t>(b), kDraws, seed);
    for (int i = 0, m = count(n, b * 2, 2); i < m; ++i)
      out[b * 2 + i] = static_cast<int64_t>(static_cast<uint64_t>(low) + scale(word64(block, i), range));
  }
}

void random_bernoulli(bool* out, int64_t n, double p, uint64_t seed, uint64_t offset, int64_t begin, int64_t end) {
  const uint64_t below = static_cast<uint64_t>(p * 0x1p32);  // p = 1 keeps every word, p = 0 none
  for (int64_t b = begin; b < end; ++b) {
    const Block block = philox(offset + static_cast<uint64_t>(b), kDraws, seed);
    for (int i = 0, m = count(n, b * 4, 4); i < m; ++i) out[b * 4 + i] = block.word[i] < below;
  }
}

void random_words(uint32_t* out, uint64_t seed, uint64_t block, uint64_t stream, int64_t blocks) {
  for (int64_t b = 0; b < blocks; ++b) {
    const Block words = philox(block + static_cast<uint64_t>(b), stream, seed);
    for (int i = 0; i < 4; ++i) out[b * 4 + i] = words.word[i];
  }
}

// Fisher and Yates, from the end: position i swaps with one of [0, i], drawn from half i % 2 of block i / 2.
void permutation(int64_t* out, int64_t n, uint64_t seed, uint64_t epoch) {
  constexpr int64_t draws = 2 * W;  // of a vector of blocks
  for (int64_t i = 0; i < n; ++i) out[i] = i;
  for (int64_t first = (n - 1) / draws * draws, end = n; first >= 0; end = first, first -= draws) {
    uint64_t drawn[draws];
    philox(static_cast<uint64_t>(first / 2), kShuffles | epoch, seed, drawn);
    for (int64_t i = end - 1; i >= first; --i) {
      const uint64_t j = scale(drawn[i - first], static_cast<uint64_t>(i) + 1);
      const int64_t swapped = out[i];
      out[i] = out[j];
      out[j] = swapped;
    }
  }
}

template void random_uniform(float*, int64_t, uint64_t, uint64_t, int64_t, int64_t);
template void random_uniform(double*, int64_t, uint64_t, uint64_t, int64_t, int64_t);
template void random_normal(float*, int64_t, uint64_t, uint64_t, int64_t, int64_t);
template void random_normal(double*, int64_t, uint64_t, uint64_t, int64_t, int64_t);

}  // namespace tapegrad::TG_ISA
