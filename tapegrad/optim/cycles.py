"""Schedules that come again: warm restarts, triangles, one cycle; the last two move the momentum too.

The momentum of a group is ``group["momentum"]``, or the first of ``group["betas"]``; it falls as the rate rises. A
compiled step reads rates anew at every call, but not momentums: with ``cycle_momentum`` it says so and runs uncompiled.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..core import ArgumentError, StateError
from ..nn.checks import one_of, require
from .kernels import number
from .optimizer import Optimizer
from .scheduler import LRScheduler, attributes, check_optimizer, write

Numbers = float | Sequence[float]


def each(optimizer: Optimizer, what: str, argument: str, value: Numbers) -> list[float]:
    """One number per group; 0-dim tensors are read."""
    groups = len(optimizer.param_groups)
    values: list[Any] = list(value) if isinstance(value, list | tuple) else [value] * groups
    require(len(values) == groups, what, argument, f"be one or {groups} numbers", value)
    return [float(v) for v in values]


class CosineAnnealingWarmRestarts(LRScheduler):
    """``lr = eta_min + (base - eta_min) * (1 + cos(pi T_cur / T_i)) / 2``, from the top again after T_i steps.

    Parameters
    ----------
    T_0 : steps of the first period
    T_mult : each period's length is that of the one before times this (default 1)
    eta_min : smallest rate (default 0)

    Source: Loshchilov and Hutter, SGDR (2017).
    """

    def __init__(
        self, optimizer: Optimizer, T_0: int, T_mult: int = 1, eta_min: float = 0.0, last_epoch: int = -1
    ) -> None:
        name = "CosineAnnealingWarmRestarts"
        require(isinstance(T_0, int) and T_0 > 0, name, "T_0", "be a positive int", T_0)
        require(isinstance(T_mult, int) and T_mult >= 1, name, "T_mult", "be an int of at least 1", T_mult)
        require(isinstance(eta_min, int | float), name, "eta_min", "be a number", eta_min)
        self.T_0 = T_0
        self.T_i = T_0
        self.T_mult = T_mult
        self.eta_min = eta_min
        self.T_cur: float = last_epoch
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        wave = math.cos(math.pi * self.T_cur / self.T_i)
        return [self.eta_min + (base - self.eta_min) * (1 + wave) / 2 for base in self.base_lrs]

    def step(self, epoch: float | None = None) -> None:
        """Go on by one step, or to ``epoch``, which may be a fraction: ``step(epoch + batch / batches)``."""
        if epoch is None and self.last_epoch < 0:
            epoch = 0
        if epoch is None:
            epoch = self.last_epoch + 1
            self.T_cur += 1
            if self.T_cur >= self.T_i:
                self.T_cur %= self.T_i
                self.T_i *= self.T_mult
        else:
            require(epoch >= 0, "CosineAnnealingWarmRestarts", "epoch", "not be negative", epoch)
            self._go_to(epoch)
        self._update_lr(math.floor(epoch))

    def _go_to(self, epoch: float) -> None:
        """Where in which period this step is."""
        if epoch < self.T_0:
            self.T_cur, self.T_i = epoch, self.T_0
        elif self.T_mult == 1:
            self.T_cur = epoch % self.T_0
        else:
            n = int(math.log(epoch / self.T_0 * (self.T_mult - 1) + 1, self.T_mult))
            self.T_cur = epoch - self.T_0 * (self.T_mult**n - 1) / (self.T_mult - 1)
            self.T_i = self.T_0 * self.T_mult**n


class _WithMomentum(LRScheduler):
    """A schedule of rates and, if ``cycle_momentum``, of momentums."""

    use_beta1: bool

    def _each(self, name: str, value: Numbers) -> list[float]:
        return each(self.optimizer, type(self).__name__, name, value)

    def _begin_momentum(self, base: Numbers, most: Numbers, last_epoch: int) -> tuple[list[float], list[float]]:
        """Check that there is a momentum, and start it at its largest; (base, most), one number per group."""
        defaults = self.optimizer.defaults
        self.use_beta1 = "betas" in defaults
        if not self.use_beta1 and "momentum" not in defaults:
            raise ArgumentError(
                f"{type(self).__name__}: cycle_momentum must be False for {type(self.optimizer).__name__}, "
                "which has neither momentum nor betas"
            )
        bases, mosts = self._each("base_momentum", base), self._each("max_momentum", most)
        if last_epoch == -1:
            for group, low, high in zip(self.optimizer.param_groups, bases, mosts, strict=True):
                self._set_momentum(group, high)
                group["max_momentum"] = high
                group["base_momentum"] = low
        return bases, mosts

    def _set_momentum(self, group: dict[str, Any], value: float) -> None:
        if self.use_beta1:
            group["betas"] = (value, *group["betas"][1:])
        else:
            group["momentum"] = value


class CyclicLR(_WithMomentum):
    """Between ``base_lr`` and ``max_lr``, up in ``step_size_up`` steps and down in ``step_size_down``, again and again.

    Parameters
    ----------
    base_lr, max_lr : numbers, or one per group; base_lr replaces the optimizer's rate
    step_size_up, step_size_down : steps (default 2000; down as up)
    mode : "triangular" (default), "triangular2" (half the height each cycle), "exp_range" (``gamma ** t`` times it)
    scale_fn : in place of a mode, a function of the cycle's number, or with ``scale_mode="iterations"`` of t
    cycle_momentum : the momentum falls from ``max_momentum`` to ``base_momentum`` as the rate rises (default True)

    Source: Smith, Cyclical learning rates for training neural networks (2017).
    """

    unsaved = ("optimizer", "_scale_fn_custom")

    def __init__(
        self,
        optimizer: Optimizer,
        base_lr: Numbers,
        max_lr: Numbers,
        step_size_up: int = 2000,
        step_size_down: int | None = None,
        mode: str = "triangular",
        gamma: float = 1.0,
        scale_fn: Callable[[float], float] | None = None,
        scale_mode: str = "cycle",
        cycle_momentum: bool = True,
        base_momentum: Numbers = 0.8,
        max_momentum: Numbers = 0.9,
        last_epoch: int = -1,
    ) -> None:
        check_optimizer(optimizer, "CyclicLR")
        if scale_fn is None:
            one_of(mode, ("triangular", "triangular2", "exp_range"), "CyclicLR", "mode")
            scale_mode = "iterations" if mode == "exp_range" else "cycle"
        self.optimizer = optimizer
        bases = self._each("base_lr", base_lr)
        self.max_lrs = self._each("max_lr", max_lr)
        up = float(step_size_up)
        self.total_size = up + (up if step_size_down is None else float(step_size_down))
        self.step_ratio = up / self.total_size
        self.mode = mode
        self.gamma = gamma
        self._scale_fn_custom = scale_fn
        self.scale_mode = scale_mode
        self.cycle_momentum = cycle_momentum
        if cycle_momentum:
            self.base_momentums, self.max_momentums = self._begin_momentum(base_momentum, max_momentum, last_epoch)
        if last_epoch == -1:
            for group, base in zip(optimizer.param_groups, bases, strict=True):
                write(group, base)
        super().__init__(optimizer, last_epoch)
        self.base_lrs = bases

    def scale_fn(self, x: float) -> float:
        """The height's factor in cycle x, or at step x."""
        if self._scale_fn_custom is not None:
            return self._scale_fn_custom(x)
        if self.mode == "triangular":
            return 1.0
        return number(1 / 2.0 ** (x - 1) if self.mode == "triangular2" else self.gamma**x)

    def get_lr(self) -> list[float]:
        t = self.last_epoch
        cycle = math.floor(1 + t / self.total_size)
        x = 1.0 + t / self.total_size - cycle
        height = x / self.step_ratio if x <= self.step_ratio else (x - 1) / (self.step_ratio - 1)
        scale = self.scale_fn(cycle if self.scale_mode == "cycle" else t)
        bounds = zip(self.base_lrs, self.max_lrs, strict=True)
        rates = [low + (high - low) * height * scale for low, high in bounds]
        if self.cycle_momentum:
            momentums = zip(self.optimizer.param_groups, self.base_momentums, self.max_momentums, strict=True)
            for group, low, high in list(momentums):
                self._set_momentum(group, high - (high - low) * height * scale)
        return rates

    def state_dict(self) -> dict[str, Any]:
        """Everything but the optimizer; of ``scale_fn`` the attributes of a callable object, None for a function."""
        custom = self._scale_fn_custom
        return {**super().state_dict(), "_scale_fn_custom": None if custom is None else attributes(custom)}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continue where another schedule of this kind (ours or torch's) stood, its callable object included."""
        saved = state_dict.get("_scale_fn_custom") if isinstance(state_dict, Mapping) else None
        custom = self._scale_fn_custom
        if saved and (custom is None or attributes(custom) is None):
            raise StateError(f"CyclicLR: the state has {list(saved)} of a scale_fn that is an object; got {custom!r}")
        super().load_state_dict(state_dict)
        if saved:
            custom.__dict__.update(copy.deepcopy(saved))


class OneCycleLR(_WithMomentum):
    """Up to ``max_lr`` and down to nearly nothing, once.

    Parameters
    ----------
    max_lr : a number, or one per group
    total_steps : of the whole training; or ``epochs`` and ``steps_per_epoch``
    pct_start : the share of steps in which the rate rises (default 0.3)
    anneal_strategy : "cos" (default) or "linear"
    cycle_momentum : the momentum falls from ``max_momentum`` to ``base_momentum`` as the rate rises (default True)
    div_factor : the first rate is ``max_lr / div_factor`` (default 25)
    final_div_factor : the last one is the first ``/ final_div_factor`` (default 1e4)
    three_phase : down to the first rate as fast as up, and only then to the last (default False)

    Source: Smith and Topin, Super-convergence (2018).
    """

    def __init__(
        self,
        optimizer: Optimizer,
        max_lr: Numbers,
        total_steps: int | None = None,
        epochs: int | None = None,
        steps_per_epoch: int | None = None,
        pct_start: float = 0.3,
        anneal_strategy: str = "cos",
        cycle_momentum: bool = True,
        base_momentum: Numbers = 0.85,
        max_momentum: Numbers = 0.95,
        div_factor: float = 25.0,
        final_div_factor: float = 10000.0,
        three_phase: bool = False,
        last_epoch: int = -1,
    ) -> None:
        name = "OneCycleLR"
        check_optimizer(optimizer, name)
        self.optimizer = optimizer
        if total_steps is None:
            if epochs is None or steps_per_epoch is None:
                raise ArgumentError(f"{name}: expected total_steps, or epochs and steps_per_epoch; got neither")
            require(isinstance(epochs, int) and epochs > 0, name, "epochs", "be a positive int", epochs)
            whole = isinstance(steps_per_epoch, int) and steps_per_epoch > 0
            require(whole, name, "steps_per_epoch", "be a positive int", steps_per_epoch)
            total_steps = epochs * steps_per_epoch
        require(isinstance(total_steps, int) and total_steps > 0, name, "total_steps", "be a positive int", total_steps)
        is_share = isinstance(pct_start, float) and 0 <= pct_start <= 1
        require(is_share, name, "pct_start", "be a float between 0 and 1", pct_start)
        one_of(anneal_strategy, ("cos", "linear"), name, "anneal_strategy")
        self.total_steps = total_steps
        self._schedule_phases = _phases(pct_start, total_steps, three_phase)
        self._anneal_func_type = anneal_strategy
        most = self._each("max_lr", max_lr)
        self.cycle_momentum = cycle_momentum
        if cycle_momentum:
            self._begin_momentum(base_momentum, max_momentum, last_epoch)
        if last_epoch == -1:
            for group, high in zip(optimizer.param_groups, most, strict=True):
                group["initial_lr"] = high / div_factor
                group["max_lr"] = high
                group["min_lr"] = group["initial_lr"] / final_div_factor
        super().__init__(optimizer, last_epoch)

    def _anneal(self, start: float, end: float, share: float) -> float:
        if self._anneal_func_type == "linear":
            return (end - start) * share + start
        return end + (start - end) / 2.0 * (math.cos(math.pi * share) + 1)

    def get_lr(self) -> list[float]:
        t = self.last_epoch
        require(t <= self.total_steps, "OneCycleLR", "step()", f"be called at most {self.total_steps} times", t)
        start = 0.0
        for phase in self._schedule_phases[:-1]:
            if t <= phase["end_step"]:
                break
            start = phase["end_step"]
        else:
            phase = self._schedule_phases[-1]
        share = (t - start) / (phase["end_step"] - start)
        rates = []
        for group in self.optimizer.param_groups:
            rates.append(self._anneal(group[phase["start_lr"]], group[phase["end_lr"]], share))
            if self.cycle_momentum:
                bounds = group[phase["start_momentum"]], group[phase["end_momentum"]]
                self._set_momentum(group, self._anneal(*bounds, share))
        return rates


def _phases(pct_start: float, total_steps: int, three: bool) -> list[dict[str, Any]]:
    """The phases of a cycle as torch's state dicts have them: where each ends, and from what to what it goes."""
    up = float(pct_start * total_steps) - 1
    rows = [
        (up, "initial_lr", "max_lr", "max_momentum", "base_momentum"),
        (float(2 * pct_start * total_steps) - 2, "max_lr", "initial_lr", "base_momentum", "max_momentum"),
        (total_steps - 1, "initial_lr", "min_lr", "max_momentum", "max_momentum"),
    ]
    if not three:
        rows[1:] = [(total_steps - 1, "max_lr", "min_lr", "base_momentum", "max_momentum")]
    keys = ("end_step", "start_lr", "end_lr", "start_momentum", "end_momentum")
    return [dict(zip(keys, row, strict=True)) for row in rows]
