"""To torch's modules and back, to files and back. Imports the core and the networks."""

from .atomic import write
from .interchange import from_torch, to_torch
from .safetensors import load, save

__all__ = ["from_torch", "load", "save", "to_torch", "write"]
