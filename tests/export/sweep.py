"""Every op of the table, exported: values and first derivatives are the eager op's. A documented command, not a test.

``python tests/export/sweep.py [--dtype float64] [--math own] [--samples 2] [--sanitize] [NAME ...]`` prints what
differs, what cannot be exported and why, and a count; its exit status says whether anything differs. With --sanitize
undefined behaviour ends it at once, and the last line names the op.
"""

from __future__ import annotations

import argparse
import ctypes
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "helpers")]

import torch  # noqa: E402
from export_checks import STRICT, pointer, run  # noqa: E402
from optable import rows  # noqa: E402
from optable.check import Call  # noqa: E402

import tapegrad as tg  # noqa: E402

FLAGS = [flag for flag in STRICT if flag != "-O2"]


def tensors(tree: Any) -> list[torch.Tensor]:
    if isinstance(tree, list | tuple):
        return [t for part in tree for t in tensors(part)]
    raw = tree.data if isinstance(tree, tg.Tensor) else tree
    return [raw] if isinstance(raw, torch.Tensor) else []


def step_of(call: Call) -> Any:
    """Outputs, and their derivatives by every input that has one."""

    def step(*leaves: Any) -> Any:
        outputs = call.run(call.row.function, leaves)
        inputs = [leaf for leaf in leaves if leaf.requires_grad]
        followed = [out for out in outputs if out.requires_grad]
        results = [out.detach() for out in outputs]
        if followed and call.sample.order:
            seeds = [tg.full(out.shape, 0.5, dtype=out.dtype) for out in followed]
            results += tg.grad(followed, inputs, seeds, allow_unused=True)
        return results

    return step


def exported(call: Call, folder: Path, math: str, flags: list[str]) -> str:
    """``right``, ``wrong: ...``, or why it cannot be."""
    step = step_of(call)

    def leaves() -> list[tg.Tensor]:
        return [tg.Tensor(v.clone().contiguous(), n) for v, n in zip(call.values, call.needs, strict=True)]

    want = tensors(step(*leaves()))
    if not want or not leaves():
        return "nothing to compare"
    try:
        made = tg.export_c(tg.compile(step), *leaves(), path=folder / "op.c", math=math)
    except tg.CompileError as error:
        return f"refused: {str(error).partition(': ')[2].partition(': ')[2]}"
    if "_init" in made.functions[0]:
        return "refused: it draws random numbers"
    try:
        run(["cc", *flags, "-shared", "-fPIC", made.source, "-o", folder / "op.so", "-lm"])
    except AssertionError as error:
        return f"wrong: {error}"
    lib = ctypes.CDLL(str(folder / "op.so"))
    (folder / "op.so").unlink()  # another file, another library
    got = [torch.zeros(t.shape, dtype=t.dtype) for t in want]
    given = [t.data for t in leaves()]
    getattr(lib, made.functions[0].partition("(")[0].split()[-1])(*map(pointer, [*given, *got]))
    eps = 2e-5 if call.dtype == torch.float32 else 1e-11
    for a, b in zip(got, want, strict=True):
        floats = b.dtype.is_floating_point
        if not (torch.allclose(a, b, 5 * eps, eps, equal_nan=True) if floats else torch.equal(a, b)):
            return f"wrong: {a.flatten()[:4].tolist()} for {b.flatten()[:4].tolist()}"
    return "right"


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--math", default="libm")
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--sanitize", action="store_true")
    options = parser.parse_args()
    flags = [*FLAGS, *(["-fsanitize=undefined", "-fno-sanitize-recover=all"] if options.sanitize else [])]
    torch.set_num_threads(1)
    counts: Counter[str] = Counter()
    for name in options.names or rows:
        for sample in rows[name].samples[: options.samples]:
            call = Call(rows[name], sample, getattr(torch, options.dtype))
            if options.sanitize:
                print(f"{name}{sample}", end="\r", flush=True)
            with tempfile.TemporaryDirectory() as folder:
                result = exported(call, Path(folder), options.math, flags)
            counts[result.partition(":")[0]] += 1
            if result not in ("right", "nothing to compare"):
                print(f"{name}{sample}: {result}", flush=True)
    print(dict(counts))
    return int(counts["wrong"] > 0)


if __name__ == "__main__":
    sys.exit(main())
