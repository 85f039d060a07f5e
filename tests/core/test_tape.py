"""The tape as plain data, what this thread records, and finding the entry that made a NaN."""

import _thread
import json
import re
import sys
import threading
import time

import numpy as np
import pytest
import torch

import tapegrad as tg


def leaf(values, dtype=torch.float64):
    return tg.tensor(values, dtype=dtype, requires_grad=True)


# --- the list ----------------------------------------------------------------------------------------------------


def test_backward_needs_no_tape():
    x = leaf([1.0, 2.0, 3.0])
    (x * x).sum().backward()
    assert x.grad.tolist() == [2.0, 4.0, 6.0]


def test_a_printed_line_holds_slot_op_inputs_type_size_and_source():
    x = leaf(torch.randn(25, 25), torch.float32)
    with tg.Tape() as tape:
        y = tg.relu(x @ x)  # the source line that is looked for
        y.mean()
    lines = [re.sub(r"  +", "  ", line) for line in str(tape).splitlines()]
    here = next(i for i, line in enumerate(open_here(), 1) if "# the source line" in line)
    assert lines == [
        "%0 = leaf  f32[25, 25]",
        f"%1 = matmul(%0, %0)  f32[25, 25]  2.5 kB  test_tape.py:{here}",
        f"%2 = relu(%1)  f32[25, 25]  2.5 kB  test_tape.py:{here}",
        f"%3 = mean(%2)  f32[]  4 B  test_tape.py:{here + 1}",
    ]


def open_here():
    with open(__file__) as file:
        return file.readlines()


def test_printed_columns_line_up():
    x = leaf(torch.randn(3, 4))
    with tg.Tape() as tape:
        tg.softmax(x.reshape(2, 6), dim=1).sum(0, keepdim=True)
    lines = str(tape).splitlines()[1:]
    assert len({line.index("f64[") for line in lines}) == 1
    assert len({line.index("test_tape.py") for line in lines}) == 1


def test_parameters_are_printed_where_they_are_given():
    x = leaf(torch.randn(2, 6))
    with tg.Tape() as tape:
        x.sum(1, keepdim=True)
        tg.where(torch.ones(2, 6) > 0, x, 0.5)
        x[tg.tensor([0, 1, 1])]
    text = str(tape)
    assert "sum(%0, dim=1, keepdim=True)" in text
    assert "where(bool[2, 6], %0, 0.5)" in text
    assert "getitem(%0, i64[3])" in text


def test_an_entry_is_plain_data():
    x, w = leaf(torch.randn(2, 3)), leaf(torch.randn(4, 3))
    with tg.Tape() as tape:
        y = x @ w.T
        parts = y.split([1, 3], dim=1)
    permute, matmul, split = tape
    assert len(tape) == 3
    assert tape[1] is matmul
    assert matmul.op.name == "matmul"
    assert matmul.inputs[1] == permute.output
    assert matmul.shape == (2, 4)
    assert matmul.dtype is torch.float64
    assert matmul.nbytes == 2 * 4 * 8
    assert torch.equal(matmul.saved["input"], x.data)
    assert torch.equal(matmul.saved["other"], w.data.T)
    assert split.output == ((split.seq, 0), (split.seq, 1))
    assert [tuple(shape) for shape in split.shape] == [tuple(part.shape) for part in parts]
    assert split.params["dim"] == 1
    assert matmul.source.startswith("test_tape.py:")


def test_an_evaluator_in_fifteen_lines_gives_the_recorded_values():
    """House rule 2: the tape is data, anyone can evaluate it."""
    x, w = leaf(torch.randn(2, 3)), leaf(torch.randn(3, 5))
    with tg.Tape() as tape:
        loss = tg.softmax(tg.tanh(x @ w), dim=1).square().sum(0, keepdim=True).mean()
    slot_of_x, slot_of_w = tape[0].inputs
    values = {slot_of_x: x.data, slot_of_w: w.data}
    for entry in tape:
        values[entry.output] = entry.op.forward(*(values[i] for i in entry.inputs), **entry.params)
    assert torch.equal(values[tape[-1].output], loss.data)


def test_nothing_is_recorded_for_constants_or_outside_the_block():
    x = leaf([1.0])
    tape = tg.Tape()
    with tape:
        tg.exp(tg.ones(2))
        with tg.no_grad():
            x * 2
    assert len(tape) == 0
    assert str(tape) == "(empty tape)"
    x * 2
    assert len(tape) == 0


def test_tapes_nest_and_close_on_an_exception():
    x = leaf([1.0])
    inner = tg.Tape()

    def fail():
        with inner:
            tg.exp(x)
            raise KeyError("inside")

    with tg.Tape() as outer:
        tg.exp(x)
        with pytest.raises(KeyError, match="inside"):
            fail()
        tg.exp(x)
    tg.exp(x)
    assert (len(outer), len(inner)) == (3, 1)


def test_tape_backward_is_the_loss_backward():
    x, other = leaf([1.0, 2.0]), leaf([3.0])
    with tg.Tape() as tape:
        loss = (x**3).sum()
    before = len(str(tape).splitlines())
    tape.backward(loss)
    assert x.grad.tolist() == [3.0, 12.0]
    assert len(str(tape).splitlines()) == before  # still printable after its values were released
    assert all(not entry.saved for entry in tape)
    with pytest.raises(tg.TapeError, match=r"Tape\.backward: loss was not recorded on this tape"):
        tape.backward((other * 2).sum())


def test_validate_accepts_what_was_recorded_and_names_the_line_that_breaks_a_rule():
    x = leaf(torch.randn(3, 4))
    with tg.Tape() as tape:
        first, second = tg.tanh(x).chunk(2, dim=1)
        (first * second + tg.cat([first, second], dim=1)[:, :2]).sum()
    tape.validate()
    tape.entries.append(tape[0])
    with pytest.raises(tg.TapeError, match=r"line \d+: .*tanh.* a second time"):
        tape.validate()
    tape.entries.pop()
    tape.entries.reverse()
    with pytest.raises(tg.TapeError, match=r"line 0: .*sum.* reads %\d+ before it is made"):
        tape.validate()
    tape.entries.reverse()
    tape[0].env[tape[0].op.environment.index("out")] = torch.zeros(7)
    with pytest.raises(tg.TapeError, match=r"line 0: .*tanh.* saved f32\[7\] for its output"):
        tape.validate()


def test_to_json_is_the_list_in_the_numbers_that_print_shows():
    x = leaf(torch.randn(3, 4))
    with tg.Tape() as tape:
        first, second = x.chunk(2, dim=1)
        (first * second).sum(0)
    chunk, mul, total = json.loads(tape.to_json())
    assert (chunk["op"], chunk["inputs"], chunk["output"]) == ("chunk", [0], [1, 2])
    assert (mul["op"], mul["inputs"], mul["output"], mul["shape"]) == ("mul", [1, 2], 3, [3, 2])
    assert (total["params"]["dim"], total["dtype"], total["nbytes"]) == (0, "float64", 16)
    assert total["source"].startswith("test_tape.py:")
    assert "%3 = mul(%1, %2)" in str(tape)


def test_to_json_and_to_dot_take_every_kind_of_parameter():
    x = leaf(torch.randn(3, 4))
    with tg.Tape() as tape:
        x[..., None, torch.tensor([0, 1])]
        x[x.data > 0]
        tg.dropout(x, 0.5)
        x.sum(dtype=torch.float32)
        x.to(torch.float32)
        tg.masked_fill(x, x.data > 0, float("-inf"))
    assert [line["op"] for line in json.loads(tape.to_json())] == [entry.op.name for entry in tape]
    assert tape.to_dot().count("shape=box") == len(tape)


def test_to_dot_draws_every_entry_and_every_edge():
    x = leaf(torch.randn(3, 4))
    with tg.Tape() as tape:
        (tg.exp(x) * x).sum()
    dot = tape.to_dot()
    assert dot.startswith("digraph")
    assert dot.count("shape=box") == 3
    assert dot.count("shape=ellipse") == 1
    assert dot.count("->") == 4
    assert "f64[3, 4]" in dot


# --- what this thread records ------------------------------------------------------------------------------------


def recorded():
    return (leaf([1.0]) * 2).requires_grad


def test_no_grad_and_enable_grad_nest_and_survive_exceptions():
    assert tg.is_grad_enabled()
    with tg.no_grad():
        assert not recorded()
        with tg.enable_grad():
            assert recorded()
            with pytest.raises(ValueError, match="inside"), tg.no_grad():
                raise ValueError("inside")
            assert recorded()
        assert not recorded()
    assert recorded()
    assert tg.is_grad_enabled()


@pytest.mark.parametrize(
    "decorate",
    [tg.no_grad, lambda f: tg.no_grad()(f), lambda f: tg.set_grad_enabled(False)(f)],
    ids=["no_grad", "no_grad()", "set_grad_enabled(False)"],
)
def test_switches_are_decorators_with_and_without_parentheses(decorate):
    @decorate
    def quiet(count):
        """Its docstring."""
        return recorded() if count == 0 else quiet(count - 1)

    assert quiet.__name__ == "quiet"
    assert quiet.__doc__ == "Its docstring."
    assert quiet(2) is False
    assert recorded()


def test_enable_grad_is_a_decorator():
    with tg.no_grad():
        assert tg.enable_grad()(recorded)() is True
        assert tg.enable_grad(recorded)() is True
        assert not recorded()


def test_set_grad_enabled_acts_at_once_and_for_its_block():
    with tg.set_grad_enabled(False):
        assert not recorded()
    assert recorded()
    tg.set_grad_enabled(False)
    try:
        assert not recorded()
        with tg.set_grad_enabled(True):
            assert recorded()
        assert not tg.is_grad_enabled()
    finally:
        tg.set_grad_enabled(True)


def test_one_switch_object_can_be_entered_twice():
    switch = tg.no_grad()
    with switch, switch:
        assert not recorded()
    assert recorded()


def test_a_decorated_generator_runs_under_its_switch_and_leaves_the_callers_alone():
    @tg.no_grad()
    def values():
        yield recorded()
        yield recorded()

    outside = []
    inside = []
    for value in values():
        inside.append(value)
        outside.append(recorded())
    assert inside == [False, False]
    assert outside == [True, True]


def test_grad_mode_and_open_tapes_belong_to_one_thread():
    seen = {}
    x = leaf([1.0])

    def other():
        seen["recorded"] = recorded()
        tg.set_grad_enabled(False)
        x * 3

    with tg.no_grad(), tg.Tape() as tape:
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        assert len(tape) == 0
    assert seen["recorded"]
    assert recorded()


def test_torch_no_grad_has_no_effect():
    with torch.no_grad():
        x = leaf([3.0])
        (x * x).sum().backward()
    assert x.grad.item() == 6.0


# --- threads -----------------------------------------------------------------------------------------------------


def train(seed, steps=30):
    """Losses and weights of a small network after some steps of its own."""
    numbers = np.random.default_rng(seed)
    x, y = (tg.tensor(numbers.standard_normal(shape), dtype=torch.float32) for shape in ((20, 4), (20, 2)))
    shapes = ((4, 8), (8,), (8, 2), (2,))
    weights = [leaf(numbers.standard_normal(s) * 0.3, torch.float32) for s in shapes]
    losses = []
    for _ in range(steps):
        w1, b1, w2, b2 = weights
        loss = tg.mse_loss(tg.tanh(x @ w1 + b1) @ w2 + b2, y)
        loss.backward()
        losses.append(loss.item())
        with tg.no_grad():
            for w in weights:
                w -= w.grad * 0.1
                w.grad = None
    return losses, [w.data for w in weights]


def test_threads_that_train_their_own_models_get_the_serial_bits():
    serial = [train(seed) for seed in range(3)]
    results = {}
    threads = [threading.Thread(target=lambda s=seed: results.update({s: train(s)})) for seed in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed, (losses, weights) in enumerate(serial):
        assert results[seed][0] == losses
        assert all(torch.equal(a, b) for a, b in zip(results[seed][1], weights, strict=True))
    assert serial[0][0][-1] < serial[0][0][0]


# --- detect_anomaly ----------------------------------------------------------------------------------------------


def test_anomaly_names_the_forward_entry_that_made_a_nan():
    x = leaf([[1.0, 4.0], [2.0, -1.0]])
    with tg.detect_anomaly(), pytest.raises(tg.NonFiniteError) as caught:
        tg.log(x * 2).sum().backward()
    assert re.search(r"log: output f64\[2, 2\] is nan at index \[1, 1\].*test_tape.py:\d+", str(caught.value))
    assert x.grad is None


def test_anomaly_names_the_backward_entry_that_made_an_infinity():
    x = leaf([1.0, 0.0])
    loss = tg.sqrt(x * 3).sum()
    with (
        tg.detect_anomaly(),
        pytest.raises(tg.NonFiniteError, match=r"sqrt: gradient .*f64\[2\] is inf at index \[1\]"),
    ):
        loss.backward()
    assert x.grad is None


def test_anomaly_ends_with_its_block_and_belongs_to_its_thread():
    x = leaf([-1.0])
    with pytest.raises(tg.NonFiniteError), tg.detect_anomaly():
        tg.log(x)
    assert tg.log(x).isnan().item()
    with tg.detect_anomaly():
        results = []
        thread = threading.Thread(target=lambda: results.append(tg.log(x)))
        thread.start()
        thread.join()
    assert results[0].isnan().item()


def test_without_anomaly_detection_nan_passes_through():
    x = leaf([-1.0, 1.0])
    loss = (tg.log(x) * x).sum()
    loss.backward()
    assert loss.isnan().item()
    assert x.grad.isnan().tolist() == [True, False]
    assert x.grad[1].item() == 1.0


def test_an_op_without_a_caller_in_python_is_recorded(monkeypatch):
    failed = []
    monkeypatch.setattr(sys, "unraisablehook", failed.append)
    x, made = tg.tensor([1.0, 2.0], requires_grad=True), []

    @tg.op(x=lambda g: g, name="without_a_caller")
    def mark(x):
        made.append(x.clone())
        return made[0]

    before = _thread._count()
    with tg.Tape():  # of this thread
        _thread.start_new_thread(mark, (x,))
        while not made or _thread._count() > before:
            time.sleep(0.001)
    assert not failed
    assert mark(x).requires_grad


def test_entries_may_go_while_an_exception_passes():
    x = tg.ones(2, requires_grad=True)
    with pytest.raises(ZeroDivisionError):
        tg.exp(x * 2) * (1 / 0)  # the left side is freed on the way out
    with pytest.raises(ZeroDivisionError):
        [x * 2, (x * 3).T, 1 / 0]
    assert (x * 2).tolist() == [2.0, 2.0]
