"""`torch.compile` in suite `steps`: of forward + backward, and of the whole step as a function of its state."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch.func import functional_call, grad, grad_and_value

from .sides import ADAM, FIRST, Choice, Side, TorchStep, Unavailable, laid_out, over
from .workloads import LOSSES, RATE, VISCOSITY, Workload, epoch, load

Arrays = list[torch.Tensor]
State = tuple[Arrays, Arrays, Arrays, torch.Tensor]  # parameters, Adam's two moments, number of steps


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """`torch.compile` from scratch: nothing cached on disk, so that its time is what a user waits the first time."""
    import torch._inductor.config as inductor

    torch._dynamo.reset()
    inductor.force_disable_caches = True
    inductor.compile_threads = 1  # no worker processes beside the timed ones
    return torch.compile(function)


def ready(name: str, step: Callable[..., Any], batches: list[Any], choice: str) -> Side:
    """The side, compiled by its first step; `Unavailable` with the compiler's reason."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            start = time.perf_counter()
            first = float(step(*batches[0]))
            seconds = time.perf_counter() - start
        except Exception as error:  # of many kinds: no C++ compiler, an unsupported construct
            raise Unavailable(str(error).strip().splitlines()[0]) from error
        losses = [first, *[float(step(*batch)) for batch in batches[1:FIRST]]]
    return Side(name, losses, over(step, batches), choice=choice, compile_seconds=seconds)


def forward_backward(workload: Workload, name: str, choice: Choice, title: str) -> Side:
    """The model and loss compiled, with the optimizer and memory format that are fastest uncompiled."""
    torch.set_num_threads(1)
    step = TorchStep(workload, choice)
    step.objective = compiled(step.objective)
    return ready(name, step, step.batches, title)


def whole_step(workload: Workload, name: str, choice: Choice) -> Side:
    """``(state, batch) -> (state, loss)`` compiled, update included."""
    torch.set_num_threads(1)
    layout = choice[0]
    model = load(workload.network, torch, workload.weights()).to(memory_format=layout)
    names = [name for name, _ in model.named_parameters()]
    objective = burgers if workload.loss == "burgers" else mean_loss(workload)

    def loss_of(parameters: Arrays, *batch: torch.Tensor) -> torch.Tensor:
        values = dict(zip(names, parameters, strict=True))
        return objective(lambda x: functional_call(model, values, (x,)), *batch)

    def step(state: State, *batch: torch.Tensor) -> tuple[State, torch.Tensor]:
        gradients, loss = grad_and_value(loss_of)(state[0], *batch)
        return UPDATES[workload.optimizer](state, gradients), loss

    fast = compiled(step)
    parameters = [p.detach() for p in model.parameters()]
    moments = [torch.zeros_like(p) for p in parameters]
    state = (parameters, moments, [m.clone() for m in moments], torch.zeros(()))

    def advance(*batch: torch.Tensor) -> torch.Tensor:
        nonlocal state
        state, loss = fast(state, *batch)
        return loss

    return ready(name, advance, [laid_out(b, layout) for b in epoch(workload.data(), workload.batch)], "")


def mean_loss(workload: Workload) -> Callable[..., torch.Tensor]:
    return lambda model, *batch: LOSSES[workload.loss](torch, model, *batch)


def burgers(model: Callable[..., torch.Tensor], points: Any, start: Any, known: Any) -> torch.Tensor:
    """`workloads.burgers` in `torch.func`, which `torch.compile` can differentiate twice."""

    def u_x(points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        du = grad(lambda p: model(p).sum())(points)  # [N, 2]
        return du[:, 0].sum(), du

    d2u, du = grad(u_x, has_aux=True)(points)
    residual = du[:, 1:2] + model(points) * du[:, 0:1] - VISCOSITY * d2u[:, 0:1]
    return residual.square().mean() + (model(start) - known).square().mean()


# --- updates as functions -----------------------------------------------------------------------------------------


def sgd(state: State, gradients: Arrays) -> State:
    return [p - RATE * g for p, g in zip(state[0], gradients, strict=True)], *state[1:]


def adam(state: State, gradients: Arrays) -> State:
    """``m, v`` the running means of g and g^2; ``p - lr m^ / (sqrt(v^) + eps)`` with both divided by 1 - b^t."""
    b1, b2, eps = ADAM.values()
    parameters, first, second, t = state
    t = t + 1
    first = [m + (1 - b1) * (g - m) for m, g in zip(first, gradients, strict=True)]
    second = [b2 * v + (1 - b2) * g * g for v, g in zip(second, gradients, strict=True)]
    root, rate = torch.sqrt(1 - b2**t), RATE / (1 - b1**t)
    parameters = [p - rate * m / (v.sqrt() / root + eps) for p, m, v in zip(parameters, first, second, strict=True)]
    return parameters, first, second, t


UPDATES = {"SGD": sgd, "Adam": adam}
