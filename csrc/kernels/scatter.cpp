#include "kernels/table.h"
#include "kernels/vec.h"

namespace tapegrad::TG_ISA {

// out[a][index[i]][b] += src[a][i][b], i ascending, of those rows whose index lies in [begin, end)
template <class T>
void add_rows(const AddRows<T>& s, int64_t begin, int64_t end) {
  using V = Vec<T>;
  for (int64_t a = 0; a < s.A; ++a) {
    const T* src = s.src + a * s.n * s.B;
    T* const out = s.out + a * s.R * s.B;
    for (int64_t i = 0; i < s.n; ++i, src += s.B) {
      const int64_t row = s.index[i];
      if (row < begin || row >= end) continue;
      T* const to = out + row * s.B;
      int64_t b = 0;
      for (; b + V::N <= s.B; b += V::N) (V::load(to + b) + V::load(src + b)).store(to + b);
      for (; b < s.B; ++b) to[b] += src[b];
    }
  }
}

template void add_rows(const AddRows<float>&, int64_t, int64_t);
template void add_rows(const AddRows<double>&, int64_t, int64_t);

}  // namespace tapegrad::TG_ISA
