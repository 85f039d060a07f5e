// The instruction sets of this build, best first: X(name of the namespace, whether this processor has it).
// CMakeLists.txt compiles the kernels once for each.
#pragma once
#if defined(__x86_64__)
#define TG_HAS_AVX2 (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
#define TG_HAS_AVX512                                                                        \
  (TG_HAS_AVX2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && \
   __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl"))
#define TG_ISAS(X)         \
  X(avx512, TG_HAS_AVX512) \
  X(avx2, TG_HAS_AVX2)     \
  X(baseline, true)
#elif defined(__aarch64__)
#define TG_ISAS(X) X(neon, true)
#else
#define TG_ISAS(X) X(baseline, true)
#endif
