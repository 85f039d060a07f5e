"""`Function`: an op of one's own as a class with forward and backward, as torch has it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch

from ..core import Arrays, Entry, MutationError, Node, Op, TapeError, Tensor, enable_grad, mode, no_grad

__all__ = ["Function", "FunctionCtx", "once_differentiable"]


def _plain(value: Any) -> torch.Tensor:
    return value.data if isinstance(value, Tensor) else value


class FunctionCtx:
    """What forward leaves for backward: tensors by `save_for_backward`, anything else as attributes."""

    def __init__(self, needs: tuple[bool, ...]) -> None:
        self.needs_input_grad = needs
        self._materialize = True
        self._given: tuple[Any, ...] = ()
        self._saved: list[Any] = []  # (raw, its version, node or number of the output), or None
        self._constants: tuple[Any, ...] = ()
        self._dirty: tuple[Any, ...] = ()
        self._entry: Entry | None = None  # while backward runs

    def save_for_backward(self, *tensors: Any) -> None:
        """Keep inputs, outputs or other tensors (or None) for backward, which notices if they were changed in place."""
        for t in tensors:
            if t is not None and not isinstance(t, Tensor | torch.Tensor):
                raise TypeError(f"save_for_backward: expected tensors or None; got {type(t).__name__}")
        self._given = tensors

    def _keep(self, outputs: Sequence[Any], followed: list[int]) -> None:
        """Turn what was saved into raw values and places on the tape; an output's is known by its number only."""
        place = {id(outputs[i]): n for n, i in enumerate(followed)}
        self._saved = [
            t
            if t is None
            else (_plain(t), _plain(t)._version, place.get(id(t), t._node if isinstance(t, Tensor) else None))
            for t in self._given
        ]
        self._given = ()

    @property
    def saved_tensors(self) -> tuple[Any, ...]:
        """What was saved, at its place on the tape."""
        if self._given:
            return self._given
        found: list[Any] = []
        for i, kept in enumerate(self._saved):
            if kept is None:
                found.append(None)
                continue
            value, version, node = kept
            if value._version != version:
                raise MutationError(
                    f"saved_tensors: tensor {i} of shape {list(value.shape)} has been changed in place since "
                    f"save_for_backward (version {version} when saved, {value._version} now); save a clone"
                )
            if type(node) is int:
                node = self._entry and (self._entry if type(self._entry.shape) is torch.Size else (self._entry, node))
            found.append(Tensor._made(value, node))
        return tuple(found)

    def save_for_forward(self, *tensors: Any) -> None:
        """Keep tensors for a ``jvp``, which is not called: nothing is kept."""

    def mark_non_differentiable(self, *outputs: Any) -> None:
        """These outputs of forward are constants."""
        self._constants = outputs

    def mark_dirty(self, *inputs: Any) -> None:
        """Say that forward changed these inputs in place; they must not need a gradient."""
        self._dirty = inputs

    def set_materialize_grads(self, value: bool) -> None:
        """Whether backward is given zeros (True), or None, for an output without a gradient."""
        self._materialize = value


def _declared(tensors: Arrays, call: Any) -> Any: ...


class _FunctionOp(Op):
    """The op of one class's calls; its parents are the tensors among the arguments."""

    runs_users_code = True

    def pull(self, entry: Entry, parents: tuple[Node | None, ...], g: Any, recorded: bool) -> Sequence[Any]:
        self._check_unchanged(entry)
        call: _Call = entry.env[1]
        grads = call.gradients(entry, g if type(g) is list else [g], recorded)
        return [
            None if node is None or dx is None else self._fit(dx if recorded else _plain(dx), node, entry, recorded)
            for dx, node in zip(grads, parents, strict=True)
        ]


class _Once(Op):
    """The op of the gradients that a `once_differentiable` backward gives: it has none of its own."""

    def pull(self, entry: Entry, parents: tuple[Node | None, ...], g: Any, recorded: bool) -> Sequence[Any]:
        name = entry.env[1]
        raise TapeError(f"{name}: its backward is once_differentiable, so there is no second derivative through it")


_once = _Once(_declared, {"tensors": lambda g: None}, name="once_differentiable")


def once_differentiable(backward: Callable[..., Any]) -> Callable[..., Any]:
    """Mark a Function's backward as not differentiable itself: a second derivative through it is an error."""

    @functools.wraps(backward)
    def call(ctx: FunctionCtx, *grads: Any) -> Any:
        record = mode.record
        with no_grad():
            found = backward(ctx, *grads)
        several = found if isinstance(found, tuple) else (found,)
        sources = [t for t in (*grads, *ctx.saved_tensors) if isinstance(t, Tensor) and t._node is not None]
        places = [i for i, dx in enumerate(several) if isinstance(dx, Tensor | torch.Tensor)]
        if not record or not sources or not places:
            return found
        raws = tuple([_plain(several[i]) for i in places])
        values = [t.data for t in sources], backward.__qualname__
        made = _once.record(raws[0] if len(raws) == 1 else raws, ([t._node for t in sources],), values)
        results = list(several)
        for i, dx in zip(places, made if len(raws) > 1 else (made,), strict=True):
            results[i] = dx
        return tuple(results)

    return call


class _Call:
    """What backward needs to know of one call."""

    def __init__(self, function: type[Function], ctx: FunctionCtx, args: tuple[Any, ...]) -> None:
        self.function, self.ctx = function, ctx
        self.tensors = [i for i, a in enumerate(args) if isinstance(a, Tensor)]
        self.count = len(args)
        self.outputs: list[Any] = []  # (shape, dtype) of every tensor that forward returned
        self.followed: list[int] = []

    def gradients(self, entry: Entry, g: list[Any], recorded: bool) -> list[Any]:
        """One for each tensor argument."""
        name = self.function.__name__
        grads: list[Any] = [None] * len(self.outputs)
        for i, given in zip(self.followed, g, strict=True):
            grads[i] = given if given is None or isinstance(given, Tensor) else Tensor._made(given, None)
        if self.ctx._materialize:
            for i, like in enumerate(self.outputs):
                if grads[i] is None and like is not None:
                    grads[i] = Tensor._made(torch.zeros(like[0], dtype=like[1]), None)
        self.ctx._entry = entry
        try:
            with enable_grad() if recorded else no_grad():
                found = self.function.backward(self.ctx, *grads)
        finally:
            self.ctx._entry = None
        found = list(found) if isinstance(found, tuple | list) else [found]
        if len(found) < self.count or any(dx is not None for dx in found[self.count :]):
            raise TypeError(
                f"{name}: backward must return a gradient or None for each of forward's {self.count} arguments; "
                f"got {len(found)}"
            )
        for i, dx in enumerate(found[: self.count]):
            if dx is not None and (i not in self.tensors or not isinstance(dx, Tensor | torch.Tensor)):
                expected = "a tensor or None" if i in self.tensors else "None, as the argument is no tensor"
                raise TypeError(f"{name}: backward must return {expected} for argument {i}; got {type(dx).__name__}")
        return [found[i] for i in self.tensors]


class Function:
    """An op written as a class: forward computes, backward gives the gradient of each of forward's arguments.

    >>> import tapegrad as tg
    >>> class Cube(tg.autograd.Function):
    ...     @staticmethod
    ...     def forward(ctx, x):
    ...         ctx.save_for_backward(x)
    ...         return x * x * x
    ...     @staticmethod
    ...     def backward(ctx, g):
    ...         x, = ctx.saved_tensors
    ...         return g * 3 * x**2
    >>> x = tg.tensor(2.0, requires_grad=True)
    >>> Cube.apply(x).backward()
    >>> x.grad
    Tensor(12.)

    ``forward(ctx, *args)``, or ``forward(*args)`` and ``setup_context(ctx, inputs, output)``, runs without recording.
    ``backward(ctx, *grads)`` gets one gradient for each output and returns one for each argument, None where there is
    none (``ctx.needs_input_grad`` says who asks); where it is written with differentiable ops, it has derivatives
    itself.
    """

    generate_vmap_rule = False  # `func.vmap` calls apply once for each example, and needs no rule
    _op: _FunctionOp

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._op = _FunctionOp(_declared, {"tensors": lambda g: None}, name=cls.__name__)

    def __init__(self) -> None:
        raise TypeError(f"{type(self).__name__}: a Function is not instantiated; call {type(self).__name__}.apply(...)")

    @staticmethod
    def forward(*args: Any, **kwargs: Any) -> Any:
        """The value; to be written."""
        raise NotImplementedError("Function: a subclass must define forward")

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        """What to keep for backward, where forward takes no ctx."""
        raise NotImplementedError("Function: forward without ctx needs setup_context")

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        """The gradients of forward's arguments; to be written."""
        raise NotImplementedError("Function: a subclass must define backward")

    @staticmethod
    def jvp(ctx: Any, *grad_inputs: Any) -> Any:
        """May be defined, as for torch, and is not called: forward mode is the transpose of backward."""
        raise NotImplementedError("Function: forward mode is worked out from backward; jvp is not called")

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> Any:
        """May be defined, as for torch, and is not called: `func.vmap` calls apply once for each example."""
        raise NotImplementedError("Function: func.vmap calls apply for each example; vmap is not called")

    @classmethod
    def apply(cls, *args: Any) -> Any:
        """``forward`` of the arguments, one entry of the tape with ``backward`` as its rule."""
        nodes = [a._node for a in args if isinstance(a, Tensor)]
        record = mode.record and any(node is not None for node in nodes)
        ctx = FunctionCtx(tuple(record and isinstance(a, Tensor) and a._node is not None for a in args))
        call = _Call(cls, ctx, args)
        values = [a.data for a in args if isinstance(a, Tensor)]
        with no_grad():
            if cls.setup_context is not Function.setup_context:
                returned = cls.forward(*args)
                cls.setup_context(ctx, args, returned)
            else:
                returned = cls.forward(ctx, *args)
        if record and any(isinstance(x, Tensor) and x._node is not None for x in ctx._dirty):
            raise TapeError(
                f"{cls.__name__}: mark_dirty of an input that needs a gradient is not offered; return a clone"
            )
        outputs = list(returned) if isinstance(returned, tuple) else [returned]
        for i, y in enumerate(outputs):
            if isinstance(y, Tensor | torch.Tensor):
                call.outputs.append((y.shape, y.dtype))
                constant = any(y is c for c in ctx._constants) or not y.is_floating_point()
                call.followed += [] if constant or not record else [i]
            else:
                call.outputs.append(None)
        ctx._keep(outputs, call.followed)
        results = [
            Tensor(_plain(y).detach()) if isinstance(y, Tensor | torch.Tensor) else y for y in outputs
        ]  # an input that is returned is a view of itself
        if call.followed:
            raws = tuple([results[i].data for i in call.followed])
            made = cls._op.record(raws[0] if len(raws) == 1 else raws, (nodes,), (values, call))
            for i, y in zip(call.followed, made if len(raws) > 1 else (made,), strict=True):
                results[i] = y
        return tuple(results) if isinstance(returned, tuple) else results[0]
