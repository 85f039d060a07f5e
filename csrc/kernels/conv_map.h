// Forms the map that the direct convolutions read (args.h: ConvMap).
#pragma once
#include "kernels/args.h"
#include "kernels/vec.h"

namespace tapegrad::TG_ISA {

template <class T>
TG_INLINE void zero_row(T* p, int64_t n) {
  using V = Vec<T>;
  int64_t i = 0;
  for (; i + V::N <= n; i += V::N) V::set1(0).store(p + i);
  if (i < n) V::set1(0).store(p + i, static_cast<int>(n - i));
}

template <class T>
TG_INLINE void copy_row(const T* from, int64_t n, T* to) {
  using V = Vec<T>;
  int64_t i = 0;
  for (; i + V::N <= n; i += V::N) V::load(from + i).store(to + i);
  if (i < n) V::load(from + i, static_cast<int>(n - i)).store(to + i, static_cast<int>(n - i));
}

// to[j] = from[2 j] for n of them, reading nothing behind the last
template <class T>
TG_INLINE void copy_every_second(const T* from, int64_t n, T* to) {
  using V = Vec<T>;
  for (int64_t j = 0; j < n; j += V::N, from += 2 * V::N) {
    const int64_t left = 2 * (n - j) - 1;
    const V x = left >= V::N ? V::load(from) : V::load(from, static_cast<int>(left));
    const V y = left >= 2 * V::N ? V::load(from + V::N)
                : left > V::N    ? V::load(from + V::N, static_cast<int>(left - V::N))
                                 : V::set1(0);
    n - j >= V::N ? even(x, y).store(to + j) : even(x, y).store(to + j, static_cast<int>(n - j));
  }
}

inline int64_t map_size(const ConvMap& a) { return a.C * a.planes_h * a.planes_w * (a.band + a.halo) * a.pitch; }

// The columns of plane s of the map that come from the source: [first, first + n), the first from source column `from`.
struct MapColumns {
  int64_t first, n, from;
};
inline MapColumns map_columns(const ConvMap& a, int64_t s) {
  const int64_t shift = a.left - s;  // column j comes from j SW - shift
  const int64_t first = shift > 0 ? (shift + a.SW - 1) / a.SW : 0;
  const int64_t inside = a.W + shift > 0 ? (a.W + shift - 1) / a.SW + 1 : 0, end = inside < a.pitch ? inside : a.pitch;
  return {first, end > first ? end - first : 0, first * a.SW - shift};
}

// x: [C, H, W] -> map of the band that starts at result row q0. What lies beside the source stays as it is, which is 0
// from the start; so do the rows outside of it unless there are several bands, when they are set to 0.
template <class T>
inline void form_map(const ConvMap& a, const T* x, int64_t q0, bool bands, T* to) {
  const int64_t rows = a.band + a.halo, plane = rows * a.pitch;
  for (int64_t c = 0; c < a.C; ++c, x += a.H * a.W)
    for (int64_t r = 0; r < a.planes_h; ++r)
      for (int64_t s = 0; s < a.planes_w; ++s, to += plane) {
        const MapColumns at = map_columns(a, s);
        T* row = to + at.first;
        int64_t h = q0 * a.SH + r - a.top;
        for (int64_t i = 0; i < rows; ++i, h += a.SH, row += a.pitch) {
          if (h < 0 || h >= a.H) {
            if (bands) zero_row(row, at.n);
            continue;
          }
          const T* from = x + h * a.W + at.from;
          if (a.SW == 1)
            copy_row(from, at.n, row);
          else if (a.SW == 2)
            copy_every_second(from, at.n, row);
          else
            for (int64_t j = 0; j < at.n; ++j) row[j] = from[j * a.SW];
        }
      }
}

}  // namespace tapegrad::TG_ISA
