"""What a reader calls the memory that a program works on: arguments by their names in the step's signature, parameters
and buffers by theirs in the model, gradients and an optimizer's state by their parameter's.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import torch

from ..core import Leaf, Tensor
from ..nn import Module
from ..optim.optimizer import Optimizer
from .arguments import Arguments
from .bind import Bound
from .trace import Made, Ref

Place = tuple[int, int]  # slot, offset in bytes


class Names:
    """``of(ref)``: the name of a view; ``%7`` where nothing better is known, ``%7@16`` if it begins 16 elements in."""

    def __init__(self, bound: Bound, fn: Callable[..., Any], given: Arguments | None = None) -> None:
        self._of: dict[Place, str] = {(i, 0): name for i, name in enumerate(_arguments(fn, given) if given else ())}
        slots = bound.trace.slots
        for i, slot in enumerate(slots):
            if slot.kind == "argument":
                self._of.setdefault((i, 0), f"argument {i}")
        by_memory = {
            slot.tensor.untyped_storage().data_ptr(): i
            for i, slot in enumerate(slots)
            if slot.kind == "outside" and slot.tensor is not None
        }
        leaves: dict[Leaf, str] = {}
        for name, tensor in _outside(bound, fn):
            if isinstance(tensor, Tensor):
                if isinstance(tensor._node, Leaf):
                    leaves.setdefault(tensor._node, name)
                tensor = tensor._data
            at = by_memory.get(tensor.untyped_storage().data_ptr())
            if at is not None and tensor.numel():
                self._of.setdefault((at, tensor.storage_offset() * tensor.itemsize), name)
        for target, made in bound.trace.gradients:
            owner = (
                leaves.get(target)
                if isinstance(target, Leaf)
                else self._of.get((target, 0))
                if isinstance(target, int)
                else None
            )
            if owner is not None and isinstance(made, Made):
                self._of.setdefault(_place(made.ref), f"{owner}.grad")

    def of(self, ref: Ref) -> str:
        known = self._of.get(_place(ref))
        if known is None and ref.offset:
            return f"{self._of.get((ref.slot, 0), f'%{ref.slot}')}@{ref.offset}"
        return known or f"%{ref.slot}"

    def knows(self, ref: Ref) -> bool:
        return _place(ref) in self._of


def _place(ref: Ref) -> Place:
    return ref.slot, ref.offset * ref.dtype.itemsize


def _arguments(fn: Callable[..., Any], given: Arguments) -> list[str]:
    """A name for each of the tensors among the arguments, in their order."""
    try:
        signature = inspect.signature(fn.forward if isinstance(fn, Module) else fn)
        named = signature.bind(*given.args, **given.kwargs).arguments
        packed = {p.name for p in signature.parameters.values() if p.kind is p.VAR_KEYWORD}
    except (TypeError, ValueError):  # built in, or called in another way than it says
        named, packed = {"args": given.args, **given.kwargs}, set()
    found: dict[int, str] = {}
    for name, value in named.items():
        for key, part in value.items() if name in packed else [(name, value)]:
            for path, tensor in _tensors(part, key):
                found.setdefault(id(tensor), path)
                gradient = getattr(tensor, "grad", None) if isinstance(tensor, Tensor) else None
                if gradient is not None:
                    found.setdefault(id(gradient), f"{path}.grad")
    return [found.get(id(holder), f"argument {i}") for i, holder in enumerate(given.holders)]


def _tensors(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Tensor | torch.Tensor):
        yield path, value
    elif isinstance(value, tuple | list):
        for i, item in enumerate(value):
            yield from _tensors(item, f"{path}[{i}]")
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _tensors(item, f"{path}[{key!r}]")


def _outside(bound: Bound, fn: Callable[..., Any]) -> Iterator[tuple[str, Any]]:
    """(name, tensor) of what lies outside: parameters and buffers, what optimizers keep of them, other tensors."""
    found: dict[int, tuple[Any, str]] = {id(fn): (fn, "model")} if isinstance(fn, Module) else {}
    for fact in bound.facts:
        if isinstance(fact.value, Module | Optimizer | Tensor | torch.Tensor):
            found.setdefault(id(fact.value), (fact.value, fact.path))
    modules = [(value, path) for value, path in found.values() if isinstance(value, Module)]
    inner = {id(part) for value, _ in modules for part in value.modules() if part is not value}
    modules = [(m, path) for m, path in modules if any(True for _ in (*m.parameters(), *m.buffers()))]
    roots = [(m, path) for m, path in modules if id(m) not in inner]
    names: dict[int, str] = {}
    for root, path in roots:
        prefix = f"{path}." if len(roots) > 1 else ""
        for name, tensor in (*root.named_parameters(), *root.named_buffers()):
            names.setdefault(id(tensor), prefix + name)
            yield prefix + name, tensor
    others = [(path, value) for value, path in found.values() if isinstance(value, Tensor | torch.Tensor)]
    for value, _ in found.values():
        if isinstance(value, Optimizer):
            for i, parameter in enumerate(p for group in value.param_groups for p in group["params"]):
                owner = names.get(id(parameter)) or next(
                    (name for name, t in others if t is parameter and "param_groups" not in name), f"parameter {i}"
                )
                names.setdefault(id(parameter), owner)
                yield owner, parameter
                for key, tensor in value.state.get(parameter, {}).items():
                    if isinstance(tensor, Tensor):
                        yield f"{owner}.{key}", tensor
    for path, value in others:
        yield names.get(id(value), path), value
