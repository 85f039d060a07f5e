"""Schedules of a few pieces: constants, lines, powers, milestones; and schedules made of schedules.

The chainable form (``get_lr``, from the rate before) and the closed form (from the first rate) are torch's.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..core import ArgumentError, StateError
from ..nn.checks import require
from .optimizer import Optimizer
from .scheduler import LRScheduler, check_optimizer, write


class MultiStepLR(LRScheduler):
    """``lr <- gamma * lr`` at each of the ``milestones`` (twice at one that stands there twice)."""

    def __init__(
        self, optimizer: Optimizer, milestones: Iterable[int], gamma: float = 0.1, last_epoch: int = -1
    ) -> None:
        self.milestones = Counter(milestones)
        self.gamma = gamma
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        if self.last_epoch not in self.milestones:
            return self._rates()
        return [lr * self.gamma ** self.milestones[self.last_epoch] for lr in self._rates()]

    def _get_closed_form_lr(self) -> list[float]:
        passed = bisect_right(sorted(self.milestones.elements()), self.last_epoch)
        return [base * self.gamma**passed for base in self.base_lrs]


class ConstantLR(LRScheduler):
    """``lr = factor * base`` for the first ``total_iters`` steps, then base."""

    def __init__(
        self, optimizer: Optimizer, factor: float = 1.0 / 3, total_iters: int = 5, last_epoch: int = -1
    ) -> None:
        require(0 <= factor <= 1, "ConstantLR", "factor", "be between 0 and 1", factor)
        self.factor = factor
        self.total_iters = total_iters
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        if self.last_epoch == 0:
            return [lr * self.factor for lr in self._rates()]
        if self.last_epoch != self.total_iters:
            return self._rates()
        return [lr * (1.0 / self.factor) for lr in self._rates()]

    def _get_closed_form_lr(self) -> list[float]:
        over = self.last_epoch >= self.total_iters
        return [base * (self.factor + over * (1 - self.factor)) for base in self.base_lrs]


class LinearLR(LRScheduler):
    """``lr = base * f`` where f goes in a line from ``start_factor`` to ``end_factor`` in ``total_iters`` steps."""

    def __init__(
        self,
        optimizer: Optimizer,
        start_factor: float = 1.0 / 3,
        end_factor: float = 1.0,
        total_iters: int = 5,
        last_epoch: int = -1,
    ) -> None:
        require(0 < start_factor <= 1, "LinearLR", "start_factor", "be above 0 and at most 1", start_factor)
        require(0 <= end_factor <= 1, "LinearLR", "end_factor", "be between 0 and 1", end_factor)
        self.start_factor = start_factor
        self.end_factor = end_factor
        self.total_iters = total_iters
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        t, rise = self.last_epoch, self.end_factor - self.start_factor
        if t == 0:
            return [lr * self.start_factor for lr in self._rates()]
        if self._is_initial or t > self.total_iters:
            return self._rates()
        ratio = 1.0 + rise / (self.total_iters * self.start_factor + (t - 1) * rise)
        return [lr * ratio for lr in self._rates()]

    def _get_closed_form_lr(self) -> list[float]:
        rise, t = self.end_factor - self.start_factor, min(self.total_iters, self.last_epoch)
        return [base * (self.start_factor + rise * t / self.total_iters) for base in self.base_lrs]


class PolynomialLR(LRScheduler):
    """``lr = base * (1 - t / total_iters) ** power``, 0 after ``total_iters`` steps."""

    def __init__(self, optimizer: Optimizer, total_iters: int = 5, power: float = 1.0, last_epoch: int = -1) -> None:
        self.total_iters = total_iters
        self.power = power
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        t, n = self.last_epoch, self.total_iters
        if self._is_initial or t > n:
            return self._rates()
        ratio = ((1.0 - t / n) / (1.0 - (t - 1) / n)) ** self.power
        return [lr * ratio for lr in self._rates()]

    def _get_closed_form_lr(self) -> list[float]:
        left = 1.0 - min(self.total_iters, self.last_epoch) / self.total_iters
        return [base * left**self.power for base in self.base_lrs]


class _Composed(LRScheduler):
    """What schedules of schedules share: the checks of the parts, and state dicts that hold the parts'."""

    unsaved = ("optimizer", "_schedulers")
    _schedulers: list[LRScheduler]

    def _take(self, optimizer: Optimizer | None, schedulers: Sequence[LRScheduler]) -> None:
        name = type(self).__name__
        require(len(schedulers) > 0, name, "schedulers", "be at least one", schedulers)
        for i, part in enumerate(schedulers):
            if not isinstance(part, LRScheduler):  # a ReduceLROnPlateau's step needs a metric
                raise ArgumentError(
                    f"{name}: schedulers[{i}] must be a schedule that steps without a metric; got {type(part).__name__}"
                )
        self.optimizer = optimizer or schedulers[0].optimizer
        check_optimizer(self.optimizer, name)
        for i, part in enumerate(schedulers):
            same = part.optimizer is self.optimizer
            require(same, name, f"schedulers[{i}].optimizer", "be the same for all", part.optimizer)
        self._schedulers = list(schedulers)

    def state_dict(self) -> dict[str, Any]:
        """Everything but the optimizer; of the parts their state dicts."""
        return {**super().state_dict(), "_schedulers": [part.state_dict() for part in self._schedulers]}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continue where another composition of the same schedules (ours or torch's) stood."""
        name = type(self).__name__
        if not isinstance(state_dict, Mapping) or "_schedulers" not in state_dict:
            raise StateError(f"{name}: not its state dict; got {type(state_dict).__name__}")
        parts = state_dict["_schedulers"]
        if len(parts) != len(self._schedulers):
            raise StateError(f"{name}: the state is of {len(parts)} schedules; expected {len(self._schedulers)}")
        self._adopt(state_dict)
        for part, state in zip(self._schedulers, parts, strict=True):
            part.load_state_dict(state)


class SequentialLR(_Composed):
    """One schedule after the other: the i-th begins, at its own step 0, at step ``milestones[i - 1]``.

    Parameters
    ----------
    schedulers : of the same optimizer
    milestones : steps at which the next one takes over, one fewer than schedules
    """

    def __init__(
        self, optimizer: Optimizer, schedulers: list[LRScheduler], milestones: list[int], last_epoch: int = -1
    ) -> None:
        self._take(optimizer, schedulers)
        expected = f"be {len(schedulers) - 1} steps, one fewer than schedules"
        require(len(milestones) == len(schedulers) - 1, "SequentialLR", "milestones", expected, milestones)
        self._milestones = milestones
        self.last_epoch = last_epoch + 1
        for group in optimizer.param_groups:  # back to before the parts were made
            write(group, group["initial_lr"])
        self.recursive_undo()
        first = self._schedulers[bisect_right(milestones, 0)]
        first._initial_step()
        self._last_lr = first.get_last_lr()

    def recursive_undo(self, sched: LRScheduler | None = None) -> None:
        """Take back the step that each part made when it was made."""
        of = self if sched is None else sched
        if isinstance(of, _Composed):
            for part in of._schedulers:
                self.recursive_undo(part)
        else:
            of.last_epoch -= 1

    def step(self) -> None:  # type: ignore[override]  # as torch's, it takes no step to go to
        """Step the schedule whose turn it is."""
        self.last_epoch += 1
        i = bisect_right(self._milestones, self.last_epoch)
        part = self._schedulers[i]
        if i > 0 and self._milestones[i - 1] == self.last_epoch:
            part._update_lr(0)
        else:
            part.step()
        self._last_lr = part.get_last_lr()


class ChainedScheduler(_Composed):
    """All schedules at every step, each on what the one before has made of the rates."""

    def __init__(self, schedulers: Sequence[LRScheduler], optimizer: Optimizer | None = None) -> None:
        self._take(optimizer, schedulers)
        self._last_lr = self._rates()

    def step(self) -> None:  # type: ignore[override]
        """Step every schedule, in order."""
        for part in self._schedulers:
            part.step()
        self._last_lr = self._rates()
