"""Suite `steps`: whole training steps, eager and compiled, beside PyTorch, torch.compile and JAX."""

from .suite import run

__all__ = ["run"]
