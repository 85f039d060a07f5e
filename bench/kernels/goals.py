"""What is wanted of each row of suite `kernels`: ratios to PyTorch in the same run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

FORWARD, BOTH, STEP, UPDATE = "forward", "forward + backward", "step", "update"

# By instruction set, on one thread: (beginning of the row's name, what is timed, PyTorch's time over tapegrad's).
PRODUCTS = ("64x64x64", "128x128x128", "256x256x256", "128x784x128")
GOALS: dict[str, list[tuple[str, str, float]]] = {
    "avx512": [
        ("upsample x2 (100,3,10,10)", FORWARD, 25),
        ("upsample x2 (100,3,10,10)", BOTH, 12),
        ("conv2d (100,3,10,10)", FORWARD, 7),
        ("conv2d (100,3,10,10)", BOTH, 6),
        ("sigmoid 3e4", FORWARD, 1.3),
        ("relu 3e4", BOTH, 1.5),
        ("sigmoid 3e4", BOTH, 1.5),
        ("mse (100,3,10,10)", BOTH, 1.5),
        ("matmul 25x25x25", FORWARD, 3),
        *((f"matmul {size}", FORWARD, 2) for size in PRODUCTS),
        ("matmul 1024x1024x1024", FORWARD, 1.8),
        ("autoencoder", STEP, 1.3),
    ],
    "avx2": [
        *((f"matmul {size}", FORWARD, 1.1) for size in (*PRODUCTS, "1024x1024x1024")),
        ("autoencoder", STEP, 1.1),
    ],
}
EVERYWHERE = [
    ("2-25-25-25-2, SGD", STEP, 2.5),
    ("8,000 tiny ops, y * 1.0001", BOTH, 1.5),
    ("8,000 tiny ops, tanh", BOTH, 1.1),
]

# For every other op, with any number of threads.
LARGE, LARGE_RATIO = 30_000, 0.9  # elements; PyTorch's time over tapegrad's, for ops with a kernel
OVERHEAD = 1.5e-6  # seconds over PyTorch's recorded op, for smaller arrays and for views


@dataclass(frozen=True)
class Verdict:
    """A goal and whether the row meets it."""

    text: str
    met: bool


def judge(row: dict[str, Any], isa: str) -> Verdict | None:
    """The goal for a row, if it has one."""
    for name, what, wanted in GOALS.get(isa, []) + EVERYWHERE:
        if row["threads"] == 1 and row["name"].startswith(name) and row["what"] == what:
            return Verdict(f"{wanted:g}x", row["ratio"] >= wanted)
    if row["what"] == STEP:
        return None
    if row["elements"] >= LARGE:
        has_kernel = row["kernel"] is not None or row["what"] == UPDATE
        return Verdict(f"{LARGE_RATIO}x", row["ratio"] >= LARGE_RATIO) if has_kernel else None
    over = row["tapegrad"].median - row["torch"].median
    return Verdict(f"+{OVERHEAD * 1e6:g} us", over <= OVERHEAD)
