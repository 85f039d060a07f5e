#include "ops/upsample.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "dispatch.h"
#include "ops/border.h"

namespace tapegrad {
namespace {

// [output]: the source of each destination, ascending
std::vector<int64_t> sources(const char* op, int64_t input, int64_t output, std::optional<double> factor) {
  const float scale = factor ? static_cast<float>(1.0 / *factor) : static_cast<float>(input) / output;
  if (factor && (!(*factor > 0) || !std::isfinite(scale)))
    throw ShapeError(std::string(op) + ": scales must be positive and finite, one is " + std::to_string(*factor));
  std::vector<int64_t> table(output);
  for (int64_t i = 0; i < output; ++i) {
    if (output == input)
      table[i] = i;
    else if (output == 2 * input)
      table[i] = i >> 1;
    else  // compared as float: the product may be beyond int64
      table[i] = static_cast<int64_t>(std::min(std::floor(i * scale), static_cast<float>(input - 1)));
    table[i] = std::min(table[i], input - 1);
  }
  return table;
}

// [input + 1]: source i feeds destinations [table[i], table[i + 1])
std::vector<int64_t> destinations(const std::vector<int64_t>& sources, int64_t input) {
  std::vector<int64_t> table(input + 1, 0);
  for (const int64_t source : sources) ++table[source + 1];
  for (int64_t i = 0; i < input; ++i) table[i + 1] += table[i];
  return table;
}

void check_spatial(const char* op, const char* name, int64_t H, int64_t W) {
  if (H < 1 || W < 1)
    throw ShapeError(std::string(op) + ": " + name + " height and width must be at least 1, are " + text({H, W}));
}

std::optional<double> along(const Scales& scales, int axis) {
  return scales ? std::optional((*scales)[axis]) : std::nullopt;
}

int64_t whole_factor(const std::vector<int64_t>& table, int64_t input) {
  const int64_t output = static_cast<int64_t>(table.size()), factor = output / input;
  if (output % input != 0) return 0;
  for (int64_t i = 0; i < output; ++i)
    if (table[i] != i / factor) return 0;
  return factor;
}

}  // namespace

at::Tensor upsample_nearest2d(const at::Tensor& input, std::array<int64_t, 2> output_size, const Scales& scales) {
  const char* op = "upsample_nearest2d";
  const at::Tensor x = checked(input, op, "input", 4);
  const int64_t H = x.size(2), W = x.size(3), OH = output_size[0], OW = output_size[1];
  check_spatial(op, "input", H, W);
  check_spatial(op, "output", OH, OW);
  const at::Tensor out = make({x.size(0), x.size(1), OH, OW}, x.scalar_type(), op);
  if (out.numel() == 0) return out;
  const auto rows = sources(op, H, OH, along(scales, 0)), columns = sources(op, W, OW, along(scales, 1));
  by_dtype(x, [&](auto zero) {
    using T = decltype(zero);
    const Upsample<T> a = {
        H, W, OH, OW, data<T>(x), mutable_data<T>(out), rows.data(), columns.data(), whole_factor(columns, W)};
    at::parallel_for(0, x.size(0) * x.size(1), grain(static_cast<double>(OH) * OW),
                     [&](int64_t begin, int64_t end) { kernels_for<T>().upsample_nearest2d(a, begin, end); });
  });
  return out;
}

at::Tensor upsample_nearest2d_backward(const at::Tensor& grad, at::IntArrayRef input_size, const Scales& scales) {
  const char* op = "upsample_nearest2d_backward";
  const at::Tensor g = checked(grad, op, "g", 4);
  if (input_size.size() != 4)
    throw ShapeError(std::string(op) + ": input_size must be (N, C, H, W), is " + text(input_size));
  const int64_t H = input_size[2], W = input_size[3], OH = g.size(2), OW = g.size(3);
  check_spatial(op, "input_size", H, W);
  check_spatial(op, "g", OH, OW);
  if (g.size(0) != input_size[0] || g.size(1) != input_size[1])
    throw ShapeError(std::string(op) + ": g.shape[:2] = " + text(g.sizes().slice(0, 2)) +
                     " must equal input_size[:2] = " + text(input_size.slice(0, 2)));
  const at::Tensor dx = make(input_size, g.scalar_type(), op);
  if (dx.numel() == 0) return dx;
  const auto rows = destinations(sources(op, H, OH, along(scales, 0)), H);
  const auto column_sources = sources(op, W, OW, along(scales, 1)), columns = destinations(column_sources, W);
  by_dtype(g, [&](auto zero) {
    using T = decltype(zero);
    const Upsample<T> a = {H, W, OH, OW, data<T>(g), mutable_data<T>(dx), rows.data(), columns.data(),
                           whole_factor(column_sources, W)};
    at::parallel_for(0, g.size(0) * g.size(1), grain(static_cast<double>(OH) * OW),
                     [&](int64_t begin, int64_t end) { kernels_for<T>().upsample_nearest2d_backward(a, begin, end); });
  });
  return dx;
}

}  // namespace tapegrad
