"""Calls that C++ serves without a frame of Python: what they rely on, and that they leave the rest to Python."""

from __future__ import annotations

import gc
import sys
import threading
import warnings
import weakref
from typing import Any

import numpy as np
import pytest
import torch
from compile_checks import assert_same_script, batch, bits, mlp, state, training_step

import tapegrad as tg
from tapegrad import nn
from tapegrad.core import _C


def frames(call: Any) -> list[str]:
    """The package's Python functions that a call enters."""
    seen: list[str] = []

    def note(frame: Any, event: str, argument: Any) -> None:
        if event == "call" and "tapegrad" in frame.f_code.co_filename.split("tests")[0]:
            seen.append(frame.f_code.co_name)

    gc.collect()
    gc.disable()  # finalizers are no part of the call
    sys.setprofile(note)
    try:
        call()
    finally:
        sys.setprofile(None)
        gc.enable()
    return [name for name in seen if name != "<lambda>"]


def trained(calls: int = 5) -> Any:
    model, optimizer = mlp()
    step = tg.compile(training_step(model, optimizer))
    for _ in range(calls):
        step(*batch())
    return model, optimizer, step


def test_the_usual_call_enters_no_python():
    _, _, step = trained()
    x, y = batch()
    assert frames(lambda: step(x, y)) == []


@pytest.mark.parametrize("kind", [tg.Tensor, torch.Tensor, np.ndarray])
def test_tensors_of_torch_and_arrays_are_served_too(kind):
    def as_kind(i):
        x = tg.randn(3, generator=tg.Generator(i))
        return {tg.Tensor: x, torch.Tensor: x.data, np.ndarray: x.data.numpy()}[kind]

    def script(compile):
        step = compile(lambda x: tg.mul(x, 2.0).sin())
        return [step(as_kind(i)) for i in range(8)]

    assert_same_script(script)
    step = tg.compile(lambda x: tg.mul(x, 2.0).sin())
    for i in range(4):
        step(as_kind(i))
    x = as_kind(5)
    assert frames(lambda: step(x)) == []


def test_arrays_that_torch_cannot_share_are_left_to_python():
    def script(compile):
        step = compile(lambda x: tg.mul(x, 2.0))
        seen = []
        for i in range(12):
            x = np.arange(4, dtype=np.float32) + i
            if i % 3 == 1:
                x.flags.writeable = False
            if i % 3 == 2:
                x = x[::-1]
            seen.append(step(x))
        return seen

    assert_same_script(script)


CHANGED = {
    "a global": lambda world: world.update(scale=3.0),
    "a list": lambda world: world["items"].__setitem__(0, 5.0),
    "a longer list": lambda world: world["items"].append(1.0),
    "a dict": lambda world: world["options"].update(a=7.0),
    "a new key": lambda world: world["options"].update(b=7.0),
    "keys in another order": lambda world: world["options"].update(a=world["options"].pop("a")),
    "an attribute": lambda world: setattr(world["object"], "value", 9.0),
    "a slot": lambda world: setattr(world["slotted"], "value", 9.0),
    "a method": lambda world: setattr(type(world["object"]), "get", lambda self: 11.0),
    "a class": lambda world: setattr(world["object"], "__class__", world["other"]),
    "a default": lambda world: setattr(world["helper"], "__defaults__", (13.0,)),
    "the code": lambda world: setattr(world["helper"], "__code__", (lambda x=2.0: x * 100).__code__),
    "the memory": lambda world: world["weight"]._data.set_(torch.full((2,), 17.0)),
    "a shape in place": lambda world: world["raw"].resize_(2, 1),
    "an array's elements": lambda world: world["array"].__setitem__(0, 19.0),
}


def make_world() -> dict[str, Any]:
    class Object:
        def __init__(self) -> None:
            self.value = 2.0

        def get(self) -> float:
            return self.value

    class Other:
        def get(self) -> float:
            return 4.0

    class Slotted:
        __slots__ = ("value",)

        def __init__(self) -> None:
            self.value = 2.0

    def helper(x: float = 2.0) -> float:
        return x

    world: dict[str, Any] = {
        "tg": tg,
        "scale": 2.0,
        "items": [2.0, 3.0],
        "options": {"z": 1.0, "a": 2.0},
        "object": Object(),
        "other": Other,
        "slotted": Slotted(),
        "helper": helper,
        "weight": tg.ones(2),
        "raw": torch.ones(1, 2),
        "array": np.ones(2, dtype=np.float32),
    }
    source = """
def step(x):
    value = x * scale + sum(items) + sum(v * (i + 1) for i, v in enumerate(options.values()))
    value = value * object.get() + slotted.value + helper() + weight
    return value + len(raw) + float(array[0])
"""
    exec(source, world)
    return world


@pytest.mark.parametrize("what", CHANGED)
def test_no_change_of_what_a_step_reads_is_missed(what):
    seen = []
    for compiled in (False, True):
        world = make_world()
        step = tg.compile(world["step"]) if compiled else world["step"]
        values = [step(tg.ones(2)) for _ in range(5)]
        if compiled:
            x = tg.ones(2)
            assert frames(lambda step=step, x=x: step(x)) == []
            world["unrelated"] = 1  # a new version of the globals, and nothing that matters
            assert frames(lambda step=step, x=x: step(x)) == []
        CHANGED[what](world)
        seen.append([*values, *[step(tg.ones(2)) for _ in range(4)]])
    assert bits(seen[0]) == bits(seen[1])
    assert bits(seen[0][4]) != bits(seen[0][5]) or what in ("keys in another order", "a class", "a longer list")


class Owner(nn.Module):
    def __init__(self):
        self.layer = nn.Linear(3, 2)

    def forward(self, x):
        return self.layer(x)


@pytest.mark.parametrize("kind", [Owner, lambda: nn.Sequential(nn.Linear(3, 2))])
def test_hooks_that_come_and_go(kind):
    """A hook that changes the output, and one that counts, which a replay would not."""

    def script(compile):
        tg.manual_seed(0)
        model, counted = kind(), []
        step = compile(lambda x: model(x).detach())
        x, _ = batch()
        seen = [step(x) for _ in range(4)]
        handle = model.register_forward_hook(lambda module, args, output: output * 2)
        seen += [step(x) for _ in range(4)]
        handle.remove()
        seen += [step(x) for _ in range(4)]
        model.register_forward_hook(lambda module, args, output: counted.append(len(counted)))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it runs uncompiled now
            seen += [step(x) for _ in range(4)]
        return [*seen, counted]

    assert_same_script(script)


def test_guards_hold_as_they_are_checked():
    world = make_world()
    guards = _C.Guards()
    for i, key in enumerate(("scale", "items", "options")):
        guards.add(0, world, key, world[key], i == 0)
    guards.add(3, world["items"], None, 2, True)
    assert guards.hold()
    assert guards.check() == -1
    world["scale"] = 1.0 + 1.0  # another object, the same value
    assert guards.hold()
    world["scale"] = -2.0
    assert not guards.hold()
    assert guards.check() == 0
    world["scale"] = 2.0
    assert guards.hold()
    del world["options"]
    assert not guards.hold()
    assert guards.check() == 2


def test_results_of_every_call_are_their_own():
    step = tg.compile(lambda x: {"a": x * 2, "b": [x + 1, (x, None, 3)]})
    seen = [step(tg.full((2,), float(i))) for i in range(8)]
    for i, one in enumerate(seen):
        assert one["a"].tolist() == [2.0 * i] * 2
        assert one["b"][0].tolist() == [i + 1.0] * 2
        assert one["b"][1][1:] == (None, 3)
    assert len({one["a"].data.data_ptr() for one in seen}) == len(seen)
    kept = seen[-1]["a"].data
    kept.resize_(100).fill_(1.0)  # memory that torch can make larger
    assert kept.sum().item() == 100.0


def test_a_gradient_that_somebody_holds_is_not_the_next_one():
    model, _, step = trained()
    weight = model[0].weight
    held, again = weight.grad, weakref.ref(weight.grad)
    step(*batch())
    assert weight.grad is not held
    del held
    gc.collect()
    assert again() is None
    watched = weakref.ref(weight.grad)
    step(*batch())
    gc.collect()
    assert watched() is None


def test_calls_of_two_threads_are_those_of_one():
    model, optimizer, step = trained(4)
    threads = [threading.Thread(target=lambda: [step(*batch()) for _ in range(300)]) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    after = state([model], [optimizer])
    model, optimizer = mlp()
    plain = training_step(model, optimizer)
    for _ in range(604):
        plain(*batch())
    assert state([model], [optimizer]) == after


def test_a_call_waits_for_a_thread_that_is_inside():
    _, _, step = trained()
    inside, go_on, order = threading.Event(), threading.Event(), []

    def hold() -> None:
        with step:
            inside.set()
            go_on.wait(10)
            order.append("held")

    def call() -> None:
        step(*batch())
        order.append("called")

    holder, caller = threading.Thread(target=hold), threading.Thread(target=call)
    holder.start()
    assert inside.wait(10)
    caller.start()
    caller.join(0.05)
    go_on.set()
    holder.join(10)
    caller.join(10)
    assert order == ["held", "called"]


def test_the_profile_is_a_table_and_changes_nothing():
    model, optimizer, step = trained()
    before = state([model], [optimizer])
    table = step.profile(*batch())
    assert state([model], [optimizer]) == before
    (program,) = step.programs
    assert " + ".join(row.op for row in table.rows) == " + ".join(call.name for call in program.calls)
    assert [row.instruction for row in table.rows] == sorted({row.instruction for row in table.rows})
    assert all(row.ns > 0 and 0 <= row.share <= 1 for row in table.rows)
    assert table.rows[0][:3] == (0, "linear", (4, 5))
    assert str(table).splitlines()[0].split() == ["op", "shape", "ns", "of", "the", "peak"]
    assert {"guards", "results"} <= {name for name, _ in table.call}
    with pytest.raises(tg.CompileError, match="reads a value"):
        tg.compile(lambda x: x * x.sum().item()).profile(tg.ones(2))
