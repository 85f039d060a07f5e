"""Recurrent kernels against the plain formulation, op by op, in float64 on torch's side."""

import pytest
import torch
from kernel_checks import DTYPES, ROUNDING, assert_same_for_all_threads, rand
from kernel_checks import one_thread as one_thread

import tapegrad as tg
from tapegrad.core import _C, DTypeError, ShapeError

GATES = {"LSTM": 4, "GRU": 3, "RNN_TANH": 1, "RNN_RELU": 1}
NEEDS = [True] * 8
# sizes of the steps, input features, hidden units, width of h: vectors in part and whole, panels of a large weight,
# one step, sequences that end, nothing at all
SHAPES = [
    ([3, 3, 2], 5, 7, 7),
    ([9, 4, 4, 1], 3, 16, 16),
    ([2] * 3, 8, 33, 33),
    ([5], 2, 3, 3),
    ([1, 1], 1, 1, 1),
    ([3, 2], 4, 70, 70),
    ([3, 1], 4, 150, 150),
    ([0, 0], 3, 4, 4),
    ([4, 4, 2], 3, 9, 5),
]


def arguments(mode: str, sizes: list[int], f: int, h: int, p: int, dtype: torch.dtype, scale: float = 0.6) -> list:
    """input, hx, cx, weight_ih, weight_hh, bias_ih, bias_hh, weight_hr"""
    n, g = sizes[0], GATES[mode] * h
    shapes = [(sum(sizes), f), (n, p), (n, h), (g, f), (g, p), (g,), (g,), (p, h)]
    made = [rand(*shape, dtype=dtype, seed=i) * (scale if i > 2 else 1.0) for i, shape in enumerate(shapes)]
    made[2] = made[2] if mode == "LSTM" else None
    made[7] = made[7] if p != h else None
    for i in (4, 7):  # so that no h grows
        made[i] = None if made[i] is None else made[i] / made[i].shape[1] ** 0.5
    return made


def reference(args: list, mode: str, sizes: list[int], reverse: bool) -> tuple[list, list]:
    """Outputs and gradients in float64, sequence by sequence, by torch's operators and its autograd."""
    x, h0, c0, ih, hh, b_ih, b_hh, hr = leaves = [
        None if a is None else a.double().clone().requires_grad_() for a in args
    ]
    out, last_h, last_c = [None] * len(x), [], []
    first = [sum(sizes[:t]) for t in range(len(sizes))]
    for r in range(sizes[0]):
        h, c = h0[r], None if c0 is None else c0[r]
        steps = [t for t, size in enumerate(sizes) if r < size]
        for t in reversed(steps) if reverse else steps:
            a = ih @ x[first[t] + r] + (0 if b_ih is None else b_ih)
            b = hh @ h + (0 if b_hh is None else b_hh)
            if mode == "LSTM":
                i, f, g, o = (a + b).chunk(4)
                c = f.sigmoid() * c + i.sigmoid() * g.tanh()
                h = o.sigmoid() * c.tanh()
            elif mode == "GRU":
                (ar, az, an), (br, bz, bn) = a.chunk(3), b.chunk(3)
                new, z = (an + (ar + br).sigmoid() * bn).tanh(), (az + bz).sigmoid()
                h = (1 - z) * new + z * h
            else:
                h = (a + b).tanh() if mode == "RNN_TANH" else (a + b).relu()
            h = h if hr is None else hr @ h
            out[first[t] + r] = h
        last_h.append(h)
        last_c.append(c)
    outputs = [torch.stack(v) if v else like.clone() for v, like in ((out, h0), (last_h, h0))]
    if mode == "LSTM":
        outputs.append(torch.stack(last_c) if last_c else c0.clone())
    seeds = [rand(*y.shape, seed=40 + i) for i, y in enumerate(outputs)]
    given = [leaf for leaf in leaves if leaf is not None]
    grads = iter(torch.autograd.grad(outputs, given, seeds, allow_unused=True))
    gradients = [None if leaf is None else next(grads) for leaf in leaves]
    gradients = [
        torch.zeros_like(leaf) if g is None and leaf is not None else g
        for g, leaf in zip(gradients, leaves, strict=True)
    ]
    return [y.detach() for y in outputs], gradients


def ours(args: list, mode: str, sizes: list[int], reverse: bool, needs: list[bool] = NEEDS) -> tuple[list, list]:
    out, h, c, saved, before = _C.recurrent(*args, mode, sizes, reverse, True)
    outputs = [out, h] if c is None else [out, h, c]
    seeds = [rand(*y.shape, dtype=y.dtype, seed=40 + i) for i, y in enumerate(outputs)]
    g = [*seeds, None][:3]
    x, _, _, ih, hh, _, _, hr = args
    grads = _C.recurrent_backward(*g, x, ih, hh, hr, saved, before, mode, sizes, reverse, needs)
    return outputs, [g if a is not None else None for g, a in zip(grads, args, strict=True)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("mode", GATES)
def test_values_and_gradients_are_those_of_the_formula(mode, dtype):
    for k, (sizes, f, h, p) in enumerate(SHAPES):
        if p != h and mode != "LSTM":
            continue
        args = arguments(mode, sizes, f, h, p, dtype)
        if k % 3 == 1:
            args[5] = args[6] = None
        for reverse in (False, True):
            for got, expected in zip(
                ours(args, mode, sizes, reverse), reference(args, mode, sizes, reverse), strict=True
            ):
                for a, b in zip(got, expected, strict=True):
                    if a is None:
                        assert b is None
                        continue
                    assert (a.shape, a.dtype) == (b.shape, dtype)
                    error = (a.double() - b).abs().max().item() if b.numel() else 0.0
                    assert error <= ROUNDING[dtype] * max(1.0, b.abs().max().item() if b.numel() else 0.0)


@pytest.mark.parametrize("mode", GATES)
def test_any_number_of_threads_gives_the_same_bits(mode):
    for sizes, h in (([40] * 30, 60), ([33, 33, 20, 7, 1], 96)):
        args = arguments(mode, sizes, 9, h, h, torch.float32)
        assert_same_for_all_threads(
            lambda a=args, s=sizes: [v for part in ours(a, mode, s, True) for v in part if v is not None]
        )


def test_a_sequence_does_not_depend_on_its_neighbours():
    """Bit for bit: what is shared out to threads are sequences."""
    sizes = [7, 5, 5, 2]
    args = arguments("LSTM", sizes, 3, 20, 20, torch.float32)
    out = ours(args, "LSTM", sizes, False)[0][0]
    rows = [0, 7, 12, 17]  # sequence 0 in every step
    alone = [args[0][rows], args[1][:1], args[2][:1], *args[3:]]
    assert torch.equal(ours(alone, "LSTM", [1] * 4, False)[0][0], out[rows])


@pytest.mark.parametrize("mode", GATES)
def test_nothing_is_kept_where_nobody_differentiates(mode):
    """Same bits, also where the steps' gates are computed in several goes."""
    for sizes, h in (([9, 4, 1], 7), ([20] * 40, 96)):
        args = arguments(mode, sizes, 5, h, h, torch.float32)
        for reverse in (False, True):
            kept, free = (_C.recurrent(*args, mode, sizes, reverse, keep) for keep in (True, False))
            assert free[3:] == (None, None)
            assert all(a is b is None or torch.equal(a, b) for a, b in zip(kept[:3], free[:3], strict=True))
    layer = tg.nn.LSTM(3, 4)
    with tg.Tape() as tape, tg.no_grad():
        free = layer(tg.ones(5, 2, 3))
    assert len(tape) == 0
    assert torch.equal(free[0].data, layer(tg.ones(5, 2, 3))[0].data)


def test_only_what_is_wanted_is_computed():
    args = arguments("LSTM", [3, 2], 4, 5, 2, torch.float64)
    every = ours(args, "LSTM", [3, 2], False)[1]
    for i in range(8):
        some = ours(args, "LSTM", [3, 2], False, [j == i for j in range(8)])[1]
        assert [g is not None for g in some] == [j == i for j in range(8)]
        assert torch.equal(some[i], every[i])


def test_states_and_gradients_that_are_not_given_are_zeros():
    args = arguments("LSTM", [3, 2], 4, 5, 5, torch.float64)
    zeros = [args[0], torch.zeros_like(args[1]), torch.zeros_like(args[2]), *args[3:]]
    without = [args[0], None, None, *args[3:]]
    a, b = (_C.recurrent(*v, "LSTM", [3, 2], False, True) for v in (zeros, without))
    assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
    rest = args[0], args[3], args[4], None, a[3], a[4], "LSTM", [3, 2], False, NEEDS
    given = _C.recurrent_backward(torch.zeros_like(a[0]), rand(3, 5), torch.zeros_like(a[2]), *rest)
    missing = _C.recurrent_backward(None, rand(3, 5), None, *rest)
    assert all(x is y is None or torch.equal(x, y) for x, y in zip(given, missing, strict=True))


def test_layouts_do_not_matter_and_nan_stays_in_its_sequence():
    args = arguments("GRU", [3, 3], 4, 18, 18, torch.float32)
    expected = ours(args, "GRU", [3, 3], False)
    strided = [None if a is None else torch.stack([a, a], -1)[..., 1] for a in args]
    for got, want in zip(ours(strided, "GRU", [3, 3], False), expected, strict=True):
        assert all(a is b is None or torch.equal(a, b) for a, b in zip(got, want, strict=True))
    args[0][1, 2] = float("nan")  # sequence 1
    out = ours(args, "GRU", [3, 3], False)[0][0].reshape(2, 3, 18)
    assert out[:, 1].isnan().all()
    assert torch.equal(out[:, ::2], expected[0][0].reshape(2, 3, 18)[:, ::2])


def test_gates_far_from_zero_saturate():
    args = arguments("LSTM", [2, 2], 3, 17, 17, torch.float32, scale=1e4)
    outputs, gradients = ours(args, "LSTM", [2, 2], False)
    assert all(v.isfinite().all() for v in (*outputs, *gradients[:7]))


def test_wrong_arguments_are_named():
    x, w = torch.zeros(5, 3), (torch.zeros(8, 3), torch.zeros(8, 2), None, None)
    for args, sizes, error, message in (
        ((x, None, None, *w, None), [3, 3], ShapeError, r"sizes of the steps must not grow, and add up to .* = 5"),
        ((x, None, None, *w, None), [2, 3], ShapeError, "sizes of the steps must not grow"),
        ((x, None, None, *w, None), [], ShapeError, "sizes of the steps"),
        ((x, None, None, *w, None), [6, -1], ShapeError, "sizes of the steps"),
        ((x, torch.zeros(3, 3), None, *w, None), [3, 2], ShapeError, r"hx.shape must be \[3, 2\], is \[3, 3\]"),
        ((x, None, torch.zeros(2, 2), *w, None), [3, 2], ShapeError, r"cx.shape must be \[3, 2\], is \[2, 2\]"),
        ((x[:, :2], None, None, *w, None), [3, 2], ShapeError, r"weight_ih.shape\[1\] must be input.shape\[1\] = 2"),
        ((x, None, None, w[0], w[1][:4], None, None, None), [3, 2], ShapeError, r"weight_hh.shape\[0\] must be .* = 8"),
        ((x, None, None, w[0], torch.zeros(8, 3), None, None, None), [3, 2], ShapeError, "must be hidden_size = 2"),
        ((x, None, None, *w, torch.zeros(1, 2)), [3, 2], ShapeError, r"weight_hr.shape must be \[2, 2\]"),
        ((x.double(), None, None, *w, None), [3, 2], DTypeError, "weight_ih.dtype must be Double"),
    ):
        with pytest.raises(error, match=rf"recurrent: .*{message}"):
            _C.recurrent(*args, "LSTM", sizes, False, True)
    with pytest.raises(ShapeError, match=r"weight_ih.shape\[0\] must be a multiple of 3 gates"):
        _C.recurrent(x, None, None, *w, None, "GRU", [3, 2], False, True)
    with pytest.raises(ShapeError, match="cx is for an LSTM"):
        _C.recurrent(
            x, None, torch.zeros(3, 8), w[0], torch.zeros(8, 8), None, None, None, "RNN_TANH", [3, 2], False, True
        )
    with pytest.raises(ShapeError, match="mode must be LSTM"):
        _C.recurrent(x, None, None, *w, None, "lstm", [3, 2], False, True)


def test_a_weight_that_changed_before_backward_is_refused():
    layer = tg.nn.GRU(3, 4)
    loss = layer(tg.randn(5, 2, 3))[0].sum()
    with tg.no_grad():
        layer.weight_hh_l0.mul_(2)
    with pytest.raises(tg.MutationError, match="recurrent: argument 'weight_hh'"):
        loss.backward()


@pytest.mark.parametrize("mode", ["RNN", "GRU", "LSTM"])
def test_a_gradient_that_fades_in_time(mode):
    """Below the smallest normal number it counts as zero; elsewhere such numbers stay what they are."""
    torch.manual_seed(0)
    theirs = getattr(torch.nn, mode)(3, 8)
    ours = tg.from_torch(theirs)
    x = torch.randn(500, 4, 3)
    given = x.clone().requires_grad_()
    theirs(given)[0][-1].square().sum().backward()
    assert ((given.grad != 0) & (given.grad.abs() < 1e-38)).any()
    mine = tg.tensor(x.numpy(), requires_grad=True)
    ours(mine)[0][-1].square().sum().backward()
    torch.testing.assert_close(mine.grad.data, given.grad, rtol=1e-2, atol=1e-36)  # through 500 steps of rounding
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a.grad.data, b.grad, rtol=1e-4, atol=1e-6)
    assert (torch.tensor([1e-40]) * 0.5).item() > 0
