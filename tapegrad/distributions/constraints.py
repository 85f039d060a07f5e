"""Domains: what a parameter or a value may be. Each constraint answers ``check(value)``, a bool for each event."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

__all__ = [
    "Constraint",
    "boolean",
    "dependent",
    "greater_than",
    "independent",
    "integer_interval",
    "interval",
    "lower_cholesky",
    "nonnegative",
    "nonnegative_integer",
    "one_hot",
    "positive",
    "positive_definite",
    "real",
    "real_vector",
    "simplex",
    "unit_interval",
]


@dataclass(frozen=True)
class Constraint:
    """A set of values; ``event_dim`` of the last dimensions are one event, which is in the set or not."""

    name: str
    test: Callable[[torch.Tensor], torch.Tensor]
    event_dim: int = 0
    is_discrete: bool = False

    def check(self, value: Any) -> torch.Tensor:
        """True where the raw values lie in the set."""
        raw = value.detach().data if hasattr(value, "_data") else torch.as_tensor(value)
        return self.test(raw)

    def __repr__(self) -> str:
        return self.name


def interval(low: Any, high: Any) -> Constraint:
    """[low, high], ends included."""
    return Constraint(f"Interval(lower_bound={low}, upper_bound={high})", lambda x: (x >= low) & (x <= high))


def greater_than(low: Any) -> Constraint:
    """Above low."""
    return Constraint(f"GreaterThan(lower_bound={low})", lambda x: x > low)


def integer_interval(low: Any, high: Any) -> Constraint:
    """The integers from low to high."""
    name = f"IntegerInterval(lower_bound={low}, upper_bound={high})"
    return Constraint(name, lambda x: (x % 1 == 0) & (x >= low) & (x <= high), is_discrete=True)


def independent(base: Constraint, dims: int) -> Constraint:
    """The base's set for every element of the last ``dims`` dimensions."""

    def test(x: torch.Tensor) -> torch.Tensor:
        inside = base.test(x)
        return inside.reshape(*inside.shape[: inside.ndim - dims], -1).all(-1) if dims else inside

    return Constraint(f"Independent({base}, {dims})", test, base.event_dim + dims, base.is_discrete)


def _is_one_hot(x: torch.Tensor) -> torch.Tensor:
    return ((x == 0) | (x == 1)).all(-1) & (x.sum(-1) == 1)


def _is_positive_definite(x: torch.Tensor) -> torch.Tensor:
    symmetric: torch.Tensor = torch.isclose(x, x.mT, atol=1e-6).all(-1).all(-1)
    return symmetric & (torch.linalg.cholesky_ex(x).info == 0)  # type: ignore[no-any-return]


real = Constraint("Real()", lambda x: x == x)
real_vector = independent(real, 1)
positive = Constraint("GreaterThan(lower_bound=0.0)", lambda x: x > 0)
nonnegative = Constraint("GreaterThanEq(lower_bound=0.0)", lambda x: x >= 0)
unit_interval = interval(0.0, 1.0)
boolean = Constraint("Boolean()", lambda x: (x == 0) | (x == 1), is_discrete=True)
nonnegative_integer = Constraint(
    "IntegerGreaterThan(lower_bound=0)", lambda x: (x % 1 == 0) & (x >= 0), is_discrete=True
)
simplex = Constraint("Simplex()", lambda x: (x >= 0).all(-1) & ((x.sum(-1) - 1).abs() < 1e-6), 1)
one_hot = Constraint("OneHot()", _is_one_hot, 1, True)
lower_cholesky = Constraint(
    "LowerCholesky()", lambda x: (x.tril() == x).all(-1).all(-1) & (x.diagonal(0, -2, -1) > 0).all(-1), 2
)
positive_definite = Constraint("PositiveDefinite()", _is_positive_definite, 2)
dependent = Constraint("Dependent()", lambda x: torch.ones_like(x, dtype=torch.bool))
