"""Derivatives as functions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .errors import TapeError
from .tape import replay
from .tensor import Tensor, root_gradient


def _listed(value: Any, what: str) -> list[Tensor]:
    """One Tensor or a sequence of them, as a list."""
    items = [value] if isinstance(value, Tensor) else list(value)
    for item in items:
        if not isinstance(item, Tensor):
            raise TypeError(f"grad: {what} must be Tensors; got {type(item).__name__}")
    return items


def grad(
    outputs: Tensor | Sequence[Tensor],
    inputs: Tensor | Sequence[Tensor],
    grad_outputs: Any = None,
    *,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    allow_unused: bool = False,
) -> tuple[Tensor | None, ...]:
    """``sum_k grad_outputs[k] . d outputs[k] / d inputs[i]`` for every input i; ``.grad`` of leaves is left alone.

    Parameters
    ----------
    outputs : the tensors to differentiate
    inputs : leaves or computed values they depend on
    grad_outputs : a gradient per output (None: 1, for outputs of one element)
    retain_graph : keep the saved values for another backward (default: ``create_graph``)
    create_graph : record the derivative, so that it can be differentiated
    allow_unused : give None for an input the outputs do not depend on, instead of raising

    Raises
    ------
    TapeError
        if an input needs no gradient or is not used, or the outputs were not recorded.
    """
    roots, wanted = _listed(outputs, "outputs"), _listed(inputs, "inputs")
    given = [None] * len(roots) if grad_outputs is None else grad_outputs
    given = [given] if not isinstance(given, list | tuple) else list(given)
    if len(given) != len(roots):
        raise TapeError(f"grad: {len(roots)} outputs need as many grad_outputs; got {len(given)}")
    for i, x in enumerate(wanted):
        if x._node is None:
            raise TapeError(f"grad: input {i} does not require a gradient, so nothing was recorded for it")
    seeds = [root_gradient(root, g, create_graph, "grad") for root, g in zip(roots, given, strict=True)]
    keep = create_graph if retain_graph is None else retain_graph
    slots = replay(seeds, wanted={x._node for x in wanted if x._node}, create_graph=create_graph, retain_graph=keep)
    results: list[Tensor | None] = []
    for i, x in enumerate(wanted):
        g = slots.get(x._node)
        if g is None and not allow_unused:
            raise TapeError(f"grad: the outputs do not depend on input {i}; pass allow_unused=True to get None for it")
        results.append(g if g is None or isinstance(g, Tensor) else Tensor._made(g, None))
    return tuple(results)
