"""The fused optimizer steps against torch.optim, over several steps. Runs under every instruction set."""

import itertools

import pytest
import torch
from kernel_checks import assert_same_for_all_threads

from tapegrad.core import _C, DTypeError, ShapeError

SHAPES = [(), (1,), (3,), (5, 3), (16,), (17,), (33, 2), (64,), (65,), (0,), (40, 30)]
TOLERANCE = {torch.float64: 1e-13, torch.float32: 2e-5}


def tensors(seed: int, dtype: torch.dtype, shapes=SHAPES) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(s, dtype=torch.float64, generator=generator).to(dtype) for s in shapes]


def zeros(like: list[torch.Tensor]) -> list[torch.Tensor]:
    return [torch.zeros_like(t) for t in like]


def compare(make, update, dtype: torch.dtype, shapes=SHAPES, transform=lambda t: t, steps: int = 4) -> None:
    """`steps` steps of torch's optimizer and of update(params, grads), from the same start."""
    ours = [transform(t) for t in tensors(0, dtype, shapes)]
    theirs = [t.detach().clone().requires_grad_() for t in ours]
    optimizer = make(theirs)
    for step in range(steps):
        grads = tensors(step + 1, dtype, shapes)
        for p, g in zip(theirs, grads, strict=True):
            p.grad = transform(g).clone()
        optimizer.step()
        update(ours, grads)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b.detach(), rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


def sgd_update(lr=0.1, momentum=0.0, dampening=0.0, weight_decay=0.0, nesterov=False, maximize=False):
    state: dict[str, list[torch.Tensor]] = {}

    def update(params, grads):
        if momentum and not state:
            state.update(buffers=zeros(params), steps=[torch.tensor(0.0) for _ in params])
        lists = state.get("buffers", []), state.get("steps", [])
        _C.sgd_(params, grads, *lists, lr, momentum, dampening, weight_decay, nesterov, maximize)

    return update


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_sgd_agrees_with_torch(dtype):
    for momentum, dampening, weight_decay, nesterov, maximize in itertools.product(
        (0.0, 0.9), (0.0, 0.3), (0.0, 0.01), (False, True), (False, True)
    ):
        if nesterov and (momentum == 0 or dampening != 0):
            continue
        options = {
            "lr": 0.1,
            "momentum": momentum,
            "dampening": dampening,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
            "maximize": maximize,
        }
        compare(lambda p, o=options: torch.optim.SGD(p, foreach=False, **o), sgd_update(**options), dtype)


def adam_update(
    lr=0.01, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.0, amsgrad=False, maximize=False, decoupled=False
):
    state: list[list[torch.Tensor]] = []

    def update(params, grads):
        if not state:
            state.extend([zeros(params), zeros(params), zeros(params) if amsgrad else []])
            state.append([torch.tensor(0.0) for _ in params])
        _C.adam_(params, grads, *state, lr, beta1, beta2, eps, weight_decay, amsgrad, maximize, decoupled)
        versions = [t._version for part in (params, *state) for t in part]
        assert all(versions)

    return update


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_adam_and_adamw_agree_with_torch(dtype):
    for amsgrad, maximize, decoupled, weight_decay, beta1 in itertools.product(
        (False, True), (False, True), (False, True), (0.0, 0.1), (0.9, 0.3)
    ):
        make = torch.optim.AdamW if decoupled else torch.optim.Adam
        options = {"amsgrad": amsgrad, "maximize": maximize, "weight_decay": weight_decay}
        compare(
            lambda p, m=make, o=options, b=beta1: m(p, lr=0.01, betas=(b, 0.99), foreach=False, **o),
            adam_update(beta1=beta1, beta2=0.99, decoupled=decoupled, **options),
            dtype,
        )


@pytest.mark.parametrize("update", [sgd_update(momentum=0.9), adam_update()], ids=["sgd", "adam"])
def test_any_layout_is_updated_in_place(update):
    make = {True: lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9), False: lambda p: torch.optim.Adam(p, lr=0.01)}
    for transform in (lambda t: t.t(), lambda t: t[:, ::2], lambda t: t.contiguous().t().contiguous().t()):
        fresh = sgd_update(momentum=0.9) if "sgd" in update.__qualname__ else adam_update()
        is_sgd = "sgd" in update.__qualname__

        def step(params, grads, fresh=fresh, transform=transform):
            fresh(params, [transform(g) for g in grads])

        compare(make[is_sgd], step, torch.float64, [(4, 6), (3, 5)], transform)


def test_a_mixture_of_dtypes_is_updated_in_one_call():
    params = [torch.ones(3), torch.ones(3, dtype=torch.float64), torch.ones(2)]
    versions = [p._version for p in params]
    _C.sgd_(params, [torch.ones_like(p) for p in params], [], [], 0.5, 0, 0, 0, False, False)
    assert [p.tolist() for p in params] == [[0.5] * 3, [0.5] * 3, [0.5] * 2]
    assert all(p._version > v for p, v in zip(params, versions, strict=True))


def test_a_failing_call_changes_nothing():
    good, steps = [torch.ones(3), torch.ones(4)], [torch.tensor(0.0), torch.tensor(0.0)]
    rows = [
        ([torch.ones(3), torch.ones(5)], zeros(good), ShapeError, r"sgd_: grads\[1\].shape must be \[4\], is \[5\]"),
        ([torch.ones(3), torch.ones(4).double()], zeros(good), DTypeError, r"sgd_: grads\[1\].dtype"),
        ([torch.ones(3)], zeros(good), ShapeError, "grads must have 2 entries, has 1"),
        (zeros(good), [torch.ones(3)], ShapeError, "momentum_buffers must have 2 entries, has 1"),
        (zeros(good), [torch.ones(3), torch.ones(2, 2)], ShapeError, r"momentum_buffers\[1\].shape"),
    ]
    for grads, buffers, error, message in rows:
        with pytest.raises(error, match=message):
            _C.sgd_(good, grads, buffers, steps, 0.1, 0.9, 0, 0, False, False)
    with pytest.raises(ShapeError, match="overlaps itself"):
        _C.sgd_([torch.ones(1).expand(3)], [torch.ones(3)], [], [], 0.1, 0, 0, 0, False, False)
    with torch.inference_mode():
        frozen = torch.ones(3)
    with pytest.raises(DTypeError, match=r"params\[0\] must be an ordinary tensor"):
        _C.sgd_([frozen], [torch.ones(3)], [], [], 0.1, 0, 0, 0, False, False)
    assert all((t == 1).all() for t in good)
    assert [s.item() for s in steps] == [0, 0]


def test_updates_are_the_same_for_any_number_of_threads():
    def run():
        shapes = [(300, 301), (7,), (50_001,)]
        params = tensors(0, torch.float32, shapes)
        update = adam_update()
        for step in range(2):
            update(params, tensors(step + 1, torch.float32, shapes))
        sgd_update(momentum=0.9)(params, tensors(9, torch.float32, shapes))
        return params

    assert_same_for_all_threads(run)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n", [5, 64])
def test_no_moment_stays_below_the_normal_numbers(n, dtype):
    """Where it would slow down every step after: it is zero, or the least normal ones where products round first."""
    tiny = torch.finfo(dtype).tiny
    make = lambda value: [torch.full((n,), value, dtype=dtype)]  # noqa: E731
    params, grads, mean, square = make(0.5), make(0.0), make(tiny * 1.05), make(tiny / 4)
    no = {"amsgrad": False, "maximize": False, "decoupled": False}
    options = {"lr": 0.1, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 0.0, **no}
    _C.adam_(params, grads, mean, square, [], [torch.tensor(3.0)], **options)
    assert ((mean[0] == 0) | (mean[0] >= tiny)).all()
    assert (square[0].tolist(), params[0].tolist()) == ([0.0] * n, [0.5] * n)
    buffer = make(tiny * 1.05)
    rates = {"lr": 0.1, "momentum": 0.9, "dampening": 0.0, "weight_decay": 0.0}
    _C.sgd_(params, grads, buffer, [torch.tensor(3.0)], **rates, nesterov=False, maximize=False)
    assert buffer[0].tolist() == [0.0] * n
    smallest = torch.full((n,), tiny, dtype=dtype) / 2  # everything else still has them
    assert (smallest > 0).all()
