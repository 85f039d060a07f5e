"""Indexing, assignment by index, and in-place updates: recorded rightly or refused with nothing changed."""

import warnings

import numpy as np
import pytest
import torch

import tapegrad as tg

F64 = torch.float64
BASE = torch.arange(24, dtype=F64).reshape(2, 3, 4)


def leaf(values, dtype=F64):
    return tg.tensor(values, dtype=dtype, requires_grad=True)


# --- indexing of every kind --------------------------------------------------------------------------------------

INDICES = {
    "int": 1,
    "negative": -1,
    "slice": slice(1, None),
    "step": (slice(None), slice(None, None, 2)),
    "None": None,
    "Ellipsis": (..., 0),
    "int, Ellipsis, None": (0, ..., None),
    "np.int64": np.int64(1),
    "0-dim tensor": tg.tensor(1),
    "0-dim raw tensor": torch.tensor(1),
    "list": [0, 1, 1],
    "negative list": [-1, -1],
    "empty list": [],
    "list of bools": [True, False],
    "array": np.array([1, 0, 1]),
    "tensor": tg.tensor([[0, 1], [1, 1]]),
    "int32 tensor": torch.tensor([1, 0], dtype=torch.int32),
    "mask": BASE > 5,
    "array mask": (BASE > 5).numpy(),
    "tensor mask": tg.Tensor(BASE > 5),
    "mask of a dim": (slice(None), torch.tensor([True, False, True])),
    "empty mask": BASE > 100,
    "slice and list": (slice(None), [0, 2, 2], slice(1, 3)),
    "lists apart": ([0, 1, 1], slice(None), [0, 3, 3]),
    "int and list": (0, [0, 1], None),
    "True": True,
    "slice of tensors": (slice(tg.tensor(0), tg.tensor(2)), tg.tensor(0)),
}


def for_torch(index):
    """The same index without tapegrad's tensors."""
    if isinstance(index, tuple):
        return tuple(for_torch(part) for part in index)
    return index.data if isinstance(index, tg.Tensor) else index


@pytest.mark.parametrize("name", INDICES)
def test_reading_by_index_agrees_with_torch_in_value_and_gradient(name):
    index = INDICES[name]
    x, raw = leaf(BASE), BASE.clone().requires_grad_()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's plan for another meaning of some lists
        expected = raw[for_torch(index)]
    y = x[index]
    weights = torch.cos(torch.arange(expected.numel(), dtype=F64)).reshape(expected.shape)
    y.backward(weights)
    expected.backward(weights)
    assert torch.equal(y.data, expected)
    assert torch.equal(x.grad.data, raw.grad)


@pytest.mark.parametrize("name", INDICES)
def test_writing_by_index_agrees_with_torch_in_value_and_both_gradients(name):
    index = INDICES[name]
    shape = BASE[for_torch(index)].shape
    values = torch.sin(torch.arange(shape.numel(), dtype=F64)).reshape(shape)
    x, v = leaf(BASE), leaf(values)
    raw, raw_v = BASE.clone().requires_grad_(), values.clone().requires_grad_()
    y, expected = x * 2, raw * 2
    y[index] = v
    expected[for_torch(index)] = raw_v
    weights = torch.cos(torch.arange(24, dtype=F64)).reshape(BASE.shape)
    y.backward(weights)
    expected.backward(weights)
    assert torch.equal(y.data, expected)
    assert torch.equal(x.grad.data, raw.grad)
    if "list" not in name and name not in ("array", "tensor"):  # where one element is written twice, the last one wins
        assert torch.equal(v.grad.data, raw_v.grad)


@pytest.mark.parametrize(
    ("index", "message"),
    [
        (2, "index 2 is out of bounds .* size 2"),
        ([5], "index 5 is out of bounds"),
        ((0, 0, 0, 0), "too many indices"),
        (torch.tensor([True, False, True]), r"mask \[3\]"),
        (1.0, "got float"),
        (torch.tensor([1.0]), "torch.float32"),
        ("a", "got str"),
    ],
)
def test_a_wrong_index_is_refused_by_name_for_reading_and_writing(index, message):
    x = leaf(BASE)
    y = x * 2
    with pytest.raises(IndexError, match=f"getitem: .*{message}"):
        x[index]
    with pytest.raises((IndexError, tg.ShapeError), match=f"(getitem|setitem): .*{message}"):
        y[index] = 0.0
    assert torch.equal(y.data, BASE * 2)


def test_second_derivatives_pass_through_indexing():
    x = leaf(BASE)

    def f(x):
        y = x * x
        y[0] = x[1] * x[0]
        return y[:, [0, 2, 2]]

    assert tg.gradcheck(f, x)
    assert tg.gradgradcheck(f, x)


# --- assignment by index -----------------------------------------------------------------------------------------


def test_assignment_is_an_entry_and_later_reads_see_it():
    x, v = leaf([1.0, 2.0, 3.0]), leaf(5.0)
    with tg.Tape() as tape:
        y = x * x
        before = y.sum()
        y[1] = v
        after = (y * y).sum()
    assert [entry.op.name for entry in tape] == ["mul", "sum", "setitem", "mul", "sum"]
    (before + after).backward()
    assert x.grad.tolist() == [2 + 4.0, 4.0, 6 + 4 * 27.0]
    assert v.grad.item() == 10.0


def test_a_constant_that_receives_a_tracked_value_joins_the_tape():
    v = leaf([3.0, 4.0])
    y = tg.zeros(4, dtype=F64)
    y[1:3] = v * 2
    y[0] = 7.0
    assert y.requires_grad
    y.square().sum().backward()
    assert y.tolist() == [7.0, 6.0, 8.0, 0.0]
    assert v.grad.tolist() == [24.0, 32.0]


def test_values_broadcast_and_change_dtype_as_in_torch():
    v = leaf([1.5], torch.float32)
    y = leaf(torch.zeros(2, 3)) * 1
    y[:, 1:] = v
    y.sum().backward()
    assert y.dtype is F64
    assert (v.grad.dtype, v.grad.tolist()) == (torch.float32, [4.0])


def test_assignment_to_a_leaf_is_refused_outside_no_grad():
    x = leaf([1.0, 2.0])
    with pytest.raises(tg.TapeError, match=r"setitem: .*leaf.*no_grad"):
        x[0] = 5.0
    assert x.tolist() == [1.0, 2.0]
    pointer = x.data.data_ptr()
    with tg.no_grad():
        x[0] = 5.0
    assert x.tolist() == [5.0, 2.0]
    assert x.data.data_ptr() == pointer
    assert x.is_leaf


@pytest.mark.parametrize(
    "alias", [lambda y: y.view(-1), lambda y: y[0], lambda y: y.detach(), lambda y: y.T, lambda y: y.data[1:]]
)
def test_what_shares_the_memory_sees_an_assignment(alias):
    y, theirs = leaf(torch.ones(2, 2)) * 2, torch.full((2, 2), 2.0, dtype=F64)
    other, expected = alias(y), alias(theirs)
    y[0, 0] = 5.0
    theirs[0, 0] = 5.0
    assert torch.equal(y.data, theirs)
    assert torch.equal(torch.as_tensor(getattr(other, "_data", other)), expected)


def test_a_view_of_a_constant_that_receives_a_tracked_value_takes_its_base_along():
    y, x = tg.zeros(3, dtype=F64), leaf(1.0)
    view = y[1:]
    view[0] = x * 2
    assert y.requires_grad
    (y * y).sum().backward()
    assert (y.tolist(), x.grad.item()) == ([0.0, 2.0, 0.0], 8.0)
    raw = torch.zeros(3, dtype=F64)
    first, second = tg.as_tensor(raw), tg.as_tensor(raw)
    first[0] = x
    assert (second.tolist(), second.requires_grad) == ([1.0, 0.0, 0.0], False)


def test_integers_never_join_the_tape():
    y = tg.zeros(3, dtype=tg.int64)
    with pytest.raises(tg.DTypeError, match="setitem"):
        y[0] = leaf(1.0)
    assert not y.requires_grad
    assert y.tolist() == [0, 0, 0]


def test_a_value_that_does_not_fit_is_refused_and_changes_nothing():
    y = leaf(torch.ones(2, 3)) * 2
    with pytest.raises(tg.ShapeError, match="setitem"):
        y[0] = tg.ones(4)
    constant = tg.ones(3)
    with pytest.raises(tg.ShapeError, match="setitem"):
        constant[:2] = tg.ones(3)
    assert bool((y == 2).all())
    assert bool((constant == 1).all())


# --- in-place updates --------------------------------------------------------------------------------------------

ONES = torch.ones(3, dtype=F64)
UPDATES = {
    "+=": lambda t: t.__iadd__(2.0),
    "-=": lambda t: t.__isub__(ONES if isinstance(t, torch.Tensor) else tg.as_tensor(ONES)),
    "*=": lambda t: t.__imul__(3.0),
    "/=": lambda t: t.__itruediv__(2.0),
    "**=": lambda t: t.__ipow__(2.0),
    "add_": lambda t: t.add_(ONES, alpha=0.5),
    "sub_": lambda t: t.sub_(1.0),
    "mul_": lambda t: t.mul_(ONES),
    "div_": lambda t: t.div_(4.0),
    "copy_": lambda t: t.copy_(ONES),
    "fill_": lambda t: t.fill_(0.5),
    "zero_": lambda t: t.zero_(),
    "clamp_": lambda t: t.clamp_(0, 1),
    "neg_": lambda t: t.neg_(),
    "lerp_": lambda t: t.lerp_(ONES, 0.25),
    "addcmul_": lambda t: t.addcmul_(ONES, ONES, value=0.5),
    "addcdiv_": lambda t: t.addcdiv_(ONES, 2 * ONES),
}


@pytest.mark.parametrize("name", UPDATES)
def test_updates_of_a_leaf_under_no_grad_write_its_storage(name):
    x, raw = leaf([1.0, -2.0, 3.0]), torch.tensor([1.0, -2.0, 3.0], dtype=F64)
    pointer = x.data.data_ptr()
    with tg.no_grad():
        same = UPDATES[name](x)
    UPDATES[name](raw)
    assert same is x
    assert (x.is_leaf, x.requires_grad, x.data.data_ptr()) == (True, True, pointer)
    assert torch.equal(x.data, raw)
    constant = tg.tensor([1.0, -2.0, 3.0], dtype=F64)
    assert UPDATES[name](constant) is constant
    assert torch.equal(constant.data, raw)


@pytest.mark.parametrize("name", UPDATES)
def test_updates_of_a_recorded_value_leave_no_trace_of_themselves_under_no_grad(name):
    """As in torch: the numbers change, the place on the tape does not."""
    x, theirs = leaf([1.0, -2.0, 3.0]), torch.tensor([1.0, -2.0, 3.0], dtype=F64, requires_grad=True)
    with pytest.raises(tg.TapeError, match="no_grad"):
        UPDATES[name](x)
    y, expected = x * 1.0, theirs * 1.0
    with tg.no_grad(), torch.no_grad():
        UPDATES[name](y)
        UPDATES[name](expected)
    assert torch.equal(y.data, expected.detach())
    y.sum().backward()
    assert x.grad.tolist() == [1.0, 1.0, 1.0]


def floor_divide(t):
    t //= 2.0
    return t


def modulo(t):
    t %= 2.0
    return t


def matrix(t):
    t @= torch.ones(3, 3, dtype=F64)
    return t


def bits(t):
    t &= True
    return t


@pytest.mark.parametrize("update", [floor_divide, modulo, matrix, bits])
@pytest.mark.parametrize("make", [leaf, lambda v: leaf(v) * 1, lambda v: tg.tensor(v, dtype=F64)])
def test_no_augmented_assignment_rebinds_silently(update, make):
    x = make([1.0, -2.0, 3.0])
    try:
        assert update(x) is x
    except (tg.TapegradError, TypeError):
        assert x.tolist() == [1.0, -2.0, 3.0]


def test_refusals_advise_only_what_exists():
    x = leaf([1.0])
    for name in ("copy_", "fill_", "add_"):
        with pytest.raises(tg.TapeError) as caught:
            getattr(x, name)(tg.ones(1, dtype=F64) if name == "copy_" else 1.0)
        for word in str(caught.value).split("x.")[1:]:
            assert hasattr(x, word.split("(")[0])


def test_a_constant_that_takes_a_tracked_value_in_place_joins_the_tape():
    constant, x = tg.zeros(2, dtype=F64), leaf([1.0, 2.0])
    constant += x
    (constant * constant).sum().backward()
    assert (constant.tolist(), x.grad.tolist()) == ([1.0, 2.0], [2.0, 4.0])


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (tg.ones(4), tg.ShapeError, r"add_: .*3.*4"),
        ("a", TypeError, "add_: .*'a'"),
        (torch.ones(3, dtype=torch.float16), tg.DTypeError, r"add_: .*float16"),
    ],
)
def test_a_wrong_operand_in_place_is_refused_by_name(value, error, message):
    x = tg.ones(3)
    with pytest.raises(error, match=message):
        x += value
    assert x.tolist() == [1.0, 1.0, 1.0]
    whole = tg.tensor([1, 2])
    with pytest.raises(tg.DTypeError, match=r"add_: .*(Float|float32).*(Long|int64)"):
        whole += 1.5
    assert whole.tolist() == [1, 2]


def test_the_part_of_a_source_beyond_the_index_has_gradient_zero():
    """torch reads only as much of ``src`` as the index has (its own backward fails there)."""
    x, src = (tg.tensor(torch.rand(3, 4, dtype=torch.float64), requires_grad=True) for _ in range(2))
    y = tg.scatter_add(x, 1, torch.tensor([[1, 1], [0, 3]]), src)
    g = torch.arange(12, dtype=torch.float64).reshape(3, 4)
    y.backward(g)
    assert torch.equal(y.data, x.data.scatter_add(1, torch.tensor([[1, 1], [0, 3]]), src.data[:2, :2]))
    assert src.grad.tolist() == [[1, 1, 0, 0], [4, 7, 0, 0], [0, 0, 0, 0]]
    assert torch.equal(x.grad.data, g)


# y[...] = a view of y itself; torch runs the same lines in place
OWN = {
    "a row": lambda y: y.__setitem__(0, y[1]),
    "a column": lambda y: y.__setitem__((slice(None), 0), y[:, 2]),
    "a view of a view": lambda y: y.__setitem__(2, y[:2][1] if isinstance(y, tg.Tensor) else y[:2][1].clone()),
    "turned": lambda y: y.__setitem__(slice(None), y.T if isinstance(y, tg.Tensor) else y.T.clone()),
    "by an index": lambda y: y.__setitem__(torch.tensor([0, 2]), y[1] if isinstance(y, tg.Tensor) else y[1].clone()),
    "masked": lambda y: y.__setitem__(
        torch.tensor([True, False, True]), y[1:2] if isinstance(y, tg.Tensor) else y[1:2].clone()
    ),
    "detached": lambda y: y.__setitem__(0, y[1].detach()),
    "twice": lambda y: (y.__setitem__(0, y[1]), y.__setitem__(1, y[2])),
    "shifted": lambda y: y.__setitem__(slice(1, None), y[:-1] if isinstance(y, tg.Tensor) else y[:-1].clone()),
    "itself": lambda y: y.__setitem__(slice(None), y),
}


@pytest.mark.parametrize("name", OWN)
def test_a_value_is_assigned_a_view_of_itself(name):
    start = torch.arange(9, dtype=torch.float64).reshape(3, 3).cos()
    x, theirs = leaf(start), start.clone().requires_grad_()
    y, expected = x * x, theirs * theirs
    OWN[name](y)
    OWN[name](expected)
    assert torch.equal(y.data, expected.detach())
    g = torch.arange(9, dtype=torch.float64).reshape(3, 3).sin()
    (dx,) = tg.grad(y, x, g, create_graph=True)
    (expected_dx,) = torch.autograd.grad(expected, theirs, g, create_graph=True)
    assert torch.allclose(dx.data, expected_dx, rtol=1e-12)
    if name != "itself":
        (d2,) = tg.grad((dx * dx).sum(), x)
        (expected_d2,) = torch.autograd.grad((expected_dx * expected_dx).sum(), theirs)
        assert torch.allclose(d2.data, expected_d2, rtol=1e-12)


def test_a_view_that_was_assigned_follows_its_base():
    start = torch.arange(6, dtype=torch.float64).reshape(3, 2).cos()
    x, theirs = leaf(start), start.clone().requires_grad_()
    y, expected = x * 2, theirs * 2
    rows, expected_rows = y[:2], expected[:2]
    y[1:] = rows  # reaches the view itself
    expected[1:] = expected_rows.clone()
    assert torch.equal(rows.data, expected_rows.detach())
    assert rows.data.data_ptr() == y.data.data_ptr()
    (dx,) = tg.grad([(rows * rows).sum(), (y * y).sum()], x)
    (expected_dx,) = torch.autograd.grad([(expected_rows * expected_rows).sum(), (expected * expected).sum()], theirs)
    assert torch.allclose(dx.data, expected_dx, rtol=1e-12)
    y[2] = 0.0
    assert y.tolist()[2] == [0.0, 0.0]


def test_a_compiled_step_assigns_a_view_of_the_value():
    def step(x):
        y = x * x
        y[0] = y[1]
        y[:, 0] = y[:, 1]
        (dx,) = tg.grad((y * y).sum(), x)
        return y.detach(), dx

    fast = tg.compile(step)
    for i in range(4):
        x = leaf(torch.randn(3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(i)))
        for a, b in zip(fast(x), step(x), strict=True):
            assert torch.equal(a.data, b.data)
