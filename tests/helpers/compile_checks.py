"""What the tests of the compiled tape share: the same script run with a plain step and with a compiled one."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch

import tapegrad as tg


@dataclass
class Training:
    """A step, everything it changes, and its batches, which are used in turn."""

    step: Callable[..., Any]
    models: list[Any]
    optimizers: list[Any]
    batches: list[tuple[Any, ...]]


def bits(value: Any) -> Any:
    """A value that is equal only to one with the same bits: tensors become (shape, dtype, bytes).

    A NaN is a NaN: its sign and payload mean nothing, and torch's own vector loops and their tails differ in them.
    """
    if isinstance(value, tg.Tensor):
        return "Tensor", bits(value.data)  # what a step returns is on the tape only if the step was not replayed
    if isinstance(value, torch.Tensor):
        value = torch.where(value.isnan(), torch.nan, value) if value.is_floating_point() else value
        return tuple(value.shape), value.dtype, value.numpy().tobytes()
    if isinstance(value, dict):
        return {key: bits(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return type(value).__name__, [bits(item) for item in value]
    return value


def state(models: Iterable[Any], optimizers: Iterable[Any] = ()) -> dict[str, Any]:
    """Parameters, gradients, buffers, optimizer state and the default generator, as `bits`."""
    found: dict[str, Any] = {"generator": tg.ops.random.default_generator.get_state()}
    for i, model in enumerate(models):
        for name, p in model.named_parameters():
            found[f"model {i}: {name}"] = p.requires_grad, bits(p)
            found[f"model {i}: {name}.grad"] = bits(p.grad)
        found |= {f"model {i}: buffer {name}": bits(b) for name, b in model.named_buffers()}
    for i, optimizer in enumerate(optimizers):
        for j, values in enumerate(optimizer.state.values()):
            found |= {f"optimizer {i}: {name} of parameter {j}": bits(value) for name, value in values.items()}
    return found


def replays(step: Any) -> int:
    """How many calls of a compiled step ran in C++."""
    return sum(bound.calls for _, bound in step._bound.values())


def uncompiled(step: Callable[..., Any]) -> Callable[..., Any]:
    """The step as it is: the other side of every comparison."""
    return step


def history(build: Callable[[], Training], steps: int, compile: Callable[..., Any]) -> tuple[Any, list[dict[str, Any]]]:
    """(the compiled step, what each call returned and left behind)."""
    tg.manual_seed(0)
    training = build()
    step = compile(training.step)
    seen = []
    for i in range(steps):
        returned = step(*training.batches[i % len(training.batches)])
        seen.append({"returned": bits(returned), **state(training.models, training.optimizers)})
    return step, seen


def assert_compiled_is_eager(build: Callable[[], Training], steps: int = 12, **options: Any) -> Any:
    """Every step returns and leaves the same bits, and all but two are replayed. Returns the compiled step."""
    _, eager = history(build, steps, uncompiled)
    step, compiled = history(build, steps, lambda step: tg.compile(step, **options))
    assert_same(eager, compiled)
    assert replays(step) == steps - 2
    return step


def assert_same(eager: list[dict[str, Any]], compiled: list[dict[str, Any]]) -> None:
    """Two histories agree; else the first step and the names of what differs."""
    for i, (a, b) in enumerate(zip(eager, compiled, strict=True)):
        assert a.keys() == b.keys()
        differ = [key for key in a if a[key] != b[key]]
        assert not differ, f"step {i}: {', '.join(differ)}"


def observe(script: Callable[..., list[Any]]) -> tuple[list[Any], list[Any]]:
    """The observations of a script that is given `uncompiled`, and then `tapegrad.compile`."""
    sides = []
    for compile in (uncompiled, tg.compile):
        tg.manual_seed(0)
        sides.append([bits(value) for value in script(compile)])
    return sides[0], sides[1]


def assert_same_script(script: Callable[..., list[Any]]) -> None:
    """A script observes the same bits, whether its steps are compiled or not."""
    eager, compiled = observe(script)
    for i, (a, b) in enumerate(zip(eager, compiled, strict=True)):
        assert a == b, f"observation {i} differs"


def mlp(seed: int = 0, sizes: tuple[int, ...] = (3, 5, 2), **options: Any) -> tuple[Any, Any]:
    """(a small network, SGD over its parameters)."""
    tg.manual_seed(seed)
    layers = [tg.nn.Linear(a, b) for a, b in itertools.pairwise(sizes)]
    model = tg.nn.Sequential(*[part for layer in layers for part in (layer, tg.nn.Tanh())][:-1])
    return model, tg.optim.SGD(model.parameters(), **{"lr": 0.1, **options})


def training_step(model: Any, optimizer: Any, loss: Callable[..., Any] = tg.nn.functional.mse_loss) -> Any:
    """The step that everyone writes."""

    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        value = loss(model(x), y)
        value.backward()
        optimizer.step()
        return value

    return step


def batch(n: int = 4, seed: int = 0, sizes: tuple[int, int] = (3, 2), dtype: Any = torch.float32) -> tuple[Any, Any]:
    """Random inputs and targets for `mlp`."""
    generator = tg.Generator(seed)
    x, y = (tg.randn(n, size, generator=generator, dtype=dtype) for size in sizes)
    return x, y
