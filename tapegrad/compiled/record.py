"""Recording one call of a step: every kernel and torch operator that ran, on which memory, in order.

What a step computes reaches memory in two ways only: through a kernel of ours, or through an operator of torch. Both
tell the recorder, forward, backward and update alike, so the recording needs to know nothing of models, losses or
optimizers.

Reading a value into Python is refused: what Python then does with it, a replay could not see.
"""

from __future__ import annotations

import bisect
import functools
import os
import sys
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from ..core import _C, CompileError, Leaf, ShapeError, TapegradError, Tensor, describe, gather, mode, next_slot
from ..optim.kernels import KERNELS, Key, entry, hyper, name_of
from .attributes import Place, attributes, moved_on
from .carried import carried
from .facts import Fact
from .patience import OFTEN, Patience
from .results import Reader, grad_of
from .schemas import schemas
from .trace import Call, Number, Offset, Ref, Seed, Slot, Trace, extent, outlived, refs_of, results_of
from .watch import ESCAPES, TEXT, for_user, importing, is_users, place, reader, side_effect, where

_HERE = os.path.dirname(__file__)

_READS = {**dict.fromkeys(KERNELS, (1,)), "move_statistics_": ()}  # argument lists that such a kernel only reads

_NUMBERS_INSTEAD = "give it numbers where it takes numbers (one_hot: num_classes), or call it outside the step"

# Operators of torch whose kernels are ours: the same bits, and less to do than a dispatch.
_OPERATORS = {f"aten::{name}.Tensor": getattr(torch.ops.aten, name).Tensor for name in ("add", "sub", "mul", "div")}
_OPERATORS |= {"aten::add_.Tensor": torch.ops.aten.add_.Tensor, "aten::rsub.Scalar": torch.ops.aten.rsub.Scalar}
_RANDOM = {"random_uniform", "random_normal", "random_int", "random_bernoulli", "permutation", "dropout"}


_INDEX, _BATCH_NORM = torch.ops.aten.index.Tensor, torch.ops.aten.native_batch_norm.default
_C.trace_classes(Ref, Call, Slot, _RANDOM | _READS.keys(), _OPERATORS, schemas, {_INDEX, _BATCH_NORM}, is_users, place)


def _on_tape(value: Tensor) -> bool:
    """A recorded value that backward can still start from: nothing it depends on has been released."""
    if value._node is None or isinstance(value._node, Leaf):
        return False
    return all(entry.versions is not None for entry in gather([value._node]))


def _is_mask(index: torch.Tensor) -> bool:
    return index.dtype in (torch.bool, torch.uint8)


def _ours(method: Callable[..., Any]) -> Callable[..., Any]:
    """What the recorder does itself. Where it fails, the step cannot be compiled; see `Recorder.end`."""

    @functools.wraps(method)
    def call(self: Recorder, *args: Any) -> Any:
        if self.over:
            return None
        try:
            return method(self, *args)
        except CompileError as error:
            refusal = error
        except TapegradError:
            raise
        except Exception as error:
            refusal = self._failed(error)
        return self.end(refusal)

    return call


class Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records one call of a step.

    Attributes
    ----------
    trace : the recording
    log : its C++ side, which writes the trace and knows the slots of storages
    before : what the call changed, as it was
    strict : a step that cannot be compiled raises CompileError; else it goes on unrecorded, and ``refusal`` says why
    over : it goes on unrecorded
    raised : the exception of the step itself, which is passed on as it is
    """

    def __init__(
        self,
        arguments: Sequence[torch.Tensor],
        holders: Sequence[Any],
        strict: bool = True,
        patience: Patience | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._patience = patience or Patience()
        self.trace = Trace()
        self.log = _C.Log(self.trace.calls, self.trace.slots, OFTEN)
        self.before = _C.Before()
        self.strict = strict
        self.over = False
        self.refusal: CompileError | None = None
        self.raised: Exception | None = None  # by the step itself
        self.group: dict[str, Any] | None = None  # the optimizer's group being applied
        self.facts: list[Fact] = []  # as they are before the call
        self._outside: list[tuple[int, int, int]] = []  # (first address, end, slot) of memory from outside, in order
        self._shifts: dict[int, int] = {}  # by storage that lies inside a slot: bytes from where that begins
        self._overlapping: set[int] = set()  # slots that lie partly in another
        self._takes: dict[tuple[int, int], tuple[int, int]] = {}  # (seed, offset) -> (generator, delta)
        self._grads: dict[Leaf | Tensor, None] = {}  # leaves and tensors whose .grad was written
        self.fresh: list[Any] = []  # generators made in the step, which draw the same numbers in every call
        self._copies: list[tuple[int, int, int]] = []  # see `outlived`
        self._start = next_slot()
        self._holders = list(holders)
        self._nodes = [(h._node, h._grad) for h in holders if isinstance(h, Tensor)]
        self._given = {id(h) for h in holders} | {id(node) for node, _ in self._nodes if node is not None}
        for holder in holders:
            if isinstance(holder, Tensor):
                self.before.attribute(holder, "_node", holder._node)
                self.before.attribute(holder, "_grad", holder._grad)
        self._frame: FrameType | None = None  # of the step, the first of the user's functions to run
        self._at = ""  # the line that returned, once the step is over
        self._parts: dict[int, list[tuple[int, int, int]]] = {}  # storage: (first byte, last, slot) of each argument
        for t in arguments:
            begin, end = extent(t)
            slot = self._new_slot(t, Slot("argument", end - begin), True)
            self._parts.setdefault(_C.storage_key(t), []).append((begin, end, slot))

    # --- the call ---------------------------------------------------------------------------------------------

    def run(self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call ``fn`` and record it."""
        setting = mode.record, torch.get_default_dtype()
        try:
            result = _C.record_call(mode, self, fn, args, kwargs)
        except Exception as error:
            self.raised = error
            if self.refusal is not None and not self.over and error is not self.refusal:
                raise self.refusal from error
            raise
        finally:
            at = "" if self._frame is None else place(self._frame)
            self._frame = None  # it leads back to this one: no cycle
        if self.refusal is not None and not self.over:  # raised inside, and swallowed by the user's code
            raise self.refusal
        self._at = at
        self._finish(result, setting)
        return result

    def refusal_for(self, reason: str) -> CompileError:
        """An error that names the line of the user's code."""
        return CompileError(f"compile: {self._at or where()}: {reason}")

    def end(self, refusal: CompileError) -> None:
        """Nothing is recorded any more: an error where ``strict``, else the step goes on to its end as it is."""
        self.refusal = self.refusal or refusal
        if self.strict or self._copies:  # copies stand for views, which the step might come to write to
            raise self.refusal
        self.over = True
        self.log.stop()
        self.before.forget()
        if mode.tracer is self:
            mode.tracer = None

    @_ours
    def refuse(self, reason: str) -> None:
        """The package says that what it is about to do cannot be compiled."""
        raise self.refusal_for(reason)

    def _failed(self, error: Exception) -> CompileError:
        refusal = self.refusal_for(f"the step cannot be compiled: {type(error).__name__}: {error}")
        refusal.__cause__ = error
        return refusal

    @_ours
    def own(self, function: Callable[..., Any], *args: Any) -> Any:
        """``function(*args)``, as a part of what the recorder does itself."""
        try:
            return function(*args)
        except CompileError:
            raise
        except TapegradError as error:
            raise self._failed(error) from error

    # --- what the package tells -------------------------------------------------------------------------------

    @_ours
    def read_unseen(self) -> None:
        """A value is read by a function of torch that has switched this mode off meanwhile."""
        raise self.refusal_for(
            f"{reader() or 'a list'} takes the value of a torch tensor out of the program, to make a tensor of it, "
            "which a replay cannot follow; use tg.stack or tg.cat"
        )

    @_ours
    def read_grad(self, owner: Leaf | Tensor) -> None:
        """The ``.grad`` of a leaf, or of a tensor that is none, is looked at."""
        if owner not in self._grads and self._is_older(owner):
            self.trace.grads_read.setdefault(id(owner), (owner, grad_of(owner)))

    @_ours
    def write_grad(self, owner: Leaf | Tensor) -> None:
        """A ``.grad`` is about to change."""
        if owner not in self._grads and (isinstance(owner, Leaf) or id(owner) in self._given or self._is_older(owner)):
            self.before.attribute(owner, "grad" if isinstance(owner, Leaf) else "_grad", grad_of(owner))
            self._grads[owner] = None

    def _is_older(self, owner: Leaf | Tensor) -> bool:
        """Whether it was there before the step; arguments, whose gradients are arguments, do not count."""
        if id(owner) in self._given:
            return False
        if isinstance(owner, Leaf):
            return owner.seq < self._start
        return not self.made(owner._data)

    def holds(self, t: torch.Tensor) -> int:
        """References to a storage that the recording itself added when it was made."""
        return self.log.added(t)

    def made(self, t: torch.Tensor) -> bool:
        """Whether a storage was made by the recorded step."""
        known = self.log.slot(t)
        return known >= 0 and self.trace.slots[known].kind == "made"

    @_ours
    def copied(self, copy: torch.Tensor, source: torch.Tensor) -> None:
        """``copy`` stands for what is a view of ``source`` in an uncompiled step."""
        with torch._C._DisableTorchDispatch():
            self._copies.append((len(self.trace.calls), self._ref(copy).slot, self._ref(source).slot))

    @_ours
    def take(self, generator: Any, state: tuple[int, int], blocks: int) -> None:
        """A random op reserved ``blocks`` blocks at ``state`` = (seed, offset) of a generator."""
        if generator in self.fresh:
            return
        known = [g for g, _ in self.trace.generators]
        if generator not in known:
            known.append(generator)
            self.trace.generators.append((generator, 0))
            self.before.attribute(generator, "seed", state[0])
            self.before.attribute(generator, "offset", state[1])
        which = known.index(generator)
        taken = self.trace.generators[which][1]
        self._takes[state] = (which, taken)
        self.trace.generators[which] = (generator, taken + blocks)

    # --- slots ------------------------------------------------------------------------------------------------

    def _new_slot(self, t: torch.Tensor, slot: Slot, odd: bool = False) -> int:
        number = len(self.trace.slots)
        self.log.name(t, number, odd)
        self.trace.slots.append(slot)
        return number

    def _ref(self, value: Any) -> Any:
        """Tensors as Refs, in lists too; a storage not seen before lies outside."""
        return self.log.refs(self, value)

    def _odd_ref(self, t: torch.Tensor) -> Ref:
        """The Ref of a tensor whose storage is new, or not the whole of a slot."""
        with torch._C._DisableTorchDispatch():
            return self._odd_place(t)

    def _odd_place(self, t: torch.Tensor) -> Ref:
        key, offset = _C.storage_key(t), t.storage_offset()
        number = self.log.slot(t)
        if number < 0:
            number = self._from_outside(t)
        elif key in self._parts:
            number, offset = self._part(t)
        if key in self._shifts:
            offset += self._shifts[key] // t.itemsize
        return Ref(number, t.dtype, int(offset), tuple(t.shape), t.stride())

    def _from_outside(self, t: torch.Tensor) -> int:
        """The slot of a storage not seen before; several may wrap the memory of one array."""
        slot = Slot("outside", t.untyped_storage().nbytes(), t, where())
        if extent(t)[1] > slot.nbytes:
            raise ShapeError(
                f"compile: {where()}: the storage of a tensor {describe(t)} must hold {extent(t)[1]} bytes; "
                f"got one of {slot.nbytes}"
            )
        begin, end = slot.extent
        if begin == end:
            return self._new_slot(t, slot)
        at = bisect.bisect(self._outside, (begin, sys.maxsize, 0))
        near = [i for i in (at - 1, at) if 0 <= i < len(self._outside)]
        over = [self._outside[i] for i in near if self._outside[i][0] < end and begin < self._outside[i][1]]
        for first, last, known in over:
            if first <= begin and end <= last and (begin - first) % t.itemsize == 0:
                self.log.name(t, known, True)
                self._shifts[_C.storage_key(t)] = begin - first
                return known
        made = self._new_slot(t, slot)
        self._overlapping |= {made, *[known for *_, known in over]} if over else set()
        self._outside.insert(at, (begin, end, made))
        return made

    def _part(self, t: torch.Tensor) -> tuple[int, int]:
        """(slot, offset in it) of a view of an argument; arguments may be disjoint parts of one storage."""
        begin, end = extent(t)
        for first, last, slot in self._parts[_C.storage_key(t)]:
            if (first <= begin and end <= last) or begin == end:
                return slot, (begin - first) // t.itemsize
        raise self.refusal_for("memory beside an argument is used: a view that reaches beyond it")

    def _before_write(self, value: Any) -> None:
        """Keep what a storage from outside holds before its first change."""
        if isinstance(value, list | tuple):
            for v in value:
                self._before_write(v)
        elif isinstance(value, torch.Tensor):
            slot = self.trace.slots[self._ref(value).slot]
            if slot.kind != "made" and not slot.written:
                self.before.memory(torch.empty(0, dtype=torch.uint8).set_(value.untyped_storage()))
            slot.written = True

    # --- instructions -----------------------------------------------------------------------------------------

    def _look(self) -> None:
        self._patience.look("recording", len(self.trace.calls))

    @_ours
    def _fail(self, error: Exception) -> None:
        """The log could not write what ran."""
        raise error

    @_ours
    def _kernel(self, name: str, arguments: tuple[Any, ...], result: Any) -> None:
        """A kernel with random numbers ran, or one is about to that writes more than its first argument."""
        given: list[Any] = list(self._ref(arguments))
        writes: tuple[int, ...] = ()
        if name in _RANDOM and arguments[-2:] in self._takes:
            index, delta = self._takes[arguments[-2:]]
            given[-2:] = Seed(index), Offset(index, delta)
        if name in _READS:
            writes = tuple([i for i, a in enumerate(arguments) if isinstance(a, list) and i not in _READS[name]])
            with torch._C._DisableTorchDispatch():
                for i in writes:
                    self._before_write(arguments[i])
            if self.group is not None and name in KERNELS:
                kernel = KERNELS[name]
                for i, key in enumerate(kernel.numbers, kernel.lists):
                    if kernel.is_live(key, given):
                        given[i] = self._number(key, given[i])
                    elif not isinstance(entry(self.group, key), bool | int | float):
                        raise self.refusal_for(f"the optimizer's {name_of(key)} must be a number, not a tensor")
        outs = tuple([self.log.made(self, r) for r in results_of(result)])
        self.log.append(self, name, tuple(given), outs, writes)

    def _number(self, key: Key, value: float) -> Any:
        """A hyper-parameter of the group being applied; the plain value where it changes within the step."""
        assert self.group is not None
        for i, (group, known) in enumerate(self.trace.numbers):
            if group is self.group and known == key:
                return Number(i) if self.trace.values[i] == value else value
        self.trace.numbers.append((self.group, key))
        self.trace.values.append(hyper(self.group, key))
        return Number(len(self.trace.numbers) - 1)

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """torch would else import its compiler (seconds) to keep it out of here."""
        return False

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """An operator of torch is about to run."""
        if self.refusal is not None and not self.over:
            raise self.refusal
        return self._operate(function, args, kwargs) if kwargs else self.log.operate(self, function, args)

    def _operate(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Runs an operator whose recording takes more than the log knows."""
        schema = schemas[function]
        if schema.view:
            result = schema.run(*args, **kwargs)
            self._viewed(function, args, kwargs, result)
            return result
        announced = self._announced(function, args, kwargs)
        result = schema.run(*args, **kwargs)
        if announced is not None:
            self._ran(function, *announced, result)
        return result

    def _viewed(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        """What an operator returned that gives views: no instruction, where it is one."""
        if args and type(result) is torch.Tensor and _C.storage_key(result) == _C.storage_key(args[0]):
            return
        announced = self._announced(function, args, kwargs)
        if announced is not None:
            self._ran(function, *announced, result)

    @_ours
    def _announced(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """(the arguments of an operator as Refs, the positions of those that it writes)."""
        schema = schemas[function]
        given = list(args)
        if len(args) < len(schema.names):
            for name, default in zip(schema.names[len(args) :], schema.defaults[len(args) :], strict=True):
                given.append(kwargs.get(name, default))
        if schema.refusal is not None:
            inside = reader()
            if inside is not None and schema.refusal.startswith("reads"):
                raise self.refusal_for(f"{inside} reads a value into Python; {_NUMBERS_INSTEAD}")
            raise self.refusal_for(f"{inside or function} {schema.refusal}")
        if function is _INDEX and any(_is_mask(i) for i in given[1] if i is not None):
            raise self.refusal_for(
                "indexing with a boolean mask has an output whose shape depends on values; use tg.where"
            )
        refs = self._ref(given)
        writes = schema.writes
        if function is _BATCH_NORM and given[5]:  # its schema does not say so
            writes = tuple([i for i in (3, 4) if given[i] is not None])
        for i in writes:
            self._before_write(given[i])
        return refs, writes

    @_ours
    def _ran(self, function: Any, refs: Any, writes: tuple[int, ...], result: Any) -> None:
        """What an operator returned."""
        results = results_of(result)
        if any(not isinstance(r, torch.Tensor | None) for r in results):
            raise self.refusal_for(f"{function} returns a Python value")
        known = {ref.slot for ref in refs_of(refs)}
        new = [r is not None and self.log.slot(r) not in known for r in results]
        outs = tuple([self.log.made(self, r) if made else None for r, made in zip(results, new, strict=True)])
        if writes:
            self.log.append(self, function, refs, outs if any(new) else (), writes)
        elif any(new) and schemas[function].makes:  # else a view
            self.log.append(self, function, refs, outs, ())
        elif not function._schema.returns:  # it checks values: of a factorisation, say
            self.log.append(self, function, refs, (), ())

    @_ours
    def _profile(self, frame: FrameType, event: str, argument: Any) -> bool:
        """Notes which of the user's functions run; refuses what takes a value out of sight.

        Returns whether the function is harmless whenever it runs: not the user's, or in C and whoever calls it.
        """
        if event == "call":
            if frame.f_code is TEXT:  # before torch has begun to switch things off for it
                sys.setprofile(None)
                raise self.refusal_for("a tensor is made into text, which reads its values into Python")
            if not is_users(frame):
                return True
            if not importing(frame):
                self.trace.codes.add(frame.f_code)
                self._frame = self._frame or frame
        elif event == "c_call":
            name = argument.__name__
            outside = os.path.dirname(frame.f_code.co_filename) != _HERE
            if name in ESCAPES and outside and isinstance(getattr(argument, "__self__", None), torch.Tensor):
                sys.setprofile(None)
                inside = reader()
                if inside is not None:
                    raise self.refusal_for(f"{inside} reads a value into Python; {_NUMBERS_INSTEAD}")
                raise self.refusal_for(
                    f"{ESCAPES[name]} takes a value out of the program, which a replay cannot follow"
                )
            reason = side_effect(argument)
            if reason is not None and for_user(frame):
                sys.setprofile(None)
                raise self.refusal_for(reason)
            return reason is None and name not in ESCAPES
        return False

    # --- the end of the call ----------------------------------------------------------------------------------

    @_ours
    def _finish(self, result: Any, setting: Any) -> None:
        trace = self.trace
        if (mode.record, torch.get_default_dtype()) != setting:
            raise self.refusal_for("grad mode or the default dtype differs after the step; set it outside")
        late = outlived(trace, self._copies) if self._copies else None
        if late is not None:
            self._at = late.source
            raise self.refusal_for(
                "x[i] with an index tensor i, which a compiled step copies, or x is used after the other was "
                "changed in place; use x[i].clone()"
            )
        if any(trace.slots[i].written for i in self._overlapping):
            raise self.refusal_for("memory that several arrays share in part is written; pass them as arguments")
        reader = Reader(trace.slots, self._holders, self._ref, self.refusal_for, self._start)
        trace.result = reader.tree(result)
        known = {id(h): i for i, h in enumerate(self._holders)}
        known |= {id(h._node): i for i, h in enumerate(self._holders) if isinstance(h, Tensor) and h._node is not None}
        nodes = iter(self._nodes)
        for i, holder in enumerate(self._holders):
            if isinstance(holder, Tensor) and holder._node is not (node := next(nodes)[0]):
                if node is not None or not isinstance(holder._node, Leaf):
                    raise self.refusal_for(f"argument {i} was changed: whether it requires gradients")
                trace.needs.append(i)
        for owner in self._grads:
            grad = grad_of(owner)
            if id(owner) not in known and isinstance(owner, Leaf) and owner.seq >= self._start:
                continue  # made inside the step
            if grad is not None and _on_tape(grad):
                raise self.refusal_for("a gradient left in .grad was recorded with create_graph=True; detach it")
            trace.gradients.append((known.get(id(owner), owner), None if grad is None else reader.tensor(grad)))
        trace.carried = carried(trace, self.log.slot)
        trace.attributes = attributes(self.facts, reader.tensor, self.log.slot, trace.slots)
        trace.calls += moved_on(trace.attributes, trace.slots)
        for one in trace.attributes:
            before = next(fact.value for fact in self.facts if fact.place == one.fact.place)
            self.before.attribute(Place(one.fact), "value", before)
