"""The reverse replay: collect the entries a value depends on, walk them once from the end."""

from __future__ import annotations

import math
import operator
from collections.abc import Container, Iterable
from typing import Any

import torch

from .errors import NonFiniteError
from .extension import _C
from .foreign import in_backward, in_sum
from .mode import mode
from .tape import Entry, Hook, Leaf, Node, describe, entry_of

_by_sequence = operator.attrgetter("seq")


def gather(roots: Iterable[Node], frontier: Container[Node] = ()) -> list[Entry]:
    """Every entry the roots depend on, in execution order, none beyond a frontier node.

    Iterative, so depth does not matter.
    """
    stack: list[Any] = [entry_of(node) for node in roots if node not in frontier]
    stack = [entry for entry in stack if type(entry) is Entry]
    seen: set[Entry] = set(stack)
    while stack:
        for parent in stack.pop().parents:
            if type(parent) is tuple and parent not in frontier:
                parent = parent[0]
            if type(parent) is Entry and parent not in seen and parent not in frontier:
                seen.add(parent)
                stack.append(parent)
    return sorted(seen, key=_by_sequence)


def active_entries(entries: list[Entry], wanted: Container[Node]) -> dict[Entry, tuple[Node | None, ...]]:
    """Activity analysis: those of `entries` (in execution order) through which a wanted node is reached.

    Each comes with its parents, None in the place of those that lead to no wanted node.
    """
    active: dict[Entry, tuple[Node | None, ...]] = {}
    for entry in entries:
        parents = tuple(
            [
                parent if parent is not None and (parent in wanted or entry_of(parent) in active) else None
                for parent in entry.parents
            ]
        )
        if any(parent is not None for parent in parents):
            active[entry] = parents
    return active


class Slots(dict[Any, Any]):
    """Gradients by node; ``owned`` are the nodes whose tensor nobody else holds, so that sums can go in place."""

    def __init__(self) -> None:
        super().__init__()
        self.owned: set[Any] = set()

    def add(self, node: Node, g: Any) -> None:
        """One more contribution: the first is kept by reference, the second makes a new sum, later ones add to it."""
        before = self.get(node)
        if before is None:
            self[node] = g
            return
        try:
            if node in self.owned:
                before.add_(g)
                return
            total = _C.add(before, g)  # None where it is not for the kernel
            self[node] = before + g if total is None else total
        except Exception as error:
            raise in_sum(before, g, error) from error
        if type(g) is torch.Tensor:  # sums of recorded Tensors stay apart
            self.owned.add(node)


def pull(entry: Entry, parents: tuple[Node | None, ...], g: Any, recorded: bool) -> Any:
    """``entry.op.pull(...)``; what fails in it names the op."""
    try:
        return entry.op.pull(entry, parents, g, recorded)
    except Exception as error:
        _failed(entry, g, error)


def _failed(entry: Entry, g: Any, error: Exception) -> None:
    failure = in_backward(entry, g, error)
    if failure is error:
        raise error
    raise failure from error


def replay(
    seeds: Iterable[tuple[Node, Any]],
    *,
    wanted: set[Node] | None,
    create_graph: bool,
    retain_graph: bool,
    stop: bool = False,
) -> Slots:
    """Walk the tape backward from `seeds` and return the gradients of the leaves, or of the `wanted` nodes.

    ``seeds`` pairs each root with the gradient that flows into it: raw tensors, or `Tensor`s with ``create_graph``,
    in which case the rules themselves are recorded. With ``stop`` nothing beyond a wanted node is visited, so the
    gradients are partial derivatives by the wanted nodes as if they were independent.
    """
    slots = Slots()
    for node, g in seeds:
        slots.add(node, g)
    entries = gather(list(slots), wanted if stop and wanted is not None else ())
    active = None if wanted is None else active_entries(entries, wanted)
    result = Slots()

    def visit(entry: Entry) -> None:
        g = _take(slots, entry, result, wanted)
        parents = entry.parents if active is None else active.get(entry)
        if g is None or parents is None:
            return
        gradients = pull(entry, parents, g, create_graph)
        if anomaly:
            for i, dx in enumerate(gradients):
                if dx is not None:
                    check_finite(getattr(dx, "data", dx), f"gradient of input {i}", entry)
        for parent, dx in zip(parents, gradients, strict=True):
            if dx is None or parent is None:
                continue
            if parent in slots:
                slots.add(parent, dx)
            else:
                slots[parent] = dx
                if entry.op.fresh and type(parent) is Leaf and not create_graph:
                    slots.owned.add(parent)

    before = mode.record
    mode.record = create_graph
    anomaly = mode.anomaly
    try:
        if not create_graph and not anomaly:
            _C.walk(entries, slots, slots.owned, wanted, active, visit, _failed)  # does the same, quickly, where it can
        else:
            for entry in reversed(entries):
                visit(entry)
        _finish(slots, result, wanted)
    finally:
        mode.record = before
    if not retain_graph:
        for entry in entries if active is None else active:
            entry.release()
    return result


def _take(slots: Slots, entry: Entry, result: Slots, wanted: set[Node] | None) -> Any:
    """The complete gradient of an entry's output, hooks applied; a list for several outputs; None if there is none."""
    several = type(entry.shape) is tuple
    nodes: list[Node] = [(entry, i) for i in range(len(entry.shape))] if several else [entry]
    grads = []
    for i, node in enumerate(nodes):
        g = slots.pop(node, None)
        if g is not None and entry.hooks:
            g = run_hooks(entry.hooks, i, g)
        if g is not None and wanted is not None and node in wanted:
            result[node] = g
        grads.append(g)
    if not several:
        return grads[0]
    return None if all(g is None for g in grads) else grads


def _finish(slots: Slots, result: Slots, wanted: set[Node] | None) -> None:
    """Move what is left in the slots to the result: gradients of leaves, and of what lies beyond the frontier."""
    for node, g in slots.items():
        hooks = node.hooks if type(node) is Leaf else None
        if hooks:
            g = run_hooks(hooks, 0, g)
        if wanted is None or node in wanted:
            result[node] = g
            if node in slots.owned and not hooks:
                result.owned.add(node)


def _retained_last(key: int) -> bool:
    return key < 0


def run_hooks(hooks: dict[int, tuple[int, Hook]], index: int, g: Any) -> Any:
    """Pass a gradient through the hooks registered on output `index`; each returns what goes on."""
    for key in sorted(hooks, key=_retained_last):
        which, hook = hooks[key]
        if which == index:
            g = hook(g)
    return g


def nonfinite_index(value: torch.Tensor) -> list[int] | None:
    """Index of the first NaN or infinity in `value`; None where every element is finite."""
    if not value.is_floating_point() or value.numel() == 0:
        return None
    least, most = torch.aminmax(value)  # one pass, and a NaN ends up in both
    if math.isfinite(least) and math.isfinite(most):
        return None
    return list(torch.nonzero(~torch.isfinite(value))[0].tolist())


def check_finite(value: torch.Tensor, what: str, entry: Entry) -> None:
    """Raise `NonFiniteError` if `value` holds a NaN or an infinity; `what` says which value of the entry it is."""
    index = nonfinite_index(value)
    if index is None:
        return
    bad = value[tuple(index)].item()
    raise NonFiniteError(
        f"{entry.op.name}: {what} {describe(value)} is {bad} at index {index}; recorded at {entry.source}"
    )
