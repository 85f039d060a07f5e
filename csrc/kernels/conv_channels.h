// Direct convolution with vectors along the result's channels: a register tile is some pixels of one row x vectors of
// channels, a tap broadcasts its pixels and reads its weights as vectors. For planes that fill vectors of pixels badly.
// Every element's chain is that of the tiles with vectors along pixels, bit for bit.
#pragma once
#include "kernels/args.h"
#include "kernels/vec.h"

namespace tapegrad::TG_ISA {

// The register tile: up to WIDE pixels x lanes_of(pixels) vectors.
#if TG_REGISTERS == 32
constexpr int WIDE = 14;
constexpr int lanes_of(int pixels) { return pixels <= 4 ? 6 : pixels <= 6 ? 4 : pixels <= 8 ? 3 : 2; }
#elif defined(__AVX2__)
constexpr int WIDE = 6;
constexpr int lanes_of(int pixels) { return pixels <= 2 ? 5 : pixels == 3 ? 4 : pixels == 4 ? 3 : 2; }
#else
constexpr int WIDE = 6;
constexpr int lanes_of(int pixels) { return pixels <= 2 ? 4 : pixels == 3 ? 3 : 2; }
#endif
constexpr int CHAINS = 8;                  // fewer leave the fma units waiting
constexpr int64_t PANEL_BYTES = 14 << 10;  // of the weights that a sweep over the pixels uses: they stay in L1

// Some taps, and their weights w: [K][vectors of the panel]. The first taps start the chains, the others carry them on.
template <class T>
struct TapBlock {
  int64_t K;
  const int64_t* offset;
  const T* w;
  bool carry;
};

// out[RR rows][MR pixels][NV vectors of channels]; rows of the map are `pitch` apart
template <class T, int RR, int MR, int NV>
void channel_tile(const TapBlock<T>& taps, const T* x, int64_t pitch, T* out, int64_t out_row, int64_t out_pixel) {
  using V = Vec<T>;
  V acc[RR * MR][NV];
  const auto place = [&](int i) __attribute__((always_inline)) { return out + i / MR * out_row + i % MR * out_pixel; };
#pragma GCC unroll 16
  for (int i = 0; i < RR * MR; ++i)
#pragma GCC unroll 8
    for (int j = 0; j < NV; ++j) acc[i][j] = taps.carry ? V::load(place(i) + j * V::N) : V::set1(0);
  const int64_t* offset = taps.offset;
  const T *w = taps.w, *second = x + (RR - 1) * pitch;
  for (int64_t k = 0; k < taps.K; ++k, w += NV * V::N) {
    const int64_t at = offset[k];
    V b[NV];
#pragma GCC unroll 8
    for (int j = 0; j < NV; ++j) b[j] = V::load(w + j * V::N);
#pragma GCC unroll 16
    for (int i = 0; i < RR * MR; ++i) {
      // not (i < MR ? x : second)[...], whose subscript g++ 12 computes in one branch only under -fsanitize=undefined
      const V a = V::set1(i < MR ? x[at + i % MR] : second[at + i % MR]);
#pragma GCC unroll 8
      for (int j = 0; j < NV; ++j) acc[i][j] = fma(a, b[j], acc[i][j]);
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < RR * MR; ++i)
#pragma GCC unroll 8
    for (int j = 0; j < NV; ++j) acc[i][j].store(place(i) + j * V::N);
}

template <class T>
using ChannelTile = void (*)(const TapBlock<T>& taps, const T* x, int64_t pitch, T* out, int64_t out_row,
                             int64_t out_pixel);

// Two rows where a row is at most half as wide as a tile
template <class T, int RR, int MR = WIDE / RR, int NV = lanes_of(RR * MR)>
ChannelTile<T> channel_tile_for(int64_t mr, int64_t nv) {
  if constexpr (MR > 1)
    if (mr < MR) return channel_tile_for<T, RR, MR - 1>(mr, nv);
  if constexpr (NV > 1)
    if (nv < NV) return channel_tile_for<T, RR, MR, NV - 1>(mr, nv);
  return channel_tile<T, RR, MR, NV>;
}
template <class T>
ChannelTile<T> channel_tile_of(int64_t rows, int64_t mr, int64_t nv) {
  return rows == 2 ? channel_tile_for<T, 2>(mr, nv) : channel_tile_for<T, 1>(mr, nv);
}

// out[m][p] = from[p][m] + bias[m] for P pixels and M channels; a row of `from` has `padded` elements.
template <class T>
void put_channels(const T* from, int64_t padded, int64_t P, int64_t M, const T* bias, T* out, int64_t out_m) {
  using V = Vec<T>;
  for (int64_t p = 0; p < P; p += V::N)
    for (int64_t m = 0; m < M; m += V::N) {
      const int pixels = P - p < V::N ? static_cast<int>(P - p) : V::N;
      const int64_t channels = M - m < V::N ? M - m : V::N;
      V block[V::N];
#pragma GCC unroll 16
      for (int i = 0; i < V::N; ++i) block[i] = i < pixels ? V::load(from + (p + i) * padded + m) : V::set1(0);
      transpose<T>(block);
      T* to = out + m * out_m + p;
      if (pixels == V::N && channels == V::N) {
#pragma GCC unroll 16
        for (int i = 0; i < V::N; ++i, to += out_m) (bias ? block[i] + V::set1(bias[m + i]) : block[i]).store(to);
        continue;
      }
#pragma GCC unroll 16
      for (int i = 0; i < V::N; ++i, to += out_m) {
        if (i >= channels) break;
        (bias ? block[i] + V::set1(bias[m + i]) : block[i]).store(to, pixels);
      }
    }
}

}  // namespace tapegrad::TG_ISA
