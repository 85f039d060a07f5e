"""A step that adds to a gradient that the call before it left, and then leaves another one: adversaries, critics."""

import subprocess

import pytest
import torch

import tapegrad as tg
from tapegrad.compiled import step as compiled_step

F = tg.nn.functional


def adversaries(use_it=False, seed=0):
    """A GAN's step: the generator's loss adds to the discriminator's gradients, which its optimizer clears later."""
    tg.manual_seed(seed)
    generator, discriminator = (
        tg.nn.Linear(3, 4),
        tg.nn.Sequential(tg.nn.Linear(4, 5), tg.nn.Tanh(), tg.nn.Linear(5, 1)),
    )
    first = tg.optim.Adam(generator.parameters(), lr=0.05)
    second = tg.optim.SGD(discriminator.parameters(), lr=0.05, momentum=0.5)

    def step(real, noise):
        first.zero_grad()
        fake = generator(noise)
        loss = F.softplus(-discriminator(fake)).mean()
        loss.backward()
        first.step()
        if use_it:  # what was left, and what was added, is applied
            second.step()
        second.zero_grad()
        (F.softplus(-discriminator(real)) + F.softplus(discriminator(fake.detach()))).mean().backward()
        second.step()
        return loss

    return step, [*generator.parameters(), *discriminator.parameters()]


def batch(k, rows=6):
    draw = torch.Generator().manual_seed(k)
    return torch.randn(rows, 4, generator=draw), torch.randn(rows, 3, generator=draw)


def state(parameters):
    return [(p.data.clone(), None if p.grad is None else p.grad.data.clone()) for p in parameters]


def assert_same(ours, theirs):
    for (p, g), (q, h) in zip(state(ours), state(theirs), strict=True):
        assert torch.equal(p, q)
        assert (g is None) == (h is None)
        assert g is None or torch.equal(g, h)


def both(use_it, calls, between=lambda k, parameters: None):
    """The same calls of a step and of a compiled one, with the losses compared; (the compiled step, its parameters)."""
    step, expected = adversaries(use_it)
    plain, parameters = adversaries(use_it)
    fast = tg.compile(plain)
    for k, args in enumerate(calls):
        assert torch.equal(step(*args).data, fast(*args).data), k
        assert_same(parameters, expected)
        between(k, expected)
        between(k, parameters)
    return fast, parameters


@pytest.mark.parametrize("use_it", [False, True])
def test_such_a_step_becomes_one_program(use_it):
    fast, _ = both(use_it, [batch(k) for k in range(8)])
    assert len(fast.programs) == 1


def test_batches_of_two_sizes_take_turns():
    fast, _ = both(True, [batch(k, rows=6 - k % 2) for k in range(14)])
    assert len(fast.programs) == 2


CHANGES = {
    "in place": lambda parameters: parameters[2].grad.mul_(3.0),
    "another tensor": lambda parameters: setattr(parameters[2], "grad", tg.ones(5, 4)),
    "its data": lambda parameters: setattr(parameters[2].grad, "data", torch.full((5, 4), 0.5)),
    "none": lambda parameters: setattr(parameters[2], "grad", None),
    "all none": lambda parameters: [setattr(p, "grad", None) for p in parameters],
    "exchanged": lambda parameters: exchange(parameters[3], parameters[4]),
    "of other strides": lambda parameters: setattr(parameters[2], "grad", tg.ones(4, 5).T),
}


def exchange(p, q):
    p.grad, q.grad = q.grad.reshape(p.shape), p.grad.reshape(q.shape)


@pytest.mark.parametrize("change", CHANGES)
def test_gradients_that_change_between_calls(change):
    both(True, [batch(k) for k in range(12)], lambda k, ps: CHANGES[change](ps) if k in (5, 8) else None)


def test_a_gradient_that_is_held_is_the_buffer_of_the_next_step():
    held = {}

    def keep(k, parameters):
        held.setdefault(id(parameters[2]), []).append(parameters[2].grad)

    fast, _ = both(True, [batch(k) for k in range(8)], keep)
    assert len(fast.programs) == 1


def test_recorded_calls_agree(monkeypatch):
    monkeypatch.setattr(compiled_step, "AUDIT", 4)
    fast, _ = both(True, [batch(k) for k in range(20)])
    assert len(fast.programs) == 1


def test_a_whole_epoch():
    x, z = torch.randn(32, 4), torch.randn(32, 3)
    step, expected = adversaries(True)
    plain, parameters = adversaries(True)
    losses = [
        step(*rows).item()
        for epoch in range(3)
        for rows in tg.data.batches(tg.tensor(x), tg.tensor(z), batch_size=8, shuffle=False, epoch=epoch)
    ]
    fast = tg.compile(plain).run(x, z, batch_size=8, epochs=3, shuffle=False)
    assert fast.flatten().tolist() == losses
    assert_same(parameters, expected)


def test_many_at_once():
    x, z = torch.randn(16, 4), torch.randn(16, 3)
    alone = []
    for seed in range(3):
        step, parameters = adversaries(True, seed)
        alone.append((tg.compile(step).run(x, z, batch_size=8, epochs=3, seed=seed), parameters))
    made = [adversaries(True, seed) for seed in range(3)]
    steps = [tg.compile(step) for step, _ in made]
    losses = tg.run_together(steps, x, z, batch_size=8, epochs=3, seed=0)
    for k, (expected, parameters) in enumerate(alone):
        assert torch.equal(losses[k].data, expected.data)
        assert_same(made[k][1], parameters)


def test_what_comes_too_late_is_refused():
    p = tg.tensor([1.0, 2.0], requires_grad=True)

    def step(x):
        before, p.grad = p.grad, None
        loss = (p * x).sum()
        loss.backward()
        if before is not None:
            p.grad.add_(before)
        return loss.detach()

    fast = tg.compile(step)
    x = tg.tensor([3.0, 4.0])
    fast(x)
    fast(x)
    with pytest.raises(tg.CompileError, match=r"the call before it left after .*add to \.grad in place"):
        fast(x)
    assert p.grad.tolist() == [6.0, 8.0]  # and nothing has changed


def test_in_c(tmp_path):
    step, _ = adversaries(True)
    plain, _ = adversaries(True)
    fast = tg.compile(plain)
    for k in range(3):
        assert torch.equal(step(*batch(k)).data, fast(*batch(k)).data)
    declared = str(tg.export_c(fast, *batch(3), path=str(tmp_path / "gan.c"), name="gan"))
    assert "gan_step" in declared
    losses = [step(*batch(k)).item() for k in (3, 4, 5)]
    values = [", ".join(repr(v) for v in t.flatten().tolist()) for k in (3, 4, 5) for t in batch(k)]
    arrays = "\n".join(f"static const float a{i}[] = {{{v}}};" for i, v in enumerate(values))
    calls = "\n".join(f'printf("%.9g\\n", gan_step(&s, a{2 * i}, a{2 * i + 1}));' for i in range(3))
    (tmp_path / "main.c").write_text(
        f'#include <stdio.h>\n#include "gan.h"\n{arrays}\n'
        f"int main(void) {{ static struct gan s; gan_init(&s); {calls} return 0; }}\n"
    )
    program = str(tmp_path / "main")
    subprocess.run(["cc", "-std=c99", "-O1", "-o", program, "main.c", "gan.c", "-lm"], cwd=tmp_path, check=True)
    printed = subprocess.run([program], capture_output=True, text=True, check=True).stdout
    assert [float(v) for v in printed.split()] == pytest.approx(losses, rel=1e-5)
