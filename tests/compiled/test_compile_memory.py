"""Memory from outside a compiled step: read anew at every call, watched, or refused; never as it once was."""

from __future__ import annotations

import array
import contextlib
import ctypes
import gc
import mmap

import numpy as np
import pytest
import torch
from compile_checks import assert_same_script, replays
from test_compile_state import script_of

import tapegrad as tg
from tapegrad import CompileError, ShapeError
from tapegrad.compiled import step as implementation


class Holder:
    def __init__(self):
        self.array = np.ones(2, np.float32)
        self.tensor = torch.ones(2)


def objects():
    made = np.empty(2, object)
    made[:] = [1.0], 2.0
    return made


def ones():
    return np.ones(2, np.float32)


def put(value):
    """A change: every element of an array, a torch tensor, a ctypes array is ``value``."""

    def change(state):
        for i in range(len(state)):
            state[i] = value

    return change


def from_map():
    memory = mmap.mmap(-1, 8)
    memory[:] = ones().tobytes()
    return memory


def frombuffer(state):
    return torch.frombuffer(state, dtype=torch.float32)[:2]


def fill(value):
    """A change: memory that is a row of bytes holds two float32 of this value."""

    def change(state):
        memoryview(state).cast("B")[:8] = np.full(2, value, np.float32).tobytes()

    return change


# how the memory is made, how the step turns it into a tensor that shares it, how it changes
SHARED = {
    "an operand": (ones, lambda s: s, put(3)),
    "tg.from_numpy": (ones, tg.from_numpy, put(3)),
    "tg.as_tensor": (ones, tg.as_tensor, put(3)),
    "torch.from_numpy": (ones, torch.from_numpy, put(3)),
    "torch.as_tensor": (ones, torch.as_tensor, put(3)),
    "torch.asarray": (ones, torch.asarray, put(3)),
    "torch.from_dlpack": (ones, torch.from_dlpack, put(3)),
    "tg.tensor, which copies in the step": (ones, tg.tensor, put(3)),
    "tg.Tensor": (ones, tg.Tensor, put(3)),
    "another dtype": (ones, lambda s: tg.as_tensor(s, dtype=tg.float64), put(3)),
    "a part": (lambda: np.ones(5, np.float32), lambda s: torch.from_numpy(s[3:]), put(3)),
    "every second": (lambda: np.ones(4, np.float32), lambda s: tg.from_numpy(s[::2]), put(3)),
    "two parts that overlap": (
        lambda: np.ones(3, np.float32),
        lambda s: tg.from_numpy(s[1:]) * tg.from_numpy(s[:2]) * tg.from_numpy(s)[:2],
        put(3),
    ),
    "an attribute": (Holder, lambda s: tg.from_numpy(s.array), lambda s: put(3)(s.array)),
    "a tensor that is an attribute": (Holder, lambda s: s.tensor, lambda s: s.tensor.fill_(3)),
    "a tensor of torch": (lambda: torch.ones(2), lambda s: s, put(3)),
    "its .data": (lambda: torch.ones(2), lambda s: s.data, put(3)),
    "a clone of it": (lambda: torch.ones(2), torch.clone, put(3)),
    "torch.tensor": (ones, torch.tensor, put(3)),
    "torch.as_tensor of another dtype": (ones, lambda s: torch.as_tensor(s, dtype=torch.float64), put(3)),
    "bytearray": (lambda: bytearray(ones()), frombuffer, fill(3)),
    "memoryview": (lambda: memoryview(bytearray(ones())), frombuffer, fill(3)),
    "array.array": (lambda: array.array("f", [1, 1]), frombuffer, put(3)),
    "ctypes": (lambda: (ctypes.c_float * 2)(1, 1), frombuffer, put(3)),
    "mmap": (from_map, frombuffer, fill(3)),
    "an array on a bytearray": (lambda: bytearray(ones()), lambda s: tg.from_numpy(np.frombuffer(s, "f")), fill(3)),
}


@pytest.mark.parametrize("name", SHARED)
def test_shared_memory_is_read_at_every_call(name):
    """No program is made anew for it; one recorded call after the first change may check that it is read."""
    make, wrap, change = SHARED[name]
    state = make()
    step = tg.compile(lambda x: x * wrap(state))
    for _ in range(3):
        assert step(tg.tensor([1.0, -2.0])).tolist() == [1.0, -2.0]
    change(state)
    expected = (tg.tensor([1.0, -2.0]) * wrap(state)).tolist()
    assert expected[0] in (3, 27)
    assert [step(tg.tensor([1.0, -2.0])).tolist() for _ in range(3)] == [expected] * 3
    assert replays(step) >= 3
    assert len(step.programs) == 1


# the same for memory whose elements reach the step through Python, as a copy or as numbers
COPIED = {
    "torch.Tensor": (ones, torch.Tensor, put(3)),
    "torch.tensor of a list": (ones, lambda s: torch.tensor(list(s)), put(3)),
    "torch.asarray that copies": (ones, lambda s: torch.asarray(s, copy=True), put(3)),
    "copy": (ones, lambda s: tg.from_numpy(s.copy()), put(3)),
    "computed by NumPy": (ones, lambda s: s * 2 + 1, put(3)),
    "a reduction": (ones, lambda s: float(s.sum()), put(3)),
    "an element": (ones, lambda s: float(s[1]), put(3)),
    "a branch": (ones, lambda s: 2.0 if s[0] > 2 else 5.0, put(3)),
    "tolist": (ones, lambda s: tg.tensor(s.tolist()), put(3)),
    "an element of an object": (objects, lambda s: s[0][0], lambda s: s[0].__setitem__(0, 3.0)),
    "another object": (objects, lambda s: s[1], lambda s: s.__setitem__(1, 3.0)),
    "dates": (lambda: np.array(["2020-01-01"], "M8[D]"), lambda s: int(s.astype(int)[0]), put(np.datetime64("2021"))),
    "structured": (lambda: np.zeros(2, [("a", "f4"), ("b", "i8")]), lambda s: float(s["b"][1]), put((1, 2))),
    "array.array": (lambda: array.array("f", [1, 1]), lambda s: s[1], put(3)),
    "memoryview": (lambda: memoryview(bytearray(ones())), lambda s: float(s.cast("f")[0]), fill(3)),
    "ctypes": (lambda: (ctypes.c_float * 2)(1, 1), lambda s: s[0], put(3)),
    "an attribute": (Holder, lambda s: torch.tensor(s.array), lambda s: put(3)(s.array)),
    "another array": (Holder, lambda s: tg.from_numpy(s.array), lambda s: setattr(s, "array", 3 * ones())),
    "another tensor": (Holder, lambda s: s.tensor, lambda s: setattr(s, "tensor", torch.full((2,), 3.0))),
    "other memory of a tensor": (Holder, lambda s: s.tensor, lambda s: s.tensor.set_(torch.full((2,), 3.0))),
    "other .data": (Holder, lambda s: s.tensor.data, lambda s: setattr(s.tensor, "data", torch.full((2,), 3.0))),
    "another shape": (ones, tg.from_numpy, lambda s: setattr(s, "shape", (2, 1))),
}


@pytest.mark.parametrize("name", COPIED)
def test_copied_memory_is_watched(name):
    assert_same_script(script_of(*COPIED[name]))


def test_memory_too_large_to_be_compared_is_refused_by_name():
    data = np.ones(2**18 + 1, np.float32)
    step = tg.compile(lambda x: x * float(data[0]))
    step(tg.ones(2))
    with pytest.raises(CompileError, match=r"the content of data, 1048580 bytes, .* pass it as an argument"):
        step(tg.ones(2))
    wrapped = tg.compile(lambda x: x * tg.from_numpy(data)[:2])
    for i in range(5):
        data[:] = i
        assert wrapped(tg.ones(2)).tolist() == [i, i]
    assert replays(wrapped) == 3


def test_an_array_that_numpy_changes_inside_the_step_is_refused():
    count = np.zeros(2, np.float32)

    def step(x):
        count[:] += 1
        return x * tg.from_numpy(count)

    compiled = tg.compile(step)
    compiled(tg.ones(2))
    with pytest.raises(CompileError, match=r"step changes the content of count"):
        compiled(tg.ones(2))


def test_an_array_that_the_step_writes_through_a_tensor():
    def script(compile):
        count = ones()

        @compile
        def step(x):
            tg.from_numpy(count).add_(x)
            tg.from_numpy(count[1:]).mul_(2.0)
            return tg.from_numpy(count) * 2

        seen = []
        for i in range(6):
            seen += [step(tg.tensor([1.0, -2.0])), torch.tensor(count)]
            count[0] = i
        return seen

    assert_same_script(script)


def test_writing_memory_that_arrays_share_in_part_is_refused():
    count = np.ones(3, np.float32)
    step = tg.compile(lambda x: tg.from_numpy(count[1:]).add_(tg.from_numpy(count[:2])) + x)
    with pytest.raises(CompileError, match=r"memory that several arrays share in part is written"):
        step(tg.ones(2))
    assert count.tolist() == [1, 1, 1]


@pytest.mark.parametrize("take", ["untyped_storage", "dlpack", "apply_"])
def test_the_memory_of_an_argument_is_not_taken_out(take):
    takes = {
        "untyped_storage": lambda x: bytes(x.data.untyped_storage())[0],
        "dlpack": lambda x: torch.from_dlpack(x.data.detach()),
        "apply_": lambda x: x.data.clone().apply_(abs),
    }
    step = tg.compile(lambda x: x * takes[take](x))
    with pytest.raises(CompileError, match="takes a value out of the program"):
        step(tg.ones(2))


# ways to make a tensor from numbers, which read elements of a list where torch has switched its dispatch modes off
MAKERS = {
    "torch.tensor": lambda v: torch.tensor([v, 1.0]),
    "nested": lambda v: torch.tensor([[1.0, 2.0], (1.0, v)]),
    "float64": lambda v: torch.tensor([v, 1.0], dtype=torch.float64),
    "integers": lambda v: torch.tensor([v.long(), 1]),
    "as_tensor": lambda v: torch.as_tensor([v, 1.0]),
    "asarray": lambda v: torch.asarray([v, 1.0]),
    "new_tensor": lambda v: v.new_tensor([v, 1.0]),
    "new": lambda v: v.new([v, 1.0]),
    "torch.Tensor": lambda v: torch.Tensor([v, 1.0]),
    "FloatTensor": lambda v: torch.FloatTensor([v, 1.0]),
    "LongTensor": lambda v: torch.LongTensor([v.long(), 1]),
    "sparse": lambda v: torch.sparse_coo_tensor([[0]], [v], (2,)).to_dense(),
    "Parameter": lambda v: torch.nn.Parameter(torch.tensor([v]), requires_grad=False),
}


@pytest.mark.parametrize("name", MAKERS)
def test_numbers_that_a_list_reads_are_refused_by_line(name):
    make = MAKERS[name]

    def step(x):
        made = make(x.data[0])
        return x * 2, made

    compiled = tg.compile(step)
    line = make.__code__.co_firstlineno
    with pytest.raises(CompileError, match=rf"test_compile_memory.py:{line}: a list takes the value .* use tg.stack"):
        compiled(tg.tensor([3.0, 2.0]))
    x = tg.tensor([3.0, 2.0])
    assert make(x.data[0]).flatten().tolist() == step(x)[1].flatten().tolist()  # nobody listens any more


def test_a_read_by_a_list_whose_refusal_is_swallowed():
    def step(x):
        with contextlib.suppress(CompileError):
            torch.tensor([x.data[0], 1.0])
        return x * 2

    with pytest.raises(CompileError, match="a list takes the value"):
        tg.compile(step)(tg.ones(2))


def test_a_step_that_has_a_program_goes_on_where_a_list_reads():
    w = tg.ones(2, requires_grad=True)

    def step(x):
        scale = 2.0 if len(x) == 2 else torch.tensor([x.data[0], x.data[1], 1.0])
        return (w.sum() * x * scale).detach()

    compiled = tg.compile(step)
    for _ in range(3):
        compiled(tg.ones(2))
    with pytest.warns(RuntimeWarning, match="a list takes the value"):
        assert compiled(tg.tensor([1.0, 2.0, 3.0])).tolist() == [2.0, 8.0, 6.0]
    assert compiled(tg.tensor([5.0, 2.0, 3.0])).tolist() == [50.0, 8.0, 6.0]
    assert compiled(tg.ones(2)).tolist() == [4.0, 4.0]


def test_what_torch_copies_itself_is_no_read():
    copies = {
        "a tensor": lambda x: torch.asarray(x.data, copy=True),
        "a shape": lambda x: torch.tensor(x.shape),
        "fill_": lambda x: x.data.clone().fill_(x.data[0]),
        "masked_fill": lambda x: x.data.masked_fill(x.data > 1, x.data[0]),
        "a check": lambda x: tg.nn.functional.embedding(tg.arange(2), x.reshape(2, 1)).reshape(2),
    }
    for make in copies.values():
        step = tg.compile(lambda x, make=make: x * make(x))
        for i in range(4):
            x = tg.tensor([float(i), 2.0])
            assert step(x).tolist() == (x * make(x)).tolist()
        assert replays(step) == 2


def test_an_array_that_is_wrapped_and_read_by_elements():
    """A change is first taken for one that a replay reads anew; the recorded call that checks it shows otherwise."""

    def script(compile):
        w = ones()
        step = compile(lambda x: x * tg.from_numpy(w) * float(w[0]))
        seen = []
        for i in range(12):
            if i in (4, 7, 8):
                w[:] = i
            seen.append(step(tg.ones(2)))
        return seen

    assert_same_script(script)


def test_an_audit_that_finds_a_difference_raises(monkeypatch):
    """Memory that no guard can reach: what a generator holds."""
    monkeypatch.setattr(implementation, "AUDIT", 6)

    def forever(values):
        while True:
            yield float(values[0])

    values = ones()
    hidden = forever(values)
    step = tg.compile(lambda x: x * next(hidden))
    for _ in range(3):
        step(tg.ones(2))
    values[:] = 3
    with pytest.raises(CompileError, match=r"after 6 replays differs: .*mul.*: argument 1 was 1.0 .*, 3.0"):
        list(map(step, [tg.ones(2)] * 8))


# --- tensors whose memory, shape or strides change in place ----------------------------------------------------------


RESHAPED = {
    "t_": lambda t: t.t_(),
    "transpose_": lambda t: t.transpose_(0, 1),
    "swapaxes_": lambda t: t.swapaxes_(0, 1),
    "unsqueeze_": lambda t: t.unsqueeze_(0),
    "as_strided_": lambda t: t.as_strided_((3, 3), (0, 1)),
    "another offset": lambda t: t.as_strided_((3, 3), (1, 1), 2),
    "resize_": lambda t: t.resize_(1, 3),
    "set_": lambda t: t.set_(torch.arange(9.0).view(3, 3).t()),
    "data =": lambda t: setattr(t, "data", torch.arange(9.0).view(3, 3).t()),
}


@pytest.mark.parametrize("inside", ["tensor", "raw", "shape alone"])
@pytest.mark.parametrize("name", RESHAPED)
def test_a_tensor_reshaped_in_place(name, inside):
    def script(compile):
        w = tg.arange(9.0).reshape(3, 3)
        reads = {"tensor": lambda: w, "raw": lambda: w.data, "shape alone": lambda: w.stride(0) + 10 * w.shape[0]}
        step = compile(lambda x: (x * reads[inside]()).sum(0))
        x = tg.tensor([[1.0, 2.0, 3.0]])
        seen = [step(x) for _ in range(3)]
        RESHAPED[name](w.data)
        return seen + [step(x) for _ in range(3)]

    assert_same_script(script)


@pytest.mark.parametrize("which", ["captured", "argument"])
def test_memory_that_was_freed_is_refused(which):
    w, x = tg.ones(4), tg.ones(4)
    step = tg.compile(lambda x: (x * w).sum())
    for _ in range(4):
        step(x)
    (w if which == "captured" else x).data.untyped_storage().resize_(0)
    with pytest.raises(ShapeError, match=r"storage of (a tensor|argument 0) f32\[4\] must hold 16 bytes; got one of 0"):
        step(x)


def test_an_array_outlives_the_name_it_had():
    held = [ones()]
    step = tg.compile(lambda x: x * tg.from_numpy(held[0]))
    for _ in range(3):
        step(tg.ones(2))
    gc.collect()
    assert step(tg.ones(2)).tolist() == [1, 1]
