// Chains of elementwise calls are run tile by tile.
#pragma once
#include <cstdint>

namespace tapegrad {

inline constexpr int64_t kTile = 2048;  // elements; a multiple of every vector

}  // namespace tapegrad
