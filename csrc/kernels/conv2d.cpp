// conv2d and its two gradients as products over tiles of columns that are formed in scratch and used at once.
#include "kernels/extents.h"
#include "kernels/table.h"

namespace tapegrad::TG_ISA {
namespace {

inline int64_t clamp(int64_t a, int64_t low, int64_t high) { return a < low ? low : a > high ? high : a; }

template <class T>
void zero(T* p, int64_t n) {
  for (int64_t i = 0; i < n; ++i) p[i] = 0;
}

// The first j >= 0 with start + j * step >= bound (step > 0).
inline int64_t first_at_least(int64_t bound, int64_t start, int64_t step) {
  return start >= bound ? 0 : (bound - start + step - 1) / step;
}

// Rows [k0, k1) of im2col, pixels [p0, p1) of the output: columns[k - k0][p - p0], where k = (c, kh, kw) and
// p = (oh, ow). x: [C/G, H, W], one image's group.
template <class T>
void im2col(const Conv2d<T>& a, const T* x, int64_t k0, int64_t k1, int64_t p0, int64_t p1, T* columns) {
  const int64_t width = p1 - p0;
  for (int64_t k = k0; k < k1; ++k, columns += width) {
    const int64_t kw = k % a.KW, kh = k / a.KW % a.KH, c = k / (a.KW * a.KH);
    for (int64_t p = p0; p < p1;) {
      const int64_t oh = p / a.OW, ow = p % a.OW, run = smaller(a.OW - ow, p1 - p);
      T* to = columns + (p - p0);
      p += run;
      const int64_t ih = oh * a.SH - a.PH + kh * a.DH, iw = ow * a.SW - a.PW + kw * a.DW;
      if (ih < 0 || ih >= a.H) {
        zero(to, run);
        continue;
      }
      // destinations [low, high) of this run lie inside the image, the others in the padding
      const int64_t low = smaller(first_at_least(0, iw, a.SW), run);
      const int64_t high = clamp(first_at_least(a.W, iw, a.SW), low, run);
      const T* from = x + (c * a.H + ih) * a.W + iw;
      zero(to, low);
      if (a.SW == 1)
        for (int64_t j = low; j < high; ++j) to[j] = from[j];
      else
        for (int64_t j = low; j < high; ++j) to[j] = from[j * a.SW];
      zero(to + high, run - high);
    }
  }
}

// The transpose of im2col, read instead of written: rows k = (oc, kh, kw), pixels p = (ih, iw) of the input, the value
// is g[oc][oh][ow] where that output used that pixel through (kh, kw), else 0. g: [OC/G, OH, OW].
template <class T>
void gather_grad(const Conv2d<T>& a, const T* g, int64_t k0, int64_t k1, int64_t p0, int64_t p1, T* columns) {
  const int64_t width = p1 - p0;
  for (int64_t k = k0; k < k1; ++k, columns += width) {
    const int64_t kw = k % a.KW, kh = k / a.KW % a.KH, oc = k / (a.KW * a.KH);
    for (int64_t p = p0; p < p1;) {
      const int64_t ih = p / a.W, iw = p % a.W, run = smaller(a.W - iw, p1 - p);
      T* to = columns + (p - p0);
      p += run;
      zero(to, run);
      const int64_t h = ih + a.PH - kh * a.DH;  // = oh * SH
      if (h < 0 || h % a.SH != 0 || h / a.SH >= a.OH) continue;
      const T* from = g + (oc * a.OH + h / a.SH) * a.OW;
      const int64_t w = iw + a.PW - kw * a.DW;  // + j = ow * SW
      int64_t ow = w <= 0 ? 0 : (w + a.SW - 1) / a.SW;
      for (int64_t j = ow * a.SW - w; j < run && ow < a.OW; j += a.SW, ++ow) to[j] = from[ow];
    }
  }
}

}  // namespace

// A unit is (n, group, tile of kConvPixels outputs). out = w[OC/G, K] @ columns[K, pixels], K = (C/G) KH KW.
template <class T>
void conv2d_forward(const Conv2d<T>& a, int64_t begin, int64_t end, T* scratch) {
  const int64_t P = a.OH * a.OW, tiles = (P + kConvPixels<T> - 1) / kConvPixels<T>;
  const int64_t C = a.C / a.G, OC = a.OC / a.G, K = C * a.KH * a.KW;
  T* pack = scratch + kScratchBytes / 2 / static_cast<int64_t>(sizeof(T));
  for (int64_t unit = begin; unit < end; ++unit) {
    const int64_t p0 = unit % tiles * kConvPixels<T>, p1 = smaller(p0 + kConvPixels<T>, P);
    const int64_t group = unit / tiles % a.G, n = unit / tiles / a.G;
    const T* x = a.x + (n * a.C + group * C) * a.H * a.W;
    const T* bias = a.bias ? a.bias + group * OC : nullptr;
    int64_t k0 = 0;
    do {
      const int64_t k1 = smaller(k0 + kConvDepth, K);
      im2col(a, x, k0, k1, p0, p1, scratch);
      const Gemm<T> product = {
          .M = OC,
          .N = p1 - p0,
          .K = k1 - k0,
          .A = a.w + group * OC * K + k0,
          .a_m = K,
          .a_k = 1,
          .B = scratch,
          .b_k = p1 - p0,
          .b_n = 1,
          .C = a.out + (n * a.OC + group * OC) * P + p0,
          .c_m = P,
          .bias_m = k1 == K ? bias : nullptr,
          .carry = k0 > 0,
      };
      gemm(product, pack);
      k0 = k1;
    } while (k0 < K);
  }
}

// A unit is (n, group, tile of kConvPixels inputs). dx = w[C/G, K] @ columns[K, pixels], K = (OC/G) KH KW.
template <class T>
void conv2d_input_grad(const Conv2d<T>& a, int64_t begin, int64_t end, T* scratch) {
  const int64_t P = a.H * a.W, tiles = (P + kConvPixels<T> - 1) / kConvPixels<T>;
  const int64_t C = a.C / a.G, OC = a.OC / a.G, K = OC * a.KH * a.KW;
  T* pack = scratch + kScratchBytes / 2 / static_cast<int64_t>(sizeof(T));
  for (int64_t unit = begin; unit < end; ++unit) {
    const int64_t p0 = unit % tiles * kConvPixels<T>, p1 = smaller(p0 + kConvPixels<T>, P);
    const int64_t group = unit / tiles % a.G, n = unit / tiles / a.G;
    const T* g = a.g + (n * a.OC + group * OC) * a.OH * a.OW;
    int64_t k0 = 0;
    do {
      const int64_t k1 = smaller(k0 + kConvDepth, K);
      gather_grad(a, g, k0, k1, p0, p1, scratch);
      const Gemm<T> product = {
          .M = C,
          .N = p1 - p0,
          .K = k1 - k0,
          .A = a.w + group * C * K + k0,
          .a_m = K,
          .a_k = 1,
          .B = scratch,
          .b_k = p1 - p0,
          .b_n = 1,
          .C = a.out + (n * a.C + group * C) * P + p0,
          .c_m = P,
          .carry = k0 > 0,
      };
      gemm(product, pack);
      k0 = k1;
    } while (k0 < K);
  }
}

// A unit is (part of the batch, group, kConvColumns columns of K = (C/G) KH KW).
// dw[OC/G, columns] = sum over the part's images of g[OC/G, P] @ columns[K, P]^T, pixels ascending.
template <class T>
void conv2d_weight_grad(const Conv2d<T>& a, int64_t begin, int64_t end, T* scratch) {
  const int64_t P = a.OH * a.OW, C = a.C / a.G, OC = a.OC / a.G, K = C * a.KH * a.KW;
  const int64_t units = (K + kConvColumns - 1) / kConvColumns;
  T* pack = scratch + kScratchBytes / 2 / static_cast<int64_t>(sizeof(T));
  for (int64_t unit = begin; unit < end; ++unit) {
    const int64_t k0 = unit % units * kConvColumns, k1 = smaller(k0 + kConvColumns, K);
    const int64_t group = unit / units % a.G, part = unit / units / a.G;
    T* dw = a.out + (part * a.OC + group * OC) * K + k0;
    const int64_t first = a.N * part / a.parts, last = a.N * (part + 1) / a.parts;
    for (int64_t n = first; n < last; ++n) {
      const T* x = a.x + (n * a.C + group * C) * a.H * a.W;
      const T* g = a.g + (n * a.OC + group * OC) * P;
      for (int64_t p0 = 0; p0 < P; p0 += kConvPixels<T>) {
        const int64_t p1 = smaller(p0 + kConvPixels<T>, P);
        im2col(a, x, k0, k1, p0, p1, scratch);
        const Gemm<T> product = {
            .M = OC,
            .N = k1 - k0,
            .K = p1 - p0,
            .A = g + p0,
            .a_m = P,
            .a_k = 1,
            .B = scratch,
            .b_k = 1,
            .b_n = p1 - p0,
            .C = dw,
            .c_m = K,
            .carry = n > first || p0 > 0,
        };
        gemm(product, pack);
      }
    }
  }
}

template void conv2d_forward(const Conv2d<float>&, int64_t, int64_t, float*);
template void conv2d_forward(const Conv2d<double>&, int64_t, int64_t, double*);
template void conv2d_input_grad(const Conv2d<float>&, int64_t, int64_t, float*);
template void conv2d_input_grad(const Conv2d<double>&, int64_t, int64_t, double*);
template void conv2d_weight_grad(const Conv2d<float>&, int64_t, int64_t, float*);
template void conv2d_weight_grad(const Conv2d<double>&, int64_t, int64_t, double*);

}  // namespace tapegrad::TG_ISA
