// What the kernels of the normalisations and of variances are told.
#pragma once
#include <stdint.h>

namespace tapegrad {

// Sums are taken in parts of kNormRun elements, or of kNormRows rows where vectors run along the columns.
constexpr int64_t kNormRun = 2048, kNormRows = 64, kNormColumns = 1024;

// x [A, N, C, P] as one group of elements, over N and P, for each (a, c): a channel of batch norm with A = 1, a column
// of a matrix with P = 1, a row with N = C = 1. A part is `rows` of N or, with cuts > 1, kNormRun elements of a plane.
// Units are (a, part, c) of the channels [begin_c, end_c), in that order; with P = 1 and C > 1, where these are all,
// one is kNormColumns of them.
template <class T>
struct Groups {
  int64_t A, N, C, P;
  int64_t begin_c, end_c;
  int64_t rows, cuts, parts;
  const T* x;
  const T* g;          // slope_sums
  const double* mean;  // slope_sums: [A, C]
  // [A, parts, end_c - begin_c]; moments: the mean and the sum of (x - mean)^2; slope_sums: the sums of g and of
  // g (x - mean)
  double *first, *second;
};

// out = (x - from) scale + shift (+ g gain), the numbers being those of the group (a, c). Units are the planes
// (a, n, c) of the channels [begin_c, end_c), in that order; where P = 1, and these are all, the rows of C.
template <class T>
struct Affine {
  int64_t N, C, P;
  int64_t begin_c, end_c;
  const T* x;                            // [A, N, C, P]
  const T *from, *scale, *shift, *gain;  // [A, C]
  const T* g;                            // [A, N, C, P] or null
  T* out;                                // [A, N, C, P]
};

// Normalisation of rows of D * P elements, G of which are a sample: layer norm with G = P = 1, group norm.
template <class T>
struct RowNorm {
  int64_t samples, G, D, P;
  double eps;
  const T* x;              // [samples, G, D, P]
  const T* weight;         // [G, D] or null
  const T* bias;           // [G, D] or null
  T* out;                  // [samples, G, D, P]
  double *mean, *rstd;     // [samples, G]
  const T* g;              // backward: [samples, G, D, P]
  T* dx;                   // backward: the same, or null
  T *dw, *db;              // row_norm_backward: [parts, G, D] or null, a part being kNormRows samples
  double *first, *second;  // plane_norm_backward: [samples, G, D], the sums of g and of g (x - mean)
};

}  // namespace tapegrad
