// Convolution without columns: a register tile of channels x pixels reads its pixels from a padded map through a table
// of offsets, one per (channel, tap).
#include "kernels/ahead.h"
#include "kernels/conv_channels.h"
#include "kernels/conv_map.h"
#include "kernels/extents.h"
#include "kernels/table.h"
#include "kernels/vec.h"

namespace tapegrad::TG_ISA {
namespace {

// The register tile: up to ROWS channels x vectors(channels) vectors of pixels. Fewer channels take more vectors, so
// that there are always enough chains to hide the latency of an fma.
#if TG_REGISTERS == 32
constexpr int ROWS = 8;
constexpr int vectors(int rows) { return rows <= 2 ? 8 : rows == 3 ? 7 : rows == 4 ? 6 : rows <= 6 ? 4 : 3; }
#elif defined(__AVX2__)
constexpr int ROWS = 4;
constexpr int vectors(int rows) { return rows == 1 ? 8 : rows == 2 ? 5 : 3; }
#else
constexpr int ROWS = 4;
constexpr int vectors(int rows) { return rows == 1 ? 6 : rows == 2 ? 4 : rows == 3 ? 3 : 2; }
#endif

// Where a tile's vectors lie: vector j reads pixels at x + j * step, and goes to out + j * out_step.
template <class T>
struct Place {
  const T* x;
  int64_t step;
  T* out;
  int64_t out_m, out_step;
  int lanes;  // of every vector that are written
};

template <class T, int MR, int NV>
void tile(const ConvTaps<T>& taps, const T* w, const T* bias, const Place<T>& at, Ahead& next) {
  using V = Vec<T>;
  V acc[MR][NV];
#pragma GCC unroll 8
  for (int i = 0; i < MR; ++i)
#pragma GCC unroll 8
    for (int j = 0; j < NV; ++j) acc[i][j] = V::set1(0);
  const int64_t* offset = taps.offset;
  Ahead ahead = next;
  for (int64_t k = 0; k < taps.K; ++k, w += MR) {
    const T* x = at.x + offset[k];
    ahead.ask();
    V b[NV];
#pragma GCC unroll 8
    for (int j = 0; j < NV; ++j) b[j] = V::load(x + j * at.step);
#pragma GCC unroll 8
    for (int i = 0; i < MR; ++i) {
      const V a = V::set1(w[i]);
#pragma GCC unroll 8
      for (int j = 0; j < NV; ++j) acc[i][j] = fma(a, b[j], acc[i][j]);
    }
  }
  next = ahead;
#pragma GCC unroll 8
  for (int i = 0; i < MR; ++i)
#pragma GCC unroll 8
    for (int j = 0; j < NV; ++j) {
      const V r = bias ? acc[i][j] + V::set1(bias[i]) : acc[i][j];
      T* out = at.out + i * at.out_m + j * at.out_step;
      at.lanes == V::N ? r.store(out) : r.store(out, at.lanes);
    }
}

template <class T, int MR, int NV>
void tile_of(int64_t nv, const ConvTaps<T>& taps, const T* w, const T* bias, const Place<T>& at, Ahead& ahead) {
  if constexpr (NV > 1)
    if (nv < NV) return tile_of<T, MR, NV - 1>(nv, taps, w, bias, at, ahead);
  tile<T, MR, NV>(taps, w, bias, at, ahead);
}

// `count` vectors of pixels for MR channels
template <class T, int MR>
void strip_of(int64_t mr, int64_t count, const ConvTaps<T>& taps, const T* w, const T* bias, const Place<T>& all,
              Ahead& ahead) {
  if constexpr (MR > 1)
    if (mr < MR) return strip_of<T, MR - 1>(mr, count, taps, w, bias, all, ahead);
  const int64_t most = share(count, vectors(MR));
  Place<T> at = all;
  for (int64_t done = 0; done < count; done += most) {
    const int64_t nv = smaller(most, count - done);
    tile_of<T, MR, vectors(MR)>(nv, taps, w, bias, at, ahead);
    at.x += nv * at.step;
    at.out += nv * at.out_step;
  }
}

// R x C pixels of a plane of the map for `mr` channels -> out[m][jh * pitch + jw], where rows of `out` have whole
// vectors. Flat, over the columns between two rows too.
template <class T>
void strip(const ConvMap& map, int64_t R, int64_t C, int64_t mr, const ConvTaps<T>& taps, const T* w, const T* bias,
           const T* x, T* out, int64_t out_m, Ahead& ahead) {
  constexpr int N = Vec<T>::N;
  const int64_t flat = cut((R - 1) * map.pitch + C, N);
  strip_of<T, ROWS>(mr, flat, taps, w, bias, {x, N, out, out_m, N, N}, ahead);
}

// The same row by row, written where it belongs: out[m][jh * W + jw]
template <class T>
void strip_in_place(const ConvMap& map, int64_t R, int64_t C, int64_t mr, const ConvTaps<T>& taps, const T* w,
                    const T* bias, const T* x, T* out, int64_t out_m, int64_t W, Ahead& ahead) {
  constexpr int N = Vec<T>::N;
  for (int64_t c = 0; c < C; c += N)
    strip_of<T, ROWS>(mr, R, taps, w, bias, {x + c, map.pitch, out + c, out_m, W, static_cast<int>(smaller(N, C - c))},
                      ahead);
}

// flat[e][jh * pitch + jw] -> out[jh * SDH * W + jw * SDW + e]
template <class T>
void interleave(const T* flat, int64_t flat_e, int64_t pitch, int64_t R, int64_t W, int64_t SDH, int64_t SDW, T* out) {
  using V = Vec<T>;
  for (int64_t h = 0; h < R; ++h, flat += pitch, out += SDH * W) {
    if (SDW == 2) {
      const T *a = flat, *b = flat + flat_e;
      const int64_t pairs = W / 2;
      int64_t j = 0;
      for (; j + V::N <= pairs; j += V::N) {
        const V x = V::load(a + j), y = V::load(b + j);
        low(x, y).store(out + 2 * j);
        high(x, y).store(out + 2 * j + V::N);
      }
      if (j < pairs) {
        const int left = static_cast<int>(pairs - j), first = 2 * left < V::N ? 2 * left : V::N;
        const V x = V::load(a + j, left), y = V::load(b + j, left);
        low(x, y).store(out + 2 * j, first);
        if (2 * left > V::N) high(x, y).store(out + 2 * j + V::N, 2 * left - V::N);
      }
      if (W % 2 != 0) out[W - 1] = a[pairs];
      continue;
    }
    for (int64_t e = 0; e < SDW; ++e)
      for (int64_t j = 0; e + j * SDW < W; ++j) out[e + j * SDW] = flat[e * flat_e + j];
  }
}

// Rows [q0, q0 + R) of the row phase e, all column phases, channels [m, m + mr)
template <class T>
void phase_rows(const ConvDirect<T>& a, int64_t group, int64_t e, int64_t R, int64_t m, int64_t mr, const T* map,
                T* flat, T* out, Ahead& ahead) {
  constexpr int64_t N = Vec<T>::N;
  const int64_t P = a.H * a.W, pitch = a.map.pitch;
  const T* bias = a.bias ? a.bias + group * a.M + m : nullptr;
  const int64_t flat_m = cut(a.map.band * pitch, kConvLanes) * kConvLanes, flat_e = ROWS * flat_m;
  const bool plain = a.SDH * a.SDW == 1;
  for (int64_t f = 0; f < a.SDW; ++f) {
    const ConvTaps<T>& taps = a.taps[e * a.SDW + f];
    const T* w = taps.packed + (group * a.M + m) * taps.K;
    const int64_t C = cut(a.W - f, a.SDW);
    if (C <= 0) continue;
    if (plain && R * cut(C, N) <= cut((R - 1) * pitch + C, N) + 1)
      return strip_in_place(a.map, R, C, mr, taps, w, bias, map, out, P, a.W, ahead);
    strip(a.map, R, C, mr, taps, w, bias, map, flat + f * flat_e, flat_m, ahead);
  }
  for (int64_t i = 0; i < mr; ++i)
    if (plain)
      copy_plane(flat + i * flat_m, pitch, R, a.W, out + i * P, a.W);
    else
      interleave(flat + i * flat_m, flat_e, pitch, R, a.W, a.SDH, a.SDW, out + i * P);
}

// How vectors along channels would be cut: rows x pixels of a tile, vectors of channels in a panel.
template <class T>
struct ChannelTiles {
  int64_t rows, pixels, vectors;
  bool pay;  // against vectors along pixels
};

// Costs in tenths of a tap of a vector. Fewer vectors of channels than two spend as many instructions on reading the
// map as on arithmetic.
template <class T>
ChannelTiles<T> channel_tiles(const ConvDirect<T>& a) {
  constexpr int64_t N = Vec<T>::N, TRANSPOSE = 140, INTERLEAVE = 100;
  const int64_t R = smaller(a.map.band, cut(a.H, a.SDH)), C = cut(a.W, a.SDW), all = cut(a.M, N);
  const int64_t phases = a.SDH * a.SDW;
  int64_t K = 0;
  for (int64_t phase = 0; phase < phases; ++phase) K += a.taps[phase].K;
  const int64_t pixels = share(C, WIDE), rows = R > 1 && 2 * pixels <= WIDE ? 2 : 1;
  const int64_t vectors = share(all, lanes_of(static_cast<int>(rows * pixels)));
  const int64_t slow = 10 * CHAINS / smaller(CHAINS, rows * pixels * vectors) * (vectors == 1 ? 4 : 3) / 3;
  const int64_t along_channels = R * C * all * (K * slow + phases * TRANSPOSE);
  const int64_t strips = smaller(R * cut(C, N), cut((R - 1) * a.map.pitch + C, N));
  const int64_t along_pixels = strips * a.M * (K * 11 + (phases > 1 ? phases * INTERLEAVE : 0));
  return {rows, pixels, vectors, along_channels < along_pixels};
}

// One phase of `rows` rows of C pixels by vectors [m, m + vectors) of channels; out: [row][pixel][channel]
template <class T>
void channel_panel(const ChannelTiles<T>& tiles, const TapBlock<T>& taps, int64_t rows, int64_t C, int64_t vectors,
                   const T* x, int64_t pitch, T* out, int64_t out_row, int64_t out_pixel, Ahead& ahead) {
  constexpr int64_t LINES = 6;  // in the time of a tile
  const int64_t whole = C / tiles.pixels * tiles.pixels;
  for (int64_t h = 0; h < rows;) {
    const int64_t together = smaller(tiles.rows, rows - h);
    const ChannelTile<T> tile = channel_tile_of<T>(together, tiles.pixels, vectors);
    for (int64_t j = 0; j < whole; j += tiles.pixels) {
      ahead.ask(LINES);
      tile(taps, x + j, pitch, out + j * out_pixel, out_row, out_pixel);
    }
    if (whole < C)
      channel_tile_of<T>(together, C - whole, vectors)(taps, x + whole, pitch, out + whole * out_pixel, out_row,
                                                       out_pixel);
    h += together;
    x += together * pitch;
    out += together * out_row;
  }
}

// All channels of rows [q0, q0 + R) of every phase, with vectors along channels; `flat` holds [pixel][channel].
template <class T>
void channel_rows(const ConvDirect<T>& a, const ChannelTiles<T>& tiles, int64_t group, int64_t q0, const T* map,
                  T* flat, T* out, Ahead& ahead) {
  constexpr int64_t N = Vec<T>::N, PANEL = PANEL_BYTES / static_cast<int64_t>(sizeof(T)) / N;
  const int64_t padded = cut(a.M, N) * N, bottom = smaller(a.H, (q0 + a.map.band) * a.SDH), top = q0 * a.SDH;
  for (int64_t phase = 0; phase < a.SDH * a.SDW; ++phase) {
    const ConvTaps<T>& taps = a.taps[phase];
    const int64_t e = phase / a.SDW, f = phase % a.SDW;
    const int64_t rows = cut(bottom - top - e, a.SDH), C = cut(a.W - f, a.SDW);
    const T* w = taps.packed + group * taps.K * padded;
    for (int64_t m = 0; m < padded; m += tiles.vectors * N) {
      const int64_t vectors = smaller(tiles.vectors, (padded - m) / N), depth = share(taps.K, PANEL / vectors);
      for (int64_t k = 0; k == 0 || k < taps.K; k += depth) {  // once even where K = 0: the result is then 0
        const int64_t K = smaller(depth, taps.K - k);
        if (rows > 0 && C > 0)
          channel_panel<T>(tiles, {K, taps.offset + k, w, k > 0}, rows, C, vectors, map, a.map.pitch,
                           flat + (e * a.W + f) * padded + m, a.SDH * a.W * padded, a.SDW * padded, ahead);
        w += K * vectors * N;
      }
    }
  }
  put_channels(flat, padded, (bottom - top) * a.W, a.M, a.bias ? a.bias + group * a.M : nullptr, out + top * a.W,
               a.H * a.W);
}

// w -> taps.packed for vectors along channels: [G][panel][K][vectors of the panel], zeros behind M
template <class T>
void pack_channels(const ConvDirect<T>& a, const ChannelTiles<T>& tiles) {
  constexpr int64_t N = Vec<T>::N;
  const int64_t padded = cut(a.M, N) * N;
  for (int64_t phase = 0; phase < a.SDH * a.SDW; ++phase) {
    const ConvTaps<T>& taps = a.taps[phase];
    T* to = taps.packed;
    for (int64_t group = 0; group < a.G; ++group)
      for (int64_t m = 0; m < padded; m += tiles.vectors * N) {
        const int64_t width = smaller(tiles.vectors * N, padded - m), rows = smaller(width, a.M - m);
        const T* w = a.w + group * a.group_step + m * a.m_step;
        for (int64_t k = 0, run; k < taps.K; k += run, to += run * width) {  // a run of weights in a row: a transpose
          for (run = 1; k + run < taps.K && taps.weight[k + run] == taps.weight[k] + run;) ++run;
          if (run >= N / 2) {
            transpose<T>(w + taps.weight[k], a.m_step, rows, run, to, width);
            continue;
          }
          for (int64_t r = 0; r < run; ++r)
            for (int64_t i = 0; i < width; ++i) to[r * width + i] = i < rows ? w[i * a.m_step + taps.weight[k + r]] : 0;
        }
      }
  }
}

}  // namespace

// w -> taps.packed: the weights in the order in which tiles read them.
template <class T>
void conv_pack(const ConvDirect<T>& a) {
  const ChannelTiles<T> tiles = channel_tiles(a);
  if (tiles.pay) return pack_channels(a, tiles);
  const int64_t rows = share(a.M, ROWS);
  for (int64_t phase = 0; phase < a.SDH * a.SDW; ++phase) {
    const ConvTaps<T>& taps = a.taps[phase];
    T* to = taps.packed;
    for (int64_t group = 0; group < a.G; ++group)
      for (int64_t m = 0; m < a.M; m += rows) {
        const int64_t mr = smaller(rows, a.M - m);
        const T* w = a.w + group * a.group_step + m * a.m_step;
        for (int64_t k = 0; k < taps.K; ++k)
          for (int64_t i = 0; i < mr; ++i) *to++ = w[i * a.m_step + taps.weight[k]];
      }
  }
}

// A unit is (n, group, band).
template <class T>
void conv_direct(const ConvDirect<T>& a, int64_t begin, int64_t end, T* scratch) {
  const int64_t P = a.H * a.W, rows = share(a.M, ROWS), bands = cut(cut(a.H, a.SDH), a.map.band);
  const int64_t source = source_size(a.map);
  T* flat = scratch + kConvMapBytes / static_cast<int64_t>(sizeof(T));
  const ChannelTiles<T> tiles = channel_tiles(a);
  zero_row(scratch, map_size(a.map) + kConvLanes);
  const int64_t images = a.N * a.G;
  constexpr int64_t LINES = 8;  // asked for at once: a depthwise image has fewer taps than lines
  const bool is_map = bands == 1 && equals_its_map(a.map);
  int64_t image = begin / bands, group = image % a.G, band = begin % bands - 1;  // image = (n, group)
  for (int64_t unit = begin; unit < end; ++unit) {
    if (++band == bands) {
      band = 0;
      ++image;
      group = group + 1 < a.G ? group + 1 : 0;
    }
    const int64_t q0 = band * a.map.band;
    const T* const x = a.x + image * source;
    // Vectors run over the end of a map, which the last images must not have read.
    const bool as_it_is = is_map && (images - image - 1) * source >= kConvLanes;
    const T* const map = as_it_is ? x : scratch;
    if (!as_it_is) form_map(a.map, x, q0, bands > 1, scratch);
    Ahead ahead = ahead_of(x + source, band + 1 == bands && unit + 1 < end ? source : 0);
    ahead.ask(LINES);
    if (tiles.pay) {
      channel_rows(a, tiles, group, q0, map, flat, a.out + image * a.M * P, ahead);
      continue;
    }
    for (int64_t m = 0; m < a.M; m += rows)
      for (int64_t e = 0; e < a.SDH; ++e) {
        const int64_t R = smaller(a.map.band, cut(a.H - e, a.SDH) - q0);
        if (R > 0)
          phase_rows(a, group, e, R, m, smaller(rows, a.M - m), map, flat,
                     a.out + (image * a.M + m) * P + (q0 * a.SDH + e) * a.W, ahead);
      }
  }
}

template void conv_pack(const ConvDirect<float>&);
template void conv_pack(const ConvDirect<double>&);
template void conv_direct(const ConvDirect<float>&, int64_t, int64_t, float*);
template void conv_direct(const ConvDirect<double>&, int64_t, int64_t, double*);

}  // namespace tapegrad::TG_ISA
