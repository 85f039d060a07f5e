"""tapegrad: a compiled tape-based autodiff on torch tensors.

>>> import tapegrad as tg
>>> x = tg.tensor([1.0, 2.0, 3.0], requires_grad=True)
>>> (x * x).sum().backward()
>>> x.grad
Tensor([2., 4., 6.])
"""

from . import core as _core  # isort: skip  # before everything: says what to do where the extension cannot be loaded
from torch import bool, float32, float64, int8, int16, int32, int64, uint8

from . import data, func, nn, optim, plot
from .check import gradcheck, gradgradcheck
from .core import (
    ArgumentError,
    CompileError,
    DTypeError,
    Entry,
    GradcheckError,
    MutationError,
    NonFiniteError,
    OpError,
    ShapeError,
    StateError,
    Tape,
    TapeError,
    TapegradError,
    Tensor,
    detect_anomaly,
    enable_grad,
    is_grad_enabled,
    no_grad,
    op,
    set_grad_enabled,
)
from .derivatives import grad
from .interchange import from_torch, load, save, to_torch
from .ops import *
from .recompute import checkpoint
from .replay import compile

float = float32
double = float64
long = int64

__version__ = "0.1.0"
