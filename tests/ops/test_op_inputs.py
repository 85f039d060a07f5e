"""What ops take and how: arrays from outside, methods, operators, argument names, any shape, integers, numbers."""

from __future__ import annotations

import inspect
import re
from typing import Any

import numpy
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import mutually_broadcastable_shapes
from optable import rows
from optable.check import GRADIENT, Call, Side, assert_close, assert_equal, compare_values, failures, raw
from optable.check import one_thread as one_thread
from optable.names import PUBLIC
from optable.spec import Row, Sample

import tapegrad as tg

# --- types -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name, row in rows.items() if row.integers])
def test_integers_and_bools_give_what_torch_gives_or_are_refused(name: str) -> None:
    def check(sample: Sample) -> None:
        for dtype in (torch.int64, torch.int32, torch.uint8, torch.bool):
            call = Call(rows[name], sample, torch.float64)
            call.needs = [False] * len(call.values)
            floats = [v.is_floating_point() for v in call.values]
            whole = [v.nan_to_num(1, 2, 0).mul(3).abs() if f else v for v, f in zip(call.values, floats, strict=True)]
            values = [v.to(dtype) if f else v for v, f in zip(whole, floats, strict=True)]
            try:
                theirs = call.torch(values)
            except (RuntimeError, TypeError, IndexError, ValueError):
                with pytest.raises((tg.TapegradError, TypeError), match=name):
                    call.tapegrad(values)
            else:
                compare_values(rows[name], call.tapegrad(values), theirs)

    failures(rows[name], check)


DTYPES = [torch.float32, torch.float64, torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64]
OF_TWO = [row.name for row in rows.values() if row.name.startswith(("bitwise_", "logical_")) or row.family == "binary"]


@pytest.mark.parametrize("name", [n for n in [*OF_TWO, "eq", "lt", "ge"] if not n.endswith("_not")])
def test_dtypes_are_promoted_as_torch_promotes_them(name: str) -> None:
    row, x, y = rows[name], torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0], [1.0]])
    for left in DTYPES:
        rights = [y.to(dtype) for dtype in DTYPES] + [y[0, 0].to(dtype) for dtype in DTYPES] + [3, 2.5, True]
        for right in rights:
            what = f"{name}({left}, {right!r})"
            try:
                expected = row.reference(x.to(left), right)  # type: ignore[misc]
            except (RuntimeError, TypeError):
                if isinstance(right, torch.Tensor):  # some of torch's functions take no number where ours do
                    with pytest.raises((tg.TapegradError, TypeError), match=name):
                        row.function(x.to(left), right)
                continue
            assert_equal(raw(row.function(x.to(left), right)), expected, what)


@pytest.mark.parametrize("name", [name for name, row in rows.items() if row.call is None])  # else a Tensor's operator
def test_torch_tensors_and_numpy_arrays_are_accepted(name: str) -> None:
    row = rows[name]

    def check(sample: Sample) -> None:
        call = Call(row, sample, torch.float64)
        ours = call.tapegrad()
        for arrays in ([v.clone() for v in call.values], [v.clone().numpy() for v in call.values]):
            for got, expected in zip(call.run(row.function, arrays), ours.outputs, strict=True):
                assert isinstance(got, tg.Tensor)
                assert not got.requires_grad
                assert_equal(raw(got), raw(expected), f"value of {type(arrays[0])}")

    failures(row, check)


@pytest.mark.parametrize("name", [n for n, row in rows.items() if row.method and hasattr(torch.Tensor, n)])
def test_the_method_is_the_function(name: str) -> None:
    row = rows[name]

    def check(sample: Sample) -> None:
        call = Call(row, sample, torch.float64)
        ours = call.tapegrad()
        leaves = [tg.Tensor(v) for v in call.values]
        outs = call.run(lambda x, *args, **kwargs: getattr(x, name)(*args, **kwargs), leaves)
        for got, expected in zip(outs, ours.outputs, strict=True):
            assert_equal(raw(got), raw(expected), "value")

    failures(row, check, lambda sample: sample.args[0] in sample.specs())


# of no use on one CPU, or torch's own plumbing
NOT_OURS = {
    "out",
    "layout",
    "device",
    "pin_memory",
    "requires_grad",
    "inplace",
    "size_average",
    "reduce",
    "_stacklevel",
}
NOT_OURS |= {"sparse", "sparse_grad", "max_norm", "norm_type", "antialias", "enable_gqa"}


def torch_arguments(name: str) -> tuple[list[str], list[str]]:
    """(positional, keyword-only) arguments of torch's function, by its signature or the first line of its docstring."""
    documented = [
        p for p in (torch.nn.functional, torch, torch.Tensor) if hasattr(p, name) and getattr(p, name).__doc__
    ]
    function = torch.nn.functional.max_pool2d_with_indices if name == "max_pool2d" else getattr(documented[0], name)
    try:
        listed = str(inspect.signature(function))
    except ValueError:
        listed = re.split(r"->|\n\n", function.__doc__.strip())[0]
    inside = re.sub(r"\[[^]]*\]|\([^()]*\)", "", listed[listed.index("(") + 1 : listed.rindex(")")].replace("\\", ""))
    names = [re.split(r"[=:]", part)[0].split()[-1] for part in inside.split(",") if part.strip()]
    names = [name.lstrip("*") or "*" for name in names if name not in ("*args", "**kwargs")]
    names = (["input"] if documented[0] is torch.Tensor else []) + names
    star = names.index("*") if "*" in names else len(names)
    return [n for n in names[:star] if n not in NOT_OURS], [n for n in names[star + 1 :] if n not in NOT_OURS]


@pytest.mark.parametrize("name", [n for n in PUBLIC if n != "upsample_nearest2d"])  # torch's is private
def test_argument_names_and_order_are_torchs(name: str) -> None:
    positional, keywords = torch_arguments(name)
    parameters = inspect.signature(getattr(tg, name)).parameters.values()
    ours = [p.name for p in parameters]
    missing = [n for n in (*positional, *keywords) if n not in ours]
    assert not missing, f"{missing} of torch's {positional} and {keywords} are missing from {ours}"
    assert [n for n in ours if n in positional] == positional
    assert not [p.name for p in parameters if p.name in positional and p.kind is p.KEYWORD_ONLY]


# --- shapes and broadcasting, drawn ------------------------------------------------------------------------------

drawn = settings(
    max_examples=12, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
shapes_of_two = mutually_broadcastable_shapes(num_shapes=2, max_dims=4, min_side=0, max_side=3)


def compare_all(row: Row, ours: Side, theirs: Side) -> None:
    compare_values(row, ours, theirs)
    for got, expected in zip([*ours.first, *ours.second], [*theirs.first, *theirs.second], strict=True):
        assert_close(raw(got), raw(expected), GRADIENT[torch.float64], "derivative")


def family(name: str) -> list[str]:
    return [row.name for row in rows.values() if row.family == name]


def positive(shape: tuple[int, ...], seed: int) -> torch.Tensor:
    """Numbers in [0.1, 0.9]: inside every op's domain."""
    return 0.1 + 0.8 * torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("name", family("binary"))
@drawn
@given(shapes=shapes_of_two)
def test_broadcasting_is_torchs(name: str, shapes: Any) -> None:
    row, call = rows[name], Call(rows[name], rows[name].samples[0], torch.float64)
    values = [positive(shape, i) for i, shape in enumerate(shapes.input_shapes)]
    compare_all(row, call.tapegrad(values), call.torch(values))


@pytest.mark.parametrize("name", family("unary"))
@drawn
@given(shape=st.lists(st.integers(0, 4), max_size=5).map(tuple))
def test_every_shape_is_taken(name: str, shape: tuple[int, ...]) -> None:
    row, call = rows[name], Call(rows[name], rows[name].samples[0], torch.float64)
    compare_all(row, call.tapegrad([positive(shape, 0)]), call.torch([positive(shape, 0)]))


@pytest.mark.parametrize("name", family("reduction"))
@drawn
@given(shape=st.lists(st.integers(2, 4), min_size=1, max_size=4).map(tuple), data=st.data())
def test_every_dim_is_reduced(name: str, shape: tuple[int, ...], data: st.DataObject) -> None:
    dim = data.draw(st.integers(-len(shape), len(shape) - 1))
    kwargs = {} if name in ("cumsum", "cumprod") else {"keepdim": data.draw(st.booleans())}
    if name in ("var", "std"):
        kwargs["correction"] = 0
    row = rows[name]
    first = row.samples[0]
    sample = Sample((first.args[0], dim), kwargs)
    row.seeds[sample] = 0
    call = Call(row, sample, torch.float64)
    compare_all(row, call.tapegrad([positive(shape, 0)]), call.torch([positive(shape, 0)]))


def test_numbers_and_arrays_stand_on_either_side_of_every_operator() -> None:
    operators = ["+", "-", "*", "/", "//", "%", "**", "<", "<=", ">", ">=", "==", "!="]
    values = torch.tensor([0.5, 1.5, 2.0], dtype=torch.float64)
    other = torch.tensor([1.0, 1.5, 3.0], dtype=torch.float64)
    for symbol in operators:
        for left, right in [("x", "2"), ("2", "x"), ("x", "y"), ("x", "a"), ("a", "x"), ("x", "t"), ("t", "x")]:
            text = f"{left} {symbol} {right}"
            x = tg.tensor(values, requires_grad=True)
            ours = eval(text, {"x": x, "y": tg.tensor(other), "a": other.numpy(), "t": other})
            theirs = eval(text, {"x": values, "y": other, "a": other, "t": other})
            assert isinstance(ours, tg.Tensor), text
            assert_equal(raw(ours), theirs, text)
            assert ours.requires_grad == theirs.is_floating_point(), text


def test_dropout_keeps_the_share_it_is_asked_for() -> None:
    kept = tg.dropout(torch.ones(20_000), 0.3, generator=tg.Generator(1)).data
    assert set(kept.unique().tolist()) == {0.0, torch.tensor(1 / 0.7).item()}
    # 20,000 draws: the share's standard deviation is 0.0032
    assert float((kept != 0).double().mean()) == pytest.approx(0.7, abs=0.016)


def test_numpy_scalars_count_as_numbers() -> None:
    x = tg.tensor([1.0, 2.0])
    assert (x * numpy.float64(2.0)).dtype is torch.float32
    assert (numpy.float32(2.0) * x).dtype is torch.float32


def test_contiguous_is_the_value_itself_where_it_already_is():
    x = tg.randn(2, 3, requires_grad=True)
    y = x * 2
    assert y.contiguous() is y
    assert tg.contiguous(x) is x
    z = y.t().contiguous()
    assert z.data.stride() == (2, 1)
    assert torch.equal(z.data, y.data.t())
