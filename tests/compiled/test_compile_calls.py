"""What goes into a compiled step and comes out: arguments, results, gradients, and what surrounds the call."""

from __future__ import annotations

import collections
import cProfile
import functools
import gc
import sys
import weakref

import numpy as np
import pytest
import torch
from compile_checks import assert_same_script, batch, bits, mlp, state, training_step

import tapegrad as tg
from tapegrad import nn
from tapegrad.compiled import step as implementation
from tapegrad.core import NonFiniteError, ShapeError
from tapegrad.nn import functional as F

Pair = collections.namedtuple("Pair", "first second")


def numbers(i):
    return tg.tensor([1.0 + i, 2.0 - i])


# --- arguments ---------------------------------------------------------------------------------------------------


def test_keywords_containers_numbers_and_strings():
    def script(compile):
        def step(x, *more, scale=1.0, parts=None, kind="sum", **rest):
            total = x * scale + sum(more) + parts["a"][0] * parts["b"].second
            return getattr(total + rest["z"], kind)()

        step = compile(step)
        seen = []
        for kind in ("sum", "mean", "sum"):
            for i in range(4):
                parts = {"a": [numbers(i)], "b": Pair(None, numbers(1))}
                seen.append(step(numbers(i), 1.0, numbers(2), kind=kind, parts=parts, z=numbers(0), scale=2.0))
        return seen

    assert_same_script(script)


def test_tensors_of_torch_and_arrays_of_numpy():
    def script(compile):
        step = compile(lambda x, y: tg.mul(x, y).sum())
        seen = []
        for i in range(4):
            x, y = numbers(i), numbers(3)
            seen += [step(x, y), step(x.data, y), step(x, y.data.numpy()), step(x.data, y.data)]
        return seen

    assert_same_script(script)


def test_strided_empty_and_expanded_arguments():
    def script(compile):
        step = compile(lambda x: (x.sum(0), x * 2))
        seen = []
        for i in range(4):
            x = tg.arange(24.0).reshape(4, 6) * i
            for view in (x.T, x[::2, 1:4], x[1], x[:0], x[2, 2].expand(3, 2), x.reshape(2, 2, 6)[:, 1]):
                seen.append(step(view))
        return seen

    assert_same_script(script)


def test_the_same_tensor_twice_is_another_program():
    def script(compile):
        def step(a, b):
            a.mul_(2)
            return a + b

        step = compile(step)
        a, b = numbers(1), numbers(2)
        pairs = [(a, a)] * 4 + [(a, b)] * 4 + [(b, b), (b, a), (a, a.detach()), (a, a)]
        return [value for pair in pairs for value in (step(*pair), a, b)]

    assert_same_script(script)


def test_disjoint_parts_of_one_tensor():
    def script(compile):
        def step(a, b):
            a.add_(b)
            return a * b

        step = compile(step)
        x = tg.arange(8.0)
        return [value for _ in range(5) for value in (step(x[:4], x[4:]), step(x[4:], x[:4]), x)]

    assert_same_script(script)


def test_an_argument_that_is_a_gradient_a_result_or_a_closure_tensor():
    """Where an argument lies in memory that a program uses, the call is eager or another program, or refused."""

    def script(compile):
        model, optimizer = mlp()
        known = tg.ones(5, 3)

        @compile
        def step(g, x, y):
            optimizer.zero_grad()
            loss = F.mse_loss(model(x), y) + (g * known).sum()
            loss.backward()
            optimizer.step()
            return loss, g + 1

        seen, g = [], tg.zeros(5, 3)
        for _ in range(4):
            loss, g = step(g, *batch())
            seen += [loss, g, state([model])]
        for _ in range(4):
            seen += [step(model[0].weight.grad, *batch()), state([model])]
        return seen

    assert_same_script(script)
    known = tg.ones(2)
    step = tg.compile(lambda x: x * known)
    for x in (tg.ones(2), tg.zeros(2), tg.ones(2)):
        step(x)
    with pytest.warns(RuntimeWarning, match="uncompiled: an argument shares its memory with known; pass a clone"):
        assert [step(known).tolist() for _ in range(3)] == [[1.0, 1.0]] * 3
    fresh = tg.compile(lambda x: x * known)
    fresh(known)
    with pytest.raises(tg.CompileError, match="an argument shares its memory with known; pass a clone"):
        fresh(known)


def test_arguments_that_require_gradients():
    def script(compile):
        step = compile(lambda x, y: (x * x * y).sum().backward())
        seen = []
        x = tg.tensor([1.0, 2.0], requires_grad=True)
        for i in range(5):  # adds up
            step(x, numbers(i))
            seen.append(x.grad.clone())
        for i in range(5):  # a new one every time, which may come with a gradient
            x = tg.tensor([1.0, 2.0 + i], requires_grad=True)
            if i % 2:
                x.grad = numbers(i)
            step(x, numbers(i))
            seen.append(x.grad)
        return seen

    assert_same_script(script)


def test_the_class_of_an_argument_matters():
    def script(compile):
        step = compile(lambda x: x.detach() * (2 if isinstance(x, nn.Parameter) else 3))
        kinds = (nn.Parameter, lambda t: tg.Tensor(t.data, True), lambda t: t)
        return [step(kind(numbers(i))) for kind in kinds for i in range(4)]

    assert_same_script(script)


# --- results -----------------------------------------------------------------------------------------------------


RESULTS = {
    "nothing": lambda x: None,
    "the argument": lambda x: x,
    "tuple": lambda x: (x, x * 2),
    "nested": lambda x: [x * 2, (x.sum(), None)],
    "dict": lambda x: {"a": x + 1, "b": 3},
    "named tuple": lambda x: Pair(x * 2, "text"),
    "of torch": lambda x: x.data * 2,
    "of both": lambda x: (x.data, tg.Tensor(x.data * 2)),
    "empty": lambda x: (),
    "number": lambda x: 2.5,
    "shape": lambda x: x.shape,
    "strided": lambda x: x.reshape(2, 1).expand(2, 3).T,
    "integers": lambda x: (x > 1, x.long()),
    "constant": lambda x: tg.full((2,), 7.0),
}


@pytest.mark.parametrize("name", RESULTS)
def test_every_structure_of_results(name):
    def script(compile):
        step = compile(RESULTS[name])
        seen = []
        for i in range(4):
            x = numbers(i)
            value = step(x)
            seen += [value, type(value).__name__, value is x]
        return seen

    assert_same_script(script)


def test_results_are_kept_across_calls():
    model, optimizer = mlp()
    step = tg.compile(training_step(model, optimizer))
    losses = [step(*batch()) for _ in range(10)]
    model, optimizer = mlp()
    plain = training_step(model, optimizer)
    assert bits(losses) == bits([plain(*batch()) for _ in range(10)])
    constant = tg.compile(lambda: tg.full((2,), 3.0))
    results = [constant() for _ in range(4)]
    results[3].fill_(0.0)
    assert bits(results[:3]) == bits([tg.full((2,), 3.0)] * 3)
    assert bits(constant()) == bits(tg.full((2,), 3.0))


def test_a_returned_parameter_buffer_or_gradient():
    def script(compile):
        w = tg.ones(2, requires_grad=True)
        total = tg.zeros(2)

        def step(x):
            w.grad = None
            (w * x).sum().backward()
            with tg.no_grad():
                w.sub_(0.1 * w.grad)
            total.add_(x)
            return w, total, w.grad

        step = compile(step)
        seen = []
        for i in range(5):
            parameter, buffer, gradient = step(numbers(i))
            seen += [parameter.detach().clone(), parameter.requires_grad, buffer.clone(), gradient.clone()]
        return seen

    assert_same_script(script)


def test_gradients_are_readable_and_can_be_clipped_outside():
    def script(compile):
        model, optimizer = mlp(momentum=0.9)
        x, y = batch()

        @compile
        def gradients(x, y):
            optimizer.zero_grad()
            loss = F.mse_loss(model(x), y)
            loss.backward()
            return loss

        seen = []
        for _ in range(6):
            seen += [gradients(x, y), state([model], [optimizer])]
            seen.append(nn.utils.clip_grad_norm_(model.parameters(), 0.1))
            optimizer.step()
        return seen

    assert_same_script(script)


# --- around the call ---------------------------------------------------------------------------------------------


def test_an_open_tape_holds_what_the_step_records():
    model, optimizer = mlp()
    step = tg.compile(training_step(model, optimizer))
    for _ in range(3):
        step(*batch())
    with tg.Tape() as tape:
        step(*batch())
    assert [entry.op.name for entry in tape] == ["linear", "tanh", "linear", "mse_loss"]
    after = state([model], [optimizer])
    model, optimizer = mlp()
    plain = training_step(model, optimizer)
    for _ in range(4):
        plain(*batch())
    assert state([model], [optimizer]) == after


@pytest.mark.parametrize("calls", [0, 1, 2, 5])
def test_detect_anomaly_names_the_origin(calls):
    w = tg.ones(2, requires_grad=True)

    def step(x):
        w.grad = None
        loss = (w * x).log().sum()
        loss.backward()
        return loss

    step = tg.compile(step)
    for _ in range(calls):
        step(tg.ones(2))
    with tg.detect_anomaly(), pytest.raises(NonFiniteError, match=r"log.*test_compile_calls.py:\d+"):
        step(tg.tensor([1.0, -1.0]))
    assert step(tg.tensor([1.0, -1.0])).isnan().data.item()  # as the plain step, without the search
    assert bits(step(tg.ones(2))) == bits(tg.tensor(0.0))


def test_a_bad_value_met_by_a_replay_raises_the_plain_error():
    model, optimizer = mlp()
    step = tg.compile(training_step(model, optimizer, F.cross_entropy))
    x, labels = batch()[0], tg.tensor([0, 1, 0, 1])
    for _ in range(4):
        step(x, labels)
    before = state([model], [optimizer])
    with pytest.raises(ShapeError, match=r"cross_entropy: targets must be class indices in \[0, 2\); got 2 at row 1"):
        step(x, tg.tensor([0, 2, 0, 1]))
    after = state([model], [optimizer])
    assert {k: v for k, v in after.items() if "grad" not in k} == {k: v for k, v in before.items() if "grad" not in k}
    assert step(x, labels).item() > 0


def test_the_audit_notices_what_no_guard_can_see(monkeypatch):
    """What ``functools.lru_cache`` holds is such a thing; that it is read once is the boundary."""
    monkeypatch.setattr(implementation, "AUDIT", 6)
    hidden = functools.lru_cache(lambda: np.full(1, 2.0))
    step = tg.compile(lambda x: x * float(hidden()[0]))
    for _ in range(3):
        step(tg.ones(2))
    hidden()[0] = 5.0
    assert step(tg.ones(2)).tolist() == [2.0, 2.0]
    with pytest.raises(tg.CompileError, match=r"argument 1 was 2.0 in the first recorded call, 5.0 in the second"):
        list(map(step, [tg.ones(2)] * 8))
    assert [step(tg.ones(2)).tolist() for _ in range(3)] == [[5.0, 5.0]] * 3


def test_an_audited_training_is_the_plain_one(monkeypatch):
    monkeypatch.setattr(implementation, "AUDIT", 4)

    def script(compile):
        model, optimizer = mlp(momentum=0.9)
        step = compile(training_step(model, optimizer))
        return [value for i in range(20) for value in (step(*batch(seed=i)), state([model], [optimizer]))]

    assert_same_script(script)


def test_a_profiler_goes_on_after_a_recorded_call():
    with cProfile.Profile() as profiler:
        step = tg.compile(lambda x: x * 2)
        for i in range(4):
            assert bits(step(numbers(i))) == bits(numbers(i) * 2)
    assert any("numbers" in str(entry.code) for entry in profiler.getstats())

    seen = []
    sys.setprofile(lambda frame, event, argument: seen.append(event))
    try:
        tg.compile(lambda x: x * 2)(numbers(1))
        seen.clear()
        numbers(1)
    finally:
        sys.setprofile(None)
    assert "call" in seen


def test_a_dropped_result_frees_its_memory():
    step = tg.compile(lambda x: x * 2)
    for _ in range(3):
        result = step(tg.ones(1000))
    dead = weakref.ref(result.data)
    del result
    gc.collect()
    assert dead() is None
    assert torch.equal(step(tg.ones(1000)).data, torch.full((1000,), 2.0))
