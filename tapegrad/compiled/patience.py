"""A word to who waits: what takes so long, when a step is so long that recording or planning it takes seconds."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable

SECONDS = 2.0
OFTEN = 4096  # operations between two looks at the clock while recording


class Patience:
    """Warns once for a compiled step, in the first stage that is looked at more than two seconds after `begin`."""

    def __init__(self) -> None:
        self._since = time.monotonic()
        self._said = False
        self.tell: Callable[[str], None] | None = None  # a progress bar

    def begin(self) -> None:
        """A call starts that is recorded."""
        self._since = time.monotonic()

    def look(self, stage: str, operations: int) -> None:
        """``stage`` is about to begin, or goes on; with few operations it is the step itself that takes long."""
        seconds = time.monotonic() - self._since
        if self.tell is not None and operations >= OFTEN:
            self.tell(f"{stage} {operations:,} operations")
        if self._said or operations < OFTEN or seconds < SECONDS:
            return
        self._said = True
        warnings.warn(
            f"compile: {stage} a step of {operations} operations: {seconds:.1f} s so far. Each signature is recorded "
            "twice and planned once; compile the body of a long loop instead, or a shorter loop, to wait less",
            RuntimeWarning,
            stacklevel=2,
        )
