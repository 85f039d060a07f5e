#include "kernels/table.h"
#include "kernels/vops.h"

namespace tapegrad::TG_ISA {
namespace {

constexpr int64_t kExact = int64_t{1} << 24;  // indices below it are exact in float, and travel in the values' lanes

inline int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

// Rows or columns [first, last) of a window's KERNEL that lie inside, its first one being at `start`
struct Inside {
  int64_t first, last;
};
inline Inside inside(int64_t start, int64_t kernel, int64_t dilation, int64_t size) {
  const int64_t first = start < 0 ? (-start + dilation - 1) / dilation : 0;
  const int64_t last = size > start ? (size - start + dilation - 1) / dilation : 0;
  return {first, last < kernel ? last : kernel};
}

// One window, element by element
template <class T>
void pool_one(const MaxPool<T>& a, const T* x, Inside rows, int64_t h, int64_t ow, T* out, int64_t* index) {
  const int64_t w = ow * a.SW - a.PW;
  const Inside columns = inside(w, a.KW, a.DW, a.W);
  T most = -T(__builtin_inf());
  int64_t at = (h + rows.first * a.DH) * a.W + w + columns.first * a.DW;
  for (int64_t r = rows.first; r < rows.last; ++r)
    for (int64_t c = columns.first; c < columns.last; ++c) {
      const int64_t i = (h + r * a.DH) * a.W + w + c * a.DW;
      const bool wins = x[i] > most || x[i] != x[i];
      most = wins ? x[i] : most;
      at = wins ? i : at;
    }
  *out = most;
  *index = at;
}

// Every SWth of `count` elements from p on
template <int64_t SW, class T>
TG_INLINE Vec<T> strided(const T* p, int count) {
  using V = Vec<T>;
  if constexpr (SW == 1) {
    return count == V::N ? V::load(p) : V::load(p, count);
  } else {
    const int last = 2 * count - 1;  // the element behind it may lie outside
    return last > V::N ? even(V::load(p), V::load(p + V::N, last - V::N)) : even(V::load(p, last), V::set1(0));
  }
}

// `count` neighbouring windows whose columns all lie inside, a lane each
template <int64_t SW, class T>
TG_INLINE void pool_vector(const MaxPool<T>& a, const T* x, Inside rows, int64_t h, int64_t ow, int count, T* out,
                           int64_t* index) {
  using V = Vec<T>;
  T steps[V::N];
  for (int i = 0; i < V::N; ++i) steps[i] = T(i * SW);
  const V lanes = V::load(steps);
  const int64_t w = ow * SW - a.PW;
  V most = V::set1(-T(__builtin_inf())), at = lanes + V::set1(T((h + rows.first * a.DH) * a.W + w));
  for (int64_t r = rows.first; r < rows.last; ++r)
    for (int64_t c = 0; c < a.KW; ++c) {
      const int64_t i = (h + r * a.DH) * a.W + w + c * a.DW;
      const V v = strided<SW>(x + i, count), where = lanes + V::set1(T(i));
      const auto greater = most < v, number = v == v;  // a NaN wins, and nothing wins over it but another
      most = select(number, select(greater, v, most), v);
      at = select(number, select(greater, where, at), where);
    }
  T places[V::N];
  int64_t whole[V::N];
  at.store(places);
  for (int i = 0; i < V::N; ++i) whole[i] = static_cast<int64_t>(places[i]);
  count == V::N ? most.store(out) : most.store(out, count);
  __builtin_memcpy(index, whole, static_cast<uint64_t>(count) * sizeof(int64_t));
}

template <int64_t SW, class T>
void pool_row(const MaxPool<T>& a, const T* x, Inside rows, int64_t h, int64_t first, int64_t last, T* out,
              int64_t* index) {
  for (int64_t ow = first; ow < last; ow += Vec<T>::N) {
    const int64_t left = last - ow;
    pool_vector<SW>(a, x, rows, h, ow, left < Vec<T>::N ? static_cast<int>(left) : Vec<T>::N, out + ow, index + ow);
  }
}

}  // namespace

// Planes [begin, end)
template <class T>
void max_pool2d(const MaxPool<T>& a, int64_t begin, int64_t end) {
  // windows [first, last) of a row lie inside with all their columns
  const int64_t first = (a.PW + a.SW - 1) / a.SW, reach = a.W + a.PW - (a.KW - 1) * a.DW - 1;
  const bool vectors = a.SW <= 2 && a.H * a.W < kExact && reach >= 0 && first < a.OW;
  const int64_t whole = vectors ? reach / a.SW + 1 : 0, last = larger(first, whole < a.OW ? whole : a.OW);
  const int64_t left = vectors ? first : a.OW, right = vectors ? last : a.OW;  // one by one: [0, left), [right, OW)
  for (int64_t plane = begin; plane < end; ++plane) {
    const T* x = a.x + plane * a.H * a.W;
    for (int64_t oh = 0; oh < a.OH; ++oh) {
      const int64_t h = oh * a.SH - a.PH, row = (plane * a.OH + oh) * a.OW;
      const Inside rows = inside(h, a.KH, a.DH, a.H);
      T* out = a.out + row;
      int64_t* index = a.indices + row;
      if (vectors)
        a.SW == 1 ? pool_row<1>(a, x, rows, h, first, last, out, index)
                  : pool_row<2>(a, x, rows, h, first, last, out, index);
      for (int64_t ow = 0; ow < left; ++ow) pool_one(a, x, rows, h, ow, out + ow, index + ow);
      for (int64_t ow = right; ow < a.OW; ++ow) pool_one(a, x, rows, h, ow, out + ow, index + ow);
    }
  }
}

// dx = 0, then dx[index[i]] += g[i], i ascending, in each of planes [begin, end)
template <class T>
void max_pool2d_backward(const T* g, const int64_t* index, int64_t from, int64_t to, int64_t begin, int64_t end,
                         T* dx) {
  for (int64_t plane = begin; plane < end; ++plane) {
    T* out = dx + plane * to;
    __builtin_memset(out, 0, static_cast<uint64_t>(to) * sizeof(T));
    for (int64_t i = plane * from; i < (plane + 1) * from; ++i) out[index[i]] += g[i];
  }
}

#define TG_INSTANTIATE(T)                                     \
  template void max_pool2d(const MaxPool<T>&, int64_t, int64_t); \
  template void max_pool2d_backward(const T*, const int64_t*, int64_t, int64_t, int64_t, int64_t, T*);
TG_INSTANTIATE(float)
TG_INSTANTIATE(double)

}  // namespace tapegrad::TG_ISA
