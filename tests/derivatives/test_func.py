"""`tg.func` against ``torch.func``: values, nesting, structures, and what f closes over."""

import functools

import pytest
import torch
from torch import func as theirs

import tapegrad as tg
from tapegrad.derivatives import func as ours

# The reference's own forward mode warns of a part of torch that it still uses.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")

F64 = torch.float64
X = torch.tensor([0.3, -1.2, 2.0], dtype=F64)
Y = torch.tensor([1.5, 0.7, -0.4], dtype=F64)
V = torch.tensor([1.0, -2.0, 0.5], dtype=F64)
A = torch.tensor([[1.0, 2.0, -1.0], [0.5, 0.0, 3.0]], dtype=F64)


def leaf(values):
    return tg.tensor(values, dtype=F64, requires_grad=True)


def plain(tree):
    """The same nest of raw tensors."""
    if isinstance(tree, dict):
        return {key: plain(value) for key, value in tree.items()}
    if isinstance(tree, tuple | list):
        return type(tree)(plain(value) for value in tree)
    return tree.data if isinstance(tree, tg.Tensor) else tree


def assert_same(got, expected):
    got = plain(got)
    assert type(got) is type(expected), f"{type(got)}, torch gives {type(expected)}"
    if isinstance(expected, dict):
        assert got.keys() == expected.keys()
        got, expected = list(got.values()), list(expected.values())
    if isinstance(expected, tuple | list):
        assert len(got) == len(expected)
        for a, b in zip(got, expected, strict=True):
            assert_same(a, b)
    elif isinstance(expected, torch.Tensor):
        assert got.shape == expected.shape
        assert got.dtype is expected.dtype
        assert torch.allclose(got, expected, rtol=1e-12, atol=1e-13)
    else:
        assert got == expected


def scalar(x):
    """Smooth, with all third derivatives different from 0."""
    return (torch.sin(x) * torch.exp(x * 0.5)).sum() * (x * x).sum()


def vector(x):
    return torch.matmul(torch.as_tensor(A), torch.tanh(x)) * x[0]


def bilinear(x, y):
    return (torch.tanh(x * y) + x * x * y).sum()


def several(x, y):
    return {"sum": x * y, "pair": (torch.sin(x), y[0] * x[1])}


# --- each transform, each combination ----------------------------------------------------------------------------

CASES = {
    "grad": lambda F: F.grad(scalar)(X),
    "grad argnums=1": lambda F: F.grad(bilinear, 1)(X, Y),
    "grad argnums=-1": lambda F: F.grad(bilinear, -1)(X, Y),
    "grad argnums=(1, 0)": lambda F: F.grad(bilinear, (1, 0))(X, Y),
    "grad has_aux": lambda F: F.grad(lambda x: (scalar(x), {"twice": x * 2}), has_aux=True)(X),
    "grad of kwargs": lambda F: F.grad(lambda x, *, y: bilinear(x, y))(X, y=Y),
    "grad of the identity": lambda F: F.grad(lambda x: x)(X[0]),
    "grad of a constant in x": lambda F: F.grad(lambda x, y: y.sum())(X, Y),
    "grad of a partial": lambda F: F.grad(functools.partial(bilinear, X))(Y),
    "grad by a pytree": lambda F: F.grad(lambda p: bilinear(p["a"], p["b"][0]))({"a": X, "b": [Y]}),
    "value_and_grad": lambda F: (F.grad_and_value if F is theirs else F.value_and_grad)(scalar)(X)[
        :: 1 - 2 * (F is theirs)
    ],
    "vjp": lambda F: (lambda out, pull: (out, pull(V[:2])))(*F.vjp(vector, X)),
    "vjp twice": lambda F: (lambda out, pull: (pull(V[:2]), pull(V[1:])))(*F.vjp(vector, X)),
    "vjp of a dict": lambda F: F.vjp(several, X, Y)[1]({"sum": V, "pair": (X, Y[0])}),
    "vjp has_aux": lambda F: (lambda out, pull, aux: (out, pull(V), aux))(
        *F.vjp(lambda x: (x * x, x + 1), X, has_aux=True)
    ),
    "jvp": lambda F: F.jvp(vector, (X,), (V,)),
    "jvp of two": lambda F: F.jvp(bilinear, (X, Y), (V, X)),
    "jvp of a dict": lambda F: F.jvp(several, (X, Y), (V, X)),
    "jvp has_aux": lambda F: F.jvp(lambda x: (vector(x), x + 1), (X,), (V,), has_aux=True),
    "jvp of an unused": lambda F: F.jvp(lambda x, y: torch.sin(x), (X, Y), (V, V)),
    "jacrev": lambda F: F.jacrev(vector)(X),
    "jacrev of two": lambda F: F.jacrev(several, (0, 1))(X, Y),
    "jacrev has_aux": lambda F: F.jacrev(lambda x: (vector(x), x + 1), has_aux=True)(X),
    "jacfwd": lambda F: F.jacfwd(vector)(X),
    "jacfwd of two": lambda F: F.jacfwd(several, (0, 1))(X, Y),
    "jacfwd of a matrix": lambda F: F.jacfwd(lambda x: torch.matmul(x, x))(A[:, :2]),
    "jacrev of a matrix": lambda F: F.jacrev(lambda x: torch.matmul(x, x))(A[:, :2]),
    "hessian": lambda F: F.hessian(scalar)(X),
    "hessian of a vector": lambda F: F.hessian(vector)(X),
    "hessian of two": lambda F: F.hessian(bilinear, (0, 1))(X, Y),
    # nested
    "grad grad": lambda F: F.grad(F.grad(lambda x: torch.sin(x) * torch.exp(x)))(X[0]),
    "grad grad grad": lambda F: F.grad(F.grad(F.grad(lambda x: torch.tanh(x) * x**3)))(X[1]),
    "jvp of grad": lambda F: F.jvp(F.grad(scalar), (X,), (V,)),
    "grad of jvp": lambda F: F.grad(lambda x: F.jvp(scalar, (x,), (V,))[1])(X),
    "grad by a tangent": lambda F: F.grad(lambda v: F.jvp(vector, (X,), (v,))[1].sum())(V),
    "grad by x in primal and tangent": lambda F: F.grad(lambda x: F.jvp(vector, (x,), (x * x,))[1].sum())(X),
    "jvp of jvp": lambda F: F.jvp(lambda x: F.jvp(scalar, (x,), (V,))[1], (X,), (Y,)),
    "jvp of jvp of jvp": lambda F: F.jvp(
        lambda x: F.jvp(lambda x: F.jvp(scalar, (x,), (V,))[1], (x,), (Y,))[1], (X,), (X,)
    ),
    "vjp of jvp": lambda F: F.vjp(lambda x: F.jvp(vector, (x,), (V,))[1], X)[1](V[:2]),
    "jvp of vjp": lambda F: F.jvp(lambda x: F.vjp(vector, x)[1](V[:2])[0], (X,), (Y,)),
    "grad by a cotangent": lambda F: F.grad(lambda c: (F.vjp(vector, X)[1](c)[0] ** 2).sum())(V[:2]),
    "jacfwd of jacrev": lambda F: F.jacfwd(F.jacrev(vector))(X),
    "jacrev of jacfwd": lambda F: F.jacrev(F.jacfwd(vector))(X),
    "third derivatives": lambda F: F.jacrev(F.jacfwd(F.jacrev(scalar)))(X),
    "grad through an inner grad's closure": lambda F: F.grad(
        lambda x: F.grad(lambda y: (torch.sin(x * y) * y).sum())(Y).sum()
    )(X),
    "perturbations are not confused": lambda F: F.grad(lambda x: x * F.grad(lambda y: x + y)(X[1]))(X[0]),
}


@pytest.mark.parametrize("name", CASES)
def test_agrees_with_torch_func(name):
    expected = CASES[name](theirs)
    assert_same(CASES[name](ours), expected)
    with tg.no_grad():
        assert_same(CASES[name](ours), expected)


def test_hvp_is_the_hessian_times_a_vector():
    hessian = theirs.hessian(scalar)(X)
    assert_same(ours.hvp(scalar, X, V), hessian @ V)
    assert_same(ours.hvp(scalar, (X,), (V,)), hessian @ V)
    blocks = theirs.hessian(bilinear, (0, 1))(X, Y)
    expected = tuple(row[0] @ V + row[1] @ X for row in blocks)
    assert_same(ours.hvp(bilinear, (X, Y), (V, X)), expected)
    assert_same(ours.grad(lambda x: ours.hvp(scalar, x, V).sum())(X), theirs.grad(lambda x: _hvp(x).sum())(X))


def _hvp(x):
    return theirs.jvp(theirs.grad(scalar), (x,), (V,))[1]


def test_value_and_grad_takes_argnums_and_aux():
    f = ours.value_and_grad(lambda x, y: (bilinear(x, y), "aux"), argnums=(0, 1), has_aux=True)
    (value, aux), (gx, gy) = f(X, Y)
    assert aux == "aux"
    assert_same(value, bilinear(X, Y))
    assert_same((gx, gy), theirs.grad(bilinear, (0, 1))(X, Y))
    assert f.__name__ == "<lambda>"


# --- closures ----------------------------------------------------------------------------------------------------


def test_a_derivative_depends_on_what_f_closes_over():
    w = leaf(Y)
    g = ours.grad(lambda x: (torch.sin(x) * w * w).sum())(tg.tensor(X))
    assert g.requires_grad
    (g * tg.tensor(V)).sum().backward()
    assert_same(w.grad, torch.cos(X) * 2 * Y * V)


def test_a_derivative_by_constants_is_a_constant_and_leaves_grad_alone():
    x = tg.tensor(X)
    g = ours.grad(scalar)(x)
    assert not g.requires_grad
    assert x.grad is None
    w = leaf(Y)
    ours.grad(lambda x: (x * w).sum())(x)
    assert w.grad is None


def test_a_derivative_at_a_tracked_point_can_be_differentiated_by_it():
    x = leaf(X)
    ours.grad(scalar)(x).sum().backward()
    assert_same(x.grad, theirs.hessian(scalar)(X).sum(0))
    x.grad = None
    ours.jvp(scalar, (x * 2,), (tg.tensor(V),))[1].backward()
    assert_same(x.grad, 2 * theirs.hessian(scalar)(2 * X) @ V)
    x.grad = None
    ours.jacfwd(vector)(x)[0, 1].backward()
    assert_same(x.grad, theirs.hessian(vector)(X)[0, 1])


def test_under_no_grad_the_result_is_right_and_constant():
    x, w = leaf(X), leaf(Y)
    with tg.no_grad():
        g = ours.grad(lambda x: (torch.sin(x) * w).sum())(x)
    assert not g.requires_grad
    assert_same(g, torch.cos(X) * Y)


def test_no_grad_inside_f_cuts_only_there():
    def f(x):
        with tg.no_grad():
            held = x * x
        return (held * x).sum()

    assert_same(ours.grad(f)(X), X * X)


def test_arrays_and_numbers_are_arguments_too():
    assert_same(ours.grad(lambda x: (x**2).sum())(X.numpy()), 2 * X)
    assert ours.grad(lambda x: x**3)(2.0).item() == 12.0


def test_f_may_call_backward_and_grad_itself():
    def f(x):
        (g,) = tg.grad((x**3).sum(), x, create_graph=True)
        return (g * x).sum()

    assert_same(ours.grad(f)(X), 9 * X**2)


# --- refusals ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: ours.grad(vector)(X), tg.TapeError, r"grad: f must return one element .*\[2\]"),
        (lambda: ours.grad(lambda x: 1.0)(X), TypeError, "grad: f must return Tensors; got float"),
        (lambda: ours.grad(lambda x: x.sum())(tg.tensor([1])), tg.DTypeError, r"grad: .*float32 or float64.*int64"),
        (lambda: ours.grad(scalar, has_aux=True)(X), TypeError, r"grad: .*has_aux.*\(output, aux\); got Tensor"),
        (lambda: ours.grad(scalar, 1)(X), ValueError, "grad: argnums = 1 .* 1 positional"),
        (lambda: ours.grad(scalar, "a")(X), TypeError, "grad: argnums"),
        (lambda: ours.jvp(vector, (X,), (V[:2],)), tg.ShapeError, r"jvp: tangents must have shape \[3\]; got \[2\]"),
        (lambda: ours.jvp(vector, (X,), (V, V)), TypeError, "jvp: tangents must be structured"),
        (lambda: ours.jvp(vector, X, V), TypeError, "jvp: primals"),
        (lambda: ours.vjp(vector, X)[1](V), tg.ShapeError, r"vjp: cotangents must have shape \[2\]; got \[3\]"),
        (lambda: ours.vjp(several, X, Y)[1](V), TypeError, "vjp: cotangents must be structured"),
        (lambda: ours.jacrev(lambda x: "a")(X), TypeError, "jacrev: f must return Tensors; got str"),
    ],
)
def test_misuse_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_jacobians_pass_keyword_arguments_on():
    expected = torch.diag(Y)
    assert torch.equal(tg.func.jacrev(lambda x, *, y: x * y)(X, y=Y).data, expected)
    assert torch.equal(tg.func.jacfwd(lambda x, *, y: x * y)(X, y=Y).data, expected)
