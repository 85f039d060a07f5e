"""Compiled steps together: sharing a model, calling each other, as methods, in threads."""

from __future__ import annotations

import copy
import threading

import pytest
from compile_checks import assert_same_script, batch, bits, mlp, replays, state, training_step, uncompiled

import tapegrad as tg
from tapegrad import nn
from tapegrad.nn import functional as F


def numbers(i):
    return tg.tensor([1.0 + i, 2.0 - i])


def test_two_steps_that_share_a_model():
    def script(compile):
        model, optimizer = mlp(momentum=0.9)
        first = compile(training_step(model, optimizer))
        second = compile(training_step(model, optimizer, F.l1_loss))
        predict = compile(lambda x: model(x).detach())
        seen = []
        for i in range(8):
            seen += [first(*batch(seed=i)), predict(batch()[0]), second(*batch(seed=i)), state([model], [optimizer])]
        return seen

    assert_same_script(script)


def test_a_step_that_calls_another_compiled_one():
    def script(compile):
        double = compile(lambda x: x * 2)
        step = compile(lambda x: double(x) + 1)
        return [value for i in range(5) for value in (step(numbers(i)), double(numbers(i)))]

    assert_same_script(script)


@pytest.mark.parametrize("base", [object, nn.Module])
def test_a_bound_method_compiled_by_its_object(base):
    class Trainer(base):
        def __init__(self, compile):
            super().__init__()
            self.model, self.optimizer = mlp()
            self.scale = 1.0
            self.train_step = compile(self.train_step)

        def train_step(self, x, y):
            self.optimizer.zero_grad()
            loss = F.mse_loss(self.model(x), y) * self.scale
            loss.backward()
            self.optimizer.step()
            return loss

    def script(compile):
        trainer = Trainer(compile)
        seen = []
        for i in range(8):
            trainer.scale = 1.0 if i < 4 else 2.0
            seen += [trainer.train_step(*batch(seed=i)), state([trainer.model])]
        if compile is not uncompiled:
            assert replays(trainer.train_step) > 2
        return seen

    assert_same_script(script)


def test_a_copy_of_an_object_with_a_compiled_step_trains_itself():
    class Trainer:
        def __init__(self, compile):
            self.model, self.optimizer = mlp()
            self.step = compile(training_step(self.model, self.optimizer))

    trainer = Trainer(tg.compile)
    for _ in range(3):
        trainer.step(*batch())
    again = copy.deepcopy(trainer)
    assert again.step is not trainer.step
    assert bits(again.step(*batch())) is not None


def test_independent_steps_run_in_threads():
    results: dict[int, object] = {}

    def work(seed):
        model, optimizer = mlp_without_seeding(seed)
        step = tg.compile(training_step(model, optimizer))
        losses = [step(*batch(seed=i % 3)) for i in range(40)]
        results[seed] = bits(losses)

    def mlp_without_seeding(seed):
        """The default generator belongs to all threads."""
        model, _ = models[seed]
        return model, tg.optim.SGD(model.parameters(), lr=0.1)

    models = [mlp(seed) for seed in range(4)]
    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed in range(4):
        model, optimizer = mlp(seed)
        plain = training_step(model, optimizer)
        assert results[seed] == bits([plain(*batch(seed=i % 3)) for i in range(40)])


def test_a_step_shared_by_threads_is_serialised():
    """Each call is one whole update: so many of them, in whatever order, on the same batch."""
    model, optimizer = mlp(momentum=0.5)
    step = tg.compile(training_step(model, optimizer))
    threads = [threading.Thread(target=lambda: [step(*batch()) for _ in range(25)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    after = state([model], [optimizer])
    model, optimizer = mlp(momentum=0.5)
    plain = training_step(model, optimizer)
    for _ in range(100):
        plain(*batch())
    assert state([model], [optimizer]) == after


def test_what_another_thread_computes_is_not_recorded():
    stop = threading.Event()

    def work():
        w = tg.ones(3, requires_grad=True)
        while not stop.is_set():
            (w * 2).exp().sum().backward()
            w.grad = None

    thread = threading.Thread(target=work)
    thread.start()
    try:
        for _ in range(10):
            step = tg.compile(lambda x: (x * 2).exp())
            for i in range(4):
                assert bits(step(numbers(i))) == bits((numbers(i) * 2).exp())
            assert len(step.programs[0].calls) == 2
    finally:
        stop.set()
        thread.join()
