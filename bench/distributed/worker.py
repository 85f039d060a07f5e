"""What one process of suite `distributed` does: steps with and without the average, and the exchange alone."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

import tapegrad as tg
from tapegrad.nn.parallel import DistributedDataParallel

from ..common import networks

# name: network, sizes of a row, classes, rows a process takes
NETWORKS: dict[str, tuple[Callable[[Any], Any], tuple[int, ...], int, int]] = {
    "2-25-25-25-2": (networks.mlp, (2,), 2, 25),
    "784-128-10": (networks.digits_mlp, (784,), 10, 128),
    "LeNet-5": (networks.lenet, (1, 28, 28), 10, 64),
}
SIZES = (1, 64, 1024, 16384, 131072, 1048576)  # numbers in a buffer


def process(rank: int, processes: int, folder: str, quick: bool) -> dict[str, Any]:
    """Seconds of everything on this rank: {"steps": {name: [alone, averaged, parameters]}, "exchange": [[bytes, s]]}.

    Minima over blocks that all processes begin together.
    """
    torch.set_num_threads(1)
    where = f"file://{Path(folder) / f'group{processes}'}"
    dist.init_process_group("gloo", init_method=where, rank=rank, world_size=processes, timeout=timedelta(seconds=120))
    try:
        steps = {name: _steps(*shape, quick) for name, shape in list(NETWORKS.items())[: 2 if quick else None]}
        exchange = []
        for n in SIZES[:: 2 if quick else 1]:
            buffer = torch.ones(n)
            exchange.append([buffer.nbytes, _least([lambda buffer=buffer: dist.all_reduce(buffer)], quick)[0]])
        return {"steps": steps, "exchange": exchange}
    finally:
        dist.destroy_process_group()


def _steps(network: Callable[[Any], Any], sizes: tuple[int, ...], classes: int, rows: int, quick: bool) -> list[float]:
    sides: list[Callable[[], Any]] = []
    for wrap in (lambda model: model, DistributedDataParallel):
        tg.manual_seed(0)
        model = wrap(network(tg.nn))
        optimizer = tg.optim.SGD(model.parameters(), lr=1e-4)
        step, x, y = _step(model, optimizer), tg.randn(rows, *sizes), tg.randint(0, classes, (rows,))
        for _ in range(4):
            step(x, y)
        sides.append(lambda step=step, x=x, y=y: step(x, y))
    parameters = sum(p.numel() for p in model.parameters())
    return [*_least(sides, quick), parameters]


def _step(model: Any, optimizer: Any) -> Any:
    @tg.compile
    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        loss = tg.nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    return step


def _least(sides: list[Callable[[], Any]], quick: bool) -> list[float]:
    """Seconds of a call of each side, the least over blocks that take turns."""
    blocks, calls = (8, 10) if quick else (40, 20)
    found = [float("inf")] * len(sides)
    for _ in range(blocks):
        for i, side in enumerate(sides):
            dist.barrier()
            start = time.perf_counter()
            for _ in range(calls):
                side()
            found[i] = min(found[i], (time.perf_counter() - start) / calls)
    return found
