"""Convolutions and their gradients: for every weight, one pass over the part of the map that it meets."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from .products import total
from .table import Instruction, emits, unflatten
from .values import TYPES, Value
from .writer import Writer


@dataclass(frozen=True)
class Geometry:
    """What the four maps of a convolution have in common. ``doubled``: of the map that nearest upsampling makes."""

    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int
    doubled: bool = False


def _batched(value: Value) -> Value:
    return value.view(lambda t: t.unsqueeze(0)) if value.ndim == 3 else value


@contextlib.contextmanager
def taps(w: Writer, x: Value, weight: Value, out: Value, how: Geometry) -> Iterator[tuple[Any, ...]]:
    """Loops over n, oc, c, kh, kw, oh; yields (weight's element, out's row, x's row, input's column, first, last)."""
    (_, _, height, width), (_, _, OH, OW) = x.sizes, out.sizes
    scale = 2 if how.doubled else 1
    OC, C, KH, KW = weight.sizes
    (SH, SW), (PH, PW), (DH, DW) = how.stride, how.padding, how.dilation
    G = how.groups
    per = OC // G
    grouped_out = unflatten(out, 1, G)
    grouped_x = unflatten(x, 1, G)
    grouped_w = unflatten(weight, 0, G)
    with (
        w.loop(x.sizes[0]) as n,
        w.loop(G) as g,
        w.loop(per) as oc,
        w.loop(C) as c,
        w.loop(KH) as kh,
        w.loop(KW) as kw,
    ):
        one = grouped_w.bind([g, oc, c, kh, kw])
        plane, source = grouped_out.bind([n, g, oc]), grouped_x.bind([n, g, c])
        lo_h, hi_h = _inside(kh, KH, SH, PH, DH, height * scale, OH)
        lo_w, hi_w = _inside(kw, KW, SW, PW, DW, width * scale, OW)
        with w.loop(hi_h, lo_h, w.index()) as oh:
            ih = _position(oh, kh, SH, PH, DH)
            yield one, plane.bind([oh]), source.bind([f"({ih}) / 2" if how.doubled else ih]), kw, lo_w, hi_w


def _position(o: str, k: str, stride: int, padding: int, dilation: int) -> str:
    """The input's index for output o and weight k."""
    terms = [o if stride == 1 else f"{o} * {stride}"]
    if k != "0":
        terms.append(k if dilation == 1 else f"{k} * {dilation}")
    return " + ".join(terms) + (f" - {padding}" if padding else "")


def _inside(k: str, K: int, stride: int, padding: int, dilation: int, size: int, outputs: int) -> tuple[str, str]:
    """First output, and one beyond the last, for which weight k lies inside."""
    reach = (outputs - 1) * stride + (K - 1) * dilation - padding  # the last input that would be read
    tap = "0" if k == "0" else k if dilation == 1 else f"{k} * {dilation}"
    first, last = "0", str(outputs)
    if padding:
        need = f"{padding} - {tap}" if tap != "0" else str(padding)
        first = f"({need} > 0 ? ({need} + {stride - 1}) / {stride} : 0)" if stride > 1 else f"({need} > 0 ? {need} : 0)"
    if reach >= size:
        room = f"{size + padding} - {tap}" if tap != "0" else str(size + padding)
        beyond = f"({room} + {stride - 1}) / {stride}" if stride > 1 else f"{room}"
        last = f"({beyond} < {outputs} ? {beyond} : {outputs})"
        if (K - 1) * dilation > size + padding:
            last = f"({room} > 0 ? {last} : 0)"
    return first, last


def _columns(w: Writer, parts: Any, how: Geometry) -> Any:
    """The inner loop over output columns: (context, out's element, x's element)."""
    _, row, source, kw, first, last = parts

    @contextlib.contextmanager
    def loop() -> Iterator[tuple[str, str]]:
        with w.loop(last, first, w.index()) as ow:
            iw = _position(ow, kw, how.stride[1], how.padding[1], how.dilation[1])
            yield row.bind([ow]).element, source.bind([f"({iw}) / 2" if how.doubled else iw]).element

    return loop()


def forward(w: Writer, out: Value, x: Value, weight: Value, bias: Value | None, how: Geometry) -> None:
    out, x = _batched(out), _batched(x)
    start = None if bias is None else bias.view(lambda t: t[:, None, None])
    with w.over(out.sizes, out, *([] if start is None else [start])) as (to, *first):
        w(f"{to.element} = {first[0].element if first else '0'};")
    with taps(w, x, weight, out, how) as parts:
        w(f"const {TYPES[out.dtype]} factor = {parts[0].element};")
        with _columns(w, parts, how) as (to, one):
            w(f"{to} += factor * {one};")


def input_gradient(w: Writer, dx: Value, g: Value, weight: Value, how: Geometry) -> None:
    dx, g = _batched(dx), _batched(g)
    with w.over(dx.sizes, dx) as (to,):
        w(f"{to.element} = 0;")
    with taps(w, dx, weight, g, how) as parts:
        w(f"const {TYPES[dx.dtype]} factor = {parts[0].element};")
        with _columns(w, parts, how) as (one, to):
            w(f"{to} += factor * {one};")


def weight_gradient(w: Writer, dw: Value, g: Value, x: Value, how: Geometry) -> None:
    g, x = _batched(g), _batched(x)
    with w.over(dw.sizes, dw) as (to,):
        w(f"{to.element} = 0;")
    with taps(w, x, dw, g, how) as parts:
        w(f"{TYPES[dw.dtype]} sum = 0;")
        with _columns(w, parts, how) as (one, other):
            w(f"sum += {one} * {other};")
        w(f"{parts[0].element} += sum;")


def _geometry(arguments: Any, doubled: bool = False) -> Geometry:
    stride, padding, dilation, groups = arguments
    return Geometry(tuple(stride), tuple(padding), tuple(dilation), groups, doubled)


_FOLDED = ((1, 1), (1, 1), (1, 1), 1)


@emits("conv2d", "conv2d_of_doubled", "upsample_conv2d")
def conv2d(w: Writer, x: Instruction) -> None:
    folded = x.name == "upsample_conv2d"
    how = _geometry(_FOLDED if folded else x.arguments[3:7], x.name != "conv2d")
    forward(w, x.out, x[0], x[1], x[2], how)


@emits("conv2d_input_grad")
def conv2d_input_grad(w: Writer, x: Instruction) -> None:
    input_gradient(w, x.out, x[0], x[1], _geometry(x.arguments[3:7]))


@emits("conv2d_weight_grad")
def conv2d_weight_grad(w: Writer, x: Instruction) -> None:
    weight_gradient(w, x.out, x[0], x[1], _geometry(x.arguments[3:7]))


@emits("conv2d_backward", "conv2d_of_doubled_backward", "upsample_conv2d_backward")
def conv2d_backward(w: Writer, x: Instruction) -> None:
    folded = x.name == "upsample_conv2d_backward"
    how = _geometry(_FOLDED if folded else x.arguments[5:9], x.name != "conv2d_backward")
    g, given, weight = x.arguments[:3]
    dx, dw, db = x.outs
    if dw is not None:
        weight_gradient(w, dw, g, given, how)
    if db is not None:
        total(w, db, _batched(g), [1])
    if dx is not None:
        input_gradient(w, dx, g, weight, how)
