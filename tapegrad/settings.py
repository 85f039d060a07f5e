"""Names that are torch's own things here too, and the switches of a process: dtypes, devices, threads, printing, seeds.

Half precision and complex dtypes are here to be named and compared; a Tensor of one is refused.
"""

from __future__ import annotations

from math import e, inf, nan, pi
from typing import Any

import torch
from torch import (
    Size,
    are_deterministic_algorithms_enabled,
    bfloat16,
    channels_last,
    channels_last_3d,
    complex64,
    complex128,
    contiguous_format,
    device,
    dtype,
    finfo,
    float16,
    get_default_dtype,
    get_deterministic_debug_mode,
    get_float32_matmul_precision,
    get_num_interop_threads,
    get_num_threads,
    half,
    iinfo,
    layout,
    memory_format,
    preserve_format,
    set_default_dtype,
    set_deterministic_debug_mode,
    set_flush_denormal,
    set_num_interop_threads,
    set_num_threads,
    set_printoptions,
    short,
    strided,
    use_deterministic_algorithms,
    version,
)

from .core import ArgumentError, DTypeError, Tensor, is_grad_enabled, no_grad, on_cpu, set_grad_enabled
from .ops import default_generator
from .ops.random import seed

__all__ = [
    "Size",
    "are_deterministic_algorithms_enabled",
    "bfloat16",
    "channels_last",
    "channels_last_3d",
    "complex64",
    "complex128",
    "contiguous_format",
    "device",
    "dtype",
    "e",
    "finfo",
    "float16",
    "get_default_device",
    "get_default_dtype",
    "get_deterministic_debug_mode",
    "get_float32_matmul_precision",
    "get_num_interop_threads",
    "get_num_threads",
    "get_rng_state",
    "half",
    "iinfo",
    "inf",
    "inference_mode",
    "initial_seed",
    "is_inference_mode_enabled",
    "layout",
    "memory_format",
    "nan",
    "newaxis",
    "pi",
    "preserve_format",
    "seed",
    "set_default_device",
    "set_default_dtype",
    "set_default_tensor_type",
    "set_deterministic_debug_mode",
    "set_float32_matmul_precision",
    "set_flush_denormal",
    "set_num_interop_threads",
    "set_num_threads",
    "set_printoptions",
    "set_rng_state",
    "short",
    "strided",
    "use_deterministic_algorithms",
    "version",
]

newaxis = None


def inference_mode(mode: Any = True) -> Any:
    """`no_grad` under torch's other name: a context manager or decorator; ``inference_mode(False)`` changes nothing."""
    if callable(mode):
        return no_grad()(mode)
    return no_grad() if mode else set_grad_enabled(is_grad_enabled())


def is_inference_mode_enabled() -> bool:
    """Whether recording is off."""
    return not is_grad_enabled()


def get_default_device() -> device:
    """The CPU."""
    return device("cpu")


def set_default_device(device: Any) -> None:
    """Accepts the CPU; DTypeError for another."""
    on_cpu(device, "set_default_device")


def set_default_tensor_type(t: Any) -> None:
    """The default dtype, by one of the constructors (`tapegrad.DoubleTensor`) or its name."""
    kind = getattr(t, "dtype", None) or {"torch.FloatTensor": torch.float32, "torch.DoubleTensor": torch.float64}.get(t)
    if kind not in (torch.float32, torch.float64):
        raise DTypeError(f"set_default_tensor_type: t must be FloatTensor or DoubleTensor; got {t!r}")
    set_default_dtype(kind)


def set_float32_matmul_precision(precision: str) -> None:
    """Products are always exact float32: "highest", "high" and "medium" are accepted and change nothing."""
    if precision not in ("highest", "high", "medium"):
        raise ArgumentError(f"set_float32_matmul_precision: must be highest, high or medium; got {precision!r}")


def initial_seed() -> int:
    """The default generator's seed."""
    return default_generator.get_state()[0]


def get_rng_state() -> Tensor:
    """The state of the default generator: its seed and offset as 16 bytes, uint8 [16]."""
    words = b"".join(number.to_bytes(8, "little") for number in default_generator.get_state())
    return Tensor(torch.frombuffer(bytearray(words), dtype=torch.uint8))


def set_rng_state(new_state: Any) -> None:
    """Continue from a state that `get_rng_state` gave."""
    values = bytes(new_state.tolist())
    if len(values) != 16:
        raise ArgumentError(f"set_rng_state: new_state must be 16 bytes, from get_rng_state; got {len(values)}")
    default_generator.set_state((int.from_bytes(values[:8], "little"), int.from_bytes(values[8:], "little")))
