"""To torch's modules and back, to files and back. Imports the core and the networks."""

from .atomic import write
from .interchange import from_torch, to_torch
from .safetensors import load, save

__all__ = ["add_safe_globals", "from_torch", "load", "safe_globals", "save", "to_torch", "write"]


class safe_globals:
    """torch's list of classes that a file may name, as a context manager; without pickle it is not asked."""

    def __init__(self, safe_globals: object) -> None:
        pass

    def __enter__(self) -> None:
        pass

    def __exit__(self, *exc: object) -> None:
        pass


def add_safe_globals(safe_globals: object) -> None:
    """torch's list of classes that a file may name: there is no pickle here, so it is not asked."""
