"""Initial values, norms of gradients, and torch's RuntimeErrors."""

import pytest
import torch

import tapegrad as tg
from tapegrad import nn


@pytest.mark.parametrize("shape", [(4, 2, 3), (4, 4, 3, 3), (6, 2, 2, 3, 2)])
def test_dirac_is_torchs(shape):
    for groups in (1, 2):
        assert torch.equal(
            nn.init.dirac_(tg.ones(*shape), groups).data, torch.nn.init.dirac_(torch.ones(shape), groups)
        )


def test_the_identity_and_sparse_matrices():
    assert torch.equal(nn.init.eye_(tg.ones(2, 3)).data, torch.eye(2, 3))
    values = nn.init.sparse_(tg.empty(10, 7), 0.25, std=2.0).data
    assert (values == 0).sum(0).tolist() == [3] * 7
    assert nn.init._calculate_fan_in_and_fan_out(tg.ones(4, 2, 3)) == (6, 12)
    for fill, shape in ((nn.init.eye_, (2,)), (nn.init.dirac_, (2, 2)), (lambda t: nn.init.sparse_(t, 0.5), (2,))):
        with pytest.raises(tg.ShapeError):
            fill(tg.ones(*shape))


def test_the_norm_of_gradients():
    values = [torch.randn(3), torch.randn(2, 2)]
    for p in (1.0, 2.0, float("inf")):
        assert nn.utils.get_total_norm([tg.tensor(v) for v in values], p).item() == pytest.approx(
            torch.nn.utils.get_total_norm(values, p).item()
        )
    assert nn.utils.skip_init(nn.Linear, 2, 3).weight.shape == (3, 2)


def test_initialisers_fill_the_raw_values_too():
    """``init.normal_(layer.weight.data, 0.0, 0.02)`` is how most scripts write it."""
    layer = nn.Linear(40, 30)
    for fill in (
        lambda t: nn.init.normal_(t, 1.0, 0.02),
        lambda t: nn.init.constant_(t, 1.0),
        lambda t: nn.init.uniform_(t, 0.9, 1.1),
    ):
        nn.init.zeros_(layer.weight)
        assert fill(layer.weight.data) is not None
        assert 0.85 < layer.weight.data.min() <= layer.weight.data.max() < 1.15
    nn.init.xavier_uniform_(layer.weight.data)
    assert layer.weight.data.abs().max() <= (6 / 70) ** 0.5
    with pytest.raises(TypeError, match="normal_: tensor must be a Tensor; got list"):
        nn.init.normal_([1.0])


@pytest.mark.parametrize(
    "call",
    [
        lambda t, x: t.matmul(x, t.ones(5, 2)),
        lambda t, x: x.view(7),
        lambda t, x: t.cat([x, t.ones(2, 2)]),
        lambda t, x: x + t.ones(5),
        lambda t, x: t.nn.functional.linear(x, t.ones(2, 7)),
        lambda t, x: t.nn.functional.conv2d(t.ones(1, 2, 4, 4), t.ones(3, 1, 2, 2)),
        lambda t, x: t.nn.Linear(2, 2).load_state_dict({}),
        lambda t, x: t.ones(2, dtype=t.float64) @ t.ones(2, 2),
        lambda t, x: x.T.contiguous().view(2, 2),
        lambda t, x: x.backward(),
        lambda t, x: t.stack([x, t.ones(1)]),
        lambda t, x: x.permute(0, 0),
        lambda t, x: t.nn.functional.nll_loss(x, t.ones(7, dtype=t.int64)),
        lambda t, x: x.requires_grad_().add_(1),
    ],
)
def test_what_torch_refuses_as_a_runtime_error_is_one(call):
    for library in (torch, tg):
        with pytest.raises((RuntimeError, ValueError)) as caught:
            call(library, library.ones(2, 3))
        kind = RuntimeError if library is torch and isinstance(caught.value, RuntimeError) else caught.type
        if library is torch:
            expected = kind
    assert isinstance(caught.value, expected)
