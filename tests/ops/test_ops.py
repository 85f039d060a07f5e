"""Every op of the table against torch and finite differences; ``pytest -k tanh`` runs one row."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from optable import rows
from optable.check import (
    ROUNDED,
    Call,
    Side,
    assert_agree,
    assert_close,
    assert_equal,
    compare_values,
    failures,
    inner,
    precision,
    raw,
    slope,
)
from optable.check import one_thread as one_thread
from optable.names import PUBLIC
from optable.spec import Sample

import tapegrad as tg
from tapegrad.core import registry

FLOATS = (torch.float64, torch.float32)
DIFFERENCE = 1e-8  # of a slope: STEP**4 times fifth derivatives, and rounding of the function divided by STEP
names = list(rows)
differentiable = [name for name, row in rows.items() if row.differentiable]
each_row = pytest.mark.parametrize("name", names)
each_differentiable_row = pytest.mark.parametrize("name", differentiable)
each_dtype = pytest.mark.parametrize("dtype", FLOATS, ids=["float64", "float32"])


def smooth(sample: Sample) -> bool:
    return sample.smooth and not any(spec.dtype is torch.float32 and spec.grad for spec in sample.specs())


def once(sample: Sample) -> bool:
    return sample.order >= 1


def twice(sample: Sample) -> bool:
    return sample.order == 2


# --- the table is complete ---------------------------------------------------------------------------------------


def test_every_registered_op_has_a_row() -> None:
    program = "from tapegrad.core import registry; print(*registry)"  # a fresh interpreter: other tests register too
    here = Path(__file__).parent  # away from the uncompiled source
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=here)
    driven = {op for row in rows.values() for op in (row.name, *row.ops, *row.third)}
    # a random sample's derivative is no finite difference: test_distributions.py compares it with moments
    sampled = {"standard_gamma", "standard_gamma_slope"}
    without = sorted(set(ran.stdout.split()) - driven - sampled)
    assert not without, f"ops without a row in tests/helpers/optable: {' '.join(without)}"


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_op_exists_has_a_row_and_a_docstring(name: str) -> None:
    function = getattr(tg, name, None)
    assert callable(function), f"tg.{name} does not exist"
    assert name in rows
    assert (function.__doc__ or "").strip()
    if hasattr(torch.nn.functional, name):
        assert callable(getattr(tg.nn.functional, name, None)), f"tg.nn.functional.{name} does not exist"


@each_row
def test_every_row_has_an_empty_and_a_small_sample(name: str) -> None:
    shapes = [value.shape for sample in rows[name].samples for value in Call(rows[name], sample, torch.float64).values]
    assert any(shape.numel() == 0 for shape in shapes), "no sample with an empty array"
    assert any(shape.numel() == 1 for shape in shapes), "no sample with an array of one element"


@each_differentiable_row
def test_the_row_records_the_ops_it_names(name: str) -> None:
    row = rows[name]
    with tg.Tape() as tape:
        for sample in row.samples:
            Call(row, sample, torch.float64).tapegrad().second  # noqa: B018  (records backward, too)
    expected = set(row.ops) or ({name} & set(registry))
    assert expected <= {entry.op.name for entry in tape}


@pytest.mark.parametrize("name", [name for name, row in rows.items() if row.third])
def test_third_and_fourth_derivatives_are_torchs(name: str) -> None:
    x = torch.linspace(-2, 2, 12, dtype=torch.float64)
    x = (x + (5 * x * x).cos() / 3).reshape(3, 4).t()  # of full rank
    ours, theirs = tg.Tensor(x.clone(), requires_grad=True), x.clone().requires_grad_()
    y, expected = (rows[name].call or getattr(tg, name))(ours), rows[name].reference(theirs)
    with tg.Tape() as tape:
        for _ in range(4):
            (y,) = tg.grad(y.sum(), [ours], create_graph=True)
            (expected,) = torch.autograd.grad(expected.sum(), [theirs], create_graph=True)
            torch.testing.assert_close(y.data, expected.detach(), rtol=1e-12, atol=1e-12)
    assert set(rows[name].third) <= {entry.op.name for entry in tape}


# --- value -------------------------------------------------------------------------------------------------------


@each_dtype
@each_row
def test_value_dtype_and_shape_are_torchs(name: str, dtype: torch.dtype) -> None:
    def check(sample: Sample) -> None:
        call = Call(rows[name], sample, dtype)
        compare_values(rows[name], call.tapegrad(), call.torch())

    failures(rows[name], check)


# --- derivatives -------------------------------------------------------------------------------------------------


@each_dtype
@each_differentiable_row
def test_gradient_is_torchs(name: str, dtype: torch.dtype) -> None:
    def check(sample: Sample) -> None:
        call = Call(rows[name], sample, dtype)
        ours, theirs = call.tapegrad(), call.torch()
        for got, recorded, expected in zip(ours.plain, ours.first, theirs.plain, strict=True):
            assert_close(raw(got), raw(expected), precision(theirs), "gradient")
            assert_close(raw(recorded), raw(expected), precision(theirs), "recorded gradient")

    failures(rows[name], check, once)


@each_differentiable_row
def test_second_derivative_is_torchs(name: str) -> None:
    def check(sample: Sample) -> None:
        call = Call(rows[name], sample, torch.float64)
        ours = call.tapegrad()
        try:
            expected = call.torch().second
        except RuntimeError:  # torch has no second derivative, or fails in it (layer_norm with bias alone, ...)
            assert sample.smooth, "neither torch nor finite differences give a second derivative here"
            return  # finite differences are the reference, below
        for got, theirs in zip(ours.second, expected, strict=True):
            assert_close(raw(got), raw(theirs), precision(ours), "second derivative")

    failures(rows[name], check, twice)


def along(call: Call, seed: int) -> list[torch.Tensor]:
    """A random direction for each array that is differentiated."""
    source = torch.Generator().manual_seed(seed)
    needed = [v for v, n in zip(call.values, call.needs, strict=True) if n]
    return [torch.randn(v.shape, generator=source, dtype=torch.float64).to(v.dtype) for v in needed]


def moved(call: Call, direction: list[torch.Tensor], t: float) -> list[torch.Tensor]:
    """The sample's arrays, those that are differentiated moved by t times their direction."""
    steps = iter(direction)
    return [v + t * next(steps) if n else v for v, n in zip(call.values, call.needs, strict=True)]


@each_differentiable_row
def test_gradient_is_the_finite_difference(name: str) -> None:
    def check(sample: Sample) -> None:
        call = Call(rows[name], sample, torch.float64)
        side = call.tapegrad()
        direction = along(call, 1)
        got, scale = inner(side.plain, direction)

        def f(t: float) -> float:
            return inner(call.tapegrad(moved(call, direction, t)).followed, side.seeds)[0]

        assert_agree(got, slope(f), DIFFERENCE, scale)

    failures(rows[name], check, smooth)


@each_differentiable_row
def test_second_derivative_is_the_finite_difference(name: str) -> None:
    def check(sample: Sample) -> None:
        call = Call(rows[name], sample, torch.float64)
        side = call.tapegrad()
        direction = along(call, 2)
        pushed = call.like([raw(g) for g in side.seeds])
        weights = call.like([raw(g) for g in side.first])
        got, scale = inner(side.second, [*direction, *pushed])

        def f(t: float) -> float:
            here = call.tapegrad(moved(call, direction, t))
            here.seeds = [tg.Tensor(raw(g) + t * u) for g, u in zip(side.seeds, pushed, strict=True)]
            return inner(here.plain, weights)[0]

        assert_agree(got, slope(f), DIFFERENCE, scale)

    failures(rows[name], check, lambda sample: smooth(sample) and twice(sample))


@each_dtype
@each_differentiable_row
def test_forward_mode_is_the_transpose_of_torchs_gradient(name: str, dtype: torch.dtype) -> None:
    def check(sample: Sample) -> None:
        call = Call(rows[name], sample, dtype)
        theirs = call.torch()
        if not theirs.followed or not all(bool(g.isfinite().all()) for g in (*theirs.plain, *theirs.followed)):
            return  # no derivative, or an infinite one
        places = [i for i, n in enumerate(call.needs) if n]
        tangents = along(call, 3)

        def f(*inputs: tg.Tensor) -> tuple[tg.Tensor, ...]:
            arrays = [tg.Tensor(v.clone()) for v in call.values]
            for i, x in zip(places, inputs, strict=True):
                arrays[i] = x
            outs = call.run(rows[name].function, arrays)
            return tuple(out for out, torchs in zip(outs, theirs.outputs, strict=True) if torchs.requires_grad)

        primals = tuple(tg.Tensor(call.values[i].clone()) for i in places)
        outs, pushed = tg.func.jvp(f, primals, tuple(tg.Tensor(t) for t in tangents))
        for out, tangent, expected in zip(outs, pushed, theirs.followed, strict=True):
            assert_close(raw(out), raw(expected), ROUNDED[out.dtype], "value")
            assert (tangent.shape, tangent.dtype) == (out.shape, out.dtype)
        # <J u, g> = <u, J' g>
        got, scale = inner(pushed, theirs.seeds)
        expected = inner(tangents, theirs.plain)[0]
        assert_agree(got, expected, precision(theirs)[0], scale)

    failures(rows[name], check, once)


# --- layouts, mutation, aliasing ---------------------------------------------------------------------------------


def strided(value: torch.Tensor) -> torch.Tensor:
    """The same numbers with gaps between them, dimensions in reversed order of strides."""
    reverse = tuple(range(value.ndim))[::-1]
    wide = torch.full((*value.permute(reverse).shape, 2), 7).to(value.dtype)
    wide[..., 1] = value.permute(reverse)
    return wide[..., 1].permute(reverse)


def expanded(value: torch.Tensor) -> torch.Tensor:
    """The first slice of the largest dimension, repeated with stride 0."""
    if value.ndim == 0 or value.numel() == 0:
        return value
    dim = max(range(value.ndim), key=lambda d: value.shape[d])
    return value.narrow(dim, 0, 1).expand(value.shape)


@pytest.mark.parametrize("layout", [strided, expanded], ids=["strided", "expanded"])
@each_row
def test_layout_does_not_matter(name: str, layout: Callable[[torch.Tensor], torch.Tensor]) -> None:
    row = rows[name]

    def check(sample: Sample) -> None:
        call = Call(row, sample, torch.float64)
        values = [layout(v) if v.is_floating_point() or layout is strided else v for v in call.values]
        leaves = [tg.Tensor(v, n) for v, n in zip(values, call.needs, strict=True)]
        theirs = call.torch(None if layout is strided else [v.contiguous() for v in values])
        if name == "view":
            try:
                call.reference(values)
            except RuntimeError:
                with pytest.raises(tg.ShapeError, match="view"):
                    call.run(row.function, leaves)
                return
        ours = Side(call, leaves, call.run(row.function, leaves), tg.grad)
        for got, expected in zip(ours.outputs, theirs.outputs, strict=True):
            if expected.is_floating_point():  # sums run in the order of the strides
                assert_close(raw(got), raw(expected), ROUNDED[expected.dtype], "value")
            else:
                assert_equal(raw(got), raw(expected), "value")
        if not sample.order:
            return
        for got, recorded, expected in zip(ours.plain, ours.first, theirs.plain, strict=True):
            assert_close(raw(got), raw(expected), precision(theirs), "gradient")
            assert_close(raw(recorded), raw(expected), precision(theirs), "recorded gradient")

    failures(row, check)


@each_row
def test_inputs_are_left_as_they_were(name: str) -> None:
    def check(sample: Sample) -> None:
        call = Call(rows[name], sample, torch.float64)
        arrays = [v.clone() for v in call.values]
        versions = [v._version for v in arrays]
        leaves = [tg.Tensor(v, n) for v, n in zip(arrays, call.needs, strict=True)]
        side = Side(call, leaves, call.run(rows[name].function, leaves), tg.grad)
        seeds = [raw(g).clone() for g in side.seeds]
        side.second  # noqa: B018  (forward, backward, and its backward)
        side.plain  # noqa: B018
        assert [v._version for v in arrays] == versions, "an input was written to"
        for before, after in zip([*call.values, *seeds], [*arrays, *map(raw, side.seeds)], strict=True):
            assert_equal(after, before, "input or output gradient after backward")

    failures(rows[name], check)


def storage(value: Any) -> int:
    return raw(value).untyped_storage().data_ptr()


@each_differentiable_row
def test_grad_shares_memory_with_nothing(name: str) -> None:
    def check(sample: Sample) -> None:
        side = Call(rows[name], sample, torch.float64).tapegrad()
        for out, g in zip(side.followed, side.seeds, strict=True):
            out.backward(g.detach(), retain_graph=True)
        grads = [x.grad for x in side.inputs if x.grad is not None and x.numel()]
        held = [storage(v) for v in (*side.leaves, *side.outputs, *side.seeds) if v.numel()]
        own = [storage(g) for g in grads]
        assert len(set(own)) == len(own), "two leaves share a gradient"
        assert not set(own) & set(held), "a leaf's gradient is a view of an input, an output or an output's gradient"

    failures(rows[name], check)
