"""What comes out of a compiled step: the same objects, memory shared as in the plain step, any dtype, shape, stride."""

from __future__ import annotations

import collections

import numpy as np
import pytest
import torch
from compile_checks import assert_same_script, mlp, replays

import tapegrad as tg
from tapegrad import CompileError, nn

Pair = collections.namedtuple("Pair", "first second")


class World:
    """What a step has from outside."""

    def __init__(self):
        self.w = tg.tensor([1.0, 2.0, 3.0], requires_grad=True)
        self.frozen = nn.Parameter([0.5, 1.5, 2.5], requires_grad=False)
        self.raw = torch.arange(6.0).view(2, 3)
        self.array = np.arange(3, dtype=np.float32)
        self.optimizer = tg.optim.SGD([self.w, self.frozen], lr=0.1, momentum=0.9)

    def known(self):
        """Every tensor, by name."""
        state = self.optimizer.state[self.w]["momentum_buffer"]
        return [self.w, self.frozen, self.raw, state, self.w.grad, self.frozen.grad]

    def update(self, x):
        self.optimizer.zero_grad()
        loss = (self.w * x).sin().sum()
        loss.backward()
        self.optimizer.step()
        return loss


def squares(x):
    y = x * x
    return y, y


def views(x):
    y = tg.stack([x, x * 2])
    return y, y[0], y.T, y.view(-1)[1::2], y.data.view(torch.int32), y.detach()


RESULTS = {
    # memory from outside
    "a constant of it": lambda s, x: ((x * s.w).sum().detach(), s.w.detach()),
    "a view of it": lambda s, x: (s.w.view(3, 1).detach(), s.w.detach()[1:], s.w.data[::2], s.w.data.expand(2, 3)),
    "raw": lambda s, x: (s.w.data, s.raw, s.raw[1], s.raw.t(), s.raw.view(torch.int32)),
    "after an update": lambda s, x: [s.update(x), s.w.detach(), s.w],
    "in a dict": lambda s, x: {"loss": s.update(x), "w": s.w.detach(), "deep": [(s.w.detach(), s.w)]},
    "ordered": lambda s, x: collections.OrderedDict(b=s.w.detach(), a=x * 2),
    "a named tuple": lambda s, x: Pair(s.frozen, s.frozen.detach()),
    "itself several times": lambda s, x: (s.w, s.w, s.frozen, s.raw, s.raw),
    "one alias several times": lambda s, x: (lambda a: (a, a, a.data))(s.w.detach()),
    "another dtype": lambda s, x: (s.w.data.view(torch.int32), s.w.data.view(torch.uint8), s.raw.t().t()[0]),
    "an array": lambda s, x: (tg.from_numpy(s.array), torch.from_numpy(s.array)[1:], tg.as_tensor(s.array)),
    "state of the optimizer": lambda s, x: (s.update(x), s.optimizer.state[s.w]["momentum_buffer"].detach()),
    "written in the step": lambda s, x: (s.raw.add_(x.data), s.raw[0], s.raw.sum()),
    "of no elements": lambda s, x: (s.raw[:, :0], s.w.detach()[3:], x[:0]),
    "a scalar": lambda s, x: (s.w.detach()[1], s.raw[1, 2], s.w.detach()[2].view(1)),
    # the argument
    "an argument": lambda s, x: (x, x, x.view(3, 1), x[1:], x.detach(), x.data),
    "an argument as integers": lambda s, x: (x.data.view(torch.int32), x.data[1:].view(torch.int16)),
    "an argument expanded": lambda s, x: (x.expand(4, 3), x[None].T, x[1]),
    # made by the step
    "one object twice": lambda s, x: squares(x),
    "views of one memory": lambda s, x: views(x),
    "integers of a float": lambda s, x: (x * 2).data.view(torch.int32),
    "bytes": lambda s, x: (x * 2).data.view(torch.uint8),
    "doubles": lambda s, x: tg.cat([x, x, x, x]).data.view(torch.float64),
    "expanded": lambda s, x: ((x * 2).expand(2, 3), (x.sum()).expand(3)),
    "windows": lambda s, x: (x * 2).data.unfold(0, 2, 1),
    "an offset": lambda s, x: (x * 2)[1:],
    "a column": lambda s, x: tg.stack([x, x * 2])[:, 1],
    "a constant": lambda s, x: (lambda c: (c, c, c[1:]))(tg.full((3,), 7.0)),
    "a constant of torch": lambda s, x: (torch.ones(2, 2).t(), tg.arange(3), tg.zeros(0, 2)),
    # gradients
    "a gradient": lambda s, x: (s.update(x), s.w.grad),
    "a view of a gradient": lambda s, x: (s.update(x), s.w.grad[1:], s.w.grad.view(3, 1)),
    "a gradient alone": lambda s, x: (s.update(x), s.w.grad)[1],
    "a gradient that adds up": lambda s, x: ((s.w * x).sum().backward(), s.w.grad),
    "two in one": lambda s, x: (s.update(x), s.w.grad, s.w.grad, {"g": s.w.grad.detach()}),
}  # fmt: skip


def flat(value):
    """The tensors of a structure."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, tuple | list):
        return [t for v in value for t in flat(v)]
    return [value] if isinstance(value, tg.Tensor | torch.Tensor) else []


def memory(t):
    """The addresses that a tensor spans."""
    t = t.data if isinstance(t, tg.Tensor) else t
    last = sum((n - 1) * step for n, step in zip(t.shape, t.stride(), strict=True))
    return range(t.data_ptr(), t.data_ptr() + (last + 1) * t.itemsize) if t.numel() else range(0)


def relations(tensors):
    """Which are one object, and which share memory; their classes, strides, need of gradients."""
    at = [memory(t) for t in tensors]
    pairs = [(i, j) for i in range(len(tensors)) for j in range(i)]
    return [
        [type(t).__name__ for t in tensors],
        [t.stride() for t in tensors],
        [tensors[i] is tensors[j] for i, j in pairs],
        [max(at[i].start, at[j].start) < min(at[i].stop, at[j].stop) for i, j in pairs],
    ]


@pytest.mark.parametrize("name", RESULTS)
def test_results_and_what_they_share(name):
    """Held results change when the plain step's would; what is written into one is seen in the others."""

    def script(compile):
        world = World()
        step = compile(lambda x: RESULTS[name](world, x))
        seen, held = [], []
        for i in range(6):
            x = tg.tensor([1.0, -2.0, 0.5 + i])
            result = step(x)
            tensors = [*flat(result), *[t for t in world.known() if t is not None], x]
            seen += [result, relations(tensors)]
            if i == 4:
                for t in flat(result):
                    raw = t.data if isinstance(t, tg.Tensor) else t
                    if raw.is_floating_point() and 0 not in raw.stride():
                        raw.mul_(1.5)
            held += flat(result)
            seen += [
                [t.clone() for t in held],
                [t.clone() for t in world.known() if t is not None],
                world.array.tolist(),
            ]
        if hasattr(step, "programs"):
            assert replays(step) >= 3
        return seen

    assert_same_script(script)


def test_an_alias_counts_writes_with_its_memory():
    """So that a saved alias that an update changed is noticed."""
    model, optimizer = mlp()
    w = model[0].weight
    step = tg.compile(lambda x: (optimizer.zero_grad(), model(x).sum().backward(), optimizer.step(), w.detach())[-1])
    x = tg.ones(2, 3)
    for _ in range(4):
        alias = step(x)
    v = tg.ones(5, 3, requires_grad=True)
    loss = (alias * v).sum()
    step(x)
    with pytest.raises(tg.core.MutationError):
        loss.backward()


@pytest.mark.parametrize(
    "result",
    [lambda w: w.view(3), lambda w: w * 2, lambda w: tg.ones(3, requires_grad=True)],
    ids=["view", "value", "leaf"],
)
def test_what_could_be_differentiated_is_refused(result):
    w = tg.ones(3, requires_grad=True)
    step = tg.compile(lambda x: result(w))
    with pytest.raises(CompileError, match=r"could still be differentiated"):
        step(tg.ones(3))


def test_run_notes_a_loss_that_lives_outside():
    def script(compile):
        total = tg.zeros(())
        step = compile(lambda x: total.add_(x.sum()))
        data = tg.arange(12.0).view(6, 2)
        if hasattr(step, "run"):
            return [step.run(data, batch_size=2, epochs=3, shuffle=False).flatten().tolist(), total]
        return [[step(data[i : i + 2]).item() for _ in range(3) for i in (0, 2, 4)], total]

    assert_same_script(script)


# --- gradients of tensors that are no leaves ------------------------------------------------------------------------


def seven(p):
    p.grad = tg.full((2,), 7.0)


def none(p):
    p.grad = None


def edited(p):
    if p.grad is not None:
        p.grad.mul_(-2.0)


def frozen_then(change):
    def changed(p, i):
        p.requires_grad_(i % 2 == 0)
        change(p)

    return changed


@pytest.mark.parametrize("zero", [True, False], ids=["zero_grad", "adds up"])
@pytest.mark.parametrize("change", [seven, none, edited], ids=lambda f: f.__name__)
@pytest.mark.parametrize("freezing", [True, False], ids=["freezing", "frozen"])
def test_the_gradient_of_a_frozen_parameter(zero, change, freezing):
    def script(compile):
        p, q = (nn.Parameter([1.0 + i, 2.0]) for i in range(2))
        p.grad = tg.ones(2)
        p.requires_grad_(False)
        optimizer = tg.optim.SGD([p, q], lr=0.1, momentum=0.5)

        @compile
        def step(x):
            if zero:
                optimizer.zero_grad()
            loss = (p * q * x).sum()
            loss.backward()
            optimizer.step()
            return loss

        seen = []
        for i in range(24):
            if i % 4 == 0 and freezing:
                p.requires_grad_(i % 8 == 0)
            if i % 3 == 2:
                change(p)
            before = p.grad
            loss = step(tg.tensor([1.0, 3.0]))
            values = [loss, p, q, p.grad, q.grad, optimizer.state[p]["momentum_buffer"]]
            seen += [None if value is None else value.clone() for value in values]
            seen += [p.requires_grad, before is p.grad]
        return seen

    assert_same_script(script)


CHANGES = {
    "clipped by data": lambda g: setattr(g, "data", g.data.clamp(-0.1, 0.1)),
    "transposed": lambda g: g.data.t_(),
    "resized": lambda g: g.data.resize_(1, 4),
    "made to require a gradient": lambda g: g.requires_grad_(),
    "another memory": lambda g: g.data.set_(torch.ones(2, 2)),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_gradient_changed_as_an_object_is_made_anew(name):
    """A program's gradients lie in one memory, but every call leaves new tensors on it."""

    def script(compile):
        w = tg.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)

        @compile
        def step(x):
            w.grad = None
            loss = (w * w * x).sum()
            loss.backward()
            return loss

        seen = []
        for i in range(8):
            step(tg.tensor([1.0, i]))
            seen += [w.grad.detach().clone(), w.grad.requires_grad, w.grad.data.stride()]
            if i > 3:
                CHANGES[name](w.grad)
                seen += [w.grad.detach().clone(), w.grad.data.stride()]
        if hasattr(step, "programs"):
            assert replays(step) == 6
        return seen

    assert_same_script(script)


def test_gradients_that_arguments_come_with():
    def script(compile):
        @compile
        def step(x, y):
            if not x.requires_grad:
                x.requires_grad_()
            loss = (x * y.grad if y.grad is not None else x * x).sum()
            loss.backward()
            return loss

        seen = []
        for i in range(24):
            x = tg.tensor([1.0 + i, 2.0], requires_grad=i % 2 == 0)
            y = tg.tensor([3.0, i])
            if i % 3:
                x.grad = tg.full((2,), float(i))
            if i % 4 > 1:
                y.grad = tg.tensor([i, -1.0])
            before = x.grad
            seen += [step(x, y), x.grad.clone(), y.grad, before is x.grad, x.requires_grad]
        return seen

    assert_same_script(script)


def test_a_retained_gradient_of_a_value_from_outside():
    def script(compile):
        w = tg.tensor([1.0, 2.0], requires_grad=True)
        y = w * 3
        y.retain_grad()

        @compile
        def step(x):
            loss = (y * x).sum()
            loss.backward(retain_graph=True)
            return loss.detach()

        seen = []
        for i in range(8):
            if i == 5:
                y._grad = None
            seen += [step(tg.tensor([1.0, i])), y.grad.clone(), w.grad.clone()]
        return seen

    assert_same_script(script)
