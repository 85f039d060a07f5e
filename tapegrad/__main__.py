"""``python -m tapegrad``: what is installed, whether it computes what PyTorch computes, and how fast.

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
from .core import _C, Tensor
from .files import from_torch

OPTIONAL = {
    "numpy": "arrays",
    "matplotlib": "tg.plot, extra plot",
    "tqdm": "progress bars, extra progress",
    "sklearn": "tapegrad.sklearn, extra sklearn",
    "jax": "python bench steps, extra bench-jax",
}
SIZES = (2, 25, 25, 25, 2)
SECONDS = 1.0  # each side


def main() -> int:
    """Print the report; 1 if a value differs from PyTorch's."""
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
    """One training step of a small network on both sides: gradients compared, then timed."""
    x, y = torch.randn(25, SIZES[0]), torch.randint(SIZES[-1], (25,))
    theirs = _network(torch.nn)
    ours = from_torch(theirs)
    loss = nn.functional.cross_entropy(ours(x), y)
    loss.backward()
    torch.nn.functional.cross_entropy(theirs(x), y).backward()  # type: ignore[no-untyped-call]
    pairs: list[Any] = list(zip(ours.parameters(), theirs.parameters(), strict=True))
    worst = max(float((p.grad.data - q.grad).abs().max() / q.grad.abs().max()) for p, q in pairs)
    good = worst < 1e-4
    print(
        f"{'check':10} gradients of {'-'.join(map(str, SIZES))} differ from PyTorch's by {worst:.0e} of the largest",
        end="",
    )
    print(": good" if good else ": WRONG")
    eager = _step(ours, optim.SGD(ours.parameters(), lr=0.01), nn.functional.cross_entropy)
    torchs = _step(theirs, torch.optim.SGD(theirs.parameters(), lr=0.01), torch.nn.functional.cross_entropy)
    tensors = Tensor(x), Tensor(y)
    times = {
        "PyTorch": _time(torchs, x, y),
        "tapegrad": _time(eager, *tensors),
        "compiled": _time(compile(eager), *tensors),
    }
    figures = ", ".join(f"{name} {seconds / 1e-6:.1f}" for name, seconds in times.items())
    print(f"{'speed':10} us for one step of it, batch 25, SGD: {figures}")
    return 0 if good else 1


def _network(nn: Any) -> Any:
    layers = []
    for inputs, outputs in pairwise(SIZES):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def _step(model: Any, optimizer: Any, loss_fn: Callable[..., Any]) -> Callable[..., Any]:
    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        loss = loss_fn(model(x), y)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def _time(step: Callable[..., Any], *args: Any) -> float:
    """The shortest of many calls within about a second."""
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
