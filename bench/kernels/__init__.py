"""Suite `kernels`: every kernel beside PyTorch's, whole eager steps, updates and peak memory."""

from .suite import run

__all__ = ["run"]
