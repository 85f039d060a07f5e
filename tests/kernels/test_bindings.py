"""Wrong calls of the extension raise; none of them ends the process."""

import ast
import gc
from pathlib import Path

import fuzz_bindings
import pytest
import torch

import tapegrad as tg
from tapegrad.core import _C

fuzz_bindings.imports()


def hollow(t):
    t.untyped_storage().resize_(0)
    return t


def executor():
    """A program of one call, on one argument and one outside tensor."""
    e, x, w = _C.Executor(256), torch.ones(3), torch.full((3,), 2.0)
    views = [e.view(slot, torch.float32, 0, [3], [1]) for slot in (e.add_argument(x, False), e.add_outside(w, False))]
    out = e.view(e.add_arena(64, 12), torch.float32, 0, [3], [1])
    assert e.add_direct("aten::mul.Tensor", tuple(views), [out]) == 0
    e.add_result(out, 2)
    return e, x, w, views, out


def unlocked():
    """A compiled step that was never made ready."""
    return type("Unlocked", (_C.Step,), {"__call__": lambda self: None})()


NOTHING = torch._efficientzerotensor((3,), dtype=torch.int64)  # has no memory

WRONG = [
    (lambda: _C.index_add(torch.ones(3, 4), 0, NOTHING, torch.ones(3, 4)), tg.DTypeError, "a dense CPU tensor"),
    (lambda: _C.unchanged([5], [5]), TypeError, "expected a tuple"),
    (lambda: _C.unchanged([5], [(1, 0)]), IndexError, "the environment of an entry was changed"),
    (lambda: _C.unchanged([torch.ones(1)], [(0, "a")]), TypeError, "expected an index"),
    (lambda: _C.record(5, {0: (1, 2)}, 1, (), ()), IndexError, "a tuple of 2 has no such item"),
    (
        lambda: _C.tape_classes(tg.core.tape.Entry, tg.core.tape.Leaf, list, len, {}, len),
        TypeError,
        "must derive from TensorBase",
    ),
    (lambda: _C.check(hollow(torch.ones(3, dtype=torch.bool))), tg.ShapeError, "check: ok of shape"),
    (
        lambda: _C.max_pool2d_backward(torch.ones(1, 2, 2), hollow(torch.zeros(1, 2, 2, dtype=torch.int64)), [1, 4, 4]),
        tg.ShapeError,
        "max_pool2d_backward: indices of shape .* needs 32 bytes of storage, has 0",
    ),
    (
        lambda: _C.relu(hollow(torch.ones(8, 8)[:, ::2])),
        tg.ShapeError,
        "relu: input of shape .* bytes of storage, has 0",
    ),
    (
        lambda: _C.max_pool2d(torch.ones(1, 4, 4), (2**62, 2), (1, 1), (0, 0), (2**62, 1), False),
        tg.ShapeError,
        r"max_pool2d: kernel_size\[0\] must be from 1 to 2147483647",
    ),
    (lambda: _C.place([(2**62, 0, 1), (2**62, 0, 1)]), ValueError, "place: more bytes than int64 counts"),
    (lambda: executor()[0].add_arena(250, 12), ValueError, "12 bytes from 250 on are not in an arena of 256"),
    (lambda: executor()[0].view(2, torch.float32, 1, [3], [1]), ValueError, "needs 16 bytes of slot 2, which has 12"),
    (lambda: executor()[0].view(2, torch.float32, 0, [3], [2**62]), ValueError, "a view of sizes"),
    (lambda: executor()[0].view(7, torch.float32, 0, [3], [1]), IndexError, "7"),
    (lambda: executor()[0].add_kernel("relu", (torch.ones(3),), []), ValueError, "has 1 results; got places for 0"),
    (lambda: executor()[0].add_result(torch.ones(3), 0), ValueError, "a result must be a view of a slot"),
    (lambda: executor()[0].add_dynamic(0, 5, 0, 0, 0), ValueError, "for call 5 of 1"),
    (lambda: executor()[0].step([torch.ones(4)], [], [], [], [], []), ValueError, "not laid out as those recorded"),
    (
        lambda: executor()[0].step([hollow(torch.ones(3))], [], [], [], [], []),
        ValueError,
        "not laid out as those recorded",
    ),
    (lambda: executor()[0].run([], None, 1, 0, 1, torch.ones(1), [], [], len), ValueError, "not laid out"),
    (lambda: _C.Guards().add(4, {}, None, 5, False), ValueError, "no guard of kind 4 has such a value"),
    (lambda: _C.Guards().add(99, {}, None, 5, False), ValueError, "no guard of kind 99"),
    (lambda: _C.relu(hollow(torch.ones(3)), 5), TypeError, "Invoked with: <Tensor>, 5"),  # torch would read its memory
    (lambda: _C.Guards().add([hollow(torch.ones(3))]), TypeError, "Invoked with: <tapegrad._C.Guards>, <list>"),
    (lambda: _C.Lanes(8).add_program(None, [], torch.ones(8)), ValueError, "a program is an executor"),
    (lambda: _C.Before().memory(hollow(torch.zeros(8, dtype=torch.uint8))), tg.ShapeError, "8 bytes of storage, has 0"),
    (lambda: unlocked()._alone(len, []), AttributeError, "_lock"),
]


@pytest.mark.parametrize(("call", "error", "message"), WRONG)
def test_wrong_calls_say_what_is_wrong(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_a_program_whose_memory_is_gone_does_not_run():
    e, x, w, _, _ = executor()
    assert e.step([x], [], [], [], [], [])[0].tolist() == [2, 2, 2]
    w.untyped_storage().resize_(0)
    assert not e.in_place()
    with pytest.raises(ValueError, match="the memory of a tensor is not where it was"):
        e.step([x], [], [], [], [], [])


def test_views_outlive_their_executor():
    e, x, w, views, out = executor()
    e.step([x], [], [], [], [], [])
    del e, w
    gc.collect()
    assert out.tolist() == [2, 2, 2]
    assert views[1].tolist() == [2, 2, 2]
    with pytest.raises(tg.ShapeError, match=r"relu: input of shape \[3\] needs 12 bytes of storage, has 0"):
        _C.relu(views[0])  # an argument's memory is the caller's


def test_guards_are_not_changed_while_they_are_checked():
    guards, said = _C.Guards(), []

    def ask(container):
        with pytest.raises(RuntimeError, match="they are being checked"):
            guards.add(0, [1], 0, 1, True)
        said.append(container)

    guards.add(5, [1], ask, None, False)
    assert guards.check() == -1
    assert said == [[1]]


def test_the_fuzzer_knows_every_function():
    stub = ast.parse(Path(_C.__file__).with_name("_C.pyi").read_text())
    names = {node.name for node in stub.body if isinstance(node, ast.FunctionDef)}
    names |= {t.id for node in stub.body if isinstance(node, ast.Assign) for t in node.targets} - {"_Pair"}
    calls = fuzz_bindings.Case("0:0", None).good_calls()
    assert {n for n in names if callable(getattr(_C, n))} == {*calls, *fuzz_bindings.FOR_GOOD}


def test_good_calls_are_good():
    for name, arguments in fuzz_bindings.Case("0:0", None).good_calls().items():
        getattr(_C, name)(*arguments)
        fuzz_bindings.Case.restore(name)


def test_no_wrong_call_ends_the_process():
    assert list(fuzz_bindings.findings(seed=0, cases=200)) == []
