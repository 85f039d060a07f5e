"""Layers that take their number of inputs from the first input: torch's ``Lazy`` layers, as one table.

Until then their parameters are `UninitializedParameter`s, which keep their identity: an optimizer may have them before.
With the first call the layer is one of the usual class.
"""

from __future__ import annotations

import inspect
from typing import Any, ClassVar

from ..core import ShapeError
from . import convolution, layers, local_norms, norms
from .module import Module
from .parameter import Parameter, UninitializedParameter


class LazyModule(Module):
    """What lazy layers share; ``real`` is the class they become, ``axis`` where the input has its first argument."""

    real: ClassVar[Any]
    axis: ClassVar[int]
    _given: dict[str, Any]

    def has_uninitialized_params(self) -> bool:
        """Whether no input has come yet."""
        return True

    def forward(self, input: Any) -> Any:
        """What the layer computes, once the input says how large it is."""
        self.initialize_parameters(input)
        return self.forward(input)

    def initialize_parameters(self, input: Any) -> None:
        """Take the number of inputs from an input, and become a layer of the usual class."""
        if input.ndim < abs(self.axis) or input.ndim <= self.axis:
            raise ShapeError(f"{type(self).__name__}: input has no dimension {self.axis}; got {list(input.shape)}")
        made = self.real(input.shape[self.axis], **self._given)
        for name, value in list(vars(made).items()):
            own = self.__dict__.get(name)
            if isinstance(own, UninitializedParameter):
                own._become(value.data)
            elif name not in ("training", "_hooks"):
                self.__dict__[name] = value
        del self._given
        self.__class__ = self.real


def _lazy(real: Any, axis: int, **defaults: Any) -> Any:
    """The lazy form of a layer whose first argument is the extent of the input's dimension ``axis``.

    ``defaults``: arguments that it has others of.
    """
    signature = inspect.signature(real.__init__)
    formal = [p.replace(default=defaults.get(p.name, p.default)) for p in signature.parameters.values()]
    signature = signature.replace(parameters=formal)
    first = formal[1].name

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        call = signature.bind(self, 1, *args, **kwargs)
        call.arguments.update({name: call.arguments.get(name, value) for name, value in defaults.items()})
        bound = {name: value for name, value in call.arguments.items() if name not in ("self", first)}
        groups = bound.get("groups", 1)
        like = real(groups if isinstance(groups, int) and groups > 0 else 1, **bound)  # refuses what is wrong
        self._given = bound
        for name, value in vars(like).items():
            if isinstance(value, Parameter):
                value = UninitializedParameter(value.requires_grad, dtype=value.dtype)
            setattr(self, name, value)
        setattr(self, first, 0)

    __init__.__signature__ = signature.replace(parameters=[formal[0], *formal[2:]])  # type: ignore[attr-defined]
    text = f"`{real.__name__}` whose ``{first}`` is dimension {axis} of the first input."
    body = {"__init__": __init__, "__doc__": text, "__module__": __name__, "real": real, "axis": axis}
    return type(f"Lazy{real.__name__}", (LazyModule, real), body)


LazyLinear = _lazy(layers.Linear, -1)
LazyConv1d, LazyConv2d, LazyConv3d = (_lazy(getattr(convolution, f"Conv{n}d"), -1 - n) for n in (1, 2, 3))
LazyConvTranspose1d, LazyConvTranspose2d, LazyConvTranspose3d = (
    _lazy(getattr(convolution, f"ConvTranspose{n}d"), -1 - n) for n in (1, 2, 3)
)
LazyBatchNorm1d, LazyBatchNorm2d = _lazy(norms.BatchNorm1d, 1), _lazy(norms.BatchNorm2d, 1)
LazyBatchNorm3d = _lazy(local_norms.BatchNorm3d, 1)
LazyInstanceNorm1d, LazyInstanceNorm2d, LazyInstanceNorm3d = (
    _lazy(getattr(local_norms, f"InstanceNorm{n}d"), -1 - n, affine=True, track_running_stats=True) for n in (1, 2, 3)
)
