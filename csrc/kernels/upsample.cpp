#include "kernels/table.h"
#include "kernels/vec.h"

namespace tapegrad::TG_ISA {
namespace {

// One row, every value FACTOR times. A constant factor lets the compiler use shuffles.
template <class T, int FACTOR>
void repeat(const T* x, int64_t W, T* out) {
  for (int64_t w = 0; w < W; ++w)
    for (int f = 0; f < FACTOR; ++f) out[w * FACTOR + f] = x[w];
}

// Every value twice, by whole vectors as long as they end before `end`
template <class T>
void repeat_twice(const T* x, int64_t W, T* out, const T* end) {
  using V = Vec<T>;
  for (int64_t w = 0; w < W; w += V::N, out += 2 * V::N) {
    const V v = W - w >= V::N ? V::load(x + w) : V::load(x + w, static_cast<int>(W - w));
    const int64_t left = end - out;
    if (left >= 2 * V::N) {
      low(v, v).store(out);
      high(v, v).store(out + V::N);
    } else if (left <= V::N) {
      low(v, v).store(out, static_cast<int>(left));
    } else {
      low(v, v).store(out);
      high(v, v).store(out + V::N, static_cast<int>(left - V::N));
    }
  }
}

// Each pair of columns of each of `rows` rows summed, in order: out[w] = 0 + g[0][2w] + g[0][2w + 1] + g[1][2w] ...
template <class T>
void sum_pairs(const T* g, int64_t rows, int64_t W, T* out) {
  using V = Vec<T>;
  for (int64_t w = 0; w < W; w += V::N) {
    const int64_t left = 2 * (W - w);
    V sum = V::set1(0);
    for (int64_t r = 0; r < rows; ++r) {
      const T* p = g + r * 2 * W + 2 * w;
      V x, y;
      if (left >= 2 * V::N) {
        x = V::load(p), y = V::load(p + V::N);
      } else {
        x = left >= V::N ? V::load(p) : V::load(p, static_cast<int>(left));
        y = left > V::N ? V::load(p + V::N, static_cast<int>(left - V::N)) : V::set1(0);
      }
      sum = sum + even(x, y) + odd(x, y);
    }
    left >= 2 * V::N ? sum.store(out + w) : sum.store(out + w, static_cast<int>(W - w));
  }
}

// The same where a row is one vector: it is shuffled once for all of its copies.
template <class T>
void double_narrow(const Upsample<T>& a, const T* x, T* out) {
  using V = Vec<T>;
  const int columns = static_cast<int>(a.W);
  V left = V::set1(0), right = left;
  for (int64_t oh = 0, from = -1; oh < a.OH; ++oh, out += a.OW) {
    if (a.rows[oh] != from) {
      from = a.rows[oh];
      const V v = V::load(x + from * a.W, columns);
      left = low(v, v), right = high(v, v);
    }
    if ((a.OH - oh) * a.OW >= 2 * V::N) {
      left.store(out);
      if (a.OW > V::N) right.store(out + V::N);
    } else {
      const int count = static_cast<int>(a.OW);
      left.store(out, count < V::N ? count : V::N);
      if (count > V::N) right.store(out + V::N, count - V::N);
    }
  }
}

// [H, W] -> [OH, 2 W]: rows run over their end into the next, which comes later
template <class T>
void double_plane(const Upsample<T>& a, const T* x, T* out) {
  if (a.W < Vec<T>::N) return double_narrow(a, x, out);
  const T* end = out + a.OH * a.OW;
  for (int64_t oh = 0; oh < a.OH; ++oh, out += a.OW) repeat_twice(x + a.rows[oh] * a.W, a.W, out, end);
}

template <class T>
void resample_row(const Upsample<T>& a, const T* x, T* out) {
  switch (a.factor_w) {
    case 1:
      return repeat<T, 1>(x, a.W, out);
    case 3:
      return repeat<T, 3>(x, a.W, out);
    case 4:
      return repeat<T, 4>(x, a.W, out);
    default:
      for (int64_t ow = 0; ow < a.OW; ++ow) out[ow] = x[a.columns[ow]];
  }
}

}  // namespace

template <class T>
void upsample_nearest2d(const Upsample<T>& a, int64_t begin, int64_t end) {
  for (int64_t plane = begin; plane < end; ++plane) {
    const T* x = a.x + plane * a.H * a.W;
    T* out = a.out + plane * a.OH * a.OW;
    if (a.factor_w == 2) {
      double_plane(a, x, out);
      continue;
    }
    for (int64_t oh = 0; oh < a.OH; ++oh, out += a.OW) {
      if (oh > 0 && a.rows[oh] == a.rows[oh - 1])
        for (int64_t ow = 0; ow < a.OW; ++ow) out[ow] = out[ow - a.OW];  // the row above, still in cache
      else
        resample_row(a, x + a.rows[oh] * a.W, out);
    }
  }
}

// Each source sums its destinations, rows then columns ascending.
template <class T>
void upsample_nearest2d_backward(const Upsample<T>& a, int64_t begin, int64_t end) {
  for (int64_t plane = begin; plane < end; ++plane) {
    const T* g = a.x + plane * a.OH * a.OW;
    T* out = a.out + plane * a.H * a.W;
    if (a.factor_w == 2) {
      for (int64_t h = 0; h < a.H; ++h)
        sum_pairs(g + a.rows[h] * a.OW, a.rows[h + 1] - a.rows[h], a.W, out + h * a.W);
      continue;
    }
    for (int64_t h = 0; h < a.H; ++h)
      for (int64_t w = 0; w < a.W; ++w) {
        T sum = 0;
        for (int64_t oh = a.rows[h]; oh < a.rows[h + 1]; ++oh)
          for (int64_t ow = a.columns[w]; ow < a.columns[w + 1]; ++ow) sum += g[oh * a.OW + ow];
        out[h * a.W + w] = sum;
      }
  }
}

template void upsample_nearest2d(const Upsample<float>&, int64_t, int64_t);
template void upsample_nearest2d(const Upsample<double>&, int64_t, int64_t);
template void upsample_nearest2d_backward(const Upsample<float>&, int64_t, int64_t);
template void upsample_nearest2d_backward(const Upsample<double>&, int64_t, int64_t);

}  // namespace tapegrad::TG_ISA
