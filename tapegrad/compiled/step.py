"""`compile`: a step that is recorded twice and from then on replayed in C++."""

from __future__ import annotations

import contextlib
import copy
import functools
import os
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from ..core import _C, CompileError, TapegradError, Tensor, fork_safe_lock, mode
from ..nn import Module
from ..optim.kernels import entry, hyper, name_of
from .arguments import Arguments, as_refusal, is_loss, is_plain, without_arrays
from .attributes import without
from .bind import Bound, Failed, lowered
from .compare import difference, one_storage
from .explain import explain, rows_of
from .facts import Fact, changed, check_size, collect, is_small, lies_in, same
from .naming import Names
from .patience import Patience
from .picture import picture
from .profile import Profile, profile
from .record import Recorder
from .results import settled
from .run import run_epochs
from .trace import Call, Number, Trace
from .uncompiled import NEW, Uncompiled

_UNKNOWN = "arguments that cannot be taken"
_REHEARSALS = 5  # calls that are taken back before a program is given up
AUDIT = 1000  # every so many replays a call is an eager one, recorded, and compared


@dataclass
class _Pending:
    """A first recording, the facts after it, and how many were given up before it because the world had changed.

    ``retry``: the one before it differed, as it may when a first call sets something up; this one must be repeated.
    """

    trace: Trace
    world: dict[Any, Fact]
    tries: int
    retry: bool = False


class Compiled(_C.Step):
    """A compiled step; see `compile`."""

    walked = ("fn",)  # what `facts` looks at, if a step holds a compiled one

    def __init__(self, fn: Callable[..., Any], exact: bool, cache_size: int, lenient: bool = False) -> None:
        functools.update_wrapper(self, fn, updated=() if isinstance(fn, Module) else ("__dict__",))
        self.fn = fn
        self.lenient = lenient  # what cannot be compiled runs as it is, from the first call on
        self.exact = exact
        self.cache_size = cache_size
        self._bound: OrderedDict[int, tuple[Any, Bound]] = OrderedDict()  # least recently used first
        self._of: dict[Any, list[Bound]] = {}  # by signature
        self._pending: OrderedDict[Any, _Pending] = OrderedDict()
        self._uncompiled = Uncompiled(4 * cache_size)
        self._by_elements: dict[int, Any] = {}  # buffers that the step wraps, and reads in Python besides
        self._patience = Patience()
        self.joint: Any = None  # what `run_together` keeps: (kind, structure, twins, apart)
        self._lock = fork_safe_lock()

    def __repr__(self) -> str:
        return f"<compiled {getattr(self.fn, '__qualname__', self.fn)}, {len(self._bound)} programs>"

    def _repr_html_(self) -> str:
        """The programs in the cache, for a notebook, the one used last first."""
        from ..show import cell_of_step

        shown = [bound for _, bound in reversed(list(self._bound.values()))]
        rows = [rows_of(bound, Names(bound, self._inner())) for bound in shown]
        notes = [
            f"{len(b.program.calls)} instructions, {b.program.arena_bytes} bytes, {b.calls} replays" for b in shown
        ]
        return cell_of_step(getattr(self.fn, "__qualname__", type(self.fn).__name__), rows, notes)

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        """As a method: a compiled step per instance would be lost at once, so methods are compiled when bound."""
        if instance is None:
            return self
        raise CompileError(
            f"compile: {getattr(self.fn, '__qualname__', 'the step')} is a method; compile the bound method instead, "
            "in __init__: self.step = tg.compile(self.step)"
        )

    def __deepcopy__(self, memo: dict[int, Any]) -> Compiled:
        return Compiled(copy.deepcopy(self.fn, memo), self.exact, self.cache_size, self.lenient)

    def __reduce__(self) -> Any:
        return Compiled, (self.fn, self.exact, self.cache_size, self.lenient)

    @property
    def programs(self) -> list[Any]:
        """The programs in the cache, least recently used first."""
        return [bound.program for _, bound in self._bound.values()]

    # --- one step ---------------------------------------------------------------------------------------------

    # Calls go to C++ (csrc/bindings/step.cpp), which serves what `_serve` says; every other comes here.

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if mode.tracer is not None or mode.watched:  # inside another recording, an open Tape, detect_anomaly
            return self.fn(*args, **kwargs)
        return self._alone(self._call, args, kwargs)

    def _call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A call, replayed where a program serves it."""
        given, bound = self._prepared(args, kwargs)
        if given is None:
            return self._inner()(*args, **kwargs)
        if bound is None or not (bound.calls + 1) % AUDIT:
            return self._record(given, bound)
        plain = not kwargs and not bound.trace.attributes
        if plain and len(given.tensors) == len(args) and all(map(is_plain, args)):
            self._serve(bound.fast, mode.record, torch.get_default_dtype(), AUDIT, tuple(map(type, args)))
        return self._replay(bound, given.tensors, given.holders, given.args, given.kwargs)

    def _eager(self, *args: Any) -> Any:
        """A call whose replay met bad values before it had changed anything: the eager step says what is wrong."""
        return self._alone(self._inner(), *args)

    def _replay(self, bound: Bound, tensors: list[torch.Tensor], holders: Any, args: Any, kwargs: Any) -> Any:
        try:
            return bound.replay(tensors, holders)
        except Failed:  # the eager step says what is wrong
            return self._inner()(*args, **kwargs)

    def ready_for(self, args: list[Any]) -> Bound | None:
        """The program that serves ``step(*args)``, if there is one."""
        return self._prepared(tuple(args), {})[1]

    def loss(self, args: list[Any]) -> Any:
        """``step(*args)``, which must return a loss; if it does not, it changes nothing."""
        return self.loss_undoably(args, None)

    def loss_undoably(self, args: list[Any], undo: list[Any] | None) -> Any:
        """The same; what a recorded call changed is added to ``undo``, as it was before."""
        given, bound = self._prepared(tuple(args), {})
        if given is None:
            return self._inner()(*args)
        if bound is not None:
            return self._replay(bound, given.tensors, given.holders, given.args, {})
        return self._record(given, None, scalar=True, undo=undo)

    def prepare(self, args: list[Any]) -> Bound | None:
        """The program for ``step(*args)``, made of calls that are taken back; None where a call would be eager.

        The step must have run before: what its first call sets up is not taken back.
        """
        for _ in range(_REHEARSALS):
            given, bound = self._prepared(tuple(args), {})
            if given is None or bound is not None or self._uncompiled.resting(given.key):
                return bound
            recorder = Recorder(given.tensors, given.holders, True, self._patience)
            self._patience.begin()
            try:
                _C.taken_back(recorder.before, self._recorded, recorder, given, None, True)
            except CompileError:
                if self._is_new():
                    raise
                return None
            finally:
                recorder.raised = None
        return None

    def _prepared(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Arguments | None, Bound | None]:
        """The arguments and the program that serves them, if there is one; (None, None) where they cannot be taken."""
        try:
            given = Arguments(without_arrays(args), without_arrays(kwargs) if kwargs else kwargs)
            return given, self._ready(given)
        except CompileError as error:
            refusal = error
        except TapegradError:
            raise
        except Exception as error:
            refusal = as_refusal(error, "arguments cannot be taken")
        if self._is_new():
            raise refusal
        self._give_up(_UNKNOWN, refusal)
        if self._uncompiled.unsaid is not None:
            self._uncompiled.say()
        return None, None

    def _ready(self, given: Arguments) -> Bound | None:
        """The program that serves a call, if there is one and its guards hold."""
        reason = None
        for bound in self._of.get(given.key, ()):
            reason = bound.stale()
            if reason is None:
                if given.tensors and bound.executor.overlaps(given.tensors):
                    continue
                self._bound.move_to_end(id(bound))
                return bound
        if reason is not None:
            self._uncompiled.moved(reason)
        return None

    # --- recording --------------------------------------------------------------------------------------------

    def _is_new(self) -> bool:
        """Whether what cannot be compiled is refused; see `Uncompiled`."""
        return not (self._bound or self.lenient) and self._uncompiled.done < NEW

    def _give_up(self, key: Any, reason: CompileError) -> None:
        """Calls of a signature run as they are, for a while."""
        self._pending.pop(key, None)
        self._uncompiled.give_up(key, self._warning(reason))

    def _warning(self, reason: CompileError) -> str:
        return f"compile: the step runs uncompiled: {str(reason).removeprefix('compile: ')}"

    def _record(
        self, given: Arguments, known: Bound | None, scalar: bool = False, undo: list[Any] | None = None
    ) -> Any:
        """An eager call, recorded; the second that agrees with the first becomes a program."""
        if known is None and self._uncompiled.rests(given.key):
            return self._inner()(*given.args, **given.kwargs)
        recorder = None
        self._patience.begin()
        try:
            recorder = Recorder(given.tensors, given.holders, self._is_new(), self._patience)
            result = _C.all_or_nothing(recorder.before, self._recorded, recorder, given, known, scalar)
        except TapegradError as error:
            if recorder is None or recorder.strict or recorder.refusal is not error:
                raise
            refusal = recorder.refusal
        except Exception as error:
            if recorder is not None and error is recorder.raised:
                raise
            refusal = as_refusal(error, "the step cannot be compiled")
        else:
            if undo is not None:
                undo.append(recorder.before)
            if self._uncompiled.unsaid is not None:
                self._uncompiled.say()
            return result
        finally:
            if recorder is not None:
                recorder.raised = None  # no cycle through the traceback
        if self._is_new():
            raise refusal
        self._give_up(given.key, refusal)
        if self._uncompiled.unsaid is not None:
            self._uncompiled.say()
        return self._inner()(*given.args, **given.kwargs)

    def _recorded(self, recorder: Recorder, given: Arguments, known: Bound | None, scalar: bool) -> Any:
        pending, audit = self._pending.get(given.key), known is not None
        if known is None and pending is None:
            known = next((bound for bound in self._of.get(given.key, ()) if bound.in_doubt()), None)
        earlier = pending.trace if pending else known.trace if known else None
        before = recorder.own(self._before, earlier)
        recorder.facts = before[0]
        if recorder.over:
            result = self._inner()(*given.args, **given.kwargs)
        else:
            result = recorder.run(self._inner(), given.args, given.kwargs)
        if scalar and not is_loss(result):
            raise CompileError(f"run: {self._where()} must return its loss, a 0-dim tensor")
        recorder.strict |= audit  # a program that turns out to be wrong is never passed over
        recorder.own(self._settle, given, known, pending, before, recorder.trace)
        if recorder.refusal is not None:
            self._give_up(given.key, recorder.refusal)
            if known is not None:
                known.calls += 1  # so that the next call is no audit again
        elif not audit:
            reason = self._uncompiled.why_not(sum(bound.calls for _, bound in self._bound.values()))
            if reason is not None:
                self._give_up(None, CompileError(f"compile: {self._where()}: {reason}"))
        self._uncompiled.done += 1
        return result

    def _before(self, earlier: Trace | None) -> tuple[list[Fact], list[float]]:
        """What the step is known to depend on, and its hyper-parameters, as they are before a recorded call."""
        return self._world(earlier), [hyper(group, key) for group, key in earlier.numbers] if earlier else []

    def _settle(
        self,
        given: Arguments,
        known: Bound | None,
        pending: _Pending | None,
        before: tuple[list[Fact], list[float]],
        trace: Trace,
    ) -> None:
        """Make what can be made of a finished recording."""
        facts, numbers = before
        earlier = pending.trace if pending else known.trace if known else None
        for (group, key), value in zip(earlier.numbers if earlier else (), numbers, strict=True):
            if not same(hyper(group, key), value):
                named = name_of(key)
                raise CompileError(f"compile: {self._where()} changes the optimizer's {named}; change it between steps")
        self._plain_numbers(trace, earlier, numbers)
        if Arguments(given.args, given.kwargs).form != given.form and not trace.needs:
            raise CompileError(f"compile: {self._where()} changes a list or dict among its arguments")
        world = self._world(trace)
        tries = pending.tries if pending else 0
        self._patience.look("comparing two recordings of", len(trace.calls))
        differs = difference(pending.trace, trace) if pending else None
        moved = _moved(pending, facts, trace, differs) if pending else None
        if moved is not None:
            self._uncompiled.moved(moved)
        if known is None and (pending is None or (moved is not None and tries < self.cache_size)):
            while len(self._pending) >= self.cache_size and given.key not in self._pending:
                self._pending.popitem(last=False)
            self._pending[given.key] = _Pending(trace, {fact.place: fact for fact in world}, tries + 1)
            return
        effect = changed(without(facts, trace))
        if effect is not None:
            raise CompileError(
                f"compile: {self._where()} changes {effect.path}, which a replay would not; "
                "move the change out of the step, or keep a tensor there, of one shape and off the tape (detach)"
            )
        if known is not None:
            if not self._audit(known, trace):
                self._pending[given.key] = _Pending(trace, {fact.place: fact for fact in world}, 1)
            return
        assert pending is not None
        if differs is not None and not pending.retry:  # the first call may have set something up
            self._pending[given.key] = _Pending(trace, {fact.place: fact for fact in world}, tries, retry=True)
            return
        if differs is not None:
            del self._pending[given.key]
            again = None if moved is None else f"{self._where()}: {self._uncompiled.again(moved)}"
            raise CompileError(f"compile: {again or differs}")
        del self._pending[given.key]
        self._keep(given.key, self._bind(pending.trace, trace, world, given.tensors))

    def _plain_numbers(self, trace: Trace, earlier: Trace | None, before: list[float]) -> None:
        """Hyper-parameters are read at replay only if the step neither sets them nor reads them itself."""
        named = {name for code in trace.codes for name in (*code.co_names, *map(str, code.co_consts))}
        known = {(id(g), k): v for (g, k), v in zip(earlier.numbers if earlier else (), before, strict=True)}
        for i, (group, key) in enumerate(trace.numbers):
            used = trace.values[i]
            if name_of(key) in named or not same(known.get((id(group), key), used), used):
                if not isinstance(entry(group, key), bool | int | float):
                    raise CompileError(
                        f"compile: {self._where()} uses the optimizer's {name_of(key)}, a tensor; make it a number"
                    )
                trace.calls = [_with_number(call, i, used) for call in trace.calls]

    def _where(self) -> str:
        """The step, with the place of its definition."""
        code = getattr(self._inner(), "__code__", None) or getattr(type(self._inner()).__call__, "__code__", None)
        name = getattr(self._inner(), "__name__", "the step")
        return name if code is None else f"{os.path.basename(code.co_filename)}:{code.co_firstlineno}: {name}"

    def _inner(self) -> Callable[..., Any]:
        return self.fn.fn if isinstance(self.fn, Compiled) else self.fn

    def _world(self, trace: Trace | None) -> list[Fact]:
        """The facts, as far as it is known which functions run."""
        if trace is None:
            return []
        read = {a.which for call in trace.calls for a in call.arguments if isinstance(a, Number)}
        names = [(group, name_of(key)) for group, key in trace.numbers]
        kept = {(id(group), name) for i, (group, name) in enumerate(names) if i not in read}  # some of a tuple's
        live = [(group, name) for group, name in names if (id(group), name) not in kept]
        facts = collect(self._inner(), trace.codes, live)
        changed_by_it = [slot.extent for slot in trace.slots if slot.kind == "outside" and slot.written]
        return [fact for fact in facts if not (fact.is_content and lies_in(fact.container, changed_by_it))]

    def _bind(self, first: Trace, second: Trace, world: list[Fact], arguments: list[torch.Tensor]) -> Bound:
        stable = [
            a.tensor is not None and b.tensor is not None and one_storage(a, b)
            for a, b in zip(first.slots, second.slots, strict=True)
        ]
        live = [slot.extent for slot, same in zip(second.slots, stable, strict=True) if same]
        read_anew = {
            id(fact.container)
            for fact in world
            if fact.is_content and id(fact.container) not in self._by_elements and lies_in(fact.container, live)
        }
        contents = [fact for fact in world if fact.is_content]
        check_size([fact for fact in contents if id(fact.container) not in read_anew])
        unproven = [fact for fact in contents if id(fact.container) in read_anew and is_small(fact)]
        world = [fact for fact in world if not (fact.is_content and id(fact.container) in read_anew)]
        given = {t.untyped_storage()._cdata for t in arguments}
        for fact in world:
            if isinstance(fact.value, torch.Tensor) and fact.value.untyped_storage()._cdata in given:
                raise CompileError(f"compile: an argument shares its memory with {fact.path}; pass a clone")
        world = without(world, second)
        second.result = settled(first.result, second.result)
        self._patience.look("planning", len(second.calls))
        program = lowered(second, self.exact)
        self._patience.look("binding", len(second.calls))
        return Bound(program, second, world, unproven, stable, arguments)

    def _keep(self, key: Any, bound: Bound) -> None:
        self._bound[id(bound)] = (key, bound)  # in this order: what is in _of is in _bound, wherever Ctrl-C comes
        self._of.setdefault(key, []).insert(0, bound)
        if len(self._bound) > self.cache_size:
            places = {id(known.fast): which for which, (_, known) in self._bound.items()}
            for served in reversed(self._latest()):  # of calls that never came here
                self._bound.move_to_end(places[id(served)])
            self._bound.move_to_end(id(bound))
            self._drop(next(iter(self._bound.values()))[1])

    def _drop(self, bound: Bound) -> None:
        """Forget a program."""
        self._forget(bound.fast)
        key, _ = self._bound[id(bound)]
        kept = [b for b in self._of.get(key, ()) if b is not bound]
        if kept:
            self._of[key] = kept
        else:
            self._of.pop(key, None)
        del self._bound[id(bound)]

    def _audit(self, known: Bound, trace: Trace) -> bool:
        """Compare a recorded call with the program; whether that stays. CompileError where the program is wrong."""
        doubted = known.doubted()
        differs = difference(known.trace, trace)
        known.calls += 0 if doubted else 1
        if differs is None:
            known.trust(doubted)
            return True
        self._drop(known)
        if not doubted:
            raise CompileError(f"compile: a recorded call after {known.calls} replays differs: {differs}")
        self._by_elements |= {id(fact.container): fact.container for fact in doubted}
        return False

    # --- many steps, and what the program is ------------------------------------------------------------------

    def run(
        self,
        *arrays: Any,
        batch_size: int,
        epochs: int = 1,
        shuffle: bool = True,
        drop_last: bool = False,
        seed: int | None = None,
        on_epoch: Callable[[int, Tensor], Any] | None = None,
        progress: bool = False,
    ) -> Tensor:
        """Train for some epochs: ``step(*batch)`` over `tapegrad.data.batches` of every epoch, in C++.

        Parameters
        ----------
        arrays : [n, ...] each, the same n; floating-point values must be finite
        batch_size : rows in a batch; the last batch may be smaller
        epochs : passes over the data
        shuffle : a new order every epoch, the permutation of (seed, epoch)
        drop_last : leave out a last batch that is smaller
        seed : any integer; None draws one from the default generator
        on_epoch : called as ``on_epoch(epoch, losses)`` after each epoch; training ends early if it returns True
        progress : show a tqdm bar with epoch, loss, steps per second and time left, on a terminal or in a notebook

        Returns
        -------
        The losses [epochs, steps], float; epochs that were not run are left out.

        Raises
        ------
        ShapeError, DTypeError, ArgumentError
            for arrays of different lengths, a batch size below 1, values that are not finite; nothing has changed then.
        CompileError
            if the step cannot be compiled, or does not return a 0-dim loss.

        Ctrl-C stops between two batches; the parameters are those of the last completed step.
        """
        options = (batch_size, epochs, shuffle, drop_last, seed)
        run = functools.partial(run_epochs, self, arrays, *options, on_epoch=on_epoch, progress=progress)
        return self._alone(run)  # type: ignore[no-any-return]

    @contextlib.contextmanager
    def told(self, tell: Callable[[str], None]) -> Iterator[None]:
        """Within, ``tell`` hears of what takes long besides steps."""
        self._patience.tell = tell
        try:
            yield
        finally:
            self._patience.tell = None

    def explain(self, *args: Any, **kwargs: Any) -> str:
        """The plan for these arguments, as text of at most 119 columns. Changes nothing.

        One instruction a line: what it makes or changes, the kernel, what it reads, bytes, the line of the step.
        Parameters, their gradients and what an optimizer keeps of them have their names in the model (``0.weight``,
        ``0.weight.grad``, ``0.weight.exp_avg``). Then what lowering changed and what runs as one, what is left to torch
        and why, the arena, and the guards, those first that change by accident.
        """
        given = Arguments(without_arrays(args), without_arrays(kwargs))
        bound = self.bound(given)
        return explain(bound, self.exact, Names(bound, self._inner(), given))

    def show(self, *args: Any, path: str | os.PathLike[str] | None = None, **kwargs: Any) -> str:
        """The plan for these arguments as one HTML page: instructions with what each takes (see `profile`), one step
        eager, called and run side by side, the arena over time, guards. Changes nothing; takes a second or two.

        Parameters
        ----------
        args, kwargs : of the step
        path : the file; None is a temporary one

        Returns the path of the file, which is opened if there is a screen.
        """
        from ..show import publish, render

        given = Arguments(without_arrays(args), without_arrays(kwargs))
        title = getattr(self.fn, "__qualname__", type(self.fn).__name__)
        return publish(render(self._alone(self._pictured, given, title)), path)

    def _pictured(self, given: Arguments, title: str) -> dict[str, Any]:
        return picture(self._planned(given), self._inner(), given, title)

    def bound(self, given: Arguments) -> Bound:
        """The program that these arguments get, bound; changes nothing."""
        bound: Bound = self._alone(self._planned, given)
        return bound

    def profile(self, *args: Any, **kwargs: Any) -> Profile:
        """What each instruction of the program for these arguments takes. Changes nothing.

        Returns
        -------
        A table that prints, with ``.rows``: instruction, op, shape, ns (the least of up to 25 turns), and the share of
        ns that the machine's peak would need, which is measured once: products are held against the fastest product,
        everything else against a copy of as many bytes. ``.call``: the parts of a call besides its instructions.

        Raises
        ------
        CompileError
            if the step cannot be compiled.
        """
        given = Arguments(without_arrays(args), without_arrays(kwargs) if kwargs else kwargs)
        return self._alone(self._profiled, given)  # type: ignore[no-any-return]

    def _profiled(self, given: Arguments) -> Profile:
        return profile(self._planned(given), given.tensors, given.holders)

    def _planned(self, given: Arguments) -> Bound:
        """The program that serves a call, or one made of two recordings that are taken back."""
        bound = self._ready(given)
        if bound is not None:
            return bound
        traces: list[Trace] = []
        while len(traces) < 2 or (len(traces) == 2 and traces[1].attributes):  # the first does not know of any
            recorder = Recorder(given.tensors, given.holders)
            recorder.facts = self._world(traces[-1]) if traces else []
            _C.taken_back(recorder.before, recorder.run, self._inner(), given.args, given.kwargs)
            traces.append(recorder.trace)
        traces = traces[-2:]
        differs = difference(*traces)
        if differs is not None:
            raise CompileError(f"compile: {differs}")
        return self._bind(traces[0], traces[1], self._world(traces[1]), given.tensors)


def _with_number(call: Call, which: int, value: float) -> Call:
    """A call with a hyper-parameter replaced by its value."""
    arguments = tuple([value if isinstance(a, Number) and a.which == which else a for a in call.arguments])
    return call._replace(arguments=arguments)


def _moved(pending: _Pending, before: list[Fact], trace: Trace, differs: str | None) -> str | None:
    """What of the world changed between the first recording and the second, so that it is a first one again.

    Not if it was the content of arrays alone, which the step turned out to read anew: the recordings do not differ.
    """
    for fact in before:
        known = pending.world.get(fact.place)
        if (known is None or not same(known.value, fact.value)) and (differs is not None or not fact.is_content):
            return fact.path
    first, second = pending.trace.grads_read, trace.grads_read
    anew = {id(one.leaf) for one in pending.trace.carried} & {id(one.leaf) for one in trace.carried}
    if first.keys() != second.keys() or any(first[k][1] is not second[k][1] for k in first if k not in anew):
        return "a gradient that the step adds to"
    return "which functions run" if trace.codes != pending.trace.codes else None
