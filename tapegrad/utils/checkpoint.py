"""``tg.utils.checkpoint``: `tapegrad.checkpoint` with torch's options, and for a sequence of modules."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from ..derivatives import checkpoint as recomputed

__all__ = ["checkpoint", "checkpoint_sequential"]


def checkpoint(function: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """`tapegrad.checkpoint`: random numbers are always replayed, and nothing is re-entrant, whatever the options say.

    ``use_reentrant``, ``preserve_rng_state``, ``determinism_check``, ``context_fn`` and ``debug`` are taken and change
    nothing; other keywords go to the function.
    """
    known = ("use_reentrant", "preserve_rng_state", "determinism_check", "context_fn", "debug", "early_stop")
    named = {key: value for key, value in options.items() if key not in known}
    return recomputed(lambda *given: function(*given, **named), *args)


def checkpoint_sequential(functions: Iterable[Callable[..., Any]], segments: int, input: Any, **options: Any) -> Any:
    """The functions one after the other, in ``segments`` parts of which each keeps its input only."""
    steps = list(functions)
    length = max(len(steps) // segments, 1)
    starts = [i * length for i in range(min(segments, len(steps)))]
    for start, end in zip(starts, [*starts[1:], len(steps)], strict=True):
        part = steps[start:end]

        def run(x: Any, part: list[Callable[..., Any]] = part) -> Any:
            for step in part:
                x = step(x)
            return x

        input = checkpoint(run, input, **options)
    return input
