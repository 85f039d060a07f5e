"""``tg.backends.cuda``: flags of CUDA's products and attention, which can be set and change nothing."""

import contextlib
from types import SimpleNamespace
from typing import Any

matmul = SimpleNamespace(
    allow_tf32=False, allow_fp16_reduced_precision_reduction=False, allow_bf16_reduced_precision_reduction=False
)


def is_built() -> bool:
    """False: tapegrad computes on the CPU."""
    return False


def enable_flash_sdp(enabled: bool) -> None:
    """Attention has one form here."""


def enable_mem_efficient_sdp(enabled: bool) -> None:
    """Attention has one form here."""


def enable_math_sdp(enabled: bool) -> None:
    """Attention has one form here."""


def sdp_kernel(**options: Any) -> Any:
    """A context manager that changes nothing."""
    return contextlib.nullcontext()
