"""Products of matrices: one way of writing a sum of products, which all of them are."""

from __future__ import annotations

from contextlib import nullcontext

from .table import Instruction, emits
from .values import TYPES, Unsupported, Value, broadcast
from .writer import Writer


def contract(w: Writer, out: Value, a: Value, b: Value, kept: int, start: Value | None = None) -> None:
    """out = start + the sum over their last dimensions of a b.

    ``a`` and ``b`` have ``kept`` leading dimensions, broadcast to out's, and then those summed over. The loop over
    out's last dimension is the inner one where its elements lie side by side, so that compilers make vectors of it;
    else a sum is taken for each element.
    """
    sizes = out.sizes
    summed = broadcast(a.sizes[kept:], b.sizes[kept:])
    a, b = a.expand((*sizes, *summed)), b.expand((*sizes, *summed))
    begin = out if start is None else start.expand(sizes)
    inner = kept and sizes[-1] > 1 and out.strides[-1] == 1 and {a.strides[kept - 1], b.strides[kept - 1]} <= {0, 1}
    dtype = TYPES[out.dtype]
    if not inner:
        with w.block() if out.numel == 1 else nullcontext(), w.loops(sizes, out, a, b, begin) as (to, x, y, first):
            w(f"{dtype} sum = {'0' if start is None else first.element};")
            with w.loops(summed, x, y) as (p, q):
                w(f"sum += {p.element} * {q.element};")
            w(f"{to.element} = sum;")
        return
    with w.loops(sizes[:-1], out, a, b, begin) as (row, x, y, first):
        if start is not out:
            with w.loops(sizes[-1:], row, first) as (to, one):
                w(f"{to.element} = {'0' if start is None else one.element};")
        order = range(1, x.ndim)
        turned = [v.view(lambda t: t.permute((*order, 0))) for v in (x, y)]
        with w.loops(summed, *turned) as (p, q):
            factor, vector = (p, q) if p.strides[-1] == 0 else (q, p)
            if factor.strides[-1] == 0:
                once = factor.bind(["0"])
                w(f"const {dtype} factor = {once.element};")
                with w.loops(sizes[-1:], row, vector) as (to, one):
                    w(f"{to.element} += factor * {one.element};")
            else:
                with w.loops(sizes[-1:], row, p, q) as (to, one, other):
                    w(f"{to.element} += {one.element} * {other.element};")


def total(w: Writer, out: Value, g: Value, kept: list[int]) -> None:
    """out = the sum of g over all dimensions but ``kept``, row by row."""
    rest = [d for d in range(g.ndim) if d not in kept]
    with w.over(out.sizes, out) as (to,):
        w(f"{to.element} = 0;")
    order = [*rest, *kept]
    turned = g.view(lambda t: t.permute(order))
    spread = out.expand(turned.sizes)
    with w.over(turned.sizes, spread, turned) as (to, one):
        w(f"{to.element} += {one.element};")


@emits("linear")
def linear(w: Writer, x: Instruction) -> None:
    weight = x.transposed(1) or x[1]  # [O, I]
    rows = x[0].view(lambda t: t.unsqueeze(-2))  # [..., 1, I]
    contract(w, x.out, rows, weight, x.out.ndim, x[2])


@emits("linear_backward")
def linear_backward(w: Writer, x: Instruction) -> None:
    g, given, weight = x.arguments[:3]
    dx, dw, db = x.outs
    if dx is not None:
        contract(w, dx, g.view(lambda t: t.unsqueeze(-2)), weight.view(lambda t: t.t()), dx.ndim)
    lead = range(g.ndim - 1)
    if dw is not None:
        rows = g.view(lambda t: t.permute((g.ndim - 1, *lead)).unsqueeze(1))  # [O, 1, N...]
        columns = given.view(lambda t: t.permute((g.ndim - 1, *lead)).unsqueeze(0))  # [1, I, N...]
        contract(w, dw, rows, columns, 2)
    if db is not None:
        total(w, db, g, [g.ndim - 1])


def _matrices(a: Value, b: Value) -> tuple[Value, Value]:
    """Vectors as one row, and as one column."""
    if a.ndim == 1:
        a = a.view(lambda t: t.unsqueeze(0))
    return a, b.view(lambda t: t.unsqueeze(1)) if b.ndim == 1 else b


def _result(g: Value, vector_a: bool, vector_b: bool) -> Value:
    """A product's result with the dimensions that vectors lack."""
    if vector_b:
        g = g.view(lambda t: t.unsqueeze(-1))
    return g.view(lambda t: t.unsqueeze(-2)) if vector_a else g


@emits("matmul", "aten::mm", "aten::bmm", "aten::mv", "aten::dot")
def matmul(w: Writer, x: Instruction) -> None:
    a, b = _matrices(x[0], x[1])
    out = _result(x.out, x[0].ndim == 1, x[1].ndim == 1)  # [..., M, N]
    contract(w, out, a.view(lambda t: t.unsqueeze(-2)), b.view(lambda t: t.mT.unsqueeze(-3)), out.ndim)


@emits("matmul_backward")
def matmul_backward(w: Writer, x: Instruction) -> None:
    g, a, b, size_a, size_b = x.arguments[:5]
    g = _result(g, len(size_a) == 1, len(size_b) == 1)  # [..., M, N]
    for out, other, is_a in ((x.outs[0], b, True), (x.outs[1], a, False)):
        if out is None:
            continue
        if is_a:  # g [..., M, N] with other [..., K, N] -> [..., M, K]
            to = out.view(lambda t: t.unsqueeze(0)) if out.ndim == 1 else out
            second = other.view(lambda t: t.unsqueeze(1)) if other.ndim == 1 else other
            left, right = g, second
        else:  # other [..., M, K] with g [..., M, N] -> [..., K, N]
            to = out.view(lambda t: t.unsqueeze(1)) if out.ndim == 1 else out
            second = other.view(lambda t: t.unsqueeze(0)) if other.ndim == 1 else other
            left, right = second.view(lambda t: t.mT), g.view(lambda t: t.mT)
        _summed(w, to, left, right)


def _summed(w: Writer, out: Value, left: Value, right: Value) -> None:
    """out [..., R, C] = left [..., R, K] right [..., C, K]^T, summed over the leading dimensions that out lacks."""
    lead = broadcast(left.sizes[:-2], right.sizes[:-2])
    mine = (1,) * (len(lead) - (out.ndim - 2)) + out.sizes[:-2]
    dropped = [d for d, (n, m) in enumerate(zip(lead, mine, strict=True)) if m == 1 and n != 1]
    kept = [d for d in range(len(lead)) if d not in dropped]
    n = len(lead)

    def ordered(value: Value, row: bool) -> Value:
        """[kept..., R or 1, 1 or C, dropped..., K]"""
        value = value.expand((*lead, *value.sizes[-2:]))
        value = value.view(lambda t: t.permute((*kept, n, *dropped, n + 1)))
        return value.view(lambda t: t.unsqueeze(len(kept) + 1 if row else len(kept)))

    to = out.view(lambda t: t.reshape((*[lead[d] for d in kept], *t.shape[-2:])) if dropped or n else t)
    contract(w, to, ordered(left, True), ordered(right, False), len(kept) + 2)


@emits("aten::addmm", "aten::baddbmm")
def addmm(w: Writer, x: Instruction) -> None:
    if x[3] not in (1, None) or x[4] not in (1, None):
        raise Unsupported("beta and alpha other than 1")
    a, b = x[1], x[2]
    contract(w, x.out, a.view(lambda t: t.unsqueeze(-2)), b.view(lambda t: t.mT.unsqueeze(-3)), x.out.ndim, x[0])
