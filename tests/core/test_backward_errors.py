"""What fails inside a gradient rule names the op and the line that recorded it, and changes nothing."""

import pytest
import torch

import tapegrad as tg
from tapegrad import func
from tapegrad.core import registry


def failing(error):
    """An op whose gradient rule calls `error`."""

    @tg.op(x=lambda g, x: error(g, x))
    def doomed(x):
        return x * 1

    return doomed


def raises(made):
    def rule(g, x):
        raise made

    return rule


class Mine(RuntimeError):
    """A user's own."""


SINGULAR = torch.ones(2, 2, dtype=torch.float64)
# what the rule does: (it, the class of the error, what torch says)
RULES = {
    "a singular matrix": (
        lambda g, x: torch.linalg.inv(getattr(x, "data", x)),
        tg.linalg.LinAlgError,
        "diagonal element",
    ),
    "shapes": (lambda g, x: torch.ones(3) @ torch.ones(4), tg.ShapeError, "inconsistent tensor size"),
    "an index": (lambda g, x: torch.ones(3)[5], IndexError, "index 5 is out of bounds"),
    "dtypes": (lambda g, x: torch.ones(3) @ torch.ones(3).long(), tg.DTypeError, "expected both vectors to have same"),
    "no memory": (lambda g, x: torch.empty(2**50) * 1, MemoryError, "not enough memory"),
    "a value": (raises(ValueError("no such value")), ValueError, "no such value"),
    "a division": (lambda g, x: g * (1 / 0), tg.ArgumentError, "division by zero"),
    "a type": (lambda g, x: g + object(), TypeError, ""),
}
WAYS = {
    "backward": lambda f, x: f(x).sum().backward(),
    "grad": lambda f, x: tg.grad(f(x).sum(), x),
    "recorded": lambda f, x: tg.grad(f(x).sum(), x, create_graph=True),
    "forward": lambda f, x: func.jvp(f, (x,), (tg.ones_like(x),)),
}


@pytest.fixture(autouse=True)
def no_new_op():
    before = dict(registry)
    yield
    registry.clear()
    registry.update(before)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("rule", RULES)
def test_what_torch_raises_in_a_rule_names_the_op_and_its_line(rule, way):
    does, kind, says = RULES[rule]
    x = tg.Tensor(SINGULAR.clone(), True)
    x.grad = tg.full((2, 2), 7.0, dtype=torch.float64)
    with pytest.raises(kind, match=rf"^doomed: backward: .*{says}.*\(g = f64\[2, 2\].*test_backward_errors\.py:\d+\)"):
        WAYS[way](failing(does), x)
    assert x.grad.tolist() == [[7, 7], [7, 7]]
    assert tg.is_grad_enabled()


@pytest.mark.parametrize("way", WAYS)
def test_a_rules_own_exceptions_stay_what_they_are(way):
    for error in (Mine("x"), KeyError("x"), StopIteration("x"), KeyboardInterrupt("x")):
        with pytest.raises(type(error)) as caught:
            WAYS[way](failing(raises(error)), tg.ones(2, 2, requires_grad=True))
        assert caught.value is error


def test_the_users_code_in_a_backward_raises_its_own():
    x = tg.ones(2, requires_grad=True)

    class Doomed(tg.autograd.Function):
        forward = staticmethod(lambda ctx, x: x * 2)
        backward = staticmethod(lambda ctx, g: raises(RuntimeError("own"))(g, g))

    hooked = x * 1
    hooked.register_hook(lambda g: raises(RuntimeError("own"))(g, g))
    calls = iter([lambda y: y * 2, lambda y: raises(RuntimeError("own"))(y, y)])
    for y in (Doomed.apply(x), hooked, tg.checkpoint(lambda y: next(calls)(y), x)):
        with pytest.raises(RuntimeError, match=r"^own$"):
            y.sum().backward()


def test_an_error_inside_a_checkpoint_names_the_op_inside():
    x = tg.Tensor(SINGULAR.clone(), True)
    y = tg.checkpoint(failing(RULES["a singular matrix"][0]), x)
    with pytest.raises(tg.linalg.LinAlgError, match=r"^doomed: backward: "):
        y.sum().backward()


def test_an_op_of_ours_that_fails_in_a_recorded_rule_names_both():
    f = failing(lambda g, x: tg.matmul(tg.ones(3), tg.ones(4)))
    with pytest.raises(tg.ShapeError, match=r"^doomed: backward: matmul: .*recorded at .*test_backward_errors\.py:\d+"):
        f(tg.ones(2, 2, requires_grad=True)).sum().backward()


@pytest.mark.parametrize("create_graph", [False, True])
def test_gradients_whose_sum_no_memory_holds(create_graph):
    x, g = tg.ones(1, requires_grad=True), tg.ones(1).expand(2**44)
    wide = x.expand(2**44)
    with pytest.raises(tg.OutOfMemoryError, match=r"^(backward|add): not enough memory"):
        tg.grad([wide.unsqueeze(1), wide.unsqueeze(0)], x, [g.unsqueeze(1), g.unsqueeze(0)], create_graph=create_graph)
    assert x.grad is None


def test_backward_works_after_it_failed():
    x = tg.Tensor(SINGULAR.clone(), True)
    broken = [True]
    y = failing(lambda g, x: torch.linalg.inv(SINGULAR) if broken else g)(x).sum()
    with pytest.raises(tg.linalg.LinAlgError):
        y.backward()
    broken.clear()
    y.backward()
    assert x.grad.tolist() == [[1, 1], [1, 1]]
