#include "bindings/kernel.h"

namespace tapegrad {
std::map<std::string, Binder>& binders() {
  static std::map<std::string, Binder>& one = *new std::map<std::string, Binder>;
  return one;
}

}  // namespace tapegrad
