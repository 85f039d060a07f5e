"""The command line: everything that can be wrong is said before anything runs."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

# Each suite is a room of this package whose door is run(options); a true result says that something failed.
SUITES = {
    "train": "three networks trained beside PyTorch: disk, handwritten digits, denoising autoencoder",
    "kernels": "every kernel, whole eager steps and their peak memory beside PyTorch",
    "steps": "whole training steps, eager and compiled, beside PyTorch, torch.compile and JAX (extra bench-jax)",
    "growth": "a step's time and bytes over width, depth, batch and length, beside PyTorch and JAX (extra bench-jax)",
    "latency": "one small network asked one question at a time, beside NumPy, PyTorch, JAX and ONNX Runtime",
    "sklearn": "scikit-learn's perceptrons and grid search beside tapegrad.sklearn's",
    "together": "many networks at once beside one after the other, and beside JAX's vmap (extra bench-jax)",
    "distributed": "gradients averaged over 1, 2 and 3 processes: its time, and a model of where it pays",
    "ops_page": "the table of all ops, written from the registry",
    "reports": "the experiments of five reports, tapegrad beside PyTorch and what they printed; a page of results",
}
ROOMS = {"ops_page": "pages"}  # where a suite's room has another name
REPORTS = ("r1", "r2", "r3", "r4", "r5")
PIP_NAMES = {"sklearn": "scikit-learn", "skimage": "scikit-image"}


@dataclass(frozen=True)
class Options:
    """What the command line says: fewer steps or not, the folder for results, torch's number of threads.

    `only` are the reports that suite `reports` runs.
    """

    quick: bool
    out: Path
    threads: int
    only: tuple[str, ...] = REPORTS


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, check, run; the process's exit code."""
    parser = argparse.ArgumentParser(
        prog="python bench",
        description="Benchmarks of tapegrad beside PyTorch. Prints tables; writes JSON and PNG files to --out.",
        epilog="suites: " + "; ".join(f"{name}: {text}" for name, text in SUITES.items()),
    )
    parser.add_argument("suite", nargs="?", default="train", choices=[*SUITES, "all"], help="default: train")
    parser.add_argument("--quick", action="store_true", help="fewer steps and sizes: under two minutes a suite")
    default_out = Path(__file__).resolve().parent / "out"
    parser.add_argument("--out", type=Path, default=default_out, metavar="DIR", help="results (default: bench/out)")
    parser.add_argument("--threads", type=int, default=None, metavar="N", help="for both sides (default: torch's)")
    parser.add_argument("--only", default=None, metavar="R1,R2", help="suite reports: some of " + ", ".join(REPORTS))
    chosen = parser.parse_args(arguments)
    names = list(SUITES) if chosen.suite == "all" else [chosen.suite]

    problem = (
        check_only(chosen.only, chosen.suite)
        or check_installed()
        or check_threads(chosen.threads)
        or check_writable(chosen.out)
    )
    if problem:
        parser.error(problem)
    modules = [importlib.import_module(f"bench.{ROOMS.get(name, name)}") for name in names]

    import torch  # only now: check_installed has said what to do where it is missing

    if chosen.threads is not None:
        torch.set_num_threads(chosen.threads)
    only = tuple(chosen.only.split(",")) if chosen.only else REPORTS
    options = Options(chosen.quick, chosen.out.resolve(), torch.get_num_threads(), only)
    failures = [module.run(options) for module in modules]
    return 1 if any(failures) else 0


def check_only(only: str | None, suite: str) -> str | None:
    """What is wrong with the choice of reports."""
    if only is None:
        return None
    if suite not in ("reports", "all"):
        return f"--only chooses reports of suite 'reports'; the suite is '{suite}'"
    unknown = [name for name in only.split(",") if name not in REPORTS]
    return f"--only: unknown report '{unknown[0]}'; known: {', '.join(REPORTS)}" if unknown else None


def check_installed() -> str | None:
    """What keeps tapegrad or a package of the `bench` extra from being imported, with the command that mends it."""
    needed = ["numpy", "sklearn", "skimage", "matplotlib", "tqdm"]
    missing = [PIP_NAMES.get(name, name) for name in needed if importlib.util.find_spec(name) is None]
    if missing:
        return f"{', '.join(missing)} missing; install with: pip install '.[bench]'"
    try:
        importlib.import_module("tapegrad")
    except ImportError as error:
        return f"tapegrad cannot be imported: {error}; to install it: pip install '.[bench]'"
    return None


def check_threads(threads: int | None) -> str | None:
    return f"--threads must be at least 1; got {threads}" if threads is not None and threads < 1 else None


def check_writable(out: Path) -> str | None:
    """Why no file can be written to the folder; makes the folder."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            return None
    except OSError as error:
        return f"--out: cannot write to '{out}': {error.strerror or error}"
