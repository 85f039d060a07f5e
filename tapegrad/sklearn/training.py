"""One network in training, as the estimators see it: its step, its curve, when it stops; and what it gives for rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from ..compiled import Compiled
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

    def run(self, batch_size: int, epochs: int, shuffle: bool, progress: bool) -> None:
        """So many passes, bit for bit those of a loop over `tapegrad.data.batches`."""
        self.module.train()
        self.step.run(
            *(self.x, self.y),
            batch_size=batch_size,
            epochs=epochs,
            shuffle=shuffle,
            seed=self.seed,
            on_epoch=lambda epoch, losses: self.on_epoch(losses, batch_size),
            progress=progress,
        )

    def on_epoch(self, losses: Tensor, batch_size: int) -> bool:
        """Note an epoch's mean loss, weighted by the rows of the steps; whether the training ends."""
        rows = torch.tensor([min(batch_size, len(self.x) - i) for i in range(0, len(self.x), batch_size)])
        self.curve.append(float(losses.data.double() @ rows.double()) / len(self.x))
        return self.stopping is not None and self.stopping.ends(self.module)


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
