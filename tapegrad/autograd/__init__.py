"""``tg.autograd``: derivatives and the switches of recording under torch's names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..core import Tensor, detect_anomaly, enable_grad, is_grad_enabled, no_grad, set_grad_enabled
from ..core import mode as switches
from ..derivatives import Function, grad, gradcheck, gradgradcheck
from . import function, functional

__all__ = [
    "Function",
    "Variable",
    "backward",
    "detect_anomaly",
    "enable_grad",
    "function",
    "functional",
    "grad",
    "gradcheck",
    "gradgradcheck",
    "is_grad_enabled",
    "no_grad",
    "set_detect_anomaly",
    "set_grad_enabled",
]


class set_detect_anomaly(detect_anomaly):
    """`detect_anomaly` as torch's switch: on or off at once, and as a context manager for its extent."""

    def __init__(self, mode: bool, check_nan: bool = True) -> None:
        self._before = switches.anomaly, switches.watched
        switches.anomaly = switches.watched = bool(mode)

    def __enter__(self) -> None:
        pass


class _VariableType(type):
    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, Tensor)


class Variable(metaclass=_VariableType):
    """``Variable(data, requires_grad=False)``: the Tensor of the same memory, as a leaf of its own.

    Every `Tensor` counts as an instance.
    """

    def __new__(cls, data: Any, requires_grad: bool = False, volatile: bool = False) -> Any:
        value = data.detach() if isinstance(data, Tensor) else Tensor(data)
        return value.requires_grad_() if requires_grad and not volatile else value


def backward(
    tensors: Tensor | Sequence[Tensor],
    grad_tensors: Any = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    inputs: Any = None,
) -> None:
    """``tensor.backward(gradient)`` for every tensor, the gradients of all of them added up in the leaves.

    Parameters
    ----------
    tensors : one or several; the gradient of one with several elements must be given
    grad_tensors : a gradient (or None) for each
    retain_graph, create_graph : as of `Tensor.backward`
    inputs : leaves to collect for, the others left alone (None: all)
    """
    roots = [tensors] if isinstance(tensors, Tensor) else list(tensors)
    given = [None] * len(roots) if grad_tensors is None else grad_tensors
    given = list(given) if isinstance(given, list | tuple) else [given]
    if inputs is not None:
        leaves = [inputs] if isinstance(inputs, Tensor) else list(inputs)
        found = grad(roots, leaves, given, retain_graph=retain_graph, create_graph=create_graph, allow_unused=True)
        for leaf, g in zip(leaves, found, strict=True):
            if g is not None:
                leaf.grad = g if leaf.grad is None else leaf.grad + g
        return
    keep = create_graph if retain_graph is None else retain_graph
    for i, (root, g) in enumerate(zip(roots, given, strict=True)):
        root.backward(g, retain_graph=keep or i + 1 < len(roots), create_graph=create_graph)
