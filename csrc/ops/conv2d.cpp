#include "ops/conv2d.h"

#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>

#include "dispatch.h"
#include "ops/border.h"
#include "ops/conv_plan.h"
#include "ops/product.h"
#include "ops/upsample.h"

namespace tapegrad {
namespace {

std::string number(int64_t n) { return std::to_string(n); }

// One spatial output extent, or ShapeError. axis: 0 height, 1 width.
int64_t output_extent(const std::string& op, int axis, int64_t size, int64_t kernel, const ConvParams& p) {
  const char* who = op.c_str();
  const int64_t S = in_range(p.stride[axis], 1, who, "stride", axis);
  const int64_t P = in_range(p.padding[axis], 0, who, "padding", axis);
  const int64_t D = in_range(p.dilation[axis], 1, who, "dilation", axis);
  if (kernel < 1)
    throw ShapeError(op + ": weight.shape[" + number(axis + 2) + "] must be at least 1, is " + number(kernel));
  int64_t reach;
  if (__builtin_mul_overflow(D, kernel - 1, &reach) || reach >= size + 2 * P)
    throw ShapeError(op + ": input.shape[" + number(axis + 2) + "] + 2 * padding = " + number(size + 2 * P) +
                     " must be at least dilation * (kernel - 1) + 1 with dilation " + number(D) + ", kernel " +
                     number(kernel));
  return (size + 2 * P - reach - 1) / S + 1;
}

// Every extent of the convolution of an input of size x with a weight of size w, or ShapeError.
template <class T>
Conv2d<T> geometry(const char* name, at::IntArrayRef x, at::IntArrayRef w, const ConvParams& p) {
  const std::string op = name;
  if (x.size() != 4) throw ShapeError(op + ": input must have 4 dimensions (N, C, H, W), has shape " + text(x));
  if (w.size() != 4)
    throw ShapeError(op + ": weight must have 4 dimensions (OC, C / groups, KH, KW), has shape " + text(w));
  check_sizes(x, at::kDouble, name);
  check_sizes(w, at::kDouble, name);
  Conv2d<T> a = {};
  a.N = x[0], a.C = x[1], a.H = x[2], a.W = x[3];
  a.OC = w[0], a.KH = w[2], a.KW = w[3], a.G = p.groups;
  if (a.G < 1) throw ShapeError(op + ": groups must be at least 1, is " + number(a.G));
  if (a.C % a.G != 0)
    throw ShapeError(op + ": input.shape[1] = " + number(a.C) + " must be divisible by groups = " + number(a.G));
  if (a.OC % a.G != 0)
    throw ShapeError(op + ": weight.shape[0] = " + number(a.OC) + " must be divisible by groups = " + number(a.G));
  if (w[1] != a.C / a.G)
    throw ShapeError(op + ": weight.shape[1] = " + number(w[1]) +
                     " must equal input.shape[1] / groups = " + number(a.C / a.G));
  a.OH = output_extent(op, 0, a.H, a.KH, p);
  a.OW = output_extent(op, 1, a.W, a.KW, p);
  a.SH = p.stride[0], a.SW = p.stride[1], a.PH = p.padding[0], a.PW = p.padding[1];
  a.DH = p.dilation[0], a.DW = p.dilation[1];
  a.up = 1;
  return a;
}

int64_t tiles(int64_t n, int64_t width) { return (n + width - 1) / width; }

// f(begin, end, scratch) over units of work of `flops` each; how they fall into ranges changes no result.
template <class T, class F>
void over_units(int64_t units, double flops, const F& f) {
  at::parallel_for(0, units, grain(flops),
                   [&](int64_t begin, int64_t end) { f(begin, end, static_cast<T*>(scratch())); });
}

template <class T>
at::Tensor weights_for(int64_t count, const char* op) {
  return make({count}, c10::CppTypeToScalarType<T>::value, op);
}

// conv_direct with every 2 x 2 of the result summed: an image's is made beside the core and only its sums leave. The
// order of the sums is that of upsample_nearest2d_backward.
template <class T>
void direct_halved(const ConvDirect<T>& d, int64_t units, double flops) {
  const int64_t planes = d.G * d.M, H = d.H / 2, W = d.W / 2;
  std::vector<int64_t> twice(std::max(H, W) + 1);
  for (size_t i = 0; i < twice.size(); ++i) twice[i] = 2 * static_cast<int64_t>(i);
  over_units<T>(d.N, flops * static_cast<double>(units), [&](int64_t begin, int64_t end, T* scratch) {
    const at::Tensor image = weights_for<T>(planes * d.H * d.W, "conv2d_backward");
    ConvDirect<T> one = d;
    one.N = 1;
    one.out = mutable_data<T>(image);
    for (int64_t n = begin; n < end; ++n) {
      one.x = d.x + n * d.G * d.map.C * d.map.H * d.map.W;
      kernels_for<T>().conv_direct(one, 0, units, scratch);
      const Upsample<T> sums = {H, W, d.H, d.W, one.out, d.out + n * planes * H * W, twice.data(), twice.data(), 2};
      kernels_for<T>().upsample_nearest2d_backward(sums, 0, planes);
    }
  });
}

// Runs a plan that fits: source and weight -> out, or its sums over every 2 x 2
template <class T>
void direct(const ConvPlan& plan, const Conv2d<T>& a, const T* source, const T* w, const T* bias, T* out,
            bool halved = false) {
  size_t terms = 0;
  for (const PhaseTaps& phase : plan.phases) terms += phase.offset.size();
  const int64_t channels = a.G * tiles(plan.M, kConvLanes) * kConvLanes;  // room for whole vectors of them
  const at::Tensor packed = weights_for<T>(channels * static_cast<int64_t>(terms), "conv2d");
  T* to = mutable_data<T>(packed);
  c10::SmallVector<ConvTaps<T>, 4> taps;
  for (const PhaseTaps& phase : plan.phases) {
    taps.push_back({static_cast<int64_t>(phase.offset.size()), phase.offset.data(), phase.weight.data(), to});
    to += channels * taps.back().K;
  }
  const ConvDirect<T> d = {plan.map,        a.N,         a.G, plan.M, plan.H, plan.W, plan.SDH, plan.SDW, plan.m_step,
                           plan.group_step, taps.data(), w,   source, bias,   out};
  kernels_for<T>().conv_pack(d);
  const int64_t units = a.G * tiles(tiles(plan.H, plan.SDH), plan.map.band);  // of an image
  const double flops = 2.0 * static_cast<double>(terms) * static_cast<double>(plan.M * plan.map.band * plan.map.pitch);
  if (halved) return direct_halved(d, units, flops);
  over_units<T>(a.N * units, flops,
                [&](int64_t begin, int64_t end, T* scratch) { kernels_for<T>().conv_direct(d, begin, end, scratch); });
}

// A 1x1 convolution, which is a product for each image: [M, K] (w, by its strides) @ [K, P] -> [M, P]
template <class T>
bool is_pointwise(const Conv2d<T>& a) {
  return a.KH * a.KW * a.SH * a.SW * a.G == 1 && a.PH + a.PW == 0;
}
template <class T>
void pointwise(const Conv2d<T>& a, int64_t M, int64_t K, const T* w, int64_t w_m, int64_t w_k, const T* source,
               const T* bias, T* out) {
  const int64_t P = a.H * a.W;
  products<T>({.first = {.M = M,
                         .N = P,
                         .K = K,
                         .A = w,
                         .a_m = w_m,
                         .a_k = w_k,
                         .B = source,
                         .b_k = P,
                         .b_n = 1,
                         .C = out,
                         .c_m = P,
                         .bias_m = bias},
               .dims = 1,
               .extent = {a.N},
               .a_step = {0},
               .b_step = {K * P}});
}

// The whole map where x stands for its doubling (Conv2d's `up`).
template <class T>
at::Tensor whole(const at::Tensor& x, const Conv2d<T>& a) {
  return a.up == 1 ? x : upsample_nearest2d(x, {a.H, a.W}, std::nullopt);
}

template <class T>
at::Tensor forward(at::Tensor x, const at::Tensor& w, const at::Tensor& bias, Conv2d<T> a) {
  at::Tensor out = make({a.N, a.OC, a.OH, a.OW}, x.scalar_type(), "conv2d");
  if (out.numel() == 0) return out;
  a.x = data<T>(x), a.w = data<T>(w), a.bias = data<T>(bias), a.out = mutable_data<T>(out);
  const ConvPlan plan = is_pointwise(a) ? ConvPlan{} : forward_plan(a);
  if (plan.fits) {
    direct(plan, a, a.x, a.w, a.bias, a.out);
    return out;
  }
  x = whole(x, a);
  a.x = data<T>(x);
  if (is_pointwise(a)) {
    pointwise(a, a.OC, a.C, a.w, a.C, int64_t{1}, a.x, a.bias, a.out);
    return out;
  }
  const int64_t units = a.N * a.G * tiles(a.OH * a.OW, kConvPixels<T>);
  const double flops = 2.0 * static_cast<double>(out.numel()) * (static_cast<double>(w.numel()) / a.OC) / units;
  over_units<T>(units, flops, [&](int64_t begin, int64_t end, T* scratch) {
    kernels_for<T>().conv2d_forward(a, begin, end, scratch);
  });
  return out;
}

template <class T>
at::Tensor input_grad(const at::Tensor& g, const at::Tensor& w, Conv2d<T> a, const at::Tensor& bias = {}) {
  at::Tensor dx = make({a.N, a.C, a.H, a.W}, g.scalar_type(), "conv2d_input_grad");
  if (dx.numel() == 0) return dx;
  if (is_pointwise(a)) {
    pointwise(a, a.C, a.OC, data<T>(w), int64_t{1}, a.C, data<T>(g), data<T>(bias), mutable_data<T>(dx));
    return dx;
  }
  const ConvPlan plan = input_grad_plan(a);
  if (plan.fits) {
    direct(plan, a, data<T>(g), data<T>(w), data<T>(bias), mutable_data<T>(dx));
    return dx;
  }
  const at::NoGradGuard unrecorded;
  // [G, OC/G, C/G, KH, KW] -> [G, C/G, OC/G, KH, KW]: one copy of the weight, so that a product's row is contiguous
  const at::Tensor transposed = w.view({a.G, a.OC / a.G, a.C / a.G, a.KH, a.KW}).transpose(1, 2).contiguous();
  a.g = data<T>(g), a.w = data<T>(transposed), a.out = mutable_data<T>(dx);
  const int64_t units = a.N * a.G * tiles(a.H * a.W, kConvPixels<T>);
  const double flops = 2.0 * static_cast<double>(dx.numel()) * (static_cast<double>(w.numel()) / a.C) / units;
  over_units<T>(units, flops, [&](int64_t begin, int64_t end, T* scratch) {
    kernels_for<T>().conv2d_input_grad(a, begin, end, scratch);
  });
  if (bias.defined()) dx.add_(bias.view({-1, 1, 1}));
  return dx;
}

// The gradient of what was doubled
template <class T>
at::Tensor doubled_input_grad(const at::Tensor& g, const at::Tensor& w, const Conv2d<T>& a) {
  const at::DimVector small = {a.N, a.C, a.H / 2, a.W / 2};
  const ConvPlan plan = is_pointwise(a) ? ConvPlan{} : input_grad_plan(a);
  if (!plan.fits || g.numel() == 0) return upsample_nearest2d_backward(input_grad(g, w, a), small, std::nullopt);
  at::Tensor dx = make(small, g.scalar_type(), "conv2d_of_doubled_backward");
  if (dx.numel() > 0) direct<T>(plan, a, data<T>(g), data<T>(w), nullptr, mutable_data<T>(dx), true);
  return dx;
}

template <class T>
void weight_grad_by_columns(const at::Tensor& g, const at::Tensor& x, const at::Tensor& dw, Conv2d<T> a) {
  const int64_t C = a.C / a.G;
  // Few columns give too few units to share out, so the batch is cut too: into a number of parts that only the shape
  // decides, each summed in order, the parts added in order.
  const int64_t columns = a.G * tiles(C * a.KH * a.KW, kConvColumns);
  const double total = 2.0 * static_cast<double>(dw.numel()) * static_cast<double>(g.numel() / a.OC);
  a.parts = total < 1e6 ? 1 : std::clamp<int64_t>(8 / columns, 1, a.N);
  const at::Tensor parts = a.parts == 1 ? dw : make({a.parts, dw.numel()}, g.scalar_type(), "conv2d_weight_grad");
  a.g = data<T>(g), a.x = data<T>(x), a.out = mutable_data<T>(parts);
  const int64_t units = a.parts * columns;
  over_units<T>(units, total / static_cast<double>(units), [&](int64_t begin, int64_t end, T* scratch) {
    kernels_for<T>().conv2d_weight_grad(a, begin, end, scratch);
  });
  if (a.parts == 1) return;
  at::parallel_for(0, dw.numel(), grain(static_cast<double>(a.parts)), [&](int64_t begin, int64_t end) {
    kernels_for<T>().sum_parts(a.out, a.parts, dw.numel(), begin, end);
  });
  dw.copy_(parts[0].view_as(dw));
}

// sum over images and pixels of g and x, both as they are; swapped: vectors run along x's channels, which pays where g
// has few and the convolution is dense.
template <class T>
bool swapped(const Conv2d<T>& a) {
  return a.SH == 1 && a.SW == 1 && a.OC / a.G < kConvLanes / 2 && a.C / a.G > a.OC / a.G;
}

// dw, and db where its memory is given and roles are not swapped: false where the shape needs columns.
template <class T>
bool weight_grad_direct(const at::Tensor& g, const at::Tensor& x, T* dw, T* db, const Conv2d<T>& a) {
  const bool swap = swapped(a);
  const ConvPlan plan = swap ? input_grad_plan(a) : forward_plan(a);
  if (!plan.fits) return false;
  const PhaseTaps& taps = plan.phases[0];
  const int64_t K = static_cast<int64_t>(taps.offset.size());
  const int64_t columns = tiles(plan.W, kConvLanes), vectors = tiles(plan.M, kConvLanes);
  // Vectors of pixels or of channels, whichever cost less: tenths of a multiplication of vectors. Channels have to be
  // transposed, and a single vector of them does not fill the units; rows of pixels are short, their sums many.
  const int64_t by_channels = plan.H * plan.W * vectors * (K * (vectors == 1 ? 14 : 11) + 140);
  const bool narrow = plan.M * K * (plan.H * columns * 18 + 20) < by_channels;
  const int64_t padded = (narrow ? plan.M : vectors) * kConvLanes;
  const int64_t doubled = (plan.H * plan.W * (padded + kConvDoubled)) * static_cast<int64_t>(sizeof(T));
  if (swap && a.up == 2 && (narrow || doubled > kScratchBytes - kConvMapBytes)) {
    Conv2d<T> as_read = a;
    as_read.up = 1;
    return weight_grad_direct(g, whole(x, a), dw, db, as_read);
  }
  const double flops = 2.0 * static_cast<double>(a.N * K * plan.H * plan.W) * static_cast<double>(padded);
  // A block of the map's channels is a unit of work, large enough to hide the transpose of v, small enough for L2. The
  // batch is summed in parts, so that threads can share it. Only the shape decides on both.
  const int64_t C = plan.map.C, block = tiles(C, tiles(K, kConvTaps)), blocks = tiles(C, block);
  const int64_t parts = flops * static_cast<double>(a.G) < 1e6 ? 1 : std::clamp<int64_t>(8 / (a.G * blocks), 1, a.N);
  const at::Tensor sums = weights_for<T>(parts * a.G * (K + 1) * padded, "conv2d_weight_grad");
  const T *gs = data<T>(g), *xs = data<T>(x);
  const ConvWeight<T> c = {plan.map,
                           a.N,
                           a.G,
                           plan.M,
                           plan.H,
                           plan.W,
                           plan.m_step,
                           plan.group_step,
                           parts,
                           block,
                           padded,
                           swap ? a.up : 1,
                           narrow,
                           {K, taps.offset.data(), taps.weight.data(), nullptr},
                           swap ? gs : xs,
                           swap ? xs : gs,
                           mutable_data<T>(sums),
                           dw,
                           swap ? nullptr : db};
  over_units<T>(parts * a.G * blocks, flops / static_cast<double>(parts * blocks),
                [&](int64_t begin, int64_t end, T* scratch) { kernels_for<T>().conv_weight(c, begin, end, scratch); });
  kernels_for<T>().conv_weight_fold(c);
  return true;
}

// g: [N, C, H, W] -> out [C]
template <class T>
void sum_channels(const at::Tensor& g, const at::Tensor& out) {
  const int64_t N = g.size(0), C = g.size(1), P = g.size(2) * g.size(3);
  at::parallel_for(0, C, grain(static_cast<double>(N) * static_cast<double>(P)), [&](int64_t begin, int64_t end) {
    kernels_for<T>().plane_sums(data<T>(g), N, C, P, begin, end, mutable_data<T>(out));
  });
}

// dw and db, each where needed, else undefined
template <class T>
std::pair<at::Tensor, at::Tensor> weight_grad(const at::Tensor& g, const at::Tensor& x, const Conv2d<T>& a,
                                              bool need_weight, bool need_bias) {
  at::Tensor dw, db;
  if (need_bias) db = make({a.OC}, g.scalar_type(), "conv2d_backward");
  bool have_bias = !need_bias;
  if (need_weight) {
    dw = make({a.OC, a.C / a.G, a.KH, a.KW}, g.scalar_type(), "conv2d_weight_grad");
    if (g.numel() == 0 || x.numel() == 0)
      dw.zero_();
    else if (dw.numel() > 0) {
      if (weight_grad_direct(g, x, mutable_data<T>(dw), need_bias ? mutable_data<T>(db) : nullptr, a))
        have_bias = have_bias || !swapped(a);
      else
        weight_grad_by_columns(g, whole(x, a), dw, a);
    }
  }
  if (!have_bias) sum_channels<T>(g, db);
  return {dw, db};
}

template <class T>
at::DimVector output_size(const Conv2d<T>& a) {
  return {a.N, a.OC, a.OH, a.OW};
}

}  // namespace

at::Tensor conv2d(const at::Tensor& input, const at::Tensor& weight, const std::optional<at::Tensor>& bias,
                  const ConvParams& params, bool of_doubled) {
  const char* op = of_doubled ? "conv2d_of_doubled" : "conv2d";
  at::Tensor x = checked(input, op, "input", 4);
  const at::Tensor w = checked(weight, op, "weight", 4, x);
  at::DimVector size(x.sizes());
  if (of_doubled) size[2] *= 2, size[3] *= 2;
  return by_dtype(x, [&](auto zero) {
    auto a = geometry<decltype(zero)>(op, size, w.sizes(), params);
    const at::Tensor b = bias ? checked_sizes(*bias, op, "bias", {a.OC}, x) : at::Tensor();
    if (of_doubled) a.up = 2;
    if (a.SH * a.SW != 1) x = whole(x, a), a.up = 1;
    return forward(x, w, b, a);
  });
}

at::Tensor conv2d_input_grad(const at::Tensor& grad, const at::Tensor& weight, at::IntArrayRef input_size,
                             const ConvParams& params) {
  const char* op = "conv2d_input_grad";
  const at::Tensor w = checked(weight, op, "weight", 4);
  return by_dtype(w, [&](auto zero) {
    const auto a = geometry<decltype(zero)>(op, input_size, w.sizes(), params);
    return input_grad(checked_sizes(grad, op, "g", output_size(a), w), w, a);
  });
}

at::Tensor conv2d_weight_grad(const at::Tensor& grad, const at::Tensor& input, at::IntArrayRef weight_size,
                              const ConvParams& params) {
  const char* op = "conv2d_weight_grad";
  const at::Tensor x = checked(input, op, "input", 4);
  return by_dtype(x, [&](auto zero) {
    const auto a = geometry<decltype(zero)>(op, x.sizes(), weight_size, params);
    return weight_grad(checked_sizes(grad, op, "g", output_size(a), x), x, a, true, false).first;
  });
}

Gradients conv2d_backward(const at::Tensor& grad, const std::optional<at::Tensor>& input,
                          const std::optional<at::Tensor>& weight, at::IntArrayRef input_size,
                          at::IntArrayRef weight_size, const ConvParams& params, bool need_input, bool need_weight,
                          bool need_bias, bool of_doubled) {
  const char* op = of_doubled ? "conv2d_of_doubled_backward" : "conv2d_backward";
  const at::Tensor contiguous = checked(grad, op, "g", 4);
  return by_dtype(contiguous, [&](auto zero) {
    auto a = geometry<decltype(zero)>(op, input_size, weight_size, params);
    const at::Tensor g = checked_sizes(contiguous, op, "g", output_size(a), contiguous);
    at::Tensor x, w, dx;
    if (of_doubled && a.H % 2 + a.W % 2 != 0)
      throw ShapeError(std::string(op) + ": input_size must be even, is " + text(input_size));
    if (need_weight && of_doubled) {
      x = checked_sizes(input ? *input : at::Tensor(), op, "input", {a.N, a.C, a.H / 2, a.W / 2}, g);
      a.up = 2;
      if (a.SH * a.SW != 1) x = whole(x, a), a.up = 1;
    } else if (need_weight) {
      x = checked_sizes(input ? *input : at::Tensor(), op, "input", input_size, g);
    }
    if (need_input) w = checked_sizes(weight ? *weight : at::Tensor(), op, "weight", weight_size, g);
    const auto [dw, db] = weight_grad(g, x, a, need_weight, need_bias);
    if (need_input) dx = of_doubled ? doubled_input_grad(g, w, a) : input_grad(g, w, a);
    return Gradients{dx, dw, db};
  });
}

at::Tensor conv_transpose2d(const at::Tensor& g, const at::Tensor& weight, const at::Tensor& bias,
                            at::IntArrayRef output_size, const ConvParams& params) {
  return by_dtype(weight, [&](auto zero) {
    return input_grad(g, weight, geometry<decltype(zero)>("conv_transpose2d", output_size, weight.sizes(), params),
                      bias);
  });
}

at::Tensor channel_sums(const at::Tensor& g) {
  const at::Tensor out = make({g.size(1)}, g.scalar_type(), "channel_sums");
  by_dtype(g, [&](auto zero) { sum_channels<decltype(zero)>(g, out); });
  return out;
}

}  // namespace tapegrad
