"""Checkpointing: a piece of the forward pass that keeps its inputs only and is computed again in backward."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch.utils import _pytree as pytree

from ..core import Arrays, Entry, Node, Op, Tensor, enable_grad, gather, mode, next_slot, replay
from ..ops import alias
from ..ops.random import draws


@contextmanager
def _drawing(log: list[tuple[int, int]] | None, again: Iterator[tuple[int, int]] | None) -> Iterator[None]:
    """This thread's random ops note their places in `log`, or draw again at the places in `again`."""
    before = draws.log, draws.again
    draws.log, draws.again = log, again
    try:
        yield
    finally:
        draws.log, draws.again = before


class _Recomputed(Op):
    """The op of a checkpointed call: its parents are f's arguments, then whatever else f reached on the tape."""

    runs_users_code = True

    def pull(self, entry: Entry, parents: tuple[Node | None, ...], g: Any, recorded: bool) -> Sequence[Any]:
        self._check_unchanged(entry)
        values, f, places = (self._recorded_environment(entry) if recorded else entry.env)[:3]
        nodes = entry.parents[: len(values)]
        if recorded:
            variables = [v if node is None else alias(v) for v, node in zip(values, nodes, strict=True)]
        else:
            variables = [Tensor(v, node is not None) for v, node in zip(values, nodes, strict=True)]
        with enable_grad(), _drawing(None, iter(places)):
            outputs = f(variables)
        wanted = [*(v._node for v in variables), *parents[len(values) :]]
        seeds = [
            (y._node, gy)
            for y, gy in zip(outputs, g if type(g) is list else [g], strict=True)
            if y._node is not None and gy is not None
        ]
        found = {node for node in wanted if node is not None}
        slots = replay(seeds, wanted=found, create_graph=recorded, retain_graph=recorded, stop=True)
        return [None if node is None else slots.get(node) for node in wanted]


def _declared(tensors: Arrays, f: Any, places: Any) -> Any: ...


_op = _Recomputed(_declared, {"tensors": lambda g, tensors: None}, name="checkpoint")


def checkpoint(f: Callable[..., Any], *args: Any) -> Any:
    """``f(*args)``, keeping its arguments only: what backward needs of the inside is computed again then.

    Random numbers are replayed: dropout inside drops the same elements both times. Tensors that f reaches otherwise
    (a module's parameters) get their gradients as usual. Side effects of f, such as running statistics, happen twice.

    Parameters
    ----------
    f : function of Tensors (and anything else) that returns a Tensor or a pytree of them
    args : its arguments; nested dicts, lists and tuples are looked into

    Source: Griewank and Walther, Algorithm 799: revolve (ACM TOMS, 2000); Chen et al., Sublinear Memory Cost (2016).
    """
    if not mode.record:
        return f(*args)
    flat, structure = pytree.tree_flatten(args)
    places = [i for i, value in enumerate(flat) if isinstance(value, Tensor)]
    tensors = [flat[i] for i in places]
    returned: list[Any] = []
    followed: list[int] = []  # which outputs have derivatives

    @functools.wraps(f)
    def call(variables: list[Tensor]) -> list[Tensor]:
        leaves = list(flat)
        for i, v in zip(places, variables, strict=True):
            leaves[i] = v
        outputs, out_structure = pytree.tree_flatten(f(*pytree.tree_unflatten(leaves, structure)))
        returned[:] = [out_structure]
        return [outputs[i] for i in followed] if followed else outputs

    start = next_slot()
    variables = [Tensor(x.data, x._node is not None) for x in tensors]
    drawn: list[tuple[int, int]] = []
    open_tapes, mode.tapes = mode.tapes, ()  # the inside is not what will be differentiated
    try:
        with _drawing(drawn, draws.again):
            outputs = call(variables)
    finally:
        mode.tapes = open_tapes
    own = {v._node for v in variables}
    others = _reached([y for y in outputs if isinstance(y, Tensor)], own, start)
    flat = [None if i in places else value for i, value in enumerate(flat)]  # `call` must not hold the arguments
    nodes = [*(x._node for x in tensors), *others]
    followed += [i for i, y in enumerate(outputs) if isinstance(y, Tensor) and y._node is not None]
    results = [y.detach() if isinstance(y, Tensor) else y for y in outputs]
    if followed:
        raws = tuple(outputs[i].data for i in followed)
        values = [x.data for x in tensors], call, drawn
        recorded = _op.record(raws[0] if len(raws) == 1 else raws, (nodes,), values)
        for i, y in zip(followed, recorded if len(raws) > 1 else (recorded,), strict=True):
            results[i] = y
    return pytree.tree_unflatten(results, returned[0])


def _reached(outputs: list[Tensor], own: set[Node | None], start: int) -> list[Node]:
    """The nodes older than the call that its entries read, besides its own variables."""
    entries = gather([y._node for y in outputs if y._node is not None])
    inside = [entry for entry in entries if entry.seq > start]
    found: dict[Node, None] = {}
    for node in [p for entry in inside for p in entry.parents] + [y._node for y in outputs]:
        owner = node[0] if isinstance(node, tuple) else node
        if node is not None and owner is not None and owner.seq < start and node not in own:
            found[node] = None
    return list(found)
