"""tapegrad: automatic differentiation on a tape that one can read and print, and a compiled one that is fast.

>>> import tapegrad as tg
>>> x = tg.tensor([1.0, 2.0, 3.0], requires_grad=True)
>>> (x * x).sum().backward()
>>> x.grad
Tensor([2., 4., 6.])

Names, arguments and results are PyTorch's. What is where:

    tg.<op>, Tensor methods     the ops; those of networks in tg.nn.functional; tg.linalg
    tg.Tape                     print what was recorded; tg.op: an op of your own; tg.gradcheck
    tg.grad, tg.func            derivatives of functions, of any order, forwards and backwards
    tg.nn, tg.optim             layers, losses, optimizers and schedules; Sequential.fit trains in one call
    tg.callbacks                what fit calls after every epoch: early stopping, checkpoints, tables
    tg.data, tg.utils.data      small data sets and batches; torch's DataLoader
    tg.compile                  a step recorded twice and replayed from C++: step(...), step.run, step.explain
    tg.run_together             many models' steps at once
    tg.distributions            sampling and densities
    tg.save, tg.load            safetensors; tg.from_torch, tg.to_torch: models
    tapegrad.sklearn            scikit-learn estimators (imported by itself)

``python -m tapegrad`` prints versions, what is installed, and a check of values and speed.
"""

import torch
from torch import bool, float32, float64, int8, int16, int32, int64, uint8

from . import (
    accelerator,
    amp,
    autograd,
    backends,
    callbacks,
    compiler,
    cuda,
    data,
    distributed,
    distributions,
    func,
    hub,
    jit,
    linalg,
    mirrors,
    multiprocessing,
    neighbours,
    nn,
    ops,
    optim,
    plot,
    profiler,
    random,
    settings,
    sparse,
    special,
    testing,
    utils,
)
from .amp import autocast, is_autocast_enabled
from .compiled import compile, run_together
from .core import (
    ArgumentError,
    CompileError,
    DTypeError,
    Entry,
    GradcheckError,
    MutationError,
    NonFiniteError,
    OpError,
    OutOfMemoryError,
    ShapeError,
    StateError,
    Tape,
    TapeError,
    TapegradError,
    Tensor,
    absent,
    detect_anomaly,
    enable_grad,
    is_grad_enabled,
    no_grad,
    op,
    set_grad_enabled,
)
from .derivatives import checkpoint, grad, gradcheck, gradgradcheck, vmap
from .export import export_c
from .files import from_torch, load, save, to_torch
from .ops import *
from .settings import *

float = float32
double = float64
long = int64
int = int32

__version__ = "0.1.0"

__all__ = [
    *(
        "accelerator",
        "amp",
        "autograd",
        "backends",
        "callbacks",
        "compiler",
        "cuda",
        "distributed",
        "distributions",
        "hub",
        "jit",
        "linalg",
        "multiprocessing",
        "profiler",
        "random",
        "sparse",
        "special",
        "testing",
        "utils",
    ),
    *("data", "func", "nn", "optim", "plot"),
    *("Entry", "Tape", "Tensor", "checkpoint", "compile", "detect_anomaly", "enable_grad", "export_c", "from_torch"),
    *("grad",),
    *("gradcheck", "gradgradcheck", "is_grad_enabled", "load", "no_grad", "op", "save", "set_grad_enabled", "to_torch"),
    *("autocast", "is_autocast_enabled", "vmap"),
    *("bool", "double", "float", "float32", "float64", "int", "int8", "int16", "int32", "int64", "long", "uint8"),
    *("ArgumentError", "CompileError", "DTypeError", "GradcheckError", "MutationError", "NonFiniteError", "OpError"),
    *("OutOfMemoryError", "run_together"),
    *("ShapeError", "StateError", "TapeError", "TapegradError"),
    *ops.__all__,
    *settings.__all__,
]


mirrors.install()
neighbours.install()
_absent = absent("tapegrad", torch)


def __getattr__(name: str) -> object:
    """torch's modules that `mirrors` knows, and its functions that write (``relu_``), which are methods here."""
    found = mirrors.attribute("", name)
    if found is None and name.endswith("_") and not name.startswith("_"):
        found = getattr(Tensor, name, None)
    return _absent(name) if found is None else found


def __dir__() -> list[str]:
    """The public names; the rooms of the package are not among them."""
    return [*__all__, "__all__", "__doc__", "__file__", "__name__", "__path__", "__version__"]
