#include "replay/torch_call.h"

namespace tapegrad {

TorchCall::TorchCall(c10::OperatorHandle op, torch::jit::Stack arguments, std::vector<at::Tensor> outs, bool into)
    : op_(std::move(op)), arguments_(std::move(arguments)), outs_(std::move(outs)), into_(into) {}

void TorchCall::run() {
  stack_ = arguments_;
  op_.callBoxed(stack_);
  if (!into_ && !outs_.empty()) {
    size_t i = 0;
    for (const c10::IValue& result : stack_) {
      if (result.isNone()) {
        ++i;
        continue;
      }
      if (result.isTensor()) {
        place(result.toTensor(), outs_[i++]);
        continue;
      }
      for (const at::Tensor& t : result.toTensorVector()) place(t, outs_[i++]);
    }
  }
  stack_.clear();
}

void TorchCall::set(size_t argument, double value) { arguments_[argument] = value; }
void TorchCall::set(size_t argument, uint64_t value) { arguments_[argument] = static_cast<int64_t>(value); }

}  // namespace tapegrad
