"""Ops that a kernel computes and a plain formulation defines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..core import Entry, Node, Op, enable_grad, replay
from .shape import alias


def _rule(g: Any) -> None:
    """The rule of every array, which `Defined.pull` stands in for: it reads all arrays, and the residuals."""


class Defined(Op):
    """First derivatives by a kernel; what is recorded differentiates the plain formulation, once for all inputs.

    Parameters
    ----------
    forward : on raw tensors, as of any op
    plain : the same arguments, arrays as Tensors -> the same output or outputs, op by op
    backward : ``(g, ..., needs)`` on raw tensors; in ``g`` None for an output without gradient
    arrays : names of the arguments that have a gradient
    """

    def __init__(
        self,
        forward: Callable[..., Any],
        plain: Callable[..., Any],
        backward: Callable[..., Any],
        arrays: Sequence[str],
        residuals: Sequence[str] = (),
        name: str | None = None,
    ) -> None:
        super().__init__(forward, dict.fromkeys(arrays, _rule), backward, residuals, name=name)
        self.plain = plain
        for rule in self.rules.values():
            rule.reads = [*self.arrays, *self.residuals]

    def pull(self, entry: Entry, parents: tuple[Node | None, ...], g: Any, recorded: bool) -> Sequence[Any]:
        self._check_unchanged(entry)
        if not recorded:
            assert self.backward is not None
            needs = [node is not None for node in parents]
            return self._one_for_each(self.backward.function(g, *self.backward.fetch(entry.env), needs), parents)
        arguments = self._recorded_environment(entry)[: len(self.arguments)]
        nodes: list[Node | None] = []
        for (i, _), node in zip(self.places, parents, strict=True):
            if node is not None:  # a variable of its own: the same value may be another argument, too
                arguments[i] = alias(arguments[i])
            nodes.append(None if node is None else arguments[i]._node)
        with enable_grad():
            outputs = self.plain(*arguments)
        several = type(g) is list
        pairs = zip(outputs, g, strict=True) if several else [(outputs, g)]
        seeds = [(y._node, gy) for y, gy in pairs if y._node is not None and gy is not None]
        found = {node for node in nodes if node is not None}
        slots = replay(seeds, wanted=found, create_graph=True, retain_graph=True, stop=True)
        return [None if node is None else slots.get(node) for node in nodes]
