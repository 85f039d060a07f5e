"""torch's other module names: the files that its doors are made of, and what has no place here.

``tapegrad.optim.adam`` and ``tapegrad.nn.modules.conv`` can be imported as torch's can, with those of their names that
`tapegrad.optim` and `tapegrad.nn` offer. What cannot be on one process on a CPU (``tapegrad.fx``,
``tapegrad.distributed.rpc``) can be imported too, and each of its names raises StateError with the reason when it is
called, so that a script that asks first goes on.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

import torch.utils._pytree
import torch.utils.benchmark
import torch.utils.dlpack
from torch.nn.modules import utils as _tuples

from . import accelerator, amp, compiler, core, files, hub, nn, profiler
from .core import StateError
from .nn import attention, convolution, layers, local_norms, losses, norms

_OURS, _THEIRS = __name__.partition(".")[0], "torch"

_PYTHON = "a step runs as Python, or compiled by tg.compile; there is no graph of it to rewrite"
_ONE = "of several processes tapegrad has process groups and nn.parallel.DistributedDataParallel"
_FLOATS = "tapegrad computes in float32 and float64"
_DENSE = "Tensors are dense"
ABSENT = {  # below these names everything is refused when it is used, with the reason
    "fx": _PYTHON,
    "export": _PYTHON,
    "package": "tg.save writes state dicts and checkpoints",
    "_inductor": _PYTHON,
    "_functorch": _PYTHON,
    "_subclasses": _PYTHON,
    "_decomp": _PYTHON,
    "onnx": "write the step as C with tg.export_c, or export tg.to_torch(model) with torch.onnx",
    "quantization": _FLOATS,
    "ao": _FLOATS,
    "fft": f"its results are complex; {_FLOATS}",
    "nested": _DENSE,
    "masked": _DENSE,
    "futures": _ONE,
    "classes": "there are no classes loaded from libraries",
    "library": "define an op with @tg.op",
    "ops": "torch's dispatcher is not used; define an op with @tg.op",
    "nn.quantized": _FLOATS,
    "nn.intrinsic": _FLOATS,
    "nn.qat": _FLOATS,
    "cuda.nvtx": "there is no CUDA device",
    "cuda.nccl": "there is no CUDA device",
    "cuda.comm": "there is no CUDA device",
    "cuda.graphs": "there is no CUDA device",
    "cuda.tunable": "there is no CUDA device",
    **dict.fromkeys(
        (
            f"distributed.{name}"
            for name in (
                *("_composable", "_shard", "_tensor", "algorithms", "autograd", "c10d", "checkpoint", "device_mesh"),
                *("distributed_c10d", "elastic", "fsdp", "launch", "launcher", "nn", "optim", "pipeline"),
                *("pipelining", "rendezvous", "rpc", "run", "tensor", "utils"),
            )
        ),
        _ONE,
    ),
}

# A module of torch's whose names another of ours has, and names that no door shows
ELSEWHERE: dict[str, Any] = {
    "_dynamo": compiler,
    "autograd.profiler": profiler,
    "autograd.profiler_legacy": profiler,
    "mps": accelerator,
    "mtia": accelerator,
    "xpu": accelerator,
    "nn.modules.utils": _tuples,
    "cuda.amp.grad_scaler": amp,
    "cuda.amp.autocast_mode": amp,
    "serialization": files,
    "utils._pytree": torch.utils._pytree,
    "utils.benchmark": torch.utils.benchmark,
    "utils.hooks": core,
    "utils.model_zoo": hub,
    "nn.modules.batchnorm._BatchNorm": norms._BatchNorm,
    "nn.modules.batchnorm._NormBase": norms._BatchNorm,
    "nn.modules.instancenorm._InstanceNorm": local_norms._InstanceNorm,
    "nn.modules.conv._ConvNd": convolution._Conv,
    "nn.modules.conv._ConvTransposeNd": convolution._Transposed,
    "nn.modules.dropout._DropoutNd": layers.Dropout,
    "nn.modules.loss._Loss": losses.Loss,
    "nn.modules.loss._WeightedLoss": losses.Loss,
    "nn.modules.activation.MultiheadAttention": attention.MultiheadAttention,
    "nn.modules.module._IncompatibleKeys": nn.module.IncompatibleKeys,
    "nn.modules.linear.NonDynamicallyQuantizableLinear": nn.Linear,
    "nn.modules.rnn.RNNBase": nn.recurrent.RNNBase,
    "optim.optimizer.params_t": Any,
    "optim.optimizer.ParamsT": Any,
}

# Doors that get these modules as attributes; those that are files can have modules below them
DOORS: tuple[str, ...] = (
    "cuda.amp",
    "amp",
    "autograd",
    "cuda",
    "distributed",
    "distributions",
    "nn",
    "nn.utils",
    "nn.parallel",
    "optim",
    "profiler",
    "utils",
    "utils.data",
)


# --- what is refused ---------------------------------------------------------------------------------------------


class Refused(type):
    """The kind of a name that can be imported, compared and subclassed, and raises StateError when it is called."""

    path: str
    reason: str

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        raise StateError(f"{cls.path}: {cls.reason}")

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return refused(f"{cls.path}.{name}", cls.reason)  # a member of an enumeration, say

    def __class_getitem__(cls, item: Any) -> Any:
        return cls


def refused(path: str, reason: str) -> Any:
    """A `Refused` of this name."""
    return Refused(path.rpartition(".")[2], (), {"path": path, "reason": reason, "__doc__": f"Refused: {reason}."})


# --- the modules -------------------------------------------------------------------------------------------------


def _reason(path: str) -> str | None:
    """Why a module is refused, if it is."""
    parts = path.split(".")
    return next((ABSENT[p] for i in range(len(parts), 0, -1) if (p := ".".join(parts[:i])) in ABSENT), None)


class Mirror(ModuleType):
    """A module of torch's with the names that a door of ours has."""

    def __init__(self, path: str, door: Any, theirs: Any) -> None:
        super().__init__(f"{_OURS}.{path}", f"The names of torch's ``{path}`` that ``{door.__name__}`` offers.")
        vars(self).update(_path=path, _door=door, _theirs=theirs, __path__=[])

    def __getattr__(self, name: str) -> Any:
        known = ELSEWHERE.get(f"{self._path}.{name}")
        if isinstance(known, ModuleType):
            known = None
        if known is None and not name.startswith("__") and hasattr(self._theirs, name):
            known = getattr(self._door, name, None)
        if known is None and not name.startswith("__"):
            known = _submodule(self._path, name)
        if known is None:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        return known


class Absent(ModuleType):
    """A module all of whose names are `Refused`."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{_OURS}.{path}", f"Refused: {reason}.")
        vars(self).update(_path=path, _reason=reason, __path__=[])

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        made = refused(f"{self._path}.{name}", self._reason)
        setattr(self, name, made)
        return made


class Finder(MetaPathFinder, Loader):
    """Finds `Mirror` and `Absent` modules, after Python's own finders have found nothing."""

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """The module's spec, if torch has one of this name."""
        root, _, name = fullname.partition(".")
        return ModuleSpec(fullname, self, is_package=True) if root == _OURS and _known(name) else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """The module."""
        path = spec.name.partition(".")[2]
        reason = _reason(path)
        if reason is not None:
            return Absent(path, reason)
        door = ELSEWHERE.get(path)
        if isinstance(door, ModuleType):
            return Mirror(path, door, door)
        return Mirror(path, _door(path), importlib.import_module(f"{_THEIRS}.{path}"))

    def exec_module(self, module: ModuleType) -> None:
        """Nothing more to do."""


def _door(path: str) -> Any:
    """The nearest module above that is our own, below the package itself."""
    above = path.rpartition(".")[0]
    while above and isinstance(sys.modules.get(f"{_OURS}.{above}"), Mirror):
        above = above.rpartition(".")[0]
    return sys.modules.get(f"{_OURS}.{above}") if above else None


def _known(path: str) -> bool:
    if _reason(path) is not None or isinstance(ELSEWHERE.get(path), ModuleType):
        return True
    above = path.rpartition(".")[0]
    paths = getattr(sys.modules.get(f"{_THEIRS}.{above}"), "__path__", None)
    if _door(path) is None or paths is None:
        return False
    return PathFinder.find_spec(f"{_THEIRS}.{path}", paths) is not None


def _submodule(path: str, name: str) -> Any:
    """The module of this name below a module of ours, None where torch has none either."""
    full = f"{path}.{name}" if path else name
    return importlib.import_module(f"{_OURS}.{full}") if _known(full) else None


def attribute(path: str, name: str) -> Any:
    """What a door answers when it is asked for a name that it does not have: a module of torch's, else None."""
    return None if name.startswith("__") else _submodule(path, name)


def _open(path: str) -> None:
    """Let a door show the modules below it."""
    door = sys.modules[f"{_OURS}.{path}"]
    before = vars(door).get("__getattr__") or core.absent(door.__name__, importlib.import_module(f"{_THEIRS}.{path}"))

    def answer(name: str) -> Any:
        found = attribute(path, name)
        if found is not None:
            return found
        return before(name)

    vars(door).setdefault("__path__", [])
    vars(door)["__getattr__"] = answer


def install() -> None:
    """Make the modules known to Python's import."""
    if not any(isinstance(finder, Finder) for finder in sys.meta_path):
        sys.meta_path.append(Finder())
    for path in DOORS:
        _open(path)
