#include "ops/resample.h"

#include <ATen/Parallel.h>
#include <ATen/ops/_adaptive_avg_pool2d_backward.h>
#include <ATen/ops/_upsample_bicubic2d_aa.h>
#include <ATen/ops/_upsample_bicubic2d_aa_backward.h>
#include <ATen/ops/_upsample_bilinear2d_aa.h>
#include <ATen/ops/_upsample_bilinear2d_aa_backward.h>
#include <ATen/ops/_upsample_nearest_exact1d.h>
#include <ATen/ops/_upsample_nearest_exact1d_backward.h>
#include <ATen/ops/_upsample_nearest_exact2d.h>
#include <ATen/ops/_upsample_nearest_exact2d_backward.h>
#include <ATen/ops/_upsample_nearest_exact3d.h>
#include <ATen/ops/_upsample_nearest_exact3d_backward.h>
#include <ATen/ops/adaptive_avg_pool2d.h>
#include <ATen/ops/adaptive_avg_pool3d.h>
#include <ATen/ops/adaptive_avg_pool3d_backward.h>
#include <ATen/ops/upsample_bicubic2d.h>
#include <ATen/ops/upsample_bicubic2d_backward.h>
#include <ATen/ops/upsample_bilinear2d.h>
#include <ATen/ops/upsample_bilinear2d_backward.h>
#include <ATen/ops/upsample_linear1d.h>
#include <ATen/ops/upsample_linear1d_backward.h>
#include <ATen/ops/upsample_nearest1d.h>
#include <ATen/ops/upsample_nearest1d_backward.h>
#include <ATen/ops/upsample_nearest3d.h>
#include <ATen/ops/upsample_nearest3d_backward.h>
#include <ATen/ops/upsample_trilinear3d.h>
#include <ATen/ops/upsample_trilinear3d_backward.h>
#include <omp.h>
#if __has_include(<ATen/ops/_upsample_lanczos2d_aa.h>)  // torch has it since 2.12
#include <ATen/ops/_upsample_lanczos2d_aa.h>
#include <ATen/ops/_upsample_lanczos2d_aa_backward.h>
#define TG_HAS_LANCZOS
#endif

#include <algorithm>
#include <array>
#include <map>
#include <utility>

#include "ops/border.h"

namespace tapegrad {
namespace {

constexpr int64_t kAtOnce = 32768;  // elements of planes that one call of torch's gets at least

// What torch's functions ask for besides tensors: sizes of the result, [1, planes, ...] of the input, and the rest.
struct Geometry {
  at::IntArrayRef output, input;
  bool align;
  std::array<std::optional<double>, 3> by;
};
using Function = void (*)(at::Tensor& to, const at::Tensor& from, const Geometry& a);
struct Mode {
  Function forward, backward;
};

// NAME_out(out, x, size, ...) and NAME_backward_out(dx, g, size, input size, ...)
#define TG_MODE(name, ...)                                                                                         \
  {[](at::Tensor& out, const at::Tensor& x, const Geometry& a) { at::name##_out(out, x, a.output, __VA_ARGS__); }, \
   [](at::Tensor& dx, const at::Tensor& g, const Geometry& a) {                                                    \
     at::name##_backward_out(dx, g, a.output, a.input, __VA_ARGS__);                                               \
   }}
// Means over windows that divide a plane; the input is asked for its sizes only.
#define TG_AREA(forward, backward)                                                                 \
  {[](at::Tensor& out, const at::Tensor& x, const Geometry& a) { at::forward(out, x, a.output); }, \
   [](at::Tensor& dx, const at::Tensor& g, const Geometry&) {                                      \
     const at::Tensor shaped = dx;                                                                 \
     at::backward(dx, g, shaped);                                                                  \
   }}

const std::map<std::pair<std::string, int64_t>, Mode>& modes() {  // by name and spatial dimensions
  static const std::map<std::pair<std::string, int64_t>, Mode> all = {
      {{"nearest", 1}, TG_MODE(upsample_nearest1d, a.by[0])},
      {{"nearest", 3}, TG_MODE(upsample_nearest3d, a.by[0], a.by[1], a.by[2])},
      {{"nearest-exact", 1}, TG_MODE(_upsample_nearest_exact1d, a.by[0])},
      {{"nearest-exact", 2}, TG_MODE(_upsample_nearest_exact2d, a.by[0], a.by[1])},
      {{"nearest-exact", 3}, TG_MODE(_upsample_nearest_exact3d, a.by[0], a.by[1], a.by[2])},
      {{"linear", 1}, TG_MODE(upsample_linear1d, a.align, a.by[0])},
      {{"bilinear", 2}, TG_MODE(upsample_bilinear2d, a.align, a.by[0], a.by[1])},
      {{"bicubic", 2}, TG_MODE(upsample_bicubic2d, a.align, a.by[0], a.by[1])},
      {{"trilinear", 3}, TG_MODE(upsample_trilinear3d, a.align, a.by[0], a.by[1], a.by[2])},
      {{"bilinear-aa", 2}, TG_MODE(_upsample_bilinear2d_aa, a.align, a.by[0], a.by[1])},
      {{"bicubic-aa", 2}, TG_MODE(_upsample_bicubic2d_aa, a.align, a.by[0], a.by[1])},
#ifdef TG_HAS_LANCZOS
      {{"lanczos-aa", 2}, TG_MODE(_upsample_lanczos2d_aa, a.align, a.by[0], a.by[1])},
#endif
      {{"area", 2}, TG_AREA(adaptive_avg_pool2d_out, _adaptive_avg_pool2d_backward_out)},
      {{"area", 3}, TG_AREA(adaptive_avg_pool3d_out, adaptive_avg_pool3d_backward_out)},
  };
  return all;
}
#undef TG_MODE
#undef TG_AREA

// While one exists, this thread does all of torch's work alone: for the last planes, which no parallel region
// surrounds.
class Alone {
 public:
  Alone() : before_(at::get_num_threads()) { omp_set_num_threads(1); }
  ~Alone() { omp_set_num_threads(before_); }
  Alone(const Alone&) = delete;
  Alone& operator=(const Alone&) = delete;

 private:
  int before_;
};

at::Tensor by_planes(const char* op, const at::Tensor& given, at::IntArrayRef size, const std::string& mode, bool align,
                     const Factors& factors, bool forward) {
  const at::Tensor from = checked(given, op, forward ? "input" : "g");
  const int64_t dims = from.dim() - 2;
  const auto found = modes().find({mode, dims});
  if (found == modes().end())
    throw ShapeError(std::string(op) + ": mode '" + mode + "' is not one for an input of shape " + text(from.sizes()));
  if (static_cast<int64_t>(size.size()) != dims || (factors && static_cast<int64_t>(factors->size()) != dims))
    throw ShapeError(std::string(op) + ": size " + text(size) + " must name the " + std::to_string(dims) +
                     " spatial dimensions of shape " + text(from.sizes()));
  const at::IntArrayRef spatial = from.sizes().slice(2);
  const bool means = mode == "area";  // which may be of nothing
  const auto wrong = [&](int64_t extent) { return extent < (means ? 0 : 1); };
  if (std::any_of(from.sizes().begin() + 1, from.sizes().end(), wrong) || std::any_of(size.begin(), size.end(), wrong))
    throw ShapeError(std::string(op) + ": channels and spatial sizes must be at least 1 for shape " +
                     text(from.sizes()) + " and size " + text(size));
  if (c10::multiply_integers(forward ? spatial : size) == 0)
    throw ShapeError(std::string(op) + ": spatial sizes must be at least 1 for shape " + text(from.sizes()));
  at::DimVector sizes(from.sizes().slice(0, 2));
  sizes.append(size.begin(), size.end());
  const at::Tensor to = make(sizes, from.scalar_type(), op);
  if (from.numel() == 0) return to.zero_();
  const int64_t planes = from.size(0) * from.size(1);
  const int64_t each = std::max(c10::multiply_integers(spatial), c10::multiply_integers(size));
  const int64_t several = std::max<int64_t>(kAtOnce / each, 1), groups = (planes + several - 1) / several;
  const auto part = [&](const at::Tensor& t, at::IntArrayRef extents, int64_t first, int64_t count) {
    at::DimVector view = {1, count};
    view.append(extents.begin(), extents.end());
    return t.view(-1)
        .narrow(0, first * c10::multiply_integers(extents), count * c10::multiply_integers(extents))
        .view(view);
  };
  const auto run = [&](int64_t begin, int64_t end) {
    const Alone alone;
    for (int64_t group = begin; group < end; ++group) {
      const int64_t first = group * several, count = std::min(several, planes - first);
      at::Tensor target = part(to, size, first, count);
      const at::Tensor source = part(from, spatial, first, count);
      Geometry a = {forward ? size : spatial, forward ? source.sizes() : target.sizes(), align, {}};
      for (int64_t i = 0; factors && i < dims; ++i) a.by[i] = (*factors)[i];
      (forward ? found->second.forward : found->second.backward)(target, source, a);
    }
  };
  if (groups < 2)
    run(0, groups);
  else
    at::parallel_for(0, groups, 1, run);
  return to;
}

}  // namespace

at::Tensor resample(const at::Tensor& input, at::IntArrayRef size, const std::string& mode, bool align_corners,
                    const Factors& factors) {
  return by_planes("interpolate", input, size, mode, align_corners, factors, true);
}

at::Tensor resample_backward(const at::Tensor& g, at::IntArrayRef size, const std::string& mode, bool align_corners,
                             const Factors& factors) {
  return by_planes("interpolate", g, size, mode, align_corners, factors, false);
}

}  // namespace tapegrad
