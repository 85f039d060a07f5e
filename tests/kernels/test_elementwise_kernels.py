"""The elementwise kernels against plain torch and float64: values, kinks, strides, threads. Runs under every
instruction set (test_build.py starts it again with TAPEGRAD_ISA)."""

import math
import operator

import pytest
import torch
from kernel_checks import assert_same_for_all_threads
from torch.nn import functional as F

import tapegrad as tg
from tapegrad.core import _C, DTypeError, ShapeError

DTYPES = (torch.float64, torch.float32)
SIZES = (0, 1, 2, 3, 5, 15, 16, 17, 33, 64, 65, 1000, 40001)
EPS = {torch.float32: 2.0**-24, torch.float64: 2.0**-53}

# name, parameters, torch's function, what backward reads ("out" or "input")
ROWS = [
    ("relu", (), torch.relu, "out"),
    ("leaky_relu", (0.1,), F.leaky_relu, "out"),
    ("leaky_relu", (-0.5,), F.leaky_relu, "input"),
    ("tanh", (), torch.tanh, "out"),
    ("sigmoid", (), torch.sigmoid, "out"),
    ("gelu", (), F.gelu, "input"),
    ("gelu_tanh", (), lambda x: F.gelu(x, approximate="tanh"), "input"),
    ("silu", (), F.silu, "input"),
    ("softplus", (1.0, 20.0), F.softplus, "input"),
    ("softplus", (3.0, 2.0), F.softplus, "input"),
    ("exp", (), torch.exp, "out"),
    ("log", (), torch.log, "input"),
]
IDS = [f"{name}{parameters}" for name, parameters, _, _ in ROWS]
SPECIAL = (0.0, -0.0, 1.0, -1.0, math.inf, -math.inf, math.nan, 1e-45, -1e-45, 1e-39, 1e30, -1e30, 88.0, -88.0, 20.0)


def rand(*size: int, dtype: torch.dtype, seed: int = 0, scale: float = 3.0) -> torch.Tensor:
    return (torch.randn(size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * scale).to(dtype)


def reference(f, x: torch.Tensor, g: torch.Tensor, *parameters) -> tuple[torch.Tensor, torch.Tensor]:
    """Value and gradient by torch, in float64."""
    leaf = x.double().requires_grad_()
    y = f(leaf, *parameters)
    (dx,) = torch.autograd.grad(y, leaf, g.double())
    return y.detach(), dx


def ours(name: str, saved: str, x: torch.Tensor, g: torch.Tensor, *parameters) -> tuple[torch.Tensor, torch.Tensor]:
    y = getattr(_C, name)(x, *parameters)
    return y, getattr(_C, name + "_backward")(g, y if saved == "out" else x, *parameters)


def assert_close(actual: torch.Tensor, expected: torch.Tensor, ulps: float, scale: torch.Tensor | float = 0.0) -> None:
    """Within `ulps` of the value, or of `scale` where terms of that size cancel; NaN and infinities in their places."""
    assert actual.shape == expected.shape
    bound = torch.maximum(expected.abs(), torch.as_tensor(scale, dtype=torch.float64)) * (2 * ulps * EPS[actual.dtype])
    expected_here = expected.to(actual.dtype)
    same = (actual == expected_here) | (actual.isnan() & expected_here.isnan())
    floor = torch.finfo(actual.dtype).tiny * 4 * EPS[actual.dtype]
    assert (same | ((actual.double() - expected).abs() <= bound + floor)).all()


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("row", ROWS, ids=IDS)
def test_activations_agree_with_torch(row, dtype):
    name, parameters, f, saved = row
    for n in SIZES:
        x, g = rand(n, dtype=dtype), rand(n, dtype=dtype, seed=1, scale=1.0)
        x = x.abs() + 0.1 if name == "log" else x
        (y, dx), (expected, slope) = ours(name, saved, x, g, *parameters), reference(f, x, g, *parameters)
        # Roundings that torch's formulas have too: of terms that cancel (1 - y * y; 1 + tanh for x < 0), and of
        # beta * x, which e^(beta x) multiplies by its size.
        size = x.double().abs()
        value_scale = {"gelu": size, "gelu_tanh": size, "softplus": expected * (1 + 3 * size)}.get(name, 0.0)
        slope_scale = {"gelu_tanh": 1 + size**3, "gelu": 1 + size, "silu": 1 + size}.get(name, 1.0)
        assert_close(y, expected, 8, value_scale)
        assert_close(dx, slope, 8, g.double().abs() * slope_scale)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("row", ROWS, ids=IDS)
def test_special_values_are_torch_s(row, dtype):
    name, parameters, f, saved = row
    # torch 2.13's gelu is NaN at infinity in its float32 vectors, infinity elsewhere.
    x = torch.tensor([v for v in SPECIAL if v != math.inf or name != "gelu"], dtype=dtype)
    leaf = x.clone().requires_grad_()
    expected = f(leaf, *parameters)
    for g in (torch.ones_like(x), torch.full_like(x, -2.5)):
        (slope,) = torch.autograd.grad(expected, leaf, g, retain_graph=True)
        y, dx = ours(name, saved, x, g, *parameters)
        assert torch.equal(y.isnan(), expected.isnan())
        assert torch.equal(y.isinf(), expected.isinf())
        torch.testing.assert_close(y, expected.detach(), equal_nan=True, rtol=1e-5, atol=1e-37)
        torch.testing.assert_close(dx, slope, equal_nan=True, rtol=1e-5, atol=1e-30)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("row", ROWS, ids=IDS)
def test_every_element_has_the_same_bits_wherever_it_stands(row, dtype):
    name, parameters, _, saved = row
    x, g = rand(67, dtype=dtype).abs() + 0.01, rand(67, dtype=dtype, seed=1)
    whole = ours(name, saved, x, g, *parameters)
    for begin in (1, 13, 50, 66):
        part = ours(name, saved, x[begin:], g[begin:], *parameters)
        for a, b in zip(part, whole, strict=True):
            assert torch.equal(a, b[begin:])


@pytest.mark.parametrize("dtype", DTYPES)
def test_dense_layouts_are_kept_and_others_copied(dtype):
    base = rand(4, 6, 8, 10, dtype=dtype)
    for x, keeps in [
        (base.transpose(1, 3), True),
        (base.contiguous(memory_format=torch.channels_last), True),
        (base[:, ::2, 1:], False),
        (base[:, :1].expand(4, 6, 8, 10), False),
        (base[0, 0, 0, 0], True),
        (base[1:], True),
    ]:
        y = _C.sigmoid(x)
        torch.testing.assert_close(y, torch.sigmoid(x))
        assert y.stride() == torch.empty_like(x).stride() if keeps else y.is_contiguous()
        for g in (x, x.contiguous(), torch.ones_like(x), x.new_ones(()).expand(x.shape)):
            dx = _C.sigmoid_backward(g, y)
            torch.testing.assert_close(dx, g * y * (1 - y))
            assert dx.stride() == y.stride()
    assert torch.equal(_C.relu(torch._neg_view(base)), torch.relu(-base))


def test_activations_refuse_bad_input_by_name():
    x = torch.ones(3)
    for bad, message in [(x.int(), r"relu: input.dtype must be float32"), (x.to_sparse(), "dense CPU tensor")]:
        with pytest.raises(DTypeError, match=message):
            _C.relu(bad)
    with pytest.raises(ShapeError, match=r"relu_backward: g.shape must be \[3\], is \[2\]"):
        _C.relu_backward(torch.ones(2), x)
    with pytest.raises(DTypeError, match=r"tanh_backward: g.dtype must be Float as the other arguments', is Double"):
        _C.tanh_backward(x.double(), x)
    short = torch.ones(8)
    short.untyped_storage().resize_(8)
    with pytest.raises(ShapeError, match="needs 32 bytes of storage"):
        _C.relu(short)


def test_activations_are_the_same_for_any_number_of_threads():
    n = 150_001
    for dtype in DTYPES:
        x, g = rand(n, dtype=dtype).abs() + 0.01, rand(n, dtype=dtype, seed=1)
        for name, parameters, _, saved in ROWS:
            assert_same_for_all_threads(lambda row=(name, saved, x, g, *parameters): ours(*row))
        assert_same_for_all_threads(lambda x=x: [_C.dropout(x, 0.3, 1, 2)])


@pytest.mark.parametrize("dtype", DTYPES)
def test_dropout_is_a_product_with_the_bernoulli_mask(dtype):
    for n in SIZES:
        for p in (0.0, 0.3, 0.5, 1.0, 1 - 2.0**-40):
            x = rand(n, dtype=dtype)
            seed, offset = 0x0123456789ABCDEF, 2**64 - 3
            mask = _C.random_bernoulli(1 - p, [n], seed, offset).to(dtype)
            scale = 1 / (1 - p) if p < 1 else 0.0
            assert torch.equal(_C.dropout(x, p, seed, offset), x * (mask * scale))
    odd = rand(6, 7, dtype=dtype).t()
    assert torch.equal(_C.dropout(odd, 0.5, 1, 2), _C.dropout(odd.contiguous(), 0.5, 1, 2))
    x = torch.full((64,), math.nan, dtype=dtype)
    assert _C.dropout(x, 1.0, 1, 2).isnan().all()
    with pytest.raises(ShapeError, match="dropout: p must be from 0 to 1"):
        _C.dropout(x, 1.5, 1, 2)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_scaled_product_is_its_formula_bit_for_bit(dtype):
    for n in SIZES:
        a, b, c = (rand(n, dtype=dtype, seed=seed) for seed in range(3))
        assert torch.equal(_C.scaled_product(a, b, c, -2.0), a * b * c * -2.0)
    x = rand(6, 5, dtype=dtype)
    assert torch.equal(
        _C.scaled_product(x.t(), x.t(), rand(1, 6, dtype=dtype).expand(5, 6), 0.5),
        x.t() * x.t() * rand(1, 6, dtype=dtype).expand(5, 6) * 0.5,
    )
    with pytest.raises(ShapeError, match=r"scaled_product: b\.shape must be \[6, 5\], is \[5\]"):
        _C.scaled_product(x, x[0], x, 1.0)
    with pytest.raises(DTypeError, match="scaled_product: a"):
        _C.scaled_product(x.int(), x, x, 1.0)
    assert_same_for_all_threads(
        lambda: (_C.scaled_product(*(rand(100001, dtype=dtype, seed=s) for s in range(3)), 2.0),)
    )


# arithmetic: torch's own operators to the bit, for what it takes; None for the rest

OPERATORS = [("add", operator.add), ("sub", operator.sub), ("mul", operator.mul), ("div", operator.truediv)]


def same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Equal with the signs of zeros; a NaN is one like another."""
    bits = torch.int32 if a.dtype is torch.float32 else torch.int64
    equal = (a.view(bits) == b.view(bits)) | (a.isnan() & b.isnan())
    return a.shape == b.shape and a.dtype is b.dtype and a.stride() == b.stride() and bool(equal.all())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("name", "torchs"), OPERATORS)
def test_arithmetic_is_torchs_to_the_bit(name, torchs, dtype):
    ours = getattr(_C, name)
    special = torch.tensor(SPECIAL, dtype=dtype)
    rows, columns = torch.meshgrid(special, special, indexing="ij")
    assert same_bits(ours(rows.contiguous(), columns.contiguous()), torchs(rows.contiguous(), columns.contiguous()))
    for n in SIZES:
        x, y = rand(n, dtype=dtype, seed=n), rand(n, dtype=dtype, seed=n + 1)
        assert same_bits(ours(x, y), torchs(x, y))
        for number in (3, -0.1, 1e-30, 0, -0.0, math.inf, math.nan, 2**53, torch.tensor(0.7, dtype=dtype)):
            assert same_bits(ours(x, number), torchs(x, number))
            left = ours(number, x)
            assert same_bits(torchs(number, x) if left is None else left, torchs(number, x))
            assert (left is None) == (name == "div" and not isinstance(number, torch.Tensor))
    x, y = rand(5, 7, dtype=dtype).t(), rand(5, 7, dtype=dtype, seed=1).t()
    assert same_bits(ours(x, y), torchs(x, y))  # dense in another order


@pytest.mark.parametrize(("name", "torchs"), OPERATORS)
def test_arithmetic_leaves_to_torch_what_it_does_not_take(name, torchs):
    ours, x = getattr(_C, name), torch.ones(4, 3)
    for other in (x.double(), x.int(), x[0], x[:, :1], x.t(), torch.tensor(1.0, dtype=torch.float64), True, 2**53 + 2):
        assert ours(x, other) is None
        assert ours(other, x) is None
    assert ours(1.0, 2.0) is None
    assert ours(torch.ones(6)[::2], torch.ones(6)[::2]) is None
    for other in (x.double(), 2, x[0]):  # the op itself takes them all
        op = getattr(tg, name)
        assert torch.equal(op(x, other).data, torchs(x, other))


@pytest.mark.parametrize(("name", "torchs"), OPERATORS)
def test_arithmetic_is_the_same_with_any_number_of_threads(name, torchs):
    x, y = rand(100_001, dtype=torch.float32), rand(100_001, dtype=torch.float32, seed=1)
    assert_same_for_all_threads(lambda: (getattr(_C, name)(x, y), getattr(_C, name)(x, 1.7)))
