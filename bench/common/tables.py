"""Results as plain text and as JSON, with what a figure needs beside it: machine, versions, threads, dtype, shapes."""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from .timing import Timing


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Columns aligned for a terminal: the first to the left, the others to the right."""
    cells = [[str(cell) for cell in row] for row in [columns, *rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(columns))]
    lines = []
    for row in cells:
        first, *others = zip(row, widths, strict=True)
        lines.append("  ".join([first[0].ljust(first[1]), *[cell.rjust(width) for cell, width in others]]))
    lines.insert(1, "  ".join("-" * w for w in widths))
    return "\n".join(line.rstrip() for line in lines)


def seconds(value: float) -> str:
    """A time with its unit: us, ms or s."""
    for unit, scale in (("s", 1.0), ("ms", 1e-3)):
        if value >= scale:
            return f"{value / scale:.4g} {unit}"
    return f"{value / 1e-6:.4g} us"


def micro(timing: Timing | None) -> str:
    """Median +- half the IQR in microseconds, the spread to its leading digits."""
    if timing is None:
        return ""
    digits = max(0, 2 - math.floor(math.log10(timing.median / 1e-6)))
    return f"{timing.median / 1e-6:.{digits}f} +- {timing.spread / 1e-6:.{digits}f}"


def environment(threads: int) -> dict[str, Any]:
    """The machine by its processor, and the versions: part of every result."""
    import tapegrad
    from tapegrad.core import _C

    return {
        "processor": processor(),
        "isa": _C.build_info()["isa"],
        "threads": threads,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "tapegrad": tapegrad.__version__,
    }


def processor() -> str:
    """The processor's name; Python's own answer is empty on Linux."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def write_json(path: Path, result: dict[str, Any]) -> None:
    """One result as a readable file, replaced as a whole."""
    partial = path.with_name(path.name + ".part")
    partial.write_text(json.dumps(result, indent=1) + "\n")
    partial.replace(path)
