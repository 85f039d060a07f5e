"""`run_together`: what ``step.run`` does, for many models at once."""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from ..core import _C, ArgumentError, ShapeError, TapegradError, Tensor, mode, nonfinite_index
from ..data import batches
from ..data.arguments import as_rows
from ..data.streams import drawn_seed
from .alike import Unlike
from .bind import explain_failure
from .given import check_apart, checked_steps, for_each, named, own_rows, renamed, seeds_of, stacked, wish_of
from .members import Known, Model, Streams, Structure
from .progress import Bar
from .run import Losses, distinct, same_as
from .step import Compiled
from .twins import Pattern, Twin


def run_together(
    steps: Sequence[Compiled],
    *arrays: Any,
    batch_size: int,
    epochs: int = 1,
    shuffle: bool = True,
    drop_last: bool = False,
    seed: int | Sequence[int] | None = None,
    rows: Sequence[Any] | None = None,
    on_epoch: Callable[[int, Any], Any] | None = None,
    progress: bool = False,
) -> Any:
    """Train K models at once: ``steps[k].run(...)`` for each, spread over the cores.

    >>> import tapegrad as tg
    >>> def make(k):
    ...     tg.manual_seed(k)
    ...     model = tg.nn.Linear(2, 1)
    ...     opt = tg.optim.SGD(model.parameters(), lr=0.1 / (k + 1))
    ...     def step(x, y):
    ...         opt.zero_grad()
    ...         loss = tg.nn.functional.mse_loss(model(x), y)
    ...         loss.backward()
    ...         opt.step()
    ...         return loss
    ...     return tg.compile(step)
    >>> losses = tg.run_together([make(k) for k in range(5)], tg.randn(40, 2), tg.randn(40, 1), batch_size=10, epochs=3)
    >>> losses.shape  # [K, epochs, steps]
    torch.Size([5, 3, 4])

    Every model ends bit for bit as if its own ``step.run`` had been called alone, for any number of threads:
    parameters, ``.grad``, optimizer state, buffers, losses. The first model of a structure runs a step that is
    recorded; the others run its program, if their Python worlds are the same but for the objects in them. Small models
    of one structure run side by side, each in a lane of the vector registers. Several structures may be mixed.

    Models that draw from one generator (dropout without a generator of its own) each draw from where it stood before,
    as each alone would; afterwards it stands where the longest draw ended.

    Parameters
    ----------
    steps : K compiled steps, of models that share nothing that a step changes
    arrays : [n, ...] each, the same n: shared by all models, or a list of K arrays
    batch_size, epochs, shuffle, drop_last : as for ``step.run``
    seed : of the order of batches; model k takes seed + k. Or a sequence of K integers. None draws one.
    rows : K index arrays (int64): the rows of the arrays that model k sees, as if it were given ``array[rows[k]]``
    on_epoch : called as ``on_epoch(epoch, losses)`` after each epoch with the losses [K, steps] (a list where lengths
        differ), NaN where a model has been stopped. True ends the training; K booleans, or a list of indices, stop
        single models.
    progress : show a tqdm bar over the steps of all models

    Returns
    -------
    The losses [K, epochs, steps]; a list of K tensors [epochs, steps] where lengths differ. Epochs that were not run
    are left out. A model whose loss is not finite goes on as it would alone; a RuntimeWarning names it in the end.

    Raises
    ------
    ArgumentError, ShapeError, DTypeError
        for no steps, steps that share memory which one of them changes, arrays of different lengths, a number of seeds
        or rows other than K, values that are not finite. The message names the index; no model has changed then.
    CompileError
        for a step that cannot be compiled, by its index; no model has changed then.

    Ctrl-C stops every model after the step that it is in.

    Source: one program over many sets of pointers, as CasADi's ``map``; JAX's ``vmap`` batches the operations instead.
    """
    together = Together(steps, arrays, batch_size, epochs, shuffle, drop_last, seed, rows, progress)
    with together.held():
        return together.run(on_epoch)


def _plain(t: torch.Tensor) -> torch.Tensor:
    """With the strides that rows gathered from it have: those of dimensions of size 1 may be any."""
    return t.view(-1).view(t.shape) if t.is_contiguous() and t.numel() else t


_FEW = 0.3  # of the lanes: fewer models are faster one by one


class Together:
    """See `run_together`."""

    only_finite = True  # whether arrays with other values are refused

    def __init__(
        self,
        steps: Sequence[Compiled],
        arrays: tuple[Any, ...],
        batch_size: int,
        epochs: int,
        shuffle: bool,
        drop_last: bool,
        seed: Any,
        rows: Any,
        progress: bool,
    ) -> None:
        self.steps = checked_steps(steps)
        self.batch_size, self.epochs, self.shuffle, self.progress = batch_size, epochs, shuffle, progress
        self.bar = Bar(0, False)
        if isinstance(epochs, bool) or not isinstance(epochs, int) or epochs < 0:
            raise ArgumentError(f"run_together: epochs must be an integer of at least 0; got {epochs!r}")
        count = len(self.steps)
        each = [for_each(a, count, f"arrays[{i}]") for i, a in enumerate(arrays)]
        own = own_rows(rows, count)
        own_seeds = seeds_of(seed, count) if shuffle and seed is not None else [0] * count
        self.models = [
            Model(k, step, tuple(a[k] for a in each), own[k], own_seeds[k]) for k, step in enumerate(self.steps)
        ]
        known: dict[tuple[int, ...], Any] = {}
        for model in self.models:
            self._measure(model, drop_last, known)
        self.sheets: dict[torch.dtype, torch.Tensor] = {}
        for model in self.models:
            model.losses = Losses(epochs, model.steps, functools.partial(self._sheet, model))
        self.known = Known()
        self.taken: list[Structure] = []
        self.streams = Streams()
        if shuffle and seed is None:
            first = drawn_seed()
            for k, model in enumerate(self.models):
                model.seed = (first + k) % 2**64

    def _measure(self, model: Model, drop_last: bool, known: dict[tuple[int, ...], Any]) -> None:
        """Check a model's data. Data that several share are looked at once."""
        key = tuple(map(id, model.arrays))
        if key not in known:
            try:
                batches(*model.arrays, batch_size=self.batch_size, shuffle=False, drop_last=drop_last)
                values = [as_rows(a, f"batches: arrays[{i}]") for i, a in enumerate(model.arrays)]
                for i, value in enumerate(values if self.only_finite else ()):
                    bad = nonfinite_index(value)
                    if bad is not None:
                        number = value[tuple(bad)].item()
                        raise ArgumentError(f"batches: arrays[{i}] must be finite; element {bad} is {number}")
            except TapegradError as error:
                raise renamed(error, f"model {model.index}") from error
            values = [_plain(v.contiguous() if self._gathers(model) else v) for v in values]
            layout = [
                (v.shape[1:], v.dtype, v.stride(), isinstance(a, Tensor))
                for v, a in zip(values, model.arrays, strict=True)
            ]
            known[key] = values, tuple(layout), all(v.is_contiguous() for v in values)
        model.values, model.layout, model.plain = known[key]
        length = len(model.values[0])
        model.n = length if model.rows is None else len(model.rows)
        if model.rows is not None and model.n and not 0 <= int(model.rows.min()) <= int(model.rows.max()) < length:
            raise ArgumentError(f"run_together: rows[{model.index}] must name rows of arrays of {length}")
        model.full, rest = divmod(model.n, self.batch_size)
        model.steps = model.full + (1 if rest and not drop_last else 0)
        if model.steps == 0:
            raise ShapeError(
                f"run_together: model {model.index}: batch_size = {self.batch_size} leaves no batch of {model.n} rows"
            )

    def _sheet(self, model: Model, dtype: torch.dtype) -> torch.Tensor:
        """Memory for a model's losses: part of one tensor where models are alike."""
        steps = self.models[0].steps
        if model.steps != steps:
            return torch.full((self.epochs, model.steps), torch.nan, dtype=dtype)
        if dtype not in self.sheets:
            self.sheets[dtype] = torch.full((len(self.models), self.epochs, steps), torch.nan, dtype=dtype)
        return self.sheets[dtype][model.index]

    # --- the run ----------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Within, nobody else runs these steps, nor the programs that they have taken."""
        with contextlib.ExitStack() as locks:
            for step in sorted(self.steps, key=id):
                locks.enter_context(step)
            try:
                yield
            finally:
                self.streams.leave(self.models)
                for model in self.models:
                    if model.twins:
                        for twin in model.twins:
                            twin.watch()
                        model.step.joint = model.kind, model.structure, model.twins, model.apart
                for structure in self.taken:
                    structure.owner = None

    def run(self, on_epoch: Callable[[int, Any], Any] | None) -> Any:
        total = self.epochs * sum(model.steps for model in self.models)
        epoch = 0
        with Bar(total, self.progress, self.epochs) as self.bar:
            while epoch < self.epochs:
                until = self.epochs if on_epoch is None else epoch + 1
                active = [model for model in self.models if not model.stopped]
                if not active:
                    break
                self._bind(active, epoch)
                self._train(active, until)
                epoch = until
                self.bar.epoch(epoch - 1, *(model.losses.values for model in active))
                if on_epoch is not None and self._told(active, on_epoch, epoch - 1):
                    break
        self._report()
        return self._losses()

    def _told(self, active: list[Model], on_epoch: Callable[[int, Any], Any], epoch: int) -> bool:
        """Ask ``on_epoch``; whether the training is over."""
        rows = [model.losses.space(torch.get_default_dtype())[epoch].clone() for model in self.models]
        for model in active:
            for twin in model.twins:
                twin.watch()
        with self.streams.shown(active):
            wish = on_epoch(epoch, stacked(rows))
        stop = wish_of(wish, len(self.models))
        if isinstance(stop, bool):
            return stop
        for k in stop:
            self.models[k].stopped = True
        return False

    def _report(self) -> None:
        """Name the models whose loss is not finite."""
        if len({m.steps for m in self.models}) == 1 and all(bool(s.isfinite().all()) for s in self.sheets.values()):
            return  # all of them, at once
        bad = [
            model
            for model in self.models
            if model.losses.values is not None and not bool(model.losses.values[: model.epochs].isfinite().all())
        ]
        if bad:
            first = bad[0]
            assert first.losses.values is not None
            where = (~first.losses.values[: first.epochs].isfinite()).nonzero()[0].tolist()
            warnings.warn(
                f"run_together: the loss of {len(bad)} of {len(self.models)} models is not finite: "
                f"{[model.index for model in bad]}; model {first.index}'s from epoch {where[0]}, step {where[1]} on",
                RuntimeWarning,
                stacklevel=4,
            )

    def _losses(self) -> Any:
        default = torch.get_default_dtype()
        done = [model.losses.space(default)[: model.epochs] for model in self.models]
        if len({(d.shape, d.dtype) for d in done}) > 1:
            return [Tensor(d) for d in done]
        sheet = self.sheets.get(done[0].dtype)
        if sheet is None or done[0].untyped_storage().data_ptr() != sheet.untyped_storage().data_ptr():
            return Tensor(torch.stack(done))
        return Tensor(sheet[:, : self.models[0].epochs])

    # --- programs ---------------------------------------------------------------------------------------------

    def _bind(self, active: list[Model], epoch: int) -> None:
        """Find the programs of models that have none. What is done for that is undone if one of them fails."""
        undo: list[Any] = []
        new = [m for m in active if not m.alone and (not m.twins or any(twin.stale() for twin in m.twins))]
        model = None
        try:
            for model in new:
                model.network, model.twins, model.apart = None, [], None
                self._bind_one(model, epoch, undo)
            if new:
                found = [m for m in self.models if m.twins]
                if len({m.apart for m in found}) > 1 or (found and found[0].apart is None):
                    check_apart(found)
                    apart = object()
                    for m in found:
                        m.apart = apart
        except BaseException as error:
            for before in reversed(undo if epoch == 0 else ()):
                before.restore()
            if epoch == 0:
                self.streams.forget()
            if isinstance(error, TapegradError) and model is not None and not str(error).startswith("run_together:"):
                raise renamed(error, f"steps[{model.index}]") from error
            raise

    def _bind_one(self, model: Model, epoch: int, undo: list[Any]) -> None:
        step = model.step
        sizes = (
            *(() if self._gathers(model) else same_as(model.values)),
            self.batch_size if model.full else 0,
            model.n % self.batch_size if model.steps > model.full else 0,
        )
        code = getattr(step._inner(), "__code__", type(step._inner()))
        key = code, step.exact, model.layout, sizes, mode.record, torch.get_default_dtype()
        model.kind = key
        if step.joint is not None and step.joint[0] == key and not any(twin.stale() for twin in step.joint[2]):
            _, structure, twins, model.apart = step.joint
            if self._take(structure, key):
                self._attach(model, structure, twins, epoch)
                return
        for structure in self.known.of(key):
            with contextlib.suppress(Unlike):
                twins = structure.pattern.twin(step)
                if self._take(structure, key):
                    self._attach(model, structure, twins, epoch)
                    return
        with self.streams.of(model):
            pattern = self._pattern(model, epoch, undo)
        if pattern is None:
            model.alone = True
            return
        structure = Structure(pattern, [self._example(model, i) for i in range(len(pattern.bounds))])
        self._take(structure, key)
        self._attach(model, structure, pattern.twin(step), epoch)

    def _take(self, structure: Structure, key: Any) -> bool:
        """Whether no other training runs its programs now."""
        if structure.owner is self:
            return True
        if not structure.take(self):
            return False
        self.taken.append(structure)
        self.known.note(key, structure)
        return True

    def _pattern(self, model: Model, epoch: int, undo: list[Any]) -> Pattern | None:
        """A model's programs, after a first step that is its own; None where it has to run alone."""
        whole, step = model.epoch(epoch, self.batch_size, self.shuffle, self.bar), model.step
        if not step.exact:
            return None
        firsts = self._firsts(model)
        self._tell(model, firsts[0])
        if step.ready_for(whole.batch(0)) is None:
            whole.losses.put(0, step.loss_undoably(whole.batch(0), undo))
            self.bar.to(1)
            model.at = 1
        bounds = []
        for first in firsts:
            self._tell(model, first)
            bound = step.prepare(whole.batch(first))
            if bound is None or bound.stale() is not None:
                return None
            bounds.append(bound)
            model.generators += [g for g, _ in bound.trace.generators if g not in model.generators]
            if model.at and not model.drawn:
                model.drawn = {id(g): blocks for g, blocks in bound.trace.generators}
        try:
            pattern = Pattern(step, bounds)
            pattern.twin(step)
        except Unlike:
            return None
        return pattern

    def _firsts(self, model: Model) -> list[int]:
        """The first batch of each size."""
        return [0] * (model.full > 0) + [model.full] * (model.steps > model.full)

    def _tell(self, model: Model, first: int) -> int:
        """How many rows a batch has, before the hyper-parameters for such batches are read."""
        return self.batch_size if first < model.full else model.n - model.full * self.batch_size

    def _example(self, model: Model, part: int) -> list[torch.Tensor]:
        """Arguments as the program takes them."""
        batch = model.epoch(0, self.batch_size, self.shuffle, self.bar).batch(self._firsts(model)[part])
        return self._arguments(model, [t._data if isinstance(t, Tensor) else t for t in batch])

    def _arguments(self, model: Model, arrays: list[torch.Tensor]) -> list[torch.Tensor]:
        """Of arrays, one for each argument of a program: batches that are views may be one."""
        return arrays if self._gathers(model) else distinct(arrays)

    def _gathers(self, model: Model) -> bool:
        """Whether batches are rows of the arrays in another memory, not views of them."""
        return self.shuffle or model.rows is not None

    def _attach(self, model: Model, structure: Structure, twins: list[Twin], epoch: int) -> None:
        model.structure, model.twins = structure, twins
        model.generators = list(dict.fromkeys(g for twin in model.twins for g, _ in twin.generators))
        dtype = structure.pattern.bounds[0].trace.result.ref.dtype
        network = _C.Network(
            self._arguments(model, model.values),
            model.rows,
            model.n,
            self.batch_size,
            model.steps,
            self.shuffle,
            model.seed,
            model.losses.space(dtype),
            len(model.generators),
        )
        network.epoch, network.at = epoch, model.at
        model.network = network

    def _arm(self, model: Model) -> None:
        """Tell a network what may have changed since: hyper-parameters, places in random streams."""
        for i, (first, twin) in enumerate(zip(self._firsts(model), model.twins, strict=True)):
            count = model.full if first < model.full else 1
            rows = self._tell(model, first)
            which = [model.generators.index(g) for g, _ in twin.generators]
            blocks = [b for _, b in twin.generators]
            memory = twin.memory if model.structure.shared else [None] * len(twin.memory)
            program = model.structure.place + i
            model.network.set_part(i, program, first, count, rows, memory, twin.values(), which, blocks)
        model.network.streams = [self.streams.at(model, g) for g in model.generators]

    # --- training ---------------------------------------------------------------------------------------------

    def _train(self, active: list[Model], until: int) -> None:
        """Bring every model to the end of epoch ``until`` - 1."""
        joint = [model for model in active if not model.alone]
        structures = list(dict.fromkeys(model.structure for model in joint))
        place = 0
        for structure in structures:
            structure.place, structure.shared = place, False
            place += len(structure.pattern.bounds)
        for model in joint:
            model.structure.shared |= not model.twins[0].is_own
        threads = min(torch.get_num_threads(), len(joint))
        executors = [structure.executors(threads) for structure in structures]
        lanes = [structure.lanes(threads) for structure in structures]
        workers = [
            ([one for of in executors for one in of[thread]], [of[thread] for of in lanes]) for thread in range(threads)
        ]
        for model in joint:
            model.network.until = until
            self._arm(model)
        todo = joint
        while todo:
            self._networks(todo, structures, workers)
            todo = [model for model in todo if model.network.stuck]
            for model in todo:
                self._eager(model)
            todo = [model for model in todo if model.epochs < until]
        for model in active:
            if model.alone:
                self._alone(model, until)

    def _networks(self, models: list[Model], structures: list[Structure], workers: list[Any]) -> None:
        shown = 0

        def tick(done: int) -> None:
            nonlocal shown
            self.bar.to(done - shown)
            shown = done

        before = [self._place(model) for model in models]
        tasks = [
            ([model.network for model in group], structures.index(group[0].structure)) for group in self._groups(models)
        ]
        try:
            _C.run_networks(tasks, workers, tick)
        finally:
            done = 0
            for model, start in zip(models, before, strict=True):
                done += self._settle(model) - start
            self.bar.to(done - shown)

    def _groups(self, models: list[Model]) -> list[list[Model]]:
        """Models that run side by side in lanes, and single ones."""
        alike: dict[Any, list[Model]] = {}
        for model in models:
            alike.setdefault((model.structure, model.plain, model.n, model.steps, model.epochs), []).append(model)
        groups = []
        for (structure, plain, *_), members in alike.items():
            width = structure.width if structure.shared and plain and len(members) > 1 else 1
            whole = [members[i : i + width] for i in range(0, len(members), width)]
            for group in whole:
                groups += [group] if len(group) > width * _FEW else [[model] for model in group]
        return groups

    def _place(self, model: Model) -> int:
        return int(model.epochs * model.steps + model.at)

    def _settle(self, model: Model) -> int:
        """What a network that has run leaves in Python; its steps so far."""
        network = model.network
        model.epochs, model.at = network.epoch, network.at
        for generator, state in zip(model.generators, network.streams, strict=True):
            self.streams.move(model, generator, state)
        if network.last_part >= 0:
            twin = model.twins[network.last_part]
            twin.leave_gradients(shared=model.structure.shared)
        return self._place(model)

    def _eager(self, model: Model) -> None:
        """A step whose program met bad values before it had changed anything: as it is, it says what is wrong."""
        part = len(model.twins) - 1 if model.at >= model.full else 0
        if not 0 <= model.network.failed < model.twins[part].bound.fast.first_write:
            explain_failure(model.twins[part].bound.program.calls, model.network.failed, model.network.rethrow)
        whole = model.epoch(model.epochs, self.batch_size, self.shuffle, self.bar)
        self._tell(model, model.at)
        with self.streams.of(model), named(model):
            whole.losses.put(model.at, model.step.loss(whole.batch(model.at)))
        self.bar.to(1)
        model.epochs, model.at = divmod(self._place(model) + 1, model.steps)
        model.network.epoch, model.network.at = model.epochs, model.at
        self._arm(model)

    def _alone(self, model: Model, until: int) -> None:
        """A model whose step is no program of pointers."""
        with self.streams.of(model), named(model):
            for epoch in range(model.epochs, until):
                whole = model.epoch(epoch, self.batch_size, self.shuffle, self.bar)
                for first in self._firsts(model):
                    self._tell(model, first)
                    whole.run(model.full if first < model.full else model.steps, max(model.at, first))
                model.epochs, model.at = epoch + 1, 0
