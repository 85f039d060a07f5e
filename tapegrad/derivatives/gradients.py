"""Derivatives of recorded values: reverse replay to chosen inputs, and the forward replay."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ..core import (
    ArgumentError,
    Entry,
    Leaf,
    Node,
    TapeError,
    Tensor,
    active_entries,
    entry_of,
    gather,
    mode,
    pull,
    replay,
    seed,
)


def _listed(value: Any, what: str) -> list[Tensor]:
    """One Tensor or a sequence of them, as a list."""
    items = [value] if isinstance(value, Tensor | torch.Tensor) or not hasattr(value, "__iter__") else list(value)
    for item in items:
        if not isinstance(item, Tensor):
            raise TypeError(f"grad: {what} must be tapegrad Tensors; got {type(item).__module__}.{type(item).__name__}")
    return items


def grad(
    outputs: Tensor | Sequence[Tensor],
    inputs: Tensor | Sequence[Tensor],
    grad_outputs: Any = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    only_inputs: bool = True,
    allow_unused: bool | None = None,
    is_grads_batched: bool = False,
    materialize_grads: bool = False,
) -> tuple[Tensor | None, ...]:
    """``sum_k grad_outputs[k] . d outputs[k] / d inputs[i]`` for every input i; ``.grad`` of leaves is left alone.

    Parameters
    ----------
    outputs : the tensors to differentiate; one that depends on nothing (a constant first gradient) contributes nothing
    inputs : leaves or computed values they depend on
    grad_outputs : a gradient per output (None: 1, for outputs of one element)
    retain_graph : keep the saved values for another backward (default: ``create_graph``)
    create_graph : record the derivative, so that it can be differentiated
    allow_unused : give None for an input the outputs do not depend on, instead of raising (default:
        ``materialize_grads``)
    materialize_grads : give zeros instead of None
    only_inputs : True; to add to ``.grad`` of other leaves too is what `Tensor.backward` does
    is_grads_batched : False; several gradients at once are several calls

    Raises
    ------
    ArgumentError
        for the other value of the last two.
    TapeError
        if an input needs no gradient or is not used, or none of the outputs was recorded.
    """
    if materialize_grads and allow_unused is False:
        raise ArgumentError(
            "grad: materialize_grads=True gives zeros for unused inputs; allow_unused=False refuses them"
        )
    if not only_inputs or is_grads_batched:
        raise ArgumentError("grad: only_inputs must be True and is_grads_batched False")
    allow_unused = allow_unused or materialize_grads
    roots, wanted = _listed(outputs, "outputs"), _listed(inputs, "inputs")
    given = [None] * len(roots) if grad_outputs is None else grad_outputs
    given = [given] if not isinstance(given, list | tuple) else list(given)
    if len(given) != len(roots):
        raise TapeError(f"grad: {len(roots)} outputs need as many grad_outputs; got {len(given)}")
    for i, x in enumerate(wanted):
        if x._node is None:
            raise TapeError(f"grad: input {i} does not require a gradient, so nothing was recorded for it")
    flowing = [seed(root, g, create_graph, "grad") for root, g in zip(roots, given, strict=True)]
    seeds = [(root._node, g) for root, g in zip(roots, flowing, strict=True) if root._node is not None]
    if not seeds and not allow_unused:
        raise TapeError(
            "grad: none of the outputs depends on anything that requires a gradient (or all were computed under "
            "no_grad), so there is nothing to differentiate; pass allow_unused=True to get None"
        )
    keep = create_graph if retain_graph is None else retain_graph
    slots = replay(seeds, wanted={x._node for x in wanted if x._node}, create_graph=create_graph, retain_graph=keep)
    results: list[Tensor | None] = []
    for i, x in enumerate(wanted):
        g = slots.get(x._node)
        if g is None and not allow_unused:
            raise TapeError(f"grad: the outputs do not depend on input {i}; pass allow_unused=True to get None for it")
        if g is None and materialize_grads:
            g = torch.zeros_like(x.data)
        results.append(g if g is None or isinstance(g, Tensor) else Tensor._made(g, None))
    return tuple(results)


def push(
    entry: Entry, parents: tuple[Node | None, ...], tangents: Sequence[Tensor | None], create_graph: bool
) -> list[Tensor]:
    """The output tangents of one entry, given those of its inputs: the transpose of its rule's transpose.

    A gradient rule is linear in the output gradient u: ``dx_i = J_i^T u``. Recording it for a placeholder u and
    differentiating ``sum_i t_i . dx_i`` by u gives ``sum_i J_i t_i``, the tangent, for every op there is.
    """
    several = type(entry.shape) is tuple
    u = [Tensor(torch.zeros(shape, dtype=dtype), True) for shape, dtype in entry.outputs]
    before = mode.record
    mode.record = True
    try:
        gradients = pull(entry, parents, u if several else u[0], True)
    finally:
        mode.record = before
    seeds: list[tuple[Node, Any]] = []
    for dx, t in zip(gradients, tangents, strict=True):
        if t is not None and dx is not None and dx._node is not None:
            seeds.append((dx._node, t if create_graph else t.data))
    wanted: set[Node] = {leaf._node for leaf in u if leaf._node is not None}
    slots = replay(seeds, wanted=wanted, create_graph=create_graph, retain_graph=True, stop=True)
    out = []
    for leaf in u:
        g = slots.get(leaf._node)
        out.append(Tensor(torch.zeros_like(leaf.data)) if g is None else g if create_graph else Tensor._made(g, None))
    return out


def forward_replay(
    outputs: Sequence[Tensor], inputs: Sequence[tuple[Node, Tensor]], create_graph: bool
) -> list[Tensor | None]:
    """Walk the tape forward: the tangents of the outputs, given the tangents of the input nodes.

    None for an output that does not depend on the inputs.
    """
    tangents: dict[Any, Tensor] = dict(inputs)
    frontier = set(tangents)
    entries = gather([y._node for y in outputs if y._node is not None], frontier)
    active = active_entries(entries, frontier)
    for entry, parents in active.items():
        given = [None if parent is None else tangents.get(parent) for parent in parents]
        out = push(entry, parents, given, create_graph)
        if type(entry.shape) is tuple:
            tangents.update({(entry, i): t for i, t in enumerate(out)})
        else:
            tangents[entry] = out[0]
    return [None if y._node is None else tangents.get(y._node) for y in outputs]


def leaves_of(values: Sequence[Tensor], frontier: set[Node]) -> set[Leaf]:
    """The leaves that the values depend on, not counting what lies beyond the frontier."""
    nodes = [v._node for v in values if v._node is not None]
    found = {entry_of(node) for node in nodes if node not in frontier}
    for entry in gather(nodes, frontier):
        found |= {entry_of(parent) for parent in entry.parents if parent is not None and parent not in frontier}
    return {node for node in found if isinstance(node, Leaf)}
