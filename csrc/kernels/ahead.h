// The next image's source is asked for during arithmetic, a line at a time: waiting for it costs as much as a small
// layer's arithmetic, and more lines at a time than the core can have under way would be waited for too.
#pragma once
#include "kernels/vec.h"

namespace tapegrad::TG_ISA {

struct Ahead {
  static constexpr int64_t LINE = 64;
  const char *at, *end;
  TG_INLINE void ask() {
    __builtin_prefetch(at, 0, 2);
    at += at < end ? LINE : 0;
  }
  TG_INLINE void ask(int64_t lines) {
    for (; lines > 0 && at < end; --lines) ask();
  }
};

// [first, first + n)
template <class T>
Ahead ahead_of(const T* first, int64_t n) {
  const char* at = static_cast<const char*>(static_cast<const void*>(first));
  return {at, at + n * static_cast<int64_t>(sizeof(T))};
}

}  // namespace tapegrad::TG_ISA
