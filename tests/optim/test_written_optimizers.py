"""Optimizers that scripts write for torch: subclasses of Optimizer, of Adam, and wrappers around another one."""

import copy
import pickle
from collections import defaultdict

import pytest
import torch

import tapegrad as tg


def belief(lib):
    """AdaBelief in the way scripts write optimizers: state made at the first step, numbers and tensors in it."""

    class AdaBelief(lib.optim.Optimizer):
        def __init__(self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-8):
            if lr <= 0:
                raise ValueError(f"Invalid learning rate: {lr}")
            super().__init__(params, {"lr": lr, "betas": betas, "eps": eps})

        def __setstate__(self, state):
            super().__setstate__(state)
            for group in self.param_groups:
                group.setdefault("amsgrad", False)

        @lib.no_grad()
        def step(self, closure=None):
            loss = None
            if closure is not None:
                with lib.enable_grad():
                    loss = closure()
            for group in self.param_groups:
                beta1, beta2 = group["betas"]
                for p in group["params"]:
                    if p.grad is None:
                        continue
                    grad = p.grad.data
                    assert not grad.is_sparse
                    state = self.state[p]
                    if len(state) == 0:
                        state["step"] = 0
                        state["m"] = lib.zeros_like(p.data)
                        state["s"] = lib.zeros_like(p.data)
                    state["step"] += 1
                    state["m"].mul_(beta1).add_(grad, alpha=1 - beta1)
                    rest = grad - state["m"]
                    state["s"].mul_(beta2).addcmul_(rest, rest, value=1 - beta2).add_(group["eps"])
                    scale = group["lr"] / (1 - beta1 ** state["step"])
                    p.data.addcdiv_(
                        state["m"], (state["s"] / (1 - beta2 ** state["step"])).sqrt().add_(1e-8), value=-scale
                    )
            return loss

    return AdaBelief


def shared(lib):
    """A3C's Adam, which makes the state at once and shares its memory."""

    class SharedAdam(lib.optim.Adam):
        def __init__(self, params, lr=1e-3):
            super().__init__(params, lr=lr)
            for group in self.param_groups:
                for p in group["params"]:
                    state = self.state[p]
                    state["step"] = lib.zeros(1)[0]
                    state["exp_avg"] = lib.zeros_like(p.data)
                    state["exp_avg_sq"] = lib.zeros_like(p.data)
                    state["exp_avg"].share_memory_()

    return SharedAdam


def sharpness(lib):
    """SAM: a step to the worst point nearby, then a base optimizer that shares the groups."""

    class SAM(lib.optim.Optimizer):
        def __init__(self, params, rho=0.05, **kwargs):
            super().__init__(params, {"rho": rho, **kwargs})
            self.base_optimizer = lib.optim.SGD(self.param_groups, **kwargs)
            self.param_groups = self.base_optimizer.param_groups
            self.defaults.update(self.base_optimizer.defaults)

        @lib.no_grad()
        def step(self, closure):
            with lib.enable_grad():
                loss = closure()
            norms = [p.grad.norm(p=2) for group in self.param_groups for p in group["params"]]
            scale = self.param_groups[0]["rho"] / (lib.norm(lib.stack(norms), p=2) + 1e-12)
            for group in self.param_groups:
                for p in group["params"]:
                    self.state[p]["old_p"] = p.data.clone()
                    p.add_(p.grad * scale.to(p))
            self.zero_grad()
            with lib.enable_grad():
                closure()
            for group in self.param_groups:
                for p in group["params"]:
                    p.data = self.state[p]["old_p"]
            self.base_optimizer.step()
            return loss

    return lambda params, lr=0.1: SAM(params, lr=lr, momentum=0.9)


def lookahead(lib):
    """A wrapper around another optimizer, whose groups it shares."""

    class Lookahead(lib.optim.Optimizer):
        def __init__(self, optimizer, k=2, alpha=0.5):
            super().__init__([p for group in optimizer.param_groups for p in group["params"]], optimizer.defaults)
            self.optimizer, self.k, self.alpha, self.count = optimizer, k, alpha, 0
            self.param_groups = optimizer.param_groups
            self.state = defaultdict(dict)
            self.slow = [[p.clone().detach() for p in group["params"]] for group in self.param_groups]

        def step(self, closure=None):
            loss = self.optimizer.step(closure)
            self.count += 1
            if self.count % self.k == 0:
                for group, slow in zip(self.param_groups, self.slow, strict=True):
                    for p, q in zip(group["params"], slow, strict=True):
                        q.data.add_(p.data - q.data, alpha=self.alpha)
                        p.data.copy_(q.data)
            return loss

    return lambda params, lr=0.05: Lookahead(lib.optim.Adam(params, lr=lr))


X = torch.randn(8, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def trained(lib, make, steps=5, optimizer=None, model=None):
    if model is None:
        model = lib.nn.Sequential(lib.nn.Linear(3, 4), lib.nn.Tanh(), lib.nn.Linear(4, 1)).double()
        for i, p in enumerate(model.parameters()):
            p.data.copy_(torch.linspace(-1, 1, p.numel(), dtype=torch.float64).reshape(p.shape) / (i + 1))
    optimizer = optimizer or make(lib)(model.parameters(), lr=0.05)
    x = lib.as_tensor(X)

    def closure():
        optimizer.zero_grad()
        loss = (model(x) - x.sum(1, keepdim=True)).square().mean()
        loss.backward()
        return loss

    losses = []
    for _ in range(steps):
        if make is sharpness:
            losses.append(optimizer.step(closure).item())
        else:
            losses.append(closure().item())
            optimizer.step()
    return losses, optimizer, model


@pytest.mark.parametrize("make", [belief, shared, sharpness, lookahead])
def test_it_takes_torchs_steps(make):
    assert trained(tg, make)[0] == pytest.approx(trained(torch, make)[0], rel=1e-12)


@pytest.mark.parametrize("make", [belief, shared])
def test_its_state_is_saved_and_goes_on(make):
    losses, _, _ = trained(tg, make, 8)
    _, optimizer, model = trained(tg, make, 5)
    state = copy.deepcopy(optimizer.state_dict())
    assert set(state["state"]) == {0, 1, 2, 3}
    theirs = trained(torch, make, 5)[1].state_dict()
    assert {k: set(v) for k, v in state["state"].items()} == {k: set(v) for k, v in theirs["state"].items()}
    again = make(tg)(model.parameters(), lr=0.5)
    again.load_state_dict(state)
    assert again.param_groups[0]["lr"] == 0.05
    assert trained(tg, make, 3, again, model)[0] == losses[5:]


def test_schedules_and_groups_work_on_it():
    model = tg.nn.Linear(2, 1)
    optimizer = belief(tg)([{"params": [model.weight], "lr": 0.1}, {"params": [model.bias]}])
    scheduler = tg.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
    model(tg.ones(3, 2)).sum().backward()
    optimizer.step()
    scheduler.step()
    assert [group["lr"] for group in optimizer.param_groups] == [0.05, 0.0005]
    assert len(optimizer.state) == 2


def test_a_required_hyper_parameter():
    from tapegrad.optim.optimizer import Optimizer, required

    class Descent(Optimizer):
        def __init__(self, params, lr=required):
            super().__init__(params, {"lr": lr})

    p = tg.ones(2, requires_grad=True)
    with pytest.raises(ValueError, match="Descent: a parameter group needs lr"):
        Descent([p])
    assert Descent([{"params": [p], "lr": 0.5}]).param_groups[0]["lr"] == 0.5


def test_a_step_must_be_defined():
    class Nothing(tg.optim.Optimizer):
        pass

    p = tg.ones(2, requires_grad=True)
    optimizer = Nothing([p], {"lr": 0.1})
    p.sum().backward()
    with pytest.raises(NotImplementedError, match=r"Nothing does not define step\(\)"):
        optimizer.step()
    assert pickle.loads(pickle.dumps(tg.optim.Adam([p]))).state.default_factory is dict
