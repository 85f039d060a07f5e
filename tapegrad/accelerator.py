"""``tg.accelerator``: what scripts ask of an accelerator, answered for a machine that has none."""

from __future__ import annotations

from typing import Any

from .core import StateError

__all__ = [
    "current_accelerator",
    "current_device_index",
    "device_count",
    "device_index",
    "empty_cache",
    "is_available",
    "manual_seed",
    "manual_seed_all",
    "set_device_index",
    "synchronize",
]


def is_available() -> bool:
    """False: tapegrad computes on the CPU."""
    return False


def current_accelerator(check_available: bool = False) -> None:
    """None: there is no accelerator."""


def device_count() -> int:
    """0."""
    return 0


def synchronize(device: Any = None) -> None:
    """Nothing to wait for: an op has finished when it returns."""


def empty_cache() -> None:
    """Nothing to empty."""


def manual_seed(seed: int) -> None:
    """Nothing to seed; `tapegrad.manual_seed` seeds the CPU's generator."""


manual_seed_all = manual_seed


def current_device_index() -> int:
    """Raises StateError: there is no accelerator."""
    raise StateError("accelerator.current_device_index: there is no accelerator; tapegrad computes on the CPU")


def device_index(device: Any) -> Any:
    """Raises StateError: there is no accelerator."""
    raise StateError("accelerator.device_index: there is no accelerator; tapegrad computes on the CPU")


def set_device_index(device: Any) -> None:
    """Raises StateError: there is no accelerator."""
    raise StateError("accelerator.set_device_index: there is no accelerator; tapegrad computes on the CPU")
