// An instruction that is an operator of torch.
#pragma once
#include <ATen/core/dispatch/Dispatcher.h>

#include "replay/call.h"

namespace tapegrad {

// An operator of torch, called through its dispatcher, on one thread where it is among those that the eager step calls
// so (_C.on_one_thread). `into`: the last arguments are the outputs (an out=
// overload).
class TorchCall final : public Call {
 public:
  TorchCall(c10::OperatorHandle op, torch::jit::Stack arguments, std::vector<at::Tensor> outs, bool into);
  void run() override;
  void set(size_t argument, double value) override;
  void set(size_t argument, uint64_t value) override;

 private:
  c10::OperatorHandle op_;
  torch::jit::Stack arguments_, stack_;
  std::vector<at::Tensor> outs_;
  bool into_, alone_;
};

}  // namespace tapegrad
