// Memory for results. A fresh page costs more than the arithmetic on it (13 MB mapped and touched anew: 4.5 ms; used
// again: 0.1 ms), and malloc gives even 120 kB back to the system where they end its heap. So blocks that a result gave
// back are kept for the next one, up to a bound.
#pragma once
#include <c10/core/Allocator.h>

namespace tapegrad {

constexpr size_t kBlockBytes = 32 << 10;  // below it blocks are kept by their exact size

c10::Allocator* block_allocator();

// Gives what is kept back to the system; how many bytes that was.
int64_t empty_cache();

}  // namespace tapegrad
