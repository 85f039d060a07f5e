"""``tg.cuda``: what scripts ask of CUDA devices, answered for a machine that has none.

Questions are answered (`is_available` is False, `device_count` 0), what concerns a device alone does nothing
(`manual_seed`, `empty_cache`, `synchronize`), and what would need one raises StateError.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..core import OutOfMemoryError, StateError
from . import amp

_ANSWERS: dict[str, tuple[Any, str]] = {
    "is_available": (False, "False: tapegrad computes on the CPU."),
    "is_initialized": (False, "False: there is no device."),
    "is_bf16_supported": (False, "False: tapegrad computes in float32 and float64."),
    "device_count": (0, "0."),
    "memory_allocated": (0, "0 bytes."),
    "memory_reserved": (0, "0 bytes."),
    "max_memory_allocated": (0, "0 bytes."),
    "max_memory_reserved": (0, "0 bytes."),
    "manual_seed": (None, "Nothing to seed; `tapegrad.manual_seed` seeds the CPU's generator."),
    "manual_seed_all": (None, "Nothing to seed; `tapegrad.manual_seed` seeds the CPU's generator."),
    "seed_all": (None, "Nothing to seed."),
    "memory_summary": ("", "No text: there is no device."),
    "memory_stats": ({}, "No figures: there is no device."),
    "memory_cached": (0, "0 bytes."),
    "max_memory_cached": (0, "0 bytes."),
    "get_rng_state_all": ([], "No states: there is no device."),
    "set_rng_state_all": (None, "Nothing to set."),
    "reset_accumulated_memory_stats": (None, "Nothing to reset."),
    "set_per_process_memory_fraction": (None, "Nothing to limit."),
    "get_arch_list": ([], "No architectures."),
    "init": (None, "Nothing to initialise."),
    "empty_cache": (None, "Nothing to empty."),
    "ipc_collect": (None, "Nothing to collect."),
    "reset_peak_memory_stats": (None, "Nothing to reset."),
    "reset_max_memory_allocated": (None, "Nothing to reset."),
    "synchronize": (None, "Nothing to wait for: an op has finished when it returns."),
}
_NEED_A_DEVICE = """
current_device current_stream get_device_name get_device_properties mem_get_info get_device_capability set_device
device stream default_stream set_stream Event Stream CUDAGraph graph get_rng_state set_rng_state
FloatTensor DoubleTensor HalfTensor LongTensor IntTensor ByteTensor BoolTensor
"""

__all__ = [*_ANSWERS, *_NEED_A_DEVICE.split(), "OutOfMemoryError", "amp"]


def _answering(name: str, answer: Any, what: str) -> Callable[..., Any]:
    def function(*args: Any, **kwargs: Any) -> Any:
        return answer

    function.__name__ = function.__qualname__ = name
    function.__doc__ = what
    return function


def _refusing(name: str) -> Callable[..., Any]:
    def function(*args: Any, **kwargs: Any) -> Any:
        raise StateError(f"cuda.{name}: there is no CUDA device; ask cuda.is_available(), and compute on the CPU")

    function.__name__ = function.__qualname__ = name
    function.__doc__ = "Raises StateError: there is no CUDA device."
    return function


globals().update({name: _answering(name, *answer) for name, answer in _ANSWERS.items()})
globals().update({name: _refusing(name) for name in _NEED_A_DEVICE.split()})


def __getattr__(name: str) -> Any:
    raise AttributeError(f"tapegrad.cuda has no {name!r}: tapegrad computes on the CPU")
