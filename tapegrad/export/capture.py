"""From a module or a compiled step to a program, its memory, and the names of what goes in and comes out."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch

from ..compiled import Arguments, Bound, Compiled, Made, Ref, Same, Seed, without_arrays
from ..core import ArgumentError, CompileError, DTypeError, Tensor, describe, no_grad
from ..nn import Module
from .names import names
from .values import TYPES, identifier


class Captured(NamedTuple):
    """``inputs`` are names of tensor arguments, ``outputs`` what comes out besides the returned number."""

    bound: Bound
    is_module: bool
    inputs: list[str]
    shapes: list[tuple[int, ...]]  # of the inputs
    outputs: list[Ref]
    returned: Ref | None
    names: dict[int, str]  # of memory, by storage
    title: str


def capture(what: Any, example: tuple[Any, ...]) -> Captured:
    """Record ``what`` on an example, and leave everything as it was."""
    if isinstance(what, Compiled) and isinstance(what.fn, Module):
        what = what.fn
    if not isinstance(what, Module | Compiled):
        raise ArgumentError(
            "export_c: what must be a module or a compiled step (tg.compile(step)); "
            f"got {type(what).__name__ if not callable(what) else getattr(what, '__qualname__', type(what).__name__)}"
        )
    if not example:
        raise ArgumentError("export_c: an example of every argument must be given, as what is called with")
    arguments = tuple([_plain(a, f"argument {i}") for i, a in enumerate(without_arrays(example))])
    if isinstance(what, Module):
        module = what
        with _evaluating(module), no_grad():
            given = Arguments(arguments, {})
            bound = Compiled(lambda *args: module(*args), True, 1).bound(given)
    else:
        given = Arguments(arguments, {})
        bound = what.bound(given)
        bound.stale()  # moves the gradients of the call before to where the program reads them
    fn = what if isinstance(what, Module) else what.fn
    inputs = _input_names(what, bound.trace, arguments)
    refs = [_ref(part, given) for part in _leaves(bound.trace.result) if isinstance(part, Made | Same)]
    if not refs and isinstance(what, Module):
        raise CompileError("export_c: the module returns no tensor")
    single = refs[0] if refs and refs[0].sizes == () and refs[0].dtype.is_floating_point else None
    state = any(slot.written and slot.kind == "outside" for slot in bound.trace.slots)
    draws = any(isinstance(a, Seed) for call in bound.program.calls for a in call.arguments)
    changes = state or draws or any(made is not None for _, made in bound.trace.gradients)
    is_forward = isinstance(what, Module) or not changes
    returned = None if is_forward else single
    title = repr(what).partition("(")[0] if isinstance(what, Module) else getattr(fn, "__qualname__", "a step")
    outputs = refs if returned is None else refs[1:]
    shapes = [tuple(t.shape) for t in given.tensors]
    return Captured(bound, is_forward, inputs, shapes, outputs, returned, names(fn if fn is not what else what), title)


def _ref(part: Made | Same, given: Arguments) -> Ref:
    """Where a result lies; arguments are the first slots."""
    if isinstance(part, Made):
        return part.ref
    t = given.tensors[part.which]
    return Ref(part.which, t.dtype, 0, tuple(t.shape), t.stride())


def _plain(value: Any, what: str) -> Any:
    """Tensors of an example in the order of their shape, which is how C gets them."""
    raw = value._data if isinstance(value, Tensor) else value
    if isinstance(raw, torch.Tensor):
        if raw.dtype not in TYPES:
            raise DTypeError(f"export_c: {what} must be float32, float64, integers or bool; got {describe(raw)}")
        if not raw.is_contiguous():
            return Tensor(raw.detach().contiguous()) if isinstance(value, Tensor) else raw.contiguous()
    return value


@contextmanager
def _evaluating(module: Module) -> Iterator[None]:
    """Evaluation mode, and every mode as it was afterwards."""
    modes = [(m, m.training) for m in module.modules()]
    try:
        module.eval()
        yield
    finally:
        for m, training in modes:
            m.training = training


def _input_names(what: Any, trace: Any, arguments: tuple[Any, ...]) -> list[str]:
    """One for each slot that is an argument: as the function calls it; ``x`` for a module's only one."""
    count = sum(slot.kind == "argument" for slot in trace.slots)
    if isinstance(what, Module) and count == 1:
        return ["x"]
    function = what.forward if isinstance(what, Module) else what.fn
    try:
        formal = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        formal = []
    known = [p.name for p in formal if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    found: list[str] = []
    for i, argument in enumerate(arguments):
        name = identifier(known[i]) if i < len(known) else f"x{i}"
        tensors = _count(argument)
        found += [name] if tensors == 1 else [f"{name}{k}" for k in range(tensors)]
    return found if len(found) == count and len(set(found)) == count else [f"x{i}" for i in range(count)]


def _count(value: Any) -> int:
    if isinstance(value, tuple | list):
        return sum(map(_count, value))
    if isinstance(value, dict):
        return sum(map(_count, value.values()))
    return int(isinstance(value, Tensor | torch.Tensor))


def _leaves(tree: Any) -> Iterator[Any]:
    if isinstance(tree, dict):
        for v in tree.values():
            yield from _leaves(v)
    elif isinstance(tree, list | tuple) and not isinstance(tree, Made | Same):
        for v in tree:
            yield from _leaves(v)
    else:
        yield tree
