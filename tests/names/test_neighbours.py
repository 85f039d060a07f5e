"""Libraries that ask which framework a tensor belongs to, and modules of torch's without parameters among ours."""

import copy
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import tapegrad as tg


class Turned(torch.nn.Module):
    """As a library for torch has them: it calls torch's functions and methods."""

    def forward(self, x, scale=1.0):
        return torch.relu(x.transpose(-1, -2)) * (scale if self.training else 0.0)


def test_a_module_of_torchs_without_parameters_is_a_layer():
    model = tg.nn.Sequential(tg.nn.Linear(3, 4), Turned(), tg.nn.Linear(5, 2), torch.nn.Flatten())
    theirs = tg.to_torch(model)
    x = torch.randn(2, 5, 3)
    ours = tg.tensor(x, requires_grad=True)
    raw = x.clone().requires_grad_()
    y, expected = model(ours), theirs(raw)
    assert torch.allclose(y.data, expected.detach(), rtol=1e-5, atol=1e-6)
    y.sum().backward()
    expected.sum().backward()
    assert torch.allclose(ours.grad.data, raw.grad, rtol=1e-5, atol=1e-6)
    assert repr(model) == repr(theirs)
    assert list(model.state_dict()) == list(theirs.state_dict())
    assert len(list(model.modules())) == 5
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(other(x).data, y.data)
    model.eval()
    assert torch.equal(model(x).data, model[2].bias.data.expand(2, 4, 2).flatten(1))
    step = tg.compile(lambda x: model(x).sum().detach())
    assert len({step(tg.tensor(x)).item() for _ in range(4)}) == 1


def test_a_module_of_torchs_with_parameters_is_not():
    for module in (torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2, affine=False)):
        with pytest.raises(TypeError, match=r"of torch has parameters or buffers.*use tapegrad\.from_torch"):
            tg.nn.Sequential(module)


LATER = """
import {first}
import {second}
import tapegrad as tg, einops, torch
assert einops.rearrange(tg.ones(2, 6), "a (b c) -> c a b", b=3).shape == (2, 2, 3)
assert type(einops.rearrange(torch.ones(2, 6), "a b -> b a")) is torch.Tensor
"""


@pytest.mark.parametrize("order", [("einops", "tapegrad"), ("tapegrad", "einops")])
def test_einops_is_told_whichever_is_imported_first(order, tmp_path):
    pytest.importorskip("einops")
    path = str(Path(tg.__file__).parents[1])
    code = f"import sys; sys.path.insert(0, {path!r})" + LATER.format(first=order[0], second=order[1])
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)


def test_einops_on_our_tensors():
    einops = pytest.importorskip("einops")
    from einops.layers.torch import Rearrange, Reduce

    x = torch.randn(2, 3, 4, 6, dtype=torch.float64)
    calls = [
        lambda t: einops.rearrange(t, "b c (h p) (w q) -> b (h w) (p q c)", p=2, q=3),
        lambda t: einops.reduce(t, "b c (h 2) w -> b h c", "mean"),
        lambda t: einops.reduce(t, "b c h w -> c", "max"),
        lambda t: einops.repeat(t, "b c h w -> (b k) c w h", k=2),
        lambda t: einops.einsum(t, t, "b c h w, b d h w -> b c d"),
        lambda t: einops.pack([t, t[:, 0]], "b * w")[0],
        lambda t: Rearrange("b c h w -> b (c h w)")(t),
        lambda t: Reduce("b c h w -> b c", "sum")(t),
    ]
    for call in calls:
        ours, raw = tg.tensor(x, requires_grad=True), x.clone().requires_grad_()
        y, expected = call(ours), call(raw)
        assert isinstance(y, tg.Tensor)
        assert torch.allclose(y.data, expected.detach(), rtol=1e-12)
        y.square().sum().backward()
        expected.square().sum().backward()
        assert torch.allclose(ours.grad.data, raw.grad, rtol=1e-12)
