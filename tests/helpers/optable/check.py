"""The checks a row drives: one sample run by tapegrad and by torch, and how their numbers are compared."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import torch

import tapegrad as tg

from .spec import Row, Sample, fill

# Relative to the value itself, and to the largest one of its array (or to 1, the size of inputs and weights): what is
# left where terms of that size cancel.
GRADIENT = {torch.float64: (1e-9, 1e-12), torch.float32: (2e-5, 2e-6)}
# A sum in another order, or a formula in other steps, differs by some tens of roundings (2e-16 and 1e-7); a division
# by sqrt(eps), as in the norms, makes hundreds of them.
ROUNDED = {torch.float64: (1e-13, 1e-13), torch.float32: (1e-5, 1e-6)}


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """The arrays are tiny: a second thread would only wait. (Threads have tests of their own.)"""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def tensors(outputs: Any) -> list[Any]:
    """The tensors a function returned, as a list."""
    return list(outputs) if isinstance(outputs, tuple | list) else [outputs]


def raw(value: Any) -> torch.Tensor:
    """The plain torch tensor behind a result of either side."""
    return value.data if isinstance(value, tg.Tensor) else value.detach()


def precision(*sides: Side) -> tuple[float, float]:
    """The gradient tolerance of the coarsest dtype that went in or came out."""
    values = [raw(v) for side in sides for v in (*side.leaves, *side.outputs)]
    return max(GRADIENT[v.dtype] for v in values if v.is_floating_point())


def assert_close(got: torch.Tensor, expected: torch.Tensor, tolerance: tuple[float, float], what: str) -> None:
    """`got` is `expected`, NaN and infinities included, up to (relative to itself, relative to the largest value)."""
    assert got.shape == expected.shape, f"{what}: shape {list(got.shape)}, torch has {list(expected.shape)}"
    assert got.dtype is expected.dtype, f"{what}: dtype {got.dtype}, torch has {expected.dtype}"
    if torch.equal(got, expected):
        return
    got, expected = got.double(), expected.double()
    finite = expected.isfinite()
    scale = float(expected[finite].abs().max()) if bool(finite.any()) else 0.0
    relative, absolute = tolerance
    close = torch.isclose(got, expected, rtol=relative, atol=absolute * max(scale, 1.0), equal_nan=True)
    assert bool(close.all()), f"{what}: {shown(got)}, torch has {shown(expected)}"


def assert_equal(got: torch.Tensor, expected: torch.Tensor, what: str) -> None:
    """Bit for bit, except that a NaN is a NaN, and that zeros have no sign."""
    assert_close(got, expected, (0.0, 0.0), what)


def shown(value: torch.Tensor) -> str:
    return str(value.tolist()) if value.numel() <= 24 else str(value.flatten()[:24].tolist()) + "..."


class Call:
    """A sample with its numbers, to be run by either side."""

    def __init__(self, row: Row, sample: Sample, dtype: torch.dtype) -> None:
        self.row, self.sample, self.dtype = row, sample, dtype
        self.generator = torch.Generator().manual_seed(row.seeds[sample])
        self.specs = sample.specs()
        self.values = [spec.build(dtype, self.generator) for spec in self.specs]
        self.needs = [s.grad and v.is_floating_point() for s, v in zip(self.specs, self.values, strict=True)]

    def like(self, values: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Random numbers of the same shapes and dtypes; the same ones for every check of the sample."""
        generator = torch.Generator().manual_seed(1 + self.row.seeds[self.sample])
        return [torch.randn(v.shape, generator=generator, dtype=torch.float64).to(v.dtype) for v in values]

    def run(self, function: Callable[..., Any], arrays: Sequence[Any]) -> list[Any]:
        """The function called with `arrays` for the specs."""
        values = dict(zip(self.specs, arrays, strict=True))
        kwargs = {key: fill(value, values) for key, value in self.sample.kwargs.items()}
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*degrees of freedom")  # of one element: NaN, with torch's warning
            return tensors(function(*fill(self.sample.args, values), **kwargs))

    def torch(self, values: Sequence[torch.Tensor] | None = None) -> Side:
        """torch's outputs and derivatives, worked out once for the sample's own numbers."""
        if values is None:
            known = self.row.references.get((self.sample, self.dtype))
            if known is None:
                known = self.row.references[self.sample, self.dtype] = self.torch(self.values)
            return known
        leaves = [v.clone().requires_grad_(n) for v, n in zip(values, self.needs, strict=True)]
        return Side(self, leaves, self.reference(leaves), torch.autograd.grad)

    def reference(self, leaves: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """torch's function called with `leaves`."""
        assert self.row.reference is not None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what torch deprecates or doubts is still what it computes
            return self.run(self.row.reference, leaves)

    def tapegrad(self, values: Sequence[torch.Tensor] | None = None) -> Side:
        """tapegrad's outputs and derivatives."""
        leaves = [tg.Tensor(v.clone(), n) for v, n in zip(values or self.values, self.needs, strict=True)]
        return Side(self, leaves, self.run(self.row.function, leaves), tg.grad)


class Side:
    """The outputs of one side, and their derivatives as that side computes them."""

    def __init__(self, call: Call, leaves: list[Any], outputs: list[Any], grad: Callable[..., Any]) -> None:
        self.call, self.leaves, self.outputs, self.grad = call, leaves, outputs, grad
        self.inputs = [leaf for leaf, needs in zip(leaves, call.needs, strict=True) if needs]
        self.followed = [out for out in outputs if out.requires_grad]

    def _made(self, value: torch.Tensor) -> Any:
        return tg.Tensor(value, True) if self.grad is tg.grad else value.clone().requires_grad_()

    def _pull(
        self, outputs: list[Any], inputs: list[Any], gradients: list[Any], create_graph: bool = False
    ) -> list[Any]:
        """``torch.autograd.grad`` or ``tg.grad``, with zeros for what is not used."""
        if not outputs or not inputs:
            return [self._zeros(x) for x in inputs]
        grads = self.grad(outputs, inputs, gradients, create_graph=create_graph, allow_unused=True, retain_graph=True)
        return [self._zeros(x) if g is None else g for g, x in zip(grads, inputs, strict=True)]

    def _zeros(self, x: Any) -> Any:
        zeros = torch.zeros_like(raw(x))
        return tg.Tensor(zeros) if self.grad is tg.grad else zeros

    @functools.cached_property
    def seeds(self) -> list[Any]:
        """The gradient of each output: random numbers."""
        return [self._made(g) for g in self.call.like([raw(out) for out in self.followed])]

    @functools.cached_property
    def first(self) -> list[Any]:
        """The gradient of each input, recorded."""
        return self._pull(self.followed, self.inputs, self.seeds, create_graph=True)

    @functools.cached_property
    def plain(self) -> list[Any]:
        """The gradient of each input, not recorded: fused backward kernels run here."""
        seeds = [g.detach() for g in self.seeds]
        return self._pull(self.followed, self.inputs, seeds)

    @functools.cached_property
    def second(self) -> list[Any]:
        """The gradient of ``sum_i first[i] . random[i]`` with respect to inputs and seeds."""
        pairs = zip(self.first, self.call.like([raw(g) for g in self.first]), strict=True)
        kept = [(g, v) for g, v in pairs if g.requires_grad]
        weights = [tg.Tensor(v) if self.grad is tg.grad else v for _, v in kept]
        return self._pull([g for g, _ in kept], [*self.inputs, *self.seeds], weights)


def compare_values(row: Row, ours: Side, theirs: Side) -> None:
    assert len(ours.outputs) == len(theirs.outputs)
    for got, expected in zip(ours.outputs, theirs.outputs, strict=True):
        assert isinstance(got, tg.Tensor), f"a {type(got).__name__} instead of a Tensor"
        tolerance = (0.0, 0.0) if row.exact or not expected.is_floating_point() else ROUNDED[expected.dtype]
        assert_close(raw(got), raw(expected), tolerance, "value")
        assert got.requires_grad == expected.requires_grad, f"requires_grad is {got.requires_grad}"


STEP = 1e-4


def slope(f: Callable[[float], float]) -> float:
    """df/dt at 0 by a five-point difference, exact to O(STEP**4): 1e-16 from the step, 1e-12 from rounding."""
    return (8 * (f(STEP) - f(-STEP)) - (f(2 * STEP) - f(-2 * STEP))) / (12 * STEP)


def inner(a: Sequence[Any], b: Sequence[Any]) -> tuple[float, float]:
    """(sum of products, sum of their absolute values: the scale of its rounding)."""
    products = [(raw(x) * raw(y)).double() for x, y in zip(a, b, strict=True)]
    return sum(float(p.sum()) for p in products), sum(float(p.abs().sum()) for p in products)


def assert_agree(got: float, expected: float, relative: float, scale: float) -> None:
    """Two sums of terms whose absolute values add up to `scale` (numbers of order 1, whatever is left of them)."""
    bound = relative * max(scale, 1e-2)
    assert abs(got - expected) <= bound, f"{got!r} differs from {expected!r} by more than {bound:.1e}"


def failures(row: Row, check: Callable[[Sample], None], wanted: Callable[[Sample], bool] = lambda _: True) -> None:
    """Run a check on every sample of a row; all that fail are reported at once."""
    found = []
    chosen = [sample for sample in row.samples if wanted(sample)]
    assert chosen, "no sample of the row is of this kind"
    for sample in chosen:
        try:
            check(sample)
        except Exception as error:
            kind = "" if isinstance(error, AssertionError) else f"{type(error).__name__}: "
            found.append(f"{row.name}{sample}: {kind}{str(error).partition(chr(10) + 'assert')[0]}")
    assert not found, f"{len(found)} of {len(chosen)} samples\n" + "\n".join(found)
