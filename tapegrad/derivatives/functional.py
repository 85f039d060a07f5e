"""``tg.autograd.functional``: derivatives of a function at given inputs, written with the transforms of `tg.func`.

``inputs`` is a Tensor or a tuple of them, and what belongs to it has its structure. Results are constants unless
``create_graph=True``; ``strict=True`` refuses outputs that do not depend on an input, instead of giving zeros.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils import _pytree as pytree

from ..core import ArgumentError, TapeError, Tensor, enable_grad, tensor_argument
from . import func as transforms
from .gradients import grad

__all__ = ["hessian", "hvp", "jacobian", "jvp", "vhp", "vjp"]


def _listed(inputs: Any, name: str, create_graph: bool, argument: str = "inputs") -> tuple[Tensor, ...]:
    several = tuple(inputs) if isinstance(inputs, tuple | list) else (inputs,)
    tensors = [tensor_argument(x, name, argument) for x in several]
    return tuple(x if create_graph else x.detach() for x in tensors)


def _argnums(inputs: Any, xs: tuple[Tensor, ...]) -> Any:
    return tuple(range(len(xs))) if isinstance(inputs, tuple | list) else 0


def _released(tree: Any, create_graph: bool) -> Any:
    return tree if create_graph else pytree.tree_map(lambda v: v.detach() if isinstance(v, Tensor) else v, tree)


def _check_dependence(name: str, f: Callable[..., Any], xs: tuple[Tensor, ...]) -> None:
    """Every output of f depends on every input."""
    variables = [Tensor(x.data, True) for x in xs]
    with enable_grad():
        outputs = pytree.tree_leaves(f(*variables))
        for i, y in enumerate(outputs):
            recorded = isinstance(y, Tensor) and y.requires_grad
            found = grad(y.sum(), variables, allow_unused=True, retain_graph=True) if recorded else [None] * len(xs)
            for j, g in enumerate(found):
                if g is None:
                    raise TapeError(f"{name}: output {i} of the function is independent of input {j} (strict=True)")


def _vector(v: Any, like: tuple[Tensor, ...], name: str, what: str) -> tuple[Tensor, ...]:
    """`v`, or 1 where there is one element only."""
    if v is not None:
        return tuple(tensor_argument(t, name, "v") for t in (v if isinstance(v, tuple | list) else (v,)))
    if len(like) != 1 or like[0].numel() != 1:
        raise ArgumentError(f"{name}: v must be given unless the {what} is one element")
    return (Tensor(torch.ones_like(like[0].data)),)


def jacobian(
    func: Callable[..., Any],
    inputs: Any,
    create_graph: bool = False,
    strict: bool = False,
    vectorize: bool = False,
    strategy: str = "reverse-mode",
) -> Any:
    """The Jacobian, shape output + input: one for each output (if it is a tuple) and input (if it is one).

    ``strategy`` is "reverse-mode" or "forward-mode"; ``vectorize`` says how torch computes, and changes nothing.
    """
    if strategy not in ("reverse-mode", "forward-mode"):
        raise ArgumentError(f'jacobian: strategy must be "reverse-mode" or "forward-mode"; got {strategy!r}')
    xs = _listed(inputs, "jacobian", create_graph)
    if strict:
        _check_dependence("jacobian", func, xs)
    transform = transforms.jacrev if strategy == "reverse-mode" else transforms.jacfwd
    return _released(transform(func, _argnums(inputs, xs))(*xs), create_graph)


def hessian(
    func: Callable[..., Any],
    inputs: Any,
    create_graph: bool = False,
    strict: bool = False,
    vectorize: bool = False,
    outer_jacobian_strategy: str = "reverse-mode",
) -> Any:
    """The second derivatives of a one-element function: for every pair of inputs, shape input + input."""
    xs = _listed(inputs, "hessian", create_graph)
    slope = transforms.grad(func, _argnums(inputs, xs))
    if strict:
        _check_dependence("hessian", func, xs)
    given = xs if isinstance(inputs, tuple | list) else xs[0]
    return jacobian(slope, given, create_graph, strict, vectorize, outer_jacobian_strategy)


def vjp(
    func: Callable[..., Any], inputs: Any, v: Any = None, create_graph: bool = False, strict: bool = False
) -> tuple[Any, Any]:
    """(the function's output, ``v . J`` as the inputs); v is like the output."""
    xs = _listed(inputs, "vjp", create_graph)
    if strict:
        _check_dependence("vjp", func, xs)
    output, pull = transforms.vjp(func, *xs)
    given = _vector(v, output if isinstance(output, tuple) else (output,), "vjp", "output")
    found = pull(given if isinstance(output, tuple) else given[0])
    return _released((output, found if isinstance(inputs, tuple | list) else found[0]), create_graph)  # type: ignore[no-any-return]


def jvp(
    func: Callable[..., Any], inputs: Any, v: Any = None, create_graph: bool = False, strict: bool = False
) -> tuple[Any, Any]:
    """(the function's output, ``J . v`` as the output); v is like the inputs."""
    xs = _listed(inputs, "jvp", create_graph)
    if strict:
        _check_dependence("jvp", func, xs)
    return _released(transforms.jvp(func, xs, _vector(v, xs, "jvp", "input")), create_graph)  # type: ignore[no-any-return]


def hvp(
    func: Callable[..., Any], inputs: Any, v: Any = None, create_graph: bool = False, strict: bool = False
) -> tuple[Any, Any]:
    """(the output of a one-element function, its Hessian times v as the inputs); v is like the inputs."""
    xs = _listed(inputs, "hvp", create_graph)
    both = transforms.value_and_grad(func, _argnums(inputs, xs))
    if strict:
        _check_dependence("hvp", func, xs)
        _check_dependence("hvp", transforms.grad(func, _argnums(inputs, xs)), xs)
    (output, _), (_, found) = transforms.jvp(both, xs, _vector(v, xs, "hvp", "input"))
    return _released((output, found), create_graph)  # type: ignore[no-any-return]


def vhp(
    func: Callable[..., Any], inputs: Any, v: Any = None, create_graph: bool = False, strict: bool = False
) -> tuple[Any, Any]:
    """`hvp`: the matrix of second derivatives is symmetric."""
    return hvp(func, inputs, v, create_graph, strict)
