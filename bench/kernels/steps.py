"""Whole eager steps, and updates alone, beside PyTorch's."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

import tapegrad as tg

from ..common.networks import autoencoder, digits_mlp, lenet, mlp
from ..common.sides import Side, check_gradients, fastest_torch, initial_weights
from ..common.tasks import Data, Task, accuracy
from ..common.timing import ratio, take_turns
from .goals import STEP, UPDATE

BLOCKS = {True: 7, False: 21}  # by --quick
SECONDS = {True: 0.3, False: 2.0}


def random_batch(inputs: tuple[int, ...], targets: tuple[int, ...] | int) -> Data:
    """One batch: pictures or points, and targets of a shape or (an int) labels below it."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(inputs, generator=generator)
    if isinstance(targets, int):
        y = torch.randint(targets, inputs[:1], generator=generator)
    else:
        y = torch.rand(targets, generator=generator)
    return Data((x, y), (x, y), ("", 0))


def training(name: str, network: Callable[[Any], Any], optimizer: str, batch: Data, **more: Any) -> Task:
    """A task of one batch; `calls` is found when it is timed."""
    loss = "MSELoss" if batch.train[1].is_floating_point() else "CrossEntropyLoss"
    rows = len(batch.train[0])
    settings = {"lr": 1e-3}
    return Task(
        f"{name}, {optimizer}, batch {rows}", name, network, lambda: batch, loss, optimizer, settings, rows,
        steps=0, calls=1, score_name="", score=accuracy, **more,
    )  # fmt: skip


def autoencoder_task() -> Task:
    return training("autoencoder", autoencoder, "SGD", random_batch((100, 3, 32, 32), (100, 3, 32, 32)), images=True)


def all_steps() -> list[Step | Update]:
    points = random_batch((25, 2), (25, 2))
    tasks = [
        training("2-25-25-25-2", mlp, "SGD", points),
        training("2-25-25-25-2", mlp, "Adam", points),
        training("784-128-10", digits_mlp, "Adam", random_batch((128, 784), 10)),
        training("LeNet-5", lenet, "Adam", random_batch((64, 1, 28, 28), 10), images=True),
        autoencoder_task(),
    ]
    return [*(Update(name) for name in ("SGD", "Adam", "AdamW")), *(Step(task) for task in tasks)]


def row(name: str, what: str, threads: int, timings: list[Any], **more: Any) -> dict[str, Any]:
    """A row as suite `kernels` has them, of what is no single kernel."""
    ours, theirs = timings
    empty = dict.fromkeys(("kernel", "unrecorded", "rate", "share"))
    return {
        "name": name,
        "what": what,
        "threads": threads,
        "op": what,
        "shape": "",
        "elements": 0,
        "unit": "",
        "tapegrad": ours,
        "torch": theirs,
        "ratio": ratio(ours, theirs),
        "channels_last": False,
        **empty,
        **more,
    }


@dataclass(frozen=True)
class Step:
    """zero_grad, forward, loss, backward and update of one batch."""

    task: Task

    def measure(self, threads: int, quick: bool) -> list[dict[str, Any]]:
        """Compare the gradients, choose PyTorch's fastest way, and time both."""
        x, y = self.task.load().train
        weights = initial_weights(self.task)
        check_gradients(self.task, weights, x, y)
        trial = Side(torch, self.task, weights, torch.contiguous_format)
        trial.feed([(x, y)] * 3)
        once = min(take_turns([trial.step], blocks=3, calls=1)[0].blocks)
        blocks = BLOCKS[quick]
        calls = max(1, min(200, int(SECONDS[quick] / blocks / once / 2)))
        batches = [(x, y)] * (blocks * calls)
        theirs, choice = fastest_torch(with_calls(self.task, calls), weights, batches)
        sides = [Side(tg, self.task, weights, torch.contiguous_format), theirs]
        for side in sides:
            side.feed(batches)
        timings = take_turns([side.step for side in sides], blocks=blocks, calls=calls)
        return [row(self.task.name, STEP, threads, timings, torch_choice=choice, channels_last="last" in choice)]


def with_calls(task: Task, calls: int) -> Task:
    return Task(**{**vars(task), "calls": calls})


# --- updates -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Update:
    """One `step()` of an optimizer over the parameters of 784-128-10; PyTorch's is fused."""

    optimizer: str

    @property
    def name(self) -> str:
        return f"{self.optimizer} over 784-128-10"

    def measure(self, threads: int, quick: bool) -> list[dict[str, Any]]:
        models, optimizers = [], []
        for library, options in ((tg, {}), (torch, {"fused": True})):
            models.append(digits_mlp(library.nn))
            models[-1].load_state_dict(models[0].state_dict() if library is tg else raw_state(models[0]))
            for i, parameter in enumerate(models[-1].parameters()):
                values = torch.randn(tuple(parameter.shape), generator=torch.Generator().manual_seed(i))
                parameter.grad = tg.Tensor(values) if library is tg else values
            optimizers.append(getattr(library.optim, self.optimizer)(models[-1].parameters(), lr=1e-3, **options))
        for optimizer in optimizers * 3:
            optimizer.step()
        self.check(*models)
        blocks = BLOCKS[quick]
        once = max(t.blocks[-1] for t in take_turns([o.step for o in optimizers], blocks=3, calls=1))
        calls = max(1, int(SECONDS[quick] / 4 / blocks / once))
        timings = take_turns([optimizer.step for optimizer in optimizers], blocks=blocks, calls=calls)
        count = sum(math.prod(p.shape) for p in models[0].parameters())
        return [row(self.name, UPDATE, threads, timings, elements=count)]

    def check(self, ours: Any, theirs: Any) -> None:
        """RuntimeError if three updates led to different parameters."""
        for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
            if not torch.allclose(a.data, b.data, rtol=1e-5, atol=1e-6):
                worst = (a.data - b.data).abs().max().item()
                raise RuntimeError(
                    f"{self.name}: after three updates a parameter differs from PyTorch's by {worst:.1e}"
                )


def raw_state(model: Any) -> dict[str, torch.Tensor]:
    return {name: getattr(value, "data", value) for name, value in model.state_dict().items()}
