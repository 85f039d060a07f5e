"""Ops that users define: every mode, and what is said where their parts do not fit."""

import itertools

import numpy as np
import pytest
import torch

import tapegrad as tg

F64 = torch.float64
fresh = (f"user_op_{i}" for i in itertools.count())  # every op here has a name of its own


def leaf(values, dtype=F64):
    return tg.tensor(values, dtype=dtype, requires_grad=True)


@tg.op(x=lambda g, x, n: g * n * x ** (n - 1))
def power(x, n=3):
    """y = x ** n"""
    return x**n


@tg.op(a=lambda g, b: g / b, b=lambda g, b, out: -g * out / b)
def ratio(a, b):
    """y = a / b"""
    return a / b


# --- every mode --------------------------------------------------------------------------------------------------


def test_an_op_is_a_documented_function():
    assert power.__name__ == "power"
    assert power.__doc__ == "y = x ** n"
    assert power.op.name == "power"
    with pytest.raises(TypeError, match=r"power\(\) missing 1 required positional argument: 'x'"):
        power()
    with pytest.raises(TypeError, match=r"power.*unexpected keyword argument 'm'"):
        power(leaf([1.0]), m=2)


@pytest.mark.parametrize("value", [[1.0, 2.0], np.array([1.0, 2.0]), torch.tensor([1.0, 2.0], dtype=F64)])
def test_it_takes_arrays_raw_tensors_and_tensors(value):
    if isinstance(value, list):
        value = tg.tensor(value, dtype=F64)
    y = power(value, n=2)
    assert isinstance(y, tg.Tensor)
    assert not y.requires_grad
    assert y.tolist() == [1.0, 4.0]
    assert ratio(2.0, leaf([4.0])).tolist() == [0.5]


def test_first_order_is_raw_and_second_order_recorded():
    kinds = []

    @tg.op(x=lambda g, x: kinds.append((type(g), type(x))) or g * 3 * x * x, name=next(fresh))
    def cube(x):
        return x**3

    x = leaf([2.0])
    cube(x).backward()
    (g,) = tg.grad(cube(x), x, create_graph=True)
    assert kinds == [(torch.Tensor, torch.Tensor), (tg.Tensor, tg.Tensor)]
    assert (x.grad.item(), g.item()) == (12.0, 12.0)
    assert tg.grad(g, x)[0].item() == 12.0


def test_values_derivatives_and_modes_agree_with_the_formula():
    x, b = leaf([1.3, -0.7, 2.0]), leaf([0.5, 2.0, -1.5])
    f = tg.func

    def by_op(x, b):
        return (power(ratio(x, b), n=3) * x).sum()

    def by_hand(x, b):
        return ((x / b) ** 3 * x).sum()

    assert torch.allclose(by_op(x, b).data, by_hand(x, b).data, rtol=1e-14)
    assert tg.gradcheck(by_op, [x, b])
    assert tg.gradgradcheck(by_op, [x, b])
    for make in (
        lambda F, h: F.grad(h, (0, 1))(x, b),
        lambda F, h: F.jvp(h, (x, b), (b, x)),
        lambda F, h: F.jvp(F.grad(h, 1), (x, b), (b, x)),
        lambda F, h: (F.hessian(h)(x, b), F.grad(lambda x: F.grad(lambda x: F.grad(h)(x, b).sum())(x).sum())(x)),
    ):
        for got, expected in zip(make(f, by_op), make(f, by_hand), strict=True):
            assert torch.allclose(got.data, expected.data, rtol=1e-11)


def test_broadcasting_and_promotion_are_undone_for_it():
    a, b = leaf(torch.randn(3, 1)), leaf([2.0, 4.0], torch.float32)
    y = ratio(a, b)
    assert (y.shape, y.dtype) == ((3, 2), F64)
    y.sum().backward()
    assert (a.grad.shape, a.grad.dtype) == ((3, 1), F64)
    assert (b.grad.shape, b.grad.dtype) == ((2,), torch.float32)
    assert a.grad.data.eq(0.75).all()
    assert torch.allclose(b.grad.data, -a.data.sum().float() / torch.tensor([4.0, 16.0]))


def test_it_is_printed_checkpointed_and_caught_like_a_built_in():
    x = leaf([1.0, 2.0])
    with tg.Tape() as tape:
        y = power(x, 2)
    assert "power(%0, 2)" in str(tape)
    assert y.requires_grad
    tg.checkpoint(lambda v: power(v).sum(), x).backward()
    assert x.grad.tolist() == [3.0, 12.0]
    y = power(x)
    with tg.no_grad():
        x += 1
    with pytest.raises(tg.MutationError, match=r"power: argument 'x' f64\[2\].*test_op.py:\d+"):
        y.sum().backward()
    with pytest.raises(tg.NonFiniteError, match=r"ratio: output f64\[\] is inf"), tg.detect_anomaly():
        ratio(leaf(1.0), 0.0)


def test_several_outputs_keep_their_dtypes_and_missing_gradients_are_zeros():
    @tg.op(x=lambda g, x: 2 * g[0].double() + 3 * x * g[1], name=next(fresh))
    def two(x):
        return (2 * x).float(), 1.5 * x * x

    x = leaf([1.0, 2.0])
    single, double = two(x)
    assert (single.dtype, double.dtype) == (torch.float32, F64)
    seen = []
    double.register_hook(lambda g: seen.append((g.dtype, g[0].item())))
    (double * 0.1).sum().backward()
    assert seen == [(F64, 0.1)]
    assert torch.equal(x.grad.data, 3 * x.data * 0.1)


def test_residuals_are_saved_and_not_returned():
    @tg.op(x=lambda g, mask: torch.where(mask, g, 0), residuals=["mask"], name=next(fresh))
    def positive(x):
        mask = x > 0
        return torch.where(mask, x, 0.0), mask

    x = leaf([1.0, -2.0])
    y = positive(x)
    y.sum().backward()
    assert y.tolist() == [1.0, 0.0]
    assert x.grad.tolist() == [1.0, 0.0]


def test_a_fused_backward_serves_first_order_and_the_rules_the_rest():
    calls = []

    def both(g, a, b, needs):
        calls.append(needs)
        return [g * b if needs[0] else None, g * a if needs[1] else None]

    @tg.op(a=lambda g, b: g * b, b=lambda g, a: g * a, backward=both, name=next(fresh))
    def product(a, b):
        return a * b

    a, b = leaf([2.0]), leaf([3.0])
    product(a, b).backward()
    product(a, b.detach()).backward()
    assert [list(needs) for needs in calls] == [[True, True], [True, False]]
    assert (a.grad.item(), b.grad.item()) == (6.0, 2.0)
    assert tg.gradgradcheck(product, [a, b])


@pytest.mark.parametrize(
    "word", ["mode", "op", "out_", "forward", "raw", "record", "Tensor", "error", "constant", "self"]
)
def test_any_name_will_do_for_an_op_and_for_an_argument(word):
    space = {"tg": tg}
    exec(
        f"@tg.op(x=lambda g, {word}: g * {word}, name='{next(fresh)}')\ndef scale(x, {word}: float = 2.0):\n"
        f"    return x * {word}\n@tg.op(x=lambda g: g * 5)\ndef {word}(x):\n    return x * 5\n",
        space,
    )
    x = leaf([1.0])
    (space["scale"](x) + space["scale"](x, **{word: 3.0}) + space[word](x)).backward()
    assert x.grad.item() == 10.0


def test_an_op_named_like_one_of_ours_leaves_ours_alone():
    @tg.op(x=lambda g: g * 0)
    def getitem_backward(x):
        return x * 0

    @tg.op(input=lambda g: g * 0, other=lambda g: g * 0)
    def mul(input, other):
        return input * 0

    x = leaf([1.0, 2.0])
    assert tg.gradgradcheck(lambda x: x[0] * x, x)
    assert mul(x, x).tolist() == [0.0, 0.0]


# --- what does not fit -------------------------------------------------------------------------------------------


def unary(rule=lambda g: g, forward=lambda x: x * 2, **options):
    """An op of one argument."""
    return tg.op(x=rule, name=next(fresh), **options)(forward)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: tg.op(y=lambda g: g, name=next(fresh))(lambda x: x), "gradient rule .*'y'.*not an array argument"),
        (lambda: unary(lambda g, z: g), "gradient rule reads 'z', which is none of x, out"),
        (lambda: unary(3), r"user_op_\d+.*'x'.*3"),
        (lambda: unary(backward=lambda g, z: [g]), "reads 'z'"),
        (lambda: unary(lambda: 3), r"user_op_\d+.*rule.*g"),
        (lambda: tg.op(x=lambda g: g, name="no name")(lambda x: x), "'no name'"),
    ],
    ids=["unknown argument", "reads unknown", "no function", "backward reads unknown", "no g", "no identifier"],
)
def test_a_definition_that_does_not_fit_is_refused_at_once(make, message):
    with pytest.raises(TypeError, match=message):
        make()


def test_a_lambda_makes_an_op_under_a_given_name():
    double = tg.op(x=lambda g: 2 * g, name="doubled")(lambda x: x * 2)
    x = leaf([1.0])
    y = double(x)
    assert "doubled" in repr(y)
    y.backward()
    assert x.grad.item() == 2.0
    with pytest.raises(TypeError, match=r"'<lambda>' needs a name"):
        tg.op(x=lambda g: 2 * g)(lambda x: x * 2)


@pytest.mark.parametrize("result", [2.0, None, "text", np.ones(1), tg.ones(1), {}], ids=lambda r: type(r).__name__)
@pytest.mark.parametrize("requires_grad", [True, False])
def test_a_forward_that_returns_no_torch_tensor_is_refused_by_name(result, requires_grad):
    op = unary(forward=lambda x: result)
    with pytest.raises(TypeError, match=rf"{op.op.name}: .*{type(result).__name__}"):
        op(tg.tensor([1.0], requires_grad=requires_grad))


@pytest.mark.parametrize(
    ("gradient", "error", "message"),
    [
        (torch.ones(3, dtype=F64), tg.ShapeError, r"shape \[3\] for an input of shape \[2\].*test_op.py:\d+"),
        (torch.ones(2, 2, 2, dtype=F64)[:, :, :1], tg.ShapeError, r"shape \[2, 2, 1\] for an input of shape \[2\]"),
        (2.0, TypeError, "float"),
        (np.ones(2), TypeError, "ndarray"),
        ("text", TypeError, "str"),
    ],
    ids=["shape", "broadcast shape", "float", "array", "text"],
)
@pytest.mark.parametrize("create_graph", [False, True])
def test_a_rule_that_returns_no_gradient_of_its_input_is_refused_by_name(gradient, error, message, create_graph):
    op = unary(lambda g: gradient)
    x = leaf([1.0, 2.0])
    with pytest.raises(error, match=rf"{op.op.name}: .*gradient rule.*{message}"):
        op(x).sum().backward(create_graph=create_graph)
    assert x.grad is None


def test_a_wrong_number_of_fused_gradients_is_refused_by_name():
    op = unary(backward=lambda g: [g, g])
    with pytest.raises((tg.TapegradError, TypeError), match=rf"{op.op.name}: "):
        op(leaf([1.0])).backward()


def test_an_argument_without_a_rule_must_not_need_a_gradient():
    @tg.op(a=lambda g: g, name="half_ruled")
    def half_ruled(a, b):
        return a + b

    @tg.op(name="unruled")
    def unruled(x):
        return x * 2

    x = leaf([1.0])
    half_ruled(x, 2.0).backward()
    assert x.grad.item() == 1.0
    with pytest.raises(tg.TapeError, match=r"half_ruled: argument 'b' has no gradient.*b\.detach\(\)"):
        half_ruled(x, x)
    with pytest.raises(tg.TapeError, match=r"unruled: .*no gradient rule.*detach"):
        unruled(x)
    assert unruled(x.detach()).tolist() == [2.0]
    with tg.no_grad():
        assert unruled(x).tolist() == [2.0]


def test_an_error_of_the_users_own_passes_through():
    def fail():
        raise KeyError("mine")

    x = leaf([1.0])
    with pytest.raises(KeyError, match="mine"):
        unary(forward=lambda x: fail())(x)
    with pytest.raises(KeyError, match="mine"):
        unary(lambda g: fail())(x).backward()
    assert x.grad is None


def test_a_torch_error_inside_a_forward_names_the_op_and_its_arguments():
    product = tg.op(a=lambda g: g, b=lambda g: g, name="user_product")(lambda a, b: torch.matmul(a, b))
    with pytest.raises(tg.ShapeError, match=r"user_product: .*a.*\[2, 3\].*b.*\[4, 5\]"):
        product(tg.ones(2, 3), tg.ones(4, 5))
