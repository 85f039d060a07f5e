"""Suite `kernels`: every kernel beside PyTorch's, forward and through the tape; whole eager steps; peak memory."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from tqdm import tqdm

import tapegrad as tg

from ..cli import Options
from ..common import peaks
from ..common.tables import environment, table, write_json
from ..common.timing import Timing, ratio, take_turns
from ..pages import ops as ops_page
from . import memory, steps, tapes
from . import plots as kernel_plots
from .cases import FLOPS, Case, all_cases
from .direct import kernel_calls
from .goals import BOTH, FORWARD, Verdict, judge

Call = Callable[[], Any]
Result = dict[str, Any]

ROUNDING = (1e-5, 5e-6)  # float32, of an entry and of the array's largest: sums of 1e5 products round to about 1e-6
SECONDS = {True: 0.04, False: 0.25}  # of measuring a row, by --quick
BLOCKS = (3, 11)  # at least and at most
COLUMNS = ["", "tapegrad us", "kernel us", "PyTorch us", "unrecorded us", "ratio", "rate", "of peak", "goal", ""]


def run(options: Options) -> None:
    """Measure the peaks, then every case and step with one thread and with all; print, write JSON, PNG and ops.md."""
    machine = environment(options.threads)
    print(", ".join(f"{name} {value}" for name, value in machine.items()))
    print(EXPLANATION, flush=True)
    rows: list[Result] = []
    measured = []
    for threads in sorted({1, options.threads}):
        torch.set_num_threads(threads)
        peak = peaks.measure(threads, 0.2 if options.quick else 1.0)
        measured.append(peak)
        print(f"\npeak with {peak}\n", flush=True)
        rows += [row for case in progress(list(all_cases(options.quick))) for row in measure(case, peak, options.quick)]
        if threads == 1 or not options.quick:
            whole = [*tapes.all_tapes(), *steps.all_steps()]
            rows += [row for step in progress(whole) for row in step.measure(threads, options.quick)]
        for row in rows:
            row.setdefault("goal", judge(row, machine["isa"]))
        print(report([row for row in rows if row["threads"] == threads], f"{threads} thread(s)"))
    peak_memory = memory.peak_memory()
    print("\n" + memory.report(peak_memory))
    result = {"environment": machine, "peaks": [vars(peak) for peak in measured], "rows": rows, "memory": peak_memory}
    write_json(options.out / "kernels.json", plain(result))
    kernel_plots.ratios(options.out / "kernels.png", rows, machine)
    ops_page.write(options.out)
    print(f"\n{below(rows)}\nwritten to {options.out}: kernels.json, kernels.png, {ops_page.PAGE}")


EXPLANATION = """\
float32; sides take turns in blocks; median over the blocks +- half the IQR. Values and gradients are compared first.
tapegrad, PyTorch: the public call, recorded; forward + backward: with y.backward(g) and fresh .grad of every input.
kernel: tapegrad's C++ called on raw tensors. unrecorded: PyTorch's call on tensors without requires_grad.
ratio: PyTorch / tapegrad, of neighbouring blocks. rate and its share of the peak: of the kernel, or of the public call
where there is none; bytes are those that must be read and written. cl: channels_last was PyTorch's better format."""


def progress(items: list[Any]) -> Any:
    return tqdm(items, disable=None, leave=False)  # silent where the output is no terminal


def plain(value: Any) -> Any:
    """Plain data for JSON."""
    if isinstance(value, Timing):
        return {"median": value.median, "spread": value.spread, "blocks": value.blocks, "warmup": value.warmup}
    if isinstance(value, Verdict):
        return {"text": value.text, "met": value.met}
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value


# --- one case ----------------------------------------------------------------------------------------------------


def measure(case: Case, peak: peaks.Peaks, quick: bool) -> list[Result]:
    """Check a case, then time it: a row for the forward call and one for forward + backward."""
    values = case.make()
    leaves = len(values) - case.constants
    ours = [tg.Tensor(x, requires_grad=i < leaves) for i, x in enumerate(values)]
    formats = [torch.contiguous_format, torch.channels_last] if case.images else [torch.contiguous_format]
    theirs = [[laid_out(x, layout, i < leaves) for i, x in enumerate(values)] for layout in formats]
    g = check(case, ours, theirs)
    kernels = kernel_calls(case.ours, ours, g)
    rows = []
    for what, kernel, work in zip((FORWARD, BOTH), kernels, case.work, strict=True):
        sides: list[Call] = [forward(case.ours, ours) if what == FORWARD else both(case.ours, ours, g)]
        for inputs, layout in zip(theirs, formats, strict=True):
            seed = None if g is None else laid_out(g, layout, False)
            sides.append(forward(case.theirs, inputs) if what == FORWARD else both(case.theirs, inputs, seed))
        if what == FORWARD:
            sides.append(forward(case.theirs, [x.detach() for x in theirs[0]]))
        if kernel is not None:
            sides.append(kernel)
        timings = timed(sides, SECONDS[quick])
        torch_best = min(timings[1 : 1 + len(formats)], key=lambda t: t.median)
        one = {
            "tapegrad": timings[0],
            "torch": torch_best,
            "unrecorded": timings[1 + len(formats)] if what == FORWARD else None,
            "kernel": timings[-1] if kernel is not None else None,
            "channels_last": torch_best is not timings[1],
            "ratio": ratio(timings[0], torch_best),
            "rate": None,
            "share": None,
        }
        if work:
            rate = work / (one["kernel"] or one["tapegrad"]).median
            one["rate"], one["share"] = rate, rate / (peak.flops if case.unit == FLOPS else peak.bytes(work))
        about = {"op": case.op, "shape": case.shape, "elements": case.elements, "unit": case.unit}
        rows.append({"name": case.name, "what": what, "threads": peak.threads, **about, **one})
    return rows


def laid_out(x: torch.Tensor, layout: torch.memory_format, requires_grad: bool) -> torch.Tensor:
    """A copy in the memory format, which only pictures and their filters have."""
    copy = x.clone(memory_format=layout) if x.ndim == 4 else x.clone()
    return copy.requires_grad_(requires_grad)


def forward(call: Callable[..., Any], inputs: list[Any]) -> Call:
    return lambda: call(*inputs)


def both(call: Callable[..., Any], inputs: list[Any], g: torch.Tensor | None) -> Call:
    """The call and its backward; gradients start afresh, as after zero_grad()."""
    leaves = [x for x in inputs if x.requires_grad]
    seed = g if g is None or isinstance(leaves[0], torch.Tensor) else tg.Tensor(g)

    def step() -> None:
        for x in leaves:
            x.grad = None
        call(*inputs).backward(seed)

    return step


def timed(sides: list[Call], seconds: float) -> list[Timing]:
    """Time callables in turns, in as many blocks and calls as fit the time.

    A block's first call finds the caches full of the other sides' data, so the fastest side's lasts a millisecond, if
    the fewest blocks then fit three times the time.
    """
    first = [min(timing.blocks) for timing in take_turns(sides, blocks=2, calls=1)]
    together = sum(first)
    least, most = BLOCKS
    worth = min(math.ceil(1e-3 / min(first)), int(3 * seconds / (least * together)))
    calls = max(1, worth, int(seconds / (most * together)))
    blocks = max(least, min(most, int(seconds / (calls * together))))
    return take_turns(sides, blocks=blocks + 1, calls=calls)


# --- both sides must agree ---------------------------------------------------------------------------------------


def check(case: Case, ours: list[Any], theirs: list[list[torch.Tensor]]) -> torch.Tensor | None:
    """Compare values and gradients in every format; the output's gradient that was used (None for a scalar output).

    RuntimeError names the case and the largest difference.
    """
    y = case.ours(*ours)
    g = None if y.ndim == 0 else torch.randn(y.shape, generator=torch.Generator().manual_seed(1))
    for inputs in theirs:
        agree(case, "value", y.data, case.theirs(*inputs).detach())
    both(case.ours, ours, g)()
    for inputs in theirs:
        both(case.theirs, inputs, g)()
        for i, (a, b) in enumerate(zip(ours, inputs, strict=True)):
            if b.requires_grad:
                agree(case, f"gradient of input {i}", a.grad.data, b.grad)
    return g


def agree(case: Case, what: str, a: torch.Tensor, b: torch.Tensor) -> None:
    if a.shape != b.shape or a.dtype != b.dtype:
        raise RuntimeError(
            f"{case.name}: the {what} is {a.dtype} {list(a.shape)}, PyTorch's is {b.dtype} {list(b.shape)}"
        )
    relative, absolute = ROUNDING
    size = b.abs().max().item()
    if not torch.allclose(a, b, rtol=relative, atol=absolute * size):
        worst = (a.double() - b).abs().max().item()
        raise RuntimeError(
            f"{case.name}: the {what} differs from PyTorch's by {worst:.1e}, its largest entry being {size:.1e}; "
            "expected rounding"
        )


# --- tables ------------------------------------------------------------------------------------------------------


def report(rows: list[Result], title: str) -> str:
    """The table of the rows measured with one number of threads."""
    lines = [cells(row) for row in rows]
    return f"{title}\n{table(COLUMNS, lines)}"


def cells(row: Result) -> list[str]:
    verdict: Verdict | None = row["goal"]
    return [
        f"{row['name']}, {row['what']}",
        micro(row["tapegrad"]),
        micro(row["kernel"]),
        micro(row["torch"]) + (" cl" if row["channels_last"] else ""),
        micro(row["unrecorded"]),
        f"{row['ratio']:.2f}",
        "" if row["rate"] is None else f"{row['rate'] / 1e9:.3g} {row['unit']}",
        "" if row["share"] is None else f"{100 * row['share']:.0f} %",
        "" if verdict is None else verdict.text,
        "BELOW" if verdict is not None and not verdict.met else "",
    ]


def micro(timing: Timing | None) -> str:
    """Median +- half the IQR in microseconds, the spread to its leading digits."""
    if timing is None:
        return ""
    digits = max(0, 2 - math.floor(math.log10(timing.median / 1e-6)))
    return f"{timing.median / 1e-6:.{digits}f} +- {timing.spread / 1e-6:.{digits}f}"


def below(rows: list[Result]) -> str:
    """How many rows meet their goals, and the names of the others."""
    judged = [row for row in rows if row["goal"] is not None]
    missed = [row for row in judged if not row["goal"].met]
    lines = [f"  {r['name']}, {r['what']}, {r['threads']} thread(s): {got(r)}, wanted {r['goal'].text}" for r in missed]
    return "\n".join([f"{len(judged) - len(missed)} of {len(judged)} goals met{'; below:' if missed else ''}", *lines])


def got(row: Result) -> str:
    """What a row reached, in the terms of its goal."""
    if row["goal"].text.endswith("x"):
        return f"{row['ratio']:.2f}x"
    return f"{(row['tapegrad'].median - row['torch'].median) * 1e6:+.2f} us"
