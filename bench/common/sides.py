"""One network on both sides: the same training step for tapegrad and for PyTorch, and PyTorch's fastest way of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

import tapegrad as tg

from .tasks import Task
from .timing import take_turns

State = dict[str, torch.Tensor]
Batches = list[tuple[torch.Tensor, torch.Tensor]]

FLOAT32_TOLERANCE = 1e-5  # of a parameter's largest gradient entry; sums of up to 1e5 products round to about 1e-6
FLOAT64_TOLERANCE = 1e-12


class Side:
    """A network being trained by one framework; `step` takes the next batch."""

    def __init__(self, library: Any, task: Task, weights: State, layout: torch.memory_format, **options: bool) -> None:
        self.library = library
        self.model = task.network(library.nn)
        self.model.load_state_dict(weights)
        if layout is torch.channels_last:
            self.model.to(memory_format=layout)
        self.layout = layout
        self.loss = getattr(library.nn, task.loss)()
        self.optimizer = getattr(library.optim, task.optimizer)(self.model.parameters(), **task.settings, **options)
        self.rate = task.settings["lr"]
        self.losses: list[Any] = []
        self.batches: Iterator[tuple[torch.Tensor, torch.Tensor]] = iter(())

    def feed(self, batches: Batches) -> None:
        """The batches to come, laid out as this side wants them, before any clock runs."""
        self.batches = iter([(self.lay_out(x), self.lay_out(y)) for x, y in batches])

    def lay_out(self, x: torch.Tensor) -> torch.Tensor:
        return x.contiguous(memory_format=self.layout) if x.ndim == 4 else x

    def set_rate(self, fraction: float) -> None:
        """The learning rate for the steps to come, as a fraction of the task's."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate * fraction

    def step(self) -> None:
        x, y = next(self.batches)
        self.optimizer.zero_grad()
        loss = self.loss(self.model(x), y)
        loss.backward()
        self.optimizer.step()
        self.losses.append(loss.detach())

    def predict(self, x: torch.Tensor) -> torch.Tensor:
        with self.library.no_grad():
            output: torch.Tensor = self.model(self.lay_out(x)).data
            return output


def initial_weights(task: Task) -> State:
    """PyTorch's own initial weights of the task's seed, which both sides start from."""
    torch.manual_seed(task.seed)
    weights: State = task.network(torch.nn).state_dict()
    return weights


# --- the first step's gradients ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Agreement:
    """The largest difference between both sides' gradients of the first step."""

    absolute: float
    relative: float  # to the largest entry of the same parameter's gradient


def check_gradients(task: Task, weights: State, x: torch.Tensor, y: torch.Tensor) -> Agreement:
    """Compare the first step's gradients; RuntimeError if they differ by more than rounding.

    In float32 a ReLU input within rounding of zero may fall on either side. If float32 alone disagrees, float64, where
    that does not happen, decides.
    """
    single = compare_gradients(task, weights, x, y, torch.float32)
    if single.relative > FLOAT32_TOLERANCE:
        double = compare_gradients(task, weights, x, y, torch.float64)
        if not double.relative <= FLOAT64_TOLERANCE:
            raise RuntimeError(
                f"{task.name}: the gradients of the first step differ from PyTorch's by {single.relative:.1e} of their "
                f"size in float32 and {double.relative:.1e} in float64; expected rounding"
            )
    return single


def compare_gradients(task: Task, weights: State, x: torch.Tensor, y: torch.Tensor, dtype: torch.dtype) -> Agreement:
    weights = {name: w.to(dtype) for name, w in weights.items()}
    x, y = x.to(dtype), y.to(dtype) if y.is_floating_point() else y
    both = []
    for library in (tg, torch):
        model = task.network(library.nn).to(dtype)
        model.load_state_dict(weights)
        getattr(library.nn, task.loss)()(model(x), y).backward()
        both.append({name: parameter.grad.data for name, parameter in model.named_parameters()})
    ours, theirs = both
    if list(ours) != list(theirs):
        raise RuntimeError(f"{task.name}: parameters {list(ours)} must be PyTorch's {list(theirs)}")
    differences = {name: (ours[name] - theirs[name]).abs().max().item() for name in ours}
    sizes = {name: theirs[name].abs().max().item() for name in ours}
    if not all(sizes.values()):
        raise RuntimeError(f"{task.name}: a parameter has no gradient, so there is nothing to compare")
    return Agreement(max(differences.values()), max(differences[name] / sizes[name] for name in ours))


# --- PyTorch at its best -----------------------------------------------------------------------------------------


def fastest_torch(task: Task, weights: State, batches: Batches) -> tuple[Side, str]:
    """PyTorch's side in the layout and with the optimizer implementation that are fastest here, and their name."""
    choices = torch_choices(task.images)
    sides = [Side(torch, task, weights, layout, **options) for layout, options in choices]
    calls = max(1, task.calls // 2)
    blocks = 4
    for side in sides:
        side.feed(batches[: blocks * calls])
    timings = take_turns([side.step for side in sides], blocks=blocks, calls=calls)
    layout, options = choices[min(range(len(choices)), key=lambda i: timings[i].median)]
    return Side(torch, task, weights, layout, **options), f"{choice_name(layout, options)} {task.optimizer}"


def torch_choices(images: bool) -> list[tuple[torch.memory_format, dict[str, bool]]]:
    """Memory formats, which only pictures have, and implementations of the optimizer."""
    layouts = [torch.contiguous_format, torch.channels_last] if images else [torch.contiguous_format]
    implementations = [{"foreach": False}, {"foreach": True}, {"fused": True}]
    return [(layout, options) for layout in layouts for options in implementations]


def choice_name(layout: torch.memory_format, options: dict[str, bool]) -> str:
    """As in "channels_last, fused"."""
    name = "for-loop" if options == {"foreach": False} else next(iter(options))
    return f"channels_last, {name}" if layout is torch.channels_last else name
