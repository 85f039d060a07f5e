"""`pad` in every mode and rank, negative widths included, against a plain definition and against torch."""

from __future__ import annotations

import random

import pytest
import torch

import tapegrad as tg


def source(j: int, n: int, before: int, after: int, mode: str) -> int | None:
    """Which of a row's n elements stands at place j of the padded row (None: the constant)."""
    if mode == "circular":  # the row without what negative widths cut off, again and again
        kept = range(n)[max(-before, 0) : n - max(-after, 0)]
        return kept[(j - max(before, 0)) % len(kept)]
    i = j - before
    if mode == "constant":
        return i if 0 <= i < n else None
    if mode == "replicate":
        return min(max(i, 0), n - 1)
    return abs(i) if i < n else 2 * (n - 1) - i


def padded(x: torch.Tensor, pad: list[int], mode: str, value: float) -> torch.Tensor:
    for k in range(0, len(pad), 2):
        dim, (before, after) = x.ndim - 1 - k // 2, pad[k : k + 2]
        row = x.movedim(dim, 0)
        n = len(row)
        places = [source(j, n, before, after, mode) for j in range(n + before + after)]
        parts = [torch.full_like(row[0], value) if i is None else row[i] for i in places]
        x = (torch.stack(parts) if parts else row[:0]).movedim(0, dim)
    return x


@pytest.mark.parametrize("mode", ["constant", "reflect", "replicate", "circular"])
def test_every_mode_is_its_definition_and_torchs(mode: str) -> None:
    rng, compared = random.Random(mode), 0
    for _ in range(60):
        count = rng.randint(1, 3)
        shape = [rng.randint(1, 5) for _ in range(count + rng.randint(1, 2))]
        pad = []
        for n in reversed(shape[-count:]):
            most = n - 1 if mode == "reflect" else n
            cut = rng.randint(0, n - 1)
            left = rng.randint(0, cut)
            pad += rng.choice([[rng.randint(0, most), -cut], [-cut, rng.randint(0, most)], [-left, left - cut], [1, 0]])
            if mode == "reflect" and n == 1:
                pad[-2:] = [0, 0]
        x = torch.randn(shape, dtype=torch.float64)
        ours, plain, theirs = tg.Tensor(x.clone(), requires_grad=True), x.clone(), x.clone()
        y, expected = tg.pad(ours, pad, mode), padded(plain.requires_grad_(), pad, mode, 0.0)
        assert torch.equal(y.data, expected), f"{shape} {pad}"
        g = torch.randn(y.shape, dtype=torch.float64)
        (dx,), (dp,) = tg.grad(y, ours, tg.Tensor(g)), torch.autograd.grad(expected, plain, g)
        torch.testing.assert_close(dx.data, dp)
        widths = zip(pad[::2], pad[1::2], reversed(shape), strict=False)
        if mode == "circular" and any(max(b, a) > n + min(b, 0) + min(a, 0) for b, a, n in widths):
            continue  # torch copies from places that it has not written yet
        assert torch.equal(y.data, torch.nn.functional.pad(theirs, pad, mode)), f"{shape} {pad}"
        compared += 1
    assert compared > 30


def test_a_pad_that_leaves_nothing_is_named() -> None:
    x = torch.ones(1, 4)
    assert tg.pad(x, [-4, 0], "circular").shape == (1, 0)
    for mode, pad in (("circular", [-4, 4]), ("circular", [3, -5]), ("replicate", [-3, -2]), ("reflect", [-5, 0])):
        with pytest.raises(tg.ShapeError, match=f"pad: {mode} padding .* leaves nothing of size 4 of dim 1"):
            tg.pad(x, pad, mode)
