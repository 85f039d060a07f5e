// Forms the map that the direct convolutions read (args.h: ConvMap).
#pragma once
#include "kernels/args.h"
#include "kernels/vec.h"

namespace tapegrad::TG_ISA {

template <class T>
TG_INLINE void zero_row(T* p, int64_t n) {
  for (int64_t i = 0; i < n; ++i) p[i] = 0;
}

// to[j] = from[j + first], 0 outside of [0, W). Whole vectors: the row may run over its end by less than one.
template <class T>
TG_INLINE void padded_row(const T* from, int64_t first, int64_t W, int64_t width, T* to) {
  using V = Vec<T>;
  const int64_t low = first >= 0 ? 0 : -first < width ? -first : width;
  const int64_t inside = W - first < width ? W - first : width;
  const int64_t high = inside < low ? low : inside;
  for (int64_t j = 0; j < low; j += V::N) V::set1(0).store(to + j);
  int64_t j = low;
  for (; j + V::N <= high; j += V::N) V::load(from + first + j).store(to + j);
  if (j < high) V::load(from + first + j, static_cast<int>(high - j)).store(to + j), j += V::N;
  for (; j < width; j += V::N) V::set1(0).store(to + j);
}

// The planes of one padded source row: to[s * plane + j] = row[j SW + s]
template <class T>
TG_INLINE void split_row(const ConvMap& a, const T* row, int64_t plane, T* to) {
  using V = Vec<T>;
  if (a.SW == 2 && a.planes_w == 2) {
    int64_t j = 0;
    for (; j + V::N <= a.pitch; j += V::N) {
      const V x = V::load(row + 2 * j), y = V::load(row + 2 * j + V::N);
      even(x, y).store(to + j);
      odd(x, y).store(to + plane + j);
    }
    if (j < a.pitch) {  // not over the end: the second plane's rows are written before the first's next ones
      const V x = V::load(row + 2 * j), y = V::load(row + 2 * j + V::N);
      even(x, y).store(to + j, static_cast<int>(a.pitch - j));
      odd(x, y).store(to + plane + j, static_cast<int>(a.pitch - j));
    }
    return;
  }
  for (int64_t s = 0; s < a.planes_w; ++s)
    for (int64_t j = 0; j < a.pitch; ++j) to[s * plane + j] = row[j * a.SW + s];
}

// x: [C, H, W] -> map of the band that starts at result row q0; zeros behind its end, where whole vectors read.
// padded: room for the map's rows of SW * pitch elements and kConvRowSlack
template <class T>
inline void form_map(const ConvMap& a, const T* x, int64_t q0, T* to, T* padded) {
  const int64_t rows = a.band + a.halo, plane = rows * a.pitch;
  const int64_t width = a.SW * a.pitch, step = a.SW == 1 ? a.pitch : width + kConvRowSlack;
  for (int64_t c = 0; c < a.C; ++c, x += a.H * a.W)
    for (int64_t r = 0; r < a.planes_h; ++r, to += a.planes_w * plane) {
      T* const first = a.SW == 1 ? to : padded;
      for (int64_t i = 0; i < rows; ++i) {
        const int64_t h = (q0 + i) * a.SH + r - a.top, W = h >= 0 && h < a.H ? a.W : 0;
        padded_row(W > 0 ? x + h * a.W : x, -a.left, W, width, first + i * step);
      }
      // All rows first: what was stored just now is slow to load in other vectors.
      if (a.SW != 1)
        for (int64_t i = 0; i < rows; ++i) split_row(a, padded + i * step, plane, to + i * a.pitch);
    }
  zero_row(to, kConvLanes);
}

}  // namespace tapegrad::TG_ISA
