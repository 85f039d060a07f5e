"""``python -m tapegrad``: what is installed, whether gradients are right, and how fast it is.

The output is what belongs into a bug report. It takes about five seconds.
"""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

import tapegrad

from . import nn, optim
from .compiled import compile
from .core import _C, Tensor, no_grad
from .files import from_torch

OPTIONAL = {
    "numpy": "arrays",
    "matplotlib": "tg.plot, extra plot",
    "tqdm": "progress bars, extra progress",
    "sklearn": "tapegrad.sklearn, extra sklearn",
    "jax": "python bench steps, extra bench-jax",
}
SIZES = (2, 25, 25, 25, 2)
SECONDS = 0.8  # each side


def main() -> int:
    """Print the report; 1 if a gradient is wrong."""
    info = _C.build_info()
    optional = [f"{name} ({use}){'' if find_spec(name) else ' not installed'}" for name, use in OPTIONAL.items()]
    facts = {
        "tapegrad": f"{tapegrad.__version__} in {Path(__file__).parent}",
        "torch": torch.__version__,
        "python": f"{platform.python_version()} on {platform.platform()}",
        "processor": f"{_processor()}; kernels for {info['isa']}",
        "threads": f"{torch.get_num_threads()} of {_cores()} cores",
        "optional": ", ".join(optional),
    }
    for name, value in facts.items():
        print(f"{name:10} {value}")
    return check()


def check() -> int:
    """A small network: its gradient beside finite differences of PyTorch's forward pass, then times."""
    network = "-".join(map(str, SIZES))
    x, y = torch.randn(25, SIZES[0], dtype=torch.float64), torch.randint(SIZES[-1], (25,))
    theirs = _network(torch.nn).double()
    worst = _error(theirs, x, y)
    good = worst < 1e-5
    print(f"{'check':10} gradients of {network} differ from finite differences by {worst:.0e} of themselves: ", end="")
    print("good" if good else "WRONG")
    x, theirs = x.float(), theirs.float().eval()
    ours = from_torch(theirs)
    with torch.no_grad(), no_grad():
        forward = {"PyTorch": _time(theirs, x), "tapegrad": _time(ours, x), "compiled": _time(compile(ours), Tensor(x))}
    step = _step(ours.train(), optim.SGD(ours.parameters(), lr=0.01))
    arrays = Tensor(x), Tensor(y)
    training = {"tapegrad": _time(step, *arrays), "compiled": _time(compile(step), *arrays)}
    print(f"{'speed':10} us of {network}, batch 25: forward {_figures(forward)}; step of SGD {_figures(training)}")
    return 0 if good else 1


def _error(theirs: Any, x: torch.Tensor, y: torch.Tensor) -> float:
    """Of the gradient along ten random directions, (f(p + h d) - f(p - h d)) / 2 h, f being PyTorch's loss."""
    ours = from_torch(theirs)
    nn.functional.cross_entropy(ours(x), y).backward()
    parameters = [p.detach() for p in theirs.parameters()]  # the same memory
    worst, h = 0.0, 1e-6
    for _ in range(10):
        directions = [torch.randn_like(p) for p in parameters]
        values = []
        for step in (h, -2 * h):
            for p, d in zip(parameters, directions, strict=True):
                p += step * d
            with torch.no_grad():
                values.append(float(torch.nn.functional.cross_entropy(theirs(x), y)))
        for p, d in zip(parameters, directions, strict=True):
            p += h * d
        expected = (values[0] - values[1]) / (2 * h)
        pairs: Any = zip(ours.parameters(), directions, strict=True)
        found = sum(float((p.grad.data * d).sum()) for p, d in pairs)
        worst = max(worst, abs(found - expected) / abs(expected))
    return worst


def _network(nn: Any) -> Any:
    layers = []
    for inputs, outputs in pairwise(SIZES):
        layers += [nn.Linear(inputs, outputs), nn.Tanh()]
    return nn.Sequential(*layers[:-1])


def _step(model: Any, optimizer: Any) -> Callable[..., Any]:
    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def _figures(times: dict[str, float]) -> str:
    return ", ".join(f"{name} {seconds / 1e-6:.1f}" for name, seconds in times.items())


def _time(step: Callable[..., Any], *args: Any) -> float:
    """The shortest of many calls within `SECONDS`."""
    best, end = float("inf"), time.perf_counter() + SECONDS
    while time.perf_counter() < end:
        start = time.perf_counter()
        step(*args)
        best = min(best, time.perf_counter() - start)
    return best


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
    sys.exit(main())
