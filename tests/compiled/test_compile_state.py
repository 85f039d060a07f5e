"""The Python state that a step reads: a change between two calls takes effect, or lies beyond a documented boundary."""

from __future__ import annotations

import collections
import contextvars
import dataclasses
import enum
import functools
import itertools
import math
import os
import sys
import types
import weakref

import numpy as np
import pytest
import torch
from compile_checks import assert_same_script, batch, mlp, state, training_step

import tapegrad as tg
from tapegrad import nn

FACTOR = 2.0


def test_a_closure_variable():
    def script(compile):
        scale, offset = 2.0, tg.ones(2)

        @compile
        def step(x):
            return (x * scale + offset).sum()

        seen = []
        for value in (2.0, 3.0, math.nan, 2.0):
            scale = value
            seen += [step(tg.arange(2.0)) for _ in range(3)]
        offset = tg.full((2,), 5.0)
        seen += [step(tg.arange(2.0)) for _ in range(3)]
        offset[0] = 7.0
        offset.mul_(2)
        return [*seen, step(tg.arange(2.0))]

    assert_same_script(script)


def test_a_global():
    def script(compile):
        global FACTOR
        step = compile(lambda x: (x * FACTOR).sum())
        seen = []
        try:
            for value in (2.0, 3.0, 2, True):
                FACTOR = value
                seen += [step(tg.arange(2.0)) for _ in range(3)]
        finally:
            FACTOR = 2.0
        return seen

    assert_same_script(script)


def doubled(x):
    return x * FACTOR


def test_a_global_that_a_helper_reads_and_the_helper_itself():
    def script(compile):
        global FACTOR, doubled
        before = doubled
        step = compile(lambda x: doubled(x).sum())
        seen = [step(tg.arange(2.0)) for _ in range(3)]
        try:
            FACTOR = 5.0
            seen += [step(tg.arange(2.0)) for _ in range(3)]
            doubled = lambda x: x + 1  # noqa: E731
            seen += [step(tg.arange(2.0)) for _ in range(3)]
        finally:
            FACTOR, doubled = 2.0, before
        return seen

    assert_same_script(script)


def test_a_global_imported_inside_the_step():
    def script(compile):
        settings = types.ModuleType("settings_of_a_test")
        settings.scale = 2.0
        sys.modules["settings_of_a_test"] = settings

        @compile
        def step(x):
            import settings_of_a_test

            return (x * settings_of_a_test.scale).sum()

        seen = [step(tg.arange(2.0)) for _ in range(3)]
        settings.scale = 3.0
        return seen + [step(tg.arange(2.0)) for _ in range(3)]

    try:
        assert_same_script(script)
    finally:
        del sys.modules["settings_of_a_test"]


# --- one kind of state after the other ---------------------------------------------------------------------------


class Config:
    scale = 2.0

    def __init__(self):
        self.values = {"a": [1.0, 2.0], "b": (3.0,)}
        self.kinds = {"sin"}


def own():
    """An instance of a class of its own."""
    return type("Own", (Config,), {})()


class Slotted:
    __slots__ = ("scale",)

    def __init__(self):
        self.scale = 2.0


class Hidden:
    """What one sees is not what it holds."""

    def __init__(self):
        self.held = {"scale": 2.0}

    def __getattr__(self, name):
        return self.__dict__["held"][name]

    def __getitem__(self, i):
        return self.held["scale"]

    @property
    def double(self):
        return 2 * self.held["scale"]


class Scaled(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = 2.0
        self.register_buffer("offset", tg.ones(2))

    def forward(self, x):
        return x * self.scale + self.offset


@dataclasses.dataclass
class Data:
    scale: float = 2.0


class Kind(enum.Enum):
    SIN = 2.0
    COS = 3.0


def helper():
    """A fresh function with a default argument."""

    def scale(k=2.0):
        return k

    return scale


def put(key, value):
    """A change: ``state[key] = value``."""
    return lambda state: state.__setitem__(key, value)


def assign(**values):
    """A change: attributes of the state."""
    return lambda state: [setattr(state, name, value) for name, value in values.items()]


def identity(state):
    return state


# name: how the state is made, what the step reads of it, how it changes
def another_generator(state):
    state[0] = tg.Generator(4)


SEEN = {
    "item of a list": (lambda: [1.0, 2.0], lambda s: s[1], put(1, 5.0)),
    "length of a list": (lambda: [1.0, 2.0], len, lambda s: s.append(5.0)),
    "order of a list": (lambda: [1.0, 2.0], lambda s: s[0], lambda s: s.reverse()),
    "item of a dict": (lambda: {"a": 1.0}, lambda s: s["a"], put("a", 4.0)),
    "order of a dict": (lambda: {"a": 1.0, "b": 2.0}, lambda s: next(iter(s)) == "a", lambda s: s.update(a=s.pop("a"))),
    "length of a dict": (lambda: {"a": 1.0}, len, put("b", 4.0)),
    "set": (lambda: {1.0}, lambda s: 1.0 in s, lambda s: s.clear()),
    "set of the same length": (lambda: {1.0}, lambda s: 1.0 in s, lambda s: (s.clear(), s.add(2.0))),
    "tuple in a list": (lambda: [(1.0, 2.0)], lambda s: s[0][1], put(0, (1.0, 3.0))),
    "string": (lambda: ["sum"], lambda s: s[0] == "sum", put(0, "mean")),
    "signed zero": (lambda: [0.0], lambda s: s[0], put(0, -0.0)),
    "one and True": (lambda: [True], lambda s: isinstance(s[0], bool), put(0, 1)),
    "not a number": (lambda: [math.nan], lambda s: s[0], put(0, 3.0)),
    "nested": (Config, lambda s: s.values["a"][1], lambda s: put(1, 9.0)(s.values["a"])),
    "attribute": (Config, lambda s: s.scale, assign(scale=4.0)),
    "attribute of a class": (lambda: type("Own", (Config,), {}), lambda s: s.scale, assign(scale=4.0)),
    "attribute of its class": (own, lambda s: s.scale, lambda s: assign(scale=4.0)(type(s))),
    "computed name": (Config, lambda s: getattr(s, "sca" + "le"), assign(scale=4.0)),
    "vars": (Config, lambda s: len(vars(s)), assign(another=1.0)),
    "slots": (Slotted, lambda s: s.scale, assign(scale=4.0)),
    "property": (Hidden, lambda s: s.double, lambda s: put("scale", 5.0)(s.held)),
    "__getitem__": (Hidden, lambda s: s[0], lambda s: put("scale", 5.0)(s.held)),
    "__getattr__": (Hidden, lambda s: s.scale, lambda s: put("scale", 5.0)(s.held)),
    "dataclass": (Data, lambda s: s.scale, assign(scale=3.0)),
    "namespace": (lambda: types.SimpleNamespace(scale=2.0), lambda s: s.scale, assign(scale=4.0)),
    "member of an enum": (lambda: [Kind.SIN], lambda s: s[0].value, put(0, Kind.COS)),
    "module": (Scaled, lambda s: s(2.0), assign(scale=4.0)),
    "buffer": (Scaled, lambda s: s(2.0), assign(offset=tg.zeros(2))),
    "forward": (Scaled, lambda s: s(2.0), assign(forward=lambda x: x)),
    "default": (helper, lambda s: s(), lambda s: setattr(s, "__defaults__", (5.0,))),
    "code": (helper, lambda s: s(), lambda s: setattr(s, "__code__", (lambda k: 3 * k).__code__)),
    "function": (lambda: [helper()], lambda s: s[0](), put(0, lambda: 7.0)),
    "partial": (lambda: [functools.partial(pow, 2.0)], lambda s: s[0](3), put(0, functools.partial(pow, 3.0))),
    "deque": (lambda: collections.deque([1.0, 2.0]), lambda s: s[0], lambda s: s.rotate()),
    "defaultdict": (lambda: collections.defaultdict(float, a=2.0), lambda s: s["a"], put("a", 3.0)),
    "Counter": (lambda: collections.Counter(a=2), lambda s: s["a"], put("a", 4)),
    "UserDict": (lambda: collections.UserDict(a=2.0), lambda s: s["a"], put("a", 4.0)),
    "bytearray": (lambda: bytearray(b"a"), lambda s: float(s[0]), put(0, 9)),
    "scalar of NumPy": (lambda: [np.float32(2)], lambda s: s[0], put(0, np.float32(3))),
    "array as an operand": (lambda: np.ones(2, np.float32), identity, put(0, 5.0)),
    "tensor of torch": (lambda: torch.ones(2), identity, put(0, 5.0)),
    "tensor": (lambda: tg.ones(2), identity, put(0, 5.0)),
    "another tensor": (lambda: [tg.ones(2)], lambda s: s[0], put(0, tg.zeros(2))),
    "shape": (lambda: [tg.ones(2)], lambda s: float(s[0].shape[0]), put(0, tg.zeros(3))),
    "generator": (lambda: tg.Generator(3), lambda s: tg.rand(2, generator=s), lambda s: s.manual_seed(4)),
    "another generator": (lambda: [tg.Generator(3)], lambda s: tg.rand(2, generator=s[0]), another_generator),
}  # fmt: skip


def script_of(make, read, change):
    """A step that computes ``x * read(state)``, three times before ``change(state)`` and three times after it."""

    def script(compile):
        state = make()
        step = compile(lambda x: x * read(state))
        seen = [step(tg.tensor([1.0, -2.0])) for _ in range(3)]
        change(state)
        return seen + [step(tg.tensor([1.0, -2.0])) for _ in range(3)]

    return script


@pytest.mark.parametrize("name", SEEN)
def test_a_change_takes_effect(name):
    assert_same_script(script_of(*SEEN[name]))


# --- the boundary ------------------------------------------------------------------------------------------------


def environment(state):
    return float(os.environ["TAPEGRAD_TEST"])


class Weak:
    def __init__(self):
        self.target = Config()
        self.reference = weakref.ref(self.target)


HIDDEN = {
    "environment": (list, environment, lambda s: os.environ.update(TAPEGRAD_TEST="3")),
    "weak reference": (Weak, lambda s: s.reference().scale, lambda s: assign(scale=3.0)(s.target)),
    "context variable": (lambda: contextvars.ContextVar("v", default=2.0), lambda s: s.get(), lambda s: s.set(3.0)),
    "side effect on an iterator": (lambda: [itertools.repeat(2.0, 5)], lambda s: next(s[0]), lambda s: next(s[0])),
}


@pytest.mark.parametrize("name", HIDDEN)
def test_the_state_of_c_objects_is_read_once(name, monkeypatch):
    """Documented: a replay goes on with what the recording read, until the next audit."""
    monkeypatch.setattr(os, "environ", {**os.environ, "TAPEGRAD_TEST": "2"})
    make, read, change = HIDDEN[name]
    state = make()
    step = tg.compile(lambda x: x * read(state))
    seen = [step(tg.ones(2)).tolist() for _ in range(3)]
    change(state)
    assert [step(tg.ones(2)).tolist() for _ in range(3)] == seen


def test_explain_changes_nothing_of_an_optimizer_that_works_on_lists():
    """torch's `_foreach` functions write in place and return nothing."""
    model, _ = mlp()
    optimizer = tg.optim.RMSprop(model.parameters(), lr=0.1, momentum=0.5)
    step = tg.compile(training_step(model, optimizer))
    before = state([model], [optimizer])
    step.explain(*batch())
    assert state([model], [optimizer]) == before
