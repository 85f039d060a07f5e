// Arithmetic on extents. A division by what is no constant takes as long as dozens of products of vectors, which the
// convolution of a small plane would notice, so the common cases go without.
#pragma once
#include <stdint.h>

namespace tapegrad::TG_ISA {

inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

// Pieces of at most `most` that n is cut into; 0 for n <= 0
inline int64_t cut(int64_t n, int64_t most) {
  if (n <= most) return n > 0;
  return most <= 2 ? (n + most - 1) >> (most - 1) : (n + most - 1) / most;
}

// The size of such pieces if they are nearly equal, at least 1
inline int64_t share(int64_t n, int64_t most) {
  if (n <= most) return n > 0 ? n : 1;
  return cut(n, cut(n, most));
}

}  // namespace tapegrad::TG_ISA
