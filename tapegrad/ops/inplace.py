"""Writing in place: one mechanism for ``x += y``, ``x[i] = y``, ``x.exp_()`` and the rest of torch's ``name_`` methods.

A constant is written by torch's own method. On a value that the tape follows, the op without the underscore is recorded
at the value's old place, its result is copied into the value's memory, and the value moves to the new entry: the same
object and memory, and one more line of the tape. What an earlier entry saved of that memory has then changed, which its
backward says (`MutationError`); what the new entry itself saved of the old values is kept as a copy, as in torch.

Whatever shares the memory (views, their bases, views of the same base) follows: every element that was written is read
from the new entry from then on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch

from ..core import (
    _C,
    DTypeError,
    Entry,
    IndexShapeError,
    Leaf,
    ShapeError,
    TapeError,
    Tensor,
    describe,
    entry_of,
    functions,
    mode,
    next_slot,
    raw,
    registry,
    tensor_argument,
)
from . import draws, inplace_views
from .indexing import as_index, getitem_op, setitem_op, write
from .shape import to_dtype
from .strided import reach

_OPERATORS = {  # method: operator
    "add_": "__iadd__",
    "sub_": "__isub__",
    "mul_": "__imul__",
    "div_": "__itruediv__",
    "pow_": "__ipow__",
    "floor_divide_": "__ifloordiv__",
    "remainder_": "__imod__",
    "bitwise_and_": "__iand__",
    "bitwise_or_": "__ior__",
    "bitwise_xor_": "__ixor__",
}

_NOT_WRITTEN = {*draws.METHODS, *inplace_views.METHODS}


# --- one write -----------------------------------------------------------------------------------------------------


def overwritten(inplace: bool, x: Any, result: Any) -> Any:
    """The result, computed from `x`; where ``inplace`` asks for it, `x` itself with the values of the result.

    Where nothing else lies in the memory of a recorded value, it takes over that of the result: nothing is copied, and
    what earlier entries saved stays. A leaf that requires a gradient is left alone: the result is a new value.
    """
    if not inplace or not isinstance(x, Tensor) or result is x or result.dtype is not x.dtype:
        return result
    if not _needs(x, (result,)):
        x._data.copy_(result._data)
        return x
    if isinstance(x._node, Leaf):
        return result
    alone = x._node is not None and not x._data._is_view() and _users(x) == 1
    if alone and (mode.tracer is None or mode.tracer.made(x._data)):
        _C.hold(x, result._data)
        x._node = result._node
        return x
    written(x, "inplace=True", lambda _: result, -1 if x._node is None else entry_of(x._node).seq)
    return x


def written(x: Tensor, name: str, compute: Callable[[Tensor], Any], start: int | None = None) -> None:
    """Record ``x = compute(x)`` in place: the same object and memory, at the new entry's place on the tape.

    ``start`` : the slot after which compute's entries were recorded, if they were already
    """
    if isinstance(x._node, Leaf):
        raise TapeError(
            f"{name}: a leaf that requires a gradient cannot be written to; write to a clone, or under tg.no_grad()"
        )
    if not x._data.is_floating_point():
        raise DTypeError(f"{name}: a {x._data.dtype} tensor cannot hold a value that needs a gradient")
    if torch._debug_has_internal_overlap(x._data) == 1:
        raise ShapeError(f"{name}: several elements of the tensor lie in one place; write to x.clone()")
    others: list[Tensor] = _C.sharers(x)
    if any(isinstance(t._node, Leaf) for t in others):
        raise TapeError(f"{name}: the tensor shares memory with a leaf that requires a gradient; write to x.clone()")
    storage = x._data
    start = next_slot() if start is None else start
    result = compute(Tensor._made(storage, x._node))
    if result.shape != storage.shape:
        raise ShapeError(
            f"{name}: the result has shape {list(result.shape)}; expected {list(storage.shape)}, the tensor's"
        )
    if result.dtype is not storage.dtype:
        if result._node is not None and result.dtype.is_floating_point:
            result = to_dtype(result, storage.dtype)
        elif not torch.can_cast(result.dtype, storage.dtype):
            raise DTypeError(f"{name}: a result of {result.dtype} can't be cast to {storage.dtype}")
    if result._node is None:  # the op has no gradient: torch's is zero
        result = setitem_op(Tensor._made(storage, x._node), ..., Tensor._made(result._data.to(storage.dtype), None))
    made = [e for e in _since(result._node, start) if e.versions]  # those that saved something
    for entry in made:
        _keep(entry, storage)
    storage.copy_(result._data)
    for entry in made:
        _save_output(entry, result._data, storage)
    x._node = result._node
    for other in others:
        if is_followed(other, x):
            follow(other, x)


def _since(node: Any, start: int) -> list[Any]:
    """The entries that `node` depends on and that were recorded after slot `start`."""
    found: list[Any] = []
    stack = [node]
    while stack:
        entry = stack.pop()
        if type(entry) is tuple:
            entry = entry[0]
        if type(entry) is Entry and entry.seq > start and entry not in found:
            found.append(entry)
            stack += entry.parents
    return found


def _keep(entry: Any, storage: torch.Tensor) -> None:
    """Give an entry a copy of what it saved of memory that is about to be written."""
    copies: dict[int, torch.Tensor] = {}

    def copy(value: Any) -> Any:
        if isinstance(value, list):
            return [copy(v) for v in value]
        if not isinstance(value, torch.Tensor) or not _C.same_storage(value, storage):
            return value
        return copies.setdefault(id(value), value.clone())

    for i, (at, _) in enumerate(entry.versions):
        value = entry.env[at]
        kept = copy(value)
        if copies:
            entry.env[at] = kept
            entry.versions[i] = (at, [v._version for v in kept] if isinstance(kept, list) else kept._version)


def _save_output(entry: Any, result: torch.Tensor, storage: torch.Tensor) -> None:
    """Let an entry that saved its output hold the memory that it was written to."""
    for i, (at, _) in enumerate(entry.versions):
        if entry.env[at] is result:
            entry.env[at] = storage
            entry.versions[i] = (at, storage._version)


# --- views and bases -----------------------------------------------------------------------------------------------


def _users(x: Tensor) -> int:
    """How many raw tensors lie in the memory of `x`, itself included, as far as the step's own code goes."""
    return _C.storage_use_count(x._data) - (0 if mode.tracer is None else mode.tracer.holds(x._data))


def _root(value: torch.Tensor) -> Any:
    return value._base if value._is_view() else value


def is_followed(t: Tensor, x: Tensor) -> bool:
    """Whether `t` is x's base, a view of it, or a view of the same base; what was detached goes its own way."""
    return _root(t._data) is _root(x._data) or (t._node is not None and not isinstance(t._node, Leaf))


def follow(t: Tensor, x: Tensor) -> None:
    """Move `t`, which lies in the same memory as `x`, to a place on the tape that reads what was written to `x`.

    What was written stands in t's memory already: only the entry is made.
    """
    a, b = t._data, x._data
    first, start = a.storage_offset(), b.storage_offset()
    size, stride = tuple(a.shape), a.stride()
    end, stop = first + reach(size, stride), start + reach(b.shape, b.stride())
    if end <= start or stop <= first:
        return
    if b.is_contiguous() and start <= first and end <= stop:  # all of t is x's
        t._node = registry["as_strided"].record(a, (x._node,), (b, size, stride, first - start))._node
    elif a.is_contiguous() and first <= start and stop <= end:  # all of x is t's
        values = (a, b, tuple(b.shape), b.stride(), start - first)
        t._node = registry["as_strided_scatter"].record(a, (t._node, x._node), values)._node
    else:
        _follow_anywhere(t, x)


def _follow_anywhere(t: Tensor, x: Tensor) -> None:
    """`follow` by a table of places, for layouts of any kind."""
    with torch._C._DisableTorchDispatch():
        shared = _places(t, x) >= 0
        none, every = not bool(shared.any()), bool(shared.all())
    if none:
        return
    places = _places(t, x)
    flat = functions["reshape"](x, (-1,))
    if every:
        t._node = getitem_op(flat, places)._node
        return
    picked = getitem_op(flat, places.clamp(min=0))
    t._node = functions["where"](places >= 0, picked, Tensor._made(t._data, t._node))._node


def _places(t: Tensor, x: Tensor) -> torch.Tensor:
    """For each element of `t`, which element of `x` lies at its place in memory; -1 for none."""
    first = int(min(t._data.storage_offset(), x._data.storage_offset()))
    size = 0
    for v in (t._data, x._data):
        last = sum((n - 1) * step for n, step in zip(v.shape, v.stride(), strict=True))
        size = max(size, int(v.storage_offset()) - first + last + 1)
    table = torch.full((size,), -1)
    at = int(x._data.storage_offset()) - first
    table.as_strided(x._data.shape, x._data.stride(), at).copy_(torch.arange(x._data.numel()).reshape(x._data.shape))
    return table.as_strided(t._data.shape, t._data.stride(), int(t._data.storage_offset()) - first).clone()


# --- the methods ---------------------------------------------------------------------------------------------------


def _needs(self: Tensor, values: Any) -> bool:
    """Whether a write of these values is recorded."""
    if not mode.record:
        return False
    if self._node is not None:
        return True
    return any(map(_is_recorded, values))


def _is_recorded(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return any(_is_recorded(v) for v in value)
    return isinstance(value, Tensor) and value._node is not None


def _argument(value: Any, name: str, what: str) -> Any:
    """What torch's own method takes: raw values, in the tuple of ``index_put_`` too."""
    if isinstance(value, tuple | list) and name == "index_put_":
        return tuple([None if v is None else raw(v, name, what) for v in value])
    other = isinstance(value, str | torch.dtype) or (isinstance(value, tuple | list) and what != "argument 1")
    return value if other else raw(value, name, what)


def in_place(name: str, op: Callable[..., Any]) -> Callable[..., Any]:
    """The method `name` of Tensor: torch's on a constant, `op` recorded in place where the tape follows."""

    def method(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if _needs(self, (*args, *kwargs.values())):
            written(self, name, lambda old: op(old, *args, **kwargs))
            return self
        given = [_argument(value, name, f"argument {i + 1}") for i, value in enumerate(args)]
        named = {key: _argument(value, name, key) for key, value in kwargs.items()}
        try:
            getattr(self._data, name)(*given, **named)
        except TypeError as error:
            got = ", ".join([*map(describe, args), *(f"{key}={describe(v)}" for key, v in kwargs.items())])
            raise TypeError(f"{name}: {str(error).splitlines()[0]}; got {got}") from error
        except RuntimeError as error:
            kind = DTypeError if "can't be cast" in str(error) else ShapeError
            raise kind(f"{name}: {str(error).splitlines()[0]}") from error
        return self

    method.__name__ = method.__qualname__ = name
    method.__doc__ = f"``{name.rstrip('_')}`` written into this tensor's memory, as ``torch.Tensor.{name}``."
    return method


def setitem(self: Tensor, index: Any, value: Any) -> None:
    """``self[index] = value``, in place."""
    index = as_index(index)
    if _needs(self, (value,)):
        written(self, "setitem", lambda old: setitem_op(old, index, value))
        return
    values = raw(value, "setitem", "value")
    try:
        write(self._data, index, values)
    except (RuntimeError, IndexError) as error:
        kind = IndexShapeError if isinstance(error, IndexError) else ShapeError
        raise kind(f"setitem: {str(error).splitlines()[0]}") from error


def _copied(old: Tensor, src: Any, non_blocking: bool = False) -> Any:
    src = tensor_argument(torch.as_tensor(src) if isinstance(src, bool | int | float) else src, "copy_", "src")
    return setitem_op(old, ..., functions["expand"](src, tuple(old.shape)))


def _filled(old: Tensor, value: Any) -> Any:
    return setitem_op(old, ..., value)


_OTHERS: dict[str, Callable[..., Any]] = {
    "copy_": _copied,
    "fill_": _filled,
    "zero_": lambda old: _filled(old, 0.0),
    "polygamma_": lambda old, n: functions["polygamma"](n, old),
    **inplace_views.WRITES,
}


def _methods() -> Iterator[tuple[str, Callable[..., Any]]]:
    for name, op in functions.items():
        method = f"{name}_"
        if hasattr(torch.Tensor, method) and method not in _NOT_WRITTEN:
            yield method, in_place(method, op)
    for name, op in _OTHERS.items():
        yield name, in_place(name, op)
    yield from draws.METHODS.items()
    yield from inplace_views.METHODS.items()


def methods() -> dict[str, Callable[..., Any]]:
    """The methods of `Tensor` that write, once `functions` knows the ops."""
    table = dict(_methods())
    table.update({operator: table[name] for name, operator in _OPERATORS.items()})
    table["__setitem__"] = setitem
    return table
