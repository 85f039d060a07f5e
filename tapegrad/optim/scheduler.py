"""Learning-rate schedules: call ``scheduler.step()`` after each epoch; the sequence of rates is torch's, bit for bit.

A schedule writes ``group["lr"]`` (into the tensor, if the rate is a 0-dim tensor). ``base_lrs`` are the rates it
started from, t is ``last_epoch``, the number of steps taken.
"""

from __future__ import annotations

import copy
import math
import types
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..core import ArgumentError, StateError, Tensor
from ..nn.checks import one_of, require
from .kernels import number
from .optimizer import Optimizer


def write(group: dict[str, Any], lr: float) -> None:
    """Set a group's learning rate."""
    if isinstance(group["lr"], Tensor):
        group["lr"].data.fill_(float(lr))
    else:
        group["lr"] = lr


class LRScheduler:
    """Base class of schedules that depend on the number of steps.

    Parameters
    ----------
    optimizer : whose groups' learning rates are set
    last_epoch : steps taken before (default -1: none); to resume, load a state dict rather than give this
    """

    unsaved: tuple[str, ...] = ("optimizer",)

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        check_optimizer(optimizer, type(self).__name__)
        self.optimizer = optimizer
        for i, group in enumerate(optimizer.param_groups):
            if last_epoch == -1:
                group.setdefault("initial_lr", number(group["lr"]))
            elif "initial_lr" not in group:
                raise ArgumentError(
                    f"{type(self).__name__}: last_epoch = {last_epoch} needs 'initial_lr' in param_groups[{i}]; "
                    "load the optimizer's state first"
                )
        self.base_lrs: list[float] = [group["initial_lr"] for group in optimizer.param_groups]
        self.last_epoch = last_epoch
        optimizer._calls.watch(_parameters(optimizer))
        self._initial_step()

    def _initial_step(self) -> None:
        """Set the rates of step 0."""
        self._step_count = 0
        self._is_initial = True
        self.step()
        self._is_initial = False

    def get_lr(self) -> list[float]:
        """The learning rate of each group for step ``last_epoch``."""
        raise NotImplementedError

    def _get_closed_form_lr(self) -> list[float]:
        """The same for any step, not only the one after the last; where a schedule has such a formula."""
        return self.get_lr()

    def get_last_lr(self) -> list[float]:
        """The learning rate of each group that the schedule set last."""
        return list(self._last_lr)

    def step(self, epoch: int | None = None) -> None:
        """Go on by one step and set the learning rates. A group added since starts from its present rate.

        ``epoch`` goes to that step instead; deprecated, as in torch.
        """
        if self._step_count == 1 and self.optimizer._calls.none_since(_parameters(self.optimizer)):
            warnings.warn(
                f"{type(self).__name__}: detected call of `lr_scheduler.step()` before `optimizer.step()`, which skips "
                "the first learning rate of the schedule; call them in the opposite order",
                UserWarning,
                stacklevel=2,
            )
        if epoch is not None:
            warnings.warn(
                f"{type(self).__name__}: the epoch of `scheduler.step(epoch)` is deprecated; call `scheduler.step()`",
                UserWarning,
                stacklevel=2,
            )
        self._step_count += 1
        try:
            self._update_lr(epoch)
        except BaseException:  # the user's function may fail: the schedule stays where it was
            self._step_count -= 1
            raise

    def _update_lr(self, epoch: int | None = None) -> None:
        """Set the learning rates of the next step, or of the given one."""
        groups = self.optimizer.param_groups
        if len(self.base_lrs) > len(groups):
            raise StateError(
                f"{type(self).__name__}: base_lrs has {len(self.base_lrs)} rates, the optimizer {len(groups)} groups"
            )
        for group in groups[len(self.base_lrs) :]:
            self.base_lrs.append(group.setdefault("initial_lr", number(group["lr"])))
        before = self.last_epoch
        self.last_epoch = before + 1 if epoch is None else epoch
        try:
            rates = self.get_lr() if epoch is None else self._get_closed_form_lr()
        except BaseException:
            self.last_epoch = before
            raise
        for group, lr in zip(groups, rates, strict=True):
            write(group, lr)
        self._last_lr = self._rates()

    def _rates(self) -> list[float]:
        """The groups' present learning rates."""
        return [number(group["lr"]) for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """Everything but the optimizer, and functions."""
        return {key: value for key, value in self.__dict__.items() if key not in self.unsaved}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continue where another schedule of this kind (ours or torch's) stood."""
        if not isinstance(state_dict, Mapping) or "last_epoch" not in state_dict:
            raise StateError(f"{type(self).__name__}: not a schedule's state dict; got {type(state_dict).__name__}")
        self._adopt(state_dict)

    def _adopt(self, state_dict: Mapping[str, Any]) -> None:
        """Take over, as copies, what is saved of this object itself."""
        self.__dict__.update({k: copy.deepcopy(v) for k, v in state_dict.items() if k not in self.unsaved})


def _parameters(optimizer: Optimizer) -> list[Tensor]:
    return [p for group in optimizer.param_groups for p in group["params"]]


def check_optimizer(optimizer: Any, what: str) -> None:
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"{what}: optimizer must be a tapegrad.optim.Optimizer; got {type(optimizer).__name__}")


class StepLR(LRScheduler):
    """``lr <- gamma * lr`` every ``step_size`` steps.

    Parameters
    ----------
    step_size : number of steps
    gamma : factor (default 0.1)
    """

    def __init__(self, optimizer: Optimizer, step_size: int, gamma: float = 0.1, last_epoch: int = -1) -> None:
        require(step_size > 0, "StepLR", "step_size", "be positive", step_size)
        self.step_size = step_size
        self.gamma = gamma
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        due = self.last_epoch != 0 and self.last_epoch % self.step_size == 0
        return [lr * self.gamma for lr in self._rates()] if due else self._rates()

    def _get_closed_form_lr(self) -> list[float]:
        return [base * self.gamma ** (self.last_epoch // self.step_size) for base in self.base_lrs]


class ExponentialLR(LRScheduler):
    """``lr <- gamma * lr`` every step."""

    def __init__(self, optimizer: Optimizer, gamma: float, last_epoch: int = -1) -> None:
        self.gamma = gamma
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        return self._rates() if self._is_initial else [lr * self.gamma for lr in self._rates()]

    def _get_closed_form_lr(self) -> list[float]:
        return [base * self.gamma**self.last_epoch for base in self.base_lrs]


class CosineAnnealingLR(LRScheduler):
    """``lr = eta_min + (base - eta_min) * (1 + cos(pi t / T_max)) / 2``, in torch's recursive form.

    Parameters
    ----------
    T_max : steps of half a period
    eta_min : smallest rate (default 0)

    Source: Loshchilov and Hutter, SGDR (2017).
    """

    def __init__(self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0, last_epoch: int = -1) -> None:
        require(T_max > 0, "CosineAnnealingLR", "T_max", "be positive", T_max)
        self.T_max = T_max
        self.eta_min = eta_min
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        t, period, low, rates = self.last_epoch, self.T_max, self.eta_min, self._rates()
        if self._is_initial:
            return rates
        if (t - 1 - period) % (2 * period) == 0:  # the recursion divides by 0 here
            bases = zip(self.base_lrs, rates, strict=True)
            return [lr + (base - low) * (1 - math.cos(math.pi / period)) / 2 for base, lr in bases]
        ratio = (1 + math.cos(math.pi * t / period)) / (1 + math.cos(math.pi * (t - 1) / period))
        return [ratio * (lr - low) + low for lr in rates]

    def _get_closed_form_lr(self) -> list[float]:
        wave = 1 + math.cos(math.pi * self.last_epoch / self.T_max)
        return [self.eta_min + (base - self.eta_min) * wave / 2 for base in self.base_lrs]


class LambdaLR(LRScheduler):
    """``lr = base * lr_lambda(t)``.

    Parameters
    ----------
    lr_lambda : function of t, or a list of them, one per group. The attributes of callable objects are in the state
        dict, as in torch's; functions are not.
    """

    unsaved = ("optimizer", "lr_lambdas", "_for_all")

    def __init__(
        self,
        optimizer: Optimizer,
        lr_lambda: Callable[[int], float] | Sequence[Callable[[int], float]],
        last_epoch: int = -1,
    ) -> None:
        name = type(self).__name__
        check_optimizer(optimizer, name)
        groups = len(optimizer.param_groups)
        self._for_all = lr_lambda if callable(lr_lambda) else None  # also for groups that are added later
        self.lr_lambdas = [lr_lambda] * groups if callable(lr_lambda) else list(lr_lambda)
        require(len(self.lr_lambdas) == groups, name, "lr_lambda", f"be one or {groups} functions", lr_lambda)
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        return [base * factor for base, factor in zip(self.base_lrs, self._factors(), strict=True)]

    def _factors(self) -> list[float]:
        """The functions' values for step ``last_epoch``."""
        groups = len(self.base_lrs)
        if self._for_all is not None:
            self.lr_lambdas += [self._for_all] * (groups - len(self.lr_lambdas))
        if len(self.lr_lambdas) != groups:
            raise ArgumentError(
                f"{type(self).__name__}: lr_lambdas has {len(self.lr_lambdas)} functions for the optimizer's {groups} "
                "groups; append one for each group that was added"
            )
        return [f(self.last_epoch) for f in self.lr_lambdas]

    def state_dict(self) -> dict[str, Any]:
        """Everything but the optimizer; of ``lr_lambdas`` the attributes of callable objects, None for functions."""
        return {**super().state_dict(), "lr_lambdas": [attributes(f) for f in self.lr_lambdas]}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continue where another schedule of this kind (ours or torch's) stood, its callable objects included."""
        name = type(self).__name__
        saved = list(state_dict.get("lr_lambdas", ())) if isinstance(state_dict, Mapping) else []
        if saved and len(saved) != len(self.lr_lambdas):
            raise StateError(f"{name}: the state is of {len(saved)} functions; expected {len(self.lr_lambdas)}")
        for i, (f, state) in enumerate(zip(self.lr_lambdas, saved, strict=False)):
            if state and attributes(f) is None:
                raise StateError(f"{name}: lr_lambdas[{i}] is a function; the state has {list(state)} of an object")
        super().load_state_dict(state_dict)
        for f, state in zip(self.lr_lambdas, saved, strict=False):
            if state:
                f.__dict__.update(copy.deepcopy(state))


class MultiplicativeLR(LambdaLR):
    """``lr <- lr * lr_lambda(t)`` every step but the first; ``lr_lambda`` as `LambdaLR`'s."""

    def get_lr(self) -> list[float]:
        rates = self._rates()
        return rates if self._is_initial else [lr * f for lr, f in zip(rates, self._factors(), strict=True)]


def attributes(f: Callable[[int], float]) -> dict[str, Any] | None:
    """What a callable object keeps; None for a function."""
    if isinstance(f, types.FunctionType | types.MethodType):
        return None
    own = getattr(f, "__dict__", None)
    return None if own is None else dict(own)


class ReduceLROnPlateau:
    """``lr <- max(factor * lr, min_lr)`` when a metric has not improved for more than ``patience`` steps.

    Parameters
    ----------
    mode : "min" (default) or "max": which way is better
    factor : less than 1 (default 0.1)
    patience : steps without improvement that are waited for (default 10)
    threshold, threshold_mode : how much better counts: a share of the best ("rel") or a difference ("abs")
    cooldown : steps after a reduction in which nothing counts
    min_lr : least rate, a number or one per group
    eps : smaller changes of the rate are not made
    """

    def __init__(
        self,
        optimizer: Optimizer,
        mode: str = "min",
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        threshold_mode: str = "rel",
        cooldown: int = 0,
        min_lr: float | Sequence[float] = 0,
        eps: float = 1e-8,
    ) -> None:
        name = "ReduceLROnPlateau"
        check_optimizer(optimizer, name)
        require(factor < 1, name, "factor", "be less than 1", factor)
        one_of(mode, ("min", "max"), name, "mode")
        one_of(threshold_mode, ("rel", "abs"), name, "threshold_mode")
        groups = len(optimizer.param_groups)
        self.default_min_lr = None if isinstance(min_lr, Sequence) else min_lr  # also for groups that are added later
        self.min_lrs = list(min_lr) if isinstance(min_lr, Sequence) else [min_lr] * groups
        require(len(self.min_lrs) == groups, name, "min_lr", f"be one or {groups} numbers", min_lr)
        self.optimizer = optimizer
        self.mode = mode
        self.factor = factor
        self.patience = patience
        self.threshold = threshold
        self.threshold_mode = threshold_mode
        self.cooldown = cooldown
        self.eps = eps
        self.last_epoch = 0
        self.best = math.inf if mode == "min" else -math.inf
        self.cooldown_counter = 0
        self.num_bad_epochs = 0
        self._last_lr = [number(group["lr"]) for group in optimizer.param_groups]

    def get_last_lr(self) -> list[float]:
        """The learning rate of each group after the last step."""
        return list(self._last_lr)

    def step(self, metrics: Any) -> None:
        """Take the metric's new value (a number or a 0-dim tensor) and lower the rates if it is time."""
        current = float(metrics)
        groups = len(self.optimizer.param_groups)
        if len(self.min_lrs) != groups:
            if self.default_min_lr is None:
                raise ArgumentError(
                    f"ReduceLROnPlateau: min_lrs has {len(self.min_lrs)} rates for the optimizer's {groups} groups; "
                    "append one for each group that was added"
                )
            self.min_lrs = [self.default_min_lr] * groups
        self.last_epoch += 1
        if self._is_better(current):
            self.best = current
            self.num_bad_epochs = 0
        else:
            self.num_bad_epochs += 1
        if self.cooldown_counter > 0:
            self.cooldown_counter -= 1
            self.num_bad_epochs = 0
        if self.num_bad_epochs > self.patience:
            for group, least in zip(self.optimizer.param_groups, self.min_lrs, strict=True):
                before = number(group["lr"])
                after = max(before * self.factor, least)
                if before - after > self.eps:
                    write(group, after)
            self.cooldown_counter = self.cooldown
            self.num_bad_epochs = 0
        self._last_lr = [number(group["lr"]) for group in self.optimizer.param_groups]

    def _is_better(self, value: float) -> bool:
        margin = -self.threshold if self.mode == "min" else self.threshold
        bar = self.best * (1 + margin) if self.threshold_mode == "rel" else self.best + margin
        return value < bar if self.mode == "min" else value > bar

    def state_dict(self) -> dict[str, Any]:
        """Everything but the optimizer."""
        return {key: value for key, value in self.__dict__.items() if key != "optimizer"}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continue where another schedule of this kind (ours or torch's) stood."""
        if not isinstance(state_dict, Mapping) or "num_bad_epochs" not in state_dict:
            raise StateError(f"ReduceLROnPlateau: not its state dict; got {type(state_dict).__name__}")
        self.__dict__.update({k: copy.deepcopy(v) for k, v in state_dict.items() if k != "optimizer"})
