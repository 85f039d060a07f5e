"""Convolutions of settings drawn at random against plain loops: value, gradient, second gradient.

``python tests/ops/test_conv_settings.py 5000`` tries as many settings.
"""

from __future__ import annotations

import itertools
import random
import sys
from collections.abc import Callable
from typing import Any

import torch
from optable.check import GRADIENT, Call, assert_close, raw
from optable.check import one_thread as one_thread
from optable.spec import R, Row, Sample

import tapegrad as tg

Settings = dict[str, Any]


def taps(kernel: Any, dilation: Any) -> Any:
    """Every position in a kernel, and how far from its corner it reaches."""
    for place in itertools.product(*map(range, kernel)):
        yield place, [k * d for k, d in zip(place, dilation, strict=True)]


def conv_loop(x: Any, w: Any, bias: Any, stride: Any, padding: Any, dilation: Any, groups: int) -> Any:
    """``y[n, oc, i] = b[oc] + sum_{c, k} w[oc, c, k] * x[n, c, i S - P + k D]``, x 0 outside."""
    kernel, oc = w.shape[2:], w.shape[0]
    wide = torch.nn.functional.pad(x, [p for p in reversed(padding) for _ in range(2)])
    zipped = zip(wide.shape[2:], kernel, stride, dilation, strict=True)
    size = [(n - d * (k - 1) - 1) // s + 1 for n, k, s, d in zipped]
    out = torch.zeros(x.shape[0], oc, *size, dtype=x.dtype)
    for place, start in taps(kernel, dilation):
        window = tuple(slice(a, a + (n - 1) * s + 1, s) for a, n, s in zip(start, size, stride, strict=True))
        seen = wide[(slice(None), slice(None), *window)]
        parts = zip(seen.chunk(groups, 1), w[(slice(None), slice(None), *place)].chunk(groups), strict=True)
        out = out + torch.cat([torch.einsum("nc...,oc->no...", a, b) for a, b in parts], 1)
    return out if bias is None else out + bias.reshape(-1, *[1] * len(size))


def transposed_loop(
    x: Any, w: Any, bias: Any, stride: Any, padding: Any, output_padding: Any, groups: int, dilation: Any
) -> Any:
    """``y[n, oc, i S - P + k D] += sum_c w[c, oc, k] * x[n, c, i]``, on a canvas that is cut to the output."""
    kernel, sides = w.shape[2:], range(x.ndim - 2)
    far = [(x.shape[2 + i] - 1) * stride[i] + dilation[i] * (kernel[i] - 1) + 1 for i in sides]
    canvas = torch.zeros(x.shape[0], w.shape[1] * groups, *[f + e for f, e in zip(far, output_padding, strict=True)])
    canvas = canvas.to(x.dtype)
    for place, start in taps(kernel, dilation):
        window = tuple(slice(a, a + (x.shape[2 + i] - 1) * stride[i] + 1, stride[i]) for i, a in enumerate(start))
        parts = zip(x.chunk(groups, 1), w[(slice(None), slice(None), *place)].chunk(groups), strict=True)
        added = torch.cat([torch.einsum("nc...,co->no...", a, b) for a, b in parts], 1)
        step = torch.zeros_like(canvas)
        step[(slice(None), slice(None), *window)] = added
        canvas = canvas + step
    cut = [slice(padding[i], far[i] - padding[i] + output_padding[i]) for i in sides]
    out = canvas[(slice(None), slice(None), *cut)]
    return out if bias is None else out + bias.reshape(-1, *[1] * len(kernel))


SIDES = {"conv1d": 1, "conv2d": 2, "conv3d": 3, "conv_transpose1d": 1, "conv_transpose2d": 2}


def drawn(rng: random.Random, name: str) -> tuple[Callable[..., Any], list[int], list[int], int, Settings]:
    """The loop, the shapes of input and weight, the output channels, and everything else."""
    n = SIDES[name]
    groups = rng.choice([1, 1, 2, 3])
    c, oc, batch = groups * rng.randint(1, 3), groups * rng.randint(1, 3), rng.choice([0, 1, 1, 2, 3])
    kernel, stride, padding, dilation = ([rng.randint(*r) for _ in range(n)] for r in ((1, 4), (1, 4), (0, 4), (1, 4)))
    kwargs: Settings = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    reach = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
    if "transpose" not in name:
        size = [rng.randint(max(1, r + 1 - 2 * p), r + 7) for r, p in zip(reach, padding, strict=True)]
        return conv_loop, [batch, c, *size], [oc, c // groups, *kernel], oc, kwargs
    extra = [rng.randint(0, max(s, d) - 1) for s, d in zip(stride, dilation, strict=True)]
    kwargs["output_padding"] = extra
    sides = list(zip(stride, padding, reach, extra, strict=True))
    least = [1 + max(0, -((r + e - 2 * p) // s)) for s, p, r, e in sides]  # so that a pixel is left
    size = [rng.randint(n, n + 5) for n in least]
    return transposed_loop, [batch, c, *size], [c, oc // groups, *kernel], oc, kwargs


def failures(count: int, seed: str) -> list[str]:
    rng, failed = random.Random(seed), []
    for i in range(count):
        name = rng.choice([*SIDES, "conv_transpose2d"])
        loop, x, w, oc, kwargs = drawn(rng, name)
        sample = Sample((R(*x), R(*w), rng.choice([None, R(oc)])), kwargs)
        ours = {k: v if k == "groups" or SIDES[name] > 1 else v[0] for k, v in kwargs.items()}
        row = Row(name, [sample], loop, lambda *a, name=name, ours=ours, **_: getattr(tg, name)(*a, **ours))
        row.seeds[sample] = i
        call = Call(row, sample, torch.float64)
        try:
            left, right = call.tapegrad(), call.torch()
            for what in ("outputs", "plain", "first", "second"):
                for got, expected in zip(getattr(left, what), getattr(right, what), strict=True):
                    assert_close(raw(got), raw(expected), GRADIENT[torch.float64], what)
        except Exception as error:
            failed.append(f"{name} {x} {w} {kwargs}: {error!s:.300}")
    return failed


def test_drawn_settings_give_what_plain_loops_give() -> None:
    failed = failures(150, "convolutions")
    assert not failed, f"{len(failed)} of 150\n" + "\n".join(failed)


if __name__ == "__main__":
    found = failures(int(sys.argv[1]), "long")
    sys.exit("\n".join(found) or None)
