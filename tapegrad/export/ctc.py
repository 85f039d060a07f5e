"""Connectionist temporal classification: csrc/ops/ctc.cpp, sequence by sequence.

State i of a sequence is label i / 2 where i is odd, else the blank. ``alpha`` has the rows [steps][states] of each
sequence, one after another.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from .table import Instruction, emits
from .values import TYPES, Value, literal
from .writer import Writer

NEVER = float("-inf")  # ln 0


@contextlib.contextmanager
def _sequences(w: Writer, x: Value, targets: Value, steps: Value, lengths: Value) -> Iterator[tuple[str, str]]:
    """The loop over sequences; (label number i in C, with i to fill in, where its part of alpha begins).

    Before anything is written, all lengths and labels are checked.
    """
    T, N, C = x.sizes
    padded = targets.ndim == 2
    most = targets.sizes[1] if padded else f"{targets.numel} - first"
    label = targets.bind(["n", "{i}"] if padded else ["(first + {i})"]).element
    begins = f"{T} * (2 * {f'n * {targets.sizes[1]}' if padded else 'first'} + n)"
    for checking in (True, False):
        with w.block():
            if not padded:
                w("int64_t first = 0;")
            with w.loop(N, name="n"):
                w(f"const int64_t steps = {steps.bind(['n']).element}, labels = {lengths.bind(['n']).element};")
                if checking:
                    w.check(f"steps >= 0 && steps <= {T} && labels >= 0 && labels <= {most}")
                    with w.loop("labels", name="i"):
                        at = label.format(i="i")
                        w.check(f"{at} >= 0 && {at} < {C}")
                else:
                    yield label, begins
                if not padded:
                    w("first += labels;")
            if checking and not padded:
                w.check(f"first == {targets.numel}")


def _skips(label: str, state: str, most: str = "") -> str:
    """Whether a step may lead from state - 2 past the blank between."""
    other = f"{label.format(i=f'({state}) / 2')} != {label.format(i=f'({state}) / 2 - 1')}"
    return f"{f'{state} < {most} && ' if most else ''}{state} > 1 && ({state}) % 2 && {other}"


@emits("ctc_loss")
def ctc_loss(w: Writer, x: Instruction) -> None:
    """alpha_t(i) = ln (alpha_{t-1}(i) + alpha_{t-1}(i - 1) + alpha_{t-1}(i - 2)) + x_t of the state, in logarithms"""
    log_probs, targets, steps, lengths, blank = x.arguments[:5]
    loss, alpha = x.outs
    assert loss is not None
    (T, N, _), dtype, never = log_probs.sizes, log_probs.dtype, literal(NEVER, log_probs.dtype)
    if alpha is None:
        (alpha,) = w.scratch(dtype, alpha=T * (2 * targets.numel + N))

    def a(i: str) -> str:
        return alpha.bind([f"(at + {i})"]).element

    with _sequences(w, log_probs, targets, steps, lengths) as (label, begins):
        w(f"const int64_t states = 2 * labels + 1, begin = {begins};")
        with w.loop("steps", name="t"), w.loop("states", name="i"):
            w("const int64_t at = begin + t * states + i;")
            w(f"const int64_t c = i % 2 ? {label.format(i='i / 2')} : {blank};")
            now = log_probs.bind(["t", "n", "c"]).element
            before = [a("-states"), f"i > 0 ? {a('-states - 1')} : {never}"]
            before.append(f"{_skips(label, 'i')} ? {a('-states - 2')} : {never}")
            w(f"if (t == 0) {a('0')} = i < 2 ? {now} : {never};")
            w(f"else {a('0')} = {w.call('log_sum', dtype, *before)} + {now};")
        w("const int64_t at = begin + steps * states - 1;")
        end = w.call("log_sum", dtype, a("0"), f"labels > 0 ? {a('-1')} : {never}", never)
        w(f"{loss.bind(['n']).element} = steps > 0 ? -{end} : labels == 0 ? 0 : -({never});")


@emits("ctc_loss_backward")
def ctc_loss_backward(w: Writer, x: Instruction) -> None:
    """dx = g (e^x - sum over the states of a class of e^(alpha + beta - x) / p), beta as alpha from the end"""
    g, log_probs, targets, steps, lengths, loss, alpha, blank, zero_infinity = x.arguments[:9]
    (_, _, C), dtype, never = log_probs.sizes, log_probs.dtype, literal(NEVER, log_probs.dtype)
    kind = TYPES[dtype]
    most = targets.sizes[1] if targets.ndim == 2 else targets.numel
    beta, _ = w.scratch(dtype, beta=2 * most + 1, sums=C)
    with w.over(x.out.sizes, x.out) as (to,):
        w(f"{to.element} = 0;")
    with _sequences(w, log_probs, targets, steps, lengths) as (label, begins):
        w(f"const int64_t states = 2 * labels + 1, begin = {begins};")
        w(f"const {kind} one = {loss.bind(['n']).element}, grad = {g.bind(['n']).element};")
        if zero_infinity:
            w(f"const int64_t last = one == -({never}) ? 0 : steps;")
        with w.loop("last" if zero_infinity else "steps", name="k"):
            w("const int64_t t = steps - 1 - k;")
            with w.loop("states", name="i"):
                w(f"const int64_t c = i % 2 ? {label.format(i='i / 2')} : {blank};")
                later = [beta.bind(["i"]).element, f"i + 1 < states ? {beta.bind(['i + 1']).element} : {never}"]
                later.append(f"{_skips(label, 'i + 2', 'states')} ? {beta.bind(['i + 2']).element} : {never}")
                rest = f"k == 0 ? (i + 2 < states ? {never} : 0) : {w.call('log_sum', dtype, *later)}"
                w(f"beta[i] = ({rest}) + {log_probs.bind(['t', 'n', 'c']).element};")
            with w.loop(C, name="c"):
                w(f"sums[c] = {never};")
            with w.loop("states", name="i"):
                w(f"const int64_t c = i % 2 ? {label.format(i='i / 2')} : {blank};")
                both = f"{alpha.bind(['(begin + t * states + i)']).element} + beta[i]"
                w(f"sums[c] = {w.call('log_sum', dtype, 'sums[c]', both, never)};")
            with w.loop(C, name="c"):
                now = log_probs.bind(["t", "n", "c"]).element
                posterior = w.call("exp", dtype, f"sums[c] + one - {now}")
                w(f"{x.out.bind(['t', 'n', 'c']).element} = grad * ({w.call('exp', dtype, now)} - {posterior});")
