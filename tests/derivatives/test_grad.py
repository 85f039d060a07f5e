"""`tg.grad`, second derivatives by ``create_graph``, and the checks of derivatives themselves."""

import itertools
import re

import pytest
import torch

import tapegrad as tg

F64 = torch.float64


def leaf(values, dtype=F64):
    return tg.tensor(values, dtype=dtype, requires_grad=True)


def twins(*shapes):
    """The same random leaves on both sides."""
    source = torch.Generator().manual_seed(1)
    raws = [torch.randn(shape, generator=source, dtype=F64) for shape in shapes]
    return [leaf(r) for r in raws], [r.clone().requires_grad_() for r in raws]


def assert_same(ours, theirs):
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            assert isinstance(a, tg.Tensor)
            assert torch.allclose(a.data, b.detach(), rtol=1e-12, atol=1e-14)


# --- tg.grad -----------------------------------------------------------------------------------------------------

CASES = {
    "one input": lambda g, x, w: g((x * w).sum(), x),
    "leaves": lambda g, x, w: g((x * w * w).sum(), [x, w]),
    "repeated inputs": lambda g, x, w: g((x * w).sum(), [x, w, x]),
    "a tuple": lambda g, x, w: g(((x * w).sum(),), (w,)),
    "several outputs": lambda g, x, w: g([(x * w).sum(), (x * x).sum()], [x, w]),
    "an output twice": lambda g, x, w: (lambda y: g([y, y], x))((x * w).sum()),
    "allow_unused": lambda g, x, w: g((x * x).sum(), [x, w], allow_unused=True),
    "a computed input": lambda g, x, w: (lambda y: g((y * w + y).sum(), [y]))(x * w),
    "a computed input and its leaves": lambda g, x, w: (lambda y: g((y * w + x).sum(), [y, w, x]))(x * w),
    "two computed inputs in a row": lambda g, x, w: (lambda y: (lambda z: g((z * y).sum(), [z, y]))(y * w))(x * x),
    "one of several outputs of an op": lambda g, x, w: (lambda a, b: g((a * b * a).sum(), [b, x]))(*x.chunk(2)),
    "the output itself": lambda g, x, w: (lambda y: g(y, [y, x]))((x * w).sum()),
}


@pytest.mark.parametrize("name", CASES)
def test_grad_agrees_with_torch(name):
    (x, w), (raw_x, raw_w) = twins((4, 3), (4, 3))
    assert_same(CASES[name](tg.grad, x, w), CASES[name](torch.autograd.grad, raw_x, raw_w))
    assert x.grad is None
    assert w.grad is None


def test_grad_outputs_are_weights():
    (x, w), (raw_x, raw_w) = twins((3,), (3,))
    weights = torch.tensor([1.0, -2.0, 3.0], dtype=F64)
    expected = torch.autograd.grad([raw_x * raw_w, raw_x.sum()], [raw_x, raw_w], [weights, None])
    for given in (weights, tg.tensor(weights), weights.numpy()):
        assert_same(tg.grad([x * w, x.sum()], [x, w], [given, None]), expected)
    assert_same(tg.grad(x * w, w, weights), (raw_x * weights,))


def test_a_grad_output_on_the_tape_is_differentiated():
    x, v = leaf([1.0, 2.0]), leaf([3.0, 4.0])
    (g,) = tg.grad(x * x, x, v, create_graph=True)
    gx, gv = tg.grad((g * g).sum(), [x, v])
    assert torch.allclose(gx.data, 8 * v.data**2 * x.data)
    assert torch.allclose(gv.data, 8 * x.data**2 * v.data)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x, w: tg.grad(x.sum(), [x, w]), tg.TapeError, "do not depend on input 1; .*allow_unused=True"),
        (lambda x, w: tg.grad(x.sum(), [x, tg.ones(2)]), tg.TapeError, "input 1 does not require a gradient"),
        (
            lambda x, w: tg.grad(tg.ones(()), x),
            tg.TapeError,
            "none of the outputs depends.*allow_unused",
        ),
        (lambda x, w: tg.grad([tg.ones(()), tg.ones(2)], x), tg.TapeError, r"grad: a gradient must be given.*\[2\]"),
        (
            lambda x, w: tg.grad([x.sum(), tg.ones(())], w),
            tg.TapeError,
            "do not depend on input 0; .*allow_unused=True",
        ),
        (
            lambda x, w: tg.grad(x.sum(), w, allow_unused=False, materialize_grads=True),
            tg.ArgumentError,
            "materialize_grads",
        ),
        (lambda x, w: tg.grad(x * 2, x), tg.TapeError, r"grad: .*shape \[2\]"),
        (lambda x, w: tg.grad([x.sum(), x * 2], x, [None]), tg.TapeError, "2 outputs need as many .*; got 1"),
        (lambda x, w: tg.grad(x * 2, x, tg.ones(3)), tg.ShapeError, r"shape \[3\]; expected \[2\]"),
        (lambda x, w: tg.grad(x * 2, x, torch.ones(2)), tg.DTypeError, r"float32; expected torch\.float64"),
        (lambda x, w: tg.grad(x.sum(), torch.ones(2)), TypeError, r"grad: inputs .*torch"),
        (lambda x, w: tg.grad(torch.ones(()), x), TypeError, r"grad: outputs .*torch"),
        (lambda x, w: tg.grad(None, x), TypeError, "grad: outputs .*None"),
    ],
)
def test_grad_says_what_it_cannot_do_and_keeps_the_saved_values(call, error, message):
    x, w = leaf([1.0, 2.0]), leaf([3.0, 4.0])
    loss = tg.exp(x).sum()
    with pytest.raises(error, match=message):
        call(x, w)
    torch.testing.assert_close(tg.grad(loss, x)[0].data, x.data.exp(), rtol=1e-15, atol=0)  # our exp against torch's


@pytest.mark.parametrize("allow", [None, True, False])
@pytest.mark.parametrize("outputs", ["x", "w", "xw", "cx", "cw", "c", "cc", "gx", "g", "gc", "xx"])
def test_what_nothing_depends_on_is_as_torchs(outputs, allow):
    """c is a constant, g the first gradient of relu: a constant here, zero slopes in torch."""

    def run(side, leaf, inputs, materialize):
        values = {"x": leaf([1.0, 2.0]), "w": leaf([3.0, 4.0])}
        roots = {name: (v**2).sum() for name, v in values.items()}
        roots["c"] = side["constant"](torch.ones((), dtype=F64))
        roots["g"] = side["grad"](side["relu"](values["x"]).sum(), values["x"], create_graph=True)[0].sum()
        return side["grad"](
            [roots[k] for k in outputs], [values[k] for k in inputs], allow_unused=allow, materialize_grads=materialize
        )

    ours = {"grad": tg.grad, "relu": tg.relu, "constant": tg.Tensor}
    theirs = {"grad": torch.autograd.grad, "relu": torch.relu, "constant": lambda c: c.requires_grad_()}
    for inputs, materialize in itertools.product(["x", "w", "xw", "wx"], [False, True]):
        try:  # torch refuses constants among the outputs: a leaf that is no input is as good
            expected = run(theirs, lambda v: torch.tensor(v, dtype=F64, requires_grad=True), inputs, materialize)
        except (RuntimeError, ValueError):
            with pytest.raises((tg.TapeError, tg.ArgumentError), match="allow_unused"):
                run(ours, leaf, inputs, materialize)
            continue
        if not allow and not materialize and set(outputs) <= set("gc"):
            with pytest.raises(tg.TapeError, match="none of the outputs depends on anything"):
                run(ours, leaf, inputs, materialize)
            continue
        for got, g in zip(run(ours, leaf, inputs, materialize), expected, strict=True):
            assert (got is None and (g is None or set(outputs) <= set("gc"))) or torch.equal(got.data, g)


def test_grad_releases_unless_told_otherwise():
    x = leaf([1.0, 2.0])
    loss = (x**3).sum()
    assert tg.grad(loss, x, retain_graph=True)[0].tolist() == [3.0, 12.0]
    assert tg.grad(loss, x)[0].tolist() == [3.0, 12.0]
    with pytest.raises(tg.TapeError, match=r"pow: .*retain_graph=True"):
        tg.grad(loss, x)


def test_grad_of_a_part_leaves_the_rest_of_the_tape_alone():
    x, w = leaf([2.0]), leaf([3.0])
    y = tg.exp(w)
    loss = (x * y).sum()
    tg.grad(loss, x, retain_graph=False)
    y.sum().backward()  # exp was not visited, so its values are still there
    torch.testing.assert_close(w.grad.data, w.data.exp(), rtol=1e-15, atol=0)  # our exp against torch's


# --- gradients of gradients --------------------------------------------------------------------------------------


def test_backward_with_create_graph_leaves_a_gradient_that_can_be_differentiated():
    x = leaf([1.0, 2.0])
    (x**3).sum().backward(create_graph=True)
    first = x.grad
    assert first.requires_grad
    x.grad = None
    first.sum().backward()
    assert (first.tolist(), x.grad.tolist()) == ([3.0, 12.0], [6.0, 12.0])


def test_create_graph_works_under_no_grad():
    x = leaf([1.0, 2.0])
    loss = (x**3).sum()
    with tg.no_grad():
        loss.backward(create_graph=True)
    assert tg.grad(x.grad.sum(), x)[0].tolist() == [6.0, 12.0]


def test_recorded_gradients_add_up_in_grad():
    x = leaf([2.0])
    for _ in range(2):
        (x**3).sum().backward(create_graph=True)
    assert x.grad.item() == 24.0
    assert tg.grad(x.grad, x)[0].item() == 24.0


def test_a_gradient_penalty_agrees_with_torch():
    def penalty(lib, grad, x, w1, w2):
        out = (lib.tanh(x @ w1) @ w2).sum()
        (g,) = grad(out, x, create_graph=True)
        return out + ((g * g).sum(1).sqrt() - 1).square().sum()

    ours, theirs = twins((5, 3), (3, 4), (4, 1))
    penalty(tg, tg.grad, *ours).backward()
    penalty(torch, torch.autograd.grad, *theirs).backward()
    assert_same([x.grad for x in ours], [x.grad for x in theirs])


def test_ten_derivatives_in_a_row():
    x = leaf(0.7)
    y = tg.sin(x)
    for order in range(1, 11):
        (y,) = tg.grad(y, x, create_graph=True)
        assert y.item() == pytest.approx(float(torch.sin(x.data + order * torch.pi / 2)), abs=1e-12)


def test_hooks_are_differentiated_and_run_again_in_the_second_backward():
    def second(x, grad):
        y = x * x
        y.register_hook(lambda g: g * x)
        (g,) = grad((y * y).sum(), x, create_graph=True)
        return g, *grad(g, x)

    raw = torch.tensor([2.0], dtype=F64, requires_grad=True)
    assert_same(second(leaf([2.0]), tg.grad), second(raw, torch.autograd.grad))


# --- gradcheck, gradgradcheck ------------------------------------------------------------------------------------


@tg.op(x=lambda g, x: g * torch.tensor([3.0, 2.0, 3.0], dtype=F64) * x * x)
def wrongly_cubed(x):
    """x ** 3, whose rule is wrong in element 1."""
    return x**3


@tg.op(a=lambda g, b: g * b, b=lambda g, a: g * (a.data if isinstance(a, tg.Tensor) else a))
def wrong_in_second_order(a, b):
    """a * b, whose recorded rule for b forgets a."""
    return a * b


def test_right_rules_pass():
    x, w = leaf(torch.rand(2, 3) + 0.5), leaf(torch.rand(3) + 0.5)
    assert tg.gradcheck(tg.exp, x) is True
    assert tg.gradcheck(lambda x, w: (x / w, tg.log(x).sum()), [x, w]) is True
    assert tg.gradgradcheck(lambda x, w: (x / w, tg.log(x).sum()), [x, w]) is True
    assert tg.gradcheck(lambda x, i: x[i], [w, tg.tensor([0, 2])]) is True
    assert tg.gradcheck(lambda x: x.sum(), leaf(torch.zeros(0))) is True


def test_a_wrong_rule_shows_input_element_and_both_values():
    x = leaf([1.0, 2.0, 3.0])
    with pytest.raises(tg.GradcheckError) as caught:
        tg.gradcheck(lambda w, x: w * wrongly_cubed(x), [leaf([1.0, 1.0, 1.0]), x])
    numbers = re.search(r"output 0\[1\] / d input 1\[1\] is (\S+) by the tape and (\S+) by diff", str(caught.value))
    assert float(numbers[1]) == 8.0
    assert float(numbers[2]) == pytest.approx(12.0, rel=1e-6)
    assert isinstance(caught.value, AssertionError)


def test_a_rule_wrong_in_second_order_only_passes_the_first_check_and_fails_the_second():
    inputs = [leaf([1.0, 2.0]), leaf([3.0, 4.0])]
    assert tg.gradcheck(wrong_in_second_order, inputs)
    with pytest.raises(tg.GradcheckError, match=r"d output \d\[\d\] / d input \d\[\d\] is 0 by the tape"):
        tg.gradgradcheck(wrong_in_second_order, inputs)


def test_a_forgotten_gradient_and_a_nan_fail():
    x = leaf([1.0, 2.0])
    with pytest.raises(tg.GradcheckError, match=r"is 0 by the tape and (2|1\.9|2\.0)"):
        tg.gradcheck(lambda x: x.detach() * 2, x)
    with pytest.raises(tg.GradcheckError, match="nan"):
        tg.gradcheck(tg.log, leaf([-1.0]))


@pytest.mark.parametrize(
    ("f", "inputs", "error", "message"),
    [
        (tg.exp, tg.ones(2, requires_grad=True), TypeError, "gradcheck: input 0 must be float64 .*float32"),
        (tg.exp, tg.ones(2), ValueError, "gradcheck: at least one input must require a gradient"),
        (lambda x: 1.0, leaf([1.0]), TypeError, "gradcheck: f must return Tensors; got float"),
    ],
)
def test_what_cannot_be_checked_is_named(f, inputs, error, message):
    with pytest.raises(error, match=message):
        tg.gradcheck(f, inputs)


def test_a_check_changes_neither_inputs_nor_gradients():
    x = leaf([1.0, 2.0])
    version = x.data._version
    assert tg.gradcheck(lambda x: x * x, x)
    assert tg.gradgradcheck(lambda x: x * x, x)
    assert x.grad is None
    assert (x.tolist(), x.data._version) == ([1.0, 2.0], version)
