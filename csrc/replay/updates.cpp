#include "replay/updates.h"

#include "ops/elementwise.h"
#include "replay/places.h"

namespace tapegrad {
namespace {

bool is_float(const at::Tensor& t) { return t.scalar_type() == at::kFloat || t.scalar_type() == at::kDouble; }
// Contiguous memory of the parameters' dtype.
bool plain(const at::Tensor& t, const at::Tensor& like) {
  return t.defined() && t.is_contiguous() && t.scalar_type() == like.scalar_type() && !t.is_neg();
}

// Where the tensors of a segment lie.
template <class T>
struct Places {
  At<T> p, g, state[3];
  At<float> counts[2];
};

// Pointers are good until the memory is another's.
template <class T, class O>
class Update final : public Call {
 public:
  Update(std::vector<Segment<T>> all, std::vector<Places<T>> places, const O& options)
      : all_(std::move(all)), places_(std::move(places)), options_(options) {
    rebound();
  }
  void run() override { update<T, O>(all_, options_); }
  void set(size_t argument, double value) override { set_number(options_, argument, value); }
  void set(size_t, uint64_t) override {}
  void rebound() override {
    for (size_t i = 0; i < all_.size(); ++i) {
      const Places<T>& at = places_[i];
      all_[i].at = {at.p.get(), at.g.get(), {at.state[0].get(), at.state[1].get(), at.state[2].get()}};
      for (size_t j = 0; j < 2; ++j) all_[i].counts[j] = at.counts[j].get();
    }
  }

 private:
  std::vector<Segment<T>> all_;
  std::vector<Places<T>> places_;
  O options_;
};

// One for each parameter, of its size and dtype, in memory that is there.
bool all_there(const Tensors& list, const Tensors& params) {
  if (list.size() != params.size()) return false;
  for (size_t i = 0; i < list.size(); ++i)
    if (!plain(list[i], params[0]) || list[i].sizes() != params[i].sizes() ||
        (list[i].numel() > 0 && !list[i].const_data_ptr()))
      return false;
  return true;
}
bool all_counts(const Tensors& list, const Tensors& params) {
  if (list.size() != params.size()) return false;
  for (const at::Tensor& t : list)
    if (!t.defined() || t.scalar_type() != at::kFloat || t.numel() != 1 || !t.const_data_ptr()) return false;
  return true;
}

}  // namespace

template <class O>
std::unique_ptr<Call> direct_update(const std::vector<Tensors>& lists, const O& options) {
  using R = Rules<O>;
  const Tensors& params = lists[0];
  const Tensors* const states = &lists[2];
  const Tensors* const counts = states + R::states.size();
  if (params.empty() || !params[0].defined() || !is_float(params[0]) || !all_there(params, params) ||
      !all_there(lists[1], params))
    return nullptr;
  for (size_t j = 0; j < R::states.size(); ++j)
    if ((R::uses(options, j) || !states[j].empty()) && !all_there(states[j], params)) return nullptr;
  for (size_t j = 0; j < R::count_names.size(); ++j)
    if ((R::counts(options) || !counts[j].empty()) && !all_counts(counts[j], params)) return nullptr;
  return by_dtype(params[0], [&](auto zero) -> std::unique_ptr<Call> {
    using T = decltype(zero);
    std::vector<Segment<T>> all;
    std::vector<Places<T>> places;
    for (size_t i = 0; i < params.size(); ++i) {
      all.push_back({params[i].numel(), {}, {}});
      Places<T> at = {At<T>(params[i]), At<T>(lists[1][i]), {}, {}};
      for (size_t j = 0; j < R::states.size(); ++j)
        if (!states[j].empty()) at.state[j] = At<T>(states[j][i]);
      for (size_t j = 0; j < R::count_names.size(); ++j)
        if (!counts[j].empty()) at.counts[j] = At<float>(counts[j][i]);
      places.push_back(std::move(at));
    }
    return std::make_unique<Update<T, O>>(std::move(all), std::move(places), options);
  });
}

#define TG_INSTANTIATE(Name) \
  template std::unique_ptr<Call> direct_update(const std::vector<Tensors>&, const Name##Options&);
TG_OPTIMIZERS(TG_INSTANTIATE)

}  // namespace tapegrad
