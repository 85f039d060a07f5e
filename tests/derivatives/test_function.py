"""`autograd.Function` against torch's, and the derivatives of ``autograd.functional`` against torch's."""

import gc
import weakref

import pytest
import torch

import tapegrad as tg
from tapegrad.autograd import Function, function, functional


def classes(package):
    """The same Functions written for tapegrad and for torch."""
    base = package.autograd.Function

    class Cube(base):
        @staticmethod
        def forward(ctx, x, times):
            ctx.save_for_backward(x)
            ctx.times = times
            return times * x**3

        @staticmethod
        def backward(ctx, g):
            (x,) = ctx.saved_tensors
            assert ctx.needs_input_grad == (True, False)
            return g * ctx.times * 3 * x**2, None

    class Exp(base):
        @staticmethod
        def forward(x):
            return package.exp(x)

        @staticmethod
        def setup_context(ctx, inputs, output):
            ctx.save_for_backward(output)

        @staticmethod
        def backward(ctx, g):
            return g * ctx.saved_tensors[0]

    class Both(base):
        @staticmethod
        def forward(ctx, x, y, keep):
            ctx.save_for_backward(x, y, None)
            ctx.set_materialize_grads(keep)
            where = x > y
            product = x * y
            ctx.mark_non_differentiable(where)
            return product, where, x + y

        @staticmethod
        def backward(ctx, g, unused, h):
            x, y, nothing = ctx.saved_tensors
            assert nothing is None
            g = 0 if g is None else g
            h = 0 if h is None else h
            return g * y + h, g * x + h, None

    return Cube, Exp, Both


@pytest.fixture
def values():
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(3, dtype=torch.float64, generator=generator) for _ in range(2)]


def pair(value):
    return tg.tensor(value, requires_grad=True), value.clone().requires_grad_()


def same(ours, theirs):
    torch.testing.assert_close(ours.data, theirs.detach(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("keep", [True, False])
def test_values_and_three_derivatives_are_torchs(values, keep):
    found = []
    for package, i in ((tg, 0), (torch, 1)):
        Cube, Exp, Both = classes(package)
        x, y = (pair(v)[i] for v in values)
        product, where, total = Both.apply(Exp.apply(x), y * 2, keep)
        out = (Cube.apply(product, 0.5) * 3).sum()
        assert not where.requires_grad
        results = [product, total, out]
        for _ in range(3):
            g = package.autograd.grad(out, [x, y], create_graph=True)
            results += g
            out = (g[0] * g[1]).sum()
        results += package.autograd.grad(total.sum() * out, [x, y])
        found.append(results)
    for ours, theirs in zip(*found, strict=True):
        same(ours, theirs)


def test_a_function_is_checked_nested_and_pushed_forward(values):
    Cube, Exp, _ = classes(tg)
    x = tg.tensor(values[0], requires_grad=True)
    assert tg.gradcheck(lambda x: Cube.apply(Exp.apply(x), 2.0), (x,))
    assert tg.gradgradcheck(lambda x: Cube.apply(Exp.apply(x), 2.0), (x,))
    same(tg.func.hessian(lambda x: Exp.apply(x).sum())(x), torch.diag(values[0].exp()))
    same(tg.func.jvp(Exp.apply, (x,), (tg.ones_like(x),))[1], values[0].exp())


def test_a_compiled_step_runs_it_bit_for_bit(values):
    Cube, Exp, _ = classes(tg)
    x = tg.tensor(values[0], requires_grad=True)

    def step(y):
        x.grad = None
        loss = Cube.apply(Exp.apply(x) * y, 2.0).sum()
        loss.backward()
        return loss

    compiled = tg.compile(step)
    for seed in range(5):
        y = tg.tensor(torch.randn(3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)))
        loss, g = step(y).item(), x.grad.data.clone()
        assert compiled(y).item() == loss
        assert torch.equal(x.grad.data, g)


def test_once_differentiable_says_so_at_the_second_derivative():
    class Square(Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x * x

        @staticmethod
        @function.once_differentiable
        def backward(ctx, g):
            return g * 2 * ctx.saved_tensors[0]

    x = tg.tensor(3.0, requires_grad=True)
    (g,) = tg.grad(Square.apply(x), [x], create_graph=True)
    assert g.item() == 6
    assert g.requires_grad
    with pytest.raises(tg.TapeError, match="once_differentiable"):
        tg.grad(g, [x])


def test_what_is_saved_is_watched_and_released():
    Cube, Exp, _ = classes(tg)
    x = tg.tensor([1.0, 2.0], requires_grad=True)
    y = x * 1
    out = Cube.apply(y, 1.0).sum()
    y.data.mul_(2)
    with pytest.raises(tg.MutationError, match="saved_tensors: tensor 0"):
        out.backward()
    out = Exp.apply(x)  # saves its own output: no circle keeps it alive
    alive = weakref.ref(out)
    entry = weakref.ref(out.data)
    gc.disable()
    try:
        del out
        assert (alive(), entry()) == (None, None)
    finally:
        gc.enable()
    with tg.no_grad():
        assert not Exp.apply(x).requires_grad


def test_an_input_returned_and_wrong_backwards():
    class Same(Function):
        @staticmethod
        def forward(ctx, x):
            return x

        @staticmethod
        def backward(ctx, g):
            return 2 * g

    class Wrong(Same):
        @staticmethod
        def backward(ctx, g):
            return g, g

    x = tg.tensor([1.0, 2.0], requires_grad=True)
    y = Same.apply(x)
    assert y is not x
    y.sum().backward()
    assert x.grad.tolist() == [2.0, 2.0]
    with pytest.raises(TypeError, match="Wrong: backward must return a gradient or None for each of forward's 1"):
        Wrong.apply(x).sum().backward()
    with pytest.raises(TypeError, match=r"call Same\.apply"):
        Same()


def curved(x, y):
    return (x * y**2).sum() + (x**3).prod()


def test_functional_derivatives_are_torchs(values):
    xs, ts = [tg.tensor(v) for v in values], [v.clone() for v in values]
    theirs = torch.autograd.functional

    def vector(x, y):
        return x * y * x.sum(), y**2

    def check(ours, reference):
        if isinstance(reference, tuple):
            assert isinstance(ours, tuple)
            for a, b in zip(ours, reference, strict=True):
                check(a, b)
        else:
            assert not ours.requires_grad
            same(ours, reference)

    for way in ("reverse-mode", "forward-mode"):
        check(functional.jacobian(vector, tuple(xs), strategy=way), theirs.jacobian(vector, tuple(ts)))
    check(functional.jacobian(lambda x: x**2, xs[0]), theirs.jacobian(lambda x: x**2, ts[0]))
    check(functional.hessian(curved, tuple(xs)), theirs.hessian(curved, tuple(ts)))
    check(functional.hessian(lambda x: (x**3).sum(), xs[0]), theirs.hessian(lambda x: (x**3).sum(), ts[0]))
    for name in ("hvp", "vhp", "vjp"):
        v = [None, None] if name == "vjp" else [tuple(xs), tuple(ts)]
        check(getattr(functional, name)(curved, tuple(xs), v[0]), getattr(theirs, name)(curved, tuple(ts), v[1]))
    check(functional.jvp(vector, tuple(xs), tuple(xs)), theirs.jvp(vector, tuple(ts), tuple(ts)))
    check(functional.vjp(vector, tuple(xs), tuple(xs)), theirs.vjp(vector, tuple(ts), tuple(ts)))


def test_functional_derivatives_have_derivatives(values):
    x, t = pair(values[0])
    mine = functional.jacobian(lambda x: x**3, x, create_graph=True)
    theirs = torch.autograd.functional.jacobian(lambda x: x**3, t, create_graph=True)
    same(tg.grad((mine**2).sum(), [x])[0], torch.autograd.grad((theirs**2).sum(), [t])[0])
    with pytest.raises(tg.TapeError, match="independent"):
        functional.jacobian(lambda x: tg.ones(2), values[0], strict=True)


def test_jvp_and_vmap_may_be_defined_and_are_not_needed():
    class Cube(tg.autograd.Function):
        generate_vmap_rule = True

        @staticmethod
        def forward(x):
            return x**3

        @staticmethod
        def setup_context(ctx, inputs, output):
            ctx.save_for_backward(*inputs)
            ctx.save_for_forward(*inputs)

        @staticmethod
        def backward(ctx, g):
            (x,) = ctx.saved_tensors
            return 3 * x**2 * g

        @staticmethod
        def jvp(ctx, t):
            raise AssertionError("called")

    assert tg.func.jvp(Cube.apply, (tg.tensor(2.0),), (tg.tensor(0.5),))[1].item() == 6.0
    assert tg.func.vmap(Cube.apply)(tg.tensor([1.0, 2.0])).tolist() == [1.0, 8.0]
    with pytest.raises(NotImplementedError, match="worked out from backward"):
        tg.autograd.Function.jvp(None)
