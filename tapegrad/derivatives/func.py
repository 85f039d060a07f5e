"""Derivatives as functions of functions, as in ``torch.func``; they nest freely.

Each transform gives f its own variables in place of its arguments. Where an argument is itself on the tape (an outer
transform's variable, say), its stand-in is recorded as a copy of it, so that outer derivatives pass through. A result
depends on an outer variable exactly if a leaf other than the transform's own is reached from it; only then is the
derivative recorded in its turn.

Arguments and results may be nested dicts, lists and tuples of Tensors (pytrees).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils import _pytree as pytree

from ..core import (
    ArgumentError,
    DTypeError,
    Entry,
    Node,
    ShapeError,
    TapeError,
    Tensor,
    enable_grad,
    entry_of,
    mode,
    raw,
    replay,
)
from ..ops import alias, stack
from .gradients import forward_replay, leaves_of

# --- variables of a transform ------------------------------------------------------------------------------------


def _variable(value: Any, name: str) -> Tensor:
    """A stand-in for an argument to differentiate by: a fresh leaf, or a recorded copy of what is on the tape."""
    tensor = value if isinstance(value, Tensor) else Tensor(torch.as_tensor(raw(value, name, "argument")))
    if not tensor.is_floating_point():
        raise DTypeError(f"{name}: the arguments to differentiate must be float32 or float64; got {tensor.dtype}")
    if mode.record and tensor._node is not None:
        return alias(tensor)
    return Tensor(tensor.data, True)


class _Call:
    """One call of f on a transform's own variables."""

    def __init__(self, f: Callable[..., Any], args: tuple[Any, ...], argnums: Sequence[int], aux: bool, name: str):
        self.name = name
        nested = mode.record
        flat = [pytree.tree_flatten(args[i]) for i in argnums]
        self.structures = [structure for _, structure in flat]
        self.counts = [len(values) for values, _ in flat]
        self.variables = [_variable(value, name) for values, _ in flat for value in values]
        replaced = list(args)
        start = 0
        for i, structure, count in zip(argnums, self.structures, self.counts, strict=True):
            replaced[i] = pytree.tree_unflatten(self.variables[start : start + count], structure)
            start += count
        with enable_grad():
            out = f(*replaced)
        if aux and (not isinstance(out, tuple) or len(out) != 2):
            raise TypeError(f"{name}: with has_aux=True, f must return (output, aux); got {type(out).__name__}")
        self.aux: Any
        self.output, self.aux = out if aux else (out, None)
        leaves, self.structure = pytree.tree_flatten(self.output)
        leaves = [Tensor(y) if isinstance(y, torch.Tensor) else y for y in leaves]  # a constant of torch's
        for leaf in leaves:
            if not isinstance(leaf, Tensor):
                raise TypeError(f"{name}: f must return Tensors; got {type(leaf).__name__}")
        self.output = pytree.tree_unflatten(leaves, self.structure)
        self.outputs: list[Tensor] = leaves
        self.nodes: list[Node] = [x._node for x in self.variables if x._node is not None]
        own = set(self.nodes)
        outer = any(entry_of(node).__class__ is Entry for node in self.nodes)
        self.nested = nested and (outer or bool(leaves_of(self.outputs, own)))

    def by_argument(self, values: list[Any]) -> list[Any]:
        """A flat list, one value per variable, as one pytree per argument."""
        parts = []
        for structure, count in zip(self.structures, self.counts, strict=True):
            part, values = values[:count], values[count:]
            parts.append(pytree.tree_unflatten(part, structure))
        return parts

    def released(self, tree: Any) -> Any:
        """The tree as the caller gets it: constants unless an outer derivative needs them."""
        return tree if self.nested else pytree.tree_map(lambda v: v.detach() if isinstance(v, Tensor) else v, tree)

    def pull(self, cotangents: list[Tensor]) -> list[Tensor]:
        """``sum_k c_k . d output_k / d variable_i`` for every variable."""
        create = mode.record and (self.nested or any(c._node is not None for c in cotangents))
        seeds = [
            (y._node, c if create else c.data)
            for y, c in zip(self.outputs, cotangents, strict=True)
            if y._node is not None
        ]
        slots = replay(seeds, wanted=set(self.nodes), create_graph=create, retain_graph=True, stop=True)
        grads = []
        for x, node in zip(self.variables, self.nodes, strict=True):
            g = slots.get(node)
            if g is None:
                g = torch.zeros_like(x.data)
            grads.append(g if isinstance(g, Tensor) else Tensor._made(g, None))
        return grads

    def push(self, tangents: list[Tensor]) -> list[Tensor]:
        """``sum_i d output_k / d variable_i . t_i`` for every output."""
        create = mode.record and (self.nested or any(t._node is not None for t in tangents))
        pushed = forward_replay(self.outputs, list(zip(self.nodes, tangents, strict=True)), create)
        return [Tensor(torch.zeros_like(y.data)) if t is None else t for y, t in zip(self.outputs, pushed, strict=True)]


def _numbers(argnums: int | Sequence[int], count: int, name: str) -> list[int]:
    """`argnums` as non-negative positions."""
    given = [argnums] if isinstance(argnums, int) else list(argnums)
    for i in given:
        if not isinstance(i, int):
            raise TypeError(f"{name}: argnums must be an int or a sequence of ints; got {argnums!r}")
        if not -count <= i < count:
            raise ArgumentError(f"{name}: argnums = {argnums} must name some of the {count} positional arguments")
    return [i % count for i in given]


def _matching(values: Any, call: _Call, like: list[Tensor], structure: Any, what: str) -> list[Tensor]:
    """Tangents or cotangents as a flat list, checked against what they belong to."""
    flat, got = pytree.tree_flatten(values)
    if got != structure:
        raise TypeError(f"{call.name}: {what} must be structured as {structure}; got {got}")
    tensors = [v if isinstance(v, Tensor) else Tensor(torch.as_tensor(raw(v, call.name, what))) for v in flat]
    for t, y in zip(tensors, like, strict=True):
        if t.shape != y.shape:
            raise ShapeError(f"{call.name}: {what} must have shape {list(y.shape)}; got {list(t.shape)}")
    return [t if t.dtype is y.dtype else t.to(y.dtype) for t, y in zip(tensors, like, strict=True)]


# --- transforms --------------------------------------------------------------------------------------------------


def vjp(f: Callable[..., Any], *primals: Any, has_aux: bool = False) -> Any:
    """``(f(*primals), vjp_fn)``, where ``vjp_fn(cotangents)`` gives ``cotangents . J`` as one value per primal.

    With ``has_aux``, f returns (output, aux) and the result is (output, vjp_fn, aux). ``vjp_fn`` may be called again.
    """
    call = _Call(f, primals, range(len(primals)), has_aux, "vjp")

    def vjp_fn(cotangents: Any) -> tuple[Any, ...]:
        flat = _matching(cotangents, call, call.outputs, call.structure, "cotangents")
        return tuple(call.by_argument(call.pull(flat)))

    out = call.released(call.output)
    return (out, vjp_fn, call.released(call.aux)) if has_aux else (out, vjp_fn)


def jvp(f: Callable[..., Any], primals: Any, tangents: Any, *, has_aux: bool = False) -> Any:
    """``(f(*primals), J . tangents)`` by one forward replay of the tape.

    Parameters
    ----------
    primals, tangents : tuples of the same structure, shapes and dtypes
    has_aux : f returns (output, aux); the result is then (output, tangent, aux)
    """
    for what, value in (("primals", primals), ("tangents", tangents)):
        if not isinstance(value, tuple | list):
            raise TypeError(f"jvp: {what} must be a tuple, one value per argument of f; got {type(value).__name__}")
    primals, tangents = tuple(primals), tuple(tangents)
    call = _Call(f, primals, range(len(primals)), has_aux, "jvp")
    structure = pytree.tree_flatten(primals)[1]
    pushed = call.push(_matching(tangents, call, call.variables, structure, "tangents"))
    result = call.released(call.output), pytree.tree_unflatten(pushed, call.structure)
    return (*result, call.released(call.aux)) if has_aux else result


def value_and_grad(
    f: Callable[..., Any], argnums: int | Sequence[int] = 0, has_aux: bool = False
) -> Callable[..., Any]:
    """A function that returns ``(f(*args), gradient)``; f must return one element.

    Parameters
    ----------
    argnums : the argument to differentiate by, or several (then the gradient is a tuple)
    has_aux : f returns (output, aux), and the value becomes that pair
    """

    @functools.wraps(f)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        bound = functools.partial(f, **kwargs)
        call = _Call(bound, args, _numbers(argnums, len(args), "grad"), has_aux, "grad")
        if len(call.outputs) != 1 or call.outputs[0].numel() != 1:
            shapes = [list(y.shape) for y in call.outputs]
            raise TapeError(f"grad: f must return one element to have a gradient; got shapes {shapes}")
        gradients = call.by_argument(call.pull([Tensor(torch.ones_like(call.outputs[0].data))]))
        value = call.released(call.output)
        gradient = gradients[0] if isinstance(argnums, int) else tuple(gradients)
        return ((value, call.released(call.aux)) if has_aux else value), gradient

    return wrapped


def grad_and_value(
    f: Callable[..., Any], argnums: int | Sequence[int] = 0, has_aux: bool = False
) -> Callable[..., Any]:
    """`value_and_grad` in torch's order: (gradient, value)."""
    both = value_and_grad(f, argnums, has_aux)

    @functools.wraps(f)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        value, gradient = both(*args, **kwargs)
        return gradient, value

    return wrapped


def grad(f: Callable[..., Any], argnums: int | Sequence[int] = 0, has_aux: bool = False) -> Callable[..., Any]:
    """A function that returns the gradient of f, which must return one element; (gradient, aux) with ``has_aux``."""
    both = value_and_grad(f, argnums, has_aux)

    @functools.wraps(f)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        value, gradient = both(*args, **kwargs)
        return (gradient, value[1]) if has_aux else gradient

    return wrapped


def _basis(like: list[Tensor]) -> list[list[Tensor]]:
    """Unit vectors: for every element of every tensor, tensors that are 1 there and 0 elsewhere."""
    vectors = []
    for k, x in enumerate(like):
        for i in range(x.numel()):
            unit = [torch.zeros(y.shape, dtype=y.dtype) for y in like]
            unit[k].view(-1)[i] = 1
            vectors.append([Tensor._made(u, None) for u in unit])
    return vectors


def _stacked(rows: list[Tensor], leading: torch.Size, rest: torch.Size, dtype: torch.dtype) -> Tensor:
    """Rows as one tensor of shape leading + rest."""
    if not rows:
        return Tensor(torch.zeros([*leading, *rest], dtype=dtype))
    return stack(rows).reshape([*leading, *rest])


def jacrev(f: Callable[..., Any], argnums: int | Sequence[int] = 0, *, has_aux: bool = False) -> Callable[..., Any]:
    """A function that returns the Jacobian of f, shape output + input, by one reverse replay per output element.

    Its structure is the output's with, at each leaf, the argument's structure (a tuple of them for several argnums).
    """

    @functools.wraps(f)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        call = _Call(functools.partial(f, **kwargs), args, _numbers(argnums, len(args), "jacrev"), has_aux, "jacrev")
        rows = [call.pull(unit) for unit in _basis(call.outputs)]
        jacobians, start = [], 0
        for y in call.outputs:
            block, start = rows[start : start + y.numel()], start + y.numel()
            columns = [
                _stacked([row[i] for row in block], y.shape, x.shape, x.dtype) for i, x in enumerate(call.variables)
            ]
            parts = call.by_argument(columns)
            jacobians.append(parts[0] if isinstance(argnums, int) else tuple(parts))
        result = pytree.tree_unflatten(jacobians, call.structure)
        return (result, call.released(call.aux)) if has_aux else result

    return wrapped


def jacfwd(f: Callable[..., Any], argnums: int | Sequence[int] = 0, has_aux: bool = False) -> Callable[..., Any]:
    """`jacrev`'s result by one forward replay per input element."""

    @functools.wraps(f)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        call = _Call(functools.partial(f, **kwargs), args, _numbers(argnums, len(args), "jacfwd"), has_aux, "jacfwd")
        columns = [call.push(unit) for unit in _basis(call.variables)]
        jacobians = []
        for k, y in enumerate(call.outputs):
            blocks, start = [], 0
            for x in call.variables:
                block = [column[k] for column in columns[start : start + x.numel()]]
                start += x.numel()
                turned = _stacked(block, x.shape, y.shape, y.dtype)
                order = [*range(x.ndim, x.ndim + y.ndim), *range(x.ndim)]
                blocks.append(turned.permute(order))
            parts = call.by_argument(blocks)
            jacobians.append(parts[0] if isinstance(argnums, int) else tuple(parts))
        result = pytree.tree_unflatten(jacobians, call.structure)
        return (result, call.released(call.aux)) if has_aux else result

    return wrapped


def hessian(f: Callable[..., Any], argnums: int | Sequence[int] = 0) -> Callable[..., Any]:
    """A function that returns the matrix of second derivatives, ``jacfwd(jacrev(f))``: shape output + input + input."""
    return jacfwd(jacrev(f, argnums), argnums)


def hvp(f: Callable[..., Any], primals: Any, tangents: Any) -> Any:
    """The Hessian of a one-element f times a vector, ``jvp(grad(f), primals, tangents)[1]``, in a few passes.

    A tuple of one primal (or a bare Tensor) gives one value, several give a tuple.
    """
    if isinstance(primals, Tensor | torch.Tensor):
        primals, tangents = (primals,), (tangents,)
    argnums = 0 if len(primals) == 1 else tuple(range(len(primals)))
    return jvp(grad(f, argnums), tuple(primals), tuple(tangents))[1]
