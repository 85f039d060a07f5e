"""What suite `kernels` measures: the same call on both sides, its inputs, and the work it cannot avoid."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

import tapegrad as tg
from tapegrad.ops.recurrent import Weights, run

Tensors = tuple[torch.Tensor, ...]
FLOPS, BYTES = "GFLOP/s", "GB/s"
F32 = 4  # bytes


@dataclass(frozen=True)
class Case:
    """One op at one shape, float32. `work` is FLOP or bytes (by `unit`) of the forward and of forward + backward."""

    op: str
    shape: str
    ours: Callable[..., Any]
    theirs: Callable[..., Any]
    make: Callable[[], Tensors]
    work: tuple[float, float] = (0, 0)
    unit: str = ""
    constants: int = 0  # inputs without a gradient, at the end
    elements: int = 0  # of the largest array
    images: bool = False  # PyTorch may prefer channels_last

    @property
    def name(self) -> str:
        return f"{self.op} {self.shape}"


def all_cases(quick: bool) -> Iterator[Case]:
    """Every case; `quick` leaves out the largest arrays and half of the sizes."""
    yield from products()
    yield from linears(quick)
    yield from convolutions()
    yield from upsamplings()
    yield from upsampled_convolutions()
    yield from elementwise((1000, 30_000, 1_000_000) if quick else (100, 1000, 10_000, 30_000, 10**5, 10**6, 10**7))
    yield from losses(quick)
    yield from norms()
    yield from variances()
    yield from recurrent()
    yield from views()


def randn(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


# --- products ----------------------------------------------------------------------------------------------------


def products() -> Iterator[Case]:
    for m, k, n in ((25,) * 3, (64,) * 3, (128,) * 3, (256,) * 3, (128, 784, 128), (1024,) * 3):
        yield Case(
            "matmul",
            f"{m}x{k}x{n}",
            tg.matmul,
            torch.matmul,
            lambda m=m, k=k, n=n: (randn(m, k), randn(k, n)),
            work=(2 * m * k * n, 6 * m * k * n),
            unit=FLOPS,
            elements=max(m * k, k * n, m * n),
        )


def linears(quick: bool) -> Iterator[Case]:
    for batch in (25, 128):
        for k, n in ((25, 25), (64, 64), (784, 128), (1024, 1024)):
            if quick and batch == 25 and k > 64:
                continue
            yield Case(
                "linear",
                f"{k}->{n} batch {batch}",
                tg.linear,
                F.linear,
                lambda b=batch, k=k, n=n: (randn(b, k), randn(n, k), randn(n)),
                work=(2 * batch * k * n, 6 * batch * k * n),
                unit=FLOPS,
                elements=max(batch * k, k * n, batch * n),
            )


# --- pictures ----------------------------------------------------------------------------------------------------

# name: N, C, H (= W), OC, K, stride, padding, groups
CONVOLUTIONS = {
    "reports": (100, 3, 10, 3, 3, 1, 0, 1),
    "autoencoder 1": (100, 3, 32, 32, 3, 2, 1, 1),
    "autoencoder 2": (100, 32, 16, 32, 3, 2, 1, 1),
    "autoencoder 3": (100, 32, 16, 32, 3, 1, 1, 1),
    "autoencoder 4": (100, 32, 32, 3, 3, 1, 1, 1),
    "LeNet-5 1": (64, 1, 28, 6, 5, 1, 2, 1),
    "LeNet-5 2": (64, 6, 14, 16, 5, 1, 0, 1),
    "pointwise": (32, 64, 16, 64, 1, 1, 0, 1),
    "small planes": (32, 64, 8, 64, 3, 1, 1, 1),
    "depthwise": (32, 32, 16, 32, 3, 1, 1, 32),
}


def convolutions() -> Iterator[Case]:
    for name, (n, c, h, oc, k, stride, padding, groups) in CONVOLUTIONS.items():
        out = (h + 2 * padding - k) // stride + 1
        flops = 2 * n * oc * out * out * (c // groups) * k * k
        yield Case(
            "conv2d",
            f"({n},{c},{h},{h}) {c}->{oc} {k}x{k}/{stride}, {name}",
            lambda x, w, b, s=stride, p=padding, g=groups: tg.conv2d(x, w, b, s, p, 1, g),
            lambda x, w, b, s=stride, p=padding, g=groups: F.conv2d(x, w, b, s, p, 1, g),
            lambda x=(n, c, h, h), c=c // groups, oc=oc, k=k: (randn(*x), randn(oc, c, k, k), randn(oc)),
            work=(flops, 3 * flops),
            unit=FLOPS,
            elements=max(n * c * h * h, n * oc * out * out),
            images=True,
        )


def upsamplings() -> Iterator[Case]:
    for n, c, h in ((100, 3, 10), (100, 32, 16)):
        size = n * c * h * h
        yield Case(
            "upsample x2",
            f"({n},{c},{h},{h})",
            lambda x: tg.upsample_nearest2d(x, scale_factor=2),
            lambda x: F.interpolate(x, scale_factor=2, mode="nearest"),
            lambda n=n, c=c, h=h: (randn(n, c, h, h),),
            work=(5 * F32 * size, 10 * F32 * size),
            unit=BYTES,
            elements=4 * size,
        )


def upsampled_convolutions() -> Iterator[Case]:
    """The two steps on PyTorch's side, whose products they are counted by."""
    for n, c, h, oc in ((100, 32, 16, 3), (100, 32, 8, 32)):
        flops = 2 * n * oc * (2 * h) ** 2 * c * 9
        yield Case(
            "upsample_conv2d",
            f"({n},{c},{h},{h}) {c}->{oc}",
            tg.upsample_conv2d,
            lambda x, w, b: F.conv2d(F.interpolate(x, scale_factor=2, mode="nearest"), w, b, padding=1),
            lambda n=n, c=c, h=h, oc=oc: (randn(n, c, h, h), randn(oc, c, 3, 3), randn(oc)),
            work=(flops, 3 * flops),
            unit=FLOPS,
            elements=4 * n * max(c, oc) * h * h,
            images=True,
        )


# --- elementwise, rows, losses, views ----------------------------------------------------------------------------

ELEMENTWISE: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "relu": torch.relu,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "leaky_relu": F.leaky_relu,
    "gelu": F.gelu,
    "silu": F.silu,
    "softplus": F.softplus,
    "exp": torch.exp,
    "log": torch.log,
}


def elementwise(sizes: tuple[int, ...]) -> Iterator[Case]:
    """Forward: x read, y written. Backward: g and one saved array read, dx written."""
    for name, theirs in ELEMENTWISE.items():
        for n in sizes:
            yield Case(
                name,
                f"{n:.0e}".replace("e+0", "e"),
                getattr(tg, name),
                theirs,
                lambda n=n, positive=name == "log": (randn(n).abs() + 0.1 if positive else randn(n),),
                work=(2 * F32 * n, 5 * F32 * n),
                unit=BYTES,
                elements=n,
            )


def losses(quick: bool) -> Iterator[Case]:
    for rows, classes in ((128, 10),) if quick else ((128, 10), (1000, 1000)):
        n, shape = rows * classes, f"({rows},{classes})"

        def logits(rows: int = rows, classes: int = classes) -> Tensors:
            return (randn(rows, classes),)

        def labeled(rows: int = rows, classes: int = classes) -> Tensors:
            return randn(rows, classes), torch.arange(rows) % classes

        by_row = {"work": (2 * F32 * n, 5 * F32 * n), "unit": BYTES, "elements": n}
        yield Case("softmax", shape, lambda x: tg.softmax(x, 1), lambda x: torch.softmax(x, 1), logits, **by_row)
        yield Case(
            "log_softmax", shape, lambda x: tg.log_softmax(x, 1), lambda x: torch.log_softmax(x, 1), logits, **by_row
        )
        work = (F32 * n, 3 * F32 * n)  # the logits read; read again, and their gradient written
        yield Case("cross_entropy", shape, tg.cross_entropy, F.cross_entropy, labeled, work, BYTES, 1, n)
    for shape in ((25, 2), (100, 3, 10, 10), (1000, 1000)):
        n = math.prod(shape)
        yield Case(
            "mse",
            str(shape).replace(" ", ""),
            tg.mse_loss,
            F.mse_loss,
            lambda shape=shape: (randn(*shape), randn(*shape).flip(0)),
            work=(2 * F32 * n, 5 * F32 * n),
            unit=BYTES,
            constants=1,
            elements=n,
        )


def norms() -> Iterator[Case]:
    """Forward: x read, y written. Backward: g and x read, dx written. Statistics, weight and bias count as nothing."""
    running = {c: (torch.zeros(c), torch.ones(c)) for c in (32, 64)}
    calls: dict[str, Callable[[Any], Callable[..., Any]]] = {
        "batch_norm": lambda m: lambda x, w, b: m.batch_norm(x, *running[len(w)], w, b, True),
        "layer_norm": lambda m: lambda x, w, b: m.layer_norm(x, x.shape[1:], w, b),
        "group_norm": lambda m: lambda x, w, b: m.group_norm(x, 8, w, b),
    }
    for name, shape in (
        ("batch_norm", (256, 64)),
        ("batch_norm", (100, 32, 16, 16)),
        ("layer_norm", (256, 64)),
        ("layer_norm", (256, 768)),
        ("group_norm", (32, 64, 8, 8)),
        ("group_norm", (100, 32, 16, 16)),
    ):
        n = math.prod(shape)
        yield Case(
            name,
            str(shape).replace(" ", ""),
            calls[name](tg),
            calls[name](F),
            lambda shape=shape: (randn(*shape), randn(shape[1]), randn(shape[1] + 1)[1:].clone()),
            work=(2 * F32 * n, 5 * F32 * n),
            unit=BYTES,
            elements=n,
        )


def recurrent() -> Iterator[Case]:
    """One layer over sequences [L, N, F], input F, hidden H. PyTorch's own call takes oneDNN where it has it."""

    def ours(mode: str) -> Callable[..., Any]:
        def call(x: Any, *weights: Any) -> Any:
            return run(mode, x.flatten(0, 1), [x.shape[1]] * x.shape[0], Weights(*weights))[0].reshape(*x.shape[:2], -1)

        return call

    def theirs(mode: str) -> Callable[..., Any]:
        def call(x: torch.Tensor, *weights: torch.Tensor) -> torch.Tensor:
            h = x.new_zeros(1, x.shape[1], weights[1].shape[1])
            flags = (True, 1, 0.0, True, False, False)  # biases, layers, dropout, train, bidirectional, batch first
            if mode == "LSTM":
                return torch._VF.lstm(x, (h, h), weights, *flags)[0]
            return torch._VF.gru(x, h, weights, *flags)[0]

        return call

    def make(steps: int, n: int, f: int, h: int, gates: int) -> Tensors:
        weights = (randn(gates * h, f), randn(gates * h, h), randn(gates * h), randn(gates * h + 1)[1:].clone())
        return (randn(steps, n, f), *(w / math.sqrt(h) for w in weights))

    for mode, gates in (("LSTM", 4), ("GRU", 3)):
        for steps, n, f, h in ((50, 16, 8, 32), (35, 20, 64, 256), (1, 16, 8, 32)):
            flops = 2 * steps * n * gates * h * (f + h)
            yield Case(
                mode,
                f"{f}-{h}, {steps} steps, batch {n}",
                ours(mode),
                theirs(mode),
                lambda shape=(steps, n, f, h, gates): make(*shape),
                work=(flops, 3 * flops),
                unit=FLOPS,
                elements=max(gates * h * max(f, h), steps * n * max(f, h)),
            )


def variances() -> Iterator[Case]:
    """Forward: x read. Backward: x read again, dx written."""
    for shape, dim in (((256, 64), None), ((256, 64), 0), ((256, 768), 1), ((1000, 1000), 0)):
        n = math.prod(shape)
        yield Case(
            "var",
            f"({shape[0]},{shape[1]}) over {'all' if dim is None else dim}",
            lambda x, dim=dim: tg.var(x, dim),
            lambda x, dim=dim: torch.var(x, dim),
            lambda shape=shape: (randn(*shape),),
            work=(F32 * n, 3 * F32 * n),
            unit=BYTES,
            elements=n,
        )


def views() -> Iterator[Case]:
    """No work at all: what recording and backward cost."""
    calls: dict[str, Callable[[Any], Any]] = {
        "reshape": lambda x: x.reshape(5, 125),
        "transpose": lambda x: x.transpose(0, 1),
        "getitem": lambda x: x[3:7],
    }
    for name, call in calls.items():
        yield Case(name, "(25,25)", call, call, lambda: (randn(25, 25),), elements=625)
