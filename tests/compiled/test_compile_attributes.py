"""A step that leaves tensors in attributes: running averages, a hidden state, what somebody looks at afterwards."""

import pytest
import torch

import tapegrad as tg
from tapegrad.compiled import step as compiled_step

F = tg.nn.functional


class Averaged(tg.nn.Module):
    """Keeps a running mean by hand, and the last activations."""

    def __init__(self, wrap=lambda t: t.detach()):
        super().__init__()
        self.inner = tg.nn.Linear(3, 4)
        self.mean = tg.zeros(4)
        self.last = None
        self.wrap = wrap

    def forward(self, x):
        h = self.inner(x)
        self.mean = self.wrap(0.9 * self.mean + 0.1 * h.mean(0))
        self.last = h.tanh()
        return (self.last - self.mean).square().mean()


def stepped(model, lib=tg):
    optimizer = lib.optim.SGD(model.parameters(), lr=0.1)

    def step(x):
        optimizer.zero_grad()
        loss = model(x)
        loss.backward()
        optimizer.step()
        return loss

    return step


def both(calls, make=Averaged, between=lambda k, model: None):
    """The same calls of a step and of a compiled one; their models and the compiled step."""
    sides = []
    for _ in range(2):
        tg.manual_seed(0)
        sides.append(make())
    plain, fast = stepped(sides[0]), tg.compile(stepped(sides[1]))
    for k, x in enumerate(calls):
        assert torch.equal(plain(x).data, fast(x).data), k
        for name in ("mean", "last"):
            a, b = (getattr(m, name) for m in sides)
            assert type(a) is type(b), name
            assert torch.equal(getattr(a, "_data", a), getattr(b, "_data", b)), (k, name)
        for model in sides:
            between(k, model)
    return sides, fast


def batch(k, rows=5):
    return tg.tensor(torch.randn(rows, 3, generator=torch.Generator().manual_seed(k)))


@pytest.mark.parametrize("wrap", [lambda t: t.detach(), lambda t: t.data], ids=["detach", "data"])
def test_such_a_step_becomes_one_program(wrap):
    (_, model), fast = both([batch(k) for k in range(9)], lambda: Averaged(wrap))
    assert len(fast.programs) == 1
    assert not isinstance(model.last, tg.Tensor) or not model.last.requires_grad  # nothing to differentiate is kept


def test_every_call_leaves_other_tensors():
    kept = []
    (plain, _), fast = both([batch(k) for k in range(9)], between=lambda k, m: kept.append((m.mean, m.mean.tolist())))
    assert len(fast.programs) == 1
    assert all(t.tolist() == values for t, values in kept)  # what was taken out before has not changed
    assert plain.mean is not kept[0][0]


CHANGES = {
    "in place": lambda m: m.mean.zero_(),
    "another": lambda m: setattr(m, "mean", tg.ones(4)),
    "strided": lambda m: setattr(m, "mean", tg.ones(4, 2)[:, 1]),
    "none": lambda m: setattr(m, "last", None),
    "wider": lambda m: setattr(m, "mean", tg.ones(1, 4)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_attributes_that_change_between_calls(change):
    both([batch(k) for k in range(14)], between=lambda k, m: CHANGES[change](m) if k in (6, 9) else None)


def test_batches_of_two_sizes_take_turns():
    _, fast = both([batch(k, 5 - k % 2) for k in range(24)])
    assert len(fast.programs) >= 2


def test_recorded_calls_agree(monkeypatch):
    monkeypatch.setattr(compiled_step, "AUDIT", 4)
    _, fast = both([batch(k) for k in range(20)])
    assert len(fast.programs) == 1


def test_a_whole_epoch():
    x = torch.randn(32, 3)
    models = []
    for _ in range(2):
        tg.manual_seed(0)
        models.append(Averaged())
    plain, fast = stepped(models[0]), tg.compile(stepped(models[1]))
    losses = [
        plain(rows).item()
        for epoch in range(3)
        for (rows,) in tg.data.batches(tg.tensor(x), batch_size=8, shuffle=False, epoch=epoch)
    ]
    assert fast.run(x, batch_size=8, epochs=3, shuffle=False).flatten().tolist() == losses
    assert torch.equal(models[0].mean.data, models[1].mean.data)
    assert torch.equal(models[0].last.data, models[1].last.data)
    fast(batch(0))
    plain(batch(0))
    assert torch.equal(models[0].mean.data, models[1].mean.data)


def test_explain_moves_nothing():
    model = Averaged()
    fast = tg.compile(stepped(model))
    for k in range(3):
        fast(batch(k))
    before = model.mean.tolist()
    assert "linear" in str(fast.explain(batch(5)))
    assert model.mean.tolist() == before


class Recurrent(tg.nn.Module):
    """Goes on from the state that the call before left, in a dict, a list and a closure's variable."""

    def __init__(self):
        super().__init__()
        self.cell = tg.nn.GRUCell(3, 4)
        self.states = {"h": tg.zeros(5, 4)}
        self.trail = [tg.zeros(5, 4)]
        total = tg.zeros(())

        def add(value):
            nonlocal total
            total = total + value
            return total

        self.add = add
        self.mean = self.last = None

    def forward(self, x):
        h = self.cell(x, self.states["h"].detach())
        self.states["h"] = h
        self.trail[0] = (self.trail[0] + h).detach()
        loss = h.square().mean()
        self.mean, self.last = self.trail[0], self.add(loss.detach())
        return loss


def test_states_in_a_dict_a_list_and_a_closure():
    _, fast = both([batch(k) for k in range(10)], Recurrent)
    assert len(fast.programs) == 1


def test_what_stays_on_the_tape_is_refused():
    model = Averaged()

    @tg.compile
    def step(x):
        model.mean = model.inner(x).mean(0)
        return x.sum()

    step(batch(0))
    with pytest.raises(tg.CompileError, match=r"changes model\.mean.*off the tape \(detach\)"):
        step(batch(1))


def test_an_average_that_backward_has_released():
    class Kept(Averaged):
        def forward(self, x):
            h = self.inner(x)
            self.mean = 0.9 * self.mean + 0.1 * h.exp().mean(0)
            self.last = h
            return h.square().mean()

    _, fast = both([batch(k) for k in range(8)], Kept)
    assert len(fast.programs) == 1


def test_what_is_changed_in_place_before_it_is_replaced_is_refused():
    model = Averaged()

    @tg.compile
    def step(x):
        model.mean.mul_(0.5)  # which others may hold
        model.mean = model.mean + x.mean()
        return x.sum()

    step(batch(0))
    with pytest.raises(tg.CompileError, match=r"changes model\.mean"):
        step(batch(1))


def test_a_counter_is_refused():
    model = Averaged()
    model.count = 0
    step = stepped(model)

    @tg.compile
    def counted(x):
        model.count += 1
        return step(x)

    counted(batch(0))
    with pytest.raises(tg.CompileError, match=r"changes model\.count"):
        counted(batch(1))
