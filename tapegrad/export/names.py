"""What people call the memory of a step: parameters and buffers by their modules' names, and an optimizer's state."""

from __future__ import annotations

import functools
import types
from collections.abc import Callable, Iterator
from typing import Any

import torch

from ..core import _C, Tensor
from ..nn import Module
from ..optim.optimizer import Optimizer

_DEEP = 4  # containers and objects within one another that are looked into


def reached(fn: Any) -> Iterator[tuple[str, Any]]:
    """(name, module, optimizer or tensor) that a function reaches: its closure, globals, what it is bound to."""
    seen: set[int] = set()
    todo: list[tuple[str, Any, int]] = [("", fn, 0)]
    while todo:
        name, value, depth = todo.pop(0)
        if id(value) in seen or depth > _DEEP:
            continue
        seen.add(id(value))
        if isinstance(value, Module | Optimizer | Tensor | torch.Tensor):
            yield name, value
        todo += [(inner, v, depth + 1) for inner, v in _parts(name, value)]


def _parts(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """What a value holds, with names."""
    if isinstance(value, types.FunctionType):
        names = value.__code__.co_freevars
        for inner, cell in zip(names, value.__closure__ or (), strict=True):
            try:
                yield inner, cell.cell_contents
            except ValueError:  # not assigned yet
                continue
        globe = value.__globals__
        yield from [(n, globe[n]) for n in value.__code__.co_names if n in globe and _worth(globe[n])]
        yield from [(name, v) for v in (value.__defaults__ or ())]
    elif isinstance(value, types.MethodType):
        yield from ((name, value.__self__), (name, value.__func__))
    elif isinstance(value, functools.partial):
        yield from [(name, v) for v in (value.func, *value.args, *value.keywords.values())]
    elif isinstance(value, dict):
        yield from [(str(k), v) for k, v in value.items()]
    elif isinstance(value, list | tuple):
        yield from [(f"{name}_{i}" if name else str(i), v) for i, v in enumerate(value)]
    elif not isinstance(value, Module | Optimizer | type | types.ModuleType | Tensor | torch.Tensor) and hasattr(
        value, "__dict__"
    ):
        yield from [(str(k), v) for k, v in vars(value).items()]


def _worth(value: Any) -> bool:
    return not isinstance(value, type | types.ModuleType | types.BuiltinFunctionType)


def storage(value: Any) -> int:
    """Which memory a tensor lies in."""
    raw = value._data if isinstance(value, Tensor) else value
    return int(_C.storage_key(raw))


def names(fn: Callable[..., Any]) -> dict[int, str]:
    """By storage, and by leaf: ``0.weight``, ``0.weight.exp_avg``; several modules have their own names in front."""
    found: dict[int, str] = {}
    owners = list(reached(fn))
    modules = [(name, m) for name, m in owners if isinstance(m, Module)]
    for name, module in modules:
        lead = f"{name}." if len(modules) > 1 and name else ""
        for kind in (module.named_parameters(), module.named_buffers()):
            for path, value in kind:
                found.setdefault(storage(value), lead + path)
                found.setdefault(id(value._node), lead + path)
                if value.grad is not None:
                    found.setdefault(storage(value.grad), f"{lead}{path}.grad")
    for _, optimizer in owners:
        if isinstance(optimizer, Optimizer):
            for i, (param, state) in enumerate(optimizer.state.items()):
                base = found.setdefault(storage(param), f"parameter_{i}")
                for key, value in state.items():
                    if isinstance(value, Tensor | torch.Tensor):
                        found.setdefault(storage(value), f"{base}.{key}")
    for name, value in owners:
        if isinstance(value, Tensor | torch.Tensor):
            found.setdefault(storage(value), name)
    return found
