"""Layers that take their number of inputs from the first input, beside torch's."""

import copy
import inspect
import pickle

import pytest
import torch

import tapegrad as tg

LAZY = [name for name in tg.nn.__all__ if name.startswith("Lazy")]
ROWS = {
    "LazyLinear": ((4,), {"bias": False}, (2, 3, 5)),
    "LazyConv1d": ((4, 3), {"groups": 2, "stride": 2}, (2, 6, 9)),
    "LazyConv2d": ((4, 3), {"padding": "same"}, (3, 5, 4)),
    "LazyConv3d": ((2, 2), {}, (2, 3, 3, 4, 3)),
    "LazyConvTranspose1d": ((4, 3), {"output_padding": 1, "stride": 2}, (2, 3, 5)),
    "LazyConvTranspose2d": ((4, (2, 3)), {"groups": 2}, (2, 6, 4, 3)),
    "LazyConvTranspose3d": ((2, 2), {}, (3, 2, 2, 3)),
    "LazyBatchNorm1d": ((), {}, (4, 3)),
    "LazyBatchNorm2d": ((), {"momentum": 0.3}, (4, 3, 2, 2)),
    "LazyBatchNorm3d": ((1e-3,), {}, (4, 3, 2, 2, 2)),
    "LazyInstanceNorm1d": ((), {}, (4, 3, 5)),
    "LazyInstanceNorm2d": ((), {"affine": False}, (2, 3, 5, 4)),
    "LazyInstanceNorm3d": ((1e-3, 0.2), {}, (2, 3, 2, 3, 2)),
}


def test_every_lazy_layer_is_in_the_table():
    assert set(LAZY) == set(ROWS) == {name for name in dir(torch.nn) if name.startswith("Lazy")}


@pytest.mark.parametrize("name", LAZY)
def test_lazy_layers_become_torchs(name):
    args, kwargs, shape = ROWS[name]
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    ours, theirs = getattr(tg.nn, name)(*args, **kwargs), getattr(torch.nn, name)(*args, **kwargs)
    assert repr(ours) == repr(theirs)
    formal, expected = (list(inspect.signature(getattr(lib, name)).parameters) for lib in (tg.nn, torch.nn))
    assert formal[: len(expected)] == expected or set(formal) - {"bias"} == set(expected) - {"bias"}
    optimizer = tg.optim.SGD(ours.parameters(), lr=0.1) if list(ours.parameters()) else None
    given = list(ours.parameters())
    assert ours.has_uninitialized_params()
    theirs(x)
    ours(x)
    assert type(ours) is getattr(tg.nn, name.removeprefix("Lazy"))
    assert list(map(id, ours.parameters())) == list(map(id, given))
    assert all(type(p) is tg.nn.Parameter for p in given)
    assert repr(ours) == repr(theirs)
    ours.load_state_dict(theirs.state_dict())
    y, expected = ours(x), theirs(x)
    torch.testing.assert_close(y.data, expected.detach())
    if optimizer is not None:
        y.square().sum().backward()
        optimizer.step()
        (expected**2).sum().backward()
        torch.optim.SGD(theirs.parameters(), lr=0.1).step()
        for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(p.data, q.detach(), rtol=1e-4, atol=1e-4)  # sums in another order


def test_a_layer_without_input_is_copied_and_pickled():
    layer = tg.nn.LazyLinear(3, dtype=tg.float64)
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert other(tg.ones(2, 5, dtype=tg.float64)).shape == (2, 3)
    assert type(layer) is tg.nn.LazyLinear


def test_what_cannot_be_is_refused():
    with pytest.raises(tg.ArgumentError, match="out_features"):
        tg.nn.LazyLinear(-1)
    with pytest.raises(tg.ShapeError, match="LazyBatchNorm2d: input has no dimension 1"):
        tg.nn.LazyBatchNorm2d()(tg.ones(3))
    with pytest.raises(tg.StateError, match="normal_: tensor has no values yet"):
        tg.nn.init.normal_(tg.nn.LazyLinear(2).weight)
