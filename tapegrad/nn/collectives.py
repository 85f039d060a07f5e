"""Sums and copies over the processes of a group, as operators of torch, so that a compiled step records them.

``tapegrad::all_reduce_`` and ``tapegrad::broadcast_`` work in place on lists of tensors and take a group by its name.
Tensors of one dtype travel as one flat buffer.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist

from ..core import ArgumentError


def _flat(tensors: list[torch.Tensor], exchange: Callable[[torch.Tensor], Any]) -> None:
    """Exchange one buffer for each dtype, and put what comes back into the tensors."""
    by_dtype: dict[torch.dtype, list[torch.Tensor]] = {}
    for t in tensors:
        by_dtype.setdefault(t.dtype, []).append(t)
    for same in by_dtype.values():
        buffer = torch.cat([t.reshape(-1) for t in same])
        exchange(buffer)
        for t, part in zip(same, torch.split(buffer, [t.numel() for t in same]), strict=True):
            t.copy_(part.view(t.shape))


def _members(group: str) -> Any:
    return dist.distributed_c10d._resolve_process_group(group)  # type: ignore[attr-defined,arg-type]


def _all_reduce(tensors: list[torch.Tensor], op: str, group: str, rows: int) -> None:
    members = _members(group)
    size = dist.get_world_size(members)
    if size == 1:
        return
    counted = rows >= 0
    if counted:  # in front of the first buffer: a place for every process's number of rows
        counts = tensors[0].new_zeros(size)
        counts[dist.get_rank(members)] = rows
        tensors = [counts, *tensors]

    def exchange(buffer: torch.Tensor) -> None:
        nonlocal counted
        dist.all_reduce(buffer, dist.ReduceOp.SUM if op == "avg" else getattr(dist.ReduceOp, op.upper()), members)
        if counted:
            _equal([int(n) for n in buffer[:size].unbind()])  # tolist() is an escape in a recording
            counted = False
        if op == "avg":  # which gloo does not know
            buffer.div_(size)

    _flat(tensors, exchange)


def _equal(rows: list[int]) -> None:
    if len(set(rows)) > 1:
        raise ArgumentError(
            f"DistributedDataParallel: the processes' batches must have the same number of rows, got {rows}: the mean "
            "over the processes is then not the mean over the rows. Give all the same number (drop_last=True, torch's "
            "DistributedSampler), or pass unequal_batches=True for the mean over the processes"
        )


def _broadcast(tensors: list[torch.Tensor], group: str) -> None:
    members = _members(group)
    source = dist.get_global_rank(members, 0)
    if dist.get_world_size(members) > 1:
        _flat(tensors, lambda buffer: dist.broadcast(buffer, source, group=members))


@functools.cache
def _library() -> torch.library.Library:
    """The operators, made when the first group is used."""
    library = torch.library.Library("tapegrad", "FRAGMENT")  # type: ignore[no-untyped-call]
    for schema, function in (
        ("all_reduce_(Tensor(a!)[] tensors, str op, str group, int rows) -> ()", _all_reduce),
        ("broadcast_(Tensor(a!)[] tensors, str group) -> ()", _broadcast),
    ):
        library.define(schema)  # type: ignore[no-untyped-call]
        library.impl(schema.partition("(")[0], function, "CPU")  # type: ignore[no-untyped-call]
    return library


def all_reduce_(tensors: list[torch.Tensor], op: str, group: str, rows: int = -1) -> None:
    """Every tensor becomes its "sum", "avg", "product", "min" or "max" over the processes, on all the same bits.

    `rows`, if it is not -1, travels along with "sum" and "avg": ArgumentError where processes have different numbers.
    """
    _library()
    torch.ops.tapegrad.all_reduce_(tensors, op, group, rows)


def broadcast_(tensors: list[torch.Tensor], group: str) -> None:
    """Every tensor becomes that of the group's first process."""
    _library()
    torch.ops.tapegrad.broadcast_(tensors, group)


def described_alike(description: Any, group: Any) -> None:
    """ArgumentError where another process of the group describes its module differently."""
    all_of_them: list[Any] = [None] * dist.get_world_size(group)
    dist.all_gather_object(all_of_them, description, group=group)
    for rank, other in enumerate(all_of_them):
        if other != description:
            differing = next(
                (pair for pair in zip(description, other, strict=False) if pair[0] != pair[1]),
                (f"{len(description)} tensors", f"{len(other)} tensors"),
            )
            raise ArgumentError(
                f"DistributedDataParallel: module must be the same on every process; rank {rank} of the group has "
                f"{differing[1]}, this one {differing[0]}"
            )
