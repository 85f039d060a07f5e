"""Derivatives of recorded values: `grad`, the function transforms of ``tg.func``, the check against differences, and
recomputing instead of saving. Imports the core and the ops.
"""

from .check import gradcheck, gradgradcheck
from .gradients import grad
from .recompute import checkpoint

__all__ = ["checkpoint", "grad", "gradcheck", "gradgradcheck"]
