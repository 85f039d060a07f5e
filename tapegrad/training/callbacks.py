"""What `Sequential.fit` calls after every epoch: stopping early, checkpoints, tables and TensorBoard, schedules."""

from __future__ import annotations

import csv
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core import ArgumentError
from ..files import save
from ..optim.lr_scheduler import ReduceLROnPlateau

if TYPE_CHECKING:
    from ..nn import Module
    from ..optim import Optimizer
    from .loop import History

FIGURES = ("loss", "accuracy", "val_loss", "val_accuracy")


class Callback:
    """Called by `Sequential.fit`; a subclass overrides what it needs.

    Attributes, set before the first epoch
    --------------------------------------
    model, optimizer : what is trained
    """

    model: Module
    optimizer: Optimizer

    def begin(self, history: History) -> None:
        """Before the first epoch."""

    def epoch(self, epoch: int, history: History) -> bool | None:
        """After epoch number `epoch`, which `history` holds already. True ends the training."""

    def end(self, history: History) -> None:
        """After the last epoch, or after Ctrl-C or an error."""


class Monitor(Callback):
    """Follows one figure of the history and knows its best value.

    Parameters
    ----------
    monitor : "loss", "accuracy", "val_loss" or "val_accuracy"; an accuracy is better if it is larger
    min_delta : what a value must be better by to count
    """

    def __init__(self, monitor: str = "val_loss", min_delta: float = 0.0) -> None:
        if monitor not in FIGURES:
            raise ArgumentError(f"{type(self).__name__}: monitor must be one of {', '.join(FIGURES)}; got {monitor!r}")
        if not min_delta >= 0:
            raise ArgumentError(f"{type(self).__name__}: min_delta must be at least 0; got {min_delta}")
        self.monitor, self.min_delta = monitor, min_delta

    def begin(self, history: History) -> None:
        self.best = math.inf
        self.best_epoch = -1

    def improved(self, epoch: int, history: History) -> bool:
        """Whether the last epoch is the best so far."""
        values = getattr(history, self.monitor)
        if not values:
            raise ArgumentError(
                f"{type(self).__name__}: monitor = {self.monitor!r} is not in the history; give fit validation_data "
                "for val_loss and val_accuracy, and classes as targets for accuracies"
            )
        value = -values[-1] if "accuracy" in self.monitor else values[-1]
        if not value < self.best - self.min_delta:
            return False
        self.best, self.best_epoch = value, epoch
        return True


class EarlyStopping(Monitor):
    """Ends the training when a figure has not become better for `patience` epochs.

    Parameters
    ----------
    monitor, min_delta : as for `Monitor`
    patience : epochs without a better value before the training ends
    restore_best : give the model the parameters and buffers of its best epoch in the end

    Source: Prechelt, Early Stopping - But When?, 1998.
    """

    def __init__(
        self, monitor: str = "val_loss", patience: int = 5, min_delta: float = 0.0, restore_best: bool = True
    ) -> None:
        super().__init__(monitor, min_delta)
        if patience < 0:
            raise ArgumentError(f"EarlyStopping: patience must be at least 0; got {patience}")
        self.patience, self.restore_best = patience, restore_best

    def begin(self, history: History) -> None:
        super().begin(history)
        self._state: dict[str, Any] = {}

    def epoch(self, epoch: int, history: History) -> bool:
        if self.improved(epoch, history):
            if self.restore_best:
                self._state = {name: value.clone() for name, value in self.model.state_dict().items()}
            return False
        return epoch - self.best_epoch > self.patience

    def end(self, history: History) -> None:
        if self._state:
            self.model.load_state_dict(self._state)


class Checkpoint(Monitor):
    """Writes model, optimizer, epoch and history to a file that `tapegrad.load` reads.

    Parameters
    ----------
    path : the file, replaced as a whole at every write; ``{epoch}`` in it is the epoch's number
    monitor, min_delta : as for `Monitor`; None writes every epoch, else only better ones
    """

    def __init__(self, path: str | os.PathLike[str], monitor: str | None = None, min_delta: float = 0.0) -> None:
        super().__init__(monitor or "loss", min_delta)
        self.path, self._always = os.fspath(path), monitor is None

    def epoch(self, epoch: int, history: History) -> None:
        if self._always or self.improved(epoch, history):
            figures = {name: list(getattr(history, name)) for name in (*FIGURES, "seconds")}
            state = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
            save({**state, "epoch": epoch, "history": figures}, self.path.replace("{epoch}", str(epoch)))


class CSVLogger(Callback):
    """Writes a row of figures after every epoch: epoch, loss, accuracy, val_loss, val_accuracy, seconds, lr.

    Parameters
    ----------
    path : the file
    append : go on in a file that is there
    """

    def __init__(self, path: str | os.PathLike[str], append: bool = False) -> None:
        self.path, self.append = Path(path), append

    def begin(self, history: History) -> None:
        if not (self.append and self.path.exists()):
            self._write("w", ["epoch", *FIGURES, "seconds", "lr"])

    def epoch(self, epoch: int, history: History) -> None:
        figures = [(getattr(history, name) or [""])[-1] for name in (*FIGURES, "seconds")]
        self._write("a", [epoch, *figures, self.optimizer.param_groups[0]["lr"]])

    def _write(self, mode: str, row: list[Any]) -> None:
        with open(self.path, mode, newline="") as file:
            csv.writer(file).writerow(row)


class TensorBoard(Callback):
    """Writes the figures of every epoch for TensorBoard, through ``torch.utils.tensorboard`` (needs tensorboard).

    Parameters
    ----------
    log_dir : the folder; None chooses one in ``runs`` by date and time
    """

    def __init__(self, log_dir: str | os.PathLike[str] | None = None) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ArgumentError("TensorBoard: needs the package tensorboard: pip install tensorboard") from error
        self._make, self.log_dir = SummaryWriter, log_dir

    def begin(self, history: History) -> None:
        self._writer: Any = self._make(self.log_dir)

    def epoch(self, epoch: int, history: History) -> None:
        for name in FIGURES:
            values = getattr(history, name)
            if values:
                self._writer.add_scalar(name, values[-1], epoch)
        self._writer.add_scalar("lr", self.optimizer.param_groups[0]["lr"], epoch)

    def end(self, history: History) -> None:
        self._writer.close()


class Schedule(Callback):
    """Steps a scheduler of `tapegrad.optim.lr_scheduler` after every epoch.

    Parameters
    ----------
    scheduler : of the optimizer that is given to `fit`
    monitor : the figure that a ReduceLROnPlateau watches
    """

    def __init__(self, scheduler: Any, monitor: str = "val_loss") -> None:
        if not hasattr(scheduler, "step") or not hasattr(scheduler, "optimizer"):
            raise ArgumentError(f"Schedule: scheduler must be a scheduler; got {type(scheduler).__name__}")
        self.scheduler = scheduler
        self._monitor = Monitor(monitor)

    def begin(self, history: History) -> None:
        if self.scheduler.optimizer is not self.optimizer:
            raise ArgumentError("Schedule: scheduler must be one of the optimizer that is given to fit")
        self._monitor.begin(history)

    def epoch(self, epoch: int, history: History) -> None:
        if isinstance(self.scheduler, ReduceLROnPlateau):
            self._monitor.improved(epoch, history)  # says what is missing
            self.scheduler.step(getattr(history, self._monitor.monitor)[-1])
        else:
            self.scheduler.step()
