"""What changes between two calls of a compiled step takes effect, exactly as it does for the plain step."""

from __future__ import annotations

import importlib
import sys

import pytest
import torch
from compile_checks import assert_same_script, batch, bits, mlp, replays, state, training_step, uncompiled

import tapegrad as tg
from tapegrad import nn
from tapegrad.compiled.facts import is_library
from tapegrad.nn import functional as F
from tapegrad.optim import lr_scheduler


def changing(change, *, steps=9, every=3, **options):
    """A script: steps on a network, and ``change(model, optimizer, i)`` before every third, twice seen."""

    def script(compile):
        model, optimizer = mlp(**options)
        step = compile(training_step(model, optimizer))
        x, y = batch()
        seen = []
        for i in range(steps):
            if i and i % every == 0:
                change(model, optimizer, i)
            seen += [step(x, y), state([model], [optimizer])]
        return seen

    return script


# --- arguments ---------------------------------------------------------------------------------------------------


def test_new_shapes_dtypes_and_strides_are_new_programs():
    def script(compile):
        weight = tg.ones(3, requires_grad=True)

        @compile
        def step(x):
            weight.grad = None
            loss = (x * weight).sin().sum()
            loss.backward()
            return loss

        seen = []
        for x in (
            tg.randn(4, 3),
            tg.randn(5, 3),
            tg.randn(4, 3, dtype=torch.float64),
            tg.randn(3, 4).T,
            tg.randn(8, 6)[::2, ::2],
        ):
            for _ in range(4):
                seen += [step(x), weight.grad]
        if hasattr(step, "programs"):
            assert len(step.programs) == 5
        return seen

    assert_same_script(script)


def test_an_integer_argument_is_a_new_program_for_each_value():
    def script(compile):
        step = compile(lambda x, power: (x**power).sum())
        return [step(tg.arange(3.0), power) for power in (2, 2, 2, 3, 3, 3, 2, 2.0, 2.0, 2.0, True, True, True)]

    assert_same_script(script)


# --- modes -------------------------------------------------------------------------------------------------------


def test_train_and_eval_mode():
    def script(compile):
        tg.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2))
        step = compile(lambda x: model(x).detach())
        x, _ = batch()
        seen = []
        for i in range(16):
            model.train(i // 4 % 2 == 0)
            seen += [step(x), state([model])]
        return seen

    assert_same_script(script)


def test_one_layer_switched_to_eval_mode():
    def script(compile):
        tg.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.Linear(4, 2))
        step = compile(lambda x: model(x).detach())
        x, _ = batch()
        seen = [step(x) for _ in range(3)]
        model[1].eval()
        return seen + [step(x) for _ in range(3)]

    assert_same_script(script)


def test_the_probability_of_a_dropout_layer():
    def script(compile):
        drop = nn.Dropout(0.5)
        step = compile(lambda x: drop(x))
        seen = [step(tg.ones(20)) for _ in range(3)]
        drop.p = 0.1
        return seen + [step(tg.ones(20)) for _ in range(3)]

    assert_same_script(script)


def test_calls_under_no_grad():
    def script(compile):
        w = tg.ones(3, requires_grad=True)
        step = compile(lambda x: (x * w).sum().detach())
        seen = []
        for i in range(8):
            if i % 2:
                with tg.no_grad():
                    seen.append(step(tg.arange(3.0)))
            else:
                seen.append(step(tg.arange(3.0)))
        return seen

    assert_same_script(script)


def test_a_step_that_asks_whether_gradients_are_recorded():
    def script(compile):
        step = compile(lambda x: x * 2 if tg.is_grad_enabled() else x * 3)
        seen = []
        for i in range(8):
            with tg.set_grad_enabled(i % 2 == 0):
                seen.append(step(tg.arange(3.0)))
        return seen

    assert_same_script(script)


def test_the_default_dtype():
    def script(compile):
        step = compile(lambda x: (x * tg.full((2,), 0.1)).sum())
        seen = [step(tg.ones(2)) for _ in range(3)]
        torch.set_default_dtype(torch.float64)
        try:
            return seen + [step(tg.ones(2, dtype=torch.float32)) for _ in range(3)]
        finally:
            torch.set_default_dtype(torch.float32)

    assert_same_script(script)


# --- hyper-parameters --------------------------------------------------------------------------------------------


def test_a_learning_rate_set_by_hand_is_read_by_the_same_program():
    def change(model, optimizer, i):
        optimizer.param_groups[0]["lr"] = 0.5 / i

    assert_same_script(changing(change))
    model, optimizer = mlp()
    step = tg.compile(training_step(model, optimizer))
    for i in range(10):
        optimizer.param_groups[0]["lr"] = 0.1 / (1 + i)
        step(*batch())
    assert replays(step) == 8


@pytest.mark.parametrize(
    ("key", "value"),
    [("weight_decay", 0.3), ("momentum", 0.5), ("nesterov", True), ("dampening", 0.2), ("maximize", True)],
)
def test_other_options_of_sgd(key, value):
    def change(model, optimizer, i):
        optimizer.param_groups[0][key] = value if i == 3 else type(value)(0)

    options = {"momentum": 0.9} if key in ("nesterov", "dampening") else {}
    assert_same_script(changing(change, **options))


@pytest.mark.parametrize(
    ("key", "value"), [("betas", (0.5, 0.6)), ("eps", 0.1), ("amsgrad", True), ("weight_decay", 0.2), ("lr", 0.3)]
)
def test_options_of_adam(key, value):
    def script(compile):
        model, _ = mlp()
        optimizer = tg.optim.Adam(model.parameters())
        step = compile(training_step(model, optimizer))
        seen = []
        for i in range(9):
            if i == 4:
                optimizer.param_groups[0][key] = value
            seen += [step(*batch()), state([model], [optimizer])]
        return seen

    assert_same_script(script)


def test_a_parameter_group_added_later():
    def script(compile):
        model, optimizer = mlp()
        extra = tg.ones(2, requires_grad=True)

        @compile
        def step(x, y):
            optimizer.zero_grad()
            loss = F.mse_loss(model(x) * extra, y)
            loss.backward()
            optimizer.step()
            return loss

        seen = []
        for i in range(9):
            if i == 4:
                optimizer.add_param_group({"params": [extra], "lr": 0.01})
            extra.grad = None
            seen += [step(*batch()), extra, state([model], [optimizer])]
        return seen

    assert_same_script(script)


SCHEDULES = {
    "StepLR": lambda o: lr_scheduler.StepLR(o, 2, 0.5),
    "ExponentialLR": lambda o: lr_scheduler.ExponentialLR(o, 0.8),
    "CosineAnnealingLR": lambda o: lr_scheduler.CosineAnnealingLR(o, 5),
    "LambdaLR": lambda o: lr_scheduler.LambdaLR(o, lambda epoch: 1 / (1 + epoch)),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_between_steps(name):
    def script(compile):
        model, optimizer = mlp()
        step = compile(training_step(model, optimizer))
        schedule = SCHEDULES[name](optimizer)
        seen = []
        for _ in range(9):
            seen += [step(*batch()), state([model], [optimizer])]
            schedule.step()
        return seen

    assert_same_script(script)


WITHOUT_NAME = """
class Scale:
    @staticmethod
    def of(x): return x * factor[0]
factor = [1.0]
def step(x): return Scale.of(x).sum()
"""


def test_a_class_of_a_module_without_a_name_is_the_users():
    """``exec(text, {})`` says that it were Python's own."""

    def script(compile):
        scope = {}
        exec(WITHOUT_NAME, scope)
        step, seen = compile(scope["step"]), []
        for i in range(6):
            scope["factor"][0] = 1.0 + i // 3
            seen.append(step(tg.ones(3)))
        return seen

    assert_same_script(script)


def test_a_module_of_the_users_may_bear_a_name_of_the_standard_library(tmp_path, monkeypatch):
    (tmp_path / "sched.py").write_text("factor = 1.0\nclass Scale:\n    factor = 1.0\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "sched", raising=False)
    is_library.cache_clear()
    sched = importlib.import_module("sched")

    def script(compile):
        sched.factor, sched.Scale.factor = 1.0, 1.0
        step, seen = compile(lambda x: (x * sched.factor * sched.Scale().factor).sum()), []
        for i in range(9):
            sched.factor, sched.Scale.factor = 1.0 + i // 3, 1.0 + i // 6
            seen.append(step(tg.ones(3)))
        return seen

    try:
        assert_same_script(script)
    finally:
        monkeypatch.delitem(sys.modules, "sched")
        is_library.cache_clear()


def test_writing_in_place_through_data():
    """``p.data -= x`` assigns what it has changed: no replacement, and so no side effect."""

    def script(compile):
        model, _ = mlp()

        @compile
        def step(x, y):
            loss = F.mse_loss(model(x), y)
            loss.backward()
            for p in model.parameters():
                p.data -= 0.1 * p.grad.data
                p.grad.zero_()
            return loss

        programs.append(step)
        return [(step(*batch()), state([model])) for _ in range(6)]

    programs = []
    assert_same_script(script)
    assert replays(programs[1]) >= 3


# --- parameters --------------------------------------------------------------------------------------------------


def freeze(model, optimizer, i):
    model[0].weight.requires_grad_(i != 3)


def replace(model, optimizer, i):
    model[0].bias = nn.Parameter(tg.full((5,), 0.1 * i))


def replace_layer(model, optimizer, i):
    tg.manual_seed(i)
    model[2] = nn.Linear(5, 2)


def append_layer(model, optimizer, i):
    model.append(nn.Softplus(beta=i))


def load(model, optimizer, i):
    model.load_state_dict(mlp(seed=i)[0].state_dict())


def load_optimizer(model, optimizer, i):
    other = tg.optim.SGD(mlp(seed=i)[0].parameters(), lr=0.01 * i, momentum=0.5)
    optimizer.load_state_dict(other.state_dict())


def edit(model, optimizer, i):
    with tg.no_grad():
        model[0].weight.mul_(0.5)
        model[0].bias += 0.1
        model[2].bias[0] = 3.0


def new_data(model, optimizer, i):
    model[0].weight.data.copy_(torch.full((5, 3), 0.1 * i))


def assigned_data(model, optimizer, i):
    model[0].weight.data = torch.full((5, 3), 0.1 * i)


def resized_storage(model, optimizer, i):
    model[0].weight._data.set_(torch.full((5, 3), 0.1 * i))


def clear_gradients(model, optimizer, i):
    for p in model.parameters():
        p.grad = None


def set_gradients(model, optimizer, i):
    for p in model.parameters():
        p.grad = tg.full(p.shape, float(i))


def edit_gradients(model, optimizer, i):
    for p in model.parameters():
        p.grad.mul_(0.5)


def reset_state(model, optimizer, i):
    for values in optimizer.state.values():
        for value in values.values():
            value.zero_()


CHANGES = [
    freeze, replace, replace_layer, append_layer, load, load_optimizer, edit, new_data, assigned_data, resized_storage,
    clear_gradients, set_gradients, edit_gradients, reset_state,
]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_parameters_changed_between_steps(change):
    assert_same_script(changing(change, momentum=0.9))


def test_a_model_converted_to_another_dtype():
    def script(compile):
        model, _ = mlp()
        step = compile(lambda x: model(x).sum().detach())
        seen = [step(batch()[0]) for _ in range(3)]
        model.double()
        return seen + [step(batch(dtype=torch.float64)[0]) for _ in range(3)]

    assert_same_script(script)


@pytest.mark.parametrize("gradient", [clear_gradients, set_gradients, edit_gradients], ids=lambda f: f.__name__)
def test_gradients_that_add_up_and_change_between_steps(gradient):
    def script(compile):
        model, optimizer = mlp()
        x, y = batch()

        @compile
        def step(x, y):
            loss = F.mse_loss(model(x), y)
            loss.backward()
            return loss

        seen = []
        for i in range(12):
            if i % 4 == 3:
                gradient(model, optimizer, i)
            if i % 5 == 4:
                optimizer.step()
                optimizer.zero_grad(set_to_none=i == 4)
            seen += [step(x, y), state([model])]
        return seen

    assert_same_script(script)


def test_a_gradient_held_across_calls_is_that_of_the_plain_step():
    """Without zero_grad the same tensor is added to; with it, the next step makes another one."""

    def script(compile):
        w = tg.ones(2, requires_grad=True)

        @compile
        def step(x):
            loss = (w * x).sum()
            loss.backward()
            return loss

        seen = []
        for i in range(6):
            if i == 3:
                w.grad = tg.zeros(2)
            step(tg.tensor([1.0, 2.0]))
            held = w.grad
            step(tg.tensor([3.0, 4.0]))
            seen += [held, w.grad]
        return seen

    assert_same_script(script)


# --- the world between the two recorded calls --------------------------------------------------------------------


def toggling(compile, change):
    """Steps that switch the mode themselves, with ``change(model, optimizer)`` before the second."""
    model, optimizer = mlp()
    optimizer = tg.optim.Adam(model.parameters())
    inner = training_step(model, optimizer)

    @compile
    def step(x, y):
        model.train()
        return inner(x, y)

    seen = []
    for i in range(6):
        if i == 1:
            change(model, optimizer)
        seen += [step(*batch()), state([model], [optimizer])]
    return [*seen, compile is uncompiled or replays(step) > 0]


@pytest.mark.parametrize(
    "change",
    {
        "eval": lambda model, optimizer: model.eval(),
        "append": lambda model, optimizer: model.append(nn.Linear(2, 2)),
        "amsgrad": lambda model, optimizer: optimizer.param_groups[0].update(amsgrad=True),
    }.values(),
)
def test_a_change_between_the_recorded_calls_is_recorded_again(change):
    assert_same_script(lambda compile: toggling(compile, change))


@pytest.mark.parametrize("where", ["first", "last"])
def test_gradients_that_are_set_to_zero(where):
    """In place, as torch does: the tensor stays, and so does the program."""

    def script(compile):
        model, optimizer = mlp(momentum=0.9)

        @compile
        def step(x, y):
            if where == "first":
                optimizer.zero_grad(set_to_none=False)
            loss = F.mse_loss(model(x), y)
            loss.backward()
            optimizer.step()
            if where == "last":
                model.zero_grad(set_to_none=False)
            return loss

        seen = []
        for i in range(12):
            seen += [step(*batch(seed=i)), state([model], [optimizer])]
        return [*seen, 0 if compile is uncompiled else 9 - replays(step)]

    assert_same_script(script)
    w = tg.ones(2, requires_grad=True)
    (w * 3).sum().backward()
    held = w.grad
    tg.optim.SGD([w], lr=0.1).zero_grad(set_to_none=False)
    assert w.grad is held
    assert held.tolist() == [0.0, 0.0]


# --- constants ---------------------------------------------------------------------------------------------------


def test_checks_of_constants_run_once():
    """A call without outputs whose arguments never change: indices and targets made inside the step."""
    table = nn.Embedding(4, 2)
    steps = (
        lambda x: (x + table(tg.arange(4))).sum().detach(),
        lambda x: F.nll_loss(x, tg.zeros(4, dtype=tg.int64)),
        lambda x: x + F.binary_cross_entropy(tg.full((3,), 0.5), tg.ones(3)),
        lambda x: F.cross_entropy(x, tg.tensor([0, 1, 1, 0])) + F.one_hot(tg.arange(2), 2).sum(),
    )
    for step in steps:
        compiled = tg.compile(step)
        inputs = [tg.randn(4, 2) for _ in range(5)]
        assert bits([compiled(x) for x in inputs]) == bits([step(x) for x in inputs])
        assert replays(compiled) == 3


class Doubled(nn.Linear):
    def forward(self, x):
        return 2 * super().forward(x)


# what a test may put into a library's place: (owner, name, what it is then)
REPLACED = {
    "a layer's forward": (nn.ReLU, "forward", lambda self, x: x * 0.5),
    "what calls layers": (nn.Module, "__call__", lambda self, *args: self.forward(*args) * 1.5),
    "a function": (F, "mse_loss", lambda x, y: (x - y).abs().sum()),
    "a name of the package": (tg, "sin", tg.cos),
    "the optimizer's step": (tg.optim.SGD, "step", lambda self: None),
}


@pytest.mark.parametrize("name", REPLACED)
def test_what_is_put_into_the_librarys_place_is_seen(name, monkeypatch):
    owner, attribute, other = REPLACED[name]

    def script(compile):
        model, optimizer = mlp()
        model = nn.Sequential(model, nn.ReLU())

        @compile
        def step(x, y):
            optimizer.zero_grad()
            loss = F.mse_loss(tg.sin(model(x)), y)
            loss.backward()
            optimizer.step()
            return loss

        seen = []
        for i in range(8):
            with monkeypatch.context() as patch:
                if 3 <= i < 6:
                    patch.setattr(owner, attribute, other)
                seen.append((step(*batch()), state([model], [optimizer])))
        return seen

    assert_same_script(script)


def test_a_layer_that_becomes_another_class():
    def script(compile):
        model = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
        step, seen = compile(lambda x: model(x).sum().detach()), []
        for i in range(6):
            if i == 3:
                model[0].__class__ = Doubled
            seen.append(step(tg.ones(2, 4)))
        return seen

    assert_same_script(script)
