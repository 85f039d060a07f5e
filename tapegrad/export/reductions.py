"""Reductions over dimensions, softmax, cumulated sums. Long sums are taken in parts, so that rounding stays small."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import torch

from .table import Instruction, dims, emits, split, unreduced
from .values import TYPES, Unsupported, Value, collapsed, literal
from .writer import Writer

RUN = 256  # elements that are added up one by one; the sums of such runs are added up the same way


def add_up(w: Writer, name: str, dtype: torch.dtype, sizes: tuple[int, ...], *values: Value, term: Any) -> None:
    """Declares ``name``: the sum of term(elements) over the leading dimensions, of ``sizes``."""
    w.accumulator(name, dtype)
    extents, seen = collapsed(sizes, values)
    if not extents or math.prod(extents) <= RUN or not dtype.is_floating_point:
        with w.loops(sizes, *values) as elements:
            w(f"{name} += {term(*elements)};")
        return
    part = f"{name}_part"
    last = extents[-1]
    with w.loops(extents[:-1], *seen) as rows:
        if last <= RUN:
            w.accumulator(part, dtype)
            with w.loops([last], *rows) as elements:
                w(f"{part} += {term(*elements)};")
            w(f"{name} += {part};")
            return
        i = w.index()
        with w.block(f"for (int {i} = 0; {i} < {last};)"):
            w._loops += 1
            w(f"const int end = {i} + {RUN} < {last} ? {i} + {RUN} : {last};")
            w.accumulator(part, dtype)
            with w.block(f"for (; {i} < end; ++{i})"):
                w(f"{part} += {term(*[row.bind([i]) for row in rows])};")
            w(f"{name} += {part};")
            w._loops -= 1


@emits("sum", "mean", "aten::sum", "aten::sum.dim_IntList", "aten::mean", "aten::mean.dim")
def sum_or_mean(w: Writer, x: Instruction) -> None:
    given = x[0]
    reduced = dims(x[1] if isinstance(x[1], tuple | int) else None, given.ndim)
    value, kept, over = split(given, reduced)
    out, dtype = unreduced(x.out, given, reduced), x.dtype
    with w.loops(kept, out, value) as (to, row):
        add_up(w, "sum", dtype, over, row, term=lambda e: e.read(dtype))
        count = f" / {literal(math.prod(over), dtype)}" if "mean" in x.name else ""
        w(f"{to.element} = sum{count};")


def _reduced(x: Instruction) -> tuple[list[int], Value, tuple[int, ...], tuple[int, ...]]:
    axes = x[1] if isinstance(x[1], tuple | int) and not isinstance(x[1], bool) else None
    reduced = dims(axes, x[0].ndim)
    return (reduced, *split(x[0], reduced))


# name: (start, the next in terms of the one so far and an element)
_FOLDS = {
    "prod": ("1", "{so} * {e}"),
    "aten::amax": (None, "({e} > {so} || {e} != {e} ? {e} : {so})"),
    "aten::amin": (None, "({e} < {so} || {e} != {e} ? {e} : {so})"),
    "aten::max": (None, "({e} > {so} || {e} != {e} ? {e} : {so})"),
    "aten::min": (None, "({e} < {so} || {e} != {e} ? {e} : {so})"),
    "aten::any": ("0", "({so} || {e} != 0)"),
    "aten::all": ("1", "({so} && {e} != 0)"),
}
_FOLDS |= {"aten::prod": _FOLDS["prod"], "aten::prod.dim_int": _FOLDS["prod"]}
_FOLDS |= {f"aten::{name}.{kind}": _FOLDS[f"aten::{name}"] for name in ("any", "all") for kind in ("dim", "dims")}


def _of_integers(text: str, dtype: torch.dtype) -> str:
    """A condition without what it says of NaN, of which integers have none, and compilers complain."""
    if dtype.is_floating_point:
        return text
    return re.sub(r" \|\| (\S+) != \1", "", re.sub(r"(\S+) == \1 && ", "", text))


@emits(*_FOLDS)
def fold(w: Writer, x: Instruction) -> None:
    start, step = _FOLDS[x.name]
    reduced, value, kept, over = _reduced(x)
    out = unreduced(x.out, x[0], reduced)
    with w.loops(kept, out, value) as (to, row):
        first = row.bind(["0"] * row.ndim).element if start is None else start
        w(f"{TYPES[x.dtype]} most = {first};" if start is None else f"{TYPES[x.dtype]} so = {first};")
        name = "most" if start is None else "so"
        with w.loops(over, row) as (e,):
            w(f"{name} = {_of_integers(step, e.dtype).format(so=name, e=e.element)};")
        w(f"{to.element} = {name};")


@emits("aten::argmax", "aten::argmin", "aten::max.dim", "aten::min.dim")
def where_most(w: Writer, x: Instruction) -> None:
    """The place of the first largest or smallest, a NaN before all; with ``.dim`` the value as well."""
    most = "max" in x.name
    given = x[0] if x[1] is not None else x[0].view(lambda t: t.reshape(-1))
    d = (x[1] or 0) % max(given.ndim, 1)
    reduced = dims(d, given.ndim)
    value, kept, over = split(given, reduced)
    both = x.name.endswith(".dim")
    targets = [unreduced(o, given, reduced) for o in (x.outs if both else (None, x.out)) if o is not None]
    with w.loops(kept, value, *targets) as (row, *to):
        w("int at = 0;")
        with w.loop(math.prod(over), 1, w.index()) as i:
            best, e = row.bind(["at"]).element, row.bind([i]).element
            better = f"{best} == {best} && ({e} {'>' if most else '<'} {best} || {e} != {e})"
            w(f"if ({_of_integers(better, row.dtype)}) at = {i};")
        for target in to:
            if target.dtype == torch.int64 and target is to[-1] and (not both or x.outs[1] is not None):
                w(f"{target.element} = at;")
            else:
                w(f"{target.element} = {row.bind(['at']).element};")


@emits("norm")
def norm(w: Writer, x: Instruction) -> None:
    """(sum |x|^p)^(1/p)"""
    p, dtype = float(x[1]), x.dtype
    reduced = dims(x[2], x[0].ndim)
    value, kept, over = split(x[0], reduced)
    out = unreduced(x.out, x[0], reduced)
    if p in (math.inf, -math.inf):
        sign = ">" if p > 0 else "<"
        with w.loops(kept, out, value) as (to, row):
            w.accumulator("most", dtype, 0 if p > 0 else math.inf)
            with w.loops(over, row) as (e,):
                a = w.call("fabs", dtype, e.element)
                w(f"most = {a} {sign} most || {a} != {a} ? {a} : most;")
            w(f"{to.element} = most;")
        return
    powers: dict[float, Callable[[Value], str]] = {
        0: lambda e: f"({e.element} != 0 ? 1 : 0)",
        1: lambda e: w.call("fabs", dtype, e.element),
        2: lambda e: f"{e.element} * {e.element}",
    }

    def power(e: Value) -> str:
        if p in powers:
            return powers[p](e)
        return w.call("pow", dtype, w.call("fabs", dtype, e.element), literal(p, dtype))

    with w.loops(kept, out, value) as (to, row):
        add_up(w, "sum", dtype, over, row, term=power)
        root = (
            w.call("sqrt", dtype, "sum") if p == 2 else w.call("pow", dtype, "sum", literal(1 / p, dtype)) if p else ""
        )
        w(f"{to.element} = {'sum' if p in (0, 1) else root};")


@emits("logsumexp")
def logsumexp(w: Writer, x: Instruction) -> None:
    reduced, value, kept, over = _reduced(x)
    out, dtype = unreduced(x.out, x[0], reduced), x.dtype
    with w.loops(kept, out, value) as (to, row):
        largest(w, dtype, row, over)
        w(f"if (most - most != 0) most = most > 0 || most != most ? most : {literal(-torch.finfo(dtype).max, dtype)};")
        add_up(w, "sum", dtype, over, row, term=lambda e: w.call("exp", dtype, f"{e.element} - most"))
        w(f"{to.element} = most + {w.call('log', dtype, 'sum')};")


def largest(w: Writer, dtype: torch.dtype, row: Value, sizes: tuple[int, ...]) -> None:
    """Declares ``most``, the largest element."""
    w(f"{TYPES[dtype]} most = {row.bind(['0'] * row.ndim).element};")
    with w.loops(sizes, row) as (e,):
        w(f"if ({e.element} > most) most = {e.element};")


# --- softmax ---------------------------------------------------------------------------------------------------------


def _last(value: Value, d: int) -> tuple[Value, tuple[int, ...], tuple[int, ...]]:
    return split(value, dims(d, value.ndim))


@emits("softmax", "log_softmax")
def softmax(w: Writer, x: Instruction) -> None:
    dtype = x.dtype
    value, kept, over = _last(x[0], x[1])
    with w.loops(kept, _last(x.out, x[1])[0], value) as (to, row):
        largest(w, dtype, row, over)
        if x.name == "log_softmax":
            add_up(w, "sum", dtype, over, row, term=lambda e: w.call("exp", dtype, f"{e.element} - most"))
            w(f"const {TYPES[dtype]} rest = {w.call('log', dtype, 'sum')};")
            with w.loops(over, to, row) as (t, e):
                w(f"{t.element} = {e.element} - most - rest;")
            return
        with w.loops(over, to, row) as (t, e):
            w(f"{t.element} = {w.call('exp', dtype, f'{e.element} - most')};")
        add_up(w, "sum", dtype, over, to, term=lambda e: e.element)
        with w.loops(over, to) as (t,):
            w(f"{t.element} /= sum;")


@emits("softmax_backward", "log_softmax_backward")
def softmax_backward(w: Writer, x: Instruction) -> None:
    dtype, log = x.dtype, x.name.startswith("log")
    (g, kept, over), (y, _, _), (dx, _, _) = (_last(v, x[2]) for v in (x[0], x[1], x.out))
    with w.loops(kept, dx, g, y) as (to, grad, out):
        add_up(w, "sum", dtype, over, grad, out, term=lambda a, b: a.element if log else f"{a.element} * {b.element}")
        with w.loops(over, to, grad, out) as (t, a, b):
            slope = (
                f"{a.element} - {w.call('exp', dtype, b.element)} * sum"
                if log
                else f"{b.element} * ({a.element} - sum)"
            )
            w(f"{t.element} = {slope};")


# --- cumulated -------------------------------------------------------------------------------------------------------


@emits("aten::cumsum", "aten::cumprod")
def cumulated(w: Writer, x: Instruction) -> None:
    times = x.name.endswith("prod")
    value, kept, over = _last(x[0], x[1])
    with w.loops(kept, _last(x.out, x[1])[0], value) as (to, row):
        w.accumulator("so", x.dtype, 1 if times else 0)
        with w.loops(over, to, row) as (t, e):
            w(f"so {'*' if times else '+'}= {e.read(x.dtype)};")
            w(f"{t.element} = so;")


@emits("aten::cummax", "aten::cummin")
def most_so_far(w: Writer, x: Instruction) -> None:
    """The largest or smallest so far, the later of two equal ones, and its place."""
    value, kept, over = _last(x[0], x[1])
    targets = [_last(v, x[1])[0] for v in x.outs if v is not None]
    with w.loops(kept, value, *targets) as (row, *to):
        w("int at = 0;")
        with w.loop(math.prod(over), 0, w.index()) as i:
            e, best = row.bind([i]).element, row.bind(["at"]).element
            w(f"if ({e} != {e} || {e} {'>=' if x.name.endswith('max') else '<='} {best}) at = {i};")
            for target in to:
                is_place = target.dtype == torch.int64 and target is to[-1] and x.outs[1] is not None
                w(f"{target.bind([i]).element} = {'at' if is_place else best};")


@emits("aten::logcumsumexp")
def log_sums(w: Writer, x: Instruction) -> None:
    value, kept, over = _last(x[0], x[1])
    with w.loops(kept, _last(x.out, x[1])[0], value) as (to, row), w.loop(math.prod(over), 0, w.index()) as i:
        e, so, before = row.bind([i]).element, to.bind([i]).element, to.bind([f"{i} - 1"]).element
        w(f"{so} = {i} > 0 ? {w.call('logaddexp', x.dtype, before, e)} : {e};")


# --- variance --------------------------------------------------------------------------------------------------------


def moments(w: Writer, dtype: torch.dtype, row: Value, over: tuple[int, ...]) -> None:
    """Declares ``mean`` and ``square``, the sum of the squared differences from it."""
    count = literal(math.prod(over), dtype)
    add_up(w, "sum", dtype, over, row, term=lambda e: e.element)
    w(f"const {TYPES[dtype]} mean = sum / {count};")
    add_up(w, "square", dtype, over, row, term=lambda e: f"({e.element} - mean) * ({e.element} - mean)")


@emits("var", "std")
def variance(w: Writer, x: Instruction) -> None:
    dtype, correction = x.dtype, float(x[2])
    reduced = dims(x[1], x[0].ndim)
    value, kept, over = split(x[0], reduced)
    stats = unreduced_pair(x.outs[1], kept)
    with w.loops(kept, unreduced(x.out, x[0], reduced), value, *stats) as (to, row, *store):
        moments(w, dtype, row, over)
        made = f"square / {literal(max(math.prod(over) - correction, 0), dtype)}"
        w(f"{to.element} = {w.call('sqrt', dtype, made) if x.name == 'std' else made};")
        for target, name in zip(store, ("mean", "square"), strict=False):
            w(f"{target.element} = {name};")


def _one_of(stats: Value, i: int, kept: tuple[int, ...]) -> Value:
    return stats.view(lambda t: t[i].reshape(kept))


def unreduced_pair(stats: Value | None, kept: tuple[int, ...]) -> list[Value]:
    """Statistics [2 or more, ...] as values of the kept sizes, one for each."""
    if stats is None:
        return []
    return [_one_of(stats, i, kept) for i in range(stats.sizes[0])]


@emits("var_backward", "std_backward")
def variance_backward(w: Writer, x: Instruction) -> None:
    """2 (x - mean) / (n - correction) g; over twice the deviation for std."""
    g, given, stats, axes, correction = x.arguments[:5]
    dtype = x.dtype
    reduced = dims(axes, given.ndim)
    value, kept, over = split(given, reduced)
    mean, square = unreduced_pair(stats, kept)
    n = literal(max(math.prod(over) - float(correction), 0), dtype)
    with w.loops(kept, split(x.out, reduced)[0], value, unreduced(g, given, reduced), mean, square) as seen:
        to, row, grad, center, spread = seen
        if x.name == "std_backward":
            root = w.call("sqrt", dtype, f"{spread.element} / {n}")
            w(f"const {TYPES[dtype]} factor = {grad.element} / ({n} * {root});")
        else:
            w(f"const {TYPES[dtype]} factor = 2 * {grad.element} / {n};")
        with w.loops(over, to, row) as (t, e):
            w(f"{t.element} = factor * ({e.element} - {center.element});")


@emits("aten::sort.stable", "aten::topk")
def sort(w: Writer, x: Instruction) -> None:
    """An element's place is how many stand before it: smaller ones (a NaN is larger than all), then equal ones."""
    top = x.name == "aten::topk"
    d, down = x[2], x[3]  # dim and largest, or dim and descending
    value, kept, over = _last(x[0], d)
    values, places = (None if v is None else _last(v, d)[0] for v in x.outs)
    targets = [v for v in (values, places) if v is not None]
    with w.loops(kept, value, *targets) as (row, *to):
        n = math.prod(over)
        with w.loop(n, 0, w.index()) as i:
            w("int rank = 0;")
            with w.loop(n, 0, w.index()) as j:
                a, b = row.bind([j]).element, row.bind([i]).element
                first, second = (b, a) if down else (a, b)
                less = f"{first} < {second}"
                if row.dtype.is_floating_point:
                    less = f"({less} || ({second} != {second} && {first} == {first}))"
                    same = f"({a} == {b} || ({a} != {a} && {b} != {b}))"
                else:
                    same = f"{a} == {b}"
                w(f"rank += {less} || ({same} && {j} < {i});")
            with w.block(f"if (rank < {x[1]})" if top else ""):
                for target in to:
                    is_place = places is not None and target is to[-1]
                    w(f"{target.bind(['rank']).element} = {i if is_place else row.bind([i]).element};")


@emits("aten::median", "aten::kthvalue", "aten::median.dim", "aten::mode")
def ordering(w: Writer, x: Instruction) -> None:
    raise Unsupported("there is no selection")
