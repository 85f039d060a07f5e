"""What `run_together` is given, checked, and errors that name the model."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from ..core import ArgumentError, TapegradError, Tensor
from ..data.arguments import as_seed
from .members import Model
from .step import Compiled


def checked_steps(steps: Any) -> list[Compiled]:
    if isinstance(steps, Compiled) or not hasattr(steps, "__iter__"):
        raise ArgumentError(f"run_together: steps must be a sequence of compiled steps; got {type(steps).__name__}")
    found = list(steps)
    if not found:
        raise ArgumentError("run_together: at least one step is needed; got none")
    seen: dict[int, int] = {}
    for k, step in enumerate(found):
        if not isinstance(step, Compiled):
            raise ArgumentError(
                f"run_together: steps[{k}] must be a compiled step (tg.compile); got {type(step).__name__}"
            )
        if id(step) in seen:
            raise ArgumentError(f"run_together: steps[{seen[id(step)]}] and steps[{k}] are the same step")
        seen[id(step)] = k
    return found


def for_each(value: Any, count: int, name: str) -> Sequence[Any]:
    """An argument for each model: a list holds one for each, anything else is shared."""
    if not isinstance(value, list | tuple):
        return [value] * count
    if len(value) != count:
        raise ArgumentError(f"run_together: {name} must be an array or a list of {count}; got a list of {len(value)}")
    return value


def seeds_of(seed: Any, count: int) -> list[int]:
    if not hasattr(seed, "__len__") or getattr(seed, "ndim", 1) == 0:
        first = as_seed(seed, "run_together: seed")
        return [(first + k) % 2**64 for k in range(count)]
    if len(seed) != count:
        raise ArgumentError(f"run_together: seed must be an integer or {count} of them; got {len(seed)}")
    return [as_seed(s.item() if hasattr(s, "item") else s, f"run_together: seed[{k}]") for k, s in enumerate(seed)]


def own_rows(rows: Any, count: int) -> list[torch.Tensor | None]:
    if rows is None:
        return [None] * count
    if not hasattr(rows, "__len__") or len(rows) != count:
        got = len(rows) if hasattr(rows, "__len__") else type(rows).__name__
        raise ArgumentError(f"run_together: rows must be {count} index arrays; got {got}")
    return [_index(r, f"run_together: rows[{k}]") for k, r in enumerate(rows)]


def _index(value: Any, name: str) -> torch.Tensor:
    value = value._data if isinstance(value, Tensor) else value
    try:
        index = torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ArgumentError(f"{name} must be an index array; got {type(value).__name__}") from error
    if index.ndim != 1 or (index.numel() and (index.dtype is torch.bool or index.is_floating_point())):
        raise ArgumentError(f"{name} must be integers [m]; got {index.dtype} of shape {list(index.shape)}")
    return index.to(torch.int64).contiguous()


def wish_of(wish: Any, count: int) -> bool | list[int]:
    """What ``on_epoch`` returned: whether to end, or which models to stop."""
    wish = wish._data if isinstance(wish, Tensor) else wish
    if wish is None or not hasattr(wish, "__len__") or getattr(wish, "ndim", 1) == 0:
        return bool(wish)
    items = [w.item() if hasattr(w, "item") else w for w in (sorted(wish) if isinstance(wish, set) else wish)]
    if all(isinstance(w, bool) for w in items) and len(items) == count:
        return [k for k, w in enumerate(items) if w]
    if all(isinstance(w, int) and not isinstance(w, bool) and 0 <= w < count for w in items):
        return items
    raise ArgumentError(
        f"run_together: on_epoch must return None, a bool, {count} bools, or indices below {count}; got {wish!r}"
    )


def stacked(rows: list[torch.Tensor]) -> Any:
    if len({(row.shape, row.dtype) for row in rows}) > 1:
        return [Tensor(row) for row in rows]
    return Tensor(torch.stack(rows))


def renamed(error: TapegradError, which: str) -> TapegradError:
    """The same error, which names the model."""
    text = str(error)
    for prefix in ("run: ", "batches: ", "compile: "):
        text = text.removeprefix(prefix)
    return type(error)(f"run_together: {which}: {text}")


@contextlib.contextmanager
def named(model: Model) -> Iterator[None]:
    """Errors of the package's name the model."""
    try:
        yield
    except TapegradError as error:
        raise renamed(error, f"steps[{model.index}]") from error


def check_apart(models: Sequence[Model]) -> None:
    """ArgumentError where a model writes memory that another one uses."""
    found: dict[int, tuple[int, bool, int]] = {}  # by first address: (end, written, model)
    for model in models:
        mine: dict[int, tuple[int, bool]] = {}
        for begin, end, written in (extent for twin in model.twins for extent in twin.extents):
            if end > begin:
                last, changed = mine.get(begin, (end, written))
                mine[begin] = max(last, end), changed or written
        for begin, (end, written) in mine.items():
            other = found.get(begin)
            if other is None:
                found[begin] = end, written, model.index
            elif other[1] or written:
                _refuse_shared(other[2], model.index)
            else:
                found[begin] = max(other[0], end), False, model.index
    before, before_written = (0, -1), (0, -1)  # (end, model) that reaches furthest: of all, of those that are written
    for begin, (end, written, index) in sorted(found.items()):
        for reach, of in (before_written, before if written else (0, -1)):
            if begin < reach and of != index:
                _refuse_shared(of, index)
        before = max(before, (end, index))
        before_written = max(before_written, (end, index)) if written else before_written


def _refuse_shared(a: int, b: int) -> None:
    a, b = sorted((a, b))
    raise ArgumentError(
        f"run_together: steps[{a}] and steps[{b}] use the same memory, which one of them changes; "
        "give each its own model and optimizer"
    )
