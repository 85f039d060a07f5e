"""From a network and arrays to a trained network: the loop of `Sequential.fit` and its history, what labels mean to a
loss, pictures. Imports everything below it: networks, optimizers, data and the compiled tape.
"""

from .callbacks import Callback
from .labels import as_targets
from .loop import History, fit

__all__ = ["Callback", "History", "as_targets", "fit"]
