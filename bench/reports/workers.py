"""Independent runs spread over processes of one torch thread each, with a progress bar that moves while they train."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

BENCH = Path(__file__).resolve().parent.parent
# A fresh process does not find `bench` on its path: the package's own entry loads it.
START = """
import runpy
runpy.run_path(entry, run_name="worker")
from bench.reports import workers
workers.begin(counter)
"""
steps_done: Any = None  # in a worker: the number of steps that all workers have done


def begin(counter: Any) -> None:
    """In a new worker: one thread, and the counter that the parent watches."""
    global steps_done
    steps_done = counter
    torch.set_num_threads(1)


def advance(steps: int) -> None:
    """Called by a job when it has done so many of its steps."""
    if steps_done is not None:
        with steps_done.get_lock():
            steps_done.value += steps


class Workers:
    """A pool of processes that starts with the first job and serves all reports.

    Parameters
    ----------
    processes : how many jobs run at once
    """

    def __init__(self, processes: int) -> None:
        self.processes = processes
        self.counter: Any = None
        self.pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """End the processes; the next job starts new ones."""
        if self.pool is not None:
            self.pool.shutdown(cancel_futures=True)
            self.pool = None

    def map(
        self, function: Callable[..., Any], jobs: Sequence[tuple[Any, ...]], steps: Sequence[int], label: str
    ) -> list[Any]:
        """`function(*job)` for every job, in their order.

        Parameters
        ----------
        function : of a module of this package; jobs and results are pickled
        jobs : the arguments of each call
        steps : how many steps each job reports by `advance`
        label : of the progress bar
        """
        if self.pool is None:
            context = multiprocessing.get_context("spawn")
            self.counter = context.Value("q", 0)
            given = {"entry": str(BENCH / "__main__.py"), "counter": self.counter}
            self.pool = ProcessPoolExecutor(self.processes, context, initializer=exec, initargs=(START, given))
        self.counter.value = 0
        try:
            futures = [self.pool.submit(function, *job) for job in jobs]
            # tqdm is silent where the output is no terminal
            with tqdm(total=sum(steps), desc=label, unit="step", unit_scale=True, disable=None, leave=False) as bar:
                waiting = set(futures)
                while waiting:
                    done, waiting = wait(waiting, timeout=0.2)
                    bar.update(self.counter.value - bar.n)
                    for future in done:
                        future.result()  # the first failure ends the wait
            return [future.result() for future in futures]
        except BaseException as error:
            if isinstance(error, BrokenProcessPool | KeyboardInterrupt):
                self.close()
            else:
                for future in futures:
                    future.cancel()
            raise
