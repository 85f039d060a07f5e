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
  for (int64_t s = 0; s < a.planes_w; ++s)
    for (int64_t j = 0; j < a.pitch; ++j) to[s * plane + j] = row[j * a.SW + s];
}

// Both planes of a source row, stride 2: to[s * plane + j] = from[2 j + s - left], 0 outside of [0, W)
template <class T>
TG_INLINE void halved_row(const ConvMap& a, const T* from, int64_t W, int64_t plane, T* to) {
  using V = Vec<T>;
  const auto least = [](int64_t a, int64_t b) { return static_cast<int>(a < b ? a : b); };
  for (int64_t j = 0; j < a.pitch; j += V::N)
    for (int64_t s = 0; s < 2; ++s) V::set1(0).store(to + s * plane + j, least(V::N, a.pitch - j));
  for (int64_t i = 0; 2 * i < W; i += V::N) {
    const int64_t left = W - 2 * i;
    const V x = left >= V::N ? V::load(from + 2 * i) : V::load(from + 2 * i, static_cast<int>(left));
    const V y = left > V::N ? V::load(from + 2 * i + V::N, least(V::N, left - V::N)) : V::set1(0);
    for (int64_t s = 0; s < 2; ++s) {
      const bool is_odd = ((a.left - s) & 1) != 0;
      const int64_t j = i + (a.left - s + is_odd) / 2;
      const int n = least(least(V::N, (left + !is_odd) / 2), a.pitch - j);
      if (n > 0) (is_odd ? odd(x, y) : even(x, y)).store(to + s * plane + j, n);
    }
  }
}

// x: [C, H, W] -> map of the band that starts at result row q0; zeros behind its end, where whole vectors read.
// padded: room for SW * pitch elements and a vector
template <class T>
inline void form_map(const ConvMap& a, const T* x, int64_t q0, T* to, T* padded) {
  const int64_t rows = a.band + a.halo, plane = rows * a.pitch;
  for (int64_t c = 0; c < a.C; ++c, x += a.H * a.W)
    for (int64_t r = 0; r < a.planes_h; ++r, to += a.planes_w * plane) {
      for (int64_t i = 0; i < rows; ++i) {
        const int64_t h = (q0 + i) * a.SH + r - a.top, W = h >= 0 && h < a.H ? a.W : 0;
        const T* from = W > 0 ? x + h * a.W : x;
        if (a.SW == 1) {
          padded_row(from, -a.left, W, a.pitch, to + i * a.pitch);
        } else if (a.SW == 2 && a.planes_w == 2) {
          halved_row(a, from, W, plane, to + i * a.pitch);
        } else {
          padded_row(from, -a.left, W, a.SW * a.pitch, padded);
          split_row(a, padded, plane, to + i * a.pitch);
        }
      }
    }
  zero_row(to, kConvLanes);
}

}  // namespace tapegrad::TG_ISA
