"""JAX's way to train many networks: the epoch's `lax.scan` over a `vmap` of the step, batches gathered inside."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

import tapegrad as tg

from ..steps import jax_side
from .workloads import Many


def advance(many: Many, initial: list[list[torch.Tensor]]) -> tuple[Callable[[], None], Any]:
    """(one epoch of all networks, the losses [steps, K] of the first epoch)."""
    jax = jax_side.start()
    workload, count = many.workload, many.count
    arrays = [jax.numpy.asarray(x.numpy()) for x in workload.data()]
    n = workload.batch * workload.batches
    orders = [
        torch.stack([b for (b,) in tg.data.batches(torch.arange(n), batch_size=workload.batch, seed=k)])
        for k in range(count)
    ]
    rows = jax.numpy.asarray(torch.stack(orders, 1).numpy())  # [steps, K, batch]
    step = jax.vmap(jax_side.make_step(jax, workload))

    def one_epoch(state: Any, arrays: list[Any], rows: Any) -> Any:
        return jax.lax.scan(lambda state, row: step(state, *[x[row] for x in arrays]), state, rows)

    epoch = jax.jit(one_epoch, donate_argnums=0)
    parameters = [
        jax.numpy.stack([jax.numpy.asarray(one[i].numpy()) for one in initial]) for i in range(len(initial[0]))
    ]
    zeros = [[jax.numpy.zeros_like(p) for p in parameters] for _ in range(2)]
    state = (parameters, *zeros, jax.numpy.zeros(count))
    state, losses = epoch(state, arrays, rows)
    kept = [state]

    def run() -> None:
        kept[0], _ = epoch(kept[0], arrays, rows)
        jax.block_until_ready(kept[0])

    return run, torch.tensor(jax.device_get(losses))
