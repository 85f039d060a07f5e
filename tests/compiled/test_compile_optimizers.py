"""Every optimizer in compiled steps: bit for bit the plain step, with every number another one at every call."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from compile_checks import assert_same_script, batch, bits, mlp, replays, state, training_step

import tapegrad as tg
from tapegrad.compiled import record
from tapegrad.optim import kernels, lr_scheduler

# Optimizers, and for each number of their groups the values that it takes in turn.
BETAS = [(0.9, 0.99), (0.8, 0.97), (0.95, 0.9)]
DECAY = {"lr": [0.1, 0.03, 0.06], "weight_decay": [0.0, 0.1, 0.01]}
NUMBERS: dict[str, dict[str, list[Any]]] = {
    "SGD": {**DECAY, "momentum": [0.9, 0.5, 0.0], "dampening": [0.1, 0.3, 0.0]},
    "Adam": {**DECAY, "betas": BETAS, "eps": [1e-8, 1e-3, 1e-5]},
    "AdamW": {**DECAY, "betas": BETAS, "eps": [1e-8, 1e-3, 1e-5]},
    "RMSprop": {**DECAY, "momentum": [0.9, 0.0, 0.5], "alpha": [0.9, 0.8, 0.99], "eps": [1e-8, 1e-3, 1e-5]},
    "Adadelta": {**DECAY, "rho": [0.9, 0.8, 0.99], "eps": [1e-6, 1e-3, 1e-5]},
    "Adagrad": {**DECAY, "lr_decay": [0.0, 0.1, 0.01], "eps": [1e-10, 1e-3, 1e-5]},
    "Adamax": {**DECAY, "betas": BETAS, "eps": [1e-8, 1e-3, 1e-5]},
    "NAdam": {**DECAY, "betas": BETAS, "eps": [1e-8, 1e-3, 1e-5], "momentum_decay": [4e-3, 0.1, 0.0]},
    "RAdam": {**DECAY, "betas": BETAS, "eps": [1e-8, 1e-3, 1e-5]},
    "Rprop": {
        "lr": [0.1, 0.2, 0.3],
        "etas": [(0.5, 1.2), (0.4, 1.1), (0.9, 2.0)],
        "step_sizes": [(1e-6, 50), (1e-3, 0.2), (1e-2, 1)],
    },
}


@pytest.fixture
def recordings(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """One entry for each call that is recorded."""
    seen: list[int] = []
    run = record.Recorder.run

    def counted(self: Any, *args: Any) -> Any:
        seen.append(1)
        return run(self, *args)

    monkeypatch.setattr(record.Recorder, "run", counted)
    return seen


def first(name: str, **options: Any) -> Any:
    """An optimizer with the first value of each number."""
    return lambda params: getattr(tg.optim, name)(params, **{k: v[0] for k, v in NUMBERS[name].items()}, **options)


def trained(compile: Any, make: Any, change: Any, steps: int = 30, dtype: Any = tg.float32) -> list[Any]:
    """What steps of a network leave behind, ``change(optimizer, i)`` before each."""
    model, _ = mlp()
    model.to(dtype)
    optimizer = make(model.parameters())
    step = compile(training_step(model, optimizer))
    batches = [batch(seed=i, dtype=dtype) for i in range(3)]
    seen = []
    for i in range(steps):
        change(optimizer, i)
        seen += [step(*batches[i % 3]), state([model], [optimizer])]
    return seen


def test_every_number_of_a_kernel_is_tried():
    tried = {name: set(values) for name, values in NUMBERS.items()}
    for name, numbers in tried.items():
        kernel = kernels.KERNELS[getattr(tg.optim, name).kernel]
        assert numbers == {kernels.name_of(key) for key in kernel.numbers}


@pytest.mark.parametrize("dtype", [tg.float32, tg.float64], ids=str)
@pytest.mark.parametrize("name", NUMBERS)
def test_all_numbers_change_at_every_call(name, dtype, recordings):
    def change(optimizer, i):
        for key, values in NUMBERS[name].items():
            optimizer.param_groups[0][key] = values[(i + (key == "lr")) % 3]

    assert_same_script(lambda compile: trained(compile, first(name), change, dtype=dtype))
    assert len(recordings) == 2


@pytest.mark.parametrize(("name", "key"), [(name, key) for name, values in NUMBERS.items() for key in values])
def test_one_number_changes_in_a_program_that_stands(name, key, recordings):
    def change(optimizer, i):
        optimizer.param_groups[0][key] = NUMBERS[name][key][0 if i < 4 else i % 3]

    assert_same_script(lambda compile: trained(compile, first(name), change, 10))
    assert len(recordings) == 2


SWITCHES = [
    *[("SGD", "nesterov"), ("SGD", "maximize"), ("Adam", "amsgrad"), ("Adam", "decoupled_weight_decay")],
    *[("NAdam", "decoupled_weight_decay"), ("RAdam", "maximize"), ("RMSprop", "centered"), ("Rprop", "maximize")],
]


@pytest.mark.parametrize(("name", "key"), SWITCHES)
def test_a_switch_is_a_program_for_each_side(name, key, recordings):
    until = []

    def change(optimizer, i):
        optimizer.param_groups[0][key] = i // 4 % 2 == 1
        until.append(len(recordings))

    assert_same_script(lambda compile: trained(compile, first(name), change, 32))
    assert until[-1] == until[-16] == len(recordings)  # once there is the state that a switch needs


def test_momentum_that_begins_at_nothing(recordings):
    """There is no state of it at first; once there is, 0 is a number as any other."""
    values = [0.0] * 4 + [0.9, 0.5, 0.0, 0.0, 0.9, 0.4] * 3

    def change(optimizer, i):
        optimizer.param_groups[0]["momentum"] = values[i]

    for name in ("SGD", "RMSprop"):
        recordings.clear()
        make = lambda params, name=name: getattr(tg.optim, name)(params, lr=0.05)  # noqa: E731
        assert_same_script(lambda compile, make=make: trained(compile, make, change, len(values)))
        assert len(recordings) <= 5


def test_an_audit_meets_a_momentum_of_nothing(monkeypatch, recordings):
    monkeypatch.setattr("tapegrad.compiled.step.AUDIT", 10)

    def change(optimizer, i):
        optimizer.param_groups[0]["momentum"] = 0.0 if i > 6 else 0.9

    assert_same_script(lambda compile: trained(compile, first("SGD"), change, 26))
    assert len(recordings) > 2


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("count", [2, 10])
def test_groups_frozen_parameters_and_missing_gradients(name, count):
    """Groups with numbers of their own, a frozen weight, one that no loss reaches, dtypes that differ, a late group."""

    def script(compile):
        model, _ = mlp(sizes=(3, 5, 4, 2))
        extra, unused = tg.ones(2, requires_grad=True), tg.ones(3, requires_grad=True)
        wide = tg.ones(2, dtype=tg.float64, requires_grad=True)
        model[0].bias.requires_grad_(False)
        rate = tg.tensor(0.05) if name != "Rprop" else 0.05
        groups = [
            {"params": [model[0].weight, model[0].bias, unused], "lr": 0.02},
            {"params": [*model[2].parameters(), wide], "lr": rate},
            {"params": list(model[4].parameters())},
        ]
        optimizer = first(name)(groups)

        @compile
        def step(x, y):
            optimizer.zero_grad()
            loss = ((model(x) * extra - y) ** 2).mean() + (wide * 0.5).sum().float()
            loss.backward()
            optimizer.step()
            return loss

        seen = []
        for i in range(count + 6):
            if i == count:
                optimizer.add_param_group({"params": [extra], "lr": 0.01})
            extra.grad = None
            kept = {"extra": extra, "wide": wide, "unused": unused}
            seen += [step(*batch(seed=i % 2)), bits(kept), state([model], [optimizer])]
        return seen

    assert_same_script(script)


# --- schedules -----------------------------------------------------------------------------------------------------

CYCLES = {
    "OneCycleLR": lambda o: lr_scheduler.OneCycleLR(o, 0.1, total_steps=201, cycle_momentum=True),
    "CyclicLR": lambda o: lr_scheduler.CyclicLR(o, 0.01, 0.1, step_size_up=7, cycle_momentum=True),
}


@pytest.mark.parametrize("cycle", CYCLES)
@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW", "NAdam", "RMSprop"])
def test_two_hundred_steps_of_a_cycle(name, cycle, recordings):
    def script(compile):
        model, _ = mlp()
        optimizer = first(name)(model.parameters())
        schedule = CYCLES[cycle](optimizer)
        step = compile(training_step(model, optimizer))
        seen = []
        for i in range(200):
            seen.append(step(*batch(seed=i % 2)))
            schedule.step()
        return [*seen, state([model], [optimizer])]

    assert_same_script(script)
    assert len(recordings) == 2


def setting(k: int, name: str, compile: Any) -> tuple[Any, Any, Any, Any]:
    tg.manual_seed(k)
    model, _ = mlp(k)
    optimizer = first(name)(model.parameters())
    cycles = name in ("SGD", "Adam", "RMSprop")
    schedule = CYCLES["OneCycleLR"](optimizer) if cycles else lr_scheduler.ExponentialLR(optimizer, 0.5 + 0.02 * k)
    return compile(training_step(model, optimizer)), schedule, model, optimizer


@pytest.mark.parametrize("name", ["SGD", "Adam", "RMSprop"])
def test_run_follows_a_cycle_from_epoch_to_epoch(name, recordings):
    x, y = batch(20)
    step, schedule, model, optimizer = setting(3, name, tg.compile)
    losses = step.run(x, y, batch_size=5, epochs=12, seed=1, on_epoch=lambda *_: schedule.step())
    assert len(recordings) == 2
    plain, schedule, other, its = setting(3, name, lambda step: step)
    for epoch, row in enumerate(losses):
        batches = tg.data.batches(x, y, batch_size=5, epoch=epoch, seed=1)
        assert [bits(loss) for loss in row] == [bits(plain(*part).detach()) for part in batches]
        schedule.step()
    assert state([model], [optimizer]) == state([other], [its])


@pytest.mark.parametrize("name", NUMBERS)
def test_together_each_network_has_its_own_schedule(name):
    """In lanes where there are such kernels, else one by one: the bits of each alone."""
    count, (x, y) = 19, batch(20)

    def varied(k):
        step, schedule, model, optimizer = setting(k, name, tg.compile)
        for key, values in NUMBERS[name].items():
            optimizer.param_groups[0][key] = values[k % 2]
        return step, schedule, model, optimizer

    made = [varied(k) for k in range(count)]

    def after(*_):
        for _, schedule, _, _ in made:
            schedule.step()

    tg.run_together([step for step, *_ in made], x, y, batch_size=5, epochs=4, seed=7, on_epoch=after)
    if name in ("SGD", "Adam", "AdamW"):
        assert made[0][0].joint[1].width > 1
    for k in (0, 1, count - 1):
        step, schedule, model, optimizer = varied(k)
        step.run(x, y, batch_size=5, epochs=4, seed=7 + k, on_epoch=lambda *_, s=schedule: s.step())
        assert state([made[k][2]], [made[k][3]]) == state([model], [optimizer]), k


def test_what_is_read_at_every_step_is_explained():
    model, _ = mlp()
    optimizer = tg.optim.Adam(model.parameters())
    step = tg.compile(training_step(model, optimizer))
    text = step.explain(*batch())
    assert "read at every step: betas[1] = 0.999" in text
    assert replays(step) == 0
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("kind", [tg.tensor, torch.tensor], ids=["ours", "torch's"])
def test_numbers_that_are_tensors_are_read_at_every_step(kind, recordings):
    def script(compile):
        model, _ = mlp()
        rate, beta = kind(0.1), kind(0.9)
        optimizer = tg.optim.Adam(model.parameters(), lr=rate, betas=(beta, 0.99))
        step = compile(training_step(model, optimizer))
        seen = []
        for i in range(10):
            rate.fill_(0.1 / (i + 1))
            if i == 5:
                optimizer.param_groups[0]["betas"] = (0.7, kind(0.95))
            seen += [step(*batch()), state([model], [optimizer])]
        return seen

    assert_same_script(script)
    assert len(recordings) == 2


def test_tensors_that_the_step_itself_uses_are_refused():
    model, optimizer = mlp()
    rate = tg.tensor(0.1)

    @tg.compile
    def computed(x, y):
        optimizer.param_groups[0]["lr"] = rate * 0.5
        return training_step(model, optimizer)(x, y)

    with pytest.raises(tg.CompileError, match="lr is computed inside the step"):
        computed(*batch())
    optimizer.param_groups[0]["lr"] = rate

    @tg.compile
    def set_anew(x, y):
        optimizer.param_groups[0]["lr"] = rate
        return training_step(model, optimizer)(x, y)

    with pytest.raises(tg.CompileError, match="lr, a tensor; make it a number"):
        set_anew(*batch())
    optimizer.param_groups[0] |= {"lr": 0.1, "momentum": tg.tensor(0.0)}
    with pytest.raises(tg.CompileError, match="momentum must be a number, not a tensor"):
        tg.compile(training_step(model, optimizer))(*batch())
