"""The border: what comes in, what goes out to Python, NumPy and torch, and operators with anything on either side."""

import copy
import operator
import pickle

import numpy as np
import pytest
import torch

import tapegrad as tg

F64 = torch.float64


def leaf(values, dtype=F64):
    return tg.tensor(values, dtype=dtype, requires_grad=True)


# --- operators with anything on either side ----------------------------------------------------------------------

OTHERS = {
    "raw": torch.tensor([1.5, -2.0, 3.0], dtype=F64),
    "raw f32": torch.tensor([1.5, -2.0, 3.0]),
    "raw int": torch.tensor([1, 2, 3]),
    "array": np.array([1.5, -2.0, 3.0]),
    "array f32": np.array([1.5, -2.0, 3.0], dtype=np.float32),
    "np.float64": np.float64(1.5),
    "np.int64": np.int64(2),
    "float": 1.5,
    "int": 2,
}
ARITHMETIC = {name: getattr(operator, name) for name in ("add", "sub", "mul", "truediv", "pow", "mod", "floordiv")}
COMPARISONS = {name: getattr(operator, name) for name in ("eq", "ne", "lt", "le", "gt", "ge")}


def as_raw(value):
    """What torch is given in place of `value`; NumPy's scalars count as Python's, as at tapegrad's border."""
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value)
    return value.item() if isinstance(value, np.generic) else value


@pytest.mark.parametrize("dtype", [torch.float32, F64])
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("name", [*ARITHMETIC, *COMPARISONS])
def test_operators_agree_with_torch(name, other, side, dtype):
    op = {**ARITHMETIC, **COMPARISONS}[name]
    x, raw, value = leaf([1.25, 2.5, 3.75], dtype), torch.tensor([1.25, 2.5, 3.75], dtype=dtype), OTHERS[other]
    plain = as_raw(value)
    if isinstance(plain, torch.Tensor):
        plain = plain.detach()
    y = op(value, x) if side == "left" else op(x, value)
    expected = op(plain, raw) if side == "left" else op(raw, plain)
    if name == "mod" and not isinstance(plain, torch.Tensor):
        plain = torch.full((3,), plain, dtype=dtype)  # torch has no derivative for `number % tensor`
    raw.requires_grad_()
    assert isinstance(y, tg.Tensor)
    assert y.dtype is expected.dtype
    assert torch.equal(y.data, expected.detach()) or torch.allclose(y.data, expected.detach(), equal_nan=True)
    if name in ARITHMETIC and name != "floordiv":  # torch has no derivative of floor division
        y.backward(torch.ones_like(expected))
        (op(plain, raw) if side == "left" else op(raw, plain)).backward(torch.ones_like(expected))
        assert x.grad.dtype is dtype
        assert torch.allclose(x.grad.data, raw.grad, rtol=1e-6, equal_nan=True)
    if isinstance(value, torch.Tensor):
        assert value.grad is None


def test_bools_add_and_multiply_as_numbers_and_are_not_subtracted():
    x = leaf([1.0, 2.0])
    (x * True + True).sum().backward()
    assert x.grad.tolist() == [1.0, 1.0]
    with pytest.raises(tg.TapegradError, match=r"sub: .*bool"):
        x - True


@pytest.mark.parametrize("name", ["and_", "or_", "xor"])
def test_bit_operators_agree_with_torch_on_both_sides(name):
    op = getattr(operator, name)
    for values, other in (([6, 5], [3, 1]), ([True, False], [True, True])):
        t, raw, there = tg.tensor(values), torch.tensor(values), torch.tensor(other)
        for left, right in ((t, there), (t, np.array(other)), (t, tg.tensor(other)), (t, other[0])):
            expected = op(raw, right.data if isinstance(right, tg.Tensor) else as_raw(right))
            assert torch.equal(op(left, right).data, expected)
            assert torch.equal(op(right, left).data, expected)
        assert torch.equal((~t).data, ~raw)


def test_matmul_takes_arrays_and_raw_tensors_on_either_side():
    x, raw = leaf(torch.randn(3, 3)), torch.randn(3, 3, dtype=F64)
    for other in (raw, raw.numpy()):
        (other @ x @ other).backward(torch.ones(3, 3, dtype=F64))
        ones = torch.ones(3, 3, dtype=F64)
        assert torch.allclose(x.grad.data, raw.T @ ones @ raw.T, rtol=1e-12)
        x.grad = None


def test_an_array_times_a_tensor_stays_on_the_tape():
    x = leaf([1.0, 2.0])
    array = np.array([3.0, 4.0])
    y = array * x
    assert isinstance(y, tg.Tensor)
    y.sum().backward()
    assert x.grad.tolist() == [3.0, 4.0]
    for ufunc in (np.exp, np.negative, lambda t: np.add(array, t)):
        with pytest.raises(TypeError, match="__array_ufunc__"):
            ufunc(x)


@pytest.mark.parametrize("value", ["a", [1.0, 2.0], {}, None, 1j, object()], ids=lambda v: type(v).__name__)
def test_what_is_no_number_is_refused_by_name(value):
    kind = "None" if value is None else type(value).__name__
    with pytest.raises(TypeError, match=f"mul: other must be .*; got {kind}"):
        leaf([1.0, 2.0]) * value
    with pytest.raises(TypeError, match=f"add: (input|other) must be .*; got {kind}"):
        value + leaf([1.0, 2.0])


def test_unary_operators_and_builtins():
    x = leaf([-1.0, 2.0])
    assert (-x).tolist() == [1.0, -2.0]
    assert (+x).tolist() == [-1.0, 2.0]
    assert abs(x).tolist() == [1.0, 2.0]
    assert sum(x).item() == 1.0
    assert max(x).item() == 2.0


# --- torch's functions -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "call",
    [
        lambda t: torch.exp(t),
        lambda t: torch.add(t, t, alpha=2),
        lambda t: torch.softmax(t, dim=0),
        lambda t: torch.cat([t, torch.ones(3, dtype=F64)]),
        lambda t: torch.stack((t, t)),
        lambda t: torch.where(torch.tensor([True, False, True]), t, 0.0),
        lambda t: torch.nn.functional.relu(t),
        lambda t: torch.nn.functional.mse_loss(t, torch.ones(3, dtype=F64)),
        lambda t: torch.sum(t, dim=0, keepdim=True),
        lambda t: torch.einsum("i,j->ij", t, t),
        lambda t: torch.Tensor.mul(torch.ones(3, dtype=F64), t),
    ],
)
def test_torch_functions_are_recorded(call):
    x, raw = leaf([0.5, -1.0, 2.0]), torch.tensor([0.5, -1.0, 2.0], dtype=F64, requires_grad=True)
    y, expected = call(x), call(raw)
    assert isinstance(y, tg.Tensor)
    weights = torch.linspace(1, 2, expected.numel(), dtype=F64).reshape(expected.shape)
    y.backward(weights)
    expected.backward(weights)
    assert torch.allclose(y.data, expected, rtol=1e-14)
    assert torch.allclose(x.grad.data, raw.grad, rtol=1e-13)


@pytest.mark.parametrize(("name", "call"), [("fft", torch.fft.fft), ("eig", torch.linalg.eig)])
def test_torch_functions_without_a_counterpart_are_refused_by_name(name, call):
    x = leaf([1.0])
    with pytest.raises(TypeError, match=rf"torch\.\w*{name} has no counterpart in tapegrad"):
        call(x)


def test_a_tensor_cannot_be_written_into_a_raw_tensor():
    raw, x = torch.zeros(2, dtype=F64), leaf([1.0, 2.0])
    alias = raw
    for write in (lambda: operator.iadd(raw, x), lambda: raw.add_(x), lambda: operator.setitem(raw, 0, x[0])):
        with pytest.raises((tg.TapeError, TypeError)):
            write()
    assert alias.tolist() == [0.0, 0.0]


# --- what is refused, what is detached ---------------------------------------------------------------------------

FOREIGN = {
    "half": lambda: torch.ones(2, dtype=torch.float16),
    "bfloat16": lambda: torch.ones(2, dtype=torch.bfloat16),
    "complex64": lambda: torch.ones(2, dtype=torch.complex64),
    "sparse": lambda: torch.ones(2).to_sparse(),
    "meta": lambda: torch.ones(2, device="meta"),
    "complex array": lambda: np.ones(2, dtype=np.complex128),
    "half array": lambda: np.ones(2, dtype=np.float16),
}
WORDS = {"half": "float16", "half array": "float16", "complex array": "complex128"}


@pytest.mark.parametrize("name", FOREIGN)
def test_foreign_dtypes_and_devices_are_refused_by_name_at_every_border(name):
    value, word = FOREIGN[name](), WORDS.get(name, name)
    x = leaf([1.0, 2.0], torch.float32)
    with pytest.raises(tg.DTypeError, match=f"mul: other has .*{word}.*; expected"):
        x * value
    with pytest.raises(tg.DTypeError, match=f"exp: input has .*{word}.*; expected"):
        tg.exp(value)
    with pytest.raises(tg.DTypeError, match=f"as_tensor: .*{word}"):
        tg.as_tensor(value)
    with pytest.raises(tg.DTypeError, match=f"{word}"):
        x.grad = value
    with pytest.raises(tg.DTypeError, match=f"Tensor: .*{word}"):
        tg.Tensor(value)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.complex64])
@pytest.mark.parametrize(
    "make",
    [
        lambda dtype: tg.zeros(2, dtype=dtype),
        lambda dtype: tg.tensor([1.0], dtype=dtype),
        lambda dtype: tg.randn(2, dtype=dtype),
        lambda dtype: tg.ones(2).to(dtype),
        lambda dtype: tg.ones(2).sum(dtype=dtype),
    ],
)
def test_no_function_makes_a_foreign_dtype(make, dtype):
    with pytest.raises(tg.DTypeError, match=str(dtype).removeprefix("torch.")):
        make(dtype)


@pytest.mark.parametrize(
    "make",
    [
        lambda: tg.tensor([1, 2], requires_grad=True),
        lambda: tg.tensor([True]).requires_grad_(),
        lambda: tg.zeros(2, dtype=tg.int64, requires_grad=True),
        lambda: tg.arange(3, requires_grad=True),
        lambda: tg.Tensor(torch.ones(2, dtype=torch.int32), True),
    ],
)
def test_integers_and_bools_have_no_gradient(make):
    with pytest.raises(tg.DTypeError, match=r"requires_grad: .*(int64|int32|bool).*float32 and float64"):
        make()


def test_inference_tensors_are_taken_in():
    with torch.inference_mode():
        raw = torch.tensor([2.0, 3.0], dtype=F64)
    x = leaf([1.0, 2.0])
    (x * raw * raw).sum().backward()
    assert x.grad.tolist() == [4.0, 9.0]
    y = tg.as_tensor(raw)
    y += 1
    assert y.tolist() == [3.0, 4.0]


def test_recording_inside_inference_mode_is_refused_by_name():
    x = leaf([1.0, 2.0])
    with torch.inference_mode():
        with pytest.raises(tg.TapeError, match=r"exp: .*inference_mode"):
            tg.exp(x)
        with tg.no_grad():
            y = tg.exp(x)
    with pytest.raises(tg.TapeError, match=r"mul: .*inference"):
        x * y
    (x * y.clone()).sum().backward()
    torch.testing.assert_close(x.grad.data, torch.exp(x.data), rtol=1e-15, atol=0)  # a kernel against torch's


# --- sharing and copying -----------------------------------------------------------------------------------------


def test_tensor_copies_and_as_tensor_and_from_numpy_share():
    array = np.zeros(2)
    raw = torch.zeros(2)
    copied, shared, also = tg.tensor(array), tg.from_numpy(array), tg.as_tensor(raw)
    array[0] = raw[0] = 7.0
    assert (copied.tolist(), shared.tolist(), also.tolist()) == ([0.0, 0.0], [7.0, 0.0], [7.0, 0.0])
    assert np.shares_memory(shared.numpy(), array)
    x = leaf([1.0])
    assert x.detach().data.data_ptr() == x.data.data_ptr()
    assert not x.detach().requires_grad


def test_numpy_refuses_what_needs_a_gradient():
    x = leaf([1.0, 2.0])
    for convert in (lambda: x.numpy(), lambda: np.asarray(x), lambda: (x * 2).numpy(), lambda: np.array(x * 2)):
        with pytest.raises(tg.TapeError, match=r"numpy: .*detach\(\)\.numpy\(\)"):
            convert()
    for convert in (np.from_dlpack, torch.from_dlpack):
        with pytest.raises(tg.TapeError, match="detach"):
            convert(x)
        assert convert(x.detach()).tolist() == [1.0, 2.0]
    array = np.asarray(x.detach(), dtype=np.float32)
    assert (array.dtype, array.tolist()) == (np.float32, [1.0, 2.0])
    copied = np.array(x.detach())
    copied[0] = 9
    assert x.tolist() == [1.0, 2.0]


def test_leaves_are_deep_copied_and_pickled_with_their_gradient():
    x = leaf([1.0, 2.0])
    (x * x).sum().backward()
    for twin in (copy.deepcopy(x), pickle.loads(pickle.dumps(x))):
        assert twin.requires_grad
        assert twin.is_leaf
        assert (twin.tolist(), twin.grad.tolist()) == ([1.0, 2.0], [2.0, 4.0])
        (twin * 3).sum().backward()
        assert (twin.grad.tolist(), x.grad.tolist()) == ([5.0, 7.0], [2.0, 4.0])
    data = tg.tensor([1, 2])
    assert pickle.loads(pickle.dumps(data)).tolist() == [1, 2]
    first, second = copy.deepcopy([x, x])
    assert first is second
    for refuse in (copy.deepcopy, pickle.dumps):
        with pytest.raises(tg.TapeError, match=r"only leaves .*\.detach\(\)"):
            refuse(x * 2)


# --- conversion to Python ----------------------------------------------------------------------------------------


def test_numbers_of_one_element():
    x = leaf([[2.5]])
    assert (float(x), int(x), bool(x), x.item(), x.tolist()) == (2.5, 2, True, 2.5, [[2.5]])
    assert [10, 20, 30][tg.tensor(2)] == 30
    assert list(range(tg.tensor(3))) == [0, 1, 2]
    assert f"{leaf(3.14159):.2f}" == "3.14"
    assert bool(tg.tensor(0.0)) is False
    for convert, name in ((float, "float"), (int, "int"), (bool, "bool"), (tg.Tensor.item, "item")):
        for wrong in (tg.ones(2), tg.ones(0)):
            with pytest.raises(tg.ShapeError, match=rf"{name}: .*{wrong.numel()}"):
                convert(wrong)
    with pytest.raises(TypeError, match="integer"):
        [10, 20][leaf(1.0)]


def test_sequences():
    x = leaf([[1.0, 2.0], [3.0, 4.0]])
    assert len(x) == 2
    assert [row.tolist() for row in x] == [[1.0, 2.0], [3.0, 4.0]]
    first, _ = x
    first.sum().backward()
    assert x.grad.tolist() == [[1.0, 1.0], [0.0, 0.0]]
    assert 4.0 in x
    assert 5.0 not in x
    for empty in (len, list):
        with pytest.raises(TypeError, match="0-dim"):
            empty(leaf(1.0))


def test_repr_says_what_it_is():
    x = leaf([1.0, 2.0], torch.float32)
    assert repr(x) == "Tensor([1., 2.], requires_grad=True)"
    assert repr(x * 2) == "Tensor([2., 4.], op=mul)"
    assert repr(x.detach()) == "Tensor([1., 2.])"
    assert repr(tg.tensor([1, 2])) == "Tensor([1, 2])"
    assert f"{x}" == str(x) == repr(x)


def test_tensors_are_told_apart_by_identity_and_compared_by_value():
    x, y = leaf([1.0, 2.0]), leaf([1.0, 3.0])
    assert (x == y).tolist() == [True, False]
    assert {x: 1, y: 2}[x] == 1
    assert (x == None) is False  # noqa: E711 the comparison itself is tested
    assert (x != "a") is True


def test_attributes_are_torchs():
    x = leaf(torch.zeros(2, 3, 4))
    assert (x.shape, x.ndim, x.dtype, x.device) == (torch.Size([2, 3, 4]), 3, F64, torch.device("cpu"))
    assert (x.size(), x.size(-1), x.dim(), x.numel(), x.stride()) == (x.shape, 4, 3, 24, (12, 4, 1))
    assert (x.T.shape, x.mT.shape) == ((4, 3, 2), (2, 4, 3))
    assert (x.is_leaf, (x * 2).is_leaf, x.detach().is_leaf) == (True, False, True)
    with pytest.raises(IndexError, match="size: dim = 3"):
        x.size(3)


def test_a_size_beyond_memory_is_a_memory_error_and_loses_nothing():
    x = leaf([1.0])
    y = x * 2
    for make in (lambda: tg.zeros(10**15), lambda: y.expand(10**15).contiguous(), lambda: y.expand(10**15) + 1):
        with pytest.raises(MemoryError):
            make()
    y.backward()
    assert x.grad.item() == 2.0


def test_empty_and_zero_dim_tensors_have_gradients():
    x, s = leaf(torch.zeros(0, 3)), leaf(2.0)
    (x.sum() * s + s**2).backward()
    assert x.grad.shape == (0, 3)
    assert s.grad.item() == 4.0
