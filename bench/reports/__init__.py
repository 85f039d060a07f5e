"""Suite `reports`: the experiments of five reports on small frameworks, tapegrad beside PyTorch.

``python bench reports --out bench/results`` writes the page that is kept in the repository. What the reports printed,
and what is corrected in them, stands in the module of each.
"""

from __future__ import annotations

import importlib
import time
import traceback

import torch

from ..cli import Options
from ..common.tables import environment, write_json
from .page import write_page
from .record import text
from .workers import Workers


def run(options: Options) -> list[str]:
    """Run the chosen reports, each to its tables, JSON and pictures; then the page. The names of those that failed.

    A report that fails is printed with its traceback and does not keep the others from running; its results of an
    earlier run, if there are any, stay on the page.
    """
    machine = environment(options.threads)
    print(", ".join(f"{name} {value}" for name, value in machine.items()))
    print(f"float32; {options.threads} processes of one thread; what is timed runs alone, on one thread")
    failed = []
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with Workers(options.threads) as workers:
            for name in options.only:
                module = importlib.import_module(f"{__name__}.{name}")
                start = time.perf_counter()
                try:
                    result = module.run(options, workers)
                except Exception:  # whatever it is, the other reports still run
                    traceback.print_exc()
                    failed.append(name)
                    continue
                result["environment"] = machine
                result["quick"] = options.quick
                result["seconds"] = time.perf_counter() - start
                write_json(options.out / f"{name}.json", result)
                print(f"\n{text(result)}\n({result['seconds']:.0f} s)", flush=True)
    finally:
        torch.set_num_threads(threads)
    write_page(options.out)
    print(f"\nwritten to {options.out}: README.md, and JSON and PNG files of {', '.join(options.only)}")
    if failed:
        print(f"FAILED: {', '.join(failed)}; the tracebacks stand above")
    return failed
