// Forms the map that the direct convolutions read (args.h: ConvMap).
#pragma once
#include "kernels/args.h"
#include "kernels/vec.h"

namespace tapegrad::TG_ISA {

template <class T>
TG_INLINE void zero_row(T* p, int64_t n) {
  for (int64_t i = 0; i < n; ++i) p[i] = 0;
}

template <class T>
TG_INLINE void copy_row(const T* from, int64_t n, T* to) {
  using V = Vec<T>;
  int64_t i = 0;
  for (; i + V::N <= n; i += V::N) V::load(from + i).store(to + i);
  if (i < n) V::load(from + i, static_cast<int>(n - i)).store(to + i, static_cast<int>(n - i));
}

// Columns j of one map row: from[j SW + s - left], else 0.
template <class T>
TG_INLINE void map_row(const ConvMap& a, const T* from, int64_t s, T* to) {
  const int64_t first = s - a.left;  // the source column of j = 0
  const int64_t below = first >= 0 ? 0 : (-first + a.SW - 1) / a.SW;
  const int64_t inside = first >= a.W ? 0 : (a.W - first + a.SW - 1) / a.SW;  // the first j beyond the source
  const int64_t low = below < a.pitch ? below : a.pitch;
  const int64_t high = inside < low ? low : inside < a.pitch ? inside : a.pitch;
  zero_row(to, low);
  from += first;
  if (a.SW == 1)
    copy_row(from + low, high - low, to + low);
  else if (a.SW == 2)
    for (int64_t j = low; j < high; ++j) to[j] = from[2 * j];
  else
    for (int64_t j = low; j < high; ++j) to[j] = from[a.SW * j];
  zero_row(to + high, a.pitch - high);
}

// x: [C, H, W] -> map of the band that starts at result row q0; zeros behind its end, where whole vectors read.
template <class T>
inline void form_map(const ConvMap& a, const T* x, int64_t q0, T* to) {
  const int64_t rows = a.band + a.halo;
  for (int64_t c = 0; c < a.C; ++c, x += a.H * a.W)
    for (int64_t r = 0; r < a.planes_h; ++r)
      for (int64_t s = 0; s < a.planes_w; ++s)
        for (int64_t i = 0; i < rows; ++i, to += a.pitch) {
          const int64_t h = (q0 + i) * a.SH + r - a.top;
          if (h < 0 || h >= a.H)
            zero_row(to, a.pitch);
          else
            map_row(a, x + h * a.W, s, to);
        }
  zero_row(to, kConvLanes);
}

}  // namespace tapegrad::TG_ISA
