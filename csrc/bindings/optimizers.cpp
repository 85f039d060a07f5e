#include "bindings/optimizers.h"

#include "bindings/kernel.h"
#include "replay/updates.h"

namespace tapegrad {
namespace {

template <class T, size_t>
using Each = T;

// f(params, grads, states..., counts..., numbers..., switches...)
template <class O, size_t... L, size_t... N, size_t... S>
void bind(py::module_& m, std::index_sequence<L...>, std::index_sequence<N...>, std::index_sequence<S...>) {
  using R = Rules<O>;
  const auto f = [](const Tensors& params, const Tensors& grads, const Each<Tensors, L>&... lists,
                    Each<double, N>... numbers,
                    Each<bool, S>... switches) { update<O>({params, grads, lists...}, O{numbers..., switches...}); };
  const auto list_name = [](size_t i) {
    return i < R::states.size() ? R::states[i] : R::count_names[i - R::states.size()];
  };
  kernel(m, R::op, f, "params", "grads", list_name(L)..., R::numbers[N].name..., R::switches[S]...);
}
template <class O>
void bind(py::module_& m) {
  bind<O>(m, std::make_index_sequence<kLists<O> - 2>(), std::make_index_sequence<Rules<O>::numbers.size()>(),
          std::make_index_sequence<Rules<O>::switches.size()>());
}

}  // namespace

void bind_optimizers(py::module_& m) {
#define TG_BIND(Name) bind<Name##Options>(m);
  TG_OPTIMIZERS(TG_BIND)
#undef TG_BIND
}

void add_updates(std::map<std::string, CallMaker>& all) {
#define TG_ADD(Name)                                                                \
  all[Rules<Name##Options>::op] = [](const py::tuple& a, const Tensors&) {          \
    return direct_update(lists_of<Name##Options>(a), options_of<Name##Options>(a)); \
  };
  TG_OPTIMIZERS(TG_ADD)
#undef TG_ADD
}

}  // namespace tapegrad
