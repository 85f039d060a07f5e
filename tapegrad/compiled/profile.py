"""`Compiled.profile`: what each instruction of a program takes, beside what this machine could do at most."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from ..core import _C, Leaf
from .bind import Bound
from .program import written
from .results import grad_of, set_grad
from .trace import Call, Ref, refs_of

_TURNS = 25  # of the program, at most
_SECONDS = 0.5  # that they take together, about
_SIZES = (1 << 14, 1 << 18, 1 << 22, 1 << 26)  # bytes that a copy touches: of each level of a cache, and memory


class Row(NamedTuple):
    """One instruction: where it stands in the program (a chain of several is named by its first), what it computes, the
    shape of its result, its time, and the part of that time that the machine's peak would need."""

    instruction: int
    op: str
    shape: tuple[int, ...]
    ns: float
    share: float


@dataclass(frozen=True)
class Profile:
    """What `Compiled.profile` returns; prints as a table.

    ``rows``: one `Row` per instruction; ``call``: (part of a call besides the instructions, ns); ``flops``: the peak,
    in floating-point operations per second.
    """

    rows: list[Row]
    call: list[tuple[str, float]]
    flops: float

    def __str__(self) -> str:
        cells = [("", "op", "shape", "ns", "of the peak")]
        cells += [(str(r.instruction), r.op, str(list(r.shape)), f"{r.ns:,.0f}", f"{r.share:.0%}") for r in self.rows]
        widths = [max(len(cell[i]) for cell in cells) for i in range(5)]
        lines = [
            f"{a:>{widths[0]}}  {b:<{widths[1]}}  {c:<{widths[2]}}  {d:>{widths[3]}}  {e:>{widths[4]}}"
            for a, b, c, d, e in cells
        ]
        total = sum(row.ns for row in self.rows)
        lines.append(f"instructions: {total:,.0f} ns; peak: {self.flops / 1e9:.0f} GFLOP/s")
        lines.append("besides, in a call: " + ", ".join(f"{name} {ns:,.0f} ns" for name, ns in self.call))
        return "\n".join(line.rstrip() for line in lines)


def profile(bound: Bound, arguments: Sequence[torch.Tensor], holders: Sequence[Any]) -> Profile:
    """Time the program's instructions one by one, on copies of the arguments; everything it writes is put back."""
    copies = [_copy(t) for t in arguments]
    memory = [bound.bytes_of(i) for i, slot in enumerate(bound.trace.slots) if bound.is_written(i)]
    before = [t.clone() for t in memory]
    least: dict[int, float] = {}
    began, turns = time.perf_counter(), 0
    while turns < 3 or (turns < _TURNS and time.perf_counter() - began < _SECONDS):
        try:
            timed = bound.fast.timed(copies)
        finally:
            for t, old in zip((*memory, *copies), (*before, *arguments), strict=True):
                t.copy_(old)
        for at, taken in timed:
            least[at] = min(least.get(at, math.inf), taken)
        turns += 1
    program = bound.program
    ends = [*sorted(least)[1:], len(program.calls)][: len(least)]  # none of a program without instructions
    rows = []
    peak = flops_peak(torch.get_num_threads())
    for first, last in zip(sorted(least), ends, strict=True):
        calls = program.calls[first:last]
        ns = max(least[first], 1.0)
        floor = sum(map(flops, calls)) / peak + _bytes(calls) / bytes_peak(_bytes(calls), torch.get_num_threads())
        shapes = [ref.sizes for ref in written(calls[-1])] or [()]
        rows.append(Row(first, " + ".join(call.name for call in calls), shapes[0], ns, min(floor * 1e9 / ns, 1.0)))
    owners = [owner for owner, _ in bound.trace.gradients if isinstance(owner, Leaf)]
    gradients = [grad_of(owner) for owner in owners]
    try:
        parts = bound.fast.parts(copies, list(holders))  # leaves the program's gradients
    finally:
        for owner, gradient in zip(owners, gradients, strict=True):
            set_grad(owner, gradient)
    return Profile(rows, parts, peak)


def _copy(t: torch.Tensor) -> torch.Tensor:
    """Memory of its own, laid out alike."""
    made = torch.empty_strided(t.shape, t.stride(), dtype=t.dtype)
    return made.copy_(t) if 0 not in t.stride() else t.clone(memory_format=torch.preserve_format)


# --- what is done at least ----------------------------------------------------------------------------------------


def _linear(call: Call) -> float:
    x, w = refs_of(call.arguments)[:2]
    return 2.0 * math.prod(x.sizes) * w.sizes[0]


def _linear_backward(call: Call) -> float:
    g = refs_of(call.arguments)[0]
    rows, n = math.prod(g.sizes[:-1]), g.sizes[-1]
    dx, dw, _ = (*call.outs, None, None, None)[:3]
    return sum(2.0 * rows * n * ref.sizes[-1] for ref in (dx, dw) if ref is not None)


def _matmul(call: Call) -> float:
    a, out = refs_of(call.arguments)[0], refs_of(call.outs)[0]
    return 2.0 * math.prod(out.sizes) * a.sizes[-1]


def _conv2d(call: Call) -> float:
    w, out = refs_of(call.arguments)[1], refs_of(call.outs)[0]
    return 2.0 * math.prod(out.sizes) * math.prod(w.sizes[1:])


_FLOPS: dict[str, Callable[[Call], float]] = {
    "linear": _linear,
    "linear_backward": _linear_backward,
    "matmul": _matmul,
    "conv2d": _conv2d,
}


def flops(call: Call) -> float:
    """The floating-point operations of a product; 0 for what memory bounds."""
    count = _FLOPS.get(call.name)
    return 0.0 if count is None else count(call)


def _bytes(calls: Sequence[Call]) -> int:
    """The bytes that elementwise instructions read and write, each piece of memory once; 0 for products."""
    if any(call.name in _FLOPS for call in calls):
        return 0
    touched: set[Ref] = {ref for call in calls for ref in refs_of((call.arguments, call.outs))}
    return sum(math.prod(ref.sizes) * ref.dtype.itemsize for ref in touched)


# --- what this machine can do -------------------------------------------------------------------------------------


def _least(call: Callable[[], Any], seconds: float = 0.02) -> float:
    call()
    shortest, began = math.inf, time.perf_counter()
    while time.perf_counter() - began < seconds:
        start = time.perf_counter()
        call()
        shortest = min(shortest, time.perf_counter() - start)
    return shortest


@functools.cache
def flops_peak(threads: int) -> float:
    """Floating-point operations per second of the better of our product and torch's, float32."""
    rates = []
    for n in (256, 512):
        a, b = torch.ones(n, n), torch.ones(n, n)
        rates += [2 * n**3 / _least(functools.partial(product, a, b)) for product in (_C.matmul, torch.mm)]
    return max(rates)


@functools.cache
def _copied(size: int, threads: int) -> float:
    a, b = torch.ones(size // 8), torch.ones(size // 8)
    one, other = a[:1], b[:1]
    whole = _least(lambda: a.copy_(b))
    return size / max(whole - _least(lambda: one.copy_(other), 0.002), whole / 2)


def bytes_peak(size: int, threads: int) -> float:
    """Bytes per second of a copy that touches about as many."""
    return _copied(min(_SIZES, key=lambda known: abs(math.log(known / max(size, 1)))), threads)
