/* Preloaded: counts the blocks that a process asks glibc for. */
#include <errno.h>
#include <stddef.h>

extern void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t), *__libc_realloc(void *, size_t);
extern void *__libc_memalign(size_t, size_t);

static long count;
long allocations(void) { return __atomic_load_n(&count, __ATOMIC_RELAXED); }
static void one(void) { __atomic_add_fetch(&count, 1, __ATOMIC_RELAXED); }

void *malloc(size_t n) { return one(), __libc_malloc(n); }
void *calloc(size_t n, size_t size) { return one(), __libc_calloc(n, size); }
void *realloc(void *p, size_t n) { return one(), __libc_realloc(p, n); }
void *memalign(size_t align, size_t n) { return one(), __libc_memalign(align, n); }
void *aligned_alloc(size_t align, size_t n) { return memalign(align, n); }
int posix_memalign(void **p, size_t align, size_t n) { return (*p = memalign(align, n)) || !n ? 0 : ENOMEM; }
