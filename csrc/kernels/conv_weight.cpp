// The weight gradient without horizontal sums: vectors run along the channels m of a [pixel][m] transpose of v, and
// each tap broadcasts its own element of the map.
#include "kernels/conv_map.h"
#include "kernels/table.h"
#include "kernels/vec.h"

namespace tapegrad::TG_ISA {
namespace {

// The register tile: up to ROWS(vectors) taps x up to VECS vectors of m.
constexpr int VECS = 2;
#if defined(__AVX512F__)
constexpr int ROWS = 12;
#elif defined(__AVX2__)
constexpr int ROWS = 6;
#else
constexpr int ROWS = 4;
#endif

inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t cut(int64_t n, int64_t most) { return (n + most - 1) / most; }
inline int64_t share(int64_t n, int64_t most) { return n > 0 ? cut(n, cut(n, most)) : 1; }

// One band of some images: R x C pixels, map rows of `pitch`; v: [images][R][C][padded]
template <class T>
struct Band {
  int64_t images, R, C, pitch, padded;
  const T* map;
  int64_t map_step;  // between images
  const T* v;
};

// sums[MR][NV vectors] += over the band's pixels, ascending
template <class T, int MR, int NV>
void tile(const Band<T>& a, const int64_t* offset, int64_t m, T* sums) {
  using V = Vec<T>;
  V acc[MR][NV];
  const T* row[MR];
#pragma GCC unroll 12
  for (int i = 0; i < MR; ++i) {
    row[i] = a.map + offset[i];
#pragma GCC unroll 2
    for (int j = 0; j < NV; ++j) acc[i][j] = V::load(sums + i * a.padded + j * V::N);
  }
  const T* v = a.v + m;
  const auto add = [&](int64_t p, const T* at) __attribute__((always_inline)) {
    V b[NV];
#pragma GCC unroll 2
    for (int j = 0; j < NV; ++j) b[j] = V::load(at + j * V::N);
#pragma GCC unroll 12
    for (int i = 0; i < MR; ++i) {
      const V x = V::set1(row[i][p]);
#pragma GCC unroll 2
      for (int j = 0; j < NV; ++j) acc[i][j] = fma(x, b[j], acc[i][j]);
    }
  };
  for (int64_t image = 0; image < a.images; ++image)
    for (int64_t h = 0; h < a.R; ++h) {
      int64_t p = image * a.map_step + h * a.pitch;
      const int64_t end = p + a.C;
      for (; p + 2 <= end; p += 2, v += 2 * a.padded) {  // two, because there are more rows than pointer registers
        add(p, v);
        add(p + 1, v + a.padded);
      }
      if (p < end) add(p, v), v += a.padded;
    }
#pragma GCC unroll 12
  for (int i = 0; i < MR; ++i)
#pragma GCC unroll 2
    for (int j = 0; j < NV; ++j) acc[i][j].store(sums + i * a.padded + j * V::N);
}

template <class T, int MR, int NV>
void tile_of(int64_t mr, const Band<T>& a, const int64_t* offset, int64_t m, T* sums) {
  if constexpr (MR > 1)
    if (mr < MR) return tile_of<T, MR - 1, NV>(mr, a, offset, m, sums);
  tile<T, MR, NV>(a, offset, m, sums);
}

// sums[K + 1][padded] += one band
template <class T>
void add_band(const Band<T>& a, int64_t M, const ConvTaps<T>& taps, T* sums) {
  using V = Vec<T>;
  const int64_t rows = share(taps.K, ROWS), vectors = cut(M, V::N);
  for (int64_t j = 0; j < vectors; j += VECS)
    for (int64_t k = 0; k < taps.K; k += rows) {
      const int64_t mr = smaller(rows, taps.K - k), m = j * V::N;
      if (vectors - j >= VECS)
        tile_of<T, ROWS, VECS>(mr, a, taps.offset + k, m, sums + k * a.padded + m);
      else
        tile_of<T, ROWS, 1>(mr, a, taps.offset + k, m, sums + k * a.padded + m);
    }
  for (int64_t j = 0; j < vectors; ++j) {  // row K: v alone, in four chains
    T* to = sums + taps.K * a.padded + j * V::N;
    V acc[4] = {V::load(to), V::set1(0), V::set1(0), V::set1(0)};
    const T* v = a.v + j * V::N;
    const int64_t pixels = a.images * a.R * a.C;
    int64_t p = 0;
    for (; p + 4 <= pixels; p += 4)
      for (int i = 0; i < 4; ++i) acc[i] = acc[i] + V::load(v + (p + i) * a.padded);
    for (; p < pixels; ++p) acc[0] = acc[0] + V::load(v + p * a.padded);
    ((acc[0] + acc[1]) + (acc[2] + acc[3])).store(to);
  }
}

// The same with vectors along the pixels of a row, for few channels: up to taps_of(channels) taps x CHANNELS.
constexpr int CHANNELS = 4;
#if defined(__AVX512F__)
constexpr int taps_of(int channels) { return channels <= 2 ? 12 : channels == 3 ? 8 : 6; }
#elif defined(__AVX2__)
constexpr int taps_of(int channels) { return channels == 1 ? 6 : channels == 2 ? 4 : channels == 3 ? 3 : 2; }
#else
constexpr int taps_of(int channels) { return channels == 1 ? 6 : channels == 2 ? 4 : 2; }
#endif

// v: [M][rows of W pixels], R rows of C of them
template <class T>
struct Rows {
  int64_t R, C, pitch;
  const T* map;
  const T* v;
  int64_t v_m;
};

// sums[MR taps][MC channels][kConvLanes] += over the band's pixels, lane by lane
template <class T, int MR, int MC>
void narrow_tile(const Rows<T>& a, const int64_t* offset, int64_t m, T* sums, int64_t sums_step) {
  using V = Vec<T>;
  V acc[MR][MC];
#pragma GCC unroll 12
  for (int i = 0; i < MR; ++i)
#pragma GCC unroll 4
    for (int j = 0; j < MC; ++j) acc[i][j] = V::load(sums + i * sums_step + j * kConvLanes);
  const auto add = [&](int64_t p, const T* v, auto load) __attribute__((always_inline)) {
    V b[MC];
#pragma GCC unroll 4
    for (int j = 0; j < MC; ++j) b[j] = load(v + j * a.v_m);
#pragma GCC unroll 12
    for (int i = 0; i < MR; ++i) {
      const V x = load(a.map + offset[i] + p);
#pragma GCC unroll 4
      for (int j = 0; j < MC; ++j) acc[i][j] = fma(x, b[j], acc[i][j]);
    }
  };
  const int tail = static_cast<int>(a.C % V::N);
  const int64_t whole = a.C - tail;
  const T* v = a.v + m * a.v_m;
  for (int64_t h = 0; h < a.R; ++h, v += a.C) {
    for (int64_t j = 0; j < whole; j += V::N)
      add(h * a.pitch + j, v + j, [](const T* p) __attribute__((always_inline)) { return V::load(p); });
    if (tail)
      add(h * a.pitch + whole, v + whole, [=](const T* p) __attribute__((always_inline)) { return V::load(p, tail); });
  }
#pragma GCC unroll 12
  for (int i = 0; i < MR; ++i)
#pragma GCC unroll 4
    for (int j = 0; j < MC; ++j) acc[i][j].store(sums + i * sums_step + j * kConvLanes);
}

template <class T, int MR, int MC>
void narrow_tile_of(int64_t mr, int64_t mc, const Rows<T>& a, const int64_t* offset, int64_t m, T* sums,
                    int64_t sums_step) {
  if constexpr (MC > 1)
    if (mc < MC) return narrow_tile_of<T, taps_of(MC - 1), MC - 1>(mr, mc, a, offset, m, sums, sums_step);
  if constexpr (MR > 1)
    if (mr < MR) return narrow_tile_of<T, MR - 1, MC>(mr, mc, a, offset, m, sums, sums_step);
  narrow_tile<T, MR, MC>(a, offset, m, sums, sums_step);
}

// sums[K + 1][M][kConvLanes] += one band of one image
template <class T>
void add_rows(const Rows<T>& a, int64_t M, const ConvTaps<T>& taps, T* sums) {
  using V = Vec<T>;
  const int64_t step = M * kConvLanes, channels = share(M, CHANNELS);
  const int64_t rows = share(taps.K, taps_of(static_cast<int>(channels)));
  for (int64_t m = 0; m < M; m += channels)
    for (int64_t k = 0; k < taps.K; k += rows)
      narrow_tile_of<T, taps_of(CHANNELS), CHANNELS>(smaller(rows, taps.K - k), smaller(channels, M - m), a,
                                                     taps.offset + k, m, sums + k * step + m * kConvLanes, step);
  for (int64_t m = 0; m < M; ++m) {  // row K: v alone
    T* to = sums + taps.K * step + m * kConvLanes;
    const T* v = a.v + m * a.v_m;
    const int64_t n = a.R * a.C;
    V sum = V::load(to);
    int64_t p = 0;
    for (; p + V::N <= n; p += V::N) sum = sum + V::load(v + p);
    if (p < n) sum = sum + V::load(v + p, static_cast<int>(n - p));
    sum.store(to);
  }
}

// How many images' maps and transposes fit the scratch, of as many as are worth a tile's loads and stores.
template <class T>
int64_t images_at_once(const ConvWeight<T>& a, int64_t size) {
  constexpr int64_t element = sizeof(T), worth = 256;  // pixels
  if (a.map.band < a.H) return 1;
  const int64_t P = a.H * a.W;
  const int64_t maps = kConvMapBytes / element / (size + kConvLanes);
  const int64_t transposes = (kScratchBytes - kConvMapBytes) / element / (P * a.padded);
  const int64_t most = smaller(smaller(maps, transposes), cut(worth, P));
  return most > 1 ? most : 1;
}

}  // namespace

// A unit is (part of the batch, group).
template <class T>
void conv_weight(const ConvWeight<T>& a, int64_t begin, int64_t end, T* scratch) {
  const int64_t P = a.H * a.W, source = a.map.C * a.map.H * a.map.W;
  const int64_t size = map_size(a.map), together = a.narrow ? 1 : images_at_once(a, size);
  T* v = scratch + kConvMapBytes / static_cast<int64_t>(sizeof(T));
  zero_row(scratch, together * size + kConvLanes);
  for (int64_t unit = begin; unit < end; ++unit) {
    const int64_t part = unit / a.G, group = unit % a.G;
    T* sums = a.sums + unit * (a.taps.K + 1) * a.padded;
    zero_row(sums, (a.taps.K + 1) * a.padded);
    const int64_t last = a.N * (part + 1) / a.parts;
    for (int64_t n = a.N * part / a.parts; n < last; n += together) {
      const int64_t images = smaller(together, last - n), image = n * a.G + group;
      for (int64_t q0 = 0; q0 < a.H; q0 += a.map.band) {
        const int64_t R = smaller(a.map.band, a.H - q0);
        const T* const from = a.v + image * a.M * P + q0 * a.W;
        for (int64_t i = 0; i < images; ++i) {
          form_map(a.map, a.x + (image + i * a.G) * source, q0, a.map.band < a.H, scratch + i * size);
          if (!a.narrow)
            transpose<T>(from + i * a.G * a.M * P, P, a.M, R * a.W, v + i * P * a.padded, a.padded);
        }
        if (a.narrow)
          add_rows<T>({R, a.W, a.map.pitch, scratch, from, P}, a.M, a.taps, sums);
        else
          add_band<T>({images, R, a.W, a.map.pitch, a.padded, scratch, size, v}, a.M, a.taps, sums);
      }
    }
  }
}

// dw and db: the parts added in ascending order
template <class T>
void conv_weight_fold(const ConvWeight<T>& a) {
  const int64_t rows = a.taps.K + 1, part = a.G * rows * a.padded;
  for (int64_t group = 0; group < a.G; ++group)
    for (int64_t k = 0; k < rows; ++k) {
      T* sums = a.sums + (group * rows + k) * a.padded;
      for (int64_t i = 1; i < a.parts; ++i)
        for (int64_t m = 0; m < a.padded; ++m) sums[m] += sums[i * part + m];
      for (int64_t m = 0; a.narrow && m < a.M; ++m) {
        T sum = 0;
        for (int64_t lane = 0; lane < Vec<T>::N; ++lane) sum += sums[m * kConvLanes + lane];
        sums[m] = sum;
      }
      if (k < a.taps.K) {
        T* dw = a.dw + group * a.group_step + a.taps.weight[k];
        for (int64_t m = 0; m < a.M; ++m) dw[m * a.m_step] = sums[m];
      } else if (a.db) {
        for (int64_t m = 0; m < a.M; ++m) a.db[group * a.M + m] = sums[m];
      }
    }
}

template void conv_weight(const ConvWeight<float>&, int64_t, int64_t, float*);
template void conv_weight(const ConvWeight<double>&, int64_t, int64_t, double*);
template void conv_weight_fold(const ConvWeight<float>&);
template void conv_weight_fold(const ConvWeight<double>&);

}  // namespace tapegrad::TG_ISA
