"""What a compiled step cannot do is refused while it is recorded: with the line, the reason, and nothing changed."""

from __future__ import annotations

import functools
import gc
import inspect
import random
import threading
import time
import types
import warnings

import numpy as np
import pytest
import torch
from compile_checks import assert_same_script, batch, mlp, replays, state, training_step

import tapegrad as tg
from tapegrad import nn
from tapegrad.core import CompileError
from tapegrad.nn import functional as F

LOG: list[int] = []
COUNT = 0
NUMBERS = iter(())


def call_four_times(step, *arguments):
    for _ in range(4):
        step(*arguments)


# --- a value is read into Python ---------------------------------------------------------------------------------


def in_thread(x):
    found = []
    thread = threading.Thread(target=lambda: found.append(x * 2))
    thread.start()
    thread.join()
    return found[0]


def swallowed(x):
    try:
        return x * x.sum().item()
    except RuntimeError:
        return x


READS = {
    "item": (lambda x: x * x.sum().item(), "reads a value into Python"),
    "bool": (lambda x: x * bool(x.sum() > 0), "reads a value into Python"),
    "branch": (lambda x: x * 2 if x.sum() > 0 else x, "reads a value into Python"),
    "float": (lambda x: x * float(x.sum()), "reads a value into Python"),
    "int": (lambda x: x * int(x.sum()), "reads a value into Python"),
    "index": (lambda x: [1.0, 2.0, 3.0, 4.0][x.long().sum()] * x, "reads a value into Python"),
    "max of Python": (lambda x: max(x[0], x[1]), "reads a value into Python"),
    "torch.equal": (lambda x: x * torch.equal(x.data, x.data), "reads a value into Python"),
    "allclose": (lambda x: x * torch.allclose(x.data, x.data), "reads a value into Python"),
    "swallowed": (swallowed, "reads a value into Python"),
    "tolist": (lambda x: x * x.tolist()[0], r"tolist\(\) takes a value out"),
    "str": (lambda x: x * len(str(x)), r"a tensor is made into text"),
    "f-string": (lambda x: x * len(f"{x}"), r"a tensor is made into text"),
    "numpy": (lambda x: x * np.sin(x.numpy()), r"numpy\(\) takes a value out"),
    "asarray": (lambda x: x * np.asarray(x), r"numpy\(\) takes a value out"),
    "NumPy function": (lambda x: tg.as_tensor(np.exp(x.data)), r"numpy\(\) takes a value out"),
    "data_ptr": (lambda x: x * (x.data.data_ptr() % 7), r"data_ptr\(\) takes a value out"),
    "dlpack": (lambda x: x * np.from_dlpack(x), r"__dlpack__\(\) takes a value out"),
    "print": (lambda x: print(x), r"print\(\) is a side effect"),
    "print of a text": (lambda x: print("step") or x, r"print\(\) is a side effect"),
    "thread": (in_thread, "a thread is started"),
    "mask": (lambda x: x[x > 0], "boolean mask has an output whose shape depends on values; use tg.where"),
    "nonzero": (lambda x: torch.nonzero(x.data), "an output whose shape depends on values"),
    "unique": (lambda x: torch.unique(x.data), "an output whose shape depends on values"),
    "one_hot": (lambda x: F.one_hot(x.long()), "reads a value into Python"),
    "storage": (lambda x: x.data.set_(torch.ones(2)), "changes a tensor's storage"),
    "resize": (lambda x: x.data.clone().resize_(3), "changes a tensor's storage"),
    "torch.rand": (lambda x: x * torch.rand(2), "draws from torch's generator; use tg.rand"),
    "torch dropout": (lambda x: torch.nn.functional.dropout(x.data), "draws from torch's generator; use tg.rand"),
    "manual_seed": (lambda x: tg.manual_seed(0) and x, r"manual_seed\(\) inside the step"),
}


@pytest.mark.parametrize("name", READS)
def test_what_takes_a_value_out_of_sight(name):
    function, reason = READS[name]
    step = tg.compile(function)
    line = inspect.getsourcelines(function)[1]
    x = tg.tensor([1.0, 2.0])
    with pytest.raises(CompileError, match=rf"compile: test_compile_refusals.py:\d+: .*{reason}") as caught:
        call_four_times(step, x)
    at = int(str(caught.value).split(":")[2])
    assert line <= at < line + 8
    assert not step.programs
    assert x.tolist() == [1.0, 2.0]


def test_a_refused_text_leaves_torch_as_it_was():
    """torch switches its function transforms off while it makes the text of a tensor."""
    for function in (str, lambda x: str(x.data), "{}".format):
        with pytest.raises(CompileError) as caught:
            tg.compile(function)(tg.ones(2))
        assert torch.equal(torch.func.vmap(torch.sin)(torch.ones(2)), torch.ones(2).sin())
        assert torch.equal(torch.func.grad(lambda x: x * x)(torch.tensor(3.0)), torch.tensor(6.0)), str(caught.value)


def test_a_users_op_that_goes_through_numpy():
    @tg.op(x=lambda g, x: g * x.cos())
    def sine_by_numpy(x):
        return torch.from_numpy(np.sin(x.numpy()))

    with pytest.raises(CompileError, match=r"test_compile_refusals.py:\d+: numpy\(\) takes a value out"):
        tg.compile(sine_by_numpy)(tg.ones(2))


# --- two calls do not do the same --------------------------------------------------------------------------------

CHANGING = {
    "random": (lambda x: x * random.random(), "draws from Python's or NumPy's generator"),
    "clock": (lambda x: x * time.perf_counter(), r"time.perf_counter\(\) differs from call to call"),
    "iterator": (lambda x: x * next(NUMBERS), r"argument 1 was \d in the first recorded call, \d in the second"),
    "tensor": (lambda x: x * tg.tensor([1.0, next(NUMBERS)]), "a tensor f32.2. made from Python values .* differs"),
    "array": (lambda x: x * np.full(2, next(NUMBERS)), "a tensor i64.2. made from Python values .* differs"),
    "branch": (lambda x: x.sin() if next(NUMBERS) % 2 else x.cos(), "ran in the first .* in the second .a branch"),
    "longer": (lambda x: x.sin() if next(NUMBERS) % 2 else x.sin() + 1, "ran in only one of two recorded calls"),
    "shape": (lambda x: tg.zeros(next(NUMBERS)), "in the first recorded call, .* in the second"),
    "returned number": (lambda x: (x * 2, next(NUMBERS)), r"returned .* \d\) in the first .* \d\) in the second"),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGING)
def test_two_recorded_calls_that_differ(name):
    global NUMBERS
    NUMBERS = iter(range(1, 99))
    function, reason = CHANGING[name]
    step = tg.compile(function)
    with pytest.raises(CompileError, match=reason):
        call_four_times(step, tg.ones(2))
    assert not step.programs


# --- side effects ------------------------------------------------------------------------------------------------


class Counter:
    total = 0

    def __init__(self):
        self.count = 0

    def step(self, x):
        self.count += 1
        return x * 2


def side_effects():
    global COUNT
    COUNT = 0
    LOG.clear()
    n, last, seen, kept, kinds = 0, {"loss": None}, [0], [], {0}
    push, add, space, counter = kept.append, functools.partial(LOG.append, 1), types.SimpleNamespace(n=0), Counter()

    def of_global(x):
        global COUNT
        COUNT += 1

    def of_nonlocal(x):
        nonlocal n
        n += 1

    def of_function(x):
        of_function.calls += 1

    of_function.calls = 0

    def of_class(x):
        Counter.total += 1

    def of_default(x, known=[]):  # noqa: B006
        known.append(1)

    def of_hook(x):
        w = tg.ones(2, requires_grad=True)
        w.register_hook(lambda g: LOG.append(1))
        (w * x).sum().backward()

    return {
        "global": (of_global, "changes COUNT,"),
        "nonlocal": (of_nonlocal, "changes n,"),
        "append": (lambda x: LOG.append(1), r"changes len\(LOG\),"),
        "append a tensor": (lambda x: LOG.append(x.sum()), r"changes len\(LOG\),"),
        "item": (lambda x: seen.__setitem__(0, seen[0] + 1), r"changes seen\[0\],"),
        "dict": (lambda x: last.update(loss=(last["loss"] or 0) + 1), r"changes last\['loss'\],"),
        "set": (lambda x: kinds.add(len(kinds)), "changes .*kinds"),
        "set of the same length": (lambda x: kinds.add(kinds.pop() + 1), "changes kinds"),
        "namespace": (lambda x: setattr(space, "n", space.n + 1), "changes space.n,"),
        "self": (counter.step, "changes step.count,"),
        "function": (of_function, r"changes of_function.calls,"),
        "class": (of_class, "changes Counter.total,"),
        "bound append": (lambda x: push(1), r"changes len\(push\),"),
        "partial": (lambda x: add(), r"changes len\("),
        "default": (of_default, "changes len"),
        "hook": (of_hook, "changes len"),
    }


@pytest.mark.parametrize("name", side_effects())
def test_side_effects_are_refused_by_path(name):
    function, path = side_effects()[name]
    step = tg.compile(function)
    with pytest.raises(CompileError, match=path):
        call_four_times(step, tg.ones(2))


def test_changing_a_list_or_dict_that_is_an_argument():
    for function, argument in ((lambda d: d.update(y=d["x"] * 2), {"x": tg.ones(2)}), (list.reverse, [tg.ones(2), 1])):
        with pytest.raises(CompileError, match="changes a list or dict among its arguments"):
            tg.compile(function)(argument)


def test_a_schedule_inside_the_step():
    model, optimizer = mlp()
    inner, schedule = training_step(model, optimizer), tg.optim.lr_scheduler.StepLR(optimizer, 1)

    def step(x, y):
        loss = inner(x, y)
        schedule.step()
        return loss

    step = tg.compile(step)
    with pytest.raises(CompileError, match="step changes the optimizer's lr; change it between"):
        call_four_times(step, *batch())


def test_grad_mode_left_changed():
    step = tg.compile(lambda x: tg.set_grad_enabled(False) and x)
    try:
        with pytest.raises(CompileError, match="grad mode or the default dtype differs after the step"):
            step(tg.ones(2))
    finally:
        tg.set_grad_enabled(True)


# --- arguments and results ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value", [{1, 2}, iter([1]), np.ones(2), nn.Identity(), torch.float32, Counter()], ids=lambda v: type(v).__name__
)
def test_results_that_a_replay_cannot_make(value):
    with pytest.raises(CompileError, match=f"the step returns a {type(value).__name__}; it can return tensors"):
        tg.compile(lambda x: value)(tg.ones(2))


def test_a_result_that_could_still_be_differentiated():
    """A replay could not offer its graph: gradients would stop there."""
    layer = nn.Linear(3, 2)
    with pytest.raises(CompileError, match=r"could still be differentiated.*return value.detach\(\)"):
        tg.compile(layer, fullgraph=True)(tg.ones(1, 3))
    with pytest.raises(CompileError, match=r"gradient left in .grad was recorded with create_graph=True; detach it"):
        tg.compile(lambda x: layer(x).exp().sum().backward(create_graph=True))(tg.ones(1, 3))


def test_arguments_that_a_program_cannot_take():
    step = tg.compile(lambda *values: values[0] * 2)
    w = tg.ones(4, requires_grad=True)
    with pytest.raises(CompileError, match=r"argument 0 is the recorded output of an op; pass x.detach\(\)"):
        step(w * 2)
    with pytest.raises(CompileError, match=r"argument 1\[0\] is a Counter; expected tensors, arrays, numbers, strings"):
        step(w, [Counter()])
    with pytest.raises(CompileError, match="argument 1 overlaps the memory of an argument before it; pass a clone"):
        step(w.detach()[:3], w.detach()[1:])


def test_a_method_compiled_in_its_class():
    class Model:
        @tg.compile
        def step(self, x):
            return x

    with pytest.raises(CompileError, match=r"step is a method; .*self.step = tg.compile\(self.step\)"):
        Model().step(tg.ones(1))
    with pytest.raises(TypeError, match="model must be a function or a module; got int"):
        tg.compile(3)
    with pytest.raises(ValueError, match="cache_size must be at least 1; got 0"):
        tg.compile(cache_size=0)


# --- nothing is left behind --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fails", "call"),
    [*((fails, call) for fails in ("step", "interrupt") for call in range(4)), ("refused", 0), ("refused", 1)],
)
def test_an_exception_in_the_middle_leaves_nothing(call, fails):
    """After update, buffers, gradients and random numbers: in either recorded call, and after replays."""
    tg.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2))
    optimizer = tg.optim.Adam(model.parameters())
    inner = training_step(model, optimizer)

    def step(x, y, fail):
        loss = inner(x, y)
        if fail == "step":
            raise LookupError("on purpose")
        if fail == "refused":
            loss.item()
        if fail == "interrupt":
            raise KeyboardInterrupt
        return loss

    step = tg.compile(step)
    for i in range(call):
        step(*batch(seed=i), "")
    gradients = [p.grad for p in model.parameters()]
    before = state([model], [optimizer])
    error = {"step": LookupError, "refused": CompileError, "interrupt": KeyboardInterrupt}[fails]
    with pytest.raises(error):
        step(*batch(), fails)
    assert state([model], [optimizer]) == before
    assert all(p.grad is g for p, g in zip(model.parameters(), gradients, strict=True))


def test_the_step_can_be_mended_after_a_refusal():
    flag = [True]
    step = tg.compile(lambda x: x * x.sum().item() if flag[0] else x * 2)
    with pytest.raises(CompileError):
        step(tg.ones(2))
    flag[0] = False
    assert [step(tg.full((2,), float(i))).tolist() for i in range(4)] == [[2.0 * i] * 2 for i in range(4)]
    assert len(step.programs) == 1


def test_warnings_of_the_step_come_while_it_is_recorded():
    def step(x):
        warnings.warn("hello", UserWarning, stacklevel=1)
        return x * 2

    step = tg.compile(step)
    with pytest.warns(UserWarning, match="hello"):
        step(tg.ones(1))


# --- what is not the step's --------------------------------------------------------------------------------------


def test_callbacks_of_the_garbage_collector_are_no_part_of_a_step():
    seen = []

    def callback(phase, info):  # hypothesis has one like it
        seen.append(time.perf_counter())

    @tg.compile
    def step(x):
        made = [[i] for i in range(100)]
        return x * len(made)

    thresholds = gc.get_threshold()
    gc.callbacks.append(callback)
    gc.set_threshold(10)
    try:
        results = [step(torch.ones(3)).tolist() for _ in range(4)]
    finally:
        gc.set_threshold(*thresholds)
        gc.callbacks.remove(callback)
    assert results == [[100.0] * 3] * 4
    assert seen
    assert gc.isenabled()


# --- what the package itself would read ---------------------------------------------------------------------------


def read_by_the_package():
    """Steps in which the user reads nothing: (step, arguments of three calls)."""
    norm = nn.BatchNorm1d(2, momentum=None)
    table = nn.Embedding(4, 3, scale_grad_by_freq=True)

    def frequencies(index):
        table.weight.grad = None
        (table(index) ** 2).sum().backward()
        return table.weight.grad

    def rows(x, i):
        w = x.clone().requires_grad_()
        y = w * 1
        y[i] = w[0] * 3
        y[..., i] = 5.0
        (y[i, 1:] ** 2).sum().backward()
        return w.grad

    def second(x, i):
        w = x.clone().requires_grad_()
        (g,) = tg.grad((w[:, i] ** 3).sum(), w, create_graph=True)
        return tg.grad((g * g).sum(), w)[0]

    def drawn(x):
        return x * tg.rand(2, generator=tg.Generator(3))

    x, indices = tg.randn(3, 3, generator=tg.Generator(0)), [tg.tensor(i) for i in (0, 2, -1)]
    return {
        "batch_norm": (lambda x: (norm(x).detach(), norm.running_mean * 1, norm.running_var * 1), [(x[:, :2],)] * 3),
        "one_hot": (lambda y: F.one_hot(y, 3), [(tg.tensor(v),) for v in ([0, 1], [2, 1], [0, 0])]),
        "getitem": (lambda x, i: x[i] * 2, [(x, i) for i in indices]),
        "getitem of parts": (lambda x, i: x[None, ..., i] + x[i, [2, 0, 1]], [(x, i) for i in indices]),
        "setitem": (rows, [(x, i) for i in indices]),
        "second derivative": (second, [(x, i) for i in indices]),
        "embedding": (frequencies, [(tg.tensor(v),) for v in ([0, 1, 1], [2, 2, 2], [3, 0, 0])]),
        "nll_loss": (
            lambda x, y: F.nll_loss(x, y, tg.tensor([1.0, 2.0, 3.0])),
            [(x[0], tg.tensor(v)) for v in (0, 1, 2)],
        ),
        "generator": (drawn, [(tg.ones(2),)] * 3),
    }


@pytest.mark.parametrize("name", read_by_the_package())
def test_what_the_package_needs_it_does_not_read(name):
    def script(compile):
        step, calls = read_by_the_package()[name]
        step = compile(step)
        return [step(*arguments) for arguments in calls * 2]

    assert_same_script(script)
    step, calls = read_by_the_package()[name]
    step = tg.compile(step)
    for arguments in calls:
        step(*arguments)
    assert replays(step) == 1


def test_indices_out_of_bounds_are_named_by_a_replay():
    for step, good, bad in (
        (lambda x, i: x[i], tg.tensor(1), tg.tensor(3)),
        (lambda x, i: F.one_hot(i, 3), tg.tensor([1]), tg.tensor([3])),
    ):
        step = tg.compile(step)
        for _ in range(3):
            step(tg.ones(3), good)
        with pytest.raises(IndexError, match="3"):
            step(tg.ones(3), bad)


def test_a_copy_that_stands_for_a_view_is_not_taken_for_one():
    """x[i] with an index tensor is a view of x in a plain step, a copy in a compiled one."""

    def writes_x(x, i):
        y = x[i]
        x.mul_(2)
        return y + 1

    def writes_y(x, i):
        x[i].mul_(2)
        return x + 1

    for step in (writes_x, writes_y):
        with pytest.raises(CompileError, match=r"test_compile_refusals.py:\d+: x\[i\] with an index tensor"):
            tg.compile(step)(tg.ones(3), tg.tensor(1))


@pytest.mark.parametrize(
    ("name", "step"),
    {
        "one_hot": lambda y: F.one_hot(y),
        "huber_loss": lambda y: F.huber_loss(y * 1.0, y * 2.0, delta=y[0]),
        "tensor": lambda y: tg.tensor([y[0], 1.0]),
    }.items(),
)
def test_an_op_that_reads_is_named(name, step):
    with pytest.raises(CompileError, match=rf"test_compile_refusals.py:\d+: {name} reads a value into Python; give it"):
        tg.compile(step)(tg.tensor([1, 2]))


def test_a_result_that_cannot_be_returned_names_the_return():
    layer = nn.Linear(3, 2)

    def step(x):
        y = layer(x)
        if len(x) > 1:
            return {
                "loss": y.detach(),
                "output": y,
            }
        return y

    first = inspect.getsourcelines(step)[1]
    for n, line in ((2, first + 3), (1, first + 7)):
        with pytest.raises(CompileError, match=f"test_compile_refusals.py:{line}: the step returns a value that could"):
            tg.compile(step)(tg.ones(n, 3))
