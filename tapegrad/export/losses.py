"""Losses and their gradients."""

from __future__ import annotations

from .reductions import add_up, largest
from .table import Instruction, emits
from .values import TYPES, Value, literal
from .writer import Writer


@emits("mse_loss")
def mse_loss(w: Writer, x: Instruction) -> None:
    a, b, mean = x.arguments[:3]

    def term(p: Value, q: Value) -> str:
        return f"({p.element} - {q.element}) * ({p.element} - {q.element})"

    add_up(w, "sum", x.dtype, a.sizes, a, b.expand(a.sizes), term=term)
    w(f"{x.out.element} = sum{f' / {literal(a.numel, x.dtype)}' if mean else ''};")


@emits("mse_loss_backward")
def mse_loss_backward(w: Writer, x: Instruction) -> None:
    g, a, b, mean = x.arguments[:4]
    scale = literal(2 / a.numel if mean and a.numel else 2, a.dtype)
    w(f"const {TYPES[a.dtype]} scale = {g.bind(['0'] * g.ndim).element} * {scale};")
    for out, sign in zip(x.outs, ("scale", "-scale"), strict=True):
        if out is not None:
            with w.over(out.sizes, out, a, b) as (to, p, q):
                w(f"{to.element} = {sign} * ({p.element} - {q.element});")


@emits("aten::binary_cross_entropy")
def binary_cross_entropy(w: Writer, x: Instruction) -> None:
    """-(y ln p + (1 - y) ln(1 - p)) weight, logarithms not below -100"""
    p, target, weight, reduction = x.arguments[:4]
    dtype = x.dtype
    given = [] if weight is None else [weight.expand(p.sizes)]

    def term(a: Value, b: Value, *by: Value) -> str:
        log, least = w.library.name("log", dtype), literal(-100, dtype)
        bound = w.library.name("fmax", dtype)
        first, second = f"{bound}({log}({a.element}), {least})", f"{bound}({log}(1 - {a.element}), {least})"
        made = f"({b.element} - 1) * {second} - {b.element} * {first}"
        return f"({made}) * {by[0].element}" if by else made

    if reduction == 0:
        with w.over(x.out.sizes, x.out, p, target, *given) as (to, *seen):
            w(f"{to.element} = {term(*seen)};")
        return
    add_up(w, "sum", dtype, p.sizes, p, target.expand(p.sizes), *given, term=term)
    w(f"{x.out.element} = sum{f' / {literal(p.numel, dtype)}' if reduction == 1 else ''};")


def _label(w: Writer, target: Value, classes: int, ignored: int) -> str:
    """Declares ``label``, checked; a condition that holds where the row counts."""
    w(f"const int64_t label = {target.element};")
    inside = f"(label >= 0 && label < {classes})"
    w.check(f"{inside} || label == {literal(ignored, target.dtype)}")
    return inside if ignored >= 0 else "label >= 0"


@emits("cross_entropy")
def cross_entropy(w: Writer, x: Instruction) -> None:
    """Of a row: -sum_c p_c weight_c log_softmax(x)_c, p = (1 - s) at the label, s / C everywhere."""
    logits, target, weight, ignored, reduction, smoothing = x.arguments[:6]
    loss, stats, total = x.outs
    (N, C), dtype = logits.sizes, logits.dtype
    kind = TYPES[dtype]
    w.accumulator("losses", dtype)
    w.accumulator("weights", dtype)
    kept = [] if stats is None else [stats.view(lambda t: t[:, 0])]
    each = [loss] if reduction == "none" and loss is not None else []
    with w.loops((N,), logits, target, *kept, *each) as (row, label, *rest):
        counts = _label(w, label, C, ignored)
        skip = f" && label != {ignored}" if ignored >= 0 else ""
        largest(w, dtype, row, (C,))
        add_up(w, "sum", dtype, (C,), row, term=lambda e: w.call("exp", dtype, f"{e.element} - most"))
        w(f"const {kind} log_sum = most + {w.call('log', dtype, 'sum')};")
        if kept:
            w(f"{rest[0].element} = log_sum;")
        w(f"{kind} one = 0;")
        with w.block(f"if ({counts}{skip})"):
            by = "" if weight is None else f" * {weight.bind(['label']).element}"
            w(f"one = (log_sum - {row.bind(['label']).element}){by};")
            w(f"weights += {weight.bind(['label']).element if weight is not None else '1'};")
            if smoothing:
                given = [] if weight is None else [weight]

                def term(e: Value, *v: Value) -> str:
                    return f"(log_sum - {e.element})" + (f" * {v[0].element}" if v else "")

                add_up(w, "smooth", dtype, (C,), row, *given, term=term)
                rest_of, part = literal(1 - smoothing, dtype), literal(smoothing / C, dtype)
                w(f"one = {rest_of} * one + {part} * smooth;")
        w(f"{rest[-1].element} = one;" if each else "losses += one;")
    if reduction == "none":
        w("(void)losses;")
    elif loss is not None:
        mean = reduction == "mean"  # over no weight it is NaN
        w(f"{loss.element} = losses{' / weights' if mean else ''};")
    w(f"{total.element} = weights;" if total is not None else "(void)weights;")


@emits("cross_entropy_backward")
def cross_entropy_backward(w: Writer, x: Instruction) -> None:
    g, logits, target, weight, stats, total, ignored, reduction, smoothing = x.arguments[:9]
    (N, C), dtype = logits.sizes, logits.dtype
    kind = TYPES[dtype]
    given = [] if weight is None else [weight]
    if smoothing and given:
        add_up(w, "weight_sum", dtype, (C,), weight, term=lambda e: e.element)
    g = g.expand((N,))
    with w.loops((N,), x.out, logits, target, stats.view(lambda t: t[:, 0]), g) as (to, row, label, log_sum, grad):
        counts = _label(w, label, C, ignored)
        skip = f" && label != {ignored}" if ignored >= 0 else ""
        by = f" / {total.element}" if reduction == "mean" else ""
        w(f"const {kind} pull = {counts}{skip} ? {grad.element}{by} : 0;")
        heavy = f"{counts}{skip}" if ignored >= 0 or given else ""
        own = "1" if weight is None else f"({heavy} ? {weight.bind(['label']).element} : 0)"
        near = literal(1 - smoothing, dtype)
        part = literal(smoothing / C, dtype)
        w(f"const {kind} near = {own if not smoothing else f'{near} * {own}'};")
        if smoothing:
            whole = "weight_sum" if given else literal(C, dtype)
            w(f"const {kind} all = near + {part} * {whole};")
        with w.loops((C,), to, row, *given) as (t, e, *v):
            p = w.call("exp", dtype, f"{e.element} - {log_sum.element}")
            far = "" if not smoothing else f" - {part}{f' * {v[0].element}' if v else ''}"
            w(f"{t.element} = pull * ({'all' if smoothing else 'near'} * {p}{far});")
        with w.block(f"if ({counts}{skip})"):
            w(f"{to.bind(['label']).element} -= pull * near;")
