"""What all distributions share: shapes, checks, and the functions that follow from others.

Shapes: a sample is [*sample_shape, *batch_shape, *event_shape]; `log_prob` of it is [*sample_shape, *batch_shape].
Samples come from the package's generator (`tapegrad.manual_seed`), so a compiled step draws what the eager one draws.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch

from ..core import ArgumentError, Tensor, no_grad, tensor_argument, verify
from ..ops import broadcast_tensors, exp, sqrt
from .constraints import Constraint

Shape = torch.Size


class Distribution:
    """A distribution, or a batch of them.

    Parameters
    ----------
    batch_shape : independent distributions with parameters of their own
    event_shape : of one draw
    validate_args : check parameters and values (default True); errors are ArgumentErrors, which are ValueErrors
    """

    has_rsample = False
    arg_constraints: ClassVar[dict[str, Constraint]] = {}
    support: Any = None

    def __init__(
        self, batch_shape: Any = (), event_shape: Any = (), validate_args: bool | None = None, **parameters: Any
    ) -> None:
        self.batch_shape, self.event_shape = Shape(batch_shape), Shape(event_shape)
        self.validate_args = validate_args is not False
        for name, constraint in self.arg_constraints.items() if self.validate_args else ():
            if name in parameters:
                self._check(constraint, parameters[name], f"parameter {name}")

    def _check(self, constraint: Constraint, value: Any, what: str) -> None:
        name = type(self).__name__
        verify(constraint.check(value), lambda: ArgumentError(f"{name}: {what} must lie in {constraint}; got {value}"))

    def _value(self, value: Any) -> Tensor:
        """A value handed in, checked against the support."""
        value = torch.tensor(float(value)) if isinstance(value, bool | int | float) else value
        x = tensor_argument(value, type(self).__name__, "value")
        if self.validate_args:
            support = self.support
            shape = self.batch_shape + self.event_shape
            try:
                torch.broadcast_shapes(x.shape, shape)  # type: ignore[no-untyped-call]
            except RuntimeError as error:
                raise ArgumentError(
                    f"{type(self).__name__}: value of shape {list(x.shape)} does not broadcast with {list(shape)}"
                ) from error
            if isinstance(support, Constraint):
                self._check(support, x, "value")
        return x

    def _extended(self, sample_shape: Any) -> Shape:
        """The shape of a sample."""
        return Shape(sample_shape) + self.batch_shape + self.event_shape

    # torch's names of these, which distributions that scripts write use

    def _extended_shape(self, sample_shape: Any = ()) -> Shape:
        return self._extended(sample_shape)

    def _validate_sample(self, value: Any) -> None:
        self._value(value)

    @property
    def _batch_shape(self) -> Any:
        return self.batch_shape

    @property
    def _event_shape(self) -> Any:
        return self.event_shape

    @property
    def _validate_args(self) -> bool:
        return self.validate_args

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """A sample through which gradients reach the parameters."""
        raise NotImplementedError(f"{type(self).__name__} has no rsample: gradients cannot pass through its samples")

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """A sample, a constant."""
        with no_grad():
            return self.rsample(sample_shape).detach()

    def sample_n(self, n: int) -> Tensor:
        """``sample((n,))``."""
        return self.sample((n,))

    def log_prob(self, value: Any) -> Tensor:
        """The logarithm of the density (or probability) at a value."""
        raise NotImplementedError(f"{type(self).__name__} has no log_prob")

    def entropy(self) -> Tensor:
        """``-E ln p``."""
        raise NotImplementedError(f"{type(self).__name__} has no entropy in closed form")

    def cdf(self, value: Any) -> Tensor:
        """The probability of at most the value."""
        raise NotImplementedError(f"{type(self).__name__} has no cdf")

    def icdf(self, value: Any) -> Tensor:
        """The inverse of `cdf`."""
        raise NotImplementedError(f"{type(self).__name__} has no icdf")

    @property
    def mean(self) -> Tensor:
        """The expectation."""
        raise NotImplementedError(f"{type(self).__name__} has no mean")

    @property
    def variance(self) -> Tensor:
        """The variance, of each element of the event."""
        raise NotImplementedError(f"{type(self).__name__} has no variance")

    @property
    def mode(self) -> Tensor:
        """The value of largest density."""
        raise NotImplementedError(f"{type(self).__name__} has no mode")

    @property
    def stddev(self) -> Tensor:
        """The square root of the variance."""
        return sqrt(self.variance)

    def perplexity(self) -> Tensor:
        """``e**entropy``."""
        return exp(self.entropy())

    def expand(self, batch_shape: Any) -> Any:
        """The same distribution for a larger batch."""
        shape = tuple(batch_shape)
        given = {
            name: getattr(self, name).expand((*shape, *getattr(self, name).shape[len(self.batch_shape) :]))
            for name in self._given
        }
        return type(self)(**given, validate_args=False)

    _given: tuple[str, ...] = ()  # the constructor's arguments that are tensors

    def __repr__(self) -> str:
        shown = ", ".join(
            f"{n}: {v.item():g}" if v.numel() == 1 else f"{n}: {list(v.shape)}"
            for n in self._given
            for v in [getattr(self, n)]
        )
        return f"{type(self).__name__}({shown})"


def parameters(name: str, **values: Any) -> list[Tensor]:
    """Numbers and tensors as Tensors of one shape and a floating dtype."""
    tensors = [v for v in values.values() if isinstance(v, Tensor | torch.Tensor)]
    dtype = next((v.dtype for v in tensors if v.dtype.is_floating_point), torch.get_default_dtype())
    made = [
        tensor_argument(v if isinstance(v, Tensor | torch.Tensor) else torch.tensor(v, dtype=dtype), name, key)
        for key, v in values.items()
    ]
    made = [v if v.is_floating_point() else v.to(dtype) for v in made]
    return list(broadcast_tensors(*made))
