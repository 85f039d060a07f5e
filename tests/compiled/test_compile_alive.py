"""A training does not die of being compiled: what fails is refused at once, or runs as it is after one warning."""

from __future__ import annotations

import functools
import os
import re
import sys
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from compile_checks import batch, bits, mlp, replays, state, training_step

import tapegrad as tg
from tapegrad import CompileError, nn, optim
from tapegrad import compiled as room
from tapegrad.compiled import bind
from tapegrad.nn import functional as F

ROOM = os.path.dirname(room.__file__)
TIME = 0


def told(call: Callable[[], Any]) -> tuple[Any, list[str]]:
    """(what a call returns, the warnings that it gives)."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = call()
    assert all(w.filename == __file__ for w in caught)
    return result, [str(w.message) for w in caught]


# --- what changes all the time -----------------------------------------------------------------------------------


def ready_to_change(kind: str) -> tuple[Any, Any, Callable[..., Any], Callable[[int], None]]:
    """(model, optimizer, step, what is done before each call but the first)."""
    model, _ = mlp()
    optimizer = tg.optim.Adam(model.parameters())
    inner = training_step(model, optimizer)

    def toggling(x: Any, y: Any) -> Any:
        model.train()
        return inner(x, y)

    def timed(x: Any, y: Any) -> Any:
        return inner(x * tg.tensor([1.0 + 0.01 * TIME]), y)

    def now_and_then(x: Any, y: Any) -> Any:
        loss = inner(x, y)
        return loss * 1.0 if TIME < 7 or loss.item() > 0 else loss * 0.5

    def counting(x: Any, y: Any) -> Any:
        if TIME > 7:
            model.seen = TIME
        return inner(x, y)

    def adding(x: Any, y: Any) -> Any:
        loss = F.mse_loss(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    def halve(i: int) -> None:
        for p in model.parameters():
            p.grad = p.grad * 0.5

    def at(i: int) -> None:
        global TIME
        TIME = i

    group = optimizer.param_groups[0]
    return (
        model,
        optimizer,
        *{
            "mode": (toggling, lambda i: model.eval()),
            "global": (timed, at),
            "options": (inner, lambda i: group.update(mine=i)),
            "gradients": (adding, halve),
            "value read later": (now_and_then, at),
            "attribute set later": (counting, at),
            "layers": (inner, lambda i: model.append(nn.Tanh())),
            "shapes": (inner, at),
        }[kind],
    )


@pytest.mark.parametrize(
    ("kind", "reason"),
    {
        "mode": r"changes model\.training, .*move the change out of the step",
        "global": r"recorded again and again because TIME keeps changing; pass it as an argument, a 0-dim tensor",
        "options": r"recorded again and again because .*mine.* keeps changing; pass it",
        "gradients": r"recorded again and again because a gradient that the step adds to keeps changing",
        "value read later": r"test_compile_alive\.py:\d+: aten._local_scalar_dense.* reads a value .*return the tensor",
        "attribute set later": r"counting changes the attributes of model, .*; move the change out of the step",
        "layers": r"recorded again and again because .* keeps changing",
        "shapes": None,
    }.items(),
)
def test_a_training_goes_on_and_says_why_it_is_not_compiled(kind: str, reason: str | None) -> None:
    """40 calls, bit for bit the plain ones, and one warning; each Python statement of the step runs once a call."""
    global TIME
    sides, said = [], []
    for compile in (lambda f: f, tg.compile):
        TIME = 0
        model, optimizer, step, before = ready_to_change(kind)
        step, seen = compile(step), []
        for i in range(40):
            if i:
                before(i)
            loss, messages = told(lambda step=step, i=i: step(*batch(1 + i % 5 if kind == "shapes" else 4, seed=i)))
            said += messages
            seen += [bits(loss), state([model], [optimizer])]
        sides.append(seen)
    assert sides[0] == sides[1]
    if reason is None:
        assert said == []
    else:
        assert len(said) == 1
        assert re.search(f"^compile: the step runs uncompiled: .*{reason}", said[0]), said[0]


def test_a_new_signature_does_not_end_a_training() -> None:
    """The smaller last batch takes another way, which cannot be compiled; in calls and in `run`."""
    for run in (False, True):
        states, said = [], []
        for compile in (lambda f: f, tg.compile):
            model, optimizer = mlp()
            inner = training_step(model, optimizer)
            step = compile(lambda x, y, inner=inner: inner(x * x.sum().item() if len(x) < 4 else x, y))
            x, y = batch(14)
            batches = [(x[at : at + 4], y[at : at + 4]) for at in range(0, 14, 4)]
            for _ in range(3):
                if run and hasattr(step, "run"):
                    said += told(functools.partial(step.run, x, y, batch_size=4, shuffle=False))[1]
                else:
                    said += [text for b in batches for text in told(functools.partial(step, *b))[1]]
            states.append(state([model], [optimizer]))
        assert states[0] == states[1]
        assert len(said) == 1
        assert "reads a value into Python" in said[0]
        assert replays(step) == 7


def test_what_runs_as_it_is_is_tried_again() -> None:
    """Not for ever: a cause that is gone is noticed."""
    noisy = [False]
    step = tg.compile(lambda x: x * (2 if not noisy[0] else int(x.sum().item())))
    for _ in range(3):
        step(tg.ones(2))
    noisy[0] = True
    assert "reads a value" in told(lambda: step(tg.ones(2)))[1][0]
    noisy[0] = False
    before = replays(step)
    assert step(tg.ones(2)).tolist() == [2.0, 2.0]
    assert replays(step) == before + 1


# --- what fails in the package -----------------------------------------------------------------------------------


class Failing:
    """Raises when a function of the compiled tape is entered for the first time; notes all where there is none."""

    def __init__(self, code: Any = None) -> None:
        self.code = code
        self.codes: dict[Any, None] = {}

    def __enter__(self) -> Failing:
        sys.settrace(self)
        return self

    def __exit__(self, *exc: object) -> None:
        sys.settrace(None)

    def __call__(self, frame: Any, event: str, argument: Any) -> None:
        code = frame.f_code
        if code.co_filename.startswith(ROOM) and self.code is None:
            self.codes[code] = None
        elif code is self.code:
            sys.settrace(None)
            raise RuntimeError("on purpose")


class World:
    """A training that uses every stage: constants, random numbers, buffers, an optimizer."""

    def __init__(self) -> None:
        tg.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2))
        table = nn.Embedding(4, 2)
        self.optimizer = tg.optim.Adam([*self.model.parameters(), *table.parameters()])
        self.x, self.y = tg.randn(4, 3), tg.randn(4, 2)
        inner = training_step(lambda x: self.model(x) + table(tg.arange(4)), self.optimizer)
        self.plain = lambda: inner(self.x, self.y)
        compiled = tg.compile(inner)
        self.call = lambda: compiled(self.x, self.y)

    def state(self) -> Any:
        return state([self.model], [self.optimizer])


ENTRANCE = {
    "__call__",
    "_call",
    "_prepared",
    "_record",
    "rests",
    "__torch_dispatch__",
    "_operate",
}  # where nothing has happened yet


@pytest.mark.parametrize("before", [0, 1])
def test_whatever_fails_is_a_compile_error_with_the_users_line_and_changes_nothing(before: int) -> None:
    """RuntimeError from every function that records, compares, lowers, plans, binds."""
    plain = World()
    expected = [plain.state()]
    for _ in range(before + 3):
        plain.plain()
        expected.append(plain.state())
    warm, noted = World(), Failing()
    for i in range(before + 1):
        if i == before:
            with noted:
                warm.call()
        else:
            warm.call()
    codes = [code for code in noted.codes if code.co_name not in ENTRANCE]
    assert len(codes) > 60
    for code in codes[::7]:
        world = World()
        for _ in range(before):
            world.call()
        done, text = before, None
        try:
            with Failing(code), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                world.call()
        except CompileError as error:
            text = str(error)
        else:  # not entered again, or after the program was made
            done += 1
        if text is not None:
            assert re.search(r"(test_compile_alive|compile_checks)\.py:\d+: .*RuntimeError: on purpose", text), code
        assert world.state() == expected[done], code
        for i in range(done + 1, before + 4):
            world.call()
            assert world.state() == expected[i], code


@pytest.mark.parametrize("name", ["_ref", "_finish", "_settle", "difference", "lower", "plan", "_bind", "collect"])
def test_fit_goes_on_after_a_failure_in_the_package(name: str) -> None:
    """With its warning, and the parameters of the uncompiled training."""

    def trained(compile: bool) -> Any:
        bind._programs.clear()
        tg.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Dropout(0.2), nn.Linear(4, 2))
        optimizer = tg.optim.SGD(model.parameters(), lr=0.1)
        x, y = batch(20)
        options = {"epochs": 2, "batch_size": 4, "seed": 0, "progress": False, "metrics": ()}
        model.fit(x, y, loss=nn.MSELoss(), optimizer=optimizer, compile=compile, **options)
        return state([model], [optimizer])

    expected, noted = trained(False), Failing()
    with noted:
        assert trained(True) == expected
    code = next(code for code in noted.codes if code.co_name == name)

    def failing() -> Any:
        with Failing(code):
            return trained(True)

    result, said = told(failing)
    assert result == expected
    assert len(said) == 1
    assert re.search("^fit: training goes on uncompiled: compile: .*RuntimeError: on purpose", said[0])


def test_where_the_warning_is_an_error_the_step_has_run_once() -> None:
    sides: list[list[object]] = []
    for compiled in (False, True):
        tg.manual_seed(0)
        layer = nn.Linear(3, 4)
        optimizer = optim.Adam(layer.parameters(), lr=0.01)

        def step(x: torch.Tensor, read: bool, layer: Any = layer, optimizer: Any = optimizer) -> Any:
            optimizer.zero_grad()
            loss = (layer(x * len(tg.ones(2).tolist()) if read else x) ** 2).mean()
            loss.backward()
            optimizer.step()
            return loss

        run, seen = tg.compile(step) if compiled else step, []
        for i in range(8):
            x = torch.randn(4, 3, generator=torch.Generator().manual_seed(i))
            if compiled and i == 4:
                with pytest.raises(RuntimeWarning, match="the step runs uncompiled"):  # an error in this suite
                    run(x, True)
            else:
                run(x, i >= 4)
            seen.append(state([layer], [optimizer]))
        sides.append(seen)
    assert sides[0] == sides[1]
