#include "replay/arena.h"

#include <algorithm>
#include <bit>

namespace tapegrad {
namespace {

// Bytes that are taken: spans in order, those that meet merged. Pieces are placed from the bottom, so they are few.
class Spans {
 public:
  void add(int64_t begin, int64_t end) {
    const auto ends_before = [](const Span& span, int64_t at) { return span.end < at; };
    const auto first = std::lower_bound(spans_.begin(), spans_.end(), begin, ends_before);
    auto last = first;
    for (; last != spans_.end() && last->begin <= end; ++last) {
      begin = std::min(begin, last->begin);
      end = std::max(end, last->end);
    }
    if (first == last) {
      spans_.insert(first, {begin, end});
    } else {
      *first = {begin, end};
      spans_.erase(first + 1, last);
    }
  }

  // The lowest place from `offset` on where `bytes` bytes are free.
  int64_t free_from(int64_t offset, int64_t bytes) const {
    const auto ends_by = [](int64_t at, const Span& span) { return at < span.end; };
    auto span = std::upper_bound(spans_.begin(), spans_.end(), offset, ends_by);
    for (; span != spans_.end() && span->begin < offset + bytes; ++span) offset = span->end;
    return offset;
  }

 private:
  struct Span {
    int64_t begin, end;
  };
  std::vector<Span> spans_;
};

// What is taken in a stretch of steps, in a binary tree over all of them. A piece's steps are O(log steps) nodes, the
// pieces in use during some steps are what O(log steps) nodes know.
class Tree {
 public:
  explicit Tree(int64_t steps) : steps_(std::bit_ceil(static_cast<uint64_t>(steps))), nodes_(2 * steps_) {}

  void add(const Piece& piece, int64_t offset) {
    walk(1, 0, steps_, piece, [&](Node& node, bool covered) {
      node.somewhere.add(offset, offset + piece.bytes);
      if (covered) node.throughout.add(offset, offset + piece.bytes);
    });
  }

  int64_t lowest(const Piece& piece) {
    found_.clear();
    walk(1, 0, steps_, piece,
         [&](Node& node, bool covered) { found_.push_back(covered ? &node.somewhere : &node.throughout); });
    int64_t offset = 0;
    for (size_t agreed = 0, i = 0; agreed < found_.size(); ++agreed, i = (i + 1) % found_.size()) {
      const int64_t next = found_[i]->free_from(offset, piece.bytes);
      if (next != offset) agreed = 0;
      offset = next;
    }
    return offset;
  }

 private:
  struct Node {
    Spans somewhere,
        throughout;  // taken in some of its steps; in all of them, by pieces that its parent does not cover
  };

  // f(node, whether the piece covers it) from the root down to the nodes that the piece covers
  template <class F>
  void walk(int64_t node, int64_t begin, int64_t end, const Piece& piece, const F& f) {
    const bool covered = piece.first <= begin && end - 1 <= piece.last;
    f(nodes_[node], covered);
    if (covered) return;
    const int64_t middle = (begin + end) / 2;
    if (piece.first < middle) walk(2 * node, begin, middle, piece, f);
    if (piece.last >= middle) walk(2 * node + 1, middle, end, piece, f);
  }

  int64_t steps_;
  std::vector<Node> nodes_;
  std::vector<const Spans*> found_;
};

}  // namespace

std::vector<int64_t> place(const std::vector<Piece>& pieces) {
  // Pieces that are in use at the same time are so at the first step of one of them: no other step counts.
  std::vector<int64_t> steps;
  for (const Piece& piece : pieces) steps.push_back(piece.first);
  std::sort(steps.begin(), steps.end());
  steps.erase(std::unique(steps.begin(), steps.end()), steps.end());
  const auto until = [&](int64_t step) { return std::upper_bound(steps.begin(), steps.end(), step) - steps.begin(); };
  Tree tree(std::max<int64_t>(1, static_cast<int64_t>(steps.size())));
  std::vector<int64_t> offsets;
  for (const Piece& piece : pieces) {
    const Piece counted{piece.bytes, until(piece.first) - 1, until(piece.last) - 1};
    offsets.push_back(tree.lowest(counted));
    tree.add(counted, offsets.back());
  }
  return offsets;
}

}  // namespace tapegrad
