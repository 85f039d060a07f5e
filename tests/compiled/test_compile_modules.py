"""`compile` of a module, and networks whose calls under no_grad are compiled without being asked."""

from __future__ import annotations

import copy
import gc
import pickle
import warnings
import weakref

import pytest
import torch
from compile_checks import bits, replays

import tapegrad as tg
from tapegrad import nn
from tapegrad.compiled import habit


class Net(nn.Module):
    """With a method, a property, an option and a mode that matters."""

    def __init__(self):
        self.body = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(0.5))
        self.head = nn.Linear(8, 2)
        self.loss = nn.MSELoss()

    def forward(self, x, scale=1.0):
        return self.head(self.body(x)) * scale

    def act(self, x):
        return self(x).argmax(-1)

    @property
    def width(self):
        return self.head.in_features


def both():
    """(a network, another of the same weights that is compiled)."""
    tg.manual_seed(0)
    plain = Net()
    return plain, tg.compile(copy.deepcopy(plain))


def x(i=0):
    return tg.randn(3, 4, generator=tg.Generator(i))


# --- called like the module --------------------------------------------------------------------------------------


@pytest.mark.parametrize("training", [True, False])
def test_calls_under_no_grad_are_replays_of_the_module(training):
    plain, compiled = both()
    seen = []
    for model in (plain, compiled):
        tg.manual_seed(1)
        model.train(training)
        with tg.no_grad():
            seen.append(bits([model(x(i)) for i in range(6)] + [model(x(i), scale=2.0) for i in range(4)]))
        seen.append(bits(model.state_dict()))
    assert seen[:2] == seen[2:]
    assert replays(type(compiled).__call__) == 4 + 2


def test_modes_and_weights_of_the_one_are_those_of_the_other():
    tg.manual_seed(0)
    model = Net()
    compiled = tg.compile(model)
    with tg.no_grad():
        for i in range(4):
            compiled(x(i))
        compiled.eval()
        assert not model.training
        assert not model.body[3].training
        assert bits([compiled(x(i)) for i in range(4)]) == bits([model(x(i)) for i in range(4)])
        compiled.head.bias.fill_(3.0)
        assert model.head.bias.tolist() == [3.0, 3.0]
        assert bits(compiled(x())) == bits(model(x()))
        model.head = nn.Linear(8, 2)
        assert compiled.head is model.head
        assert bits([compiled(x(i)) for i in range(4)]) == bits([model(x(i)) for i in range(4)])
        compiled.load_state_dict(Net().state_dict())
        assert bits([compiled(x(i)) for i in range(4)]) == bits([model(x(i)) for i in range(4)])


def test_it_is_a_module_of_the_same_kind():
    plain, compiled = both()
    assert isinstance(compiled, Net)
    assert compiled.width == 8
    assert isinstance(compiled.loss, nn.MSELoss)
    assert [name for name, _ in compiled.named_parameters()] == [name for name, _ in plain.named_parameters()]
    assert list(compiled.state_dict()) == list(plain.state_dict())
    assert repr(compiled) == repr(plain).replace("Net(", "CompiledNet(", 1)
    with tg.no_grad():
        compiled.eval()
        assert [compiled.act(x(i)).tolist() for i in range(4)] == [plain.eval().act(x(i)).tolist() for i in range(4)]
        assert compiled.explain(x()).startswith("program:")
        assert compiled.profile(x()).rows
    assert len(compiled.programs) == 1

    class Outer(nn.Module):
        def __init__(self, inner):
            self.inner = inner

    assert next(iter(Outer(compiled).state_dict())) == "inner.body.0.weight"


def test_gradients_flow_outside_a_step_and_in_one():
    plain, compiled = both()
    losses = []
    for model in (plain, compiled):
        tg.manual_seed(1)
        with tg.no_grad():  # there is a program, which must not serve what is recorded
            for i in range(4):
                model(x(i))
        optimizer = tg.optim.SGD(model.parameters(), lr=0.1)
        seen = []
        for i in range(4):
            optimizer.zero_grad()
            loss = model(x(i)).square().mean()
            loss.backward()
            optimizer.step()
            seen.append(loss)

        @tg.compile
        def step(batch, model=model, optimizer=optimizer):
            optimizer.zero_grad()
            loss = model(batch).square().mean()
            loss.backward()
            optimizer.step()
            return loss

        seen += [step(x(i)) for i in range(5)]
        losses.append(bits(seen))
        assert replays(step) == 3
    assert losses[0] == losses[1]


def test_hooks_and_an_input_that_needs_its_gradient():
    _, compiled = both()
    compiled.eval()
    called = []
    with tg.no_grad():
        for i in range(4):
            compiled(x(i))
    handle = compiled.register_forward_hook(lambda module, args, output: called.append(1))
    with tg.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for i in range(3):
            compiled(x(i))
    assert len(called) == 3
    handle.remove()
    point = x().requires_grad_()
    compiled(point).sum().backward()
    assert point.grad is not None


def test_copies_and_pickles_are_compiled_modules_of_their_own():
    tg.manual_seed(0)
    compiled = tg.compile(nn.Sequential(nn.Linear(4, 2), nn.Tanh()))
    for other in (copy.deepcopy(compiled), pickle.loads(pickle.dumps(compiled))):
        assert type(other).__name__ == "CompiledSequential"
        assert other[0].weight is not compiled[0].weight
        with tg.no_grad():
            assert bits([other(x(i)) for i in range(4)]) == bits([compiled(x(i)) for i in range(4)])
    again = tg.compile(compiled)
    assert again[0] is compiled[0]
    assert type(again).__name__ == "CompiledSequential"


def test_a_module_that_reads_a_value_runs_as_it_is_or_is_refused():
    class Reading(nn.Module):
        def forward(self, x):
            return x if x.sum().item() > 0 else -x

    with tg.no_grad():
        with pytest.warns(RuntimeWarning, match="runs uncompiled: .*reads a value"):
            assert tg.compile(Reading())(tg.ones(2)).tolist() == [1.0, 1.0]
        compiled = tg.compile(Reading(), fullgraph=True)
        with pytest.raises(tg.CompileError, match="reads a value"):
            compiled(tg.ones(2))


def test_a_compiled_module_that_is_dropped_is_gone():
    compiled = tg.compile(nn.Sequential(nn.Linear(4, 2)))
    with tg.no_grad():
        for i in range(4):
            compiled(x(i))
    dead = weakref.ref(compiled[0].weight.data)
    del compiled
    gc.collect()
    assert dead() is None


# --- without being asked -----------------------------------------------------------------------------------------


def network():
    tg.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Dropout(0.5), nn.Sequential(nn.Linear(8, 2)))


def plainly(model, point):
    """The layers one by one."""
    for layer in model.modules():
        if not isinstance(layer, nn.Sequential):
            point = layer(point)
    return point


MANY = habit.FROM + 4


@pytest.mark.parametrize("kind", ["Tensor", "torch", "numpy"])
def test_predictions_again_and_again_are_the_first_ones(kind):
    model = network()
    for i in range(MANY):
        point = x(i)
        given = {"Tensor": point, "torch": point.data, "numpy": point.data.numpy()}[kind]
        model.train(i % 3 == 0)
        if i == MANY - 3:
            with tg.no_grad():
                model[0].bias.add_(1.0)
        if i == MANY - 2:
            model[0] = nn.Linear(4, 8)
        found = model.predict(given)
        assert model.training == (i % 3 == 0)
        with tg.no_grad():
            expected = plainly(model.eval(), point)
        assert bits(found) == bits(expected), i
    assert replays(model._predictions) > 0


def test_calls_under_no_grad_follow_modes_weights_hooks_and_layers():
    def script(call):
        model, seen = network(), []
        tg.manual_seed(1)
        for i in range(3 * MANY):
            model.train(i % MANY < MANY // 2)
            if i == MANY:
                model[0].weight.data = torch.ones(8, 4)
            if i == 2 * MANY:
                model[1] = nn.ReLU()
            with tg.no_grad():
                seen.append(call(model, x(i)))
        return bits(seen), model

    (expected, _), (found, model) = script(plainly), script(lambda model, point: model(point))
    assert found == expected
    assert replays(model._calls) > MANY
    called = []
    model[0].register_forward_hook(lambda *args: called.append(1))
    with tg.no_grad():
        for i in range(5):
            model(x(i))
    assert len(called) == 5


def test_what_is_recorded_or_watched_is_never_served():
    model = network().eval()
    with tg.no_grad():
        for i in range(MANY):
            model(x(i))
    model(x()).sum().backward()
    assert model[0].weight.grad is not None
    with tg.no_grad(), tg.detect_anomaly():
        assert bits(model(x())) == bits(plainly(model, x()))


class Mine(nn.Module):
    """A layer that does what no guard can see."""

    seen = 0

    def forward(self, x):
        Mine.seen += 1
        return x


def test_a_network_with_layers_of_the_users_runs_as_it_is():
    model = nn.Sequential(nn.Linear(4, 2), Mine())
    Mine.seen = 0
    with tg.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("error")
        for i in range(2 * MANY):
            model(x(i))
            model.predict(x(i))
    assert Mine.seen == 4 * MANY


def test_nothing_is_refused_or_said():
    """Shapes that keep changing, weights that are replaced all the time, errors."""
    model = network().eval()
    with tg.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("error")
        for i in range(4 * MANY):
            point = tg.randn(1 + i % 7, 4, generator=tg.Generator(i))
            model[0].weight.data = torch.full((8, 4), 0.01 * i)
            assert bits(model(point)) == bits(plainly(model, point))
        for _ in range(3):
            with pytest.raises(tg.ShapeError):
                model(tg.ones(2, 5))


def test_a_network_that_was_called_is_copied_pickled_and_dropped():
    model = network().eval()
    for i in range(MANY):
        model.predict(x(i))
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), copy.copy(model)):
        assert bits(other.predict(x())) == bits(model.predict(x()))
        assert list(vars(other)) == list(vars(model))
    dead = weakref.ref(model)
    del model, other
    gc.collect()
    assert dead() is None
