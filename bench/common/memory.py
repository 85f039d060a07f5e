"""Peak memory of a piece of work: the high-water mark of a fresh process, less what was resident before."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

BENCH = Path(__file__).resolve().parent.parent
STATUS = Path("/proc/self/status")


def available() -> bool:
    """Whether the system says what is resident (Linux does)."""
    return STATUS.exists()


def in_fresh_process(module: str, function: str, *arguments: str) -> Any:
    """What ``bench.module.function(*arguments)`` prints, as JSON, when it runs alone in a new process."""
    code = (
        f"import runpy, sys; runpy.run_path({str(BENCH / '__main__.py')!r}, run_name='child'); "
        f"from bench.{module} import {function}; {function}(*sys.argv[1:])"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"peak memory of {', '.join(arguments)}: {done.stderr.strip().splitlines()[-1]}")
    return json.loads(done.stdout)


def mark() -> int:
    """Start the high-water mark again at what is resident now, where that is allowed; the bytes resident now."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return resident("VmRSS")


def resident(field: str) -> int:
    """A line of the process's status, in bytes: VmRSS is resident now, VmHWM the high-water mark."""
    status = dict(line.split(":", 1) for line in STATUS.read_text().splitlines())
    return int(status[field].split()[0]) << 10


def give_back() -> None:
    """Hand freed memory back to the system, where the C library can: what stays resident is in use."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
