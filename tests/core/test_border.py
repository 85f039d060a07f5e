"""Arrays and tensors of unusual make at the border: taken in rightly, or refused with the op's and argument's name."""

import numpy as np
import pytest
import torch

import tapegrad as tg

F64 = torch.float64
VALUES = [1.0, 2.0, 3.0]


def leaf(values):
    return tg.tensor(values, dtype=F64, requires_grad=True)


ARRAYS = {
    "negative strides": np.array(VALUES[::-1])[::-1],
    "a column": np.array([VALUES, VALUES]).T[:, 0],
    "not aligned with the start": np.array([0.0, *VALUES])[1:],
    "read-only": np.broadcast_to(np.array(VALUES), (3,)),
    "a subclass": np.ma.array(VALUES),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_of_any_layout_are_operands_and_data(name):
    array = ARRAYS[name]
    x = leaf([4.0, 5.0, 6.0])
    (x * array + array * x).sum().backward()
    assert x.grad.tolist() == [2.0, 4.0, 6.0]
    assert tg.tensor(array).tolist() == VALUES


@pytest.mark.parametrize(
    "array",
    [
        np.ones(3, dtype=">f8"),
        np.ones(3, dtype=np.longdouble),
        np.array(["2020"] * 3, dtype="M8[D]"),
        np.array(["a"] * 3),
    ],
    ids=["byte order", "longdouble", "datetime64", "text"],
)
def test_arrays_of_a_foreign_dtype_are_refused_by_name(array):
    with pytest.raises((TypeError, ValueError), match="mul: other"):
        leaf(VALUES) * array
    with pytest.raises((TypeError, ValueError), match="exp: input"):
        tg.exp(array)
    with pytest.raises((TypeError, ValueError), match=r"^tensor: data"):
        tg.tensor(array)


def test_torchs_own_wrappers_are_unwrapped_or_refused():
    x = leaf(VALUES)
    parameter = torch.nn.Parameter(torch.ones(3, dtype=F64), requires_grad=False)
    (x * parameter).sum().backward()
    assert x.grad.tolist() == [1.0] * 3
    assert type((x * parameter).data) is torch.Tensor
    conjugate_view = torch.ones(3, dtype=torch.complex128).conj().imag  # has torch's negative bit
    assert (x + conjugate_view).tolist() == VALUES
    jagged = torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], layout=torch.jagged)
    with pytest.raises(tg.DTypeError, match="exp: input"):
        tg.exp(jagged)


def test_numbers_too_large_for_their_dtype_are_refused_by_name():
    for call in (lambda: tg.tensor([1]) * 10**30, lambda: leaf(VALUES) + 10**400):
        with pytest.raises((tg.TapegradError, TypeError, OverflowError), match=r"(mul|add): "):
            call()


def test_a_replaced_value_has_a_gradient_of_its_own_shape():
    x = leaf(VALUES)
    x.data = torch.ones(2, dtype=F64)
    (x * 3).sum().backward()
    assert x.grad.tolist() == [3.0, 3.0]
    with pytest.raises(tg.DTypeError, match=r"data: .*float16"):
        x.data = torch.ones(2, dtype=torch.float16)
    with pytest.raises(tg.TapeError, match="data: "):
        (x * 2).data = torch.ones(2, dtype=F64)
    stale = (x * x).sum()
    x.grad = None
    x.data = torch.ones(5, dtype=F64)
    with pytest.raises(tg.TapegradError, match="mul: "):
        stale.backward()
    assert x.grad is None
