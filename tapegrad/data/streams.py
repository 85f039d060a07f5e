"""The random numbers of a seed: every data set and every order of batches is a function of its seed alone."""

from __future__ import annotations

import torch

from ..core import _C
from ..ops.random import Generator, default_generator


def stream(seed: int, number: int = 0) -> Generator:
    """The random numbers of one seed; streams of different `number` share none."""
    generator = Generator(seed)
    generator.offset = number << 48
    return generator


def drawn_seed() -> int:
    """A seed from the default generator, which ``tg.manual_seed`` sets."""
    return integers(2**62, 1, default_generator)[0]


def integers(high: int, n: int, generator: Generator) -> list[int]:
    """`n` uniform integers in [0, high)."""
    values: list[int] = _C.random_int(0, high, [n], *generator.take(n, torch.int64)).tolist()
    return values
