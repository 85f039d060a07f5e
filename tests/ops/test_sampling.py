"""Gumbel samples and affine grids: what the table of ops cannot hold."""

import pytest
import torch

import tapegrad as tg
from tapegrad.nn import functional as F

PADDINGS = ("zeros", "border", "reflection")


@pytest.mark.filterwarnings("ignore:Since version 1.3.0")
@pytest.mark.parametrize("corners", [True, False])
@pytest.mark.parametrize("size", [(2, 1, 3, 4), (2, 1, 1, 1), (2, 3, 2, 1, 3)])
def test_affine_grids_are_torchs(size, corners):
    k = len(size) - 2
    theta = torch.randn(2, k, k + 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x, t = tg.tensor(theta, requires_grad=True), theta.clone().requires_grad_()
    y, r = F.affine_grid(x, size, corners), torch.nn.functional.affine_grid(t, size, corners)
    torch.testing.assert_close(y.data, r.detach())
    (y**2).sum().backward()
    (r**2).sum().backward()
    torch.testing.assert_close(x.grad.data, t.grad)


def test_gumbel_samples_have_the_probabilities_of_the_softmax():
    tg.manual_seed(0)
    logits = tg.tensor([0.0, 1.0, -1.0], dtype=tg.float64)
    hard = F.gumbel_softmax(logits.expand(20000, 3), hard=True)
    assert set(hard.data.round(decimals=12).abs().unique().tolist()) == {0.0, 1.0}
    p = logits.data.softmax(0)
    assert ((hard.data.mean(0) - p).abs() < 4 * (p * (1 - p) / 20000).sqrt()).all()  # 4 standard errors


def test_a_hard_sample_has_the_soft_ones_gradient():
    grads = []
    for hard in (False, True):
        tg.manual_seed(3)
        logits = tg.tensor([[0.2, -0.3, 1.0]] * 4, requires_grad=True)
        y = F.gumbel_softmax(logits, 0.7, hard, dim=-1)
        (y * tg.arange(12).reshape(4, 3)).sum().backward()
        grads.append(logits.grad.data)
    torch.testing.assert_close(*grads)


def test_wrong_bags_are_named():
    weight = tg.randn(4, 3)
    with pytest.raises(IndexError, match="embedding_bag: offsets must rise from 0 to at most 2"):
        F.embedding_bag(tg.tensor([0, 1]), weight, tg.tensor([1, 2]))
    with pytest.raises(tg.ShapeError, match=r"input \[B, n\] without offsets"):
        F.embedding_bag(tg.tensor([0, 1]), weight)


# --- grids -------------------------------------------------------------------------------------------------------

GRIDS = [
    *[("bicubic", (2, 2, 4, 5), (2, 3, 4, 2), padding, corners) for padding in PADDINGS for corners in (True, False)],
    *[
        (mode, (2, 2, 3, 4, 5), (2, 2, 3, 2, 3), padding, corners)
        for mode in ("bilinear", "nearest")
        for padding in PADDINGS
        for corners in (True, False)
    ],
    ("bicubic", (1, 1, 1, 2), (1, 2, 2, 2), "reflection", True),
    ("bilinear", (1, 1, 2, 1, 2), (1, 2, 2, 1, 3), "border", False),
]


@pytest.mark.parametrize(("mode", "image", "grid", "padding", "corners"), GRIDS)
def test_images_and_volumes_at_the_points_of_grids_are_torchs(mode, image, grid, padding, corners):
    """Points reach far outside."""
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(image, dtype=torch.float64, generator=draw)
    g = torch.randn(grid, dtype=torch.float64, generator=draw) * 1.2
    ours, theirs = [tg.tensor(v, requires_grad=True) for v in (x, g)], [v.clone().requires_grad_() for v in (x, g)]
    y = F.grid_sample(*ours, mode, padding, corners)
    r = torch.nn.functional.grid_sample(*theirs, mode, padding, corners)
    torch.testing.assert_close(y.data, r.detach(), rtol=1e-10, atol=1e-12)
    (y**2).sum().backward()
    (r**2).sum().backward()
    for a, b in zip(ours, theirs, strict=True):
        found = torch.zeros_like(b) if a.grad is None else a.grad.data
        torch.testing.assert_close(found, torch.zeros_like(b) if b.grad is None else b.grad, rtol=1e-9, atol=1e-11)


def test_second_derivatives_of_cubic_samples():
    draw = torch.Generator().manual_seed(1)
    x = tg.tensor(torch.randn(1, 1, 4, 4, dtype=torch.float64, generator=draw), requires_grad=True)
    g = tg.tensor(torch.rand(1, 2, 2, 2, dtype=torch.float64, generator=draw) - 0.5, requires_grad=True)
    assert tg.gradgradcheck(lambda a, b: F.grid_sample(a, b, "bicubic", "zeros", True), [x, g])
