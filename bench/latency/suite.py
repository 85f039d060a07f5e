"""Suite `latency`: the sides' answers compared, then timed in turns on one core; a compiled call taken apart."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

import tapegrad as tg

from ..cli import Options
from ..common.cores import pinned
from ..common.networks import mlp
from ..common.tables import environment, micro, table, write_json
from ..common.timing import Timing, ratio, take_turns
from .sides import Question, Side, sides

BLOCK = 0.5e-3  # seconds
ROUNDING = 1e-5  # of the largest output
OURS = "tapegrad, tg.compile(model)(x)"


def run(options: Options) -> None:
    """Print the table and the parts of a call; write latency.json."""
    with pinned(1):
        machine = environment(1)
        print(", ".join(f"{name} {value}" for name, value in machine.items()))
        print(EXPLANATION, flush=True)
        question = Question()
        found, missing = sides(question, options.quick)
        agree(found)
        blocks = 40 if options.quick else 200
        with torch.no_grad(), tg.no_grad():
            timings = measure(found, blocks)
        print("\n17-64-64-6 tanh, one row, float32\n" + report(timings, missing))
        calls = {"forward 17-64-64-6, one row": forward(question), "training step 2-25-25-25-2, 25 rows": training()}
        parts = {name: apart(step, arguments, blocks) for name, (step, arguments) in calls.items()}
        for name, rows in parts.items():
            print(f"\nparts of a compiled call, ns: {name}\n" + table(["part", "ns"], rows))
    result = {"environment": machine, "missing": missing, "parts": parts}
    result["seconds"] = {name: {"median": t.median, "least": min(t.measured)} for name, t in timings.items()}
    write_json(options.out / "latency.json", result)
    print(f"\nwritten to {options.out}: latency.json")


def agree(found: list[Side]) -> None:
    """RuntimeError where a side's answer is not the first one's to rounding."""
    expected = found[0].answer
    for side in found:
        if side.answer.shape != expected.shape or not np.allclose(side.answer, expected, rtol=0, atol=ROUNDING):
            raise RuntimeError(f"{side.name}: answers {side.answer}, {found[0].name} {expected}")


def measure(found: list[Side], blocks: int) -> dict[str, Timing]:
    """Seconds a call by side; blocks of some milliseconds take turns."""
    calls, timed = [], []
    for side in found:
        once = side.seconds(100) if side.seconds else min(elapsed(side.call) for _ in range(20))
        calls.append(max(1, round(BLOCK / once)))
        timed.append(block(side, calls[-1]))
    timings = take_turns(timed, blocks=blocks + 1, calls=1)
    return {
        side.name: Timing(timing.warmup, [seconds / n for seconds in timing.blocks])
        for side, timing, n in zip(found, timings, calls, strict=True)
    }


def block(side: Side, n: int) -> Callable[[], Any]:
    def some() -> None:
        for _ in range(n):
            side.call()

    return some if side.seconds is None else lambda: side.seconds(n)  # type: ignore[misc]


def elapsed(call: Callable[[], Any]) -> float:
    return take_turns([call], blocks=2, calls=1)[0].median


def report(timings: dict[str, Timing], missing: dict[str, str]) -> str:
    ours = timings[OURS]
    rows = [[name, micro(t), f"{min(t.measured) / 1e-6:.2f}", f"{ratio(ours, t):.2f}"] for name, t in timings.items()]
    rows += [[name, why, "", ""] for name, why in missing.items()]
    return table(["side", "us a call", "least", "times tg.compile's"], rows)


# --- a call, taken apart ------------------------------------------------------------------------------------------


def forward(question: Question) -> tuple[Any, tuple[Any, ...]]:
    model = question.model
    return tg.compile(lambda x: model(x).detach()), (tg.Tensor(question.x),)


def training() -> tuple[Any, tuple[Any, ...]]:
    tg.manual_seed(0)
    model = mlp(tg.nn)
    optimizer = tg.optim.SGD(model.parameters(), lr=1e-3)

    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        loss = tg.nn.functional.mse_loss(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    return tg.compile(step), (tg.rand(25, 2), tg.rand(25, 2))


def apart(step: Any, arguments: tuple[Any, ...], blocks: int) -> list[tuple[str, int]]:
    """(part, ns): the parts that `Compiled.profile` measures one by one, the whole call, and what is left for the
    call itself: Python's, the choice of the program, binding of arguments, and caches that the parts share."""
    for _ in range(5):
        step(*arguments)
    profile = step.profile(*arguments)
    (timing,) = take_turns([lambda: step(*arguments)], blocks=blocks + 1, calls=200)
    whole = min(timing.measured) * 1e9
    parts = [*profile.call, ("instructions", sum(row.ns for row in profile.rows))]
    rows = [*parts, ("the call itself", whole - sum(ns for _, ns in parts)), ("whole call", whole)]
    return [(name, round(ns)) for name, ns in rows]


EXPLANATION = """\
one thread, pinned to one core; the same weights, the answers compared first; blocks of half a millisecond take turns;
median over the blocks +- half the IQR, and the least block. Sides are called from Python, but for exported C, whose
loop is C itself. layer by layer: what tapegrad does without a program. JAX waits for its result; ONNX Runtime takes
and gives arrays. Every 1000th call of a compiled step is an eager one, recorded and compared, and is in the figures."""
