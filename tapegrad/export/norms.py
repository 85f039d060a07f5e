"""Normalisations, forward and backward. Statistics are kept as mean and 1 / sqrt(var + eps), in the input's type."""

from __future__ import annotations

import math
from collections.abc import Sequence

from .reductions import add_up, moments
from .table import Instruction, emits, split, unflatten
from .values import TYPES, Value, literal
from .writer import Writer


class Groups:
    """What is normalised together: a value as [kept..., within...], the same for all maps of one shape.

    ``weight`` [sizes...] belongs to the dimensions that `affine` says of the value as it is given.
    """

    def __init__(self, value: Value, reduced: Sequence[int]) -> None:
        self.reduced = list(reduced)
        self.kept = [d for d in range(value.ndim) if d not in reduced]
        self.sizes = tuple(value.sizes[d] for d in self.kept)
        self.over = tuple(value.sizes[d] for d in reduced)
        self.count = math.prod(self.over)

    def __call__(self, value: Value, like: Value) -> Value:
        """A value of the full shape, or one that broadcasts to it, in that order."""
        return value.expand(like.sizes).view(lambda t: t.permute((*self.kept, *self.reduced)))


def _affine(w: Writer, e: str, weight: Value | None, bias: Value | None) -> str:
    made = e if weight is None else f"{e} * {weight.element}"
    return made if bias is None else f"{made} + {bias.element}"


def forward(
    w: Writer,
    out: Value,
    x: Value,
    stats: list[Value],
    weight: Value | None,
    bias: Value | None,
    eps: float,
    how: Groups,
) -> None:
    """out = (x - mean) / sqrt(var + eps) * weight + bias; stats: mean, 1 / sqrt(var + eps), if asked var n / (n - 1)"""
    dtype = out.dtype
    given = [how(v, x) for v in (weight, bias) if v is not None]
    with w.loops(how.sizes, how(out, x), how(x, x), *stats, *given) as (to, row, *rest):
        store, affine = rest[: len(stats)], rest[len(stats) :]
        moments(w, dtype, row, how.over)
        root = w.call("sqrt", dtype, f"square / {literal(how.count, dtype)} + {literal(eps, dtype)}")
        w(f"const {TYPES[dtype]} scale = 1 / {root};")
        names = ("mean", "scale", f"square / {literal(how.count - 1, dtype)}")
        for target, name in zip(store, names, strict=False):
            w(f"{target.element} = {name};")
        with w.loops(how.over, to, row, *affine) as (t, e, *wb):
            first = wb.pop(0) if weight is not None else None
            w(f"{t.element} = {_affine(w, f'({e.element} - mean) * scale', first, wb[0] if wb else None)};")


def backward(
    w: Writer,
    outs: Sequence[Value | None],
    g: Value,
    x: Value,
    weight: Value | None,
    stats: list[Value],
    how: Groups,
    affine: tuple[int, ...],
    of_batch: bool = True,
) -> None:
    """The gradients of input, weight and bias, from mean and scale; ``affine``: the dimensions of weight in x."""
    dtype = x.dtype
    dx, dw, db = outs
    mean, scale = stats[:2]

    def spread(value: Value) -> Value:
        """A statistic as [the full shape], the same for a whole group."""
        full = [1] * x.ndim
        for d, n in zip(how.kept, how.sizes, strict=True):
            full[d] = n
        return value.view(lambda t: t.reshape(full)).expand(x.sizes)

    for target, is_weight in ((dw, True), (db, False)):
        if target is None:
            continue
        with w.over(target.sizes, target) as (to,):
            w(f"{to.element} = 0;")
        turned = [split(v, affine)[0] for v in (g, x, spread(mean), spread(scale))]
        wide = target.expand(turned[0].sizes) if target.ndim == len(affine) else target
        with w.over(turned[0].sizes, wide, *turned) as (to, a, b, m, s):
            w(f"{to.element} += {a.element}{f' * ({b.element} - {m.element}) * {s.element}' if is_weight else ''};")
    if dx is None:
        return
    given = [] if weight is None else [how(weight, x)]
    with w.loops(how.sizes, how(dx, x), how(g, x), how(x, x), mean, scale, *given) as (to, grad, row, m, s, *more):
        seen = (grad, row, *more)

        def pull(a: Value, rest: list[Value]) -> str:
            return a.element if not rest else f"{a.element} * {rest[0].element}"

        def tilted(a: Value, b: Value, *c: Value) -> str:
            return f"{pull(a, list(c))} * ({b.element} - {m.element})"

        if of_batch:
            add_up(w, "sum", dtype, how.over, *seen, term=lambda a, b, *c: pull(a, list(c)))
            add_up(w, "slope", dtype, how.over, *seen, term=tilted)
            n = literal(how.count, dtype)
            w(f"const {TYPES[dtype]} shift = sum / {n}, tilt = slope * {s.element} * {s.element} / {n};")
        with w.loops(how.over, to, *seen) as (t, a, b, *c):
            inner = pull(a, c)
            if of_batch:
                inner = f"({inner} - shift - ({b.element} - {m.element}) * tilt)"
            w(f"{t.element} = {inner} * {s.element};")


def _one_of(value: Value, i: int, sizes: tuple[int, ...]) -> Value:
    return value.view(lambda t: t[i].reshape(sizes))


def _stats(value: Value, sizes: tuple[int, ...]) -> list[Value]:
    return [_one_of(value, i, sizes) for i in range(value.sizes[0])]


def _rows(x: Instruction, value: Value, shape: Sequence[int]) -> tuple[Groups, tuple[int, ...]]:
    last = tuple(range(value.ndim - len(shape), value.ndim))
    return Groups(value, last), last


@emits("layer_norm")
def layer_norm(w: Writer, x: Instruction) -> None:
    value, shape, weight, bias, eps = x.arguments[:5]
    how, _ = _rows(x, value, shape)
    stats = _stats(x.outs[1], how.sizes) if x.outs[1] is not None else []
    forward(w, x.out, value, stats, weight, bias, eps, how)


@emits("layer_norm_backward")
def layer_norm_backward(w: Writer, x: Instruction) -> None:
    g, value, shape, weight, stats = x.arguments[:5]
    how, last = _rows(x, value, shape)
    backward(w, x.outs, g, value, weight, _stats(stats, how.sizes), how, last)


def _channels(value: Value | None, groups: int, ndim: int) -> Value | None:
    """[C] as [G, C / G, 1...]."""
    if value is None:
        return None
    return value.view(lambda t: t.reshape(groups, -1, *[1] * (ndim - 2)))


@emits("group_norm")
def group_norm(w: Writer, x: Instruction) -> None:
    value, groups, weight, bias, eps = x.arguments[:5]
    n = value.ndim
    given = unflatten(value, 1, groups)
    how = Groups(given, range(2, n + 1))
    stats = _stats(x.outs[1], how.sizes) if x.outs[1] is not None else []
    shaped = _channels(weight, groups, n), _channels(bias, groups, n)
    forward(w, unflatten(x.out, 1, groups), given, stats, *shaped, eps, how)


@emits("group_norm_backward")
def group_norm_backward(w: Writer, x: Instruction) -> None:
    g, value, groups, weight, stats = x.arguments[:5]
    given, grad = unflatten(value, 1, groups), unflatten(g, 1, groups)
    how = Groups(given, range(2, value.ndim + 1))
    dx, dw, db = x.outs
    pairs = [None if v is None else v.view(lambda t: t.reshape(groups, -1)) for v in (dw, db)]
    outs = (None if dx is None else unflatten(dx, 1, groups), *pairs)
    backward(w, outs, grad, given, _channels(weight, groups, value.ndim), _stats(stats, how.sizes), how, (1, 2))


def _by_channel(value: Value | None, ndim: int) -> Value | None:
    return None if value is None else value.view(lambda t: t.reshape(-1, *[1] * (ndim - 2)))


@emits("batch_norm")
def batch_norm(w: Writer, x: Instruction) -> None:
    value, weight, bias, mean, var, eps = x.arguments[:6]
    how = Groups(value, [d for d in range(value.ndim) if d != 1])
    stats = _stats(x.outs[1], how.sizes) if x.outs[1] is not None else []
    shaped = _by_channel(weight, value.ndim), _by_channel(bias, value.ndim)
    if mean is None:
        forward(w, x.out, value, stats, *shaped, eps, how)
        return
    dtype = x.dtype
    given = [how(v, value) for v in shaped if v is not None]
    with w.loops(how.sizes, how(x.out, value), how(value, value), mean, var, *stats, *given) as (to, row, m, v, *rest):
        root = w.call("sqrt", dtype, f"{v.element} + {literal(eps, dtype)}")
        w(f"const {TYPES[dtype]} scale = 1 / {root};")
        store, affine = rest[: len(stats)], rest[len(stats) :]
        for target, name in zip(store, (m.element, "scale", v.element), strict=False):
            w(f"{target.element} = {name};")
        with w.loops(how.over, to, row, *affine) as (t, e, *wb):
            first = wb.pop(0) if weight is not None else None
            w(f"{t.element} = {_affine(w, f'({e.element} - {m.element}) * scale', first, wb[0] if wb else None)};")


@emits("batch_norm_backward")
def batch_norm_backward(w: Writer, x: Instruction) -> None:
    g, value, weight, stats, of_batch = x.arguments[:5]
    how = Groups(value, [d for d in range(value.ndim) if d != 1])
    shaped = _by_channel(weight, value.ndim)
    backward(w, x.outs, g, value, shaped, _stats(stats, how.sizes), how, (1,), of_batch)


@emits("move_statistics_")
def move_statistics(w: Writer, x: Instruction) -> None:
    means, variances, stats, momentum = x.arguments[:4]
    mean, _, var = _stats(stats, stats.sizes[1:])
    for targets, source in ((means, mean), (variances, var)):
        for target in targets:
            dtype = target.dtype
            to, rest = literal(momentum, dtype), literal(1 - momentum, dtype)
            with w.over(target.sizes, target, source) as (t, s):
                w(f"{t.element} = {to} * {s.read(dtype)} + {rest} * {t.element};")
