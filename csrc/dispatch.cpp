#include "dispatch.h"

#include <cstdlib>
#include <stdexcept>
#include <string>
#include <vector>

#include "isas.h"

namespace tapegrad {

#define TG_DECLARE_TABLE(name, has) \
  namespace name {                  \
  extern const Kernels table;       \
  }
TG_ISAS(TG_DECLARE_TABLE)

namespace {

struct Choice {
  std::string name;
  const Kernels* table;
};

const Kernels& choose() {
#ifdef __x86_64__
  __builtin_cpu_init();
#endif
  std::vector<Choice> choices;
#define TG_ADD_CHOICE(name, has) \
  if (has) choices.push_back({#name, &name::table});
  TG_ISAS(TG_ADD_CHOICE)
  const char* forced = std::getenv("TAPEGRAD_ISA");
  if (forced == nullptr || *forced == '\0') return *choices.front().table;
  std::string names;
  for (const Choice& c : choices) {
    if (c.name == forced) return *c.table;
    names += (names.empty() ? "" : ", ") + c.name;
  }
  throw std::runtime_error("TAPEGRAD_ISA=" + std::string(forced) +
                           ": expected one that this build and this processor have: " + names);
}

}  // namespace

const Kernels& kernels() {
  static const Kernels& chosen = choose();
  return chosen;
}

}  // namespace tapegrad
