"""Ctrl-C, or a signal handler that raises, while a step is recorded or replayed, leaves nothing behind at any bytecode.

Python runs signal handlers between bytecodes. A trace function that raises before the n-th bytecode is the same thing,
for every n in turn. ``python tests/compiled/test_compile_interrupts.py --long`` tries every bytecode of three calls
(half an hour), and then signals at random times.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from compile_checks import state

import tapegrad as tg
from tapegrad import nn
from tapegrad.core import mode

PACKAGE = os.path.dirname(tg.__file__)


class Interrupt(BaseException):
    """What the handler raises; nothing catches it."""


Place = tuple[Any, int]  # (code, bytecode)


class Injector:
    """Raises before a bytecode of the package is run for the first time; notes all of them where there is none."""

    def __init__(self, place: Place | None = None) -> None:
        self.place = place
        self.places: dict[Place, None] = {}

    def __enter__(self) -> Injector:
        sys.settrace(self._call)
        return self

    def __exit__(self, *exc: object) -> None:
        sys.settrace(None)

    def _call(self, frame: Any, event: str, argument: Any) -> Any:
        code = frame.f_code
        if not code.co_filename.startswith(PACKAGE) or (self.place is not None and code is not self.place[0]):
            return None
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        return self._opcode

    def _opcode(self, frame: Any, event: str, argument: Any) -> Any:
        if event == "opcode":
            place = frame.f_code, frame.f_lasti
            if self.place is None:
                self.places[place] = None
            elif place == self.place:
                raise Interrupt(f"{frame.f_code.co_filename}:{frame.f_lineno}")
        return self._opcode


class World:
    """A training with everything that a step may leave half done: dropout, buffers, momentum, gradients that add up."""

    def __init__(self) -> None:
        tg.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2))
        self.optimizer = tg.optim.Adam(self.model.parameters())
        self.x, self.y = tg.randn(4, 3), tg.randn(4, 2)

    def step(self, x: Any, y: Any) -> Any:
        loss = nn.functional.mse_loss(self.model(x), y)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=False)
        return loss

    def state(self) -> Any:
        return state([self.model], [self.optimizer])


def plain(steps: int) -> list[Any]:
    """The states before each of so many plain steps, and after them."""
    world = World()
    seen = [world.state()]
    for _ in range(steps):
        world.step(world.x, world.y)
        seen.append(world.state())
    return seen


def assert_nothing_is_on() -> None:
    """No part of the recorder is on, and what it refuses works."""
    assert torch._C._len_torch_dispatch_stack() == 0
    assert sys.getprofile() is None
    assert gc.isenabled()
    assert mode.tracer is None
    assert mode.record
    x = tg.ones(2)
    assert torch.equal(x.data, x.data)
    assert x.sum().item() == 2.0
    assert str(x)
    tg.rand(1, generator=tg.Generator(0))


def in_another_thread(function: Callable[[], Any]) -> Any:
    """Its result; a lock that was left locked would let it wait for ever."""
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(function()), daemon=True)
    thread.start()
    thread.join(10)
    assert found, "a lock is still held"
    return found[0]


def interrupted(before: int, around: Callable[[Callable[[], Any]], Any], expected: list[Any]) -> bool:
    """``before`` calls, one that is interrupted, four more: every state is one of the plain training's, in order."""
    world = World()
    step = tg.compile(world.step)
    for _ in range(before):
        step(world.x, world.y)
    start, where = world.state(), None
    try:
        around(lambda: step(world.x, world.y))
    except Interrupt as error:
        where = str(error)
    finally:
        sys.settrace(None)
        assert_nothing_is_on()
    done = before + (world.state() != start)
    assert world.state() == expected[done], where
    in_another_thread(lambda: (tg.ones(1, requires_grad=True) * 2).sum().backward())
    for i in range(4):
        in_another_thread(lambda: step(world.x, world.y)) if i == 0 else step(world.x, world.y)
        assert world.state() == expected[done + i + 1], where
    return where is not None


def bytecodes(before: int) -> list[Place]:
    """Every bytecode of the package that is run by a call after so many others."""
    warm, world = World(), World()
    step = tg.compile(warm.step)
    for _ in range(4):
        step(warm.x, warm.y)
    step = tg.compile(world.step)
    for _ in range(before):
        step(world.x, world.y)
    with Injector() as injector:
        step(world.x, world.y)
    return list(injector.places)


def at(place: Place) -> Callable[[Callable[[], Any]], Any]:
    def around(call: Callable[[], Any]) -> Any:
        with Injector(place):
            return call()

    return around


@pytest.mark.parametrize("before", [0, 1, 3])  # the calls that are recorded, and a replay
def test_an_interrupt_at_any_bytecode_leaves_nothing_behind(before: int) -> None:
    places = bytecodes(before)
    expected = plain(before + 5)
    for place in places[:: len(places) // 40]:
        assert interrupted(before, at(place), expected)


def test_the_usual_call_has_no_bytecode_to_be_interrupted_at() -> None:
    assert bytecodes(5) == []


def signals(before: int, tries: int) -> None:
    """A handler that raises, at times all over a recorded call."""
    expected = plain(before + 5)
    handler = signal.signal(signal.SIGALRM, lambda *_: (_ for _ in ()).throw(Interrupt("signal")))
    try:
        for i in range(tries):

            def around(call: Callable[[], Any], i: int = i) -> Any:
                try:
                    signal.setitimer(signal.ITIMER_REAL, 1e-6 + 8e-3 * i / tries)
                    return call()
                finally:
                    signal.setitimer(signal.ITIMER_REAL, 0)

            interrupted(before, around, expected)
    finally:
        signal.signal(signal.SIGALRM, handler)


if __name__ == "__main__" and "--long" in sys.argv:
    for before in (0, 1, 3):
        places, expected = bytecodes(before), plain(before + 5)
        began = time.time()
        hit = sum(interrupted(before, at(place), expected) for place in places)
        print(f"call {before + 1}: interrupted at {hit} of {len(places)} bytecodes, {time.time() - began:.0f} s")
        signals(before, 1000)
        print(f"call {before + 1}: 1000 signals")
