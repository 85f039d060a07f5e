"""Modules as functions of their parameters, and functions of one example as functions of many."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import wraps
from typing import Any

from torch.utils import _pytree as pytree

from ..core import ArgumentError, ShapeError, StateError, Tensor, raw
from ..ops import stack
from ..ops.shape import select


def functional_call(
    module: Any,
    parameter_and_buffer_dicts: Mapping[str, Any] | Sequence[Mapping[str, Any]],
    args: Any = None,
    kwargs: Mapping[str, Any] | None = None,
    *,
    tie_weights: bool = True,
    strict: bool = False,
) -> Any:
    """``module(*args, **kwargs)`` with these Tensors in the place of its parameters and buffers of those names.

    Parameters
    ----------
    parameter_and_buffer_dicts : names (as in a state dict) and Tensors; of several dicts each name stands in one
    args : a tuple, or the one argument
    tie_weights : what the module has under several names is replaced under all of them (default True)
    strict : every parameter and buffer must be given, and nothing else

    The module is as before afterwards. Source: ``torch.func.functional_call``.
    """
    one = isinstance(parameter_and_buffer_dicts, Mapping)
    dicts: list[Any] = [parameter_and_buffer_dicts] if one else list(parameter_and_buffer_dicts)
    given: dict[str, Any] = {}
    for values in dicts:
        for name, value in values.items():
            if name in given:
                raise ArgumentError(f"functional_call: {name!r} is given twice")
            given[name] = value
    own = dict(_places(module))
    unknown, missing = [n for n in given if n not in own], [n for n in own if n not in given]
    if tie_weights:
        replaced = {id(own[name][2]): given[name] for name in given if name in own}
        for name in list(missing):
            if id(own[name][2]) in replaced:
                given[name] = replaced[id(own[name][2])]
                missing.remove(name)
    if strict and (unknown or missing):
        raise StateError(f"functional_call: missing {missing} and unexpected {unknown} with strict=True")
    positional = () if args is None else args if isinstance(args, tuple) else (args,)
    with _replaced({own[name]: given[name] for name in given if name in own}):
        return module(*positional, **(kwargs or {}))


_Place = tuple[Any, str, Any]  # a module, an attribute of it, its value


def _places(module: Any) -> Iterator[tuple[str, _Place]]:
    """Where each parameter and buffer stands, every name of it."""
    for path, part in module.named_modules(remove_duplicate=False):
        names = [*dict(part.named_parameters(recurse=False)), *dict(part.named_buffers(recurse=False))]
        for name in names:
            yield f"{path}.{name}" if path else name, (part, name, part.__dict__[name])


@contextmanager
def _replaced(values: Mapping[_Place, Any]) -> Iterator[None]:
    """Inside, modules have these values in the place of their own."""
    try:
        for (part, name, _), value in values.items():
            part.__dict__[name] = value if isinstance(value, Tensor) else Tensor(raw(value, "functional_call", name))
        yield
    finally:
        for part, name, value in values:
            part.__dict__[name] = value


def stack_module_state(models: Sequence[Any]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The parameters (leaves) and buffers of several modules of one class, each stacked along a new first dimension."""
    models = list(models)
    if not models:
        raise ArgumentError("stack_module_state: expected at least one model; got none")
    if len({type(model) for model in models}) > 1 or len({model.training for model in models}) > 1:
        raise ArgumentError("stack_module_state: models must be of one class and in one mode, training or evaluation")
    params = [dict(model.named_parameters()) for model in models]
    buffers = [dict(model.named_buffers()) for model in models]
    return {name: _stacked(params, name) for name in params[0]}, {name: _stacked(buffers, name) for name in buffers[0]}


def _stacked(states: Sequence[Mapping[str, Tensor]], name: str) -> Tensor:
    value: Tensor = stack([state[name].detach() for state in states])
    return value.requires_grad_(states[0][name].requires_grad) if value.is_floating_point() else value


def vmap(
    func: Callable[..., Any],
    in_dims: Any = 0,
    out_dims: Any = 0,
    randomness: str = "error",
    *,
    chunk_size: int | None = None,
) -> Callable[..., Any]:
    """A function of one example, for many: its results stacked. It is a loop, recorded like any other, not batching.

    Parameters
    ----------
    in_dims : along which dimension each argument holds the examples, None for one that all share; a number, or a tuple
        with one for each argument, nested as that is
    out_dims : where the results are stacked; a number, or one for each result
    randomness : "different"; under "error" (the default) random numbers are not refused, and differ, too
    chunk_size : taken because torch takes it

    Source: ``torch.func.vmap``.
    """
    if randomness not in ("error", "different"):
        raise ArgumentError(f"vmap: randomness must be 'error' or 'different'; got {randomness!r}")

    @wraps(func)
    def mapped(*args: Any, **kwargs: Any) -> Any:
        flat, structure = pytree.tree_flatten(args)
        dims = _dims_of(args, in_dims, structure)
        sizes = {int(v.shape[d]) for v, d in zip(flat, dims, strict=True) if d is not None}
        if len(sizes) != 1:
            raise ShapeError(f"vmap: the mapped dimensions must exist and be of one size; got sizes {sorted(sizes)}")
        rows = []
        shape: Any = None
        for i in range(sizes.pop()):
            one = [v if d is None else select(v, d, i) for v, d in zip(flat, dims, strict=True)]
            row, shape = pytree.tree_flatten(func(*pytree.tree_unflatten(one, structure), **kwargs))
            rows.append(row)
        if not rows:
            raise ShapeError("vmap: the mapped dimension must not be empty; got size 0")
        where = pytree._broadcast_to_and_flatten(out_dims, shape)
        if where is None:
            raise ArgumentError(f"vmap: out_dims must be a number or one for each result; got {out_dims!r}")
        return pytree.tree_unflatten([stack(c, d) for c, d in zip(zip(*rows, strict=True), where, strict=True)], shape)

    return mapped


def _dims_of(args: tuple[Any, ...], in_dims: Any, structure: Any) -> list[int | None]:
    """The mapped dimension of every Tensor in the arguments."""
    given = tuple(in_dims) if isinstance(in_dims, list) else in_dims
    dims = pytree._broadcast_to_and_flatten(given, structure)
    if dims is None:
        raise ArgumentError(f"vmap: in_dims must be a number, None, or nested as the arguments are; got {in_dims!r}")
    return dims
