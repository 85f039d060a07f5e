"""Suite `latency`: one small network asked one question at a time, and what a compiled call is made of."""

from .suite import run

__all__ = ["run"]
