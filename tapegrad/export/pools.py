"""Pooling and resampling: windows and sources are worked out here, and stand in the file as numbers or small tables."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from .table import Instruction, emits
from .values import TYPES, Unsupported, Value, literal
from .writer import Writer


def _planes(value: Value) -> Value:
    return value.view(lambda t: t.unsqueeze(0)) if value.ndim == 3 else value


def _pair(value: Any) -> tuple[int, int]:
    values = (value,) if isinstance(value, int) else tuple(value)
    return (values[0], values[-1])


class Windows:
    """A loop over the windows of planes [N, C]: yields the element of the output and the bounds of a window."""

    def __init__(self, w: Writer, size: Sequence[int], kernel: Any, stride: Any, padding: Any, dilation: Any) -> None:
        self.w = w
        self.size = tuple(size)
        self.kernel, self.padding, self.dilation = _pair(kernel), _pair(padding), _pair(dilation)
        self.stride = _pair(stride) if stride else self.kernel

    def taps(self, oh: str, ow: str) -> list[tuple[str, str, str]]:
        """(start, first, last) of rows and of columns: input index is start + first ... last, by dilation."""
        w, found = self.w, []
        for axis, o, name in ((0, oh, "row"), (1, ow, "column")):
            begin = f"{o} * {self.stride[axis]}" + (f" - {self.padding[axis]}" if self.padding[axis] else "")
            w(f"const int {name} = {begin};")
            found.append(name)
        return [(name, *self._range(name, axis)) for axis, name in enumerate(found)]

    def _range(self, start: str, axis: int) -> tuple[str, str]:
        kernel, size, dilation = self.kernel[axis], self.size[axis], self.dilation[axis]
        first = "0"
        if self.padding[axis]:
            first = f"({start} < 0 ? ({dilation - 1} - {start}) / {dilation} : 0)"
        room = f"({size + dilation - 1} - {start}) / {dilation}"
        return first, f"({room} < {kernel} ? {room} : {kernel})"


@emits("max_pool2d", "aten::max_pool2d_with_indices")
def max_pool2d(w: Writer, x: Instruction) -> None:
    """The first largest of a window, or a NaN, and its place in the plane."""
    given = _planes(x[0])
    values, indices = ([] if v is None else [_planes(v)] for v in x.outs)
    out = (*values, *indices)[0]
    how = Windows(w, given.sizes[2:], x[1], x[2], x[3], x[4])
    dtype = TYPES[x.dtype]
    with (
        w.loops(out.sizes[:2], given, *values, *indices) as (source, *planes),
        w.loop(out.sizes[2], 0, w.index()) as oh,
        w.loop(out.sizes[3], 0, w.index()) as ow,
    ):
        (row, h0, h1), (column, w0, w1) = how.taps(oh, ow)
        dh, dw = how.dilation
        w(f"int at_h = {row} + {_times(h0, dh)}, at_w = {column} + {_times(w0, dw)};")
        w(f"{dtype} most = {source.bind(['at_h', 'at_w']).element};")
        with w.loop(h1, h0, w.index()) as kh, w.loop(w1, w0, w.index()) as kw:
            w(f"const int h = {row} + {_times(kh, dh)}, v = {column} + {_times(kw, dw)};")
            w(f"const {dtype} e = {source.bind(['h', 'v']).element};")
            w("if (e > most || e != e) most = e, at_h = h, at_w = v;")
        _write_most(w, planes, bool(values), "most", f"at_h * {given.sizes[3]} + at_w", oh, ow)


def _write_most(w: Writer, planes: list[Value], has_value: bool, value: str, place: str, oh: str, ow: str) -> None:
    """The largest of a window, and its place, where they are asked for."""
    for k, plane in enumerate(planes):
        w(f"{plane.bind([oh, ow]).element} = {value if has_value and k == 0 else place};")
    if has_value and len(planes) == 1:
        w("(void)at_h, (void)at_w;")


def _times(text: str, factor: int) -> str:
    return text if factor == 1 else f"{text} * {factor}"


@emits("max_pool2d_backward")
def max_pool2d_backward(w: Writer, x: Instruction) -> None:
    dx, g, indices = (_planes(v) for v in (x.out, x[0], x[1]))
    with w.over(dx.sizes, dx) as (to,):
        w(f"{to.element} = 0;")
    flat = dx.view(lambda t: t.flatten(2))
    with w.loops(g.sizes[:2], flat, g, indices) as (to, grad, place), w.loops(g.sizes[2:], grad, place) as (one, at):
        w(f"{to.bind([at.element]).element} += {one.element};")


def _average(w: Writer, out: Value, given: Value, options: Sequence[Any], back: bool) -> None:
    kernel, stride, padding, _, count_padding, divisor = options
    how = Windows(w, given.sizes[2:], kernel, stride, padding, 1)
    H, W = given.sizes[2:]
    dtype = given.dtype
    with (
        w.loops(out.sizes[:2], out, given) as (plane, source),
        w.loop(out.sizes[2], 0, w.index()) as oh,
        w.loop(out.sizes[3], 0, w.index()) as ow,
    ):
        (row, h0, h1), (column, w0, w1) = how.taps(oh, ow)
        if divisor:
            count = literal(divisor, dtype)
        elif not count_padding:
            count = f"({TYPES[dtype]})(({h1} - {h0}) * ({w1} - {w0}))"
        elif any(how.padding) or any(
            (o - 1) * s + k > n for o, s, k, n in zip(out.sizes[2:], how.stride, how.kernel, (H, W), strict=True)
        ):
            ends = [
                f"({s} + {k} < {n + p} ? {k} : {n + p} - {s})"
                for s, k, n, p in zip((row, column), how.kernel, (H, W), how.padding, strict=True)
            ]
            count = f"({TYPES[dtype]})({' * '.join(ends)})"
        else:
            count = literal(math.prod(how.kernel), dtype)
        target = plane.bind([oh, ow]).element
        w(f"const {TYPES[dtype]} share = {target} / {count};" if back else f"{TYPES[dtype]} sum = 0;")
        with w.loop(h1, h0, w.index()) as kh, w.loop(w1, w0, w.index()) as kw:
            e = source.bind([f"{row} + {kh}", f"{column} + {kw}"]).element
            w(f"{e} += share;" if back else f"sum += {e};")
        if not back:
            w(f"{target} = sum / {count};")


@emits("aten::avg_pool2d")
def avg_pool2d(w: Writer, x: Instruction) -> None:
    _average(w, _planes(x.out), _planes(x[0]), x.arguments[1:7], back=False)


@emits("aten::avg_pool2d_backward")
def avg_pool2d_backward(w: Writer, x: Instruction) -> None:
    dx, g = _planes(x.out), _planes(x[0])
    with w.over(dx.sizes, dx) as (to,):
        w(f"{to.element} = 0;")
    _average(w, g, dx, x.arguments[2:8], back=True)


def _adaptive(w: Writer, out: Value, given: Value, back: bool) -> None:
    """Output i averages the inputs [i n / m, (i + 1) n / m), rounded outwards."""
    dtype = TYPES[given.dtype]
    ends = []
    for n, m in zip(given.sizes[-2:], out.sizes[-2:], strict=True):
        first, last = [i * n // m for i in range(m)], [-(-(i + 1) * n // m) for i in range(m)]
        ends.append((w.table(first), w.table(last)))
    with (
        w.loops(out.sizes[:2], out, given) as (plane, source),
        w.loop(out.sizes[2], 0, w.index()) as oh,
        w.loop(out.sizes[3], 0, w.index()) as ow,
    ):
        (h0, h1), (w0, w1) = ((f"{a}[{o}]", f"{b}[{o}]") for (a, b), o in zip(ends, (oh, ow), strict=True))
        count = f"({dtype})(({h1} - {h0}) * ({w1} - {w0}))"
        target = plane.bind([oh, ow]).element
        w(f"const {dtype} share = {target} / {count};" if back else f"{dtype} sum = 0;")
        with w.loop(h1, h0, w.index()) as h, w.loop(w1, w0, w.index()) as v:
            e = source.bind([h, v]).element
            w(f"{e} += share;" if back else f"sum += {e};")
        if not back:
            w(f"{target} = sum / {count};")


@emits("aten::_adaptive_avg_pool2d")
def adaptive_avg_pool2d(w: Writer, x: Instruction) -> None:
    _adaptive(w, _planes(x.out), _planes(x[0]), back=False)


@emits("aten::_adaptive_avg_pool2d_backward")
def adaptive_avg_pool2d_backward(w: Writer, x: Instruction) -> None:
    dx, g = _planes(x.out), _planes(x[0])
    with w.over(dx.sizes, dx) as (to,):
        w(f"{to.element} = 0;")
    _adaptive(w, g, dx, back=True)


@emits("aten::adaptive_max_pool2d")
def adaptive_max_pool2d(w: Writer, x: Instruction) -> None:
    """The first largest, or a NaN, of the windows of `_adaptive`, and its place in the plane."""
    given = _planes(x[0])
    values, places = ([] if v is None else [_planes(v)] for v in x.outs)
    out = (*values, *places)[0]
    ends = []
    for n, m in zip(given.sizes[-2:], out.sizes[-2:], strict=True):
        first, last = [i * n // m for i in range(m)], [-(-(i + 1) * n // m) for i in range(m)]
        ends.append((w.table(first), w.table(last)))
    with (
        w.loops(out.sizes[:2], given, *values, *places) as (source, *planes),
        w.loop(out.sizes[2], 0, w.index()) as oh,
        w.loop(out.sizes[3], 0, w.index()) as ow,
    ):
        (h0, h1), (w0, w1) = ((f"{a}[{o}]", f"{b}[{o}]") for (a, b), o in zip(ends, (oh, ow), strict=True))
        w(f"int at_h = {h0}, at_w = {w0};")
        most = source.bind(["at_h", "at_w"]).element
        with w.loop(h1, h0, w.index()) as h, w.loop(w1, w0, w.index()) as v:
            e = source.bind([h, v]).element
            w(f"if ({most} == {most} && ({e} > {most} || {e} != {e})) at_h = {h}, at_w = {v};")
        _write_most(w, planes, bool(values), most, f"at_h * {given.sizes[3]} + at_w", oh, ow)


# --- resampling ---------------------------------------------------------------------------------------------------


def sources(n: int, m: int, factor: float | None) -> list[int]:
    """The input that each of m outputs reads, by torch's rule for nearest (csrc/ops/upsample.h), in float32."""
    scale = torch.tensor(1 / factor if factor else n / m, dtype=torch.float32)
    if n == m:
        return list(range(n))
    if m == 2 * n:
        return [i // 2 for i in range(m)]
    return [min(int(torch.floor(torch.tensor(i, dtype=torch.float32) * scale).item()), n - 1) for i in range(m)]


def _source(w: Writer, o: str, n: int, m: int, factor: float | None) -> str:
    table = sources(n, m, factor)
    if n == m:
        return o
    whole = max(m // n, 1)
    return f"{o} / {whole}" if table == [i // whole for i in range(m)] else f"{w.table(table)}[{o}]"


def _nearest(w: Writer, large: Value, small: Value, scales: Any, back: bool) -> None:
    with (
        w.loops(large.sizes[:2], large, small) as (plane, source),
        w.loop(large.sizes[2], 0, w.index()) as oh,
        w.loop(large.sizes[3], 0, w.index()) as ow,
    ):
        factors = scales or (None, None)
        at = [
            _source(w, o, n, m, f)
            for o, n, m, f in zip((oh, ow), small.sizes[2:], large.sizes[2:], factors, strict=True)
        ]
        one, other = plane.bind([oh, ow]).element, source.bind(at).element
        w(f"{other} += {one};" if back else f"{one} = {other};")


@emits("upsample_nearest2d")
def upsample_nearest2d(w: Writer, x: Instruction) -> None:
    _nearest(w, x.out, x[0], x[2], back=False)


@emits("upsample_nearest2d_backward")
def upsample_nearest2d_backward(w: Writer, x: Instruction) -> None:
    with w.over(x.out.sizes, x.out) as (to,):
        w(f"{to.element} = 0;")
    _nearest(w, x[0], x.out, x[2], back=True)


@emits("resample", "resample_backward")
def resample(w: Writer, x: Instruction) -> None:
    """Along every dimension a matrix [outputs, inputs] of weights, which torch's own function gives."""
    given, mode, align, factors = x[0], x[2], x[3], x[4]
    back = x.name == "resample_backward"
    small, large = (x.out, given) if back else (given, x.out)
    if mode not in ("linear", "bilinear", "trilinear", "nearest", "nearest-exact") or small.ndim > 4:
        raise Unsupported(f"resampling by {mode} of {small.ndim - 2} dimensions")
    weights = []
    for d in range(small.ndim - 2):
        n, m = small.sizes[2 + d], large.sizes[2 + d]
        options = {} if mode.startswith("nearest") else {"align_corners": align}
        options |= {"scale_factor": factors[d], "recompute_scale_factor": False} if factors else {"size": m}
        one = "linear" if mode.endswith("linear") else mode
        matrix = torch.nn.functional.interpolate(torch.eye(n, dtype=small.dtype)[None], mode=one, **options)[0]
        if matrix.shape[1] != m:
            raise Unsupported(f"resampling of {n} elements to {m} with factor {factors[d]}")
        taps = [(row.nonzero().flatten().tolist(), row) for row in matrix.t()]
        pairs = [(i[0], i[-1], float(r[i[-1]]) if len(i) > 1 else 0.0) for i, r in taps]
        weights.append(pairs)
    if back:
        with w.over(small.sizes, small) as (to,):
            w(f"{to.element} = 0;")
    dtype = large.dtype
    with w.loops(large.sizes[:2], large, small) as (plane, source):
        _mixed(w, plane, source, weights, dtype, back)


def _mixed(w: Writer, plane: Value, source: Value, weights: list[Any], dtype: torch.dtype, back: bool) -> None:
    names = []
    for pairs in weights:
        first, second = w.table([a for a, _, _ in pairs]), w.table([b for _, b, _ in pairs])
        share = w.numbers([c for _, _, c in pairs], dtype)
        o = w.index()
        names.append((o, first, second, share))
        w._loops += 1
        w(f"for (int {o} = 0; {o} < {len(pairs)}; ++{o})")
    w._loops -= len(names)
    with w.block():
        one = plane.bind([n[0] for n in names]).element
        terms = []
        for corner in range(2 ** len(names)):
            factors, at = [], []
            for k, (o, first, second, share) in enumerate(names):
                high = corner >> k & 1
                at.append(f"{second if high else first}[{o}]")
                factors.append(f"{share}[{o}]" if high else f"(1 - {share}[{o}])")
            element = source.bind(at).element
            terms.append((element, " * ".join(factors)))
        if back:
            w(*[f"{e} += {one} * {f};" for e, f in terms])
        else:
            w(f"{one} = " + " + ".join(f"{e} * {f}" for e, f in terms) + ";")
