"""What a row of the op table is made of: array specs, samples, rows.

A spec stands for an array whose numbers are drawn when the sample is run, in the dtype of the check. The same spec
twice in one sample is the same array twice.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch


@dataclass(eq=False)
class Spec:
    """An array argument: `draw(generator)` in float64, cast to `dtype` (None: that of the check)."""

    text: str
    draw: Callable[[torch.Generator], torch.Tensor]
    grad: bool = True
    dtype: torch.dtype | None = None

    def build(self, dtype: torch.dtype, generator: torch.Generator) -> torch.Tensor:
        return self.draw(generator).to(self.dtype or dtype).clone()

    def __repr__(self) -> str:
        return self.text

    def to(self, dtype: torch.dtype) -> Spec:
        """The same numbers, always in `dtype`."""
        return Spec(f"{self.text}.to({dtype})", self.draw, self.grad and dtype.is_floating_point, dtype)


def uniform(low: float, high: float) -> Callable[..., Spec]:
    def make(*shape: int) -> Spec:
        return Spec(
            f"uniform[{low}, {high}]{list(shape)}",
            lambda generator: low + (high - low) * torch.rand(shape, generator=generator, dtype=torch.float64),
        )

    return make


def R(*shape: int) -> Spec:
    """Standard normal numbers."""
    return Spec(f"R{list(shape)}", lambda generator: torch.randn(shape, generator=generator, dtype=torch.float64))


def D(*shape: int) -> Spec:
    """Distinct numbers, 0.1 apart, so that a small step does not change their order."""
    n = torch.Size(shape).numel()

    def draw(generator: torch.Generator) -> torch.Tensor:
        return (torch.randperm(n, generator=generator).double() * 0.1 - 1.0).reshape(shape)

    return Spec(f"D{list(shape)}", draw)


P = uniform(0.5, 2.0)  # positive
U = uniform(-0.9, 0.9)  # inside (-1, 1)
Q = uniform(0.1, 0.9)  # inside (0, 1)


def V(values: Any) -> Spec:
    """The floats written down."""
    return Spec(f"V({values})", lambda _: torch.tensor(values, dtype=torch.float64))


def ints(values: Any, shape: Sequence[int] | None = None) -> Spec:
    """The int64 numbers written down."""
    made = torch.tensor(values, dtype=torch.int64)
    made = made if shape is None else made.reshape(shape)
    return Spec(f"ints({values})", lambda _: made, grad=False, dtype=torch.int64)


def bools(values: Any) -> Spec:
    """The bools written down."""
    return Spec(f"bools({values})", lambda _: torch.tensor(values, dtype=torch.bool), grad=False, dtype=torch.bool)


def data(spec: Spec) -> Spec:
    """The same array, of which no gradient is asked."""
    return Spec(f"data({spec.text})", spec.draw, grad=False, dtype=spec.dtype)


@dataclass(eq=False)
class Sample:
    """One call: arguments with specs inside, how far to differentiate, and whether differences mean anything there."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    order: int = 2  # derivatives compared with torch's
    smooth: bool = True  # False at kinks and special values, where a finite difference is no reference

    def __repr__(self) -> str:
        shown = [*map(repr, self.args), *(f"{key}={value!r}" for key, value in self.kwargs.items())]
        return f"({', '.join(shown)})"

    def specs(self) -> list[Spec]:
        """The arrays, each once, in order of appearance."""
        return list(dict.fromkeys(walk((self.args, tuple(self.kwargs.values())))))


def S(*args: Any, **kwargs: Any) -> Sample:
    """A sample inside the domain: everything is checked, against torch and finite differences."""
    return Sample(args, kwargs)


def K(*args: Any, **kwargs: Any) -> Sample:
    """A kink, tie or end of the domain: value and derivatives are torch's convention, no finite differences."""
    return Sample(args, kwargs, smooth=False)


def K1(*args: Any, **kwargs: Any) -> Sample:
    """As `K`, but second derivatives do not exist there, and nothing is compared."""
    return Sample(args, kwargs, smooth=False, order=1)


def K0(*args: Any, **kwargs: Any) -> Sample:
    """As `K`, but only the value is torch's."""
    return Sample(args, kwargs, smooth=False, order=0)


def walk(tree: Any) -> Iterator[Spec]:
    """The specs inside nested tuples and lists."""
    if isinstance(tree, Spec):
        yield tree
    elif isinstance(tree, tuple | list):
        for item in tree:
            yield from walk(item)


def fill(tree: Any, values: dict[Spec, Any]) -> Any:
    """`tree` with its specs replaced."""
    if isinstance(tree, Spec):
        return values[tree]
    if isinstance(tree, tuple | list):
        return type(tree)([fill(item, values) for item in tree])
    return tree


def oracle(name: str) -> Callable[..., Any]:
    """torch's function of that name."""
    for place in (torch.nn.functional, torch, torch.Tensor):
        if hasattr(place, name):
            return getattr(place, name)  # type: ignore[no-any-return]
    raise LookupError(f"torch has no function {name}; the row must name its reference")


@dataclass(eq=False)
class Row:
    """A public function, calls of it, and torch's function that they are compared with.

    Attributes
    ----------
    name : of the public function ``tg.NAME``, unless `call` says how tapegrad is called
    reference : default torch.NAME, torch.nn.functional.NAME or torch.Tensor.NAME
    ops : registered ops that the row drives, if not just the one of its name
    third : registered ops that only a recorded second derivative takes
    exact : the value is torch's bit for bit; else to rounding (a kernel of ours, or another order of operations)
    differentiable : False for functions with integer or bool results
    method : compare ``x.NAME(...)`` where torch has such a method
    integers : integer and bool inputs give what torch gives, or are refused where torch refuses
    """

    name: str
    samples: list[Sample]
    reference: Callable[..., Any] | None = None
    call: Callable[..., Any] | None = None
    ops: tuple[str, ...] = ()
    third: tuple[str, ...] = ()
    exact: bool = True
    differentiable: bool = True
    method: bool = True
    integers: bool = False
    family: str = ""
    seeds: dict[Sample, int] = field(init=False)
    references: dict[tuple[Sample, torch.dtype], Any] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.reference = self.reference or oracle(self.name)
        self.seeds = {sample: zlib.crc32(f"{self.name} {i}".encode()) for i, sample in enumerate(self.samples)}

    @property
    def function(self) -> Callable[..., Any]:
        import tapegrad as tg

        return self.call or getattr(tg, self.name)  # type: ignore[no-any-return]
