"""Learning-rate schedules, as torch.optim.lr_scheduler's."""

from .cycles import CosineAnnealingWarmRestarts, CyclicLR, OneCycleLR
from .scheduler import (
    CosineAnnealingLR,
    ExponentialLR,
    LambdaLR,
    LRScheduler,
    MultiplicativeLR,
    ReduceLROnPlateau,
    StepLR,
)
from .schedules import ChainedScheduler, ConstantLR, LinearLR, MultiStepLR, PolynomialLR, SequentialLR

_LRScheduler = LRScheduler  # its older name

__all__ = [
    "ChainedScheduler",
    "ConstantLR",
    "CosineAnnealingLR",
    "CosineAnnealingWarmRestarts",
    "CyclicLR",
    "ExponentialLR",
    "LRScheduler",
    "LambdaLR",
    "LinearLR",
    "MultiStepLR",
    "MultiplicativeLR",
    "OneCycleLR",
    "PolynomialLR",
    "ReduceLROnPlateau",
    "SequentialLR",
    "StepLR",
]
