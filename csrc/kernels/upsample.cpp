#include "kernels/table.h"

namespace tapegrad::TG_ISA {
namespace {

// One row, every value FACTOR times. A constant factor lets the compiler use shuffles.
template <class T, int FACTOR>
void repeat(const T* x, int64_t W, T* out) {
  for (int64_t w = 0; w < W; ++w)
    for (int f = 0; f < FACTOR; ++f) out[w * FACTOR + f] = x[w];
}

template <class T>
void resample_row(const Upsample<T>& a, const T* x, T* out) {
  switch (a.factor_w) {
    case 1:
      return repeat<T, 1>(x, a.W, out);
    case 2:
      return repeat<T, 2>(x, a.W, out);
    case 3:
      return repeat<T, 3>(x, a.W, out);
    case 4:
      return repeat<T, 4>(x, a.W, out);
    default:
      for (int64_t ow = 0; ow < a.OW; ++ow) out[ow] = x[a.columns[ow]];
  }
}

}  // namespace

template <class T>
void upsample_nearest2d(const Upsample<T>& a, int64_t begin, int64_t end) {
  for (int64_t plane = begin; plane < end; ++plane) {
    const T* x = a.x + plane * a.H * a.W;
    T* out = a.out + plane * a.OH * a.OW;
    for (int64_t oh = 0; oh < a.OH; ++oh, out += a.OW) {
      if (oh > 0 && a.rows[oh] == a.rows[oh - 1])
        for (int64_t ow = 0; ow < a.OW; ++ow) out[ow] = out[ow - a.OW];  // the row above, still in cache
      else
        resample_row(a, x + a.rows[oh] * a.W, out);
    }
  }
}

// Each source sums its destinations, rows then columns ascending.
template <class T>
void upsample_nearest2d_backward(const Upsample<T>& a, int64_t begin, int64_t end) {
  for (int64_t plane = begin; plane < end; ++plane) {
    const T* g = a.x + plane * a.OH * a.OW;
    T* out = a.out + plane * a.H * a.W;
    for (int64_t h = 0; h < a.H; ++h)
      for (int64_t w = 0; w < a.W; ++w) {
        T sum = 0;
        for (int64_t oh = a.rows[h]; oh < a.rows[h + 1]; ++oh)
          for (int64_t ow = a.columns[w]; ow < a.columns[w + 1]; ++ow) sum += g[oh * a.OW + ow];
        out[h * a.W + w] = sum;
      }
  }
}

template void upsample_nearest2d(const Upsample<float>&, int64_t, int64_t);
template void upsample_nearest2d(const Upsample<double>&, int64_t, int64_t);
template void upsample_nearest2d_backward(const Upsample<float>&, int64_t, int64_t);
template void upsample_nearest2d_backward(const Upsample<double>&, int64_t, int64_t);

}  // namespace tapegrad::TG_ISA
