"""Suite `train`: three networks trained beside PyTorch."""

from .suite import run

__all__ = ["run"]
