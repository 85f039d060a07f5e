"""Planning stays linear in the length of a step, and places memory as the plain search does."""

from __future__ import annotations

import functools
import gc
import random
import sys
import warnings

import pytest
import torch

import tapegrad as tg
from tapegrad.compiled import compare, patience, record
from tapegrad.compiled.arguments import Arguments
from tapegrad.compiled.lower import lower
from tapegrad.compiled.record import Recorder
from tapegrad.core import _C


def lowest_places(pieces):
    """The definition, by comparing each piece with all before it."""
    placed = []
    for size, first, last in pieces:
        offset = 0
        for f, t, begin, end in sorted(placed, key=lambda p: p[2]):
            if f <= last and first <= t and begin < offset + size and offset < end:
                offset = end
        placed.append((first, last, offset, offset + size))
    return [offset for _, _, offset, _ in placed]


def random_pieces(rng):
    """Short lives, long ones, nested ones as an unrolled loop and its backward have them."""
    steps, sizes = rng.randint(1, 60), [64 * rng.randint(1, 9) for _ in range(rng.randint(1, 4))]
    pieces = []
    for _ in range(rng.randint(0, 90)):
        first = rng.randint(0, steps)
        last = rng.choice([first, first + 1, rng.randint(first, steps), max(first, steps - first)])
        pieces.append((rng.choice(sizes), first, last))
    return pieces if rng.random() < 0.3 else sorted(pieces, key=lambda p: (-p[0], p[1]))


def test_every_piece_gets_the_lowest_place_that_is_free_while_it_lives():
    rng = random.Random(0)
    for _ in range(300):
        pieces = random_pieces(rng)
        assert _C.place(pieces) == lowest_places(pieces), pieces


@pytest.mark.parametrize("piece", [(-64, 0, 1), (64, -1, 1), (64, 2, 1)])
def test_a_piece_of_no_size_or_time_is_refused(piece):
    with pytest.raises(ValueError, match="place"):
        _C.place([(64, 0, 1), piece])


def test_steps_far_apart_cost_no_memory():
    assert _C.place([(64, 0, 2**62), (128, 5, 2**61), (64, 2**62 + 1, 2**62 + 1)]) == [0, 64, 0]


# --- growth ------------------------------------------------------------------------------------------------------


def physics(steps):
    """A spring, integrated and differentiated."""
    stiffness = tg.tensor(1.3, requires_grad=True)

    def step(x, v):
        stiffness.grad = None
        for _ in range(steps):
            v = v - 0.01 * (stiffness * x + 0.1 * v)
            x = x + 0.01 * v
        loss = (x * x).mean()
        loss.backward()
        return loss.detach()

    return step, (tg.randn(4), tg.randn(4))


def work(f):
    """How many functions of Python `f()` enters, and its result."""
    calls = 0

    def count(frame, event, argument):
        nonlocal calls
        calls += event == "call"

    before = sys.getprofile()
    gc.collect()
    gc.disable()  # what is collected may have finalizers, which are functions, too
    sys.setprofile(count)
    try:
        result = f()
    finally:
        sys.setprofile(before)
        gc.enable()
    return calls, result


def recorded(steps):
    step, arguments = physics(steps)
    given = Arguments(arguments, {})
    traces = []
    for _ in range(2):
        recorder = Recorder(given.tensors, given.holders)
        recorder.run(step, arguments, {})
        traces.append(recorder.trace)
    return traces


def test_lowering_twice_the_steps_takes_twice_the_work():
    counts = {}
    for steps in (40, 80, 160):
        first, second = recorded(steps)
        compared, differs = work(lambda first=first, second=second: compare.difference(first, second))
        assert differs is None
        planned, program = work(lambda second=second: lower(second))
        assert len(program.calls) > 10 * steps
        counts[steps] = (compared, planned)
    for a, b, c in zip(*counts.values(), strict=True):
        assert c - b == pytest.approx(2 * (b - a), rel=0.02)


def test_values_of_a_long_chain_are_in_memory_for_a_few_calls_only():
    """Elementwise calls on arrays of more than a tile run tile by tile, sixteen of them together at most."""
    arena = {}
    for calls in (40, 80):
        for elements in (_C.tile, 4 * _C.tile):
            step = tg.compile(lambda x, calls=calls: functools.reduce(lambda y, i: y * 1.5 + i, range(calls), x).sum())
            x = tg.ones(elements)
            found = [step(x).item() for _ in range(3)]
            assert found == [step.fn(x).item()] * 3
            program = step.programs[0]
            arena[calls, elements] = program.arena_bytes // (4 * elements)
            lengths = [last - first for first, last in program.chains]
            assert lengths == ([] if elements == _C.tile else [16] * (calls // 8))
    assert arena[40, _C.tile] == arena[80, _C.tile] == 2
    assert arena[40, 4 * _C.tile] == arena[80, 4 * _C.tile] <= 18


def test_numbers_and_tensors_without_dimensions_are_recorded_as_torch_has_them():
    """Also where the number comes first, and where gradients add up in place."""

    def step(theta, omega, length):
        theta.grad = None
        for _ in range(3):
            omega = omega - 0.1 * (9.81 / length) * theta + (2 - omega) * 0.01
            theta, length = theta + 0.1 * omega, 1.5 + length * theta
        loss = (theta - 1) * (theta - 1) + length / 3
        loss.backward()
        return loss.detach()

    leaves = [tg.tensor(v, requires_grad=True, dtype=tg.float64) for v in (0.5, -0.25, 1.75)]
    other = [torch.tensor(v, requires_grad=True, dtype=torch.float64) for v in (0.5, -0.25, 1.75)]
    compiled = tg.compile(lambda: step(*leaves))
    for _ in range(4):
        for leaf in [*leaves, *other]:
            leaf.grad = None
        loss, expected = compiled(), step(*other)
        assert loss.item() == expected.item()
        for a, b in zip(leaves, other, strict=True):
            assert a.grad.item() == pytest.approx(b.grad.item(), rel=1e-14)
    assert len(compiled.programs) == 1


# --- a word to who waits -----------------------------------------------------------------------------------------


def test_a_step_that_takes_seconds_to_plan_says_so_once(monkeypatch):
    monkeypatch.setattr(patience, "OFTEN", 100)
    monkeypatch.setattr(record, "OFTEN", 100)
    monkeypatch.setattr(patience, "SECONDS", 0.0)
    step, arguments = physics(30)
    step = tg.compile(step)
    with pytest.warns(RuntimeWarning, match=r"compile: recording a step of 100 operations: .* s so far") as warned:
        losses = [step(*arguments).item() for _ in range(4)]
    assert len(warned) == 1
    assert len(step.programs) == 1
    assert len(set(losses)) == 1


def test_a_slow_step_of_few_operations_is_not_planning(monkeypatch):
    monkeypatch.setattr(patience, "SECONDS", 0.0)
    step, arguments = physics(3)
    step = tg.compile(step)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(3):
            step(*arguments)
    assert len(step.programs) == 1
