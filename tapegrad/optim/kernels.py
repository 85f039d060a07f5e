"""What the kernel of each optimizer takes: the one table that updates, the compiled tape and the export to C go by.

A kernel (csrc/ops/optim.h) takes lists of parameters and gradients, a list for each name of ``state`` and of
``counts``, then ``numbers`` and ``switches`` of the parameter group. Numbers may be others at every step, and a
compiled step reads them at every call; switches decide what is computed, and are recorded.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch

from ..core import _C, Tensor, mode

Key = str | tuple[str, int]  # of a number in a parameter group: ``"lr"``, or ``("betas", 0)``


def number(value: Any) -> float:
    """A hyper-parameter as a Python number; 0-dim tensors are read."""
    return value if type(value) is float else float(value)


def entry(group: Mapping[str, Any], key: Key) -> Any:
    """What stands in a parameter group: a number, or a 0-dim tensor."""
    return group[key] if type(key) is str else group[key[0]][key[1]]


def hyper(group: Mapping[str, Any], key: Key) -> float:
    """A number of a parameter group as it is now. A step that is recorded may look at it, as every replay does."""
    value = entry(group, key)
    if type(value) is float:
        return value
    t = value._data if isinstance(value, Tensor) else value
    if mode.tracer is None or not isinstance(t, torch.Tensor):
        return float(value)
    if mode.tracer.made(t):
        mode.tracer.refuse(f"the optimizer's {name_of(key)} is computed inside the step; compute it between steps")
    with torch._C._DisableTorchDispatch():
        return float(t)


def name_of(key: Key) -> str:
    """The name in the group: of the number, or of the tuple that it stands in."""
    return key if isinstance(key, str) else key[0]


def spelled(key: Key) -> str:
    """As it prints: ``lr``, ``betas[0]``."""
    return key if isinstance(key, str) else f"{key[0]}[{key[1]}]"


class Kernel(NamedTuple):
    """``opens``: a number, and the state that is there once it is not 0; without that state the number is recorded."""

    name: str
    state: tuple[str, ...]
    numbers: tuple[Key, ...]
    switches: tuple[str, ...]
    counts: tuple[str, ...] = ("step",)
    opens: tuple[Key, str] | None = None

    @property
    def lists(self) -> int:
        """How many lists come before the numbers."""
        return 2 + len(self.state) + len(self.counts)

    def is_live(self, key: Key, arguments: Sequence[Any]) -> bool:
        """Whether a number among these arguments may be another at the next step."""
        return self.opens is None or key != self.opens[0] or bool(arguments[2 + self.state.index(self.opens[1])])

    @property
    def function(self) -> Callable[..., None]:
        """The kernel itself."""
        return getattr(_C, self.name)  # type: ignore[no-any-return]


_BETAS: tuple[Key, ...] = (("betas", 0), ("betas", 1))
_MOMENTS = ("exp_avg", "exp_avg_sq")
_DECOUPLED = ("decoupled_weight_decay", "maximize")

KERNELS = {
    kernel.name: kernel
    for kernel in (
        Kernel(
            "sgd_",
            ("momentum_buffer",),
            ("lr", "momentum", "dampening", "weight_decay"),
            ("nesterov", "maximize"),
            opens=("momentum", "momentum_buffer"),
        ),
        Kernel(
            "adam_",
            (*_MOMENTS, "max_exp_avg_sq"),
            ("lr", *_BETAS, "eps", "weight_decay"),
            ("amsgrad", "maximize", "decoupled_weight_decay"),
        ),
        Kernel("adadelta_", ("square_avg", "acc_delta"), ("lr", "weight_decay", "rho", "eps"), ("maximize",)),
        Kernel("adagrad_", ("sum",), ("lr", "weight_decay", "lr_decay", "eps"), ("maximize",)),
        Kernel("adamax_", ("exp_avg", "exp_inf"), ("lr", "weight_decay", *_BETAS, "eps"), ("maximize",)),
        Kernel(
            "nadam_",
            _MOMENTS,
            ("lr", "weight_decay", *_BETAS, "eps", "momentum_decay"),
            _DECOUPLED,
            counts=("step", "mu_product"),
        ),
        Kernel("radam_", _MOMENTS, ("lr", "weight_decay", *_BETAS, "eps"), _DECOUPLED),
        Kernel(
            "rmsprop_",
            ("square_avg", "grad_avg", "momentum_buffer"),
            ("lr", "weight_decay", "momentum", "alpha", "eps"),
            ("centered", "maximize"),
            opens=("momentum", "momentum_buffer"),
        ),
        Kernel(
            "rprop_",
            ("prev", "step_size"),
            ("lr", ("etas", 0), ("etas", 1), ("step_sizes", 0), ("step_sizes", 1)),  # lr: a schedule may write it
            ("maximize",),
        ),
    )
}


@functools.cache
def numbers_read() -> frozenset[str]:
    """The names of all numbers that compiled steps read at every call."""
    return frozenset(name_of(key) for kernel in KERNELS.values() for key in kernel.numbers)
