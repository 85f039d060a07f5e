"""Backward: what is added up where, hooks, released values, changed values, errors that leave nothing behind."""

import random
import re
import signal
import threading
import weakref

import pytest
import torch

import tapegrad as tg
from tapegrad.core import _C

DEPTH = 100_000


def leaf(values, dtype=torch.float64):
    return tg.tensor(values, dtype=dtype, requires_grad=True)


def both(f, *values):
    """(tapegrad's, torch's) gradients of the same function of the same values, weighted to one number."""
    ours = [leaf(v) for v in values]
    theirs = [torch.as_tensor(v, dtype=torch.float64).clone().requires_grad_() for v in values]
    y, expected = f(*ours), f(*theirs)
    weights = torch.cos(torch.arange(expected.numel(), dtype=torch.float64)).reshape(expected.shape)
    assert torch.allclose(y.data, expected.detach(), rtol=1e-14, atol=1e-14)  # values of about 1, and their differences
    y.backward(weights)
    expected.backward(weights)
    return [x.grad.data for x in ours], [x.grad for x in theirs]


def assert_same_gradients(f, *values):
    ours, theirs = both(f, *values)
    for a, b in zip(ours, theirs, strict=True):
        assert a.shape == b.shape
        assert torch.allclose(a, b, rtol=1e-13, atol=1e-15)


# --- sums --------------------------------------------------------------------------------------------------------


def test_diamonds_and_reused_values_add_up():
    x, w = torch.randn(3, 4, dtype=torch.float64), torch.randn(3, 4, dtype=torch.float64)

    def f(x, w):
        y = x * w
        z = y.exp() + y
        return z * y - z * x + x

    assert_same_gradients(f, x, w)
    assert_same_gradients(lambda x: x + x + x * x + x, x)
    assert_same_gradients(lambda x: x @ x.T @ x, x)


@pytest.mark.parametrize(
    "shapes", [((3, 4), (4,)), ((3, 1), (1, 4)), ((), (2, 3)), ((2, 1, 4), (3, 1)), ((0, 3), (3,))]
)
@pytest.mark.parametrize("op", [lambda a, b: a + b, lambda a, b: a * b, lambda a, b: a - b, lambda a, b: a / b])
def test_broadcasting_is_undone(op, shapes):
    a, b = (torch.rand(shape, dtype=torch.float64) + 0.5 for shape in shapes)
    assert_same_gradients(op, a, b)
    assert_same_gradients(op, b, a)


def test_contributions_are_summed_from_the_last_use_to_the_first():
    """The order DESIGN.md fixes shows in the rounding: ((c + b) + a), not ((a + b) + c)."""
    a, b, c = (torch.tensor([v], dtype=torch.float32) for v in (1.0, 1e8, -1e8))
    x = leaf([1.0], torch.float32)
    first, second, third = x * a, x * b, x * c
    (first + second + third).backward()
    assert x.grad.item() == ((c + b) + a).item() == 1.0
    x.grad = None
    first, second, third = x * c, x * b, x * a
    (first + second + third).backward()
    assert x.grad.item() == ((a + b) + c).item() == 0.0


def test_gradients_add_up_across_calls_and_grad_can_be_assigned():
    x = leaf([1.0, 2.0])
    for count in (1, 2, 3):
        (x * x).sum().backward()
        assert x.grad.tolist() == [2.0 * count, 4.0 * count]
    x.grad = tg.tensor([10.0, 10.0], dtype=torch.float64)
    (x * x).sum().backward()
    assert x.grad.tolist() == [12.0, 14.0]
    x.grad = None
    assert x.grad is None
    (x * x).sum().backward()
    assert x.grad.tolist() == [2.0, 4.0]


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (torch.ones(3, dtype=torch.float64), tg.ShapeError, r"grad: gradient has shape \[3\]; expected \[2\]"),
        (torch.ones(2), tg.DTypeError, r"grad: gradient has dtype torch.float32; expected torch.float64"),
        ("zero", TypeError, "grad: .*'zero'"),
    ],
)
def test_assigning_a_wrong_grad_is_refused_and_keeps_the_old_one(value, error, message):
    x = leaf([1.0, 2.0])
    (x * x).sum().backward()
    with pytest.raises(error, match=message):
        x.grad = value
    assert x.grad.tolist() == [2.0, 4.0]


def test_a_leafs_grad_shares_storage_with_nothing():
    x, y, z = (leaf(torch.randn(2, 3)) for _ in range(3))
    given = torch.ones(2, 3, dtype=torch.float64)
    total = x + y + z.T.T  # one gradient for all three
    total.retain_grad()
    total.backward(given)
    pointers = [t.data_ptr() for t in (given, total.grad.data, x.grad.data, y.grad.data, z.grad.data)]
    assert len(set(pointers)) == len(pointers)
    (x + y + z.T.T).backward(given)
    assert torch.equal(given, torch.ones_like(given))
    assert all(torch.equal(t.grad.data, given * 2) for t in (x, y, z))


def test_the_gradient_of_an_expanded_sum_is_a_tensor_of_its_own():
    x = leaf(torch.randn(3, 4))
    x.sum().backward()
    assert x.grad.is_contiguous()
    x.grad.data[0, 0] = 7
    assert x.grad.data.sum().item() == 11 + 7


def test_an_assigned_grad_is_not_written_through_by_backward():
    x, given = leaf([1.0, 2.0]), tg.ones(2, dtype=torch.float64)
    x.grad = given
    (x * 3).sum().backward()
    assert x.grad.tolist() == [4.0, 4.0]
    assert given.tolist() == [1.0, 1.0]


def test_swapping_requires_grad_keeps_the_gradient():
    x = leaf([2.0])
    (x * x).sum().backward()
    x.requires_grad_(False)
    assert (x.grad.item(), x.requires_grad, (x * 2).requires_grad) == (4.0, False, False)
    x.requires_grad = True
    (x * x).sum().backward()
    assert x.grad.item() == 8.0
    with pytest.raises(tg.TapeError, match=r"requires_grad.*detach"):
        (x * 2).requires_grad_(False)


# --- hooks -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("computed", [False, True])
def test_hooks_run_in_order_replace_the_gradient_and_can_be_removed(computed):
    x = leaf([1.0, 2.0])
    y = x * 3 if computed else x
    order = []
    y.register_hook(lambda g: order.append(("first", g.tolist())))
    handle = y.register_hook(lambda g: g * 10)
    y.register_hook(lambda g: order.append(("last", g.tolist())))
    (y * 1).sum().backward(retain_graph=True)
    assert order == [("first", [1.0, 1.0]), ("last", [10.0, 10.0])]
    factor = 30.0 if computed else 10.0
    assert x.grad.tolist() == [factor, factor]
    handle.remove()
    later = y.register_hook(lambda g: g * 2)
    handle.remove()  # a second time: does nothing, to nobody
    x.grad = None
    (y * 1).sum().backward()
    assert x.grad.tolist() == [2 * factor / 10] * 2
    later.remove()


def test_a_hook_sees_the_sum_of_all_contributions_once():
    x = leaf([1.0])
    y = x * 2
    seen = []
    y.register_hook(lambda g: seen.append(g.item()))
    x.register_hook(lambda g: seen.append(g.item()))
    (y * 3 + y * 4 + x).sum().backward()
    assert seen == [7.0, 15.0]


def test_a_hook_on_one_of_several_outputs():
    x = leaf([1.0, 2.0, 3.0, 4.0])
    a, b = x.chunk(2)
    b.register_hook(lambda g: g * 100)
    (a + b).sum().backward()
    assert x.grad.tolist() == [1.0, 1.0, 100.0, 100.0]


def test_a_hook_that_returns_a_wrong_gradient_is_refused():
    x = leaf([1.0, 2.0])
    x.register_hook(lambda g: torch.ones(3, dtype=torch.float64))
    with pytest.raises(tg.ShapeError, match=r"hook: gradient has shape \[3\]; expected \[2\]"):
        x.sum().backward()
    assert x.grad is None
    with pytest.raises(tg.TapeError, match=r"register_hook: .*needs no gradient"):
        tg.ones(2).register_hook(print)
    with pytest.raises(TypeError, match="hook"):
        x.register_hook(3)


def test_retain_grad_keeps_a_computed_gradient_once_after_all_hooks():
    x = leaf([1.0, 2.0])
    y = x * 2
    y.retain_grad()
    y.retain_grad()
    y.register_hook(lambda g: g * 5)
    (y * 3).sum().backward()
    assert y.grad.tolist() == [15.0, 15.0]
    assert x.grad.tolist() == [30.0, 30.0]
    x.retain_grad()  # of a leaf: no effect, as in torch
    with pytest.raises(tg.TapeError, match="retain_grad"):
        tg.ones(2).retain_grad()


def test_hooks_of_variables_that_grad_was_not_asked_for_stay_silent():
    x, w = leaf([1.0]), leaf([2.0])
    w.register_hook(lambda g: pytest.fail("w's gradient was not asked for"))
    assert tg.grad((x * w).sum(), x)[0].item() == 2.0


# --- released and changed values ---------------------------------------------------------------------------------


def test_second_backward_says_so():
    x = leaf([1.0, 2.0])
    loss = (tg.tanh(x) * x).sum()
    loss.backward()
    first = x.grad.clone()
    with pytest.raises(tg.TapeError, match=r"mul: .*test_backward.py:\d+.*retain_graph=True"):
        loss.backward()
    assert torch.equal(x.grad.data, first.data)


def test_retain_graph_allows_a_second_backward():
    x = leaf([1.0, 2.0])
    loss = (x**3).sum()
    loss.backward(retain_graph=True)
    loss.backward()
    assert x.grad.tolist() == [6.0, 24.0]
    with pytest.raises(tg.TapeError, match="retain_graph"):
        loss.backward()


def test_two_losses_over_one_released_part_need_retain_graph():
    x = leaf([2.0])
    shared = tg.exp(x)
    shared.sum().backward()
    with pytest.raises(tg.TapeError, match=r"exp: .*retain_graph=True"):
        (shared * 2).sum().backward()


MUTATIONS = {
    "argument": (lambda x, w: x * w, lambda w, y: w.add_(1), "mul: argument 'other'"),
    "through a view": (lambda x, w: x * w, lambda w, y: w[1:].zero_(), "mul: argument 'other'"),
    "through detach": (lambda x, w: x * w, lambda w, y: w.detach().zero_(), "mul: argument 'other'"),
    "through the raw tensor": (
        lambda x, w: x @ w,
        lambda w, y: w.data.view(-1)[0].fill_(1),
        "matmul: argument 'other'",
    ),
    "by index": (lambda x, w: x / w, lambda w, y: w.__setitem__(0, 5.0), "div: argument 'other'"),
    "the output": (lambda x, w: tg.tanh(x), lambda w, y: y.data.mul_(2), "tanh: its output"),
    "one of a list": (lambda x, w: tg.einsum("i,i->i", x, w), lambda w, y: w.zero_(), "einsum: argument 'operands'"),
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_saved_value_changed_in_place_is_named(name):
    forward, change, expected = MUTATIONS[name]
    x, w = leaf([1.0, 2.0, 3.0]), leaf([1.0, 2.0, 3.0])
    y = forward(x, w)
    with tg.no_grad():
        change(w, y)
    with pytest.raises(tg.MutationError, match=re.escape(expected) + r".*test_backward.py:\d+ .*changed in place"):
        y.sum().backward()
    assert x.grad is None


def test_an_optimizer_step_between_two_backwards_is_caught():
    x, w = leaf(torch.randn(4, 3)), leaf(torch.randn(5, 3))
    loss = tg.linear(x, w).square().sum()
    loss.backward(retain_graph=True)
    tg.optim.SGD([w], lr=0.1).step()
    with pytest.raises(tg.MutationError, match=r"linear: argument 'weight' f64\[5, 3\]"):
        loss.backward()


@pytest.mark.parametrize("op", [lambda x, w: x + w, lambda x, w: tg.cat([x, w]), lambda x, w: x.reshape(3, 1) - w])
def test_changing_what_no_rule_reads_is_harmless(op):
    x, w = leaf([1.0, 2.0, 3.0]), leaf([1.0, 2.0, 3.0])
    y = op(x, w)
    with tg.no_grad():
        w.zero_()
    y.sum().backward()
    assert x.grad.data.sum().item() in (3.0, 9.0)


def test_a_step_of_a_weight_that_no_rule_needs_is_harmless():
    """x is data, so the gradient of w reads x only, and w may change between two backwards."""
    x, w = tg.randn(4, 3, dtype=torch.float64), leaf(torch.randn(5, 3))
    loss = tg.linear(x, w).sum()
    loss.backward(retain_graph=True)
    with tg.no_grad():
        w -= 0.1 * w.grad
    loss.backward()
    assert torch.allclose(w.grad.data, 2 * x.data.sum(0).expand(5, 3))


# --- depth, errors, interrupts -----------------------------------------------------------------------------------


def test_a_hundred_thousand_chained_ops_run_forward_backward_and_vanish():
    x = leaf([1.0])
    y = x
    for _ in range(DEPTH):
        y = y * 1.0
    y.backward(retain_graph=True)
    assert x.grad.item() == y.item() == 1.0
    first = weakref.ref(x)
    del x, y  # with all saved values
    assert first() is None


BACKWARD_ERRORS = [
    (lambda x: (x * 2).backward(), tg.TapeError, r"backward: .*shape \[3\]"),
    (lambda x: tg.ones(()).backward(), tg.TapeError, r"backward: .*requires a gradient"),
    (lambda x: (x * 2).backward(tg.ones(2)), tg.ShapeError, r"backward: gradient has shape \[2\]; expected \[3\]"),
    (lambda x: (x * 2).backward(tg.ones(3)), tg.DTypeError, r"torch.float32; expected torch.float64"),
    (lambda x: (x * 2).backward([1.0, 1.0, 1.0]), TypeError, "backward: gradient .* list"),
    (lambda x: (x[:0] * 2).backward(), tg.TapeError, r"backward: .*shape \[0\]"),
]


@pytest.mark.parametrize(("call", "error", "message"), BACKWARD_ERRORS)
def test_a_backward_that_cannot_start_says_why(call, error, message):
    x = leaf([1.0, 2.0, 3.0])
    with pytest.raises(error, match=message):
        call(x)
    assert x.grad is None


def test_an_exception_in_the_middle_of_backward_changes_nothing():
    x, w = leaf([1.0, 2.0]), leaf([3.0, 4.0])
    (x * w).sum().backward()
    y = x * w
    z = tg.exp(y * 0.1)
    broken = y.register_hook(lambda g: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        (z + w).sum().backward()
    assert (x.grad.tolist(), w.grad.tolist()) == ([3.0, 4.0], [1.0, 2.0])
    assert tg.is_grad_enabled()
    broken.remove()
    x.grad = w.grad = None
    (z + w).sum().backward()  # the saved values are still there
    expected = 0.1 * torch.exp(torch.tensor([0.3, 0.8], dtype=torch.float64))
    assert torch.allclose(x.grad.data, expected * w.data, rtol=1e-14)


def test_ctrl_c_in_a_long_backward_leaves_the_tape_usable():
    x = leaf([1.0])
    y = x
    for i in range(20_000):
        y = y * 1.0
        if i == 10_000:
            y.register_hook(lambda g: signal.raise_signal(signal.SIGINT) if armed else None)
    armed = True
    with pytest.raises(KeyboardInterrupt):
        y.backward()
    assert x.grad is None
    assert tg.is_grad_enabled()
    armed = False
    y.backward()
    assert x.grad.item() == 1.0


def test_threads_that_share_a_leaf_lose_no_gradient():
    x = leaf(torch.ones(20_000))
    rounds, workers = 200, 4

    def work():
        for _ in range(rounds):
            (x * 1.0).sum().backward()

    threads = [threading.Thread(target=work) for _ in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert x.grad.data.eq(rounds * workers).all()


# --- the loop in C++ ---------------------------------------------------------------------------------------------


def in_python(entries, slots, owned, wanted, active, visit, failed):
    for entry in reversed(entries):
        visit(entry)


def random_dag(rng):
    """(loss, leaves, some values in between): values used several times, broadcast, split, cast, hooked, constant."""
    leaves = [random_leaf(shape, rng) for shape in ((2, 3), (3,), (2, 1))]
    values = list(leaves)
    for _ in range(rng.randint(1, 25)):
        a, b = rng.choice(values), rng.choice(values)
        made = rng.choice(
            [
                lambda a=a, b=b: [a * b],
                lambda a=a, b=b: [a + b],
                lambda a=a, b=b: [a - 0.5 * b],
                lambda a=a: [a.tanh(), a * 1.5],
                lambda a=a: [tg.sigmoid(a) / 2],
                lambda a=a: list(tg.split(a, 1)) if len(a) < 4 else [a],
                lambda a=a: [tg.cat([a, a * 2])[: len(a)]],
                lambda a=a: [a.double().exp().float()] if rng.random() < 0.3 else [a.detach() + a],
                lambda a=a: [a],
            ]
        )()
        made = [m for m in made if m.shape in {(2, 3), (3,), (2, 1), (1, 3), (1,), (1, 1)}]
        if made and rng.random() < 0.15 and made[0].requires_grad:
            made[0].register_hook(lambda g: g * 0.9)
        values += made
    loss = sum((v.sum() * w for w, v in enumerate(values[-6:], 1)), tg.tensor(0.0))
    return loss, leaves, [v for v in values if v.requires_grad]


def random_leaf(shape, rng):
    generator = tg.Generator(rng.randrange(1000))
    return tg.randn(*shape, generator=generator).requires_grad_()


def test_the_loop_in_cpp_gives_the_bits_of_the_loop_in_python(monkeypatch):
    def gradients(seed):
        rng = random.Random(seed)
        loss, leaves, values = random_dag(rng)
        wanted = rng.sample(values, min(3, len(values)))
        some = tg.grad(loss, wanted, retain_graph=True, allow_unused=True)
        loss.backward()
        found = [*some, *(x.grad for x in leaves)]
        storages = [x.grad.data.untyped_storage()._cdata for x in leaves if x.grad is not None]
        assert len(set(storages)) == len(storages)
        return [None if g is None else (g.shape, g.dtype, g.data.numpy().tobytes()) for g in found]

    expected = [gradients(seed) for seed in range(150)]
    monkeypatch.setattr(_C, "walk", in_python)
    assert [gradients(seed) for seed in range(150)] == expected
    assert sum(g is None for case in expected for g in case) < sum(g is not None for case in expected for g in case)


@pytest.mark.parametrize("name", ["op", "parents", "env", "versions", "shape", "dtype", "seq", "_where"])
def test_what_the_loop_in_cpp_reads_of_an_entry_cannot_be_replaced(name):
    entry = (tg.tensor(2.0, requires_grad=True) * 2)._node
    with pytest.raises(AttributeError):
        setattr(entry, name, None)


def test_an_environment_cut_short_is_an_error_and_no_crash():
    y = tg.tensor([2.0], requires_grad=True).tanh()
    y._node.env.clear()
    with pytest.raises(IndexError, match="environment of an entry was changed"):
        y.backward()
