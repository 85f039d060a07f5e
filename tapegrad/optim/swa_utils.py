"""Averages of a model's weights along its training, as torch.optim.swa_utils.

Sources: Izmailov et al., Averaging weights leads to wider optima and better generalization (2018); for the exponential
average, Polyak and Juditsky (1992).
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch

from ..core import ArgumentError, Tensor, no_grad, raw
from ..nn.checks import one_of, require
from ..nn.module import Module
from ..nn.norms import _BatchNorm
from .cycles import Numbers, each
from .optimizer import Optimizer
from .scheduler import LRScheduler, check_optimizer

Average = Callable[[Tensor, Tensor, Any], Tensor]
MultiAverage = Callable[[list[Tensor], list[Tensor], Any], None]


def _share(decay: float, what: str) -> None:
    require(0 <= decay <= 1, what, "decay", "be between 0 and 1", decay)


def _raws(values: Sequence[Any], what: str) -> list[torch.Tensor]:
    return [raw(value, what, "parameter") for value in values]


def get_ema_multi_avg_fn(decay: float = 0.999) -> MultiAverage:
    """A function of lists: ``average <- decay * average + (1 - decay) * current``, in place."""
    _share(decay, "get_ema_multi_avg_fn")

    def ema_update(ema_param_list: list[Tensor], current_param_list: list[Tensor], _: Any) -> None:
        averages, current = _raws(ema_param_list, "ema_update"), _raws(current_param_list, "ema_update")
        if averages[0].is_floating_point():
            torch._foreach_lerp_(averages, current, 1 - decay)
            return
        for a, p in zip(averages, current, strict=True):  # counters, for example
            a.copy_(a * decay + p * (1 - decay))

    return ema_update


def get_swa_multi_avg_fn() -> MultiAverage:
    """A function of lists: the plain average of all that it was given, in place."""

    def swa_update(averaged_param_list: list[Tensor], current_param_list: list[Tensor], num_averaged: Any) -> None:
        averages, current = _raws(averaged_param_list, "swa_update"), _raws(current_param_list, "swa_update")
        n = getattr(num_averaged, "data", num_averaged) + 1
        if averages[0].is_floating_point():
            torch._foreach_lerp_(averages, current, 1 / n)
            return
        for a, p in zip(averages, current, strict=True):
            a.copy_(a + (p - a) / n)

    return swa_update


def get_ema_avg_fn(decay: float = 0.999) -> Average:
    """A function of one parameter: ``decay * average + (1 - decay) * current``."""
    _share(decay, "get_ema_avg_fn")
    return lambda ema_param, current_param, num_averaged: decay * ema_param + (1 - decay) * current_param


def get_swa_avg_fn() -> Average:
    """A function of one parameter: the plain average of all that it was given."""
    return lambda averaged_param, current_param, num_averaged: (
        averaged_param + (current_param - averaged_param) / (num_averaged + 1)
    )


class AveragedModel(Module):
    """A copy of a model whose parameters are averages of what `update_parameters` was given.

    Parameters
    ----------
    model : stays as it is; the copy is ``.module``
    device : the CPU, or None
    avg_fn : of (average, current, number averaged so far) to the new average (default: their plain average)
    multi_avg_fn : the same for lists at once, in place
    use_buffers : average the buffers, too (default False: they are the last model's)
    """

    n_averaged: Tensor

    def __init__(
        self,
        model: Module,
        device: Any = None,
        avg_fn: Average | None = None,
        multi_avg_fn: MultiAverage | None = None,
        use_buffers: bool = False,
    ) -> None:
        if avg_fn is not None and multi_avg_fn is not None:
            raise ArgumentError("AveragedModel: expected avg_fn or multi_avg_fn; got both")
        self.module = copy.deepcopy(model)
        if device is not None:
            self.module = self.module.to(device)
        self.register_buffer("n_averaged", Tensor(torch.tensor(0)))
        self.avg_fn = avg_fn
        self.multi_avg_fn = multi_avg_fn
        self.use_buffers = use_buffers

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The averaged model's."""
        return self.module(*args, **kwargs)

    def update_parameters(self, model: Module) -> None:
        """Take the model's present values into the averages; the first ones are copied."""
        with no_grad():
            pairs = list(zip(self._averaged(self.module), self._averaged(model), strict=True))
            if self.n_averaged.data == 0:
                for average, current in pairs:
                    average.data.copy_(current.data)
            elif self.multi_avg_fn is None:
                average_of = self.avg_fn or get_swa_avg_fn()
                for average, current in pairs:
                    new = average_of(average.detach(), current.detach(), self.n_averaged)
                    average.data.copy_(raw(new, "AveragedModel", "avg_fn"))
            else:
                for dtype in dict.fromkeys(average.dtype for average, _ in pairs):
                    same = [(average.detach(), p.detach()) for average, p in pairs if average.dtype is dtype]
                    self.multi_avg_fn([average for average, _ in same], [p for _, p in same], self.n_averaged)
            if not self.use_buffers:
                for average, current in zip(self.module.buffers(), model.buffers(), strict=True):
                    average.data.copy_(current.data)
            self.n_averaged.data.add_(1)

    def _averaged(self, model: Module) -> Iterable[Tensor]:
        return itertools.chain(model.parameters(), model.buffers() if self.use_buffers else ())


def update_bn(loader: Iterable[Any], model: Module, device: Any = None) -> None:
    """Compute the running statistics of every batch norm anew, in one pass over the data.

    A batch that is a list or tuple stands for its first element.
    """
    norms = {module: module.momentum for module in model.modules() if isinstance(module, _BatchNorm)}
    if not norms:
        return
    was_training = model.training
    model.train()
    with no_grad():
        for module in norms:
            module.reset_running_stats()
            module.momentum = None  # the plain average
        for batch in loader:
            x = batch[0] if isinstance(batch, list | tuple) else batch
            model(x if device is None else x.to(device))
    for module, momentum in norms.items():
        module.momentum = momentum
    model.train(was_training)


class SWALR(LRScheduler):
    """From each group's rate to ``swa_lr`` in ``anneal_epochs`` steps, and then constant.

    Parameters
    ----------
    swa_lr : a number, or one per group
    anneal_epochs : steps (default 10)
    anneal_strategy : "cos" (default) or "linear"
    """

    unsaved = ("optimizer", "anneal_func")

    def __init__(
        self,
        optimizer: Optimizer,
        swa_lr: Numbers,
        anneal_epochs: int = 10,
        anneal_strategy: str = "cos",
        last_epoch: int = -1,
    ) -> None:
        check_optimizer(optimizer, "SWALR")
        one_of(anneal_strategy, ("cos", "linear"), "SWALR", "anneal_strategy")
        whole = isinstance(anneal_epochs, int) and anneal_epochs >= 0
        require(whole, "SWALR", "anneal_epochs", "be an int of at least 0", anneal_epochs)
        for group, rate in zip(optimizer.param_groups, each(optimizer, "SWALR", "swa_lr", swa_lr), strict=True):
            group["swa_lr"] = rate
        self._anneal_strategy = anneal_strategy
        self.anneal_epochs = anneal_epochs
        super().__init__(optimizer, last_epoch)

    def anneal_func(self, t: float) -> float:
        """How much of the way is gone after the share t of the steps."""
        return t if self._anneal_strategy == "linear" else (1 - math.cos(math.pi * t)) / 2

    def get_lr(self) -> list[float]:
        step = self._step_count - 1
        if self.anneal_epochs == 0:
            step = max(1, step)
        before, now = (self.anneal_func(max(0, min(1, t / max(1, self.anneal_epochs)))) for t in (step - 1, step))
        rates = []
        for group, lr in zip(self.optimizer.param_groups, self._rates(), strict=True):
            goal = group["swa_lr"]
            first = goal if before == 1 else (lr - before * goal) / (1 - before)
            rates.append(goal * now + first * (1 - now))
        return rates
