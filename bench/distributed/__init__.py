"""Suite `distributed`: what averaging gradients over processes costs, and a model of where it pays."""

from .suite import run

__all__ = ["run"]
