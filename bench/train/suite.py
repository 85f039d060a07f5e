"""Suite `train`: three networks trained by tapegrad and by PyTorch from the same weights on the same batches."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import torch
from tqdm import tqdm

import tapegrad as tg

from ..cli import Options
from ..common import plots
from ..common.sides import Agreement, Side, check_gradients, fastest_torch, initial_weights
from ..common.tables import environment, seconds, table, write_json
from ..common.tasks import Data, Task
from ..common.timing import Timing, ratio, take_turns
from .tasks import TASKS

FULL = 4  # times the steps of --quick
SCORES = 10  # evaluations on the test set along the way


def run(options: Options) -> None:
    """Train all three, print a table each, write train.json, curves.png and denoised.png."""
    machine = environment(options.threads)
    print(", ".join(f"{name} {value}" for name, value in machine.items()))
    print("Both sides eager, float32, same initial weights, same batches (made before the clock runs); blocks of steps")
    print("take turns. Time of a step: zero_grad, forward, loss, backward, update (median +- half the IQR).")
    results = []
    scale = 1 if options.quick else FULL
    # tqdm is silent where the output is no terminal
    with tqdm(total=2 * scale * sum(task.steps for task in TASKS), unit="step", disable=None, leave=False) as bar:
        for task in TASKS:
            bar.set_description(task.name)
            result, sides, data = train(task, task.steps * scale, bar)
            results.append(result)
            tqdm.write("\n" + report(result, options.threads))
    write_json(options.out / "train.json", {"environment": machine, "results": results})
    plots.learning_curves(options.out / "curves.png", results)
    noisy, clean = (x[:10] for x in data.test)  # the last task is the autoencoder
    rows = [("noisy", noisy), ("tapegrad", sides[0].predict(noisy)), ("PyTorch", sides[1].predict(noisy))]
    plots.pictures(options.out / "denoised.png", [*rows, ("clean", clean)])
    print(f"\nwritten to {options.out}: train.json, curves.png, denoised.png")


def train(task: Task, steps: int, bar: Any) -> tuple[dict[str, Any], list[Side], Data]:
    """One training: the result as plain data, both trained sides, and the data."""
    data = task.load()
    batches = prepare(task, data, steps)
    weights = initial_weights(task)
    agreement = check_gradients(task, weights, *batches[0])
    theirs, choice = fastest_torch(task, weights, batches)
    sides = [Side(tg, task, weights, torch.contiguous_format), theirs]
    blocks = steps // task.calls
    every = max(1, blocks // SCORES)
    scores: list[list[float]] = [[task.score(side.predict(data.test[0]), data.test[1])] for side in sides]
    score_steps = [0]
    for side in sides:
        side.feed(batches)

    def after_block(block: int) -> None:
        bar.update(2 * task.calls)
        for side in sides:
            side.set_rate(1 - (block + 1) / blocks)
        if (block + 1) % every == 0 or block + 1 == blocks:
            score_steps.append((block + 1) * task.calls)
            for side, values in zip(sides, scores, strict=True):
                values.append(task.score(side.predict(data.test[0]), data.test[1]))

    timings = take_turns(
        [side.step for side in sides], blocks=blocks, calls=task.calls, warmup=blocks // 10, after_block=after_block
    )
    result = describe(task, data, steps, agreement, choice)
    result["score_steps"] = score_steps
    result["ratio"] = ratio(*timings)
    for name, side, timing, values in zip(("tapegrad", "torch"), sides, timings, scores, strict=True):
        result["sides"][name] = figures(task, side, timing, values)
    return result, sides, data


def prepare(task: Task, data: Data, steps: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The first `steps` batches of as many epochs as that takes."""
    batches: list[Any] = []
    epoch = 0
    while len(batches) < steps:
        batches += tg.data.batches(*data.train, batch_size=task.batch_size, drop_last=True, seed=task.seed, epoch=epoch)
        epoch += 1
    return batches[:steps]


def describe(task: Task, data: Data, steps: int, agreement: Agreement, choice: str) -> dict[str, Any]:
    """What was run: everything needed to run it again."""
    return {
        "name": task.name,
        "title": task.title,
        "loss": task.loss.removesuffix("Loss"),
        "optimizer": task.optimizer,
        **task.settings,
        "batch_size": task.batch_size,
        "steps": steps,
        "seed": task.seed,
        "dtype": "float32",
        "input": [task.batch_size, *data.train[0].shape[1:]],
        "train_samples": len(data.train[0]),
        "test_samples": len(data.test[0]),
        "score_name": task.score_name,
        "baseline": data.baseline,
        "torch_choice": choice,
        "first_gradients": asdict(agreement),
        "sides": {},
    }


def figures(task: Task, side: Side, timing: Timing, scores: list[float]) -> dict[str, Any]:
    """One side's results. The last loss is the mean over the last twentieth of the steps, one batch being noisy."""
    losses = [loss.item() for loss in side.losses]
    last = losses[-max(1, len(losses) // 20) :]
    return {
        "first_loss": losses[0],
        "last_loss": sum(last) / len(last),
        "score": scores[-1],
        "step_seconds": timing.median,
        "step_spread": timing.spread,
        "total_seconds": sum(timing.blocks) * task.calls,
        "losses": losses,
        "scores": scores,
        "block_seconds": timing.blocks,
    }


def report(result: dict[str, Any], threads: int) -> str:
    """The table of one training, with its conditions above it."""
    gradients = result["first_gradients"]
    name, value = result["baseline"]
    head = [
        result["title"],
        f"{result['optimizer']} lr {result['lr']} falling to 0, input {result['input']} float32, {threads} threads, "
        f"{result['steps']} steps, {result['train_samples']} training and {result['test_samples']} test samples",
        f"gradients of the first step against PyTorch's: largest difference {gradients['absolute']:.1e}, "
        f"{gradients['relative']:.1e} of the parameter's largest gradient",
    ]
    rows = []
    for side, label in (("tapegrad", "tapegrad"), ("torch", f"PyTorch, {result['torch_choice']}")):
        one = result["sides"][side]
        rows.append(
            [
                label,
                f"{one['first_loss']:.4f}",
                f"{one['last_loss']:.4f}",
                f"{one['score']:.2f}",
                f"{seconds(one['step_seconds'])} +- {seconds(one['step_spread'])}",
                f"{one['total_seconds']:.2f} s",
                f"{result['ratio']:.2f}x" if side == "tapegrad" else "1x",
            ]
        )
    rows.append([name, "", "", f"{value:.2f}", "", "", ""])
    columns = ["", "first loss", "last loss", f"test {result['score_name']}", "step", "total", "speed"]
    return "\n".join([*head, table(columns, rows)])
