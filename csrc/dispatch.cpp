#include "dispatch.h"

#include <cstdlib>
#include <stdexcept>
#include <string>

namespace tapegrad {

namespace baseline {
extern const Kernels table;
}
#ifdef TG_X86
namespace avx2 {
extern const Kernels table;
}
namespace avx512 {
extern const Kernels table;
}
#endif

namespace {

struct Choice {
  const Kernels* table;  // null where this build has none
  bool supported;
};

const char* const kNames[] = {"avx512", "avx2", "baseline"};  // best first

Choice choice(const std::string& name) {
#ifdef TG_X86
  __builtin_cpu_init();
  const bool has_avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  if (name == "avx2") return {&avx2::table, has_avx2};
  if (name == "avx512")
    return {&avx512::table, has_avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                                __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl")};
#endif
  if (name == "baseline") return {&baseline::table, true};
  return {nullptr, false};
}

const Kernels& choose() {
  const char* forced = std::getenv("TAPEGRAD_ISA");
  if (forced == nullptr || *forced == '\0') {
    for (const char* name : kNames)
      if (choice(name).supported) return *choice(name).table;
  }
  for (const char* name : kNames) {
    if (std::string(name) != forced) continue;
    if (choice(name).supported) return *choice(name).table;
    throw std::runtime_error("TAPEGRAD_ISA=" + std::string(forced) + ": this processor or this build has no " + name);
  }
  throw std::runtime_error("TAPEGRAD_ISA=" + std::string(forced) + ": expected baseline, avx2 or avx512");
}

}  // namespace

const Kernels& kernels() {
  static const Kernels& chosen = choose();
  return chosen;
}

}  // namespace tapegrad
