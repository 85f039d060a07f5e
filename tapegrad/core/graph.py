"""The tape as torch's scripts walk it: ``y.grad_fn``, its name and what it came from."""

from __future__ import annotations

from .tape import Entry, Leaf, Node


class GradFn:
    """A node of the tape as ``Tensor.grad_fn`` shows it; two of the same node are equal."""

    __slots__ = ("_node",)

    def __init__(self, node: Entry | Leaf) -> None:
        self._node = node

    def name(self) -> str:
        """The op's name as torch writes it: "MulBackward0"; for leaves the name that ends in "AccumulateGrad"."""
        if isinstance(self._node, Leaf):
            return "::".join(("torch", "autograd", "AccumulateGrad"))
        return "".join(part[:1].upper() + part[1:] for part in self._node.op.name.split("_")) + "Backward0"

    @property
    def next_functions(self) -> tuple[tuple[GradFn | None, int], ...]:
        """For each input of the op its node, None for a constant, and which of that node's outputs it is."""
        if isinstance(self._node, Leaf):
            return ()
        return tuple(_edge(parent) for parent in self._node.parents)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, GradFn) and other._node is self._node

    def __hash__(self) -> int:
        return hash(id(self._node))

    def __repr__(self) -> str:
        return f"<{self.name().rpartition(':')[2]}>"


def _edge(node: Node | None) -> tuple[GradFn | None, int]:
    if node is None:
        return None, 0
    owner, index = node if isinstance(node, tuple) else (node, 0)
    return GradFn(owner), index
