"""Lifetimes: values go by reference counting, entries save the least, checkpoints compute again."""

import gc
import resource
import weakref

import pytest
import torch

import tapegrad as tg
from tapegrad.core import Leaf


def leaf(values, dtype=torch.float64):
    return tg.tensor(values, dtype=dtype, requires_grad=True)


OURS = (torch.Tensor, tg.Tensor, tg.Entry, Leaf)


def resident():
    """Resident bytes of this process now."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


@pytest.fixture
def no_collector():
    """The cycle collector is off, and has no value of ours to find afterwards."""
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    yield
    gc.collect()
    found = [type(thing).__name__ for thing in gc.garbage if isinstance(thing, OURS)]
    gc.set_debug(0)
    gc.garbage.clear()
    gc.enable()
    assert not found, f"in reference cycles: {found[:9]}"


def growth(step, count=10_000, warm=200):
    """Bytes by which the process grew over `count` steps."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # a pool on a busy machine makes these small ops a hundred times slower
    try:
        for _ in range(warm):
            step()
        before = resident()
        for _ in range(count):
            step()
        return resident() - before
    finally:
        torch.set_num_threads(threads)


# A step makes at least 16 kB of activations: kept by 10,000 losses, they would be 160 MB.
SLACK = 10e6


def test_ten_thousand_forward_passes_without_backward_keep_memory_flat(no_collector):
    x, w = leaf(torch.randn(1000)), leaf(torch.randn(1000))
    assert growth(lambda: tg.relu(x * w).mean()) < SLACK


def test_a_long_lived_value_reused_by_ten_thousand_losses_keeps_memory_flat(no_collector):
    x, w = leaf(torch.randn(1000)), leaf(torch.randn(1000))
    shared = x * w
    assert growth(lambda: tg.sin(tg.exp(shared)).mean()) < SLACK
    tg.exp(shared).mean().backward()
    assert torch.allclose(x.grad.data, torch.exp(shared.data) / 1000 * w.data, rtol=1e-12)


def test_derivatives_of_derivatives_keep_memory_flat(no_collector):
    x = leaf(torch.randn(5000))  # 40 kB a value, 300 steps: 12 MB for each one kept

    def step():
        (g,) = tg.grad(tg.exp(x).sum(), x, create_graph=True)
        g.sum().backward()
        x.grad = None
        tg.func.jvp(lambda v: tg.exp(v).mean(), (x,), (x.detach(),))
        tg.checkpoint(lambda v: tg.sin(tg.exp(v)).sum(), x)

    assert growth(step, count=300, warm=20) < SLACK


def test_a_dropped_loss_frees_its_activations_at_once(no_collector):
    x = leaf(torch.randn(10))
    y = tg.exp(x)
    z = tg.sin(y)
    loss = z.sum()
    storages = [weakref.ref(v.data) for v in (y, z)]
    del y, z
    assert storages[0]() is not None  # sin saved its argument
    del loss
    assert [storage() for storage in storages] == [None, None]


def test_a_value_that_no_rule_reads_goes_before_the_loss_does(no_collector):
    x = leaf(torch.randn(10))
    y = x * 2.0 + 1.0
    loss = tg.tanh(y).sum()
    unread = weakref.ref(y.data)
    del y
    assert unread() is None
    loss.backward()
    assert torch.allclose(x.grad.data, 2 * (1 - torch.tanh(2 * x.data + 1) ** 2), rtol=1e-12)


def test_backward_releases_the_saved_values_while_the_loss_lives(no_collector):
    x = leaf(torch.randn(10))
    y = tg.exp(x)
    saved = weakref.ref(y.data)
    loss = tg.sin(y).sum()
    del y
    loss.backward(retain_graph=True)
    assert saved() is not None
    loss.backward()
    assert saved() is None
    assert loss.requires_grad


def test_a_held_tape_keeps_lines_not_values(no_collector):
    x = leaf(torch.randn(10))
    with tg.Tape() as tape:
        y = tg.exp(x)
        loss = tg.sin(y).sum()
    saved = weakref.ref(y.data)
    del y
    loss.backward()
    assert saved() is None
    assert [entry.op.name for entry in tape] == ["exp", "sin", "sum"]
    assert "sin(%1)" in str(tape)


def test_hooks_and_retained_gradients_make_no_cycle(no_collector):
    x = leaf(torch.randn(10))
    y = tg.exp(x)
    y.retain_grad()
    y.register_hook(lambda g: g * 2)
    gone = weakref.ref(y)
    y.sum().backward()
    del y
    assert gone() is None


def test_a_failed_backward_and_a_failed_op_keep_nothing(no_collector):
    def fail():
        x = leaf(torch.randn(10))
        y = tg.exp(x)
        refs.append(weakref.ref(y.data))
        with pytest.raises(tg.ShapeError):
            y + tg.ones(3)
        with pytest.raises(tg.TapeError):
            y.backward()

    refs = []
    fail()
    gc.collect()  # an exception and its frame may be a cycle of pytest's own
    assert refs[0]() is None


# --- the least is saved ------------------------------------------------------------------------------------------


def saved_by(f):
    with tg.Tape() as tape:
        f()
    return [set(entry.saved) for entry in tape]


def test_nothing_is_saved_for_an_input_that_needs_no_gradient():
    x, w = leaf(torch.randn(2, 3)), tg.randn(3, 4, dtype=torch.float64)
    image, kernel = tg.randn(1, 2, 5, 5), tg.randn(3, 2, 3, 3)
    assert saved_by(lambda: x @ w) == [{"other"}]
    assert saved_by(lambda: w.T @ x.T)[-1] == {"input"}
    assert saved_by(lambda: x * 2.0) in ([set()], [{"other"}])
    assert saved_by(lambda: tg.linear(x, w.T)) == [{"weight"}]
    assert saved_by(lambda: tg.linear(w.T, x)) == [{"input"}]
    assert saved_by(lambda: tg.conv2d(image, leaf(kernel.data, torch.float32))) == [{"input"}]
    assert saved_by(lambda: tg.conv2d(leaf(image.data, torch.float32), kernel)) == [{"weight"}]


@pytest.mark.parametrize(
    ("f", "expected"),
    [
        (lambda x: x + x, set()),
        (lambda x: x.reshape(-1), set()),
        (lambda x: x.sum(), set()),
        (lambda x: x.mean(0), set()),
        (tg.tanh, {"out"}),
        (tg.sigmoid, {"out"}),
        (tg.exp, {"out"}),
        (lambda x: tg.softmax(x, 1), {"out"}),
        (tg.log, {"input"}),
    ],
)
def test_each_rule_saves_the_least_it_needs(f, expected):
    x = leaf(torch.rand(2, 3))
    assert saved_by(lambda: f(x)) == [expected]


def test_rules_run_only_for_what_was_asked():
    called = []

    @tg.op(a=lambda g, b: called.append("a") or g * b, b=lambda g, a: called.append("b") or g * a, name="noted_mul")
    def noted_mul(a, b):
        return a * b

    x, w = leaf([1.0]), leaf([2.0])
    noted_mul(x, w.detach()).sum().backward()
    assert called == ["a"]
    called.clear()
    assert tg.grad(noted_mul(x, w).sum(), w)[0].item() == 1.0
    assert called == ["b"]


# --- checkpoint --------------------------------------------------------------------------------------------------


def block(x, w):
    for _ in range(4):
        x = tg.tanh(x @ w)
    return x


def test_a_checkpoint_has_the_values_and_gradients_of_the_plain_call():
    x, w = leaf(torch.randn(5, 4)), leaf(torch.randn(4, 4))
    plain = tg.grad(block(x, w).sum(), [x, w])
    y = tg.checkpoint(block, x, w)
    assert torch.equal(y.data, block(x, w).data)
    for a, b in zip(plain, tg.grad(y.sum(), [x, w]), strict=True):
        assert torch.equal(a.data, b.data)


def test_a_checkpoint_differentiates_twice_and_reaches_what_its_function_closes_over():
    x, w = leaf(torch.randn(3, 4)), leaf(torch.randn(4, 4))
    scale = leaf(2.0)
    scaled = scale * 3.0  # a computed value, older than the call

    def f(x):
        return {"y": block(x, w) * scaled, "n": 3}["y"]

    def second(run):
        (g,) = tg.grad(run(x).square().sum(), x, create_graph=True)
        return tg.grad((g * g).sum(), [x, w, scale])

    for a, b in zip(second(f), second(lambda x: tg.checkpoint(f, x)), strict=True):
        assert torch.allclose(a.data, b.data, rtol=1e-11, atol=1e-13)
    tg.checkpoint(f, x.detach()).sum().backward()
    assert x.grad is None
    assert torch.allclose(scale.grad.data, 3 * block(x, w).data.sum(), rtol=1e-12)


def test_a_checkpoint_drops_the_same_elements_again():
    tg.manual_seed(3)
    x = leaf(torch.ones(50, 50))
    y = tg.checkpoint(lambda v: tg.dropout(v * 3.0, 0.5), x)
    after = tg.rand(5)
    y.sum().backward()
    assert torch.equal(x.grad.data, y.data)
    assert 0.3 < (y.data == 0).double().mean() < 0.7
    tg.manual_seed(3)
    tg.dropout(x, 0.5)
    assert torch.equal(after.data, tg.rand(5).data)  # the replay draws nothing anew


def test_a_checkpoint_keeps_its_arguments_only(no_collector):
    inside = []

    def f(v):
        y = tg.exp(v)
        inside.append(weakref.ref(y.data))
        return tg.sin(y).sum()

    x = leaf(torch.randn(1000))
    loss = tg.checkpoint(f, x)
    assert inside[0]() is None
    loss.backward()
    assert [value() for value in inside] == [None, None]  # run twice, kept by nobody
    assert torch.allclose(x.grad.data, torch.cos(x.data.exp()) * x.data.exp(), rtol=1e-12)


def test_checkpoints_nest_take_pytrees_and_return_them():
    x, w = leaf(torch.randn(3, 4)), leaf(torch.randn(4, 4))

    def f(inputs, power):
        a = tg.checkpoint(lambda v: tg.tanh(v @ inputs["w"]), inputs["x"])
        return {"a": a, "b": (a**power, a.sum())}

    out = tg.checkpoint(f, {"x": x, "w": w}, 2)
    plain = tg.tanh(x @ w)
    assert torch.equal(out["b"][0].data, (plain**2).data)
    (out["b"][0].sum() * out["b"][1]).backward()
    expected = tg.grad((plain**2).sum() * plain.sum(), [x, w])
    assert torch.allclose(x.grad.data, expected[0].data, rtol=1e-12)
    assert torch.allclose(w.grad.data, expected[1].data, rtol=1e-12)


def test_a_checkpoint_keeps_each_outputs_dtype_and_leaves_integers_constant():
    x = leaf(torch.randn(3, 4))
    single, best, double = tg.checkpoint(lambda v: (v.float() * 2, v.argmax(1), v * 3), x)
    assert (single.dtype, best.dtype, double.dtype) == (torch.float32, torch.int64, torch.float64)
    assert not best.requires_grad
    double.register_hook(lambda g: seen.append(g.dtype))
    seen = []
    (double * 0.1).sum().backward()
    assert seen == [torch.float64]
    assert x.grad.data.eq(3 * 0.1).all()


def test_a_checkpoint_under_no_grad_and_with_an_error_inside():
    x = leaf([1.0, 2.0])
    with tg.no_grad():
        assert not tg.checkpoint(tg.exp, x).requires_grad
    with pytest.raises(tg.ShapeError, match="add"):
        tg.checkpoint(lambda v: v + tg.ones(3), x)
    with tg.Tape() as tape:
        tg.checkpoint(block, leaf(torch.randn(2, 2)), leaf(torch.randn(2, 2)))
    assert [entry.op.name for entry in tape] == ["checkpoint"]
    assert "checkpoint(%0, %1" in str(tape)
