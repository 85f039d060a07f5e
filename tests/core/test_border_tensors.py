"""`tg.Tensor(...)` as ``torch.Tensor(...)``, and torch tensors that require a gradient: refused at every border."""

import array

import numpy as np
import pytest
import torch

import tapegrad as tg
from tapegrad import nn

F64 = torch.float64
WAITING = torch.ones(2, dtype=F64, requires_grad=True)

MADE = {
    "nothing": (),
    "a list of ints": ([1, 2],),
    "a tuple": ((2, 3),),
    "nested": ([[1, 2.5], [3, True]],),
    "bools": ([True, False],),
    "empty": ([],),
    "empty rows": ([[]],),
    "a range": (range(3),),
    "an array.array": (array.array("d", [1, 2]),),
    "a float64 array": (np.arange(3.0),),
    "a float32 array": (np.arange(3, dtype=np.float32),),
    "an int array": (np.arange(3),),
    "a list of arrays": ([*np.ones((2, 2))],),
    "an int tensor": (torch.arange(3),),
    "a 0-dim tensor": (torch.tensor(3),),
    "0-dim tensors": ([torch.tensor(1), torch.tensor(2.5)],),
}
SIZES = {
    "one": (3,),
    "two": (2, 3),
    "none of one": (0,),
    "a torch.Size": (torch.Size([2, 3]),),
    "NumPy's": (np.int64(3), 2),
    "a 0-dim array": (np.array(3),),
    "tensors": (torch.tensor(3), 2),
}
NOT_MADE = {
    "a float": (2.5,),
    "a bool": (True,),
    "None": (None,),
    "text": ("ab",),
    "a set": ({1, 2},),
    "an iterator": (iter([1]),),
    "two lists": ([2], [3]),
    "a float size": (2, 3.0),
    "a negative size": (-1,),
    "a complex number": ([1j],),
    "text in a list": ([1, "a"],),
}


@pytest.fixture(params=[torch.float32, F64], ids=str)
def default(request):
    before = torch.get_default_dtype()
    torch.set_default_dtype(request.param)
    yield request.param
    torch.set_default_dtype(before)


@pytest.mark.parametrize("name", MADE)
@pytest.mark.filterwarnings("ignore:Creating a tensor from a list of numpy.ndarrays")
def test_a_tensor_is_made_as_torch_makes_it(name, default):
    x, expected = tg.Tensor(*MADE[name]), torch.Tensor(*MADE[name])
    assert x.dtype is expected.dtype
    assert torch.equal(x.data, expected)
    assert not x.requires_grad


@pytest.mark.parametrize("name", SIZES)
def test_integers_are_sizes(name, default):
    x = tg.Tensor(*SIZES[name])
    assert (x.shape, x.dtype) == (torch.Tensor(*SIZES[name]).shape, default)


@pytest.mark.parametrize("name", NOT_MADE)
def test_what_torch_makes_no_tensor_of_is_refused(name):
    with pytest.raises((TypeError, RuntimeError)):
        torch.Tensor(*NOT_MADE[name])
    with pytest.raises((TypeError, tg.ShapeError), match=r"^Tensor: "):
        tg.Tensor(*NOT_MADE[name])


def test_keywords_of_torchs_constructor():
    assert tg.Tensor(size=(2, 3)).shape == (2, 3)
    assert tg.Tensor(data=[1, 2]).tolist() == [1.0, 2.0]
    assert tg.Tensor([1, 2], device="cpu", requires_grad=True).requires_grad
    with pytest.raises(tg.DTypeError, match="device must be 'cpu'"):
        tg.Tensor(2, device="meta")
    with pytest.raises(TypeError, match="Tensor: expected sizes, or one of data, size, other; got shape"):
        tg.Tensor(shape=(2, 3))
    torch.set_default_dtype(torch.float16)
    try:
        with pytest.raises(tg.DTypeError, match="Tensor"):
            tg.Tensor([1, 2])
    finally:
        torch.set_default_dtype(torch.float32)


def test_a_tensor_of_a_tensor_shares_memory_and_gradient():
    x = tg.tensor([1.0, 2.0], requires_grad=True)
    y = tg.Tensor(x)
    assert y.data.data_ptr() == x.data.data_ptr()
    (y * 3).sum().backward()
    assert x.grad.tolist() == [3.0, 3.0]
    leaf = tg.Tensor(x, requires_grad=True)
    assert leaf.is_leaf
    assert nn.Parameter(x).is_leaf
    plane = np.zeros(2, dtype=np.float32)
    shared = tg.Tensor(plane)
    plane[0] = 5
    assert shared.tolist() == [5.0, 0.0]


def test_numbers_of_nested_tensors():
    row = tg.tensor([1.0, 2.0], dtype=F64)
    assert tg.tensor([row, [3.0, tg.tensor(4)]]).tolist() == [[1.0, 2.0], [3.0, 4.0]]
    assert tg.tensor([tg.tensor(1.0, dtype=F64), tg.tensor(2.0)]).dtype is F64
    assert tg.as_tensor(((tg.tensor(1),), (2,))).tolist() == [[1], [2]]


# --- torch tensors that require a gradient -----------------------------------------------------------------------

MODULE = nn.Linear(2, 2, dtype=F64)
ROWS = WAITING.expand(3, 2)
REFUSED = {
    "an operator": lambda: tg.ones(2, dtype=F64) * WAITING,
    "a reflected operator": lambda: WAITING - tg.ones(2, dtype=F64),
    "an op": lambda: tg.exp(WAITING),
    "an op of torch's": lambda: torch.add(tg.ones(2, dtype=F64), WAITING),
    "a composition": lambda: tg.topk(WAITING, 1),
    "a sequence": lambda: tg.cat([tg.ones(2, dtype=F64), WAITING]),
    "a subclass": lambda: tg.stack([torch.nn.Parameter(WAITING.detach())] * 2),
    "a computed value": lambda: tg.sum(WAITING * 2),
    "a number": lambda: tg.ones(2, dtype=F64) * WAITING.sum(),
    "a view": lambda: tg.sum(WAITING[:1]),
    "a module": lambda: MODULE(ROWS),
    "a network": lambda: nn.Sequential(MODULE, nn.ReLU())(ROWS),
    "a loss": lambda: nn.MSELoss()(MODULE(ROWS.detach()), ROWS),
    "a loss's target": lambda: nn.functional.cross_entropy(MODULE(ROWS.detach()), ROWS.softmax(1)),
    "a loss's weight": lambda: nn.functional.cross_entropy(ROWS.detach(), torch.tensor([0, 1, 1]), WAITING),
    "a mask": lambda: nn.functional.scaled_dot_product_attention(*[ROWS.detach()] * 3, attn_mask=ROWS @ ROWS.T),
    "a value written": lambda: tg.zeros(2, dtype=F64).__setitem__(0, WAITING[0]),
    "an operand in place": lambda: tg.zeros(2, dtype=F64).add_(WAITING),
    "Tensor": lambda: tg.Tensor(WAITING),
    "as_tensor": lambda: tg.as_tensor(WAITING),
    "as_tensor of another dtype": lambda: tg.as_tensor(WAITING, dtype=torch.float32),
    "a list of numbers": lambda: tg.tensor([1.0, WAITING.sum()]),
    "a list of tensors": lambda: tg.tensor([[0.0, 1.0], WAITING]),
    "a buffer": lambda: nn.Module().register_buffer("b", WAITING),
    "a gradient": lambda: setattr(tg.ones(2, dtype=F64), "grad", WAITING),
    "a seed": lambda: tg.tensor([1.0, 2.0], dtype=F64, requires_grad=True).exp().backward(WAITING),
    "func": lambda: tg.func.grad(lambda x: x.sum())(WAITING),
    "a tangent": lambda: tg.func.jvp(tg.exp, (torch.ones(2, dtype=F64),), (WAITING,)),
    "a compiled step": lambda: tg.compile(lambda x: x * 2)(WAITING),
    "a compiled step's dict": lambda: tg.compile(lambda x: x["a"] * 2)({"a": WAITING}),
    "a compiled module": lambda: tg.compile(MODULE)(ROWS),
    "run": lambda: tg.compile(lambda x: MODULE(x).sum().detach()).run(ROWS, batch_size=1),
    "fit": lambda: nn.Sequential(MODULE).fit(
        ROWS, ROWS.detach(), loss=nn.MSELoss(), optimizer=tg.optim.SGD(MODULE.parameters(), 0.1), epochs=1, batch_size=1
    ),
    "batches": lambda: next(iter(tg.data.batches(ROWS, batch_size=1, seed=0))),
    "standardize": lambda: tg.data.standardize(ROWS),
    "checkpoint": lambda: tg.checkpoint(tg.exp, WAITING),
    "clipping": lambda: tg.clamp(tg.ones(2, dtype=F64), WAITING),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_torch_tensor_that_requires_a_gradient_is_refused_by_name(name):
    with pytest.raises(tg.TapeError, match=r"^\S.*: .*is a torch tensor that requires a gradient.*pass .detach\(\)"):
        REFUSED[name]()
    assert WAITING.grad is None


def test_what_is_not_lost_is_taken():
    for copy in (tg.tensor(WAITING), nn.Parameter(WAITING), tg.ones_like(WAITING)):
        assert torch.equal(copy.data, WAITING.detach())
        assert not copy.data.requires_grad
    assert tg.randn_like(WAITING).shape == tg.rand_like(WAITING).shape == WAITING.shape
    x = tg.zeros(2, dtype=F64)
    x.data = WAITING
    assert not x.data.requires_grad
    with tg.no_grad():
        assert tg.add(x, WAITING).tolist() == [2.0, 2.0]
        assert tg.zeros(2, dtype=F64).copy_(WAITING).tolist() == [1.0, 1.0]
    linear = torch.nn.Linear(2, 2, dtype=F64)
    MODULE.load_state_dict(dict(linear.named_parameters()))
    assert torch.equal(MODULE.weight.data, linear.weight.detach())
    assert (tg.ones(2, dtype=F64) * WAITING.detach()).tolist() == [1.0, 1.0]


def test_a_list_of_values_that_require_gradients_is_refused():
    x = tg.tensor([1.0, 2.0], requires_grad=True)
    for data, place in (([x[0], 1.0], "0"), ([[0.0, 1.0], x], "1"), ((1.0, [2.0, x.sum()]), r"1\]\[1")):
        for make in (tg.tensor, tg.as_tensor, tg.Tensor):
            with pytest.raises(tg.TapeError, match=rf"data\[{place}\] requires a gradient.*tg.stack.*detach"):
                make(data)
    assert tg.tensor(x).tolist() == [1.0, 2.0]
