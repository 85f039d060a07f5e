"""A program bound to one model: memory, pointers, guards, and what a replay leaves behind in Python."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import torch

from ..core import _C, CompileError, Leaf, fork_safe_lock, in_replay
from ..optim.kernels import hyper
from .attributes import Left
from .carried import too_late
from .facts import _BY_VALUE, Fact, _frozen
from .lower import lower
from .program import Program, function_name, types_of, written
from .reference import run
from .results import Results
from .trace import Call, Made, Number, Offset, Ref, Seed, Trace, refs_of, results_of

_GRADIENT = "a gradient that the step reads"
_UNLOCKED = 32_768  # elements: programs that work on more let other threads run meanwhile
_KINDS = {"item": 0, "attribute": 1, "cell": 2, "length": 3, "keys": 4, "copy": 5, "buffer": 6, "gradient": 7}


_DECIDE = "decide outside the step, or with tg.where"


# --- lowered programs, shared by all models of one structure ------------------------------------------------------

_programs: OrderedDict[Any, Program] = OrderedDict()
_programs_lock = fork_safe_lock()
_KEPT = 256  # programs


def lowered(trace: Trace, exact: bool) -> Program:
    """The program of a trace; one that was lowered for another model of the same structure serves again."""
    slots = tuple([(s.kind, s.nbytes, s.written) for s in trace.slots])
    left = [isinstance(made, Made) and made.ref for _, made in trace.gradients]
    ends = tuple(trace.ends), tuple(left), len(trace.attributes)
    calls = tuple(
        [(function_name(c), c.arguments, types_of(c.arguments), c.outs, c.writes, c.source) for c in trace.calls]
    )
    key = (exact, slots, ends, calls)
    program: Program = _C.locked(_programs_lock, _kept, key, trace, exact)
    return program


def _kept(key: Any, trace: Trace, exact: bool) -> Program:
    program = _programs.get(key)
    if program is None:
        program = lower(trace, exact)
        for slot in program.slots:
            slot.tensor = None if slot.kind == "made" else slot.tensor
        program.slots = [dataclasses.replace(slot, tensor=None) for slot in program.slots]  # the cache keeps no weights
        _programs[key] = program
        if len(_programs) > _KEPT:
            _programs.popitem(last=False)
    else:
        _programs.move_to_end(key)
    return program


def explain_failure(calls: Sequence[Call], failed: int, error: Exception | Callable[[], object]) -> None:
    """Raise `error`, or what calling it raises, with the name and the line of the call that failed."""
    try:
        if isinstance(error, Exception):
            raise error
        error()
    except Exception as raised:
        failure = in_replay(calls[failed].name, calls[failed].source, raised)
        if failure is raised:
            raise
        raise failure from raised


class Failed(Exception):
    """A replay met bad values before it had changed anything."""


class Bound:
    """A program with its memory. ``replay`` runs it; ``stale`` says why it must not be.

    ``unproven``: contents of arrays that the program reads anew, but that Python may have read as well. They are guards
    until a recorded call after a change agrees with the program.
    """

    def __init__(
        self,
        program: Program,
        trace: Trace,
        facts: list[Fact],
        unproven: list[Fact],
        stable: Sequence[bool],
        arguments: Sequence[torch.Tensor],
    ) -> None:
        self.program = program
        self.trace = trace
        self.stable = stable
        layouts = [fact for fact in facts if fact.kind == "layout"]  # the executor watches them
        facts = [fact for fact in facts if fact.kind != "layout"]
        carried = {id(one.leaf) for one in trace.carried}
        read = [pair for pair in trace.grads_read.values() if id(pair[0]) not in carried]
        names = [(place, "grad" if isinstance(place, Leaf) else "_grad", grad) for place, grad in read]
        facts = [*facts, *[Fact(place, "attribute", name, grad, _GRADIENT) for place, name, grad in names]]
        self.met_bad_values = False
        self.unproven = unproven
        late = too_late(program.calls, program.chains, trace.carried)
        if late is not None:
            raise CompileError(
                f"compile: {late.source}: the step uses a gradient that the call before it left after it has made the "
                "new one; add to .grad in place, or clone it first"
            )
        _C.empty_cache()  # what the recorded calls gave back is not needed again
        self.executor = executor = _C.Executor(program.arena_bytes)
        self._memory: dict[int, torch.Tensor] = {}  # own and outside slots
        handles: dict[int, int] = {}
        for fact in layouts:
            executor.watch(fact.container)
        needed = {ref.slot for call in (*program.once, *program.calls) for ref in refs_of((call.arguments, call.outs))}
        needed |= {ref.slot for ref in trace.ends}
        work = sum(math.prod(ref.sizes) for call in program.calls for ref in refs_of((call.arguments, call.outs)))
        kept = {i: torch.empty(trace.slots[i].nbytes, dtype=torch.uint8) for i in program.own}
        kept |= {one.slot: kept[one.left] for one in trace.carried if one.slot is not None}
        found = [one.slot for one in trace.attributes if one.slot is not None]
        kept |= {i: torch.empty(trace.slots[i].nbytes, dtype=torch.uint8) for i in found}
        for i, slot in enumerate(trace.slots):
            if slot.kind == "argument":
                handles[i] = executor.add_argument(arguments[i], slot.written)
            elif i not in needed:
                continue
            elif i in kept:
                self._memory[i] = kept[i]
                handles[i] = executor.add_outside(kept[i], True)
            elif slot.kind == "outside":
                memory = slot.tensor
                assert memory is not None
                if not stable[i]:  # made from Python values inside the step: a constant
                    memory = torch.empty(0, dtype=torch.uint8).set_(memory.untyped_storage()).clone()
                self._memory[i] = memory
                handles[i] = executor.add_outside(memory, slot.written)
            else:
                handles[i] = executor.add_arena(program.offsets[i], slot.nbytes)
        self._handles = handles
        self._views: dict[Ref, torch.Tensor] = {}
        for call in program.once:
            self._run_once(call)
        self._ours: set[int] = set()  # the calls that a kernel or a loop of ours computes
        for call in program.calls:
            self._add(call)
        for first, last in program.chains:
            executor.fuse(first, last)
        live = {i for i, same in enumerate(stable) if same}
        self._results = Results(trace, live, self._memory, self._view, executor)
        at = {id(leaf): i for i, leaf in enumerate(self._results.leaves)}
        self._carried = [(one.leaf, at[id(one.leaf)]) for one in trace.carried]
        self.facts = [*facts, *[Fact(leaf, "gradient", i, self._results.data, _GRADIENT) for leaf, i in self._carried]]
        self._guards = _guards(self.facts, unproven)
        self._left = Left(trace, self._memory)
        self.scalar_loss = isinstance(trace.result, Made) and trace.result.ref.sizes == ()
        if self.scalar_loss:
            executor.set_loss(self._view(trace.result.ref))
        # What other processes have taken part in cannot be done again, either.
        outlive = {i for i, slot in enumerate(trace.slots) if slot.kind != "made"} | {one.left for one in trace.carried}
        writers = [
            i
            for i, call in enumerate(program.calls)
            if is_foreign(call) or any(r.slot in outlive for r in written(call))
        ]
        self.fast = _C.Replay(
            executor,
            self._guards,
            trace.numbers,
            trace.generators,
            self._results.left,
            self._results.leaves,
            self._results.data,
            self._results.described,
            self._results.finish,
            work > _UNLOCKED or any(is_foreign(call) for call in program.calls),
        )
        self.fast.first_write = min(writers, default=len(program.calls))
        self.fast.explain = functools.partial(explain_failure, program.calls)

    def again(self, arguments: Sequence[torch.Tensor]) -> Bound:
        """The program with an arena of its own, for another thread; its memory from outside may be bound anew."""
        return Bound(self.program, self.trace, [], [], self.stable, arguments)

    @property
    def outside(self) -> list[int]:
        """The slots that `Executor.rebind` takes memory for, in order."""
        return list(self._memory)

    @property
    def handled(self) -> list[int]:
        """The slots that the calls work on."""
        return list(self._handles)

    def gradient_of(self, slot: int) -> Leaf | None:
        """The leaf whose gradient the program leaves in a slot of its own."""
        for target, made in self.trace.gradients:
            if (
                isinstance(target, Leaf)
                and isinstance(made, Made)
                and made.ref.slot == slot
                and slot in self.program.own
            ):
                return target
        return None

    @functools.cached_property
    def reaches(self) -> dict[int, tuple[int, int]]:
        """The bytes [begin, end) of each slot that the calls work on."""
        found: dict[int, tuple[int, int]] = {}
        for call in (*self.program.once, *self.program.calls):
            for ref in refs_of((call.arguments, call.outs)):
                last = sum((n - 1) * step for n, step in zip(ref.sizes, ref.strides, strict=True))
                begin, end = ref.offset * ref.dtype.itemsize, (ref.offset + last + 1) * ref.dtype.itemsize
                if 0 not in ref.sizes:
                    first, beyond = found.get(ref.slot, (begin, end))
                    found[ref.slot] = min(first, begin), max(beyond, end)
        return found

    def is_ours(self, i: int) -> bool:
        """Whether a loop of tapegrad's computes call ``i``, and not torch."""
        return i in self._ours

    def is_written(self, slot: int) -> bool:
        """Whether a step changes memory that outlives it."""
        return slot in self._memory and (self.trace.slots[slot].written or slot in self.program.own)

    def bytes_of(self, slot: int) -> torch.Tensor:
        """All bytes of a slot that outlives a step."""
        return torch.empty(0, dtype=torch.uint8).set_(self._memory[slot].untyped_storage())

    # --- binding ----------------------------------------------------------------------------------------------

    def _view(self, ref: Ref) -> torch.Tensor:
        if ref not in self._views:
            at = self._handles[ref.slot]
            self._views[ref] = self.executor.view(at, ref.dtype, ref.offset, ref.sizes, ref.strides)
        return self._views[ref]

    def _fill(self, value: Any) -> Any:
        """An argument as it is bound: views for Refs, what a number was where it is set before each step."""
        if isinstance(value, Ref):
            return self._view(value)
        if isinstance(value, Number):
            return self.trace.values[value.which]
        if isinstance(value, Seed | Offset):
            return 0
        return [self._fill(v) for v in value] if type(value) is tuple else value

    def _run_once(self, call: Call) -> None:
        result = run(call.function, [self._fill(a) for a in call.arguments])
        for ref, value in zip(call.outs, results_of(result), strict=True):
            if ref is not None:
                self._view(ref).copy_(value)

    def _add(self, call: Call) -> None:
        outs = [None if ref is None else self._view(ref) for ref in call.outs]
        index, ours = add_call(self.executor, call, [self._fill(a) for a in call.arguments], outs)
        if ours:
            self._ours.add(index)
        for i, argument in enumerate(call.arguments):
            if isinstance(argument, Number):
                self.executor.add_dynamic(0, index, i, argument.which, 0)
            elif isinstance(argument, Seed):
                self.executor.add_dynamic(1, index, i, argument.which, 0)
            elif isinstance(argument, Offset):
                self.executor.add_dynamic(2, index, i, argument.which, argument.delta)

    def memory(self, slot: int) -> torch.Tensor:
        """A tensor on the memory of a slot from outside, or of one that the program owns."""
        return self._memory[slot]

    # --- replaying --------------------------------------------------------------------------------------------

    def stale(self) -> str | None:
        """The path of the first guard that no longer holds."""
        failed = -1 if self._guards.hold() else self._guards.check()
        if len(self.facts) - len(self._carried) <= failed < len(self.facts) and self._results.adopt(self._carried):
            failed = self._guards.check()
        if failed >= 0:
            return str([*self.facts, *self.unproven][failed].path)
        reason = self._left.gone() or self._elsewhere()
        if reason is None:
            self._left.fetch()
        return reason

    def _elsewhere(self) -> str | None:
        """What no longer holds besides the facts."""
        if not self.executor.in_place():
            self._results.renew()
        return None if self.executor.in_place() else "the memory of a tensor"

    def doubted(self) -> list[Fact]:
        """What of ``unproven`` has changed."""
        return [fact for fact in self.unproven if fact.now() != fact.value]

    def in_doubt(self) -> bool:
        """Whether nothing but that has changed."""
        return self._guards.check() >= len(self.facts) and self._elsewhere() is None

    def trust(self, proven: list[Fact]) -> None:
        """These contents are no guards any more."""
        gone = {id(fact.container) for fact in proven}
        self.unproven = [fact for fact in self.unproven if id(fact.container) not in gone]
        self._guards = _guards(self.facts, self.unproven)
        self.fast.set_guards(self._guards)

    @property
    def calls(self) -> int:
        """Replays so far."""
        return self.fast.calls

    @calls.setter
    def calls(self, calls: int) -> None:
        self.fast.calls = calls

    def numbers(self) -> list[float]:
        """The hyper-parameters as they are now."""
        return [hyper(group, key) for group, key in self.trace.numbers]

    def draws(self, steps: int) -> list[tuple[int, int, int]]:
        """(seed, offset, blocks a step) of every generator, which is moved on by ``steps`` steps."""
        return [(*generator.advance(blocks * steps), blocks) for generator, blocks in self.trace.generators]

    def run(
        self,
        arrays: Sequence[torch.Tensor],
        order: torch.Tensor | None,
        rows: int,
        count: int,
        losses: torch.Tensor,
        tick: Callable[[int], bool],
    ) -> int:
        """``count`` steps over batches of ``rows`` rows; how many were done.

        ``met_bad_values``: the step after them failed before it had changed anything, and is to be run eagerly.
        """
        self.met_bad_values = False
        executor, draws = self.executor, self.draws(0)
        try:
            executor.run(arrays, order, rows, 0, count, losses, self.numbers(), draws, tick)
        except Exception as error:
            if executor.failed < 0:
                raise
            if executor.failed >= self.fast.first_write:
                explain_failure(self.program.calls, executor.failed, error)
            self.met_bad_values = True
        finally:
            done = executor.steps
            self.calls += done
            self.draws(done)
            if done:
                self._results.leave_gradients()
                self._left.leave()
        return done

    def replay(self, arguments: list[torch.Tensor], holders: Sequence[Any]) -> Any:
        """One step; `Failed` if a check did not pass before anything was written, so that it can be run eagerly."""
        try:
            result = self.fast.step(arguments, holders)
            self._left.leave()
            return result
        except Exception as error:
            if self.executor.failed < self.fast.first_write:
                raise Failed from error
            raise


def _guards(*facts: list[Fact]) -> Any:
    guards = _C.Guards()
    for fact in itertools.chain(*facts):
        key = _frozen if fact.kind == "copy" else fact.key
        guards.add(_KINDS[fact.kind], fact.container, key, fact.value, isinstance(fact.value, _BY_VALUE))
    return guards


def is_foreign(call: Call) -> bool:
    """An operator of nobody's that is known here: it may wait for other threads or processes."""
    return not isinstance(call.function, str) and call.function.namespace != "aten"


def add_call(executor: Any, call: Call, arguments: list[Any], outs: list[torch.Tensor | None]) -> tuple[int, bool]:
    """Make a call on these tensors an instruction of an executor's; its number, and whether torch is not called."""
    index: int | None = executor.add_direct(function_name(call), tuple(arguments), outs)
    if index is not None:
        return index, True
    if isinstance(call.function, str):
        return executor.add_kernel(call.function, tuple(arguments), outs), True
    filled = outs and all(o is not None for o in outs) and not call.writes
    into = out_variant(call.function) if filled else None
    function = into or call.function
    name, overload = function._schema.name, function._schema.overload_name
    given = (*arguments, *outs) if into is not None else tuple(arguments)
    return executor.add_torch(name, overload, given, outs, into is not None), False


_out_variants: dict[Any, Any] = {}


def out_variant(function: Any) -> Any:
    """The overload of a torch operator that writes into given outputs; None if there is none."""
    if function not in _out_variants:
        _out_variants[function] = _find_out_variant(function)
    return _out_variants[function]


def _find_out_variant(function: Any) -> Any:
    schema = function._schema
    formal = [(a.name, str(a.type)) for a in schema.arguments]
    packet = getattr(torch.ops.aten, schema.name.removeprefix("aten::"), None)
    if packet is None or not schema.name.startswith("aten::") or any("List" in str(r.type) for r in schema.returns):
        return None
    for name in packet.overloads():
        other = getattr(packet, name)._schema
        given = [a for a in other.arguments if not a.is_out]
        outs = [a for a in other.arguments if a.is_out]
        if len(outs) == len(schema.returns) and [(a.name, str(a.type)) for a in given] == formal:
            ordered = other.arguments[: len(given)]
            return getattr(packet, name) if all(not a.is_out for a in ordered) else None
    return None
