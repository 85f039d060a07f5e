"""Optimizers and learning-rate schedules, as torch.optim's. Imports the core, the ops, and the checks of networks."""

from . import lr_scheduler, swa_utils
from .adaptive import ASGD, Adadelta, Adagrad, Adamax, NAdam, RAdam, Rprop
from .algorithms import SGD, Adam, AdamW, RMSprop
from .lbfgs import LBFGS
from .optimizer import Optimizer

__all__ = [
    "ASGD",
    "LBFGS",
    "SGD",
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "NAdam",
    "Optimizer",
    "RAdam",
    "RMSprop",
    "Rprop",
    "lr_scheduler",
    "swa_utils",
]
