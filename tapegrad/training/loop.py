"""What surrounds `Compiled.run` in `Sequential.fit`: checks, the history, the bar, Ctrl-C.

Everything is checked before the first step: shapes, dtypes, labels, the optimizer. Between epochs the model is looked
at from outside (`predict`), so that what is reported costs the training step nothing and changes nothing in it.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from ..compiled import Compiled, tqdm_bar
from ..core import ArgumentError, CompileError, ShapeError, Tensor, no_grad, nonfinite_index
from ..data.arguments import as_count, as_rows, as_seed
from ..data.streams import drawn_seed
from ..nn.sequential import as_input
from ..optim import Optimizer
from . import plot
from .callbacks import FIGURES, Callback
from .labels import Accuracy, accuracy_of, as_targets

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ..nn import Sequential

Pair = tuple[torch.Tensor, torch.Tensor]

PREDICTED = 2**18  # numbers of the input that are predicted at once when an epoch is evaluated; bounds the memory


@dataclass
class History:
    """What `Sequential.fit` saw, one entry per completed epoch in every list that is kept.

    Parameters
    ----------
    loss : mean of the batches' losses during the epoch, weighted by their rows
    accuracy : share of the training set that is right after the epoch, in evaluation mode
    val_loss, val_accuracy : loss and share of the validation set after the epoch, in evaluation mode
    seconds : what the epoch's training steps took, evaluation not included
    interrupted : whether Ctrl-C ended the training

    A list stays empty where there is nothing to put into it: no validation data, no accuracy asked for, or targets that
    name no classes.
    """

    loss: list[float] = field(default_factory=list)
    accuracy: list[float] = field(default_factory=list)
    val_loss: list[float] = field(default_factory=list)
    val_accuracy: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    interrupted: bool = False

    def __repr__(self) -> str:
        end = ", interrupted" if self.interrupted else ""
        return f"History({len(self.loss)} epochs, {sum(self.seconds):.3g} s{end}{self.last(': ')})"

    def table(self) -> str:
        """The figures as text, a line for each epoch."""
        names = [name for name in (*FIGURES, "seconds") if getattr(self, name)]
        head = "epoch  " + "  ".join(f"{name:>12}" for name in names)
        rows = zip(*(getattr(self, name) for name in names), strict=True)
        lines = [f"{i:5}  " + "  ".join(f"{value:12.4g}" for value in row) for i, row in enumerate(rows)]
        return "\n".join([head, *lines])

    def _repr_html_(self) -> str:
        """The table, for a notebook."""
        head, *lines = [line.split() for line in self.table().splitlines()]
        cells = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in line) + "</tr>" for line in lines)
        return f"<table><tr>{''.join(f'<th>{name}</th>' for name in head)}</tr>{cells}</table>"

    def last(self, before: str = "") -> str:
        """The last epoch's figures as text, after `before`; nothing before the first epoch is over."""
        figures = [f"{name} {getattr(self, name)[-1]:.4g}" for name in FIGURES if getattr(self, name)]
        return before + ", ".join(figures) if figures else ""

    def plot(self, path: str | os.PathLike[str] | None = None) -> Figure:
        """The learning curves (`tapegrad.plot.learning_curves`), written to `path` if there is one."""
        figure = plot.learning_curves(self)
        if path is not None:
            figure.savefig(path, dpi=150)
        return figure


def fit(
    model: Sequential,
    X: Any,
    y: Any,
    loss: Callable[[Any, Any], Tensor],
    optimizer: Optimizer,
    epochs: int,
    batch_size: int,
    validation_data: tuple[Any, Any] | None,
    metrics: tuple[str, ...],
    shuffle: bool,
    seed: int | None,
    progress: bool,
    compile: bool,
    callbacks: Sequence[Callback] = (),
) -> History:
    """`Sequential.fit`, which documents it."""
    epochs, batch_size = as_count(epochs, "fit: epochs", 0), as_count(batch_size, "fit: batch_size")
    seed = drawn_seed() if seed is None and shuffle else as_seed(seed or 0, "fit: seed")
    _check(model, loss, optimizer, metrics, callbacks)
    train, validation, accuracy = _prepared(model, X, y, validation_data, loss, batch_size)
    accuracy = accuracy if "accuracy" in metrics else None
    if not model.training:
        model.train()

    def step(x: Any, target: Any) -> Tensor:
        optimizer.zero_grad()
        value = loss(model(x), target)
        value.backward()
        optimizer.step()
        return value

    history = History()
    n = len(train[0])
    rows = torch.tensor([min(batch_size, n - start) for start in range(0, n, batch_size)], dtype=torch.float64)
    bar = _Bar(progress, epochs, len(rows))
    clock = time.perf_counter()

    def on_epoch(epoch: int, losses: Tensor) -> bool:
        nonlocal clock
        seconds = time.perf_counter() - clock
        seen = _seen(model, train, validation, accuracy, loss, batch_size)
        for name, value in {"loss": float(losses.data.double() @ rows) / n, "seconds": seconds, **seen}.items():
            getattr(history, name).append(value)
        bar.epoch(epoch, history)
        ends = [callback.epoch(epoch, history) for callback in callbacks]  # each is told, also after one that stops
        clock = time.perf_counter()
        return any(ends)

    begun: list[Callback] = []
    try:
        for callback in callbacks:
            callback.model, callback.optimizer = model, optimizer
            callback.begin(history)
            begun.append(callback)
        with _ctrl_c() as ctrl_c:
            compiled = _Step(step, compile, ctrl_c, bar)
            compiled.run(*train, batch_size=batch_size, epochs=epochs, shuffle=shuffle, seed=seed, on_epoch=on_epoch)
    except KeyboardInterrupt:
        history.interrupted = True
    finally:
        bar.close()
        for callback in begun:
            callback.end(history)
    return history


# --- before the first step ---------------------------------------------------------------------------------------


def _check(model: Sequential, loss: Any, optimizer: Any, metrics: Any, callbacks: Any) -> None:
    if not callable(loss):
        raise TypeError(f"fit: loss must be a module or a function of (output, target); got {type(loss).__name__}")
    if getattr(loss, "reduction", "mean") == "none":
        raise ArgumentError('fit: loss must be one number: reduction must be "mean" or "sum"; got "none"')
    if not isinstance(optimizer, Optimizer):
        made = " (an optimizer of this model's parameters, not its class)" if isinstance(optimizer, type) else ""
        raise TypeError(f"fit: optimizer must be a tg.optim.Optimizer{made}; got {optimizer!r}")
    own = {id(p) for p in model.parameters()}
    if not any(id(p) in own for group in optimizer.param_groups for p in group["params"]):
        raise ArgumentError("fit: optimizer must hold parameters of this model; got none of them")
    if isinstance(metrics, str) or set(metrics) - {"accuracy"}:
        raise ArgumentError(f'fit: metrics must be ("accuracy",) or (); got {metrics!r}')
    for callback in callbacks:
        if not isinstance(callback, Callback):
            hint = " (an object, not its class)" if isinstance(callback, type) else ""
            raise TypeError(f"fit: callbacks must be of tg.callbacks.Callback{hint}; got {callback!r}")


def _prepared(
    model: Sequential, X: Any, y: Any, validation_data: Any, loss: Any, batch_size: int
) -> tuple[Pair, Pair | None, Accuracy | None]:
    """Training and validation arrays as the model and the loss take them, and how to count what is right."""
    if validation_data is not None and not (isinstance(validation_data, tuple | list) and len(validation_data) == 2):
        raise TypeError(f"fit: validation_data must be a pair (X, y) or None; got {type(validation_data).__name__}")
    inputs, labels = _pair(model, X, y, "X", "y")
    predicted = model.predict(inputs[:batch_size])
    if not isinstance(predicted, Tensor):
        raise TypeError(f"fit: the model's output must be one Tensor; got {type(predicted).__name__}")
    output = predicted.data
    if output.ndim == 0 or len(output) != len(inputs[:batch_size]):
        raise ShapeError(
            f"fit: the model's output must have a row for each of the {len(inputs[:batch_size])} rows it is given; "
            f"got shape {list(output.shape)}"
        )
    train = inputs, as_targets(labels, output, loss)
    if validation_data is None:
        return train, None, accuracy_of([train[1]], output, loss)
    inputs, labels = _pair(model, validation_data[0], validation_data[1], "validation_data[0]", "validation_data[1]")
    if inputs.shape[1:] != train[0].shape[1:]:
        raise ShapeError(
            f"fit: validation_data[0].shape[1:] = {list(inputs.shape[1:])} must equal X.shape[1:] = "
            f"{list(train[0].shape[1:])}"
        )
    validation = inputs, as_targets(labels, output, loss)
    return train, validation, accuracy_of([train[1], validation[1]], output, loss)


def _pair(model: Sequential, X: Any, y: Any, x_name: str, y_name: str) -> Pair:
    """Samples and labels as raw tensors, as many of the one as of the other."""
    inputs = as_rows(as_input(model, X, f"fit: {x_name}"), f"fit: {x_name}")
    labels = as_rows(y, f"fit: {y_name}")
    if len(inputs) == 0:
        raise ShapeError(f"fit: {x_name} must not be empty; got shape {list(inputs.shape)}")
    if len(labels) != len(inputs):
        raise ShapeError(f"fit: len({y_name}) = {len(labels)} must equal len({x_name}) = {len(inputs)}")
    for name, value in ((x_name, inputs), (y_name, labels)):
        at = nonfinite_index(value)
        if at is not None:
            raise ArgumentError(f"fit: {name} must be finite; got {value[tuple(at)].item()} at {at}")
    return inputs, labels


# --- between epochs ----------------------------------------------------------------------------------------------


def _seen(
    model: Sequential,
    train: Pair,
    validation: Pair | None,
    accuracy: Accuracy | None,
    loss: Callable[[Any, Any], Tensor],
    batch_size: int,
) -> dict[str, float]:
    """What the model is worth now, in evaluation mode: entries of `History`."""
    seen = {}
    if accuracy is not None:
        seen["accuracy"] = accuracy(_predicted(model, train[0], batch_size), train[1])
    if validation is not None:
        output = _predicted(model, validation[0], batch_size)
        with no_grad():
            seen["val_loss"] = loss(output, validation[1]).item()
        if accuracy is not None:
            seen["val_accuracy"] = accuracy(output, validation[1])
    return seen


def _predicted(model: Sequential, inputs: torch.Tensor, batch_size: int) -> torch.Tensor:
    """`Sequential.predict` of all rows, a limited number of them at a time."""
    rows = max(batch_size, PREDICTED // max(1, inputs[0].numel()))
    return torch.cat([model.predict(part).data for part in torch.split(inputs, rows)])


# --- the steps ---------------------------------------------------------------------------------------------------


class _Step(Compiled):
    """A step that runs as it is where it cannot be compiled, after a warning that says why; no Ctrl-C cuts it short."""

    def __init__(self, fn: Callable[..., Tensor], compile: bool, ctrl_c: _CtrlC, bar: _Bar) -> None:
        super().__init__(fn, exact=True, cache_size=8)
        self._compiles = compile
        self._ctrl_c = ctrl_c
        self._bar = bar

    def _is_new(self) -> bool:
        return False  # nothing is refused

    def _warning(self, reason: CompileError) -> str:
        return f"fit: training goes on uncompiled: {reason}"

    def loss(self, args: list[Any]) -> Any:
        """The step on a batch for which there is no program (yet)."""
        with self._ctrl_c:
            value = super().loss(args) if self._compiles else self.fn(*args)
        self._bar.step(value)
        return value

    def ready_for(self, args: list[Any]) -> Any:
        """The program for a batch of `Compiled.run`; None means that the step is called."""
        return super().ready_for(args) if self._compiles else None


class _CtrlC:
    """What Ctrl-C does: raise KeyboardInterrupt, but inside ``with`` only at the end of it."""

    def __init__(self) -> None:
        self._waits = False
        self._pressed = False

    def __call__(self, *signal_and_frame: Any) -> None:
        self._pressed = True
        if not self._waits:
            raise KeyboardInterrupt

    def __enter__(self) -> None:
        self._waits = True

    def __exit__(self, *exception: object) -> None:
        self._waits = False
        if self._pressed:
            raise KeyboardInterrupt


@contextmanager
def _ctrl_c() -> Iterator[_CtrlC]:
    """Take Ctrl-C over from Python, which would stop in the middle of an update; a handler of the user's stays."""
    ctrl_c = _CtrlC()
    in_main_thread = threading.current_thread() is threading.main_thread()
    if in_main_thread and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, ctrl_c)
        try:
            yield ctrl_c
        finally:
            signal.signal(signal.SIGINT, signal.default_int_handler)
    else:
        yield ctrl_c


class _Bar:
    """A bar over all steps, where tqdm is installed and somebody sees it (a terminal, a notebook); else nothing."""

    def __init__(self, shown: bool, epochs: int, steps: int) -> None:
        self._bar: Any = None
        self._epochs = epochs
        self._steps = steps
        if shown:
            with suppress(ImportError):
                self._bar = tqdm_bar(epochs * steps)

    def step(self, loss: Tensor) -> None:
        """One step done, in Python."""
        if self._bar is not None and self._bar.update():  # True where it was drawn, some ten times a second
            self._bar.set_postfix_str(f"loss {loss.item():.4g}", refresh=False)

    def epoch(self, epoch: int, history: History) -> None:
        """One epoch done, whether or not its steps were reported."""
        if self._bar is not None:
            self._bar.set_description(f"epoch {epoch + 1}/{self._epochs}", refresh=False)
            self._bar.set_postfix_str(history.last(), refresh=False)
            self._bar.update((epoch + 1) * self._steps - self._bar.n)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
