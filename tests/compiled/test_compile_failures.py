"""A replay that meets bad values raises what the plain step raises: the checks of factorisations, classes, indices."""

import pytest
import torch

import tapegrad as tg
from tapegrad.nn import functional as F

GOOD, BAD = tg.eye(3) * 2, tg.ones(3, 3)  # BAD is singular, and not positive definite once it is negative
FACTORISED = {
    "inv": tg.linalg.inv,
    "solve": lambda x: tg.linalg.solve(x, tg.ones(3)),
    "cholesky": lambda x: tg.linalg.cholesky(x - 0.5 * tg.eye(3)),
    "det": lambda x: tg.grad(tg.linalg.det(x * w).sum(), w)[0],
    "embedding": lambda x: F.embedding((x[0] * 2).long() + 3 * (x[0, 1] == 1), tg.ones(5, 2)),
    "cross_entropy": lambda x: F.cross_entropy(x, (x[0] + 3 * x[0, 1]).long()),
}
w = tg.ones(3, 3, requires_grad=True)


def outcome(f, *args):
    try:
        return f(*args).detach().tolist()
    except Exception as error:
        return type(error), str(error)


@pytest.mark.parametrize("name", FACTORISED)
def test_bad_values_before_any_write_are_refused_as_the_plain_step_does(name):
    f = FACTORISED[name]
    step = tg.compile(lambda x: f(x).sum().detach())
    for _ in range(3):
        assert outcome(step, GOOD) == f(GOOD).sum().tolist()
    assert isinstance(expected := outcome(f, BAD), tuple)
    assert outcome(step, BAD) == expected
    assert outcome(step, GOOD) == f(GOOD).sum().tolist()


@pytest.mark.parametrize("name", FACTORISED)
def test_bad_values_after_a_write_name_the_call_and_its_line(name):
    f, total = FACTORISED[name], tg.zeros(())

    @tg.compile
    def step(x):
        total.add_(1.0)
        return f(x).sum().detach() + total

    for _ in range(4):
        step(GOOD)
    version = total.data._version
    says = r"\(in a compiled step, recorded at test_compile_failures\.py:\d+\)|^cross_entropy: targets must be"
    with pytest.raises(tg.TapegradError, match=says):
        step(BAD)
    assert total.tolist() == 5
    assert total.data._version > version  # it has been written
    assert outcome(step, GOOD) == (f(GOOD).sum() + 6).tolist()


def made():
    p = tg.zeros(3, requires_grad=True)
    optimizer = tg.optim.SGD([p], lr=0.1)

    @tg.compile
    def step(x):
        optimizer.zero_grad()
        loss = (x[0] @ p).sum()
        loss.backward()
        optimizer.step()
        return loss + tg.linalg.inv(x[0].detach()).sum()

    return p, step


@pytest.mark.parametrize("together", [False, True])
def test_an_epoch_that_meets_bad_values_after_a_write_says_so(together):
    X = torch.stack([GOOD.data] * 5 + [BAD.data] + [GOOD.data] * 2)
    p, step = made()
    options = {"batch_size": 1, "epochs": 2, "shuffle": False}
    with pytest.raises(tg.TapegradError, match=r"singular|recorded at test_compile_failures\.py"):
        tg.run_together([step, made()[1]], X, **options) if together else step.run(X, **options)
    assert p.tolist() == pytest.approx([-5 * 0.2 - 0.3] * 3)
