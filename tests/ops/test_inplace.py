"""In-place operations against torch's: values, gradients, second gradients, aliasing, refusals; random programs."""

import gc
import random
import threading
import weakref

import pytest
import torch

import tapegrad as tg
from tapegrad.core import _C

F64 = torch.float64
START = torch.linspace(0.2, 0.9, 12, dtype=F64).reshape(3, 4)
OTHER = torch.linspace(0.5, 1.5, 12, dtype=F64).reshape(3, 4).cos()
MASK, ROWS = START > 0.5, torch.tensor([0, 2])
PLACES = torch.tensor([[0, 1, 2, 0], [1, 2, 0, 0]])


def sides(values):
    """The same leaf for both."""
    return tg.tensor(values, requires_grad=True), values.clone().requires_grad_()


# (x written to, o a second array that needs a gradient): both sides run the same text
UPDATES = {
    "+=": lambda y, o: y.__iadd__(o),
    "-=": lambda y, o: y.__isub__(o[0]),
    "*=": lambda y, o: y.__imul__(o),
    "/=": lambda y, o: y.__itruediv__(o),
    "**=": lambda y, o: y.__ipow__(2.5),
    "itself": lambda y, o: y.__imul__(y * 1),
    "a view of itself": lambda y, o: y.__imul__(y[0] * 1),
    "add_ alpha": lambda y, o: y.add_(o, alpha=0.5),
    "div_ rounding": lambda y, o: y.div_(0.3, rounding_mode="floor"),
    "masked_fill_": lambda y, o: y.masked_fill_(MASK, 0.5),
    "masked_fill_ value": lambda y, o: y.masked_fill_(MASK, o[0, 0]),
    "scatter_": lambda y, o: y.scatter_(0, PLACES, 0.5),
    "scatter_ src": lambda y, o: y.scatter_(1, torch.tensor([[1, 3], [0, 2]]), o[:2, :2]),
    "scatter_add_": lambda y, o: y.scatter_add_(0, PLACES, o[:2]),
    "index_add_": lambda y, o: y.index_add_(0, ROWS, o[:2], alpha=2),
    "index_fill_": lambda y, o: y.index_fill_(1, ROWS, 0.25),
    "index_copy_": lambda y, o: y.index_copy_(0, ROWS, o[1:]),
    "index_put_": lambda y, o: y.index_put_((ROWS,), o[0]),
    "index_put_ accumulate": lambda y, o: y.index_put_((torch.tensor([0, 0]),), o[0], accumulate=True),
    "clamp_": lambda y, o: y.clamp_(0.5, 1.2),
    "clamp_min_": lambda y, o: y.clamp_min_(0.8),
    "zero_": lambda y, o: y.zero_(),
    "fill_": lambda y, o: y.fill_(0.5),
    "fill_ value": lambda y, o: y.fill_(o[0, 0]),
    "copy_": lambda y, o: y.copy_(o),
    "copy_ number": lambda y, o: y.copy_(0.5),
    "polygamma_": lambda y, o: y.polygamma_(1),
    "copy_ row": lambda y, o: y.copy_(o[0]),
    "lerp_": lambda y, o: y.lerp_(o, 0.25),
    "addcmul_": lambda y, o: y.addcmul_(o, o, value=0.5),
    "addcdiv_": lambda y, o: y.addcdiv_(o, o + 3, value=0.5),
    "floor_": lambda y, o: y.floor_(),
    "lt_": lambda y, o: y.lt_(1.0),
    "tril_": lambda y, o: y.tril_(),
    "cumsum_": lambda y, o: y.cumsum_(1),
    **{
        name: lambda y, o, name=name: getattr(y, name)()
        for name in ("relu_", "exp_", "neg_", "sqrt_", "sin_", "tanh_", "sigmoid_", "log_", "square_", "abs_")
    },
    "row by row": lambda y, o: [y[i].__imul__(o[i]) for i in range(3)],
    "y[...] +=": lambda y, o: y.__setitem__(0, y[0].__iadd__(o[1])),
    "y[...] = value": lambda y, o: y.__setitem__((slice(None), 0), o[:, 1]),
    "transposed": lambda y, o: y.T.mul_(o.T),
    "reshaped": lambda y, o: y.reshape(-1)[2:7].exp_(),
}


@pytest.mark.parametrize("name", UPDATES)
@pytest.mark.parametrize("constant", [False, True])
def test_updates_agree_with_torch_in_value_and_both_derivatives(name, constant):
    (x, tx), (o, to) = sides(START), sides(OTHER)
    results = []
    for leaf, other, lib in ((x, o, tg), (tx, to, torch.autograd)):
        start = leaf.detach().clone() if constant else leaf
        y = start * 2
        where = (y.data if lib is tg else y).data_ptr()
        row, flat, copy = y[1], y.reshape(-1), y.detach()
        UPDATES[name](y, other)
        assert (y.data if lib is tg else y).data_ptr() == where
        total = (y * y).sum() + (row * row * row).sum() + flat[3:6].sin().sum()
        grads = []
        if total.requires_grad:
            grads = lib.grad(total, [leaf, other], create_graph=True, allow_unused=True)
            second = sum((g * g * g).sum() for g in grads if g is not None)
            known = isinstance(second, int) or not second.requires_grad
            grads = [*grads, *([None, None] if known else lib.grad(second, [leaf, other], allow_unused=True))]
        results.append([y.detach(), row.detach(), copy, *grads, y.requires_grad, row.requires_grad])
    for ours, theirs in zip(*results, strict=True):
        if isinstance(ours, bool):
            assert ours == theirs
            continue
        zero = torch.zeros((), dtype=F64)
        ours, theirs = zero if ours is None else ours.data, zero if theirs is None else theirs.detach()
        assert torch.allclose(ours, theirs, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", UPDATES)
def test_a_leaf_is_refused_outside_no_grad_and_nothing_changes(name):
    x, o = tg.tensor(START, requires_grad=True), tg.tensor(OTHER, requires_grad=True)
    with pytest.raises(tg.TapeError, match="leaf that requires a gradient"):
        UPDATES[name](x, o)
    assert torch.equal(x.data, START)
    with pytest.raises(tg.TapeError, match="leaf that requires a gradient"):
        x[0].mul_(2.0)
    assert torch.equal(x.data, START)
    with tg.no_grad():
        assert x.mul_(2.0) is x
    assert torch.equal(x.data, START * 2)


def test_a_saved_value_written_later_is_named_at_backward():
    x = tg.tensor(START, requires_grad=True)
    y = x * 1
    z = y.exp()
    z += 1
    with pytest.raises(tg.MutationError, match="exp: its output"):
        z.sum().backward()
    y = x * 1
    loss = (y * y).sum()
    y[0].neg_()
    with pytest.raises(tg.MutationError, match="mul: argument"):
        loss.backward()
    y = (x * 1).sigmoid_()
    y *= 2
    with pytest.raises(tg.MutationError, match="sigmoid: its output"):
        y.sum().backward()


def test_shapes_and_dtypes_that_do_not_fit_are_refused_and_change_nothing():
    y = tg.tensor(START, requires_grad=True) * 1
    node = y._node
    with pytest.raises(tg.ShapeError, match="add_: the result"):
        y += tg.ones(2, 3, 4)
    with pytest.raises(tg.ShapeError, match="several elements"):
        (tg.tensor([1.0], requires_grad=True) * 1).expand(3).add_(1.0)
    with pytest.raises(tg.DTypeError, match="int64"):
        tg.arange(12).reshape(3, 4).__iadd__(y)
    assert y._node is node
    assert torch.equal(y.data, START)


def test_an_update_is_one_line_of_the_tape():
    x = tg.tensor(START, requires_grad=True)
    with tg.Tape() as tape:
        y = x * 2
        y += x
        y.relu_()
    assert [entry.op.name for entry in tape] == ["mul", "add", "relu"]
    tape.validate()
    assert "relu(%2)" in str(tape)


@pytest.mark.parametrize("name", ["normal_", "uniform_", "bernoulli_"])
def test_random_numbers_in_place_come_from_our_generators(name):
    draws = []
    for _ in range(2):
        tg.manual_seed(3)
        draws.append(getattr(tg.zeros(4000), name)().data)
    assert torch.equal(*draws)
    mean, std = {"normal_": (0, 1), "uniform_": (0.5, 12**-0.5), "bernoulli_": (0.5, 0.5)}[name]
    assert draws[0].mean().item() == pytest.approx(mean, abs=0.06)
    assert draws[0].std().item() == pytest.approx(std, abs=0.06)
    x = tg.tensor(START, requires_grad=True)
    y = x * 2
    getattr(y, name)()
    y.sum().backward()
    assert torch.equal(x.grad.data, torch.zeros_like(START))


def block(nn, x, y, cut):
    """A block that reads its input again after an activation has written over it."""
    out = y * 2
    rows = out[1:] if cut else None
    again = nn.ReLU(inplace=True)(out) if cut else nn.functional.leaky_relu(out, 0.1, inplace=True)
    return (again * out).sum() + (0 if rows is None else (rows * x[1:]).sum()), out


@pytest.mark.parametrize("cut", [True, False])
def test_activations_in_place_write_over_their_input(cut):
    x, tx = sides(START - 0.5)
    total, out = block(tg.nn, x, x, cut)
    expected, expected_out = block(torch.nn, tx, tx, cut)
    total.backward()
    expected.backward()
    assert torch.equal(out.data, expected_out.detach())
    assert torch.allclose(x.grad.data, tx.grad, rtol=1e-12)
    constant = tg.tensor(START - 0.5)
    assert tg.nn.Hardtanh(0.0, 0.2, inplace=True)(constant) is constant
    assert constant.data.max().item() == 0.2
    assert tg.nn.functional.relu(x, inplace=True) is not x  # a leaf is left alone
    assert torch.equal(x.data, START - 0.5)


def residual(x, w):
    out = (x @ w).sin_()
    out += x
    out[0] *= 2
    rows = out[1:]
    rows -= out[:1] * 0.5
    return (out.sigmoid_() * x).sum()


def test_forward_mode_agrees_with_reverse():
    x, w = torch.eye(3, dtype=F64) + 0.1, torch.arange(9, dtype=F64).reshape(3, 3).cos()
    leaf = tg.tensor(x, requires_grad=True)
    assert tg.gradcheck(lambda x: residual(x, tg.tensor(w)), leaf)
    assert tg.gradgradcheck(lambda x: residual(x, tg.tensor(w)), leaf)
    t = x.sin()
    _, tangent = tg.func.jvp(lambda x: residual(x, tg.tensor(w)), (tg.tensor(x),), (tg.tensor(t),))
    (g,) = tg.grad(residual(leaf, tg.tensor(w)), leaf)
    assert tangent.item() == pytest.approx((g.data * t).sum().item(), rel=1e-10)


def test_a_compiled_step_is_the_eager_step_bit_for_bit():
    results = []
    for compiled in (False, True):
        w = tg.tensor(torch.arange(9.0).reshape(3, 3).cos(), requires_grad=True)
        opt = tg.optim.SGD([w], lr=0.1)

        def step(x, w=w, opt=opt):
            opt.zero_grad()
            hidden = x @ w
            loss = (tg.nn.functional.relu(hidden, inplace=True) * hidden).sum() + residual(x, w)
            loss.backward()
            opt.step()
            return loss

        run = tg.compile(step) if compiled else step
        losses = [run(tg.tensor(torch.eye(3) + i)).item() for i in range(5)]
        results.append((losses, w.tolist()))
    assert results[0] == results[1]


# --- who lies in one memory ----------------------------------------------------------------------------------------


def test_every_live_tensor_of_a_memory_is_known_and_no_other():
    y = tg.tensor(START, requires_grad=True) * 2
    rows, copy = list(y), y.clone()
    flat = y.view(-1)
    assert [id(t) for t in _C.sharers(flat)] == [id(t) for t in (y, *rows)]
    assert _C.sharers(copy) == []
    del rows[1]
    first, y = weakref.ref(y), None
    assert first() is None
    assert [id(t) for t in _C.sharers(flat)] == [id(t) for t in rows]
    moved = tg.zeros(4)
    moved.data = flat.data[:4]
    assert any(t is moved for t in _C.sharers(flat))
    moved.data = torch.zeros(4)
    assert not any(t is moved for t in _C.sharers(flat))


def test_views_are_found_whatever_the_collector_sees():
    x = tg.tensor(START, requires_grad=True)
    y = x * 2
    view = y[1]
    gc.freeze()  # no generation of the collector has them now
    try:
        y *= x
    finally:
        gc.unfreeze()
    (g,) = tg.grad(view.sum(), [x])
    assert torch.allclose(g.data[1], 4 * START[1])
    assert not g.data[0].any()


def test_threads_make_and_drop_views_of_one_memory():
    y = tg.zeros(64, dtype=tg.float64)

    def work(i):
        for _ in range(300):
            parts = [y[i * 8 + k : i * 8 + k + 1] for k in range(8)]
            parts[3].add_(1.0)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert _C.sharers(y) == []
    assert y.data.sum().item() == 8 * 300


# --- all of torch's methods that write -----------------------------------------------------------------------------

# names of torch's that no constant on a CPU can answer, and those whose test stands elsewhere
ABSENT = {"resize_as_sparse_", "sparse_resize_", "sparse_resize_and_clear_", "rename_"}


def test_every_method_of_torch_that_writes_is_here_or_says_why_not():
    names = [name for name in dir(torch.Tensor) if name.endswith("_") and not name.startswith("_")]
    missing = {name for name in names if not hasattr(tg.Tensor, name)}
    assert missing <= ABSENT
    for name in missing:
        with pytest.raises(AttributeError, match=f"Tensor has no '{name}', which torch's has: "):
            getattr(tg.zeros(1), name)


SHOWN = {
    "unsqueeze_": lambda t: t.unsqueeze_(1),
    "squeeze_": lambda t: t.unsqueeze_(0).squeeze_(0),
    "transpose_": lambda t: t.transpose_(0, 1),
    "swapaxes_": lambda t: t.swapaxes_(0, 1),
    "t_": lambda t: t.t_(),
    "as_strided_": lambda t: t.as_strided_((4, 3), (1, 4)),  # of all: of a part, torch forgets what others still see
}


@pytest.mark.parametrize("name", SHOWN)
def test_what_a_tensor_shows_of_its_memory_changes_in_place(name):
    (x, tx), results = sides(START), []
    for leaf, lib in ((x, tg), (tx, torch.autograd)):
        y = leaf * 2
        row, at = y[1], y.data_ptr()
        assert SHOWN[name](y) is y
        assert y.data_ptr() == at
        z = y * 3
        y.mul_(2.0)  # after which the row has other values
        total = (y.exp() * z).sum() + (row * row).sum()
        results.append([y.detach(), row.detach(), *lib.grad(total, [leaf])])
    for ours, theirs in zip(*results, strict=True):
        assert torch.allclose(ours.data, theirs)
    constant, raw = tg.tensor(START), START.clone()
    assert torch.equal(SHOWN[name](constant).data, SHOWN[name](raw))
    with pytest.raises(tg.TapeError, match="leaf that requires a gradient"):
        SHOWN[name](x)


def test_memory_changes_only_under_constants():
    x = tg.tensor(START, requires_grad=True)
    y = x * 2
    for write in (lambda: y.resize_(2, 2), lambda: y.resize_as_(tg.zeros(2)), lambda: y.set_(tg.zeros(2, dtype=F64))):
        with pytest.raises(tg.TapeError, match="requires a gradient"):
            write()
    for write in (lambda: y.apply_(abs), lambda: y.map_(x, max)):
        with pytest.raises(tg.TapeError, match="Python function"):
            write()
    c = tg.tensor(START)
    kept = c.view(-1)
    assert c.resize_(2, 2).tolist() == START.reshape(-1)[:4].reshape(2, 2).tolist()
    assert kept.shape == (12,)
    assert c.set_(kept).shape == (12,)
    assert tg.tensor([1.0, -2.0]).apply_(abs).tolist() == [1.0, 2.0]
    v = y[0]
    with pytest.raises(tg.TapeError, match="view cannot be detached"):
        v.detach_()
    assert not y.detach_().requires_grad
    assert not (x * 2).detach_().requires_grad


def test_an_index_given_twice_counts_once():
    (x, tx), (o, to) = sides(START), sides(torch.tensor(0.7, dtype=F64))
    for leaf, value in ((x, o), (tx, to)):
        (leaf * 2).index_fill_(0, torch.tensor([0, 0, 2]), value).sum().backward()
    assert o.grad.item() == pytest.approx(to.grad.item()) == 8.0
    assert torch.equal(x.grad.data, tx.grad)


# --- random programs -----------------------------------------------------------------------------------------------

VIEWS = [
    lambda t: t[0] if t.ndim else t,
    lambda t: t[..., 1:] if t.ndim and t.shape[-1] > 1 else t,
    lambda t: t[::2] if t.ndim else t,
    lambda t: t.transpose(0, -1) if t.ndim else t,
    lambda t: t.view(-1) if t.is_contiguous() else t,
    lambda t: t[..., None].expand(*t.shape, 2) if t.ndim < 3 else t[..., 0],
    lambda t: t.view(-1)[2:7] if t.is_contiguous() and t.numel() > 6 else t,
]
WRITES = [
    lambda t, o: t.mul_(1.5),
    lambda t, o: t.mul_(o),
    lambda t, o: t.add_(o),
    lambda t, o: t.sin_(),
    lambda t, o: t.tanh_(),
    lambda t, o: t.zero_(),
    lambda t, o: t.copy_(o * o),
    lambda t, o: t.mul_(t),
    lambda t, o: t.__setitem__(0, o) if t.ndim else t.fill_(o),
    lambda t, o: t.masked_fill_(t > 0.5, o),
]


def program(seed, x, o, zeros):
    """A base and views of it, written to and read in an order drawn from the seed."""
    draw = random.Random(seed)
    values, total = [x * 2 if draw.random() < 0.7 else zeros], 0
    for _ in range(8):
        kind = draw.random()
        one = draw.choice(values)
        if kind < 0.35:
            values.append(draw.choice(VIEWS)(one))
        elif kind < 0.8:
            if 0 not in (one.stride() if isinstance(one, torch.Tensor) else one.data.stride()):
                draw.choice(WRITES)(one, o)
        else:
            total = total + (draw.choice(values).cos() * o).sum()
    for value in values:
        total = total + (value * value * o).sum()
    return values, total


@pytest.mark.parametrize("seed", range(120))
def test_random_programs_agree_with_torch(seed):
    (x, tx), (o, to) = sides(START), sides(torch.tensor(0.7, dtype=F64))
    values, total = program(seed, x, o, tg.zeros(3, 4, dtype=F64))
    try:
        expected, expected_total = program(seed, tx, to, torch.zeros(3, 4, dtype=F64))
        if expected_total.requires_grad:
            wanted = torch.autograd.grad(expected_total, [tx, to], create_graph=True, allow_unused=True)
    except RuntimeError as error:  # torch keeps no copy of what `t.mul_(t)` reads; here it is right, or named
        if "in-place operation" not in str(error) and "inplace operation" not in str(error):
            raise
        try:
            tg.grad(total, [x, o], allow_unused=True)
        except tg.MutationError:
            return
        assert tg.gradcheck(lambda x, o: program(seed, x, o, tg.zeros(3, 4, dtype=F64))[1], (x, o))
        return
    for ours, theirs in zip(values, expected, strict=True):
        assert torch.allclose(ours.data, theirs.detach(), rtol=1e-12)
        assert ours.requires_grad == theirs.requires_grad
    assert total.requires_grad == expected_total.requires_grad
    if not total.requires_grad:
        return
    got = tg.grad(total, [x, o], create_graph=True, allow_unused=True)
    for ours, theirs in zip(got, wanted, strict=True):
        assert (ours is None) == (theirs is None)
        assert ours is None or torch.allclose(ours.data, theirs.detach(), rtol=1e-9)
    if wanted[1] is None or not wanted[1].requires_grad:
        return
    (second,) = tg.grad((got[1] * got[1]).sum(), [o], allow_unused=True)
    (expected_second,) = torch.autograd.grad((wanted[1] * wanted[1]).sum(), [to], allow_unused=True)
    assert (second is None) == (expected_second is None)
    assert second is None or torch.allclose(second.data, expected_second, rtol=1e-9)


def test_an_op_that_gives_its_argument_back_follows_it():
    @tg.op(x=lambda g: g)
    def same(x):
        return x

    x = tg.tensor([1.0, 2.0], requires_grad=True)
    y = x * 2
    z = same(y)
    y.mul_(3.0)
    assert z.tolist() == y.tolist() == [6.0, 12.0]
    assert tg.grad([z.sum()], [x])[0].tolist() == [6.0, 6.0]
