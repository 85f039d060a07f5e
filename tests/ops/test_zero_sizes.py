"""Sizes with a 0 in every place: ops, layers and losses against torch; data, training and iteration.

Where torch answers, so does tapegrad, with the same value and gradients. Where torch does not, tapegrad answers by the
op's definition or refuses by name.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from layers import IDS, LAYERS, both, first
from optable import rows
from optable.check import Call, raw
from optable.check import one_thread as one_thread

import tapegrad as tg
from tapegrad import nn

pytestmark = pytest.mark.filterwarnings("ignore:enable_nested_tensor is True")  # torch's advice on its own speed

# torch's answers that are not the op's definition: a convolution of no channels has no output channels, a bias or an
# extent of one element is repeated, attention broadcasts what does not fit, embedding_bag ends the process.
NOT_DEFINED = {"conv1d", "conv2d", "conv3d", "embedding_bag", "linear", "scaled_dot_product_attention", "tensordot"}
NOT_WRITTEN = {"MultiLabelMarginLoss", "MultiMarginLoss"}  # torch's mean over no row is whatever the memory held


def emptied(values: list[torch.Tensor]) -> Iterator[list[torch.Tensor]]:
    """The arrays with each of their sizes 0 wherever it occurs, then with a 0 in one place at a time."""
    done = set()
    sizes = [(None, n) for n in sorted({n for v in values for n in v.shape if n})]
    places = [(i, d) for i, v in enumerate(values) for d in range(v.ndim) if v.shape[d]]
    for which, at in (*sizes, *places):
        cut = []
        for i, value in enumerate(values):
            for d, n in enumerate(value.shape):
                if (which is None and n == at) or (which == i and d == at):
                    value = value.narrow(d, 0, 0)
            cut.append(value.clone())
        shapes = tuple(v.shape for v in cut)
        if shapes not in done:
            done.add(shapes)
            yield cut


def outcome(run: Callable[[], list[Any]]) -> list[torch.Tensor] | Exception:
    try:
        return [raw(v) for v in run()]
    except Exception as error:  # compared with the other side's
        return error


def disagreement(ours: Any, theirs: Any) -> str | None:
    if isinstance(ours, Exception):
        named = isinstance(ours, tg.TapegradError | TypeError | ValueError)
        return None if named and isinstance(theirs, Exception) else f"{type(ours).__name__}: {ours}"
    if isinstance(theirs, Exception):
        return None
    for got, expected in zip(ours, theirs, strict=True):
        if got.shape != expected.shape or got.dtype is not expected.dtype:
            return f"{got.dtype} {list(got.shape)}, torch has {expected.dtype} {list(expected.shape)}"
        if not torch.allclose(got.double(), expected.double(), rtol=1e-9, atol=1e-12, equal_nan=True):
            return f"{got.tolist()}, torch has {expected.tolist()}"
    return None


@pytest.mark.parametrize("name", [name for name in rows if name not in NOT_DEFINED])
def test_ops(name: str) -> None:
    found = []
    for sample in rows[name].samples[:5]:
        call = Call(rows[name], sample, torch.float64)
        for values in emptied(call.values):
            if name == "batch_norm" and 0 in [v.shape[0] if v.ndim == 1 else v.shape[1] for v in values]:
                continue  # of no channels: torch repeats weights of one
            sides = [
                outcome(lambda make=make, values=values: [*(side := make(values)).outputs, *side.plain])
                for make in (call.tapegrad, call.torch)
            ]
            text = disagreement(*sides)
            if text:
                found.append(f"{name}{sample} of {[list(v.shape) for v in values]}: {text}")
    assert not found, "\n".join(found)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("name", "args", "kwargs", "inputs"), LAYERS, ids=IDS)
def test_layers(name: str, args: Any, kwargs: Any, inputs: Any, training: bool) -> None:
    kwargs = {key: value for key, value in kwargs.items() if key != "inplace"}  # torch refuses leaves
    args = tuple(False if value is True else value for value in args)
    found = []
    for values in [] if name == "EmbeddingBag" else emptied(inputs):  # torch's ends the process
        if name in NOT_WRITTEN and values[0].shape[0] == 0:
            continue
        if name.startswith("BatchNorm") and values[0].shape[1] == 0:
            continue  # of no channels: torch repeats weights of one
        ours, theirs = both(name, args, kwargs)

        def run(layer: Any, make: Any, grad: Any, values: Any = values) -> list[Any]:
            layer.train(training)
            leaves = [make(v.clone(), v.is_floating_point()) for v in values]
            out = first(layer(*leaves))
            needed = [x for x in [*leaves, *layer.parameters()] if x.requires_grad]
            if not out.requires_grad:
                return [out]
            ones = make(torch.ones(tuple(out.shape), dtype=out.dtype), False)
            grads = grad([out], needed, [ones], allow_unused=True)
            return [out, *(torch.zeros_like(raw(x)) if g is None else g for g, x in zip(grads, needed, strict=True))]

        text = disagreement(
            outcome(lambda run=run, ours=ours: run(ours, tg.Tensor, tg.grad)),
            outcome(lambda run=run, theirs=theirs: run(theirs, torch.Tensor.requires_grad_, torch.autograd.grad)),
        )
        if text:
            found.append(f"{name} of {[list(v.shape) for v in values]}: {text}")
    assert not found, "\n".join(found)


def test_an_empty_batch_of_attention() -> None:
    for shape in ((4, 0, 6), (0, 3, 6)):
        x = tg.zeros(*shape, requires_grad=True)
        for layer in (nn.MultiheadAttention(6, 2), nn.MultiheadAttention(6, 2, dropout=0.5, add_zero_attn=True)):
            out, weights = layer(x, x, x)
            out.sum().backward()
            assert (out.shape, weights.shape[0]) == (shape, shape[1])
            assert layer.in_proj_weight.grad.count_nonzero() == 0


def test_iteration() -> None:
    x = tg.zeros(0, 3, requires_grad=True)
    assert list(x) == list(x.unbind()) == list(reversed(x)) == x.tolist() == []
    assert [r.shape for r in tg.zeros(3, 0)] == [(0,)] * 3
    assert [r.shape for r in tg.zeros(3, 0).unbind(0)] == [(0,)] * 3
    assert tg.unbind(tg.zeros(3, 0), -1) == ()
    assert len(x) == 0
    assert 1.0 not in x


def test_data() -> None:
    empty = torch.zeros(0, 3)
    assert list(tg.data.batches(empty, torch.zeros(0), batch_size=2)) == []
    assert [x.shape for (x,) in tg.data.batches(torch.zeros(5, 0), batch_size=2, shuffle=False)] == [
        (2, 0),
        (2, 0),
        (1, 0),
    ]
    train, other = tg.data.standardize(torch.randn(4, 3), empty)
    assert (train.shape, other.shape) == ((4, 3), (0, 3))
    for refused in (
        lambda: tg.data.standardize(empty),
        lambda: tg.data.kfold(0, 2),
        lambda: tg.data.disk(0),
        lambda: tg.data.batches(empty, batch_size=0),
    ):
        with pytest.raises(tg.ShapeError, match="must"):
            refused()


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW", "RMSprop"])
def test_training_with_an_empty_parameter(name: str) -> None:
    def trained(extra: list[Any]) -> Any:
        p = nn.Parameter(torch.tensor([1.0, -2.0]))
        optimizer = getattr(tg.optim, name)([*extra, p], lr=0.1)
        for _ in range(3):
            optimizer.zero_grad()
            ((p**2).sum() + sum(q.sum() for q in extra)).backward()
            nn.utils.clip_grad_norm_([*extra, p], 1.0, norm_type=math.inf)
            optimizer.step()
        return p.data

    assert torch.equal(trained([nn.Parameter(torch.zeros(0, 3))]), trained([]))


def test_a_step_of_an_empty_batch_is_the_eager_one() -> None:
    def weights(run: Callable[[Any], Any]) -> torch.Tensor:
        tg.manual_seed(0)
        layer = nn.Linear(3, 2)
        optimizer = tg.optim.SGD(layer.parameters(), lr=0.1)

        def step(x: Any) -> Any:
            optimizer.zero_grad()
            loss = layer(x).sum()
            loss.backward()
            optimizer.step()
            return loss

        call = run(step)
        for n in (2, 0, 0, 0, 2, 0):
            call(torch.ones(n, 3))
        return layer.weight.data

    assert torch.equal(weights(tg.compile), weights(lambda step: step))


def test_no_gradient_is_longer_than_nothing() -> None:
    empty = nn.Parameter(torch.zeros(0))
    empty.sum().backward()
    for p in (1.0, 2.0, math.inf):
        assert nn.utils.clip_grad_norm_([empty], 1.0, norm_type=p).item() == 0


def test_empty_bags_are_zeros() -> None:
    weight = tg.ones(3, 2, requires_grad=True)
    for shape in ((0, 4), (2, 0), (0, 0)):
        out = nn.functional.embedding_bag(torch.zeros(shape, dtype=torch.int64), weight)
        assert tuple(out.shape) == (shape[0], 2)
        assert not out.data.any()
        assert not tg.grad([out.sum()], [weight])[0].data.any()
