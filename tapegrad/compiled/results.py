"""What a step returns and leaves in ``.grad``: read into a tree when it is recorded, made anew by every replay.

A tensor that comes out is one of four things, and a replay gives the same: an argument itself or a view of it, an
object that existed before the step, a view of memory from outside (a parameter's, say), or memory that the step made.
The last is copied out, so that the next call does not overwrite it. What shares memory, or is one object, shares it
again, or is one object again.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from ..core import _C, CompileError, Leaf, Tensor, describe, entry_of, gather
from .trace import Made, Ref, Same, Slot, Trace, made_in

Maker = Callable[[Sequence[torch.Tensor], Sequence[Any]], Any]  # of (what was copied out, the arguments' holders)


# --- while recording ---------------------------------------------------------------------------------------------


class Reader:
    """Reads results. ``ref`` names the memory of a tensor, ``refuse`` makes the error, ``start`` is the first slot."""

    def __init__(
        self,
        slots: Sequence[Slot],
        holders: Sequence[Any],
        ref: Callable[[torch.Tensor], Ref],
        refuse: Callable[[str], CompileError],
        start: int,
    ) -> None:
        self.slots = slots
        self.holders = holders
        self.ref = ref
        self.refuse = refuse
        self.start = start
        self.objects: dict[int, tuple[int, Any]] = {}  # by id: (number, object); kept, so that no id is used again

    def tree(self, value: Any) -> Any:
        """The returned structure with `Made` and `Same` for tensors."""
        if isinstance(value, Tensor | torch.Tensor):
            return self.tensor(value)
        if type(value) in (dict, OrderedDict):
            return type(value)([(key, self.tree(v)) for key, v in value.items()])
        if isinstance(value, list | tuple):
            items = [self.tree(v) for v in value]
            return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
        if value is None or isinstance(value, bool | int | float | str):
            return value
        raise self.refuse(
            f"the step returns a {type(value).__name__}; it can return tensors, numbers, tuples and dicts"
        )

    def tensor(self, value: Any) -> Made | Same:
        """Where a tensor lies."""
        for i, holder in enumerate(self.holders):
            if value is holder:
                return Same(i)
        raw = value._data if isinstance(value, Tensor) else value
        if isinstance(value, Tensor) and self._differentiable(value):
            raise self.refuse(
                "the step returns a value that could still be differentiated, which a replay could not offer; "
                "return value.detach(), or compute it under tg.no_grad()"
            )
        which, _ = self.objects.setdefault(id(value), (len(self.objects), value))
        ref = self.ref(raw)
        return Made(ref, type(value), which, value if self.slots[ref.slot].kind == "outside" else None)

    def _differentiable(self, value: Tensor) -> bool:
        """Whether it came onto the tape in this step, and backward can still start from it."""
        if value._node is None or entry_of(value._node).seq < self.start:
            return False
        if isinstance(value._node, Leaf):
            return True
        return all(entry.versions is not None for entry in gather([value._node]))


def agree(first: Made, second: Made) -> bool:
    """Whether two recordings returned the same thing in one place."""
    return first[:3] == second[:3]


def settled(first: Any, second: Any) -> Any:
    """The second recording's tree: `Made.value` stays where it is an object that existed before both calls."""
    if isinstance(second, Made):
        if second.value is None or second.value is first.value:
            return second
        raw = second.value if isinstance(second.value, torch.Tensor) else second.value._data
        if raw.requires_grad or type(raw) is not torch.Tensor:
            raise CompileError(f"compile: the step returns a {type(raw).__name__} of torch that requires its gradients")
        return second._replace(value=None)
    if isinstance(second, dict):
        return type(second)([(key, settled(first[key], v)) for key, v in second.items()])
    if isinstance(second, list | tuple) and not isinstance(second, Same):
        items = [settled(a, b) for a, b in zip(first, second, strict=True)]
        return type(second)(*items) if hasattr(second, "_fields") else type(second)(items)
    return second


# --- replaying ---------------------------------------------------------------------------------------------------


class Results:
    """Makes what a replay hands out.

    Parameters
    ----------
    trace : the recording
    live : slots whose memory from outside is that of every call; other slots from outside are constants of the program
    memory : a tensor on every slot from outside, and on those that the program owns
    view : the program's view of a Ref
    executor : told what to copy out
    """

    def __init__(
        self,
        trace: Trace,
        live: set[int],
        memory: Mapping[int, torch.Tensor],
        view: Callable[[Ref], torch.Tensor],
        executor: Any,
    ) -> None:
        self.slots = trace.slots
        self.live = live
        self.memory = memory
        self.view = view
        self.executor = executor
        self.copied = 0
        self.needs = trace.needs
        self._position: dict[int, int] = {}  # by `Made.which`: in what was copied out
        self.several: list[Maker] = []  # objects that come out in several places
        self._known: dict[int, int] = {}  # by `Made.which`: position among those
        returned = list(made_in(trace.result))
        gradients = [made for _, made in trace.gradients if isinstance(made, Made)]
        uses = Counter(made.which for made in (*returned, *gradients))
        self._times = {which: n for which, n in uses.items() if n > 1}
        self._copied_slots = {made.ref.slot for made in returned}
        self.build = self.maker(trace.result)
        self.leaves: list[Leaf] = []  # and the memory of the program that their gradients lie in
        self.data: list[torch.Tensor] = []
        self.refs: dict[Leaf, Ref] = {}
        self.left: list[tuple[Any, str, Tensor | None]] = []  # (owner, attribute, gradient), the same in every call
        self.fresh: list[tuple[Any, Maker, Ref]] = []  # copied out, because the step returns them, too
        self.of_arguments: list[tuple[int, Maker | None]] = []
        for target, made in trace.gradients:
            self._gradient(target, made)
        del self.view  # it holds the program, which holds this through C++, where no collector sees it
        plain = not (self.needs or self.fresh or self.of_arguments)
        self.described = self.describe(trace.result) if plain else None  # for C++; None: `finish` makes it

    def _gradient(self, target: Any, made: Made | Same | None) -> None:
        if isinstance(target, int):
            self.of_arguments.append((target, None if made is None else self.maker(made)))
        elif isinstance(made, Made) and self.slots[made.ref.slot].kind == "made":
            if self._comes_out(made) or not isinstance(target, Leaf):
                self.fresh.append((target, self.maker(made), made.ref))
            else:
                self.leaves.append(target)
                self.refs[target] = made.ref
                self.data.append(alias(self.memory[made.ref.slot], made.ref))
                self.executor.watch(self.data[-1])
        else:
            value = None if made is None else grad_of(target)
            self.left.append((target, "grad" if isinstance(target, Leaf) else "_grad", value))

    def _comes_out(self, made: Made) -> bool:
        return made.which in self._times or made.ref.slot in self._copied_slots

    def finish(self, copied: list[torch.Tensor], holders: Sequence[Any]) -> Any:
        """What is left to do in Python after a replay; what the step returns."""
        for i in self.needs:
            holders[i].requires_grad_()
        return self.hand_out(copied, holders)

    def hand_out(self, copied: list[torch.Tensor], holders: Sequence[Any]) -> Any:
        """What the step returns, given what was copied out; what it returns as gradients is left where it belongs."""
        out = [*copied, *[make(copied, holders) for make in self.several]] if self.several else copied
        if self.fresh or self.of_arguments:
            for owner, make, _ in self.fresh:
                set_grad(owner, make(out, holders))
            for i, gradient in self.of_arguments:
                holder = holders[i]
                owner = holder._node if isinstance(holder._node, Leaf) else holder
                set_grad(owner, None if gradient is None else gradient(out, holders))
        return self.build(out, holders)

    def leave_gradients(self) -> None:
        """The gradients after steps that handed out nothing."""
        _C.leave_gradients(self.leaves, self.data)
        for owner, name, grad in self.left:
            setattr(owner, name, grad)
        for owner, _, ref in self.fresh:
            set_grad(owner, Tensor._made(alias(self.memory[ref.slot], ref).clone(), None))

    def adopt(self, carried: Sequence[tuple[Leaf, int]]) -> bool:
        """Gradients from elsewhere are moved to where the program reads them, if all of them can be."""
        moved = []
        for leaf, i in carried:
            grad, data = leaf.grad, self.data[i]
            if type(grad) is not Tensor or grad._node is not None or grad.dtype is not data.dtype:
                return False
            if grad.shape != data.shape:
                return False
            if grad._data is not data:
                moved.append((leaf, data, grad._data.clone()))  # which may lie where another one goes
        for leaf, data, values in moved:
            data.copy_(values)
            leaf.grad = Tensor._made(data, None)
        return True

    def renew(self) -> None:
        """New tensors on the memory of gradients, where the user changed memory, shape or strides of one in place."""
        for i, (leaf, t) in enumerate(zip(self.leaves, self.data, strict=True)):
            ref = self.refs[leaf]
            moved = t.untyped_storage().data_ptr() != self.memory[ref.slot].untyped_storage().data_ptr()
            if moved or (t.storage_offset(), tuple(t.shape), t.stride()) != (ref.offset, ref.sizes, ref.strides):
                self.executor.unwatch(t)
                self.data[i] = alias(self.memory[ref.slot], ref)
                self.executor.watch(self.data[i])

    def describe(self, tree: Any) -> tuple[Any, ...] | None:
        """The returned structure as `_C.Replay` makes it; None where it takes Python to make it."""
        if isinstance(tree, Same):
            return ("same", tree.which)
        if isinstance(tree, Made):
            kinds: dict[type, str] = {Tensor: "tensor", torch.Tensor: "raw"}
            known = tree.which not in self._times and tree.which in self._position and tree.kind in kinds
            return (kinds[tree.kind], self._position[tree.which]) if known else None
        if type(tree) in (tuple, list, dict):
            parts = [self.describe(v) for v in (tree.values() if type(tree) is dict else tree)]
            if None in parts:
                return None
            return ("dict", list(tree), parts) if type(tree) is dict else (type(tree).__name__, parts)
        return None if isinstance(tree, tuple | list | dict) else ("constant", tree)

    def maker(self, tree: Any) -> Maker:
        """A function of (`outs`, holders) that gives the returned structure."""
        if isinstance(tree, Same):
            return lambda out, holders: holders[tree.which]
        if isinstance(tree, Made):
            if tree.which not in self._times:
                return self._tensor(tree)
            if tree.which not in self._known:
                make = self._tensor(tree)
                self._known[tree.which] = len(self.several)
                self.several.append(make)
            i = self._known[tree.which] - len(self._times)  # from the end: all of them follow what is copied out
            return lambda out, h: out[i]
        if isinstance(tree, dict):
            items, mapping = {k: self.maker(v) for k, v in tree.items()}, type(tree)
            return lambda out, h: mapping([(k, f(out, h)) for k, f in items.items()])
        if isinstance(tree, list | tuple):
            parts, kind = [self.maker(v) for v in tree], type(tree)
            if hasattr(tree, "_fields"):
                return lambda out, h: kind(*[f(out, h) for f in parts])
            return lambda out, h: kind([f(out, h) for f in parts])
        return lambda out, h: tree

    def _tensor(self, made: Made) -> Maker:
        slot, ref = made.ref.slot, made.ref
        wrap = _wrapper(made.kind)
        if self.slots[slot].kind == "argument":  # a view of it

            def part(out: Any, holders: Sequence[Any]) -> Any:
                t = holders[slot]._data if isinstance(holders[slot], Tensor) else holders[slot]
                return wrap(alias(t, ref, t.storage_offset() * t.itemsize))

            return part
        if made.value is not None:
            return lambda out, h: made.value
        if slot in self.live:
            memory = self.memory[slot]
            return lambda out, h: wrap(alias(memory, ref))
        i = self._position[made.which] = self.copied
        self.copied += 1
        self.executor.add_result(self.view(ref), slot)
        if made.kind is Tensor:
            return lambda out, h: Tensor._made(out[i], None)
        return lambda out, h: wrap(out[i])


def _wrapper(kind: type) -> Callable[[torch.Tensor], Any]:
    """How a raw tensor becomes a returned one."""
    if kind is Tensor:
        return lambda t: Tensor._made(t, None)
    if issubclass(kind, Tensor):
        return lambda t: kind._rebuild(t, False, None)
    return lambda t: t


def alias(memory: torch.Tensor, ref: Ref, skip: int = 0) -> torch.Tensor:
    """A view of any tensor's memory, ``skip`` bytes further on; it counts writes together with that tensor."""
    begin, rest = divmod(skip, ref.dtype.itemsize)
    if rest:
        raise CompileError(f"compile: a result's memory begins within an element of {describe(memory)}; pass a clone")
    return _C.alias(memory, ref.dtype, begin + ref.offset, ref.sizes, ref.strides)


def grad_of(target: Any) -> Tensor | None:
    """The gradient at a leaf, or at a tensor that needs none."""
    grad: Tensor | None = target.grad if isinstance(target, Leaf) else target._grad
    return grad


def set_grad(owner: Leaf | Tensor, grad: Tensor | None) -> None:
    """Assign a gradient as it is, without the copy that ``.grad = `` makes."""
    if isinstance(owner, Leaf):
        owner.grad = grad
    else:
        owner._grad = grad
