"""interpolate in every mode of torch: values, gradients and refusals over options drawn at random; bits by threads."""

import random

import pytest
import torch
import torch.nn.functional as F

import tapegrad as tg

F64 = torch.float64
MODES = ["nearest", "nearest-exact", "area", "linear", "bilinear", "bicubic", "trilinear", "lanczos"]


def drawn(r):
    n = r.choice([1, 2, 3])
    shape = [r.choice([0, 1, 2, 2]), r.choice([0, 1, 2, 3, 3]), *(r.randrange(1, 7) for _ in range(n))]
    options = {"mode": r.choice(MODES)}
    if r.random() < 0.6:
        options["scale_factor"] = r.choice([0.5, 2, 1.3, 2.7, [1.5] * n, (0.4,) * n, 0.01, -1, [2]])
    if r.random() < 0.5:
        options["size"] = r.choice([1, 3, 8, [4] * n, (2,) * n, -2, [3], 2.5])
    for name in ("align_corners", "recompute_scale_factor", "antialias"):
        if r.random() < 0.3:
            options[name] = r.random() < 0.7
    return shape, options


@pytest.mark.parametrize("seed", range(8))
def test_interpolate_does_what_torch_does(seed):
    r = random.Random(seed)
    done = 0
    for _ in range(100):
        shape, options = drawn(r)
        raw = torch.randn(shape, dtype=F64, generator=torch.Generator().manual_seed(1))
        x, theirs = tg.tensor(raw, requires_grad=True), raw.clone().requires_grad_()
        try:
            expected = F.interpolate(theirs, **options)
        except (ValueError, TypeError, RuntimeError):
            with pytest.raises((tg.ArgumentError, tg.ShapeError, TypeError), match=r"^interpolate: "):
                tg.nn.functional.interpolate(x, **options)
            continue
        y = F.interpolate(x, **options)  # through torch's own name
        assert y.shape == expected.shape
        assert torch.allclose(y.data, expected, rtol=1e-12, atol=1e-12), (shape, options)
        if 0 in (*shape[1:], *expected.shape[2:]):  # torch's backward of area refuses what its forward took
            continue
        g = torch.ones_like(expected).cumsum(-1) if expected.numel() else torch.ones_like(expected)
        y.backward(g)
        expected.backward(g)
        assert torch.allclose(x.grad.data, theirs.grad, rtol=1e-10, atol=1e-10), (shape, options)
        done += 1
    assert done > 5


@pytest.mark.parametrize("mode", ["bilinear", "bicubic", "linear", "trilinear"])
def test_the_bits_do_not_depend_on_threads(mode):
    """torch has two algorithms for bilinear, and takes one by the number of threads."""
    size = {"linear": (5003,), "trilinear": (17, 19, 23)}.get(mode, (61, 53))
    x = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1))
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            leaf = tg.tensor(x, requires_grad=True)
            y = tg.nn.functional.interpolate(leaf, scale_factor=1.7, mode=mode)
            y.backward(y.data.sin())
            found.append((y.data, leaf.grad.data))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for results in found[1:] for a, b in zip(found[0], results, strict=True))


def test_a_compiled_step_resamples_as_the_eager_one():
    def step(x):
        y = tg.nn.functional.interpolate(x, scale_factor=1.5, mode="bicubic")
        (dx,) = tg.grad((y * y).sum(), x)
        return y.detach(), dx

    fast = tg.compile(step)
    for i in range(4):
        x = torch.randn(2, 2, 5, 4, generator=torch.Generator().manual_seed(i))
        leaf = tg.tensor(x, requires_grad=True)
        for a, b in zip(fast(leaf), step(leaf), strict=True):
            assert torch.equal(a.data, b.data)
