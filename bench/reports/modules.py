"""Report 5's modules beside PyTorch's: differences over many runs, and times."""

from __future__ import annotations

import copy
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

import tapegrad as tg

from ..common.timing import ratio, take_turns
from . import workers

SHAPE = (100, 3, 10, 10)  # N C H W
RUN_SECONDS = 5e-3  # of calls in a timed run, between 10 and 1000 of them
CHUNK = 50  # runs between two reports of progress


def convolution(nn: Any) -> Any:
    return nn.Conv2d(3, 3, 3)


def upsampling(nn: Any) -> Any:
    """Nearest upsampling and then a convolution; tapegrad has it as one layer."""
    if nn is tg.nn:
        return nn.UpsampleConv2d(3, 3, 3, padding=1)
    return nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(3, 3, 3, padding=1))


@dataclass(frozen=True)
class Case:
    """A module of `nn`; `loss` is what its gradients come from: of its output's sum, its MSE to a target, or itself."""

    build: Callable[[Any], Any]
    loss: str


CASES = {
    "ReLU": Case(lambda nn: nn.ReLU(), "sum"),
    "Sigmoid": Case(lambda nn: nn.Sigmoid(), "sum"),
    "MSE": Case(lambda nn: nn.MSELoss(), "itself"),
    "Conv2d": Case(convolution, "mse"),
    "Upsampling": Case(upsampling, "mse"),
}


def shape_text() -> str:
    return f"({','.join(map(str, SHAPE))})"


def pair(name: str, seed: int) -> tuple[Any, Any]:
    """Both sides' module with the same parameters, PyTorch's initial ones for the seed."""
    torch.manual_seed(seed)
    theirs = CASES[name].build(torch.nn)
    ours = CASES[name].build(tg.nn)
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        p.data.copy_(q.data)
    return ours, theirs


# --- differences -------------------------------------------------------------------------------------------------

# What is compared: tapegrad with PyTorch, and both with PyTorch in float64.
COMPARED = ("tapegrad - PyTorch", "tapegrad - float64", "PyTorch - float64")
Differences = dict[str, dict[str, list[float]]]


def differences(name: str, first: int, runs: int) -> Differences:
    """Runs first .. first + runs: by array and by what is compared the largest difference of each run."""
    found: Differences = {}
    for seed in range(first, first + runs):
        ours, theirs = pair(name, seed)
        exact = copy.deepcopy(theirs).double()
        x = torch.randn(SHAPE)
        target = torch.randn(theirs(x).shape if CASES[name].loss == "mse" else SHAPE)
        arrays = {
            "tapegrad": values(tg, CASES[name], ours, x, target),
            "PyTorch": values(torch, CASES[name], theirs, x, target),
            "float64": values(torch, CASES[name], exact, x.double(), target.double()),
        }
        for what in COMPARED:
            left, right = what.split(" - ")
            for part, value in arrays[left].items():
                difference = (value - arrays[right][part]).abs().max().item()
                found.setdefault(part, {}).setdefault(what, []).append(difference)
        if (seed + 1 - first) % CHUNK == 0:
            workers.advance(CHUNK)
    return found


def values(library: Any, case: Case, module: Any, x: torch.Tensor, target: torch.Tensor) -> dict[str, torch.Tensor]:
    """The output, and the gradients of the input and of weight and bias, where there are any."""
    given = library.tensor(x) if library is tg else x.clone()
    given.requires_grad_()
    if case.loss == "itself":
        output = loss = module(given, target)
    else:
        output = module(given)
        loss = library.nn.functional.mse_loss(output, target) if case.loss == "mse" else output.sum()
    loss.backward()
    gradients = dict(zip(("weight", "bias"), (p.grad.data for p in module.parameters()), strict=False))
    return {"output": output.detach().data, "input": given.grad.data, **gradients}


def summed_up(parts: Sequence[Differences]) -> dict[str, dict[str, dict[str, float]]]:
    """Mean, SD and largest over the runs of all parts."""
    whole: dict[str, dict[str, dict[str, float]]] = {}
    for array in parts[0]:
        for what in COMPARED:
            runs = [value for part in parts for value in part[array][what]]
            figures = {"mean": statistics.mean(runs), "sd": statistics.stdev(runs), "largest": max(runs)}
            whole.setdefault(array, {})[what] = figures
    return whole


# --- times -------------------------------------------------------------------------------------------------------


def times(name: str, runs: int) -> dict[str, Any]:
    """Forward calls in runs that take turns; PyTorch in the layout that is faster here. Microseconds, mean and SD."""
    ours, theirs = pair(name, 0)
    arrays = [torch.randn(SHAPE) for _ in range(2 if name == "MSE" else 1)]
    given = [tg.as_tensor(a) for a in arrays]  # each side gets its own tensors, as inside a network
    sides: dict[str, Callable[[], Any]] = {"contiguous": lambda: theirs(*arrays)}
    _, other = pair(name, 0)
    other.to(memory_format=torch.channels_last)
    turned = [a.contiguous(memory_format=torch.channels_last) for a in arrays]
    sides["channels_last"] = lambda: other(*turned)
    trial = take_turns(list(sides.values()), blocks=11, calls=20)
    once = dict(zip(sides, (timing.median for timing in trial), strict=True))
    layout = min(once, key=once.__getitem__)
    calls = max(10, min(1000, int(RUN_SECONDS / once[layout])))
    timings = take_turns([lambda: ours(*given), sides[layout]], blocks=runs + 1, calls=calls)
    row: dict[str, Any] = {"layout": layout, "runs": runs, "calls": calls, "ratio": ratio(*timings)}
    for side, timing in zip(("tapegrad", "torch"), timings, strict=True):
        figures = [1e6 * seconds for seconds in timing.measured]
        row[side] = (statistics.mean(figures), statistics.stdev(figures))
    return row
