#include "kernels/philox.h"
#include "kernels/table.h"

namespace tapegrad::TG_ISA {

// out[i] = x[i] * (word of element i <= limit ? scale : 0), the words of random_bernoulli, for units [begin, end) of
// kDropoutUnit elements
template <class T>
void dropout(const T* x, T* out, int64_t n, uint32_t limit, T scale, uint64_t seed, uint64_t offset, int64_t begin,
             int64_t end) {
  const int64_t last = end * kDropoutUnit < n ? end * kDropoutUnit : n;
  for (int64_t i = begin * kDropoutUnit; i < last; i += 4 * W) {
    uint32_t words[4 * W];
    philox(offset + static_cast<uint64_t>(i / 4), 0, seed, words);
    const int count = last - i < 4 * W ? static_cast<int>(last - i) : 4 * W;
    if (count == 4 * W)
      for (int j = 0; j < 4 * W; ++j) out[i + j] = x[i + j] * (words[j] <= limit ? scale : T(0));
    else
      for (int j = 0; j < count; ++j) out[i + j] = x[i + j] * (words[j] <= limit ? scale : T(0));
  }
}

template void dropout(const float*, float*, int64_t, uint32_t, float, uint64_t, uint64_t, int64_t, int64_t);
template void dropout(const double*, double*, int64_t, uint32_t, double, uint64_t, uint64_t, int64_t, int64_t);

}  // namespace tapegrad::TG_ISA
