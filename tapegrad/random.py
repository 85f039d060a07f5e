"""``tg.random``: the seeds and states of the default generator under torch's other module name."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .ops import default_generator, manual_seed
from .settings import get_rng_state, initial_seed, seed, set_rng_state

__all__ = ["default_generator", "fork_rng", "get_rng_state", "initial_seed", "manual_seed", "seed", "set_rng_state"]


@contextmanager
def fork_rng(devices: Any = None, enabled: bool = True, **options: Any) -> Iterator[None]:
    """Inside, the default generator may be seeded and drawn from; afterwards it stands where it stood."""
    before = default_generator.get_state()
    try:
        yield
    finally:
        if enabled:
            default_generator.set_state(before)
