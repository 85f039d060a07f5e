"""Identical bits for 1, 2 and 3 threads: every public op, at sizes where torch and our kernels split their work.

``python tests/ops/threads_sweep.py`` walks the whole op table: each sample is enlarged along each of its extents in
turn to 1e2 ... 1e6 elements, and value, gradient (fused and recorded) and second gradient are computed in float32 and
float64 under 1, 2, 3 and again 3 threads, in two processes. Every difference is listed (about an hour; ``NAME ...``
restricts it to some rows, ``--sizes 1e5 1e6`` and ``--dtypes float32`` to some sizes and dtypes).

The suite runs the short form (test_threads.py): one enlarged sample per row and kind.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).resolve().parents[2]), str(Path(__file__).resolve().parents[1] / "helpers")]

from optable import rows
from optable.check import Call, Side, raw
from optable.spec import Row, Sample, Spec, fill

import tapegrad as tg

SIZES = (100, 1_000, 10_000, 100_000, 1_000_000)
DTYPES = (torch.float32, torch.float64)
THREADS = (1, 2, 3, 3)
SLOW = 0.5  # seconds one thread may take at a size for the next larger one to be tried
LARGE = 20  # times the size that the results may have in all for the next larger one to be tried


# --- enlarging the samples ---------------------------------------------------------------------------------------


def shape_of(spec: Spec) -> torch.Size:
    return spec.draw(torch.Generator().manual_seed(0)).shape


def enlarged(spec: Spec, extents: dict[int, int]) -> Spec:
    """The array repeated along the dimensions whose extent is a key, floats with other numbers in every place."""
    shape = shape_of(spec)
    wanted = [extents.get(n, n) for n in shape]
    if list(shape) == wanted:
        return spec

    def draw(generator: torch.Generator) -> torch.Tensor:
        values = spec.draw(generator)
        for dim, n in enumerate(wanted):
            values = values.index_select(dim, torch.arange(n) % values.shape[dim])
        if values.is_floating_point():  # towards 0, which every domain of the table allows
            values = values * (1 - 0.5 * torch.rand(values.shape, generator=generator, dtype=values.dtype))
        return values

    return Spec(f"{spec.text} as {wanted}", draw, spec.grad, spec.dtype)


def _sizes(tree: Any, extents: dict[int, int]) -> Any:
    """Lists of sizes among the arguments, enlarged as well."""
    if isinstance(tree, tuple | list):
        if tree and all(type(n) is int for n in tree):
            return type(tree)([extents.get(n, n) for n in tree])
        return type(tree)([_sizes(item, extents) for item in tree])
    return tree


def variants(sample: Sample, size: int) -> Iterator[tuple[str, Sample]]:
    """The sample with one extent of its arrays enlarged until the largest array has about `size` elements."""
    shapes = [shape_of(spec) for spec in sample.specs()]
    if not shapes or not all(s.numel() for s in shapes):
        return
    largest = max(shapes, key=torch.Size.numel)
    for extent in sorted({n for shape in shapes for n in shape if n > 1 or largest.numel() == 1}):
        times = largest.count(extent) or max(s.count(extent) for s in shapes)
        others = largest.numel() / extent ** largest.count(extent)
        new = int((size / others) ** (1 / times)) | 1  # odd: no multiple of a vector
        if new <= extent:
            continue
        extents = {extent: new}
        known = {spec: enlarged(spec, extents) for spec in sample.specs()}
        args = fill(sample.args, known)
        kwargs = {key: fill(value, known) for key, value in sample.kwargs.items()}
        yield f"{extent}", Sample(args, kwargs, sample.order, sample.smooth)
        sized = _sizes(args, extents), {key: _sizes(value, extents) for key, value in kwargs.items()}
        if repr(sized) != repr((args, kwargs)):
            yield f"{extent}, sizes too", Sample(*sized, sample.order, sample.smooth)


# --- one case ----------------------------------------------------------------------------------------------------


def results(row: Row, sample: Sample, dtype: torch.dtype) -> list[tuple[str, torch.Tensor]]:
    """Everything computed for a sample, by what it is."""
    call = Call(dataclasses.replace(row, samples=[sample]), sample, dtype)
    side: Side = call.tapegrad()
    found = [("value", raw(out)) for out in side.outputs]
    if row.differentiable and side.followed and side.inputs:
        found += [("gradient", raw(g)) for g in side.plain]
        found += [("recorded gradient", raw(g)) for g in side.first]
        found += [("second gradient", raw(g)) for g in side.second]
    return found


def bits(value: torch.Tensor) -> bytes:
    """The bytes of all elements, a NaN being a NaN."""
    if value.is_floating_point():
        value = torch.where(value.isnan(), float("nan"), value)
    return value.contiguous().view(-1).view(torch.uint8).numpy().tobytes() if value.numel() else b""


def digest(found: Sequence[tuple[str, torch.Tensor]]) -> str:
    made = hashlib.sha1()
    for _, value in found:
        made.update(bits(value))
    return made.hexdigest()


def unlike(a: Sequence[tuple[str, torch.Tensor]], b: Sequence[tuple[str, torch.Tensor]]) -> list[str]:
    """Which results differ, and in how many elements."""
    out = []
    for (what, x), (_, y) in zip(a, b, strict=True):
        if bits(x) != bits(y):
            out.append(f"{what} {list(x.shape)}: {int((x != y).sum())} elements")
    return out


@dataclasses.dataclass
class Outcome:
    differences: list[str]
    digest: str
    seconds: float
    elements: int


def run(row: Row, sample: Sample, dtype: torch.dtype, threads: Sequence[int] = THREADS) -> Outcome | None:
    """One case under each number of threads; None where the op refuses the enlarged arguments."""
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads[0])
        began = time.perf_counter()
        try:
            one = results(row, sample, dtype)
        except (tg.TapegradError, ValueError, TypeError, RuntimeError, IndexError, MemoryError):
            return None
        seconds = time.perf_counter() - began
        differences = []
        for n in threads[1:]:
            torch.set_num_threads(n)
            differences += [f"{n} threads: {d}" for d in unlike(one, results(row, sample, dtype))]
        return Outcome(differences, digest(one), seconds, sum(v.numel() for _, v in one))
    finally:
        torch.set_num_threads(before)


# --- the long form -----------------------------------------------------------------------------------------------


def sweep(
    names: Sequence[str],
    sizes: Sequence[int],
    dtypes: Sequence[torch.dtype],
    threads: Sequence[int],
    out: dict[str, str],
) -> int:
    """All cases of these rows, differences printed; digests by case into `out`. Returns how many cases differ."""
    failed = 0
    for name in names:
        row, began, cases, bad = rows[name], time.perf_counter(), 0, 0
        for i, sample in enumerate(row.samples):
            for dtype in dtypes:
                given_up: set[str] = set()
                for size in sorted({SIZES[0], *sizes}):  # the smallest shows what would grow too large
                    for how, large in variants(sample, size):
                        key = f"{name} {i} {dtype} {size} {how}"
                        if how in given_up:
                            continue
                        got = run(row, large, dtype, threads if size in sizes else threads[:1])
                        if got is None:
                            given_up.add(how)
                            continue
                        if got.seconds > SLOW or got.elements > LARGE * size * 4:
                            given_up.add(how)
                        if size not in sizes:
                            continue
                        cases += 1
                        out[key] = got.digest
                        if got.differences:
                            bad += 1
                            print(f"  {key} {large!r}"[:300], *got.differences, sep="\n      ", flush=True)
        failed += bad
        print(f"{name}: {bad} of {cases} cases differ ({time.perf_counter() - began:.1f} s)", flush=True)
    return failed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--sizes", nargs="+", type=lambda s: int(float(s)), default=SIZES)
    parser.add_argument("--dtypes", nargs="+", type=lambda s: getattr(torch, s), default=DTYPES)
    parser.add_argument("--threads", nargs="+", type=int, default=THREADS)
    parser.add_argument("--one-process", action="store_true")
    parser.add_argument("--digests", help="file to write digests to", default=None)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    names, mine = given.names or list(rows), {}
    failed = sweep(names, given.sizes, given.dtypes, given.threads, mine)
    print(f"{failed} of {len(mine)} cases differ between numbers of threads or runs")
    if given.digests:
        Path(given.digests).write_text(json.dumps(mine))
    elif not given.one_process:
        other = Path(f"/tmp/threads_sweep_{id(mine)}.json")
        command = [sys.executable, __file__, *names, "--digests", str(other), "--sizes", *map(str, given.sizes)]
        command += ["--threads", "1"]
        command += ["--dtypes", *(str(d).removeprefix("torch.") for d in given.dtypes)]
        subprocess.run(command, stdout=subprocess.DEVNULL, check=False)
        theirs = json.loads(other.read_text())
        other.unlink()
        differ = [key for key in mine.keys() & theirs.keys() if mine[key] != theirs[key]]
        print(
            f"{len(differ)} of {len(mine.keys() & theirs.keys())} cases differ between two processes", *differ, sep="\n"
        )
        failed += len(differ)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
