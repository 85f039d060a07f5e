"""``tg.callbacks``: what `Sequential.fit` calls after every epoch; they stand in `tapegrad.training.callbacks`."""

from .training.callbacks import Callback, Checkpoint, CSVLogger, EarlyStopping, Schedule, TensorBoard

__all__ = ["CSVLogger", "Callback", "Checkpoint", "EarlyStopping", "Schedule", "TensorBoard"]
