"""Suite `ops_page`: the page of all ops, written from the registry."""

from .ops import run

__all__ = ["run"]
