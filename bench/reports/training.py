"""The training loop of all reports: the same step on both sides, compiled by tapegrad and eager in PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

import tapegrad as tg

from ..common.sides import State
from . import workers

SIDES = {"tapegrad": tg, "torch": torch}
LABELS = {"tapegrad": "tapegrad", "torch": "PyTorch"}


@dataclass(frozen=True)
class Recipe:
    """How a network is trained. The learning rate falls linearly to 0, by epoch, on both sides.

    `network` builds the model from `nn`, tapegrad's or torch's; `initialize` is applied to torch's model, whose weights
    both sides start from (None: as torch's layers start).
    """

    network: Callable[[Any], Any]
    loss: str
    optimizer: str
    rate: float
    batch_size: int
    epochs: int
    initialize: Callable[[Any], None] | None = None
    channels_last: bool = False  # PyTorch's layout of pictures

    def steps(self, samples: int) -> int:
        """Updates in a training on so many samples."""
        return self.epochs * -(-samples // self.batch_size)


def initial_weights(recipe: Recipe, seed: int) -> State:
    """The weights both sides start from: torch's generator with this seed."""
    torch.manual_seed(seed)
    model = recipe.network(torch.nn)
    if recipe.initialize is not None:
        recipe.initialize(model)
    weights: State = model.state_dict()
    return weights


class Training:
    """One network being trained by one framework ("tapegrad" or "torch")."""

    def __init__(self, side: str, recipe: Recipe, seed: int) -> None:
        self.library, self.recipe, self.seed = SIDES[side], recipe, seed
        self.model = recipe.network(self.library.nn)
        self.model.load_state_dict(initial_weights(recipe, seed))
        self.layout = torch.preserve_format
        # PyTorch's fused update is its fastest on small networks (measured: 0.8 of the default's step)
        options = {} if side == "tapegrad" else {"fused": True}
        if side == "torch" and recipe.channels_last:
            self.layout = torch.channels_last
            self.model.to(memory_format=self.layout)
        self.loss = getattr(self.library.nn, recipe.loss)()
        self.optimizer = getattr(self.library.optim, recipe.optimizer)(
            self.model.parameters(), lr=recipe.rate, **options
        )

    def fit(self, x: torch.Tensor, y: torch.Tensor, after_epoch: Callable[[int], None] | None = None) -> torch.Tensor:
        """Train on inputs x [n, ...] and targets y [n, ...]; the losses [epochs, steps]."""
        epochs = self.recipe.epochs

        def on_epoch(epoch: int, losses: Any) -> None:
            workers.advance(len(losses))
            self.lower_rate(epoch)
            if after_epoch is not None:
                after_epoch(epoch)

        x = x.contiguous(memory_format=self.layout)
        step = self.step()
        run = tg.compile(step).run if self.library is tg else run_eagerly(step)
        losses = run(x, y, batch_size=self.recipe.batch_size, epochs=epochs, seed=self.seed, on_epoch=on_epoch)
        result: torch.Tensor = getattr(losses, "data", losses)
        return result

    def step(self) -> Callable[[Any, Any], Any]:
        """The step of this training."""
        optimizer, model, loss_of = self.optimizer, self.model, self.loss

        def step(x: Any, y: Any) -> Any:
            optimizer.zero_grad()
            loss = loss_of(model(x), y)
            loss.backward()
            optimizer.step()
            return loss

        return step

    def lower_rate(self, epoch: int) -> None:
        """The learning rate after an epoch."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.rate * (1 - (epoch + 1) / self.recipe.epochs)

    def predict(self, x: torch.Tensor) -> torch.Tensor:
        """The output for x in evaluation mode."""
        self.model.eval()
        with self.library.no_grad():
            output: torch.Tensor = self.model(x.contiguous(memory_format=self.layout)).data
        self.model.train()
        return output


def fit_together(trainings: Sequence[Training], data: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> None:
    """What `Training.fit` does, for many trainings by tapegrad at once; recipes agree in batch size and epochs."""
    recipe = trainings[0].recipe

    def on_epoch(epoch: int, losses: Any) -> None:
        workers.advance(sum(len(row) for row in losses))
        for training in trainings:
            training.lower_rate(epoch)

    tg.run_together(
        [tg.compile(training.step()) for training in trainings],
        [x for x, _ in data],
        [y for _, y in data],
        batch_size=recipe.batch_size,
        epochs=recipe.epochs,
        seed=[training.seed for training in trainings],
        on_epoch=on_epoch,
    )


def run_eagerly(step: Callable[[Any, Any], Any]) -> Callable[..., torch.Tensor]:
    """What a compiled step's `run` does, one call after the other: the same batches in the same order."""

    def run(
        x: torch.Tensor,
        y: torch.Tensor,
        *,
        batch_size: int,
        epochs: int,
        seed: int,
        on_epoch: Callable[[int, torch.Tensor], None],
    ) -> torch.Tensor:
        rows = []
        for epoch in range(epochs):
            batches = tg.data.batches(x, y, batch_size=batch_size, seed=seed, epoch=epoch)
            rows.append(torch.stack([step(*batch).detach() for batch in batches]))
            on_epoch(epoch, rows[-1])
        return torch.stack(rows)

    return run
