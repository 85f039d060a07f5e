"""Fair timing of two callables: in one process, on the same threads, in blocks that take turns.

A machine's speed drifts (frequency, other processes), so one side after the other compares two different machines.
Blocks of calls are timed A B, B A, A B, ... instead; each side's figure is the median over its blocks, and a drift
falls on both.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Timing:
    """Seconds per call of one side, one figure per block; the first `warmup` blocks stay out of the statistics."""

    warmup: int
    blocks: list[float] = field(default_factory=list)

    @property
    def measured(self) -> list[float]:
        """The blocks behind the warm-up."""
        return self.blocks[self.warmup :]

    @property
    def median(self) -> float:
        """Median seconds per call."""
        return statistics.median(self.measured)

    @property
    def spread(self) -> float:
        """Half the distance between the quartiles, in seconds: half of the blocks lie within median +- spread."""
        if len(self.measured) < 2:
            return 0.0
        low, _, high = statistics.quantiles(self.measured, n=4, method="inclusive")
        return (high - low) / 2


def take_turns(
    sides: Sequence[Callable[[], Any]],
    *,
    blocks: int,
    calls: int,
    warmup: int = 1,
    after_block: Callable[[int], None] | None = None,
) -> list[Timing]:
    """Call every side `blocks * calls` times, in blocks that take turns; one `Timing` per side.

    Parameters
    ----------
    sides : the callables to compare; verify that they agree before timing them
    blocks, calls : number of blocks, and calls in a block (choose a block of at least a millisecond)
    warmup : blocks that are run and recorded but kept out of the statistics
    after_block : called with the block's number when all sides have run it; its time is not counted
    """
    if not 0 <= warmup < blocks:
        raise ValueError(f"take_turns: warmup = {warmup} must be at least 0 and below blocks = {blocks}")
    timings = [Timing(warmup) for _ in sides]
    pairs = list(zip(sides, timings, strict=True))
    for block in range(blocks):
        for side, timing in pairs if block % 2 == 0 else reversed(pairs):
            start = time.perf_counter()
            for _ in range(calls):
                side()
            timing.blocks.append((time.perf_counter() - start) / calls)
        if after_block is not None:
            after_block(block)
    return timings


def ratio(ours: Timing, theirs: Timing) -> float:
    """How many times faster `ours` is: the median of the ratios of neighbouring blocks."""
    return statistics.median(b / a for a, b in zip(ours.measured, theirs.measured, strict=True))
