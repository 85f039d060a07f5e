// Where the memory of a compiled tape lies in its arena.
#pragma once
#include <cstdint>
#include <vector>

namespace tapegrad {

struct Piece {  // `bytes` of memory, in use from step `first` to step `last`
  int64_t bytes, first, last;
};

// An offset for each piece: in the order given, the lowest at which nothing lies that is in use at the same time.
std::vector<int64_t> place(const std::vector<Piece>& pieces);

}  // namespace tapegrad
