"""Rows of the network ops: convolutions, windows, pooling, resizing, normalisation, attention, softmax, embedding."""

# fmt: off
from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

import tapegrad as tg
from tapegrad.ops.recurrent import recurrent
from tapegrad.ops.versions import has_lanczos

from .spec import K0, K1, D, K, P, R, Row, S, V, bools, data, ints

NAN, INF = float("nan"), float("inf")
image = R(2, 4, 5, 6)


def _normalised(batch_norm: Any) -> Any:
    """batch_norm together with the running statistics it leaves behind, in copies: samples stay as they are."""

    def call(input: Any, mean: Any, var: Any, *args: Any, **kwargs: Any) -> Any:
        mean, var = (None if s is None else s.clone() for s in (mean, var))
        out = batch_norm(input, mean, var, *args, **kwargs)
        return (out, mean, var) if mean is not None else out

    return call


def _attention(*args: Any, **kwargs: Any) -> Any:
    """torch's attention by matrix products: the fused one has no second derivative."""
    with sdpa_kernel(SDPBackend.MATH):
        return F.scaled_dot_product_attention(*args, **kwargs)


def _group_norm(input: Any, groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5) -> Any:
    """torch's, with the weight written out: its gradient fails for a bias alone."""
    weight = torch.ones(input.shape[1], dtype=input.dtype) if weight is None else weight
    return F.group_norm(input, groups, weight, bias, eps)


def _dropped(input: Any, p: float = 0.5, training: bool = True) -> Any:
    return tg.dropout(input, p, training, generator=tg.Generator(7))


def _dropped_reference(input: torch.Tensor, p: float = 0.5, training: bool = True) -> torch.Tensor:
    """The kept elements are those that the same place in the stream keeps of ones; their weight is 1 / (1 - p)."""
    kept = _dropped(torch.ones(input.shape), p, training).data != 0
    return torch.where(kept, input * (1 / (1 - p) if training and p < 1 else 1.0), 0)


def _nearest(input: torch.Tensor, size: Any = None, scale_factor: Any = None) -> torch.Tensor:
    return F.interpolate(input, size, scale_factor, mode="nearest")


def _gates(mode: str, x: Any, h: Any, c: Any) -> tuple[Any, Any]:
    """One sequence's next h and c, from what inputs and state contribute to the gates."""
    if mode == "LSTM":
        i, f, g, o = (x + h[1]).chunk(4)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        return o.sigmoid() * c.tanh(), c
    if mode == "GRU":
        (r, z, n), (hr, hz, hn) = x.chunk(3), h[1].chunk(3)
        n = (n + (r + hr).sigmoid() * hn).tanh()
        return n + (z + hz).sigmoid() * (h[0] - n), c
    return (x + h[1]).relu() if mode == "RNN_RELU" else (x + h[1]).tanh(), c


def _recurrent(
    x: Any, h: Any, c: Any, ih: Any, hh: Any, b_ih: Any, b_hh: Any, hr: Any, mode: str, sizes: Any, reverse: bool
) -> Any:
    """Sequence by sequence, in vectors."""
    first, g = [sum(sizes[:t]) for t in range(len(sizes))], ih.shape[0]
    n, p, width = sizes[0], hh.shape[1], g // {"LSTM": 4, "GRU": 3}.get(mode, 1)
    shapes = (sum(sizes), ih.shape[1]), (n, p), (n, width), (g, ih.shape[1]), (g, p), (g,), (g,), (p, width)
    given = x, h, c, ih, hh, b_ih, b_hh, hr
    if any(v is not None and v.shape != shape for v, shape in zip(given, shapes, strict=True)):
        raise ValueError("shapes that do not fit, which no sequence at all would not notice")
    if hr is None and p != width:
        raise ValueError("the state must be as wide as the gates")
    h = x.new_zeros(sizes[0], hh.shape[1]) if h is None else h
    c = x.new_zeros(sizes[0], h.shape[1] if hr is None else hr.shape[1]) if c is None else c
    out: list[Any] = [None] * len(x)
    last: list[Any] = [[], []]
    for r in range(sizes[0]):
        steps = [t for t, size in enumerate(sizes) if r < size]
        state = h[r], c[r]
        for t in reversed(steps) if reverse else steps:
            inputs, own = ih @ x[first[t] + r], hh @ state[0]
            inputs, own = inputs if b_ih is None else inputs + b_ih, own if b_hh is None else own + b_hh
            new, cell = _gates(mode, inputs, (state[0], own), state[1])
            state = (new if hr is None else hr @ new), cell
            out[first[t] + r] = state[0]
        for i in range(2):
            last[i].append(state[i])
    results = [torch.stack(v) if v else like.clone() for v, like in zip((out, *last), (h, h, c), strict=True)]
    return results if mode == "LSTM" else results[:2]


def _layer(mode: str, steps: Any, hidden: int, gates: int, *, proj: int = 0, state: bool = True, **more: Any) -> Any:
    """A call with 3 input features; `steps` are the sizes."""
    n, p = steps[0], proj or hidden
    biases = [R(gates * hidden), R(gates * hidden)] if more.get("bias", True) else [None, None]
    h = R(n, p) if state else None
    c = R(n, hidden) if state and mode == "LSTM" else None
    weights = R(gates * hidden, 3), R(gates * hidden, p), *biases, R(proj, hidden) if proj else None
    return S(R(sum(steps), 3), h, c, *weights, mode, list(steps), more.get("reverse", False))


def _upsampled_then_convolved(input: torch.Tensor, weight: torch.Tensor, bias: Any = None) -> torch.Tensor:
    return F.conv2d(_nearest(input, None, 2), weight, bias, padding=1)


def _attended(*shapes: tuple[int, ...], **kwargs: Any) -> Any:
    return S(*(R(*shape) for shape in shapes), **kwargs)


_CONV2D = [
    S(R(2, 3, 5, 6), R(4, 3, 3, 2), R(4)), S(image, R(2, 4, 3, 3)), S(image, R(2, 4, 3, 3), R(2), 2, 1),
    S(image, R(4, 2, 3, 1), R(4), (1, 2), (0, 1), 1, 2), S(image, R(8, 1, 2, 2), None, groups=4),
    S(image, R(2, 4, 2, 3), R(2), padding="same"), S(image, R(2, 4, 2, 3), padding="valid"),
    S(image, R(2, 4, 2, 2), R(2), dilation=(2, 3), stride=(2, 1), padding=(1, 2)), S(R(4, 5, 5), R(2, 4, 3, 3), R(2)),
    S(R(0, 4, 5, 5), R(2, 4, 3, 3), R(2)), S(R(1, 1, 1, 1), R(1, 1, 1, 1)),
    S(R(2, 1, 3, 3), R(1, 1, 3, 3), R(1), padding=2, stride=3),
]
_CONV1D = [
    S(R(1, 1, 1), R(1, 1, 1), R(1)),
    S(R(2, 3, 7), R(4, 3, 3), R(4)), S(R(2, 4, 7), R(2, 4, 2)), S(R(2, 4, 7), R(4, 2, 3), R(4), 2, 1, 1, 2),
    S(R(2, 4, 7), R(2, 4, 3), padding="same", dilation=2), S(R(4, 7), R(2, 4, 3), R(2)),
    S(R(2, 4, 7), R(2, 4, 3), R(2), dilation=2, stride=2, padding=1), S(R(0, 4, 7), R(2, 4, 3), R(2)),
    S(R(2, 4, 7), R(2, 4, 2), padding="valid"),
]
_CONV_TRANSPOSE = [
    S(R(1, 1, 1, 1), R(1, 1, 1, 1), R(1)),
    S(R(2, 3, 4, 3), R(3, 2, 3, 2), R(2)), S(image, R(4, 2, 3, 3)), S(image, R(4, 2, 3, 3), R(2), 2, 1, 1),
    S(image, R(4, 2, 2, 3), R(4), (2, 3), (1, 0), (1, 2), 2), S(R(4, 3, 3), R(4, 2, 2, 2), R(2)),
    S(image, R(4, 2, 2, 2), None, dilation=2, padding=1), S(R(0, 4, 3, 3), R(4, 2, 2, 2), R(2)),
    S(image, R(4, 1, 3, 3), stride=2, groups=4, output_padding=(1, 0)),
]
_UNFOLD = [
    S(image, 2), S(image, (2, 3), 1, 1, 2), S(image, 2, dilation=2, padding=(1, 0), stride=(1, 2)), S(R(4, 5, 6), 3),
    S(R(0, 2, 3, 3), 2), S(R(1, 1, 1, 1), 1),
]
_FOLD = [
    S(R(2, 12, 20), (5, 6), 2), S(R(2, 16, 4), (4, 6), (2, 4), 1, (0, 1), (2, 4)),
    S(R(2, 4, 9), 5, kernel_size=2, dilation=2, stride=1), S(R(4, 4), 3, 2), S(R(0, 4, 4), 3, 2), S(R(1, 1, 1), 1, 1),
]

_BILINEAR = [
    S(R(2, 3, 4, 5), size=(7, 3), mode="bilinear"), S(R(2, 3, 4, 5), scale_factor=2, mode="bilinear"),
    S(R(2, 3, 4, 5), scale_factor=(1.5, 0.7), mode="bilinear"), S(R(2, 3, 4, 5), (8, 9), None, "bilinear", True),
    S(R(2, 3, 4, 5), size=(1, 1), mode="bilinear", align_corners=True),
    S(R(2, 3, 4, 5), scale_factor=2.0, mode="bilinear", align_corners=False), S(R(1, 1, 1, 1), 3, mode="bilinear"),
    S(R(2, 3, 4, 5), scale_factor=1.7, mode="bilinear", recompute_scale_factor=True),
]
_ANTIALIASED = ("bilinear", "bicubic", *(["lanczos"] if has_lanczos else []))
_RESAMPLED = [
    *(S(R(2, 3, 5), size, mode=mode) for mode in ("nearest", "nearest-exact", "area", "linear") for size in (7, (3,))),
    *(S(R(2, 1, 6), scale_factor=f, mode="linear", align_corners=True) for f in (1.6, 0.5)),
    *(S(R(2, 2, 3, 4), scale_factor=f, mode=m) for m in ("nearest-exact", "area", "bicubic") for f in (1.7, (0.6, 2))),
    S(R(1, 2, 3, 4), 5, mode="bicubic", align_corners=True), S(R(0, 2, 3, 4), 5, mode="bicubic"),
    *(S(R(1, 2, 7, 6), (3, 8), mode=mode, antialias=True) for mode in _ANTIALIASED),
    S(R(1, 2, 7, 6), scale_factor=0.4, mode="bilinear", antialias=True, recompute_scale_factor=True),
    *(S(R(1, 2, 2, 3, 4), (3, 4, 2), mode=mode) for mode in ("nearest", "nearest-exact", "area", "trilinear")),
    S(R(1, 2, 2, 3, 4), scale_factor=1.4, mode="trilinear", align_corners=True),
]
_NEAREST: list[Any] = [
    ((2, 3, 4, 5), None, 2), ((2, 3, 4, 5), (7, 3), None), ((2, 3, 4, 5), 6, None), ((2, 3, 4, 5), None, (1.5, 0.7)),
    ((1, 1, 1, 1), None, 3), ((0, 2, 3, 3), None, 2), ((2, 3, 4, 5), None, 1),
]
_UPSAMPLE_CONV = [
    S(R(2, 3, 2, 3), R(4, 3, 3, 3), R(4)), S(R(1, 1, 1, 1), R(1, 1, 3, 3), R(1)), S(R(2, 2, 3, 1), R(1, 2, 3, 3)),
    S(R(1, 2, 2, 2), R(2, 2, 3, 3), None), S(R(0, 2, 3, 3), R(2, 2, 3, 3), R(2)),
]
_tied = V([[[[1.0, 1.0, 0.0], [1.0, 1.0, 2.0], [2.0, 2.0, 2.0]]]])
spread = D(2, 4, 5, 6)
_MAX_POOL = [
    S(R(1, 1, 1, 1), 1),
    S(spread, 2), S(spread, (2, 3), 1), S(spread, 3, 2, 1), S(spread, 2, 2, 0, 2),
    S(spread, 3, stride=2, ceil_mode=True), S(spread, (3, 2), (2, 1), (1, 0), (1, 2), True), S(D(4, 5, 6), 2),
    S(R(0, 2, 4, 4), 2), S(spread, 2, return_indices=True),
    K(_tied, 2, 1), K(_tied, 3), K(_tied, 2, 2, 1), K(V([[[[NAN, 1.0], [2.0, 3.0]]]]), 2),
    K(V([[[[-INF, -INF], [-INF, -INF]]]]), 2), K(_tied, 2, 2, ceil_mode=True),
]
_AVG_POOL = [
    S(R(1, 1, 1, 1), 1),
    S(image, 2), S(image, (2, 3), 1), S(image, 3, 2, 1), S(image, 3, 2, 1, False, False),
    S(image, 3, stride=2, ceil_mode=True), S(image, 3, 2, 1, True), S(image, 3, 2, 1, True, False),
    S(image, 2, divisor_override=3), S(R(4, 5, 6), 2),
    S(R(0, 2, 4, 4), 2), S(image, (3, 2), (2, 1), (1, 0), True), S(image, 2, 3, 1, True, True),
]
_ADAPTIVE = [
    S(R(1, 1, 1, 1), 1), S(image, 1), S(image, (2, 3)), S(image, (None, 2)), S(image, 4), S(image, (7, 8)),
    S(R(4, 5, 6), 2), S(R(0, 2, 4, 4), 2),
]
_BATCH_NORM = [
    S(R(1, 1), data(R(1)), data(P(1)), R(1), R(1)),
    S(R(4, 3), None, None, R(3), R(3), True), S(R(4, 3), data(R(3)), data(P(3)), R(3), R(3)),
    S(R(4, 3), data(R(3)), data(P(3)), R(3), R(3), True),
    S(R(2, 3, 4, 5), data(R(3)), data(P(3)), R(3), R(3), True, 0.3, 1e-3),
    S(R(2, 3, 4), data(R(3)), data(P(3)), training=True, momentum=0.0),
    S(R(2, 3, 4, 5), data(R(3)), data(P(3)), training=False, eps=1e-2), S(R(2, 3, 4), None, None, R(3), training=True),
    S(R(1, 3, 2), None, None, None, R(3), True),
    S(R(0, 3), data(R(3)), data(P(3)), R(3), R(3)), K(V([[1.0, 2.0], [1.0, 3.0]]), None, None, R(2), R(2), True),
    S(R(4, 3), data(R(3)), data(P(3)), R(3), R(3), True, 1.0),
]
_LAYER_NORM = [
    S(R(2, 3), (3,), R(3), R(3)), S(R(2, 3, 4), (3, 4), R(3, 4), R(3, 4)), S(R(2, 3, 4), (4,)), S(R(2, 3), [3], R(3)),
    S(R(2, 3), (3,), None, R(3), 1e-2), S(R(3), (3,), R(3), R(3)), S(R(0, 3), (3,), R(3), R(3)),
    K(V([[2.0, 2.0, 2.0]]), (3,), R(3), R(3)), K0(R(2, 1), (1,), R(1), R(1)),
]
_GROUP_NORM = [
    S(R(2, 1, 2), 1, R(1), R(1)),
    S(R(2, 4, 3), 2, R(4), R(4)), S(R(2, 4, 3, 2), 1, R(4), R(4)), S(R(2, 6), 2), S(R(2, 4, 3), 4, R(4)),
    S(R(2, 6, 2), 3, None, R(6), 1e-2), S(R(0, 4, 3), 2, R(4), R(4)), K(V([[[1.0, 1.0], [1.0, 1.0]]]), 1, R(2), R(2)),
]
_SOFTMAX = [
    S(R(2, 3, 4), 1), S(R(2, 3), -1), S(R(2, 3), dim=0), S(R(), 0), S(R(), -1), S(R(0, 3), 1), S(R(3, 0), 1),
    S(R(2, 3).to(torch.float32), 1, dtype=torch.float64), K(V([1e4, -1e4, 0.0]), 0),
    K(V([[INF, 0.0], [-INF, 0.0], [-INF, -INF]]), 1),
    K(V([2.0, 2.0]), 0),
]
_EMBEDDING = [
    S(ints([0, 2, 2]), R(3, 4)), S(ints([[0, 1], [2, 1]]), R(3, 2)), S(ints(1), R(3, 2)), S(ints([]), R(3, 2)),
    K(ints([0, 2, 1, 2]), R(3, 2), 2), K(ints([0, 2, 1]), R(3, 2), padding_idx=-3),
    K1(ints([0, 2, 2]), R(3, 2), scale_grad_by_freq=True),
    S(ints([], (0, 2)), R(0, 3)),
]
_mask = bools([[True, True, False, True, True], [True, False, True, True, False], [False, False, True, True, True]])
_qkv = ((2, 2, 3, 4), (2, 2, 5, 4), (2, 2, 5, 6))
_RECURRENT = [
    _layer("LSTM", (3, 2, 2), 2, 4), _layer("LSTM", (3, 3, 1), 2, 4, reverse=True, state=False),
    _layer("LSTM", (2, 1), 3, 4, proj=2, bias=False), _layer("LSTM", (2,), 2, 4), _layer("LSTM", (0, 0), 2, 4),
    _layer("GRU", (3, 2, 2), 2, 3), _layer("GRU", (3, 1), 3, 3, reverse=True, bias=False), _layer("GRU", (2,), 1, 3),
    _layer("RNN_TANH", (2, 2, 1), 3, 1), _layer("RNN_RELU", (2, 2, 1), 3, 1, reverse=True),
    S(R(1, 1), R(1, 1), None, R(1, 1), R(1, 1), R(1), None, None, "RNN_TANH", [1], False),
]
_ATTENTION = [
    _attended((1, 1), (1, 1), (1, 1)),
    _attended(*_qkv), _attended(*_qkv, is_causal=True), _attended(*_qkv, attn_mask=_mask), _attended(*_qkv, (3, 5)),
    _attended(*_qkv, scale=0.3), _attended((3, 4), (5, 4), (5, 2)),
    _attended((2, 4, 3, 2), (2, 2, 5, 2), (2, 2, 5, 3), enable_gqa=True),
    _attended((4, 3, 2), (1, 3, 2), (1, 3, 2), is_causal=True, enable_gqa=True),
    _attended((2, 4, 4), (2, 4, 4), (2, 4, 4), is_causal=True),
    _attended((0, 3, 4), (0, 5, 4), (0, 5, 4)), _attended((2, 3, 4), (2, 5, 4), (2, 5, 4), attn_mask=R(2, 1, 5)),
    K(R(1, 2, 3), R(1, 2, 3), R(1, 2, 3), bools([[False, False], [True, False]])),
]

rows = [
    Row("conv1d", _CONV1D, exact=False),
    Row("conv2d", _CONV2D, exact=False, ops=("conv2d", "conv2d_input_grad", "conv2d_weight_grad"), family="network"),
    Row("conv_transpose2d", _CONV_TRANSPOSE, exact=False, ops=()),
    Row("unfold", _UNFOLD, reference=F.unfold, method=False),
    Row("fold", _FOLD, exact=False),
    Row(
        "interpolate", [*_BILINEAR, *_RESAMPLED, *(S(R(*shape), size, factor) for shape, size, factor in _NEAREST)],
        exact=False, ops=("resample", "resample_backward"),
    ),
    Row(
        "upsample_nearest2d", [S(R(*shape), size, factor) for shape, size, factor in _NEAREST], reference=_nearest,
        ops=("upsample_nearest2d", "upsample_nearest2d_backward"),
    ),
    Row("upsample_conv2d", _UPSAMPLE_CONV, reference=_upsampled_then_convolved, exact=False, method=False),
    Row("max_pool2d", _MAX_POOL, reference=F.max_pool2d, ops=("max_pool2d", "max_pool2d_backward")),
    Row("avg_pool2d", _AVG_POOL, exact=False, ops=("avg_pool2d", "avg_pool2d_backward")),
    Row("adaptive_avg_pool2d", _ADAPTIVE, exact=False, ops=("adaptive_avg_pool2d", "adaptive_avg_pool2d_backward")),
    Row(
        "batch_norm", _BATCH_NORM, reference=_normalised(F.batch_norm),
        call=_normalised(lambda *a, **k: tg.batch_norm(*a, **k)), exact=False, method=False,
        ops=("batch_norm", "batch_norm_eval"),
    ),
    Row("layer_norm", _LAYER_NORM, reference=F.layer_norm, exact=False),
    Row("group_norm", _GROUP_NORM, reference=_group_norm, exact=False),
    Row(
        "dropout", [S(R(3, 4)), S(R(3, 4), 0.25), S(R(5), 0.0), S(R(5), 1.0), S(R(5), 0.5, False), S(R(0, 2)), S(R())],
        reference=_dropped_reference, call=_dropped, method=False,
    ),
    Row(
        "recurrent", _RECURRENT, reference=_recurrent, call=lambda *a: recurrent(*a), exact=False, method=False,
        family="network",
    ),
    Row("softmax", _SOFTMAX, reference=torch.softmax, family="network", exact=False),
    Row("log_softmax", _SOFTMAX, reference=torch.log_softmax, family="network", exact=False),
    Row("embedding", _EMBEDDING, reference=F.embedding),
    Row(
        "one_hot", [S(ints([0, 2, 1])), S(ints([[0, 1], [2, 0]]), 4), S(ints([]), 3), S(ints(1), num_classes=2)],
        reference=F.one_hot, differentiable=False, method=False,
    ),
    Row("scaled_dot_product_attention", _ATTENTION, reference=_attention, exact=False),
]
