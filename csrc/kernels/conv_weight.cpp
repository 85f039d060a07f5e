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

// One band: R x C pixels, map rows of `pitch`; v: [R][C][padded]
template <class T>
struct Band {
  int64_t R, C, pitch, padded;
  const T *map, *v;
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
  for (int64_t h = 0; h < a.R; ++h) {
    int64_t p = h * a.pitch;
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

// sums[K + 1][padded] += one band of one image
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
    int64_t p = 0;
    for (; p + 4 <= a.R * a.C; p += 4)
      for (int i = 0; i < 4; ++i) acc[i] = acc[i] + V::load(v + (p + i) * a.padded);
    for (; p < a.R * a.C; ++p) acc[0] = acc[0] + V::load(v + p * a.padded);
    ((acc[0] + acc[1]) + (acc[2] + acc[3])).store(to);
  }
}

}  // namespace

// A unit is (part of the batch, group).
template <class T>
void conv_weight(const ConvWeight<T>& a, int64_t begin, int64_t end, T* scratch) {
  const int64_t P = a.H * a.W;
  T* v = scratch + kConvMapBytes / static_cast<int64_t>(sizeof(T));
  for (int64_t unit = begin; unit < end; ++unit) {
    const int64_t part = unit / a.G, group = unit % a.G;
    T* sums = a.sums + unit * (a.taps.K + 1) * a.padded;
    zero_row(sums, (a.taps.K + 1) * a.padded);
    const int64_t last = a.N * (part + 1) / a.parts;
    for (int64_t n = a.N * part / a.parts; n < last; ++n) {
      const int64_t image = n * a.G + group;
      for (int64_t q0 = 0; q0 < a.H; q0 += a.map.band) {
        const Band<T> band = {smaller(a.map.band, a.H - q0), a.W, a.map.pitch, a.padded, scratch, v};
        form_map(a.map, a.x + image * a.map.C * a.map.H * a.map.W, q0, scratch, v);
        transpose<T>(a.v + image * a.M * P + q0 * a.W, P, a.M, band.R * a.W, v, a.padded);
        add_band(band, a.M, a.taps, sums);
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
        for (int64_t m = 0; m < a.M; ++m) sums[m] += sums[i * part + m];
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
