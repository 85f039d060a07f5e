// Forms the map that the direct convolutions read (args.h: ConvMap).
#pragma once
#include "kernels/args.h"
#include "kernels/extents.h"
#include "kernels/vec.h"

namespace tapegrad::TG_ISA {

template <class T>
TG_INLINE void zero_row(T* p, int64_t n) {
  using V = Vec<T>;
  int64_t i = 0;
  for (; i + V::N <= n; i += V::N) V::set1(0).store(p + i);
  if (i < n) V::set1(0).store(p + i, static_cast<int>(n - i));
}

// rows x n values, B to 2 B bytes of a row: to[i * to_step + j] = from[i * from_step + j]. Two blocks that may overlap,
// not a vector in part, which costs what a whole one does wherever that would straddle two lines.
template <int B, class T>
TG_INLINE void copy_rows(const T* from, int64_t from_step, int64_t rows, int64_t n, T* to, int64_t to_step) {
  const int64_t second = n - B / static_cast<int64_t>(sizeof(T));
  for (int64_t i = 0; i < rows; ++i, from += from_step, to += to_step) {
    __builtin_memcpy(to, from, B);
    if (second > 0) __builtin_memcpy(to + second, from + second, B);
  }
}

// The same of any n
template <class T>
inline void copy_plane(const T* from, int64_t from_step, int64_t rows, int64_t n, T* to, int64_t to_step) {
  constexpr int64_t WHOLE = sizeof(Vec<T>) / sizeof(T);
  if (n >= WHOLE) {
    for (int64_t j = 0; j < n; j += WHOLE) {
      const int64_t at = smaller(j, n - WHOLE);
      copy_rows<sizeof(Vec<T>)>(from + at, from_step, rows, WHOLE, to + at, to_step);
    }
    return;
  }
  const int64_t bytes = n * static_cast<int64_t>(sizeof(T));
  if (bytes >= 32)
    copy_rows<32>(from, from_step, rows, n, to, to_step);
  else if (bytes >= 16)
    copy_rows<16>(from, from_step, rows, n, to, to_step);
  else if (bytes >= 8)
    copy_rows<8>(from, from_step, rows, n, to, to_step);
  else if (bytes > 0)
    copy_rows<4>(from, from_step, rows, n, to, to_step);
}

// The same of every second value, from[i * from_step + 2 j], without reading behind the last
template <class T>
inline void copy_halved(const T* from, int64_t from_step, int64_t rows, int64_t n, T* to, int64_t to_step) {
  using V = Vec<T>;
  for (int64_t j = 0; j < n; j += V::N) {
    const T* source = from + 2 * j;
    T* target = to + j;
    const int left = n - j < V::N ? static_cast<int>(n - j) : V::N, values = 2 * left - 1;
    if (2 * left == V::N) {
      for (int64_t i = 0; i < rows; ++i, source += from_step, target += to_step) {
        const V r = even(V::load(source, values), V::set1(0));
        __builtin_memcpy(target, &r, sizeof(V) / 2);
      }
    } else if (values <= V::N) {
      for (int64_t i = 0; i < rows; ++i, source += from_step, target += to_step)
        even(V::load(source, values), V::set1(0)).store(target, left);
    } else {
      for (int64_t i = 0; i < rows; ++i, source += from_step, target += to_step)
        even(V::load(source), V::load(source + V::N, values - V::N)).store(target, left);
    }
  }
}

// Both halves of n values a row, whole vectors of them: evens[j] = from[2 j], odds[j] = from[2 j + 1]
template <class T>
inline void part_rows(const T* from, int64_t from_step, int64_t rows, int64_t n, T* evens, T* odds, int64_t to_step) {
  using V = Vec<T>;
  for (int64_t i = 0; i < rows; ++i, from += from_step, evens += to_step, odds += to_step)
    for (int64_t j = 0; j < n; j += V::N) {
      const V v = V::load(from + j), a = even(v, v), b = odd(v, v);
      __builtin_memcpy(evens + j / 2, &a, sizeof(V) / 2);
      __builtin_memcpy(odds + j / 2, &b, sizeof(V) / 2);
    }
}

template <class T>
inline void copy_strided(const T* from, int64_t from_step, int64_t step, int64_t rows, int64_t n, T* to,
                         int64_t to_step) {
  for (int64_t i = 0; i < rows; ++i, from += from_step, to += to_step)
    for (int64_t j = 0; j < n; ++j) to[j] = from[j * step];
}

// The same of a plane's nearest doubling: to[i * to_step + j] = from[(row + i) / 2 * from_step + (column + j) / 2]
template <class T>
inline void copy_doubled(const T* from, int64_t from_step, int64_t row, int64_t column, int64_t rows, int64_t n, T* to,
                         int64_t to_step) {
  using V = Vec<T>;
  for (int64_t i = 0; i < rows; ++i, to += to_step) {
    if (i > 0 && (row + i) % 2 == 1) {
      copy_plane(to - to_step, to_step, 1, n, to, to_step);
      continue;
    }
    const T* source = from + (row + i) / 2 * from_step + column / 2;
    int64_t j = 0;
    if (column % 2 == 1 && n > 0) to[j++] = *source++;
    for (; j + 2 * V::N <= n; j += 2 * V::N, source += V::N) {
      const V x = V::load(source);
      low(x, x).store(to + j);
      high(x, x).store(to + j + V::N);
    }
    if (j == n) continue;
    const int left = static_cast<int>(n - j);
    const V x = V::load(source, (left + 1) / 2);
    low(x, x).store(to + j, left < V::N ? left : V::N);
    if (left > V::N) high(x, x).store(to + j + V::N, left - V::N);
  }
}

inline int64_t source_size(const ConvMap& a) { return a.C * a.H * a.W / (a.up * a.up); }
inline int64_t map_size(const ConvMap& a) { return a.C * a.planes_h * a.planes_w * (a.band + a.halo) * a.pitch; }

// Whether the one band's map would be a copy of the source
inline bool equals_its_map(const ConvMap& a) {
  return a.up * a.SH * a.SW == 1 && a.top == 0 && a.left == 0 && a.band + a.halo == a.H && a.pitch == a.W;
}

// Along one axis, which map positions come from the source: [first, first + n), the first from position `from`.
// Position i comes from i S - shift of `size`.
struct MapRange {
  int64_t first, n, from;
};
inline MapRange map_range(int64_t size, int64_t S, int64_t shift, int64_t most) {
  const int64_t first = cut(shift, S), end = smaller(cut(size + shift, S), most);
  return {first, end > first ? end - first : 0, first * S - shift};
}

// x: [C, H, W] -> map of the band that starts at result row q0. What lies beside the source stays as it is, which is 0
// from the start; so do the rows outside of it unless there are several bands, when they are set to 0.
template <class T>
inline void form_map(const ConvMap& a, const T* x, int64_t q0, bool bands, T* to) {
  const int64_t rows = a.band + a.halo, plane = rows * a.pitch, pitch = a.pitch, row = a.SH * a.W;
  for (int64_t r = 0; r < a.planes_h; ++r) {
    const MapRange h = map_range(a.H, a.SH, a.top - r - q0 * a.SH, rows);
    if (a.SW == 2 && a.planes_w == 2 && !bands && a.W % Vec<T>::N == 0) {  // each source row is read once
      const MapRange w[2] = {map_range(a.W, 2, a.left, pitch), map_range(a.W, 2, a.left - 1, pitch)};
      if (w[0].n == a.W / 2 && w[1].n == a.W / 2) {
        const T* from = x + h.from * a.W;
        T* at = to + r * 2 * plane + h.first * pitch;
        const int evens = w[0].from == 0 ? 0 : 1, odds = 1 - evens;
        for (int64_t c = 0; c < a.C; ++c, from += a.H * a.W, at += a.planes_h * 2 * plane)
          part_rows(from, row, h.n, a.W, at + evens * plane + w[evens].first, at + odds * plane + w[odds].first, pitch);
        continue;
      }
    }
    for (int64_t s = 0; s < a.planes_w; ++s) {
      const MapRange w = map_range(a.W, a.SW, a.left - s, pitch);
      const T* from = a.up == 1 ? x + h.from * a.W + w.from : x;
      T* at = to + (r * a.planes_w + s) * plane + w.first;
      for (int64_t c = 0; c < a.C; ++c, from += a.H * a.W / (a.up * a.up), at += a.planes_h * a.planes_w * plane) {
        T* target = at + h.first * pitch;
        if (a.up == 2)
          copy_doubled(from, a.W / 2, h.from, w.from, h.n, w.n, target, pitch);
        else if (a.SW == 1)
          copy_plane(from, row, h.n, w.n, target, pitch);
        else if (a.SW == 2)
          copy_halved(from, row, h.n, w.n, target, pitch);
        else
          copy_strided(from, row, a.SW, h.n, w.n, target, pitch);
        if (!bands) continue;
        for (int64_t i = 0; i < rows; ++i)
          if (i < h.first || i >= h.first + h.n) zero_row(at + i * pitch, w.n);
      }
    }
  }
}

}  // namespace tapegrad::TG_ISA
