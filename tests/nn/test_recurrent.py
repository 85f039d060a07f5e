"""Recurrent networks: packed sequences, second derivatives, compiled steps, initial values."""

from __future__ import annotations

import math

import pytest
import torch
from layers import floats, tensors

import tapegrad as tg
from tapegrad import nn, optim
from tapegrad.files import from_torch
from tapegrad.nn.utils import rnn

KINDS = [
    ("RNN", (3, 4), {"nonlinearity": "relu"}),
    ("RNN", (3, 4, 2), {"bidirectional": True, "batch_first": True}),
    ("GRU", (3, 4), {"bias": False}),
    ("GRU", (3, 4, 2), {"bidirectional": True}),
    ("LSTM", (3, 4), {}),
    ("LSTM", (3, 4, 2), {"bidirectional": True, "proj_size": 2, "batch_first": True}),
]
IDS = [f"{name}-{i}" for i, (name, _, _) in enumerate(KINDS)]
CELLS = [("RNNCell", {"nonlinearity": "relu"}), ("RNNCell", {}), ("GRUCell", {}), ("LSTMCell", {"bias": False})]


def assert_same(ours, theirs):
    torch.testing.assert_close(ours.data, theirs.detach(), rtol=1e-10, atol=1e-12)


def states(name: str, kwargs: dict, layers: int, n: int) -> list[torch.Tensor]:
    """States before the first step."""
    d = 2 if kwargs.get("bidirectional") else 1
    widths = [kwargs.get("proj_size", 4), 4][: 2 if name == "LSTM" else 1]
    return [floats(layers * d, n, width, seed=7 + i) for i, width in enumerate(widths)]


def given(state: list) -> object:
    return tuple(state) if len(state) > 1 else state[0]


@pytest.mark.parametrize(("lengths", "enforce"), [([5, 3, 3, 1], True), ([2, 5, 1, 5], False)], ids=["sorted", "any"])
@pytest.mark.parametrize("with_state", [False, True], ids=["zeros", "hx"])
@pytest.mark.parametrize(("name", "args", "kwargs"), KINDS, ids=IDS)
def test_packed_sequences_run_as_in_torch(name, args, kwargs, with_state, lengths, enforce):
    theirs = getattr(torch.nn, name)(*args, **kwargs).double()
    ours = from_torch(theirs)
    first = kwargs.get("batch_first", False)
    x = floats(4, 5, 3) if first else floats(5, 4, 3)
    before = states(name, kwargs, theirs.num_layers, 4) if with_state else []
    results, leaves = [], []
    for layer, leaf, packing in (
        (ours, lambda v: tg.tensor(v, requires_grad=True), rnn),
        (theirs, lambda v: v.clone().requires_grad_(), torch.nn.utils.rnn),
    ):
        inputs = [leaf(v) for v in (x, *before)]
        packed = packing.pack_padded_sequence(inputs[0], lengths, first, enforce)
        output, state = layer(packed, *([given(inputs[1:])] if with_state else []))
        padded, counts = packing.pad_packed_sequence(output, first, padding_value=0.5, total_length=6)
        out = [output.data, padded, *tensors(state)]
        sum((y * floats(*y.shape, seed=20 + i)).sum() for i, y in enumerate(out)).backward()
        results.append([*out, counts])
        leaves.append([p.grad for p in [*inputs, *layer.parameters()]])
    for side in (results, leaves):
        for y, t in zip(*side, strict=True):
            assert_same(y, t)


def test_sequences_are_padded_and_packed_as_in_torch():
    parts = [floats(k, 2, seed=k) for k in (2, 4, 1)]
    for options in ({}, {"batch_first": True, "padding_value": 7.0}, {"padding_side": "left"}):
        leaves = [tg.tensor(p, requires_grad=True) for p in parts]
        padded = rnn.pad_sequence(leaves, **options)
        assert torch.equal(padded.data, torch.nn.utils.rnn.pad_sequence(parts, **options))
        padded.sum().backward()
        assert all(torch.equal(leaf.grad.data, torch.ones_like(p)) for leaf, p in zip(leaves, parts, strict=True))
    packed = rnn.pack_sequence([tg.tensor(p) for p in parts], enforce_sorted=False)
    expected = torch.nn.utils.rnn.pack_sequence(parts, enforce_sorted=False)
    for ours, theirs in zip(packed, expected, strict=True):
        assert torch.equal(ours.data, theirs)
    assert packed.double() is packed
    assert packed.float().data.dtype is torch.float32
    assert rnn.PackedSequence(packed.data, packed.batch_sizes).sorted_indices is None
    for back in (
        rnn.unpack_sequence(packed),
        rnn.unpad_sequence(rnn.pad_sequence(parts), torch.tensor([2, 4, 1])),
        rnn.unpad_sequence(rnn.pad_sequence(parts, batch_first=True), [2, 4, 1], batch_first=True),
    ):
        assert all(torch.equal(a.data, b) for a, b in zip(back, parts, strict=True))


@pytest.mark.parametrize(("name", "args", "kwargs"), KINDS, ids=IDS)
def test_second_derivatives_of_sequences(name, args, kwargs):
    tg.manual_seed(0)
    layer = getattr(nn, name)(2, 4, **kwargs).double()
    keys = [key for key, _ in layer.named_parameters() if not key.endswith("_reverse")]
    weights = [tg.tensor(getattr(layer, key).data, requires_grad=True) for key in keys]
    inputs = [tg.tensor(v, requires_grad=True) for v in (floats(3, 2), *(s[:, 0] for s in states(name, kwargs, 1, 1)))]

    def run(x, *rest):
        state, parameters = rest[: len(inputs) - 1], rest[len(inputs) - 1 :]
        vars(layer).update(zip(keys, parameters, strict=True))  # what is checked stands for the parameters
        return tuple(tensors(layer(x, given(state))))

    assert tg.gradcheck(run, [*inputs, *weights])
    assert tg.gradgradcheck(lambda *values: run(*values[: len(inputs)], *weights), inputs)
    assert tg.gradgradcheck(lambda hh: run(*inputs, weights[0], hh, *weights[2:]), weights[1:2])


@pytest.mark.parametrize(("name", "args", "kwargs"), KINDS, ids=IDS)
def test_compiled_steps_are_eager_ones_bit_for_bit(name, args, kwargs):
    results = []
    for compiled in (False, True):
        tg.manual_seed(0)
        layer = getattr(nn, name)(*args, dropout=0.3 if len(args) > 2 else 0.0, **kwargs)
        optimizer = optim.Adam(layer.parameters(), lr=0.01)

        def step(x, lengths=None, layer=layer, optimizer=optimizer):
            optimizer.zero_grad()
            packed = x if lengths is None else rnn.pack_padded_sequence(x, lengths, enforce_sorted=False)
            output, state = layer(packed)
            out = output if lengths is None else rnn.pad_packed_sequence(output)[0]
            loss = (out**2).mean() + sum((s**2).mean() for s in tensors(state))
            loss.backward()
            optimizer.step()
            return loss

        run = tg.compile(step) if compiled else step
        losses = [run(floats(4, 3, 3, seed=i).float()).item() for i in range(5)]
        losses += (
            [run(floats(4, 4, 3, seed=i).float(), [4, 1, 2, 3]).item() for i in range(4)]
            if not layer.batch_first
            else []
        )
        results.append((losses, [p.data for p in layer.parameters()]))
    assert results[0][0] == results[1][0]
    for a, b in zip(results[0][1], results[1][1], strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(("name", "kwargs"), CELLS)
def test_a_loop_over_cells_is_the_layer(name, kwargs):
    tg.manual_seed(0)
    cell = getattr(nn, name)(3, 4, dtype=tg.float64, **kwargs)
    layer = getattr(nn, name.removesuffix("Cell"))(3, 4, dtype=tg.float64, **kwargs)
    layer.load_state_dict({f"{key}_l0": value for key, value in cell.state_dict().items()})
    x, state = floats(5, 2, 3), None
    for row in x:
        state = cell(row, state)
    output, last = layer(x)
    for a, b in zip(tensors(state), tensors(last), strict=True):
        assert_same(a, b.data[0])
    assert_same(tensors(state)[0], output.data[-1])


def test_one_entry_is_recorded_for_each_layer_and_direction():
    layer, cell = nn.LSTM(3, 4, 2, bidirectional=True), nn.LSTMCell(3, 4)
    with tg.Tape() as tape:
        layer(tg.randn(10, 2, 3))
    assert [entry.op.name for entry in tape].count("recurrent") == 4
    with tg.Tape() as tape:
        layer(tg.randn(50, 2, 3))
    assert "'LSTM', [2, 2, 2, ... 50 in all], True)" in str(tape)
    with tg.Tape() as tape:
        cell(tg.randn(2, 3), cell(tg.randn(2, 3)))
    assert [entry.op.name for entry in tape] == ["recurrent"] * 2


@pytest.mark.parametrize("name", ["RNN", "GRU", "LSTM"])
def test_any_layout_and_extent_gives_torchs_gradients(name):
    for shape, first in (((4, 0, 3), False), ((1, 2, 3), False), ((2, 6, 3), True), ((9, 3), False)):
        theirs = getattr(torch.nn, name)(3, 5, 2, batch_first=first, bidirectional=True).double()
        ours = from_torch(theirs)
        x = floats(*shape, 2)[..., 1]  # with gaps
        n = shape[:0] if len(shape) == 2 else (shape[0 if first else 1],)
        before = [floats(4, *n, 5, seed=9 + i) for i in range(2 if name == "LSTM" else 1)]
        sides = []
        for layer, leaf in (
            (ours, lambda v: tg.tensor(v, requires_grad=True)),
            (theirs, lambda v: v.clone().requires_grad_()),
        ):
            inputs = [leaf(x), *(leaf(b) for b in before)]
            output, state = layer(inputs[0], given(inputs[1:]))
            out = [output, *tensors(state)]
            sum((y * floats(*y.shape, seed=20 + i)).sum() for i, y in enumerate(out)).backward()
            sides.append([*out, *(p.grad for p in (*inputs, *layer.parameters()))])
        for y, t in zip(*sides, strict=True):
            assert_same(y, t)


def test_outputs_may_be_changed_in_place():
    """Backward reads values of its own, so that what torch's composition allows is allowed here."""
    layer, x = nn.LSTM(3, 4), tg.randn(5, 2, 3)
    (2 * layer(x)[0]).sum().backward()
    expected = [p.grad for p in layer.parameters()]
    layer.zero_grad()
    output, _ = layer(x)
    output *= 2
    output.sum().backward()
    assert all(torch.equal(p.grad.data, g.data) for p, g in zip(layer.parameters(), expected, strict=True))


@pytest.mark.parametrize("name", ["RNN", "GRU", "LSTM", "GRUCell"])
def test_weights_start_uniform(name):
    tg.manual_seed(0)
    for p in getattr(nn, name)(50, 64).parameters():
        bound = 1 / math.sqrt(64)
        assert 0.9 * bound < p.abs().max().item() <= bound
        assert p.data.std().item() == pytest.approx(bound / math.sqrt(3), rel=4 / math.sqrt(p.numel()))


def test_dropout_acts_between_layers_in_training():
    tg.manual_seed(0)
    layer = nn.GRU(3, 4, 2, dropout=1.0)
    x = tg.randn(5, 2, 3)
    y = layer(x)[0]
    assert torch.equal(y.data, layer(x + 1)[0].data)  # the second layer saw nothing of the input
    assert not torch.equal(layer.eval()(x)[0].data, layer(x + 1)[0].data)
    with pytest.warns(UserWarning, match=r"GRU: dropout=0.5 acts between layers, and num_layers=1"):
        nn.GRU(3, 4, dropout=0.5)


def test_weights_are_listed_by_layer_and_direction():
    layer = nn.LSTM(3, 4, 2, bidirectional=True, proj_size=2)
    theirs = torch.nn.LSTM(3, 4, 2, bidirectional=True, proj_size=2)
    expected = [[tuple(w.shape) for w in ws] for ws in theirs.all_weights]
    assert [[tuple(w.shape) for w in ws] for ws in layer.all_weights] == expected
    assert layer.all_weights[1][0] is layer.weight_ih_l0_reverse
    assert layer.flatten_parameters() is None


def test_wrong_arguments_are_named():
    layer, x = nn.LSTM(3, 4), torch.zeros(5, 2, 3)
    for call, error, message in (
        (
            lambda: layer(torch.zeros(5, 2, 2)),
            tg.ShapeError,
            r"LSTM: input must have shape \[L, N, 3\].*got \[5, 2, 2\]",
        ),
        (lambda: layer(torch.zeros(0, 2, 3)), tg.ShapeError, r"LSTM: input must have at least one step"),
        (lambda: layer(torch.zeros(3)), tg.ShapeError, r"LSTM: input must have shape"),
        (lambda: layer(x, torch.zeros(1, 2, 4)), TypeError, r"LSTM: hx must be a tuple \(h, c\); got Tensor"),
        (lambda: layer(x, (x, x)), tg.ShapeError, r"LSTM: hx\[0\] must have shape \[1, 2, 4\]; got \[5, 2, 3\]"),
        (lambda: nn.GRU(3, 4)(x, x), tg.ShapeError, r"GRU: hx must have shape \[1, 2, 4\]"),
        (lambda: nn.GRUCell(3, 4)(x), tg.ShapeError, r"GRUCell: input must have shape \[N, 3\] or \[3\]"),
        (lambda: nn.LSTMCell(3, 4)(x[0], x[0]), TypeError, r"LSTMCell: hx must be a tuple"),
        (lambda: nn.LSTM(3, 4, proj_size=4), tg.ArgumentError, "LSTM: proj_size must be smaller than hidden_size = 4"),
        (lambda: nn.RNN(3, 4, nonlinearity="elu"), tg.ArgumentError, "RNN: nonlinearity must be one of"),
        (lambda: nn.RNN(3, 4, 1, True), tg.ArgumentError, "RNN: nonlinearity must be one of"),
        (lambda: rnn.pack_padded_sequence(x, [1, 2]), tg.ArgumentError, "lengths must not grow"),
        (lambda: rnn.pack_padded_sequence(x, [6, 2]), tg.ArgumentError, "lengths must not exceed the 5 steps"),
        (lambda: rnn.pack_padded_sequence(x, [2, 0]), tg.ArgumentError, "lengths must be at least 1"),
        (lambda: rnn.pack_padded_sequence(x, [2]), tg.ShapeError, "lengths must have 2 elements"),
    ):
        with pytest.raises(error, match=message):
            call()
