"""Suite `together`: many networks at once by `run_together`, beside one after the other and JAX's vmap."""

from .suite import run

__all__ = ["run"]
