"""Suite `growth`: time and bytes of a training step over width, depth, batch and length, beside PyTorch and JAX."""

from .suite import run

__all__ = ["run"]
