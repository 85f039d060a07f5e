#include "replay/torch_call.h"

#include "ops/panels.h"

namespace tapegrad {
namespace {

bool on_one_thread(const c10::OperatorHandle& op) {
  const std::string &name = op.schema().name(), &overload = op.schema().overload_name();
  for (const char* one : {"aten::index_put_", "aten::arange", "aten::linalg_", "aten::_linalg_"})
    if (name.rfind(one, 0) == 0) return true;
  return name == "aten::clamp" && overload[0] == 'T';
}

}  // namespace

TorchCall::TorchCall(c10::OperatorHandle op, torch::jit::Stack arguments, std::vector<at::Tensor> outs, bool into)
    : op_(std::move(op)),
      arguments_(std::move(arguments)),
      outs_(std::move(outs)),
      into_(into),
      alone_(on_one_thread(op_)) {}

void TorchCall::run() {
  std::optional<OneThread> alone;
  if (alone_) alone.emplace();
  stack_ = arguments_;
  op_.callBoxed(stack_);
  if (!into_ && !outs_.empty()) {
    size_t i = 0;
    const auto next = [&]() -> const at::Tensor& {
      if (i == outs_.size()) throw std::invalid_argument("the operator has more results than places for them");
      return outs_[i++];
    };
    for (const c10::IValue& result : stack_) {
      if (result.isNone()) {
        ++i;
        continue;
      }
      if (result.isTensor()) {
        place(result.toTensor(), next());
        continue;
      }
      for (const at::Tensor& t : result.toTensorVector()) place(t, next());
    }
  }
  stack_.clear();
}

void TorchCall::set(size_t argument, double value) { arguments_.at(argument) = value; }
void TorchCall::set(size_t argument, uint64_t value) { arguments_.at(argument) = static_cast<int64_t>(value); }

}  // namespace tapegrad
