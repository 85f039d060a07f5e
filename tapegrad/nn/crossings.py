"""Backward hooks of modules: what flows back into a module's outputs and out of its inputs.

The inputs that need a gradient pass through one op together, and so do the outputs; its rule calls the hooks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from ..core import ArgumentError, Arrays, Entry, Node, Op, Tensor, raw

Hooks = dict[int, Callable[..., Any]]


class _Passing(Op):
    """Values that go on as they are; all their gradients go through ``see`` at once."""

    runs_users_code = True

    def pull(self, entry: Entry, parents: tuple[Node | None, ...], g: Any, recorded: bool) -> Sequence[Any]:
        see = entry.env[1]
        grads = g if type(g) is list else [g]
        seen = see([None if gi is None else gi if isinstance(gi, Tensor) else Tensor._made(gi, None) for gi in grads])
        return [s if s is None or recorded else s.data for s in seen]


def _declared(tensors: Arrays, see: Any) -> Any: ...


_op = _Passing(_declared, {"tensors": lambda g, see: None}, name="module")


def _pass(values: Sequence[Any], see: Callable[[list[Any]], list[Any]]) -> tuple[list[Any], list[int]]:
    """The values with those that need a gradient passed through the op, and which those are."""
    places = [i for i, v in enumerate(values) if isinstance(v, Tensor) and v._node is not None]
    if not places:
        return list(values), places
    raws = tuple(values[i].data.detach() for i in places)
    nodes = [values[i]._node for i in places]
    out = _op.record(raws[0] if len(raws) == 1 else raws, (nodes,), (list(raws), see))
    result = list(values)
    for i, y in zip(places, out if len(raws) > 1 else (out,), strict=True):
        result[i] = y
    return result, places


_Zeros = tuple[Any, Any] | None  # shape and dtype of a floating-point Tensor


def _zeros_of(value: Any) -> _Zeros:
    return (value.shape, value.dtype) if isinstance(value, Tensor) and value.is_floating_point() else None


def _spread(grads: list[Any], places: list[int], zeros: list[_Zeros]) -> tuple[Any, ...]:
    """Gradients at the places of their values; zeros where there is none, if they are given."""
    found = dict(zip(places, grads, strict=True))
    spread = []
    for i, kind in enumerate(zeros):
        g = found.get(i)
        if g is None and kind is not None:
            g = Tensor(torch.zeros(kind[0], dtype=kind[1]))
        spread.append(g)
    return tuple(spread)


class Crossing:
    """One call of a module that has backward hooks."""

    def __init__(self, module: Any, hooks: Hooks, before: Hooks) -> None:
        self.module, self.hooks, self.before = module, list(hooks.values()), list(before.values())
        self.inputs: list[int] = []
        self.outputs: list[int] = []
        self.zeros_in: list[_Zeros] = []
        self.zeros_out: list[_Zeros] = []
        self.grad_output: tuple[Any, ...] = ()

    def enter(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """The arguments, watched."""
        self.zeros_in = [_zeros_of(v) for v in args]
        watched, self.inputs = _pass(args, self._at_inputs)
        return tuple(watched)

    def leave(self, output: Any) -> Any:
        """The output, a Tensor or a tuple or list of them, watched."""
        several = isinstance(output, tuple | list)
        values = list(output) if several else [output]
        self.zeros_out = [None] * len(values)  # torch fills in those of inputs only
        watched, self.outputs = _pass(values, self._at_outputs)
        if not several:
            return watched[0]
        return type(output)(*watched) if hasattr(output, "_fields") else type(output)(watched)

    def _at_outputs(self, grads: list[Any]) -> list[Any]:
        self.grad_output = _spread(grads, self.outputs, self.zeros_out)
        for hook in self.before:
            self.grad_output = self._replaced(hook(self.module, self.grad_output), self.grad_output)
        if not self.inputs:  # nothing flows further than the parameters
            for hook in self.hooks:
                hook(self.module, (None,) * len(self.zeros_in), self.grad_output)
        return [self.grad_output[i] for i in self.outputs]

    def _at_inputs(self, grads: list[Any]) -> list[Any]:
        grad_input = _spread(grads, self.inputs, self.zeros_in)
        for hook in self.hooks:
            grad_input = self._replaced(hook(self.module, grad_input, self.grad_output), grad_input)
        return [grad_input[i] for i in self.inputs]

    def _replaced(self, returned: Any, given: tuple[Any, ...]) -> tuple[Any, ...]:
        """What goes on: what the hook was given, or what it returned, of the same number and shapes."""
        if returned is None:
            return given
        values = tuple(returned) if isinstance(returned, tuple | list) else (returned,)
        what = f"{type(self.module).__name__}: a backward hook"
        if len(values) != len(given):
            raise ArgumentError(f"{what} must return None or {len(given)} gradients; got {len(values)}")
        checked = []
        for i, (new, old) in enumerate(zip(values, given, strict=True)):
            if new is not None and not isinstance(new, Tensor):
                new = Tensor(raw(new, what, f"gradient {i}"))
            if new is not None and old is not None and (new.shape, new.dtype) != (old.shape, old.dtype):
                raise ArgumentError(
                    f"{what} must return gradient {i} as {old.dtype} {list(old.shape)}; "
                    f"got {new.dtype} {list(new.shape)}"
                )
            checked.append(new)
        return tuple(checked)
