"""Moving elements: joining, padding, repeating, reading and adding at indices. An index outside fails."""

from __future__ import annotations

from typing import Any

import torch

from .table import Instruction, as_value, emits
from .values import Unsupported, Value, broadcast, literal
from .writer import Writer


def _assign(w: Writer, out: Value, value: Value, sign: str = "=") -> None:
    with w.over(out.sizes, out, value) as (to, one):
        w(f"{to.element} {sign} {one.read(out.dtype)};")


def _narrow(value: Value, d: int, first: int, n: int) -> Value:
    return value.view(lambda t: t.narrow(d, first, n))


def _checked(w: Writer, index: Value, n: int, name: str = "at") -> str:
    """Declares an index, counted from the end where it is negative; it fails outside [0, n)."""
    w(f"int64_t {name} = {index.element};")
    w.check(f"{name} >= {-n} && {name} < {n}")
    w(f"if ({name} < 0) {name} += {n};")
    return name


# --- joining and moving -------------------------------------------------------------------------------------------


@emits("aten::cat", "aten::stack")
def cat(w: Writer, x: Instruction) -> None:
    d, at = (x[1] or 0) % x.out.ndim, 0
    for part in x[0]:
        if part.sizes == (0,) and x.out.ndim != 1:
            continue
        if x.name == "aten::stack":
            part = part.view(lambda t: t.unsqueeze(d))
        n = part.sizes[d]
        _assign(w, _narrow(x.out, d, at, n), part)
        at += n


@emits("aten::constant_pad_nd")
def constant_pad_nd(w: Writer, x: Instruction) -> None:
    out, inside, to = x.out, x[0], x.out
    _assign(w, out, as_value(x[2] or 0, out.dtype))
    for k in range(len(x[1]) // 2):
        low, high = x[1][2 * k : 2 * k + 2]
        d = out.ndim - 1 - k
        if low < 0:
            inside = _narrow(inside, d, -low, inside.sizes[d] + low)
        if high < 0:
            inside = _narrow(inside, d, 0, inside.sizes[d] + high)
        to = _narrow(to, d, max(low, 0), inside.sizes[d])
    _assign(w, to, inside)


@emits("aten::flip")
def flip(w: Writer, x: Instruction) -> None:
    turned = {d % x.out.ndim for d in x[1]}
    _moved(w, x, lambda d, i, n: f"{n - 1} - {i}" if d in turned else i)


@emits("aten::roll")
def roll(w: Writer, x: Instruction) -> None:
    if not x[2]:
        flat = [v.view(lambda t: t.reshape(-1)) for v in (x[0], x.out)]
        n = flat[1].numel
        with w.loop(n) as i:
            w(f"{flat[1].bind([i]).element} = {flat[0].bind([f'({i} + {-x[1][0] % n}) % {n}']).element};")
        return
    by = {d % x.out.ndim: s for d, s in zip(x[2], x[1], strict=True)}
    _moved(w, x, lambda d, i, n: f"({i} + {-by[d] % n}) % {n}" if d in by and by[d] % n else i)


def _moved(w: Writer, x: Instruction, place: Any) -> None:
    """out[i...] = x[place(i)...], one loop a dimension."""
    out, given = x.out, x[0]
    indices: list[str] = []

    def nest(d: int) -> None:
        if d == out.ndim:
            at = [place(k, i, out.sizes[k]) for k, i in enumerate(indices)]
            w(f"{out.bind(indices).element} = {given.bind(at).element};")
            return
        with w.loop(out.sizes[d]) as i:
            indices.append(i)
            nest(d + 1)
            indices.pop()

    nest(0)


@emits("aten::repeat")
def repeat(w: Writer, x: Instruction) -> None:
    given = x[0].view(lambda t: t.reshape((*[1] * (x.out.ndim - t.ndim), *t.shape)))
    sizes = [n for pair in zip(x[1], given.sizes, strict=True) for n in pair]
    out = x.out.view(lambda t: t.reshape(sizes))
    _assign(w, out, given.view(lambda t: t[tuple(k for _ in range(t.ndim) for k in (None, slice(None)))]))


@emits("aten::tril", "aten::triu", "aten::tril_", "aten::triu_")
def triangle(w: Writer, x: Instruction) -> None:
    out, k, sign = x.out, x[1] or 0, "<=" if "tril" in x.name else ">="
    with w.loops(out.sizes[:-2], out, x[0]) as (to, given), w.loop(out.sizes[-2]) as i, w.loop(out.sizes[-1]) as j:
        keep = f"{j} {sign} {i}" + (f" + {k}" if k > 0 else f" - {-k}" if k else "")
        w(f"{to.bind([i, j]).element} = {keep} ? {given.bind([i, j]).element} : 0;")


@emits("aten::diag_embed")
def diag_embed(w: Writer, x: Instruction) -> None:
    _assign(w, x.out, as_value(0, x.dtype))
    offset, first, second = (v if v is not None else d for v, d in zip((x[1], x[2], x[3]), (0, -2, -1), strict=True))
    _assign(w, x.out.view(lambda t: t.diagonal(offset, first, second)), x[0])


@emits("aten::arange", "aten::arange.start", "aten::arange.start_step")
def arange(w: Writer, x: Instruction) -> None:
    start, step = (0, 1) if x.name == "aten::arange" else (x[0], x[2] if x.name.endswith("step") else 1)
    with w.loop(x.out.sizes[0]) as i:
        w(f"{x.out.bind([i]).element} = {literal(start, x.dtype)} + {literal(step, x.dtype)} * {i};")


@emits("aten::im2col", "aten::col2im")
def columns(w: Writer, x: Instruction) -> None:
    """Windows of a map as columns, and their sum back: one view of the columns as [N, C, KH, KW, OH, OW]."""
    back = x.name == "aten::col2im"
    options = x.arguments[2:6] if back else x.arguments[1:5]
    (KH, KW), (DH, DW), (PH, PW), (SH, SW) = options
    image, flat = (x.out, x[0]) if back else (x[0], x.out)
    image = image.view(lambda t: t.unsqueeze(0)) if image.ndim == 3 else image
    flat = flat.view(lambda t: t.unsqueeze(0)) if flat.ndim == 2 else flat
    H, W = image.sizes[2:]
    OH = (H + 2 * PH - DH * (KH - 1) - 1) // SH + 1
    OW = (W + 2 * PW - DW * (KW - 1) - 1) // SW + 1
    cells = flat.view(lambda t: t.reshape(t.shape[0], image.sizes[1], KH, KW, OH, OW))
    if back:
        _assign(w, image, as_value(0, image.dtype))
    with (
        w.loops(image.sizes[:2], image, cells) as (plane, cell),
        w.loop(KH, 0, w.index()) as kh,
        w.loop(KW, 0, w.index()) as kw,
        w.loop(OH, 0, w.index()) as oh,
        w.loop(OW, 0, w.index()) as ow,
    ):
        w(f"const int h = {oh} * {SH} + {kh} * {DH} - {PH}, v = {ow} * {SW} + {kw} * {DW} - {PW};")
        inside, e = f"h >= 0 && h < {H} && v >= 0 && v < {W}", plane.bind(["h", "v"]).element
        c = cell.bind([kh, kw, oh, ow]).element
        w(f"if ({inside}) {e} += {c};" if back else f"{c} = {inside} ? {e} : 0;")


# --- indices ------------------------------------------------------------------------------------------------------


def _lead(value: Value, d: int) -> Value:
    """Dimension d first."""
    return value.view(lambda t: t.movedim(d, 0) if t.ndim else t.reshape(1))


@emits("aten::index_select", "aten::embedding")
def index_select(w: Writer, x: Instruction) -> None:
    if x.name == "aten::embedding":
        table, index, out = x[0], x[1], x.out
        lead = index.ndim
    else:
        d = x[1] % max(x[0].ndim, 1)
        table, index, out, lead = _lead(x[0], d), x[2], _lead(x.out, d), 1
        index = index.view(lambda t: t.reshape(-1))
    with w.loops(out.sizes[:lead], out, index) as (to, one):
        row = table.bind([_checked(w, one, table.sizes[0])])
        _assign(w, to, row)


@emits("index_sum", "index_add", "aten::index_add", "aten::index_add_")
def index_add(w: Writer, x: Instruction) -> None:
    """Rows of source added to rows of the result, which begins as zeros or as another tensor."""
    if x.name == "index_sum":
        source, _, d, index = x.arguments[:4]
        _assign(w, x.out, as_value(0, x.dtype))
    else:
        given, d, index, source = x.arguments[:4]
        if x[4] not in (1, None):
            raise Unsupported("alpha other than 1")
        if x.outs:
            _assign(w, x.out, given)
    d = d % max(x.out.ndim, 1)
    out, source = _lead(x.out, d), _lead(source, d)
    with w.loops(source.sizes[:1], source, index.view(lambda t: t.reshape(-1))) as (row, one):
        _assign(w, out.bind([_checked(w, one, out.sizes[0])]), row, "+=")


@emits("aten::index_fill.int_Scalar", "aten::index_fill_.int_Scalar")
def index_fill(w: Writer, x: Instruction) -> None:
    if x.outs:
        _assign(w, x.out, x[0])
    out, value = _lead(x.out, x[1] % max(x.out.ndim, 1)), as_value(x[3], x.dtype)
    with w.loops(x[2].sizes, x[2]) as (one,):
        row = out.bind([_checked(w, one, out.sizes[0])])
        _assign(w, row, value)


def _along(w: Writer, base: Value, index: Value, d: int, others: list[Value], each: Any) -> None:
    """each(base's element at the index along d, the others' elements) for every index."""
    d = d % max(index.ndim, 1)
    narrow = base.view(lambda t: t[tuple(slice(0, n) if k != d else slice(None) for k, n in enumerate(index.sizes))])
    order = (*[k for k in range(index.ndim) if k != d], d)
    turned = [v.view(lambda t: t.permute(order)) for v in (index, *others)]
    last = narrow.view(lambda t: t.permute(order))
    with (
        w.loops(turned[0].sizes[:-1], last, *turned) as (row, one, *rest),
        w.loops((index.sizes[d],), one, *rest) as (
            at,
            *more,
        ),
    ):
        each(row.bind([_checked(w, at, base.sizes[d])]), *more)


def _vectors(*values: Value) -> list[Value]:
    """0-dim values as vectors of one element."""
    return [v.view(lambda t: t.reshape(1)) if v.ndim == 0 else v for v in values]


@emits("aten::gather")
def gather(w: Writer, x: Instruction) -> None:
    base, index, out = _vectors(x[0], x[2], x.out)
    _along(w, base, index, x[1], [out], lambda e, to: w(f"{to.element} = {e.element};"))


@emits("aten::scatter_add", "aten::scatter_add_", "aten::scatter.src", "aten::scatter.value", "aten::scatter_.src")
def scatter(w: Writer, x: Instruction) -> None:
    given, d, index, source = x.arguments[:4]
    if x.outs:
        _assign(w, x.out, given)
    sign = "+=" if "add" in x.name else "="
    base, index = _vectors(x.out, index)
    value = as_value(source, x.dtype)
    if value.number is None:
        (value,) = _vectors(value)
        value = value.view(lambda t: t[tuple(slice(0, n) for n in index.sizes)])
    else:
        value = value.expand(index.sizes)
    _along(w, base, index, d, [value], lambda e, v: w(f"{e.element} {sign} {v.read(x.dtype)};"))


@emits("aten::index.Tensor", "aten::index_put", "aten::index_put_")
def index(w: Writer, x: Instruction) -> None:
    """Indexing with tensors: the indexed dimensions become those of the indices, in place if they are neighbours."""
    put = "put" in x.name
    base = x.out if put else x[0]
    if put and x.outs:
        _assign(w, x.out, x[0])
    indices = list(x[1]) + [None] * (base.ndim - len(x[1]))
    given = [(d, v) for d, v in enumerate(indices) if v is not None]
    if any(v.dtype in (torch.bool, torch.uint8) for _, v in given):
        raise Unsupported("a boolean mask has an output whose shape depends on values")
    sizes = broadcast(*[v.sizes for _, v in given])
    places = [d for d, _ in given]
    together = places == list(range(places[0], places[0] + len(places)))
    rest = [d for d in range(base.ndim) if d not in places]
    before = places[0] if together else 0
    shape = [base.sizes[d] for d in rest]
    full = (*shape[:before], *sizes, *shape[before:])
    other = as_value(x[2], base.dtype).expand(full) if put else x.out
    order = (*range(before, before + len(sizes)), *range(before), *range(before + len(sizes), len(full)))
    other = other.view(lambda t: t.permute(order))
    table = base.view(lambda t: t.permute((*places, *rest)))
    sign = "+=" if put and x[3] else "="
    with w.loops(sizes, other, *[v.expand(sizes) for _, v in given]) as (row, *at):
        names = [
            _checked(w, one, base.sizes[d], f"at{k or ''}") for k, (one, d) in enumerate(zip(at, places, strict=True))
        ]
        target = table.bind(names)
        _assign(w, target, row, sign) if put else _assign(w, row, target)


@emits("check")
def check(w: Writer, x: Instruction) -> None:
    """Every element must hold."""
    with w.loops(x[0].sizes, x[0]) as (ok,):
        w.check(ok.element)
