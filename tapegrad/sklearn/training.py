"""One network in training, as the estimators see it: its step, its curve, when it stops; and what it gives for rows."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch

from ..compiled import Compiled, run_together
from ..core import CompileError, Tensor, no_grad
from ..nn import Module
from ..ops.random import default_generator
from ..optim import Optimizer

PREDICTED = 2**18  # numbers of the input that are predicted at once; bounds the memory


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """The default generator starts from `seed` inside, and goes on outside as if nothing had been drawn."""
    state = default_generator.get_state()
    default_generator.manual_seed(seed)
    try:
        yield
    finally:
        default_generator.set_state(state)


class Step(Compiled):
    """A compiled step that runs as it is where it cannot be compiled, after a warning that says why."""

    def __init__(self, fn: Callable[..., Tensor]) -> None:
        super().__init__(fn, exact=True, cache_size=8)

    def _is_new(self) -> bool:
        return False  # nothing is refused

    def _warning(self, reason: CompileError) -> str:
        return f"fit: training goes on uncompiled: {reason}"


@dataclass
class Training:
    """One network, what it is trained on, and what came of it."""

    module: Module
    optimizer: Optimizer
    loss: Callable[[Any, Any], Tensor]
    x: torch.Tensor
    y: torch.Tensor
    seed: int
    rows: torch.Tensor | None = None  # of x and y; None: all
    stopping: Stopping | None = None
    curve: list[float] = field(default_factory=list)  # the mean loss of every epoch

    def __post_init__(self) -> None:
        module, loss, optimizer = self.module, self.loss, self.optimizer

        def step(x: Any, y: Any) -> Any:
            optimizer.zero_grad()
            value = loss(module(x), y)
            value.backward()
            optimizer.step()
            return value.detach()

        self.step = Step(step)

    def ends(self, losses: Tensor, batch_size: int) -> bool:
        """Note an epoch's mean loss, weighted by the rows of the steps; whether the training ends."""
        n = len(self.x if self.rows is None else self.rows)
        sizes = torch.tensor([min(batch_size, n - i) for i in range(0, n, batch_size)], dtype=torch.float64)
        self.curve.append(float(losses.data.double() @ sizes) / n)
        return self.stopping is not None and self.stopping.ends(self.module)


def run(trainings: list[Training], batch_size: int, epochs: int, shuffle: bool, progress: bool) -> None:
    """So many passes of each, bit for bit those of a loop over `tapegrad.data.batches`; several run at once."""
    settings: dict[str, Any] = {"batch_size": batch_size, "epochs": epochs, "shuffle": shuffle, "progress": progress}
    for each in trainings:
        each.module.train()
    if len(trainings) > 1:
        try:
            _together(trainings, settings)
            return
        except CompileError as error:  # nothing has changed yet
            warnings.warn(f"fit: networks are trained one after the other: {error}", RuntimeWarning, stacklevel=4)
    for each in trainings:
        x, y = (each.x, each.y) if each.rows is None else (each.x[each.rows], each.y[each.rows])
        with seeded(each.seed):
            each.step.run(*(x, y), seed=each.seed, on_epoch=partial(_ends, each, batch_size), **settings)


def _ends(each: Training, batch_size: int, epoch: int, losses: Tensor) -> bool:
    return each.ends(losses, batch_size)


def _together(trainings: list[Training], settings: dict[str, Any]) -> None:
    ended = [False] * len(trainings)

    def on_epoch(epoch: int, losses: Any) -> list[bool]:
        for k, each in enumerate(trainings):
            ended[k] = ended[k] or each.ends(losses[k], settings["batch_size"])
        return list(ended)

    rows = None
    if any(each.rows is not None for each in trainings):
        rows = [torch.arange(len(each.x)) if each.rows is None else each.rows for each in trainings]
    with seeded(trainings[0].seed):
        run_together(
            [each.step for each in trainings],
            *([each.x for each in trainings], [each.y for each in trainings]),
            seed=[each.seed for each in trainings],
            rows=rows,
            on_epoch=on_epoch,
            **settings,
        )


def outputs(module: Module, x: torch.Tensor) -> np.ndarray:
    """The module's output for all rows, in evaluation mode, a limited number of rows at a time."""
    modes = [(m, m.training) for m in module.modules()]
    rows = max(1, PREDICTED // max(1, x[:1].numel()))
    try:
        module.eval()
        with no_grad():
            return np.concatenate([module(part).numpy() for part in torch.split(x, rows)])
    finally:
        for m, training in modes:
            m.training = training


class Stopping:
    """Ends a training when the score of rows held out has not risen for a while, and keeps the best parameters.

    Parameters
    ----------
    score : of the module's outputs for `x`
    x : rows held out, as the module takes them
    patience, tol : after how many epochs in which the best score did not rise by `tol`
    """

    def __init__(self, score: Callable[[np.ndarray], float], x: torch.Tensor, patience: float, tol: float) -> None:
        self.score, self.x, self.patience, self.tol = score, x, patience, tol
        self.scores: list[float] = []
        self.best = -np.inf
        self.state: dict[str, Any] = {}
        self.waited = 0

    def ends(self, module: Module) -> bool:
        """Look at the module after an epoch."""
        self.scores.append(self.score(outputs(module, self.x)))
        self.waited = self.waited + 1 if self.scores[-1] < self.best + self.tol else 0
        if self.scores[-1] > self.best:
            self.best = self.scores[-1]
            self.state = {name: value.clone() for name, value in module.state_dict().items()}
        return self.waited > self.patience


_ready: ContextVar[Iterator[Any] | None] = ContextVar("ready", default=None)


@contextmanager
def trained(estimators: Iterable[Any]) -> Iterator[None]:
    """Inside, the calls of ``fit`` take these estimators' trainings, in this order; None is one that is to train."""
    token = _ready.set(iter(estimators))
    try:
        yield
    finally:
        _ready.reset(token)


def handed(estimator: Any, X: Any) -> bool:
    """Whether ``fit`` has nothing left to do, because `trained` did it for the same arguments."""
    ready = _ready.get()
    other = None if ready is None else next(ready, None)
    if other is None or repr(other) != repr(estimator):
        return False
    vars(estimator).update(vars(other))
    return True
