// The weight gradient without horizontal sums: vectors run along the channels m of a [pixel][m] transpose of v, and
// each tap broadcasts its own element of the map.
#include "kernels/ahead.h"
#include "kernels/conv_channels.h"
#include "kernels/conv_map.h"
#include "kernels/extents.h"
#include "kernels/table.h"
#include "kernels/vec.h"

namespace tapegrad::TG_ISA {
namespace {

// The register tile: up to ROWS(vectors) taps x up to VECS vectors of m.
constexpr int VECS = 2;
#if TG_REGISTERS == 32
constexpr int ROWS = 12;
#elif defined(__AVX2__)
constexpr int ROWS = 6;
#else
constexpr int ROWS = 4;
#endif

static_assert(VECS * Vec<float>::N <= kConvDoubled);
constexpr int64_t NEAR_PIXELS = 128;  // whose transpose stays in L1 while the taps pass over it

// One band of some images: R x C pixels, map rows of `pitch`; v: [images][R][C][v_step]
template <class T>
struct Band {
  int64_t images, R, C, pitch;
  const T* map;
  int64_t map_step;  // between images
  const T* v;
  int64_t v_step, sums_step;
};

// sums[MR][NV vectors] += over the band's pixels, ascending
template <class T, int MR, int NV>
void tile(const Band<T>& a, const int64_t* offset, T* sums, Ahead& next) {
  using V = Vec<T>;
  V acc[MR][NV];
  const T* row[MR];
#pragma GCC unroll 12
  for (int i = 0; i < MR; ++i) {
    row[i] = a.map + offset[i];
#pragma GCC unroll 2
    for (int j = 0; j < NV; ++j) acc[i][j] = V::load(sums + i * a.sums_step + j * V::N);
  }
  const T* v = a.v;
  Ahead ahead = next;
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
      for (; p + 2 <= end; p += 2, v += 2 * a.v_step) {  // two, because there are more rows than pointer registers
        ahead.ask();
        add(p, v);
        add(p + 1, v + a.v_step);
      }
      if (p < end) add(p, v), v += a.v_step;
    }
  next = ahead;
#pragma GCC unroll 12
  for (int i = 0; i < MR; ++i)
#pragma GCC unroll 2
    for (int j = 0; j < NV; ++j) acc[i][j].store(sums + i * a.sums_step + j * V::N);
}

template <class T, int MR, int NV>
void tile_of(int64_t mr, const Band<T>& a, const int64_t* offset, T* sums, Ahead& ahead) {
  if constexpr (MR > 1)
    if (mr < MR) return tile_of<T, MR - 1, NV>(mr, a, offset, sums, ahead);
  tile<T, MR, NV>(a, offset, sums, ahead);
}

// Channels [m, m + width) of v are transposed together, [pixel][width], behind those before them: a row of all channels
// would be a power of two apart from the next, in the same set of the cache.
template <class T>
int64_t panel_width(int64_t m, int64_t padded) {
  return smaller(VECS * Vec<T>::N, padded - m);
}

// sums[k][padded] += one band, for taps [k0, k1); row K += v `alone`
template <class T>
void add_band(Band<T> a, int64_t M, const ConvTaps<T>& taps, int64_t k0, int64_t k1, bool alone, T* sums,
              Ahead (&ahead)[2]) {
  using V = Vec<T>;
  const int64_t rows = share(k1 - k0, ROWS), pixels = a.images * a.R * a.C, R = a.R;
  // as many rows of pixels at a time as stay in L1 from tile to tile
  const int64_t together = a.images > 1 ? R : share(R, NEAR_PIXELS / a.C > 1 ? NEAR_PIXELS / a.C : 1);
  const T *map = a.map, *v = a.v;
  for (int64_t m = 0; m < M; m += VECS * V::N) {
    const int64_t width = panel_width<T>(m, a.sums_step), vectors = cut(smaller(width, M - m), V::N);
    a.v_step = width;
    for (int64_t h = 0; h < R; h += together) {
      a.R = smaller(together, R - h);
      a.map = map + h * a.pitch;
      a.v = v + m * pixels + h * a.C * width;
      for (int64_t k = k0; k < k1; k += rows) {
        const int64_t mr = smaller(rows, k1 - k);
        Ahead& next = ahead[ahead[0].at < ahead[0].end ? 0 : 1];
        if (vectors == VECS)
          tile_of<T, ROWS, VECS>(mr, a, taps.offset + k, sums + k * a.sums_step + m, next);
        else
          tile_of<T, ROWS, 1>(mr, a, taps.offset + k, sums + k * a.sums_step + m, next);
      }
    }
    if (!alone) continue;
    for (int64_t j = 0; j < vectors; ++j) {  // row K: v alone, in four chains
      T* to = sums + taps.K * a.sums_step + m + j * V::N;
      V acc[4] = {V::load(to), V::set1(0), V::set1(0), V::set1(0)};
      const T* at = v + m * pixels + j * V::N;
      int64_t p = 0;
      for (; p + 4 <= pixels; p += 4)
        for (int i = 0; i < 4; ++i) acc[i] = acc[i] + V::load(at + (p + i) * width);
      for (; p < pixels; ++p) acc[0] = acc[0] + V::load(at + p * width);
      ((acc[0] + acc[1]) + (acc[2] + acc[3])).store(to);
    }
  }
}

// The same with vectors along the pixels of a row, for few channels: up to taps_of(channels) taps x CHANNELS.
#if TG_REGISTERS == 32
constexpr int CHANNELS = 6;
constexpr int taps_of(int channels) { return channels <= 2 ? 12 : channels == 3 ? 8 : channels == 4 ? 6 : 4; }
#elif defined(__AVX2__)
constexpr int CHANNELS = 4;
constexpr int taps_of(int channels) { return channels == 1 ? 6 : channels == 2 ? 4 : channels == 3 ? 3 : 2; }
#else
constexpr int CHANNELS = 4;
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
#pragma GCC unroll 6
    for (int j = 0; j < MC; ++j) acc[i][j] = V::load(sums + i * sums_step + j * kConvLanes);
  const auto add = [&](int64_t p, const T* v, auto load) __attribute__((always_inline)) {
    V b[MC];
#pragma GCC unroll 6
    for (int j = 0; j < MC; ++j) b[j] = load(v + j * a.v_m);
#pragma GCC unroll 12
    for (int i = 0; i < MR; ++i) {
      const V x = load(a.map + offset[i] + p);
#pragma GCC unroll 6
      for (int j = 0; j < MC; ++j) acc[i][j] = fma(x, b[j], acc[i][j]);
    }
  };
  const int tail = static_cast<int>(a.C % V::N);
  const int64_t whole = a.C - tail;
  const T* v = a.v + m * a.v_m;
  for (int64_t h = 0; h < a.R; ++h, v += a.C) {
    for (int64_t j = 0; j < whole; j += V::N)
      add(
          h * a.pitch + j, v + j, [](const T* p) __attribute__((always_inline)) { return V::load(p); });
    if (tail)
      add(
          h * a.pitch + whole, v + whole, [=](const T* p) __attribute__((always_inline)) { return V::load(p, tail); });
  }
#pragma GCC unroll 12
  for (int i = 0; i < MR; ++i)
#pragma GCC unroll 6
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

// sums[k][M][kConvLanes] += one band of one image, for taps [k0, k1); row K += v `alone`
template <class T>
void add_rows(const Rows<T>& a, int64_t M, const ConvTaps<T>& taps, int64_t k0, int64_t k1, bool alone, T* sums) {
  using V = Vec<T>;
  const int64_t step = M * kConvLanes, channels = share(M, CHANNELS);
  const int64_t rows = share(k1 - k0, taps_of(static_cast<int>(channels)));
  for (int64_t m = 0; m < M; m += channels)
    for (int64_t k = k0; k < k1; k += rows)
      narrow_tile_of<T, taps_of(CHANNELS), CHANNELS>(smaller(rows, k1 - k), smaller(channels, M - m), a,
                                                     taps.offset + k, m, sums + k * step + m * kConvLanes, step);
  for (int64_t m = 0; alone && m < M; ++m) {  // row K: v alone
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
  constexpr int64_t element = sizeof(T);
  if (a.narrow || a.map.band < a.H) return 1;
  const int64_t P = a.H * a.W;
  const int64_t maps = kConvMapBytes / element / (size + kConvLanes);
  const int64_t room = (kScratchBytes - kConvMapBytes) / element - (a.v_up == 2 ? P * kConvDoubled : 0);
  const int64_t transposes = room / (P * a.padded);
  const int64_t most = smaller(smaller(maps, transposes), cut(NEAR_PIXELS, P));
  return most > 1 ? most : 1;
}

}  // namespace

// A unit is (part of the batch, group, block of the map's channels).
template <class T>
void conv_weight(const ConvWeight<T>& a, int64_t begin, int64_t end, T* scratch) {
  const int64_t P = a.H * a.W, source = source_size(a.map) / a.map.C, blocks = cut(a.map.C, a.block);
  const bool bands = a.map.band < a.H;
  ConvMap map = a.map;
  map.C = a.block;
  const int64_t size = map_size(map), together = images_at_once(a, size), taps = a.taps.K / a.map.C;
  T* const v = scratch + kConvMapBytes / static_cast<int64_t>(sizeof(T));
  T* const doubled = v + together * P * a.padded;
  zero_row(scratch, together * size + kConvLanes);
  for (int64_t unit = begin; unit < end; ++unit) {
    const int64_t part = unit / (a.G * blocks), group = unit / blocks % a.G, c = unit % blocks * a.block;
    map.C = smaller(a.block, a.map.C - c);
    const int64_t k0 = c * taps, k1 = (c + map.C) * taps;
    T* sums = a.sums + (part * a.G + group) * (a.taps.K + 1) * a.padded;
    zero_row(sums + k0 * a.padded, (k1 - k0) * a.padded);
    const bool alone = a.db && c == 0;
    if (c == 0) zero_row(sums + a.taps.K * a.padded, a.padded);
    const T* const first = scratch - a.taps.offset[k0] + a.taps.offset[0];  // where offsets count from
    const int64_t last = a.N * (part + 1) / a.parts;
    for (int64_t n = a.N * part / a.parts; n < last; n += together) {
      const int64_t images = smaller(together, last - n), image = n * a.G + group;
      for (int64_t q0 = 0; q0 < a.H; q0 += a.map.band) {
        const int64_t R = smaller(a.map.band, a.H - q0);
        const int64_t v_plane = P / (a.v_up * a.v_up);  // in memory
        const T* const from = a.v + image * a.M * v_plane;
        const T* const x = a.x + (image * a.map.C + c) * source;
        // the next images, which follow one another where there is one group and one block
        const int64_t left = q0 + R < a.H ? 0 : last - n - images,
                      next = smaller(a.G * blocks > 1 ? 1 : together, left);
        Ahead ahead[2] = {ahead_of(x + images * a.G * a.map.C * source, next * map.C * source),
                          ahead_of(from + images * a.G * a.M * v_plane, next * a.M * v_plane)};
        for (int64_t i = 0; i < images; ++i) {
          form_map(map, x + i * a.G * a.map.C * source, q0, bands, scratch + i * size);
          for (int64_t m = 0; !a.narrow && m < a.M; m += VECS * Vec<T>::N) {
            const int64_t width = panel_width<T>(m, a.padded);
            const int64_t channels = smaller(width, a.M - m);
            const T* planes = from + (i * a.G * a.M + m) * v_plane;
            if (a.v_up == 2) {
              for (int64_t j = 0; j < channels; ++j)
                copy_doubled(planes + j * v_plane, a.W / 2, q0, 0, R, a.W, doubled + j * P, a.W);
              planes = doubled;
            } else {
              planes += q0 * a.W;
            }
            transpose<T>(planes, P, channels, R * a.W, v + m * images * R * a.W + i * P * width, width);
          }
        }
        if (a.narrow)
          add_rows<T>({R, a.W, a.map.pitch, first, from + q0 * a.W, P}, a.M, a.taps, k0, k1, alone, sums);
        else
          add_band<T>({images, R, a.W, a.map.pitch, first, size, v, 0, a.padded}, a.M, a.taps, k0, k1, alone, sums,
                      ahead);
      }
    }
  }
}

// dw and db: the parts added in ascending order
template <class T>
void conv_weight_fold(const ConvWeight<T>& a) {
  const int64_t rows = a.taps.K + 1, part = a.G * rows * a.padded, *weight = a.taps.weight;
  for (int64_t group = 0; group < a.G; ++group) {
    T* const first = a.sums + group * rows * a.padded;
    for (int64_t k = 0; k < rows; ++k) {
      T* sums = first + k * a.padded;
      for (int64_t i = 1; i < a.parts; ++i)
        for (int64_t m = 0; m < a.padded; ++m) sums[m] += sums[i * part + m];
      for (int64_t m = 0; a.narrow && m < a.M; ++m) {
        T sum = 0;
        for (int64_t lane = 0; lane < Vec<T>::N; ++lane) sum += sums[m * kConvLanes + lane];
        sums[m] = sum;
      }
    }
    for (int64_t k = 0, run; k < a.taps.K; k += run) {  // taps whose weights follow one another are a transpose
      for (run = 1; k + run < a.taps.K && weight[k + run] == weight[k] + run;) ++run;
      put_channels<T>(first + k * a.padded, a.padded, run, a.M, nullptr, a.dw + group * a.group_step + weight[k],
                      a.m_step);
    }
    for (int64_t m = 0; a.db && m < a.M; ++m) a.db[group * a.M + m] = first[a.taps.K * a.padded + m];
  }
}

template void conv_weight(const ConvWeight<float>&, int64_t, int64_t, float*);
template void conv_weight(const ConvWeight<double>&, int64_t, int64_t, double*);
template void conv_weight_fold(const ConvWeight<float>&);
template void conv_weight_fold(const ConvWeight<double>&);

}  // namespace tapegrad::TG_ISA
