"""Normalisations and variances against plain float64 formulas and torch: values, gradients, offsets, running
statistics, threads. Runs under every instruction set (test_build.py starts it again with TAPEGRAD_ISA)."""

import itertools
import math

import pytest
import torch
from kernel_checks import DTYPES, assert_same_for_all_threads, rand
from torch.nn import functional as F

import tapegrad as tg
from tapegrad import nn
from tapegrad.core import _C, DTypeError, ShapeError

# Chains of at most 2048 / 64 additions, runs added in double; a gradient's terms cancel, by the deviations' size.
ROUNDING = {torch.float32: 32 * 1.2e-7, torch.float64: 32 * 2.2e-16}
BATCHES = [(5, 3), (70, 33), (70, 1100), (2, 3, 1), (3, 4, 7), (9, 2, 300), (4, 2, 3, 5), (2, 3, 2, 3, 4),
           (3, 2, 2050), (2, 1), (65, 1), (20, 3, 16, 16)]  # fmt: skip
ROWS = [((1, 1), 1), ((3, 5), 1), ((2, 7, 16), 1), ((70, 64), 1), ((5, 3, 11), 2), ((2, 2049), 1), ((3, 4100), 1),
        ((33,), 1), ((130, 3), 1), ((64, 65), 2)]  # fmt: skip
GROUPS = [((3, 4), 2), ((2, 6, 5), 3), ((70, 8), 4), ((2, 4, 33), 4), ((3, 4, 5, 7), 1), ((1, 2, 2100), 2),
          ((2, 4, 1), 1), ((2, 3, 2, 3, 4), 3)]  # fmt: skip


def assert_close(actual: torch.Tensor, expected: torch.Tensor, scale: float = 1.0) -> None:
    assert actual.shape == expected.shape
    bound = ROUNDING[actual.dtype] * max(scale, expected.abs().max().item() if expected.numel() else 0.0)
    torch.testing.assert_close(actual.double(), expected, rtol=0, atol=bound, equal_nan=True)


def normalised(x: torch.Tensor, dims: list[int], eps: float) -> torch.Tensor:
    """The formula, in x's dtype."""
    centred = x - x.mean(dims, True)
    return centred / (centred.square().mean(dims, True) + eps).sqrt()


def against_formula(ours, theirs, x, weight, bias, dtype):
    """Value and gradients of ours(x, weight, bias), in dtype, against those of `theirs` in float64."""
    given = [x, weight, bias]
    reference = [None if t is None else t.to(dtype).double().clone().requires_grad_() for t in given]
    expected = theirs(*reference)
    leaves = [None if t is None else tg.Tensor(t.to(dtype), requires_grad=True) for t in given]
    actual = ours(*leaves)
    assert_close(actual.data, expected.detach(), 4)
    g = rand(*expected.shape, seed=9)
    actual.backward(tg.Tensor(g.to(dtype)))
    wanted = torch.autograd.grad(expected, [t for t in reference if t is not None], g.to(dtype).double())
    sums = g.abs().sum().item() / max(1, x.shape[1] if x.ndim > 1 else 1) if x.numel() else 1
    for leaf, grad, of_input in zip([t for t in leaves if t is not None], wanted, (True, False, False), strict=False):
        assert_close(leaf.grad.data, grad, 8 * max(1.0, grad.abs().max().item()) if of_input else max(8.0, sums))


def affine(channels, *, weight=True, bias=True):
    shape = (channels,) if isinstance(channels, int) else tuple(channels)
    return (rand(*shape, seed=3) if weight else None, rand(*shape, seed=4) if bias else None)


def per_channel(t, ndim):
    return t.reshape([1, -1] + [1] * (ndim - 2))


def scaled(y, weight, bias):
    y = y if weight is None else y * weight
    return y if bias is None else y + bias


@pytest.mark.parametrize("dtype", DTYPES)
def test_batch_norm_agrees_with_the_formula(dtype):
    for shape, (weight, bias) in itertools.product(BATCHES, itertools.product((True, False), repeat=2)):
        if math.prod(shape) > 20_000 and not (weight and bias):
            continue
        dims = [0, *range(2, len(shape))]

        def theirs(x, w, b, dims=dims):
            w, b = (None if t is None else per_channel(t, x.ndim) for t in (w, b))
            return scaled(normalised(x, dims, 1e-2), w, b)

        against_formula(
            lambda x, w, b: tg.batch_norm(x, None, None, w, b, True, eps=1e-2),
            theirs, rand(*shape), *affine(shape[1], weight=weight, bias=bias), dtype,
        )  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES)
def test_batch_norm_by_running_statistics_agrees_with_the_formula(dtype):
    for shape in BATCHES[:9]:
        mean, var = rand(shape[1], seed=5).to(dtype), rand(shape[1], seed=6).abs().to(dtype)

        def theirs(x, w, b, mean=mean, var=var):
            n = x.ndim
            y = (x - per_channel(mean.double(), n)) / (per_channel(var.double(), n) + 1e-2).sqrt()
            return scaled(y, per_channel(w, n), per_channel(b, n))

        against_formula(
            lambda x, w, b, mean=mean, var=var: tg.batch_norm(x, mean, var, w, b, eps=1e-2),
            theirs, rand(*shape), *affine(shape[1]), dtype,
        )  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES)
def test_layer_norm_agrees_with_the_formula(dtype):
    for (shape, count), (weight, bias) in itertools.product(ROWS, itertools.product((True, False), repeat=2)):
        last = list(shape[-count:])
        against_formula(
            lambda x, w, b, last=last: tg.layer_norm(x, last, w, b, 1e-2),
            lambda x, w, b, count=count: scaled(normalised(x, list(range(-count, 0)), 1e-2), w, b),
            rand(*shape), *affine(last, weight=weight, bias=bias), dtype,
        )  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES)
def test_group_norm_agrees_with_the_formula(dtype):
    for (shape, groups), (weight, bias) in itertools.product(GROUPS, itertools.product((True, False), repeat=2)):

        def theirs(x, w, b, groups=groups):
            y = normalised(x.reshape(x.shape[0], groups, -1), [2], 1e-2).reshape(x.shape)
            return scaled(y, *(None if t is None else per_channel(t, x.ndim) for t in (w, b)))

        against_formula(
            lambda x, w, b, groups=groups: tg.group_norm(x, groups, w, b, 1e-2),
            theirs, rand(*shape), *affine(shape[1], weight=weight, bias=bias), dtype,
        )  # fmt: skip


@pytest.mark.parametrize("name", ["var", "std"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_variances_over_any_dimensions_agree_with_torch(name, dtype):
    sizes = [(1,), (5,), (17,), (4099,), (6, 9), (70, 33), (3, 4, 5), (2, 3, 2, 3), (2, 3, 2, 3, 2), (2, 130, 3)]
    for size in sizes:
        for r, keepdim in itertools.product(range(len(size) + 1), (False, True)):
            for dims in itertools.combinations(range(len(size)), r):
                x, correction = rand(*size).to(dtype), r % 2
                if math.prod(size[d] for d in dims or range(len(size))) <= correction:
                    continue
                double = x.double().clone().requires_grad_()
                expected = getattr(torch, name)(double, dims or None, correction=correction, keepdim=keepdim)
                leaf = tg.Tensor(x, requires_grad=True)
                actual = getattr(tg, name)(leaf, dims or None, correction=correction, keepdim=keepdim)
                assert_close(actual.data, expected.detach())
                g = rand(expected.numel(), seed=1).to(dtype).reshape(expected.shape)
                actual.backward(tg.Tensor(g))
                assert_close(leaf.grad.data, torch.autograd.grad(expected, double, g.double())[0], g.abs().max().item())
    for strided in (rand(6, 8).to(dtype).t(), rand(6, 8).to(dtype)[:, ::2]):
        assert_close(getattr(tg, name)(strided).data, getattr(torch, name)(strided.double()))
        assert_close(getattr(tg, name)(strided, 0).data, getattr(torch, name)(strided.double(), 0))


def error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    return (actual.double() - expected).abs().max().item()


@pytest.mark.parametrize("offset", [0.0, 1e3, 3e4])
def test_an_offset_costs_no_more_than_in_torch(offset):
    """float32 data around an offset: as near to the float64 formula as torch's, or nearer; second gradients too."""
    eps = torch.finfo(torch.float32).eps
    x = (rand(64, 24, 5) + offset).float()
    cases = [
        (lambda m, x: m.batch_norm(x, None, None, training=True), lambda x: normalised(x, [0, 2], 1e-5)),
        (lambda m, x: m.layer_norm(x, [24, 5]), lambda x: normalised(x, [1, 2], 1e-5)),
        (lambda m, x: m.group_norm(x, 4), lambda x: normalised(x.reshape(64, 4, 30), [2], 1e-5).reshape(x.shape)),
    ]
    weight = rand(*x.shape, seed=2)
    for call, formula in cases:
        exact, single = x.double().requires_grad_(), x.clone().requires_grad_()
        y, torchs = formula(exact), call(F, single)
        leaf = tg.Tensor(x, requires_grad=True)
        ours = call(nn.functional, leaf)
        assert error(ours.data, y.detach()) <= error(torchs.detach(), y.detach()) + 8 * eps
        (g,) = torch.autograd.grad((y.tanh() * weight).sum(), exact, create_graph=True)
        (torch_g,) = torch.autograd.grad((torchs.tanh() * weight.float()).sum(), single, create_graph=True)
        (our_g,) = tg.grad((ours.tanh() * weight.float()).sum(), [leaf], create_graph=True)
        assert error(our_g.data, g.detach()) <= error(torch_g.detach(), g.detach()) + 8 * eps
        (gg,) = torch.autograd.grad((g * g).sum(), exact)
        (torch_gg,) = torch.autograd.grad((torch_g * torch_g).sum(), single)
        (our_gg,) = tg.grad((our_g * our_g).sum(), [leaf])
        assert error(our_gg.data, gg) <= 2 * error(torch_gg, gg) + 32 * eps * gg.abs().max().item()
    for name in ("var", "std"):
        exact = getattr(x.double(), name)((0, 2))
        assert error(getattr(tg, name)(x, (0, 2)).data, exact) <= error(getattr(x, name)((0, 2)), exact) + eps


def test_float32_statistics_do_not_overflow():
    x = rand(50, 3).float() * 1e25
    assert_close(tg.batch_norm(x, None, None, training=True).data, normalised(x.double(), [0], 1e-5), 4)
    assert tg.std(x).item() == pytest.approx(x.double().std().item(), rel=1e-6)


@pytest.mark.parametrize("place", [0, 1, 4000])
def test_infinities_reach_mean_and_gradient_as_in_torch(place):
    for dtype, value in itertools.product(DTYPES, (math.inf, -math.inf, math.nan)):
        x = rand(5000, 3).to(dtype)
        x[place, 1] = value
        for dim in (0, 1, None):
            ours, theirs = tg.Tensor(x.clone(), requires_grad=True), x.clone().requires_grad_()
            y, expected = tg.var(ours, dim), torch.var(theirs, dim)
            assert_close(y.data, expected.detach().double())
            y.sum().backward()
            expected.sum().backward()
            assert_close(ours.grad.data, theirs.grad.double())
        means = [torch.zeros(3, dtype=dtype) for _ in range(2)]
        tg.batch_norm(x, means[0], torch.ones(3, dtype=dtype), training=True)
        F.batch_norm(x, means[1], torch.ones(3, dtype=dtype), training=True)
        assert_close(means[0], means[1].double())


def test_constants_vary_by_nothing():
    for dtype in DTYPES:
        x = torch.full((301, 7), 0.1, dtype=dtype)
        for dim in (None, 0, 1):
            assert (tg.var(x, dim).data == 0).all()
        leaf = tg.Tensor(x, requires_grad=True)
        tg.std(leaf).backward()
        assert (leaf.grad.data == 0).all()
        assert tg.batch_norm(x, None, None, training=True).data.abs().max() == 0
        assert tg.layer_norm(x, [7]).data.abs().max() == 0


@pytest.mark.parametrize("dtype", DTYPES)
def test_running_statistics_move_as_torch_s(dtype):
    for shape, momentum in itertools.product([(7, 3), (4, 3, 5), (2, 3, 4, 40)], (0.1, 0.3, 1.0, 0.0)):
        ours, theirs = ([torch.zeros(3, dtype=dtype), torch.ones(3, dtype=dtype)] for _ in range(2))
        ours[0] = torch.zeros(3, 2, dtype=dtype)[:, 0]  # not contiguous
        for seed in range(3):
            x = (rand(*shape, seed=seed) * 3 + 2).to(dtype)
            tg.batch_norm(x, *ours, training=True, momentum=momentum)
            F.batch_norm(x, *theirs, training=True, momentum=momentum)
        for a, b in zip(ours, theirs, strict=True):
            assert_close(a, b.double())


def test_running_statistics_count_their_changes():
    mean, var = torch.zeros(3), torch.ones(3)
    tg.batch_norm(torch.randn(4, 3), mean, var, training=True)
    assert (mean._version, var._version) == (1, 1)


@pytest.mark.parametrize("shape", [(0, 4), (0, 4, 5), (2, 4, 0), (2, 4, 0, 3)])
def test_nothing_is_normalised_as_torch_does(shape):
    last, channels = shape[1:], shape[1]
    mean, var = torch.zeros(channels), torch.ones(channels)
    calls = [
        (last, lambda m, x, w: m.layer_norm(x, last, w)),
        ((channels,), lambda m, x, w: m.batch_norm(x, mean, var, w, training=True)),
        ((channels,), lambda m, x, w: m.batch_norm(x, mean, var, w)),
        ((channels,), lambda m, x, w: m.group_norm(x, 2, w)),
    ]
    for size, call in calls:
        ours = [tg.zeros(shape, requires_grad=True), tg.ones(size, requires_grad=True)]
        theirs = [t.data.clone().requires_grad_() for t in ours]
        y, expected = call(nn.functional, *ours), call(F, *theirs)
        assert y.shape == expected.shape
        y.sum().backward()
        expected.sum().backward()
        for a, b in zip(ours, theirs, strict=True):
            torch.testing.assert_close(a.grad.data, b.grad, rtol=0, atol=0, equal_nan=True)
    assert (mean == 0).all()
    assert (var == 1).all()


def test_no_channels_are_normalised():
    """torch indexes beyond its arrays, or aborts."""
    for shape in [(3, 0), (0, 0), (3, 0, 4)]:
        for training in (False, True):
            x, w = tg.zeros(shape, requires_grad=True), tg.ones(0, requires_grad=True)
            y = tg.batch_norm(x, torch.zeros(0), torch.ones(0), w, training=training)
            y.sum().backward()
            assert (y.shape, x.grad.shape, w.grad.shape) == (shape, shape, (0,))


def test_the_variance_of_nothing_is_nan_with_a_warning():
    for name, x, dim in itertools.product(
        ("var", "std"), (torch.zeros(0), torch.zeros(2, 0), torch.ones(1)), (None, -1)
    ):
        with pytest.warns(UserWarning, match=rf"{name}\(\): degrees of freedom is <= 0"):
            expected = getattr(torch, name)(x, dim)
        with pytest.warns(UserWarning, match=rf"{name}\(\): degrees of freedom is <= 0"):
            torch.testing.assert_close(getattr(tg, name)(x, dim).data, expected, equal_nan=True)


def call_and_gradients(f, *arrays):
    """f's value, gradients and second gradients."""
    leaves = [tg.Tensor(a, requires_grad=True) for a in arrays]
    y = f(*leaves)
    g = tg.Tensor(torch.linspace(-1, 1, y.numel(), dtype=arrays[0].dtype).reshape(y.shape))
    plain = tg.grad((y * g).sum(), leaves)
    recorded = tg.grad((f(*leaves) * g).sum(), leaves, create_graph=True)
    second = tg.grad(sum((r * r).sum() for r in recorded), leaves, allow_unused=True)
    return [t.data for t in (y, *plain, *recorded, *second) if t is not None]


@pytest.mark.parametrize("dtype", DTYPES)
def test_bits_do_not_depend_on_the_number_of_threads(dtype):
    for shape in [(256, 64), (1200, 33), (33, 3000), (8, 32, 16, 16), (2, 3, 9000)]:
        x, (w, b) = rand(*shape).to(dtype), (t.to(dtype) for t in affine(shape[1]))
        assert_same_for_all_threads(
            lambda x=x, w=w, b=b: (
                *call_and_gradients(lambda x, w, b: tg.batch_norm(x, None, None, w, b, True), x, w, b),
                *call_and_gradients(lambda x, w, b: tg.group_norm(x, 1, w, b), x, w, b),
                *call_and_gradients(lambda x: tg.std(x, 0), x),
                *call_and_gradients(lambda x: tg.var(x, 1), x),
                tg.var(x).data,
                *call_and_gradients(lambda x: tg.layer_norm(x, x.shape[1:]), x),
            )
        )


def test_a_compiled_step_normalises_as_the_eager_one():
    def training(compiled):
        tg.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(2, 8, 3), nn.BatchNorm2d(8), nn.GroupNorm(2, 8), nn.Flatten(), nn.Linear(8 * 16, 6),
            nn.LayerNorm(6), nn.BatchNorm1d(6, momentum=0.3),
        )  # fmt: skip
        opt = tg.optim.SGD(model.parameters(), lr=0.1)

        def step(x):
            opt.zero_grad()
            y = model(x)
            loss = (y * y * y).mean() + tg.std(y) + tg.var(y, 0).sum()
            loss.backward()
            opt.step()
            return loss

        run = tg.compile(step) if compiled else step
        losses = [run(tg.Tensor(rand(9, 2, 6, 6, seed=seed).float())).item() for seed in range(6)]
        state = {key: value.data for key, value in model.state_dict().items()}
        with tg.no_grad():
            evaluated = model.eval()(tg.Tensor(rand(9, 2, 6, 6).float()))
        return losses, state, evaluated.data

    eager, compiled = training(False), training(True)
    assert eager[0] == compiled[0]
    for key, value in eager[1].items():
        assert torch.equal(value, compiled[1][key]), key
    assert torch.equal(eager[2], compiled[2])


def test_kernels_refuse_what_does_not_fit():
    x, w, stats = torch.zeros(4, 6), torch.ones(6), torch.zeros(3, 6, dtype=torch.float64)
    with pytest.raises(ShapeError, match=r"batch_norm: weight.shape must be \[6\], is \[5\]"):
        _C.batch_norm(x, w[1:], None, None, None, 1e-5)
    with pytest.raises(ShapeError, match="running_mean and running_var must be given together"):
        _C.batch_norm(x, None, None, w, None, 1e-5)
    with pytest.raises(DTypeError, match=r"batch_norm: weight.dtype must be Float as the other arguments', is Double"):
        _C.batch_norm(x, w.double(), None, None, None, 1e-5)
    with pytest.raises(ShapeError, match=r"batch_norm_backward: stats must be the contiguous float64 tensor of 18"):
        _C.batch_norm_backward(x, x, w, stats[:2], True, True, True, True)
    with pytest.raises(ShapeError, match=r"batch_norm_backward: g.shape must be \[4, 6\], is \[3, 6\]"):
        _C.batch_norm_backward(x[1:], x, w, stats, True, True, True, True)
    with pytest.raises(ShapeError, match=r"move_statistics_: running_var.shape must be \[6\], is \[5\]"):
        _C.move_statistics_([w], [w[1:]], stats, 0.5)
    assert (w == 1).all()
    with pytest.raises(ShapeError, match=r"layer_norm: normalized_shape \[5\] must be the last sizes of input.shape"):
        _C.layer_norm(x, [5], None, None, 1e-5)
    with pytest.raises(ShapeError, match=r"group_norm: num_groups = 4 must divide input.shape\[1\] of \[4, 6\]"):
        _C.group_norm(x, 4, None, None, 1e-5)
    with pytest.raises(ShapeError, match=r"var_backward: g must have the 6 elements of the result, has shape \[5\]"):
        _C.var_backward(w[1:], x, stats[:2], [0], 1.0)
    emptied = torch.zeros(4, 6)
    emptied.untyped_storage().resize_(0)
    with pytest.raises(ShapeError, match="needs 96 bytes of storage"):
        _C.layer_norm(emptied, [6], None, None, 1e-5)
    emptied = torch.zeros(3, 6, dtype=torch.float64)
    emptied.untyped_storage().resize_(0)
    with pytest.raises(ShapeError, match="stats must be"):
        _C.batch_norm_backward(x, x, w, emptied, True, True, True, True)
